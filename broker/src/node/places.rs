//! Where the replicas of this broker lie, for the quorum (KIP-858): it goes by that when a directory fails, or when a disk was replaced.
//!
//! The image says where a replica was put; after its disk was replaced it says nothing any more, and the new log lies where it was made.
//! Before the image says so, too, such a replica does not follow, and so does not come in sync: if the disk were replaced once more, nobody
//! would know that it lost what was counted on.

use crate::api::partitions::directory_of;
use crate::api::services::Services;
use crate::partition::PartitionHandle;
use controller::command::AssignDirectories;
use proto::ids::{DirectoryId, NodeId, TopicPartition};
use proto::metadata::PartitionState;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Pause before what could not be reported, or is not in the image yet, is reported again.
const AGAIN: Duration = Duration::from_secs(1);
/// How many places one command reports: what one raft entry has to carry has a bound.
const AT_ONCE: usize = 1000;

/// Replicas that lie elsewhere than the image says, and where.
pub(super) type Misplaced = BTreeMap<TopicPartition, DirectoryId>;

/// Where a replica of the broker `node` lies, if the image says something else.
pub(super) fn misplaced(node: NodeId, state: &PartitionState, handle: &PartitionHandle) -> Option<DirectoryId> {
    let lies = handle.dir().id();
    directory_of(node, state).filter(|directory| *directory != lies).map(|_| lies)
}

/// Reports whatever is misplaced until the image has it, or `stop` is cancelled.
pub(super) async fn report(
    services: Arc<Services>,
    mut misplaced: watch::Receiver<Misplaced>,
    stop: CancellationToken,
) {
    loop {
        let places: Vec<_> = misplaced.borrow_and_update().iter().map(|(tp, directory)| (*tp, *directory)).collect();
        for places in places.chunks(AT_ONCE) {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = assign(&services, places.to_vec()) => {}
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = misplaced.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGAIN), if !places.is_empty() => {}
        }
    }
}

async fn assign(services: &Services, places: Vec<(TopicPartition, DirectoryId)>) {
    let named: Vec<TopicPartition> = places.iter().map(|(tp, _)| *tp).collect();
    let assign = AssignDirectories { broker: services.node_id, broker_epoch: services.broker_epoch, places };
    match services.controller.assign_directories(assign).await {
        Ok(answers) => {
            for (tp, refusal) in named.iter().zip(answers).filter_map(|(tp, answer)| Some((tp, answer.err()?))) {
                tracing::debug!(%tp, %refusal, "the quorum does not take where a replica lies");
            }
        }
        Err(error) => tracing::warn!(%error, "the quorum does not know yet where some replicas lie"),
    }
}
