//! Log, vote and snapshot on redb. Every write is one transaction and one sync; the calls that block
//! run on the blocking threads.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use openraft::storage::{LogFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{AnyError, ErrorSubject, ErrorVerb, StorageIOError};
use proto::host::Spawner;
use proto::ids::NodeId;
use proto::metadata::DecodeError;
use proto::planted::{Bug, planted};
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use super::encoding::{
    put_entry, put_log_id_alone, put_snapshot_meta, put_vote, take_entry, take_log_id_alone, take_snapshot_meta,
    take_vote,
};
use super::slack::{Cushioned, Slack};
use super::{Entry, LogId, SnapshotMeta, StorageError, TypeConfig, Vote};
use crate::storage::{Given, Storage};

/// Raft index → entry.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Single values by name.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// Chunk number → chunk of the current snapshot.
const SNAPSHOT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("snapshot");

const VOTE: &str = "vote";
const PURGED: &str = "purged";
const SNAPSHOT_META: &str = "snapshot";
const NODE_ID: &str = "node id";

/// redb's page cache. The log is read once at start and by voters that lag; a few MiB do.
const CACHE_BYTES: usize = 4 << 20;
/// Entries that are sent to another voter together take no more, unless it is one.
const SENT_BYTES: usize = 512 << 10;

