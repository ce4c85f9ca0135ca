//! Records one by one, look-up by timestamp, and control records.

use std::borrow::Cow;
use std::io::Read;

use super::codec::{Codec, Limited, Reader};
use super::error::{BatchError, RecordFault};
use super::header::{BatchHeader, BatchRef, NO_TIMESTAMP, TimestampType};
use super::varint::{unzigzag32, unzigzag64};
use super::walk::walk;
use crate::ids::{Millis, Offset};

/// One record; key, value and headers borrow from the decompressed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Unix ms, or [`NO_TIMESTAMP`]; the broker's append time where the batch says so.
    pub timestamp: Millis,
    /// Its sequence number, or -1.
    pub sequence: i32,
    /// Key, null or bytes.
    pub key: Option<&'a [u8]>,
    /// Value, null or bytes.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order.
    pub headers: Headers<'a>,
}

/// The headers of one record: an iterator of `(key, value)`. They were checked when the record was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: usize,
}

impl Headers<'_> {
    /// How many are left.
    pub fn len(&self) -> usize {
        self.left
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut cursor = Cursor(self.rest);
        let header = cursor.header().ok()?;
        self.rest = cursor.0;
        Some(header)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// The decompressed records of one batch.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    header: BatchHeader,
    body: Cow<'a, [u8]>,
}

impl<'a> Records<'a> {
    /// Decompresses the records of `batch`, at most `max_uncompressed` bytes of them.
    ///
    /// # Errors
    /// [`BatchError::Bomb`] when there is more, [`BatchError::Compression`] when it is malformed.
    pub fn new(batch: &BatchRef<'a>, max_uncompressed: usize) -> Result<Self, BatchError> {
        let codec = batch.header.codec()?;
        let body = if codec == Codec::None {
            Cow::Borrowed(batch.body())
        } else {
            let mut raw = Vec::new();
            Limited::new(Reader::new(codec, batch.body(), max_uncompressed)?, max_uncompressed)
                .read_to_end(&mut raw)
                .map_err(|error| BatchError::from_decoder(codec, &error))?;
            Cow::Owned(raw)
        };
        Ok(Self { header: batch.header, body })
    }

    /// The records in order. After an error the iterator ends.
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter {
            header: &self.header,
            cursor: Cursor(&self.body),
            next: 0,
            count: u32::try_from(self.header.record_count).unwrap_or(0),
        }
    }
}

impl<'a> IntoIterator for &'a Records<'_> {
    type Item = Result<Record<'a>, BatchError>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Iterator over the records of a batch; see [`Records::iter`].
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    header: &'a BatchHeader,
    cursor: Cursor<'a>,
    next: u32,
    count: u32,
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.count {
            return None;
        }
        let index = self.next;
        let record = self.cursor.record(self.header).map_err(|why| BatchError::Record { index, why });
        self.next = if record.is_ok() { index + 1 } else { self.count };
        Some(record)
    }
}

/// Calls `visit` with each record of `batch`, which is decompressed to at most `max_uncompressed` bytes.
///
/// # Errors
/// As [`Records::new`], or the first record that is malformed.
pub fn for_each_record(
    batch: &BatchRef<'_>,
    max_uncompressed: usize,
    mut visit: impl FnMut(Record<'_>),
) -> Result<(), BatchError> {
    for record in &Records::new(batch, max_uncompressed)? {
        visit(record?);
    }
    Ok(())
}

/// The first record of `batch` whose timestamp is at or after `at` (Unix ms): its offset and timestamp.
///
/// # Errors
/// When the records cannot be read.
pub fn find_timestamp(
    batch: &BatchRef<'_>,
    at: Millis,
    max_uncompressed: usize,
) -> Result<Option<(Offset, Millis)>, BatchError> {
    let header = &batch.header;
    if header.max_timestamp < at {
        return Ok(None);
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Ok(Some((header.base_offset, header.max_timestamp)));
    }
    first_where(batch, max_uncompressed, |timestamp| timestamp >= at)
}

/// The largest timestamp of `batch` (Unix ms) and the first offset that has it; `None` when no record has a
/// timestamp. The header's max timestamp is believed: it was checked before the batch was appended.
///
/// # Errors
/// When the records cannot be read.
pub fn max_timestamp_and_offset(
    batch: &BatchRef<'_>,
    max_uncompressed: usize,
) -> Result<Option<(Millis, Offset)>, BatchError> {
    let header = &batch.header;
    let max = header.max_timestamp;
    if max == NO_TIMESTAMP {
        return Ok(None);
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Ok(Some((max, header.base_offset)));
    }
    let found = first_where(batch, max_uncompressed, |timestamp| timestamp == max)?;
    Ok(found.map(|(offset, timestamp)| (timestamp, offset)))
}

fn first_where(
    batch: &BatchRef<'_>,
    max_uncompressed: usize,
    wanted: impl Fn(Millis) -> bool,
) -> Result<Option<(Offset, Millis)>, BatchError> {
    let header = &batch.header;
    let mut found = None;
    walk(batch, max_uncompressed, |record| {
        let timestamp = header.base_timestamp.saturating_add(record.timestamp_delta);
        if found.is_none() && wanted(timestamp) {
            let offset = header.base_offset.saturating_add(i64::from(record.offset_delta));
            found = Some((offset, timestamp));
        }
        Ok(())
    })?;
    Ok(found)
}

/// What a control batch says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlRecord {
    /// The producer's transaction was aborted.
    Abort {
        /// Epoch of the transaction coordinator that wrote it.
        coordinator_epoch: i32,
    },
    /// The producer's transaction was committed.
    Commit {
        /// Epoch of the transaction coordinator that wrote it.
        coordinator_epoch: i32,
    },
    /// Another type, such as those of Kafka's own quorum; its number.
    Other(i16),
}

