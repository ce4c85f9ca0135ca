//! From an earlier version to this one, node by node, and between versions that do not go together.

use crate::refusals::one_line;
use crate::stand::{FIRN, PATIENCE, Stand, TOPIC, home, until};
use integration::calls::{EARLIEST_LOCAL, LATEST};
use integration::client::Client;
use integration::cluster::{Plan, Shape};
use integration::process::{Firn, Running};
use proto::metadata::{FEATURE, NEWEST_LEVEL};
use proto::records::BatchBuilder;
use std::path::{Path, PathBuf};

/// The binary of an earlier version.
const PREVIOUS: &str = "FIRN_TEST_PREVIOUS";
/// Where this is set, the tests may not be skipped because nobody names one.
const NEEDS_PREVIOUS: &str = "FIRN_TEST_NEEDS_PREVIOUS";
const RECORDS: i64 = 100;
const COLD: &str = "cold";
const GROUP: &str = "readers";

fn previous() -> Option<PathBuf> {
    let previous = std::env::var_os(PREVIOUS).map(PathBuf::from);
    assert!(
        previous.is_some() || std::env::var_os(NEEDS_PREVIOUS).is_none(),
        "{NEEDS_PREVIOUS} is set, {PREVIOUS} is not"
    );
    if previous.is_none() {
        println!("SKIPPED: {PREVIOUS} names no binary of an earlier version");
    }
    previous
}

/// The binary under test, as everywhere else.
fn this() -> PathBuf {
    std::env::var_os("FIRN_TEST_BINARY").map_or_else(|| PathBuf::from(FIRN), PathBuf::from)
}

/// Whether a version has clusters at all: the first ones were one node each.
async fn forms_clusters(binary: &Path) -> bool {
    let home = home();
    let asked = Firn::new(FIRN, &home.path().join("log"), &["cluster", "format", "--help"]).binary(binary);
    asked.finish().await.expect("it ends").status.success()
}

/// Ends node `id` in order and starts it with `binary`; returns when it is in sync again.
async fn exchange(stand: &mut Stand, id: i32, binary: &Path) {
    let status = stand.cluster.end(id).await.expect("it runs, and ends");
    assert!(status.success(), "node {id}: {status}\n{}", stand.logs());
    stand.cluster.install(id, binary).expect("a node");
    stand.cluster.restart(id).await.unwrap_or_else(|error| panic!("node {id} does not start: {error}"));
    stand.in_sync(3, Some(id)).await;
    stand.goes_on(100).await;
}

/// The newest level that a node understands, and the level that the cluster has as far as it knows.
async fn level(stand: &Stand, id: i32) -> (i16, i16) {
    until("a node to say what it understands", async || {
        stand.cluster.connect_to(id).await.ok()?.feature(FEATURE).await.ok()
    })
    .await
}

/// Under load, there, one node back again while no new feature is switched on, and there for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_upgraded_node_by_node() {
    let Some(previous) = previous() else { return };
    if !forms_clusters(&previous).await {
        println!("SKIPPED: {} forms no clusters", previous.display());
        return;
    }
    let install = |plan: &mut Plan| plan.binary = Some(previous.clone());
    let mut stand = Stand::start_with(Shape::Combined(3), None, install).await;
    let (known, before) = level(&stand, 0).await;
    assert!(known <= NEWEST_LEVEL, "the earlier version understands more than this one: {known}");
    for id in stand.cluster.brokers() {
        exchange(&mut stand, id, &this()).await;
        if known < NEWEST_LEVEL && id == 0 {
            let raised = stand.client().await.raise_feature(FEATURE, NEWEST_LEVEL).await;
            assert!(raised.is_err(), "a feature is switched on that two of three nodes do not understand");
        }
    }
    exchange(&mut stand, 0, &previous).await;
    exchange(&mut stand, 0, &this()).await;
    // New code does not switch its features on.
    for id in stand.cluster.brokers() {
        assert_eq!(level(&stand, id).await, (NEWEST_LEVEL, before));
    }
    until("the newest level to be taken", async || {
        stand.client().await.raise_feature(FEATURE, NEWEST_LEVEL).await.ok()
    })
    .await;
    for id in stand.cluster.brokers() {
        until("a node to hear of it", async || (level(&stand, id).await.1 == NEWEST_LEVEL).then_some(())).await;
    }
    stand.goes_on(100).await;
    if known < NEWEST_LEVEL {
        // There is no way back.
        stand.cluster.end(0).await.expect("it runs, and ends");
        stand.cluster.install(0, &previous).expect("a node");
        one_line(&stand.cluster.fails(0).await.expect("it ends"), &[FEATURE, &format!("at {NEWEST_LEVEL}")]);
        stand.cluster.install(0, &this()).expect("a node");
        stand.cluster.restart(0).await.unwrap_or_else(|error| panic!("with the new one it starts: {error}"));
        stand.in_sync(3, Some(0)).await;
    }
    stand.judge().await;
}

