//! What happens to partitions: brokers come and go, leaders ask for other in-sync replicas, elections are held.
//! Which state each of them comes to is the business of [`super::change`].

use std::collections::BTreeMap;

use proto::ids::{DirectoryId, NodeId, TopicPartition};
use proto::metadata::{MetadataRecord, PartitionState, Recovery};
use proto::planted::{Bug, planted};

use super::Draft;
use super::brokers::check_epoch;
use super::change::{Change, Loss, Want, can_lead, serves};
use super::policy::Flush;
use crate::command::{
    AlterPartitions, AssignDirectories, ElectLeaders, Election, Elections, IsrChange, Outcome, Refusal,
};

/// How many preferred leaders one sweep restores: what one raft entry has to carry has a bound.
const RESTORED_PER_SWEEP: u32 = 1000;

impl Draft<'_> {
    /// A change of the partition `tp`, whose state is `old`.
    pub(super) fn change<'a>(&'a self, tp: TopicPartition, old: &'a PartitionState) -> Change<'a> {
        let topic = self.image.topic(tp.topic).map_or("", |topic| &*topic.name);
        Change::of(&self.image, old, self.policy.min_in_sync(&self.image, topic))
    }

    /// Decides the state that `change` makes of the one `tp` has. Whether there was anything to change.
    pub(super) fn change_partition(&mut self, tp: TopicPartition, adjust: impl FnOnce(&mut Change<'_>, &Self)) -> bool {
        let Some(old) = self.image.partition(tp) else { return false };
        let mut change = self.change(tp, old);
        adjust(&mut change, self);
        let Some(state) = change.finish() else { return false };
        self.push(MetadataRecord::PartitionSet { tp, state });
        true
    }
}

impl Draft<'_> {
    /// Makes what was planned on the version of `tp` that stands come too late, and changes nothing else.
    fn outdate(&mut self, tp: TopicPartition) {
        let Some(old) = self.image.partition(tp) else { return };
        let state =
            PartitionState { partition_epoch: old.partition_epoch.saturating_add(1), ..PartitionState::clone(old) };
        self.push(MetadataRecord::PartitionSet { tp, state });
    }

    /// Whether a replica of `tp` that may lack records may lead it when there is no other.
    pub(super) fn allows_unclean(&self, tp: TopicPartition) -> bool {
        self.image.topic(tp.topic).is_some_and(|topic| self.policy.unclean(&self.image, &topic.name))
    }
}

/// A process of a broker that was not registered before, as far as its replicas are concerned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// Whether a directory that it does not name is gone for good.
    pub(super) all_online: bool,
    /// Whether its machine went down without a sync.
    pub(super) power_lost: bool,
}

/// After a broker was registered, fenced, unfenced or unregistered, lost a directory or asked to go: it is in sync
/// only where it serves, leads only what it can, and what nobody led it leads if it may.
pub(super) fn broker_changed(draft: &mut Draft<'_>, id: NodeId, arrival: Option<Arrival>) {
    let partitions: Vec<TopicPartition> = draft.image.replicas_of(id).collect();
    for tp in partitions {
        draft.change_partition(tp, |change, draft| {
            let Some(old) = draft.image.partition(tp) else { return };
            if draft.allows_unclean(tp) {
                change.want = Want::Unclean;
            }
            if let Some(arrival) = arrival {
                change.new_process = Some(id);
                lose(change, draft, (tp, old), id, arrival);
            }
            let leaving = draft.image.broker(id).is_some_and(|broker| broker.shutting_down);
            if !serves(&draft.image, old, id) {
                change.isr.retain(|replica| *replica != id);
            } else if leaving && change.isr.len() > change.required() && others_lead(draft, old, id) {
                // Nobody waits for it any more. While it is needed it stays until it is gone.
                change.isr.retain(|replica| *replica != id);
            }
        });
    }
}

/// Whether one that is in sync could lead instead of `id`.
fn others_lead(draft: &Draft<'_>, state: &PartitionState, id: NodeId) -> bool {
    state.isr.iter().any(|other| *other != id && can_lead(&draft.image, state, *other))
}

/// What the new process of `id` says about its replica.
fn lose(
    change: &mut Change<'_>,
    draft: &Draft<'_>,
    (tp, old): (TopicPartition, &PartitionState),
    id: NodeId,
    arrival: Arrival,
) {
    let directory = old.replicas.iter().zip(&old.directories).find(|(replica, _)| **replica == id).map(|(_, d)| *d);
    let known = |directory| draft.image.broker(id).is_some_and(|broker| broker.directories.contains(&directory));
    let replaced = arrival.all_online && directory.is_some_and(|d| d != DirectoryId::UNASSIGNED && !known(d));
    if replaced {
        change.places.push((id, DirectoryId::UNASSIGNED));
        change.lost.push((id, Loss::Disk));
    } else if arrival.power_lost && old.replicas.len() > 1 {
        // What the only replica has is all there is.
        let topic = draft.image.topic(tp.topic).map_or("", |topic| &*topic.name);
        if draft.policy.flush(&draft.image, topic) == Flush::Os {
            change.lost.push((id, Loss::Tail));
        }
    }
}

