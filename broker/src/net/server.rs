//! Accepts connections, bounded in number, and ends them all on shutdown.

use super::connection::{self, Ended, Limits, Service};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// Makes the service of a new connection.
pub trait Accept: Send + Sync + 'static {
    type Service: Service + 'static;
    /// Called once per connection, with both of its ends.
    fn accept(&self, peer: SocketAddr, local: SocketAddr) -> Self::Service;
    /// Called when a connection ended.
    fn ended(&self);
}

/// Serves `listener` until `stop` is cancelled, then waits until every connection has ended.
///
/// At most `max_connections` are open at a time; one more is closed at once, as Kafka does.
pub async fn run<A: Accept>(
    listener: TcpListener,
    accept: Arc<A>,
    limits: Limits,
    max_connections: usize,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: those who are connected go on, the others are tried again.
                warn!(%error, "accepting a connection failed");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            warn!(%peer, max_connections, "refused a connection: max.connections is reached");
            continue;
        };
        let (accept, limits, stop) = (Arc::clone(&accept), limits.clone(), stop.clone());
        connections.spawn(async move {
            serve_one(stream, peer, accept.as_ref(), limits, stop).await;
            accept.ended();
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn serve_one<A: Accept>(
    stream: TcpStream,
    peer: SocketAddr,
    accept: &A,
    limits: Limits,
    stop: CancellationToken,
) {
    let local = match stream.set_nodelay(true).and_then(|()| stream.local_addr()) {
        Ok(local) => local,
        Err(error) => {
            debug!(%peer, %error, "connection lost before it was served");
            return;
        }
    };
    let service = accept.accept(peer, local);
    let (read, write) = stream.into_split();
    let ended = tokio::select! {
        ended = connection::serve(read, write, service, limits) => ended,
        () = stop.cancelled() => return,
    };
    match ended {
        Ended::ByClient => debug!(%peer, %ended, "connection ended"),
        Ended::Frame(_) | Ended::Write(_) => debug!(%peer, %ended, "connection broke"),
        Ended::Refused(_) => warn!(%peer, reason = %ended, "connection refused"),
    }
}
