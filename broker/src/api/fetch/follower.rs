//! Fetches of replicas: who asks, what that tells of it, and how long it waits.
//!
//! A follower asks from the end of what is durable there. That is told to the partition before anything is read, once for each request, as
//! it is what moves the high watermark. It sees all there is, committed or not, and nothing of the remote tier: what only that has is
//! had from there (KIP-405).

use super::super::errors::read_code;
use super::super::services::Services;
use super::engine::{Limits, Target};
use crate::partition::ReplicaFetch;
use crate::partition::types::{Isolation, Reader};
use crate::partition::waiters::FetchWaiter;
use proto::errors::ErrorCode;
use proto::ids::{LeaderEpoch, NodeId, TopicPartition};
use proto::messages::FetchRequest;
use std::time::Duration;
use tokio::time::Instant;

/// A follower that has all records is told of a high watermark that moved after this, unless records come first: as a rule the next ones are
/// close, and an answer of its own would double the requests.
const WATERMARK_PATIENCE: Duration = Duration::from_millis(10);

/// A broker that fetches as a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Follower {
    /// Which.
    pub id: NodeId,
    /// Epoch of its registration, -1 if it does not say (KIP-903).
    pub broker_epoch: i64,
}

impl Follower {
    /// Who asks, if it is a replica.
    pub(super) fn of(request: &FetchRequest) -> Option<Follower> {
        let state = &request.replica_state;
        let (id, broker_epoch) = match request.replica_id {
            id if id >= 0 => (id, -1),
            _ => (state.replica_id, state.replica_epoch),
        };
        (id >= 0).then_some(Follower { id: NodeId(id), broker_epoch })
    }

    /// Whether it may ask at all: an incarnation that the image knows to be over may not, nor who it says was never there.
    pub(super) fn check(&self, services: &Services) -> Result<(), ErrorCode> {
        if self.id == services.node_id {
            return Err(ErrorCode::InvalidRequest);
        }
        let image = services.controller.image();
        match image.broker(self.id) {
            Some(broker) if self.broker_epoch >= 0 && self.broker_epoch < broker.epoch => {
                Err(ErrorCode::StaleBrokerEpoch)
            }
            Some(_) => Ok(()),
            // It may have registered a moment ago.
            None => Err(ErrorCode::BrokerIdNotRegistered),
        }
    }

    /// What bounds its fetch.
    pub(super) fn limits(&self, request: &FetchRequest, broker_max_bytes: usize) -> Limits {
        Limits {
            isolation: Isolation::LogEnd,
            reader: Reader::Follower(self.id),
            ..Limits::of(request, broker_max_bytes)
        }
    }

    /// Tells the partition how far its replica has come. One that must not ask is not read.
    pub(super) fn fetched(&self, services: &Services, target: &mut Target) {
        let Ok(partition) = &target.partition else { return };
        target.held_up = self.is_held_up(services, partition.tp());
        let known = |epoch: LeaderEpoch| (epoch >= 0).then_some(epoch);
        let fetch = ReplicaFetch {
            replica: self.id,
            broker_epoch: self.broker_epoch,
            leader_epoch: known(target.wanted.current_leader_epoch),
            last_fetched_epoch: known(target.wanted.last_fetched_epoch),
            offset: target.wanted.offset,
            log_start: target.wanted.log_start,
        };
        if let Err(error) = partition.replica_fetched(fetch) {
            target.partition = Err(read_code(&error));
        }
    }
}

impl Follower {
    /// Whether it has had its share for now. One that is in sync is not held up: that would hold up acknowledgements.
    fn is_held_up(&self, services: &Services, tp: TopicPartition) -> bool {
        let in_sync = || {
            let image = services.controller.image();
            image.partition(tp).is_some_and(|state| state.isr.contains(&self.id))
        };
        let replication = &services.replication;
        replication.is_slowed(tp) && !replication.may_serve() && !in_sync()
    }
}

/// Waits for records, for a high watermark that the follower does not know, or for the deadline; answers whether to go on waiting then.
pub(super) async fn wait(waiter: &FetchWaiter, targets: &[Target], deadline: Instant) -> bool {
    // It is looked up after the subscription: what moves from here on is told.
    let lags = targets.iter().any(Target::lags);
    let soon = || deadline.min(Instant::now() + WATERMARK_PATIENCE);
    let mut until = if lags { soon() } else { deadline };
    if !lags {
        tokio::select! {
            biased;
            () = waiter.wait() => return true,
            () = waiter.watermark_moved() => until = soon(),
            () = tokio::time::sleep_until(deadline) => return true,
        }
    }
    tokio::time::timeout_at(until, waiter.wait()).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::messages::fetch_request::ReplicaState;

    #[test]
    fn replicas_are_told_from_consumers_in_every_version() {
        let consumer = FetchRequest::default();
        assert_eq!(Follower::of(&consumer), None);
        let old = FetchRequest { replica_id: 3, ..FetchRequest::default() };
        assert_eq!(Follower::of(&old), Some(Follower { id: NodeId(3), broker_epoch: -1 }));
        let state = ReplicaState { replica_id: 3, replica_epoch: 8 };
        let new = FetchRequest { replica_state: state, ..FetchRequest::default() };
        assert_eq!(Follower::of(&new), Some(Follower { id: NodeId(3), broker_epoch: 8 }));
        // Kafka's tools read as "debugging consumer", -2.
        let debugging = FetchRequest { replica_id: -2, ..FetchRequest::default() };
        assert_eq!(Follower::of(&debugging), None);
    }
}
