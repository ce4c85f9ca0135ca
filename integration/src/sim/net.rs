//! The simulated network behind `proto::host::net`: turmoil's TCP, with the two things that it does not do as TCP does.
//!
//! A connection attempt into a cut link waits, as a SYN that is sent again and again, and is not refused: refusal means that a machine
//! is there and nobody listens. A connection that a cut link has taken bytes from is reset once the link is whole: turmoil sends nothing
//! twice, so that the connection would be silent for ever.

use async_trait::async_trait;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use proto::host::{Acceptor, Listener, Network, Stream};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use turmoil::net::{TcpListener, TcpStream};

/// The network as one host sees it.
#[derive(Debug, Clone)]
pub struct SimNetwork {
    host: String,
    links: Links,
}

/// Which links are cut, and what runs over them. Clones are the same links.
#[derive(Debug, Clone)]
pub struct Links(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Directed pairs through which nothing goes: from, to.
    cut: BTreeSet<(IpAddr, IpAddr)>,
    connections: BTreeMap<(IpAddr, IpAddr), Vec<Weak<Connection>>>,
    /// Counts changes.
    changed: watch::Sender<u64>,
}

/// What one end of a connection must know of its link.
#[derive(Debug, Default)]
struct Connection {
    is_reset: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Default for Links {
    fn default() -> Links {
        let (changed, _) = watch::channel(0);
        Links(Arc::new(Mutex::new(State { cut: BTreeSet::new(), connections: BTreeMap::new(), changed })))
    }
}

impl Links {
    /// Nothing goes from `from` to `to` any more.
    pub fn cut(&self, from: IpAddr, to: IpAddr) {
        self.0.lock().cut.insert((from, to));
    }

    /// Everything goes from `from` to `to` again. What was connected is reset.
    pub fn heal(&self, from: IpAddr, to: IpAddr) {
        let mut state = self.0.lock();
        if !state.cut.remove(&(from, to)) {
            return;
        }
        for pair in [(from, to), (to, from)] {
            for connection in state.connections.remove(&pair).into_iter().flatten().filter_map(|weak| weak.upgrade()) {
                connection.is_reset.store(true, Ordering::Relaxed);
                connection.reader.wake();
                connection.writer.wake();
            }
        }
        state.changed.send_modify(|changes| *changes += 1);
    }

    fn is_cut(&self, one: IpAddr, other: IpAddr) -> bool {
        let state = self.0.lock();
        state.cut.contains(&(one, other)) || state.cut.contains(&(other, one))
    }

    /// Waits until both directions are whole.
    async fn whole(&self, one: IpAddr, other: IpAddr) {
        let mut changes = self.0.lock().changed.subscribe();
        while self.is_cut(one, other) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn register(&self, here: IpAddr, there: IpAddr) -> Arc<Connection> {
        let connection = Arc::new(Connection::default());
        let mut state = self.0.lock();
        let open = state.connections.entry((here, there)).or_default();
        open.retain(|other| other.strong_count() > 0);
        open.push(Arc::downgrade(&connection));
        connection
    }
}

impl SimNetwork {
    /// The network as the host called `host` sees it.
    pub fn new(host: impl Into<String>, links: Links) -> SimNetwork {
        SimNetwork { host: host.into(), links }
    }

    fn wrap(&self, io: TcpStream) -> io::Result<Stream> {
        let (local, peer) = (io.local_addr()?, io.peer_addr()?);
        let connection = self.links.register(local.ip(), peer.ip());
        Ok(Stream::Other { io: Box::new(SimStream { io, connection }), local, peer })
    }
}

fn invalid(address: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{address} is not host:port"))
}

#[async_trait]
impl Network for SimNetwork {
    async fn listen(&self, address: &str) -> io::Result<Listener> {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let port = port.ok_or_else(|| invalid(address))?;
        // A host has one address, whatever it is called.
        let listener = TcpListener::bind(("0.0.0.0", port)).await?;
        let local = SocketAddr::new(turmoil::lookup(self.host.as_str()), listener.local_addr()?.port());
        Ok(Listener::Other(Box::new(SimAcceptor { listener, local, network: self.clone() })))
    }

    async fn connect(&self, address: &str) -> io::Result<Stream> {
        let (host, port) = address.rsplit_once(':').ok_or_else(|| invalid(address))?;
        let port = port.parse::<u16>().map_err(|_| invalid(address))?;
        let (here, there) = (turmoil::lookup(self.host.as_str()), turmoil::lookup(host));
        loop {
            self.links.whole(here, there).await;
            let connected = TcpStream::connect((there, port)).await;
            if !self.links.is_cut(here, there) {
                return connected.and_then(|io| self.wrap(io));
            }
        }
    }
}

struct SimAcceptor {
    listener: TcpListener,
    local: SocketAddr,
    network: SimNetwork,
}

#[async_trait]
impl Acceptor for SimAcceptor {
    async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let (io, from) = self.listener.accept().await?;
        Ok((self.network.wrap(io)?, from))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

struct SimStream {
    io: TcpStream,
    connection: Arc<Connection>,
}

impl SimStream {
    fn check(&self) -> io::Result<()> {
        match self.connection.is_reset.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        }
    }
}

impl AsyncRead for SimStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        self.connection.reader.register(cx.waker());
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        self.connection.writer.register(cx.waker());
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
