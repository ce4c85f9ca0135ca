//! The journal's thread: takes the oldest group, writes it, tells everybody, and again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::files::{Files, NoFile};
use super::format::{BatchRange, FRAME_HEADER, FrameHeader};
use super::group::{Group, GroupEntry};
use super::lane::Sealed;
use super::record::{Kind, Lsn, Owner};
use super::{Offline, Phase, Shared};
use crate::disk::{BLOCK, DiskError};

/// What the thread owns.
pub(super) struct Task {
    shared: Arc<Shared>,
    files: Files,
    /// Who waits for the group at hand.
    flight: Vec<(Arc<dyn Owner>, Lsn)>,
    outcome: Outcome,
}

/// How the thread ended, for [`Drop`], which also runs when a sink or owner panics.
#[derive(Debug)]
enum Outcome {
    Underway,
    Clean,
    Failed(DiskError),
}

enum Next {
    Write(Sealed, Lsn),
    Sleep,
    Finish,
    Quit,
}

impl Task {
    pub(super) fn new(shared: Arc<Shared>, files: Files) -> Self {
        Self { shared, files, flight: Vec::new(), outcome: Outcome::Underway }
    }

    /// Runs until the journal is closed, abandoned or fails.
    pub(super) async fn run(mut self) {
        self.outcome = match self.work().await {
            Ok(()) => Outcome::Clean,
            Err(NoFile::Disk(error)) => Outcome::Failed(error),
            Err(NoFile::Abandoned) if self.shared.is_ending() => Outcome::Clean,
            Err(NoFile::Abandoned) => Outcome::Underway,
        };
    }

    async fn work(&mut self) -> Result<(), NoFile> {
        loop {
            match self.next() {
                Next::Write(sealed, synced) => self.write(sealed, synced).await?,
                Next::Sleep => self.shared.work.notified().await,
                Next::Finish => {
                    self.finish().await?;
                    self.files.end().await;
                    return Ok(());
                }
                Next::Quit => return Ok(()),
            }
        }
    }

    fn next(&self) -> Next {
        let mut state = self.shared.state.lock();
        if matches!(state.phase, Phase::Abandoned | Phase::Offline(_)) {
            return Next::Quit;
        }
        let Some(sealed) = state.journaled.next() else {
            if matches!(state.phase, Phase::Closing) {
                return Next::Finish;
            }
            state.idle = true;
            return Next::Sleep;
        };
        let entries = sealed.closed.view(FRAME_HEADER..sealed.closed.len());
        state.writing = Some((sealed.seq, entries));
        Next::Write(sealed, state.synced)
    }

    async fn write(&mut self, sealed: Sealed, synced: Lsn) -> Result<(), NoFile> {
        self.flight = distinct_owners(&sealed.entries);
        let padded = sealed.closed.padded_len() as u64;
        let active = self.files.room(padded).await?;
        let last_lsn = sealed.last_lsn();
        let header = FrameHeader {
            length: sealed.closed.len() as u64,
            first_lsn: sealed.first_lsn(),
            synced_to: synced,
            count: sealed.entries.len() as u32,
        };
        let entries = sealed.closed.view(FRAME_HEADER..sealed.closed.len());
        let batches = batch_ranges(&sealed.entries);
        let head = header.encode(active.header.seed(), &entries, &batches);
        drop(entries);
        let charge = sealed.charge;
        let mut group = group_of(sealed, &head, Some(Duration::ZERO));

        let begun = Instant::now();
        let bytes = group.bytes.clone();
        active.file.write_sync_at(active.position, bytes).await?;
        group.sync_time = begun.elapsed();

        active.wrote(padded, last_lsn, group.entries.iter().map(|entry| entry.tp));
        if self.shared.is_offline() {
            return Err(NoFile::Abandoned);
        }
        // The sink first: whoever its owner wakes finds the group there.
        self.shared.sink.sealed(Arc::new(group));
        {
            let mut state = self.shared.state.lock();
            state.writing = None;
            state.synced = last_lsn;
            state.unsynced -= charge;
            Shared::grant(&self.shared, &mut state);
        }
        for (owner, up_to) in self.flight.drain(..) {
            owner.synced(up_to);
        }
        self.files.look_ahead();
        Ok(())
    }