fn batch(values: std::ops::Range<i64>, filler: usize) -> bytes::Bytes {
    let mut batch = BatchBuilder::new();
    for value in values {
        batch.append(0, Some(&value.to_be_bytes()), Some(&vec![7; filler]), &[]);
    }
    batch.build()
}

/// All of a partition, batch by batch as it is served.
async fn whole(client: &mut Client, topic: &str) -> Vec<u8> {
    let (mut offset, mut all) = (0, Vec::new());
    let end = client.offset(topic, 0, LATEST).await.expect("listed");
    while offset < end {
        let records = client.fetch(topic, 0, offset, 1 << 20).await.expect("readable").records;
        // The last may be cut off.
        for batch in proto::records::batches(&records).filter_map(Result::ok) {
            offset = batch.header.next_offset();
            all.extend_from_slice(batch.bytes);
        }
    }
    all
}

/// Writes records that stay on the disk, others that go to the object store, and what a group has committed.
async fn fill(running: &Running) -> [Vec<u8>; 2] {
    let mut client = Client::connect(running.kafka()).await.expect("it answers");
    client.create_topic(TOPIC, 2, &[]).await.expect("created");
    for value in 0..RECORDS {
        client.produce(TOPIC, 0, batch(value..value + 1, 8)).await.expect("acknowledged");
    }
    let small = [
        ("segment.bytes", "1048576"),
        ("local.retention.bytes", "1"),
        ("firn.tier.max.lag.ms", "1000"),
        ("retention.ms", "-1"),
    ];
    client.create_topic(COLD, 1, &small).await.expect("created");
    until("a topic to go cold", async || {
        client.produce(COLD, 0, batch(0..128, 1024)).await.expect("acknowledged");
        client.offset(COLD, 0, EARLIEST_LOCAL).await.ok().filter(|local| *local > 0)
    })
    .await;
    until("offsets to be committed", async || {
        client.find_coordinator(GROUP).await.ok()?;
        client.commit_offset(GROUP, TOPIC, 0, RECORDS / 2).await.ok()
    })
    .await;
    [whole(&mut client, TOPIC).await, whole(&mut client, COLD).await]
}

/// What one node of the earlier version wrote, this one serves: hot and cold records, groups, and what comes on top.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_serves_what_an_earlier_version_wrote() {
    let Some(previous) = previous() else { return };
    let home = home();
    let firn = Firn::dev(FIRN, &home.path().join("data")).set("firn.tier.check.interval.ms", 100);
    let mut before = Vec::new();
    for round in 0..2 {
        let running = firn.clone().binary(&previous).start().await.expect("it starts");
        if round == 0 {
            before = fill(&running).await.to_vec();
            running.terminate(PATIENCE).await.expect("it ends");
        } else {
            // The second time it is not asked to end.
            let mut client = Client::connect(running.kafka()).await.expect("it answers");
            client.produce(TOPIC, 1, batch(0..1, 8)).await.expect("acknowledged");
            running.kill().await.expect("it runs");
        }
    }
    let firn = firn.binary(&this());
    for round in 0..2 {
        let running = firn.start().await.unwrap_or_else(|error| panic!("it does not start on it: {error}"));
        let mut client = Client::connect(running.kafka()).await.expect("it answers");
        for (topic, written) in [TOPIC, COLD].into_iter().zip(&before) {
            let read = whole(&mut client, topic).await;
            assert!(read == *written, "round {round}: {topic}: {} bytes for {}", read.len(), written.len());
        }
        assert_eq!(client.offset(TOPIC, 1, LATEST).await.expect("listed"), 1 + round);
        client.produce(TOPIC, 1, batch(0..1, 8)).await.expect("acknowledged");
        let committed =
            until("the group to be there", async || client.committed_offset(GROUP, TOPIC, 0).await.ok()).await;
        assert_eq!(committed, RECORDS / 2);
        assert_eq!(client.feature(FEATURE).await.expect("it answers"), (NEWEST_LEVEL, NEWEST_LEVEL));
        running.terminate(PATIENCE).await.expect("it ends");
    }
}
