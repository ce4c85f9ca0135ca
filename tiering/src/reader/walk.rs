//! Walks the batch headers in downloaded bytes, and cuts out whole batches without copying them.

use bytes::Bytes;
use proto::ids::Offset;
use proto::records::{BatchHeader, HEADER_LEN, LENGTH_PREFIX};

use crate::cache::Piece;

/// Where the CRC of a batch begins to count (the attributes).
const AT_CHECKED: u64 = 21;

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    /// Batches that end before this offset are passed over.
    pub(super) from: Offset,
    /// Whole batches up to this many bytes.
    pub(super) max_bytes: u64,
    /// Whether the first batch is taken even if it is larger (KIP-74).
    pub(super) min_one: bool,
    /// Bytes of the entry's data from the first piece's first byte on.
    pub(super) left: u64,
    /// First offset after the entry. Exclusive.
    pub(super) end: Offset,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes before the first batch that was taken (or that would be).
    pub(super) skipped: u64,
    /// The batches.
    pub(super) chunks: Vec<Bytes>,
    /// Bytes of the batches.
    pub(super) bytes: u64,
    /// Base offset of the first batch taken.
    pub(super) base: Option<Offset>,
    /// First offset after the last batch taken.
    pub(super) next: Option<Offset>,
    /// Why it went no further.
    pub(super) stop: Stop,
}

/// Why a walk ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Stop {
    /// At the end of the entry's data.
    #[default]
    End,
    /// The next batch would exceed the limit, or is broken.
    Full,
    /// The next batch ends this many bytes after the first piece's first byte: they are not all here.
    Need(u64),
}

/// Bytes that are no batches, or not those that were uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at {position} bytes")]
pub(super) struct Broken {
    /// What is wrong.
    pub(super) reason: &'static str,
    /// Relative to the start of the entry's data.
    pub(super) position: u64,
    /// Bytes of what should be a batch; only its header's if that is the problem.
    pub(super) length: u64,
}

/// Walks contiguous `pieces`, the first of which begins with a batch. Whole batches before a broken one are
/// taken; it is an error when it comes first.
pub(super) fn take(pieces: &[Piece], ask: &Ask) -> Result<Taken, Broken> {
    let mut rope = Rope::new(pieces);
    let mut taken = Taken::default();
    let mut at = 0;
    let mut expected: Offset = 0;
    while at < ask.left {
        let batch = match next(&mut rope, ask, at, expected) {
            Ok(Some(batch)) => batch,
            Ok(None) => {
                taken.stop = Stop::Need(at + HEADER_LEN as u64);
                break;
            }
            Err(broken) if taken.bytes == 0 => return Err(broken),
            Err(_) => {
                taken.stop = Stop::Full;
                break;
            }
        };
        let wanted = batch.next > ask.from;
        let excused = ask.min_one && taken.bytes == 0;
        if wanted && !excused && taken.bytes + batch.length > ask.max_bytes {
            taken.stop = Stop::Full;
            break;
        }
        if at + batch.length > rope.end() {
            taken.stop = Stop::Need(at + batch.length);
            break;
        }
        if !wanted {
            taken.skipped += batch.length;
        } else if let Err(broken) = rope.check(at, batch.length, batch.crc) {
            if taken.bytes == 0 {
                return Err(broken);
            }
            taken.stop = Stop::Full;
            break;
        } else {
            taken.bytes += batch.length;
            taken.base = taken.base.or(Some(batch.base));
            taken.next = Some(batch.next);
        }
        expected = batch.next;
        at += batch.length;
    }
    taken.chunks = cut(pieces, taken.skipped, taken.bytes);
    Ok(taken)
}

/// The frame of a batch.
struct Frame {
    base: Offset,
    next: Offset,
    length: u64,
    crc: u32,
}

