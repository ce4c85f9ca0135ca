//! The checkpoint: up to where the journal is settled in segments.
//!
//! ```text
//! magic 8 , version u32 , crc u32 (over the rest) , directory id 16 , replay from u64 , count u32 ,
//! ( topic id 16 , partition i32 , segment i64 , position u64 , lsn u64 ) * count
//! ```
//! Whoever stores one has synced the segments it speaks of, and their directories, before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use proto::ids::{DirectoryId, Offset, TopicId, TopicPartition, Uuid};

use super::format::Fields;
use super::record::Lsn;
use crate::disk::{self, Disk, DiskError};

/// Name of the file.
pub const NAME: &str = "checkpoint.firn";
const MAGIC: &[u8; 8] = b"FIRNCKPT";
const VERSION: u32 = 1;
const ENTRY: usize = 44;
const CRC_FROM: usize = 16;

/// How far each partition's records are durable outside the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Every record before this position is settled, whatever its partition; the journal from here on is needed.
    pub replay_from: Lsn,
    /// The partitions of the directory.
    pub partitions: BTreeMap<TopicPartition, Mark>,
}

/// How far one partition is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Base offset of the last segment.
    pub segment: Offset,
    /// Bytes of that segment that are durable; what lies behind is to be cut.
    pub position: u64,
    /// The partition's records up to and including this position are settled; replay skips them.
    pub lsn: Lsn,
}

/// Why a checkpoint cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It is written atomically: this is corruption.
    #[error("checkpoint {} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Made by another version.
    #[error("checkpoint {} has format {found}, this version reads {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Copied here from another data directory.
    #[error("checkpoint {} was made for directory {found}", path.display())]
    ForeignDirectory {
        /// The file.
        path: PathBuf,
        /// The directory it was made for.
        found: DirectoryId,
    },
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { replay_from: Lsn::FIRST, partitions: BTreeMap::new() }
    }
}

impl Checkpoint {
    /// The checkpoint of `dir`; the empty one if it never made one.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub async fn load(disk: &dyn Disk, dir: &Path, directory: DirectoryId) -> Result<Self, CheckpointError> {
        let path = dir.join(NAME);
        let Some(bytes) = disk::read_whole(disk, &path).await? else {
            return Ok(Self::default());
        };
        let (found, checkpoint) = Self::decode(&bytes).map_err(|error| match error {
            Undecodable::Damaged => CheckpointError::Damaged { path: path.clone() },
            Undecodable::Version(found) => CheckpointError::Version { path: path.clone(), found },
        })?;
        if found != directory {
            return Err(CheckpointError::ForeignDirectory { path, found });
        }
        Ok(checkpoint)
    }

    /// Replaces the checkpoint of `dir`, atomically and durably.
    ///
    /// # Errors
    /// The disk's; the old checkpoint then still stands.
    pub async fn store(&self, disk: &dyn Disk, dir: &Path, directory: DirectoryId) -> Result<(), DiskError> {
        disk::replace(disk, dir, NAME, self.encode(directory)).await
    }

    /// Its bytes.
    pub fn encode(&self, directory: DirectoryId) -> Bytes {
        let mut bytes = Vec::with_capacity(44 + self.partitions.len() * ENTRY);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(directory.0.as_bytes());
        bytes.extend_from_slice(&self.replay_from.0.to_le_bytes());
        bytes.extend_from_slice(&(self.partitions.len() as u32).to_le_bytes());
        for (tp, mark) in &self.partitions {
            bytes.extend_from_slice(tp.topic.0.as_bytes());
            bytes.extend_from_slice(&tp.partition.to_le_bytes());
            bytes.extend_from_slice(&mark.segment.to_le_bytes());
            bytes.extend_from_slice(&mark.position.to_le_bytes());
            bytes.extend_from_slice(&mark.lsn.0.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes.into()
    }

    /// Reads a checkpoint and the directory it belongs to. Total, like every decoder.
    ///
    /// # Errors
    /// If it is damaged, or of another version.
    pub fn decode(bytes: &[u8]) -> Result<(DirectoryId, Self), Undecodable> {
        Self::parse(bytes)?.ok_or(Undecodable::Damaged)
    }

    fn parse(bytes: &[u8]) -> Result<Option<(DirectoryId, Self)>, Undecodable> {
        let mut fields = Fields(bytes);
        if fields.array::<8>().as_ref() != Some(MAGIC) {
            return Ok(None);
        }
        match fields.u32() {
            None => return Ok(None),
            Some(VERSION) => {}
            Some(other) => return Err(Undecodable::Version(other)),
        }
        let crc = fields.u32();
        if crc != bytes.get(CRC_FROM..).map(crc32c::crc32c) {
            return Ok(None);
        }
        Ok(Self::parse_body(&mut fields))
    }

    fn parse_body(fields: &mut Fields<'_>) -> Option<(DirectoryId, Self)> {
        let directory = DirectoryId(Uuid::from_bytes(fields.array()?));
        let replay_from = Lsn(fields.u64()?);
        if !(Lsn::FIRST..Lsn::END).contains(&replay_from) {
            return None;
        }
        let count = fields.u32()? as usize;
        if fields.0.len() != count.checked_mul(ENTRY)? {
            return None;
        }
        let mut partitions = BTreeMap::new();
        for _ in 0..count {
            let topic = TopicId(Uuid::from_bytes(fields.array()?));
            let tp = TopicPartition::new(topic, fields.i32()?);
            let mark = Mark { segment: fields.i64()?, position: fields.u64()?, lsn: Lsn(fields.u64()?) };
            partitions.insert(tp, mark);
        }
        Some((directory, Self { replay_from, partitions }))
    }

    /// Whether replay skips the record at `lsn` of `tp`.
    pub fn covers(&self, tp: &TopicPartition, lsn: Lsn) -> bool {
        lsn < self.replay_from || self.partitions.get(tp).is_some_and(|mark| lsn <= mark.lsn)
    }
}

/// Why bytes are no checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// Truncated, damaged, or something else.
    #[error("damaged")]
    Damaged,
    /// Another version's.
    #[error("format {0}")]
    Version(u32),
}
