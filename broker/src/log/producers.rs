//! What the log remembers of idempotent and transactional producers (Kafka's
//! `ProducerStateManager`, KIP-98, KIP-360, KIP-890).
//!
//! A check ([`Producers::check`]) never changes anything; [`Producers::apply`] folds in a batch that
//! is in the log and never fails, so that replaying the log gives the state of whoever wrote it.
//! An unknown producer may start at any sequence: its state may have expired, or lie in a part of
//! the log that was deleted, and refusing it (UNKNOWN_PRODUCER_ID before KIP-360) would lose data.

use std::collections::{BTreeMap, VecDeque};

use proto::ids::{Millis, Offset};
use proto::records::{ControlRecord, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, add_sequence};

use crate::log::batch::BatchMeta;
use crate::partition::types::{AppendError, Origin};

/// Batches remembered per producer: as many as a client may have in flight.
pub const REMEMBERED_BATCHES: usize = 5;

/// One batch a producer sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentBatch {
    /// Sequence of the last record.
    pub last_sequence: i32,
    /// Offset of the last record.
    pub last_offset: Offset,
    /// Records in the batch less one.
    pub offset_delta: i32,
    /// Greatest timestamp in the batch, or its log append time.
    pub timestamp: Millis,
}

impl SentBatch {
    /// Sequence of the first record.
    pub const fn first_sequence(&self) -> i32 {
        sequence_back(self.last_sequence, self.offset_delta)
    }

    /// Offset of the first record.
    pub const fn first_offset(&self) -> Offset {
        self.last_offset - self.offset_delta as i64
    }
}

/// State of one producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// Current epoch, [`NO_PRODUCER_EPOCH`] before the first batch.
    pub epoch: i16,
    /// Epoch of the transaction coordinator that wrote the last marker, -1 if none did.
    pub coordinator_epoch: i32,
    /// When it last wrote, by the clock of this broker.
    pub last_seen_ms: Millis,
    /// First offset of the open transaction, if one is open.
    pub txn_first_offset: Option<Offset>,
    /// Last batches of the current epoch, oldest first, at most [`REMEMBERED_BATCHES`].
    pub batches: VecDeque<SentBatch>,
}

impl Producer {
    fn new() -> Self {
        Self {
            epoch: NO_PRODUCER_EPOCH,
            coordinator_epoch: -1,
            last_seen_ms: 0,
            txn_first_offset: None,
            batches: VecDeque::with_capacity(REMEMBERED_BATCHES),
        }
    }

    fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    fn enter_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.batches.clear();
            self.epoch = epoch;
        }
    }
}

/// A transaction that was aborted: its records are skipped by readers of committed data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTxn {
    /// The producer.
    pub producer_id: i64,
    /// First offset of the transaction.
    pub first_offset: Offset,
    /// Offset of its abort marker.
    pub last_offset: Offset,
    /// Last stable offset once this transaction was decided.
    pub last_stable: Offset,
}

/// A transaction whose marker is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecidedTxn {
    /// First offset of the transaction.
    pub first_offset: Offset,
    /// Offset of its marker.
    pub last_offset: Offset,
}

/// What a batch may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Append it.
    New,
    /// It is in the log already, here.
    Duplicate(SentBatch),
}

/// Producers of one partition, their open transactions and the transactions that were aborted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Producers {
    known: BTreeMap<i64, Producer>,
    /// First offset → producer, of open transactions.
    open: BTreeMap<Offset, i64>,
    /// Decided, but the marker is not below the high watermark yet; ascending by first offset.
    unreplicated: BTreeMap<Offset, DecidedTxn>,
    /// Ascending by marker offset.
    aborted: VecDeque<AbortedTxn>,
}

