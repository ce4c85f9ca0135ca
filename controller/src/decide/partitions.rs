//! Leaders and in-sync replicas.

use proto::ids::{DirectoryId, NodeId, TopicPartition};
use proto::metadata::{Image, MetadataRecord, PartitionState};

use super::Draft;
use super::brokers::check_epoch;
use crate::command::{AlterPartitions, ElectLeaders, Election, IsrChange, Outcome, Refusal};

/// Whether `id` can serve its replica: in service, and the replica's directory online.
fn is_online(image: &Image, state: &PartitionState, id: NodeId) -> bool {
    let Some(broker) = image.broker(id) else {
        return false;
    };
    let directory = state
        .replicas
        .iter()
        .position(|replica| *replica == id)
        .and_then(|index| state.directories.get(index).copied())
        .unwrap_or(DirectoryId::UNASSIGNED);
    let online = directory == DirectoryId::UNASSIGNED
        || broker.directories.is_empty()
        || broker.directories.contains(&directory);
    !broker.fenced && online
}

/// Whether `id` may be made leader.
fn can_lead(image: &Image, state: &PartitionState, id: NodeId) -> bool {
    is_online(image, state, id) && image.broker(id).is_some_and(|broker| broker.is_active())
}

/// First of the in-sync replicas, in order of preference, that may lead.
fn elected(image: &Image, state: &PartitionState) -> Option<NodeId> {
    state.replicas.iter().copied().find(|id| state.isr.contains(id) && can_lead(image, state, *id))
}

fn partitions_of(image: &Image, id: NodeId) -> Vec<(TopicPartition, PartitionState)> {
    image
        .topics()
        .flat_map(|topic| topic.indexed().map(|(index, state)| (TopicPartition::new(topic.id, index), state)))
        .filter(|(_, state)| state.replicas.contains(&id))
        .map(|(tp, state)| (tp, PartitionState::clone(state)))
        .collect()
}

fn push_state(draft: &mut Draft, tp: TopicPartition, mut state: PartitionState) {
    state.partition_epoch = state.partition_epoch.saturating_add(1);
    draft.push(MetadataRecord::PartitionSet { tp, state });
}

/// Which process of a broker something happened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Incarnation {
    /// One that was not registered before: nothing of the old one's terms goes on.
    New,
    /// The registered one.
    Same,
}

/// After a broker registered anew, was fenced, lost a directory or asked to go: takes it out of the
/// in-sync replicas it cannot serve, unless it is the last of them, and gives what it led another
/// leader. What only it can lead and it still serves stays with it, with a new epoch if it is a new
/// incarnation.
pub(super) fn move_away(draft: &mut Draft, id: NodeId, incarnation: Incarnation) {
    for (tp, old) in partitions_of(&draft.image, id) {
        let mut new = old.clone();
        let online = is_online(&draft.image, &old, id);
        if !online && new.isr.len() > 1 {
            new.isr.retain(|replica| *replica != id);
        }
        let stays = incarnation == Incarnation::Same && can_lead(&draft.image, &old, id);
        if new.leader == Some(id) && !stays {
            let keeps = if online { Some(id) } else { None };
            new.leader = elected(&draft.image, &new).or(keeps);
            if new.leader != old.leader || incarnation == Incarnation::New {
                new.leader_epoch = new.leader_epoch.saturating_add(1);
            }
        }
        if new != old {
            push_state(draft, tp, new);
        }
    }
}

/// After a broker came into service: it leads what had no leader and it is in sync with.
pub(super) fn bring_in(draft: &mut Draft, id: NodeId) {
    for (tp, mut state) in partitions_of(&draft.image, id) {
        if state.leader.is_some() || !state.isr.contains(&id) {
            continue;
        }
        if let Some(leader) = elected(&draft.image, &state) {
            state.leader = Some(leader);
            state.leader_epoch = state.leader_epoch.saturating_add(1);
            push_state(draft, tp, state);
        }
    }
}

