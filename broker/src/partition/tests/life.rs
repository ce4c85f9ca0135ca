//! Lives of a broker's logs on one disk: random work until power fails or the process ends, then a look at what
//! was found again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use proto::host::{Clock, Entropy, ManualClock, SeededEntropy};
use proto::ids::{NodeId, Offset, TopicId, TopicPartition, Uuid};
use proto::metadata::TierPointer;
use proto::records::{BatchBuilder, batches};

use super::model::{Batch, History, Op, Path, State, sent_of};
use super::world::{NODE, dirs, local, open};
use crate::disk::{Disk, SimDisk};
use crate::log::config::{Flush, LogConfig};
use crate::log::epochs::EpochEntry;
use crate::log::snapshot::Snapshot;
use crate::partition::*;

/// How a life is cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// What was not synced may be gone.
    Power,
    /// The page cache is still there.
    Process,
}

/// How a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    CutOff,
    CutOffInRecovery,
}

/// What a log is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Kept until somebody deletes records.
    Kept,
    /// Kept up to a size.
    Retained,
    /// Tiered, of which little stays local.
    Tiered,
    /// Acknowledged from the page cache.
    Os,
    TieredOs,
    /// Changes over between journal and page cache.
    Mixed,
}

const MANNERS: [Manner; 8] = [
    Manner::Kept,
    Manner::Retained,
    Manner::Tiered,
    Manner::Os,
    Manner::TieredOs,
    Manner::Mixed,
    Manner::Tiered,
    Manner::Kept,
];

impl Manner {
    fn is_tiered(self) -> bool {
        matches!(self, Self::Tiered | Self::TieredOs)
    }

    fn config(self, loose: bool) -> LogConfig {
        let flush = if loose { Flush::Os } else { Flush::Fsync };
        let config = LogConfig { segment_bytes: 2 << 10, index_interval_bytes: 256, flush, ..local() };
        match self {
            Self::Kept | Self::Os | Self::Mixed => config,
            Self::Retained => LogConfig { retention_bytes: 5 << 10, ..config },
            Self::Tiered | Self::TieredOs => LogConfig { remote: true, local_retention_bytes: 3 << 10, ..config },
        }
    }
}

/// A batch that a producer sent and was not told the outcome of.
#[derive(Debug, Clone)]
struct InFlight {
    last_sequence: i32,
    bytes: Bytes,
}

/// An idempotent producer.
#[derive(Debug, Default)]
struct Producer {
    id: i64,
    next_sequence: i32,
    in_flight: VecDeque<InFlight>,
    /// The last one that was acknowledged.
    last: Option<InFlight>,
}

/// What the quorum says of the tier.
#[derive(Debug, Clone)]
struct Pointer {
    log_start: Offset,
    tier_end: Offset,
    /// What the last footer says.
    state: Snapshot,
    /// Another replica committed it, of records that were never here.
    foreign: bool,
}

/// One partition, as those who use it see it.
#[derive(Debug)]
struct Log {
    tp: TopicPartition,
    dir: usize,
    manner: Manner,
    loose: bool,
    /// The term it is led in.
    epoch: i32,
    /// Its topic was deleted.
    deleted: bool,
    /// It was looked for since, and is not on disk any more.
    gone: bool,
    /// Power failed since it was looked at.
    lossy: bool,
    /// It was taken up in this life.
    alive: bool,
    /// The last thing in its directory that was durable when its last life ended.
    certain: u64,
    history: History,
    pointer: Option<Pointer>,
    producers: Vec<Producer>,
    seen_start: Offset,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    at: u64,
    end: Offset,
    path: Path,
    producer: Option<(usize, i32)>,
    acked: AckFuture,
}

impl Log {
    fn new(slot: usize, incarnation: u128) -> Self {
        let manner = MANNERS.get(slot).copied().unwrap_or(Manner::Kept);
        let id = 1000 * incarnation as i64 + 10 * slot as i64;
        Self {
            tp: TopicPartition::new(TopicId(Uuid::from_u128(7 + 1000 * incarnation)), slot as i32),
            dir: slot % 2,
            manner,
            loose: matches!(manner, Manner::Os | Manner::TieredOs),
            epoch: 0,
            deleted: false,
            gone: false,
            lossy: false,
            alive: true,
            certain: 0,
            history: History::default(),
            pointer: None,
            producers: (0..2).map(|at| Producer { id: id + at, ..Producer::default() }).collect(),
            seen_start: 0,
            waiting: VecDeque::new(),
        }
    }

