//! What a fetcher does with the replica that lies here.

use super::core::{Because, Failure, Outcome, Position, Said};
use super::start_over::{StartOverError, Tier, start_over};
use crate::log::epochs::EpochEnd;
use crate::net::budget::Grant;
use crate::partition::{
    AckError, AppendError, Contradiction, Cut, FollowerAppend, Loss, PartitionHandle, RewindError, Truncation,
};
use bytes::Bytes;
use proto::ids::LeaderEpoch;
use proto::planted::{Bug, planted};
use std::sync::Arc;

/// How loud a failure is: what fails again and again is said once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    Loud,
    Low,
}

impl Voice {
    fn say(self, handle: &PartitionHandle, what: &str, error: &dyn std::fmt::Display) {
        let tp = handle.tp();
        match self {
            Voice::Loud => tracing::warn!(%tp, %error, "{what}"),
            Voice::Low => tracing::debug!(%tp, %error, "{what}"),
        }
    }
}

/// Waits until all that was appended is durable, and looks whether the tier has it all.
pub(super) async fn settle(handle: &PartitionHandle, tier: &dyn Tier) -> Outcome {
    loop {
        match handle.settled().await {
            Ok(()) => break,
            // The tail was cut, or leadership lost, meanwhile: what is left is waited for.
            Err(AckError::NotLeader) => {}
            Err(AckError::Offline | AckError::Deleted) => return Outcome::Failed(Failure::Gone),
        }
    }
    if planted(Bug::TruncateByHw) {
        let (to, term) = (handle.offsets().high_watermark, handle.leadership().epoch);
        let _ = handle.truncate(to, Cut { term, loss: Loss::Uncommitted }).await;
    }
    at_rest(handle, tier)
}

/// Checks batches and appends them; ends when they are durable. The memory of the answer they came in is held until they are copied.
pub(super) async fn append(
    handle: &PartitionHandle,
    leader_epoch: LeaderEpoch,
    batches: Bytes,
    said: Said,
    memory: Option<Arc<Grant>>,
    voice: Voice,
) -> Outcome {
    let Ok(permit) = handle.admit(batches.len()).await else { return Outcome::Failed(Failure::Gone) };
    let Said { high_watermark, log_start } = said;
    let appended = match handle.follow(FollowerAppend { leader_epoch, batches, high_watermark, log_start }) {
        Ok(appended) => appended,
        Err(error) => return Outcome::Failed(refused(handle, &error, voice)),
    };
    drop((permit, memory));
    match appended.acked.await {
        Ok(()) => Outcome::At(position(handle)),
        Err(AckError::NotLeader) => Outcome::Failed(Failure::Moved),
        Err(AckError::Offline | AckError::Deleted) => Outcome::Failed(Failure::Gone),
    }
}

/// Learns what the leader says.
pub(super) fn learn(handle: &PartitionHandle, epoch: LeaderEpoch, said: Said) {
    handle.leader_said(epoch, said.high_watermark, said.log_start);
}

/// Cuts what the leader does not have.
pub(super) async fn cut(
    handle: &PartitionHandle,
    tier: &dyn Tier,
    term: LeaderEpoch,
    end: EpochEnd,
    voice: Voice,
) -> Outcome {
    let tp = handle.tp();
    match handle.truncation_point(term, end.epoch, end.end) {
        Truncation::Agrees => {
            voice.say(handle, "the leader says that histories part, and there is nothing to cut", &format!("{end:?}"));
            Outcome::Failed(Failure::Other)
        }
        Truncation::Cut { to, why } => {
            tracing::info!(%tp, to, was = handle.offsets().log_end, ?why, "cutting what the leader does not have");
            match handle.truncate(to, why).await {
                Ok(()) => at_rest(handle, tier),
                Err(error) => failed(handle, &error, voice),
            }
        }
        Truncation::StartOver => Outcome::Apart,
    }
}

/// Starts over if it has to.
pub(super) async fn over(
    handle: &PartitionHandle,
    tier: &dyn Tier,
    term: LeaderEpoch,
    because: Because,
    voice: Voice,
) -> Outcome {
    match start_over(handle, tier, term, because).await {
        Ok(_) => Outcome::At(position(handle)),
        Err(StartOverError::Local(error)) => failed(handle, &error, voice),
        Err(error) => {
            voice.say(handle, "the local log cannot start over yet", &error);
            Outcome::Failed(Failure::Other)
        }
    }
}

fn at_rest(handle: &PartitionHandle, tier: &dyn Tier) -> Outcome {
    let Some(pointer) = tier.seen(handle.tp()) else { return Outcome::At(position(handle)) };
    match handle.contradiction(&pointer, None) {
        // Where a pointer does not say its epoch, the leader finds out: it agrees with the tier, and compares histories.
        Contradiction::None | Contradiction::Unknown => {
            // It may have been told when the log did not reach that far, and took nothing from it then.
            handle.apply_pointer(&pointer, handle.dir().now_ms());
            Outcome::At(position(handle))
        }
        Contradiction::EndsBefore | Contradiction::OtherEpoch => Outcome::Behind,
    }
}

fn position(handle: &PartitionHandle) -> Position {
    let at = handle.fetch_position();
    Position {
        // A request with this offset acknowledges all below it.
        end: at.synced_end,
        last_epoch: at.last_epoch.unwrap_or(-1),
        log_start: at.log_start,
        high_watermark: at.high_watermark,
    }
}

fn refused(handle: &PartitionHandle, error: &AppendError, voice: Voice) -> Failure {
    match error {
        AppendError::NotLeader | AppendError::FencedLeaderEpoch { .. } | AppendError::UnknownLeaderEpoch { .. } => {
            Failure::Moved
        }
        AppendError::Offline | AppendError::Deleted => Failure::Gone,
        AppendError::DiskFull => {
            voice.say(handle, "following pauses", error);
            Failure::Full
        }
        AppendError::Corrupt(_) => {
            voice.say(handle, "the leader sent a batch that does not check out", error);
            Failure::Corrupt
        }
        AppendError::OutOfOrderOffset { .. } => {
            voice.say(handle, "the leader's records do not continue the local log", error);
            Failure::OutOfOrder
        }
        AppendError::NotEnoughReplicas { .. }
        | AppendError::InvalidProducerEpoch { .. }
        | AppendError::OutOfOrderSequence { .. }
        | AppendError::InvalidTxnState { .. }
        | AppendError::CoordinatorFenced { .. }
        | AppendError::Mismatch => {
            voice.say(handle, "the leader's records are not taken", error);
            Failure::Other
        }
    }
}

fn failed(handle: &PartitionHandle, error: &RewindError, voice: Voice) -> Outcome {
    voice.say(handle, "the local log could not be changed", error);
    Outcome::Failed(match error {
        RewindError::Lost(AckError::Offline | AckError::Deleted) => Failure::Gone,
        RewindError::Lost(AckError::NotLeader) => Failure::Moved,
        RewindError::Read(_) | RewindError::Committed { .. } | RewindError::State(_) => Failure::Other,
    })
}
