//! What replicas ask of each other through their partitions: what a follower's fetch tells its leader, and what the
//! leader's answer does to the follower's log.

use bytes::Bytes;
use proto::ids::{LeaderEpoch, NodeId, Offset};
use proto::metadata::TierPointer;

use super::core::{Contradiction, Event, IsrRefused, LeaderSaid, ReplicaFetched, ReplicaView, TierEnd, Truncation};
use super::handle::{PartitionHandle, describe};
use super::types::{AckError, AckFuture, Acks, Append, AppendError, Appended, Origin, ReadError, Reader};

/// What a follower's fetch says of itself, for one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaFetch {
    /// Who fetches.
    pub replica: NodeId,
    /// Epoch of its registration, -1 if it does not say (KIP-903).
    pub broker_epoch: i64,
    /// The leader epoch it believes in, if it says so.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Epoch of its last record, if it has one and says so (KIP-595).
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// Where it goes on. It durably holds everything below.
    pub offset: Offset,
    /// First offset it has not deleted.
    pub log_start: Offset,
}

/// Records that a leader answered, to be appended by a follower.
#[derive(Debug, Clone)]
pub struct FollowerAppend {
    /// The leader's term.
    pub leader_epoch: LeaderEpoch,
    /// Whole batches, back to back, as the leader has them; at least one.
    pub batches: Bytes,
    /// The leader's high watermark.
    pub high_watermark: Offset,
    /// First offset that may be read from the leader.
    pub log_start: Offset,
}

/// Where a follower's next fetch begins, and what it says of itself there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPosition {
    /// The term it fetches under.
    pub leader_epoch: LeaderEpoch,
    /// Its log end: first offset wanted.
    pub offset: Offset,
    /// Below this everything is durable: a fetch may only be sent once that is `offset`.
    pub synced_end: Offset,
    /// Epoch of its last record, if it has one.
    pub last_epoch: Option<LeaderEpoch>,
    /// First offset it has not deleted.
    pub log_start: Offset,
    /// The high watermark that it knows.
    pub high_watermark: Offset,
}

impl PartitionHandle {
    // ---- of the leader

    /// A replica fetches: it has everything below the offset it asks for. To be told before its fetch is read. One whose
    /// history is not ours, or that fetches in the name of an earlier incarnation, counts for nothing.
    ///
    /// # Errors
    /// If this broker does not lead, or not in that term; [`ReadError::UnknownLeaderEpoch`] if the image here does not know
    /// the replica yet.
    pub fn replica_fetched(&self, fetch: ReplicaFetch) -> Result<(), ReadError> {
        let mut inner = self.shared.inner.lock();
        inner.core.check_reader(fetch.leader_epoch, Reader::Follower(fetch.replica))?;
        let leadership = inner.core.leadership();
        if leadership.replica(fetch.replica).is_none() {
            let current = leadership.epoch;
            // As in Kafka: with the term right, the image is behind; without, who knows.
            let behind = ReadError::UnknownLeaderEpoch { current };
            return Err(if fetch.leader_epoch.is_some() { behind } else { ReadError::NotLeader });
        }
        let commands = inner.core.on(Event::ReplicaFetched(ReplicaFetched {
            replica: fetch.replica,
            broker_epoch: fetch.broker_epoch,
            offset: fetch.offset,
            last_fetched_epoch: fetch.last_fetched_epoch,
            log_start: fetch.log_start,
            now_ms: self.shared.outbox.uptime_ms(),
        }));
        self.perform(&mut inner, commands);
        Ok(())
    }

    /// What is known of the replicas, this one included, in the order of the image; nothing where others lead.
    pub fn replicas(&self) -> Vec<ReplicaView> {
        self.shared.inner.lock().core.replica_views(self.shared.outbox.uptime_ms())
    }

    /// Whether the high watermark here is at least what the leader before said it was (KIP-207): ListOffsets must not
    /// answer the latest offset before. False where others lead.
    pub fn watermark_is_known(&self) -> bool {
        self.shared.inner.lock().core.watermark_is_known()
    }

    /// A look at who lags behind.
    pub(super) fn look_at_lag(&self) {
        let mut inner = self.shared.inner.lock();
        if inner.core.is_followed() {
            let commands = inner.core.on(Event::IsrTick { now_ms: self.shared.outbox.uptime_ms() });
            self.perform(&mut inner, commands);
        }
    }

    /// The controller answered a proposal that was made on version `partition_epoch`.
    pub(super) fn isr_answered(&self, partition_epoch: i32, outcome: Result<(), IsrRefused>) {
        self.on(Event::IsrAnswered { partition_epoch, outcome });
    }

