//! Replication: the replicas of this broker follow their leaders on other brokers.
//!
//! A follower asks with Kafka's own Fetch, in incremental sessions (KIP-227), for many partitions at once. Its offset in a request is the end of what is
//! durable here, which makes each request an acknowledgement: the leader moves the high watermark by it. What is asked next, and what an
//! answer means, is decided in [`core`]; `task` performs it over a connection; `crew` says which fetcher has which partition; `local` is what is
//! done to the log here, and [`start_over`] how a log that lacks what the tier holds goes on at its end.
//!
//! Who leads is the image's to say: whoever follows it calls [`Replication::assign`] and [`Replication::drop`]. A leader's answer never
//! changes that.

mod client;
pub mod core;
mod crew;
pub mod doubt;
mod figures;
mod local;
pub mod session;
pub mod start_over;
mod task;
pub mod throttle;

pub use client::FetchSettings;
pub use figures::Figures;

use crate::config::ReplicationConfig;
use crate::net::budget::Budget;
use crate::net::wire_client::CallError;
use crate::partition::PartitionHandle;
use arc_swap::ArcSwap;
use client::Connection;
use controller::ControllerHandle;
use crew::Crew;
use doubt::{Doubted, Doubts};
use futures::future::join_all;
use parking_lot::Mutex;
use proto::host::{Network, Spawner};
use proto::ids::{LeaderEpoch, Millis, NodeId, TopicId, TopicPartition};
use start_over::Tier;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use task::Ground;
use throttle::{Throttle, Throttled};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A partition to follow, as the image says.
#[derive(Debug, Clone)]
pub struct Following {
    /// Which.
    pub tp: TopicPartition,
    /// Who leads it: another broker.
    pub leader: NodeId,
    /// Under which epoch. The partition was told before.
    pub epoch: LeaderEpoch,
    /// The replica here.
    pub partition: PartitionHandle,
    /// The bound on replication holds for it: the topic names it, and it is not in sync.
    pub throttled: bool,
}

/// How a partition is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Which.
    pub tp: TopicPartition,
    /// Whom it follows.
    pub leader: NodeId,
    /// Under which epoch.
    pub epoch: LeaderEpoch,
    /// What it is at.
    pub phase: core::Phase,
    /// Where its log stood when it was at rest last.
    pub position: Option<core::Position>,
}

/// How to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// `num.replica.fetchers`, for each leader.
    pub fetchers: usize,
    /// `replica.fetch.backoff.ms`: the longest pause after a failure.
    pub backoff_ms: Millis,
    /// What a fetch asks for.
    pub fetch: FetchSettings,
}

impl Settings {
    /// As configured.
    pub fn of(config: &ReplicationConfig) -> Settings {
        Settings {
            fetchers: config.fetchers,
            backoff_ms: config.fetch_backoff_ms,
            fetch: FetchSettings {
                wait_ms: config.fetch_wait_ms,
                min_bytes: config.fetch_min_bytes,
                partition_bytes: config.fetch_partition_bytes,
                response_bytes: config.fetch_response_bytes,
                timeout: Duration::from_millis(config.socket_timeout_ms),
            },
        }
    }
}

/// Where other brokers are.
pub trait Brokers: Send + Sync + 'static {
    /// `host:port` of the listener that brokers use among each other; none if the broker is not known, or not up.
    fn address(&self, id: NodeId) -> Option<String>;
}

/// Brokers as the image has them.
pub struct ImageBrokers {
    controller: ControllerHandle,
    listener: String,
}

impl ImageBrokers {
    /// By their listeners of the name `listener` (`inter.broker.listener.name`).
    pub fn new(controller: ControllerHandle, listener: &str) -> ImageBrokers {
        ImageBrokers { controller, listener: listener.to_owned() }
    }
}

impl Brokers for ImageBrokers {
    fn address(&self, id: NodeId) -> Option<String> {
        let image = self.controller.image();
        Some(image.broker(id)?.endpoint(&self.listener)?.address())
    }
}

/// The way to other brokers.
pub(crate) struct Peers {
    network: Arc<dyn Network>,
    brokers: Arc<dyn Brokers>,
}

impl Peers {
    async fn connect(&self, node: NodeId, to: NodeId, within: Duration) -> Result<Connection, CallError> {
        let address = self.brokers.address(to).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("broker {to} has no listener for other brokers"))
        })?;
        Connection::open(&*self.network, &address, &format!("broker-{node}-fetcher"), within).await
    }
}

/// What replication works with.
pub struct Parts {
    /// This broker.
    pub node: NodeId,
    /// Metadata offset of its registration: leaders tell its incarnations apart by it (KIP-903).
    pub broker_epoch: i64,
    /// The way to other brokers.
    pub network: Arc<dyn Network>,
    /// Where they are.
    pub brokers: Arc<dyn Brokers>,
    /// What is tiered.
    pub tier: Arc<dyn Tier>,
    /// Where tasks run.
    pub spawner: Spawner,
    /// Memory of leaders' answers until their records are copied.
    pub memory: Budget,
    /// How to follow.
    pub settings: Settings,
}

