//! `firn dev --nodes N`: one command, a cluster.

use crate::stand::{FIRN, alone, home, until};
use integration::calls::{CallError, LATEST};
use integration::client::Client;
use integration::cluster::{Dev, Member, free_ports};
use integration::process::Firn;
use proto::host::{Clock, SystemClock};
use proto::records::BatchBuilder;
use rustix::process::Signal;
use std::path::Path;

/// Starts three nodes below `data`, whose directory need not be there.
async fn three(data: &Path, ports: (u16, u16)) -> Dev {
    let settings = [("firn.journal.file.bytes", "1048576"), ("firn.tier.check.interval.ms", "50")];
    let dev = Dev::start(FIRN, data, 3, ports, &settings).await;
    dev.unwrap_or_else(|error| panic!("the cluster does not start: {error}"))
}

/// Ports of which the next two decades are free, too: for clients (and beside them for the quorum), and for metrics.
fn ports() -> (u16, u16) {
    let first = free_ports(30).expect("ports");
    (first, first + 5)
}

async fn client(member: &Member) -> Client {
    Client::connect(member.kafka).await.expect("it serves")
}

/// Produces one record to partition 0, by way of whoever leads it.
async fn produce(members: &[Member], topic: &str, value: &[u8]) {
    let mut batch = BatchBuilder::new();
    batch.append(SystemClock.now_ms(), None, Some(value), &[]);
    let batch = batch.build();
    until("a record to be taken", async || {
        for member in members.iter().filter(|member| member.is_alive()) {
            let Ok(mut client) = Client::connect(member.kafka).await else { continue };
            if client.produce(topic, 0, batch.clone()).await.is_ok() {
                return Some(());
            }
        }
        None
    })
    .await;
}

/// Where the partition ends, as its leader says.
async fn end(members: &[Member], topic: &str) -> i64 {
    until("the end of the partition", async || {
        for member in members {
            let Ok(mut client) = Client::connect(member.kafka).await else { continue };
            if let Ok(end) = client.offset(topic, 0, LATEST).await {
                return Some(end);
            }
        }
        None
    })
    .await
}

async fn create(member: &Member, topic: &str) {
    let configs = [("min.insync.replicas", "2"), ("segment.bytes", "1048576"), ("firn.tier.max.lag.ms", "1000")];
    let created: Result<(), CallError> = client(member).await.create_replicated_topic(topic, 1, 3, &configs).await;
    created.expect("a topic of three replicas");
}

fn holds_a_file(directory: &Path) -> bool {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| path.is_file() || holds_a_file(&path))
}

#[tokio::test]
async fn one_command_starts_a_cluster_says_where_it_is_and_ends_it() {
    let _alone = alone().await;
    let home = home();
    let data = home.path().join("data");
    let (kafka, http) = ports();
    let dev = three(&data, (kafka, http)).await;
    let members = dev.members().to_vec();
    assert_eq!(members.iter().map(|member| member.id).collect::<Vec<_>>(), [0, 1, 2]);
    for (member, more) in members.iter().zip([0, 10, 20]) {
        assert_eq!((member.kafka.port(), member.http.port()), (kafka + more, http + more));
        assert!(member.is_alive(), "{member:?}");
        assert!(data.join(format!("node-{}", member.id)).join("meta.json").is_file());
        until("all to be known", async || {
            let known = client(member).await.leaders(&[]).await.expect("an answer").brokers;
            (known.len() == 3).then_some(())
        })
        .await;
    }
    create(&members[0], "t").await;
    produce(&members, "t", &[7; 1000]).await;
    // Internal topics take what there is of their factor.
    until("a coordinator", async || client(&members[1]).await.coordinator("g").await.ok()).await;
    let offsets = client(&members[1]).await.partitions("__consumer_offsets").await.expect("an answer");
    assert!(offsets.iter().all(|partition| partition.replicas.len() == 3), "{offsets:?}");
    let bucket = data.join("bucket");
    until("something in the common bucket", async || holds_a_file(&bucket).then_some(())).await;
    let log = dev.log();
    assert!(members.iter().all(|member| log.contains(&format!("[{}] ", member.id))), "logs go to stderr: {log}");
    let (lines, status) = dev.terminate().await.expect("it ends");
    assert!(lines.is_empty(), "one line is all it prints: {lines:?}");
    assert!(status.success(), "{status}");
    assert!(members.iter().all(|member| !member.is_alive()), "{members:?}");
}

