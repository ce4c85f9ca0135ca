//! What API handlers hold: finds the shard that has a group and asks it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::RwLock;
use proto::host::{Clock, Entropy, Spawner};
use proto::ids::{LeaderEpoch, TopicId};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::log::GroupLog;
use super::records::partition_for;
use super::room::MemberRoom;
use super::task::{Ask, Parts, Task};
use super::types::{
    Commit, DeleteOffsetsAnswer, FetchedOffsets, GroupDescription, GroupError, GroupListing, Heartbeat, Join,
    JoinAnswer, JoinRefused, LeaveAnswer, MemberRef, NamedPartition, OffsetsWanted, PerPartition, Sync, Synced,
};
use crate::config::GroupConfig;

/// A cheap clone that stands for all groups of this broker.
#[derive(Clone)]
pub struct GroupHandle {
    inner: Arc<Inner>,
}

struct Inner {
    config: GroupConfig,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    spawner: Spawner,
    room: MemberRoom,
    shards: Arc<RwLock<Shards>>,
}

#[derive(Default)]
struct Shards {
    /// Partitions that `__consumer_offsets` has, 0 while there is none.
    partitions: i32,
    led: BTreeMap<i32, Led>,
}

/// A partition that this broker leads.
struct Led {
    /// Of which `__consumer_offsets`: one that was deleted and made again is another.
    topic: TopicId,
    leader_epoch: LeaderEpoch,
    asks: mpsc::Sender<Ask>,
    loaded: bool,
    task: AbortHandle,
}

impl Led {
    fn is(&self, topic: TopicId, leader_epoch: LeaderEpoch) -> bool {
        (self.topic, self.leader_epoch) == (topic, leader_epoch)
    }
}

/// Asks that wait for a shard.
const QUEUE: usize = 1024;

impl std::fmt::Debug for GroupHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupHandle").finish_non_exhaustive()
    }
}

impl GroupHandle {
    /// Groups without a partition yet: see [`GroupHandle::elected`].
    pub fn new(config: GroupConfig, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>, spawner: Spawner) -> Self {
        let room = MemberRoom::new(config.members_memory_bytes);
        Self { inner: Arc::new(Inner { config, clock, entropy, spawner, room, shards: Arc::default() }) }
    }

    /// `__consumer_offsets` has that many partitions.
    pub fn set_partitions(&self, partitions: i32) {
        self.inner.shards.write().partitions = partitions;
    }

    /// This broker leads a partition of `__consumer_offsets`, whose id is `topic`, from here on: its groups are loaded.
    /// Nothing happens if that is known.
    pub fn elected(&self, topic: TopicId, partition: i32, leader_epoch: LeaderEpoch, log: Arc<dyn GroupLog>) {
        let inner = &self.inner;
        let mut shards = inner.shards.write();
        if shards.led.get(&partition).is_some_and(|led| led.is(topic, leader_epoch)) {
            return;
        }
        let (asks, asked) = mpsc::channel(QUEUE);
        let parts = Parts {
            partition,
            log,
            config: inner.config.clone(),
            room: inner.room.clone(),
            clock: Arc::clone(&inner.clock),
            entropy: Arc::clone(&inner.entropy),
        };
        let all = Arc::clone(&inner.shards);
        let task = inner.spawner.spawn_hot(async move {
            let task = Task::load(parts, asked).await;
            if let Some(led) = all.write().led.get_mut(&partition)
                && led.is(topic, leader_epoch)
            {
                led.loaded = true;
            }
            drop(all);
            task.run().await;
        });
        let led = Led { topic, leader_epoch, asks, loaded: false, task: task.abort_handle() };
        if let Some(old) = shards.led.insert(partition, led) {
            old.task.abort();
        }
    }

    /// This broker does not lead that partition any more. Whoever waits for an answer looks for the new
    /// coordinator.
    pub fn resigned(&self, partition: i32) {
        if let Some(led) = self.inner.shards.write().led.remove(&partition) {
            led.task.abort();
        }
    }

    /// Memory that members of groups hold, about, and may hold, in bytes.
    pub fn members_memory(&self) -> (usize, usize) {
        (self.inner.room.held(), self.inner.room.limit())
    }

    /// Partitions that this broker leads.
    pub fn led(&self) -> Vec<i32> {
        self.inner.shards.read().led.keys().copied().collect()
    }

    /// The partition of `__consumer_offsets` that has a group, none while there is no such topic.
    pub fn partition_of(&self, group: &str) -> Option<i32> {
        let partitions = self.inner.shards.read().partitions;
        (partitions > 0).then(|| partition_for(group, partitions))
    }

    fn shard(&self, group: &str) -> Result<mpsc::Sender<Ask>, GroupError> {
        let shards = self.inner.shards.read();
        if shards.partitions == 0 {
            return Err(GroupError::NotCoordinator);
        }
        match shards.led.get(&partition_for(group, shards.partitions)) {
            None => Err(GroupError::NotCoordinator),
            Some(led) if !led.loaded => Err(GroupError::LoadInProgress),
            Some(led) => Ok(led.asks.clone()),
        }
    }

