//! Tests of the handle and its tasks, with a log in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use parking_lot::Mutex;
use proto::host::{ManualClock, SeededEntropy, Spawner};
use proto::ids::{Offset, TopicId};
use proto::records::{batches, patch_base_offset_and_epoch};
use tokio::sync::watch;
use uuid::Uuid;

use super::GroupHandle;
use super::log::{Acked, GroupLog};
use super::types::{Commit, GroupDescription, GroupError, GroupState, Join, MemberRef, OffsetToCommit, OffsetsWanted};
use crate::config::{BrokerConfig, GroupConfig};

/// Batches by their first offset.
#[derive(Default)]
struct MemoryLog {
    batches: Mutex<BTreeMap<Offset, (Offset, Bytes)>>,
}

#[async_trait]
impl GroupLog for MemoryLog {
    async fn append(&self, batch: Bytes) -> Result<Acked, GroupError> {
        let mut log = self.batches.lock();
        let base = log.last_key_value().map_or(0, |(_, (end, _))| *end);
        let mut batch = batch.to_vec();
        patch_base_offset_and_epoch(&mut batch, base, 0);
        let last = batches(&batch).next().expect("a batch").expect("a whole one").header.last_offset();
        log.insert(base, (last + 1, Bytes::from(batch)));
        Ok(futures::future::ready(Ok(())).boxed())
    }

    async fn read(&self, offset: Option<Offset>) -> Result<Bytes, GroupError> {
        let log = self.batches.lock();
        let next = log.range(offset.unwrap_or(0)..).next();
        Ok(next.map(|(_, (_, batch))| batch.clone()).unwrap_or_default())
    }
}

/// A log whose batches nobody replicates before it is released.
struct HeldLog {
    log: MemoryLog,
    released: watch::Receiver<bool>,
    /// Whether it does not even take batches.
    full: bool,
}

#[async_trait]
impl GroupLog for HeldLog {
    async fn append(&self, batch: Bytes) -> Result<Acked, GroupError> {
        let mut released = self.released.clone();
        if self.full {
            let _ = released.wait_for(|released| *released).await;
        }
        let acked = self.log.append(batch).await?;
        Ok(async move {
            let _ = released.wait_for(|released| *released).await;
            acked.await
        }
        .boxed())
    }

    async fn read(&self, offset: Option<Offset>) -> Result<Bytes, GroupError> {
        self.log.read(offset).await
    }
}

impl HeldLog {
    fn new(full: bool) -> (watch::Sender<bool>, Arc<Self>) {
        let (release, released) = watch::channel(false);
        (release, Arc::new(Self { log: MemoryLog::default(), released, full }))
    }

    /// Bytes of all its batches.
    fn bytes(&self) -> usize {
        self.log.batches.lock().values().map(|(_, batch)| batch.len()).sum()
    }
}

fn handle() -> GroupHandle {
    handle_with(|_| {})
}

fn handle_with(change: impl FnOnce(&mut GroupConfig)) -> GroupHandle {
    let mut config = BrokerConfig::default().groups;
    change(&mut config);
    let spawner = Spawner::single(tokio::runtime::Handle::current());
    let handle = GroupHandle::new(config, Arc::new(ManualClock::new(1_000)), Arc::new(SeededEntropy::new(7)), spawner);
    handle.set_partitions(1);
    handle
}

fn topic(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number))
}

/// Asks until the shard has loaded.
async fn committed(handle: &GroupHandle) -> Result<Option<Offset>, GroupError> {
    loop {
        match handle.fetch("g", OffsetsWanted::Of(vec![("t".to_owned(), 0)])).await {
            Err(GroupError::LoadInProgress) => tokio::task::yield_now().await,
            found => return found.map(|found| found[0].1.as_ref().map(|offset| offset.offset)),
        }
    }
}

async fn commit(handle: &GroupHandle, offset: Offset) {
    let offsets = vec![(("t".to_owned(), 0), OffsetToCommit { offset, ..Default::default() })];
    let answer = handle.commit("g", Commit { generation: -1, offsets, ..Default::default() }).await;
    assert_eq!(answer, [(("t".to_owned(), 0), Ok(()))]);
}

#[tokio::test]
async fn a_shard_is_what_its_log_says() {
    let handle = handle();
    let log = Arc::new(MemoryLog::default());
    handle.elected(topic(1), 0, 3, Arc::clone(&log) as _);
    assert_eq!(committed(&handle).await, Ok(None));
    commit(&handle, 5).await;
    commit(&handle, 6).await;
    assert_eq!(committed(&handle).await, Ok(Some(6)));
    // Known already: nothing happens, least of all a look into another log.
    handle.elected(topic(1), 0, 3, Arc::new(MemoryLog::default()));
    assert_eq!(committed(&handle).await, Ok(Some(6)));
    handle.resigned(0);
    assert_eq!(committed(&handle).await, Err(GroupError::NotCoordinator));
    handle.elected(topic(1), 0, 4, log);
    assert_eq!(committed(&handle).await, Ok(Some(6)));
}

#[tokio::test]
async fn a_topic_that_was_made_again_has_groups_of_its_own() {
    let handle = handle();
    handle.elected(topic(1), 0, 0, Arc::new(MemoryLog::default()));
    committed(&handle).await.expect("loaded");
    commit(&handle, 5).await;
    // Its first leader has the epoch that the first leader of the other had.
    handle.elected(topic(2), 0, 0, Arc::new(MemoryLog::default()));
    assert_eq!(committed(&handle).await, Ok(None));
    commit(&handle, 1).await;
    assert_eq!(committed(&handle).await, Ok(Some(1)));
}

