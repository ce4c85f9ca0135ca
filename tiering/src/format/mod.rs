//! The object (`.seg`): `[record batches][sections][directory][trailer]`.
//!
//! The batches are the bytes of the log, verbatim. What follows them is the *footer*; it is built when
//! the range is uploaded, and everything in it is below the last stable offset, so it never has to
//! change. Positions in the footer count from its own start, so that a later version can put several
//! ranges with a footer each into one object. Each section carries a CRC; kinds that a reader does not
//! know are passed over. Bytes from a store are never trusted: decoding is bounded by the bytes given,
//! checks every CRC it passes, and fails with a [`FormatError`] instead of a panic.

mod aborted;
mod batch;
mod builder;
mod checksums;
pub(crate) mod cursor;
mod directory;
pub(crate) mod epochs;
mod offset_index;
mod time_index;
mod trailer;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use proto::ids::Offset;

pub use aborted::AbortedTxn;
pub use builder::{BuildError, ObjectBuilder, Sealed};
pub use checksums::{CHECKSUM_CHUNK_BYTES, Checksums};
pub use directory::{Directory, DirectoryEntry, SectionKind};
pub use epochs::EpochHistory;
pub use offset_index::{INDEX_INTERVAL_BYTES, OffsetIndex, OffsetIndexEntry};
pub use time_index::{TimeIndex, TimeIndexEntry};
pub use trailer::{MAGIC, TRAILER_BYTES, Trailer, VERSION};

/// Why bytes are not what they should be. `what` names the part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes end too early.
    #[error("{what}: truncated")]
    Truncated {
        /// The part.
        what: &'static str,
    },
    /// The magic number is wrong: not an object of this kind.
    #[error("{what}: wrong magic number")]
    Magic {
        /// The part.
        what: &'static str,
    },
    /// Written by a later Firn.
    #[error("{what}: version {version} is not known to this version of Firn")]
    Version {
        /// The part.
        what: &'static str,
        /// The version found.
        version: u16,
    },
    /// A checksum does not match.
    #[error("{what}: checksum mismatch")]
    Checksum {
        /// The part.
        what: &'static str,
    },
    /// The values contradict each other or their type.
    #[error("{what}: invalid content")]
    Invalid {
        /// The part.
        what: &'static str,
    },
}

/// Appends one section of a footer.
type Writer = fn(&Footer, &mut Vec<u8>);

/// Everything in an object besides the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// First offset of the range. Inclusive.
    pub base: Offset,
    /// First offset after the range. Exclusive.
    pub end: Offset,
    /// Bytes of record batches.
    pub data_length: u64,
    /// Where batches begin.
    pub offset_index: OffsetIndex,
    /// Where timestamps rise.
    pub time_index: TimeIndex,
    /// Leader epochs of the log up to `end`.
    pub epochs: EpochHistory,
    /// Aborted transactions that overlap the range, ascending by first offset.
    pub aborted: Vec<AbortedTxn>,
    /// The broker's producer snapshot at `end`, in its own self-describing format; empty if none.
    pub producers: Bytes,
    /// Checksums of the data.
    pub checksums: Checksums,
}

impl Footer {
    /// The footer's bytes: sections, directory, trailer.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        let mut directory = Directory::default();
        for (kind, write) in Self::writers() {
            let from = out.len();
            write(self, &mut out);
            let section = out.get(from..).unwrap_or_default();
            directory.entries.push(DirectoryEntry {
                kind: kind as u16,
                position: from as u64,
                length: section.len() as u32,
                crc: crc32c::crc32c(section),
            });
        }
        let position = out.len();
        directory.encode(&mut out);
        let encoded = out.get(position..).unwrap_or_default();
        let trailer = Trailer {
            base: self.base,
            end: self.end,
            data_length: self.data_length,
            directory_position: position as u64,
            directory_length: encoded.len() as u32,
            directory_crc: crc32c::crc32c(encoded),
        };
        trailer.encode(&mut out);
        Bytes::from(out)
    }

    /// Decodes a whole footer: `bytes` begins at the entry's `footer_position` and ends with the
    /// trailer.
    ///
    /// # Errors
    /// [`FormatError`], naming the part that is damaged, missing or of a later version.
    pub fn decode(bytes: &Bytes) -> Result<Self, FormatError> {
        const WHAT: &str = "object footer";
        let trailer_at = bytes.len().checked_sub(TRAILER_BYTES).ok_or(FormatError::Truncated { what: WHAT })?;
        let trailer = Trailer::decode(bytes.get(trailer_at..).unwrap_or_default())?;
        let directory = usize::try_from(trailer.directory_position)
            .ok()
            .and_then(|from| Some(from..from.checked_add(trailer.directory_length as usize)?))
            .filter(|range| range.end == trailer_at)
            .and_then(|range| bytes.get(range))
            .ok_or(FormatError::Invalid { what: WHAT })?;
        if crc32c::crc32c(directory) != trailer.directory_crc {
            return Err(FormatError::Checksum { what: "section directory" });
        }
        let directory = Directory::decode(directory)?;
        let footer = Self {
            base: trailer.base,
            end: trailer.end,
            data_length: trailer.data_length,
            offset_index: OffsetIndex::decode(directory.section(SectionKind::OffsetIndex, bytes)?)?,
            time_index: TimeIndex::decode(directory.section(SectionKind::TimeIndex, bytes)?)?,
            epochs: EpochHistory::decode(directory.section(SectionKind::Epochs, bytes)?)?,
            aborted: aborted::decode(directory.section(SectionKind::Aborted, bytes)?)?,
            producers: bytes.slice_ref(directory.section(SectionKind::Producers, bytes)?),
            checksums: Checksums::decode(directory.section(SectionKind::Checksums, bytes)?)?,
        };
        footer.check()?;
        Ok(footer)
    }

    /// What must hold between the sections.
    fn check(&self) -> Result<(), FormatError> {
        let what = "object footer";
        let inside = |offset: Offset| (self.base..self.end).contains(&offset);
        let chunks = self.data_length.div_ceil(u64::from(self.checksums.chunk_bytes));
        let sound = self.checksums.crcs.len() as u64 == chunks
            && self.offset_index.entries.iter().all(|entry| inside(entry.offset) && entry.position < self.data_length)
            && self.offset_index.entries.first().is_some_and(|entry| entry.position == 0)
            && self.time_index.entries.iter().all(|entry| inside(entry.offset));
        if sound { Ok(()) } else { Err(FormatError::Invalid { what }) }
    }

    fn writers() -> [(SectionKind, Writer); 6] {
        [
            (SectionKind::OffsetIndex, |f, out| f.offset_index.encode(out)),
            (SectionKind::TimeIndex, |f, out| f.time_index.encode(out)),
            (SectionKind::Epochs, |f, out| f.epochs.encode(out)),
            (SectionKind::Aborted, |f, out| aborted::encode(&f.aborted, out)),
            (SectionKind::Producers, |f, out| {
                out.extend_from_slice(&f.producers);
            }),
            (SectionKind::Checksums, |f, out| f.checksums.encode(out)),
        ]
    }
}
