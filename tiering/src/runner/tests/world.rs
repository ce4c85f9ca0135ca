//! A quorum, local logs and a faulty store in memory, watched for violations of the invariants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use proto::host::{Clock, Entropy, SeededEntropy, Spawner};
use proto::ids::{Millis, Offset, TopicPartition};
use proto::metadata::TierPointer;
use tokio::time::Instant;
use uuid::Uuid;

use crate::fixtures::{batch, partition};
use crate::format::{AbortedTxn, EpochHistory, Footer};
use crate::manifest::{Entry, Leaf, Manifest, View, check_commit, check_pointer};
use crate::ports::{
    Commit, CommitError, DeletedPartition, LocalError, LocalLog, LocalSections, LocalState, PointerError, Pointers,
    SegmentBounds, TierSettings,
};
use crate::runner::{Backoff, Parts, RunnerConfig, RunnerHandle, start};
use crate::store::faulty::{FaultyStore, Fuse};
use crate::store::{Key, Layout, NoMetrics, Store, Timeouts};

/// Wall clock that follows tokio's, which tests pause.
pub(super) struct TokioClock(Instant);

pub(super) const EPOCH_MS: Millis = 1_000_000_000;

impl Clock for TokioClock {
    fn now_ms(&self) -> Millis {
        EPOCH_MS + self.0.elapsed().as_millis() as Millis
    }
}

/// Lets a number of steps happen and then hangs for ever, as a crash would.
#[derive(Default)]
pub(super) struct CountingFuse {
    taken: AtomicU64,
    blows_at: AtomicU64,
    blown: tokio::sync::Notify,
}

impl CountingFuse {
    pub(super) fn arm(&self, at: u64) {
        self.taken.store(0, Ordering::SeqCst);
        self.blows_at.store(at, Ordering::SeqCst);
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::SeqCst)
    }

    pub(super) async fn blown(&self) {
        self.blown.notified().await;
    }
}

