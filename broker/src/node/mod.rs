//! A node: the parts of a broker, made in order ([`start`]), tied together, and ended in the reverse order.

mod cold;
mod control;
mod directories;
mod follow;
mod front;
pub mod host;
mod life;
mod listeners;
mod memory;
mod observe;
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
use crate::replica::start_over::Tier;
use control::NodeControl;
use follow::Follower;
use front::HttpSide;
pub use host::{Host, Objects};
use listeners::{Bound, KafkaSocket};
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
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Broker {
    async fn serve(&self, kafka: Vec<KafkaSocket>, http: &HttpSide) {
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
        let mut follower =
            Follower::new(Arc::clone(&self.services), self.tier.clone(), truth, self.applied.clone());
        follower.drop_strays(&self.services.controller.image()).await;
        follower.catch_up().await;
        self.tasks.spawn(follower.run());
        self.tasks.spawn(life::report_directories(Arc::clone(&self.services), self.stop.clone()));
        let open = Arc::new(server::Open::default());
        for KafkaSocket { name, bound: Bound { socket, .. } } in kafka {
            let listener = Arc::new(Listener::new(Arc::clone(&self.services), &name));
            self.tasks.spawn(server::run(socket, listener, Arc::clone(&open), limits.clone(), self.stop.clone()));
        }
        http.serving(Arc::clone(&self.control));
    }

    /// Stops serving, syncs and checkpoints every log.
    async fn end(&self) {
        self.stop.cancel();
        self.services.replication.stop().await;
        self.tier.stop().await;
        for partition in self.services.groups.led() {
            self.services.groups.resigned(partition);
        }
        if let Err(error) = self.services.partitions.close().await {
            tracing::error!(%error, "a log could not be closed cleanly; it recovers at the next start");
        }
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
        tokio::select! {
            biased;
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
        self.part.shutdown().await;
        if let Some(broker) = &self.broker {
            broker.tasks.close();
            broker.tasks.wait().await;
        }
        self.http.end().await;
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
