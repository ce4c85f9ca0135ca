//! Brokers: registered, fenced, in service, on their way out.
//!
//! A new incarnation of a broker is fenced first, and every partition it led gets a new leader epoch
//! even if the same broker leads it again: what the old incarnation still sends is told apart.

use proto::ids::NodeId;
use proto::metadata::{Broker, Image, MetadataRecord};

use super::Draft;
use super::partitions::{Incarnation, bring_in, move_away};
use crate::command::{BrokerState, Outcome, Refusal, RegisterBroker, SetBrokerState};

/// Refuses a broker that is not registered with that epoch.
pub(super) fn check_epoch(image: &Image, id: NodeId, epoch: i64) -> Result<(), Refusal> {
    let broker = image.broker(id).ok_or(Refusal::BrokerNotRegistered(id))?;
    if broker.epoch == epoch { Ok(()) } else { Err(Refusal::StaleBrokerEpoch { asked: epoch, current: broker.epoch }) }
}

pub(super) fn register(draft: &mut Draft, register: &RegisterBroker) -> Outcome {
    if let Some(broker) = draft.image.broker(register.id)
        && broker.incarnation == register.incarnation
    {
        return Outcome::RegisterBroker(broker.epoch);
    }
    // The offset of its registration: greater than that of any incarnation before it.
    let epoch = i64::try_from(draft.image.offset()).unwrap_or(i64::MAX);
    draft.push(MetadataRecord::BrokerSet(Broker {
        id: register.id,
        epoch,
        incarnation: register.incarnation,
        endpoints: register.endpoints.clone(),
        rack: register.rack.clone(),
        directories: register.directories.clone(),
        fenced: !register.ready,
        shutting_down: false,
        features: Vec::new(),
        draining: false,
    }));
    move_away(draft, register.id, Incarnation::New);
    if register.ready {
        bring_in(draft, register.id);
    }
    Outcome::RegisterBroker(epoch)
}

pub(super) fn set_state(draft: &mut Draft, change: &SetBrokerState) -> Result<Outcome, Refusal> {
    check_epoch(&draft.image, change.id, change.broker_epoch)?;
    let old = draft.image.broker(change.id).ok_or(Refusal::BrokerNotRegistered(change.id))?;
    let mut new = Broker::clone(old);
    (new.fenced, new.shutting_down) = match change.state {
        BrokerState::Active => (false, false),
        BrokerState::ShuttingDown => (false, true),
        BrokerState::Fenced => (true, false),
    };
    if let Some(directories) = &change.directories {
        new.directories.clone_from(directories);
    }
    if new == **old {
        return Ok(Outcome::SetBrokerState);
    }
    draft.push(MetadataRecord::BrokerSet(new));
    move_away(draft, change.id, Incarnation::Same);
    bring_in(draft, change.id);
    Ok(Outcome::SetBrokerState)
}
