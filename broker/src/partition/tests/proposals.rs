//! Proposals of who is in sync reach the controller together, one command at a time, until their outcome is known.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use proto::host::Spawner;
use proto::ids::{NodeId, TopicPartition};
use tokio::runtime::Handle;

use super::world::*;
use crate::partition::core::{IsrProposal, IsrRefused};
use crate::partition::isr::IsrAuthority;
use crate::partition::*;

const OTHER: NodeId = NodeId(1);

type Asked = Vec<(TopicPartition, IsrProposal)>;

/// Answers what it was given, then that all is done.
#[derive(Default)]
struct Scripted {
    asked: Mutex<Vec<Asked>>,
    answers: Mutex<VecDeque<Vec<Result<(), IsrRefused>>>>,
}

#[async_trait]
impl IsrAuthority for Scripted {
    async fn alter(&self, changes: &[(TopicPartition, IsrProposal)]) -> Vec<Result<(), IsrRefused>> {
        self.asked.lock().push(changes.to_vec());
        // Long enough for others to gather.
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.answers.lock().pop_front().unwrap_or_else(|| vec![Ok(()); changes.len()])
    }
}

/// A partition that this broker leads alone in sync; the other replica has caught up.
async fn with_one_to_join(world: &World, index: i32) -> PartitionHandle {
    let handle = world.lead(index, local()).await;
    handle.lead(Leadership::of(NODE, 1, &[NODE], &[NODE, OTHER]));
    catch_up(&handle);
    handle
}

fn catch_up(handle: &PartitionHandle) {
    let fetch = ReplicaFetch {
        replica: OTHER,
        broker_epoch: 1,
        leader_epoch: Some(1),
        last_fetched_epoch: None,
        offset: 0,
        log_start: 0,
    };
    handle.replica_fetched(fetch).expect("led here");
}

#[tokio::test(start_paused = true)]
async fn what_is_proposed_at_about_the_same_time_is_one_command() {
    let world = World::new(41).await;
    let authority = Arc::new(Scripted::default());
    let early = with_one_to_join(&world, 0).await;
    world.partitions.propose_to(Arc::<Scripted>::clone(&authority), &Spawner::single(Handle::current()));
    with_one_to_join(&world, 1).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    // The first command is under way.
    with_one_to_join(&world, 3).await;
    with_one_to_join(&world, 2).await;
    catch_up(&early);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = authority.asked.lock();
    let partitions: Vec<Vec<i32>> = asked.iter().map(|one| one.iter().map(|(tp, _)| tp.partition).collect()).collect();
    assert_eq!(partitions, [vec![0, 1], vec![2, 3]]);
    let proposal =
        IsrProposal { leader_epoch: 1, partition_epoch: 0, isr: vec![(NODE, 1), (OTHER, 1)], recovered: false };
    assert!(asked.iter().flatten().all(|(_, asked)| *asked == proposal));
}

#[tokio::test(start_paused = true)]
async fn what_has_no_known_outcome_is_asked_again_as_it_is() {
    let world = World::new(42).await;
    let authority = Arc::new(Scripted::default());
    // Of the third partition nothing is said at all.
    authority.answers.lock().push_back(vec![Err(IsrRefused::Unknown), Err(IsrRefused::Outdated)]);
    authority.answers.lock().push_back(vec![Ok(()), Err(IsrRefused::Unknown)]);
    for index in 0..3 {
        with_one_to_join(&world, index).await;
    }
    world.partitions.propose_to(Arc::<Scripted>::clone(&authority), &Spawner::single(Handle::current()));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let asked = authority.asked.lock();
    let partitions: Vec<Vec<i32>> = asked.iter().map(|one| one.iter().map(|(tp, _)| tp.partition).collect()).collect();
    assert_eq!(partitions, [vec![0, 1, 2], vec![0, 2], vec![2]]);
    assert!(asked.iter().flatten().all(|(_, one)| *one == asked[0][0].1));
}