#[async_trait]
impl Fuse for CountingFuse {
    async fn step(&self) {
        let taken = self.taken.fetch_add(1, Ordering::SeqCst) + 1;
        if taken == self.blows_at.load(Ordering::SeqCst) {
            self.blown.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

/// How commits go wrong, in 1/1000.
#[derive(Clone, Copy, Default)]
pub(super) struct CommitFaults {
    pub(super) lost_request: u32,
    pub(super) lost_answer: u32,
    pub(super) late: u32,
}

#[derive(Clone)]
pub(super) struct Quorum(Arc<QuorumInner>);

pub(super) struct QuorumInner {
    pointers: Mutex<BTreeMap<TopicPartition, (TierPointer, i32)>>,
    deleted: Mutex<Vec<DeletedPartition>>,
    faults: Mutex<CommitFaults>,
    requests: AtomicU64,
    /// The node's clock is off.
    clock_is_off: AtomicBool,
    entropy: Arc<dyn Entropy>,
    fuse: Arc<CountingFuse>,
    store: FaultyStore,
    layout: Layout,
    violations: Arc<Mutex<Vec<String>>>,
}

impl Quorum {
    pub(super) fn set_faults(&self, faults: CommitFaults) {
        *self.0.faults.lock() = faults;
    }

    pub(super) fn set_clock_off(&self, is_off: bool) {
        self.0.clock_is_off.store(is_off, Ordering::SeqCst);
    }

    pub(super) fn elect(&self, tp: TopicPartition, epoch: i32) {
        self.0.pointers.lock().entry(tp).or_default().1 = epoch;
    }

    pub(super) fn pointer(&self, tp: TopicPartition) -> TierPointer {
        self.0.pointers.lock().get(&tp).map(|(pointer, _)| pointer.clone()).unwrap_or_default()
    }

    /// What the controller does for DeleteRecords.
    pub(super) fn delete_records(&self, tp: TopicPartition, log_start: Offset) {
        let mut pointers = self.0.pointers.lock();
        let (pointer, _) = pointers.get_mut(&tp).unwrap();
        pointer.log_start = log_start;
        pointer.generation += 1;
        pointer.request = Uuid::from_u128(log_start as u128);
    }

    pub(super) fn delete_topic(&self, tp: TopicPartition, now: Millis) {
        self.0.pointers.lock().remove(&tp);
        self.0.deleted.lock().push(DeletedPartition { tp, deleted_at: now });
    }

    pub(super) fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::SeqCst)
    }

    fn violation(&self, text: String) {
        self.0.violations.lock().push(text);
    }

    fn chance(&self, per_mille: u32) -> bool {
        self.0.entropy.next_u64() % 1000 < u64::from(per_mille)
    }

    fn apply(&self, commit: &Commit) -> Result<TierPointer, CommitError> {
        let mut pointers = self.0.pointers.lock();
        let Some((stored, epoch)) = pointers.get_mut(&commit.tp) else { return Err(CommitError::Gone) };
        if stored.request == commit.request && stored.generation > 0 {
            return Ok(stored.clone());
        }
        if commit.leader_epoch != *epoch {
            return Err(CommitError::Fenced);
        }
        if stored.generation != commit.expected_generation {
            return Err(CommitError::Stale);
        }
        if let Err(text) = check_commit(stored, &commit.pointer, None) {
            self.violation(format!("commit: {text}"));
        }
        *stored = commit.pointer.clone();
        let stored = stored.clone();
        drop(pointers);
        self.check(commit.tp, &stored);
        Ok(stored)
    }

    /// Everything that a pointer leads to, or the reason why it does not.
    pub(super) fn covered(&self, tp: TopicPartition, pointer: &TierPointer) -> Result<(Vec<Entry>, Vec<Key>), String> {
        let objects = self.0.store.objects();
        let mut keys = Vec::new();
        let mut load = |key: Key| {
            let bytes = objects.get(key.path()).cloned().ok_or(format!("{key} is missing"));
            keys.push(key);
            bytes
        };
        let root = match &pointer.root {
            Some(reference) => {
                let bytes = load(self.0.layout.root(tp, reference))?;
                Some(Manifest::decode_referenced(&bytes, tp, reference).map_err(|error| error.to_string())?)
            }
            None => None,
        };
        check_pointer(pointer, root.as_ref()).map_err(|violation| violation.to_string())?;
        let view = View::new(pointer, root.as_ref());
        let mut entries = Vec::new();
        for reference in view.leaves() {
            let bytes = load(self.0.layout.leaf(tp, reference))?;
            let leaf = Leaf::decode(&bytes, tp, reference).map_err(|error| error.to_string())?;
            entries.extend(leaf.entries.into_iter().filter(|entry| entry.end > pointer.tier_start));
        }
        entries.extend(view.entries().cloned());
        for entry in &entries {
            let bytes = load(self.0.layout.data(entry))?;
            let footer = bytes.slice(entry.footer_position as usize..);
            let footer = Footer::decode(&footer).map_err(|error| error.to_string())?;
            if (footer.base, footer.end, footer.data_length) != (entry.base, entry.end, entry.object.length) {
                return Err(format!("object at {} is not what its entry says", entry.base));
            }
        }
        let bytes: u64 = entries.iter().map(|entry| entry.object.length).sum();
        if bytes != pointer.bytes {
            return Err(format!("pointer says {} bytes, entries hold {bytes}", pointer.bytes));
        }
        Ok((entries, keys))
    }

    fn check(&self, tp: TopicPartition, pointer: &TierPointer) {
        if let Err(text) = self.covered(tp, pointer) {
            self.violation(format!("generation {} of {tp}: {text}", pointer.generation));
        }
    }
}

#[async_trait]
impl Pointers for Quorum {
    fn current(&self, tp: TopicPartition) -> Option<TierPointer> {
        self.0.pointers.lock().get(&tp).map(|(pointer, _)| pointer.clone())
    }