    fn path(&self) -> Path {
        if self.loose { Path::Loose } else { Path::Journal }
    }

    fn tier_end(&self) -> Offset {
        self.pointer.as_ref().map_or(0, |pointer| pointer.tier_end)
    }
}

/// Several logs in two data directories, over several lives.
pub(super) struct Lives {
    pub(super) disk: SimDisk,
    clock: Arc<ManualClock>,
    entropy: SeededEntropy,
    logs: Vec<Log>,
    incarnations: u128,
    /// Number of the next thing that happens, per directory.
    next: [u64; 2],
    /// Last thing that is known to be durable, per directory.
    durable: [u64; 2],
    /// The last life ended cleanly.
    closed: bool,
    /// How often something of note was seen, for tests that must not be vacuous.
    pub(super) seen: Seen,
}

/// What happened in all lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) acked: u64,
    pub(super) lost: u64,
    pub(super) duplicates: u64,
    pub(super) trims: u64,
    pub(super) cuts: u64,
    pub(super) resets: u64,
    pub(super) deletes: u64,
    pub(super) restarts_at_tier: u64,
}

/// The disk is gone; this life is over.
#[derive(Debug)]
struct Gone;

/// Nothing waits for ever: time is simulated, so that this only runs out when nothing moves any more.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(300), work).await.expect("it never waits for ever")
}

impl Lives {
    pub(super) async fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        for spec in dirs(2) {
            disk.create_dir_all(&spec.path).await.expect("a fresh disk");
        }
        Self {
            disk,
            clock: Arc::new(ManualClock::new(1_000_000)),
            entropy: SeededEntropy::new(seed),
            logs: (0..MANNERS.len()).map(|slot| Log::new(slot, 0)).collect(),
            incarnations: 1,
            next: [1; 2],
            durable: [0; 2],
            closed: false,
            seen: Seen::default(),
        }
    }

    fn draw(&self, below: u64) -> u64 {
        self.entropy.next_u64() % below.max(1)
    }

    /// One life of `acts` acts. It begins with a look at what the last one left.
    pub(super) async fn live(&mut self, acts: u64) -> End {
        let opened = soon(open(&self.disk, &dirs(2), &self.clock)).await;
        if !self.disk.is_powered() {
            return End::CutOffInRecovery;
        }
        let partitions = opened.unwrap_or_else(|error| panic!("{error}"));
        for dir in partitions.dirs() {
            assert!(!dir.is_offline(), "{}", dir.offline());
        }
        self.closed = false;
        let mut life = Life { partitions, lives: self };
        let ended = life.run(acts).await;
        let partitions = life.partitions.clone();
        if ended.is_ok() {
            let closed = soon(partitions.close()).await;
            if self.disk.is_powered() {
                closed.expect("nothing fails but power");
                self.collect().await;
                for log in &mut self.logs {
                    // Whatever path it took, a clean stop leaves it durable.
                    let end = log.history.now.end();
                    log.history.acked(end);
                }
                self.durable = self.next.map(|next| next - 1);
                self.closed = true;
                return End::Closed;
            }
        }
        self.collect().await;
        End::CutOff
    }

    /// Takes in what was acknowledged by the time the disk was gone, whoever had looked by then.
    async fn collect(&mut self) {
        for at in 0..self.logs.len() {
            let mut waiting = std::mem::take(&mut self.logs[at].waiting);
            for one in &mut waiting {
                let outcome = soon(&mut one.acked).await;
                if outcome.is_ok() {
                    self.note_acked(at, one);
                }
            }
        }
    }

    fn note_acked(&mut self, at: usize, waiting: &Waiting) {
        let log = &mut self.logs[at];
        log.history.acked(waiting.end);
        if waiting.path == Path::Journal {
            self.durable[log.dir] = self.durable[log.dir].max(waiting.at);
        }
        if let Some((producer, sequence)) = waiting.producer {
            let producer = &mut log.producers[producer];
            while producer.in_flight.front().is_some_and(|sent| sent.last_sequence <= sequence) {
                producer.last = producer.in_flight.pop_front();
            }
        }
        self.seen.acked += 1;
    }
}

