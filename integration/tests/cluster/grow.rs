//! A cluster that grows from three brokers to five and shrinks again, under load.

use crate::faults::APART;
use crate::stand::{FIRN, Stand, TOPIC, until};
use integration::calls::PartitionView;
use integration::cluster::{Roles, Shape};
use integration::process::Firn;
use proto::errors::ErrorCode;
use proto::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use proto::messages::{AlterPartitionReassignmentsRequest, UnregisterBrokerRequest};

const WIDE: &str = "wide";
/// With three partitions of the load, and three of the groups.
const ALL: [&str; 3] = [TOPIC, WIDE, "__consumer_offsets"];
const WIDE_PARTITIONS: i32 = 12;

fn replicas_of(partitions: &[PartitionView], id: i32) -> usize {
    partitions.iter().filter(|partition| partition.replicas.contains(&id)).count()
}

fn led_by(partitions: &[PartitionView], id: i32) -> usize {
    partitions.iter().filter(|partition| partition.leader == id).count()
}

/// Has `topic` moved off the brokers from `first` on.
async fn drain(stand: &Stand, topic: &str, first: i32) {
    until("a topic to be moved", async || {
        let partitions = stand.client().await.partitions(topic).await.ok()?;
        let mut moves = Vec::new();
        for (number, partition) in partitions.iter().enumerate() {
            if partition.replicas.iter().all(|id| *id < first) && partition.leader >= 0 {
                continue;
            }
            let mut replicas: Vec<i32> = partition.replicas.iter().copied().filter(|id| *id < first).collect();
            replicas.extend((0..first).filter(|id| !partition.replicas.contains(id)));
            replicas.truncate(3);
            let partition_index = i32::try_from(number).expect("small");
            moves.push(ReassignablePartition { partition_index, replicas: Some(replicas) });
        }
        if moves.is_empty() {
            return Some(());
        }
        let topics = vec![ReassignableTopic { name: topic.to_owned(), partitions: moves }];
        let request = AlterPartitionReassignmentsRequest { topics, ..Default::default() };
        let answer = stand.client().await.call(&request).await.ok()?;
        assert!(
            answer.responses.iter().flat_map(|topic| &topic.partitions).all(|partition| {
                ErrorCode::from_code(partition.error_code)
                    .is_some_and(|code| code == ErrorCode::None || code.is_retriable())
            }),
            "{answer:?}"
        );
        None
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_join_by_address_get_their_share_and_leave_again() {
    let mut stand = Stand::start(APART).await;
    stand.create_topic(WIDE, WIDE_PARTITIONS).await;
    for id in [3, 4] {
        stand.cluster.join(id).await.unwrap_or_else(|error| panic!("broker {id} does not join: {error}"));
        stand.goes_on(50).await;
    }
    // Of 18 partitions with three replicas each, five brokers lead three and hold ten each.
    until("the new brokers to have their share of replicas and leaders", async || {
        let mut client = stand.client().await;
        let mut all = Vec::new();
        for topic in ALL {
            all.extend(client.partitions(topic).await.ok()?);
        }
        let share = |id| replicas_of(&all, id) >= 8 && led_by(&all, id) >= 2;
        (share(3) && share(4)).then_some(())
    })
    .await;
    stand.in_sync(3, None).await;
    stand.goes_on(100).await;

    for topic in ALL {
        drain(&stand, topic, 3).await;
    }
    for id in [4, 3] {
        let status = stand.cluster.end(id).await.expect("it ends");
        assert!(status.success(), "{status}");
        until("a broker to be unregistered", async || {
            let answer = stand.client().await.call(&UnregisterBrokerRequest { broker_id: id }).await.ok()?;
            (ErrorCode::from_code(answer.error_code) == Some(ErrorCode::None)).then_some(())
        })
        .await;
        stand.cluster.forget(id);
        stand.goes_on(50).await;
    }
    stand.in_sync(3, None).await;
    stand.judge().await;
}

/// What a broker knows of a topic that is made now, through another.
async fn sees_new_topics(stand: &Stand, id: i32, topic: &str) {
    stand.create_topic(topic, 1).await;
    until("a new topic to be seen", async || {
        let known = stand.cluster.connect_to(id).await.ok()?.partitions(topic).await.ok()?;
        known.iter().all(|partition| partition.leader >= 0).then_some(())
    })
    .await;
}

/// Gives a vote, or takes one.
async fn vote(stand: &Stand, arguments: &[&str]) {
    let http = stand.cluster.http(1).expect("a node").to_owned();
    let all = [&["cluster", "voter"][..], arguments, &["--admin", &http]].concat();
    let finished = Firn::new(FIRN, &stand.cluster.home().join("log"), &all).finish().await.expect("it ends");
    assert!(finished.status.success(), "{arguments:?}: {}", finished.stderr);
}

async fn voters(stand: &Stand) -> Vec<i32> {
    until("the quorum to be described", async || stand.client().await.voters().await.ok()).await
}

/// A node that is a controller, too, serves clients whether it votes or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_combined_node_serves_without_a_vote() {
    let mut stand = Stand::start(Shape::Combined(3)).await;
    // One that was never added, and restarts.
    stand.cluster.join_as(3, Roles::Both).await.unwrap_or_else(|error| panic!("node 3 does not join: {error}"));
    sees_new_topics(&stand, 3, "before-it-votes").await;
    stand.cluster.end(3).await.expect("it runs");
    stand.cluster.restart(3).await.unwrap_or_else(|error| panic!("node 3 does not come back: {error}"));
    sees_new_topics(&stand, 3, "after-a-restart").await;

    let address = stand.cluster.control_of(3).expect("a node").to_owned();
    vote(&stand, &["add", "3", &address]).await;
    assert_eq!(voters(&stand).await, [0, 1, 2, 3]);
    stand.goes_on(50).await;

    // Followers, and whoever leads the quorum.
    let (leader, _) = stand.controller_but(&[]).await;
    for (round, removed) in [leader, 3].into_iter().filter(|id| *id != 1).enumerate() {
        if !voters(&stand).await.contains(&removed) {
            continue;
        }
        vote(&stand, &["remove", &removed.to_string()]).await;
        assert!(!voters(&stand).await.contains(&removed));
        stand.goes_on(50).await;
        sees_new_topics(&stand, removed, &format!("removed-{round}")).await;
        // What it learns does not depend on who led when it was removed.
        let (leader, _) = stand.controller_but(&[]).await;
        if leader != removed && voters(&stand).await.len() >= 3 {
            stand.cluster.end(leader).await.expect("it runs");
            sees_new_topics(&stand, removed, &format!("later-{round}")).await;
            stand.cluster.restart(leader).await.unwrap_or_else(|error| panic!("{leader} does not come back: {error}"));
        }
        stand.cluster.end(removed).await.expect("it runs");
        stand.cluster.restart(removed).await.unwrap_or_else(|error| panic!("{removed} does not come back: {error}"));
        sees_new_topics(&stand, removed, &format!("back-{round}")).await;
        stand.in_sync(3, Some(removed)).await;
    }
    stand.judge().await;
}
