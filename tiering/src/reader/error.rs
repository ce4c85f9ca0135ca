//! Why reading the tier can fail.

use std::fmt;
use std::sync::Arc;

use proto::ids::Offset;
use proto::metadata::ObjectFormat;

use super::source::Name;
use crate::manifest::Entry;
use crate::ports::PointerError;

/// Why a read failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// The offset is not in the tier.
    #[error("offset {offset} is not in the tier, which has [{start}, {end})")]
    OutOfRange {
        /// Asked for.
        offset: Offset,
        /// First offset in the tier. Inclusive.
        start: Offset,
        /// First offset after the tier. Exclusive.
        end: Offset,
    },
    /// The store does not answer as it should; asking again later may help.
    #[error("the object store: {reason}")]
    Unavailable {
        /// What it said last.
        reason: Arc<str>,
    },
    /// No bytes came in time; they may still come. Ask again.
    #[error("the object store did not deliver in time")]
    TimedOut,
    /// Bytes are not those that were uploaded, even when fetched again.
    #[error("{object} is corrupt: {reason}")]
    Corrupt {
        /// Which object.
        object: String,
        /// What is wrong.
        reason: String,
    },
    /// An object is gone that the newest pointer names.
    #[error("{object} is missing from the object store")]
    Missing {
        /// Which object.
        object: String,
    },
    /// An object in a format that cannot be read.
    #[error("objects of format {0:?} cannot be read")]
    Unsupported(ObjectFormat),
    /// The partition's pointer could not be read again.
    #[error(transparent)]
    Pointer(#[from] PointerError),
}

impl RemoteError {
    /// Whether asking again later may help.
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::TimedOut => true,
            Self::Pointer(PointerError::Unavailable(_)) => true,
            Self::Pointer(PointerError::Gone)
            | Self::OutOfRange { .. }
            | Self::Corrupt { .. }
            | Self::Missing { .. }
            | Self::Unsupported(_) => false,
        }
    }

    pub(super) fn closed() -> Self {
        Self::Unavailable { reason: "the reader was closed".into() }
    }

    pub(super) fn missing(name: &Name) -> Self {
        Self::Missing { object: describe(name) }
    }

    pub(super) fn corrupt(entry: &Entry, reason: impl fmt::Display) -> Self {
        Self::corrupt_object(&Name::Data(entry.object.key, entry.format), reason)
    }

    pub(super) fn corrupt_object(name: &Name, reason: impl fmt::Display) -> Self {
        Self::Corrupt { object: describe(name), reason: reason.to_string() }
    }
}

fn describe(name: &Name) -> String {
    match name {
        Name::Data(key, _) => format!("object {} of {}", key.uuid, key.owner),
        Name::Root(tp, root) => format!("manifest root {} of {tp}", root.uuid),
        Name::Leaf(tp, leaf) => format!("manifest leaf {} of {tp}", leaf.uuid),
    }
}
