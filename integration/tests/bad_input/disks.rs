//! Disks that are full or read-only, and buckets that vanish.

use super::commands::one_line;
use super::mount::Mount;
use super::stand::{Witness, batch, dev, home, make, unique, until};
use integration::calls::{ACKS_ALL, CallError, EARLIEST_LOCAL, LATEST, PRODUCE_BY_NAME, produce_request, produced};
use integration::client::Client;
use integration::process::Running;
use proto::errors::ErrorCode;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

const LOCAL_ONLY: [(&str, &str); 2] = [("remote.storage.enable", "false"), ("segment.bytes", "4194304")];
const SMALL: [(&str, &str); 3] =
    [("segment.bytes", "1048576"), ("local.retention.bytes", "1048576"), ("firn.tier.max.lag.ms", "1000")];

/// Produces until the broker refuses, and answers with what it said.
async fn fill(witness: &mut Witness) -> CallError {
    for _ in 0..400 {
        if let Err(error) = witness.produce(500_000).await {
            return error;
        }
    }
    panic!("400 records of 500 kB fitted on so small a disk");
}

#[tokio::test]
async fn a_disk_that_fills_up_refuses_records_keeps_what_it_has_and_goes_on_when_there_is_room() {
    let home = home();
    let small = home.path().join("small");
    let Some(_mount) = Mount::tmpfs(&small, 256) else { return };
    let ballast = small.join("ballast");
    std::fs::write(&ballast, vec![1; 128 << 20]).expect("written");
    let firn = dev(&home.path().join("data"))
        .set("log.dirs", small.join("log").display())
        .set("firn.journal.bytes", 32 << 20)
        .set("firn.disk.reserve.bytes", 4 << 20);
    let mut running = firn.start().await.expect("a broker");
    let mut witness = Witness::at(running.kafka(), &LOCAL_ONLY).await;
    let refused = fill(&mut witness).await;
    assert_eq!(refused.code(), Some(ErrorCode::KafkaStorageError), "{refused}");
    witness.read_all().await.expect("reads go on");
    // So do others, and it stays that way.
    let again = witness.produce(500_000).await.expect_err("still full");
    assert_eq!(again.code(), Some(ErrorCode::KafkaStorageError), "{again}");
    assert!(running.ended().expect("known").is_none());
    std::fs::remove_file(&ballast).expect("removed");
    until("room to be noticed", async || witness.produce(100).await.ok()).await;
    witness.is_well().await;
    // What was acknowledged on the way is there after a crash, too.
    running.kill().await.expect("killed");
    let running = firn.start().await.expect("a broker");
    witness.address_moved(Client::connect(running.kafka()).await.expect("a connection"));
    witness.is_well().await;
}

/// Takes all that is left of a disk.
fn swallow(ballast: &Path) {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(ballast);
    let mut file = file.expect("opened");
    for piece in [1 << 20, 64 << 10, 4 << 10, 512] {
        let bytes = vec![1; piece];
        while file.write_all(&bytes).is_ok() {}
    }
}

/// Without a reserve the operating system itself says no in the middle of a write.
#[tokio::test]
async fn a_disk_without_a_reserve_loses_nothing_either() {
    let home = home();
    let small = home.path().join("small");
    let Some(_mount) = Mount::tmpfs(&small, 128) else { return };
    let ballast = small.join("ballast");
    // What is still in the journal needs as much room again.
    std::fs::write(&ballast, vec![1; 64 << 20]).expect("written");
    let firn = dev(&home.path().join("data"))
        .set("log.dirs", small.join("log").display())
        .set("firn.journal.bytes", 32 << 20)
        .set("firn.disk.reserve.bytes", 0);
    let mut running = firn.start().await.expect("a broker");
    let mut witness = Witness::at(running.kafka(), &LOCAL_ONLY).await;
    let refused = fill(&mut witness).await;
    // Either it was seen coming, or the journal waits for room.
    let said = [ErrorCode::KafkaStorageError, ErrorCode::RequestTimedOut];
    assert!(refused.code().is_some_and(|code| said.contains(&code)), "{refused}");
    witness.read_all().await.expect("reads go on");
    assert!(running.ended().expect("known").is_none());
    std::fs::remove_file(&ballast).expect("removed");
    let mut client = Client::connect(running.kafka()).await.expect("a connection");
    make(&mut client, "another", 1, &LOCAL_ONLY).await;
    until("room to be noticed", async || {
        let request = produce_request("another", 0, ACKS_ALL, batch(b"new"));
        let answer = client.call_in(&request, PRODUCE_BY_NAME).await.expect("an answer");
        produced(answer).ok()
    })
    .await;
    running.kill().await.expect("killed");
    let running = firn.start().await.expect("a broker");
    let mut client = Client::connect(running.kafka()).await.expect("a connection");
    let end = client.offset(&witness.topic, 0, LATEST).await.expect("the end");
    witness.address_moved(client);
    witness.read_acknowledged(end).await;
}