/// The batch that begins at `at`, if its header is here; `expected` is the end of the one before.
fn next(rope: &mut Rope<'_>, ask: &Ask, at: u64, expected: Offset) -> Result<Option<Frame>, Broken> {
    let Some(header) = rope.header(at)? else {
        return Ok(None);
    };
    let length = u64::from(header.length.unsigned_abs()) + LENGTH_PREFIX as u64;
    let next = header
        .base_offset
        .checked_add(i64::from(header.last_offset_delta))
        .and_then(|last| last.checked_add(1))
        .filter(|next| *next > header.base_offset && header.base_offset >= expected)
        .ok_or_else(|| rope.broken("offsets out of order", at, HEADER_LEN as u64))?;
    if length > ask.left - at || next > ask.end {
        return Err(rope.broken("a batch that reaches beyond its range", at, HEADER_LEN as u64));
    }
    Ok(Some(Frame { base: header.base_offset, next, length, crc: header.crc }))
}

/// One batch, whole and contiguous (copied only if it spans pieces).
pub(super) fn joined(chunks: &[Bytes]) -> Bytes {
    match chunks {
        [one] => one.clone(),
        many => Bytes::from(many.concat()),
    }
}

/// Contiguous pieces seen as one row of bytes from 0, walked forward.
struct Rope<'a> {
    pieces: &'a [Piece],
    start: u64,
    /// The piece last looked at.
    current: usize,
}

impl<'a> Rope<'a> {
    fn new(pieces: &'a [Piece]) -> Self {
        Self { pieces, start: pieces.first().map_or(0, |piece| piece.at), current: 0 }
    }

    fn end(&self) -> u64 {
        self.pieces.last().map_or(0, Piece::end) - self.start
    }

    fn broken(&self, reason: &'static str, at: u64, length: u64) -> Broken {
        Broken { reason, position: self.start + at, length }
    }

    /// The parts of pieces that make up `[at, at + length)`.
    fn parts(&mut self, at: u64, length: u64) -> impl Iterator<Item = (&'a Piece, &'a [u8])> + use<'a> {
        let (from, to) = (self.start + at, self.start + at + length);
        let before = |piece: &Piece| piece.end() <= from;
        while self.pieces.get(self.current).is_some_and(before) {
            self.current += 1;
        }
        let rest = self.pieces.get(self.current..).unwrap_or_default();
        rest.iter().map_while(move |piece| {
            let (low, high) = (from.max(piece.at), to.min(piece.end()));
            if low >= high {
                return None;
            }
            let part = (low - piece.at) as usize..(high - piece.at) as usize;
            Some((piece, piece.bytes.get(part)?))
        })
    }

    fn header(&mut self, at: u64) -> Result<Option<BatchHeader>, Broken> {
        if at + HEADER_LEN as u64 > self.end() {
            return Ok(None);
        }
        let mut spanning = [0; HEADER_LEN];
        let mut filled = 0;
        for (_, part) in self.parts(at, HEADER_LEN as u64) {
            if let Some(room) = spanning.get_mut(filled..filled + part.len()) {
                room.copy_from_slice(part);
            }
            filled += part.len();
        }
        BatchHeader::parse(&spanning).map(Some).map_err(|_| self.broken("no batch", at, HEADER_LEN as u64))
    }

    /// Checks the batch's own CRC where the footer's were not compared on the way in.
    fn check(&mut self, at: u64, length: u64, crc: u32) -> Result<(), Broken> {
        if self.parts(at, length).all(|(piece, _)| piece.checked) {
            return Ok(());
        }
        let found =
            self.parts(at + AT_CHECKED, length - AT_CHECKED).fold(0, |crc, (_, part)| crc32c::crc32c_append(crc, part));
        if found == crc { Ok(()) } else { Err(self.broken("a batch with a wrong checksum", at, length)) }
    }
}

/// `length` bytes from `at` on, as one slice of each piece.
fn cut(pieces: &[Piece], at: u64, length: u64) -> Vec<Bytes> {
    let from = pieces.first().map_or(0, |piece| piece.at) + at;
    pieces.iter().filter_map(|piece| Some(piece.part(from, from + length)?.bytes)).collect()
}
