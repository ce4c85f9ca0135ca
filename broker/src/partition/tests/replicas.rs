//! Three replicas of one partition on three simulated disks. The controller is a table; a follower fetches by calling
//! its leader, as the image on its own node names it, which may be an old one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use proto::host::{Clock, Entropy, ManualClock, SeededEntropy, Spawner};
use proto::ids::{DirectoryId, NodeId, Offset, TopicPartition, Uuid};
use proto::records::{BatchBuilder, batches};
use tokio::runtime::Handle;

use super::world::{dirs, local, open_as, tp};
use crate::disk::{Disk, SimDisk};
use crate::log::config::LogConfig;
use crate::log::observer::Unobserved;
use crate::partition::core::{IsrProposal, IsrRefused};
use crate::partition::isr::IsrAuthority;
use crate::partition::*;

pub(super) const REPLICAS: usize = 3;
/// Bytes of one fetch.
const FETCH_BYTES: usize = 2_000;

pub(super) fn id(at: usize) -> NodeId {
    NodeId(i32::try_from(at).expect("few") + 1)
}

/// What the quorum says of the partition and of the brokers.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) epoch: i32,
    pub(super) version: i32,
    pub(super) leader: Option<usize>,
    pub(super) isr: Vec<usize>,
    pub(super) recovering: bool,
    pub(super) alive: [bool; REPLICAS],
    broker_epochs: [i64; REPLICAS],
    /// How many answers to proposals are lost on their way.
    pub(super) lose: usize,
    /// Proposals carried out: (joined, left).
    pub(super) changes: (usize, usize),
}

impl Table {
    fn image(&self, at: usize) -> Leadership {
        let info = |at: usize| ReplicaInfo {
            id: id(at),
            broker_epoch: self.broker_epochs[at],
            eligible: self.alive[at],
            rack: None,
        };
        Leadership {
            epoch: self.epoch,
            partition_epoch: self.version,
            leader: self.leader.map(id),
            leads: self.leader == Some(at),
            isr: self.isr.iter().copied().map(id).collect(),
            replicas: (0..REPLICAS).map(info).collect(),
            recovering: self.recovering,
        }
    }

    /// The first in sync that is alive leads, in a new term if that changes anything.
    pub(super) fn elect(&mut self, preferred: Option<usize>) {
        let fit = |at: &usize| self.alive[*at] && self.isr.contains(at);
        let leader = preferred.filter(fit).or_else(|| self.leader.filter(fit)).or_else(|| (0..REPLICAS).find(fit));
        if leader != self.leader {
            self.leader = leader;
            self.epoch += 1;
        }
        self.version += 1;
    }

    pub(super) fn died(&mut self, at: usize) {
        self.alive[at] = false;
        if self.isr.len() > 1 {
            self.isr.retain(|one| *one != at);
        }
        self.elect(None);
    }

    fn came(&mut self, at: usize) {
        self.alive[at] = true;
        self.broker_epochs[at] += 1;
        if self.leader == Some(at) {
            // What the last incarnation led is led anew.
            self.epoch += 1;
        }
        self.elect(None);
    }

    fn alter(&mut self, asking: usize, change: &IsrProposal) -> Result<(), IsrRefused> {
        let current = change.leader_epoch == self.epoch && self.leader == Some(asking);
        let wanted: Vec<usize> =
            (0..REPLICAS).filter(|at| change.isr.iter().any(|(replica, _)| *replica == id(*at))).collect();
        let fit = |at: &usize| {
            let told = change.isr.iter().find(|(replica, _)| *replica == id(*at)).map_or(-1, |(_, epoch)| *epoch);
            (told == -1 || told == self.broker_epochs[*at]) && (self.alive[*at] || self.isr.contains(at))
        };
        if !current || change.partition_epoch != self.version {
            return Err(IsrRefused::Outdated);
        }
        if !wanted.contains(&asking) || !wanted.iter().all(fit) {
            return Err(IsrRefused::Ineligible);
        }
        self.changes.0 += wanted.iter().filter(|at| !self.isr.contains(at)).count();
        self.changes.1 += self.isr.iter().filter(|at| !wanted.contains(at)).count();
        self.isr = wanted;
        self.version += 1;
        self.recovering &= !change.recovered;
        if self.lose > 0 {
            self.lose -= 1;
            return Err(IsrRefused::Unknown);
        }
        Ok(())
    }
}

