//! How fast a cold topic is read back, and what that costs, without a broker around it.
//!
//! ```text
//! cargo run --release -p tiering --example cold_speed -- [URL [DELAY_MS [RUNS]]]
//! ```
//!
//! `URL` as for `--object-store` (default: a temporary directory; for S3 with the usual `AWS_*` variables).
//! Uploads 256 MiB in objects of 32 MiB, then per run: reads 192 MiB by parallel GETs as the yardstick,
//! and as one consumer that asks for 1 MiB at a time. `DELAY_MS` is added before each response.

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use proto::host::{Entropy, Spawner, SystemEntropy};
use proto::ids::{TopicId, TopicPartition};
use proto::metadata::{ObjectFormat, ObjectKey, ObjectRef, TierPointer};
use proto::records::BatchBuilder;
use tiering::cache::MokaChunks;
use tiering::format::{EpochHistory, ObjectBuilder};
use tiering::manifest::Entry;
use tiering::ports::{Commit, CommitError, DeletedPartition, PointerError, Pointers};
use tiering::reader::{
    Body, Name, NoRootStore, Parts, RangeSource, ReaderSettings, RemoteReader, SourceError, Span, StoreSource,
};
use tiering::store::{Layout, Location, NoMetrics, Store, Timeouts};
use tokio::time::Instant;

const MIB: u64 = 1 << 20;
const OBJECTS: u64 = 8;
const OBJECT_BYTES: u64 = 32 * MIB;
const READ_BYTES: u64 = 192 * MIB;
/// The yardstick: GETs of this size, so many at a time.
const RAW_GET_BYTES: u64 = 4 * MIB;
const RAW_GETS: usize = 16;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let directory = tempfile::tempdir()?;
    let url = arguments.next().unwrap_or_else(|| format!("file://{}", directory.path().display()));
    let delay = Duration::from_millis(arguments.next().map_or(Ok(0), |text| text.parse())?);
    let runs: u32 = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let location = Location::parse(&url)?;
        let client = location.open(std::env::vars(), Timeouts::default())?;
        let layout = Layout::new(location.prefix(), &format!("cold-speed-{}", SystemEntropy.uuid()));
        let store = Store::new(client, layout, Timeouts::default(), Arc::new(NoMetrics));
        let (tp, pointer) = upload(&store).await?;
        let source = Arc::new(Delayed { inner: StoreSource::new(store), delay });
        for _ in 0..runs {
            let raw = raw(&source, &pointer).await?;
            consume(&source, tp, &pointer, raw).await?;
        }
        Ok(())
    })
}

/// Adds a time to the first byte of each GET.
struct Delayed {
    inner: StoreSource,
    delay: Duration,
}

#[async_trait]
impl RangeSource for Delayed {
    async fn get(&self, name: &Name, span: Span) -> Result<Body, SourceError> {
        tokio::time::sleep(self.delay).await;
        self.inner.get(name, span).await
    }
}

/// A quorum that nobody asks.
struct NoPointers;

#[async_trait]
impl Pointers for NoPointers {
    fn current(&self, _tp: TopicPartition) -> Option<TierPointer> {
        None
    }

