//! Gathers records for one fetch: from memory and disk at once, from the remote tier (see `cold`) side by side, within the
//! request's limits.
//!
//! Limits are those of KIP-74: no partition gets more than its own maximum, all together no more than the request's, except that
//! the first batch of the first partition that has any is sent whatever its size. Memory is admitted before it is filled.

use super::super::errors::read_code;
use super::super::partitions::{held, topic_named, topic_with_id};
use super::super::services::Services;
use super::cold::{Cold, Hot, with_cold};
use super::follower;
use super::session::{Key, TopicRef, Wanted};
use crate::log::epochs::EpochEnd;
use crate::metrics::SourceLabel;
use crate::net::budget::{Budget, Grant};
use crate::partition::PartitionHandle;
use crate::partition::types::{Isolation, Read, ReadData, ReadError, ReadResult, Reader};
use crate::partition::waiters::FetchWaiter;
use proto::errors::ErrorCode;
use proto::ids::{LeaderEpoch, NodeId, Offset, TopicPartition};
use proto::messages::FetchRequest;
use proto::metadata::Image;
use proto::wire::RecordChunks;
use std::time::Duration;
use tokio::time::Instant;

/// A fetch gets this much memory, however little is free: what a consumer asks of one partition by default.
pub(super) const LEAST_ROOM_BYTES: usize = 1 << 20;
/// A look at the partitions waits this long for memory, be the fetch allowed to wait for less: nobody reads without. Who keeps others
/// waiting by not taking an answer is let go within that time. No look begins after `max_wait`: the memory being short, an answer comes
/// `max_wait` and this after its request at the latest, without what the disk takes.
pub(super) const MEMORY_PATIENCE: Duration = Duration::from_secs(5);
/// How often a fetch that waits looks whether the memory of its request is wanted by others.
const TICK: Duration = Duration::from_secs(1);

/// What bounds a fetch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub max_wait: Duration,
    pub min_bytes: usize,
    pub max_bytes: usize,
    pub isolation: Isolation,
    pub reader: Reader,
}

impl Limits {
    /// As the client asked; `fetch.max.bytes` of the broker bounds the answer in any case.
    pub(super) fn of(request: &FetchRequest, broker_max_bytes: usize) -> Limits {
        let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0).min(broker_max_bytes);
        Limits {
            max_wait: Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)),
            min_bytes: usize::try_from(request.min_bytes).unwrap_or(0).min(max_bytes),
            max_bytes,
            isolation: if request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted },
            reader: Reader::Consumer,
        }
    }

    fn is_follower(&self) -> bool {
        matches!(self.reader, Reader::Follower(_))
    }

    /// What the answer's records take memory of. Replicas have some of their own: consumers who do not take their answers hold up no
    /// acknowledgement.
    fn memory<'a>(&self, services: &'a Services) -> &'a Budget {
        if self.is_follower() { &services.replica_memory } else { &services.fetch_memory }
    }

    fn source(&self) -> SourceLabel {
        SourceLabel { source: if self.is_follower() { "replica" } else { "local" } }
    }
}

/// A partition to read, or why it cannot be.
pub(super) struct Target {
    pub(super) wanted: Wanted,
    pub(super) tp: Option<TopicPartition>,
    pub(super) partition: Result<PartitionHandle, ErrorCode>,
    leader: Option<(NodeId, LeaderEpoch)>,
    /// Whether the image counts this broker as in sync.
    pub(super) in_sync: bool,
    /// It is a replica's that has had its share for now: nothing is read.
    pub(super) held_up: bool,
    /// Who should be asked instead, being nearer: nothing is read here then.
    pub(super) preferred: Option<NodeId>,
}

impl Target {
    /// Who leads, as the image says.
    pub(super) fn leader(&self) -> Option<NodeId> {
        self.leader.map(|(leader, _)| leader)
    }

    /// `partition_max_bytes`.
    pub(super) fn max_bytes(&self) -> usize {
        usize::try_from(self.wanted.max_bytes).unwrap_or(0)
    }

