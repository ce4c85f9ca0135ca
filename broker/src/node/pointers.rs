//! The tier's pointers, as the metadata quorum keeps them.

use async_trait::async_trait;
use controller::command::{TierCommit, TierRefusal};
use controller::{Command, ControllerHandle, SubmitError};
use proto::ids::TopicPartition;
use proto::metadata::{Image, TierPointer};
use std::collections::BTreeSet;
use tiering::ports::{Commit, CommitError, DeletedPartition, PointerError, Pointers};

/// [`Pointers`] over a controller.
#[derive(Clone, Debug)]
pub(super) struct QuorumPointers {
    controller: ControllerHandle,
}

impl QuorumPointers {
    /// Pointers read from and committed to `controller`.
    pub(super) fn new(controller: ControllerHandle) -> QuorumPointers {
        QuorumPointers { controller }
    }
}

fn find(image: &Image, tp: TopicPartition) -> Option<TierPointer> {
    match image.tier(tp) {
        Some(pointer) => Some(pointer.as_ref().clone()),
        None => image.partition(tp).map(|_| TierPointer::default()),
    }
}

#[async_trait]
impl Pointers for QuorumPointers {
    fn current(&self, tp: TopicPartition) -> Option<TierPointer> {
        find(&self.controller.image(), tp)
    }

    async fn read_fresh(&self, tp: TopicPartition) -> Result<TierPointer, PointerError> {
        let image = self.controller.read_linearizable().await;
        let image = image.map_err(|error| PointerError::Unavailable(error.to_string()))?;
        find(&image, tp).ok_or(PointerError::Gone)
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<TierPointer, CommitError>> {
        let count = commits.len();
        let commits = commits
            .into_iter()
            .map(|commit| TierCommit {
                tp: commit.tp,
                leader_epoch: commit.leader_epoch,
                expected_generation: commit.expected_generation,
                request: commit.request,
                pointer: commit.pointer,
            })
            .collect();
        match self.controller.commit_tier(commits).await {
            Ok(outcomes) => outcomes
                .into_iter()
                .map(|outcome| match outcome {
                    Ok(pointer) => Ok(pointer.as_ref().clone()),
                    Err(refusal) => Err(refused(refusal)),
                })
                .collect(),
            Err(error) => vec![Err(unfinished(&error)); count],
        }
    }

    fn deleted(&self) -> Vec<DeletedPartition> {
        let image = self.controller.image();
        let topics = image.pending_deletes();
        let partitions = topics.flat_map(|topic| {
            topic.tiers.iter().map(|(partition, _)| DeletedPartition {
                tp: TopicPartition { topic: topic.id, partition: *partition },
                deleted_at: topic.deleted_at,
            })
        });
        partitions.collect()
    }

    async fn swept(&self, partitions: Vec<TopicPartition>) {
        let image = self.controller.image();
        let swept: BTreeSet<TopicPartition> = partitions.into_iter().collect();
        let done: Vec<_> = image
            .pending_deletes()
            .filter(|topic| {
                topic
                    .tiers
                    .iter()
                    .all(|(partition, _)| swept.contains(&TopicPartition { topic: topic.id, partition: *partition }))
            })
            .map(|topic| topic.id)
            .collect();
        if done.is_empty() {
            return;
        }
        // If the answer is lost, the next sweep finds nothing to delete and says so again.
        if let Err(error) = self.controller.submit(Command::FinishDeletions(done)).await {
            tracing::warn!(%error, "a finished deletion could not be recorded; it will be tried again");
        }
    }
}

fn refused(refusal: TierRefusal) -> CommitError {
    match refusal {
        TierRefusal::Stale(_) => CommitError::Stale,
        TierRefusal::Fenced { .. } => CommitError::Fenced,
        TierRefusal::Gone => CommitError::Gone,
        TierRefusal::Invalid(why) => CommitError::Refused(why.to_owned()),
    }
}

fn unfinished(error: &SubmitError) -> CommitError {
    match error {
        SubmitError::Unknown => CommitError::Unknown(error.to_string()),
        SubmitError::Refused(_) | SubmitError::NotLeader { .. } | SubmitError::NoSpace | SubmitError::Ended => {
            CommitError::Refused(error.to_string())
        }
    }
}
