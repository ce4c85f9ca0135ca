//! Accepts connections, bounded in number, and ends them all on shutdown.

use super::connection::{self, Ended, Limits, Service};
use parking_lot::Mutex;
use proto::host::{Listener, Stream};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
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
    /// How many connections there may be now.
    fn most_connections(&self) -> usize;
    /// How many there may be of one address now. Asked with the canonical form of the address.
    fn most_connections_of(&self, address: IpAddr) -> usize;
}

/// How often a full listener asks whether it may have more connections than before.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Connections open now, by address: those of all listeners that share it.
#[derive(Default)]
pub struct Open {
    by_address: Mutex<(usize, HashMap<IpAddr, usize>)>,
    one_less: Notify,
}

/// Why a connection is not counted.
enum Full {
    /// As many are open as there may be.
    All,
    /// As many of its address are.
    OfAddress,
}

/// One connection, counted while this lives.
struct Place {
    open: Arc<Open>,
    address: IpAddr,
}

impl Open {
    fn all(&self) -> usize {
        self.by_address.lock().0
    }

    /// Counts a connection of `address`, unless there are `most` of them, or `most_of_all` of all addresses.
    fn enter(self: &Arc<Self>, address: IpAddr, most: usize, most_of_all: usize) -> Result<Place, Full> {
        let mut open = self.by_address.lock();
        let (all, by_address) = &mut *open;
        if by_address.get(&address).copied().unwrap_or(0) >= most {
            return Err(Full::OfAddress);
        }
        if *all >= most_of_all {
            return Err(Full::All);
        }
        *by_address.entry(address).or_default() += 1;
        *all += 1;
        Ok(Place { open: Arc::clone(self), address })
    }

    /// Returns once there is room for one more connection of any address.
    async fn room<A: Accept>(&self, accept: &A) {
        let mut said = false;
        loop {
            let left = self.one_less.notified();
            tokio::pin!(left);
            // Before looking, so that none that leaves in between is missed.
            left.as_mut().enable();
            if self.all() < accept.most_connections() {
                return;
            }
            if !said {
                warn!(open = self.all(), "no connection is accepted before one ends: max.connections is reached");
                said = true;
            }
            let _ = tokio::time::timeout(ASK_AGAIN, left).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.by_address.lock();
        let (all, by_address) = &mut *open;
        *all -= 1;
        if let Some(of_address) = by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                by_address.remove(&self.address);
            }
        }
        drop(open);
        // Each listener may have someone who waits.
        self.open.one_less.notify_waiters();
    }
}

/// Serves `listener` until `stop` is cancelled, then waits until every connection has ended. `open` is what the listeners of a broker
/// share: the most connections there may be are those of all of them.
///
/// As in Kafka, the next connection waits in the listener's backlog while as many are open as there may be, and one of an address that
/// has as many as it may is closed at once.
pub async fn run<A: Accept>(
    listener: Listener,
    accept: Arc<A>,
    open: Arc<Open>,
    limits: Limits,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept_one(&listener, &open, accept.as_ref()) => accepted,
        };
        let (stream, peer, place) = match accepted {
            Ok(Some(accepted)) => accepted,
            Ok(None) => continue,
            Err(error) => {
                // Out of descriptors, most likely: those who are connected go on, the others are tried again.
                warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
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

/// The next connection and its place; `None` if its address has as many as it may.
async fn accept_one<A: Accept>(
    listener: &Listener,
    open: &Arc<Open>,
    accept: &A,
) -> std::io::Result<Option<(Stream, SocketAddr, Place)>> {
    open.room(accept).await;
    let (stream, peer) = listener.accept().await?;
    let address = peer.ip().to_canonical();
    loop {
        let most = accept.most_connections_of(address);
        match open.enter(address, most, accept.most_connections()) {
            Ok(place) => return Ok(Some((stream, peer, place))),
            Err(Full::OfAddress) => {
                warn!(%peer, most, "refused a connection: max.connections.per.ip is reached");
                return Ok(None);
            }
            // Another listener took the last place in between.
            Err(Full::All) => open.room(accept).await,
        }
    }
}

async fn serve_one<A: Accept>(stream: Stream, peer: SocketAddr, accept: &A, limits: Limits, stop: CancellationToken) {
    let local = match stream.set_nodelay(true).and_then(|()| stream.local_addr()) {
        Ok(local) => local,
        Err(error) => {
            debug!(%peer, %error, "connection lost before it was served");
            return;
        }
    };
    let service = accept.accept(peer, local);
    let (read, write) = stream.split();
    let ended = tokio::select! {
        biased;
        ended = connection::serve(read, write, service, limits) => ended,
        () = stop.cancelled() => return,
    };
    match ended {
        Ended::ByClient => debug!(%peer, %ended, "connection ended"),
        Ended::Frame(_) | Ended::Write(_) => debug!(%peer, %ended, "connection broke"),
        Ended::Refused(_) => warn!(%peer, reason = %ended, "connection refused"),
    }
}