/// The table, asked by one incarnation of a broker.
struct Asked {
    table: Arc<Mutex<Table>>,
    at: usize,
    broker_epoch: i64,
}

#[async_trait]
impl IsrAuthority for Asked {
    async fn alter(&self, changes: &[(TopicPartition, IsrProposal)]) -> Vec<Result<(), IsrRefused>> {
        tokio::time::sleep(Duration::from_millis(3)).await;
        let mut table = self.table.lock();
        if table.broker_epochs[self.at] != self.broker_epoch {
            return vec![Err(IsrRefused::Outdated); changes.len()];
        }
        changes.iter().map(|(_, change)| table.alter(self.at, change)).collect()
    }
}

/// A broker's replica; `None` while the broker is down.
pub(super) struct Replica {
    pub(super) disk: SimDisk,
    running: Option<(Partitions, PartitionHandle)>,
    directory: u128,
    /// Its log was compared with what is committed up to here.
    compared: Offset,
}

/// What a pull did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pulled {
    Nothing,
    Records,
    Cut,
    StartedOver,
}

/// The replicas, and what was seen of them.
pub(super) struct Group {
    pub(super) table: Arc<Mutex<Table>>,
    pub(super) replicas: Vec<Replica>,
    pub(super) config: LogConfig,
    clock: Arc<ManualClock>,
    entropy: SeededEntropy,
    /// What some replica counted as committed: (base, end, bytes), dense.
    committed: Vec<(Offset, Offset, Bytes)>,
}

impl Group {
    pub(super) async fn new(seed: u64) -> Self {
        let table = Table {
            epoch: 0,
            version: 0,
            leader: Some(0),
            isr: (0..REPLICAS).collect(),
            recovering: false,
            alive: [true; REPLICAS],
            broker_epochs: [1; REPLICAS],
            lose: 0,
            changes: (0, 0),
        };
        let replica = |at: usize| Replica {
            disk: SimDisk::new(seed * 10 + at as u64),
            running: None,
            directory: 100 * (at as u128 + 1),
            compared: 0,
        };
        let mut group = Self {
            table: Arc::new(Mutex::new(table)),
            replicas: (0..REPLICAS).map(replica).collect(),
            config: LogConfig { min_insync_replicas: 2, replica_lag_max_ms: 1_200, ..local() },
            clock: Arc::new(ManualClock::new(1_000_000)),
            entropy: SeededEntropy::new(seed),
            committed: Vec::new(),
        };
        for at in 0..REPLICAS {
            assert!(group.open(at).await);
            group.deliver(at);
        }
        group
    }

    pub(super) fn draw(&self, below: usize) -> usize {
        usize::try_from(self.entropy.next_u64()).expect("64 bits") % below.max(1)
    }

    pub(super) fn handle(&self, at: usize) -> Option<&PartitionHandle> {
        self.replicas[at].running.as_ref().map(|(_, handle)| handle)
    }

    fn spec(&self, at: usize) -> DirSpec {
        DirSpec { id: DirectoryId(Uuid::from_u128(self.replicas[at].directory)), ..dirs(1).remove(0) }
    }

    async fn open(&mut self, at: usize) -> bool {
        let spec = self.spec(at);
        let disk = self.replicas[at].disk.clone();
        if disk.create_dir_all(&spec.path).await.is_err() {
            return false;
        }
        let opened = open_as(id(at), &disk, std::slice::from_ref(&spec), &self.clock, Arc::new(Unobserved)).await;
        let (true, Ok(partitions)) = (disk.is_powered(), opened) else {
            return false;
        };
        let created = partitions.create(tp(0), "flights", spec.id, self.config.clone()).await;
        let Ok(handle) = created else {
            return false;
        };
        let broker_epoch = self.table.lock().broker_epochs[at];
        let asked = Asked { table: Arc::clone(&self.table), at, broker_epoch };
        partitions.propose_to(Arc::new(asked), &Spawner::single(Handle::current()));
        self.replicas[at].running = Some((partitions, handle));
        self.replicas[at].compared = 0;
        true
    }