    async fn read_fresh(&self, tp: TopicPartition) -> Result<TierPointer, PointerError> {
        self.0.fuse.step().await;
        self.current(tp).ok_or(PointerError::Gone)
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<TierPointer, CommitError>> {
        self.0.requests.fetch_add(1, Ordering::SeqCst);
        self.0.fuse.step().await;
        let faults = *self.0.faults.lock();
        let unknown = || Err(CommitError::Unknown("the leader of the quorum is gone".to_owned()));
        if self.chance(faults.lost_request) {
            return commits.iter().map(|_| unknown()).collect();
        }
        if self.chance(faults.late) {
            let (quorum, wait) = (self.clone(), Duration::from_millis(self.0.entropy.next_u64() % 20_000));
            let answers = commits.iter().map(|_| unknown()).collect();
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                for commit in commits {
                    let _ = quorum.apply(&commit);
                }
            });
            return answers;
        }
        let answers: Vec<_> = commits.iter().map(|commit| self.apply(commit)).collect();
        self.0.fuse.step().await;
        if self.chance(faults.lost_answer) { commits.iter().map(|_| unknown()).collect() } else { answers }
    }

    fn clock_is_sound(&self) -> bool {
        !self.0.clock_is_off.load(Ordering::SeqCst)
    }

    fn deleted(&self) -> Vec<DeletedPartition> {
        self.0.deleted.lock().clone()
    }

    async fn swept(&self, partitions: Vec<TopicPartition>) {
        self.0.deleted.lock().retain(|deleted| !partitions.contains(&deleted.tp));
    }
}

/// One partition's log: all batches ever appended, and which of them are still local.
struct Log {
    batches: Vec<(Offset, Offset, Bytes, Millis)>,
    rolled: Vec<SegmentBounds>,
    active_base: Offset,
    active_bytes: u64,
    local_start: Offset,
    tier_end: Offset,
    unstable_from: Option<Offset>,
    epochs: Vec<(i32, Offset)>,
}

/// Local logs; one per world, surviving the runner's crashes as a disk would.
pub(super) struct Locals {
    logs: Mutex<BTreeMap<TopicPartition, Log>>,
    epoch: Mutex<i32>,
    pub(super) settings: Mutex<TierSettings>,
    /// Partitions whose next read panics.
    pub(super) defects: Mutex<BTreeSet<TopicPartition>>,
    clock: Arc<TokioClock>,
    quorum: Quorum,
}

impl Locals {
    pub(super) fn end(&self, tp: TopicPartition) -> Offset {
        self.logs.lock()[&tp].batches.last().map_or(0, |batch| batch.1)
    }

    pub(super) fn local_start(&self, tp: TopicPartition) -> Offset {
        self.logs.lock()[&tp].local_start
    }

    pub(super) fn hold_from(&self, tp: TopicPartition, offset: Option<Offset>) {
        self.logs.lock().get_mut(&tp).unwrap().unstable_from = offset;
    }

    /// Appends a batch and rolls when the segment is full.
    pub(super) fn append(&self, tp: TopicPartition, records: i64, bytes: usize) {
        let now = self.clock.now_ms();
        let epoch = *self.epoch.lock();
        let mut logs = self.logs.lock();
        let log = logs.get_mut(&tp).unwrap();
        let base = log.batches.last().map_or(0, |batch| batch.1);
        let data = batch(base, epoch, records, bytes, now);
        let segment_bytes = self.settings.lock().segment_bytes;
        if log.active_bytes + data.len() as u64 > segment_bytes && log.active_bytes > 0 {
            roll(log);
        }
        log.active_bytes += data.len() as u64;
        log.batches.push((base, base + records, data, now));
    }

    pub(super) fn roll(&self, tp: TopicPartition) {
        roll(self.logs.lock().get_mut(&tp).unwrap());
    }

