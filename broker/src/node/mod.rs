//! A node: the parts of a broker, made in order ([`start`]), tied together, and ended in the reverse order.

mod cluster;
mod cold;
mod control;
mod directories;
mod follow;
mod front;
mod holds;
pub mod host;
mod life;
mod listeners;
mod load;
mod memory;
mod observe;
mod places;
mod pointers;
mod quorum;
mod room;
pub mod settings;
mod start;

use crate::api::Listener;
use crate::api::services::Services;
use crate::disk::DirectoryGuard;
use crate::net::connection::Limits;
use crate::net::frame::FrameBudget;
use crate::net::server;
use crate::partition::WeakPartitions;
use crate::replica::start_over::Tier;
use control::NodeControl;
use follow::Follower;
use front::HttpSide;
pub use host::{Host, Objects};
use life::Life;
use listeners::{Bound, KafkaSocket};
use proto::metadata::Image;
use quorum::Part;
pub use start::format;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tiering::runner::RunnerHandle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Why a node did not start, in one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

impl StartError {
    fn because(what: impl std::fmt::Display) -> StartError {
        StartError(what.to_string())
    }
}

/// A running node.
pub struct Node {
    data: Vec<PathBuf>,
    http: HttpSide,
    part: Part,
    /// None in a process that is a controller only.
    broker: Option<Broker>,
    _locks: Vec<Box<dyn DirectoryGuard>>,
}

/// The half of a node that serves Kafka clients.
struct Broker {
    kafka: Vec<(String, SocketAddr)>,
    object_store: String,
    services: Arc<Services>,
    control: Arc<NodeControl>,
    tier: RunnerHandle,
    /// What the tier holds, for logs that lack it.
    truth: Arc<dyn Tier>,
    /// Tells how far the partitions have followed the image.
    applied: watch::Sender<u64>,
    /// None where there is nobody to tell: the node is its own quorum.
    life: Option<Life>,
    /// Ends connections.
    serving: CancellationToken,
    /// Ends everything else.
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// How long others may take to lead what a broker led that ends.
const HAND_OVER: Duration = Duration::from_secs(20);
/// How long the tier may take to end.
const TIER_END: Duration = Duration::from_secs(2);
/// How long the quorum may take to hear that a broker has stopped.
const STOPPED: Duration = Duration::from_secs(1);
/// Why a broker ends that the quorum does not know any more.
const REPLACED: &str =
    "the cluster knows this broker no more: another process runs under its node.id, or it was unregistered";

impl Broker {
    async fn serve(&self, kafka: Vec<KafkaSocket>, http: &HttpSide) -> Result<(), StartError> {
        let config = self.services.config.load();
        // The rest is for what they are decoded to, for members of groups, and for answers.
        let requests = FrameBudget::new(config.firn.request_memory_bytes / 4);
        observe::install(&self.services, requests.all(), &self.tier);
        let limits = Limits {
            max_frame_bytes: config.net.socket_request_max_bytes,
            idle: match u64::try_from(config.net.connections_max_idle_ms) {
                Ok(ms) if ms > 0 => Duration::from_millis(ms),
                // -1 stands for never.
                _ => Duration::from_secs(u64::from(u32::MAX)),
            },
            requests,
        };
        let truth = Arc::clone(&self.truth);
        let mut follower = Follower::new(Arc::clone(&self.services), self.tier.clone(), truth, self.applied.clone());
        follower.drop_strays(&self.services.controller.image()).await;
        follower.catch_up().await;
        self.tasks.spawn(places::report(Arc::clone(&self.services), follower.misplaced(), self.stop.clone()));
        self.tasks.spawn(follower.run());
        let (services, stop) = (Arc::clone(&self.services), self.stop.clone());
        match &self.life {
            None => _ = self.tasks.spawn(life::report_directories(services, stop)),
            Some(life) => {
                let interval = Duration::from_millis(config.cluster.heartbeat_interval_ms.max(1));
                self.tasks.spawn(life.clone().beat(services, interval, stop));
                life.granted(|after, lack| {
                    tracing::warn!(seconds = after.as_secs(), lack, "this broker waits to be let into the cluster");
                })
                .await;
                if life.is_replaced() {
                    return Err(StartError(REPLACED.to_owned()));
                }
            }
        }
        let open = Arc::new(server::Open::default());
        for KafkaSocket { name, bound: Bound { socket, .. } } in kafka {
            let listener = Arc::new(Listener::new(Arc::clone(&self.services), &name));
            self.tasks.spawn(server::run(socket, listener, Arc::clone(&open), limits.clone(), self.serving.clone()));
        }
        http.serving(Arc::clone(&self.control));
        Ok(())
    }

