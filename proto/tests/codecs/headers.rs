//! Which header goes before which message, and its bytes: ours and theirs.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Encodable, StrBytes};
use proto::messages::ApiKey;
use proto::messages::codecs::CODECS;
use proto::wire::{Decoder, Encoder, RequestHeader, ResponseHeader};

const CORRELATION_ID: i32 = 0x0102_0304;

/// Key, version and both of ours, wherever theirs knows the API, too.
fn both() -> Vec<(i16, i16, ApiKey, theirs::ApiKey)> {
    let mut found = Vec::new();
    for code in 0..=i16::from(u8::MAX) {
        let (Some(ours), Ok(theirs)) = (ApiKey::from_code(code), theirs::ApiKey::try_from(code)) else { continue };
        let name = format!("{ours:?}Request");
        // Some APIs have a key and no message any more.
        let Some(codec) = CODECS.iter().find(|codec| codec.name == name) else { continue };
        let versions = codec.versions;
        let known = theirs.valid_versions();
        for version in versions.min.max(known.min)..=versions.max.min(known.max) {
            found.push((code, version, ours, theirs));
        }
    }
    found
}

#[test]
fn requests_begin_with_the_same_bytes() {
    let both = both();
    assert!(both.len() > 200, "only {} versions are in both", both.len());
    for (code, version, ours, theirs) in both {
        assert_eq!(ours.request_header_version(version), theirs.request_header_version(version), "{ours:?} {version}");
        for client_id in [None, Some(""), Some("a client")] {
            let header = RequestHeader {
                api_key: code,
                api_version: version,
                correlation_id: CORRELATION_ID,
                client_id: client_id.map(str::to_owned),
            };
            let mut encoder = Encoder::new();
            header.encode(&mut encoder).expect("a known API");
            let bytes = encoder.into_bytes().expect("short");
            let mut expected = BytesMut::new();
            theirs::RequestHeader::default()
                .with_request_api_key(code)
                .with_request_api_version(version)
                .with_correlation_id(CORRELATION_ID)
                .with_client_id(client_id.map(StrBytes::from_static_str))
                .encode(&mut expected, theirs.request_header_version(version))
                .expect("short");
            assert_eq!(bytes, expected, "{ours:?} {version}");
            let mut decoder = Decoder::new(expected.freeze());
            assert_eq!(RequestHeader::decode(&mut decoder).as_ref(), Ok(&header), "{ours:?} {version}");
            decoder.finish().expect("nothing is left");
        }
    }
}

#[test]
fn responses_begin_with_the_same_bytes() {
    for (_, version, ours, theirs) in both() {
        let (own, other) = (ours.response_header_version(version), theirs.response_header_version(version));
        assert_eq!(own, other, "{ours:?} {version}");
        let header = ResponseHeader { correlation_id: CORRELATION_ID };
        let mut encoder = Encoder::new();
        header.encode(&mut encoder, ours, version);
        let bytes = encoder.into_bytes().expect("short");
        let mut expected = BytesMut::new();
        let theirs = theirs::ResponseHeader::default().with_correlation_id(CORRELATION_ID);
        theirs.encode(&mut expected, other).expect("short");
        assert_eq!(bytes, expected, "{ours:?} {version}");
        let mut decoder = Decoder::new(Bytes::from(expected));
        assert_eq!(ResponseHeader::decode(&mut decoder, ours, version), Ok(header), "{ours:?} {version}");
        decoder.finish().expect("nothing is left");
    }
}
