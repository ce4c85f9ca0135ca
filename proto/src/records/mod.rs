//! Kafka's magic-2 record batches: parsing, validation, patching, codecs, building and walking.
//!
//! A batch is a 61 byte header followed by records, which may be compressed as one block. Everything
//! here works on byte slices, never does I/O and never trusts a length or a count that came from
//! outside: memory is bounded by the bytes given or by a limit passed in, and no input panics.
//!
//! * [`header`]: the header, [`BatchHeader`], and [`batches`], which walks consecutive batches.
//! * [`validate`](mod@validate): what a broker checks before it appends ([`validate()`], [`validate_produce`]).
//! * [`patch`]: the few header fields a broker may change in place.
//! * [`codec`]: gzip, snappy, lz4 and zstd, with bounded output.
//! * [`read`]: records one by one, look-up by timestamp, control records.
//! * [`build`]: new batches, and the same batch under another codec.
//!
//! Magic 0 and 1 are not read at all: Kafka 4 no longer writes them, and a broker refuses them.

pub mod build;
pub mod codec;
pub mod error;
pub mod header;
pub mod patch;
pub mod read;
pub mod validate;

mod encode;
mod varint;
mod walk;
mod xerial;

pub use build::{BatchBuilder, Header, recompress};
pub use codec::{Codec, Compression};
pub use error::BatchError;
pub use header::{
    BatchHeader, BatchRef, Batches, HEADER_LEN, LENGTH_PREFIX, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE,
    NO_TIMESTAMP, TimestampType, add_sequence, batches,
};
pub use patch::{patch_base_offset_and_epoch, patch_producer, set_log_append_time, set_max_timestamp};
pub use read::{
    ControlRecord, Headers, Record, Records, control_record, find_timestamp, for_each_record, max_timestamp_and_offset,
};
pub use validate::{BatchInfo, Limits, check, refused_records, validate, validate_produce};

#[cfg(test)]
mod tests;