pub(super) fn alter(draft: &mut Draft<'_>, alter: &AlterPartitions) -> Result<Outcome, Refusal> {
    check_epoch(&draft.image, alter.broker, alter.broker_epoch)?;
    let answers = alter
        .partitions
        .iter()
        .map(|asked| {
            check_version(draft, alter.broker, asked)?;
            if let Err(refusal) = check_isr(draft, alter.broker, asked) {
                // The same may have been asked before, and be on its way still: from here on it is outdated, and this answer final.
                draft.outdate(asked.tp);
                return Err(refusal);
            }
            draft.change_partition(asked.tp, |change, _| {
                change.isr = asked.isr.iter().map(|(id, _)| *id).collect();
                change.recovered = asked.recovered;
            });
            Ok(())
        })
        .collect();
    Ok(Outcome::AlterPartitions(answers))
}

/// Refuses a change of the in-sync replicas that is not asked by the leader, or not of what is so now (KIP-497).
fn check_version(draft: &Draft<'_>, asking: NodeId, change: &IsrChange) -> Result<(), Refusal> {
    let state = draft.image.partition(change.tp).ok_or(Refusal::UnknownTopicId)?;
    let (asked, current) = (change.leader_epoch, state.leader_epoch);
    if asked < current && planted(Bug::OlderLeaderEpochAccepted) {
        return Ok(());
    }
    if asked > current {
        return Err(Refusal::UnknownLeaderEpoch { asked, current });
    }
    if asked < current || state.leader != Some(asking) {
        return Err(Refusal::FencedLeaderEpoch { asked, current });
    }
    if change.partition_epoch != state.partition_epoch {
        return Err(Refusal::InvalidUpdateVersion);
    }
    Ok(())
}

/// Refuses in-sync replicas that a leader may not ask for (KIP-841, KIP-903).
fn check_isr(draft: &Draft<'_>, asking: NodeId, change: &IsrChange) -> Result<(), Refusal> {
    let image = &draft.image;
    let state = image.partition(change.tp).ok_or(Refusal::UnknownTopicId)?;
    let invalid = |why: &str| Err(Refusal::InvalidRequest(why.to_owned()));
    let mut ids: Vec<NodeId> = change.isr.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return invalid("A replica is named twice.");
    }
    if !ids.contains(&asking) {
        return invalid("The in-sync replicas must include the leader.");
    }
    if state.recovery == Recovery::Recovering && !change.recovered && ids.len() > 1 {
        return invalid("A leader that was elected unclean is alone in sync until it has recovered.");
    }
    let ineligible = change.isr.iter().find(|(id, epoch)| {
        // One that stays may be on its way out.
        let stays = state.isr.contains(id) && serves(image, state, *id);
        let fresh = image.broker(*id).is_some_and(|broker| *epoch == -1 || broker.epoch == *epoch);
        let fresh = fresh || planted(Bug::ZombieNotFenced);
        !state.replicas.contains(id) || !fresh || !(stays || can_lead(image, state, *id))
    });
    ineligible.map_or(Ok(()), |(id, _)| Err(Refusal::IneligibleReplica(*id)))
}

pub(super) fn elect(draft: &mut Draft<'_>, elect: &ElectLeaders) -> Outcome {
    let all = elect.partitions.is_none();
    let partitions = elect.partitions.clone().unwrap_or_else(|| all_partitions(draft));
    let mut answers = Vec::new();
    for tp in partitions {
        let answer = elect_one(draft, elect.election, tp);
        // When all are asked for, only what changed or failed is news (KIP-460).
        if !(all && answer == Err(Refusal::ElectionNotNeeded)) {
            answers.push((tp, answer));
        }
    }
    Outcome::ElectLeaders(answers)
}

fn all_partitions(draft: &Draft<'_>) -> Vec<TopicPartition> {
    let topics = draft.image.topics();
    topics.flat_map(|topic| topic.indexed().map(|(index, _)| TopicPartition::new(topic.id, index))).collect()
}

