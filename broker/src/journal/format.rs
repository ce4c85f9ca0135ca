//! The journal's bytes on disk. All integers are little-endian.
//!
//! ```text
//! file    = header block (4096 bytes) , frame*
//! header  = magic 8 , version u32 , block u32 , directory id 16 , sequence u64 , capacity u64 , crc u32 , zeros
//! frame   = magic u32 , crc u32 , length u64 , first lsn u64 , synced to u64 , count u32 , reserved u32 ,
//!           entry * count , zeros up to a multiple of 4096
//! entry   = length u32 , kind u8 , reserved 3 , topic id 16 , partition i32 , payload (length bytes)
//! payload = Append: the batch | TruncateTail, TrimHead: offset i64 | Delete: nothing
//!           | Reset: start i64 , epochs u32 , (epoch i32 , start i64) * epochs , producer state
//! ```
//! `length` of a frame counts header and entries without the padding. Its CRC-32C covers everything from
//! `length` on, after a seed made of directory id and file sequence: what an earlier use of a recycled file
//! left behind never validates.

use bytes::Bytes;
use proto::ids::{DirectoryId, Offset, TopicId, TopicPartition, Uuid};
use proto::planted::{Bug, planted};

use super::record::{EpochStart, Kind, Lsn, OwnedRecord, Record};
use crate::disk::BLOCK;

const FILE_MAGIC: &[u8; 8] = b"FIRNJRNL";
const FILE_VERSION: u32 = 1;
const FILE_HEADER: usize = 52;
const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"FRAM");
/// Bytes of a frame before its entries.
pub const FRAME_HEADER: usize = 40;
/// The CRC covers a frame from here on.
const FRAME_CRC_FROM: usize = 8;
/// Bytes of an entry before its payload.
pub const ENTRY_HEADER: usize = 28;
/// Bytes of a magic-2 batch header.
const BATCH_HEADER: usize = 61;
const BATCH_CRC_AT: usize = 17;
/// A batch's own CRC-32C covers it from here on.
const BATCH_CRC_FROM: usize = 21;
const EPOCH_START: usize = 12;

/// Sequences of files lie below; no journal has as many.
pub const SEQUENCES: u64 = 1 << 63;

/// The first block of a journal file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// The data directory it was made for.
    pub directory: DirectoryId,
    /// Its place in the order of files; a recycled file gets a new one.
    pub sequence: u64,
    /// Length of the file in bytes, header included.
    pub capacity: u64,
}

/// Why a journal file cannot be read at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileHeaderError {
    /// Not a journal file, or damaged at its very start.
    #[error("its header is damaged")]
    Damaged,
    /// Made by another version.
    #[error("it has format {0}, this version reads {FILE_VERSION}")]
    Version(u32),
}

impl FileHeader {
    /// The header block.
    pub fn encode(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut fields = Vec::with_capacity(FILE_HEADER);
        fields.extend_from_slice(FILE_MAGIC);
        fields.extend_from_slice(&FILE_VERSION.to_le_bytes());
        fields.extend_from_slice(&(BLOCK as u32).to_le_bytes());
        fields.extend_from_slice(self.directory.0.as_bytes());
        fields.extend_from_slice(&self.sequence.to_le_bytes());
        fields.extend_from_slice(&self.capacity.to_le_bytes());
        let crc = crc32c::crc32c(&fields);
        fields.extend_from_slice(&crc.to_le_bytes());
        block[..fields.len()].copy_from_slice(&fields);
        block
    }

