//! Networks that are cut: between a node and all others, in one direction or both, with clients on either side.

use crate::faults::APART;
use crate::stand::{PARTITIONS, Stand};
use integration::cluster::{Cut, Lan};

/// Set where networks can be made, so that nobody takes skipped tests for passed ones.
const NEEDS_NETNS: &str = "FIRN_TEST_NEEDS_NETNS";

/// A network, where that is allowed.
fn lan() -> Option<Lan> {
    match Lan::new() {
        Ok(lan) => Some(lan),
        Err(error) => {
            assert!(
                std::env::var_os(NEEDS_NETNS).is_none(),
                "{NEEDS_NETNS} is set, and no network can be made: {error}"
            );
            println!("SKIPPED: networks need root, ip and nft: {error}");
            None
        }
    }
}

fn others(stand: &Stand, id: i32) -> Vec<i32> {
    let all = stand.cluster.controllers().into_iter().chain(stand.cluster.brokers());
    all.filter(|other| *other != id).collect()
}

async fn cut(stand: &Stand, id: i32, from: &[i32], what: Cut) {
    println!("node {id}: {what:?} between it and {from:?}");
    stand.cluster.lan().expect("a network").cut(id, from, what).expect("cut");
}

async fn heal(stand: &Stand, id: i32) {
    stand.cluster.lan().expect("a network").heal(id).expect("healed");
}

/// Clients still reach it, and it tells them nothing that does not hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_from_all_nodes_is_replaced() {
    let Some(lan) = lan() else { return };
    let stand = Stand::start_with(APART, Some(lan), |_| {}).await;
    for (round, what) in [Cut::Both, Cut::Out, Cut::In].into_iter().enumerate() {
        let partition = i32::try_from(round).expect("small") % PARTITIONS;
        let leader = stand.leader(partition).await;
        cut(&stand, leader, &others(&stand, leader), what).await;
        stand.leader_but(partition, &[leader]).await;
        stand.goes_on(100).await;
        heal(&stand, leader).await;
        stand.in_sync(3, Some(leader)).await;
        stand.goes_on(50).await;
    }
    stand.judge().await;
}

/// Replication goes on, and yet it must not lead: nobody could tell it when it does no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_from_the_quorum_only_is_replaced() {
    let Some(lan) = lan() else { return };
    let stand = Stand::start_with(APART, Some(lan), |_| {}).await;
    for (round, what) in [Cut::Both, Cut::Out, Cut::In].into_iter().enumerate() {
        let partition = i32::try_from(round).expect("small") % PARTITIONS;
        let leader = stand.leader(partition).await;
        cut(&stand, leader, &stand.cluster.controllers(), what).await;
        stand.leader_but(partition, &[leader]).await;
        stand.goes_on(100).await;
        heal(&stand, leader).await;
        stand.in_sync(3, Some(leader)).await;
    }
    stand.judge().await;
}

/// The controllers hear of both, so both stay in service; the follower leaves the in-sync replicas and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_cut_off_from_its_leader_only_does_not_hold_it_up() {
    let Some(lan) = lan() else { return };
    let faster = |plan: &mut integration::cluster::Plan| {
        plan.settings.push(("replica.lag.time.max.ms".to_owned(), "3000".to_owned()));
    };
    let stand = Stand::start_with(APART, Some(lan), faster).await;
    for what in [Cut::Both, Cut::In] {
        let brokers = stand.cluster.brokers();
        let leader = stand.leader(0).await;
        let follower = *brokers.iter().find(|id| **id != leader).expect("three brokers");
        cut(&stand, follower, &[leader], what).await;
        stand.goes_on(100).await;
        heal(&stand, follower).await;
        stand.in_sync(3, Some(follower)).await;
    }
    stand.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_active_controller_that_is_cut_off_is_replaced_and_yields() {
    let Some(lan) = lan() else { return };
    let stand = Stand::start_with(APART, Some(lan), |_| {}).await;
    for what in [Cut::Both, Cut::Out, Cut::In] {
        let (active, epoch) = stand.controller_but(&[]).await;
        cut(&stand, active, &others(&stand, active), what).await;
        let (_, later) = stand.controller_but(&[active]).await;
        assert!(later > epoch, "epoch {later} after {epoch}");
        stand.create_topic(&format!("during-{what:?}"), 2).await;
        stand.goes_on(50).await;
        heal(&stand, active).await;
        stand.in_sync(3, None).await;
    }
    stand.judge().await;
}
