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
mod room;
pub mod settings;
mod start;

use crate::api::Listener;
use crate::api::services::Services;
use crate::disk::DirectoryGuard;
use crate::net::connection::Limits;
use crate::net::frame::FrameBudget;
use crate::net::server;
use control::NodeControl;
use controller::ControllerNode;
use follow::Follower;
use front::HttpSide;
pub use host::{Host, Objects};
use listeners::{Bound, KafkaSocket};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tiering::runner::RunnerHandle;
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
    object_store: String,
    kafka: Vec<(String, SocketAddr)>,
    http: HttpSide,
    services: Arc<Services>,
    control: Arc<NodeControl>,
    controller: ControllerNode,
    tier: RunnerHandle,
    stop: CancellationToken,
    tasks: TaskTracker,
    _locks: Vec<Box<dyn DirectoryGuard>>,
}

impl Node {
    async fn serve(&self, kafka: Vec<KafkaSocket>, mut follower: Follower) {
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
        follower.drop_strays(&self.services.controller.image()).await;
        follower.catch_up().await;
        self.tasks.spawn(follower.run());
        self.tasks.spawn(life::report_directories(Arc::clone(&self.services), self.stop.clone()));
        let open = Arc::new(server::Open::default());
        for KafkaSocket { name, bound: Bound { socket, .. } } in kafka {
            let listener = Arc::new(Listener::new(Arc::clone(&self.services), &name));
            self.tasks.spawn(server::run(socket, listener, Arc::clone(&open), limits.clone(), self.stop.clone()));
        }
        self.http.serving(Arc::clone(&self.control));
    }

    /// Resolves when the node cannot go on by itself, with the reason.
    pub async fn failed(&self) -> String {
        tokio::select! {
            biased;
            reason = self.controller.ended() => format!("the metadata quorum ended: {reason}"),
            reason = self.services.partitions.all_failed() => reason,
        }
    }

    /// Stops serving, syncs and checkpoints every log, and ends the quorum.
    pub async fn shutdown(self) {
        self.http.shutting_down();
        self.stop.cancel();
        self.tier.stop().await;
        for partition in self.services.groups.led() {
            self.services.groups.resigned(partition);
        }
        if let Err(error) = self.services.partitions.close().await {
            tracing::error!(%error, "a log could not be closed cleanly; it recovers at the next start");
        }
        self.controller.shutdown().await;
        self.tasks.close();
        self.tasks.wait().await;
        self.http.end().await;
    }

    /// Where Kafka clients connect: the name of each listener, and where it listens, at least one.
    pub fn kafka_addresses(&self) -> &[(String, SocketAddr)] {
        &self.kafka
    }

    /// Where metrics and health are served; nowhere, if so configured.
    pub fn http_addresses(&self) -> &[SocketAddr] {
        self.http.addresses()
    }

    /// Where records are kept, for a person.
    pub fn data(&self) -> String {
        let dirs: Vec<String> = self.data.iter().map(|dir| dir.display().to_string()).collect();
        dirs.join(", ")
    }

    /// Where cold records are kept, for a person.
    pub fn object_store(&self) -> &str {
        &self.object_store
    }

    /// What handlers call, for tests of theirs that need no connection.
    #[cfg(test)]
    pub(crate) fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// What the HTTP side asks.
    pub fn control(&self) -> &NodeControl {
        &self.control
    }
}
