//! Section: the leader epochs of the log up to the end of the range.

use proto::ids::{LeaderEpoch, Offset};

use super::FormatError;
use super::cursor::{Cursor, Put, add};

const WHAT: &str = "leader epochs section";

/// The leader-epoch cache as it was at the end of the range, older epochs included: a replica that
/// starts at the end of the tier takes it as its own (KIP-405).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EpochHistory {
    /// (epoch, first offset), strictly ascending in the epoch, ascending in the offset.
    pub entries: Vec<(LeaderEpoch, Offset)>,
}

impl EpochHistory {
    /// The part of the history that covers `[base, end)`: the epoch `base` belongs to and all that
    /// begin before `end`.
    pub fn clipped(&self, base: Offset, end: Offset) -> Vec<(LeaderEpoch, Offset)> {
        let first = self.entries.partition_point(|(_, start)| *start <= base).saturating_sub(1);
        self.entries.iter().skip(first).filter(|(_, start)| *start < end).copied().collect()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        encode_epochs(&self.entries, out);
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new(bytes, WHAT);
        let entries = decode_epochs(&mut cursor)?;
        cursor.finish()?;
        Ok(Self { entries })
    }
}

/// Also the form in which a manifest entry holds its epochs.
pub(crate) fn encode_epochs(entries: &[(LeaderEpoch, Offset)], out: &mut Vec<u8>) {
    out.put_varint(entries.len() as u64);
    let mut last = (0, 0);
    for (epoch, offset) in entries {
        out.put_zigzag(i64::from(*epoch) - i64::from(last.0));
        out.put_zigzag(offset - last.1);
        last = (*epoch, *offset);
    }
}

pub(crate) fn decode_epochs(cursor: &mut Cursor<'_>) -> Result<Vec<(LeaderEpoch, Offset)>, FormatError> {
    let count = cursor.count(2)?;
    let mut entries: Vec<(LeaderEpoch, Offset)> = Vec::with_capacity(count);
    let mut last = (0i32, 0i64);
    for _ in 0..count {
        let epoch = add(i64::from(last.0), cursor.zigzag()?, WHAT)?;
        let epoch = i32::try_from(epoch).map_err(|_| cursor.invalid())?;
        let offset = add(last.1, cursor.zigzag()?, WHAT)?;
        if !entries.is_empty() && (epoch <= last.0 || offset < last.1) {
            return Err(cursor.invalid());
        }
        last = (epoch, offset);
        entries.push(last);
    }
    Ok(entries)
}
