//! The quorum of one on a real redb file: first start, restart, crash, snapshot and purge.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proto::host::{Entropy, ManualClock, SeededEntropy, Spawner};
use proto::ids::{NodeId, TopicId};
use proto::metadata::{Batch, Image, MetadataRecord};

use super::{ProposeError, Quorum, Store};
use crate::command::{CreateTopics, Mode, NewTopic, RegisterBroker};
use crate::{ControllerHandle, ControllerNode, NodeConfig};

const NODE: NodeId = NodeId(0);

async fn start(dir: &Path) -> (ControllerNode, ControllerHandle) {
    let config = NodeConfig { dir: dir.to_owned(), node_id: NODE };
    let spawner = Spawner::single(tokio::runtime::Handle::current());
    ControllerNode::start(config, Arc::new(ManualClock::new(1_000)), &spawner)
        .await
        .expect("a fresh or whole directory starts")
}

async fn register(handle: &ControllerHandle, entropy: &SeededEntropy) -> i64 {
    let broker = RegisterBroker {
        id: NODE,
        incarnation: entropy.uuid(),
        endpoints: Vec::new(),
        rack: None,
        directories: Vec::new(),
        ready: true,
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
    for number in 0..super::KEEP_ENTRIES + 100 {
        create(&handle, &entropy, &[&format!("topic-{number}")]).await;
    }
    handle.quorum.snapshot().await;
    create(&handle, &entropy, &["after-the-snapshot"]).await;
    let before = handle.image();
    let log = handle.quorum.raft.metrics().borrow().clone();
    handle
        .quorum
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
    let entries =
        |handle: &ControllerHandle| handle.quorum.raft.metrics().borrow().last_log_index.expect("the log is not empty");
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
    let store = Store::open(dir.path(), NODE, spawner.clone()).expect("a fresh directory opens");
    let (quorum, images) = Quorum::start(NODE, store, &spawner).await.expect("it starts");
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
    drop(Store::open(dir.path(), NODE, spawner.clone()).expect("a fresh directory opens"));
    let error = Store::open(dir.path(), NodeId(7), spawner).expect_err("it is node 0's");
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
