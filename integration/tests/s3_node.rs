//! A whole broker whose bucket lies in an S3 that fails: producing goes on, reading what is hot goes on, reading what is cold gives
//! every record or an error that clients retry, and once the store is well everything settles.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use integration::calls::{CallError, EARLIEST, EARLIEST_LOCAL};
use integration::client::Client;
use integration::process::{Firn, Running};
use integration::s3::{BUCKET, Fault, Faults, Operation, S3Server};
use proto::errors::ErrorCode;
use proto::host::{Entropy, SystemEntropy};
use proto::ids::Offset;
use proto::records::{BatchBuilder, batches, for_each_record};
use tokio::time::{Instant, sleep};

const FIRN: &str = env!("CARGO_BIN_EXE_firn-under-test");
const TOPIC: &str = "snow";
const PARTITIONS: i32 = 2;
/// Records of a batch and bytes of a record's value: a segment of the least size is 16 batches.
const BATCH_RECORDS: i64 = 64;
const VALUE_BYTES: usize = 1024;
const CONFIGS: [(&str, &str); 4] = [
    ("segment.bytes", "1048576"),
    ("local.retention.bytes", "1048576"),
    ("firn.tier.max.lag.ms", "600000"),
    ("retention.ms", "-1"),
];
/// Far beyond every timeout inside, so that only what never ends gets there.
const PATIENCE: Duration = Duration::from_secs(120);
/// What SIGTERM promises.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// A broker, its store and what was acknowledged.
struct World {
    seed: u64,
    server: Arc<S3Server>,
    firn: Firn,
    /// First offset not acknowledged, by partition.
    ends: [Offset; PARTITIONS as usize],
}

impl World {
    async fn new(home: &Path) -> World {
        let seed = std::env::var("FIRN_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| SystemEntropy.next_u64());
        println!("FIRN_TEST_SEED={seed}");
        let server = Arc::new(S3Server::start(seed).await.expect("loopback has a free port"));
        let mut firn = Firn::dev(FIRN, &home.join("data"))
            .arg("--object-store")
            .arg(&format!("s3://{BUCKET}/some/prefix"))
            .set("firn.tier.check.interval.ms", 20)
            .set("firn.tier.delete.grace.ms", 500)
            .set("log.retention.check.interval.ms", 50)
            .set("firn.disk.reserve.bytes", 0)
            .set("firn.chunk.cache.bytes", 1 << 20);
        for (name, value) in server.env() {
            firn = firn.env(&name, &value);
        }
        World { seed, server, firn, ends: [0; PARTITIONS as usize] }
    }

    /// Produces `batches` to each partition. Nothing that the store does may be felt here (ISOLATED).
    async fn produce(&mut self, running: &Running, batches: usize) {
        let mut client = Client::connect(running.kafka()).await.expect("it serves");
        for _ in 0..batches {
            for (partition, end) in (0..).zip(&mut self.ends) {
                let mut batch = BatchBuilder::new();
                for offset in *end..*end + BATCH_RECORDS {
                    batch.append(1_700_000_000_000 + offset, None, Some(&value(self.seed, partition, offset)), &[]);
                }
                let base = client.produce(TOPIC, partition, batch.build()).await;
                assert_eq!(base.expect("the store is not asked"), *end);
                *end += BATCH_RECORDS;
            }
        }
    }

    /// Reads everything from the first offset on; the number of errors on the way.
    async fn read_back(&self, running: &Running) -> u64 {
        let mut client = Client::connect(running.kafka()).await.expect("it serves");
        let mut errors = 0;
        for (partition, end) in (0..).zip(self.ends) {
            let mut next = 0;
            let deadline = Instant::now() + PATIENCE;
            while next < end {
                assert!(Instant::now() < deadline, "reading {TOPIC}-{partition} hangs at {next} of {end}");
                match client.fetch(TOPIC, partition, next, 512 << 10).await {
                    Ok(fetched) => next = self.compare(partition, next, &fetched.records),
                    // What clients retry by themselves.
                    Err(error) if error.code() == Some(ErrorCode::KafkaStorageError) => errors += 1,
                    Err(error) => panic!("reading {TOPIC}-{partition} at {next}: {error}"),
                }
            }
            assert_eq!(next, end, "{TOPIC}-{partition} holds more than was produced");
        }
        errors
    }

    /// Every record from `next` on is what was produced; the first offset after them.
    fn compare(&self, partition: i32, mut next: Offset, records: &Bytes) -> Offset {
        for batch in batches(records) {
            let batch = batch.expect("whole batches");
            let each = for_each_record(&batch, 1 << 20, |record| {
                // A batch is fetched as a whole, also from its middle.
                if record.offset >= next {
                    assert_eq!(record.offset, next, "{TOPIC}-{partition}: a gap");
                    let expected = value(self.seed, partition, record.offset);
                    assert!(record.value == Some(&expected[..]), "{TOPIC}-{partition} at {next}: other bytes");
                    next += 1;
                }
            });
            each.expect("sound batches");
        }
        next
    }

    /// Asks for everything to be tiered, until it is.
    async fn flush(&self, running: &Running) {
        let admin = running.http().to_string();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let flush = self.firn_client(&["tier", "flush", TOPIC, "--timeout", "20", "--admin", &admin]);
            let said = flush.finish().await.expect("the command ends");
            if said.status.success() {
                return;
            }
            assert!(Instant::now() < deadline, "it never gets tiered: {}", said.stderr);
        }
    }

