//! The two bytes in front of a coordinator's record: the record type before a key, the version before a value.

use bytes::Bytes;

use crate::wire::{Decoder, Encoder, VersionRange, WireError};

/// The key of a coordinator's record.
pub trait RecordKey: Sized {
    /// The number that tells what the record is about, within one coordinator's topic.
    const RECORD_TYPE: i16;

    /// Writes record type and key.
    fn to_bytes(&self) -> Result<Bytes, WireError>;

    /// Reads a key whose record type has been read: what [`split_prefix`] returns beside it.
    fn from_body(body: Bytes) -> Result<Self, WireError>;
}

/// The value of a coordinator's record.
pub trait RecordValue: Sized {
    /// The versions there are.
    const VERSIONS: VersionRange;

    /// Writes version and value.
    fn to_bytes(&self, version: i16) -> Result<Bytes, WireError>;

    /// Reads version and value.
    fn from_bytes(bytes: Bytes) -> Result<Self, WireError>;
}

/// Splits a key into record type and body, or a value into version and body.
pub fn split_prefix(bytes: Bytes) -> Result<(i16, Bytes), WireError> {
    let mut d = Decoder::new(bytes);
    let prefix = d.i16()?;
    Ok((prefix, d.rest()))
}

/// Writes a prefix, then what `body` writes.
pub(super) fn with_prefix(
    prefix: i16,
    body: impl FnOnce(&mut Encoder) -> Result<(), WireError>,
) -> Result<Bytes, WireError> {
    let mut e = Encoder::new();
    e.i16(prefix);
    body(&mut e)?;
    e.into_bytes()
}

/// Keys have one version, zero, which is not written.
macro_rules! record_key {
    ($name:ident) => {
        impl RecordKey for $name {
            const RECORD_TYPE: i16 = $name::RECORD_TYPE;

            fn to_bytes(&self) -> Result<bytes::Bytes, crate::wire::WireError> {
                prefix::with_prefix($name::RECORD_TYPE, |e| self.encode(e, 0))
            }

            fn from_body(body: bytes::Bytes) -> Result<Self, crate::wire::WireError> {
                let mut d = crate::wire::Decoder::new(body);
                let key = Self::decode(&mut d, 0)?;
                d.finish()?;
                Ok(key)
            }
        }
    };
}

macro_rules! record_value {
    ($name:ident) => {
        impl RecordValue for $name {
            const VERSIONS: crate::wire::VersionRange = $name::VERSIONS;

            fn to_bytes(&self, version: i16) -> Result<bytes::Bytes, crate::wire::WireError> {
                prefix::with_prefix(version, |e| self.encode(e, version))
            }

            fn from_bytes(bytes: bytes::Bytes) -> Result<Self, crate::wire::WireError> {
                let mut d = crate::wire::Decoder::new(bytes);
                let version = d.i16()?;
                let value = Self::decode(&mut d, version)?;
                d.finish()?;
                Ok(value)
            }
        }
    };
}

pub(super) use {record_key, record_value};