/// One life, while it lasts.
struct Life<'a> {
    partitions: Partitions,
    lives: &'a mut Lives,
}

impl Life<'_> {
    fn log(&mut self, at: usize) -> &mut Log {
        &mut self.lives.logs[at]
    }

    fn gone<T>(&self, why: impl std::fmt::Debug) -> Result<T, Gone> {
        let powered = self.lives.disk.is_powered();
        let causes = || self.partitions.dirs().iter().map(|dir| dir.offline().cause).collect::<Vec<_>>();
        assert!(!powered, "only power fails here: {why:?} as {:?}", causes());
        Err(Gone)
    }

    async fn run(&mut self, acts: u64) -> Result<(), Gone> {
        for at in 0..self.lives.logs.len() {
            self.look(at).await?;
        }
        self.lives.logs.retain(|log| !log.gone);
        for _ in 0..acts {
            self.act().await?;
        }
        Ok(())
    }

    // ---- what was found

    /// Compares a log with all states that it may be in, and takes it up.
    async fn look(&mut self, at: usize) -> Result<(), Gone> {
        self.log(at).epoch += 1;
        let log = &self.lives.logs[at];
        let epoch = log.epoch;
        let (tp, dir) = (log.tp, log.dir);
        let mut candidates = log.history.candidates(log.certain, !log.lossy);
        (self.log(at).lossy, self.log(at).alive) = (false, true);
        let log = &self.lives.logs[at];
        if log.deleted {
            let found = self.partitions.get(tp);
            let gone = candidates.iter().any(|state| *state == State::default());
            assert!(found.is_some() || gone, "{tp} was not deleted for certain");
            let Some(found) = found else {
                self.log(at).gone = true;
                return Ok(());
            };
            // As a broker does when it finds what the image does not know.
            let offsets = found.offsets();
            candidates.retain(|state| state.end() == offsets.log_end && state.start == offsets.local_start);
            let state = candidates.pop().unwrap_or_else(|| panic!("{tp}: deleted, found as {offsets:?}"));
            self.log(at).history.restart(state);
            self.delete(at).await;
            return Ok(());
        }
        let config = log.manner.config(log.loose);
        let directory = dirs(2)[dir].id;
        // Nothing is trimmed while we look.
        let keep = LogConfig { retention_bytes: -1, ..config.clone() };
        let Ok(handle) = self.partitions.create(tp, "flights", directory, keep).await else {
            return self.gone("offline");
        };
        handle.lead(Leadership::alone(NODE, epoch));
        let state = self.matching(at, &handle, candidates).await?;
        let (before, loose) = (self.log(at).history.now.end(), self.log(at).history.is_loose());
        if state.end() < before {
            self.lives.seen.lost += 1;
            if loose {
                // Its producers were told what is gone now: others come.
                for producer in &mut self.log(at).producers {
                    *producer = Producer { id: producer.id + 100, ..Producer::default() };
                }
            }
        }
        let log = self.log(at);
        log.seen_start = state.start;
        log.history.restart(state);
        handle.configure(config);
        self.point(at, &handle).await?;
        self.check(at);
        self.resend(at).await
    }

    /// The state that the log is in.
    async fn matching(&self, at: usize, handle: &PartitionHandle, mut candidates: Vec<State>) -> Result<State, Gone> {
        let log = &self.lives.logs[at];
        let offsets = handle.offsets();
        let what = || format!("{} ({:?}) in directory {}", log.tp, log.manner, log.dir);
        assert_eq!(offsets.high_watermark, offsets.log_end, "{}: alone, all is committed", what());
        assert!(log.manner.is_tiered() || offsets.log_start == offsets.local_start, "{}: {offsets:?}", what());
        let all = candidates.len();
        let ends: Vec<_> = candidates.iter().map(|state| (state.start, state.end())).collect();
        candidates.retain(|state| state.start == offsets.local_start && state.end() == offsets.log_end);
        assert!(!candidates.is_empty(), "{}: found {offsets:?}, {all} states possible: {ends:?}", what());
        let found = match read_batches(handle, offsets.local_start).await {
            Ok(found) => found,
            Err(error) => return self.gone(error),
        };
        candidates.retain(|state| state.batches().map(|batch| &batch.bytes).eq(&found));
        assert!(!candidates.is_empty(), "{}: {offsets:?} with other contents", what());
        let sent = sent_of(handle.shared.inner.lock().core.producers());
        let possible: Vec<_> = candidates.iter().map(|state| state.sent_at(state.end())).collect();
        candidates.retain(|state| state.sent_at(state.end()) == sent);
        let state = candidates.pop();
        let state = state
            .unwrap_or_else(|| panic!("{}: {offsets:?}, but its producers are {sent:?}, not {possible:?}", what()));
        for batch in state.batches() {
            let epoch = handle.epoch_at(batch.base.max(offsets.local_start));
            assert_eq!(epoch, Some(batch.epoch), "{}: epoch of {}", what(), batch.base);
        }
        Ok(state)
    }

    /// Tells a log what the quorum says of its tier, as a broker that starts does.
    async fn point(&mut self, at: usize, handle: &PartitionHandle) -> Result<(), Gone> {
        let log = &self.lives.logs[at];
        let Some(pointer) = log.pointer.clone() else {
            return Ok(());
        };
        let offsets = handle.offsets();
        assert!(offsets.local_start <= pointer.tier_end, "{}: NO-GAP, {offsets:?}, {pointer:?}", log.tp);
        let committed = committed(&pointer);
        if contradicts(handle, &committed) {
            assert!(log.loose || pointer.foreign, "{}: the tier holds only what was durable here", log.tp);
            self.lives.seen.restarts_at_tier += 1;
            self.restart_at(at, handle, &pointer).await?;
        }
        handle.apply_pointer(&committed, self.lives.clock.now_ms());
        self.observe(at);
        let offsets = handle.offsets();
        assert_eq!(offsets.log_start, pointer.log_start);
        Ok(())
    }

    /// Starts the log over at the tier's end.
    async fn restart_at(&mut self, at: usize, handle: &PartitionHandle, pointer: &Pointer) -> Result<(), Gone> {
        let start = pointer.tier_end;
        let epochs: Vec<EpochEntry> = pointer.state.epochs.entries().to_vec();
        let op = self.note(at, Op::Reset(start, sent_of(&pointer.state.producers)), Path::Journal);
        let leads = handle.leadership();
        handle.lead(Leadership { leads: false, ..leads.clone() });
        let producers = pointer.state.encode();
        let anew = Anew { start, log_start: pointer.log_start, epochs: &epochs, producers: &producers };
        match soon(handle.reset(leads.epoch, anew)).await {
            Ok(()) => self.durable(at, op),
            Err(error) => return self.gone(error),
        }
        handle.lead(leads);
        self.log(at).seen_start = start;
        self.lives.seen.resets += 1;
        Ok(())
    }

    // ---- what happens

    fn note(&mut self, at: usize, op: Op, path: Path) -> u64 {
        let log = &mut self.lives.logs[at];
        let number = self.lives.next[log.dir];
        self.lives.next[log.dir] += 1;
        log.history.note(number, op, path);
        number
    }

    fn durable(&mut self, at: usize, number: u64) {
        let dir = self.lives.logs[at].dir;
        self.lives.durable[dir] = self.lives.durable[dir].max(number);
    }

    fn handle(&self, at: usize) -> Option<PartitionHandle> {
        self.partitions.get(self.lives.logs[at].tp)
    }

    /// Notes a start that retention moved.
    fn observe(&mut self, at: usize) {
        let Some(handle) = self.handle(at) else { return };
        let start = handle.offsets().local_start;
        if start > self.log(at).seen_start {
            self.log(at).seen_start = start;
            self.note(at, Op::Trim(start), Path::Journal);
            self.lives.seen.trims += 1;
        }
    }

    /// What must always be true of a log.
    fn check(&self, at: usize) {
        let log = &self.lives.logs[at];
        let Some(handle) = self.handle(at) else { return };
        let offsets = handle.offsets();
        let ascending = [offsets.last_stable, offsets.high_watermark, offsets.synced_end, offsets.log_end];
        assert!(ascending.is_sorted(), "{offsets:?}");
        if handle.dir().is_offline() {
            return;
        }
        assert_eq!(offsets.log_end, log.history.now.end(), "ORDER");
        if log.manner.is_tiered() {
            assert!(offsets.local_start <= log.tier_end(), "NO-GAP, POINTED: {offsets:?}");
        }
        if offsets.local_start > 0 {
            let below = handle.read(request(offsets.local_start - 1));
            let hidden = matches!(below, Err(ReadError::OffsetOutOfRange { .. }));
            let remote = matches!(&below, Ok(found) if matches!(found.data, ReadData::Remote));
            let expected = if offsets.log_start < offsets.local_start { remote } else { hidden };
            assert!(expected, "below the start: {below:?}");
        }
    }

    async fn act(&mut self) -> Result<(), Gone> {
        let at = self.lives.draw(self.lives.logs.len() as u64) as usize;
        self.lives.clock.advance(self.lives.draw(50) as i64);
        self.observe(at);
        match self.lives.draw(40) {
            0..20 => self.append(at, None).await?,
            20..23 => self.drain(at).await?,
            23..27 => self.wait().await,
            27..30 => self.delete_records(at).await?,
            30..34 => self.tier(at).await?,
            34 | 35 => self.cut(at).await?,
            36 => self.start_over(at).await?,
            37 => self.replace(at).await,
            38 => self.change_over(at),
            _ => self.retain(at),
        }
        if at < self.lives.logs.len() {
            self.observe(at);
            self.check(at);
        }
        self.poll_acks();
        if self.lives.disk.is_powered() { Ok(()) } else { Err(Gone) }
    }

    async fn wait(&mut self) {
        let ms = [1, 60, 150, 700, 2_600];
        let ms = ms[self.lives.draw(ms.len() as u64) as usize];
        tokio::time::sleep(Duration::from_millis(ms)).await;
        for at in 0..self.lives.logs.len() {
            self.observe(at);
        }
    }

    fn poll_acks(&mut self) {
        for at in 0..self.lives.logs.len() {
            while let Some(front) = self.log(at).waiting.front_mut() {
                let Some(outcome) = (&mut front.acked).now_or_never() else { break };
                let Some(front) = self.log(at).waiting.pop_front() else { break };
                if outcome.is_ok() {
                    self.lives.note_acked(at, &front);
                }
            }
        }
    }

    /// Waits until all that was sent to a log is acknowledged.
    async fn drain(&mut self, at: usize) -> Result<(), Gone> {
        while let Some(mut front) = self.log(at).waiting.pop_front() {
            match soon(&mut front.acked).await {
                Ok(()) => self.lives.note_acked(at, &front),
                Err(error) => return self.gone(error),
            }
        }
        Ok(())
    }

    /// Appends something, by a producer or nobody; `resend` is what a producer sends again.
    async fn append(&mut self, at: usize, resend: Option<(usize, InFlight)>) -> Result<(), Gone> {
        let Some(handle) = self.handle(at).filter(|_| !self.lives.logs[at].deleted) else {
            return Ok(());
        };
        let again = resend.is_some();
        let (producer, sent) = match resend {
            Some((producer, sent)) => (Some(producer), sent),
            None => {
                let producer = [None, Some(0), Some(1)][self.lives.draw(3) as usize];
                // As many as a client has in flight.
                if producer.is_some_and(|producer| self.lives.logs[at].producers[producer].in_flight.len() >= 5) {
                    self.drain(at).await?;
                }
                (producer, self.build(at, producer))
            }
        };
        if let Some(producer) = producer.filter(|_| !again) {
            self.log(at).producers[producer].in_flight.push_back(sent.clone());
        }
        let Ok(permit) = soon(handle.admit(sent.bytes.len())).await else {
            return self.gone("offline");
        };
        self.observe(at);
        let info = describe(&sent.bytes).expect("batches that were just built");
        let log = &self.lives.logs[at];
        let known = producer.map(|producer| (log.producers[producer].id, sent.last_sequence));
        let original = known.and_then(|known| log.history.now.find(known)).map(|batch| batch.base);
        let end = log.history.now.end();
        let appended = handle.append(Append {
            leader_epoch: Some(log.epoch),
            batches: sent.bytes.clone(),
            info: &info,
            origin: Origin::Client,
            acks: Acks::All,
            now_ms: self.lives.clock.now_ms(),
            log_append_time: None,
        });
        drop(permit);
        let appended = match appended {
            Ok(appended) => appended,
            Err(AppendError::Offline) => return self.gone("offline"),
            Err(error) => panic!("{}: {error}", log.tp),
        };
        assert_eq!(appended.duplicate, original.is_some(), "{}: sent again: {again}, {known:?}", log.tp);
        assert_eq!(appended.base_offset, original.unwrap_or(end), "{}", log.tp);
        let path = log.path();
        let number = if appended.duplicate {
            self.lives.seen.duplicates += 1;
            0
        } else {
            let batch = stored(&sent.bytes, appended.base_offset, self.lives.logs[at].epoch, known);
            self.note(at, Op::Append(batch), path)
        };
        let producer = producer.map(|producer| (producer, sent.last_sequence));
        let end = appended.last_offset + 1;
        self.log(at).waiting.push_back(Waiting { at: number, end, path, producer, acked: appended.acked });
        Ok(())
    }

    fn build(&mut self, at: usize, producer: Option<usize>) -> InFlight {
        let count = 1 + self.lives.draw(4);
        let sizes: Vec<usize> = (0..count).map(|_| 1 + self.lives.draw(260) as usize).collect();
        let fill = self.lives.draw(256) as u8;
        let now = self.lives.clock.now_ms();
        let mut builder = BatchBuilder::new();
        let mut last_sequence = -1;
        if let Some(producer) = producer {
            let producer = &mut self.log(at).producers[producer];
            builder = builder.producer(producer.id, 0, producer.next_sequence);
            producer.next_sequence += count as i32;
            last_sequence = producer.next_sequence - 1;
        }
        for size in sizes {
            builder.append(now, None, Some(&vec![fill; size]), &[]);
        }
        InFlight { last_sequence, bytes: builder.build() }
    }

    /// Every producer of a log sends again what it does not know the outcome of, and what it does, once.
    async fn resend(&mut self, at: usize) -> Result<(), Gone> {
        for producer in 0..self.lives.logs[at].producers.len() {
            let one = &self.lives.logs[at].producers[producer];
            let known = one.last.clone().filter(|sent| self.remembers(at, one.id, sent.last_sequence));
            let again: Vec<InFlight> = known.into_iter().chain(one.in_flight.iter().cloned()).collect();
            for sent in again {
                self.append(at, Some((producer, sent))).await?;
            }
        }
        Ok(())
    }

    /// Whether a batch is one of the last of its producer, and still to be found here.
    fn remembers(&self, at: usize, id: i64, sequence: i32) -> bool {
        let now = &self.lives.logs[at].history.now;
        now.find((id, sequence)).is_some()
            && now.sent_at(now.end()).get(&id).is_some_and(|sent| sent.iter().any(|(last, _)| *last == sequence))
    }

    async fn delete_records(&mut self, at: usize) -> Result<(), Gone> {
        let log = &self.lives.logs[at];
        let Some(handle) = self.handle(at).filter(|_| !log.deleted && !log.manner.is_tiered()) else {
            return Ok(());
        };
        let offsets = handle.offsets();
        let to =
            offsets.local_start + self.lives.draw((offsets.high_watermark - offsets.local_start + 1) as u64) as i64;
        let done = match handle.delete_records(to) {
            Ok(Deletion::Local(done, _)) => done,
            Ok(Deletion::ViaPointer(_)) => panic!("{} is not tiered", handle.tp()),
            Err(error) => return self.gone(error),
        };
        self.observe(at);
        let number = self.lives.next[self.log(at).dir] - 1;
        let trimmed = to > offsets.local_start;
        match soon(done).await {
            Ok(()) if trimmed => self.durable(at, number),
            Ok(()) => {}
            Err(error) => return self.gone(error),
        }
        Ok(())
    }

    /// Commits a pointer for part of what may be tiered, and tells the log.
    async fn tier(&mut self, at: usize) -> Result<(), Gone> {
        let log = &self.lives.logs[at];
        let Some(handle) = self.handle(at).filter(|_| !log.deleted && log.manner.is_tiered()) else {
            return Ok(());
        };
        let (stable, tier_end) = (handle.offsets().last_stable, log.tier_end());
        let borders: Vec<Offset> = log.history.now.batches().map(|batch| batch.end).collect();
        let borders: Vec<Offset> = borders.into_iter().filter(|end| *end > tier_end && *end <= stable).collect();
        let Some(to) = borders.get(self.lives.draw(borders.len() as u64) as usize).copied() else {
            return Ok(());
        };
        let state = match soon(handle.state_at(to)).await {
            Ok(state) => state,
            Err(error) => return self.gone(error),
        };
        let log = &self.lives.logs[at];
        assert_eq!(sent_of(&state.producers), log.history.now.sent_at(to), "{}: producers at {to}", log.tp);
        let log_start = log.pointer.as_ref().map_or(0, |pointer| pointer.log_start);
        let log_start =
            log_start + self.lives.draw((to - log_start + 1) as u64) as i64 * (self.lives.draw(4) / 3) as i64;
        let pointer = Pointer { log_start, tier_end: to, state, foreign: false };
        let known = committed(&pointer);
        self.log(at).pointer = Some(pointer);
        handle.apply_pointer(&known, self.lives.clock.now_ms());
        Ok(())
    }

    /// Leads on though nobody follows any more, then learns that another led meanwhile, and what it lacks.
    async fn cut(&mut self, at: usize) -> Result<(), Gone> {
        let log = &self.lives.logs[at];
        let Some(handle) = self.handle(at).filter(|_| !log.deleted) else {
            return Ok(());
        };
        self.drain(at).await?;
        let epoch = self.lives.logs[at].epoch;
        let both = [NODE, NodeId(1)];
        handle.lead(Leadership::of(NODE, epoch, &both, &both));
        for _ in 0..1 + self.lives.draw(5) {
            self.append(at, None).await?;
        }
        if self.lives.draw(2) == 0 {
            self.wait().await;
        }
        let committed = handle.offsets().high_watermark;
        let ends = self.lives.logs[at].history.now.batches().map(|batch| batch.end);
        let ends: Vec<Offset> = ends.filter(|end| *end > committed).chain([committed]).collect();
        let to = ends[self.lives.draw(ends.len() as u64) as usize];
        // Nobody is told of these: they were never acknowledged.
        self.log(at).waiting.clear();
        let other =
            Leadership { leads: false, leader: Some(NodeId(1)), ..Leadership::of(NODE, epoch + 1, &both, &both) };
        handle.lead(other);
        if to < handle.offsets().log_end {
            let number = self.note(at, Op::Cut(to), Path::Journal);
            match soon(handle.truncate(to, Cut { term: epoch + 1, loss: Loss::Uncommitted })).await {
                Ok(()) => self.durable(at, number),
                Err(error) => return self.gone(error),
            }
            self.lives.seen.cuts += 1;
        }
        self.log(at).epoch = epoch + 2;
        handle.lead(Leadership::alone(NODE, epoch + 2));
        self.resend(at).await
    }

    /// Another replica tiered further while this one was away.
    async fn start_over(&mut self, at: usize) -> Result<(), Gone> {
        let log = &self.lives.logs[at];
        let Some(handle) = self.handle(at).filter(|_| !log.deleted && log.manner.is_tiered()) else {
            return Ok(());
        };
        self.drain(at).await?;
        let state = match soon(handle.state_at(handle.offsets().log_end)).await {
            Ok(state) => state,
            Err(error) => return self.gone(error),
        };
        let tier_end = handle.offsets().log_end + 1 + self.lives.draw(5) as i64;
        let log_start = self.lives.logs[at].pointer.as_ref().map_or(0, |pointer| pointer.log_start);
        let pointer = Pointer { log_start, tier_end, state, foreign: true };
        self.log(at).pointer = Some(pointer.clone());
        self.restart_at(at, &handle, &pointer).await?;
        handle.apply_pointer(&committed(&pointer), self.lives.clock.now_ms());
        Ok(())
    }

    async fn delete(&mut self, at: usize) {
        self.log(at).deleted = true;
        self.log(at).waiting.clear();
        self.note(at, Op::Delete, Path::Journal);
        self.partitions.remove(self.lives.logs[at].tp).await;
        self.lives.seen.deletes += 1;
    }

    /// A topic is deleted, and one of the same name comes.
    async fn replace(&mut self, at: usize) {
        if self.lives.logs[at].deleted {
            return;
        }
        self.delete(at).await;
        let fresh = Log::new(self.lives.logs[at].tp.partition as usize, self.lives.incarnations);
        self.lives.incarnations += 1;
        let (tp, directory) = (fresh.tp, dirs(2)[fresh.dir].id);
        let config = fresh.manner.config(fresh.loose);
        if let Ok(handle) = self.partitions.create(tp, "flights", directory, config).await {
            handle.lead(Leadership::alone(NODE, fresh.epoch));
        }
        self.lives.logs.push(fresh);
    }

    /// `firn.flush` is altered.
    fn change_over(&mut self, at: usize) {
        let log = self.log(at);
        if log.manner == Manner::Mixed && !log.deleted {
            log.loose = !log.loose;
            let config = log.manner.config(log.loose);
            if let Some(handle) = self.handle(at) {
                handle.configure(config);
            }
        }
    }

    fn retain(&mut self, at: usize) {
        if let Some(handle) = self.handle(at) {
            handle.trim(self.lives.clock.now_ms());
        }
    }
}

