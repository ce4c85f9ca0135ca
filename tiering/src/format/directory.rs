//! The table of a footer's sections.

use super::FormatError;
use super::cursor::{Cursor, Put};

const WHAT: &str = "section directory";
const ENTRY_BYTES: usize = 2 + 2 + 8 + 4 + 4;

/// What a section holds. The numbers are durable and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum SectionKind {
    /// [`OffsetIndex`](super::OffsetIndex).
    OffsetIndex = 1,
    /// [`TimeIndex`](super::TimeIndex).
    TimeIndex = 2,
    /// [`EpochHistory`](super::EpochHistory).
    Epochs = 3,
    /// A list of [`AbortedTxn`](super::AbortedTxn).
    Aborted = 4,
    /// The broker's producer snapshot, opaque here.
    Producers = 5,
    /// [`Checksums`](super::Checksums).
    Checksums = 6,
}

/// Where one section lies. `kind` stays a number so that a reader passes over kinds it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// A [`SectionKind`], or one of a later version.
    pub kind: u16,
    /// First byte, from the start of the footer.
    pub position: u64,
    /// Length in bytes.
    pub length: u32,
    /// CRC-32C of the section.
    pub crc: u32,
}

/// All sections of a footer, in the order they lie in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directory {
    /// The sections.
    pub entries: Vec<DirectoryEntry>,
}

impl Directory {
    /// Appends the encoded directory.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.entries.len() as u64);
        for entry in &self.entries {
            out.put_be(entry.kind.to_be_bytes());
            out.put_be(0u16.to_be_bytes());
            out.put_be(entry.position.to_be_bytes());
            out.put_be(entry.length.to_be_bytes());
            out.put_be(entry.crc.to_be_bytes());
        }
    }

    /// Decodes a whole directory.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new(bytes, WHAT);
        let count = cursor.count(ENTRY_BYTES)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let kind = cursor.u16()?;
            let _flags = cursor.u16()?;
            entries.push(DirectoryEntry { kind, position: cursor.u64()?, length: cursor.u32()?, crc: cursor.u32()? });
        }
        cursor.finish()?;
        Ok(Self { entries })
    }

    /// The bytes of the section of `kind` inside `footer`, its CRC checked.
    ///
    /// # Errors
    /// Invalid if it is missing, Truncated if it lies outside, Checksum if it is damaged.
    pub fn section<'a>(&self, kind: SectionKind, footer: &'a [u8]) -> Result<&'a [u8], FormatError> {
        let what = kind.name();
        let entry = self.entries.iter().find(|entry| entry.kind == kind as u16).ok_or(FormatError::Invalid { what })?;
        let bytes = usize::try_from(entry.position)
            .ok()
            .and_then(|from| Some(from..from.checked_add(entry.length as usize)?))
            .and_then(|range| footer.get(range))
            .ok_or(FormatError::Truncated { what })?;
        if crc32c::crc32c(bytes) != entry.crc {
            return Err(FormatError::Checksum { what });
        }
        Ok(bytes)
    }
}

impl SectionKind {
    /// Name in errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OffsetIndex => "offset index section",
            Self::TimeIndex => "time index section",
            Self::Epochs => "leader epochs section",
            Self::Aborted => "aborted transactions section",
            Self::Producers => "producer snapshot section",
            Self::Checksums => "checksums section",
        }
    }
}