/// However much is asked, a member that went silent is let go in its time.
#[tokio::test(start_paused = true)]
async fn a_flood_of_questions_does_not_stop_the_clock() {
    let groups = handle();
    groups.elected(topic(1), 0, 0, Arc::new(MemoryLog::default()));
    committed(&groups).await.expect("loaded");
    let join = Join {
        rebalance_timeout_ms: 10_000,
        session_timeout_ms: 10_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::new())],
        ..Join::default()
    };
    groups.join("group", join).await.expect("a member");
    let state = |found: &Result<Option<GroupDescription>, GroupError>| {
        found.as_ref().expect("led").as_ref().map(|group| group.state)
    };
    assert_ne!(state(&groups.describe("group").await), Some(GroupState::Empty));
    // All of them are in the queue when the time has come.
    let mut flood = Box::pin(join_all((0..1000).map(|_| groups.describe("group"))));
    assert!(futures::poll!(&mut flood).is_pending());
    tokio::time::advance(Duration::from_secs(60)).await;
    let found = flood.await;
    assert_eq!(found.last().and_then(state), Some(GroupState::Empty));
}

/// However many groups there are, what their members brought is bounded; whoever leaves makes room.
#[tokio::test(start_paused = true)]
async fn members_of_all_groups_share_one_bound() {
    let groups = handle_with(|config| config.members_memory_bytes = 100_000);
    let log = Arc::new(MemoryLog::default());
    groups.elected(topic(1), 0, 0, Arc::clone(&log) as _);
    committed(&groups).await.expect("loaded");
    let join = |member_id: &str, metadata: &'static [u8]| Join {
        member: MemberRef { member_id: member_id.to_owned(), instance_id: None },
        rebalance_timeout_ms: 10_000,
        session_timeout_ms: 10_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(metadata))],
        ..Join::default()
    };
    static METADATA: [u8; 30_000] = [7; 30_000];
    let mut members = Vec::new();
    for group in ["a", "b", "c"] {
        members.push(groups.join(group, join("", &METADATA)).await.expect("a member").member_id);
    }
    let refused = groups.join("d", join("", &METADATA)).await.expect_err("no room");
    assert_eq!(refused.error, GroupError::NotAvailable);
    assert_eq!(groups.describe("d").await.expect("led"), None, "and nothing is kept of it");
    groups.join("d", join("", &METADATA[..100])).await.expect("one that brings little");
    groups.join("a", join(&members[0], &METADATA)).await.expect("one that is there already comes back");
    let held = groups.members_memory().0;
    assert!((90_000..100_000).contains(&held), "{held}");

    let leaves = vec![MemberRef { member_id: members[1].clone(), instance_id: None }];
    groups.leave("b", leaves).await.expect("left");
    groups.join("e", join("", &METADATA)).await.expect("there is room again");
    // Silence is as good as leaving.
    tokio::time::advance(Duration::from_secs(600)).await;
    while groups.members_memory().0 > 0 {
        tokio::task::yield_now().await;
    }
    groups.join("f", join("", &METADATA)).await.expect("a member");
    groups.resigned(0);
    while groups.members_memory().0 > 0 {
        tokio::task::yield_now().await;
    }
}

/// An offset with metadata of that many bytes, committed by group `g`.
async fn commits(handle: &GroupHandle, offset: Offset, metadata: usize) -> Result<(), GroupError> {
    let metadata = "m".repeat(metadata);
    let offsets = vec![(("t".to_owned(), 0), OffsetToCommit { offset, metadata, ..Default::default() })];
    let answer = handle.commit("g", Commit { generation: -1, offsets, ..Default::default() }).await;
    answer[0].1
}

/// Whatever keeps a commit from being replicated, its client is told to try again in time; what was appended counts once it is.
#[tokio::test(start_paused = true)]
async fn a_commit_is_answered_though_nobody_replicates_it() {
    for full in [false, true] {
        let groups = handle();
        let (release, log) = HeldLog::new(full);
        groups.elected(topic(1), 0, 0, Arc::clone(&log) as _);
        assert_eq!(committed(&groups).await, Ok(None));
        let asked = tokio::time::Instant::now();
        assert_eq!(commits(&groups, 5, 0).await, Err(GroupError::NotAvailable), "full: {full}");
        assert_eq!(asked.elapsed().as_secs(), 5, "offsets.commit.timeout.ms by a clock that only the runtime moves");
        assert_eq!(committed(&groups).await, Ok(None), "it is not shown before it is safe");
        release.send_replace(true);
        while !full && committed(&groups).await != Ok(Some(5)) {
            tokio::task::yield_now().await;
        }
        assert_eq!(commits(&groups, 6, 0).await, Ok(()), "full: {full}");
        assert_eq!(committed(&groups).await, Ok(Some(6)));
    }
}

/// Clients that try again and again do not fill the log, nor the memory, of a partition that is not replicated.
#[tokio::test(start_paused = true)]
async fn what_is_not_replicated_does_not_pile_up() {
    let groups = handle_with(|config| config.offset_metadata_max_bytes = 100_000);
    let (release, log) = HeldLog::new(false);
    groups.elected(topic(1), 0, 0, Arc::clone(&log) as _);
    committed(&groups).await.expect("loaded");
    for round in 0..20 {
        let answers = join_all((0..20).map(|_| commits(&groups, round, 30_000))).await;
        assert!(answers.iter().all(|answer| *answer == Err(GroupError::NotAvailable)), "{answers:?}");
    }
    let bytes = log.bytes();
    assert!((3 << 20..5 << 20).contains(&bytes), "of twelve million bytes it holds {bytes}");
    release.send_replace(true);
    while commits(&groups, 100, 30_000).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(committed(&groups).await, Ok(Some(100)));
}