/// Reads the control record of `batch`; `None` when it is not a control batch or holds none that can be read.
///
/// # Errors
/// When the records cannot be read.
pub fn control_record(batch: &BatchRef<'_>) -> Result<Option<ControlRecord>, BatchError> {
    /// No control batch comes near this.
    const MAX: usize = 64 * 1024;
    if !batch.header.is_control() {
        return Ok(None);
    }
    let records = Records::new(batch, MAX)?;
    let Some(record) = records.iter().next() else {
        return Ok(None);
    };
    let record = record?;
    Ok(record.key.and_then(|key| ControlRecord::parse(key, record.value)))
}

impl ControlRecord {
    /// Reads key `{version i16, type i16}` and, of a transaction marker, value `{version i16, epoch i32}`.
    fn parse(key: &[u8], value: Option<&[u8]>) -> Option<Self> {
        let kind = i16::from_be_bytes(*key.get(2..)?.first_chunk()?);
        let epoch = || Some(i32::from_be_bytes(*value?.get(2..)?.first_chunk()?));
        match kind {
            0 => epoch().map(|coordinator_epoch| Self::Abort { coordinator_epoch }),
            1 => epoch().map(|coordinator_epoch| Self::Commit { coordinator_epoch }),
            other => Some(Self::Other(other)),
        }
    }
}

/// Takes fields off the front of a slice.
#[derive(Debug, Clone, Copy)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn record(&mut self, header: &BatchHeader) -> Result<Record<'a>, RecordFault> {
        let length = self.length()?;
        let mut body = Cursor(self.take(length)?);
        body.take(1)?; // attributes, unused in format 2
        let timestamp_delta = body.varlong()?;
        let offset_delta = body.varint()?;
        let key = body.nullable()?;
        let value = body.nullable()?;
        let headers = Headers { left: body.length()?, rest: body.0 };
        for _ in 0..headers.left {
            body.header()?;
        }
        if !body.0.is_empty() {
            return Err(RecordFault::Length);
        }
        let timestamp = match header.timestamp_type() {
            TimestampType::CreateTime => {
                header.base_timestamp.checked_add(timestamp_delta).ok_or(RecordFault::Timestamp)?
            }
            TimestampType::LogAppendTime => header.max_timestamp,
        };
        let sequence = match header.base_sequence {
            none if none < 0 => none,
            base => super::add_sequence(base, offset_delta),
        };
        Ok(Record {
            offset: header.base_offset.saturating_add(i64::from(offset_delta)),
            timestamp,
            sequence,
            key,
            value,
            headers,
        })
    }

    fn header(&mut self) -> Result<(&'a [u8], Option<&'a [u8]>), RecordFault> {
        let length = self.length()?;
        Ok((self.take(length)?, self.nullable()?))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], RecordFault> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(RecordFault::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn length(&mut self) -> Result<usize, RecordFault> {
        usize::try_from(self.varint()?).map_err(|_| RecordFault::Negative)
    }

    fn nullable(&mut self) -> Result<Option<&'a [u8]>, RecordFault> {
        match usize::try_from(self.varint()?) {
            Ok(length) => self.take(length).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn varint(&mut self) -> Result<i32, RecordFault> {
        let raw = self.raw(5)?;
        // Bits beyond 32 are dropped, as in Kafka's reader.
        Ok(unzigzag32(raw as u32))
    }

    fn varlong(&mut self) -> Result<i64, RecordFault> {
        self.raw(10).map(unzigzag64)
    }

    fn raw(&mut self, most: u32) -> Result<u64, RecordFault> {
        let mut raw = 0;
        for place in 0..most {
            let (&byte, rest) = self.0.split_first().ok_or(RecordFault::Short)?;
            self.0 = rest;
            raw |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Ok(raw);
            }
        }
        Err(RecordFault::Varint)
    }
}
