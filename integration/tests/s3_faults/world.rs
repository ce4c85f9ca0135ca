//! The real runner and reader over the real S3 client, between a quorum and local logs in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use integration::s3::{BUCKET, S3Server};
use parking_lot::Mutex;
use proto::host::{Clock, SeededEntropy, Spawner, SystemClock};
use proto::ids::{LeaderEpoch, Offset, TopicId, TopicPartition};
use proto::metadata::TierPointer;
use proto::records::BatchBuilder;
use tiering::cache::LruChunks;
use tiering::format::{EpochHistory, Footer};
use tiering::manifest::{Entry, Leaf, Manifest, View, check_commit, check_pointer};
use tiering::ports::{
    Commit, CommitError, DeletedPartition, LocalError, LocalLog, LocalSections, LocalState, PointerError, Pointers,
    SegmentBounds, TierSettings,
};
use tiering::reader::{NoRootStore, Patience, ReaderSettings, RemoteReader, StoreSource};
use tiering::runner::{Backoff, RunnerConfig, RunnerHandle};
use tiering::store::{Key, Layout, Location, NoMetrics, Store, Timeouts};
use uuid::Uuid;

/// Path in the bucket below which everything lies.
const PREFIX: &str = "a/prefix";
const CLUSTER: &str = "cluster";
/// How long objects that nothing refers to are kept here.
pub(crate) const GRACE_MS: i64 = 700;
/// What a reader's streams may hold together.
const WINDOW_BYTES: u64 = 2 << 20;
/// Bytes of a segment.
pub(crate) const SEGMENT_BYTES: u64 = 64 << 10;

pub(crate) fn partition(index: i32) -> TopicPartition {
    TopicPartition::new(TopicId(Uuid::from_u128(0x5afe)), index)
}

/// Pointers, as the quorum would keep them. Every commit is checked against the objects there are.
pub(crate) struct Quorum {
    pointers: Mutex<BTreeMap<TopicPartition, TierPointer>>,
    epoch: Mutex<LeaderEpoch>,
    server: Arc<S3Server>,
    violations: Mutex<Vec<String>>,
}

impl Quorum {
    pub(crate) fn pointer(&self, tp: TopicPartition) -> TierPointer {
        self.pointers.lock().get(&tp).cloned().unwrap_or_default()
    }

    fn apply(&self, commit: &Commit) -> Result<TierPointer, CommitError> {
        let mut pointers = self.pointers.lock();
        let stored = pointers.get_mut(&commit.tp).ok_or(CommitError::Gone)?;
        if stored.request == commit.request && stored.generation > 0 {
            return Ok(stored.clone());
        }
        if commit.leader_epoch != *self.epoch.lock() {
            return Err(CommitError::Fenced);
        }
        if stored.generation != commit.expected_generation {
            return Err(CommitError::Stale);
        }
        let sound = check_commit(stored, &commit.pointer, None).map_err(|violation| violation.to_string());
        if let Err(why) = sound.and_then(|()| covered(&self.server, commit.tp, &commit.pointer).map(|_| ())) {
            self.violations.lock().push(format!("generation {}: {why}", commit.pointer.generation));
        }
        *stored = commit.pointer.clone();
        Ok(stored.clone())
    }
}

/// Everything that a pointer leads to, or the reason why it does not.
fn covered(
    server: &S3Server,
    tp: TopicPartition,
    pointer: &TierPointer,
) -> Result<(Vec<Entry>, BTreeSet<String>), String> {
    let layout = Layout::new(PREFIX, CLUSTER);
    let objects = server.objects();
    let mut keys = BTreeSet::new();
    let mut load = |key: Key| {
        let bytes = objects.get(&key.to_string()).cloned().ok_or(format!("{key} is missing"));
        keys.insert(key.to_string());
        bytes
    };
    let root = match &pointer.root {
        Some(root) => {
            let bytes = load(layout.root(tp, root))?;
            Some(Manifest::decode_referenced(&bytes, tp, root).map_err(|error| error.to_string())?)
        }
        None => None,
    };
    check_pointer(pointer, root.as_ref()).map_err(|violation| violation.to_string())?;
    let view = View::new(pointer, root.as_ref());
    let mut entries = Vec::new();
    for leaf in view.leaves() {
        let bytes = load(layout.leaf(tp, leaf))?;
        let leaf = Leaf::decode(&bytes, tp, leaf).map_err(|error| error.to_string())?;
        entries.extend(leaf.entries.into_iter().filter(|entry| entry.end > pointer.tier_start));
    }
    entries.extend(view.entries().cloned());
    for entry in &entries {
        let object = load(layout.data(entry))?;
        let footer = Footer::decode(&object.slice(entry.footer_position as usize..));
        let footer = footer.map_err(|error| error.to_string())?;
        if (footer.base, footer.end) != (entry.base, entry.end) {
            return Err(format!("the object at {} is not what its entry says", entry.base));
        }
    }
    Ok((entries, keys))
}

