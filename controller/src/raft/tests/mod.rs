//! The quorum of one on a real redb file: first start, restart, crash, snapshot and purge.

mod power;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proto::host::{Entropy, ManualClock, SeededEntropy, Spawner};
use proto::ids::{NodeId, TopicId};
use proto::metadata::{Batch, Image, MetadataRecord};

use super::{Level, ProposeError, Quorum, Slack, Store};
use crate::command::{Clean, CreateTopics, Mode, NewTopic, RegisterBroker, Shortage};
use crate::{ControllerHandle, ControllerNode, NodeConfig, Storage};

const NODE: NodeId = NodeId(0);

async fn start(dir: &Path) -> (ControllerNode, ControllerHandle) {
    let config = NodeConfig { dir: dir.to_owned(), node_id: NODE };
    let spawner = Spawner::single(tokio::runtime::Handle::current());
    ControllerNode::start(config, Arc::new(ManualClock::new(1_000)), &spawner)
        .await
        .expect("a fresh or whole directory starts")
}

fn quorum_of(handle: &ControllerHandle) -> &Quorum {
    &handle.router.local.as_ref().expect("the member is in this process").quorum
}

async fn register(handle: &ControllerHandle, entropy: &SeededEntropy) -> i64 {
    let broker = RegisterBroker {
        id: NODE,
        incarnation: entropy.uuid(),
        endpoints: Vec::new(),
        rack: None,
        directories: Vec::new(),
        previous_epoch: None,
        clean: Clean::Yes,
        offline_directories: 0,
        features: Vec::new(),
    };
    handle.register_broker(broker).await.expect("the only broker may register")
}

fn topics(names: impl Iterator<Item = String>, entropy: &SeededEntropy) -> CreateTopics {
    CreateTopics {
        topics: names
            .map(|name| NewTopic {
                id: TopicId(entropy.uuid()),
                name,
                partitions: 1,
                replication_factor: -1,
                shortage: Shortage::Refuse,
                assignments: BTreeMap::new(),
                configs: BTreeMap::new(),
            })
            .collect(),
        default_partitions: 1,
        default_replication_factor: 1,
        mode: Mode::Commit,
    }
}

async fn create(handle: &ControllerHandle, entropy: &SeededEntropy, names: &[&str]) {
    let command = topics(names.iter().map(|name| (*name).to_owned()), entropy);
    for answer in handle.create_topics(command).await.expect("this node leads") {
        answer.expect("the names are new");
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let entropy = SeededEntropy::new(1);
    let (node, handle) = start(dir.path()).await;
    let first_epoch = register(&handle, &entropy).await;
    create(&handle, &entropy, &["a", "b"]).await;
    let before = handle.image();
    drop(handle);
    node.shutdown().await;

    let (node, handle) = start(dir.path()).await;
    assert_eq!(handle.image(), before);
    let second_epoch = register(&handle, &entropy).await;
    assert!(second_epoch > first_epoch);
    create(&handle, &entropy, &["c"]).await;
    let names: Vec<_> = handle.image().topics().map(|topic| topic.name.to_string()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    node.shutdown().await;
}

#[tokio::test]
async fn a_copy_taken_while_it_runs_is_a_crash_it_recovers_from() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let crashed = tempfile::tempdir().expect("a temporary directory");
    let entropy = SeededEntropy::new(2);
    let (node, handle) = start(dir.path()).await;
    register(&handle, &entropy).await;
    create(&handle, &entropy, &["a"]).await;
    std::fs::copy(dir.path().join("quorum.redb"), crashed.path().join("quorum.redb")).expect("the file can be copied");
    let before = handle.image();

    let (recovered, after) = start(crashed.path()).await;
    assert_eq!(after.image(), before);
    create(&after, &entropy, &["b"]).await;
    recovered.shutdown().await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_restart_from_a_snapshot_with_a_purged_log_gives_the_same_image() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let entropy = SeededEntropy::new(3);
    let (node, handle) = start(dir.path()).await;
    register(&handle, &entropy).await;
    // More entries than a snapshot leaves in the log.
    for number in 0..Storage::default().keep + 100 {
        create(&handle, &entropy, &[&format!("topic-{number}")]).await;
    }
    quorum_of(&handle).snapshot().await;
    create(&handle, &entropy, &["after-the-snapshot"]).await;
    let before = handle.image();
    let log = quorum_of(&handle).raft.metrics().borrow().clone();
    quorum_of(&handle)
        .raft
        .wait(None)
        .metrics(|metrics| metrics.purged.is_some(), "the log is purged")
        .await
        .unwrap_or_else(|error| panic!("{error}: {log:?}"));
    node.shutdown().await;

    let (node, handle) = start(dir.path()).await;
    assert_eq!(handle.image(), before);
    node.shutdown().await;
}

#[tokio::test]
async fn a_thousand_topics_in_one_command_are_one_entry_and_one_image() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let entropy = SeededEntropy::new(4);
    let (node, handle) = start(dir.path()).await;
    register(&handle, &entropy).await;
    let mut images = handle.watch();
    images.mark_unchanged();
    let entries = |handle: &ControllerHandle| {
        quorum_of(handle).raft.metrics().borrow().last_log_index.expect("the log is not empty")
    };
    let before = entries(&handle);
    let command = topics((0..1000).map(|number| format!("topic-{number}")), &entropy);
    let answers = handle.create_topics(command).await.expect("this node leads");
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(entries(&handle), before + 1);
    assert!(images.has_changed().expect("the node runs"));
    let image = Arc::clone(&images.borrow_and_update());
    assert_eq!(image.topic_count(), 1000);
    let led =
        |image: &Image| image.topics().flat_map(|topic| &topic.partitions).all(|state| state.leader == Some(NODE));
    assert!(led(&image));
    node.shutdown().await;
}

