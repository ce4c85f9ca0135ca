//! A cluster under load, and what tests ask of it.

use integration::calls::{CallError, PartitionView};
use integration::client::Client;
use integration::cluster::{Cluster, Lan, Plan, Shape};
use integration::dice::Dice;
use integration::history::{Acks, Place, check};
use integration::load::{Book, Committer, Consumer, Contacts, Kind, Producer, read_everything};
use proto::errors::ErrorCode;
use proto::host::{Entropy, SystemEntropy, TcpNetwork};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

pub(crate) const FIRN: &str = env!("CARGO_BIN_EXE_firn-under-test");
pub(crate) const TOPIC: &str = "load";
pub(crate) const PARTITIONS: i32 = 3;
/// Nothing that is waited for takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One cluster at a time: each is several processes.
static ONE: Mutex<()> = Mutex::const_new(());

/// Waits until no other test has a cluster.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    ONE.lock().await
}

/// A directory for one cluster.
pub(crate) fn home() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("firn-cluster-").tempdir().expect("a directory")
}

/// How often what can be repeated is.
pub(crate) fn rounds() -> i32 {
    std::env::var("FIRN_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// Nodes that start fast and leave little behind.
pub(crate) fn plan(home: &Path, shape: Shape) -> Plan {
    let settings = [
        ("firn.journal.file.bytes", "1048576"),
        ("firn.journal.bytes", "67108864"),
        ("firn.disk.reserve.bytes", "0"),
        ("group.initial.rebalance.delay.ms", "0"),
        ("offsets.topic.num.partitions", "3"),
        ("firn.tier.check.interval.ms", "100"),
    ];
    Plan {
        built: FIRN.to_owned(),
        home: home.to_owned(),
        shape,
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        elsewhere: BTreeMap::new(),
        binary: None,
    }
}

/// Asks until the answer is there.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "still waiting for {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A cluster under load.
pub(crate) struct Stand {
    pub(crate) cluster: Cluster,
    pub(crate) book: Book,
    dice: Dice,
    seed: u64,
    stop: watch::Sender<bool>,
    load: JoinSet<()>,
    home: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Stand {
    /// A cluster of this shape with a topic of three replicas, on loopback.
    pub(crate) async fn start(shape: Shape) -> Stand {
        Stand::start_with(shape, None, |_| {}).await
    }

    /// The same on a network, where there is one, and after `adapt` has looked at the plan.
    pub(crate) async fn start_with(shape: Shape, lan: Option<Lan>, adapt: impl FnOnce(&mut Plan)) -> Stand {
        let alone = alone().await;
        let home = home();
        let mut plan = plan(home.path(), shape);
        adapt(&mut plan);
        let cluster = Cluster::start_on(plan, lan).await;
        let cluster = cluster.unwrap_or_else(|error| panic!("the cluster does not start: {error}"));
        let seed = SystemEntropy.next_u64();
        let (stop, _) = watch::channel(false);
        let (book, dice) = (Book::default(), Dice::new(seed));
        let mut stand = Stand { cluster, book, dice, seed, stop, load: JoinSet::new(), home, _alone: alone };
        stand.create_topic(TOPIC, PARTITIONS).await;
        stand.put_under_load();
        stand.goes_on(100).await;
        stand
    }

    /// Creates a topic of three replicas.
    pub(crate) async fn create_topic(&self, topic: &str, partitions: i32) {
        let configs = [
            ("min.insync.replicas", "2"),
            ("segment.bytes", "1048576"),
            ("firn.tier.max.lag.ms", "1000"),
            // The records of the load have the timestamp 0.
            ("retention.ms", "-1"),
        ];
        until("a topic to be created", async || {
            let mut client = self.client().await;
            let created = client.create_replicated_topic(topic, partitions, 3, &configs).await;
            match created {
                Ok(()) => Some(()),
                Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => Some(()),
                Err(_) => None,
            }
        })
        .await;
    }

    pub(crate) fn places() -> Vec<Place> {
        (0..PARTITIONS).map(|partition| Place::new(TOPIC, partition)).collect()
    }

    fn contacts(&self) -> Contacts {
        Contacts::new(Arc::new(TcpNetwork), &self.cluster.bootstrap(), &[TOPIC])
    }

    fn put_under_load(&mut self) {
        for (number, place) in Stand::places().into_iter().enumerate() {
            for kind in [Kind::Idempotent, Kind::Plain(Acks::All)] {
                let name = format!("p{number}-{kind:?}");
                let (book, contacts, dice) = (self.book.clone(), self.contacts(), self.dice.split());
                let producer = Producer::new(name, place.clone(), kind, book, contacts, dice);
                self.load.spawn(producer.run(self.stop.subscribe(), PATIENCE));
            }
            let (book, contacts, dice) = (self.book.clone(), self.contacts(), self.dice.split());
            let committer = Committer::new(format!("g{number}"), place, book, contacts, dice);
            self.load.spawn(committer.run(self.stop.subscribe(), PATIENCE));
        }
        let (book, contacts, dice) = (self.book.clone(), self.contacts(), self.dice.split());
        let consumer = Consumer::new("c".to_owned(), &Stand::places(), book, contacts, dice);
        self.load.spawn(consumer.run(self.stop.subscribe()));
    }

    /// A connection to any broker.
    pub(crate) async fn client(&self) -> Client {
        self.cluster.connect(PATIENCE).await.expect("a node answers")
    }

    /// A client that runs by itself.
    pub(crate) fn spawn(&mut self, client: impl Future<Output = ()> + Send + 'static) {
        self.load.spawn(client);
    }

    /// Says when the load is to end.
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// The partitions of the topic, as a broker that is not among `not` knows them.
    async fn ask(&self, topic: &str, not: &[i32]) -> Result<Vec<PartitionView>, CallError> {
        let mut last = CallError::Missing("a broker to ask".to_owned());
        for id in self.cluster.brokers().into_iter().filter(|id| !not.contains(id)) {
            let asked = async { self.cluster.connect_to(id).await?.partitions(topic).await };
            match tokio::time::timeout(Duration::from_secs(2), asked).await {
                Ok(Ok(partitions)) => return Ok(partitions),
                Ok(Err(error)) => last = error,
                // One that stands still.
                Err(_) => {}
            }
        }
        Err(last)
    }

    /// The node that leads a partition.
    pub(crate) async fn leader(&self, partition: i32) -> i32 {
        self.leader_but(partition, &[]).await
    }

    /// The node that leads a partition, and is none of `not`, which are not asked either.
    pub(crate) async fn leader_but(&self, partition: i32, not: &[i32]) -> i32 {
        until("a leader", async || {
            let partitions = self.ask(TOPIC, not).await.ok()?;
            let leader = partitions.get(usize::try_from(partition).ok()?)?.leader;
            (leader >= 0 && !not.contains(&leader)).then_some(leader)
        })
        .await
    }

    /// Waits until every partition of the topic has a leader and so many replicas in sync, with `id` among them if it is given.
    pub(crate) async fn in_sync(&self, count: usize, id: Option<i32>) -> Vec<PartitionView> {
        self.shown("replicas in sync", TOPIC, |partitions| {
            partitions.iter().all(|partition| {
                let has = |id| !partition.replicas.contains(&id) || partition.in_sync.contains(&id);
                partition.leader >= 0 && partition.in_sync.len() >= count && id.is_none_or(has)
            })
        })
        .await
    }

    /// Waits until the partitions of a topic are as they should be.
    pub(crate) async fn shown(
        &self,
        what: &str,
        topic: &str,
        is_so: impl Fn(&[PartitionView]) -> bool,
    ) -> Vec<PartitionView> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let partitions = self.ask(topic, &[]).await;
            if let Some(partitions) = partitions.as_ref().ok().filter(|partitions| is_so(partitions)) {
                return partitions.clone();
            }
            assert!(
                Instant::now() < deadline,
                "seed {}: still waiting for {what}: {partitions:?}; the nodes' logs end with\n{}",
                self.seed,
                self.logs()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The controller that leads the metadata quorum and is none of `not`, and its epoch.
    pub(crate) async fn controller_but(&self, not: &[i32]) -> (i32, i32) {
        until("an active controller", async || {
            for id in self.cluster.brokers().into_iter().filter(|id| !not.contains(id)) {
                let asked = async { self.cluster.connect_to(id).await.ok()?.quorum_leader().await.ok() };
                match tokio::time::timeout(Duration::from_secs(2), asked).await {
                    Ok(Some((leader, epoch))) if leader >= 0 && !not.contains(&leader) => return Some((leader, epoch)),
                    _ => {}
                }
            }
            None
        })
        .await
    }

    /// Waits until so many more values were acknowledged.
    pub(crate) async fn goes_on(&self, more: usize) {
        let (before, deadline) = (self.book.acknowledged(), Instant::now() + PATIENCE);
        while self.book.acknowledged() < before + more {
            assert!(
                Instant::now() < deadline,
                "seed {}: nothing is acknowledged any more: {:?}; the nodes' logs end with\n{}",
                self.seed,
                self.ask(TOPIC, &[]).await,
                self.logs()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The last lines of all nodes.
    pub(crate) fn logs(&self) -> String {
        let ids = self.cluster.controllers().into_iter().chain(self.cluster.brokers());
        let last = |id: i32| {
            let log = self.cluster.log(id).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(12);
            format!("[{id}] {}\n", lines.get(from..).unwrap_or_default().join(&format!("\n[{id}] ")))
        };
        ids.map(last).collect()
    }

    /// Ends the load, reads everything back and checks what was seen.
    pub(crate) async fn judge(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.load.join_next().await {
            ended.expect("a client does not panic");
        }
        let mut contacts = self.contacts();
        contacts.refresh().await;
        let read = read_everything(&self.book, contacts, &Stand::places(), PATIENCE).await;
        let (history, mut wrong) = self.book.read();
        wrong.extend(read.err());
        let report = check(history.entries());
        if !wrong.is_empty() || !report.is_clean() {
            let kept = self.home.keep();
            let file = std::fs::File::create(kept.join("history.jsonl")).expect("a file");
            history.write(std::io::BufWriter::new(file)).expect("written");
            panic!("seed {}, all is kept in {}: {wrong:?} {:?}", self.seed, kept.display(), report.anomalies);
        }
        assert!(report.acked > 100, "hardly anything was acknowledged: {report:?}");
    }
}
