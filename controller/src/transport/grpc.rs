//! gRPC over the host's network. One connection per address, made when it is needed, given up as soon as
//! something on it fails: the next question makes a new one.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use proto::host::{Listener, Network, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tonic::transport::{Endpoint, Server, Uri};
use tonic::{Code, Request, Response, Status, Streaming};

use super::bounds::{Bounded, Budget, Limits, NO_ROOM};
use super::generated::control_client::ControlClient;
use super::generated::control_server::{Control, ControlServer};
use super::{
    CHANNEL_ENVELOPES, CONNECT_WITHIN, Channel, Envelope, MAX_ENVELOPE_BYTES, MAX_OPEN_PER_CONNECTION, Serve,
    Transport, TransportError,
};

/// How often a silent connection is asked for a sign of life, and how long it may take to give one.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));

/// Bytes that may be on their way to a connection before they were taken in.
const WINDOW: u32 = 256 << 10;
/// Bytes of headers that a question may have.
const HEADERS: u32 = 8 << 10;
/// How often it is said that connections are refused.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// The asking side.
#[derive(Debug)]
pub(crate) struct Grpc {
    network: Arc<dyn Network>,
    connections: Mutex<BTreeMap<String, Connection>>,
    made: AtomicU64,
}

#[derive(Debug, Clone)]
struct Connection {
    /// Tells connections to one address apart.
    number: u64,
    client: ControlClient<tonic::transport::Channel>,
}

impl Grpc {
    pub(crate) fn new(network: Arc<dyn Network>) -> Self {
        Self { network, connections: Mutex::default(), made: AtomicU64::new(0) }
    }

    async fn connection(&self, address: &str) -> Result<Connection, TransportError> {
        if let Some(connection) = self.connections.lock().get(address) {
            return Ok(connection.clone());
        }
        let failed = |error: &dyn std::error::Error| {
            TransportError::Unreachable(format!("cannot connect to {address}: {}", root_cause(error)))
        };
        // The name is resolved by the connector; the URI only has to be one.
        let endpoint = Endpoint::from_static("http://control")
            .connect_timeout(CONNECT_WITHIN)
            .http2_keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            .keep_alive_while_idle(true);
        let (network, to) = (Arc::clone(&self.network), address.to_owned());
        let connector = tower::service_fn(move |_: Uri| {
            let (network, to) = (Arc::clone(&network), to.clone());
            async move {
                let stream = network.connect(&to).await?;
                stream.set_nodelay(true)?;
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        let channel = endpoint.connect_with_connector(connector).await.map_err(|error| failed(&error))?;
        let client = ControlClient::new(channel)
            .max_decoding_message_size(MAX_ENVELOPE_BYTES)
            .max_encoding_message_size(MAX_ENVELOPE_BYTES);
        let connection = Connection { number: self.made.fetch_add(1, Ordering::Relaxed), client };
        self.connections.lock().insert(address.to_owned(), connection.clone());
        Ok(connection)
    }

    /// Something failed on `connection`: the next question makes a new one, unless it only was refused.
    fn give_up(&self, address: &str, connection: &Connection, status: &Status) -> TransportError {
        let cause = root_cause(status);
        if status.code() == Code::ResourceExhausted && status.message() == NO_ROOM {
            // It was not heard to its end.
            return TransportError::Unreachable(format!("{address}: {NO_ROOM}"));
        }
        let mut connections = self.connections.lock();
        if connections.get(address).is_some_and(|kept| kept.number == connection.number) {
            connections.remove(address);
        }
        if was_refused(status) {
            TransportError::Unreachable(format!("cannot connect to {address}: {cause}"))
        } else {
            TransportError::Unknown(format!("{address}: {cause}"))
        }
    }
}

/// What lies at the bottom of a chain of errors that say "transport error" to each other.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Whether tonic tried to connect by itself and was refused: then nothing was heard.
fn was_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[async_trait]
impl Transport for Grpc {
    async fn ask(&self, address: &str, question: Envelope) -> Result<Envelope, TransportError> {
        let connection = self.connection(address).await?;
        let answer = connection.client.clone().ask(question).await;
        answer.map(Response::into_inner).map_err(|status| self.give_up(address, &connection, &status))
    }

    async fn open(&self, address: &str, first: Envelope) -> Result<Channel, TransportError> {
        let connection = self.connection(address).await?;
        let (to, mut outgoing) = mpsc::channel(CHANNEL_ENVELOPES);
        let sent = futures::stream::once(std::future::ready(first))
            .chain(futures::stream::poll_fn(move |cx| outgoing.poll_recv(cx)));
        let answers = connection.client.clone().open(sent).await;
        let answers = answers.map_err(|status| self.give_up(address, &connection, &status))?;
        Ok(Channel { to, from: envelopes(answers.into_inner()) })
    }
}

/// What comes in until the conversation ends, in whatever way.
fn envelopes(streaming: Streaming<Envelope>) -> BoxStream<'static, Envelope> {
    streaming
        .take_while(|next| std::future::ready(next.is_ok()))
        .filter_map(|next| std::future::ready(next.ok()))
        .boxed()
}

/// Serves `listener` until `stop` is cancelled.
pub(crate) async fn serve(
    listener: Listener,
    service: Arc<dyn Serve>,
    stop: CancellationToken,
) -> Result<(), io::Error> {
    serve_within(listener, service, stop, Limits::default()).await
}

/// [`serve`] with these limits.
pub(super) async fn serve_within(
    listener: Listener,
    service: Arc<dyn Serve>,
    stop: CancellationToken,
    limits: Limits,
) -> Result<(), io::Error> {
    let inner = ControlServer::new(Service(service))
        .max_decoding_message_size(MAX_ENVELOPE_BYTES)
        .max_encoding_message_size(MAX_ENVELOPE_BYTES);
    let service = Bounded { inner, conversations: "/firn.control.Control/Open" };
    let door = Door {
        listener,
        open: Arc::new(Semaphore::new(limits.connections)),
        bytes: Arc::new(Budget::new(limits.bytes, None)),
        limits,
        stop: stop.clone(),
        refused: None,
    };
    let incoming = futures::stream::unfold(door, |mut door| async move {
        let served = door.next().await;
        Some((Ok::<_, io::Error>(served), door))
    });
    Server::builder()
        .max_concurrent_streams(MAX_OPEN_PER_CONNECTION)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .http2_max_header_list_size(HEADERS)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .serve_with_incoming_shutdown(service, incoming, stop.cancelled_owned())
        .await
        .map_err(io::Error::other)
}

/// Where connections come in.
struct Door {
    listener: Listener,
    open: Arc<Semaphore>,
    bytes: Arc<Budget>,
    limits: Limits,
    stop: CancellationToken,
    /// When it was said that connections are refused.
    refused: Option<Instant>,
}

impl Door {
    /// The next connection. Those for which there is no room are hung up on.
    async fn next(&mut self) -> Served {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accepting a control connection failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&self.open).try_acquire_owned() else {
                if self.refused.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
                    self.refused = Some(Instant::now());
                    let (open, from) = (self.limits.connections, stream.peer_addr().ok());
                    tracing::warn!(open, ?from, "a control connection is refused: too many are open");
                }
                continue;
            };
            let _ = stream.set_nodelay(true);
            let budget = Budget::new(self.limits.bytes_per_connection, Some(Arc::clone(&self.bytes)));
            return Served {
                stream,
                stopped: Box::pin(self.stop.clone().cancelled_owned()),
                silent: Some(Box::pin(tokio::time::sleep(self.limits.first_word))),
                budget: Arc::new(budget),
                _place: place,
            };
        }
    }
}

