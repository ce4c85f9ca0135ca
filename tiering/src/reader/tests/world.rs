//! A tier in memory: objects made by the real builder in a real (in-memory) store, behind latency,
//! limited bandwidth and faults.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use proto::host::{SeededEntropy, Spawner};
use proto::ids::{Offset, TopicId, TopicPartition, Uuid};
use proto::metadata::{ObjectFormat, ObjectKey, ObjectRef, RootRef, TierPointer};
use proto::records::BatchBuilder;

use crate::cache::{ChunkCache, LruChunks};
use crate::format::{AbortedTxn, EpochHistory, ObjectBuilder};
use crate::manifest::{Entry, Leaf, Manifest};
use crate::ports::{Commit, CommitError, DeletedPartition, PointerError, Pointers};
use crate::reader::{
    Body, Name, NoRootStore, Parts, RangeSource, ReaderSettings, RemoteData, RemoteError, RemoteReader, RootStore,
    SourceError, Span, StoreSource,
};
use crate::store::{Layout, NoMetrics, Store, Timeouts};

pub(super) const MIB: u64 = 1 << 20;
/// Value bytes per record; records per batch; so a batch is a little above 16 KiB.
const VALUE: usize = 4096;
const RECORDS: i64 = 4;

/// What happens to GETs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Answered with a retriable error.
    Fail,
    /// Never answered.
    Hang,
    /// The body breaks off after so many bytes.
    Break(u64),
    /// A bit in the body is wrong, so many bytes from its start.
    Flip(u64),
}