fn elect_one(draft: &mut Draft<'_>, election: Election, tp: TopicPartition) -> Result<(), Refusal> {
    let old = draft.image.partition(tp).ok_or(Refusal::UnknownTopic)?;
    let preferred = old.replicas.first().copied();
    let (want, needed, refusal) = match election {
        Election::Preferred => (Want::Preferred, old.leader != preferred, Refusal::PreferredLeaderNotAvailable),
        Election::Unclean => (Want::Unclean, old.leader.is_none(), Refusal::EligibleLeadersNotAvailable),
    };
    if !needed {
        return Err(Refusal::ElectionNotNeeded);
    }
    let mut change = draft.change(tp, old);
    change.want = want;
    let elected = |state: &PartitionState| match election {
        Election::Preferred => state.leader == preferred,
        Election::Unclean => state.leader.is_some(),
    };
    let state = change.finish().filter(elected).ok_or(refusal)?;
    draft.push(MetadataRecord::PartitionSet { tp, state });
    Ok(())
}

/// What is due without anybody asking for it.
pub(super) fn sweep(draft: &mut Draft<'_>, elections: Elections) -> Outcome {
    let mut elected = 0;
    if elections.unclean {
        for tp in leaderless(draft) {
            elected += u32::from(elect_one(draft, Election::Unclean, tp).is_ok());
        }
    }
    if elections.preferred {
        for tp in displaced(draft) {
            if elected == RESTORED_PER_SWEEP {
                break;
            }
            elected += u32::from(elect_one(draft, Election::Preferred, tp).is_ok());
        }
    }
    Outcome::Sweep(elected)
}

/// Partitions that nobody leads and anybody may.
fn leaderless(draft: &Draft<'_>) -> Vec<TopicPartition> {
    let topics = draft.image.topics().filter(|topic| topic.partitions.iter().any(|state| state.leader.is_none()));
    topics
        .filter(|topic| draft.policy.unclean(&draft.image, &topic.name))
        .flat_map(|topic| topic.indexed().map(|(index, state)| (TopicPartition::new(topic.id, index), state)))
        .filter(|(_, state)| state.leader.is_none())
        .map(|(tp, _)| tp)
        .collect()
}

/// Partitions whose preferred leader does not lead, of brokers that miss more of them than the policy lets pass.
fn displaced(draft: &Draft<'_>) -> Vec<TopicPartition> {
    let mut brokers: BTreeMap<NodeId, (usize, Vec<TopicPartition>)> = BTreeMap::new();
    for topic in draft.image.topics() {
        for (index, state) in topic.indexed() {
            let Some(preferred) = state.replicas.first() else { continue };
            let (count, missing) = brokers.entry(*preferred).or_default();
            *count += 1;
            if state.leader != Some(*preferred) {
                missing.push(TopicPartition::new(topic.id, index));
            }
        }
    }
    let percent = draft.policy.leader_imbalance_percent;
    brokers
        .into_iter()
        .filter(|(id, _)| draft.image.broker(*id).is_some_and(|broker| broker.is_active()))
        .filter(|(_, (count, missing))| missing.len() * 100 > count * percent)
        .flat_map(|(_, (_, missing))| missing)
        .collect()
}

/// After `min.insync.replicas` changed for the topic `name`, or for all: if enough replicas are in sync now, more is
/// committed without those that were eligible.
pub(super) fn min_in_sync_changed(draft: &mut Draft<'_>, name: Option<&str>) {
    let partitions: Vec<TopicPartition> = draft
        .image
        .topics()
        .filter(|topic| name.is_none_or(|name| *topic.name == *name))
        .flat_map(|topic| topic.indexed().map(|(index, state)| (TopicPartition::new(topic.id, index), state)))
        .filter(|(_, state)| !state.elr.is_empty())
        .map(|(tp, _)| tp)
        .collect();
    for tp in partitions {
        draft.change_partition(tp, |_, _| {});
    }
}

pub(super) fn assign_directories(draft: &mut Draft<'_>, assign: &AssignDirectories) -> Result<Outcome, Refusal> {
    check_epoch(&draft.image, assign.broker, assign.broker_epoch)?;
    let answers = assign
        .places
        .iter()
        .map(|(tp, directory)| {
            let state = draft.image.partition(*tp).ok_or(Refusal::UnknownTopicId)?;
            if !state.replicas.contains(&assign.broker) {
                return Err(Refusal::InvalidRequest(format!("broker {} has no replica of {tp}", assign.broker)));
            }
            let online = draft.image.broker(assign.broker).is_some_and(|b| b.directories.contains(directory));
            if !online {
                return Err(Refusal::InvalidRequest(format!("{directory} is no directory of the broker")));
            }
            draft.change_partition(*tp, |change, _| change.places.push((assign.broker, *directory)));
            Ok(())
        })
        .collect();
    Ok(Outcome::AssignDirectories(answers))
}