    /// Whether a follower knows less of what is committed than it could take: it never says more than where its log ends.
    pub(super) fn lags(&self) -> bool {
        let committed = |partition: &PartitionHandle| partition.offsets().high_watermark.min(self.wanted.offset);
        self.partition.as_ref().is_ok_and(|partition| self.wanted.high_watermark < committed(partition))
    }

    /// There is no such partition. That is said with the rest and not at once, as in Kafka: a consumer that goes on asking for a
    /// topic that is gone would turn its long polls into a busy loop.
    fn is_unknown(&self) -> bool {
        matches!(self.partition, Err(ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId))
    }
}

/// A transaction whose records the reader must skip, from `first_offset` to its marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aborted {
    pub producer_id: i64,
    pub first_offset: Offset,
}

/// What was found of one partition.
#[derive(Debug)]
pub(super) struct Found {
    pub error: ErrorCode,
    pub high_watermark: Offset,
    pub last_stable: Offset,
    pub log_start: Offset,
    pub records: RecordChunks,
    /// The records come from the remote tier.
    pub cold: bool,
    /// Null unless the reader asked for committed records only.
    pub aborted: Option<Vec<Aborted>>,
    pub diverging: Option<EpochEnd>,
    /// Whom to ask instead, with an error that says so.
    pub leader: Option<(NodeId, LeaderEpoch)>,
    /// Whom to ask from now on, being nearer (KIP-392).
    pub preferred: Option<NodeId>,
}

/// What a fetch answers, and the memory it pins.
pub(super) struct Gathered {
    pub partitions: Vec<Found>,
    pub grants: Vec<Grant>,
}

/// Who leads a partition, and its epoch.
pub(super) fn leader(image: &Image, tp: TopicPartition) -> Option<(NodeId, LeaderEpoch)> {
    let state = image.partition(tp)?;
    Some((state.leader?, state.leader_epoch))
}

/// Finds the partition that `key` names.
pub(super) fn resolve(services: &Services, image: &Image, key: &Key, wanted: &Wanted) -> Target {
    let topic = match &key.topic {
        TopicRef::Name(name) => topic_named(image, name),
        TopicRef::Id(id) => topic_with_id(image, *id),
    };
    let state = topic.ok().and_then(|topic| topic.partition(key.partition));
    let tp = topic.ok().map(|topic| TopicPartition { topic: topic.id, partition: key.partition });
    Target {
        wanted: wanted.clone(),
        tp,
        leader: tp.and_then(|tp| leader(image, tp)),
        in_sync: state.is_some_and(|state| state.isr.contains(&services.node_id)),
        held_up: false,
        preferred: None,
        partition: topic.and_then(|topic| held(services, topic, key.partition)),
    }
}

/// Reads until `min_bytes` are found, something is worth answering at once, or `max_wait` has passed; it does not wait longer than
/// that, except for memory (see [`MEMORY_PATIENCE`]).
///
/// `request` is the memory that the request holds. It is not kept from others for the sake of waiting.
pub(super) async fn gather(
    services: &Services,
    targets: &[Target],
    limits: Limits,
    request: Option<&Grant>,
) -> Gathered {
    let deadline = Instant::now() + limits.max_wait;
    // A follower whose leader does not know of a partition yet asks again by itself.
    let nothing_to_wait_for =
        targets.iter().all(Target::is_unknown) || (limits.is_follower() && targets.iter().any(Target::is_unknown));
    let mut estimate = Estimate::Available;
    let mut given_up = false;
    loop {
        let pass = pass(services, targets, limits, deadline, estimate).await;
        let enough = pass.urgent || pass.bytes >= limits.min_bytes;
        if enough || nothing_to_wait_for || given_up || Instant::now() >= deadline {
            count(services, targets, &pass.found, limits);
            return Gathered { partitions: pass.found, grants: pass.grants };
        }
        let missing = limits.min_bytes - pass.bytes;
        // Records that wait with us are read again then; neither they nor their memory are held meanwhile.
        let Pass { seen, again, found, grants, .. } = pass;
        drop((found, grants));
        if again && estimate == Estimate::Available {
            estimate = Estimate::Most;
            continue;
        }
        estimate = Estimate::Available;
        let waiter = FetchWaiter::new(missing);
        for (target, seen) in targets.iter().zip(seen) {
            if let (Ok(partition), Some(seen)) = (&target.partition, seen) {
                partition.subscribe(&waiter, limits.reader, limits.isolation, seen);
            }
        }
        // At the deadline the last pass answers what is there.
        given_up = if limits.is_follower() {
            !follower::wait(&waiter, targets, deadline).await
        } else {
            !wait(&waiter, deadline, request).await
        };
    }
}

