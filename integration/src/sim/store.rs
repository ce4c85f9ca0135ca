//! The file of a quorum's store on a machine that may lose power: what was not synced then is there in part, or not at all.

use controller::storage::StorageBackend;
use parking_lot::Mutex;
use proto::host::{Entropy, SeededEntropy};
use std::io;
use std::sync::Arc;

/// A part of a write that a power cut leaves whole, in bytes.
const SECTOR: usize = 512;

/// The file, as one process has it open.
#[derive(Debug, Default)]
pub struct SimStore(Mutex<State>);

#[derive(Debug, Default, Clone)]
struct State {
    /// What is read.
    now: Vec<u8>,
    /// What a power cut leaves in any case.
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write(at, data) => {
                if bytes.len() < at + data.len() {
                    bytes.resize(at + data.len(), 0);
                }
                bytes[*at..at + data.len()].copy_from_slice(data);
            }
            Change::Length(length) => bytes.resize(*length, 0),
        }
    }
}

impl SimStore {
    /// The file as the next process finds it after this one was killed. What this one does to its own from here on shows nowhere.
    #[must_use]
    pub fn restart_process(&self) -> Arc<SimStore> {
        Arc::new(SimStore(Mutex::new(self.0.lock().clone())))
    }

    /// The file as it is found after the machine lost power; `seed` says what is left of what was not synced.
    #[must_use]
    pub fn restart(&self, seed: u64) -> Arc<SimStore> {
        let entropy = SeededEntropy::new(seed);
        let state = self.0.lock();
        let mut bytes = state.durable.clone();
        for change in &state.unsynced {
            match (entropy.next_u64() % 3, change) {
                (0, _) => {}
                (1, Change::Write(at, data)) => {
                    let sectors = data.len() / SECTOR + 1;
                    let kept = usize::try_from(entropy.next_u64()).unwrap_or(0) % sectors * SECTOR;
                    Change::Write(*at, data[..kept.min(data.len())].to_vec()).apply(&mut bytes);
                }
                (_, change) => change.apply(&mut bytes),
            }
        }
        Arc::new(SimStore(Mutex::new(State { now: bytes.clone(), durable: bytes, unsynced: Vec::new() })))
    }

    fn change(&self, change: Change) {
        let mut state = self.0.lock();
        change.apply(&mut state.now);
        state.unsynced.push(change);
    }
}

fn position(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl StorageBackend for SimStore {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = position(offset)?;
        let state = self.0.lock();
        let bytes = state.now.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Length(position(len)?));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        let state = &mut *state;
        for change in state.unsynced.drain(..) {
            change.apply(&mut state.durable);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(position(offset)?, data.to_vec()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(store: &SimStore) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(store.len().expect("a length")).expect("short")];
        store.read(0, &mut bytes).expect("all of it");
        bytes
    }

    #[test]
    fn what_was_synced_stays_and_the_rest_only_sometimes() {
        let left = |seed| {
            let store = SimStore::default();
            store.write(0, b"synced").expect("room");
            store.sync_data().expect("a sync");
            store.write(0, b"broken").expect("room");
            assert_eq!(read(&store.restart_process()), b"broken");
            read(&store.restart(seed))
        };
        let outcomes: Vec<Vec<u8>> = (0..20).map(left).collect();
        assert!(outcomes.iter().all(|bytes| bytes == b"synced" || bytes == b"broken"));
        assert!(outcomes.contains(&b"synced".to_vec()) && outcomes.contains(&b"broken".to_vec()));
    }

    #[test]
    fn who_was_killed_writes_no_more() {
        let before = SimStore::default();
        let after = before.restart_process();
        before.write(0, b"late").expect("room");
        assert!(read(&after).is_empty());
    }
}
