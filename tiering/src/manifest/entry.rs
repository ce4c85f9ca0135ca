//! How an entry is written in roots and leaves: offsets, timestamps and positions as small differences.

use proto::ids::{TopicId, TopicPartition};
use proto::metadata::{ObjectFormat, ObjectKey, ObjectRef, TierPoint};

use super::Entry;
use crate::format::FormatError;
use crate::format::cursor::{Cursor, Put, add, add_u64};
use crate::format::epochs::{decode_epochs, encode_epochs};

const WHAT: &str = "manifest entry";
/// The least that an entry takes: what a count of entries is checked against.
pub(super) const MIN_ENTRY_BYTES: usize = 28;

const FLAG_ABORTED: u8 = 1;
/// The object lies under another partition's prefix, or begins at another offset.
const FLAG_SHARED: u8 = 2;

pub(super) fn encode(entry: &Entry, owner: TopicPartition, last_end: i64, out: &mut Vec<u8>) {
    let key = &entry.object.key;
    let shared = key.owner != owner || key.base_offset != entry.base;
    out.push(entry.format as u8);
    out.push(u8::from(entry.has_aborted) * FLAG_ABORTED + u8::from(shared) * FLAG_SHARED);
    out.put_zigzag(entry.base.wrapping_sub(last_end));
    out.put_varint(entry.end.wrapping_sub(entry.base) as u64);
    out.put_zigzag(entry.max_timestamp);
    if shared {
        out.put_be(key.owner.topic.0.into_bytes());
        out.put_be(key.owner.partition.to_be_bytes());
        out.put_be(key.base_offset.to_be_bytes());
    }
    out.put_zigzag(i64::from(key.leader_epoch));
    out.put_be(key.uuid.into_bytes());
    out.put_varint(entry.object.start);
    out.put_varint(entry.object.length);
    out.put_varint(entry.footer_position);
    encode_epochs(&entry.epochs, out);
    out.put_varint(entry.points.len() as u64);
    let (mut offset, mut timestamp, mut position) = (entry.base, entry.max_timestamp, 0u64);
    for point in &entry.points {
        out.put_zigzag(point.offset.wrapping_sub(offset));
        out.put_zigzag(point.timestamp.wrapping_sub(timestamp));
        out.put_varint(point.position.wrapping_sub(position));
        (offset, timestamp, position) = (point.offset, point.timestamp, point.position);
    }
}

pub(super) fn decode(cursor: &mut Cursor<'_>, owner: TopicPartition, last_end: i64) -> Result<Entry, FormatError> {
    let format = match cursor.u8()? {
        1 => ObjectFormat::Segment,
        2 => ObjectFormat::Parquet,
        _ => return Err(cursor.invalid()),
    };
    let flags = cursor.u8()?;
    if flags & !(FLAG_ABORTED | FLAG_SHARED) != 0 {
        return Err(cursor.invalid());
    }
    let base = last_end.wrapping_add(cursor.zigzag()?);
    let length = i64::try_from(cursor.varint()?).map_err(|_| cursor.invalid())?;
    let end = add(base, length, WHAT)?;
    let max_timestamp = cursor.zigzag()?;
    let (owner, base_offset) = if flags & FLAG_SHARED == 0 {
        (owner, base)
    } else {
        let topic = TopicId(cursor.uuid()?);
        (TopicPartition::new(topic, cursor.i32()?), cursor.i64()?)
    };
    let leader_epoch = i32::try_from(cursor.zigzag()?).map_err(|_| cursor.invalid())?;
    let key = ObjectKey { owner, base_offset, leader_epoch, uuid: cursor.uuid()? };
    let object = ObjectRef { key, start: cursor.varint()?, length: cursor.varint()? };
    let footer_position = cursor.varint()?;
    let epochs = decode_epochs(cursor)?;
    let count = cursor.count(3)?;
    let mut points = Vec::with_capacity(count);
    let (mut offset, mut timestamp, mut position) = (base, max_timestamp, 0u64);
    for _ in 0..count {
        offset = offset.wrapping_add(cursor.zigzag()?);
        timestamp = timestamp.wrapping_add(cursor.zigzag()?);
        position = add_u64(position, cursor.varint()?, WHAT)?;
        points.push(TierPoint { offset, timestamp, position });
    }
    Ok(Entry {
        base,
        end,
        max_timestamp,
        object,
        footer_position,
        epochs,
        format,
        has_aborted: flags & FLAG_ABORTED != 0,
        points,
    })
}

pub(super) fn encode_all(entries: &[Entry], owner: TopicPartition, out: &mut Vec<u8>) {
    out.put_varint(entries.len() as u64);
    let mut last_end = 0;
    for entry in entries {
        encode(entry, owner, last_end, out);
        last_end = entry.end;
    }
}

pub(super) fn decode_all(cursor: &mut Cursor<'_>, owner: TopicPartition) -> Result<Vec<Entry>, FormatError> {
    let count = cursor.count(MIN_ENTRY_BYTES)?;
    let mut entries = Vec::with_capacity(count.min(1024));
    let mut last_end = 0;
    for _ in 0..count {
        let entry = decode(cursor, owner, last_end)?;
        last_end = entry.end;
        entries.push(entry);
    }
    Ok(entries)
}
