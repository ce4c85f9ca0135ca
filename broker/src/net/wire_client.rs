//! The client's side of the protocol, for whoever asks a broker: the command line and the replicas of other brokers.
//!
//! A [`Sender`] makes frames in the highest version that both sides speak and sends them; a [`Receiver`] takes the answers in the
//! same order. Neither knows what a request means, nor the address: who holds them says where a failure happened. Connecting, and
//! connecting again, is theirs, too.

use super::budget::{Budget, Grant};
use super::connection::write_all;
use bytes::BytesMut;
use proto::errors::ErrorCode;
use proto::messages::api_table::Request;
use proto::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use proto::wire::{Chunks, Decoder, Encoder, RequestHeader, ResponseHeader, WireError};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// Answers are read into a buffer that grows by at least this.
const READ_AHEAD_BYTES: usize = 64 << 10;
/// A buffer that a large answer left behind is given back above this.
const KEEP_BYTES: usize = 1 << 20;
/// Every broker answers these versions of ApiVersions.
const HELLO: (i16, i16) = (0, 3);

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The connection failed, or the broker closed it.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// No answer came in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
    /// The broker speaks no version of it that we do.
    #[error("{0} is not spoken there")]
    NotSpoken(&'static str),
    /// A message cannot be written, or an answer not be read.
    #[error("the message cannot be read: {0}")]
    Garbled(#[from] WireError),
    /// The answer belongs to another request than the one asked.
    #[error("another request than the one asked was answered")]
    Mismatched,
    /// The broker refuses to say what it speaks.
    #[error("asking what is spoken there: {}", .0.name())]
    Refused(ErrorCode),
}

/// A request under way: what its answer is read by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    id: i32,
    key: ApiKey,
    version: i16,
}

impl Sent {
    /// The API that was asked.
    pub fn key(&self) -> ApiKey {
        self.key
    }

    /// The version it was asked in.
    pub fn version(&self) -> i16 {
        self.version
    }
}

/// What one broker speaks, and the frames that are made for it.
#[derive(Debug)]
pub struct Speech {
    /// What this client calls itself.
    client_id: String,
    /// Lowest and highest version of each API the broker speaks.
    spoken: BTreeMap<i16, (i16, i16)>,
    next_id: i32,
}

impl Speech {
    /// What can be said before the broker was asked: [`Speech::hello`].
    pub fn new(client_id: &str) -> Speech {
        Speech {
            client_id: client_id.to_owned(),
            spoken: BTreeMap::from([(ApiKey::ApiVersions.code(), HELLO)]),
            next_id: 0,
        }
    }

