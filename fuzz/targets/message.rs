//! Any message in any version: the first byte chooses the message, the second the version. What is read is written and
//! read again, to the same bytes.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use proto::{
    messages::codecs::CODECS,
    wire::{Decoder, Encoder},
};

fuzz_target!(|data: &[u8]| {
    let [which, version, body @ ..] = data else { return };
    let codec = &CODECS[usize::from(*which) % CODECS.len()];
    let versions = codec.versions;
    let version = versions.min + i16::from(*version) % (versions.max - versions.min + 1);
    let mut e = Encoder::new();
    if (codec.transcode)(&mut Decoder::new(Bytes::copy_from_slice(body)), &mut e, version).is_err() {
        return;
    }
    let first = e.into_bytes().expect("it is short");
    let mut e = Encoder::new();
    (codec.transcode)(&mut Decoder::new(first.clone()), &mut e, version).expect("what was written can be read");
    assert_eq!(e.into_bytes().expect("it is short"), first, "{} version {version}", codec.name);
});
