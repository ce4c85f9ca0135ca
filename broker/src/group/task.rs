//! The task that owns a shard: loads it, feeds it with what is asked and with time, writes what it wants
//! written, and answers.
//!
//! What groups want written while one batch is on its way goes into the next, so that a write costs the
//! same for one group or hundreds. Acknowledgements are taken in the order of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use proto::host::{Clock, Entropy};
use proto::ids::{Millis, Offset};
use proto::records::{BatchBuilder, batches, for_each_record};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::core::{Command, Event, Now, Ticket, WriteId};
use super::log::GroupLog;
use super::records::GroupRecord;
use super::room::MemberRoom;
use super::shard::{Loader, Shard};
use super::types::{
    Commit, DeleteOffsetsAnswer, FetchedOffsets, GroupDescription, GroupError, GroupListing, Heartbeat, Join,
    JoinAnswer, LeaveAnswer, MemberRef, NamedPartition, OffsetsWanted, PerPartition, Sync, Synced,
};
use crate::config::GroupConfig;

/// What is asked of a shard.
pub(super) enum Ask {
    Join(String, Box<Join>, oneshot::Sender<JoinAnswer>),
    Sync(String, Box<Sync>, oneshot::Sender<Result<Synced, GroupError>>),
    Heartbeat(String, Heartbeat, oneshot::Sender<Result<(), GroupError>>),
    Leave(String, Vec<MemberRef>, oneshot::Sender<LeaveAnswer>),
    Commit(String, Commit, oneshot::Sender<PerPartition>),
    Fetch(String, OffsetsWanted, oneshot::Sender<FetchedOffsets>),
    DeleteOffsets(String, Vec<NamedPartition>, oneshot::Sender<DeleteOffsetsAnswer>),
    Delete(String, oneshot::Sender<Result<(), GroupError>>),
    Describe(String, oneshot::Sender<Option<GroupDescription>>),
    List(oneshot::Sender<Vec<GroupListing>>),
    TopicsDeleted(BTreeSet<String>),
}

/// Who waits for an answer.
enum Waiting {
    Join(oneshot::Sender<JoinAnswer>),
    Sync(oneshot::Sender<Result<Synced, GroupError>>),
    Heartbeat(oneshot::Sender<Result<(), GroupError>>),
    Leave(oneshot::Sender<LeaveAnswer>),
    Commit(oneshot::Sender<PerPartition>),
    DeleteOffsets(oneshot::Sender<DeleteOffsetsAnswer>),
    Delete(oneshot::Sender<Result<(), GroupError>>),
}

/// Asks taken up before what they want written is written.
const ASKS_AT_ONCE: usize = 256;
/// A batch is closed as soon as it holds this much.
const BATCH_BYTES: usize = 256 << 10;
/// What a record takes in a batch beside its key and value, at most.
const RECORD_BYTES: usize = 32;
/// What a batch takes beside its records.
const BATCH_HEADER_BYTES: usize = 61;
/// What may be appended and not acknowledged yet, in bytes, beside one batch (BOUNDED): while a partition has too few replicas in sync,
/// clients try again and again.
const UNACKNOWLEDGED_BYTES: usize = 4 << 20;
/// Bound on what a batch of ours may decompress to; they are not compressed, tools might write others.
const MAX_UNCOMPRESSED: usize = 64 << 20;

/// What a shard's task is made of.
pub(super) struct Parts {
    pub(super) partition: i32,
    pub(super) log: Arc<dyn GroupLog>,
    pub(super) config: GroupConfig,
    pub(super) room: MemberRoom,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
}

/// Something written together, and whose acknowledgement is awaited.
struct Flight {
    writes: Vec<(String, WriteId)>,
    /// Of the batch that was appended.
    bytes: usize,
    outcome: Result<(), GroupError>,
}