    /// The image reaches a node.
    pub(super) fn deliver(&self, at: usize) {
        if let Some(handle) = self.handle(at) {
            handle.lead(self.table.lock().image(at));
        }
    }

    /// How many lives a broker had.
    pub(super) fn life(&self, at: usize) -> i64 {
        self.table.lock().broker_epochs[at]
    }

    /// A broker ends; the controller hears of it.
    pub(super) fn kill(&mut self, at: usize, power: bool) {
        let replica = &mut self.replicas[at];
        let was_running = replica.running.take().is_some();
        if power {
            replica.disk.cut_power();
            replica.disk = replica.disk.restart();
        } else {
            replica.disk = replica.disk.restart_process();
        }
        if was_running {
            self.table.lock().died(at);
        }
    }

    /// A broker comes again.
    pub(super) async fn start(&mut self, at: usize) {
        if self.replicas[at].running.is_some() {
            return;
        }
        self.table.lock().came(at);
        if self.open(at).await {
            self.deliver(at);
        } else {
            self.table.lock().died(at);
            self.replicas[at].disk = self.replicas[at].disk.restart();
        }
    }

    /// The disk of a broker that is down is replaced by an empty one. What was on it was not needed: others are in sync.
    pub(super) fn wipe(&mut self, at: usize) -> bool {
        let needed = self.table.lock().isr.contains(&at);
        if needed || self.replicas[at].running.is_some() {
            return false;
        }
        let seed = self.entropy.next_u64();
        self.replicas[at].disk = SimDisk::new(seed);
        self.replicas[at].directory += 1;
        true
    }

    /// Brokers whose power failed meanwhile are down.
    pub(super) fn bury(&mut self) {
        for at in 0..REPLICAS {
            if self.replicas[at].running.is_some() && !self.replicas[at].disk.is_powered() {
                self.kill(at, true);
            }
        }
    }

    /// One fetch of a follower, as far as it goes without waiting for its own disk.
    pub(super) async fn pull(&mut self, at: usize) -> Pulled {
        let Some(follower) = self.handle(at).cloned() else { return Pulled::Nothing };
        let position = follower.fetch_position();
        let leader = (0..REPLICAS).find(|other| follower.leadership().leader == Some(id(*other)));
        let leader = leader.filter(|leader| *leader != at).and_then(|leader| self.handle(leader).cloned());
        let Some(leader) = leader.filter(|_| position.offset == position.synced_end) else {
            return Pulled::Nothing;
        };
        let fetch = ReplicaFetch {
            replica: id(at),
            broker_epoch: self.table.lock().broker_epochs[at],
            leader_epoch: Some(position.leader_epoch),
            last_fetched_epoch: position.last_epoch,
            offset: position.offset,
            log_start: position.log_start,
        };
        if leader.replica_fetched(fetch).is_err() {
            return Pulled::Nothing;
        }
        let read = leader.read(Read {
            offset: position.offset,
            max_bytes: FETCH_BYTES,
            min_one: true,
            isolation: Isolation::LogEnd,
            leader_epoch: Some(position.leader_epoch),
            last_fetched_epoch: position.last_epoch,
            reader: Reader::Follower(id(at)),
        });
        let read = match read {
            Ok(read) => read,
            Err(ReadError::OffsetOutOfRange { log_start, .. }) => return self.start_over(&follower, log_start).await,
            Err(_) => return Pulled::Nothing,
        };
        let (high_watermark, log_start) = (read.high_watermark, read.log_start);
        if let Some(end) = read.diverging {
            return match follower.truncation_point(position.leader_epoch, end.epoch, end.end) {
                Truncation::Cut { to, why } => {
                    let unclean = self.table.lock().epoch > 1_000;
                    assert!(unclean || why.loss == Loss::Uncommitted, "a clean leader has all that is committed");
                    match follower.truncate(to, why).await {
                        Ok(()) => Pulled::Cut,
                        Err(RewindError::Committed { .. }) => panic!("what is committed is cut"),
                        Err(_) => Pulled::Nothing,
                    }
                }
                Truncation::StartOver => self.start_over(&follower, log_start).await,
                Truncation::Agrees => panic!("its leader says that {position:?} differs at {end:?}"),
            };
        }
        let chunks = match read.data {
            ReadData::Empty | ReadData::Remote => Vec::new(),
            ReadData::Ready(chunks) => chunks,
            ReadData::Disk(disk) => disk.run().await.unwrap_or_default(),
        };
        if chunks.is_empty() {
            follower.leader_said(position.leader_epoch, high_watermark, log_start);
            return Pulled::Nothing;
        }
        let append = FollowerAppend {
            leader_epoch: position.leader_epoch,
            batches: chunks.concat().into(),
            high_watermark,
            log_start,
        };
        match follower.follow(append) {
            Ok(_) => Pulled::Records,
            Err(AppendError::Corrupt(error)) => panic!("a leader sends what it has: {error}"),
            Err(AppendError::OutOfOrderOffset { expected, got }) => panic!("{expected} expected, {got} came"),
            Err(_) => Pulled::Nothing,
        }
    }