/// Why the quorum's store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// A node id that Kafka has no room for.
    #[error("node id {0} is not valid: it must not be negative")]
    InvalidNodeId(NodeId),
    /// The directory is another node's.
    #[error("this metadata directory belongs to node {found}, not to node {expected}")]
    OtherNode {
        /// Whose it is.
        found: i64,
        /// Whose it was taken for.
        expected: i64,
    },
    /// The directory cannot be made.
    #[error("cannot make {path}: {source}")]
    Directory {
        /// Which one.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// redb says no.
    #[error("metadata store: {0}")]
    Redb(#[from] redb::Error),
    /// What it holds cannot be read.
    #[error("metadata store: {0}")]
    Decode(#[from] DecodeError),
    /// The snapshot cannot be read.
    #[error("metadata store: {0}")]
    Snapshot(#[from] proto::metadata::SnapshotError),
    /// The quorum member did not start.
    #[error("quorum: {0}")]
    Raft(String),
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::Redb(error.into())
            }
        }
    )*};
}
from_redb!(redb::DatabaseError, redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

/// A cheap clone of the open store.
#[derive(Clone)]
pub(crate) struct Store {
    db: Arc<Database>,
    slack: Arc<Slack>,
    spawner: Spawner,
    snapshot_every: u64,
    keep: u64,
}

impl Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store of `node` at `dir/quorum.redb`, or in the file that `storage` names, making it if it is not there.
    /// Blocks.
    pub(crate) fn open(dir: &Path, storage: &Storage, node: NodeId, spawner: Spawner) -> Result<Self, StoreError> {
        let store = match &storage.file {
            Some(file) => Self::given(dir, Arc::clone(file), node, spawner)?,
            None => Self::in_directory(dir, node, spawner)?,
        };
        Ok(Self { snapshot_every: storage.snapshot_every, keep: storage.keep, ..store })
    }

    fn given(dir: &Path, file: Arc<dyn StorageBackend>, node: NodeId, spawner: Spawner) -> Result<Self, StoreError> {
        let at = |source| StoreError::Directory { path: dir.display().to_string(), source };
        std::fs::create_dir_all(dir).map_err(at)?;
        let slack = Slack::open(&dir.join("quorum.slack")).map_err(at)?;
        Self::with_backend(Given(file), slack, node, spawner)
    }

    fn in_directory(dir: &Path, node: NodeId, spawner: Spawner) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir)
            .map_err(|source| StoreError::Directory { path: dir.display().to_string(), source })?;
        let at = |path: &Path| {
            let path = path.display().to_string();
            move |source| StoreError::Directory { path, source }
        };
        let (path, beside) = (dir.join("quorum.redb"), dir.join("quorum.slack"));
        if !path.exists() {
            // Made under another name: a file whose making was cut off is not one that can be opened.
            let unfinished = dir.join("quorum.redb.new");
            let made = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&unfinished);
            let made = FileBackend::new(made.map_err(at(&unfinished))?)?;
            Database::builder().create_with_backend(made)?;
            std::fs::rename(&unfinished, &path).map_err(at(&path))?;
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(&path))?;
        }
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = FileBackend::new(file.map_err(at(&path))?)?;
        let slack = Slack::open(&beside).map_err(at(&beside))?;
        Self::with_backend(file, slack, node, spawner)
    }

    /// The store in `backend`, whose writes may use `slack`.
    pub(super) fn with_backend(
        backend: impl StorageBackend,
        slack: Slack,
        node: NodeId,
        spawner: Spawner,
    ) -> Result<Self, StoreError> {
        let slack = Arc::new(slack);
        let backend = Cushioned::new(backend, Arc::clone(&slack));
        let db = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?;
        let expected = i64::from(node.0);
        let write = db.begin_write()?;
        {
            let mut meta = write.open_table(META)?;
            let found = meta.get(NODE_ID)?.map(|id| i64_of(id.value())).transpose()?;
            match found {
                Some(found) if found != expected => {
                    return Err(StoreError::OtherNode { found, expected });
                }
                Some(_) => {}
                None => {
                    meta.insert(NODE_ID, expected.to_le_bytes().as_slice())?;
                }
            }
            write.open_table(LOG)?;
            write.open_table(SNAPSHOT)?;
        }
        write.commit()?;
        let Storage { snapshot_every, keep, .. } = Storage::default();
        Ok(Self { db: Arc::new(db), slack, spawner, snapshot_every, keep })
    }

    /// Raft entries between two snapshots, and how many of them are kept behind one.
    pub(super) fn pace(&self) -> (u64, u64) {
        (self.snapshot_every, self.keep)
    }

    /// The room kept for its writes.
    pub(crate) fn slack(&self) -> &Arc<Slack> {
        &self.slack
    }

    /// Whether it holds a vote, a log or a snapshot.
    pub(crate) async fn holds_a_quorum(&self) -> Result<bool, StoreError> {
        let db = Arc::clone(&self.db);
        let looking = self.spawner.spawn_blocking(move || -> Result<bool, StoreError> {
            let read = db.begin_read()?;
            let meta = read.open_table(META)?;
            let said = meta.get(VOTE)?.is_some() || meta.get(SNAPSHOT_META)?.is_some() || meta.get(PURGED)?.is_some();
            Ok(said || read.open_table(LOG)?.last()?.is_some())
        });
        looking.await.map_err(|panic| StoreError::Raft(panic.to_string()))?
    }

    async fn blocking<R: Send + 'static>(
        &self,
        subject: ErrorSubject<u64>,
        verb: ErrorVerb,
        call: impl FnOnce(&Database) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StorageError> {
        let db = Arc::clone(&self.db);
        let done = self.spawner.spawn_blocking(move || call(&db)).await;
        let done = done.unwrap_or_else(|panic| Err(StoreError::Raft(panic.to_string())));
        done.map_err(|error| StorageIOError::new(subject, verb, AnyError::error(error)).into())
    }

    /// Writes a snapshot in place of the last one.
    pub(super) async fn write_snapshot(&self, meta: SnapshotMeta, chunks: Vec<Vec<u8>>) -> Result<(), StorageError> {
        let subject = ErrorSubject::Snapshot(Some(meta.signature()));
        self.blocking(subject, ErrorVerb::Write, move |db| {
            let write = db.begin_write()?;
            {
                let mut metas = write.open_table(META)?;
                // One that was received while this one was built covers more, and the log before it may be gone.
                let known = metas.get(SNAPSHOT_META)?.map(|known| take_snapshot_meta(known.value())).transpose()?;
                if known.is_some_and(|known| known.last_log_id > meta.last_log_id) {
                    return Ok(());
                }
                let mut table = write.open_table(SNAPSHOT)?;
                table.retain(|_, _| false)?;
                for (number, chunk) in (0u64..).zip(&chunks) {
                    table.insert(number, chunk.as_slice())?;
                }
                let encoded = put_snapshot_meta(&meta);
                metas.insert(SNAPSHOT_META, encoded.as_slice())?;
            }
            write.commit()?;
            Ok(())
        })
        .await
    }

    /// The last snapshot: what it covers and its chunks in one piece. Blocks.
    pub(super) fn read_snapshot(&self) -> Result<Option<(SnapshotMeta, Vec<u8>)>, StoreError> {
        let read = self.db.begin_read()?;
        let Some(meta) = read.open_table(META)?.get(SNAPSHOT_META)? else {
            return Ok(None);
        };
        let meta = take_snapshot_meta(meta.value())?;
        let mut bytes = Vec::new();
        for row in read.open_table(SNAPSHOT)?.iter()? {
            bytes.extend_from_slice(row?.1.value());
        }
        Ok(Some((meta, bytes)))
    }

    /// [`Store::read_snapshot`] off the async threads.
    pub(super) async fn load_snapshot(&self) -> Result<Option<(SnapshotMeta, Vec<u8>)>, StorageError> {
        let store = self.clone();
        self.blocking(ErrorSubject::Snapshot(None), ErrorVerb::Read, move |_| store.read_snapshot()).await
    }
}

