//! Tier pointers: of two leaders only the one with the newer epoch can move one (FENCED), and only
//! from the generation it planned on.

use std::sync::Arc;

use proto::metadata::tier::{MAX_POINTS, MAX_TAIL_ENTRIES};
use proto::metadata::{Image, MetadataRecord, TierPointer};
use proto::planted::{Bug, planted};

use super::Draft;
use crate::command::{DeleteRecords, Outcome, Refusal, TierCommit, TierRefusal};

pub(super) fn commit(draft: &mut Draft<'_>, commits: &[TierCommit]) -> Outcome {
    let answers = commits
        .iter()
        .map(|commit| {
            if let Some(pointer) = committed(&draft.image, commit, draft.now)? {
                draft.push(MetadataRecord::TierPointerSet { tp: commit.tp, pointer });
            }
            let pointer = draft.image.tier(commit.tp).ok_or(TierRefusal::Gone)?;
            Ok(Arc::clone(pointer))
        })
        .collect();
    Outcome::CommitTier(answers)
}

/// The pointer to be, or none if this very commit was carried out before.
fn committed(image: &Image, commit: &TierCommit, now: i64) -> Result<Option<TierPointer>, TierRefusal> {
    let state = image.partition(commit.tp).ok_or(TierRefusal::Gone)?;
    let current = image.tier(commit.tp);
    if current.is_some_and(|current| current.request == commit.request) {
        return Ok(None);
    }
    if commit.leader_epoch != state.leader_epoch && !planted(Bug::NoEpochInCommit) {
        return Err(TierRefusal::Fenced { asked: commit.leader_epoch, current: state.leader_epoch });
    }
    if current.map_or(0, |current| current.generation) != commit.expected_generation {
        return Err(TierRefusal::Stale(current.cloned()));
    }
    check(&commit.pointer, current.map(|current| &**current)).map_err(TierRefusal::Invalid)?;
    Ok(Some(TierPointer {
        generation: commit.expected_generation + 1,
        leader_epoch: commit.leader_epoch,
        committed_at: now,
        request: commit.request,
        ..commit.pointer.clone()
    }))
}

/// The invariants of a pointer, by themselves and against the one before it.
fn check(new: &TierPointer, old: Option<&TierPointer>) -> Result<(), &'static str> {
    if new.log_start < 0 || new.tier_start < 0 || new.tier_start > new.tier_end {
        return Err("its range is not a range");
    }
    if new.tail.len() > MAX_TAIL_ENTRIES {
        return Err("it holds more entries than belong outside a root");
    }
    if new.tail.iter().any(|entry| entry.points.len() > MAX_POINTS) {
        return Err("an entry has too many points");
    }
    if new.tail.iter().any(|entry| entry.base >= entry.end) {
        return Err("an entry is empty");
    }
    if new.tail.windows(2).any(|pair| pair[0].end != pair[1].base) {
        return Err("its entries have a gap or overlap (NO-GAP)");
    }
    match (new.tail.first(), new.tail.last()) {
        (Some(first), Some(last)) => {
            let starts = if new.root.is_some() { first.base >= new.tier_start } else { first.base == new.tier_start };
            if !starts || last.end != new.tier_end {
                return Err("its entries do not cover its range (NO-GAP)");
            }
        }
        _ if new.root.is_none() && new.tier_start != new.tier_end => {
            return Err("it covers a range with nothing (NO-GAP)");
        }
        _ => {}
    }
    let last = new.tail.last().and_then(|entry| entry.epochs.last());
    if last.is_some_and(|(epoch, _)| new.end_epoch != -1 && new.end_epoch != *epoch) {
        return Err("the epoch at its end is not that of its last entry");
    }
    let Some(old) = old else { return Ok(()) };
    if new.log_start < old.log_start {
        return Err("the log start would move back");
    }
    if new.tier_start < old.tier_start {
        return Err("the tier start would move back");
    }
    if new.tier_end < old.tier_end {
        return Err("the tier end would move back (TIER-IS-TRUTH)");
    }
    Ok(())
}

pub(super) fn delete_records(draft: &mut Draft<'_>, deletes: &[DeleteRecords]) -> Outcome {
    let answers = deletes
        .iter()
        .map(|delete| {
            let state = draft.image.partition(delete.tp).ok_or(Refusal::UnknownTopic)?;
            if delete.leader_epoch != state.leader_epoch {
                return Err(Refusal::FencedLeaderEpoch { asked: delete.leader_epoch, current: state.leader_epoch });
            }
            // A partition of which nothing is tiered yet gets its first pointer here: whoever leads it next must
            // not bring the records back.
            let current = draft.image.tier(delete.tp).cloned().unwrap_or_default();
            if delete.log_start <= current.log_start {
                return Ok(current);
            }
            let pointer = TierPointer {
                generation: current.generation + 1,
                log_start: delete.log_start,
                leader_epoch: delete.leader_epoch,
                committed_at: draft.now,
                ..TierPointer::clone(&current)
            };
            draft.push(MetadataRecord::TierPointerSet { tp: delete.tp, pointer: pointer.clone() });
            Ok(Arc::new(pointer))
        })
        .collect();
    Outcome::DeleteRecords(answers)
}