impl Lives {
    /// Power comes back, or the process starts again.
    pub(super) fn restart(&mut self, failure: Failure) {
        self.disk = match failure {
            Failure::Power => self.disk.restart(),
            Failure::Process => self.disk.restart_process(),
        };
        for log in &mut self.logs {
            log.lossy |= failure == Failure::Power && !self.closed;
            if std::mem::take(&mut log.alive) {
                log.certain = self.durable[log.dir];
            }
        }
    }
}

fn request(offset: Offset) -> Read {
    Read {
        offset,
        max_bytes: 1500,
        min_one: true,
        isolation: Isolation::ReadUncommitted,
        leader_epoch: None,
        last_fetched_epoch: None,
        reader: Reader::Consumer,
    }
}

/// Every batch from `from` on, checked.
async fn read_batches(handle: &PartitionHandle, from: Offset) -> Result<Vec<Bytes>, ReadError> {
    let mut found = Vec::new();
    let mut next = from;
    while next < handle.offsets().high_watermark {
        let chunks = match handle.read(request(next))?.data {
            ReadData::Ready(chunks) => chunks,
            ReadData::Disk(disk) => disk.run().await?,
            other @ (ReadData::Empty | ReadData::Remote) => panic!("{other:?} at {next}"),
        };
        assert!(!chunks.is_empty(), "a read below the high watermark gets on");
        for chunk in &chunks {
            for batch in batches(chunk) {
                let batch = batch.expect("whole batches");
                assert_eq!(batch.compute_crc(), batch.header.crc);
                assert!(batch.header.base_offset <= next && batch.header.last_offset() >= next, "dense");
                next = batch.header.last_offset() + 1;
                found.push(Bytes::copy_from_slice(batch.bytes));
            }
        }
    }
    Ok(found)
}

/// What a batch looks like in the log.
fn stored(bytes: &Bytes, base: Offset, epoch: i32, producer: Option<(i64, i32)>) -> Batch {
    let mut bytes = bytes.to_vec();
    bytes[..8].copy_from_slice(&base.to_be_bytes());
    bytes[12..16].copy_from_slice(&epoch.to_be_bytes());
    let end = proto::records::BatchHeader::parse(&bytes).expect("a batch").next_offset();
    Batch { base, end, epoch, bytes: bytes.into(), producer }
}

/// Whether the log has to start over at the tier's end.
fn contradicts(handle: &PartitionHandle, pointer: &TierPointer) -> bool {
    matches!(handle.contradiction(pointer, None), Contradiction::EndsBefore | Contradiction::OtherEpoch)
}

fn committed(pointer: &Pointer) -> TierPointer {
    TierPointer {
        log_start: pointer.log_start,
        tier_end: pointer.tier_end,
        end_epoch: pointer.state.epochs.latest().unwrap_or(-1),
        ..TierPointer::default()
    }
}
