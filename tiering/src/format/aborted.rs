//! Section: aborted transactions that overlap the range.

use proto::ids::Offset;

use super::FormatError;
use super::cursor::{Cursor, Put, add};

const WHAT: &str = "aborted transactions section";

/// One aborted transaction. It is listed in every object it overlaps, wherever its marker lies, so that
/// a `read_committed` fetch needs no other object than those it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AbortedTxn {
    /// First offset of the transaction.
    pub first_offset: Offset,
    /// Offset of its abort marker. Inclusive.
    pub last_offset: Offset,
    /// The producer.
    pub producer_id: i64,
}

pub(super) fn encode(aborted: &[AbortedTxn], out: &mut Vec<u8>) {
    out.put_varint(aborted.len() as u64);
    let mut first_offset = 0;
    for txn in aborted {
        out.put_zigzag(txn.first_offset - first_offset);
        out.put_varint((txn.last_offset - txn.first_offset) as u64);
        out.put_varint(txn.producer_id as u64);
        first_offset = txn.first_offset;
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Vec<AbortedTxn>, FormatError> {
    let mut cursor = Cursor::new(bytes, WHAT);
    let count = cursor.count(3)?;
    let mut aborted = Vec::with_capacity(count);
    let mut first_offset = 0i64;
    for _ in 0..count {
        first_offset = add(first_offset, cursor.zigzag()?, WHAT)?;
        let length = i64::try_from(cursor.varint()?).map_err(|_| cursor.invalid())?;
        aborted.push(AbortedTxn {
            first_offset,
            last_offset: add(first_offset, length, WHAT)?,
            producer_id: cursor.varint()? as i64,
        });
    }
    cursor.finish()?;
    Ok(aborted)
}
