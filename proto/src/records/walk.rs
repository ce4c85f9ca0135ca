//! The walk over record fields, shared by validation and look-ups. It reads varints and skips keys,
//! values and headers, from a slice or from a decompressing stream, and allocates nothing per record.

use std::io::Read;

use super::codec::{Codec, Reader};
use super::error::{BatchError, RecordFault};
use super::header::BatchRef;
use super::varint::{unzigzag32, unzigzag64};

/// What the walk tells about one record; lengths were checked, contents were not looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    pub(super) index: u32,
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) has_key: bool,
}

/// Walks all `header.record_count` records of `batch` and insists that nothing is left after them.
/// `visit` may end the walk early with its own error.
pub(super) fn walk(
    batch: &BatchRef<'_>,
    max_uncompressed: usize,
    visit: impl FnMut(Fields) -> Result<(), BatchError>,
) -> Result<(), BatchError> {
    let codec = batch.header.codec()?;
    let count = u32::try_from(batch.header.record_count).unwrap_or(0);
    if codec == Codec::None {
        return walk_source(Slice::new(batch.body()), count, visit);
    }
    let reader = Reader::new(codec, batch.body(), max_uncompressed)?;
    walk_source(Stream::new(reader, codec, max_uncompressed), count, visit)
}

fn walk_source<S: Source>(
    mut source: S,
    count: u32,
    mut visit: impl FnMut(Fields) -> Result<(), BatchError>,
) -> Result<(), BatchError> {
    for index in 0..count {
        let fields = one(&mut source, index).map_err(|stop| stop.into_error(index))?;
        visit(fields)?;
    }
    match source.at_end() {
        Ok(true) => Ok(()),
        Ok(false) => Err(BatchError::Leftover(count)),
        Err(stop) => Err(stop.into_error(count)),
    }
}

#[inline]
fn one<S: Source>(source: &mut S, index: u32) -> Result<Fields, Stop> {
    let length_of_record = length(source)?;
    let start = source.position();
    source.skip(1)?; // attributes, unused in format 2
    let timestamp_delta = varlong(source)?;
    let offset_delta = varint(source)?;
    let has_key = skip_nullable(source)?;
    skip_nullable(source)?;
    for _ in 0..length(source)? {
        let key = length(source)?;
        source.skip(key)?;
        skip_nullable(source)?;
    }
    if source.position() - start != length_of_record as u64 {
        return Err(Stop::Fault(RecordFault::Length));
    }
    Ok(Fields { index, timestamp_delta, offset_delta, has_key })
}

#[inline]
fn length<S: Source>(source: &mut S) -> Result<usize, Stop> {
    usize::try_from(varint(source)?).map_err(|_| Stop::Fault(RecordFault::Negative))
}

/// Skips bytes behind their length; -1 (and, as Kafka has it, anything below) is null.
#[inline]
fn skip_nullable<S: Source>(source: &mut S) -> Result<bool, Stop> {
    match usize::try_from(varint(source)?) {
        Ok(length) => source.skip(length).map(|()| true),
        Err(_) => Ok(false),
    }
}

#[inline]
fn varint<S: Source>(source: &mut S) -> Result<i32, Stop> {
    let first = source.byte()?;
    if first < 0x80 {
        return Ok(unzigzag32(u32::from(first)));
    }
    let mut raw = u32::from(first & 0x7f);
    for shift in [7, 14, 21, 28] {
        let byte = source.byte()?;
        raw |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(unzigzag32(raw));
        }
    }
    Err(Stop::Fault(RecordFault::Varint))
}

#[inline]
fn varlong<S: Source>(source: &mut S) -> Result<i64, Stop> {
    let mut raw = 0;
    for shift in (0..64).step_by(7) {
        let byte = source.byte()?;
        raw |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(unzigzag64(raw));
        }
    }
    Err(Stop::Fault(RecordFault::Varint))
}

/// Why the walk cannot go on.
enum Stop {
    Fault(RecordFault),
    Batch(BatchError),
}

impl Stop {
    fn into_error(self, index: u32) -> BatchError {
        match self {
            Self::Fault(why) => BatchError::Record { index, why },
            Self::Batch(error) => error,
        }
    }
}

const SHORT: Stop = Stop::Fault(RecordFault::Short);

/// Where the bytes of records come from.
trait Source {
    fn byte(&mut self) -> Result<u8, Stop>;
    fn skip(&mut self, count: usize) -> Result<(), Stop>;
    /// Bytes taken so far.
    fn position(&self) -> u64;
    fn at_end(&mut self) -> Result<bool, Stop>;
}

struct Slice<'a> {
    rest: &'a [u8],
    total: usize,
}

impl<'a> Slice<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, total: bytes.len() }
    }
}

impl Source for Slice<'_> {
    #[inline]
    fn byte(&mut self) -> Result<u8, Stop> {
        let (&byte, rest) = self.rest.split_first().ok_or(SHORT)?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    fn skip(&mut self, count: usize) -> Result<(), Stop> {
        self.rest = self.rest.get(count..).ok_or(SHORT)?;
        Ok(())
    }

    #[inline]
    fn position(&self) -> u64 {
        (self.total - self.rest.len()) as u64
    }

    fn at_end(&mut self) -> Result<bool, Stop> {
        Ok(self.rest.is_empty())
    }
}

/// Bytes decompressed at a time.
const WINDOW: usize = 16 * 1024;

/// A decompressing stream behind one small window; what was walked over is forgotten.
struct Stream<'a> {
    reader: Reader<'a>,
    codec: Codec,
    max: u64,
    window: Box<[u8]>,
    at: usize,
    filled: usize,
    /// Bytes before the window.
    before: u64,
}

impl<'a> Stream<'a> {
    fn new(reader: Reader<'a>, codec: Codec, max: usize) -> Self {
        Self { reader, codec, max: max as u64, window: vec![0; WINDOW].into_boxed_slice(), at: 0, filled: 0, before: 0 }
    }

    /// Makes at least one byte available; false at the end.
    fn fill(&mut self) -> Result<bool, Stop> {
        if self.at < self.filled {
            return Ok(true);
        }
        self.before += self.filled as u64;
        (self.at, self.filled) = (0, 0);
        self.filled = self
            .reader
            .read(&mut self.window)
            .map_err(|error| Stop::Batch(BatchError::from_decoder(self.codec, &error)))?;
        if self.before + self.filled as u64 > self.max {
            return Err(Stop::Batch(BatchError::Bomb(self.max as usize)));
        }
        Ok(self.filled > 0)
    }
}

impl Source for Stream<'_> {
    #[inline]
    fn byte(&mut self) -> Result<u8, Stop> {
        if !self.fill()? {
            return Err(SHORT);
        }
        let byte = self.window[self.at];
        self.at += 1;
        Ok(byte)
    }

    fn skip(&mut self, mut count: usize) -> Result<(), Stop> {
        while count > 0 {
            if !self.fill()? {
                return Err(SHORT);
            }
            let step = count.min(self.filled - self.at);
            self.at += step;
            count -= step;
        }
        Ok(())
    }

    fn position(&self) -> u64 {
        self.before + self.at as u64
    }

    fn at_end(&mut self) -> Result<bool, Stop> {
        Ok(!self.fill()?)
    }
}