    async fn start_over(&self, follower: &PartitionHandle, log_start: Offset) -> Pulled {
        let anew = Anew { start: log_start, log_start, ..Anew::default() };
        match follower.reset(follower.leadership().epoch, anew).await {
            Ok(()) => Pulled::StartedOver,
            Err(_) => Pulled::Nothing,
        }
    }

    /// A batch of the idempotent producer 7.
    pub(super) fn build(&self, sequence: i32, records: usize) -> Bytes {
        let mut builder = BatchBuilder::new().producer(7, 0, sequence);
        for at in 0..records {
            let value = format!("{}-{}", sequence + i32::try_from(at).expect("few"), "x".repeat(self.draw(200)));
            builder.append(self.clock.now_ms(), None, Some(value.as_bytes()), &[]);
        }
        builder.build()
    }

    pub(super) fn append(&self, handle: &PartitionHandle, batch: &Bytes) -> Result<Appended, AppendError> {
        self.clock.advance(1);
        let info = describe(batch).expect("a batch that was just built");
        handle.append(Append {
            leader_epoch: None,
            batches: batch.clone(),
            info: &info,
            origin: Origin::Client,
            acks: Acks::All,
            now_ms: self.clock.now_ms(),
            log_append_time: None,
        })
    }

    /// Compares what a replica counts as committed with what any did before: it never changes (ACKED, ORDER).
    pub(super) async fn compare(&mut self, at: usize) {
        let Some(handle) = self.handle(at).cloned() else { return };
        let offsets = handle.offsets();
        let ascending = [offsets.last_stable, offsets.high_watermark, offsets.synced_end, offsets.log_end];
        assert!(ascending.is_sorted(), "{offsets:?}");
        let from = self.replicas[at].compared.max(offsets.log_start);
        let Some(found) = read_batches(&handle, from, offsets.high_watermark).await else { return };
        for (base, end, bytes) in found {
            self.replicas[at].compared = end;
            let known = self.committed.partition_point(|(_, known, _)| *known <= base);
            match self.committed.get(known) {
                Some(known) => assert_eq!(*known, (base, end, bytes), "replica {at}: committed records changed"),
                None => {
                    let known_end = self.committed.last().map_or(0, |(_, end, _)| *end);
                    assert_eq!(base, known_end, "replica {at}: committed records are dense");
                    self.committed.push((base, end, bytes));
                }
            }
        }
    }

    /// The batches that were ever committed.
    pub(super) fn committed(&self) -> impl Iterator<Item = &Bytes> {
        self.committed.iter().map(|(_, _, bytes)| bytes)
    }
}

/// Whole batches of `[from, until)`; none if the disk is gone.
pub(super) async fn read_batches(
    handle: &PartitionHandle,
    from: Offset,
    until: Offset,
) -> Option<Vec<(Offset, Offset, Bytes)>> {
    let mut found = Vec::new();
    let mut next = from;
    while next < until {
        let chunks = read::read_range(&handle.shared, next, until, 1 << 16).await.ok()?;
        let before = next;
        for chunk in &chunks {
            for batch in batches(chunk) {
                let batch = batch.expect("whole batches");
                assert_eq!(batch.compute_crc(), batch.header.crc);
                next = batch.header.last_offset() + 1;
                found.push((batch.header.base_offset, next, Bytes::copy_from_slice(batch.bytes)));
            }
        }
        assert!(next > before, "a read gets on");
    }
    Some(found)
}
