//! Who waits on a partition: producers for their acknowledgements, consumers for bytes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use proto::ids::Offset;
use tokio::sync::{Notify, oneshot};

use super::types::{AckError, AckFuture, Isolation};

/// Whom to send what; to be sent once no lock is held.
pub(super) type Told = Vec<(oneshot::Sender<Result<(), AckError>>, Result<(), AckError>)>;

/// Acknowledgements owed, in offset order.
#[derive(Debug, Default)]
pub(crate) struct AckWaiters {
    queue: VecDeque<(Offset, oneshot::Sender<Result<(), AckError>>)>,
}

impl AckWaiters {
    /// Waits until everything below `end` is safe. Ends must not descend.
    pub(super) fn wait(&mut self, end: Offset) -> AckFuture {
        let (sender, receiver) = oneshot::channel();
        self.queue.push_back((end, sender));
        AckFuture::waiting(receiver)
    }

    /// Takes out those that wait for no more than `end`.
    pub(super) fn take(&mut self, end: Offset, told: &mut Told) {
        while self.queue.front().is_some_and(|(wanted, _)| *wanted <= end) {
            told.extend(self.queue.pop_front().map(|(_, sender)| (sender, Ok(()))));
        }
    }

    /// Takes out all.
    pub(super) fn take_all(&mut self, error: AckError, told: &mut Told) {
        told.extend(self.queue.drain(..).map(|(_, sender)| (sender, Err(error))));
    }
}

/// A fetch that waits for bytes, or for anything else worth another look, on one or many partitions.
///
/// Subscribe it to each with `PartitionHandle::subscribe`, then [`FetchWaiter::wait`], with a timeout. Dropping
/// it ends all subscriptions.
#[derive(Debug)]
pub struct FetchWaiter {
    missing: AtomicI64,
    notify: Notify,
}

impl FetchWaiter {
    /// Waits for `missing_bytes` more to become visible, on all its partitions together.
    pub fn new(missing_bytes: usize) -> Arc<Self> {
        let missing = i64::try_from(missing_bytes).unwrap_or(i64::MAX);
        Arc::new(Self { missing: AtomicI64::new(missing), notify: Notify::new() })
    }

    /// Returns once the bytes are there, or when something else happened that the fetch should see (the log
    /// start moved, leadership changed, the directory failed).
    pub async fn wait(&self) {
        while !self.is_done() {
            self.notify.notified().await;
        }
    }

    /// Whether there is nothing left to wait for.
    pub fn is_done(&self) -> bool {
        self.missing.load(Ordering::Acquire) <= 0
    }

    /// `bytes` became visible; answers whether the waiter is done.
    pub fn arrived(&self, bytes: u64) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX / 2);
        let left = self.missing.fetch_sub(bytes, Ordering::AcqRel).saturating_sub(bytes);
        if left <= 0 {
            self.notify.notify_one();
        }
        left <= 0
    }

    /// Ends the wait whatever is missing.
    pub fn wake(&self) {
        self.missing.store(i64::MIN / 2, Ordering::Release);
        self.notify.notify_one();
    }
}

#[derive(Debug)]
struct Subscription {
    waiter: Weak<FetchWaiter>,
    isolation: Isolation,
    /// What it has been told of so far.
    seen: Offset,
}

/// Fetches that wait on one partition.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    list: Vec<Subscription>,
    /// Length at which the ones that left are swept out.
    sweep_at: usize,
}

impl Readers {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn add(&mut self, waiter: &Arc<FetchWaiter>, isolation: Isolation, seen: Offset) {
        if self.list.len() >= self.sweep_at {
            self.list.retain(|subscription| subscription.waiter.strong_count() > 0);
            self.sweep_at = (self.list.len() * 2).max(16);
        }
        self.list.push(Subscription { waiter: Arc::downgrade(waiter), isolation, seen });
    }

    /// Tells everyone what became visible; `bytes_between` measures `[from, to)`.
    pub(super) fn advance(
        &mut self,
        visible_end: impl Fn(Isolation) -> Offset,
        bytes_between: impl Fn(Offset, Offset) -> u64,
    ) {
        self.list.retain_mut(|subscription| {
            let Some(waiter) = subscription.waiter.upgrade() else {
                return false;
            };
            let end = visible_end(subscription.isolation);
            if end <= subscription.seen {
                return true;
            }
            let bytes = bytes_between(subscription.seen, end);
            subscription.seen = end;
            !waiter.arrived(bytes)
        });
    }

    /// Ends every wait.
    pub(super) fn wake_all(&mut self) {
        for subscription in self.list.drain(..) {
            if let Some(waiter) = subscription.waiter.upgrade() {
                waiter.wake();
            }
        }
    }
}
