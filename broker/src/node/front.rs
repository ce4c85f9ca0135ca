//! The HTTP side from before a node recovers until after it has ended: who asks whether clients may be sent here is answered all along.

use super::control::NodeControl;
use super::listeners::Bound;
use crate::http::{self, ClusterAnswer, ClusterAsk, Control, ControlError, TierPartition};
use crate::metrics::Metrics;
use arc_swap::ArcSwap;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// How long answers that are under way may hold the end of a node.
const END: Duration = Duration::from_millis(500);

/// Where a node is in its life.
enum Phase {
    /// It reads back what was written before, and serves nobody.
    Recovering,
    Serving(Arc<NodeControl>),
    /// It is a controller and no broker.
    Controlling,
    /// It syncs and checkpoints, and serves nobody any more.
    ShuttingDown,
}

impl Phase {
    fn serving(&self) -> Result<&Arc<NodeControl>, String> {
        match self {
            Phase::Recovering => Err("recovering".to_owned()),
            Phase::Serving(control) => Ok(control),
            Phase::Controlling => Err("this node is a controller only; ask a broker".to_owned()),
            Phase::ShuttingDown => Err("shutting down".to_owned()),
        }
    }
}

/// [`Control`] over a node that may not be there yet, or not any more.
struct Front {
    phase: ArcSwap<Phase>,
}

impl Front {
    fn new() -> Front {
        Front { phase: ArcSwap::from_pointee(Phase::Recovering) }
    }
}

impl Control for Front {
    fn health(&self) -> Result<(), String> {
        match &**self.phase.load() {
            // Whoever restarts what is not healthy would make it begin anew.
            Phase::Recovering | Phase::Controlling | Phase::ShuttingDown => Ok(()),
            Phase::Serving(control) => control.health(),
        }
    }

    fn ready(&self) -> Result<(), String> {
        match &**self.phase.load() {
            Phase::Controlling => Ok(()),
            phase => phase.serving()?.ready(),
        }
    }

    fn tier_status(&self, topic: Option<&str>) -> Result<Vec<TierPartition>, ControlError> {
        self.phase.load().serving().map_err(ControlError::NotServing)?.tier_status(topic)
    }

    fn tier_flush(&self, topic: String, timeout: Duration) -> BoxFuture<'_, Result<(), ControlError>> {
        let control = self.phase.load().serving().map(Arc::clone);
        async move { control.map_err(ControlError::NotServing)?.tier_flush(topic, timeout).await }.boxed()
    }

    fn cluster(&self, ask: ClusterAsk) -> BoxFuture<'_, Result<ClusterAnswer, ControlError>> {
        let control = self.phase.load().serving().map(Arc::clone);
        async move { control.map_err(ControlError::NotServing)?.cluster(ask).await }.boxed()
    }
}

/// The HTTP listeners of a node. They end with it when it is dropped.
pub(super) struct HttpSide {
    front: Arc<Front>,
    addresses: Vec<SocketAddr>,
    stop: DropGuard,
    tasks: TaskTracker,
}

impl HttpSide {
    /// Serves every socket from now on.
    pub(super) fn start(sockets: Vec<Bound<TcpListener>>, metrics: &Arc<Metrics>) -> HttpSide {
        let front = Arc::new(Front::new());
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let mut addresses = Vec::with_capacity(sockets.len());
        for Bound { socket, address } in sockets {
            addresses.push(address);
            let serving = http::serve(socket, Arc::clone(&front), Arc::clone(metrics), stop.clone());
            tasks.spawn(async move {
                if let Err(error) = serving.await {
                    tracing::error!(%error, %address, "an HTTP listener ended");
                }
            });
        }
        HttpSide { front, addresses, stop: stop.drop_guard(), tasks }
    }

    /// Where it listens, in the order of the setting.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The node serves clients.
    pub(super) fn serving(&self, control: Arc<NodeControl>) {
        self.front.phase.store(Arc::new(Phase::Serving(control)));
    }

    /// The node is a controller, and knows its quorum.
    pub(super) fn controls(&self) {
        self.front.phase.store(Arc::new(Phase::Controlling));
    }

    /// The node serves no clients any more.
    pub(super) fn shutting_down(&self) {
        self.front.phase.store(Arc::new(Phase::ShuttingDown));
    }

    /// Ends it. What is asked now may stay without an answer.
    pub(super) async fn end(self) {
        drop(self.stop);
        self.tasks.close();
        let _ = tokio::time::timeout(END, self.tasks.wait()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn bound() -> Bound<TcpListener> {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("bound");
        Bound { socket, address }
    }

    /// Status line and body.
    async fn get(address: SocketAddr, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let ask = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.expect("written");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("an answer");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn nobody_is_sent_to_a_node_that_recovers_or_ends() {
        let http = HttpSide::start(vec![bound().await, bound().await], &Arc::new(Metrics::new()));
        let unready = "HTTP/1.1 503 Service Unavailable".to_owned();
        for said in ["recovering", "shutting down"] {
            for address in http.addresses() {
                assert_eq!(get(*address, "/readyz").await, (unready.clone(), format!("{said}\n")));
                assert_eq!(get(*address, "/v1/tier").await.0, unready);
                assert_eq!(get(*address, "/healthz").await.0, "HTTP/1.1 200 OK", "{said}");
                assert_eq!(get(*address, "/metrics").await.0, "HTTP/1.1 200 OK", "{said}");
            }
            http.shutting_down();
        }
        let address = http.addresses()[0];
        http.end().await;
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_start_that_fails_listens_no_longer() {
        let http = HttpSide::start(vec![bound().await], &Arc::new(Metrics::new()));
        let (address, tasks) = (http.addresses()[0], http.tasks.clone());
        drop(http);
        tasks.close();
        tasks.wait().await;
        assert!(TcpStream::connect(address).await.is_err());
    }
}
