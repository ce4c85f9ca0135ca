//! Kafka's wire format: the primitives that the generated codecs in [`crate::messages`] are made of,
//! request and response headers, and the frame around them.
//!
//! Invariants:
//! - [`Decoder`] never reads past the bytes it was given, never panics, and never reserves more memory
//!   ahead of the data than those bytes themselves measure: every length and count is checked against
//!   what is left before anything is made of it. What a dense message may grow to is limited, too
//!   (see [`Decoder::with_limit`]).
//! - [`Encoder`] keeps small fields in one buffer and takes record data as [`Bytes`](bytes::Bytes)
//!   without copying; [`Chunks`] is the result, ready for a vectored write.
//! - Nesting is bounded by the schemas: no type refers to itself.
//!
//! Deliberately absent: unknown tagged fields are skipped and not kept, strings are copied out of the
//! frame (so that a kept topic name or member id does not pin a frame of a megabyte).

mod chunks;
mod decoder;
mod encoder;
mod error;
mod header;
#[cfg(test)]
mod tests;

pub use chunks::{Chunks, RecordChunks};
pub use decoder::Decoder;
pub use encoder::{Encoder, TagMark};
pub use error::WireError;
pub use header::{RequestHeader, ResponseHeader};

use std::fmt;

/// Versions `min..=max` of an API or message; empty when `max < min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VersionRange {
    /// Lowest version, inclusive.
    pub min: i16,
    /// Highest version, inclusive.
    pub max: i16,
}

impl VersionRange {
    /// The range without any version, for APIs that Kafka has removed.
    pub const NONE: Self = Self { min: 0, max: -1 };

    /// Both ends are inclusive.
    pub const fn new(min: i16, max: i16) -> Self {
        Self { min, max }
    }

    /// Whether `version` lies in the range.
    pub const fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    /// Whether no version lies in the range.
    pub const fn is_empty(self) -> bool {
        self.max < self.min
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() { f.write_str("none") } else { write!(f, "{}-{}", self.min, self.max) }
    }
}
