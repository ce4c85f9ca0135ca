//! A request as a broker receives it: header, then the message that the header announces.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use proto::{
    messages::{ApiKey, codecs::CODECS},
    wire::{Decoder, Encoder, RequestHeader},
};

fuzz_target!(|frame: &[u8]| {
    let mut d = Decoder::new(Bytes::copy_from_slice(frame));
    let Ok(header) = RequestHeader::decode(&mut d) else { return };
    let mut e = Encoder::new();
    header.encode(&mut e).expect("what was read can be written");
    let again = e.into_bytes().expect("it is short");
    assert_eq!(RequestHeader::decode(&mut Decoder::new(again)), Ok(header.clone()));

    let name = ApiKey::from_code(header.api_key).expect("the header was read").name();
    let codec = CODECS.iter().find(|c| c.name.strip_suffix("Request") == Some(name));
    let Some(codec) = codec else { return };
    // What it decodes to does not matter here: it must return, and take no more memory than it may.
    let _ = (codec.check)(&mut d, header.api_version);
});