#[async_trait]
impl Pointers for Quorum {
    fn current(&self, tp: TopicPartition) -> Option<TierPointer> {
        self.pointers.lock().get(&tp).cloned()
    }

    async fn read_fresh(&self, tp: TopicPartition) -> Result<TierPointer, PointerError> {
        self.current(tp).ok_or(PointerError::Gone)
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<TierPointer, CommitError>> {
        commits.iter().map(|commit| self.apply(commit)).collect()
    }

    fn deleted(&self) -> Vec<DeletedPartition> {
        Vec::new()
    }

    async fn swept(&self, _partitions: Vec<TopicPartition>) {}
}

/// One partition's log: every batch ever appended as `(base, end, bytes)`, of which those from
/// `local_start` on are still on the "disk". A batch is a segment.
#[derive(Default)]
struct Log {
    batches: Vec<(Offset, Offset, Bytes)>,
    local_start: Offset,
    tier_end: Offset,
    epochs: Vec<(LeaderEpoch, Offset)>,
}

impl Log {
    fn end(&self) -> Offset {
        self.batches.last().map_or(0, |batch| batch.1)
    }
}

/// The local logs; they survive the runner's restarts as a disk would.
pub(crate) struct Locals {
    logs: Mutex<BTreeMap<TopicPartition, Log>>,
    epoch: Mutex<LeaderEpoch>,
    retention_bytes: Mutex<Option<u64>>,
    quorum: Arc<Quorum>,
}

impl Locals {
    pub(crate) fn end(&self, tp: TopicPartition) -> Offset {
        self.logs.lock()[&tp].end()
    }

    pub(crate) fn local_start(&self, tp: TopicPartition) -> Offset {
        self.logs.lock()[&tp].local_start
    }

    pub(crate) fn retain(&self, bytes: Option<u64>) {
        *self.retention_bytes.lock() = bytes;
    }

    /// Appends one segment's worth of records whose content follows from their offsets.
    pub(crate) fn append_segment(&self, tp: TopicPartition) {
        let mut logs = self.logs.lock();
        let log = logs.get_mut(&tp).expect("a partition of this world");
        let base = log.end();
        let mut builder = BatchBuilder::new().base_offset(base).leader_epoch(*self.epoch.lock());
        let mut offset = base;
        while builder.size() < SEGMENT_BYTES as usize {
            let value: Vec<u8> = (0..4000i64).map(|at| (offset * 7919 + at * at / 3) as u8).collect();
            builder.append(SystemClock.now_ms(), Some(&offset.to_be_bytes()), Some(&value), &[]);
            offset += 1;
        }
        log.batches.push((base, offset, builder.build()));
    }
}

#[async_trait]
impl LocalLog for Locals {
    fn led(&self) -> Vec<TopicPartition> {
        self.logs.lock().keys().copied().collect()
    }

    fn state(&self, tp: TopicPartition) -> Option<LocalState> {
        let logs = self.logs.lock();
        let log = logs.get(&tp)?;
        let end = log.end();
        let segment = |batch: &(Offset, Offset, Bytes)| SegmentBounds {
            base: batch.0,
            end: batch.1,
            bytes: batch.2.len() as u64,
            max_timestamp: 0,
        };
        let untiered = log.batches.iter().filter(|batch| batch.1 > log.tier_end);
        Some(LocalState {
            leader_epoch: *self.epoch.lock(),
            is_leader: true,
            log_start: 0,
            local_start: log.local_start,
            last_stable: end,
            high_watermark: end,
            log_end: end,
            rolled: log.batches.iter().filter(|batch| batch.1 > log.local_start).map(segment).collect(),
            untiered_bytes: untiered.map(|batch| batch.2.len() as u64).sum(),
            oldest_untiered_ms: (log.tier_end < end).then(|| SystemClock.now_ms()),
            settings: TierSettings {
                enabled: true,
                segment_bytes: SEGMENT_BYTES,
                max_lag_ms: 60_000,
                retention_ms: None,
                retention_bytes: *self.retention_bytes.lock(),
            },
        })
    }

