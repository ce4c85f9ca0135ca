//! Snapshots: an image as the records that make it, in chunks, so that neither writer nor reader
//! holds more than one chunk beside the image.
//!
//! A snapshot is a sequence of chunks `length: u32 LE, crc32c: u32 LE, body`. The first body is the
//! header `magic, version, metadata offset, number of records`; each further one is whole records.

use super::codec::{DecodeError, Durable, take_bytes};
use super::image::Image;
use super::record::MetadataRecord;

/// A chunk is closed as soon as it holds this much. A single record may be longer.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;

const MAGIC: &[u8; 8] = b"FIRNMETA";
const VERSION: u64 = 0;

/// Why a snapshot cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Not a snapshot, or of a newer Firn.
    #[error("not a metadata snapshot that this Firn understands")]
    Foreign,
    /// A chunk's checksum does not fit.
    #[error("metadata snapshot is damaged: checksum of a chunk does not match")]
    Checksum,
    /// It ends early or goes on after the last record.
    #[error("metadata snapshot has {found} records, its header says {expected}")]
    Incomplete {
        /// Records read.
        found: u64,
        /// Records announced.
        expected: u64,
    },
    /// A record cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Writes `image` chunk by chunk to `sink`, each chunk with its frame.
pub fn write_snapshot<E>(image: &Image, mut sink: impl FnMut(Vec<u8>) -> Result<(), E>) -> Result<(), E> {
    let mut header = MAGIC.to_vec();
    VERSION.put(&mut header);
    image.offset().put(&mut header);
    (image.to_records().count() as u64).put(&mut header);
    sink(framed(&header))?;

    let mut body = Vec::with_capacity(4096);
    for record in image.to_records() {
        record.put(&mut body);
        if body.len() >= SNAPSHOT_CHUNK_BYTES {
            sink(framed(&body))?;
            body.clear();
        }
    }
    if !body.is_empty() {
        sink(framed(&body))?;
    }
    Ok(())
}

fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a chunk is one record longer than its bound at most");
    let mut chunk = Vec::with_capacity(body.len() + 8);
    chunk.extend_from_slice(&length.to_le_bytes());
    chunk.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    chunk.extend_from_slice(body);
    chunk
}

/// Rebuilds an image from the chunks of a snapshot.
#[derive(Debug, Default)]
pub struct SnapshotReader {
    image: Image,
    header: Option<Header>,
    found: u64,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    offset: u64,
    records: u64,
}

impl SnapshotReader {
    /// Reads all chunks in `bytes`.
    pub fn read_all(mut bytes: &[u8]) -> Result<Image, SnapshotError> {
        let mut reader = Self::default();
        while !bytes.is_empty() {
            reader.chunk(&mut bytes)?;
        }
        reader.finish()
    }

    /// Takes one whole chunk off the front of `input`.
    pub fn chunk(&mut self, input: &mut &[u8]) -> Result<(), SnapshotError> {
        let length = take_u32(input)? as usize;
        let crc = take_u32(input)?;
        let mut body = take_bytes(input, length)?;
        if crc32c::crc32c(body) != crc {
            return Err(SnapshotError::Checksum);
        }
        if self.header.is_none() {
            self.header = Some(take_header(&mut body)?);
        }
        while !body.is_empty() {
            self.image.apply(&MetadataRecord::take(&mut body)?);
            self.found += 1;
        }
        Ok(())
    }

    /// The image, if all of it was read.
    pub fn finish(mut self) -> Result<Image, SnapshotError> {
        let header = self.header.ok_or(SnapshotError::Foreign)?;
        if header.records != self.found {
            return Err(SnapshotError::Incomplete { found: self.found, expected: header.records });
        }
        self.image.offset = header.offset;
        Ok(self.image)
    }
}

fn take_u32(input: &mut &[u8]) -> Result<u32, DecodeError> {
    let bytes = take_bytes(input, 4)?;
    Ok(u32::from_le_bytes(bytes.try_into().map_err(|_| DecodeError::Truncated)?))
}

fn take_header(body: &mut &[u8]) -> Result<Header, SnapshotError> {
    let magic = take_bytes(body, MAGIC.len()).map_err(|_| SnapshotError::Foreign)?;
    if magic != MAGIC || u64::take(body)? != VERSION {
        return Err(SnapshotError::Foreign);
    }
    Ok(Header { offset: u64::take(body)?, records: u64::take(body)? })
}