/// See the module.
pub(super) struct Task {
    parts: Parts,
    shard: Shard,
    asks: mpsc::Receiver<Ask>,
    waiting: BTreeMap<Ticket, Waiting>,
    next_ticket: Ticket,
    in_flight: FuturesOrdered<BoxFuture<'static, Flight>>,
    in_flight_bytes: usize,
    /// Wanted written, not appended yet.
    to_write: Vec<(String, WriteId, Vec<GroupRecord>)>,
    started: Instant,
    next_expiry: Instant,
}

impl Task {
    /// Loads the shard from its log; again and again, if it cannot be read.
    pub(super) async fn load(parts: Parts, asks: mpsc::Receiver<Ask>) -> Self {
        let started = Instant::now();
        let mut pause = Duration::from_millis(100);
        let loader = loop {
            match read_all(parts.log.as_ref()).await {
                Ok(loader) => break loader,
                Err(error) => {
                    tracing::error!(partition = parts.partition, %error, "groups cannot be loaded");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(10));
                }
            }
        };
        let next_expiry = started + interval(&parts.config);
        let room = parts.room.clone();
        let mut task = Self {
            parts,
            shard: Shard::new(room.clone()),
            asks,
            waiting: BTreeMap::new(),
            next_ticket: 0,
            in_flight: FuturesOrdered::new(),
            in_flight_bytes: 0,
            to_write: Vec::new(),
            started,
            next_expiry,
        };
        task.shard = loader.finish(task.now(), room);
        task
    }

    /// Runs until whoever asks is gone.
    pub(super) async fn run(mut self) {
        loop {
            let wake = self.wake_at();
            tokio::select! {
                biased;
                Some(flight) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    self.in_flight_bytes -= flight.bytes;
                    self.landed(flight.writes, flight.outcome);
                }
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.take(ask),
                    None => return,
                },
                () = tokio::time::sleep_until(wake) => {}
            }
            // What was asked first counts first, a heartbeat above all; but a queue that is never empty does not stop the clock.
            if Instant::now() >= wake {
                self.time_passed();
            }
            self.write().await;
        }
    }

    fn now(&self) -> Now {
        let tick = Millis::try_from(self.started.elapsed().as_millis()).unwrap_or(Millis::MAX);
        Now { tick, wall: self.parts.clock.now_ms() }
    }

    fn wake_at(&self) -> Instant {
        let deadline = self.shard.next_deadline().map(|at| {
            let since_start = Duration::from_millis(u64::try_from(at).unwrap_or(0));
            self.started + since_start
        });
        deadline.map_or(self.next_expiry, |deadline| deadline.min(self.next_expiry))
    }

    fn time_passed(&mut self) {
        for group in self.shard.due(self.now()) {
            self.event(&group, Event::Tick);
        }
        if Instant::now() >= self.next_expiry {
            self.next_expiry = Instant::now() + interval(&self.parts.config);
            for group in self.shard.ids() {
                self.event(&group, Event::Expire);
            }
        }
    }

    fn landed(&mut self, writes: Vec<(String, WriteId)>, outcome: Result<(), GroupError>) {
        for (group, id) in writes {
            self.event(&group, Event::Written { id, outcome });
        }
    }

    /// Takes one ask, and what else is there already.
    fn take(&mut self, first: Ask) {
        self.ask(first);
        for _ in 1..ASKS_AT_ONCE {
            match self.asks.try_recv() {
                Ok(ask) => self.ask(ask),
                Err(_) => return,
            }
        }
    }

    fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Join(group, join, answer) => {
                let ticket = self.ticket(Waiting::Join(answer));
                let fresh = self.parts.entropy.uuid();
                self.event(&group, Event::Join { ticket, join: *join, fresh });
            }
            Ask::Sync(group, sync, answer) => {
                let ticket = self.ticket(Waiting::Sync(answer));
                self.event(&group, Event::Sync { ticket, sync: *sync });
            }
            Ask::Heartbeat(group, heartbeat, answer) => {
                let ticket = self.ticket(Waiting::Heartbeat(answer));
                self.event(&group, Event::Heartbeat { ticket, heartbeat });
            }
            Ask::Leave(group, members, answer) => {
                let ticket = self.ticket(Waiting::Leave(answer));
                self.event(&group, Event::Leave { ticket, members });
            }
            Ask::Commit(group, commit, answer) => {
                let ticket = self.ticket(Waiting::Commit(answer));
                self.event(&group, Event::Commit { ticket, commit });
            }
            Ask::DeleteOffsets(group, partitions, answer) => {
                let ticket = self.ticket(Waiting::DeleteOffsets(answer));
                self.event(&group, Event::DeleteOffsets { ticket, partitions });
            }
            Ask::Delete(group, answer) => {
                let ticket = self.ticket(Waiting::Delete(answer));
                self.event(&group, Event::Delete { ticket });
            }
            // Whoever went away does not want to know.
            Ask::Fetch(group, wanted, answer) => drop(answer.send(self.shard.fetch(&group, wanted))),
            Ask::Describe(group, answer) => drop(answer.send(self.shard.describe(&group))),
            Ask::List(answer) => drop(answer.send(self.shard.list())),
            Ask::TopicsDeleted(topics) => {
                for group in self.shard.ids() {
                    self.event(&group, Event::TopicsDeleted(topics.clone()));
                }
            }
        }
    }

    fn ticket(&mut self, waiting: Waiting) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.insert(ticket, waiting);
        ticket
    }

    fn event(&mut self, group: &str, event: Event) {
        let now = self.now();
        for command in self.shard.on(&self.parts.config, now, group, event) {
            self.perform(group, command);
        }
    }

    fn perform(&mut self, group: &str, command: Command) {
        // A sender whose receiver is gone has nobody to tell.
        match command {
            Command::Write { id, records } => self.to_write.push((group.to_owned(), id, records)),
            Command::Joined(ticket, answer) => {
                if let Some(Waiting::Join(waiting)) = self.waiting.remove(&ticket) {
                    let _ = waiting.send(answer);
                }
            }
            Command::Synced(ticket, answer) => {
                if let Some(Waiting::Sync(waiting)) = self.waiting.remove(&ticket) {
                    let _ = waiting.send(answer);
                }
            }
            Command::Beaten(ticket, answer) => {
                if let Some(Waiting::Heartbeat(waiting)) = self.waiting.remove(&ticket) {
                    let _ = waiting.send(answer);
                }
            }
            Command::Left(ticket, answer) => {
                if let Some(Waiting::Leave(waiting)) = self.waiting.remove(&ticket) {
                    let _ = waiting.send(answer);
                }
            }
            Command::Committed(ticket, answer) => {
                if let Some(Waiting::Commit(waiting)) = self.waiting.remove(&ticket) {
                    let _ = waiting.send(answer);
                }
            }
            Command::OffsetsDeleted(ticket, answer) => {
                if let Some(Waiting::DeleteOffsets(waiting)) = self.waiting.remove(&ticket) {
                    let _ = waiting.send(answer);
                }
            }
            Command::Deleted(ticket, answer) => {
                if let Some(Waiting::Delete(waiting)) = self.waiting.remove(&ticket) {
                    let _ = waiting.send(answer);
                }
            }
        }
    }

    /// Appends what is wanted written, in batches. What cannot be appended is answered at once, and that
    /// may want more to be written. A log that takes nothing for now is waited for, but not for longer than a client waits.
    async fn write(&mut self) {
        let patience = Duration::from_millis(u64::try_from(self.parts.config.offsets_commit_timeout_ms).unwrap_or(0));
        let until = Instant::now() + patience;
        while !self.to_write.is_empty() {
            let wanted = std::mem::take(&mut self.to_write);
            for (writes, batch) in self.batches_of(wanted) {
                let bytes = batch.len();
                let appended = if self.in_flight_bytes > 0 && self.in_flight_bytes + bytes > UNACKNOWLEDGED_BYTES {
                    Err(GroupError::NotAvailable)
                } else {
                    // Given up before it is appended, or not at all.
                    let append = tokio::time::timeout_at(until, self.parts.log.append(batch)).await;
                    append.unwrap_or(Err(GroupError::NotAvailable))
                };
                match appended {
                    Ok(acked) => {
                        self.in_flight_bytes += bytes;
                        let flight = async move { Flight { writes, bytes, outcome: acked.await } };
                        self.in_flight.push_back(Box::pin(flight));
                    }
                    Err(error) => self.landed(writes, Err(error)),
                }
            }
        }
    }

    /// Batches of whole writes, each with the writes that are in it.
    fn batches_of(&mut self, wanted: Vec<(String, WriteId, Vec<GroupRecord>)>) -> Vec<(Vec<(String, WriteId)>, Bytes)> {
        let timestamp = self.parts.clock.now_ms();
        let mut done = Vec::new();
        let mut refused = Vec::new();
        let mut writes = Vec::new();
        let mut builder = BatchBuilder::new();
        for (group, id, records) in wanted {
            let encoded: Result<Vec<_>, _> = records.iter().map(GroupRecord::encode).collect();
            let Ok(encoded) = encoded else {
                refused.push((group, id, GroupError::Unstorable));
                continue;
            };
            let size = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
            let bytes: usize = encoded.iter().map(|(key, value)| key.len() + size(value) + RECORD_BYTES).sum();
            if bytes + BATCH_HEADER_BYTES > self.parts.config.max_write_bytes {
                refused.push((group, id, GroupError::TooLarge));
                continue;
            }
            if !builder.is_empty() && builder.size() + bytes > self.parts.config.max_write_bytes {
                let full = std::mem::replace(&mut builder, BatchBuilder::new());
                done.push((std::mem::take(&mut writes), full.build()));
            }
            for (key, value) in encoded {
                builder.append(timestamp, Some(&key), value.as_deref(), &[]);
            }
            writes.push((group, id));
            if builder.size() >= BATCH_BYTES {
                let full = std::mem::replace(&mut builder, BatchBuilder::new());
                done.push((std::mem::take(&mut writes), full.build()));
            }
        }
        if !builder.is_empty() {
            done.push((writes, builder.build()));
        }
        for (group, id, error) in refused {
            self.landed(vec![(group, id)], Err(error));
        }
        done
    }
}

