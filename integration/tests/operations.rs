//! The walk through a cluster in `docs/operations.md`, typed as it stands there.

use integration::typed;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;

const FIRN: &str = env!("CARGO_BIN_EXE_firn-under-test");
const OPERATIONS: &str = include_str!("../../docs/operations.md");
/// For the whole walk.
const PATIENCE: Duration = Duration::from_secs(600);
/// Where this is set, the walk may not be skipped because network namespaces cannot be made.
const NEEDS_NETNS: &str = "FIRN_TEST_NEEDS_NETNS";
/// Where this is set, the commands for Kafka's own tools may not be skipped because those are not here.
const NEEDS_KAFKA: &str = "FIRN_TEST_NEEDS_KAFKA";
/// Has Kafka's tools, and puts them where it is told.
const KAFKA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/kafka");
/// Its ports are those of the document, and whatever it left running ends with it.
const ALONE: [&str; 6] = ["unshare", "--net", "--pid", "--fork", "--kill-child", "bash"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_does_what_the_walk_says() {
    let can =
        Command::new("unshare").args(["--net", "--pid", "--fork", "ip", "link", "set", "lo", "up"]).output().await;
    if !can.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os(NEEDS_NETNS).is_none(), "{NEEDS_NETNS} is set, and no network namespace can be made");
        println!("SKIPPED: no network namespace can be made here");
        return;
    }
    let home = tempfile::Builder::new().prefix("firn-operations-").tempdir().expect("a directory");
    let binary = std::env::var("FIRN_TEST_BINARY").unwrap_or_else(|_| FIRN.to_owned());
    let binary = Path::new(&binary).canonicalize().expect("a binary");
    std::os::unix::fs::symlink(binary, home.path().join("firn")).expect("a link");
    let path = std::env::var("PATH").unwrap_or_default();
    let environment = [("PATH", format!("{}:{path}", home.path().display()))];

    let mut blocks = typed::blocks(OPERATIONS);
    let needed = std::env::var_os(NEEDS_KAFKA).is_some();
    let mut put = Command::new(KAFKA);
    put.args(["tools", &home.path().display().to_string()]).args(needed.then_some("fetch"));
    let put = put.output().await.expect("bash runs");
    if !put.status.success() {
        assert!(!needed, "{NEEDS_KAFKA} is set: {}", String::from_utf8_lossy(&put.stderr));
        println!("SKIPPED: the commands for Kafka's tools, which are not here (integration/peers/kafka fetch)");
        blocks.retain(|block| !block.contains("kafka-"));
    }
    let walk = blocks.join("\n");
    let script = format!("ip link set lo up\nset -x\n{walk}\nset +x\n");
    let said = typed::typed(&ALONE, &script, home.path(), &environment, PATIENCE).await;
    assert!(said.lines().any(|line| line.trim() == "100000"), "all records came back after a node was lost: {said}");
    if put.status.success() {
        assert!(said.contains("Reassignment of partition flights-0 is completed."), "{said}");
        assert!(said.contains("Topic: flights\tPartition: 0\tLeader: 2\tReplicas: 2,1"), "{said}");
    }
}