    async fn ask<T>(&self, group: &str, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, GroupError> {
        let (answer, answered) = oneshot::channel();
        let shard = self.shard(group)?;
        shard.send(ask(answer)).await.map_err(|_| GroupError::NotCoordinator)?;
        answered.await.map_err(|_| GroupError::NotCoordinator)
    }

    /// JoinGroup. Waits until the group's members have come together.
    pub async fn join(&self, group: &str, join: Join) -> JoinAnswer {
        let member_id = join.member.member_id.clone();
        if group.is_empty() {
            return Err(JoinRefused { error: GroupError::InvalidGroupId, member_id });
        }
        let asked = self.ask(group, |answer| Ask::Join(group.to_owned(), Box::new(join), answer)).await;
        asked.unwrap_or_else(|error| Err(JoinRefused { error, member_id }))
    }

    /// SyncGroup. Waits for the leader's assignment.
    pub async fn sync(&self, group: &str, sync: Sync) -> Result<Synced, GroupError> {
        not_empty(group)?;
        self.ask(group, |answer| Ask::Sync(group.to_owned(), Box::new(sync), answer)).await?
    }

    /// Heartbeat.
    pub async fn heartbeat(&self, group: &str, heartbeat: Heartbeat) -> Result<(), GroupError> {
        not_empty(group)?;
        self.ask(group, |answer| Ask::Heartbeat(group.to_owned(), heartbeat, answer)).await?
    }

    /// LeaveGroup.
    pub async fn leave(&self, group: &str, members: Vec<MemberRef>) -> LeaveAnswer {
        not_empty(group)?;
        self.ask(group, |answer| Ask::Leave(group.to_owned(), members, answer)).await?
    }

    /// OffsetCommit. The empty group id is a group, too: that of clients that never named one.
    pub async fn commit(&self, group: &str, commit: Commit) -> PerPartition {
        let partitions: Vec<NamedPartition> = commit.offsets.iter().map(|(partition, _)| partition.clone()).collect();
        let asked = self.ask(group, |answer| Ask::Commit(group.to_owned(), commit, answer)).await;
        asked.unwrap_or_else(|error| partitions.into_iter().map(|partition| (partition, Err(error))).collect())
    }

    /// OffsetFetch.
    ///
    /// # Errors
    /// This broker does not coordinate the group, or not yet.
    pub async fn fetch(&self, group: &str, wanted: OffsetsWanted) -> Result<FetchedOffsets, GroupError> {
        self.ask(group, |answer| Ask::Fetch(group.to_owned(), wanted, answer)).await
    }

    /// OffsetDelete.
    pub async fn delete_offsets(&self, group: &str, partitions: Vec<NamedPartition>) -> DeleteOffsetsAnswer {
        not_empty(group)?;
        self.ask(group, |answer| Ask::DeleteOffsets(group.to_owned(), partitions, answer)).await?
    }

    /// DeleteGroups, for one of them.
    pub async fn delete(&self, group: &str) -> Result<(), GroupError> {
        self.ask(group, |answer| Ask::Delete(group.to_owned(), answer)).await?
    }

    /// DescribeGroups, for one of them; none if there is no such group.
    pub async fn describe(&self, group: &str) -> Result<Option<GroupDescription>, GroupError> {
        not_empty(group)?;
        self.ask(group, |answer| Ask::Describe(group.to_owned(), answer)).await
    }

    /// All groups of this broker.
    ///
    /// # Errors
    /// Some are still being loaded.
    pub async fn list(&self) -> Result<Vec<GroupListing>, GroupError> {
        let shards: Vec<(bool, mpsc::Sender<Ask>)> = {
            let shards = self.inner.shards.read();
            shards.led.values().map(|led| (led.loaded, led.asks.clone())).collect()
        };
        if shards.iter().any(|(loaded, _)| !loaded) {
            return Err(GroupError::LoadInProgress);
        }
        let mut groups = Vec::new();
        for (_, asks) in shards {
            let (answer, answered) = oneshot::channel();
            // A shard that is gone since has moved to another broker, which lists it.
            if asks.send(Ask::List(answer)).await.is_ok() {
                groups.extend(answered.await.unwrap_or_default());
            }
        }
        Ok(groups)
    }

    /// Topics are gone: so are their offsets. Never waits: a shard whose disk stands still hears of it later.
    pub fn topics_deleted(&self, topics: &BTreeSet<String>) {
        let shards: Vec<mpsc::Sender<Ask>> = {
            let shards = self.inner.shards.read();
            shards.led.values().map(|led| led.asks.clone()).collect()
        };
        for asks in shards {
            if let Err(TrySendError::Full(ask)) = asks.try_send(Ask::TopicsDeleted(topics.clone())) {
                // A shard that is gone by then has moved to another broker, which hears of it, too.
                self.inner.spawner.spawn_hot(async move {
                    let _ = asks.send(ask).await;
                });
            }
        }
    }
}

fn not_empty(group: &str) -> Result<(), GroupError> {
    if group.is_empty() { Err(GroupError::InvalidGroupId) } else { Ok(()) }
}