#[tokio::test]
async fn a_batch_decided_on_another_state_is_rejected_as_a_whole() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let spawner = Spawner::single(tokio::runtime::Handle::current());
    let store = Store::open(dir.path(), &Storage::default(), NODE, spawner.clone()).expect("a fresh directory opens");
    let (quorum, images) = Quorum::start_alone(NODE, store, &spawner).await.expect("it starts");
    let term = quorum.term_if_leader().expect("the only voter leads");
    let records = vec![MetadataRecord::ProducerIdsAllocated { next: 1000 }];
    let batch = Batch { term, base_offset: 0, records };

    assert_eq!(quorum.propose(batch.clone()).await, Ok(()));
    assert_eq!(quorum.propose(batch.clone()).await, Err(ProposeError::Rejected));
    let other_term = Batch { term: term + 1, base_offset: 1, ..batch };
    assert_eq!(quorum.propose(other_term).await, Err(ProposeError::Rejected));
    assert_eq!(images.borrow().offset(), 1);
    quorum.shutdown().await;
}

#[tokio::test]
async fn a_directory_of_another_node_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let spawner = Spawner::single(tokio::runtime::Handle::current());
    drop(Store::open(dir.path(), &Storage::default(), NODE, spawner.clone()).expect("a fresh directory opens"));
    let error = Store::open(dir.path(), &Storage::default(), NodeId(7), spawner).expect_err("it is node 0's");
    assert_eq!(error.to_string(), "this metadata directory belongs to node 0, not to node 7");
}

#[tokio::test]
async fn commands_submitted_together_are_all_carried_out() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let entropy = SeededEntropy::new(5);
    let (node, handle) = start(dir.path()).await;
    register(&handle, &entropy).await;
    let epoch = handle.image().broker(NODE).expect("it is registered").epoch;
    let blocks = futures::future::join_all((0..100).map(|_| handle.allocate_producer_ids(NODE, epoch))).await;
    let mut firsts: Vec<i64> = blocks.into_iter().map(|block| block.expect("this node leads").first).collect();
    firsts.sort_unstable();
    assert_eq!(firsts, (0..100).map(|number| number * 1000).collect::<Vec<_>>());
    node.shutdown().await;
}

/// A file on a disk that holds so many bytes, those of the slack included.
#[derive(Debug)]
struct Tight {
    inner: redb::backends::InMemoryBackend,
    beside: PathBuf,
    capacity: Arc<AtomicU64>,
    /// Where the file ends that was written: a longer one is sparse.
    written: AtomicU64,
}

impl redb::StorageBackend for Tight {
    fn len(&self) -> std::io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let end = self.written.load(Ordering::SeqCst).max(offset + data.len() as u64);
        if end + std::fs::metadata(&self.beside)?.len() > self.capacity.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.written.store(end, Ordering::SeqCst);
        self.inner.write(offset, data)
    }
}

/// openraft ends with the first write that fails.
#[tokio::test]
async fn a_write_that_finds_no_room_uses_the_slack() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let beside = dir.path().join("quorum.slack");
    let slack = Slack::open(&beside).expect("room");
    let held = || std::fs::metadata(&beside).expect("there").len();
    let whole = held();
    assert_eq!(slack.level(), Level::Whole);
    let inner = redb::backends::InMemoryBackend::new();
    let capacity = Arc::new(AtomicU64::new(u64::MAX));
    let tight = Tight { inner, beside: beside.clone(), capacity: Arc::clone(&capacity), written: AtomicU64::new(0) };
    let spawner = Spawner::single(tokio::runtime::Handle::current());
    let store = Store::with_backend(tight, slack, NODE, spawner.clone()).expect("room");
    let slack = Arc::clone(store.slack());
    let clock = Arc::new(ManualClock::new(1_000));
    let (node, handle) = ControllerNode::start_on(store, NODE, clock, &spawner).await.expect("room");
    let entropy = SeededEntropy::new(9);
    register(&handle, &entropy).await;
    // From here on the disk is as full as it can be; what is freed of the slack is all there is.
    capacity.store(whole + (2 << 20), Ordering::SeqCst);
    for round in 0..400 {
        let name = format!("topic-{round}-{}", "x".repeat(200));
        let names = (0..20).map(|at| format!("{name}-{at}"));
        for answer in handle.create_topics(topics(names, &entropy)).await.expect("the quorum goes on") {
            answer.expect("the names are new");
        }
        if held() < whole {
            break;
        }
    }
    assert!(held() < whole, "it was needed");
    assert_ne!(slack.level(), Level::Whole);
    // Here there is room beside the full file, so the next command fills it up again first.
    create(&handle, &entropy, &["after"]).await;
    assert!(handle.image().topics().any(|topic| *topic.name == *"after"));
    node.shutdown().await;
}

#[test]
fn what_is_given_up_is_taken_back() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("slack");
    let slack = Slack::open(&path).expect("room");
    assert!(slack.give_up() && slack.give_up());
    assert_eq!(slack.level(), Level::Some);
    while slack.give_up() {}
    assert_eq!((slack.level(), std::fs::metadata(&path).expect("there").len()), (Level::Low, 0));
    assert_eq!(slack.refill(), Level::Whole);
    assert!(slack.give_up());
    drop(slack);
    assert_eq!(Slack::open(&path).expect("room").level(), Level::Whole);
}
