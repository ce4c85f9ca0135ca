//! Starting a log over at the end of the tier (TIER-IS-TRUTH, KIP-1023): what the tier holds is neither fetched from a leader nor appended
//! again, and a replica that disagrees with it drops what it has.
//!
//! The end is that of the pointer in an image read linearizably: it covers whatever the leader had dropped when it sent us here. Many
//! partitions that wait for such an image share one read. Nothing here is on the path of acknowledgements (ISOLATED): while the object store
//! is down, those that need it wait.

use super::core::Because;
use crate::log::epochs::EpochEntry;
use crate::partition::{Anew, Contradiction, PartitionHandle, RewindError};
use async_trait::async_trait;
use controller::{ControllerHandle, SubmitError};
use parking_lot::Mutex;
use proto::host::Spawner;
use proto::ids::{LeaderEpoch, Offset, TopicPartition};
use proto::metadata::{Image, TierPointer};
use std::sync::Arc;
use tiering::reader::{RemoteError, RemoteReader};
use tokio::sync::oneshot;

/// Why a log did not start over.
#[derive(Debug, thiserror::Error)]
pub enum StartOverError {
    /// The quorum does not say what is tiered.
    #[error("the quorum does not answer: {0}")]
    Quorum(#[from] SubmitError),
    /// The tier does not say what it holds.
    #[error("the end of the tier cannot be read: {0}")]
    Store(#[from] RemoteError),
    /// Nothing is tiered that the log could start over at.
    #[error("nothing is tiered")]
    Nothing,
    /// The local log could not be changed.
    #[error(transparent)]
    Local(#[from] RewindError),
}

/// What the tier holds of a partition at its end.
pub type End = tiering::reader::TierEnd;

/// What starting over asks of the quorum and of the object store.
#[async_trait]
pub trait Tier: Send + Sync + 'static {
    /// The pointer as this broker's image has it.
    fn seen(&self, tp: TopicPartition) -> Option<Arc<TierPointer>>;

    /// The pointer, at least as new as any that somebody was told of before the call.
    async fn newest(&self, tp: TopicPartition) -> Result<Option<Arc<TierPointer>>, StartOverError>;

    /// Epochs and producers at the end of the tier; none if nothing is tiered.
    async fn end(&self, tp: TopicPartition, pointer: &TierPointer) -> Result<Option<End>, StartOverError>;
}

/// The quorum and the object store.
pub struct QuorumTier {
    controller: ControllerHandle,
    remote: RemoteReader,
    spawner: Spawner,
    reads: Arc<Reads>,
}

impl QuorumTier {
    /// Asks `controller` and `remote`.
    pub fn new(controller: ControllerHandle, remote: RemoteReader, spawner: Spawner) -> QuorumTier {
        QuorumTier { controller, remote, spawner, reads: Arc::default() }
    }
}

#[async_trait]
impl Tier for QuorumTier {
    fn seen(&self, tp: TopicPartition) -> Option<Arc<TierPointer>> {
        self.controller.image().tier(tp).cloned()
    }

    async fn newest(&self, tp: TopicPartition) -> Result<Option<Arc<TierPointer>>, StartOverError> {
        let (answer, answered) = oneshot::channel();
        if self.reads.wait(answer) {
            let (reads, controller) = (Arc::clone(&self.reads), self.controller.clone());
            // A task of its own: whoever began it may go away, the others still wait for it.
            self.spawner.spawn_cold(async move {
                while let Some(waiting) = reads.take() {
                    let image = controller.read_linearizable().await;
                    for one in waiting {
                        let _ = one.send(image.clone());
                    }
                }
            });
        }
        let image = answered.await.unwrap_or(Err(SubmitError::Ended))?;
        Ok(image.tier(tp).cloned())
    }

    async fn end(&self, tp: TopicPartition, pointer: &TierPointer) -> Result<Option<End>, StartOverError> {
        Ok(self.remote.tier_end(tp, pointer).await?)
    }
}

type Answer = oneshot::Sender<Result<Arc<Image>, SubmitError>>;

/// Linearizable reads under way: a read serves all who asked before it began.
#[derive(Default)]
struct Reads(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    next: Vec<Answer>,
    running: bool,
}

impl Reads {
    /// Waits for the next read; answers whether somebody has to begin reading.
    fn wait(&self, answer: Answer) -> bool {
        let mut waiting = self.0.lock();
        waiting.next.push(answer);
        !std::mem::replace(&mut waiting.running, true)
    }

    /// Those whom the next read serves; none, and reading ends.
    fn take(&self) -> Option<Vec<Answer>> {
        let mut waiting = self.0.lock();
        waiting.running = !waiting.next.is_empty();
        waiting.running.then(|| std::mem::take(&mut waiting.next))
    }
}

/// Starts the log over if it has to, and only in the `term` that it is followed, or to be led, under; durable on return. Answers whether it
/// did. This broker must not lead yet: nobody may append meanwhile.
///
/// # Errors
/// See [`StartOverError`]; the log is as it was then.
pub async fn start_over(
    handle: &PartitionHandle,
    tier: &dyn Tier,
    term: LeaderEpoch,
    because: Because,
) -> Result<bool, StartOverError> {
    let tp = handle.tp();
    let Some(pointer) = tier.newest(tp).await? else {
        let start = leader_start(handle, because).ok_or(StartOverError::Nothing)?;
        handle.reset(term, Anew { start, log_start: start, ..Anew::default() }).await?;
        tracing::warn!(%tp, offset = start, "the local log has nothing in common with its leader's, and goes on at the start of that");
        return Ok(true);
    };
    let started = if pointer.is_empty() {
        after_emptied(handle, term, &pointer, because).await?
    } else {
        let end = tier.end(tp, &pointer).await?.ok_or(StartOverError::Nothing)?;
        after_tier(handle, term, (&pointer, end), because).await?
    };
    handle.apply_pointer(&pointer, handle.dir().now_ms());
    Ok(started)
}

/// Goes on behind a tier that holds nothing: not yet, or not any more, as all of it was deleted. No record below its end can be read, and
/// nobody knows what they were.
async fn after_emptied(
    handle: &PartitionHandle,
    term: LeaderEpoch,
    pointer: &TierPointer,
    because: Because,
) -> Result<bool, StartOverError> {
    let (tp, first) = (handle.tp(), pointer.log_start.max(pointer.tier_end));
    let contradiction = handle.contradiction(pointer, None);
    let start = match contradiction {
        // What it holds at the end of nothing may be anything.
        Contradiction::None | Contradiction::Unknown => leader_start(handle, because).map(|start| start.max(first)),
        Contradiction::EndsBefore | Contradiction::OtherEpoch => Some(first),
    };
    if let Some(start) = start {
        handle.reset(term, Anew { start, log_start: start, ..Anew::default() }).await?;
        tracing::warn!(%tp, offset = start, ?contradiction, "the local log ended before the first record that is left, and goes on there");
    }
    Ok(start.is_some())
}

/// Goes on behind what the tier holds.
async fn after_tier(
    handle: &PartitionHandle,
    term: LeaderEpoch,
    (pointer, end): (&TierPointer, End),
    because: Because,
) -> Result<bool, StartOverError> {
    let tp = handle.tp();
    let known = TierPointer { tier_end: end.end, ..pointer.clone() };
    let contradiction = handle.contradiction(&known, Some(epoch_at_end(&end)));
    // What was deleted beyond the tier's end is not appended to.
    let first = pointer.log_start.max(end.end);
    let start = match contradiction {
        Contradiction::None => leader_start(handle, because).map(|start| start.max(first)),
        Contradiction::EndsBefore | Contradiction::OtherEpoch | Contradiction::Unknown => Some(first),
    };
    if let Some(start) = start {
        let entry = |(epoch, start): &(_, _)| EpochEntry { epoch: *epoch, start: *start };
        let epochs: Vec<EpochEntry> = end.epochs.entries.iter().map(entry).collect();
        let (log_start, producers) = (pointer.log_start, &*end.producers);
        handle.reset(term, Anew { start, log_start, epochs: &epochs, producers }).await?;
        tracing::warn!(%tp, offset = start, ?contradiction, "the local log was not what is tiered and goes on behind it");
    }
    Ok(start.is_some())
}

/// Epoch of the last record in the tier.
fn epoch_at_end(end: &End) -> LeaderEpoch {
    end.epochs.entries.iter().rev().find(|(_, start)| *start < end.end).map_or(-1, |(epoch, _)| *epoch)
}

/// Where a log that nothing is tiered of starts over, if it must.
fn leader_start(handle: &PartitionHandle, because: Because) -> Option<Offset> {
    let offsets = handle.offsets();
    match because {
        Because::OfTier => None,
        Because::BeforeStart(start) => {
            let is_empty = offsets.local_start == offsets.log_end;
            (offsets.log_end < start || is_empty).then_some(start)
        }
        Because::Apart(start) => Some(start),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_serves_those_who_asked_before_it_began() {
        let reads = Reads::default();
        let ask = || oneshot::channel().0;
        assert!(reads.wait(ask()), "nobody reads yet");
        assert!(!reads.wait(ask()));
        assert_eq!(reads.take().map(|waiting| waiting.len()), Some(2));
        assert!(!reads.wait(ask()), "the next read of the same");
        assert_eq!(reads.take().map(|waiting| waiting.len()), Some(1));
        assert!(reads.take().is_none());
        assert!(reads.wait(ask()), "reading had ended");
    }
}
