//! Disks that fill up, and disks that are replaced.

use crate::faults::APART;
use crate::mount::Mount;
use crate::stand::{Stand, home};
use std::path::Path;

/// Takes all that is left of a disk.
fn swallow(ballast: &Path) {
    use std::io::Write;
    let file = std::fs::OpenOptions::new().create(true).append(true).open(ballast);
    let mut file = file.expect("opened");
    for piece in [1 << 20, 64 << 10, 4 << 10, 512] {
        let bytes = vec![1; piece];
        while file.write_all(&bytes).is_ok() {}
    }
}

/// The others go on without it, and it comes back when there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_whose_disk_is_full_hurts_nobody_for_long() {
    const FULL: i32 = 1;
    let disks = home();
    let small = disks.path().join("small");
    let Some(mount) = Mount::tmpfs(&small, 160) else { return };
    let elsewhere = small.join("node");
    let mut stand = Stand::start_with(APART, None, |plan| _ = plan.elsewhere.insert(FULL, elsewhere)).await;
    stand.in_sync(3, None).await;
    let ballast = small.join("ballast");
    swallow(&ballast);
    stand.goes_on(200).await;
    assert!(stand.cluster.runs(FULL).expect("a node"), "a full disk is no reason to end");
    std::fs::remove_file(&ballast).expect("removed");
    stand.in_sync(3, Some(FULL)).await;
    // One that cannot be written to says so, and takes nobody with it.
    stand.cluster.kill(FULL).await.expect("it runs");
    mount.set("ro");
    let finished = stand.cluster.fails(FULL).await.expect("it ends");
    assert!(!finished.status.success() && finished.stderr.contains("ead-only"), "{}", finished.stderr);
    stand.goes_on(50).await;
    mount.set("rw");
    stand.cluster.restart(FULL).await.unwrap_or_else(|error| panic!("node {FULL} does not start: {error}"));
    stand.in_sync(3, Some(FULL)).await;
    stand.judge().await;
}

/// Whatever it had is copied from the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_comes_back_with_an_empty_disk_gets_everything_back() {
    let mut stand = Stand::start(APART).await;
    let replaced = stand.leader(0).await;
    stand.cluster.kill(replaced).await.expect("it runs");
    std::fs::remove_dir_all(stand.cluster.data(replaced).expect("a node")).expect("removed");
    stand.goes_on(100).await;
    stand.cluster.restart(replaced).await.unwrap_or_else(|error| panic!("node {replaced} does not start: {error}"));
    stand.in_sync(3, Some(replaced)).await;
    // The others are not needed any more for what it has.
    for id in stand.cluster.brokers().into_iter().filter(|id| *id != replaced) {
        stand.cluster.kill(id).await.expect("it runs");
        stand.goes_on(50).await;
        stand.cluster.restart(id).await.unwrap_or_else(|error| panic!("node {id} does not start: {error}"));
        stand.in_sync(3, None).await;
    }
    stand.judge().await;
}
