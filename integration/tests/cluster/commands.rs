//! Commands of a person, while a cluster loses a machine.

use crate::stand::{FIRN, alone, home, plan, until};
use integration::cluster::{Cluster, Shape};
use integration::process::Firn;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Who types goes on typing: each line is there once, in its order in its partition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn produce_follows_the_leaders_and_each_line_is_there_once() {
    const LINES: usize = 3_000;
    let (_alone, home) = (alone().await, home());
    let cluster = Cluster::start(plan(home.path(), Shape::Combined(3))).await;
    let mut cluster = cluster.unwrap_or_else(|error| panic!("the cluster does not start: {error}"));
    let bootstrap = cluster.bootstrap().join(",");
    let firn = |arguments: &[&str]| {
        Firn::new(FIRN, &home.path().join("commands.log"), arguments).env("FIRN_BOOTSTRAP", &bootstrap)
    };
    let create = ["topic", "create", "lines", "--partitions", "3", "--replication-factor", "3"];
    let created = firn(&[&create[..], &["--config", "min.insync.replicas=2"]].concat()).finish().await;
    assert!(created.as_ref().is_ok_and(|finished| finished.status.success()), "{created:?}");

    let mut child = firn(&["produce", "lines"]).open().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    let count = async |cluster: &Cluster| {
        let mut ends = 0;
        let mut client = cluster.connect(Duration::from_secs(30)).await.ok()?;
        let leaders = client.leaders(&["lines"]).await.ok()?;
        for partition in 0..3 {
            let mut leader = integration::client::Client::connect_over(
                &proto::host::TcpNetwork,
                leaders.address("lines", partition)?,
            )
            .await
            .ok()?;
            ends += leader.offset("lines", partition, integration::calls::LATEST).await.ok()?;
        }
        Some(ends)
    };
    for line in 0..LINES {
        stdin.write_all(format!("line {line}\n").as_bytes()).await.expect("it reads");
        // Killed while it sends, and again once it has seen that; nobody waits for the command here.
        if line == LINES / 3 || line == 2 * LINES / 3 {
            stdin.flush().await.expect("it reads");
            until("some lines to be there", async || count(&cluster).await.filter(|ends| *ends > 0)).await;
            let victim = if line == LINES / 3 { 0 } else { 1 };
            cluster.kill(victim).await.expect("it runs");
            if victim == 0 {
                let more = format!("{}\n", "x".repeat(100)).repeat(10);
                stdin.write_all(more.as_bytes()).await.expect("it reads");
                cluster.restart(0).await.unwrap_or_else(|error| panic!("it does not start: {error}"));
                until("all replicas in sync", async || {
                    let partitions = cluster.connect(Duration::from_secs(30)).await.ok()?.partitions("lines").await;
                    partitions.ok()?.iter().all(|one| one.in_sync.len() == 3).then_some(())
                })
                .await;
            }
        }
    }
    drop(stdin);
    let output = child.wait_with_output().await.expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let read = firn(&["consume", "lines", "--format", "json"]).finish().await.expect("it ends");
    assert!(read.status.success(), "{}", read.stderr);
    let mut seen = BTreeSet::new();
    let mut padding = 0;
    let mut last = [-1_i64; 3];
    for row in read.stdout.lines() {
        let row: serde_json::Value = serde_json::from_str(row).expect("JSON");
        let (value, partition) = (row["value"].as_str().expect("text"), row["partition"].as_u64().expect("a number"));
        let Some(number) = value.strip_prefix("line ") else {
            padding += 1;
            continue;
        };
        let number: i64 = number.parse().expect("a number");
        assert!(seen.insert(number), "line {number} is there twice");
        let last = &mut last[usize::try_from(partition).expect("small")];
        assert!(*last < number, "line {number} comes behind {last}");
        *last = number;
    }
    assert_eq!((seen.len(), padding), (LINES, 10));
}
