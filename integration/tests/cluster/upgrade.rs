//! From an earlier version to this one, node by node.

use crate::stand::{FIRN, PATIENCE, Stand, TOPIC, home};
use integration::client::Client;
use integration::cluster::{Plan, Shape};
use integration::process::Firn;
use proto::records::BatchBuilder;
use std::path::{Path, PathBuf};

/// The binary of an earlier version.
const PREVIOUS: &str = "FIRN_TEST_PREVIOUS";
/// Where this is set, the test may not be skipped because nobody names one.
const NEEDS_PREVIOUS: &str = "FIRN_TEST_NEEDS_PREVIOUS";
const RECORDS: i64 = 100;

fn previous() -> Option<PathBuf> {
    let previous = std::env::var_os(PREVIOUS).map(PathBuf::from);
    assert!(
        previous.is_some() || std::env::var_os(NEEDS_PREVIOUS).is_none(),
        "{NEEDS_PREVIOUS} is set, {PREVIOUS} is not"
    );
    previous
}

/// The binary under test, as everywhere else.
fn this() -> PathBuf {
    std::env::var_os("FIRN_TEST_BINARY").map_or_else(|| PathBuf::from(FIRN), PathBuf::from)
}

/// Ends every node in order and starts it with `binary`, one when the one before is in sync again.
async fn roll(stand: &mut Stand, binary: &Path) {
    for id in stand.cluster.brokers() {
        stand.cluster.end(id).await.expect("it runs, and ends");
        stand.cluster.install(id, binary).expect("a node");
        stand.cluster.restart(id).await.unwrap_or_else(|error| panic!("node {id} does not start: {error}"));
        stand.in_sync(3, Some(id)).await;
        stand.goes_on(100).await;
    }
}

/// Under load, there, back again while no new feature is switched on, and there for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_upgraded_node_by_node() {
    let Some(previous) = previous() else {
        println!("SKIPPED: {PREVIOUS} names no binary of an earlier version");
        return;
    };
    let install = |plan: &mut Plan| plan.binary = Some(previous.clone());
    let mut stand = Stand::start_with(Shape::Combined(3), None, install).await;
    roll(&mut stand, &this()).await;
    roll(&mut stand, &previous).await;
    roll(&mut stand, &this()).await;
    stand.judge().await;
}

/// What one node of the earlier version wrote, this one serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_serves_what_an_earlier_version_wrote() {
    let Some(previous) = previous() else {
        println!("SKIPPED: {PREVIOUS} names no binary of an earlier version");
        return;
    };
    let home = home();
    let firn = Firn::dev(FIRN, &home.path().join("data"));
    let before = firn.clone().binary(&previous).start().await.expect("it starts");
    let mut client = Client::connect(before.kafka()).await.expect("it answers");
    client.create_topic(TOPIC, 1, &[]).await.expect("created");
    for value in 0..RECORDS {
        let mut batch = BatchBuilder::new();
        batch.append(0, None, Some(&value.to_be_bytes()), &[]);
        client.produce(TOPIC, 0, batch.build()).await.expect("acknowledged");
    }
    let written = client.fetch(TOPIC, 0, 0, 1 << 20).await.expect("readable").records;
    before.terminate(PATIENCE).await.expect("it ends");
    let after = firn.binary(&this()).start().await.expect("it starts on what was written");
    let mut client = Client::connect(after.kafka()).await.expect("it answers");
    let read = client.fetch(TOPIC, 0, 0, 1 << 20).await.expect("readable");
    assert_eq!((read.high_watermark, read.records), (RECORDS, written));
}
