//! Who waits on a partition: producers for their acknowledgements, consumers for bytes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use proto::ids::Offset;
use tokio::sync::{Notify, oneshot};

use super::types::{AckError, AckFuture, Isolation};
use crate::journal::Lsn;

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
    /// A high watermark moved on a partition that a follower waits on.
    watermark: AtomicBool,
    watermark_notify: Notify,
}

impl FetchWaiter {
    /// Waits for `missing_bytes` more to become visible, on all its partitions together.
    pub fn new(missing_bytes: usize) -> Arc<Self> {
        let missing = i64::try_from(missing_bytes).unwrap_or(i64::MAX);
        Arc::new(Self {
            missing: AtomicI64::new(missing),
            notify: Notify::new(),
            watermark: AtomicBool::new(false),
            watermark_notify: Notify::new(),
        })
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

    /// Returns once a high watermark moved on a partition that was subscribed to with [`Isolation::LogEnd`]: a follower
    /// may want to learn that even if there are no records for it. What moved before the subscription is for the caller
    /// to see, by a look after it.
    pub async fn watermark_moved(&self) {
        while !self.watermark.load(Ordering::Acquire) {
            self.watermark_notify.notified().await;
        }
    }

    fn watermark_moves(&self) {
        if !self.watermark.swap(true, Ordering::AcqRel) {
            self.watermark_notify.notify_one();
        }
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
    /// How many of them wait for the log end to move: appends have to tell nobody else.
    at_log_end: usize,
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
            self.count();
            self.sweep_at = (self.list.len() * 2).max(16);
        }
        self.at_log_end += usize::from(isolation == Isolation::LogEnd);
        self.list.push(Subscription { waiter: Arc::downgrade(waiter), isolation, seen });
    }

    fn count(&mut self) {
        self.at_log_end = self.list.iter().filter(|one| one.isolation == Isolation::LogEnd).count();
    }

    /// Whether an append is news for anybody.
    pub(super) const fn wait_at_log_end(&self) -> bool {
        self.at_log_end > 0
    }

    /// Tells followers that the high watermark moved.
    pub(super) fn watermark_moved(&self) {
        if self.at_log_end == 0 {
            return;
        }
        for subscription in self.list.iter().filter(|one| one.isolation == Isolation::LogEnd) {
            if let Some(waiter) = subscription.waiter.upgrade() {
                waiter.watermark_moves();
            }
        }
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
        self.count();
    }

    /// Ends every wait.
    pub(super) fn wake_all(&mut self) {
        for subscription in self.list.drain(..) {
            if let Some(waiter) = subscription.waiter.upgrade() {
                waiter.wake();
            }
        }
        self.at_log_end = 0;
    }
}

/// Deletions that wait until they are durable here and no live replica holds the records any more.
#[derive(Debug, Default)]
pub(crate) struct DeleteWaiters {
    list: Vec<DeleteWaiter>,
}

#[derive(Debug)]
struct DeleteWaiter {
    /// Records below this go.
    to: Offset,
    /// Not durable here before the journal is, up to this.
    lsn: Option<Lsn>,
    /// The other replicas have not got there.
    elsewhere: bool,
    sender: oneshot::Sender<Result<(), AckError>>,
}

impl DeleteWaiters {
    pub(super) fn wait(&mut self, to: Offset, lsn: Option<Lsn>, elsewhere: bool) -> AckFuture {
        // Who gave up waiting is forgotten, so that requests that time out do not add up.
        self.list.retain(|waiter| !waiter.sender.is_closed());
        let (sender, receiver) = oneshot::channel();
        self.list.push(DeleteWaiter { to, lsn, elsewhere, sender });
        AckFuture::waiting(receiver)
    }

    /// The journal is durable up to `up_to`.
    pub(super) fn synced(&mut self, up_to: Lsn, told: &mut Told) {
        self.update(told, |waiter| waiter.lsn = waiter.lsn.filter(|lsn| *lsn > up_to));
    }

    /// No live replica holds anything below `least`.
    pub(super) fn reached(&mut self, least: Offset, told: &mut Told) {
        self.update(told, |waiter| waiter.elsewhere &= waiter.to > least);
    }

    fn update(&mut self, told: &mut Told, change: impl Fn(&mut DeleteWaiter)) {
        let mut at = 0;
        while let Some(waiter) = self.list.get_mut(at) {
            change(waiter);
            if waiter.lsn.is_none() && !waiter.elsewhere {
                told.push((self.list.swap_remove(at).sender, Ok(())));
            } else {
                at += 1;
            }
        }
    }

    pub(super) fn take_all(&mut self, error: AckError, told: &mut Told) {
        told.extend(self.list.drain(..).map(|waiter| (waiter.sender, Err(error))));
    }
}