    /// Reads the header back from the start of a file.
    ///
    /// # Errors
    /// See [`FileHeaderError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FileHeaderError> {
        let mut fields = Fields(bytes);
        let damaged = FileHeaderError::Damaged;
        let covered = bytes.get(..FILE_HEADER - 4).ok_or(damaged)?;
        if fields.array::<8>().as_ref() != Some(FILE_MAGIC) {
            return Err(damaged);
        }
        let version = fields.u32().ok_or(damaged)?;
        let block = fields.u32().ok_or(damaged)?;
        let directory = DirectoryId(Uuid::from_bytes(fields.array().ok_or(damaged)?));
        let sequence = fields.u64().ok_or(damaged)?;
        let capacity = fields.u64().ok_or(damaged)?;
        if fields.u32() != Some(crc32c::crc32c(covered)) {
            return Err(damaged);
        }
        if version != FILE_VERSION {
            return Err(FileHeaderError::Version(version));
        }
        if block as usize != BLOCK || sequence >= SEQUENCES {
            return Err(damaged);
        }
        Ok(Self { directory, sequence, capacity })
    }

    /// Whether `bytes` begin as a journal file of any version does, be it damaged.
    pub fn is_meant_by(bytes: &[u8]) -> bool {
        bytes.starts_with(FILE_MAGIC)
    }

    /// What the CRCs of this file's frames start from.
    pub fn seed(&self) -> Seed {
        let crc = crc32c::crc32c(self.directory.0.as_bytes());
        Seed(crc32c::crc32c_append(crc, &self.sequence.to_le_bytes()))
    }
}

/// Ties a frame to its file: see [`FileHeader::seed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub u32);

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of header and entries, without padding.
    pub length: u64,
    /// Position of the first record; of the next one to come if there is none.
    pub first_lsn: Lsn,
    /// The last position that was durable when this frame was written.
    pub synced_to: Lsn,
    /// How many records.
    pub count: u32,
}

impl FrameHeader {
    /// The header with the CRC over itself and `entries`, which are `length - FRAME_HEADER` bytes.
    /// `batches` are the ranges of `entries` that are batches with a checked CRC of their own, in order.
    pub fn encode(&self, seed: Seed, entries: &[u8], batches: &[BatchRange]) -> [u8; FRAME_HEADER] {
        let mut header = [0; FRAME_HEADER];
        header[..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        header[8..16].copy_from_slice(&self.length.to_le_bytes());
        header[16..24].copy_from_slice(&self.first_lsn.0.to_le_bytes());
        header[24..32].copy_from_slice(&self.synced_to.0.to_le_bytes());
        header[32..36].copy_from_slice(&self.count.to_le_bytes());
        let crc = crc32c::crc32c_append(seed.0, &header[FRAME_CRC_FROM..]);
        let crc = crc_with_batches(crc, entries, batches);
        header[4..8].copy_from_slice(&crc.to_le_bytes());
        header
    }

    /// Reads the fixed part without checking the CRC: enough to know how much to read.
    ///
    /// # Errors
    /// [`FrameError::NotAFrame`] if there is none here.
    pub fn peek(bytes: &[u8]) -> Result<Self, FrameError> {
        Self::split(bytes).map(|(header, _)| header)
    }

    /// The fixed part and the CRC it claims.
    fn split(bytes: &[u8]) -> Result<(Self, u32), FrameError> {
        let not = FrameError::NotAFrame;
        let mut fields = Fields(bytes);
        if fields.u32() != Some(FRAME_MAGIC) {
            return Err(not);
        }
        let crc = fields.u32().ok_or(not)?;
        let header = Self {
            length: fields.u64().ok_or(not)?,
            first_lsn: Lsn(fields.u64().ok_or(not)?),
            synced_to: Lsn(fields.u64().ok_or(not)?),
            count: fields.u32().ok_or(not)?,
        };
        fields.u32().ok_or(not)?;
        let plausible = header.length >= FRAME_HEADER as u64
            && header.first_lsn > header.synced_to
            && header.next_lsn() <= Lsn::END
            && u64::from(header.count).saturating_mul(ENTRY_HEADER as u64) <= header.length - FRAME_HEADER as u64;
        if plausible { Ok((header, crc)) } else { Err(not) }
    }

    /// The position after this frame's last record.
    pub const fn next_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0.saturating_add(self.count as u64))
    }

    /// Bytes it takes in the file, padding included.
    pub const fn padded_length(&self) -> u64 {
        self.length.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64)
    }
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No frame starts here.
    #[error("no frame here")]
    NotAFrame,
    /// It says it is longer than what is there.
    #[error("the frame ends before its length")]
    Truncated,
    /// Torn, damaged, or of an earlier use of the file.
    #[error("the frame's checksum does not match")]
    Checksum,
    /// The CRC holds but an entry makes no sense: written by a newer version, or a defect.
    #[error("entry {0} of the frame cannot be read")]
    Entry(u32),
}