fn i64_of(bytes: &[u8]) -> Result<i64, DecodeError> {
    bytes.try_into().map(i64::from_le_bytes).map_err(|_| DecodeError::Truncated)
}

impl RaftLogReader<TypeConfig> for Store {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, StorageError>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let range: (Bound<u64>, Bound<u64>) = (range.start_bound().cloned(), range.end_bound().cloned());
        self.blocking(ErrorSubject::Logs, ErrorVerb::Read, move |db| {
            let table = db.begin_read()?.open_table(LOG)?;
            let mut entries = Vec::new();
            for row in table.range(range)? {
                entries.push(take_entry(row?.1.value())?);
            }
            Ok(entries)
        })
        .await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.blocking(ErrorSubject::Logs, ErrorVerb::Read, move |db| {
            let table = db.begin_read()?.open_table(LOG)?;
            let (mut entries, mut bytes) = (Vec::new(), 0);
            for row in table.range(start..end)? {
                let row = row?;
                bytes += row.1.value().len();
                // One entry always: it must not answer with nothing.
                if bytes > SENT_BYTES && !entries.is_empty() {
                    break;
                }
                entries.push(take_entry(row.1.value())?);
            }
            Ok(entries)
        })
        .await
    }
}

impl RaftLogStorage<TypeConfig> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        self.blocking(ErrorSubject::Logs, ErrorVerb::Read, |db| {
            let read = db.begin_read()?;
            let purged = read.open_table(META)?.get(PURGED)?;
            let last_purged_log_id = purged.map(|bytes| take_log_id_alone(bytes.value())).transpose()?;
            let log = read.open_table(LOG)?;
            let last = log.last()?;
            let last = last.map(|(_, bytes)| take_entry(bytes.value())).transpose()?;
            let last_log_id = last.map(|entry| entry.log_id).or(last_purged_log_id);
            Ok(LogState { last_purged_log_id, last_log_id })
        })
        .await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let encoded = put_vote(vote);
        self.blocking(ErrorSubject::Vote, ErrorVerb::Write, move |db| {
            let mut write = db.begin_write()?;
            if planted(Bug::VoteNotSynced) {
                write.set_durability(redb::Durability::None).map_err(redb::Error::from)?;
            }
            write.open_table(META)?.insert(VOTE, encoded.as_slice())?;
            write.commit()?;
            Ok(())
        })
        .await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.blocking(ErrorSubject::Vote, ErrorVerb::Read, |db| {
            let vote = db.begin_read()?.open_table(META)?.get(VOTE)?;
            Ok(vote.map(|bytes| take_vote(bytes.value())).transpose()?)
        })
        .await
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let rows: Vec<(u64, Vec<u8>)> =
            entries.into_iter().map(|entry| (entry.log_id.index, put_entry(&entry))).collect();
        // Writes are serialized by waiting here: the next one starts when this one is durable.
        let written = self
            .blocking(ErrorSubject::Logs, ErrorVerb::Write, move |db| {
                let write = db.begin_write()?;
                {
                    let mut table = write.open_table(LOG)?;
                    for (index, row) in &rows {
                        table.insert(index, row.as_slice())?;
                    }
                }
                write.commit()?;
                Ok(())
            })
            .await;
        let outcome = written.as_ref().map(|&()| ()).map_err(|error| std::io::Error::other(error.to_string()));
        callback.log_io_completed(outcome);
        written
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.blocking(ErrorSubject::Log(log_id), ErrorVerb::Delete, move |db| {
            let write = db.begin_write()?;
            write.open_table(LOG)?.retain_in(log_id.index.., |_, _| false)?;
            write.commit()?;
            Ok(())
        })
        .await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let encoded = put_log_id_alone(&log_id);
        self.blocking(ErrorSubject::Log(log_id), ErrorVerb::Delete, move |db| {
            let write = db.begin_write()?;
            write.open_table(META)?.insert(PURGED, encoded.as_slice())?;
            write.open_table(LOG)?.retain_in(..=log_id.index, |_, _| false)?;
            write.commit()?;
            Ok(())
        })
        .await
    }
}