    async fn read(&self, tp: TopicPartition, from: Offset, to: Offset, max: usize) -> Result<Vec<Bytes>, LocalError> {
        let logs = self.logs.lock();
        let log = logs.get(&tp).filter(|log| from >= log.local_start).ok_or(LocalError::OutOfRange)?;
        let mut left = max;
        let batches = log.batches.iter().filter(|batch| batch.0 >= from && batch.1 <= to).enumerate();
        let fitting = batches.map_while(|(index, batch)| {
            let fits = index == 0 || batch.2.len() <= left;
            left = left.saturating_sub(batch.2.len());
            fits.then(|| batch.2.clone())
        });
        Ok(fitting.collect())
    }

    async fn sections(&self, tp: TopicPartition, _from: Offset, to: Offset) -> Result<LocalSections, LocalError> {
        let logs = self.logs.lock();
        let log = logs.get(&tp).ok_or(LocalError::OutOfRange)?;
        let mut entries: Vec<(LeaderEpoch, Offset)> = Vec::new();
        for (epoch, start) in log.epochs.iter().filter(|(_, start)| *start < to) {
            // An epoch in which nothing was appended leaves no trace.
            entries.retain(|(_, earlier)| earlier != start);
            entries.push((*epoch, *start));
        }
        Ok(LocalSections { epochs: EpochHistory { entries }, ..LocalSections::default() })
    }

    fn committed(&self, tp: TopicPartition, pointer: &TierPointer) {
        if self.quorum.pointer(tp).tier_end < pointer.tier_end {
            self.quorum.violations.lock().push(format!("POINTED: {tp} is trimmed on an uncommitted pointer"));
        }
        let mut logs = self.logs.lock();
        let Some(log) = logs.get_mut(&tp) else { return };
        log.tier_end = log.tier_end.max(pointer.tier_end);
        log.local_start = log.local_start.max(pointer.tier_end);
    }
}

/// One broker's tier against one S3.
pub(crate) struct World {
    pub(crate) server: Arc<S3Server>,
    pub(crate) quorum: Arc<Quorum>,
    pub(crate) locals: Arc<Locals>,
    pub(crate) config: RunnerConfig,
    entropy: Arc<SeededEntropy>,
    timeouts: Timeouts,
}

impl World {
    pub(crate) async fn new(seed: u64, partitions: i32) -> Self {
        let server = Arc::new(S3Server::start(seed).await.expect("loopback has a free port"));
        let quorum = Arc::new(Quorum {
            pointers: Mutex::new((0..partitions).map(|index| (partition(index), TierPointer::default())).collect()),
            epoch: Mutex::new(0),
            server: Arc::clone(&server),
            violations: Mutex::default(),
        });
        let locals = Arc::new(Locals {
            logs: Mutex::new((0..partitions).map(|index| (partition(index), Log::default())).collect()),
            epoch: Mutex::new(0),
            retention_bytes: Mutex::new(None),
            quorum: Arc::clone(&quorum),
        });
        let config = RunnerConfig {
            grace_ms: GRACE_MS,
            sweep_interval_ms: GRACE_MS / 2,
            retention_check_ms: 100,
            leaf_entries: 5,
            tick: Duration::from_millis(50),
            backoff: Backoff { first: Duration::from_millis(10), cap: Duration::from_millis(200) },
            ..RunnerConfig::default()
        };
        let timeouts = Timeouts {
            connect: Duration::from_secs(5),
            request: Duration::from_millis(400),
            per_mib: Duration::from_secs(1),
        };
        Self { server, quorum, locals, config, entropy: Arc::new(SeededEntropy::new(seed)), timeouts }
    }

    /// A client of the bucket as the broker makes it.
    pub(crate) fn store(&self) -> Store {
        let location = Location::parse(&format!("s3://{BUCKET}/{PREFIX}")).expect("a URL");
        let client = location.open(self.server.env(), self.timeouts).expect("settings of a client");
        Store::new(client, Layout::new(location.prefix(), CLUSTER), self.timeouts, Arc::new(NoMetrics))
    }

    /// Elects this broker anew and starts its runner.
    pub(crate) fn start(&self) -> RunnerHandle {
        let epoch = {
            let mut epoch = self.quorum.epoch.lock();
            *epoch += 1;
            *epoch
        };
        *self.locals.epoch.lock() = epoch;
        for (tp, log) in self.locals.logs.lock().iter_mut() {
            let end = log.end();
            log.epochs.push((epoch, end));
            log.tier_end = self.quorum.pointer(*tp).tier_end;
        }
        let parts = tiering::runner::Parts {
            store: self.store(),
            pointers: Arc::<Quorum>::clone(&self.quorum),
            locals: Arc::<Locals>::clone(&self.locals),
            clock: Arc::new(SystemClock),
            entropy: Arc::<SeededEntropy>::clone(&self.entropy),
        };
        tiering::runner::start(self.config.clone(), parts, &Spawner::single(tokio::runtime::Handle::current()))
    }