    /// What `firn tier status` says.
    async fn status(&self, running: &Running) -> Vec<serde_json::Value> {
        let admin = running.http().to_string();
        let status = self.firn_client(&["tier", "status", TOPIC, "--json", "--admin", &admin]);
        let said = status.finish().await.expect("the command ends");
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {} {}", said.stdout, said.stderr))
    }

    fn firn_client(&self, arguments: &[&str]) -> Firn {
        Firn::new(FIRN, Path::new("/dev/null"), arguments)
    }

    fn segments(&self) -> usize {
        self.server.objects().keys().filter(|key| key.ends_with(".seg")).count()
    }
}

/// The value of the record at an offset.
fn value(seed: u64, partition: i32, offset: Offset) -> Vec<u8> {
    let mut x = seed ^ (u64::from(partition.unsigned_abs()) << 48) ^ offset.unsigned_abs();
    let mut next = || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (x >> 33) as u8
    };
    (0..VALUE_BYTES).map(|_| next()).collect()
}

async fn until(what: &str, mut happened: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn first_cold_fetch(running: &Running) -> Result<Bytes, CallError> {
    let mut client = Client::connect(running.kafka()).await.expect("it serves");
    client.fetch(TOPIC, 0, 0, 1 << 20).await.map(|fetched| fetched.records)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_in_the_store_loses_nothing_and_leaves_nothing_behind() {
    let home = tempfile::tempdir().expect("a directory");
    let mut world = World::new(home.path()).await;
    // Hangs cost 10 s each and have their own test.
    world.server.set_faults(Faults { hang: 0, stall: 0, ..Faults::STORM });
    let mut running = world.firn.start().await.expect("it starts");
    let mut client = Client::connect(running.kafka()).await.expect("it serves");
    client.create_topic(TOPIC, PARTITIONS, &CONFIGS).await.expect("a new topic");
    for round in 0..3 {
        world.produce(&running, 48).await;
        world.flush(&running).await;
        world.read_back(&running).await;
        if round == 1 {
            running.kill().await.expect("it is ours");
            running = world.firn.start().await.expect("it starts again");
        }
    }
    let happened = world.server.happened();
    assert!(happened.contains_key(&Fault::LoseAnswer) && happened.contains_key(&Fault::Refuse), "{happened:?}");
    let local = Client::connect(running.kafka()).await.expect("it serves").offset(TOPIC, 0, EARLIEST_LOCAL).await;
    assert!(local.expect("it is known") > 0, "nothing was trimmed, so nothing cold was read");
    world.server.set_faults(Faults::NONE);
    // The next leader finds what the last one left in doubt.
    let (status, _) = running.terminate(ENDS_WITHIN).await.expect("it ends in time");
    assert!(status.success(), "{status}");
    let running = world.firn.start().await.expect("it starts again");
    world.flush(&running).await;
    until("only referenced segments are left", async || {
        let objects = world.status(&running).await.iter().map(|row| row["objects"].as_u64().unwrap_or(0)).sum::<u64>();
        objects == world.segments() as u64
    })
    .await;
    assert_eq!(world.read_back(&running).await, 0, "nothing is wrong any more");
    running.terminate(ENDS_WITHIN).await.expect("it ends in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_never_answers_stops_nothing_but_cold_reads() {
    let home = tempfile::tempdir().expect("a directory");
    let mut world = World::new(home.path()).await;
    let running = world.firn.start().await.expect("it starts");
    let mut client = Client::connect(running.kafka()).await.expect("it serves");
    client.create_topic(TOPIC, PARTITIONS, &CONFIGS).await.expect("a new topic");
    world.produce(&running, 64).await;
    world.flush(&running).await;
    until("some of it is only in the store", async || {
        client.offset(TOPIC, 0, EARLIEST_LOCAL).await.is_ok_and(|local| local > 0)
    })
    .await;
    world.server.set_faults(Faults::DEAD);
    let before = world.ends;
    // Far more than the tier holds in memory at once.
    world.produce(&running, 1024).await;
    let hot = client.fetch(TOPIC, 0, before[0], 1 << 20).await.expect("what is hot is read as ever");
    assert!(world.compare(0, before[0], &hot.records) > before[0]);
    // Nothing within the wait, or an error to retry: never a wait without end.
    match first_cold_fetch(&running).await {
        Ok(records) => assert!(records.is_empty(), "nothing can come from there"),
        Err(error) => assert_eq!(error.code(), Some(ErrorCode::KafkaStorageError), "{error}"),
    }
    until("the status says what holds it back", async || {
        world.status(&running).await.iter().all(|row| row["held_back_by"].to_string().contains("no answer"))
    })
    .await;
    let admin = running.http().to_string();
    let flush = world.firn_client(&["tier", "flush", TOPIC, "--timeout", "2", "--admin", &admin]).finish().await;
    let flush = flush.expect("the command ends");
    assert_eq!((flush.status.code(), flush.stderr.lines().count()), (Some(1), 1), "{}", flush.stderr);
    assert!(flush.stderr.starts_with("firn: ") && flush.stderr.contains("no answer"), "{}", flush.stderr);
    let peak = running.peak_resident_bytes().expect("the system says");
    assert!(peak < 640 << 20, "BOUNDED: {} MiB", peak >> 20);
    let (status, _) = running.terminate(ENDS_WITHIN).await.expect("it ends in time");
    assert!(status.success(), "{status}");
    // It starts against a dead store, too, and settles when that comes back.
    let running = world.firn.start().await.expect("it starts again");
    world.server.set_faults(Faults::NONE);
    world.flush(&running).await;
    assert_eq!(world.read_back(&running).await, 0);
    running.terminate(ENDS_WITHIN).await.expect("it ends in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_vanishes_takes_cold_records_with_it_and_nothing_else() {
    let home = tempfile::tempdir().expect("a directory");
    let mut world = World::new(home.path()).await;
    let running = world.firn.start().await.expect("it starts");
    let mut client = Client::connect(running.kafka()).await.expect("it serves");
    client.create_topic(TOPIC, PARTITIONS, &CONFIGS).await.expect("a new topic");
    world.produce(&running, 64).await;
    world.flush(&running).await;
    until("some of it is only in the store", async || {
        client.offset(TOPIC, 0, EARLIEST_LOCAL).await.is_ok_and(|local| local > 0)
    })
    .await;
    world.server.drop_bucket();
    let before = world.ends;
    world.produce(&running, 32).await;
    let hot = client.fetch(TOPIC, 1, before[1], 1 << 20).await.expect("what is hot is read as ever");
    assert!(world.compare(1, before[1], &hot.records) > before[1]);
    let cold = first_cold_fetch(&running).await.expect_err("it is gone");
    assert_eq!(cold.code(), Some(ErrorCode::KafkaStorageError), "{cold}");
    assert!(world.firn.log().contains("the bucket does not exist"), "{}", world.firn.log());
    let refused = || world.server.requests().get(&Operation::Put).copied().unwrap_or(0);
    let at_first = refused();
    until("uploads are tried again", async || refused() > at_first + 1).await;
    until("the status names the cause", async || {
        world.status(&running).await.iter().any(|row| row["held_back_by"].to_string().contains("NoSuchBucket"))
    })
    .await;
    let local = client.offset(TOPIC, 0, EARLIEST_LOCAL).await.expect("it is known");
    assert!(local <= before[0], "nothing is trimmed that was not uploaded");
    let (status, _) = running.terminate(ENDS_WITHIN).await.expect("it ends in time");
    assert!(status.success(), "{status}");
}

/// Retention drops entries of the manifest first, objects only after the grace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_object_leaves_the_store_after_the_grace() {
    let home = tempfile::tempdir().expect("a directory");
    let mut world = World::new(home.path()).await;
    let patient = world.firn.clone().set("firn.tier.delete.grace.ms", 3_600_000);
    let running = patient.start().await.expect("it starts");
    let mut client = Client::connect(running.kafka()).await.expect("it serves");
    client.create_topic(TOPIC, PARTITIONS, &CONFIGS).await.expect("a new topic");
    world.produce(&running, 96).await;
    world.flush(&running).await;
    let stored = world.segments();
    let kafka = running.kafka().to_string();
    let shrink = ["topic", "alter", TOPIC, "--config", "retention.bytes=2097152", "--bootstrap", &kafka];
    let shrunk = world.firn_client(&shrink).finish().await.expect("the command ends");
    assert!(shrunk.status.success(), "{}", shrunk.stderr);
    until("the oldest records have expired", async || {
        client.offset(TOPIC, 0, EARLIEST).await.is_ok_and(|start| start > 0)
            && client.offset(TOPIC, 1, EARLIEST).await.is_ok_and(|start| start > 0)
    })
    .await;
    let referenced = async |running: &Running| {
        world.status(running).await.iter().map(|row| row["objects"].as_u64().unwrap_or(0)).sum::<u64>()
    };
    until("the manifest has forgotten them", async || referenced(&running).await < stored as u64).await;
    assert_eq!(world.segments(), stored, "a reader of a moment ago may still need them");
    let (status, _) = running.terminate(ENDS_WITHIN).await.expect("it ends in time");
    assert!(status.success(), "{status}");
    // The same with a grace of half a second.
    let running = world.firn.start().await.expect("it starts again");
    until("only what is referenced is left", async || referenced(&running).await == world.segments() as u64).await;
    assert!(world.segments() < stored);
    let mut client = Client::connect(running.kafka()).await.expect("it serves");
    let start = client.offset(TOPIC, 0, EARLIEST).await.expect("it is known");
    let kept = client.fetch(TOPIC, 0, start, 1 << 20).await.expect("what is kept is read");
    assert!(world.compare(0, start, &kept.records) > start);
    running.terminate(ENDS_WITHIN).await.expect("it ends in time");
}
