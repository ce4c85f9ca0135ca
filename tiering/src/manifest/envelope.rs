//! What roots and leaves have in common: magic, version, owner, and a CRC at the end.

use bytes::Bytes;
use proto::ids::{TopicId, TopicPartition};

use crate::format::FormatError;
use crate::format::cursor::{Cursor, Put};

const CRC_BYTES: usize = 4;

/// Which of the two a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) what: &'static str,
    pub(super) magic: [u8; 8],
    pub(super) version: u16,
}

impl Envelope {
    /// `{magic, version u16, flags u16 (0), topic id, partition i32, body, crc32c of all before}`
    pub(super) fn seal(&self, owner: TopicPartition, body: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        let mut out = Vec::new();
        out.put_be(self.magic);
        out.put_be(self.version.to_be_bytes());
        out.put_be(0u16.to_be_bytes());
        out.put_be(owner.topic.0.into_bytes());
        out.put_be(owner.partition.to_be_bytes());
        body(&mut out);
        let crc = crc32c::crc32c(&out);
        out.put_be(crc.to_be_bytes());
        Bytes::from(out)
    }

    /// The owner and the body of a sealed file.
    pub(super) fn open<'a>(&self, bytes: &'a [u8]) -> Result<(TopicPartition, Cursor<'a>), FormatError> {
        let what = self.what;
        if !bytes.starts_with(&self.magic) {
            return Err(FormatError::Magic { what });
        }
        let (checked, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or(FormatError::Truncated { what })?;
        if crc32c::crc32c(checked) != u32::from_be_bytes(*crc) {
            return Err(FormatError::Checksum { what });
        }
        let mut cursor = Cursor::new(checked, what);
        cursor.take(self.magic.len())?;
        let version = cursor.u16()?;
        if version != self.version {
            return Err(FormatError::Version { what, version });
        }
        let _flags = cursor.u16()?;
        let topic = TopicId(cursor.uuid()?);
        let owner = TopicPartition::new(topic, cursor.i32()?);
        Ok((owner, cursor))
    }
}
