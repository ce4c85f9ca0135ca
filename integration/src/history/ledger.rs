//! What producers were promised, and what a log that is read back may therefore hold.
//!
//! Every batch carries a number of its own as its base timestamp, so that it is recognized wherever it turns up. Batches are compared as
//! bytes, but for base offset and leader epoch, which the broker sets.

use bytes::Bytes;
use proto::ids::{Millis, Offset};
use proto::records::{BatchHeader, batches};
use std::collections::HashMap;

/// First byte behind the base offset, and the leader epoch's place: what the broker may change.
const AFTER_BASE_OFFSET: usize = 8;
const LEADER_EPOCH: std::ops::Range<usize> = 12..16;

/// Number of a batch: its base timestamp.
pub type BatchId = Millis;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// No answer: it may be there once, or not at all.
    Unknown,
    /// Acknowledged, or read, at this base offset: it stays there.
    Kept(Offset),
}

#[derive(Debug)]
struct Sent {
    bytes: Bytes,
    producer: usize,
    /// The idempotent producer will send it again.
    will_retry: bool,
    fate: Fate,
}

/// One partition's promises.
#[derive(Debug, Default)]
pub struct Ledger {
    sent: HashMap<BatchId, Sent>,
    /// DeleteRecords was acknowledged up to here.
    start_at_least: Offset,
    /// DeleteRecords was asked for up to here.
    start_at_most: Offset,
    /// All below was readable once.
    read_to: Offset,
}

/// Reads a partition back against its ledger, batch by batch.
#[derive(Debug)]
pub struct Audit {
    log_start: Offset,
    next: Offset,
    /// Newest batch of each producer so far: they keep their order.
    newest: HashMap<usize, BatchId>,
    found: HashMap<BatchId, Offset>,
}

impl Ledger {
    /// A batch is about to be sent (again).
    pub fn sending(&mut self, id: BatchId, producer: usize, bytes: &Bytes, will_retry: bool) {
        let sent = Sent { bytes: bytes.clone(), producer, will_retry, fate: Fate::Unknown };
        self.sent.entry(id).or_insert(sent);
    }

    /// A batch was acknowledged at `offset`.
    ///
    /// # Errors
    /// If it was never sent, or lies elsewhere.
    pub fn acknowledged(&mut self, id: BatchId, offset: Offset) -> Result<(), String> {
        let sent = self.sent.get_mut(&id).ok_or_else(|| format!("batch {id} was acknowledged but never sent"))?;
        if let Fate::Kept(before) = sent.fate
            && before != offset
        {
            return Err(format!("batch {id} was acknowledged at {offset}, but lies at {before}"));
        }
        sent.fate = Fate::Kept(offset);
        sent.will_retry = false;
        Ok(())
    }

    /// DeleteRecords up to `offset` is about to be asked for.
    pub fn deleting(&mut self, offset: Offset) {
        self.start_at_most = self.start_at_most.max(offset);
    }

    /// DeleteRecords answered that the log starts at `offset`.
    pub fn deleted(&mut self, offset: Offset) {
        self.start_at_least = self.start_at_least.max(offset);
    }

    /// How many batches are acknowledged or were read.
    pub fn kept(&self) -> usize {
        self.sent.values().filter(|sent| sent.fate != Fate::Unknown).count()
    }

    /// Begins to read the partition, whose log start and end the broker names.
    ///
    /// # Errors
    /// If they cannot be.
    pub fn audit(&self, log_start: Offset, end: Offset) -> Result<Audit, String> {
        if log_start < self.start_at_least || log_start > self.start_at_most {
            let (least, most) = (self.start_at_least, self.start_at_most);
            return Err(format!("the log starts at {log_start}, not in {least}..={most}"));
        }
        if end < self.read_to {
            return Err(format!("the log ends at {end}, but was read up to {} before", self.read_to));
        }
        Ok(Audit { log_start, next: log_start, newest: HashMap::new(), found: HashMap::new() })
    }

    /// The partition was read from log start to end: nothing may be missing.
    ///
    /// # Errors
    /// What is missing.
    pub fn close(&mut self, audit: Audit) -> Result<(), String> {
        for (id, sent) in &self.sent {
            if let Fate::Kept(offset) = sent.fate
                && offset >= audit.log_start
                && !audit.found.contains_key(id)
            {
                return Err(format!("batch {id}, kept at {offset}, is not there"));
            }
        }
        self.read_to = audit.next;
        for (id, offset) in audit.found {
            if let Some(sent) = self.sent.get_mut(&id) {
                sent.fate = Fate::Kept(offset);
            }
        }
        // Of the others, only those that are sent again may still turn up.
        self.sent.retain(|_, sent| sent.fate != Fate::Unknown || sent.will_retry);
        Ok(())
    }
}