impl Producers {
    /// Whether a client's or coordinator's batch may be appended. `batch` has an id, or is nobody's
    /// (then it is new).
    pub fn check(&self, batch: &BatchMeta, origin: Origin) -> Result<Verdict, AppendError> {
        if batch.producer_id == NO_PRODUCER_ID || origin == Origin::Replica {
            return Ok(Verdict::New);
        }
        let Some(known) = self.known.get(&batch.producer_id) else {
            return Ok(Verdict::New);
        };
        if let Some(original) = find_duplicate(known, batch) {
            return Ok(Verdict::Duplicate(original));
        }
        if batch.producer_epoch < known.epoch {
            return Err(AppendError::InvalidProducerEpoch {
                producer_id: batch.producer_id,
                current: known.epoch,
                got: batch.producer_epoch,
            });
        }
        if let Some(control) = batch.control {
            return match coordinator_epoch(control) {
                Some(epoch) if epoch < known.coordinator_epoch => {
                    Err(AppendError::CoordinatorFenced { current: known.coordinator_epoch })
                }
                _ => Ok(Verdict::New),
            };
        }
        if origin == Origin::Client {
            check_sequence(known, batch)?;
        }
        if known.txn_first_offset.is_some() && !batch.transactional {
            return Err(AppendError::InvalidTxnState { producer_id: batch.producer_id });
        }
        Ok(Verdict::New)
    }

    /// Folds in a batch that lies at `base_offset`; `now_ms` is this broker's clock. Answers the
    /// aborted transaction if the batch is an abort marker that ends one.
    pub fn apply(&mut self, batch: &BatchMeta, base_offset: Offset, now_ms: Millis) -> Option<AbortedTxn> {
        if batch.producer_id == NO_PRODUCER_ID {
            return None;
        }
        let last_offset = base_offset + i64::from(batch.last_offset_delta);
        if let Some(control) = batch.control {
            return self.decide(batch, control, base_offset, now_ms);
        }
        let known = self.known.entry(batch.producer_id).or_insert_with(Producer::new);
        known.enter_epoch(batch.producer_epoch);
        known.last_seen_ms = known.last_seen_ms.max(now_ms);
        if batch.base_sequence != NO_SEQUENCE {
            if known.batches.len() == REMEMBERED_BATCHES {
                known.batches.pop_front();
            }
            known.batches.push_back(SentBatch {
                last_sequence: add_sequence(batch.base_sequence, batch.last_offset_delta),
                last_offset,
                offset_delta: batch.last_offset_delta,
                timestamp: batch.max_timestamp,
            });
        }
        if batch.transactional && known.txn_first_offset.is_none() {
            known.txn_first_offset = Some(base_offset);
            self.open.insert(base_offset, batch.producer_id);
        }
        None
    }

    fn decide(
        &mut self,
        batch: &BatchMeta,
        control: ControlRecord,
        offset: Offset,
        now_ms: Millis,
    ) -> Option<AbortedTxn> {
        let (abort, coordinator_epoch) = match control {
            ControlRecord::Abort { coordinator_epoch } => (true, coordinator_epoch),
            ControlRecord::Commit { coordinator_epoch } => (false, coordinator_epoch),
            ControlRecord::Other(_) => return None,
        };
        let known = self.known.entry(batch.producer_id).or_insert_with(Producer::new);
        known.enter_epoch(batch.producer_epoch);
        known.coordinator_epoch = coordinator_epoch;
        known.last_seen_ms = known.last_seen_ms.max(now_ms);
        let first_offset = known.txn_first_offset.take()?;
        self.open.remove(&first_offset);
        self.unreplicated.insert(first_offset, DecidedTxn { first_offset, last_offset: offset });
        if !abort {
            return None;
        }
        let aborted = AbortedTxn {
            producer_id: batch.producer_id,
            first_offset,
            last_offset: offset,
            last_stable: self.open.keys().next().map_or(offset + 1, |first| *first),
        };
        self.aborted.push_back(aborted);
        Some(aborted)
    }

    /// Tells that everything below `high_watermark` is replicated.
    pub fn replicated(&mut self, high_watermark: Offset) {
        if !self.unreplicated.is_empty() {
            self.unreplicated.retain(|_, txn| txn.last_offset >= high_watermark);
        }
    }

    /// First offset of a transaction that is open, or decided above the high watermark.
    pub fn first_unstable(&self) -> Option<Offset> {
        let open = self.open.keys().next();
        let decided = self.unreplicated.keys().next();
        match (open, decided) {
            (Some(a), Some(b)) => Some(*a.min(b)),
            (a, b) => a.or(b).copied(),
        }
    }

