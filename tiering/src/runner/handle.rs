//! What the rest of the broker holds of the runner.

use std::sync::Arc;
use std::time::Duration;

use proto::ids::{Offset, TopicId, TopicPartition};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::status::{Board, PartitionStatus};
use crate::plan::Hold;
use crate::ports::LocalLog;

/// What a handle asks of the runner.
#[derive(Debug)]
pub(super) enum Request {
    Nudge(TopicPartition),
    Flush(TopicPartition, Offset),
    Hold(TopicPartition, Offset, oneshot::Sender<Option<Hold>>),
    Stop,
}

/// Cheap clone. The runner goes on if all handles are dropped; [`stop`](Self::stop) ends it.
#[derive(Clone)]
pub struct RunnerHandle {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) board: Arc<Board>,
    pub(super) locals: Arc<dyn LocalLog>,
    /// What uploads may still take, in KiB, and what they may take in all.
    pub(super) budget: Arc<Semaphore>,
    pub(super) budget_kib: usize,
    pub(super) stopped: watch::Receiver<bool>,
}

impl std::fmt::Debug for RunnerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunnerHandle").finish_non_exhaustive()
    }
}

/// Memory of the objects that are on their way into the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadMemory {
    /// Taken now.
    pub used_bytes: u64,
    /// Never more than this.
    pub limit_bytes: u64,
}

/// How far a flush has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushProgress {
    /// Partitions of the topic that this broker leads.
    pub partitions: usize,
    /// Those that are tiered up to where their log ended when the flush began.
    pub done: usize,
    /// Records still to be tiered, over all partitions.
    pub records_left: u64,
}

/// A flush that did not come to its end: what holds back which partition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", describe(held))]
pub struct FlushError {
    /// Partitions that are not tiered up to the target, with the reason as far as there is one.
    pub held: Vec<(TopicPartition, Option<Hold>)>,
}

fn describe(held: &[(TopicPartition, Option<Hold>)]) -> String {
    let reasons: Vec<String> = held
        .iter()
        .map(|(tp, hold)| match hold {
            Some(hold) => format!("partition {}: {hold}", tp.partition),
            None => format!("partition {}: still uploading", tp.partition),
        })
        .collect();
    format!("not everything is tiered: {}", reasons.join("; "))
}

impl RunnerHandle {
    /// A partition may have something to do: a segment is full, a topic's settings changed, records
    /// were deleted. Never waits; a nudge that finds no room is made up for by the next tick.
    pub fn nudge(&self, tp: TopicPartition) {
        let _ = self.requests.try_send(Request::Nudge(tp));
    }

    /// Status of every partition this broker leads, ordered by partition.
    pub fn status(&self) -> Vec<PartitionStatus> {
        self.board.all()
    }

    /// Memory that uploads hold at this moment.
    pub fn upload_memory(&self) -> UploadMemory {
        let used_kib = self.budget_kib.saturating_sub(self.budget.available_permits());
        UploadMemory { used_bytes: (used_kib as u64) << 10, limit_bytes: (self.budget_kib as u64) << 10 }
    }

    /// Changes whenever a status does.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.board.watch()
    }

    /// Uploads everything of `topic` that this broker leads and that is in the log now, and waits until
    /// it is tiered. `progress` is called whenever something changed.
    ///
    /// # Errors
    /// After `timeout`: what holds back which partition.
    pub async fn flush(
        &self,
        topic: TopicId,
        timeout: Duration,
        mut progress: impl FnMut(FlushProgress) + Send,
    ) -> Result<FlushProgress, FlushError> {
        let targets: Vec<(TopicPartition, Offset)> = self
            .locals
            .led()
            .into_iter()
            .filter(|tp| tp.topic == topic)
            .filter_map(|tp| Some((tp, self.locals.state(tp)?.log_end)))
            .collect();
        let mut changes = self.board.watch();
        for (tp, target) in &targets {
            // A runner that has stopped shows in the wait below.
            let _ = self.requests.send(Request::Flush(*tp, *target)).await;
        }
        let wait = async {
            loop {
                changes.mark_unchanged();
                let now = self.progress(&targets);
                progress(now);
                if now.done == now.partitions {
                    return now;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let mut stopped = self.stopped.clone();
        let ended = async {
            tokio::select! {
                biased;
                progress = wait => Some(progress),
                _ = stopped.wait_for(|stopped| *stopped) => None,
            }
        };
        match tokio::time::timeout(timeout, ended).await {
            Ok(Some(progress)) => Ok(progress),
            // Nobody waits for what will not come: the node ends.
            Ok(None) | Err(_) => Err(FlushError { held: self.held(&targets).await }),
        }
    }

    /// Ends the runner. Uploads under way are dropped, which is safe at any moment; what they may have
    /// left in the store is found by the next leader.
    pub async fn stop(&self) {
        let _ = self.requests.send(Request::Stop).await;
        let mut stopped = self.stopped.clone();
        // An error means that the runner's task is gone: stopped as well.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }

    fn progress(&self, targets: &[(TopicPartition, Offset)]) -> FlushProgress {
        let mut progress = FlushProgress { partitions: targets.len(), done: 0, records_left: 0 };
        for (tp, target) in targets {
            let left = self.left(*tp, *target);
            progress.records_left += left;
            progress.done += usize::from(left == 0);
        }
        progress
    }

    fn left(&self, tp: TopicPartition, target: Offset) -> u64 {
        let end = self.board.get(tp).map_or(0, |status| status.tier_end);
        u64::try_from(target - end).unwrap_or(0)
    }

    async fn held(&self, targets: &[(TopicPartition, Offset)]) -> Vec<(TopicPartition, Option<Hold>)> {
        let mut held = Vec::new();
        for (tp, target) in targets.iter().filter(|(tp, target)| self.left(*tp, *target) > 0) {
            let (answer, answered) = oneshot::channel();
            let sent = self.requests.send(Request::Hold(*tp, *target, answer)).await;
            let hold = match sent {
                Ok(()) => answered.await.unwrap_or(None),
                Err(_) => Some(Hold::Failing("tiering has stopped".to_owned())),
            };
            held.push((*tp, hold));
        }
        held
    }
}