    fn elect(&self, epoch: i32) {
        *self.epoch.lock() = epoch;
        for (tp, log) in self.logs.lock().iter_mut() {
            let end = log.batches.last().map_or(0, |batch| batch.1);
            log.epochs.push((epoch, end));
            log.tier_end = self.quorum.pointer(*tp).tier_end;
        }
    }
}

fn roll(log: &mut Log) {
    let end = log.batches.last().map_or(0, |batch| batch.1);
    if end > log.active_base {
        let max_timestamp = log.batches.last().map_or(-1, |batch| batch.3);
        log.rolled.push(SegmentBounds { base: log.active_base, end, bytes: log.active_bytes, max_timestamp });
        log.active_base = end;
        log.active_bytes = 0;
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
        let end = log.batches.last().map_or(0, |batch| batch.1);
        let untiered = || log.batches.iter().filter(|batch| batch.1 > log.tier_end);
        Some(LocalState {
            leader_epoch: *self.epoch.lock(),
            is_leader: true,
            log_start: 0,
            local_start: log.local_start,
            last_stable: log.unstable_from.unwrap_or(end),
            high_watermark: end,
            log_end: end,
            rolled: log.rolled.iter().filter(|segment| segment.end > log.local_start).copied().collect(),
            untiered_bytes: untiered().map(|batch| batch.2.len() as u64).sum(),
            oldest_untiered_ms: untiered().next().map(|batch| batch.3),
            settings: *self.settings.lock(),
        })
    }

    async fn read(&self, tp: TopicPartition, from: Offset, to: Offset, max: usize) -> Result<Vec<Bytes>, LocalError> {
        let defect = self.defects.lock().remove(&tp);
        assert!(!defect, "a defect, for the test");
        let logs = self.logs.lock();
        let log = logs.get(&tp).ok_or(LocalError::OutOfRange)?;
        if from < log.local_start {
            return Err(LocalError::OutOfRange);
        }
        let mut room = max;
        let mut chunks = Vec::new();
        for (_, _, data, _) in log.batches.iter().filter(|batch| batch.1 > from && batch.0 < to) {
            if !chunks.is_empty() && data.len() > room {
                break;
            }
            room = room.saturating_sub(data.len());
            chunks.push(data.clone());
        }
        Ok(chunks)
    }

    async fn sections(&self, tp: TopicPartition, from: Offset, to: Offset) -> Result<LocalSections, LocalError> {
        let logs = self.logs.lock();
        let log = logs.get(&tp).ok_or(LocalError::OutOfRange)?;
        let mut entries: Vec<(i32, Offset)> = log.epochs.iter().filter(|epoch| epoch.1 < to).copied().collect();
        entries.dedup_by(|later, earlier| {
            let same_start = later.1 == earlier.1;
            if same_start {
                *earlier = *later;
            }
            same_start
        });
        let aborted = vec![AbortedTxn { first_offset: from, last_offset: to, producer_id: 1 }];
        Ok(LocalSections { epochs: EpochHistory { entries }, aborted, producers: Bytes::from_static(b"state") })
    }

    fn committed(&self, tp: TopicPartition, pointer: &TierPointer) {
        let known = self.quorum.pointer(tp);
        if known.generation < pointer.generation || known.tier_end < pointer.tier_end {
            self.quorum.violation(format!("POINTED: trimming on an uncommitted pointer of {tp}"));
        }
        let mut logs = self.logs.lock();
        let Some(log) = logs.get_mut(&tp) else { return };
        log.tier_end = log.tier_end.max(pointer.tier_end);
        let kept = log.rolled.iter().find(|segment| segment.end > pointer.tier_end).map(|segment| segment.base);
        log.local_start = log.local_start.max(kept.unwrap_or(log.active_base).min(pointer.tier_end));
    }
}

/// A broker among several that hold replicas of the same logs: at any time one of them leads.
pub(super) struct Seat {
    quorum: Quorum,
    locals: Arc<Locals>,
    leads: AtomicBool,
    cut_off: AtomicBool,
}