/// The store as the reader sees it.
pub(super) struct Source {
    store: StoreSource,
    pub(super) latency: Duration,
    /// Time for each MiB of a body.
    pub(super) per_mib: Duration,
    /// Faults for the next GETs, in order.
    faults: Mutex<Vec<(&'static str, Fault)>>,
    gets: Mutex<Vec<(&'static str, Span)>>,
    in_flight: AtomicU64,
    most_in_flight: AtomicU64,
}

impl Source {
    /// Kinds and spans of all GETs so far.
    pub(super) fn gets(&self, kind: &str) -> Vec<Span> {
        let gets = self.gets.lock();
        gets.iter().filter(|(of, _)| *of == kind).map(|(_, span)| span.clone()).collect()
    }

    pub(super) fn most_in_flight(&self) -> u64 {
        self.most_in_flight.load(SeqCst)
    }

    /// The next GET of `kind` ("data", "footer", "root", "leaf") without a fault yet goes wrong.
    pub(super) fn fault(&self, kind: &'static str, fault: Fault) {
        self.faults.lock().push((kind, fault));
    }
}

#[async_trait]
impl RangeSource for Source {
    async fn get(&self, name: &Name, span: Span) -> Result<Body, SourceError> {
        let kind = match (name, &span) {
            (Name::Data(..), Span::From(_)) => "footer",
            (Name::Data(..), _) => "data",
            (Name::Root(..), _) => "root",
            (Name::Leaf(..), _) => "leaf",
        };
        self.gets.lock().push((kind, span.clone()));
        let fault = {
            let mut faults = self.faults.lock();
            let at = faults.iter().position(|(of, _)| *of == kind);
            at.map(|at| faults.remove(at).1)
        };
        let flying = self.in_flight.fetch_add(1, SeqCst) + 1;
        self.most_in_flight.fetch_max(flying, SeqCst);
        let began = if fault == Some(Fault::Hang) {
            std::future::pending().await
        } else {
            tokio::time::sleep(self.latency).await;
            if fault == Some(Fault::Fail) {
                Err(SourceError::Transient("try again".into()))
            } else {
                self.store.get(name, span).await
            }
        };
        self.in_flight.fetch_sub(1, SeqCst);
        Ok(shape(began?, self.per_mib, fault))
    }
}

/// Cuts a body into frames as a network would, applies what goes wrong in it.
fn shape(body: Body, per_mib: Duration, fault: Option<Fault>) -> Body {
    const FRAME: usize = 100_000;
    let mut position = 0u64;
    let began = tokio::time::Instant::now();
    let framed = body.flat_map(|part| {
        let frames: Vec<_> = match part {
            Ok(bytes) => bytes.chunks(FRAME).map(|frame| Ok(bytes.slice_ref(frame))).collect(),
            Err(error) => vec![Err(error)],
        };
        futures::stream::iter(frames)
    });
    framed
        .then(move |frame: Result<Bytes, SourceError>| {
            let from = position;
            position += frame.as_ref().map_or(0, |bytes| bytes.len() as u64);
            let due = began + per_mib.mul_f64(position as f64 / MIB as f64);
            async move {
                tokio::time::sleep_until(due).await;
                let bytes = frame?;
                match fault {
                    Some(Fault::Break(after)) if from >= after => {
                        Err(SourceError::Transient("connection reset".into()))
                    }
                    Some(Fault::Flip(at)) if (from..from + bytes.len() as u64).contains(&at) => {
                        let mut wrong = bytes.to_vec();
                        wrong[(at - from) as usize] ^= 4;
                        Ok(Bytes::from(wrong))
                    }
                    _ => Ok(bytes),
                }
            }
        })
        .boxed()
}

/// Pointers that a test sets.
#[derive(Default)]
pub(super) struct Pointed {
    pub(super) fresh: Mutex<Option<TierPointer>>,
    pub(super) reads: AtomicU64,
}

#[async_trait]
impl Pointers for Pointed {
    fn current(&self, _tp: TopicPartition) -> Option<TierPointer> {
        self.fresh.lock().clone()
    }

    async fn read_fresh(&self, _tp: TopicPartition) -> Result<TierPointer, PointerError> {
        self.reads.fetch_add(1, SeqCst);
        self.fresh.lock().clone().ok_or(PointerError::Gone)
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<TierPointer, CommitError>> {
        commits.into_iter().map(|_| Err(CommitError::Fenced)).collect()
    }

    fn deleted(&self) -> Vec<DeletedPartition> {
        Vec::new()
    }

    async fn swept(&self, _partitions: Vec<TopicPartition>) {}
}

/// Keeps roots in memory.
#[derive(Default)]
pub(super) struct Disk(Mutex<BTreeMap<Uuid, Bytes>>);

#[async_trait]
impl RootStore for Disk {
    async fn load(&self, _tp: TopicPartition, root: &RootRef) -> Option<Bytes> {
        self.0.lock().get(&root.uuid).cloned()
    }

    async fn save(&self, _tp: TopicPartition, root: &RootRef, bytes: Bytes) {
        self.0.lock().insert(root.uuid, bytes);
    }
}

/// One partition's tier and a reader of it.
pub(super) struct World {
    pub(super) tp: TopicPartition,
    pub(super) pointer: TierPointer,
    pub(super) source: Arc<Source>,
    pub(super) pointers: Arc<Pointed>,
    pub(super) cache: Arc<dyn ChunkCache>,
    pub(super) reader: RemoteReader,
    store: Store,
    /// The log as it was uploaded, and (offset, position) of each batch in it.
    pub(super) log: Vec<u8>,
    pub(super) starts: Vec<(Offset, usize)>,
    entropy: SeededEntropy,
}

impl World {
    /// A tier without latency and with `objects` of about `size` bytes, all in the pointer's tail.
    pub(super) async fn new(objects: usize, size: u64) -> Self {
        Self::with(objects, size, Duration::ZERO, ReaderSettings::default()).await
    }

    pub(super) async fn with(objects: usize, size: u64, latency: Duration, settings: ReaderSettings) -> Self {
        let layout = Layout::new("", "cluster");
        let inner = Arc::new(InMemory::new());
        let store = Store::new(inner, layout, Timeouts::default(), Arc::new(NoMetrics));
        let source = Arc::new(Source {
            store: StoreSource::new(store.clone()),
            latency,
            per_mib: Duration::ZERO,
            faults: Mutex::default(),
            gets: Mutex::default(),
            in_flight: AtomicU64::new(0),
            most_in_flight: AtomicU64::new(0),
        });
        let pointers = Arc::new(Pointed::default());
        let cache: Arc<dyn ChunkCache> = Arc::new(LruChunks::new(256 << 20));
        let reader = reader_of(settings, &source, &cache, &pointers, Arc::new(NoRootStore));
        let mut world = Self {
            tp: TopicPartition::new(TopicId(Uuid::from_u128(1)), 0),
            pointer: TierPointer::default(),
            source,
            pointers,
            cache,
            reader,
            store,
            log: Vec::new(),
            starts: Vec::new(),
            entropy: SeededEntropy::new(7),
        };
        for _ in 0..objects {
            world.upload(size, &[]).await;
        }
        world
    }

    /// Another reader of the same tier: a restart.
    pub(super) fn restart(&mut self, settings: ReaderSettings, roots: Arc<dyn RootStore>) {
        self.cache = Arc::new(LruChunks::new(256 << 20));
        self.reader = reader_of(settings, &self.source, &self.cache, &self.pointers, roots);
    }

    /// The same with a small cache.
    pub(super) fn limit_cache(&mut self, settings: ReaderSettings, bytes: u64) {
        self.cache = Arc::new(LruChunks::new(bytes));
        self.reader = reader_of(settings, &self.source, &self.cache, &self.pointers, Arc::new(NoRootStore));
    }

    /// Uploads an object with at least `size` bytes that follow on what is there.
    pub(super) async fn upload(&mut self, size: u64, aborted: &[AbortedTxn]) -> Entry {
        let base = self.pointer.tier_end;
        let from = self.log.len();
        let mut next = base;
        while ((self.log.len() - from) as u64) < size {
            self.starts.push((next, self.log.len()));
            self.log.extend_from_slice(&batch(next));
            next += RECORDS;
        }
        let data = Bytes::copy_from_slice(&self.log[from..]);
        let entry = self.put(base, next, &data, aborted).await;
        self.pointer.tail.push(entry.clone());
        self.pointer.tier_end = next;
        self.pointer.generation += 1;
        *self.pointers.fresh.lock() = Some(self.pointer.clone());
        entry
    }

    /// Stores an object with the data of `[base, end)`.
    pub(super) async fn put(&self, base: Offset, end: Offset, data: &Bytes, aborted: &[AbortedTxn]) -> Entry {
        let mut builder = ObjectBuilder::new(base);
        assert_eq!(builder.push(data, end, u64::MAX).unwrap(), data.len());
        let epochs = EpochHistory { entries: vec![(3, 0), (5, 100)] };
        let clipped = epochs.clipped(base, end);
        let sealed = builder.seal(epochs, aborted.to_vec(), Bytes::from(format!("producers at {end}"))).unwrap();
        let key = ObjectKey {
            owner: self.tp,
            base_offset: base,
            leader_epoch: 5,
            uuid: proto::host::Entropy::uuid(&self.entropy),
        };
        let entry = Entry {
            base,
            end,
            max_timestamp: sealed.max_timestamp,
            object: ObjectRef { key, start: 0, length: sealed.data_length },
            footer_position: sealed.data_length,
            epochs: clipped,
            format: ObjectFormat::Segment,
            has_aborted: !aborted.is_empty(),
            points: sealed.points(32),
        };
        self.store.create(&self.store.layout().data(&entry), &sealed.chunks).await.unwrap();
        entry
    }

    /// Deletes an entry's object.
    pub(super) async fn delete(&self, entry: &Entry) {
        self.store.delete(&self.store.layout().data(entry)).await.unwrap();
    }

    /// Moves the pointer's tail into a root, and its first `spilled` entries into a leaf.
    pub(super) async fn fold(&mut self, spilled: usize) {
        let mut manifest = Manifest { leaves: Vec::new(), entries: std::mem::take(&mut self.pointer.tail) };
        if spilled > 0 {
            let leaf = Leaf { entries: manifest.entries.drain(..spilled).collect() };
            let (bytes, reference) = leaf.encode(self.tp, proto::host::Entropy::uuid(&self.entropy), 5).unwrap();
            self.store.create(&self.store.layout().leaf(self.tp, &reference), &[bytes]).await.unwrap();
            manifest.leaves.push(reference);
        }
        let bytes = manifest.encode(self.tp);
        self.pointer.generation += 1;
        let root = RootRef {
            uuid: proto::host::Entropy::uuid(&self.entropy),
            generation: self.pointer.generation,
            leader_epoch: 5,
            size: bytes.len() as u64,
            crc: crc32c::crc32c(&bytes),
        };
        self.store.create(&self.store.layout().root(self.tp, &root), &[bytes]).await.unwrap();
        self.pointer.root = Some(root);
        *self.pointers.fresh.lock() = Some(self.pointer.clone());
    }

    pub(super) async fn read(&self, from: Offset, max_bytes: usize) -> Result<RemoteData, RemoteError> {
        self.reader.read(self.tp, &self.pointer, from, max_bytes, true).await
    }

    /// Reads `[from, to)` as a consumer does, 1 MiB at a time; asserts that it is what was uploaded.
    pub(super) async fn consume(&self, from: Offset, to: Offset) -> u64 {
        let (mut next, mut bytes) = (from, 0);
        while next < to {
            let data = self.read(next, 1 << 20).await.unwrap();
            assert!(data.bytes <= MIB, "{} bytes", data.bytes);
            self.assert_data(next, &data);
            next = data.next;
            bytes += data.bytes;
        }
        bytes
    }

    /// Asserts that `data` is what the log has from the batch that holds `from` on.
    pub(super) fn assert_data(&self, from: Offset, data: &RemoteData) {
        let at = self.starts.partition_point(|(offset, _)| *offset <= from) - 1;
        let start = self.starts[at].1;
        let got = data.chunks.concat();
        assert_eq!(got.len() as u64, data.bytes);
        assert!(data.bytes > 0, "nothing from {from} on");
        assert!(got == self.log[start..start + got.len()], "wrong bytes from {from} on");
        let after = self.starts.iter().find(|(_, position)| *position == start + got.len());
        assert_eq!(data.next, after.map_or(self.pointer.tier_end, |(offset, _)| *offset));
    }
}

fn reader_of(
    settings: ReaderSettings,
    source: &Arc<Source>,
    cache: &Arc<dyn ChunkCache>,
    pointers: &Arc<Pointed>,
    roots: Arc<dyn RootStore>,
) -> RemoteReader {
    let parts = Parts {
        source: Arc::<Source>::clone(source),
        cache: Arc::clone(cache),
        roots,
        pointers: Arc::<Pointed>::clone(pointers),
        spawner: Spawner::single(tokio::runtime::Handle::current()),
        entropy: Arc::new(SeededEntropy::new(1)),
    };
    RemoteReader::new(settings, parts)
}

/// Four records of 4 KiB that nothing compresses; timestamps are ten times the offset.
fn batch(base: Offset) -> Bytes {
    static PATTERN: std::sync::LazyLock<Vec<u8>> =
        std::sync::LazyLock::new(|| (0..VALUE * 2).map(|i| (i * i / 7) as u8).collect());
    let mut builder = BatchBuilder::new().base_offset(base).leader_epoch(if base < 100 { 3 } else { 5 });
    for offset in base..base + RECORDS {
        let from = (offset * 31) as usize % VALUE;
        builder.append(offset * 10, Some(&offset.to_be_bytes()), Some(&PATTERN[from..from + VALUE]), &[]);
    }
    builder.build()
}

/// Makes the source slower or wider from here on.
pub(super) fn slow(world: &mut World, per_mib: Duration, settings: ReaderSettings) {
    let source = Source {
        store: StoreSource::new(world.store.clone()),
        latency: world.source.latency,
        per_mib,
        faults: Mutex::default(),
        gets: Mutex::default(),
        in_flight: AtomicU64::new(0),
        most_in_flight: AtomicU64::new(0),
    };
    world.source = Arc::new(source);
    world.restart(settings, Arc::new(NoRootStore));
}
