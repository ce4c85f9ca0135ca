//! Nodes that have no business in a cluster: each is told so in one line, and the cluster goes on.

use crate::faults::APART;
use crate::stand::{FIRN, Stand, TOPIC, until};
use integration::cluster::{Blow, Cluster, free_ports};
use integration::process::{Finished, Firn};
use proto::errors::ErrorCode;
use proto::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use proto::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use proto::messages::{AlterPartitionReassignmentsRequest, CreateTopicsRequest};
use std::path::Path;
use std::time::Duration;

/// Ends with one line of its own that names all of `about`. Warnings from before may stand above it.
pub(crate) fn one_line(finished: &Finished, about: &[&str]) {
    let said: Vec<&str> = finished.stderr.lines().filter(|line| line.starts_with("firn: ")).collect();
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    assert!(said.len() == 1 && !finished.stderr.contains("panicked"), "{}", finished.stderr);
    assert!(about.iter().all(|about| said[0].contains(about)), "wanted {about:?}: {}", said[0]);
}

/// The configuration of a broker on any ports, with `more` lines.
fn broker(id: i32, data: &Path, cluster: &Cluster, more: &str) -> String {
    let (data, control) = (data.display(), cluster.control().join(","));
    format!(
        "node.id = {id}\nprocess.roles = \"broker\"\nlisteners = \"PLAINTEXT://127.0.0.1:0\"\n\
         firn.http.listeners = \"127.0.0.1:0\"\nlog.dirs = \"{data}\"\n\
         controller.quorum.bootstrap.servers = \"{control}\"\n{more}"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_with_one_id_the_second_is_refused_while_the_first_lives() {
    let mut stand = Stand::start(APART).await;
    let text = broker(1, &stand.cluster.home().join("second"), &stand.cluster, "");
    let second = stand.cluster.stranger("second", &text).expect("written");
    let finished = second.finish().await.expect("it ends");
    one_line(&finished, &["node id 1 is taken by a running broker", stand.cluster.kafka(1).expect("a broker")]);
    stand.goes_on(50).await;
    assert!(stand.cluster.runs(1).expect("a node"));

    // One that the cluster has given up may be replaced, and has to go when it comes back.
    stand.cluster.strike(1, Blow::Stop).expect("it runs");
    until("the first to be given up", async || {
        let known = stand.cluster.connect_to(0).await.ok()?.leaders(&[]).await.ok()?;
        (!known.brokers.contains_key(&1)).then_some(())
    })
    .await;
    let running = second.start().await.unwrap_or_else(|error| panic!("the second does not start: {error}"));
    stand.cluster.strike(1, Blow::Continue).expect("it stands still");
    let status = stand.cluster.ends(1).await.expect("it ends");
    let said = stand.cluster.log(1).expect("a node");
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("another process runs under its node.id"), "{said}");
    stand.goes_on(100).await;
    drop(running);
    stand.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_refused() {
    let mut stand = Stand::start(APART).await;
    let about = ["of cluster other", "belongs to cluster firn-integration"];
    // A broker whose directory belongs to another cluster.
    let data = stand.cluster.home().join("of-another");
    let text = broker(7, &data, &stand.cluster, "");
    let stranger = stand.cluster.stranger("of-another", &text).expect("written");
    let file = stand.cluster.home().join("of-another.toml").display().to_string();
    let format = ["cluster", "format", "--cluster-id", "other", "--config", &file];
    let formatted = Firn::new(FIRN, &stand.cluster.home().join("log"), &format).finish().await.expect("it ends");
    assert!(formatted.status.success(), "{}", formatted.stderr);
    one_line(&stranger.finish().await.expect("it ends"), &about);

    // A controller that was formatted for another one.
    stand.cluster.kill(102).await.expect("it runs");
    let (data, aside) = (stand.cluster.data(102).expect("a node").to_owned(), stand.cluster.home().join("aside"));
    std::fs::rename(&data, &aside).expect("moved");
    let format = stand.cluster.firn(&["cluster", "format", "--cluster-id", "other", "--config"], 102);
    let formatted = format.expect("a node").finish().await.expect("it ends");
    assert!(formatted.status.success(), "{}", formatted.stderr);
    one_line(&stand.cluster.fails(102).await.expect("it ends"), &about);
    std::fs::remove_dir_all(&data).expect("removed");
    std::fs::rename(&aside, &data).expect("moved back");
    stand.cluster.restart(102).await.unwrap_or_else(|error| panic!("with its own it starts: {error}"));
    stand.goes_on(50).await;
    stand.judge().await;
}

/// A broker ends after a while, as whoever started it may have told it the wrong addresses; a controller waits for the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_at_which_there_is_no_quorum_are_named() {
    let _alone = crate::stand::alone().await;
    let home = crate::stand::home();
    let [one, two] = [(); 2].map(|()| free_ports(1).expect("a port"));
    let write = |name: &str, text: &str| {
        let file = home.path().join(name);
        std::fs::write(&file, text).expect("written");
        file.display().to_string()
    };
    let nowhere = format!("127.0.0.1:{one}, 127.0.0.1:{two}");
    let text = format!(
        "node.id = 7\nprocess.roles = \"broker\"\nlisteners = \"PLAINTEXT://127.0.0.1:0\"\n\
         firn.http.listeners = \"127.0.0.1:0\"\nlog.dirs = \"{}\"\n\
         initial.broker.registration.timeout.ms = 2000\ncontroller.quorum.bootstrap.servers = \"{nowhere}\"\n",
        home.path().join("broker").display(),
    );
    let file = write("broker.toml", &text);
    let finished = Firn::new(FIRN, &home.path().join("log"), &["server", "--config", &file]).finish().await;
    one_line(&finished.expect("it ends"), &["the metadata quorum could not be reached for 2 s", &nowhere]);

    let own = free_ports(1).expect("a port");
    let text = format!(
        "node.id = 100\nprocess.roles = \"controller\"\nlisteners = \"CONTROLLER://127.0.0.1:{own}\"\n\
         controller.listener.names = \"CONTROLLER\"\nfirn.http.listeners = \"127.0.0.1:0\"\nlog.dirs = \"{}\"\n\
         initial.broker.registration.timeout.ms = 2000\n\
         controller.quorum.voters = \"100@127.0.0.1:{own},101@127.0.0.1:{one},102@127.0.0.1:{two}\"\n",
        home.path().join("controller").display(),
    );
    let file = write("controller.toml", &text);
    let format = ["cluster", "format", "--cluster-id", "c", "--config", &file];
    let formatted = Firn::new(FIRN, &home.path().join("log"), &format).finish().await.expect("it ends");
    assert!(formatted.status.success(), "{}", formatted.stderr);
    let firn = Firn::new(FIRN, &home.path().join("controller.log"), &["server", "--config", &file]);
    let mut waiting = firn.spawn().expect("it runs");
    until("it to say whom it waits for", async || {
        let log = firn.log();
        (log.contains("waiting for the metadata quorum") && log.contains(&nowhere)).then_some(())
    })
    .await;
    let pid = waiting.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("it runs"), rustix::process::Signal::TERM).expect("it runs");
    let status = waiting.wait(Duration::from_secs(60)).await.expect("it ends");
    assert!(status.success(), "{status}: {}", firn.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_lost_its_disk_does_not_vote_again() {
    const LOST: i32 = 102;
    let mut stand = Stand::start(APART).await;
    until("the voters to be bound to their disks", async || {
        let logs = stand.cluster.controllers().into_iter().map(|id| stand.cluster.log(id).expect("a node"));
        let bound = |line: &str| line.contains("is bound to its metadata directory") && line.contains("voter=102");
        logs.collect::<Vec<_>>().iter().any(|log| log.lines().any(bound)).then_some(())
    })
    .await;
    stand.cluster.kill(LOST).await.expect("it runs");
    let data = stand.cluster.data(LOST).expect("a node").to_owned();
    // Its metadata, then everything, then everything and somebody formats it anew.
    std::fs::remove_dir_all(data.join("metadata")).expect("removed");
    one_line(
        &stand.cluster.fails(LOST).await.expect("it ends"),
        &["controller 102 has lost its metadata", "Remove the voter"],
    );
    std::fs::remove_dir_all(&data).expect("removed");
    one_line(&stand.cluster.fails(LOST).await.expect("it ends"), &["is not formatted", "firn cluster format"]);
    let format =
        stand.cluster.firn(&["cluster", "format", "--cluster-id", integration::cluster::CLUSTER_ID, "--config"], LOST);
    let formatted = format.expect("a node").finish().await.expect("it ends");
    assert!(formatted.status.success(), "{}", formatted.stderr);
    for _ in 0..2 {
        let finished = stand.cluster.fails(LOST).await.expect("it ends");
        one_line(
            &finished,
            &["node 102 is known with another metadata directory", "remove the voter and add it again"],
        );
    }
    stand.goes_on(50).await;
    stand.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_with_another_object_store_or_layout_is_refused() {
    let mut stand = Stand::start(APART).await;
    stand.cluster.end(2).await.expect("it runs");
    let text = stand.cluster.configuration(2).expect("a node");
    let bucket = stand.cluster.home().join("bucket").display().to_string();
    let other = stand.cluster.home().join("elsewhere").display().to_string();
    let stranger = stand.cluster.stranger("elsewhere", &text.replace(&bucket, &other)).expect("written");
    let urls = [format!("file://{bucket}"), format!("file://{other}")];
    one_line(&stranger.finish().await.expect("it ends"), &[&urls[0], &urls[1], "use the former again"]);

    // A directory of a later version.
    let meta = stand.cluster.data(2).expect("a node").join("meta.json");
    let text = std::fs::read_to_string(&meta).expect("read");
    std::fs::write(&meta, text.replace("\"format\": 1", "\"format\": 2")).expect("written");
    one_line(&stand.cluster.fails(2).await.expect("it ends"), &["meta.json has format 2, this version reads 1"]);
    std::fs::write(&meta, text).expect("written");
    stand.cluster.restart(2).await.unwrap_or_else(|error| panic!("with its own it starts: {error}"));
    stand.in_sync(3, Some(2)).await;
    stand.judge().await;
}

/// What no cluster of three can give: each time one code and one line that names it, and nothing has changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_three_brokers_cannot_do_is_refused() {
    let stand = Stand::start(APART).await;
    let create = |name: &str, replication_factor: i16, min_in_sync: &str| {
        let configs =
            vec![CreatableTopicConfig { name: "min.insync.replicas".to_owned(), value: Some(min_in_sync.to_owned()) }];
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions: 1,
            replication_factor,
            configs,
            ..Default::default()
        };
        CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, validate_only: false }
    };
    let mut client = stand.client().await;
    for (factor, min_in_sync, code, about) in [
        (4, "1", ErrorCode::InvalidReplicationFactor, ["4", "3"]),
        (3, "4", ErrorCode::InvalidConfig, ["min.insync.replicas is 4", "only 3 replica"]),
    ] {
        let answer = client.call(&create("never", factor, min_in_sync)).await.expect("an answer");
        let topic = answer.topics.first().expect("the topic");
        let said = topic.error_message.clone().unwrap_or_default();
        assert_eq!(ErrorCode::from_code(topic.error_code), Some(code), "{said}");
        assert!(about.iter().all(|about| said.contains(about)) && said.lines().count() == 1, "{said}");
    }
    let partition = ReassignablePartition { partition_index: 0, replicas: Some(vec![0, 1, 77]) };
    let topics = vec![ReassignableTopic { name: TOPIC.to_owned(), partitions: vec![partition] }];
    let request = AlterPartitionReassignmentsRequest { topics, timeout_ms: 30_000, ..Default::default() };
    let answer = client.call(&request).await.expect("an answer");
    let partition = &answer.responses.first().expect("the topic").partitions[0];
    assert_eq!(ErrorCode::from_code(partition.error_code), Some(ErrorCode::InvalidReplicaAssignment));
    let said = partition.error_message.clone().unwrap_or_default();
    assert!(said.contains("broker 77, but no such broker is registered"), "{said}");
    assert!(!client.topics().await.expect("topics").contains(&"never".to_owned()));
    stand.goes_on(50).await;
    stand.judge().await;
}
