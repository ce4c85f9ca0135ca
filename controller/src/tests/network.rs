//! A network in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use proto::host::{Acceptor, Listener, Network, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

/// How long bytes are under way.
const LATENCY: Duration = Duration::from_millis(1);
/// Bytes that fit a connection.
const WINDOW: usize = 256 << 10;

/// All hosts and what lies between them.
#[derive(Debug, Clone)]
pub(crate) struct Net(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// From, to: nothing gets through.
    cut: watch::Sender<BTreeSet<(String, String)>>,
}

#[derive(Debug, Default)]
struct State {
    listeners: BTreeMap<String, mpsc::Sender<Stream>>,
    /// Tasks that carry bytes, by the hosts at both ends.
    pumps: Vec<(String, String, AbortHandle)>,
}

impl Default for Net {
    fn default() -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), cut: watch::Sender::new(BTreeSet::new()) }))
    }
}

impl Net {
    /// The network as `host` sees it.
    pub(crate) fn host(&self, name: &str) -> Host {
        Host { net: self.clone(), name: name.to_owned() }
    }

    /// Ends whatever `host` has open, as when its process dies.
    pub(crate) fn kill(&self, host: &str) {
        let mut state = self.0.state.lock();
        let prefix = format!("{host}:");
        state.listeners.retain(|address, _| !address.starts_with(&prefix));
        state.pumps.retain(|(from, to, pump)| {
            let dead = from == host || to == host;
            if dead {
                pump.abort();
            }
            !dead
        });
    }

    /// Cuts the way from `from` to `to`: bytes wait, and nobody is told.
    pub(crate) fn cut(&self, from: &str, to: &str) {
        self.0.cut.send_modify(|cut| {
            cut.insert((from.to_owned(), to.to_owned()));
        });
    }

    /// Cuts `host` off from all of `others`, both ways.
    pub(crate) fn isolate(&self, host: &str, others: &[String]) {
        for other in others.iter().filter(|other| *other != host) {
            self.cut(host, other);
            self.cut(other, host);
        }
    }

    /// Mends all links.
    pub(crate) fn heal(&self) {
        self.0.cut.send_modify(BTreeSet::clear);
    }

    async fn open(&self, from: &str, to: &str) {
        let key = (from.to_owned(), to.to_owned());
        let mut cut = self.0.cut.subscribe();
        let _ = cut.wait_for(|cut| !cut.contains(&key)).await;
    }

    fn pump(
        &self,
        (from, mut source): (&str, impl AsyncRead + Send + Unpin + 'static),
        (to, mut sink): (&str, impl AsyncWrite + Send + Unpin + 'static),
    ) {
        let (net, ends) = (self.clone(), (from.to_owned(), to.to_owned()));
        let pump = tokio::spawn(async move {
            let mut bytes = vec![0; 64 << 10];
            while let Ok(read) = source.read(&mut bytes).await {
                tokio::time::sleep(LATENCY).await;
                net.open(&ends.0, &ends.1).await;
                if read == 0 || sink.write_all(&bytes[..read]).await.is_err() {
                    break;
                }
            }
            let _ = sink.shutdown().await;
        });
        let mut state = self.0.state.lock();
        state.pumps.retain(|(_, _, pump)| !pump.is_finished());
        state.pumps.push((from.to_owned(), to.to_owned(), pump.abort_handle()));
    }
}

/// One host's way to the others.
#[derive(Debug)]
pub(crate) struct Host {
    net: Net,
    name: String,
}

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

fn end(io: tokio::io::DuplexStream) -> Stream {
    Stream::Other { io: Box::new(io), local: NOWHERE, peer: NOWHERE }
}

#[async_trait]
impl Network for Host {
    async fn listen(&self, address: &str) -> io::Result<Listener> {
        let (sender, incoming) = mpsc::channel(64);
        let mut state = self.net.0.state.lock();
        if state.listeners.get(address).is_some_and(|sender| !sender.is_closed()) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        state.listeners.insert(address.to_owned(), sender);
        Ok(Listener::Other(Box::new(Incoming(tokio::sync::Mutex::new(incoming)))))
    }

    async fn connect(&self, address: &str) -> io::Result<Stream> {
        let to = address.split(':').next().unwrap_or_default().to_owned();
        self.net.open(&self.name, &to).await;
        tokio::time::sleep(LATENCY).await;
        self.net.open(&to, &self.name).await;
        let listener = self.net.0.state.lock().listeners.get(address).cloned();
        let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
        let ((here, near), (far, there)) = (tokio::io::duplex(WINDOW), tokio::io::duplex(WINDOW));
        let ((near_read, near_write), (far_read, far_write)) = (tokio::io::split(near), tokio::io::split(far));
        listener.send(end(there)).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        self.net.pump((&self.name, near_read), (&to, far_write));
        self.net.pump((&to, far_read), (&self.name, near_write));
        Ok(end(here))
    }
}

struct Incoming(tokio::sync::Mutex<mpsc::Receiver<Stream>>);

#[async_trait]
impl Acceptor for Incoming {
    async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self.0.lock().await.recv().await {
            Some(stream) => Ok((stream, NOWHERE)),
            // Killed: nobody comes any more.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(NOWHERE)
    }
}