/// The handle: a cheap clone.
#[derive(Clone)]
pub struct Replication {
    ground: Arc<Ground>,
    crew: Arc<Mutex<Crew>>,
    tasks: TaskTracker,
}

impl Replication {
    /// Follows nothing yet.
    pub fn start(parts: Parts) -> Replication {
        let Parts { node, broker_epoch, network, brokers, tier, spawner, memory, settings } = parts;
        let ground = Arc::new(Ground {
            node,
            broker_epoch,
            peers: Peers { network, brokers },
            tier,
            spawner,
            memory,
            settings: Mutex::new(settings.fetch),
            figures: Figures::default(),
            throttle: Mutex::new(Throttle::open()),
            serving: Mutex::new(Throttle::open()),
            slowed: ArcSwap::default(),
            doubts: Doubts::default(),
            began: Instant::now(),
            stop: CancellationToken::new(),
        });
        let tasks = TaskTracker::new();
        let crew = Crew::new(Arc::clone(&ground), tasks.clone(), settings.fetchers, settings.backoff_ms);
        Replication { ground, crew: Arc::new(Mutex::new(crew)), tasks }
    }

    /// Follows these from now on, or under another leader or epoch than before. What is assigned as it was stays as it is, but for one that
    /// had stopped. Never waits.
    pub fn assign(&self, all: Vec<Following>) {
        self.crew.lock().assign(all);
    }

    /// Follows these no more. Nothing of them is touched once the answer resolves; it need not be waited for. Never waits itself.
    pub fn drop(&self, all: impl IntoIterator<Item = TopicPartition>) -> Left {
        self.crew.lock().leave_all(all)
    }

    /// How each partition is followed, in no particular order.
    pub async fn status(&self) -> Vec<Status> {
        let asked = self.crew.lock().ask();
        join_all(asked).await.into_iter().flatten().flatten().collect()
    }

    /// Brokers that partitions here follow.
    pub fn leaders(&self) -> BTreeSet<NodeId> {
        self.crew.lock().leaders()
    }

    /// Leaders that may be gone, and when that changes.
    pub fn doubted(&self) -> watch::Receiver<Doubted> {
        self.ground.doubts.watch()
    }

    /// Counts since the start.
    pub fn figures(&self) -> &Figures {
        &self.ground.figures
    }

    /// Follows in this way from the next request on; the longest pause stays what it was at the start.
    pub fn configure(&self, settings: Settings) {
        *self.ground.settings.lock() = settings.fetch;
        self.crew.lock().widen(settings.fetchers);
    }

    /// Bounds what partitions that are throttled take together, in bytes in a second (`follower.replication.throttled.rate`).
    pub fn throttle(&self, rate: Option<u64>) {
        self.ground.throttle.lock().set(self.ground.now(), rate);
    }

    /// Bounds what replicas elsewhere take from here where topics say so, in bytes in a second
    /// (`leader.replication.throttled.rate`); `slowed` says where (`leader.replication.throttled.replicas`).
    pub fn throttle_serving(&self, rate: Option<u64>, slowed: BTreeMap<TopicId, Throttled>) {
        self.ground.serving.lock().set(self.ground.now(), rate);
        self.ground.slowed.store(Arc::new(slowed));
    }

    /// Whether the bound holds for what replicas take of a partition here: as in Kafka, the setting names who leads, not who takes.
    pub fn is_slowed(&self, tp: TopicPartition) -> bool {
        let slowed = self.ground.slowed.load();
        slowed.get(&tp.topic).is_some_and(|slowed| slowed.has(tp.partition, self.ground.node))
    }

    /// Whether those that are slowed may take more now.
    pub fn may_serve(&self) -> bool {
        self.ground.serving.lock().is_free(self.ground.now())
    }

    /// One that is slowed has taken `bytes`.
    pub fn served(&self, bytes: u64) {
        self.ground.serving.lock().take(self.ground.now(), bytes);
    }

    /// Ends every fetcher. A log that is being cut, or starts over, may still be touched for a moment.
    pub async fn stop(&self) {
        self.ground.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Resolves when partitions that were dropped are not touched any more.
#[must_use = "dropping it is fine, but say so"]
pub struct Left(Vec<oneshot::Receiver<()>>);

impl Left {
    fn new(of_each: Vec<oneshot::Receiver<()>>) -> Left {
        Left(of_each)
    }

    /// Waits for it.
    pub async fn wait(self) {
        // Whoever would have told is gone, or follows it again: that is all the same here.
        join_all(self.0).await;
    }
}

#[cfg(test)]
mod tests;
