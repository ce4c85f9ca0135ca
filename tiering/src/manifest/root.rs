//! Durable form of the manifest root (`manifest/<generation>-<leader epoch>-<uuid>.firn`).

use bytes::Bytes;
use proto::ids::TopicPartition;
use proto::metadata::RootRef;

use super::envelope::Envelope;
use super::{LeafRef, Manifest, entry};
use crate::format::FormatError;
use crate::format::cursor::{Cursor, Put, add};

const ENVELOPE: Envelope = Envelope { what: "manifest root", magic: *b"FIRNROOT", version: 1 };
const MIN_LEAF_BYTES: usize = 16 + 4 + 7;

impl Manifest {
    /// The root's bytes. Deterministic.
    pub fn encode(&self, owner: TopicPartition) -> Bytes {
        ENVELOPE.seal(owner, |out| {
            out.put_varint(self.leaves.len() as u64);
            let mut last_end = 0;
            for leaf in &self.leaves {
                encode_leaf_ref(leaf, last_end, out);
                last_end = leaf.end;
            }
            entry::encode_all(&self.entries, owner, out);
        })
    }

    /// Decodes the root that `reference` names.
    ///
    /// # Errors
    /// [`FormatError`]; Checksum if the bytes are not what the reference says.
    pub fn decode_referenced(bytes: &[u8], owner: TopicPartition, reference: &RootRef) -> Result<Self, FormatError> {
        if bytes.len() as u64 != reference.size || crc32c::crc32c(bytes) != reference.crc {
            return Err(FormatError::Checksum { what: ENVELOPE.what });
        }
        Self::decode(bytes, owner)
    }

    /// Decodes a root that belongs to `owner` and checks its invariants.
    ///
    /// # Errors
    /// [`FormatError`]; Invalid also if it is another partition's root or an invariant does not hold.
    pub fn decode(bytes: &[u8], owner: TopicPartition) -> Result<Self, FormatError> {
        let (found, mut cursor) = ENVELOPE.open(bytes)?;
        if found != owner {
            return Err(cursor.invalid());
        }
        let count = cursor.count(MIN_LEAF_BYTES)?;
        let mut leaves = Vec::with_capacity(count);
        let mut last_end = 0;
        for _ in 0..count {
            let leaf = decode_leaf_ref(&mut cursor, last_end)?;
            last_end = leaf.end;
            leaves.push(leaf);
        }
        let entries = entry::decode_all(&mut cursor, owner)?;
        cursor.finish()?;
        let manifest = Self { leaves, entries };
        manifest.check().map_err(|_| cursor.invalid())?;
        Ok(manifest)
    }
}

fn encode_leaf_ref(leaf: &LeafRef, last_end: i64, out: &mut Vec<u8>) {
    out.put_be(leaf.uuid.into_bytes());
    out.put_be(leaf.crc.to_be_bytes());
    out.put_zigzag(i64::from(leaf.leader_epoch));
    out.put_varint(leaf.size);
    out.put_zigzag(leaf.base.wrapping_sub(last_end));
    out.put_varint(leaf.end.wrapping_sub(leaf.base) as u64);
    out.put_varint(u64::from(leaf.entries));
    out.put_varint(leaf.bytes);
    out.put_zigzag(leaf.max_timestamp);
    out.put_zigzag(i64::from(leaf.last_epoch));
}

fn decode_leaf_ref(cursor: &mut Cursor<'_>, last_end: i64) -> Result<LeafRef, FormatError> {
    let uuid = cursor.uuid()?;
    let crc = cursor.u32()?;
    let leader_epoch = i32::try_from(cursor.zigzag()?).map_err(|_| cursor.invalid())?;
    let size = cursor.varint()?;
    let base = last_end.wrapping_add(cursor.zigzag()?);
    let length = i64::try_from(cursor.varint()?).map_err(|_| cursor.invalid())?;
    Ok(LeafRef {
        uuid,
        leader_epoch,
        size,
        crc,
        base,
        end: add(base, length, "manifest root")?,
        entries: u32::try_from(cursor.varint()?).map_err(|_| cursor.invalid())?,
        bytes: cursor.varint()?,
        max_timestamp: cursor.zigzag()?,
        last_epoch: i32::try_from(cursor.zigzag()?).map_err(|_| cursor.invalid())?,
    })
}
