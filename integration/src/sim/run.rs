//! One run: a cluster comes up, load begins, faults come and go, everything is whole again, and what clients saw is judged.

use super::faults::{Flavor, Schedule, Shape, Timed};
use super::monitor::Monitor;
use super::trace::Trace;
use super::world::{CLIENTS, CLUSTER, World, address};
use crate::dice::Dice;
use crate::history::{Acks, Event, History, Place, Report, check};
use crate::load::{Book, Committer, Consumer, Contacts, Deleter, Kind, Producer, Reassigner, read_everything, within};
use parking_lot::Mutex;
use proto::errors::ErrorCode;
use proto::host::Network;
use proto::records::BatchBuilder;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tiering::store::Layout;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// After the last fault has ended, every partition is writable within so long.
const LIVENESS: Duration = Duration::from_secs(10);
/// How long a cluster may take to come up.
const COMES_UP: Duration = Duration::from_secs(30);
/// How long the last answers and the last reading may take.
const DRAIN: Duration = Duration::from_secs(30);
/// Load goes on without faults for so long at the beginning and at the end.
const CALM: Duration = Duration::from_secs(2);
/// Objects are looked at once in so many milliseconds.
const LOOK_MS: u64 = 200;
/// Replicas are looked at once in so many milliseconds.
const REPLICAS_MS: u64 = 4;
/// A run that takes longer hangs.
const WHOLE: Duration = Duration::from_secs(240);

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Everything follows from it.
    pub seed: u64,
    /// What kind of faults.
    pub flavor: Flavor,
    /// How many nodes.
    pub nodes: usize,
    /// How long faults come, in simulated milliseconds.
    pub span_ms: u64,
    /// Faults that are left out, by number.
    pub without: Vec<usize>,
    /// What nodes take for their data directories: an empty directory, of which hardly anything is used. Its path is part of the trace.
    pub home: PathBuf,
}

impl Plan {
    /// How many of the first nodes vote in the quorum: of five sometimes all, sometimes three.
    pub fn voters(&self) -> usize {
        match self.nodes {
            0..=2 => 1,
            3..=4 => 3,
            // Only who has no vote may come back on another disk.
            _ if self.seed.is_multiple_of(2) && self.flavor != Flavor::Disks => 5,
            _ => 3,
        }
    }

    /// The faults of this run.
    pub fn schedule(&self) -> Schedule {
        let shape = Shape { flavor: self.flavor, nodes: self.nodes, span_ms: self.span_ms };
        Schedule::draw(self.seed, shape).without(&self.without)
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// What the checker says of the history.
    pub report: Report,
    /// What else must not be.
    pub wrong: Vec<String>,
    /// What clients did and heard.
    pub history: History,
    /// Checksum and count of all that was traced.
    pub trace: (u32, u64),
    /// Checksum of each disk.
    pub disks: Vec<u32>,
    /// How long it took, in simulated time.
    pub took: Duration,
    /// How many objects lie in the store.
    pub objects: usize,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.report.is_clean() && self.wrong.is_empty()
    }
}

/// How far the clients' part has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    ComingUp,
    Loaded,
    Done,
}

/// Runs a plan from beginning to end.
pub fn run(plan: &Plan, trace: &Trace) -> Verdict {
    let mut sim = turmoil::Builder::new()
        .rng_seed(plan.seed)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_micros(200))
        .max_message_latency(Duration::from_millis(3))
        .simulation_duration(WHOLE * 2)
        .tcp_capacity(4096)
        .build();
    let monitor = Monitor::default();
    let mut world = World::new(&mut sim, plan, &monitor, trace.clone());
    let book = Book::default();
    let (stage, staged) = watch::channel(Stage::ComingUp);
    let (whole, is_whole) = watch::channel(false);
    let story = Story {
        network: Arc::new(world.network()),
        nodes: plan.nodes,
        dice: Arc::new(Mutex::new(Dice::new(plan.seed ^ 0x0c11_e275))),
        book: book.clone(),
        is_whole,
    };
    sim.client(CLIENTS, async move {
        story.tell(stage).await;
        Ok(())
    });
    let mut conductor = Conductor::new(plan.schedule());
    let mut ticks = 0_u64;
    let layout = Layout::new("", CLUSTER);
    let ended = loop {
        match sim.step() {
            Ok(true) => break None,
            Ok(false) if sim.elapsed() > WHOLE => break Some("the run does not end".to_owned()),
            Ok(false) => {}
            Err(error) => break Some(error.to_string()),
        }
        world.supervise(&mut sim);
        trace.take_votes().into_iter().for_each(|given| monitor.voted(&given));
        ticks += 1;
        if ticks.is_multiple_of(REPLICAS_MS) {
            monitor.look();
            // The id of a cluster of one is its own choice.
            if plan.nodes > 1 && ticks.is_multiple_of(LOOK_MS) {
                monitor.look_at_objects(&layout, &world.objects().objects());
            }
            // All that comes after may follow from it.
            if !monitor.is_content() {
                break None;
            }
        }
        if *staged.borrow() >= Stage::Loaded && conductor.conduct(&mut sim, &mut world) {
            whole.send_replace(true);
        }
    };
    let (history, mut wrong) = book.read();
    wrong.extend(ended);
    wrong.extend(monitor.wrong());
    wrong.extend(world.objects().changed().into_iter().map(|path| format!("object {path} changed (IMMUTABLE)")));
    Verdict {
        report: check(history.entries()),
        wrong,
        history,
        trace: trace.sum(),
        disks: world.fingerprints(),
        took: sim.elapsed(),
        objects: world.objects().objects().len(),
    }
}