    /// Hands over what it leads, stops serving, syncs and checkpoints every log.
    async fn end(&self) {
        if let Some(life) = &self.life
            && !life.is_replaced()
            && !life.hand_over(HAND_OVER).await
        {
            tracing::warn!("not everything that this broker leads could be handed over in time");
        }
        // Whoever asks from here on is told who leads now, until the connection ends.
        self.serving.cancel();
        // It may wait for an object store that hangs; what it has begun is begun anew by whoever leads next.
        if tokio::time::timeout(TIER_END, self.tier.stop()).await.is_err() {
            tracing::warn!("an upload was left behind: the object store does not answer");
        }
        self.services.replication.stop().await;
        for partition in self.services.groups.led() {
            self.services.groups.resigned(partition);
        }
        if let Err(error) = self.services.partitions.close().await {
            tracing::error!(%error, "a log could not be closed cleanly; it recovers at the next start");
        }
        if let Some(life) = &self.life {
            life.stopped(STOPPED).await;
        }
        self.stop.cancel();
    }
}

impl Node {
    /// Resolves when the node cannot go on by itself, with the reason.
    pub async fn failed(&self) -> String {
        let disks = async {
            match &self.broker {
                Some(broker) => broker.services.partitions.all_failed().await,
                None => std::future::pending().await,
            }
        };
        let replaced = async {
            match self.broker.as_ref().and_then(|broker| broker.life.as_ref()) {
                Some(life) => life.replaced().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = replaced => REPLACED.to_owned(),
            reason = self.part.ended() => format!("the metadata quorum ended: {reason}"),
            reason = disks => reason,
        }
    }

    /// Stops serving, syncs and checkpoints every log, and ends this node's part in the quorum.
    pub async fn shutdown(self) {
        self.http.shutting_down();
        if let Some(broker) = &self.broker {
            broker.end().await;
        }
        self.part.hand_over().await;
        self.part.shutdown().await;
        if let Some(broker) = &self.broker {
            broker.tasks.close();
            broker.tasks.wait().await;
        }
        self.http.end().await;
    }

    /// How long a shutdown may take in all: 30 s where others have to take over, less than 5 s where there are none.
    pub fn patience(&self) -> Duration {
        let shared = self.broker.as_ref().is_none_or(|broker| broker.life.is_some());
        Duration::from_secs(if shared { 29 } else { 4 })
    }

    /// Where Kafka clients connect: the name of each listener, and where it listens. Nowhere, if it is a controller only.
    pub fn kafka_addresses(&self) -> &[(String, SocketAddr)] {
        self.broker.as_ref().map_or(&[], |broker| &broker.kafka)
    }

    /// Where metrics and health are served; nowhere, if so configured.
    pub fn http_addresses(&self) -> &[SocketAddr] {
        self.http.addresses()
    }

    /// Where data are kept, for a person.
    pub fn data(&self) -> String {
        let dirs: Vec<String> = self.data.iter().map(|dir| dir.display().to_string()).collect();
        dirs.join(", ")
    }

    /// Where cold records are kept, for a person.
    pub fn object_store(&self) -> &str {
        self.broker.as_ref().map_or("no object store", |broker| &broker.object_store)
    }

    /// The metadata as this node knows them; none if it is no broker.
    pub fn images(&self) -> Option<watch::Receiver<Arc<Image>>> {
        self.broker.as_ref().map(|broker| broker.services.controller.watch())
    }

    /// The replicas that lie here, for somebody who only looks on; none if it is no broker.
    pub fn partitions(&self) -> Option<WeakPartitions> {
        self.broker.as_ref().map(|broker| broker.services.partitions.downgrade())
    }

    /// What handlers call, for tests of theirs that need no connection.
    #[cfg(test)]
    pub(crate) fn services(&self) -> &Arc<Services> {
        &self.broker.as_ref().expect("a broker").services
    }

    /// What the HTTP side asks of the broker, if it is one.
    pub fn control(&self) -> Option<&NodeControl> {
        self.broker.as_ref().map(|broker| broker.control.as_ref())
    }
}
