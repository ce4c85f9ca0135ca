//! `kill -9` at random moments under load, again and again on the same data: what was acknowledged is there, once, in order, byte for
//! byte, wherever it is read from; what was not is there at most once.
//!
//! `FIRN_TEST_CUTS` says how often the process is killed in all (54 times unless set; where it is asked to end instead comes on top),
//! `FIRN_TEST_SEED` repeats a run: it draws the same load and the same moments, though not the same interleaving. A failure names
//! its seed and keeps its directory.

#[path = "crash/check.rs"]
mod check;
#[path = "crash/load.rs"]
mod load;
#[path = "crash/plan.rs"]
mod plan;

use integration::dice::Dice;
use integration::history::ledger::Ledger;
use integration::process::{Firn, Running};
use integration::s3::{BUCKET, Faults, S3Server};
use load::{Administrator, Committer, Numbers, Producer};
use plan::{Moment, TOPICS};
use proto::host::{Clock, Entropy, SystemClock, SystemEntropy};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const FIRN: &str = env!("CARGO_BIN_EXE_firn-under-test");
/// What SIGTERM promises.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// An upload or a trim that does not come is not waited for any longer.
const STIR: Duration = Duration::from_secs(3);
/// The tests share the cuts.
const TESTS: u64 = 3;
/// SIGKILLs in all, unless somebody wants more or less.
const CUTS: u64 = 54;
const _: () = assert!(CUTS >= 50, "at least fifty are promised");
/// A directory is used for so many cuts, or what is read back would grow with their square.
const CUTS_OF_A_LIFE: u64 = 9;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_comes_twice() {
    run("one", None, |firn, _| firn).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_with_several_data_directories() {
    let split = |firn: Firn, data: &Path| {
        let dirs: Vec<String> = ["a", "b", "c"].iter().map(|dir| data.join(dir).display().to_string()).collect();
        firn.set("log.dirs", dirs.join(","))
    };
    run("several", None, split).await;
}

/// An upload that is cut leaves a request without its answer, or half of one, at a server that lives on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_with_its_history_in_s3() {
    let server = S3Server::start(SystemEntropy.next_u64()).await.expect("loopback has a free port");
    server.set_faults(Faults { slow: 200, ..Faults::NONE });
    let server = Arc::new(server);
    let environment = server.env();
    let in_s3 = |firn: Firn, _: &Path| {
        let firn = firn.arg("--object-store").arg(&format!("s3://{BUCKET}/crash"));
        environment.iter().fold(firn, |firn, (name, value)| firn.env(name, value))
    };
    run("s3", Some(&server), in_s3).await;
}

async fn run(name: &str, server: Option<&Arc<S3Server>>, adapt: impl Fn(Firn, &Path) -> Firn) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("FIRN_TEST_SEED").unwrap_or_else(|| SystemEntropy.next_u64());
    let mut left = number("FIRN_TEST_CUTS").unwrap_or(CUTS).div_ceil(TESTS);
    let mut dice = Dice::new(seed);
    let mut cold = 0;
    while left > 0 {
        let cuts = left.min(CUTS_OF_A_LIFE);
        left -= cuts;
        let home = tempfile::Builder::new().prefix(&format!("firn-crash-{name}-")).tempdir().expect("a directory");
        let world = World::new(home.path(), &mut dice, server.cloned(), &adapt);
        match life(world, cuts).await {
            Ok(bytes) => cold += bytes,
            Err(why) => {
                let kept = home.keep();
                panic!("FIRN_TEST_SEED={seed}: {why}\nlog and data are kept in {}", kept.display());
            }
        }
    }
    assert!(cold > 0, "FIRN_TEST_SEED={seed}: nothing was read from the bucket, so nothing of it was tested");
}

/// Everything that outlives a cut.
struct World {
    firn: Firn,
    data: PathBuf,
    /// Where its history lies, unless that is a folder in the data directory.
    server: Option<Arc<S3Server>>,
    dice: Dice,
    ledgers: BTreeMap<(&'static str, i32), load::Shared>,
    producers: Vec<Producer>,
    committer: Committer,
    administrator: Administrator,
    producer_ids: Arc<Mutex<BTreeSet<i64>>>,
    /// Bytes that were read of what lies only in the bucket.
    cold_bytes: u64,
}

/// Kills one directory's process `cuts` times; the bytes that were read from the bucket.
async fn life(mut world: World, cuts: u64) -> Result<u64, String> {
    let mut running = world.start().await?;
    world.create_topics(&running).await?;
    let (mut killed, mut asked) = (0, 0);
    while killed < cuts {
        let moment = Moment::draw(&mut world.dice);
        let done = world.cut(running, moment).await;
        running = done.map_err(|why| format!("cut {killed} of {cuts} ({moment:?}): {why}"))?;
        match moment {
            Moment::Asked(_) => asked += 1,
            Moment::Running(_) | Moment::Uploading(_) | Moment::Trimming(_) | Moment::Starting(_) => killed += 1,
        }
    }
    let (status, took) = running.terminate(ENDS_WITHIN).await.map_err(|error| error.to_string())?;
    if !status.success() || took > ENDS_WITHIN {
        return Err(format!("at last asked to end, it took {took:?} and ended with {status}"));
    }
    let kept: usize =
        world.ledgers.values().map(|ledger| ledger.lock().expect("no panic under this lock").kept()).sum();
    let cold = world.cold_bytes >> 20;
    println!("killed {killed} times, asked {asked} times, {kept} batches kept, {cold} MiB read from the bucket");
    Ok(world.cold_bytes)
}

impl World {
    fn new(home: &Path, dice: &mut Dice, server: Option<Arc<S3Server>>, adapt: impl Fn(Firn, &Path) -> Firn) -> World {
        let data = home.join("data");
        let firn = Firn::dev(FIRN, &data)
            .set("firn.journal.file.bytes", 1 << 20)
            .set("firn.journal.bytes", 32 << 20)
            .set("firn.tier.check.interval.ms", 10)
            .set("firn.tier.delete.grace.ms", 200)
            .set("log.retention.check.interval.ms", 100)
            .set("group.initial.rebalance.delay.ms", 0)
            .set("offsets.topic.num.partitions", 2)
            .set("firn.disk.reserve.bytes", 0);
        let numbers = Arc::new(Numbers::from(SystemClock.now_ms()));
        let mut dice = dice.split();
        let mut ledgers = BTreeMap::new();
        let mut producers = Vec::new();
        for topic in &TOPICS {
            for partition in 0..topic.partitions {
                let ledger = Arc::new(Mutex::new(Ledger::default()));
                ledgers.insert((topic.name, partition), Arc::clone(&ledger));
                let (number, numbers) = (producers.len(), Arc::clone(&numbers));
                producers.push(Producer::new(number, topic, partition, ledger, numbers, dice.split()));
            }
        }
        let trimmed = ("plain".to_owned(), 1);
        let ledger = Arc::clone(&ledgers[&("plain", 1)]);
        World {
            firn: adapt(firn, &data),
            data,
            server,
            administrator: Administrator::new(trimmed, ledger, dice.split()),
            dice,
            ledgers,
            producers,
            committer: Committer::default(),
            producer_ids: Arc::default(),
            cold_bytes: 0,
        }
    }