    async fn read_fresh(&self, _tp: TopicPartition) -> Result<TierPointer, PointerError> {
        Err(PointerError::Gone)
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<TierPointer, CommitError>> {
        commits.into_iter().map(|_| Err(CommitError::Gone)).collect()
    }

    fn deleted(&self) -> Vec<DeletedPartition> {
        Vec::new()
    }

    async fn swept(&self, _partitions: Vec<TopicPartition>) {}
}

async fn upload(store: &Store) -> Result<(TopicPartition, TierPointer), Failure> {
    let tp = TopicPartition::new(TopicId(SystemEntropy.uuid()), 0);
    let mut pointer = TierPointer { generation: 1, ..TierPointer::default() };
    let value: Vec<u8> = (0..1024u32).map(|i| (i * i / 7) as u8).collect();
    for _ in 0..OBJECTS {
        let base = pointer.tier_end;
        let mut object = ObjectBuilder::new(base);
        while object.data_length() < OBJECT_BYTES {
            // As a producer with batches of a good 60 KiB sends them.
            let mut batch = BatchBuilder::new().base_offset(object.end()).leader_epoch(1);
            for at in 0..60 {
                batch.append(object.end() + at, None, Some(&value), &[]);
            }
            object.push(&batch.build(), i64::MAX, u64::MAX)?;
        }
        let epochs = EpochHistory { entries: vec![(1, 0)] };
        let clipped = epochs.clipped(base, object.end());
        let sealed = object.seal(epochs, Vec::new(), Bytes::new())?;
        let key = ObjectKey { owner: tp, base_offset: base, leader_epoch: 1, uuid: SystemEntropy.uuid() };
        let entry = Entry {
            base,
            end: sealed.end,
            max_timestamp: sealed.max_timestamp,
            object: ObjectRef { key, start: 0, length: sealed.data_length },
            footer_position: sealed.data_length,
            epochs: clipped,
            format: ObjectFormat::Segment,
            has_aborted: false,
            points: sealed.points(32),
        };
        store.create(&store.layout().data(&entry), &sealed.chunks).await?;
        pointer.tier_end = entry.end;
        pointer.tail.push(entry);
    }
    Ok((tp, pointer))
}

/// All ranges at once, as fast as the store gives them. Returns MiB per second.
async fn raw(source: &Arc<Delayed>, pointer: &TierPointer) -> Result<f64, Failure> {
    let mut gets: Vec<(Name, Range<u64>)> = Vec::new();
    for entry in &pointer.tail {
        let name = Name::Data(entry.object.key, entry.format);
        let starts = (0..entry.object.length).step_by(RAW_GET_BYTES as usize);
        gets.extend(starts.map(|from| (name, from..(from + RAW_GET_BYTES).min(entry.object.length))));
    }
    gets.truncate((READ_BYTES / RAW_GET_BYTES) as usize);
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let bodies = futures::stream::iter(gets).map(|(name, range)| {
        let source = Arc::clone(source);
        tokio::spawn(async move {
            let mut body = source.get(&name, Span::Range(range)).await?;
            let mut bytes = 0;
            while let Some(part) = body.next().await {
                bytes += part?.len() as u64;
            }
            Ok::<u64, SourceError>(bytes)
        })
    });
    let mut bodies = bodies.buffer_unordered(RAW_GETS);
    let mut bytes = 0;
    while let Some(body) = bodies.next().await {
        bytes += body??;
    }
    let rate = mib(bytes) / started.elapsed().as_secs_f64();
    println!("raw      {rate:6.0} MiB/s, {:.2} CPU-s/GiB", (cpu_seconds() - cpu) * 1024.0 / mib(bytes));
    Ok(rate)
}

/// One consumer, one MiB per read, each read asked for when the one before was answered.
async fn consume(source: &Arc<Delayed>, tp: TopicPartition, pointer: &TierPointer, raw: f64) -> Result<(), Failure> {
    let parts = Parts {
        source: Arc::<Delayed>::clone(source),
        cache: Arc::new(MokaChunks::new(64 * MIB)),
        roots: Arc::new(NoRootStore),
        pointers: Arc::new(NoPointers),
        spawner: Spawner::single(tokio::runtime::Handle::current()),
        entropy: Arc::new(SystemEntropy),
    };
    let reader = RemoteReader::new(ReaderSettings::default(), parts);
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let (mut next, mut bytes, mut reads) = (0, 0, 0u32);
    let mut first = None;
    while bytes < READ_BYTES {
        let data = reader.read(tp, pointer, next, 1 << 20, true).await?;
        first.get_or_insert_with(|| started.elapsed());
        next = data.next;
        bytes += data.bytes;
        reads += 1;
    }
    let rate = mib(bytes) / started.elapsed().as_secs_f64();
    let cpu = cpu_seconds() - cpu;
    let stats = reader.stats();
    println!(
        "consumer {rate:6.0} MiB/s ({:.2} of raw), {:.2} CPU-s/GiB, first record {:.1} ms, {reads} reads, {} GETs, \
         {:.3} bytes fetched per byte read, {} MiB ahead, {} MiB resident",
        rate / raw,
        cpu * 1024.0 / mib(bytes),
        first.unwrap_or_default().as_secs_f64() * 1000.0,
        stats.gets_ok + stats.gets_in_flight,
        stats.bytes_fetched as f64 / bytes as f64,
        stats.window_bytes / MIB,
        resident_bytes() / MIB,
    );
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}

fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE_BYTES
}