/// Counts what is answered: for whoever balances what brokers carry, or against the bound on what replicas take.
fn count(services: &Services, targets: &[Target], found: &[Found], limits: Limits) {
    for (target, found) in targets.iter().zip(found) {
        let bytes = found.records.len() as u64;
        match (&target.partition, limits.reader) {
            (_, _) if bytes == 0 => {}
            (Ok(partition), Reader::Follower(_)) => {
                if services.replication.is_slowed(partition.tp()) {
                    services.replication.served(bytes);
                }
            }
            (Ok(partition), _) => partition.traffic().sent(bytes),
            (Err(_), _) => {}
        }
    }
}

/// Waits for news, or for the deadline; answers false if others need what the request holds.
async fn wait(waiter: &FetchWaiter, deadline: Instant, request: Option<&Grant>) -> bool {
    let Some(request) = request else {
        let _ = tokio::time::timeout_at(deadline, waiter.wait()).await;
        return true;
    };
    loop {
        let until = deadline.min(Instant::now() + TICK);
        if tokio::time::timeout_at(until, waiter.wait()).await.is_ok() || Instant::now() >= deadline {
            return true;
        }
        if request.is_contended() {
            return false;
        }
    }
}

/// One look at all partitions.
pub(super) struct Pass {
    pub(super) found: Vec<Found>,
    /// The end that bounded each local read: what becomes visible beyond it is news.
    seen: Vec<Option<Offset>>,
    pub(super) bytes: usize,
    /// Something must be answered now: an error, a divergence, less memory than would be needed to wait for more.
    pub(super) urgent: bool,
    /// Records came in while we looked, more than there was memory taken for: look again.
    again: bool,
    pub(super) grants: Vec<Grant>,
}

async fn pass(services: &Services, targets: &[Target], limits: Limits, deadline: Instant, estimate: Estimate) -> Pass {
    let memory_until = deadline.max(Instant::now() + MEMORY_PATIENCE);
    let mut room = Room::admit(services, targets, limits, memory_until, estimate).await;
    let mut pass =
        Pass { found: Vec::new(), seen: Vec::new(), bytes: 0, urgent: false, again: false, grants: Vec::new() };
    let mut cold = Vec::new();
    // Bytes promised to cold reads count, or together they would pass max.bytes.
    let mut promised = 0;
    // Hot partitions that were given less because of such promises.
    let mut cut = Vec::new();
    for (at, target) in targets.iter().enumerate() {
        let left = limits.max_bytes.saturating_sub(pass.bytes + promised);
        let min_one = pass.bytes == 0 && cold.is_empty();
        let reads = target.preferred.is_none() && !target.held_up;
        let wanted = if reads { left.min(target.max_bytes()) } else { 0 };
        let max_bytes = wanted.min(room.left);
        let min_one = min_one && reads;
        let read = read_local(target, max_bytes, min_one && !room.denied, limits).await;
        let read = room.book(services, target, read, limits, memory_until).await;
        pass.seen.push(read.as_ref().ok().map(|(result, _)| result.visible_end));
        let found = match read {
            Err(error) => failed(error.code, target).at(error.ends.filter(|_| limits.is_follower())),
            Ok((result, Local::Remote)) if limits.is_follower() => {
                failed(ErrorCode::OffsetMovedToTieredStorage, target).at(Some(Ends::of(&result)))
            }
            Ok((result, Local::Records(records))) => {
                let more = result.visible_end > target.wanted.offset;
                if more && max_bytes < wanted && records.len() < wanted {
                    pass.again |= !room.pressed;
                    pass.urgent |= room.pressed && pass.bytes + records.len() > 0;
                }
                if more && !cold.is_empty() {
                    cut.push(at);
                }
                pass.bytes += records.len();
                from_result(result, records, limits.isolation)
            }
            Ok((result, Local::Remote)) => {
                if let Some(tp) = target.tp
                    && (wanted > 0 || min_one)
                {
                    cold.push(Cold { at, tp, from: target.wanted.offset, max_bytes: wanted, min_one });
                    promised += wanted;
                }
                from_result(result, RecordChunks::new(), limits.isolation)
            }
        };
        let found = found.nearer_at(target.preferred);
        pass.urgent |= (found.error != ErrorCode::None && !target.is_unknown()) || found.diverging.is_some();
        pass.urgent |= found.preferred.is_some();
        pass.found.push(found);
    }
    if !cold.is_empty() {
        let hot = Hot { targets, room: room.granted(), denied: room.denied, cut };
        with_cold(services, hot, cold, limits, deadline, &mut pass).await;
    }
    let local = pass.found.iter().map(|found| if found.cold { 0 } else { found.records.len() }).sum::<usize>();
    services.metrics.fetched_bytes.get_or_create(&limits.source()).inc_by(local as u64);
    let extra = room.extra.as_ref().map_or(0, Grant::bytes);
    if let Some(mut grant) = room.grant {
        grant.shrink_to(local.saturating_sub(extra));
        pass.grants.push(grant);
    }
    pass.grants.extend(room.extra);
    pass
}

