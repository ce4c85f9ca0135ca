//! A cluster that grows from three brokers to five and shrinks again, under load.

use crate::faults::APART;
use crate::stand::{Stand, TOPIC, until};
use integration::calls::PartitionView;
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
