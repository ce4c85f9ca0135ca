//! What can be wrong with a batch, and which of Kafka's error codes says so.

use thiserror::Error;

use super::codec::Codec;
use crate::errors::ErrorCode;

/// Why a batch was not accepted or could not be read.
///
/// Every variant carries what a user needs to find the culprit; [`BatchError::code`] is the one place
/// that maps to the wire.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BatchError {
    /// Fewer bytes than the batch (or its header) needs.
    #[error("the batch is cut short: {need} bytes needed, {have} there")]
    Truncated {
        /// Bytes the header says there are, or the size of the header itself.
        need: usize,
        /// Bytes there are.
        have: usize,
    },
    /// The length field cannot be that of a batch.
    #[error("{0} is not a possible batch length")]
    Length(i32),
    /// Bytes follow the batch where only one was expected.
    #[error("{0} bytes follow the batch")]
    Trailing(usize),
    /// A message format other than 2.
    #[error("message format {0} is not supported, only 2 is")]
    Magic(i8),
    /// The checksum over the batch does not hold.
    #[error("CRC-32C is {computed:#010x}, but the batch says {stored:#010x}")]
    Crc {
        /// As found in the header.
        stored: u32,
        /// As computed over the bytes.
        computed: u32,
    },
    /// The batch is bigger than the topic allows.
    #[error("the batch has {size} bytes, more than the maximum of {max}")]
    TooLarge {
        /// Size of the whole batch, in bytes.
        size: usize,
        /// What is allowed (inclusive), in bytes.
        max: usize,
    },
    /// No batch where one is needed.
    #[error("there is no record batch")]
    Empty,
    /// More than one batch where exactly one is allowed.
    #[error("there is more than one record batch")]
    ManyBatches,
    /// A producer must leave the base offset to the broker.
    #[error("the base offset from a producer must be 0, not {0}")]
    BaseOffset(i64),
    /// The record count is not positive, or does not fit the offsets the batch spans.
    #[error("{count} records do not fit a last offset delta of {last_offset_delta}")]
    Count {
        /// Record count in the header.
        count: i32,
        /// Last offset delta in the header.
        last_offset_delta: i32,
    },
    /// Reserved attribute bits are set, or bits that contradict each other.
    #[error("attributes {0:#06x} are not valid")]
    Attributes(i16),
    /// Producer id, epoch and sequence do not go together.
    #[error("producer id {id}, epoch {epoch} and sequence {sequence} do not go together")]
    Producer {
        /// Producer id in the header.
        id: i64,
        /// Producer epoch in the header.
        epoch: i16,
        /// Base sequence in the header.
        sequence: i32,
    },
    /// Control batches come from brokers only.
    #[error("a client may not write control records")]
    Control,
    /// A codec number Kafka does not have.
    #[error("compression type {0} is not known")]
    UnknownCodec(u8),
    /// A codec this request version or topic may not use.
    #[error("compression type {0} is not allowed here")]
    CodecNotAllowed(Codec),
    /// The compressed block cannot be read.
    #[error("the records cannot be decompressed with {codec}: {why}")]
    Compression {
        /// Codec the batch names.
        codec: Codec,
        /// What the decoder said.
        why: String,
    },
    /// Decompressed, the batch passes the limit.
    #[error("the records decompress to more than {0} bytes")]
    Bomb(usize),
    /// The bytes of a record are not well formed.
    #[error("record {index} is malformed: {why}")]
    Record {
        /// Position in the batch, from 0.
        index: u32,
        /// What is wrong with it.
        why: RecordFault,
    },
    /// Bytes are left after the last record.
    #[error("bytes are left after the last of {0} records")]
    Leftover(u32),
    /// A record's timestamp is out of the topic's range.
    #[error("timestamp {timestamp} of record {index} is out of the range [{min}, {max}]")]
    Timestamp {
        /// Position in the batch, from 0.
        index: u32,
        /// Unix ms as the record has it.
        timestamp: i64,
        /// Earliest allowed, inclusive, Unix ms.
        min: i64,
        /// Latest allowed, inclusive, Unix ms.
        max: i64,
    },
    /// A producer may not claim the broker's append time.
    #[error("a producer may not set the timestamp type to LogAppendTime")]
    TimestampType,
    /// A compacted topic needs a key on each record.
    #[error("record {0} has no key, which a compacted topic needs")]
    NoKey(u32),
}

/// What is wrong with the bytes of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordFault {
    /// The batch ends inside the record.
    #[error("the batch ends inside it")]
    Short,
    /// A variable-length integer is longer than its type allows.
    #[error("a variable-length number is too long")]
    Varint,
    /// A length or count is negative where it must not be.
    #[error("a length is negative")]
    Negative,
    /// The fields do not add up to the record's length.
    #[error("its length is not that of its fields")]
    Length,
    /// Offset deltas must be 0, 1, 2, …
    #[error("its offset delta is out of order")]
    OffsetDelta,
    /// A timestamp delta takes the timestamp out of 64 bits.
    #[error("its timestamp overflows")]
    Timestamp,
}

impl BatchError {
    /// The error code a Produce request is answered with, as Kafka 4.3 does in the same case.
    ///
    /// Departures: where an uncaught exception makes Kafka answer `UNKNOWN_SERVER_ERROR`, an unknown codec is
    /// `UNSUPPORTED_COMPRESSION_TYPE`, and a block that does not decompress and wrong offset deltas are `INVALID_RECORD`.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Length(_) | Self::Crc { .. } => ErrorCode::CorruptMessage,
            // The formats that once were are refused as records; a number that never was is damage.
            Self::Magic(0 | 1) => ErrorCode::InvalidRecord,
            Self::Magic(_) => ErrorCode::CorruptMessage,
            Self::TooLarge { .. } | Self::Bomb(_) => ErrorCode::MessageTooLarge,
            Self::UnknownCodec(_) | Self::CodecNotAllowed(_) => ErrorCode::UnsupportedCompressionType,
            Self::Timestamp { .. } | Self::TimestampType => ErrorCode::InvalidTimestamp,
            Self::Truncated { .. }
            | Self::Trailing(_)
            | Self::Empty
            | Self::ManyBatches
            | Self::BaseOffset(_)
            | Self::Count { .. }
            | Self::Attributes(_)
            | Self::Producer { .. }
            | Self::Control
            | Self::Compression { .. }
            | Self::Record { .. }
            | Self::Leftover(_)
            | Self::NoKey(_) => ErrorCode::InvalidRecord,
        }
    }

    /// Position of the record at fault, if the error is about one (`record_errors` of Produce 8+).
    pub fn record_index(&self) -> Option<u32> {
        match self {
            Self::Record { index, .. } | Self::Timestamp { index, .. } | Self::NoKey(index) => Some(*index),
            Self::Truncated { .. }
            | Self::Length(_)
            | Self::Trailing(_)
            | Self::Magic(_)
            | Self::Crc { .. }
            | Self::TooLarge { .. }
            | Self::Empty
            | Self::ManyBatches
            | Self::BaseOffset(_)
            | Self::Count { .. }
            | Self::Attributes(_)
            | Self::Producer { .. }
            | Self::Control
            | Self::UnknownCodec(_)
            | Self::CodecNotAllowed(_)
            | Self::Compression { .. }
            | Self::Bomb(_)
            | Self::Leftover(_)
            | Self::TimestampType => None,
        }
    }
}