/// How much memory to take before one reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Estimate {
    /// For what seems to be there.
    Available,
    /// For all that the limits allow.
    Most,
}

/// Memory for hot records.
struct Room {
    grant: Option<Grant>,
    /// What a first batch took beyond the limit it was read with. It leaves to the others what they may have.
    extra: Option<Grant>,
    /// What of `grant` was not read into.
    left: usize,
    /// There was not enough for all that could be read.
    pressed: bool,
    /// There was none at all, and nothing may be read.
    denied: bool,
}

impl Room {
    /// Takes memory for what the answer may hold: an estimate from above, which shrinks to what was read.
    ///
    /// A fetch takes at most a quarter of what is free, so that readers who do not take their answers slow the others down
    /// but never shut them out, and waits no longer than it may.
    async fn admit(
        services: &Services,
        targets: &[Target],
        limits: Limits,
        until: Instant,
        estimate: Estimate,
    ) -> Room {
        let most = targets.iter().filter_map(|target| {
            let partition = target.partition.as_ref().ok()?;
            let available = partition.available_bytes(target.wanted.offset, limits.isolation)?;
            Some(match estimate {
                Estimate::Available => usize::try_from(available).unwrap_or(usize::MAX).min(target.max_bytes()),
                Estimate::Most => target.max_bytes(),
            })
        });
        let wanted = most.fold(0, usize::saturating_add).min(limits.max_bytes);
        if wanted == 0 {
            return Room { grant: None, extra: None, left: 0, pressed: false, denied: false };
        }
        let memory = limits.memory(services);
        let share = (memory.free_bytes() / 4).max(LEAST_ROOM_BYTES);
        let grant = tokio::time::timeout_at(until, memory.admit(wanted.min(share))).await.ok();
        let left = grant.as_ref().map_or(0, Grant::bytes);
        Room { denied: grant.is_none(), grant, extra: None, left, pressed: left < wanted }
    }

    /// Bytes of memory taken so far.
    fn granted(&self) -> usize {
        self.grant.iter().chain(&self.extra).map(Grant::bytes).sum()
    }

    /// Accounts for what was read. A first batch may be larger than the limit it was read with: memory is taken for the rest of
    /// it, too. If there is none, the batch is let go, and read again when there is enough for all of it.
    async fn book(
        &mut self,
        services: &Services,
        target: &Target,
        read: Result<(ReadResult, Local), Refused>,
        limits: Limits,
        until: Instant,
    ) -> Result<(ReadResult, Local), Refused> {
        let size = match &read {
            Ok((_, Local::Records(records))) => records.len(),
            Ok((_, Local::Remote)) | Err(_) => return read,
        };
        let within = size.min(target.max_bytes()).min(self.left);
        if size > within {
            let memory = limits.memory(services);
            self.extra = memory.try_admit(size - within);
            if self.extra.is_none() {
                drop(read);
                // Nothing is held while one waits for more.
                self.grant = None;
                self.grant = tokio::time::timeout_at(until, memory.admit(size)).await.ok();
                (self.pressed, self.denied, self.left) = (true, self.grant.is_none(), 0);
                let max_bytes = if self.denied { 0 } else { size };
                return read_local(target, max_bytes, false, limits).await;
            }
        }
        self.left -= within;
        read
    }
}

