//! A client that says exactly what a test tells it to: any version, any pipelining, any bytes.

use bytes::{Bytes, BytesMut};
use proto::errors::ErrorCode;
use proto::messages::ApiKey;
use proto::messages::api_table::Request;
use proto::wire::{Decoder, Encoder, RequestHeader, ResponseHeader};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A test that hangs is a test that failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the client calls itself.
pub(crate) const CLIENT_ID: &str = "front-test";

pub(crate) struct Client {
    stream: TcpStream,
    next_id: i32,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).await.expect("the broker listens");
        stream.set_nodelay(true).expect("a TCP socket");
        Client { stream, next_id: 100 }
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let id = self.send(version, request).await;
        self.receive::<R>(version, id).await
    }

    /// Sends a request; answers the correlation id to expect.
    pub(crate) async fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        let id = self.next_id;
        self.next_id += 1;
        self.write(&frame(version, id, request)).await;
        id
    }

    /// Reads the next answer, which must be the one to `id`.
    pub(crate) async fn receive<R: Request>(&mut self, version: i16, id: i32) -> R::Response {
        let mut body = Decoder::new(self.read_frame().await.expect("an answer"));
        let header = ResponseHeader::decode(&mut body, R::KEY, version).expect("a response header");
        assert_eq!(header.correlation_id, id, "answers come in the order of requests");
        let response = R::decode_response(&mut body, version)
            .unwrap_or_else(|error| panic!("{} v{version}: {error}", R::KEY.name()));
        assert_eq!(body.remaining(), 0, "{} v{version}: nothing follows the answer", R::KEY.name());
        response
    }

    /// Writes bytes as they are.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the broker reads");
    }

    /// The bytes of the next frame, without its length; `None` when the broker closed the connection.
    pub(crate) async fn read_frame(&mut self) -> Option<Bytes> {
        tokio::time::timeout(PATIENCE, async {
            let mut length = [0; 4];
            self.stream.read_exact(&mut length).await.ok()?;
            let mut body = BytesMut::zeroed(usize::try_from(i32::from_be_bytes(length)).expect("a length"));
            self.stream.read_exact(&mut body).await.ok()?;
            Some(body.freeze())
        })
        .await
        .expect("the broker answers or closes")
    }

    /// Whether nothing at all has come so far: a look, no proof. The proof is what the answer holds, which must be newer than this;
    /// meanwhile the request arrives.
    pub(crate) async fn is_silent(&mut self) -> bool {
        let mut byte = [0];
        let peeked = tokio::time::timeout(Duration::from_millis(50), self.stream.peek(&mut byte));
        peeked.await.is_err()
    }

    /// Fails unless the broker closes the connection without another word.
    pub(crate) async fn expect_closed(&mut self) {
        assert_eq!(self.read_frame().await, None, "the connection ends");
    }
}

/// A whole frame, as it goes over the wire.
pub(crate) fn frame<R: Request>(version: i16, correlation_id: i32, request: &R) -> Vec<u8> {
    let mut encoder = Encoder::frame();
    let header = RequestHeader {
        api_key: R::KEY.code(),
        api_version: version,
        correlation_id,
        client_id: Some(CLIENT_ID.to_owned()),
    };
    header.encode(&mut encoder).expect("a header");
    request
        .encode_request(&mut encoder, version)
        .unwrap_or_else(|error| panic!("{} v{version}: {error}", R::KEY.name()));
    encoder.finish().expect("a frame").into_parts().concat()
}

/// The versions of `key` that Firn speaks.
pub(crate) fn versions(key: ApiKey) -> std::ops::RangeInclusive<i16> {
    let spoken = broker::api::spoken(key).expect("an API that is spoken");
    spoken.min..=spoken.max
}

/// The name of an error code, which reads better in a failed assertion.
pub(crate) fn code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).expect("a code of Kafka")
}