/// Lets faults begin and end when their time has come.
struct Conductor {
    began: Option<Duration>,
    coming: Vec<Timed>,
    going_on: Vec<Timed>,
}

impl Conductor {
    fn new(schedule: Schedule) -> Conductor {
        let mut coming = schedule.faults().to_vec();
        coming.reverse();
        Conductor { began: None, coming, going_on: Vec::new() }
    }

    /// One tick; true once everything is over.
    fn conduct(&mut self, sim: &mut turmoil::Sim<'_>, world: &mut World) -> bool {
        let began = *self.began.get_or_insert(sim.elapsed() + CALM);
        let now = sim.elapsed().saturating_sub(began).as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        if now % LOOK_MS == 0 {
            world.objects().changed();
        }
        for timed in self.going_on.extract_if(.., |timed| timed.to_ms <= now) {
            world.end(sim, &timed);
        }
        while self.coming.last().is_some_and(|timed| timed.from_ms <= now && sim.elapsed() >= began) {
            if let Some(timed) = self.coming.pop() {
                world.begin(sim, &timed);
                self.going_on.push(timed);
            }
        }
        self.coming.is_empty() && self.going_on.is_empty() && sim.elapsed() > began
    }
}

/// The clients' part.
struct Story {
    network: Arc<dyn Network>,
    nodes: usize,
    dice: Arc<Mutex<Dice>>,
    book: Book,
    is_whole: watch::Receiver<bool>,
}

/// Replicas of each partition, where there are so many nodes.
const REPLICAS: usize = 3;

/// Name and value of a topic's settings.
type Configs = &'static [(&'static str, &'static str)];

/// Topic, partitions, configs.
const TOPICS: [(&str, i32, Configs); 2] = [
    ("hot", 3, &[("retention.ms", "-1")]),
    (
        "tiered",
        2,
        &[
            ("segment.bytes", "1048576"),
            ("local.retention.bytes", "1"),
            ("local.retention.ms", "1000"),
            ("segment.ms", "250"),
            ("firn.tier.max.lag.ms", "1000"),
            ("retention.ms", "-1"),
        ],
    ),
];

impl Story {
    async fn tell(mut self, stage: watch::Sender<Stage>) {
        if let Err(why) = self.create_topics().await {
            self.book.wrong(why);
            return;
        }
        let (stop, stopped) = watch::channel(false);
        let load = self.load(&stopped);
        stage.send_replace(Stage::Loaded);
        sleep(CALM).await;
        // The sender lives until this is over.
        let _ = self.is_whole.wait_for(|whole| *whole).await;
        self.check_liveness().await;
        sleep(CALM).await;
        stop.send_replace(true);
        for task in load {
            if let Err(error) = task.await {
                self.book.wrong(format!("a client ended: {error}"));
            }
        }
        let mut contacts = self.contacts();
        contacts.refresh().await;
        if let Err(why) = read_everything(&self.book, contacts, &places(), DRAIN).await {
            self.book.wrong(why);
        }
        stage.send_replace(Stage::Done);
    }

    fn contacts(&self) -> Contacts {
        let bootstrap: Vec<String> = (0..self.nodes).map(address).collect();
        Contacts::new(Arc::clone(&self.network), &bootstrap, &TOPICS.map(|(name, ..)| name))
    }

    fn dice(&self) -> Dice {
        self.dice.lock().split()
    }

