//! Power cuts: at every write and every sync of a store, with any part of what was not synced surviving.

use std::sync::Arc;

use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::{CommittedLeaderId, EntryPayload};
use parking_lot::Mutex;
use proto::host::{Entropy, SeededEntropy, Spawner};
use proto::metadata::{Batch, MetadataRecord};

use super::super::{Entry, LogId, SnapshotMeta, Store, StoreError, Vote};
use super::{NODE, Slack};

/// What was done to a disk since its last sync.
#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                let at = *at as usize;
                if bytes.len() < at + data.len() {
                    bytes.resize(at + data.len(), 0);
                }
                bytes[at..at + data.len()].copy_from_slice(data);
            }
            Self::SetLen(length) => bytes.resize(*length as usize, 0),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    durable: Vec<u8>,
    now: Vec<u8>,
    unsynced: Vec<Change>,
    /// Writes and syncs until the power goes.
    left: usize,
    done: usize,
}

/// A disk whose power goes after so many writes and syncs.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<State>>);

impl Disk {
    fn new(durable: Vec<u8>, left: usize) -> Self {
        Self(Arc::new(Mutex::new(State { now: durable.clone(), durable, left, ..State::default() })))
    }

    fn act(&self) -> std::io::Result<parking_lot::MutexGuard<'_, State>> {
        let mut state = self.0.lock();
        if state.left == 0 {
            return Err(std::io::Error::other("the power is gone"));
        }
        state.left -= 1;
        state.done += 1;
        Ok(state)
    }

    fn change(&self, change: Change) -> std::io::Result<()> {
        let mut state = self.act()?;
        change.apply(&mut state.now);
        state.unsynced.push(change);
        Ok(())
    }

    /// What lies on it after the cut: all that was synced, and of the rest whatever `entropy` leaves, torn at sectors.
    fn after_the_cut(&self, entropy: &SeededEntropy) -> Vec<u8> {
        let state = self.0.lock();
        let mut bytes = state.durable.clone();
        for change in &state.unsynced {
            match (entropy.next_u64() % 3, change) {
                (0, _) => {}
                (1, Change::Write(at, data)) => {
                    let sectors = data.len() as u64 / 512 + 1;
                    let kept = (entropy.next_u64() % sectors * 512) as usize;
                    Change::Write(*at, data[..kept].to_vec()).apply(&mut bytes);
                }
                (_, change) => change.apply(&mut bytes),
            }
        }
        bytes
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.0.lock().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let state = self.0.lock();
        let at = offset as usize;
        let bytes = state.now.get(at..at + out.len()).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.change(Change::SetLen(len))
    }

    fn sync_data(&self) -> std::io::Result<()> {
        let mut state = self.act()?;
        state.durable = state.now.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.change(Change::Write(offset, data.to_vec()))
    }
}

/// What was promised: a step that was answered is in it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Promised {
    vote: Option<Vote>,
    log: Vec<u64>,
    snapshot: Option<String>,
}

fn log_id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(1, 0), index)
}

fn entry(index: u64) -> Entry {
    let records = vec![MetadataRecord::FeatureSet { name: "x".repeat(500), level: index as i16 }];
    let batch = Batch { term: 1, base_offset: index, records };
    Entry { log_id: log_id(index), payload: EntryPayload::Normal(batch) }
}

/// One thing a store is asked for, and what it promises by its answer.
async fn step(store: &mut Store, number: u64, promised: &mut Promised) -> bool {
    let last = promised.log.last().map_or(0, |last| last + 1);
    match number % 6 {
        0 => {
            let vote = Vote::new(number, 0);
            let done = store.save_vote(&vote).await.is_ok();
            promised.vote = Some(vote);
            done
        }
        1..=3 => {
            let entries = [entry(last), entry(last + 1)];
            let done = store.blocking_append(entries).await.is_ok();
            promised.log.extend([last, last + 1]);
            done
        }
        4 => {
            let done = store.truncate(log_id(last - 1)).await.is_ok();
            promised.log.pop();
            done
        }
        _ => {
            let snapshot_id = format!("at {number}");
            let meta = SnapshotMeta {
                last_log_id: Some(log_id(last - 1)),
                last_membership: Default::default(),
                snapshot_id: snapshot_id.clone(),
            };
            let done = store.write_snapshot(meta, vec![vec![number as u8; 3_000]; 4]).await.is_ok();
            promised.snapshot = Some(snapshot_id);
            done
        }
    }
}

async fn found(store: &mut Store) -> Promised {
    let vote = store.read_vote().await.expect("the store is whole");
    let log = store.try_get_log_entries(..).await.expect("the store is whole");
    for entry in &log {
        assert_eq!(entry.payload, self::entry(entry.log_id.index).payload);
    }
    let snapshot = store.load_snapshot().await.expect("the store is whole");
    Promised {
        vote,
        log: log.iter().map(|entry| entry.log_id.index).collect(),
        snapshot: snapshot.map(|(meta, bytes)| {
            assert_eq!(bytes.len(), 12_000);
            assert!(bytes.iter().all(|byte| Some(byte) == bytes.first()), "of one snapshot");
            meta.snapshot_id
        }),
    }
}

fn open(disk: &Disk) -> Result<Store, StoreError> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let slack = Slack::open(&dir.path().join("slack")).expect("room");
    Store::with_backend(disk.clone(), slack, NODE, Spawner::simulated(tokio::runtime::Handle::current()))
}

/// A store in which nothing is: it is made under another name, so that its making needs no care.
fn made() -> Vec<u8> {
    let disk = Disk::new(Vec::new(), usize::MAX);
    drop(open(&disk).expect("room"));
    disk.0.lock().now.clone()
}

/// Runs until the power goes after `left` writes and syncs; whether it went before the end.
async fn cut_after(left: usize) -> bool {
    let entropy = SeededEntropy::new(left as u64);
    let disk = Disk::new(made(), left);
    let mut before = Promised::default();
    let mut after = Promised::default();
    let mut cut = true;
    if let Ok(mut store) = open(&disk) {
        cut = false;
        for number in 0..18 {
            before = after.clone();
            if !step(&mut store, number, &mut after).await {
                cut = true;
                break;
            }
            before = after.clone();
        }
    }
    let disk = Disk::new(disk.after_the_cut(&entropy), usize::MAX);
    let mut store = open(&disk).unwrap_or_else(|error| panic!("cut after {left}: {error}"));
    let found = found(&mut store).await;
    // What was answered is there; what was under way is there as a whole or not at all.
    assert!(found == before || found == after, "cut after {left}: {found:?}, neither {before:?} nor {after:?}");
    cut
}

#[tokio::test]
async fn what_the_store_has_answered_survives_a_power_cut_at_any_moment() {
    let mut left = 0;
    while cut_after(left).await {
        // The beginning, where the file is made, one by one; then every third.
        left += if left < 40 { 1 } else { 3 };
    }
    assert!(left > 60, "the power was cut {left} times only");
}
