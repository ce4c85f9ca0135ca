//! Brokers: registered, fenced, in service, on their way out, gone.
//!
//! A new process of a broker is fenced first, and every partition it led gets a new leader epoch even if the same broker
//! leads it again: what the old process still sends is told apart. The only broker of a cluster is taken into service as
//! it registers: there is nobody who could lead instead of it.

use proto::ids::NodeId;
use proto::metadata::{Broker, ConfigResource, Endpoint, FEATURE, Image, MetadataRecord, Share};
use proto::planted::{Bug, planted};

use super::Draft;
use super::partitions::{Arrival, broker_changed, min_in_sync_changed};
use crate::command::{BrokerState, Clean, Outcome, Refusal, RegisterBroker, SetBrokerState};

/// Refuses a broker that is not registered with that epoch.
pub(super) fn check_epoch(image: &Image, id: NodeId, epoch: i64) -> Result<(), Refusal> {
    let broker = image.broker(id).ok_or(Refusal::BrokerNotRegistered(id))?;
    if broker.epoch == epoch || planted(Bug::ZombieNotFenced) {
        Ok(())
    } else {
        Err(Refusal::StaleBrokerEpoch { asked: epoch, current: broker.epoch })
    }
}

pub(super) fn register(draft: &mut Draft<'_>, register: &RegisterBroker) -> Result<Outcome, Refusal> {
    let old = draft.image.broker(register.id).cloned();
    if let Some(broker) = &old {
        if broker.incarnation == register.incarnation {
            return Ok(Outcome::RegisterBroker(broker.epoch));
        }
        check_successor(broker, register)?;
    }
    let alone = draft.image.brokers().all(|broker| broker.id == register.id);
    check_features(draft, register, alone)?;
    if !alone {
        settle(draft);
    }
    // The offset of its registration: greater than that of any process before it.
    let epoch = i64::try_from(draft.image.offset()).unwrap_or(i64::MAX);
    draft.push(MetadataRecord::BrokerSet(Broker {
        id: register.id,
        epoch,
        incarnation: register.incarnation,
        endpoints: register.endpoints.clone(),
        rack: register.rack.clone(),
        directories: register.directories.clone(),
        fenced: !alone,
        shutting_down: false,
        features: register.features.clone(),
        share: old.map_or_else(|| share_of_newcomer(&draft.image), |broker| broker.share),
    }));
    let arrival = Arrival { all_online: register.offline_directories == 0, power_lost: register.clean == Clean::No };
    broker_changed(draft, register.id, Some(arrival));
    Ok(Outcome::RegisterBroker(epoch))
}

/// From its second broker on, a cluster has one value of what leaders promise by and the controller elects by, whatever the files of its
/// nodes say.
fn settle(draft: &mut Draft<'_>) {
    let resource = ConfigResource::all_brokers();
    for (key, value) in draft.policy.for_all() {
        let is_set = draft.image.configs(&resource).is_some_and(|set| set.contains_key(key));
        if !is_set {
            draft.push(MetadataRecord::ConfigSet {
                resource: resource.clone(),
                key: key.to_owned(),
                value: Some(value),
            });
        }
    }
    // A controller before this one may have gone by another file.
    min_in_sync_changed(draft, None);
}

/// Refuses a second process under the id of one that runs. A directory is open in one process at a time: whoever has one of
/// the old process's directories comes after it. Without one it has to wait until the old process is known to be
/// gone, that is, fenced.
fn check_successor(old: &Broker, register: &RegisterBroker) -> Result<(), Refusal> {
    let on_its_disks =
        old.directories.is_empty() || register.directories.iter().any(|directory| old.directories.contains(directory));
    // Two disks with one id are copies: the one with the newest registration on it counts.
    let original = register.previous_epoch.is_none_or(|epoch| epoch == old.epoch);
    if old.fenced || (on_its_disks && original) {
        return Ok(());
    }
    let address = old.endpoints.first().map(Endpoint::address);
    Err(Refusal::DuplicateBroker { id: register.id, address })
}

