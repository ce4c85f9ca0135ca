//! Data directories that come back with less than they had, or not at all.

use super::commands::one_line;
use super::stand::{Witness, batch, dev, home, unique, until};
use integration::calls::{ACKS_ALL, LATEST, LATEST_TIERED, PRODUCE_BY_NAME, produce_request, produced};
use integration::client::Client;
use integration::process::Firn;
use proto::errors::ErrorCode;
use std::path::Path;
use std::time::Duration;

/// Cold at once.
const COLD: [(&str, &str); 3] =
    [("segment.bytes", "1048576"), ("local.retention.bytes", "1"), ("firn.tier.max.lag.ms", "1000")];

/// Removes the journal and all logs; what says whose directory it is stays, and so does what is not the log's.
fn wipe(directory: &Path) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        if path.is_file() && name != "meta.json" {
            std::fs::remove_file(path).expect("removed");
        } else if path.is_dir() && name != "metadata" && name != "bucket" {
            std::fs::remove_dir_all(path).expect("removed");
        }
    }
}

/// A broker with its metadata and its records in different directories.
fn two(home: &Path) -> Firn {
    let dirs = format!("{},{}", home.join("one").display(), home.join("two").display());
    dev(&home.join("data")).set("log.dirs", dirs).set("firn.tier.check.interval.ms", 20)
}

/// A topic of four partitions, so that either directory gets some, with one record in each; the partitions by directory.
async fn spread(client: &mut Client, topic: &str) -> [Vec<i32>; 2] {
    client.create_topic(topic, 4, &[("remote.storage.enable", "false")]).await.expect("a topic");
    for partition in 0..4 {
        until("a leader", async || {
            let value = format!("record of {partition}");
            client.produce(topic, partition, batch(value.as_bytes())).await.ok()
        })
        .await;
    }
    [vec![0, 2], vec![1, 3]]
}