    async fn create_topics(&self) -> Result<(), String> {
        let mut contacts = self.contacts();
        let deadline = Instant::now() + COMES_UP;
        let replicas = i16::try_from(self.nodes.min(REPLICAS)).unwrap_or(1);
        let in_sync = replicas.min(2).to_string();
        for (name, partitions, configs) in TOPICS {
            let configs: Vec<_> = configs.iter().copied().chain([("min.insync.replicas", in_sync.as_str())]).collect();
            loop {
                let address = contacts.anybody();
                let created = match contacts.to(&address).await {
                    Ok(client) => within(client.create_replicated_topic(name, partitions, replicas, &configs)).await,
                    Err(error) => Err(error),
                };
                match created {
                    Ok(()) => break,
                    Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => break,
                    Err(error) if Instant::now() > deadline => {
                        return Err(format!("{name} cannot be created: {error}"));
                    }
                    Err(_) => {
                        contacts.hang_up(&address);
                        sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        }
        Ok(())
    }

    /// Two producers for each partition, two consumers of everything, two groups that commit, somebody who deletes, and where there are
    /// more brokers than replicas somebody who moves partitions.
    fn load(&self, stop: &watch::Receiver<bool>) -> Vec<tokio::task::JoinHandle<()>> {
        let mut tasks = Vec::new();
        for (index, place) in places().into_iter().enumerate() {
            let other = match index % 3 {
                0 => Kind::Plain(Acks::All),
                1 => Kind::Plain(Acks::Leader),
                _ => Kind::Idempotent,
            };
            for (number, kind) in [Kind::Idempotent, other].into_iter().enumerate() {
                let name = format!("p{index}.{number}");
                let producer =
                    Producer::new(name, place.clone(), kind, self.book.clone(), self.contacts(), self.dice());
                tasks.push(tokio::spawn(producer.run(stop.clone(), DRAIN)));
            }
        }
        for number in 0..2 {
            let name = format!("c{number}");
            let consumer = Consumer::new(name, &places(), self.book.clone(), self.contacts(), self.dice());
            tasks.push(tokio::spawn(consumer.run(stop.clone())));
        }
        if let Some(place) = places().pop() {
            let deleter = Deleter::new("d0".to_owned(), place, self.book.clone(), self.contacts(), self.dice());
            tasks.push(tokio::spawn(deleter.run(stop.clone(), DRAIN)));
        }
        for (number, place) in places().into_iter().take(2).enumerate() {
            let group = format!("g{number}");
            let committer = Committer::new(group, place, self.book.clone(), self.contacts(), self.dice());
            tasks.push(tokio::spawn(committer.run(stop.clone(), DRAIN)));
        }
        if self.nodes > REPLICAS {
            let brokers = (0..self.nodes).filter_map(|node| i32::try_from(node).ok()).collect();
            let reassigner = Reassigner::new(places(), brokers, self.contacts(), self.dice());
            tasks.push(tokio::spawn(reassigner.run(stop.clone())));
        }
        tasks
    }

    /// Every partition takes a record from all its in-sync replicas in time.
    async fn check_liveness(&self) {
        let deadline = Instant::now() + LIVENESS;
        for (number, place) in places().into_iter().enumerate() {
            let name = format!("live{number}");
            let mut contacts = self.contacts();
            loop {
                let written = self.write_one(&name, &place, &mut contacts).await;
                let Err(why) = written else { break };
                if Instant::now() >= deadline {
                    self.book.wrong(format!("liveness: {place} is not writable after {LIVENESS:?}: {why}"));
                    return;
                }
                sleep(Duration::from_millis(50)).await;
                contacts.refresh().await;
            }
        }
    }

    async fn write_one(&self, name: &str, place: &Place, contacts: &mut Contacts) -> Result<(), String> {
        let leader = contacts.leader(&place.topic, place.partition).ok_or("it has no leader")?;
        let value = self.book.value();
        let mut batch = BatchBuilder::new();
        batch.append(0, None, Some(&value.to_be_bytes()), &[]);
        let client = contacts.to(&leader).await.map_err(|error| error.to_string())?;
        let sent = Event::Send { place: place.clone(), value, acks: Acks::All, idempotent: false, transaction: None };
        self.book.add(name, sent);
        let written = within(client.produce(&place.topic, place.partition, batch.build())).await;
        match written {
            Ok(offset) => {
                self.book.add(name, Event::Acked { place: place.clone(), value, offset });
                Ok(())
            }
            Err(error) => {
                contacts.hang_up(&leader);
                Err(error.to_string())
            }
        }
    }
}

fn places() -> Vec<Place> {
    TOPICS.iter().flat_map(|(name, partitions, _)| (0..*partitions).map(|at| Place::new(*name, at))).collect()
}
