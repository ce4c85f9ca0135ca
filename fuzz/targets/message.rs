//! Any message in any version: the first byte chooses the message, the second the version. What is read is written and
//! read again, to the same bytes.
#![no_main]

mod shared;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use proto::{
    messages::codecs::{CODECS, Codec},
    wire::{Decoder, Encoder},
};

fuzz_target!(
    init: shared::plant(seeds()),
    |data: &[u8]| {
        let [which, version, body @ ..] = data else { return };
        let codec = &CODECS[usize::from(*which) % CODECS.len()];
        let versions = codec.versions;
        let version = versions.min + i16::from(*version) % (versions.max - versions.min + 1);
        let Some(first) = transcoded(codec, version, Bytes::copy_from_slice(body)) else { return };
        let second = transcoded(codec, version, first.clone()).expect("what was written can be read");
        assert_eq!(second, first, "{} version {version}", codec.name);
    }
);

/// What the encoder writes of what the decoder read; none if that is no such message.
fn transcoded(codec: &Codec, version: i16, body: Bytes) -> Option<Bytes> {
    let mut e = Encoder::new();
    (codec.transcode)(&mut Decoder::new(body), &mut e, version).ok()?;
    Some(e.into_bytes().expect("it is short"))
}

/// Every message in every version, with as much in it as a body of one repeated byte says: zeros make empty ones, ones arrays
/// of one element.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (which, codec) in CODECS.iter().enumerate().take(256) {
        for version in codec.versions.min..=codec.versions.max {
            for byte in [0, 1, 2] {
                if let Some(body) = transcoded(codec, version, Bytes::from(vec![byte; 512])) {
                    let mut seed = vec![which as u8, (version - codec.versions.min) as u8];
                    seed.extend_from_slice(&body);
                    seeds.push(seed);
                }
            }
        }
    }
    seeds
}