    /// A last, empty frame: it says that the one before it was durable, so that damage to that one cannot
    /// be taken for a torn write.
    async fn finish(&mut self) -> Result<(), NoFile> {
        let (next_lsn, synced) = {
            let state = self.shared.state.lock();
            (state.next_lsn, state.synced)
        };
        // Not worth a file of its own.
        let Some(active) =
            self.files.active().filter(|active| active.has_room(BLOCK as u64) && active.position > BLOCK as u64)
        else {
            return Ok(());
        };
        let header = FrameHeader { length: FRAME_HEADER as u64, first_lsn: next_lsn, synced_to: synced, count: 0 };
        let head = header.encode(active.header.seed(), &[], &[]);
        let region = self.shared.pool.take(BLOCK).begin(FRAME_HEADER);
        let block = region.close(BLOCK).0.finish(&head);
        active.file.write_sync_at(active.position, block).await?;
        Ok(())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let flight = self.flight.drain(..).map(|(owner, _)| owner).collect();
        match &self.outcome {
            Outcome::Clean => self.shared.end(flight, None),
            Outcome::Underway => self.shared.end(flight, Some("its thread ended".into())),
            Outcome::Failed(error) => self.shared.end(flight, Some(error.to_string().into())),
        }
    }
}

impl Shared {
    /// Whether nobody waits for what is still to be written.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Abandoned | Phase::Offline(_))
    }

    /// Whether it writes what it has and then ends.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Closing)
    }

    fn is_offline(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Offline(_))
    }

    /// The thread is gone. With a cause, the journal is offline; in any case whoever still waits is told.
    fn end(&self, flight: Vec<Arc<dyn Owner>>, cause: Option<Arc<str>>) {
        let (left, cause) = {
            let mut state = self.state.lock();
            match (&state.phase, cause) {
                (Phase::Offline(_), _) => {}
                (_, Some(cause)) => {
                    let directory = Arc::clone(&self.directory);
                    state.phase = Phase::Offline(Offline { directory, cause });
                }
                (Phase::Running, None) => state.phase = Phase::Closing,
                (Phase::Closing | Phase::Abandoned, None) => {}
            }
            let cause = match &state.phase {
                Phase::Offline(offline) => {
                    tracing::error!("{offline}");
                    Arc::clone(&offline.cause)
                }
                Phase::Running | Phase::Closing | Phase::Abandoned => "its journal was closed".into(),
            };
            state.waiting.clear();
            state.writing = None;
            let mut left = state.journaled.clear();
            // After a clean end the sink may still take what never was the journal's.
            if !matches!(state.phase, Phase::Closing) {
                left.extend(state.loose.clear());
                state.unsynced = 0;
            }
            (left, cause)
        };
        let mut owners = flight;
        owners.extend(left.into_iter().map(|entry| entry.owner));
        owners.sort_by_key(address);
        owners.dedup_by_key(|owner| address(owner));
        for owner in owners {
            owner.failed(&cause);
        }
        self.ended.send_replace(true);
    }
}

/// The group that `sealed` becomes, with `head` filled in. A journaled one has a sync time.
pub(super) fn group_of(sealed: Sealed, head: &[u8], sync_time: Option<Duration>) -> Group {
    let (first_lsn, last_lsn) = (sealed.first_lsn(), sealed.last_lsn());
    let bytes: Bytes = sealed.closed.finish(head);
    Group {
        seq: sealed.seq,
        journaled: sync_time.is_some(),
        first_lsn,
        last_lsn,
        entries: sealed.entries,
        sync_time: sync_time.unwrap_or_default(),
        bytes,
        unused: sealed.unused,
    }
}

/// Each owner once, with its last position in the group, in the order of their first records.
fn distinct_owners(entries: &[GroupEntry]) -> Vec<(Arc<dyn Owner>, Lsn)> {
    let mut owners: Vec<(Arc<dyn Owner>, Lsn)> = Vec::new();
    let mut places: HashMap<usize, usize> = HashMap::new();
    for entry in entries {
        let key = address(&entry.owner);
        // Runs of one owner are common, and so are groups with just one.
        if let Some((owner, up_to)) = owners.last_mut()
            && address(owner) == key
        {
            *up_to = entry.lsn;
            continue;
        }
        let place = *places.entry(key).or_insert(owners.len());
        match owners.get_mut(place) {
            Some((_, up_to)) => *up_to = entry.lsn,
            None => owners.push((Arc::clone(&entry.owner), entry.lsn)),
        }
    }
    owners
}

fn address(owner: &Arc<dyn Owner>) -> usize {
    Arc::as_ptr(owner).cast::<()>().addr()
}

fn batch_ranges(entries: &[GroupEntry]) -> Vec<BatchRange> {
    entries
        .iter()
        .filter(|entry| entry.kind == Kind::Append)
        .map(|entry| BatchRange {
            start: entry.range.start as usize - FRAME_HEADER,
            end: entry.range.end as usize - FRAME_HEADER,
        })
        .collect()
}