/// Refuses a process that does not understand what the cluster has settled on. The only broker settles for it.
fn check_features(draft: &mut Draft<'_>, register: &RegisterBroker, alone: bool) -> Result<(), Refusal> {
    let range = register.features.iter().find(|range| range.name == FEATURE);
    let level = draft.image.level();
    if let Some(range) = range.filter(|range| alone && range.min <= range.max) {
        // One that does not say will be told by the cluster when it comes.
        let best = range.max.min(draft.policy.controllers.newest());
        if best > level {
            draft.push(MetadataRecord::FeatureSet { name: FEATURE.to_owned(), level: best });
            return Ok(());
        }
    }
    let (min, max) = range.map_or((0, 0), |range| (range.min, range.max));
    if (min..=max).contains(&level) {
        return Ok(());
    }
    Err(Refusal::UnsupportedVersion(format!(
        "broker {} understands levels {min} to {max} of the feature {FEATURE}, the cluster is at {level}",
        register.id
    )))
}

pub(super) fn set_state(draft: &mut Draft<'_>, change: &SetBrokerState) -> Result<Outcome, Refusal> {
    check_epoch(&draft.image, change.id, change.broker_epoch)?;
    let old = draft.image.broker(change.id).ok_or(Refusal::BrokerNotRegistered(change.id))?;
    let mut new = Broker::clone(old);
    (new.fenced, new.shutting_down) = match change.state {
        BrokerState::Active => (false, false),
        BrokerState::ShuttingDown => (old.fenced, true),
        BrokerState::Fenced => (true, old.shutting_down),
    };
    if let Some(directories) = &change.directories {
        new.directories.clone_from(directories);
    }
    if new != **old {
        draft.push(MetadataRecord::BrokerSet(new));
        broker_changed(draft, change.id, None);
    }
    Ok(Outcome::SetBrokerState)
}

pub(super) fn unregister(draft: &mut Draft<'_>, id: NodeId) -> Result<Outcome, Refusal> {
    if draft.image.broker(id).is_none() {
        return Err(Refusal::BrokerNotRegistered(id));
    }
    draft.push(MetadataRecord::BrokerRemoved { id });
    broker_changed(draft, id, None);
    Ok(Outcome::UnregisterBroker)
}

/// One that comes when there is nothing to share yet gets its part as topics are made.
fn share_of_newcomer(image: &Image) -> Share {
    if image.partition_count() > 0 { Share::Filled } else { Share::Kept }
}

pub(super) fn set_share(draft: &mut Draft<'_>, id: NodeId, share: Share) -> Result<Outcome, Refusal> {
    let old = draft.image.broker(id).ok_or(Refusal::BrokerNotRegistered(id))?;
    if old.share != share {
        draft.needs_level(1)?;
        if share == Share::Drained {
            check_others_can_take(&draft.image, id)?;
        }
        let broker = Broker { share, ..Broker::clone(old) };
        draft.push(MetadataRecord::BrokerSet(broker));
    }
    Ok(Outcome::SetShare)
}

/// Refuses to empty a broker if not all replicas of those that leave could be elsewhere then.
fn check_others_can_take(image: &Image, id: NodeId) -> Result<(), Refusal> {
    let leaving: Vec<NodeId> =
        image.brokers().filter(|broker| broker.id == id || broker.is_draining()).map(|broker| broker.id).collect();
    let receivers: Vec<NodeId> = image
        .brokers()
        .filter(|broker| broker.is_active() && !leaving.contains(&broker.id))
        .map(|broker| broker.id)
        .collect();
    for tp in leaving.iter().flat_map(|id| image.replicas_of(*id)) {
        let Some(state) = image.partition(tp) else { continue };
        let target: Vec<NodeId> = state.replicas.iter().copied().filter(|id| !state.removing.contains(id)).collect();
        let homeless = target.iter().filter(|id| leaving.contains(id)).count();
        let free = receivers.iter().filter(|id| !target.contains(id)).count();
        if free < homeless {
            let topic = image.topic(tp.topic).map_or("", |topic| &*topic.name);
            return Err(Refusal::InvalidReplicationFactor(format!(
                "Broker {id} cannot be emptied: {topic}-{} has {} replica(s), and without it there are only {} broker(s) in \
                 service to hold them.",
                tp.partition,
                target.len(),
                receivers.len()
            )));
        }
    }
    Ok(())
}
