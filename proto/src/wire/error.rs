//! Why bytes are not a message, or a message cannot be written in a version.

use thiserror::Error;

/// What can go wrong between bytes and messages. A decoding error means that the peer does not speak the
/// protocol: the connection has to be closed, since nothing after the error can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// The bytes end before the field does.
    #[error("{needed} more bytes are needed, {left} are left")]
    Truncated {
        /// Bytes the field needs.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A length or count is below -1, or larger than what the bytes left could hold.
    #[error("length {length} does not fit the {left} bytes left")]
    BadLength {
        /// The length or count as it was sent.
        length: i64,
        /// Bytes that are left.
        left: usize,
    },
    /// A field that must not be null is null.
    #[error("null where a value is required")]
    UnexpectedNull,
    /// A variable-length integer runs beyond the bytes its type can need.
    #[error("a variable-length integer is too long")]
    BadVarint,
    /// A string is not UTF-8.
    #[error("a string is not valid UTF-8")]
    BadUtf8,
    /// A tagged field does not fill the size it announced.
    #[error("tagged field {tag} does not match its size")]
    BadTag {
        /// The field's tag.
        tag: u32,
    },
    /// The decoded message would take more memory than the decoder may use.
    #[error("the message would take more than {limit} bytes of memory")]
    TooDense {
        /// The decoder's limit, in bytes.
        limit: usize,
    },
    /// Bytes are left after the end of the message.
    #[error("{0} bytes follow the end of the message")]
    TrailingBytes(usize),
    /// The API key is not one of Kafka's.
    #[error("unknown API key {0}")]
    UnknownApiKey(i16),
    /// The record type in front of a coordinator's record key is unknown.
    #[error("unknown coordinator record type {0}")]
    UnknownRecordType(i16),
    /// The message does not exist in this version.
    #[error("{message} has no version {version}")]
    UnsupportedVersion {
        /// The message's name.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A field is set that cannot be said in this version, and leaving it out would change the meaning.
    #[error("{field} cannot be written in version {version}")]
    UnsupportedField {
        /// The field's name as in the schema.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A string or byte field is longer than its length prefix can say.
    #[error("{length} bytes are too long for a field")]
    TooLong {
        /// The field's length in bytes.
        length: usize,
    },
}