impl Audit {
    /// Where to read next.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// Takes what a fetch brought: whole batches from `next` on.
    ///
    /// # Errors
    /// What of it cannot be.
    pub fn take(&mut self, ledger: &Ledger, records: &[u8]) -> Result<(), String> {
        for batch in batches(records) {
            let batch = batch.map_err(|error| format!("at offset {}: {error}", self.next))?;
            self.take_one(ledger, &batch.header, batch.bytes)?;
        }
        Ok(())
    }

    fn take_one(&mut self, ledger: &Ledger, header: &BatchHeader, bytes: &[u8]) -> Result<(), String> {
        let (base, id) = (header.base_offset, header.base_timestamp);
        // The first batch may begin before the log start, which need not be a batch's first offset.
        let straddles =
            self.found.is_empty() && base < self.log_start && base + i64::from(header.last_offset_delta) >= self.next;
        if base != self.next && !straddles {
            return Err(format!("a batch at {base} where {} was due", self.next));
        }
        let sent = ledger.sent.get(&id).ok_or_else(|| format!("batch {id} at {base} is not what was sent or kept"))?;
        if let Fate::Kept(kept) = sent.fate
            && kept != base
        {
            return Err(format!("batch {id} lies at {base}, but was kept at {kept}"));
        }
        if let Some(before) = self.found.insert(id, base) {
            return Err(format!("batch {id} is there twice, at {before} and {base}"));
        }
        if let Some(newest) = self.newest.insert(sent.producer, id)
            && newest > id
        {
            return Err(format!("batch {id} at {base} lies behind {newest}, which was sent later"));
        }
        if !same(&sent.bytes, bytes) {
            return Err(format!("batch {id} at {base} has other bytes than were sent"));
        }
        self.next = base + i64::from(header.last_offset_delta) + 1;
        Ok(())
    }
}

/// Whether two batches differ at most in base offset and leader epoch.
fn same(sent: &[u8], read: &[u8]) -> bool {
    sent.len() == read.len()
        && sent.get(AFTER_BASE_OFFSET..LEADER_EPOCH.start) == read.get(AFTER_BASE_OFFSET..LEADER_EPOCH.start)
        && sent.get(LEADER_EPOCH.end..) == read.get(LEADER_EPOCH.end..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::records::{BatchBuilder, patch_base_offset_and_epoch};

    fn batch(id: BatchId, records: usize) -> Bytes {
        let mut builder = BatchBuilder::new();
        for record in 0..records {
            builder.append(id, None, Some(format!("{id}/{record}").as_bytes()), &[]);
        }
        builder.build()
    }

    fn stored(at: Offset, batch: &Bytes) -> Vec<u8> {
        let mut bytes = batch.to_vec();
        patch_base_offset_and_epoch(&mut bytes, at, 7);
        bytes
    }

    fn audit(ledger: &mut Ledger, end: Offset, log: &[&[u8]]) -> Result<(), String> {
        let mut audit = ledger.audit(0, end)?;
        audit.take(ledger, &log.concat())?;
        ledger.close(audit)
    }

    fn two_sent() -> (Ledger, Bytes, Bytes) {
        let mut ledger = Ledger::default();
        let (a, b) = (batch(1, 2), batch(2, 1));
        ledger.sending(1, 0, &a, false);
        ledger.sending(2, 0, &b, false);
        ledger.acknowledged(1, 0).expect("first answer");
        (ledger, a, b)
    }

    #[test]
    fn what_was_promised_passes_with_and_without_the_unanswered() {
        let (mut ledger, a, b) = two_sent();
        assert_eq!(audit(&mut ledger, 3, &[&stored(0, &a), &stored(2, &b)]), Ok(()));
        let (mut ledger, a, b) = two_sent();
        assert_eq!(audit(&mut ledger, 2, &[&stored(0, &a)]), Ok(()));
        // What was not there is not sent again: it may not appear later.
        assert!(audit(&mut ledger, 3, &[&stored(0, &a), &stored(2, &b)]).is_err());
    }

    #[test]
    fn losses_doubles_gaps_other_bytes_and_wrong_orders_are_seen() {
        let (_, a, b) = two_sent();
        let mut other = stored(0, &a);
        *other.last_mut().expect("not empty") ^= 1;
        let logs: [&[&[u8]]; 6] = [
            &[],
            &[&stored(0, &b)],
            &[&stored(0, &a), &stored(2, &b), &stored(3, &b)],
            &[&stored(0, &a), &stored(3, &b)],
            &[&other],
            &[&stored(0, &b), &stored(1, &a)],
        ];
        for (number, log) in logs.into_iter().enumerate() {
            let (mut ledger, ..) = two_sent();
            assert!(audit(&mut ledger, 4, log).is_err(), "log {number}");
        }
    }
}
