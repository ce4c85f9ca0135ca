//! The metadata as a stream, for nodes without a member of the quorum: every member serves what it has applied.
//!
//! [`feed`] keeps the last batches of a member and tells them to whoever asks; who asks for older ones gets a snapshot
//! of the image first. [`client`] applies them to an image of its own. Only what was committed leaves a member: it was
//! applied there.

pub(crate) mod client;
pub(crate) mod feed;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use proto::metadata::{Batch, DecodeError, Durable, Image, SnapshotError, SnapshotReader};

/// What the serving member says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Followed {
    /// A chunk of a snapshot, as `proto::metadata::write_snapshot` makes them. The first one begins it anew.
    Chunk(Bytes),
    /// The snapshot is whole.
    Whole,
    /// A batch that was applied ([`Batch::to_bytes`]).
    Batch(Bytes),
    /// Nothing new: the metadata offset of the member.
    Ping(u64),
}

const CHUNK: u8 = 1;
const WHOLE: u8 = 2;
const BATCH: u8 = 3;
const PING: u8 = 4;

impl Followed {
    pub(crate) fn to_bytes(&self) -> Bytes {
        let framed = |kind: u8, bytes: &[u8]| {
            let mut out = Vec::with_capacity(bytes.len() + 1);
            out.push(kind);
            out.extend_from_slice(bytes);
            Bytes::from(out)
        };
        match self {
            Self::Chunk(bytes) => framed(CHUNK, bytes),
            Self::Whole => framed(WHOLE, &[]),
            Self::Batch(bytes) => framed(BATCH, bytes),
            Self::Ping(offset) => {
                let mut out = vec![PING];
                offset.put(&mut out);
                out.into()
            }
        }
    }

    pub(crate) fn from_bytes(bytes: &Bytes) -> Result<Self, DecodeError> {
        let (&kind, mut rest) = bytes.split_first().ok_or(DecodeError::Truncated)?;
        Ok(match kind {
            CHUNK => Self::Chunk(bytes.slice(1..)),
            WHOLE => Self::Whole,
            BATCH => Self::Batch(bytes.slice(1..)),
            PING => Self::Ping(u64::take(&mut rest)?),
            number => return Err(DecodeError::UnknownVariant { what: "piece of metadata", number: number.into() }),
        })
    }
}

/// Why a follower has to begin again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FollowError {
    /// What was said cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The snapshot is damaged.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A batch does not continue the image.
    #[error("a batch begins at metadata offset {found}, the image is at {at}")]
    Gap {
        /// Offset of the batch.
        found: u64,
        /// Offset of the image.
        at: u64,
    },
}

/// The image of a follower. Pure.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    image: Image,
    /// A snapshot of which not all has come.
    snapshot: Option<SnapshotReader>,
}

impl Replica {
    /// A follower that knows `image`.
    pub(crate) fn at(image: Image) -> Self {
        Self { image, snapshot: None }
    }

    pub(crate) const fn image(&self) -> &Image {
        &self.image
    }

    /// Takes what was said; whether the image has changed.
    pub(crate) fn take(&mut self, followed: &Followed) -> Result<bool, FollowError> {
        match followed {
            Followed::Chunk(bytes) => {
                self.snapshot.get_or_insert_default().chunk(&mut &bytes[..])?;
                Ok(false)
            }
            Followed::Whole => {
                let image = self.snapshot.take().unwrap_or_default().finish()?;
                // A member that is behind may serve a snapshot older than what is known here: that stays.
                let newer = image.offset() > self.image.offset();
                if newer {
                    self.image = image;
                }
                Ok(newer)
            }
            Followed::Batch(bytes) => {
                let batch = Batch::from_bytes(bytes)?;
                let end = batch.base_offset + batch.records.len() as u64;
                if end <= self.image.offset() {
                    return Ok(false);
                }
                if batch.base_offset != self.image.offset() {
                    return Err(FollowError::Gap { found: batch.base_offset, at: self.image.offset() });
                }
                for record in &batch.records {
                    self.image.apply(record);
                }
                Ok(true)
            }
            Followed::Ping(_) => Ok(false),
        }
    }

    /// The conversation broke off: what had come of a snapshot is forgotten.
    pub(crate) fn begin_again(&mut self) {
        self.snapshot = None;
    }
}
