//! Bytes that are no requests, and requests that nobody can answer.

use super::stand::{Stand, Witness, batch, unique};
use bytes::Bytes;
use integration::calls::{ACKS_ALL, PRODUCE_BY_NAME, produce_request};
use integration::client::frame;
use proto::errors::ErrorCode;
use proto::messages::{ApiKey, ApiVersionsResponse, MetadataRequest};
use proto::wire::Decoder;
use std::time::Duration;

/// Far below any idle time: who sends nonsense is not waited for.
const AT_ONCE: Duration = Duration::from_secs(20);

fn header(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(&key.to_be_bytes());
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(&7_i32.to_be_bytes());
    frame.extend_from_slice(&2_i16.to_be_bytes());
    frame.extend_from_slice(b"me");
    frame.extend_from_slice(body);
    prefixed(i32::try_from(frame.len()).expect("small"), &frame)
}

fn prefixed(length: i32, body: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes(), body].concat()
}

#[tokio::test]
async fn what_is_no_request_ends_its_own_connection_and_nothing_else() {
    let stand = Stand::any().await;
    let mut witness = Witness::at(stand.address(), &[]).await;
    let huge_count = [&0x7fff_ffff_i32.to_be_bytes()[..], b"abc"].concat();
    let nonsense: Vec<(&str, Vec<u8>)> = vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: kafka\r\n\r\n".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("a length of 2 GiB", prefixed(i32::MAX, b"abc")),
        ("a negative length", prefixed(-1, b"abc")),
        ("the most negative length", prefixed(i32::MIN, b"")),
        ("an empty frame", prefixed(0, b"")),
        ("a frame that ends in its header", prefixed(6, b"\0\x03\0\x01\0\0")),
        ("a client id that ends past the frame", prefixed(10, b"\0\x03\0\x01\0\0\0\x07\x7f\xff")),
        ("an API that Kafka does not have", header(9_999, 0, b"")),
        ("a negative API", header(-3, 0, b"")),
        ("an API of brokers among themselves", header(ApiKey::UpdateMetadata.code(), 0, b"")),
        ("a version that is too new", header(ApiKey::Produce.code(), 99, b"")),
        ("a version that was removed", header(ApiKey::Produce.code(), 0, b"\0\x01\0\0\0\x64\0\0\0\0")),
        ("a negative version", header(ApiKey::Metadata.code(), -1, b"")),
        ("more elements than bytes", header(ApiKey::Metadata.code(), 1, &huge_count)),
        ("a body that is cut off", header(ApiKey::Metadata.code(), 1, b"\0\0\0\x02\0\x05ab")),
    ];
    for (what, bytes) in nonsense {
        let mut client = stand.client().await;
        client.send_raw(&bytes).await.expect("sent");
        client.closed(AT_ONCE).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        witness.is_well().await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_leaves_nothing_behind() {
    let stand = Stand::any().await;
    let mut witness = Witness::at(stand.address(), &[]).await;
    let topic = witness.topic.clone();
    let whole = frame(&produce_request(&topic, 0, ACKS_ALL, batch(&[7; 50_000])), PRODUCE_BY_NAME, 1).expect("a frame");
    for cut in [1, 4, 10, 100, 20_000, whole.len() - 1] {
        let mut client = stand.client().await;
        client.send_raw(&whole[..cut]).await.expect("sent");
        drop(client);
        witness.is_well().await;
    }
}

#[tokio::test]
async fn a_client_of_the_future_learns_what_is_spoken() {
    let stand = Stand::any().await;
    let mut client = stand.client().await;
    // Version 99 of ApiVersions, with a body that nobody knows.
    client.send_raw(&header(ApiKey::ApiVersions.code(), 99, b"\0\xff\xff\xff")).await.expect("sent");
    let mut answer = Decoder::new(client.receive_frame().await.expect("an answer"));
    assert_eq!(answer.i32().expect("a correlation id"), 7);
    let answer = ApiVersionsResponse::decode(&mut answer, 0).expect("version 0, which everybody can read");
    assert_eq!(answer.error_code, ErrorCode::UnsupportedVersion.code());
    let spoken = answer.api_keys.iter().find(|api| api.api_key == ApiKey::ApiVersions.code());
    assert_eq!(spoken.map(|api| (api.min_version, api.max_version)), Some((0, 4)), "KIP-511");
    // The connection goes on with a version that was named.
    assert!(client.call_in(&MetadataRequest::default(), 9).await.is_ok());
}

/// Frames that were begun, announced as large as allowed, and never finished.
#[tokio::test]
async fn half_sent_frames_leave_the_memory_to_others() {
    let mut stand = Stand::firn(|firn| firn.set("firn.request.memory.bytes", 16 << 20)).await;
    let mut witness = Witness::at(stand.address(), &[]).await;
    let half =
        frame(&produce_request(&unique("t"), 0, ACKS_ALL, Bytes::from(vec![0; 200_000])), 12, 1).expect("a frame");
    let mut held = Vec::new();
    for number in 0..150 {
        let mut client = stand.client().await;
        let length = [90 << 20, 3 << 20, i32::try_from(half.len()).expect("small") - 4][number % 3];
        let sent = [0, 1_000, 20_000, 100_000][number % 4];
        client.send_raw(&prefixed(length, &half[4..4 + sent])).await.expect("sent");
        held.push(client);
    }
    // Small and large requests get through, though each in its turn.
    for bytes in [100, 900_000, 100] {
        witness.produce(bytes).await.expect("an acknowledgement");
    }
    witness.is_well().await;
    drop(held);
    assert!(stand.running().expect("our own").ended().expect("known").is_none());
}