/// A frame that validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its fixed part.
    pub header: FrameHeader,
    /// Its records, the first at `header.first_lsn`.
    pub records: Vec<OwnedRecord>,
}

/// Reads the frame at the start of `bytes`. Bytes after it are ignored. Total: any input has an answer, and
/// memory is taken only in proportion to the input.
///
/// # Errors
/// See [`FrameError`].
pub fn decode_frame(bytes: &Bytes, seed: Seed) -> Result<Frame, FrameError> {
    let header = check_frame(bytes, seed)?;
    let length = usize::try_from(header.length).map_err(|_| FrameError::Truncated)?;
    let mut rest = bytes.slice(FRAME_HEADER..length);
    let mut records = Vec::with_capacity(header.count as usize);
    for index in 0..header.count {
        records.push(decode_entry(&mut rest).ok_or(FrameError::Entry(index))?);
    }
    if !rest.is_empty() {
        return Err(FrameError::Entry(header.count));
    }
    Ok(Frame { header, records })
}

/// Like [`decode_frame`] without looking at the entries.
///
/// # Errors
/// All but [`FrameError::Entry`].
pub fn check_frame(bytes: &[u8], seed: Seed) -> Result<FrameHeader, FrameError> {
    let (header, claimed) = FrameHeader::split(bytes)?;
    let length = usize::try_from(header.length).map_err(|_| FrameError::Truncated)?;
    let covered = bytes.get(FRAME_CRC_FROM..length).ok_or(FrameError::Truncated)?;
    if crc32c::crc32c_append(seed.0, covered) == claimed || planted(Bug::TornTailKept) {
        Ok(header)
    } else {
        Err(FrameError::Checksum)
    }
}

fn decode_entry(rest: &mut Bytes) -> Option<OwnedRecord> {
    let mut fields = Fields(rest);
    let len = fields.u32()? as usize;
    let kind = decode_kind(fields.u8()?)?;
    fields.array::<3>()?;
    let topic = TopicId(Uuid::from_bytes(fields.array()?));
    let tp = TopicPartition::new(topic, fields.i32()?);
    if len > rest.len() - ENTRY_HEADER {
        return None;
    }
    let payload = rest.split_to(ENTRY_HEADER + len).slice(ENTRY_HEADER..);
    let mut fields = Fields(&payload);
    let record = match kind {
        Kind::Append if len >= BATCH_HEADER => OwnedRecord::Append { tp, batch: payload },
        Kind::Append => return None,
        Kind::TruncateTail if len == 8 => OwnedRecord::TruncateTail { tp, to: fields.i64()? },
        Kind::TrimHead if len == 8 => OwnedRecord::TrimHead { tp, to: fields.i64()? },
        Kind::TruncateTail | Kind::TrimHead => return None,
        Kind::Reset => {
            let start = fields.i64()?;
            let count = fields.u32()? as usize;
            if count > fields.0.len() / EPOCH_START {
                return None;
            }
            let epochs = (0..count)
                .map(|_| Some(EpochStart { epoch: fields.i32()?, start: fields.i64()? }))
                .collect::<Option<Vec<_>>>()?;
            let producer_state = payload.slice(12 + count * EPOCH_START..);
            OwnedRecord::Reset { tp, start, epochs, producer_state }
        }
        Kind::Delete if len == 0 => OwnedRecord::Delete { tp },
        Kind::Delete => return None,
    };
    Some(record)
}