impl Seat {
    /// Whether the broker believes that it leads.
    pub(super) fn lead(&self, leads: bool) {
        self.leads.store(leads, Ordering::SeqCst);
    }

    /// Whether the broker cannot reach the quorum.
    pub(super) fn cut_off(&self, cut_off: bool) {
        self.cut_off.store(cut_off, Ordering::SeqCst);
    }
}

#[async_trait]
impl Pointers for Seat {
    fn current(&self, tp: TopicPartition) -> Option<TierPointer> {
        self.quorum.current(tp)
    }

    async fn read_fresh(&self, tp: TopicPartition) -> Result<TierPointer, PointerError> {
        if self.cut_off.load(Ordering::SeqCst) {
            return Err(PointerError::Unavailable("cut off".to_owned()));
        }
        self.quorum.read_fresh(tp).await
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<TierPointer, CommitError>> {
        self.quorum.commit(commits).await
    }

    fn deleted(&self) -> Vec<DeletedPartition> {
        Vec::new()
    }

    async fn swept(&self, _: Vec<TopicPartition>) {}
}

#[async_trait]
impl LocalLog for Seat {
    fn led(&self) -> Vec<TopicPartition> {
        if self.leads.load(Ordering::SeqCst) { self.locals.led() } else { Vec::new() }
    }

    fn state(&self, tp: TopicPartition) -> Option<LocalState> {
        let is_leader = self.leads.load(Ordering::SeqCst);
        self.locals.state(tp).map(|state| LocalState { is_leader, ..state })
    }

    async fn read(&self, tp: TopicPartition, from: Offset, to: Offset, max: usize) -> Result<Vec<Bytes>, LocalError> {
        self.locals.read(tp, from, to, max).await
    }

    async fn sections(&self, tp: TopicPartition, from: Offset, to: Offset) -> Result<LocalSections, LocalError> {
        self.locals.sections(tp, from, to).await
    }

    fn committed(&self, tp: TopicPartition, pointer: &TierPointer) {
        self.locals.committed(tp, pointer);
    }
}

pub(super) struct World {
    pub(super) store: FaultyStore,
    pub(super) fuse: Arc<CountingFuse>,
    pub(super) quorum: Quorum,
    pub(super) locals: Arc<Locals>,
    pub(super) clock: Arc<TokioClock>,
    pub(super) config: RunnerConfig,
    entropy: Arc<SeededEntropy>,
    violations: Arc<Mutex<Vec<String>>>,
    epoch: i32,
}

pub(super) const GRACE_MS: Millis = 600_000;

impl World {
    pub(super) fn new(seed: u64, partitions: i32) -> Self {
        let entropy = Arc::new(SeededEntropy::new(seed));
        let fuse = Arc::new(CountingFuse::default());
        let store = FaultyStore::new(entropy.clone(), fuse.clone(), Duration::from_millis(20));
        let violations = Arc::new(Mutex::new(Vec::new()));
        let quorum = Quorum(Arc::new(QuorumInner {
            pointers: Mutex::default(),
            deleted: Mutex::default(),
            faults: Mutex::default(),
            requests: AtomicU64::new(0),
            clock_is_off: AtomicBool::new(false),
            entropy: entropy.clone(),
            fuse: fuse.clone(),
            store: store.clone(),
            layout: Layout::new("", "cluster"),
            violations: violations.clone(),
        }));
        let clock = Arc::new(TokioClock(Instant::now()));
        let log = || Log {
            batches: Vec::new(),
            rolled: Vec::new(),
            active_base: 0,
            active_bytes: 0,
            local_start: 0,
            tier_end: 0,
            unstable_from: None,
            epochs: Vec::new(),
        };
        let settings = TierSettings {
            enabled: true,
            segment_bytes: 4096,
            max_lag_ms: 60_000,
            retention_ms: None,
            retention_bytes: None,
        };
        let locals = Arc::new(Locals {
            logs: Mutex::new((0..partitions).map(|index| (partition(index), log())).collect()),
            epoch: Mutex::new(0),
            settings: Mutex::new(settings),
            defects: Mutex::default(),
            clock: clock.clone(),
            quorum: quorum.clone(),
        });
        let config = RunnerConfig {
            grace_ms: GRACE_MS,
            sweep_interval_ms: 2 * GRACE_MS,
            retention_check_ms: 10_000,
            leaf_entries: 5,
            upload_budget_bytes: 64 << 10,
            read_chunk_bytes: 2000,
            backoff: Backoff { first: Duration::from_millis(100), cap: Duration::from_secs(5) },
            ..RunnerConfig::default()
        };
        Self { store, fuse, quorum, locals, clock, config, entropy, violations, epoch: 0 }
    }