    // ---- of the follower

    /// What the next fetch from the leader asks for.
    pub fn fetch_position(&self) -> FetchPosition {
        let inner = self.shared.inner.lock();
        let core = &inner.core;
        let offsets = core.offsets();
        FetchPosition {
            leader_epoch: core.leadership().epoch,
            offset: offsets.log_end,
            synced_end: offsets.synced_end,
            last_epoch: core.last_epoch(),
            log_start: offsets.log_start,
            high_watermark: offsets.high_watermark,
        }
    }

    /// Resolves when all that was appended so far is as durable here as the topic asks for.
    pub fn settled(&self) -> AckFuture {
        let mut inner = self.shared.inner.lock();
        if inner.core.is_removed() {
            return AckFuture::ready(Err(AckError::Deleted));
        }
        if !inner.core.is_good() {
            return AckFuture::ready(Err(AckError::Offline));
        }
        let end = inner.core.offsets().log_end;
        inner.wait_acked(end, Acks::Leader)
    }

    /// Appends what the leader answered; [`Appended::acked`] resolves when it is as durable here as the topic asks for, and
    /// only then the next fetch may be sent. Hold a permit of [`PartitionHandle::admit`] meanwhile.
    ///
    /// Every batch is checked. A log without records takes its begin from the first batch, which may lie before the offset
    /// that was asked for (KAFKA-6975).
    ///
    /// # Errors
    /// See [`AppendError`]; [`AppendError::DiskFull`] asks to pause. Batches before a refused one were appended.
    pub fn follow(&self, append: FollowerAppend) -> Result<Appended, AppendError> {
        if self.shared.is_refused() {
            return Err(AppendError::DiskFull);
        }
        let info = describe(&append.batches).map_err(AppendError::Corrupt)?;
        if let Some(first) = info.first() {
            self.begin_before(first.base_offset, append.leader_epoch)?;
        }
        let appended = self.append(Append {
            leader_epoch: Some(append.leader_epoch),
            batches: append.batches,
            info: &info,
            origin: Origin::Replica,
            acks: Acks::Leader,
            now_ms: self.shared.dir.now_ms(),
            log_append_time: None,
        })?;
        self.leader_said(append.leader_epoch, append.high_watermark, append.log_start);
        Ok(appended)
    }

    /// The leader answered a fetch at the log end, and found no divergence.
    pub fn leader_said(&self, leader_epoch: LeaderEpoch, high_watermark: Offset, log_start: Offset) {
        self.on(Event::LeaderSaid(LeaderSaid { epoch: leader_epoch, high_watermark, log_start }));
    }

    /// What to do when the leader of `term`, the one that the fetch was sent under, says that its history leaves ours:
    /// `leader_epoch` is the greatest epoch it knows up to our last one, and ends at `end` there (KIP-279).
    pub fn truncation_point(&self, term: LeaderEpoch, leader_epoch: LeaderEpoch, end: Offset) -> Truncation {
        self.shared.inner.lock().core.truncation_point(term, leader_epoch, end)
    }

    /// Whether the log has to start over at the tier's end before anything is appended (TIER-IS-TRUTH). `end_epoch` is
    /// the epoch of the tier's last record, where its footer was read; else what the pointer says of it counts.
    pub fn contradiction(&self, pointer: &TierPointer, end_epoch: Option<LeaderEpoch>) -> Contradiction {
        let end = tier_end(pointer);
        let end = TierEnd { epoch: end_epoch.unwrap_or(end.epoch), ..end };
        self.shared.inner.lock().core.contradiction(pointer.log_start, end)
    }
}

/// Where the tier ends, as a pointer says. Of a tier that holds nothing any more nobody can say what the last record was
/// written under: a pointer of an earlier version keeps what it said before.
pub(super) fn tier_end(pointer: &TierPointer) -> TierEnd {
    TierEnd { offset: pointer.tier_end, epoch: if pointer.is_empty() { -1 } else { pointer.end_epoch } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emptied_tier_says_no_epoch() {
        let holds = TierPointer { tier_start: 0, tier_end: 7, end_epoch: 3, ..TierPointer::default() };
        assert_eq!(tier_end(&holds), TierEnd { offset: 7, epoch: 3 });
        let emptied = TierPointer { tier_start: 7, ..holds };
        assert_eq!(tier_end(&emptied), TierEnd { offset: 7, epoch: -1 });
    }
}