/// A connection that breaks when the server stops: nothing may be answered by a member that has ended.
struct Served {
    stream: Stream,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Ready when nothing was said for too long; none once something was.
    silent: Option<Pin<Box<Sleep>>>,
    budget: Arc<Budget>,
    _place: OwnedSemaphorePermit,
}

impl Connected for Served {
    type ConnectInfo = Arc<Budget>;

    fn connect_info(&self) -> Arc<Budget> {
        Arc::clone(&self.budget)
    }
}

impl AsyncRead for Served {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.silent = None;
        }
        if read.is_pending()
            && let Some(silent) = &mut self.silent
            && silent.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Served {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

struct Service(Arc<dyn Serve>);

#[async_trait]
impl Control for Service {
    async fn ask(&self, request: Request<Envelope>) -> Result<Response<Envelope>, Status> {
        Ok(Response::new(self.0.answer(request.into_inner()).await))
    }

    type OpenStream = BoxStream<'static, Result<Envelope, Status>>;

    async fn open(&self, request: Request<Streaming<Envelope>>) -> Result<Response<Self::OpenStream>, Status> {
        let mut incoming = envelopes(request.into_inner());
        let (to, mut outgoing) = mpsc::channel(CHANNEL_ENVELOPES);
        let service = Arc::clone(&self.0);
        tokio::spawn(async move {
            let gone = to.clone();
            let conversation = async {
                if let Some(first) = incoming.next().await {
                    service.converse(first, Channel { to, from: incoming }).await;
                }
            };
            tokio::select! {
                biased;
                // The client hung up, or the server stopped.
                () = gone.closed() => {}
                () = conversation => {}
            }
        });
        let answers = futures::stream::poll_fn(move |cx| outgoing.poll_recv(cx)).map(Ok);
        Ok(Response::new(answers.boxed()))
    }
}
