//! Durable form of a manifest leaf (`manifest/leaf-<first offset>-<leader epoch>-<uuid>.firn`).

use bytes::Bytes;
use proto::ids::{LeaderEpoch, TopicPartition};
use uuid::Uuid;

use super::envelope::Envelope;
use super::invariants::check_entries;
use super::{Entry, LeafRef, entry};
use crate::format::FormatError;

const ENVELOPE: Envelope = Envelope { what: "manifest leaf", magic: *b"FIRNLEAF", version: 1 };

/// A full run of entries that left the root. Never changed again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leaf {
    /// The entries, contiguous.
    pub entries: Vec<Entry>,
}

impl Leaf {
    /// The leaf's bytes and the reference to put into the root; none if the leaf is empty.
    pub fn encode(&self, owner: TopicPartition, uuid: Uuid, leader_epoch: LeaderEpoch) -> Option<(Bytes, LeafRef)> {
        let (first, last) = (self.entries.first()?, self.entries.last()?);
        let bytes = ENVELOPE.seal(owner, |out| entry::encode_all(&self.entries, owner, out));
        let leaf = LeafRef {
            uuid,
            leader_epoch,
            size: bytes.len() as u64,
            crc: crc32c::crc32c(&bytes),
            base: first.base,
            end: last.end,
            entries: self.entries.len() as u32,
            bytes: self.entries.iter().map(|entry| entry.object.length).sum(),
            max_timestamp: self.entries.iter().map(|entry| entry.max_timestamp).max().unwrap_or(-1),
            last_epoch: last.epochs.last().map_or(-1, |(epoch, _)| *epoch),
        };
        Some((bytes, leaf))
    }

    /// Decodes the leaf that `reference` names and checks that it is what the root says.
    ///
    /// # Errors
    /// [`FormatError`]; Invalid if it does not match the reference, Checksum if its bytes do not.
    pub fn decode(bytes: &[u8], owner: TopicPartition, reference: &LeafRef) -> Result<Self, FormatError> {
        let what = ENVELOPE.what;
        if bytes.len() as u64 != reference.size || crc32c::crc32c(bytes) != reference.crc {
            return Err(FormatError::Checksum { what });
        }
        let leaf = Self::decode_unreferenced(bytes, owner)?;
        let matches = leaf.entries.len() == reference.entries as usize
            && leaf.entries.first().map(|entry| entry.base) == Some(reference.base)
            && leaf.entries.last().map(|entry| entry.end) == Some(reference.end);
        if matches { Ok(leaf) } else { Err(FormatError::Invalid { what }) }
    }

    /// Decodes a leaf without a reference to hold it against (tools, fuzzing).
    pub fn decode_unreferenced(bytes: &[u8], owner: TopicPartition) -> Result<Self, FormatError> {
        let (found, mut cursor) = ENVELOPE.open(bytes)?;
        if found != owner {
            return Err(cursor.invalid());
        }
        let entries = entry::decode_all(&mut cursor, owner)?;
        cursor.finish()?;
        check_entries(&entries).map_err(|_| cursor.invalid())?;
        Ok(Self { entries })
    }
}
