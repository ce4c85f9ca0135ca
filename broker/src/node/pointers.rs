//! The tier's pointers, as the metadata quorum keeps them.

use async_trait::async_trait;
use controller::command::{FinishDeletions, TierCommit, TierRefusal};
use controller::{Command, ControllerHandle, SubmitError};
use parking_lot::Mutex;
use proto::ids::TopicPartition;
use proto::metadata::{DeletedTopic, Duty, Image, TierPointer};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tiering::ports::{Commit, CommitError, DeletedPartition, PointerError, Pointers};

/// [`Pointers`] over a controller.
#[derive(Clone, Debug)]
pub(super) struct QuorumPointers {
    controller: ControllerHandle,
    /// Partitions of deleted topics that have nothing left in the store, until all of their topic are.
    swept: Arc<Mutex<BTreeSet<TopicPartition>>>,
    /// Whether the clock of this machine may be gone by.
    clock: Arc<AtomicBool>,
}

impl QuorumPointers {
    /// Pointers read from and committed to `controller`. `clock` says whether that of this machine may be gone by.
    pub(super) fn new(controller: ControllerHandle, clock: Arc<AtomicBool>) -> QuorumPointers {
        QuorumPointers { controller, swept: Arc::default(), clock }
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

    fn clock_is_sound(&self) -> bool {
        self.clock.load(Ordering::Relaxed)
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
        let swept = self.swept.lock();
        partitions.filter(|partition| !swept.contains(&partition.tp)).collect()
    }

    async fn swept(&self, partitions: Vec<TopicPartition>) {
        let image = self.controller.image();
        let done: Vec<_> = {
            let mut swept = self.swept.lock();
            swept.extend(partitions);
            // What was finished since is nobody's business any more.
            swept.retain(|tp| image.pending_delete(tp.topic).is_some());
            let whole = |topic: &&Arc<DeletedTopic>| {
                topic.tiers.iter().all(|(index, _)| swept.contains(&TopicPartition::new(topic.id, *index)))
            };
            image.pending_deletes().filter(whole).map(|topic| topic.id).collect()
        };
        if done.is_empty() {
            return;
        }
        let duty_epoch = self.controller.image().duty_epoch(Duty::Sweeper);
        let finish = FinishDeletions { topics: done.clone(), duty_epoch };
        if let Err(error) = self.controller.submit(Command::FinishDeletions(finish)).await {
            tracing::warn!(%error, "a finished deletion could not be recorded; it will be tried again");
            self.swept.lock().retain(|tp| !done.contains(&tp.topic));
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

#[cfg(test)]
mod tests {
    use super::*;
    use controller::command::{
        Clean, CreateTopics, DeleteTopics, Mode, NewTopic, RegisterBroker, Shortage, TopicSelector,
    };
    use controller::{ControllerNode, NodeConfig};
    use proto::host::{ManualClock, Spawner};
    use proto::ids::{NodeId, TopicId};
    use std::collections::BTreeMap;
    use uuid::Uuid;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_deletion_is_finished_once_all_its_partitions_are_swept() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = NodeConfig { dir: dir.path().join("metadata"), node_id: NodeId(0) };
        let spawner = Spawner::single(tokio::runtime::Handle::current());
        let started = ControllerNode::start(config, Arc::new(ManualClock::new(0)), &spawner).await;
        let (node, handle) = started.expect("the controller starts");
        let incarnation = Uuid::from_u128(1);
        let broker = RegisterBroker {
            id: NodeId(0),
            incarnation,
            endpoints: vec![],
            rack: None,
            directories: vec![],
            previous_epoch: None,
            clean: Clean::Yes,
            offline_directories: 0,
            features: controller::supported_features(),
        };
        handle.register_broker(broker).await.expect("registered");
        let topic = |id: u128, name: &str, configs: &[(&str, &str)]| NewTopic {
            id: TopicId(Uuid::from_u128(id)),
            name: name.to_owned(),
            partitions: 2,
            replication_factor: 1,
            shortage: Shortage::Refuse,
            assignments: BTreeMap::new(),
            configs: configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        let create = CreateTopics {
            topics: vec![topic(7, "tiered", &[]), topic(8, "local", &[("remote.storage.enable", "false")])],
            default_partitions: 1,
            default_replication_factor: 1,
            mode: Mode::default(),
        };
        handle.create_topics(create).await.expect("created");
        let pointers = QuorumPointers::new(handle.clone(), Arc::new(AtomicBool::new(true)));
        assert_eq!(pointers.deleted(), []);
        let topics = vec![TopicSelector::Name("tiered".to_owned()), TopicSelector::Name("local".to_owned())];
        handle.delete_topics(DeleteTopics { topics }).await.expect("deleted");
        // An upload may have been cut off before its first pointer; a topic that was local has nothing anywhere.
        let deleted: Vec<_> = pointers.deleted().into_iter().map(|deleted| deleted.tp).collect();
        let tp = |index| TopicPartition::new(TopicId(Uuid::from_u128(7)), index);
        assert_eq!(deleted, [tp(0), tp(1)]);
        pointers.swept(vec![tp(0)]).await;
        assert_eq!(pointers.deleted().len(), 1, "not again");
        assert_eq!(handle.image().pending_deletes().count(), 1);
        pointers.swept(vec![tp(1)]).await;
        assert_eq!(handle.image().pending_deletes().count(), 0);
        node.shutdown().await;
    }
}