    async fn start(&self) -> Result<Running, String> {
        self.firn.start().await.map_err(|error| format!("it did not start: {error}"))
    }

    async fn create_topics(&self, running: &Running) -> Result<(), String> {
        let mut client =
            integration::client::Client::connect(running.kafka()).await.map_err(|error| error.to_string())?;
        for topic in &TOPICS {
            let created = client.create_topic(topic.name, topic.partitions, topic.configs).await;
            created.map_err(|error| format!("creating {}: {error}", topic.name))?;
        }
        Ok(())
    }

    /// Puts the process under load, ends it, starts it again and checks what is there.
    async fn cut(&mut self, running: Running, moment: Moment) -> Result<Running, String> {
        let kafka = running.kafka();
        let ending = matches!(moment, Moment::Asked(_));
        let mut clients = tokio::task::JoinSet::new();
        for mut producer in std::mem::take(&mut self.producers) {
            let ids = Arc::clone(&self.producer_ids);
            clients.spawn(async move {
                let ended = producer.run(kafka, &ids, ending).await;
                (producer, ended)
            });
        }
        let end = end(running, moment, &self.data, self.server.as_deref());
        let (committed, administered, ended) =
            tokio::join!(self.committer.run(kafka, ending), self.administrator.run(kafka, ending), end);
        let mut wrong = Vec::new();
        while let Some(client) = clients.join_next().await {
            let (producer, ended) = client.map_err(|error| error.to_string())?;
            wrong.extend(ended.err());
            self.producers.push(producer);
        }
        wrong.extend([committed, administered, ended].into_iter().filter_map(Result::err));
        if !wrong.is_empty() {
            return Err(wrong.join("; "));
        }
        if let Moment::Starting(after) = moment {
            let starting = self.firn.spawn().map_err(|error| error.to_string())?;
            sleep(after).await;
            starting.kill().await.map_err(|error| error.to_string())?;
        }
        let running = self.start().await?;
        self.cold_bytes += check::everything(self, running.kafka()).await?;
        Ok(running)
    }
}

/// Ends the process at its moment.
async fn end(running: Running, moment: Moment, data: &Path, server: Option<&S3Server>) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    match moment {
        Moment::Running(after) => {
            sleep(after).await;
            running.kill().await.map_err(failed)
        }
        Moment::Uploading(after) => {
            let bucket = || match server {
                Some(server) => server.objects().into_keys().map(PathBuf::from).collect(),
                None => files(&data.join("bucket")),
            };
            stirred(bucket, |before, now| !now.is_subset(before)).await;
            sleep(after).await;
            running.kill().await.map_err(failed)
        }
        Moment::Trimming(after) => {
            let logs =
                || files(data).into_iter().filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
            stirred(logs, |before, now| !before.is_subset(now)).await;
            sleep(after).await;
            running.kill().await.map_err(failed)
        }
        // The cut itself falls into the next start.
        Moment::Starting(_) => {
            sleep(Duration::from_millis(300)).await;
            running.kill().await.map_err(failed)
        }
        Moment::Asked(after) => {
            sleep(after).await;
            let (status, _) = running.terminate(ENDS_WITHIN).await.map_err(failed)?;
            if status.success() { Ok(()) } else { Err(format!("asked to end, it ended with {status}")) }
        }
    }
}

/// Waits until `look` sees a change that `counts`, though not for ever: what does not come is cut elsewhere.
async fn stirred(
    look: impl Fn() -> BTreeSet<PathBuf>,
    counts: impl Fn(&BTreeSet<PathBuf>, &BTreeSet<PathBuf>) -> bool,
) {
    let deadline = Instant::now() + STIR;
    let mut before = look();
    while Instant::now() < deadline {
        sleep(Duration::from_millis(2)).await;
        let now = look();
        if counts(&before, &now) {
            return;
        }
        before = now;
    }
}

/// All files below `folder`. What goes while it is looked at is left out.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) => drop(found.insert(entry.path())),
                Err(_) => {}
            }
        }
    }
    found
}
