//! Envelopes on a plain stream, each behind its length: `u32` big endian, then the bytes. The first byte
//! of a connection says what it is for: questions, one after the other, or one conversation.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use prost::Message;
use proto::host::{Listener, Network, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    CHANNEL_ENVELOPES, CONNECT_WITHIN, Channel, Envelope, MAX_ENVELOPE_BYTES, Serve, Transport, TransportError,
};

const QUESTIONS: u8 = 0;
const CONVERSATION: u8 = 1;
/// Connections kept to one address while nobody asks there.
const IDLE: usize = 4;

/// The asking side.
#[derive(Debug)]
pub(crate) struct Frames {
    network: Arc<dyn Network>,
    /// Connections on which nothing is asked now, by address.
    idle: Mutex<BTreeMap<String, Vec<Stream>>>,
}

impl Frames {
    pub(crate) fn new(network: Arc<dyn Network>) -> Self {
        Self { network, idle: Mutex::default() }
    }

    async fn connect(&self, address: &str, purpose: u8) -> Result<Stream, TransportError> {
        let failed = |error: io::Error| TransportError::Unreachable(format!("cannot connect to {address}: {error}"));
        let connecting = tokio::time::timeout(CONNECT_WITHIN, self.network.connect(address));
        let connected = connecting.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let mut stream = connected.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.write_u8(purpose).await.map_err(failed)?;
        Ok(stream)
    }
}

fn lost(error: &io::Error) -> TransportError {
    TransportError::Unknown(format!("the connection broke: {error}"))
}

#[async_trait]
impl Transport for Frames {
    async fn ask(&self, address: &str, question: Envelope) -> Result<Envelope, TransportError> {
        let kept = self.idle.lock().get_mut(address).and_then(Vec::pop);
        let mut stream = match kept {
            Some(stream) => stream,
            None => self.connect(address, QUESTIONS).await?,
        };
        write(&mut stream, &question).await.map_err(|error| lost(&error))?;
        let answer = read(&mut stream).await.map_err(|error| lost(&error))?;
        let mut idle = self.idle.lock();
        let idle = idle.entry(address.to_owned()).or_default();
        if idle.len() < IDLE {
            idle.push(stream);
        }
        Ok(answer)
    }

    async fn open(&self, address: &str, first: Envelope) -> Result<Channel, TransportError> {
        let mut stream = self.connect(address, CONVERSATION).await?;
        write(&mut stream, &first).await.map_err(|error| lost(&error))?;
        Ok(channel(stream))
    }
}

/// A conversation on `stream`. A task writes; it ends with the channel.
fn channel(stream: Stream) -> Channel {
    let (read_half, mut write_half) = stream.split();
    let (to, mut outgoing) = mpsc::channel(CHANNEL_ENVELOPES);
    tokio::spawn(async move {
        while let Some(envelope) = outgoing.recv().await {
            if write(&mut write_half, &envelope).await.is_err() {
                return;
            }
        }
        let _ = write_half.shutdown().await;
    });
    Channel { to, from: envelopes(read_half) }
}

fn envelopes(read_half: proto::host::ReadHalf) -> BoxStream<'static, Envelope> {
    futures::stream::unfold(read_half, |mut half| async move { read(&mut half).await.ok().map(|next| (next, half)) })
        .boxed()
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), envelope: &Envelope) -> io::Result<()> {
    let length = envelope.encoded_len();
    if length > MAX_ENVELOPE_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut out = BytesMut::with_capacity(length + 4);
    out.extend_from_slice(&(length as u32).to_be_bytes());
    envelope.encode(&mut out).map_err(io::Error::other)?;
    stream.write_all(&out).await?;
    stream.flush().await
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Envelope> {
    let length = stream.read_u32().await? as usize;
    if length > MAX_ENVELOPE_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    // Grows as bytes arrive: a lying length reserves nothing.
    let mut body = BytesMut::with_capacity(length.min(64 << 10));
    while body.len() < length {
        let left = (length - body.len()) as u64;
        if (&mut *stream).take(left).read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Envelope::decode(Bytes::from(body)).map_err(io::Error::other)
}

/// Serves `listener` until `stop` is cancelled.
pub(crate) async fn serve(listener: Listener, service: Arc<dyn Serve>, stop: CancellationToken) {
    // Dropped at the end, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(serve_one(stream, Arc::clone(&service)));
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a control connection failed");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_one(mut stream: Stream, service: Arc<dyn Serve>) {
    let _ = stream.set_nodelay(true);
    match stream.read_u8().await {
        Ok(QUESTIONS) => {
            while let Ok(question) = read(&mut stream).await {
                let answer = service.answer(question).await;
                if write(&mut stream, &answer).await.is_err() {
                    return;
                }
            }
        }
        Ok(CONVERSATION) => {
            if let Ok(first) = read(&mut stream).await {
                service.converse(first, channel(stream)).await;
            }
        }
        Ok(_) | Err(_) => {}
    }
}
