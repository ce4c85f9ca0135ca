//! Byte budgets: memory is admitted here before it is filled (BOUNDED).
//!
//! A budget never over-commits. A single request larger than the whole budget would wait for ever, so it is
//! clamped to the budget: it then runs alone. Who holds a grant can see whether others wait for it, and must not keep them waiting
//! for the sake of a peer that does nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bound in bytes shared by all who hold a clone.
#[derive(Clone, Debug)]
pub struct Budget {
    free: Arc<Semaphore>,
    total_bytes: usize,
    waiting: Arc<AtomicUsize>,
}

/// Bytes taken from a [`Budget`]; given back when dropped.
#[derive(Debug)]
pub struct Grant {
    permit: OwnedSemaphorePermit,
    waiting: Arc<AtomicUsize>,
}

/// Counted while it waits, also when the wait is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn at(count: &'a AtomicUsize) -> Waiting<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Budget {
    /// A budget of `total_bytes`, at least one byte and at most what a semaphore can count.
    pub fn new(total_bytes: usize) -> Budget {
        let total_bytes = total_bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Budget { free: Arc::new(Semaphore::new(total_bytes)), total_bytes, waiting: Arc::default() }
    }

    /// Waits until `bytes` are free. Grants are served in the order they were asked for.
    pub async fn admit(&self, bytes: usize) -> Grant {
        if let Some(grant) = self.try_admit(bytes) {
            return grant;
        }
        let waiting = Waiting::at(&self.waiting);
        let permit = Arc::clone(&self.free)
            .acquire_many_owned(self.clamp(bytes))
            .await
            .expect("the semaphore of a budget is never closed");
        drop(waiting);
        Grant { permit, waiting: Arc::clone(&self.waiting) }
    }

    /// Takes `bytes` if they are free now.
    pub fn try_admit(&self, bytes: usize) -> Option<Grant> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(self.clamp(bytes)).ok()?;
        Some(Grant { permit, waiting: Arc::clone(&self.waiting) })
    }

    /// The size of the budget in bytes.
    pub fn total_bytes(&self) -> usize {
        self.total_bytes
    }

    /// Bytes that could be granted at this moment.
    pub fn free_bytes(&self) -> usize {
        self.free.available_permits()
    }

    /// Bytes granted at this moment.
    pub fn used_bytes(&self) -> usize {
        self.total_bytes - self.free.available_permits()
    }

    fn clamp(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.total_bytes)).expect("the total fits in 32 bits")
    }
}

impl Grant {
    /// Gives back all but `bytes` of the grant, once the real need is known.
    pub fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.permit.num_permits().saturating_sub(bytes);
        drop(self.permit.split(surplus));
    }

    /// Whether somebody waits for memory of the same budget.
    pub fn is_contended(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.permit.num_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn grants_are_bounded_and_come_back() {
        let budget = Budget::new(10);
        let mut first = budget.admit(8).await;
        assert!(budget.try_admit(3).is_none());
        first.shrink_to(5);
        assert_eq!((first.bytes(), budget.used_bytes()), (5, 5));
        let second = budget.try_admit(5).expect("five bytes are free");
        drop((first, second));
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn holders_see_that_others_wait_until_they_give_up() {
        let budget = Budget::new(10);
        let grant = budget.admit(10).await;
        assert!(!grant.is_contended());
        let mut waits = Box::pin(budget.admit(1));
        assert!(futures::poll!(&mut waits).is_pending());
        assert!(grant.is_contended());
        drop(waits);
        assert!(!grant.is_contended());
    }

    #[tokio::test]
    async fn what_is_larger_than_the_budget_runs_alone() {
        let budget = Budget::new(10);
        let all = budget.admit(1_000).await;
        assert_eq!(all.bytes(), 10);
        assert!(budget.try_admit(1).is_none());
    }
}
