//! The unit of agreement: the records of one raft entry.

use serde::{Deserialize, Serialize};

use super::codec::{DecodeError, Durable};
use super::image::Image;
use super::record::MetadataRecord;

/// What one raft entry carries. It is applied as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Raft term in which the records were decided.
    pub term: u64,
    /// Metadata offset of the image they were decided on: that of the first record.
    pub base_offset: u64,
    /// The records.
    pub records: Vec<MetadataRecord>,
}

/// A batch that was decided on another state than the one it met: nothing of it was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("batch decided in term {term} at offset {base_offset} met term {met_term} at offset {met_offset}")]
pub struct BatchRejected {
    /// Term it was decided in.
    pub term: u64,
    /// Offset it was decided at.
    pub base_offset: u64,
    /// Term of its raft entry.
    pub met_term: u64,
    /// Offset of the image when its turn came.
    pub met_offset: u64,
}

crate::durable_struct!(Batch { term, base_offset, records });

impl Batch {
    /// The durable encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.records.len() * 96);
        self.put(&mut out);
        out
    }

    /// The inverse of [`Batch::to_bytes`].
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self, DecodeError> {
        let batch = Self::take(&mut bytes)?;
        if !bytes.is_empty() {
            return Err(DecodeError::LeftOver { number: 0, left: bytes.len() });
        }
        Ok(batch)
    }
}

impl Image {
    /// Applies a batch that came in a raft entry of `term`, unless it was decided in another term or
    /// on another state. Then nothing changes.
    pub fn apply_batch(&mut self, term: u64, batch: &Batch) -> Result<(), BatchRejected> {
        if batch.term != term || batch.base_offset != self.offset() {
            return Err(BatchRejected {
                term: batch.term,
                base_offset: batch.base_offset,
                met_term: term,
                met_offset: self.offset(),
            });
        }
        for record in &batch.records {
            self.apply(record);
        }
        Ok(())
    }
}
