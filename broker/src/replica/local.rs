//! What a fetcher does with the replica that lies here.

use super::core::{Because, Failure, Outcome, Position, Said};
use super::start_over::{StartOverError, Tier, start_over};
use crate::log::epochs::EpochEnd;
use crate::net::budget::Grant;
use crate::partition::{
    AckError, AppendError, Contradiction, FollowerAppend, PartitionHandle, RewindError, Truncation,
};
use bytes::Bytes;
use proto::ids::LeaderEpoch;
use std::sync::Arc;

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
    at_rest(handle, tier)
}

/// Checks batches and appends them; ends when they are durable. The memory of the answer they came in is held until they are copied.
pub(super) async fn append(
    handle: &PartitionHandle,
    leader_epoch: LeaderEpoch,
    batches: Bytes,
    said: Said,
    memory: Option<Arc<Grant>>,
) -> Outcome {
    let Ok(permit) = handle.admit(batches.len()).await else { return Outcome::Failed(Failure::Gone) };
    let Said { high_watermark, log_start } = said;
    let appended = match handle.follow(FollowerAppend { leader_epoch, batches, high_watermark, log_start }) {
        Ok(appended) => appended,
        Err(error) => return Outcome::Failed(refused(handle, &error)),
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
pub(super) async fn cut(handle: &PartitionHandle, tier: &dyn Tier, end: EpochEnd) -> Outcome {
    let tp = handle.tp();
    match handle.truncation_point(end.epoch, end.end) {
        Truncation::Agrees => {
            tracing::error!(%tp, ?end, "the leader says that histories part, and none is found");
            Outcome::Failed(Failure::Other)
        }
        Truncation::Cut { to, why } => {
            tracing::info!(%tp, to, was = handle.offsets().log_end, ?why, "cutting what the leader does not have");
            match handle.truncate(to, why).await {
                Ok(()) => at_rest(handle, tier),
                Err(error) => failed(handle, &error),
            }
        }
        Truncation::StartOver => Outcome::Apart,
    }
}

/// Starts over if it has to.
pub(super) async fn over(handle: &PartitionHandle, tier: &dyn Tier, because: Because) -> Outcome {
    match start_over(handle, tier, because).await {
        Ok(_) => Outcome::At(position(handle)),
        Err(StartOverError::Local(error)) => failed(handle, &error),
        Err(error) => {
            tracing::warn!(tp = %handle.tp(), %error, "the local log cannot start over yet");
            Outcome::Failed(Failure::Other)
        }
    }
}

fn at_rest(handle: &PartitionHandle, tier: &dyn Tier) -> Outcome {
    let contradiction = tier.seen(handle.tp()).map_or(Contradiction::None, |pointer| {
        handle.contradiction(&pointer, (pointer.end_epoch >= 0).then_some(pointer.end_epoch))
    });
    match contradiction {
        Contradiction::None => Outcome::At(position(handle)),
        Contradiction::EndsBefore | Contradiction::OtherEpoch | Contradiction::Unknown => Outcome::Behind,
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

fn refused(handle: &PartitionHandle, error: &AppendError) -> Failure {
    match error {
        AppendError::NotLeader | AppendError::FencedLeaderEpoch { .. } | AppendError::UnknownLeaderEpoch { .. } => {
            Failure::Moved
        }
        AppendError::Offline | AppendError::Deleted => Failure::Gone,
        AppendError::DiskFull => Failure::Full,
        AppendError::Corrupt(_) => {
            tracing::error!(tp = %handle.tp(), %error, "the leader sent a batch that does not check out");
            Failure::Corrupt
        }
        AppendError::OutOfOrderOffset { .. } => {
            tracing::error!(tp = %handle.tp(), %error, "the leader's records do not continue the local log");
            Failure::OutOfOrder
        }
        AppendError::NotEnoughReplicas { .. }
        | AppendError::InvalidProducerEpoch { .. }
        | AppendError::OutOfOrderSequence { .. }
        | AppendError::InvalidTxnState { .. }
        | AppendError::CoordinatorFenced { .. }
        | AppendError::Mismatch => {
            tracing::error!(tp = %handle.tp(), %error, "the leader's records are not taken");
            Failure::Other
        }
    }
}

fn failed(handle: &PartitionHandle, error: &RewindError) -> Outcome {
    tracing::warn!(tp = %handle.tp(), %error, "the local log could not be changed");
    Outcome::Failed(match error {
        RewindError::Lost(AckError::Offline | AckError::Deleted) => Failure::Gone,
        RewindError::Lost(AckError::NotLeader) => Failure::Moved,
        RewindError::Read(_) | RewindError::Committed { .. } | RewindError::State(_) => Failure::Other,
    })
}
