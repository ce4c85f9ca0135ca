//! Fetching from the nearest replica (KIP-392): the leader names a replica in the consumer's own rack, and that one serves it what it knows to be
//! committed.
//!
//! Only a consumer that says its rack is served by a follower. One that does not, and asks a follower, has not heard who leads: it is told.

use super::super::services::Services;
use super::engine::Target;
use crate::partition::{PartitionHandle, ReplicaInfo, ReplicaView};
use proto::errors::ErrorCode;
use proto::ids::{NodeId, Offset};

/// Where a consumer asks from.
#[derive(Clone, Debug)]
pub(super) struct Near {
    /// Its rack.
    pub rack: String,
    /// Whether leaders send consumers to the nearest replica (`replica.selector.class`).
    pub selects: bool,
}

impl Near {
    /// Sees to a partition before it is read: names a nearer replica, or refuses where this one may be far behind.
    pub(super) fn look(&self, services: &Services, target: &mut Target) {
        let Ok(partition) = &target.partition else { return };
        match target.leader() {
            Some(leader) if leader == services.node_id => {
                if self.selects {
                    target.preferred = preferred_of(partition, leader, &self.rack, target.wanted.offset);
                }
            }
            // What is not in sync may know nothing of what was committed for long. Back to the leader.
            Some(_) | None => {
                if !target.in_sync {
                    target.partition = Err(ErrorCode::NotLeaderOrFollower);
                }
            }
        }
    }
}

fn preferred_of(partition: &PartitionHandle, leader: NodeId, rack: &str, offset: Offset) -> Option<NodeId> {
    let leadership = partition.leadership();
    preferred(leader, rack, offset, &leadership.replicas, &partition.replicas())
}

/// Whom a consumer in `rack` should read `offset` from rather than from the leader: of the replicas there that are in sync and have it, the
/// one that has most. Nobody, if the leader is there itself.
fn preferred(
    leader: NodeId,
    rack: &str,
    offset: Offset,
    replicas: &[ReplicaInfo],
    views: &[ReplicaView],
) -> Option<NodeId> {
    let there =
        |id: NodeId| replicas.iter().any(|info| info.id == id && info.eligible && info.rack.as_deref() == Some(rack));
    if there(leader) {
        return None;
    }
    let has = |view: &&ReplicaView| {
        view.in_sync
            && view.synced_end.is_some_and(|end| end >= offset)
            && view.log_start.is_some_and(|start| start <= offset)
    };
    let best = views.iter().filter(|view| view.id != leader && there(view.id)).filter(has);
    // Of equals the one that lags least, and then the first by id: all consumers agree.
    best.max_by_key(|view| (view.synced_end, std::cmp::Reverse((view.lag_ms, view.id)))).map(|view| view.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(id: i32, rack: &str) -> ReplicaInfo {
        ReplicaInfo { id: NodeId(id), broker_epoch: 1, eligible: true, rack: Some(rack.into()) }
    }

    fn view(id: i32, end: Offset) -> ReplicaView {
        ReplicaView { id: NodeId(id), in_sync: true, synced_end: Some(end), log_start: Some(0), lag_ms: Some(0) }
    }

    fn choose(rack: &str, offset: Offset, replicas: &[ReplicaInfo], views: &[ReplicaView]) -> Option<i32> {
        preferred(NodeId(0), rack, offset, replicas, views).map(|id| id.0)
    }

    #[test]
    fn the_one_that_has_most_in_the_same_rack_is_named() {
        let replicas = [info(0, "a"), info(1, "b"), info(2, "b"), info(3, "c")];
        let views = [view(0, 50), view(1, 40), view(2, 45), view(3, 50)];
        assert_eq!(choose("b", 10, &replicas, &views), Some(2));
        assert_eq!(choose("c", 10, &replicas, &views), Some(3));
        assert_eq!(choose("a", 10, &replicas, &views), None, "the leader is there");
        assert_eq!(choose("d", 10, &replicas, &views), None, "nobody is");
        let equal = [view(0, 50), view(1, 45), view(2, 45), view(3, 50)];
        assert_eq!(choose("b", 10, &replicas, &equal), Some(1));
    }

    #[test]
    fn who_lacks_the_offset_or_is_not_in_sync_is_not_named() {
        let replicas = [info(0, "a"), info(1, "b")];
        let named = |view: ReplicaView| choose("b", 10, &replicas, &[view]);
        assert_eq!(named(view(1, 10)), Some(1), "at its end it can wait as well");
        assert_eq!(named(view(1, 9)), None);
        assert_eq!(named(ReplicaView { log_start: Some(11), ..view(1, 20) }), None);
        assert_eq!(named(ReplicaView { in_sync: false, ..view(1, 20) }), None);
        assert_eq!(named(ReplicaView { synced_end: None, log_start: None, lag_ms: None, ..view(1, 20) }), None);
        let fenced = [info(0, "a"), ReplicaInfo { eligible: false, ..info(1, "b") }];
        assert_eq!(choose("b", 10, &fenced, &[view(1, 20)]), None);
    }
}
