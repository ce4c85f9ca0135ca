//! Replicas that move (KIP-455), and partitions that get more or fewer of them (KIP-860).
//!
//! While it lasts, a partition's replicas are those it is to have, in their order, followed by those that go. It ends in the
//! change that brings the last of the added ones in sync (see [`super::change`]).

use std::collections::BTreeMap;

use proto::ids::{NodeId, TopicPartition};
use proto::metadata::{MetadataRecord, PartitionState};

use super::change::Want;
use super::placement::{check_replicas, directory};
use super::{Draft, MAX_PARTITIONS_PER_COMMAND};
use crate::command::{AlterReassignments, Outcome, Refusal};

pub(super) fn alter(draft: &mut Draft<'_>, alter: &AlterReassignments) -> Result<Outcome, Refusal> {
    draft.needs_level(1)?;
    if alter.changes.len() > MAX_PARTITIONS_PER_COMMAND {
        return Err(Refusal::TooMany(format!(
            "Excessively large number of partitions per request: {}, at most {MAX_PARTITIONS_PER_COMMAND} are allowed",
            alter.changes.len()
        )));
    }
    let planned_on: BTreeMap<TopicPartition, i32> = alter.planned_on.iter().copied().collect();
    let answers = alter
        .changes
        .iter()
        .map(|(tp, target)| match target {
            _ if is_stale(draft, *tp, &planned_on) => Err(Refusal::InvalidUpdateVersion),
            Some(target) => reassign(draft, *tp, target, alter.allow_factor_change),
            None => cancel(draft, *tp),
        })
        .collect();
    Ok(Outcome::AlterReassignments(answers))
}

/// Whether the partition changed since the change of it was planned.
fn is_stale(draft: &Draft<'_>, tp: TopicPartition, planned_on: &BTreeMap<TopicPartition, i32>) -> bool {
    let now = draft.image.partition(tp).map(|state| state.partition_epoch);
    planned_on.get(&tp).is_some_and(|epoch| now != Some(*epoch))
}

/// The replicas as they are if what is under way is taken back.
fn settled(state: &PartitionState) -> Vec<NodeId> {
    state.replicas.iter().copied().filter(|id| !state.adding.contains(id)).collect()
}

fn reassign(
    draft: &mut Draft<'_>,
    tp: TopicPartition,
    target: &[NodeId],
    allow_factor_change: bool,
) -> Result<(), Refusal> {
    let old = draft.image.partition(tp).ok_or(Refusal::UnknownTopic)?;
    check_replicas(&draft.image, target)?;
    let drained = |id: &&NodeId| draft.image.broker(**id).is_some_and(|broker| broker.is_draining());
    if let Some(id) = target.iter().filter(|id| !old.replicas.contains(id)).find(drained) {
        return Err(Refusal::InvalidReplicaAssignment(format!(
            "The manual partition assignment includes broker {id}, which is being drained."
        )));
    }
    let settled = settled(old);
    if !allow_factor_change && target.len() != settled.len() {
        return Err(Refusal::InvalidReplicationFactor(format!(
            "The replication factor is changed from {} to {}",
            settled.len(),
            target.len()
        )));
    }
    let adding: Vec<NodeId> = target.iter().copied().filter(|id| !settled.contains(id)).collect();
    let removing: Vec<NodeId> = settled.iter().copied().filter(|id| !target.contains(id)).collect();
    let replicas: Vec<NodeId> = target.iter().chain(&removing).copied().collect();
    let places = adding
        .iter()
        .filter(|id| !old.replicas.contains(id))
        .filter_map(|id| draft.image.broker(*id).map(|broker| (*id, directory(broker, draft.image.replica_count(*id)))))
        .collect();
    let mut change = draft.change(tp, old);
    (change.replicas, change.adding, change.removing, change.places) = (replicas, adding, removing, places);
    if let Some(state) = change.finish() {
        refuse_nobody_left(draft, tp, old, &state)?;
        draft.push(MetadataRecord::PartitionSet { tp, state });
    }
    Ok(())
}

fn cancel(draft: &mut Draft<'_>, tp: TopicPartition) -> Result<(), Refusal> {
    let old = draft.image.partition(tp).ok_or(Refusal::UnknownTopic)?;
    if old.adding.is_empty() && old.removing.is_empty() {
        return Err(Refusal::NoReassignmentInProgress);
    }
    let unclean = draft.allows_unclean(tp);
    let mut change = draft.change(tp, old);
    change.replicas = settled(old);
    change.adding.clear();
    change.removing.clear();
    if unclean {
        change.want = Want::Unclean;
    }
    let Some(state) = change.finish() else { return Ok(()) };
    if !unclean {
        refuse_nobody_left(draft, tp, old, &state)?;
    }
    draft.push(MetadataRecord::PartitionSet { tp, state });
    Ok(())
}

/// Refuses to give up the last replicas that hold all that is committed.
fn refuse_nobody_left(
    draft: &Draft<'_>,
    tp: TopicPartition,
    old: &PartitionState,
    new: &PartitionState,
) -> Result<(), Refusal> {
    let holders = |state: &PartitionState| {
        state.isr.iter().chain(&state.elr).any(|id| old.isr.contains(id) || old.elr.contains(id))
    };
    if holders(old) && !holders(new) {
        let topic = draft.image.topic(tp.topic).map_or("", |topic| &*topic.name);
        return Err(Refusal::InvalidReplicaAssignment(format!(
            "None of the replicas that {topic}-{} would be left with is in sync: this would require an unclean election.",
            tp.partition
        )));
    }
    Ok(())
}