/// Where the records of a partition are.
pub(super) enum Local {
    /// Here they are; none, if there are none.
    Records(RecordChunks),
    /// In the remote tier.
    Remote,
}

/// Reads one partition from memory or disk.
pub(super) async fn read_local(
    target: &Target,
    max_bytes: usize,
    min_one: bool,
    limits: Limits,
) -> Result<(ReadResult, Local), Refused> {
    let partition = target.partition.as_ref().map_err(|code| Refused { code: *code, ends: None })?;
    let wanted = &target.wanted;
    let known = |epoch: LeaderEpoch| (epoch >= 0).then_some(epoch);
    let read = Read {
        offset: wanted.offset,
        max_bytes,
        min_one,
        isolation: limits.isolation,
        leader_epoch: known(wanted.current_leader_epoch),
        last_fetched_epoch: known(wanted.last_fetched_epoch),
        reader: limits.reader,
    };
    let mut result = partition.read(read).map_err(|error| refused(&error, partition))?;
    let local = match std::mem::replace(&mut result.data, ReadData::Empty) {
        ReadData::Empty => Local::Records(RecordChunks::new()),
        ReadData::Ready(chunks) => Local::Records(chunks.into_iter().collect()),
        ReadData::Disk(read) => {
            let chunks = read.run().await.map_err(|error| refused(&error, partition))?;
            Local::Records(chunks.into_iter().collect())
        }
        ReadData::Remote => Local::Remote,
    };
    Ok((result, local))
}

/// Where a log begins and ends for its readers: a follower goes by that when it cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub log_start: Offset,
    pub high_watermark: Offset,
}

impl Ends {
    fn of(result: &ReadResult) -> Ends {
        Ends { log_start: result.log_start, high_watermark: result.high_watermark }
    }
}

/// Why a partition cannot be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    pub code: ErrorCode,
    /// Known where the offset is the trouble.
    pub ends: Option<Ends>,
}

fn refused(error: &ReadError, partition: &PartitionHandle) -> Refused {
    if let ReadError::Corrupt(what) = error {
        tracing::error!(partition = %partition.tp(), %what, "a segment cannot be read");
    }
    let ends = if let ReadError::OffsetOutOfRange { log_start, high_watermark, .. } = error {
        Some(Ends { log_start: *log_start, high_watermark: *high_watermark })
    } else {
        None
    };
    Refused { code: read_code(error), ends }
}

impl Found {
    /// Names a nearer replica, unless something is wrong here.
    fn nearer_at(self, preferred: Option<NodeId>) -> Found {
        if self.error == ErrorCode::None { Found { preferred, ..self } } else { self }
    }

    /// Says where the log begins and ends, too.
    fn at(self, ends: Option<Ends>) -> Found {
        match ends {
            Some(Ends { log_start, high_watermark }) => Found { log_start, high_watermark, ..self },
            None => self,
        }
    }
}

pub(super) fn failed(error: ErrorCode, target: &Target) -> Found {
    let elsewhere = matches!(error, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch);
    Found {
        error,
        high_watermark: -1,
        last_stable: -1,
        log_start: -1,
        records: RecordChunks::new(),
        cold: false,
        aborted: None,
        diverging: None,
        leader: target.leader.filter(|_| elsewhere),
        preferred: None,
    }
}

fn from_result(result: ReadResult, records: RecordChunks, isolation: Isolation) -> Found {
    Found {
        error: ErrorCode::None,
        high_watermark: result.high_watermark,
        last_stable: result.last_stable,
        log_start: result.log_start,
        records,
        cold: false,
        aborted: (isolation == Isolation::ReadCommitted).then(|| {
            let hot = result.aborted.iter();
            hot.map(|txn| Aborted { producer_id: txn.producer_id, first_offset: txn.first_offset }).collect()
        }),
        diverging: result.diverging,
        leader: None,
        preferred: None,
    }
}