    /// A reader with an empty cache.
    pub(crate) fn reader(&self) -> RemoteReader {
        let patience = Patience { stall: self.timeouts.request, ..Patience::default() };
        let settings = ReaderSettings { window_budget: WINDOW_BYTES, patience, ..ReaderSettings::default() };
        let parts = tiering::reader::Parts {
            source: Arc::new(StoreSource::new(self.store())),
            cache: Arc::new(LruChunks::new(64 << 20)),
            roots: Arc::new(NoRootStore),
            pointers: Arc::<Quorum>::clone(&self.quorum),
            spawner: Spawner::single(tokio::runtime::Handle::current()),
            entropy: Arc::<SeededEntropy>::clone(&self.entropy),
        };
        RemoteReader::new(settings, parts)
    }

    /// Lets requests take as long as they need.
    pub(crate) fn patient(&mut self) {
        self.timeouts = Timeouts::default();
    }

    /// Waits for the tier to hold all that was appended.
    pub(crate) async fn settle(&self, runner: &RunnerHandle) {
        for tp in self.locals.led() {
            runner.nudge(tp);
        }
        let tiered = || self.locals.led().into_iter().all(|tp| self.quorum.pointer(tp).tier_end == self.locals.end(tp));
        until("everything is tiered", tiered).await;
    }

    /// No invariant was violated, every offset is in the tier or on local disk (NO-GAP), and what is in the tier is
    /// byte for byte what was appended.
    pub(crate) fn check(&self) {
        assert_eq!(*self.quorum.violations.lock(), Vec::<String>::new());
        let objects = self.server.objects();
        for (tp, log) in self.locals.logs.lock().iter() {
            let pointer = self.quorum.pointer(*tp);
            assert!(log.local_start <= pointer.tier_end, "NO-GAP: {tp} is local from {} on", log.local_start);
            let (entries, _) = covered(&self.server, *tp, &pointer).expect("a sound pointer");
            let layout = Layout::new(PREFIX, CLUSTER);
            let tiered: Vec<u8> = entries
                .iter()
                .flat_map(|entry| objects[&layout.data(entry).to_string()][..entry.object.length as usize].to_vec())
                .collect();
            let expected = self.expected(log, pointer.tier_start, pointer.tier_end);
            assert!(tiered == expected, "{tp}: the tier holds other bytes than were appended");
        }
    }

    /// Reads the whole tier as a consumer does, and compares.
    pub(crate) async fn read_back(&self, reader: &RemoteReader) {
        for tp in self.locals.led() {
            let pointer = self.quorum.pointer(tp);
            let mut next = pointer.tier_start;
            let mut got = Vec::new();
            let mut attempts = 0;
            while next < pointer.tier_end {
                match reader.read(tp, &pointer, next, 1 << 20, true).await {
                    Ok(data) => {
                        assert!(reader.stats().window_bytes <= WINDOW_BYTES, "BOUNDED: {:?}", reader.stats());
                        assert!(data.next > next, "a read that does not advance");
                        got.extend(data.chunks.iter().flat_map(|chunk| chunk.iter().copied()));
                        next = data.next;
                    }
                    Err(error) => {
                        attempts += 1;
                        assert!(error.is_retriable() && attempts < 50, "{tp} at {next}: {error}");
                    }
                }
            }
            let logs = self.locals.logs.lock();
            assert!(got == self.expected(&logs[&tp], pointer.tier_start, pointer.tier_end), "{tp}: other bytes");
        }
    }

    /// Keys of objects that no pointer leads to.
    pub(crate) fn orphans(&self) -> BTreeSet<String> {
        let mut keys: BTreeSet<String> = self.server.objects().into_keys().collect();
        for tp in self.locals.led() {
            let (_, named) = covered(&self.server, tp, &self.quorum.pointer(tp)).expect("a sound pointer");
            keys.retain(|key| !named.contains(key));
        }
        keys
    }

    /// A number below `below`, from the seed.
    pub(crate) fn random(&self, below: u64) -> u64 {
        proto::host::Entropy::next_u64(&*self.entropy) % below
    }

    fn expected(&self, log: &Log, from: Offset, to: Offset) -> Vec<u8> {
        let batches = log.batches.iter().filter(|batch| batch.0 >= from && batch.1 <= to);
        batches.flat_map(|batch| batch.2.iter().copied()).collect()
    }
}

/// Waits for something that is bound to happen.
pub(crate) async fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(40);
    while !happened() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What must end by itself: far beyond every deadline here, so that only a hang gets there.
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(Duration::from_secs(60), work).await;
    ended.unwrap_or_else(|_| panic!("{what} hangs"))
}