    /// Elects this broker anew and starts its runner.
    pub(super) fn start(&mut self) -> RunnerHandle {
        self.elect();
        self.run(Arc::new(self.quorum.clone()), self.locals.clone())
    }

    /// A broker that does not lead yet, and its runner.
    pub(super) fn seat(&self) -> (Arc<Seat>, RunnerHandle) {
        let seat = Arc::new(Seat {
            quorum: self.quorum.clone(),
            locals: self.locals.clone(),
            leads: false.into(),
            cut_off: false.into(),
        });
        (seat.clone(), self.run(seat.clone(), seat))
    }

    /// Makes the quorum and the logs count under a new leader epoch.
    pub(super) fn elect(&mut self) {
        self.epoch += 1;
        for tp in self.locals.led() {
            self.quorum.elect(tp, self.epoch);
        }
        self.locals.elect(self.epoch);
    }

    fn run(&self, pointers: Arc<dyn Pointers>, locals: Arc<dyn LocalLog>) -> RunnerHandle {
        let layout = Layout::new("", "cluster");
        let store = Store::new(Arc::new(self.store.clone()), layout, Timeouts::default(), Arc::new(NoMetrics));
        let parts = Parts { store, pointers, locals, clock: self.clock.clone(), entropy: self.entropy.clone() };
        start(self.config.clone(), parts, &Spawner::single(tokio::runtime::Handle::current()))
    }

    pub(super) fn random(&self, below: u64) -> u64 {
        self.entropy.next_u64() % below
    }

    /// No violation so far, and every offset of every log is served from the tier or from local disk,
    /// byte for byte (NO-GAP).
    pub(super) fn check(&self) {
        assert_eq!(*self.violations.lock(), Vec::<String>::new());
        let objects = self.store.objects();
        for (tp, log) in self.locals.logs.lock().iter() {
            let pointer = self.quorum.pointer(*tp);
            let (entries, _) = self.quorum.covered(*tp, &pointer).unwrap();
            assert!(log.local_start <= pointer.tier_end.max(pointer.log_start), "a gap in {tp}");
            let mut tiered = Vec::new();
            for entry in &entries {
                let object = &objects[Layout::new("", "cluster").data(entry).path()];
                tiered.extend_from_slice(&object[..entry.object.length as usize]);
            }
            let expected: Vec<u8> = log
                .batches
                .iter()
                .filter(|batch| batch.1 > pointer.tier_start && batch.1 <= pointer.tier_end)
                .flat_map(|batch| batch.2.iter().copied())
                .collect();
            assert!(tiered == expected, "{tp}: what is tiered is not what was appended");
        }
    }

    /// Names of all objects that no pointer leads to.
    pub(super) fn orphans(&self) -> Vec<String> {
        let mut named = BTreeSet::new();
        for tp in self.locals.led() {
            let pointer = self.quorum.pointer(tp);
            named.extend(self.quorum.covered(tp, &pointer).unwrap().1.into_iter().map(|key| key.to_string()));
        }
        self.store.objects().keys().map(ToString::to_string).filter(|name| !named.contains(name)).collect()
    }
}

/// Lets time pass, and with it everything that waits for it.
pub(super) async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