fn decode_kind(number: u8) -> Option<Kind> {
    [Kind::Append, Kind::TruncateTail, Kind::TrimHead, Kind::Reset, Kind::Delete]
        .into_iter()
        .find(|kind| *kind as u8 == number)
}

/// Bytes of `record`'s payload.
pub(super) fn payload_len(record: &Record<'_>) -> usize {
    match record {
        Record::Append { batch, .. } => batch.len(),
        Record::TruncateTail { .. } | Record::TrimHead { .. } => 8,
        Record::Reset { epochs, producer_state, .. } => 12 + epochs.len() * EPOCH_START + producer_state.len(),
        Record::Delete { .. } => 0,
    }
}

/// Writes `record`'s payload, piece by piece; `push` gets as many bytes as [`payload_len`] says.
///
/// # Panics
/// If a batch is shorter than its header: callers have validated it.
pub(super) fn encode_payload(record: &Record<'_>, mut push: impl FnMut(&[u8])) {
    match record {
        Record::Append { base_offset, leader_epoch, batch, .. } => {
            assert!(batch.len() >= BATCH_HEADER, "a batch has a whole header");
            // Offset and epoch lie outside the batch's CRC, for exactly this.
            push(&base_offset.to_be_bytes());
            push(&batch[8..12]);
            push(&leader_epoch.to_be_bytes());
            push(&batch[16..]);
        }
        Record::TruncateTail { to, .. } | Record::TrimHead { to, .. } => push(&to.to_le_bytes()),
        Record::Reset { start, epochs, producer_state, .. } => {
            push(&start.to_le_bytes());
            push(&(epochs.len() as u32).to_le_bytes());
            for EpochStart { epoch, start } in *epochs {
                push(&epoch.to_le_bytes());
                push(&start.to_le_bytes());
            }
            push(producer_state);
        }
        Record::Delete { .. } => {}
    }
}

/// The bytes of an entry before its payload.
pub(super) fn encode_entry_header(kind: Kind, tp: TopicPartition, payload: u32) -> [u8; ENTRY_HEADER] {
    let mut header = [0; ENTRY_HEADER];
    header[..4].copy_from_slice(&payload.to_le_bytes());
    header[4] = kind as u8;
    header[8..24].copy_from_slice(tp.topic.0.as_bytes());
    header[24..].copy_from_slice(&tp.partition.to_le_bytes());
    header
}

/// First and last offset that `record` covers, both inclusive, as [`super::GroupEntry`] shows them.
pub(super) fn offsets(record: &Record<'_>) -> (Offset, Offset) {
    match record {
        Record::Append { base_offset, batch, .. } => {
            let delta = batch.get(23..27).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_be_bytes);
            (*base_offset, base_offset + Offset::from(delta))
        }
        Record::TruncateTail { to, .. } | Record::TrimHead { to, .. } => (*to, *to),
        Record::Reset { start, .. } => (*start, *start),
        Record::Delete { .. } => (-1, -1),
    }
}

/// Where in a frame's entries a batch lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchRange {
    /// Its first byte.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
}

/// From this size on it is cheaper to combine a batch's CRC than to compute it again.
const COMBINE_FROM: usize = 512 << 10;

/// The CRC of `entries` after `crc`, making use of the CRCs that large batches bring along.
fn crc_with_batches(mut crc: u32, entries: &[u8], batches: &[BatchRange]) -> u32 {
    let mut done = 0;
    for batch in batches {
        if batch.end - batch.start < COMBINE_FROM {
            continue;
        }
        let body = batch.start + BATCH_CRC_FROM;
        let at = batch.start + BATCH_CRC_AT;
        let own = u32::from_be_bytes([entries[at], entries[at + 1], entries[at + 2], entries[at + 3]]);
        crc = crc32c::crc32c_append(crc, &entries[done..body]);
        crc = crc32c::crc32c_combine(crc, own, batch.end - body);
        done = batch.end;
    }
    crc32c::crc32c_append(crc, &entries[done..])
}

/// Reads fields off the front of bytes that may be anything.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }
}
