//! Where a controller keeps its log, its votes and its snapshots, and how often it takes one.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

pub use redb::{BackendError, StorageBackend};

/// Raft entries between two snapshots.
const SNAPSHOT_EVERY: u64 = 4096;
/// Raft entries kept behind a snapshot, for a voter that is slightly behind.
const KEEP: u64 = 256;

/// What a controller's store stands on.
#[derive(Clone)]
pub struct Storage {
    /// The file of the store; none for the one in the directory of the metadata.
    pub file: Option<Arc<dyn StorageBackend>>,
    /// Raft entries between two snapshots.
    pub snapshot_every: u64,
    /// Raft entries kept behind a snapshot, for a voter that is slightly behind.
    pub keep: u64,
}

impl Default for Storage {
    fn default() -> Storage {
        Storage { file: None, snapshot_every: SNAPSHOT_EVERY, keep: KEEP }
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").finish_non_exhaustive()
    }
}

/// A file that was handed in.
#[derive(Debug)]
pub(crate) struct Given(pub(crate) Arc<dyn StorageBackend>);

impl StorageBackend for Given {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> std::io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }
}
