//! A Kafka client close to the wire: requests in any version, raw bytes where a test wants to misbehave.

use bytes::{Buf, Bytes, BytesMut};
use proto::host::{Network, Stream, TcpNetwork};
use proto::messages::ApiKey;
use proto::messages::api_table::Request;
use proto::wire::{Decoder, Encoder, RequestHeader, ResponseHeader, WireError};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// An answer that takes longer never comes. Generous, for tests run beside others on few cores.
const ANSWER: Duration = Duration::from_secs(60);
/// Nothing that tests ask for is larger.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The broker closed the connection, or nobody listens.
    #[error("the connection is closed: {0}")]
    Closed(io::Error),
    /// Nothing came for too long.
    #[error("no answer within {} s", ANSWER.as_secs())]
    Silent,
    /// What came is no answer to what was asked.
    #[error("the answer cannot be read: {0}")]
    Garbled(String),
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> ClientError {
        ClientError::Closed(error)
    }
}

impl From<WireError> for ClientError {
    fn from(error: WireError) -> ClientError {
        ClientError::Garbled(error.to_string())
    }
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    received: BytesMut,
    next_id: i32,
    /// Requests without an answer so far: correlation id, API, version.
    outstanding: VecDeque<(i32, ApiKey, i16)>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens.
    pub async fn connect(to: SocketAddr) -> Result<Client, ClientError> {
        Client::connect_over(&TcpNetwork, &to.to_string()).await
    }

    /// Connects to `host:port` over a network.
    ///
    /// # Errors
    /// If nobody listens.
    pub async fn connect_over(network: &dyn Network, to: &str) -> Result<Client, ClientError> {
        let stream = network.connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, received: BytesMut::new(), next_id: 1, outstanding: VecDeque::new() })
    }

    /// Asks in the highest version that is stable and waits for the answer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn call<R: Request>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        self.call_in(request, newest::<R>()).await
    }

    /// Asks in `version` and waits for the answer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn call_in<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response, ClientError> {
        self.send(request, version).await?;
        self.receive::<R>().await
    }

    /// Asks without waiting.
    ///
    /// # Errors
    /// If the connection is closed.
    pub async fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<(), ClientError> {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let frame = frame(request, version, id)?;
        self.outstanding.push_back((id, R::KEY, version));
        self.stream.write_all(&frame).await?;
        Ok(())
    }

    /// The answer to the oldest request that has none, which must have been an `R`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn receive<R: Request>(&mut self) -> Result<R::Response, ClientError> {
        let nothing = || ClientError::Garbled("nothing was asked".to_owned());
        let (id, key, version) = self.outstanding.pop_front().ok_or_else(nothing)?;
        let mut body = Decoder::new(self.receive_frame().await?);
        let header = ResponseHeader::decode(&mut body, key, version)?;
        if header.correlation_id != id {
            return Err(ClientError::Garbled(format!("answer {} to request {id}", header.correlation_id)));
        }
        Ok(R::decode_response(&mut body, version)?)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// If the connection is closed.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// The next frame, without its length.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn receive_frame(&mut self) -> Result<Bytes, ClientError> {
        timeout(ANSWER, self.read_frame()).await.map_err(|_| ClientError::Silent)?
    }

    /// Waits until the broker closes the connection, throwing away what it still sends.
    ///
    /// # Errors
    /// [`ClientError::Silent`] if it does not `within`.
    pub async fn closed(&mut self, within: Duration) -> Result<(), ClientError> {
        let closed = async {
            let mut scrap = [0; 4096];
            // A reset is a close, too.
            while self.stream.read(&mut scrap).await.is_ok_and(|read| read > 0) {}
        };
        timeout(within, closed).await.map_err(|_| ClientError::Silent)
    }

    async fn read_frame(&mut self) -> Result<Bytes, ClientError> {
        self.fill(4).await?;
        let length = self.received.get_i32();
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_ANSWER_BYTES);
        let length = length.ok_or_else(|| ClientError::Garbled("an answer of absurd length".to_owned()))?;
        self.fill(length).await?;
        Ok(self.received.split_to(length).freeze())
    }

    async fn fill(&mut self, wanted: usize) -> Result<(), ClientError> {
        while self.received.len() < wanted {
            self.received.reserve((wanted - self.received.len()).max(64 << 10));
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(ClientError::Closed(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(())
    }
}

/// The highest version of an API that is stable.
pub fn newest<R: Request>() -> i16 {
    let max = R::KEY.versions().max;
    if R::KEY.latest_version_is_unstable() { max - 1 } else { max }
}

/// A whole request: length, header, body.
///
/// # Errors
/// If `version` cannot say what `request` holds.
pub fn frame<R: Request>(request: &R, version: i16, correlation_id: i32) -> Result<Bytes, WireError> {
    let mut encoder = Encoder::frame();
    let client_id = Some("integration".to_owned());
    RequestHeader { api_key: R::KEY.code(), api_version: version, correlation_id, client_id }.encode(&mut encoder)?;
    request.encode_request(&mut encoder, version)?;
    Ok(encoder.finish()?.to_bytes())
}