    /// Open transactions: (first offset, producer), ascending.
    pub fn open_txns(&self) -> impl Iterator<Item = (Offset, i64)> + '_ {
        self.open.iter().map(|(first, producer)| (*first, *producer))
    }

    /// Aborted transactions that overlap `[from, to)`, wherever their marker is, ascending by
    /// marker.
    pub fn aborted_in(&self, from: Offset, to: Offset) -> Vec<AbortedTxn> {
        let start = self.aborted.partition_point(|txn| txn.last_offset < from);
        self.aborted.iter().skip(start).filter(|txn| txn.first_offset < to).copied().collect()
    }

    /// Forgets producers without an open transaction that were silent for `expiration_ms`; answers
    /// how many.
    pub fn expire(&mut self, now_ms: Millis, expiration_ms: Millis) -> usize {
        let before = self.known.len();
        self.known.retain(|_, producer| {
            producer.txn_first_offset.is_some() || now_ms.saturating_sub(producer.last_seen_ms) < expiration_ms
        });
        before - self.known.len()
    }

    /// Forgets aborted transactions that end below `local_start`.
    pub fn truncate_head(&mut self, local_start: Offset) {
        while self.aborted.front().is_some_and(|txn| txn.last_offset < local_start) {
            self.aborted.pop_front();
        }
    }

    /// All producers, ascending by id.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.known.iter().map(|(id, producer)| (*id, producer))
    }

    /// One producer.
    pub fn get(&self, producer_id: i64) -> Option<&Producer> {
        self.known.get(&producer_id)
    }

    /// How many producers are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no producer is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Transactions aborted, ascending by marker.
    pub fn aborted(&self) -> impl ExactSizeIterator<Item = &AbortedTxn> {
        self.aborted.iter()
    }

    /// Rebuilds the state from what a snapshot holds.
    pub fn restore(
        known: BTreeMap<i64, Producer>,
        unreplicated: Vec<DecidedTxn>,
        aborted: VecDeque<AbortedTxn>,
    ) -> Self {
        let open =
            known.iter().filter_map(|(id, producer)| producer.txn_first_offset.map(|first| (first, *id))).collect();
        let unreplicated = unreplicated.into_iter().map(|txn| (txn.first_offset, txn)).collect();
        Self { known, open, unreplicated, aborted }
    }

    /// Transactions decided above the high watermark, ascending by first offset.
    pub fn unreplicated(&self) -> impl ExactSizeIterator<Item = &DecidedTxn> {
        self.unreplicated.values()
    }
}

const fn coordinator_epoch(control: ControlRecord) -> Option<i32> {
    match control {
        ControlRecord::Abort { coordinator_epoch } | ControlRecord::Commit { coordinator_epoch } => {
            Some(coordinator_epoch)
        }
        ControlRecord::Other(_) => None,
    }
}

fn find_duplicate(known: &Producer, batch: &BatchMeta) -> Option<SentBatch> {
    if batch.base_sequence == NO_SEQUENCE || known.epoch != batch.producer_epoch {
        return None;
    }
    let last = add_sequence(batch.base_sequence, batch.last_offset_delta);
    known
        .batches
        .iter()
        .find(|sent| sent.first_sequence() == batch.base_sequence && sent.last_sequence == last)
        .copied()
}

fn check_sequence(known: &Producer, batch: &BatchMeta) -> Result<(), AppendError> {
    let last = known.last_sequence();
    let follows = if known.epoch == NO_PRODUCER_EPOCH {
        true
    } else if batch.producer_epoch != known.epoch {
        batch.base_sequence == 0
    } else {
        // After a bump by a marker nothing of this epoch is remembered: it starts at 0 (KIP-360).
        batch.base_sequence == add_sequence(last, 1)
    };
    if follows {
        Ok(())
    } else {
        Err(AppendError::OutOfOrderSequence { producer_id: batch.producer_id, last, got: batch.base_sequence })
    }
}

const fn sequence_back(sequence: i32, by: i32) -> i32 {
    if sequence < by { i32::MAX - (by - sequence) + 1 } else { sequence - by }
}

#[cfg(test)]
#[path = "producers/tests.rs"]
mod tests;