/// What the tier holds is not written again under the same offsets (TIER-IS-TRUTH).
#[tokio::test]
async fn a_log_that_lost_what_is_tiered_goes_on_behind_it() {
    let home = home();
    let firn = two(home.path());
    let running = firn.start().await.expect("a broker");
    let mut witness = Witness::at(running.kafka(), &COLD).await;
    for _ in 0..4 {
        witness.produce(400_000).await.expect("an acknowledgement");
    }
    let mut client = Client::connect(running.kafka()).await.expect("a connection");
    let end = client.offset(&witness.topic, 0, LATEST).await.expect("the end");
    let topic = witness.topic.clone();
    until("all records to be tiered", async || {
        let tiered = client.offset(&topic, 0, LATEST_TIERED).await.expect("an offset");
        (tiered == end - 1).then_some(())
    })
    .await;
    running.kill().await.expect("killed");
    // As a power cut leaves a topic that is acknowledged from memory, or a disk that was replaced.
    for directory in ["one", "two"] {
        wipe(&home.path().join(directory));
    }
    let running = firn.start().await.expect("a broker");
    witness.address_moved(Client::connect(running.kafka()).await.expect("a connection"));
    until("the log to be led again", async || witness.produce(100).await.ok()).await;
    witness.is_well().await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_opened_takes_only_its_own_partitions_and_brings_them_back() {
    let home = home();
    let firn = two(home.path());
    let running = firn.start().await.expect("a broker");
    let mut client = Client::connect(running.kafka()).await.expect("a connection");
    let topic = unique("spread");
    let [one, two] = spread(&mut client, &topic).await;
    running.kill().await.expect("killed");
    // The disk does not answer: here, because the directory is a file.
    let (disk, aside) = (home.path().join("two"), home.path().join("aside"));
    std::fs::rename(&disk, &aside).expect("moved");
    std::fs::write(&disk, "not a directory").expect("written");
    let running = firn.start().await.expect("a broker: one directory is well");
    let mut client = Client::connect(running.kafka()).await.expect("a connection");
    for partition in one {
        let end = client.offset(&topic, partition, LATEST).await.expect("it is led");
        assert_eq!(end, 1);
        client.produce(&topic, partition, batch(b"one more")).await.expect("taken");
    }
    for partition in &two {
        let request = produce_request(&topic, *partition, ACKS_ALL, batch(b"not to be begun anew"));
        let answer = client.call_in(&request, PRODUCE_BY_NAME).await.expect("an answer");
        let refused = produced(answer).expect_err("its records are elsewhere");
        assert_eq!(refused.code(), Some(ErrorCode::KafkaStorageError), "{refused}");
    }
    // New topics go where there is room.
    let fresh = unique("fresh");
    let [.., _] = spread(&mut client, &fresh).await;
    running.kill().await.expect("killed");
    std::fs::remove_file(&disk).expect("removed");
    std::fs::rename(&aside, &disk).expect("moved back");
    let running = firn.start().await.expect("a broker");
    let mut client = Client::connect(running.kafka()).await.expect("a connection");
    for partition in two {
        let end = client.offset(&topic, partition, LATEST).await.expect("it is led again");
        assert_eq!(end, 1, "what it had is there");
        client.produce(&topic, partition, batch(b"one more")).await.expect("taken");
    }
}

#[tokio::test]
async fn a_partition_in_two_directories_is_said() {
    let home = home();
    let firn = two(home.path()).log_to(&home.path().join("log"));
    let running = firn.start().await.expect("a broker");
    let mut client = Client::connect(running.kafka()).await.expect("a connection");
    spread(&mut client, &unique("spread")).await;
    let (status, _) = running.terminate(Duration::from_secs(10)).await.expect("it ends");
    assert!(status.success());
    let (from, to) = (home.path().join("one"), home.path().join("two"));
    let is_partition = |path: &Path| path.join("partition.firn").is_file();
    let folder = std::fs::read_dir(&from).expect("a directory").map(|entry| entry.expect("an entry").path());
    let folder = folder.into_iter().find(|path| is_partition(path)).expect("a partition");
    let copied = std::process::Command::new("cp").arg("-r").arg(&folder).arg(&to).status().expect("cp");
    assert!(copied.success());
    let mut wrong = Vec::new();
    one_line("in two directories", &firn.finish().await.expect("it ends"), "lies in both", &mut wrong);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Cold records do not follow a node to another object store by themselves.
#[tokio::test]
async fn a_directory_that_was_started_with_another_object_store_is_refused() {
    let home = home();
    let data = home.path().join("data");
    let elsewhere = format!("file://{}", home.path().join("elsewhere").display());
    let firn = dev(&data);
    let running = firn.start().await.expect("a broker");
    let mut witness = Witness::at(running.kafka(), &[]).await;
    running.terminate(Duration::from_secs(10)).await.expect("it ends");
    let other = firn.clone().arg("--object-store").arg(&elsewhere);
    let mut wrong = Vec::new();
    let finished = other.finish().await.expect("it ends");
    one_line(
        "both are named",
        &finished,
        &format!("of its own (the folder bucket in it), and is given {elsewhere} now"),
        &mut wrong,
    );
    one_line(
        "what to do",
        &finished,
        "use the former again (firn.object.store, or firn dev --object-store)",
        &mut wrong,
    );
    let finished = firn.clone().arg("--object-store").arg("s3://key:secret@bucket/at").finish().await.expect("it ends");
    one_line("no credentials", &finished, "is given s3://bucket/at now", &mut wrong);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let running = firn.start().await.expect("with its own it starts");
    witness.address_moved(Client::connect(running.kafka()).await.expect("a connection"));
    witness.is_well().await;
    running.terminate(Duration::from_secs(10)).await.expect("it ends");

    // As an earlier version left it, or as the operator did who knows better.
    let meta = data.join("meta.json");
    let text = std::fs::read_to_string(&meta).expect("read");
    let mut fields: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let noted = fields.as_object_mut().expect("an object").remove("object-store");
    assert_eq!(noted, Some("bucket".into()));
    std::fs::write(&meta, fields.to_string()).expect("written");
    let running = other.start().await.expect("nothing is noted");
    running.terminate(Duration::from_secs(10)).await.expect("it ends");
    one_line("noted again", &firn.finish().await.expect("it ends"), &elsewhere, &mut wrong);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A directory that takes its bucket with it is where its records are, wherever that is.
#[tokio::test]
async fn a_directory_that_was_moved_with_its_bucket_serves() {
    let home = home();
    let (before, after) = (home.path().join("before"), home.path().join("after"));
    let start = async |at: &Path, bucket: &Path| {
        let firn = dev(&at.join("data")).log_to(&home.path().join("log")).set("firn.tier.check.interval.ms", 20);
        firn.arg("--object-store").arg(&format!("file://{}", bucket.display())).start().await.expect("a broker")
    };
    std::fs::create_dir_all(&before).expect("made");
    let running = start(&before, &before.join("cold")).await;
    let mut witness = Witness::at(running.kafka(), &COLD).await;
    let topic = witness.topic.clone();
    for _ in 0..4 {
        witness.produce(400_000).await.expect("an acknowledgement");
    }
    let mut client = Client::connect(running.kafka()).await.expect("a connection");
    until("records to be tiered", async || {
        let tiered = client.offset(&topic, 0, LATEST_TIERED).await.expect("an offset");
        (tiered > 0).then_some(())
    })
    .await;
    running.terminate(Duration::from_secs(10)).await.expect("it ends");
    std::fs::rename(&before, &after).expect("moved");
    let running = start(&after, &after.join("cold")).await;
    witness.address_moved(Client::connect(running.kafka()).await.expect("a connection"));
    until("the log to be led again", async || witness.produce(100).await.ok()).await;
    witness.is_well().await;
}