pub(super) fn alter(draft: &mut Draft, alter: &AlterPartitions) -> Result<Outcome, Refusal> {
    check_epoch(&draft.image, alter.broker, alter.broker_epoch)?;
    let answers = alter
        .partitions
        .iter()
        .map(|change| {
            let state = altered(&draft.image, alter.broker, change)?;
            push_state(draft, change.tp, state);
            Ok(())
        })
        .collect();
    Ok(Outcome::AlterPartitions(answers))
}

fn altered(image: &Image, asking: NodeId, change: &IsrChange) -> Result<PartitionState, Refusal> {
    let state = image.partition(change.tp).ok_or(Refusal::UnknownTopicId)?;
    if change.leader_epoch != state.leader_epoch || state.leader != Some(asking) {
        return Err(Refusal::FencedLeaderEpoch { asked: change.leader_epoch, current: state.leader_epoch });
    }
    if change.partition_epoch != state.partition_epoch {
        return Err(Refusal::InvalidUpdateVersion);
    }
    if !change.isr.iter().any(|(id, _)| *id == asking) {
        return Err(Refusal::InvalidRequest("The in-sync replicas must include the leader.".to_owned()));
    }
    let ineligible = change.isr.iter().find(|(id, epoch)| {
        let stays = state.isr.contains(id);
        let fresh = image.broker(*id).is_some_and(|broker| *epoch == -1 || broker.epoch == *epoch);
        !state.replicas.contains(id) || !fresh || (!stays && !can_lead(image, state, *id))
    });
    if let Some((id, _)) = ineligible {
        return Err(Refusal::IneligibleReplica(*id));
    }
    let mut new = PartitionState::clone(state);
    new.isr = change.isr.iter().map(|(id, _)| *id).collect();
    new.elr.retain(|id| !new.isr.contains(id));
    Ok(new)
}

pub(super) fn elect(draft: &mut Draft, elect: &ElectLeaders) -> Outcome {
    let all = elect.partitions.is_none();
    let partitions = elect.partitions.clone().unwrap_or_else(|| {
        draft
            .image
            .topics()
            .flat_map(|topic| topic.indexed().map(|(index, _)| TopicPartition::new(topic.id, index)))
            .collect()
    });
    let mut answers = Vec::new();
    for tp in partitions {
        let answer = elect_one(&draft.image, elect.election, tp).map(|mut state| {
            state.leader_epoch = state.leader_epoch.saturating_add(1);
            push_state(draft, tp, state);
        });
        // When all are asked for, only what changed or failed is news (KIP-460).
        if !(all && answer == Err(Refusal::ElectionNotNeeded)) {
            answers.push((tp, answer));
        }
    }
    Outcome::ElectLeaders(answers)
}

fn elect_one(image: &Image, election: Election, tp: TopicPartition) -> Result<PartitionState, Refusal> {
    let old = image.partition(tp).ok_or(Refusal::UnknownTopic)?;
    let mut state = PartitionState::clone(old);
    match election {
        Election::Preferred => {
            let preferred = state.replicas.first().copied();
            if state.leader == preferred {
                return Err(Refusal::ElectionNotNeeded);
            }
            let fit = preferred
                .filter(|id| state.isr.contains(id) && can_lead(image, &state, *id))
                .ok_or(Refusal::PreferredLeaderNotAvailable)?;
            state.leader = Some(fit);
        }
        Election::Unclean => {
            if state.leader.is_some() {
                return Err(Refusal::ElectionNotNeeded);
            }
            let in_sync = elected(image, &state);
            let any = || state.replicas.iter().copied().find(|id| can_lead(image, &state, *id));
            let leader = in_sync.or_else(any).ok_or(Refusal::EligibleLeadersNotAvailable)?;
            if !state.isr.contains(&leader) {
                state.isr = vec![leader];
                state.elr.clear();
            }
            state.leader = Some(leader);
        }
    }
    Ok(state)
}
