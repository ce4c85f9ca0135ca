//! What to upload, and what holds an upload back.

use proto::ids::{Millis, Offset};
use proto::metadata::TierPointer;

use crate::ports::LocalState;

/// A range of the local log that is to go to the object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upload {
    /// First offset. Inclusive; a batch border.
    pub from: Offset,
    /// End. Exclusive; a batch border, at or below the last stable offset.
    pub to: Offset,
    /// Why now.
    pub reason: Reason,
}

/// Why a range is uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A segment is full.
    Full,
    /// The oldest record reached `firn.tier.max.lag.ms`.
    Lag,
    /// Somebody asked for it.
    Flush,
}

/// Whether an upload was asked for or is only due when it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Upload what is full or old enough.
    WhenDue,
    /// Upload all that may be uploaded.
    Now,
}

/// What keeps records from being tiered. The texts are what a user reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Hold {
    /// Another broker leads.
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// `remote.storage.enable=false`, or `remote.log.copy.disable=true`.
    #[error("remote.storage.enable is false for the topic, or remote.log.copy.disable is true")]
    Disabled,
    /// The local log begins above the tier's end: uploading would leave a gap.
    #[error("the local log begins at offset {local_start}, above the end of the tier at {tier_end}")]
    Gap {
        /// First local offset.
        local_start: Offset,
        /// End of the tier.
        tier_end: Offset,
    },
    /// A transaction is open: nothing from its first record on may be uploaded.
    #[error("an open transaction: offsets {from} to {to} are not stable until it ends")]
    OpenTransaction {
        /// Last stable offset: where the transaction begins.
        from: Offset,
        /// High watermark. Exclusive.
        to: Offset,
    },
    /// Records are not committed yet.
    #[error("offsets {from} to {to} are not committed by the in-sync replicas yet")]
    Uncommitted {
        /// High watermark.
        from: Offset,
        /// End of the log. Exclusive.
        to: Offset,
    },
    /// The last attempt failed.
    #[error("{0}")]
    Failing(String),
}

/// Where the next object begins: the end of the tier; in an empty tier, where the log begins.
pub fn next_base(local: &LocalState, pointer: &TierPointer) -> Offset {
    if pointer.is_empty() { pointer.tier_end.max(pointer.log_start).max(local.log_start) } else { pointer.tier_end }
}

/// The range to upload now, None if there is none.
pub fn upload(local: &LocalState, pointer: &TierPointer, now: Millis, urgency: Urgency) -> Option<Upload> {
    let from = next_base(local, pointer);
    if blocked(local, pointer).is_some() || pointer.log_start > from || from >= local.last_stable {
        return None;
    }
    let range = |to, reason| Upload { from, to, reason };
    if urgency == Urgency::Now {
        return Some(range(local.last_stable, Reason::Flush));
    }
    let old = lag_due(local).is_some_and(|due| due <= now);
    if old {
        return Some(range(local.last_stable, Reason::Lag));
    }
    let full = local.rolled.iter().rev().find(|segment| segment.end <= local.last_stable)?;
    (full.end > from).then(|| range(full.end, Reason::Full))
}

/// When the lag bound will ask for an upload.
pub fn lag_due(local: &LocalState) -> Option<Millis> {
    local.oldest_untiered_ms.map(|oldest| oldest.saturating_add(local.settings.max_lag_ms))
}

/// What makes any upload impossible.
pub fn blocked(local: &LocalState, pointer: &TierPointer) -> Option<Hold> {
    let from = next_base(local, pointer);
    if !local.is_leader {
        Some(Hold::NotLeader)
    } else if !local.settings.enabled {
        Some(Hold::Disabled)
    } else if local.local_start > from {
        Some(Hold::Gap { local_start: local.local_start, tier_end: from })
    } else {
        None
    }
}

/// What keeps `[.., target)` from being tiered, None if it is tiered or on its way. `failing` is the
/// last error of the partition's uploads.
pub fn hold(local: &LocalState, pointer: &TierPointer, target: Offset, failing: Option<&str>) -> Option<Hold> {
    if pointer.tier_end >= target || next_base(local, pointer) >= target {
        return None;
    }
    if let Some(hold) = blocked(local, pointer) {
        return Some(hold);
    }
    let stable_is_tiered = next_base(local, pointer) >= local.last_stable;
    if let Some(error) = failing.filter(|_| !stable_is_tiered) {
        return Some(Hold::Failing(error.to_owned()));
    }
    if local.last_stable < local.high_watermark && local.last_stable < target {
        return Some(Hold::OpenTransaction { from: local.last_stable, to: local.high_watermark });
    }
    if local.high_watermark < target {
        return Some(Hold::Uncommitted { from: local.high_watermark, to: local.log_end });
    }
    None
}