/// Log, metadata and bucket on one disk, which somebody else fills to the last byte.
#[tokio::test]
async fn a_disk_that_holds_all_of_it_may_be_full_to_the_last_byte() {
    let home = home();
    let small = home.path().join("small");
    let Some(_mount) = Mount::tmpfs(&small, 192) else { return };
    let firn = dev(&small.join("data")).log_to(&home.path().join("log"));
    let firn = firn.set("firn.journal.bytes", 32 << 20).set("firn.disk.reserve.bytes", 8 << 20);
    let mut running = firn.start().await.expect("a broker");
    let mut witness = Witness::at(running.kafka(), &SMALL).await;
    for _ in 0..8 {
        witness.produce(400_000).await.expect("an acknowledgement");
    }
    let ballast = small.join("ballast");
    swallow(&ballast);
    let mut client = Client::connect(running.kafka()).await.expect("a connection");
    // Whatever is asked for is refused in time, or done with what was kept for it.
    let mut refused = 0;
    for round in 0..40 {
        let topic = format!("refused-{round}-{}", "x".repeat(200));
        match client.create_topic(&topic, 50, &[]).await {
            Ok(_) => {}
            Err(error) => {
                refused += 1;
                assert_eq!(error.code(), Some(ErrorCode::KafkaStorageError), "{round}: {error}");
            }
        }
        swallow(&ballast);
    }
    assert!(refused > 0, "what was kept is finite");
    let refused = fill(&mut witness).await;
    let said = [ErrorCode::KafkaStorageError, ErrorCode::RequestTimedOut];
    assert!(refused.code().is_some_and(|code| said.contains(&code)), "{refused}");
    assert!(running.ended().expect("known").is_none());
    std::fs::remove_file(&ballast).expect("removed");
    until("room to be noticed", async || client.create_topic(&unique("accepted"), 1, &[]).await.ok()).await;
    running.kill().await.expect("killed");
    let running = firn.start().await.expect("a broker");
    let mut client = Client::connect(running.kafka()).await.expect("a connection");
    let end = client.offset(&witness.topic, 0, LATEST).await.expect("the end");
    witness.address_moved(client);
    witness.read_acknowledged(end).await;
}

#[tokio::test]
async fn a_read_only_directory_is_no_place_to_start() {
    let home = home();
    let disk = home.path().join("disk");
    let Some(mount) = Mount::tmpfs(&disk, 128) else { return };
    let data = disk.join("data");
    let firn = dev(&data).log_to(&home.path().join("log"));
    let firn = firn.set("firn.disk.reserve.bytes", 0).set("firn.journal.bytes", 32 << 20);
    let mut wrong = Vec::new();
    mount.set("ro");
    one_line("nothing there yet", &firn.finish().await.expect("it ends"), "ead-only", &mut wrong);
    mount.set("rw");
    let running = firn.start().await.expect("a broker");
    let mut witness = Witness::at(running.kafka(), &[]).await;
    running.kill().await.expect("killed");
    mount.set("ro");
    one_line("data there", &firn.finish().await.expect("it ends"), "ead-only", &mut wrong);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    mount.set("rw");
    let running = firn.start().await.expect("a broker");
    witness.address_moved(Client::connect(running.kafka()).await.expect("a connection"));
    witness.is_well().await;
}

/// Produces until most of the topic lies only in the bucket.
async fn settle(witness: &mut Witness, client: &mut Client) {
    for _ in 0..10 {
        witness.produce(400_000).await.expect("an acknowledgement");
    }
    let topic = witness.topic.clone();
    until("records to be only in the bucket", async || {
        let local = client.offset(&topic, 0, EARLIEST_LOCAL).await.expect("an offset");
        (local >= 5).then_some(())
    })
    .await;
}

/// A broker whose bucket is a directory beside its data.
async fn on_a_bucket(home: &Path, bucket: &Path) -> Running {
    std::fs::create_dir_all(bucket).expect("a directory");
    let url = format!("file://{}", bucket.display());
    let firn = dev(&home.join("data")).arg("--object-store").arg(&url).set("firn.tier.check.interval.ms", 20);
    // No chunk that was read before may answer for the bucket.
    firn.set("firn.chunk.cache.bytes", 1 << 20).start().await.expect("a broker")
}

#[tokio::test]
async fn a_bucket_that_vanishes_hurts_only_what_needs_it() {
    let home = home();
    let bucket = home.path().join("bucket");
    let mut running = on_a_bucket(home.path(), &bucket).await;
    let mut client = Client::connect(running.kafka()).await.expect("a connection");
    let mut witness = Witness::at(running.kafka(), &SMALL).await;
    settle(&mut witness, &mut client).await;
    let away = home.path().join("away");
    std::fs::rename(&bucket, &away).expect("moved");
    // Whatever stands in its place is not it: nothing may be written into a void.
    std::fs::write(&bucket, "gone").expect("written");
    let refused = witness.read(0).await.expect_err("the bucket is gone");
    assert_eq!(refused.code(), Some(ErrorCode::KafkaStorageError), "{refused}");
    for _ in 0..8 {
        witness.produce(400_000).await.expect("acknowledgements do not wait for the bucket");
    }
    let local = client.offset(&witness.topic, 0, EARLIEST_LOCAL).await.expect("an offset");
    witness.read(local).await.expect("what is local");
    assert!(running.ended().expect("known").is_none());
    std::fs::remove_file(&bucket).expect("removed");
    std::fs::rename(&away, &bucket).expect("moved back");
    until("the bucket to be noticed", async || witness.read(0).await.ok()).await;
    witness.is_well().await;
    // Uploads go on, too.
    until("uploads to go on", async || {
        let now = client.offset(&witness.topic, 0, EARLIEST_LOCAL).await.expect("an offset");
        (now > local).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_bucket_that_is_gone() {
    let home = home();
    let bucket = home.path().join("bucket");
    let running = on_a_bucket(home.path(), &bucket).await;
    let mut client = Client::connect(running.kafka()).await.expect("a connection");
    let mut witness = Witness::at(running.kafka(), &SMALL).await;
    settle(&mut witness, &mut client).await;
    std::fs::rename(&bucket, home.path().join("away")).expect("moved");
    std::fs::write(&bucket, "gone").expect("written");
    witness.produce(900_000).await.expect("an acknowledgement");
    assert!(witness.read(0).await.is_err());
    let (status, _) = running.terminate(Duration::from_secs(5)).await.expect("it ends in time");
    assert!(status.success(), "{status}");
}
