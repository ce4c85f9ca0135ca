//! Prints messages of every kind and version as generated codecs write them, one a line: name, version, bytes in hexadecimal.
//! `proto/codegen/against-kafka` has Kafka read them.

use bytes::Bytes;
use proto::{
    messages::codecs::CODECS,
    wire::{Decoder, Encoder, WireError},
};

#[path = "../tests/codecs/facts.rs"]
mod facts;
#[path = "../tests/codecs/random.rs"]
mod random;

fn main() -> Result<(), WireError> {
    for schema in facts::schemas() {
        let codec = CODECS.iter().find(|c| c.name == schema.name).expect("every schema has its codec");
        for version in schema.versions.min..=schema.versions.max {
            let mut random = random::Random::for_message(&schema.name, version);
            for round in 0..60 {
                let bytes = schema.make(&mut random, version, round % 7);
                let mut e = Encoder::new();
                (codec.transcode)(&mut Decoder::new(Bytes::from(bytes)), &mut e, version)?;
                let hex: String = e.into_bytes()?.iter().map(|b| format!("{b:02x}")).collect();
                println!("{} {version} {hex}", schema.name);
            }
        }
    }
    Ok(())
}