#[tokio::test]
async fn a_node_that_dies_stays_dead_until_the_same_command_brings_it_back() {
    let _alone = alone().await;
    let home = home();
    let data = home.path().join("data");
    let ports = ports();
    let dev = three(&data, ports).await;
    let members = dev.members().to_vec();
    create(&members[0], "t").await;
    for value in 0..10_u8 {
        produce(&members, "t", &[value; 100]).await;
    }
    for dead in [1, 0] {
        members[dead].signal(Signal::KILL).expect("it runs");
        let said = format!("node {dead} (process {}) ended", members[dead].pid);
        until("the end to be said", async || dev.log().contains(&said).then_some(())).await;
        if dead == 1 {
            // Two are a quorum, and enough for min.insync.replicas.
            for value in 0..10_u8 {
                produce(&members, "t", &[value; 100]).await;
            }
        }
    }
    for dead in [0, 1] {
        assert!(Client::connect(members[dead].kafka).await.is_err(), "node {dead} stays dead");
    }
    assert!(members[2].is_alive());
    let (_, status) = dev.terminate().await.expect("it ends");
    assert!(status.success(), "{status}");
    assert!(!members[2].is_alive());

    let dev = three(&data, ports).await;
    let again = dev.members().to_vec();
    for (before, after) in members.iter().zip(&again) {
        assert_eq!((before.id, before.kafka, before.http), (after.id, after.kafka, after.http));
    }
    assert_eq!(end(&again, "t").await, 20);
    produce(&again, "t", b"one more").await;
    let (_, status) = dev.terminate().await.expect("it ends");
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_cluster_of_which_nothing_is_left_has_failed() {
    let _alone = alone().await;
    let home = home();
    let dev = three(&home.path().join("data"), ports()).await;
    let members = dev.members().to_vec();
    for member in &members {
        member.signal(Signal::KILL).expect("it runs");
    }
    until("the end to be said", async || dev.log().contains("every node has ended").then_some(())).await;
    let (_, status) = dev.ended().await.expect("it ends by itself");
    assert_eq!(status.code(), Some(1), "{status}");
}

#[tokio::test]
async fn nodes_end_with_a_supervisor_that_is_killed() {
    let _alone = alone().await;
    let home = home();
    let data = home.path().join("data");
    let ports = ports();
    let dev = three(&data, ports).await;
    let members = dev.members().to_vec();
    create(&members[0], "t").await;
    produce(&members, "t", b"kept").await;
    dev.kill().await.expect("killed");
    until("all nodes to end", async || members.iter().all(|member| !member.is_alive()).then_some(())).await;
    // Nothing is in the way of the next start.
    let dev = three(&data, ports).await;
    assert_eq!(end(dev.members(), "t").await, 1);
    dev.terminate().await.expect("it ends");
}

#[tokio::test]
async fn what_cannot_be_had_is_said_in_one_line() {
    let _alone = alone().await;
    let home = home();
    let data = home.path().join("data");
    let (kafka, http) = ports();
    let dev = three(&data, (kafka, http)).await;
    let (data, kafka, http) = (data.display().to_string(), format!("127.0.0.1:{kafka}"), format!("127.0.0.1:{http}"));
    let run_in = async |data: &str, arguments: &[&str]| {
        let all = [&["dev", "--data", data, "--kafka", &kafka, "--http", &http], arguments].concat();
        let finished = Firn::new(FIRN, &home.path().join("log"), &all).finish().await.expect("it ends");
        assert_eq!(finished.status.code(), Some(1), "{arguments:?}: {}", finished.stderr);
        assert!(finished.stdout.is_empty(), "{arguments:?}: {}", finished.stdout);
        finished.stderr
    };
    let run = async |arguments: &[&str]| run_in(&data, arguments).await;
    let lines = |said: &str| said.lines().filter(|line| line.starts_with("firn: ")).count();
    // While it runs, and when it does not.
    for nodes in ["3", "5"] {
        let said = run(&["--nodes", nodes]).await;
        assert!(lines(&said) == 1 && said.contains("in use"), "{nodes}: {said}");
    }
    dev.terminate().await.expect("it ends");
    // What was asked for in vain is not remembered: there are three nodes still.
    for (arguments, about) in [
        (&[][..], "give --nodes 3"),
        (&["--nodes", "2"], "holds a cluster of 3 nodes"),
        (&["--nodes", "3", "--set", "node.id=7"], "node.id differs from node to node"),
        (&["--nodes", "3", "--object-store", "memory:"], "nodes share their object store"),
        (&["--nodes", "3", "--set", "num.partitions=many"], "num.partitions"),
    ] {
        let said = run(arguments).await;
        assert!(lines(&said) == 1 && said.lines().count() == 1 && said.contains(about), "{arguments:?}: {said}");
    }
    // Nor is a directory a cluster's by that; and a single node's does not become one.
    let (fresh, single) = (home.path().join("fresh"), home.path().join("single"));
    std::fs::create_dir_all(&single).and_then(|()| std::fs::write(single.join("meta.json"), "{}")).expect("written");
    for (folder, store, about) in
        [(&fresh, "memory:", "nodes share their object store"), (&single, "file:///tmp", "a single node")]
    {
        let said = run_in(&folder.display().to_string(), &["--nodes", "3", "--object-store", store]).await;
        assert!(lines(&said) == 1 && said.contains(about), "{said}");
    }
    assert!(!fresh.join("cluster.json").exists() && !single.join("cluster.json").exists());
}
