//! Where tasks and blocking calls run.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Where calls run that block their thread.
#[derive(Debug, Clone)]
pub enum Blocking {
    /// The blocking threads of a runtime.
    Pool(Handle),
    /// A task of the runtime itself. The simulation has one thread: a second one would finish its
    /// calls in an order that no seed fixes (invariant REPLAY).
    Inline,
}

/// Where tasks run. Produce and tail reads live on `hot`; whatever may wait for the object store
/// lives on `cold`, so that it can never hold up an acknowledgement (invariant ISOLATED); calls that
/// block a thread go to `blocking`. The three may be one runtime (tests, simulation).
#[derive(Debug, Clone)]
pub struct Spawner {
    hot: Handle,
    cold: Handle,
    blocking: Blocking,
}

impl Spawner {
    /// The given runtimes.
    pub const fn new(hot: Handle, cold: Handle, blocking: Handle) -> Self {
        Self { hot, cold, blocking: Blocking::Pool(blocking) }
    }

    /// One runtime for everything.
    pub fn single(runtime: Handle) -> Self {
        Self { hot: runtime.clone(), cold: runtime.clone(), blocking: Blocking::Pool(runtime) }
    }

    /// One runtime of one thread for everything, blocking calls included.
    pub fn simulated(runtime: Handle) -> Self {
        Self { hot: runtime.clone(), cold: runtime, blocking: Blocking::Inline }
    }

    /// Runs a task of the acknowledged path.
    pub fn spawn_hot<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.hot.spawn(task)
    }

    /// Runs a task that may wait for the object store.
    pub fn spawn_cold<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.cold.spawn(task)
    }

    /// The runtime whose blocking pool calls that wait run on. In the simulation, the runtime of everything.
    pub const fn blocking(&self) -> &Handle {
        match &self.blocking {
            Blocking::Pool(runtime) => runtime,
            Blocking::Inline => &self.hot,
        }
    }

    /// Runs a call that blocks its thread.
    pub fn spawn_blocking<F, R>(&self, call: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        match &self.blocking {
            Blocking::Pool(runtime) => runtime.spawn_blocking(call),
            Blocking::Inline => self.hot.spawn(async move { call() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_simulated_host_has_one_thread() {
        let here = std::thread::current().id();
        let spawner = Spawner::simulated(Handle::current());
        let there = spawner.spawn_blocking(|| std::thread::current().id()).await.expect("it does not panic");
        assert_eq!(here, there);
    }
}
