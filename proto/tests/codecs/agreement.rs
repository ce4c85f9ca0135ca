//! Ours, theirs and the schemas' facts say the same.

use bytes::Bytes;
use proto::{
    messages::codecs::{CODECS, Codec},
    wire::{Decoder, Encoder},
};

use crate::{
    facts::{Schema, schemas},
    random::Random,
    shown::Shown,
    theirs::{THEIRS, Theirs},
};

/// Where theirs is wrong: a field called `Version` takes the place of the message's version when the fields after it are read.
const THEIRS_IS_WRONG: &[&str] = &["LeaderChangeMessage", "VotersRecord"];

/// Random messages per version.
const ROUNDS: usize = 6;

/// Each schema with its codec.
pub(crate) fn all() -> Vec<(Schema, Codec)> {
    let schemas = schemas();
    assert_eq!(schemas.len(), CODECS.len());
    let codec = |s: &Schema| *CODECS.iter().find(|c| c.name == s.name).unwrap_or_else(|| panic!("no {}", s.name));
    schemas.into_iter().map(|s| (codec(&s), s)).map(|(c, s)| (s, c)).collect()
}

/// Reads with ours and writes again; all must have been read.
pub(crate) fn transcode(codec: &Codec, bytes: &[u8], version: i16) -> Result<Bytes, proto::wire::WireError> {
    let mut d = Decoder::new(Bytes::copy_from_slice(bytes));
    let mut e = Encoder::new();
    (codec.transcode)(&mut d, &mut e, version)?;
    d.finish()?;
    e.into_bytes()
}

#[test]
fn every_codec_writes_what_it_read() {
    for (schema, codec) in all() {
        assert_eq!(schema.versions, codec.versions, "{}", schema.name);
        for version in schema.versions.min..=schema.versions.max {
            let mut random = Random::for_message(&schema.name, version);
            for round in 0..ROUNDS {
                let bytes = schema.make(&mut random, version, round);
                let again = transcode(&codec, &bytes, version);
                assert_eq!(again.as_deref(), Ok(bytes.as_slice()), "{} version {version}", schema.name);
            }
        }
    }
}

#[test]
fn both_implementations_agree() {
    let all = all();
    let mut compared = 0;
    for Theirs { name, min, max, transcode: theirs } in THEIRS.iter().filter(|t| !THEIRS_IS_WRONG.contains(&t.name)) {
        let (schema, codec) = all.iter().find(|(s, _)| s.name == *name).unwrap_or_else(|| panic!("no {name}"));
        for version in (*min).max(codec.versions.min)..=(*max).min(codec.versions.max) {
            let mut random = Random::for_message(name, version);
            for round in 0..ROUNDS {
                let bytes = schema.make(&mut random, version, round);
                let ours = transcode(codec, &bytes, version).expect("ours reads it");
                let seen = theirs(&ours, version).unwrap_or_else(|e| panic!("{name} {version}: {e}"));
                assert_eq!(seen.bytes, ours, "{name} version {version}: theirs writes something else");
                assert_eq!(seen.left, 0, "{name} version {version}: theirs leaves bytes");
                let back = transcode(codec, &seen.bytes, version).expect("ours reads theirs");
                assert_eq!(back, ours, "{name} version {version}");
                let mut d = Decoder::new(ours);
                let ours = (codec.show)(&mut d, version).expect("ours reads it");
                let (ours, shown) = (Shown::parse(&ours), Shown::parse(&seen.shown));
                assert!(ours.covers(&shown), "{name} version {version}:\n{ours:?}\n{shown:?}");
            }
            compared += 1;
        }
    }
    assert!(compared > 400, "only {compared} versions are in both");
}