fn interval(config: &GroupConfig) -> Duration {
    Duration::from_millis(u64::try_from(config.offsets_retention_check_interval_ms).unwrap_or(0).max(1))
}

async fn read_all(log: &dyn GroupLog) -> Result<Loader, GroupError> {
    let mut loader = Loader::default();
    let mut next: Option<Offset> = None;
    loop {
        let bytes = log.read(next).await?;
        if bytes.is_empty() {
            return Ok(loader);
        }
        next = Some(replay(&bytes, &mut loader)?);
    }
}

/// Replays the records of whole batches; returns the offset behind the last of them.
fn replay(bytes: &Bytes, loader: &mut Loader) -> Result<Offset, GroupError> {
    let corrupt = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "__consumer_offsets is corrupt");
        GroupError::NotAvailable
    };
    let mut next = 0;
    for batch in batches(bytes) {
        let batch = batch.map_err(|error| corrupt(&error))?;
        next = batch.header.last_offset() + 1;
        if batch.header.is_control() {
            continue;
        }
        let visit = |record: proto::records::Record<'_>| {
            let Some(key) = record.key else { return };
            let value = record.value.map(Bytes::copy_from_slice);
            match GroupRecord::decode(Bytes::copy_from_slice(key), value) {
                Ok(Some(record)) => loader.replay(record),
                // Of another coordinator, which is not here yet.
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(offset = record.offset, %error, "a record of __consumer_offsets is passed over");
                }
            }
        };
        for_each_record(&batch, MAX_UNCOMPRESSED, visit).map_err(|error| corrupt(&error))?;
    }
    Ok(next)
}
