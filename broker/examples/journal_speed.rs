//! Prints what the journal does on a directory: `journal_speed DIR [SECONDS]`.
//!
//! Groups of 1 MiB and of 4 KiB, each as fast as the disk takes them, with the CPU time of the whole process
//! per GiB (appending included) and how long a sync took.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use broker::disk::{Disk, LocalDisk};
use broker::journal::{Checkpoint, Config, Group, GroupSink, Journal, Lsn, Owner, Pressure, Record};
use parking_lot::Mutex;
use proto::ids::{DirectoryId, TopicId, TopicPartition, Uuid};
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// Settles everything at once, and keeps the times.
#[derive(Default)]
struct Sink {
    journal: Mutex<Option<Journal>>,
    sync_micros: Mutex<Vec<u32>>,
    groups: AtomicU64,
}

impl GroupSink for Sink {
    fn sealed(&self, group: Arc<Group>) {
        self.groups.fetch_add(1, Ordering::Relaxed);
        let micros = u32::try_from(group.sync_time.as_micros()).unwrap_or(u32::MAX);
        self.sync_micros.lock().push(micros);
        if let Some(journal) = &*self.journal.lock() {
            journal.checkpointed(group.last_lsn);
        }
    }

    fn unjournaled(&self) {}

    fn pressed(&self, _pressure: Pressure) {}
}

#[derive(Default)]
struct Waiter {
    synced: AtomicU64,
    moved: Notify,
}

impl Owner for Waiter {
    fn synced(&self, up_to: Lsn) {
        self.synced.store(up_to.0, Ordering::Release);
        self.moved.notify_one();
    }

    fn failed(&self, _cause: &str) {
        eprintln!("the journal failed");
        std::process::exit(1);
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().unwrap_or_else(|| ".".into()));
    let seconds = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let seconds = Duration::from_secs(seconds);
    println!("| groups | in flight | MB/s | groups/s | CPU-s/GiB | sync p50 ms | p99 ms |");
    println!("|---|---|---|---|---|---|---|");
    for (bytes, in_flight) in [(1 << 20, 3), (1 << 20, 1), (4 << 10, 1), (4 << 10, 64)] {
        measure(&dir, bytes, in_flight, seconds).await?;
    }
    Ok(())
}

async fn measure(
    dir: &std::path::Path,
    bytes: usize,
    in_flight: u64,
    span: Duration,
) -> Result<(), Box<dyn std::error::Error>> {
    let dir = dir.join("journal-speed");
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk::new(Handle::current()));
    disk.remove_dir_all(&dir).await?;
    disk.create_dir_all(&dir).await?;
    let directory = DirectoryId(Uuid::from_u128(1));
    let config = Config::default();
    let opened = Journal::open(disk, &dir, directory, config, Checkpoint::default()).await?;
    let sink = Arc::new(Sink::default());
    let journal = opened.start(Arc::clone(&sink) as Arc<dyn GroupSink>).await?;
    *sink.journal.lock() = Some(journal.clone());
    let waiter = Arc::new(Waiter::default());
    let owner: Arc<dyn Owner> = Arc::clone(&waiter) as Arc<dyn Owner>;
    let batch = batch(bytes);
    let tp = TopicPartition::new(TopicId(Uuid::from_u128(2)), 0);

    // The first round makes files and touches memory; only the second counts.
    let mut appended = 0;
    let mut figures = (0, Duration::ZERO, Duration::ZERO);
    for _ in 0..2 {
        sink.sync_micros.lock().clear();
        sink.groups.store(0, Ordering::Relaxed);
        let (begun, cpu, first) = (Instant::now(), cpu_time(), appended);
        while begun.elapsed() < span {
            while appended - waiter.synced.load(Ordering::Acquire) >= in_flight {
                waiter.moved.notified().await;
            }
            let permit = journal.admit(batch.len()).await?;
            let record = Record::Append { tp, base_offset: i64::try_from(appended)?, leader_epoch: 0, batch: &batch };
            appended = journal.append(record, &owner)?.lsn.0;
            drop(permit);
        }
        figures = (appended - first, begun.elapsed(), cpu_time() - cpu);
    }
    sink.journal.lock().take();
    journal.close().await?;
    let (records, elapsed, cpu) = figures;
    let total = records as f64 * bytes as f64;
    let mut micros = std::mem::take(&mut *sink.sync_micros.lock());
    micros.sort_unstable();
    let at = |share: f64| {
        let index = (micros.len() as f64 * share) as usize;
        f64::from(micros.get(index).copied().unwrap_or(0)) / 1000.0
    };
    println!(
        "| {} KiB | {} | {:.0} | {:.0} | {:.3} | {:.2} | {:.2} |",
        bytes >> 10,
        in_flight,
        total / 1e6 / elapsed.as_secs_f64(),
        sink.groups.load(Ordering::Relaxed) as f64 / elapsed.as_secs_f64(),
        cpu.as_secs_f64() / (total / f64::from(1 << 30)),
        at(0.5),
        at(0.99),
    );
    Ok(())
}

/// Something of the given length with a header and a CRC like a record batch.
fn batch(bytes: usize) -> Vec<u8> {
    let mut batch: Vec<u8> = (0..bytes).map(|index| (index * 31 % 251) as u8).collect();
    if let Some((head, body)) = batch.split_at_mut_checked(21) {
        body[2..6].copy_from_slice(&0i32.to_be_bytes());
        head[17..].copy_from_slice(&crc32c::crc32c(body).to_be_bytes());
    }
    batch
}

/// User and system time of this process so far.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