    /// The first request on a connection.
    pub fn hello() -> ApiVersionsRequest {
        ApiVersionsRequest {
            client_software_name: "firn".to_owned(),
            client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Takes the answer to [`Speech::hello`].
    ///
    /// # Errors
    /// [`CallError::Refused`] if it is an error.
    pub fn learn(&mut self, versions: &ApiVersionsResponse) -> Result<(), CallError> {
        match ErrorCode::from_code(versions.error_code).unwrap_or(ErrorCode::UnknownServerError) {
            ErrorCode::None => {}
            code => return Err(CallError::Refused(code)),
        }
        self.spoken = versions.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        Ok(())
    }

    /// The highest version of `key` that both sides speak.
    pub fn version(&self, key: ApiKey) -> Option<i16> {
        let ours = key.versions();
        let highest = if key.latest_version_is_unstable() { ours.max - 1 } else { ours.max };
        let (low, high) = self.spoken.get(&key.code())?;
        ((*low).max(ours.min) <= (*high).min(highest)).then_some((*high).min(highest))
    }

    /// The frame of `request`, its length in front.
    ///
    /// # Errors
    /// [`CallError::NotSpoken`]; [`CallError::Garbled`] if it cannot be said in the version that is spoken.
    pub fn frame<R: Request>(&mut self, request: &R) -> Result<(Chunks, Sent), CallError> {
        let version = self.version(R::KEY).ok_or(CallError::NotSpoken(R::KEY.name()))?;
        let header = RequestHeader {
            api_key: R::KEY.code(),
            api_version: version,
            correlation_id: self.next_id,
            client_id: Some(self.client_id.clone()),
        };
        let mut encoder = Encoder::frame();
        header.encode(&mut encoder)?;
        request.encode_request(&mut encoder, version)?;
        let sent = Sent { id: self.next_id, key: R::KEY, version };
        let frame = encoder.finish()?;
        self.next_id = self.next_id.wrapping_add(1);
        Ok((frame, sent))
    }
}

/// The half of a connection that requests leave by.
#[derive(Debug)]
pub struct Sender<W> {
    write: W,
    speech: Speech,
}

impl<W: AsyncWrite + Unpin> Sender<W> {
    /// Says what `speech` can over `write`.
    pub fn new(write: W, speech: Speech) -> Sender<W> {
        Sender { write, speech }
    }

    /// What is spoken over this connection.
    pub fn speech(&self) -> &Speech {
        &self.speech
    }

    /// Sends a request; [`Receiver::receive`] takes the answers in the same order.
    ///
    /// # Errors
    /// See [`CallError`]; nothing was sent then, unless the connection broke.
    pub async fn send<R: Request>(&mut self, request: &R) -> Result<Sent, CallError> {
        let (frame, sent) = self.speech.frame(request)?;
        write_all(&mut self.write, frame.into_parts().into()).await?;
        Ok(sent)
    }
}

/// The half of a connection that answers come by, in the order of the requests.
#[derive(Debug)]
pub struct Receiver<R> {
    read: R,
    buffer: BytesMut,
    max_answer_bytes: usize,
}

impl<R: AsyncRead + Unpin> Receiver<R> {
    /// Reads answers of at most `max_answer_bytes`, the length prefix apart.
    pub fn new(read: R, max_answer_bytes: usize) -> Receiver<R> {
        Receiver { read, buffer: BytesMut::new(), max_answer_bytes }
    }

    /// The answer to `sent`, the oldest request that has none yet, which must have been a `Q`.
    ///
    /// # Errors
    /// See [`CallError`]; the connection is of no use any more then.
    pub async fn receive<Q: Request>(&mut self, sent: Sent, within: Duration) -> Result<Q::Response, CallError> {
        let read = tokio::time::timeout(within, self.read_frame(None)).await;
        let (frame, _) = read.map_err(|_| CallError::Silent(within))??;
        decode::<Q>(frame, sent)
    }

    /// As [`Receiver::receive`]; memory for the answer is taken of `budget` before it is read, beyond what a small one takes. What
    /// the answer holds of records are slices of that memory: keep the grant for as long as them.
    ///
    /// # Errors
    /// See [`CallError`]; the connection is of no use any more then. Waiting for memory counts as the broker's time.
    pub async fn receive_under<Q: Request>(
        &mut self,
        sent: Sent,
        within: Duration,
        budget: &Budget,
    ) -> Result<(Q::Response, Option<Grant>), CallError> {
        let read = tokio::time::timeout(within, self.read_frame(Some(budget))).await;
        let (frame, grant) = read.map_err(|_| CallError::Silent(within))??;
        Ok((decode::<Q>(frame, sent)?, grant))
    }

    async fn read_frame(&mut self, budget: Option<&Budget>) -> io::Result<(BytesMut, Option<Grant>)> {
        self.fill(4).await?;
        let announced = self.buffer.first_chunk::<4>().copied().map_or(-1, i32::from_be_bytes);
        let length =
            usize::try_from(announced).ok().filter(|length| *length <= self.max_answer_bytes).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("an answer of {announced} bytes was announced"))
            })?;
        let grant = match budget {
            Some(budget) if length > READ_AHEAD_BYTES => Some(budget.admit(length).await),
            Some(_) | None => None,
        };
        self.fill(4 + length).await?;
        drop(self.buffer.split_to(4));
        let frame = self.buffer.split_to(length);
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP_BYTES {
            self.buffer = BytesMut::new();
        }
        Ok((frame, grant))
    }

    async fn fill(&mut self, wanted: usize) -> io::Result<()> {
        while self.buffer.len() < wanted {
            self.buffer.reserve((wanted - self.buffer.len()).max(READ_AHEAD_BYTES));
            if self.read.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

/// Asks the broker at the other end what it speaks; the halves are for requests from then on.
///
/// # Errors
/// See [`CallError`].
pub async fn greet<R, W>(
    (read, write): (R, W),
    client_id: &str,
    max_answer_bytes: usize,
    within: Duration,
) -> Result<(Sender<W>, Receiver<R>), CallError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut sender = Sender::new(write, Speech::new(client_id));
    let mut receiver = Receiver::new(read, max_answer_bytes);
    let sent = sender.send(&Speech::hello()).await?;
    let versions = receiver.receive::<ApiVersionsRequest>(sent, within).await?;
    sender.speech.learn(&versions)?;
    Ok((sender, receiver))
}

fn decode<Q: Request>(frame: BytesMut, sent: Sent) -> Result<Q::Response, CallError> {
    debug_assert_eq!(sent.key, Q::KEY, "answers come in the order of requests");
    let mut body = Decoder::new(frame.freeze());
    let header = ResponseHeader::decode(&mut body, sent.key, sent.version)?;
    if header.correlation_id != sent.id {
        return Err(CallError::Mismatched);
    }
    Ok(Q::decode_response(&mut body, sent.version)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::messages::api_versions_response::ApiVersion;
    use proto::messages::{FetchRequest, FetchResponse};
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    const SOON: Duration = Duration::from_secs(5);
    const LARGEST: usize = 1 << 20;

    /// The next frame that the client sent.
    async fn asked(broker: &mut DuplexStream) -> (RequestHeader, Decoder) {
        let length = broker.read_u32().await.expect("a frame");
        let mut body = vec![0; usize::try_from(length).expect("small")];
        broker.read_exact(&mut body).await.expect("the rest of it");
        let mut body = Decoder::new(body.into());
        (RequestHeader::decode(&mut body).expect("a header"), body)
    }

    async fn answer(broker: &mut DuplexStream, key: ApiKey, version: i16, id: i32, write: impl FnOnce(&mut Encoder)) {
        let mut encoder = Encoder::frame();
        ResponseHeader { correlation_id: id }.encode(&mut encoder, key, version);
        write(&mut encoder);
        let frame = encoder.finish().expect("small").to_bytes();
        broker.write_all(&frame).await.expect("the client reads");
    }

    /// Greets a broker that speaks Fetch up to `newest`.
    async fn greeted(
        newest: i16,
    ) -> (Sender<tokio::io::WriteHalf<DuplexStream>>, Receiver<tokio::io::ReadHalf<DuplexStream>>, DuplexStream) {
        let (ours, mut broker) = duplex(1 << 16);
        let client = greet(tokio::io::split(ours), "tester", LARGEST, SOON);
        let serve = async {
            let (header, _) = asked(&mut broker).await;
            assert_eq!((header.api_key, header.api_version), (ApiKey::ApiVersions.code(), HELLO.1));
            assert_eq!(header.client_id.as_deref(), Some("tester"));
            let fetch = ApiVersion { api_key: ApiKey::Fetch.code(), min_version: 4, max_version: newest };
            let says = ApiVersionsResponse { api_keys: vec![fetch], ..Default::default() };
            answer(&mut broker, ApiKey::ApiVersions, HELLO.1, header.correlation_id, |e| {
                says.encode(e, HELLO.1).expect("small");
            })
            .await;
        };
        let (client, ()) = tokio::join!(client, serve);
        let (sender, receiver) = client.expect("the broker answers");
        (sender, receiver, broker)
    }

    #[tokio::test]
    async fn requests_are_made_in_the_highest_version_both_speak() {
        for (theirs, used) in [(12, 12), (18, 18), (40, 18)] {
            let (mut sender, mut receiver, mut broker) = greeted(theirs).await;
            let sent = sender.send(&FetchRequest::default()).await.expect("it is spoken");
            assert_eq!((sent.key(), sent.version()), (ApiKey::Fetch, used));
            let (header, _) = asked(&mut broker).await;
            assert_eq!((header.api_version, header.correlation_id), (used, 1));
            let says = FetchResponse { session_id: 7, ..Default::default() };
            answer(&mut broker, ApiKey::Fetch, used, 1, |e| says.encode(e, used).expect("small")).await;
            let got = receiver.receive::<FetchRequest>(sent, SOON).await.expect("it came");
            assert_eq!(got, says);
        }
    }

    #[tokio::test]
    async fn what_the_broker_does_not_speak_is_not_sent() {
        let (mut sender, _, _broker) = greeted(3).await;
        assert!(matches!(sender.send(&FetchRequest::default()).await, Err(CallError::NotSpoken("Fetch"))));
    }

    #[tokio::test]
    async fn an_answer_to_something_else_is_not_taken() {
        let (mut sender, mut receiver, mut broker) = greeted(18).await;
        let sent = sender.send(&FetchRequest::default()).await.expect("it is spoken");
        answer(&mut broker, ApiKey::Fetch, 18, 99, |e| FetchResponse::default().encode(e, 18).expect("small")).await;
        let got = receiver.receive::<FetchRequest>(sent, SOON).await;
        assert!(matches!(got, Err(CallError::Mismatched)));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_and_a_lying_length_costs_no_memory() {
        let (mut sender, mut receiver, mut broker) = greeted(18).await;
        let sent = sender.send(&FetchRequest::default()).await.expect("it is spoken");
        let got = receiver.receive::<FetchRequest>(sent, SOON).await;
        assert!(matches!(got, Err(CallError::Silent(SOON))));
        broker.write_i32(i32::MAX).await.expect("the client reads");
        let got = receiver.receive::<FetchRequest>(sent, SOON).await;
        assert!(matches!(got, Err(CallError::Broken(error)) if error.kind() == io::ErrorKind::InvalidData));
        assert!(receiver.buffer.capacity() <= 2 * READ_AHEAD_BYTES);
    }

    #[tokio::test]
    async fn a_large_answer_waits_for_memory_and_keeps_it() {
        let (mut sender, mut receiver, mut broker) = greeted(18).await;
        let sent = sender.send(&FetchRequest::default()).await.expect("it is spoken");
        let budget = Budget::new(LARGEST);
        let many = vec![Default::default(); 20_000];
        let says = FetchResponse { responses: many, ..Default::default() };
        let taken = budget.try_admit(LARGEST).expect("nobody has it");
        let serve = answer(&mut broker, ApiKey::Fetch, 18, 1, |e| says.encode(e, 18).expect("it fits"));
        let receive = receiver.receive_under::<FetchRequest>(sent, SOON, &budget);
        tokio::pin!(serve, receive);
        for _ in 0..10 {
            assert!(futures::poll!(&mut serve).is_pending(), "the answer is larger than what lies between");
            assert!(futures::poll!(&mut receive).is_pending(), "there is no memory");
        }
        drop(taken);
        let ((), received) = tokio::join!(serve, receive);
        let (got, grant) = received.expect("it came");
        assert_eq!(got.responses.len(), 20_000);
        assert!(grant.is_some_and(|grant| grant.bytes() > READ_AHEAD_BYTES));
    }
}
