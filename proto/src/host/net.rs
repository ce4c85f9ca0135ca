//! Byte streams between hosts: TCP in production, whatever a test or the simulation hands in.
//!
//! What is served or asked for over a stream does not know which one it is. Production pays one
//! `match` per call, no box.

use std::fmt::{self, Debug};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// A network of hosts.
#[async_trait]
pub trait Network: Debug + Send + Sync + 'static {
    /// Listens at `address` (`host:port`; port 0 takes a free one).
    async fn listen(&self, address: &str) -> io::Result<Listener>;

    /// Connects to `address` (`host:port`), resolving the name. Has no timeout of its own beyond the
    /// operating system's. Nobody listening there is `ConnectionRefused`.
    async fn connect(&self, address: &str) -> io::Result<Stream>;
}

/// The machine's network.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpNetwork;

#[async_trait]
impl Network for TcpNetwork {
    async fn listen(&self, address: &str) -> io::Result<Listener> {
        TcpListener::bind(address).await.map(Listener::Tcp)
    }

    async fn connect(&self, address: &str) -> io::Result<Stream> {
        TcpStream::connect(address).await.map(Stream::Tcp)
    }
}

/// A stream that is not TCP.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static> Duplex for T {}

/// One end of a connection.
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// Another network's.
    Other {
        /// The bytes.
        io: Box<dyn Duplex>,
        /// Address of this end.
        local: SocketAddr,
        /// Address of the other end.
        peer: SocketAddr,
    },
}

impl Stream {
    /// Sends small writes at once. Has no effect where there is no such thing.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(on),
            Self::Other { .. } => Ok(()),
        }
    }

    /// Address of this end. Fails when the connection is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr(),
            Self::Other { local, .. } => Ok(*local),
        }
    }

    /// Address of the other end. Fails when the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr(),
            Self::Other { peer, .. } => Ok(*peer),
        }
    }

    /// Both directions, for two tasks.
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Self::Other { io, .. } => {
                let (read, write) = tokio::io::split(io);
                (ReadHalf::Other(read), WriteHalf::Other(write))
            }
        }
    }
}

impl Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("local", &self.local_addr()).field("peer", &self.peer_addr()).finish()
    }
}

/// What is read of a [`Stream`].
#[derive(Debug)]
pub enum ReadHalf {
    /// TCP.
    Tcp(OwnedReadHalf),
    /// Another network's.
    Other(tokio::io::ReadHalf<Box<dyn Duplex>>),
}

/// What is written to a [`Stream`]. The direction ends when it is dropped.
#[derive(Debug)]
pub enum WriteHalf {
    /// TCP.
    Tcp(OwnedWriteHalf),
    /// Another network's. Its direction ends only with a shutdown, or when both halves are dropped.
    Other(tokio::io::WriteHalf<Box<dyn Duplex>>),
}

impl Debug for dyn Duplex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Duplex")
    }
}

/// Passes reads through to whichever stream it is.
macro_rules! read_through {
    ($($name:ident { $($pattern:pat => $io:ident),* })*) => {$(
        impl AsyncRead for $name {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $($pattern => Pin::new($io).poll_read(cx, buf)),* }
            }
        }
    )*};
}

/// Passes writes through to whichever stream it is.
macro_rules! write_through {
    ($($name:ident { $($pattern:pat => $io:ident),* })*) => {$(
        impl AsyncWrite for $name {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() { $($pattern => Pin::new($io).poll_write(cx, buf)),* }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() { $($pattern => Pin::new($io).poll_write_vectored(cx, bufs)),* }
            }

            fn is_write_vectored(&self) -> bool {
                match self { $($pattern => $io.is_write_vectored()),* }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $($pattern => Pin::new($io).poll_flush(cx)),* }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $($pattern => Pin::new($io).poll_shutdown(cx)),* }
            }
        }
    )*};
}

read_through! {
    Stream { Self::Tcp(io) => io, Self::Other { io, .. } => io }
    ReadHalf { Self::Tcp(io) => io, Self::Other(io) => io }
}
write_through! {
    Stream { Self::Tcp(io) => io, Self::Other { io, .. } => io }
    WriteHalf { Self::Tcp(io) => io, Self::Other(io) => io }
}

/// Hands out connections of a network that is not TCP.
#[async_trait]
pub trait Acceptor: Send + Sync + 'static {
    /// The next connection and the address of its other end. May be cancelled without loss.
    async fn accept(&self) -> io::Result<(Stream, SocketAddr)>;

    /// Where it listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Waits for connections. They are refused once it is dropped.
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Another network's.
    Other(Box<dyn Acceptor>),
}

impl Listener {
    /// The next connection and the address of its other end. May be cancelled without loss.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::Tcp(stream), peer))
            }
            Self::Other(acceptor) => acceptor.accept().await,
        }
    }

    /// Where it listens: the port taken, if 0 was asked for.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Other(acceptor) => acceptor.local_addr(),
        }
    }
}

impl Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("local", &self.local_addr()).finish()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Sends three bytes each way through the halves, and ends one direction.
    async fn converse(one: Stream, other: Stream) {
        let ((mut read, mut write), mut other) = (one.split(), other);
        write.write_all(b"one").await.expect("it is open");
        let mut three = [0; 3];
        other.read_exact(&mut three).await.expect("they were sent");
        assert_eq!(&three, b"one");
        other.write_all(b"two").await.expect("it is open");
        read.read_exact(&mut three).await.expect("they were sent");
        assert_eq!(&three, b"two");
        write.shutdown().await.expect("it is open");
        assert_eq!(other.read(&mut three).await.expect("it ended"), 0);
    }

    #[tokio::test]
    async fn tcp_carries_bytes_both_ways() {
        let listener = TcpNetwork.listen("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens").to_string();
        let (connected, accepted) = tokio::join!(TcpNetwork.connect(&address), listener.accept());
        let (connected, (accepted, from)) = (connected.expect("it listens"), accepted.expect("one connects"));
        assert_eq!(connected.local_addr().expect("open"), from);
        assert_eq!(connected.peer_addr().expect("open"), accepted.local_addr().expect("open"));
        connected.set_nodelay(true).expect("TCP has it");
        converse(connected, accepted).await;
    }

    #[tokio::test]
    async fn nobody_listening_is_refused() {
        let listener = TcpNetwork.listen("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens").to_string();
        drop(listener);
        let error = TcpNetwork.connect(&address).await.expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn another_networks_stream_carries_bytes_both_ways() {
        let (one, other) = tokio::io::duplex(16);
        let (here, there) = (SocketAddr::from(([10, 0, 0, 1], 1)), SocketAddr::from(([10, 0, 0, 2], 2)));
        let one = Stream::Other { io: Box::new(one), local: here, peer: there };
        let other = Stream::Other { io: Box::new(other), local: there, peer: here };
        converse(one, other).await;
    }
}
