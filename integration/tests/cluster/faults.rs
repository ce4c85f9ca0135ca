//! Processes that die, stand still, end in order and come back.

use crate::stand::{PARTITIONS, PATIENCE, Stand, TOPIC, rounds, until};
use integration::calls::{ACKS_ALL, PRODUCE_BY_NAME, produce_request, produced};
use integration::cluster::{Blow, Shape};
use proto::errors::ErrorCode;
use proto::messages::ProduceRequest;
use proto::records::BatchBuilder;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Three brokers, three controllers.
pub(crate) const APART: Shape = Shape::Apart { controllers: 3, brokers: 3 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_leaders_loses_nothing_that_was_acknowledged() {
    let mut stand = Stand::start(APART).await;
    for round in 0..rounds() {
        let leader = stand.leader(round % PARTITIONS).await;
        stand.cluster.kill(leader).await.expect("it runs");
        stand.leader_but(round % PARTITIONS, &[leader]).await;
        stand.goes_on(100).await;
        stand.cluster.restart(leader).await.unwrap_or_else(|error| panic!("node {leader} does not start: {error}"));
        stand.in_sync(3, Some(leader)).await;
        stand.goes_on(100).await;
    }
    stand.judge().await;
}

/// All at once, as a power cut does that leaves the disks well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_killed_whole_comes_back_with_everything() {
    let mut stand = Stand::start(Shape::Combined(3)).await;
    for _ in 0..rounds() {
        for id in stand.cluster.brokers() {
            stand.cluster.strike(id, Blow::Kill).expect("it runs");
        }
        for id in stand.cluster.brokers() {
            stand.cluster.kill(id).await.expect("it ran");
        }
        stand.cluster.start_all().await.unwrap_or_else(|error| panic!("a node does not start: {error}"));
        stand.goes_on(100).await;
    }
    stand.in_sync(3, None).await;
    stand.judge().await;
}

/// A process that stood still believes that it leads, until it hears otherwise: it acknowledges nothing in that belief.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stood_still_acknowledges_nothing() {
    let stand = Stand::start(APART).await;
    for round in 0..rounds() {
        let partition = round % PARTITIONS;
        let leader = stand.leader(partition).await;
        let mut zombie = stand.cluster.connect_to(leader).await.expect("it serves");
        // Asked while it stands still: the first thing that it sees when it goes on.
        stand.cluster.strike(leader, Blow::Stop).expect("it runs");
        let value = stand.book.value();
        let mut batch = BatchBuilder::new();
        batch.append(0, None, Some(&value.to_be_bytes()), &[]);
        let mut request = produce_request(TOPIC, partition, ACKS_ALL, batch.build());
        request.timeout_ms = 5_000;
        let place = Stand::places()[usize::try_from(partition).expect("small")].clone();
        let (acks, client) = (integration::history::Acks::All, format!("zombie-{round}"));
        let sent = integration::history::Event::Send {
            place: place.clone(),
            value,
            acks,
            idempotent: false,
            transaction: None,
        };
        stand.book.add(&client, sent);
        let other = stand.leader_but(partition, &[leader]).await;
        stand.goes_on(100).await;
        zombie.send(&request, PRODUCE_BY_NAME).await.expect("its connection is open");
        stand.cluster.strike(leader, Blow::Continue).expect("it stands still");
        let answer = timeout(PATIENCE, zombie.receive::<ProduceRequest>()).await.expect("an answer, or a hang-up");
        if let Ok(answer) = answer {
            let refused = produced(answer).expect_err("another one leads");
            assert!(refused.code().is_some_and(ErrorCode::is_retriable), "node {leader}, {other} leads: {refused}");
        }
        // It lives on as a follower.
        stand.in_sync(3, Some(leader)).await;
        stand.goes_on(100).await;
    }
    stand.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_active_controller_is_replaced_and_found() {
    let mut stand = Stand::start(APART).await;
    for round in 0..rounds() {
        let (active, epoch) = stand.controller_but(&[]).await;
        let began = std::time::Instant::now();
        stand.cluster.kill(active).await.expect("it runs");
        let (next, later) = stand.controller_but(&[active]).await;
        println!("controller {next} leads {} ms after controller {active} was killed", began.elapsed().as_millis());
        assert!(later > epoch, "epoch {later} after {epoch}");
        // Brokers find it: it decides on new topics and on who leads.
        let topic = format!("after-{round}");
        stand.create_topic(&topic, 2).await;
        let leader = stand.leader(0).await;
        stand.cluster.kill(leader).await.expect("it runs");
        stand.leader_but(0, &[leader]).await;
        stand.goes_on(100).await;
        for id in [active, leader] {
            stand.cluster.restart(id).await.unwrap_or_else(|error| panic!("node {id} does not start: {error}"));
        }
        stand.in_sync(3, None).await;
    }
    stand.judge().await;
}

/// A combined node that stands still leads neither partitions nor the quorum when it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_active_controller_that_stood_still_does_no_harm() {
    let stand = Stand::start(Shape::Combined(3)).await;
    for _ in 0..rounds() {
        let (active, epoch) = stand.controller_but(&[]).await;
        stand.cluster.strike(active, Blow::Stop).expect("it runs");
        let (_, later) = stand.controller_but(&[active]).await;
        assert!(later > epoch, "epoch {later} after {epoch}");
        for partition in 0..PARTITIONS {
            stand.leader_but(partition, &[active]).await;
        }
        stand.goes_on(100).await;
        stand.cluster.strike(active, Blow::Continue).expect("it stands still");
        stand.in_sync(3, None).await;
        stand.goes_on(100).await;
    }
    stand.judge().await;
}

/// Looks at the topic at every broker all the time, and writes down what has no leader.
async fn watch_leaders(stand: &mut Stand) {
    for id in stand.cluster.brokers() {
        let (address, book, stopping) =
            (stand.cluster.kafka(id).expect("a broker").to_owned(), stand.book.clone(), stand.stopping());
        stand.spawn(async move {
            while !*stopping.borrow() {
                let asked = async {
                    let connected = integration::client::Client::connect_over(&proto::host::TcpNetwork, &address).await;
                    let mut client = connected.ok()?;
                    loop {
                        let partitions = client.partitions(TOPIC).await.ok()?;
                        for (number, partition) in partitions.iter().enumerate() {
                            if partition.leader < 0 {
                                book.wrong(format!("node {id} knows no leader of partition {number}: {partition:?}"));
                            }
                        }
                        if *stopping.borrow() {
                            return Some(());
                        }
                        sleep(Duration::from_millis(10)).await;
                    }
                };
                asked.await;
                sleep(Duration::from_millis(10)).await;
            }
        });
    }
}

/// One node after the other ends in order and comes back: each partition is led all the time.
async fn roll(shape: Shape) {
    let mut stand = Stand::start(shape).await;
    stand.in_sync(3, None).await;
    watch_leaders(&mut stand).await;
    for id in stand.cluster.controllers().into_iter().chain(stand.cluster.brokers()) {
        if !stand.cluster.runs(id).expect("a node") {
            continue;
        }
        let status = stand.cluster.end(id).await.expect("it ends");
        assert!(status.success(), "node {id}: {status}");
        stand.goes_on(50).await;
        stand.cluster.restart(id).await.unwrap_or_else(|error| panic!("node {id} does not start: {error}"));
        stand.in_sync(3, None).await;
        stand.goes_on(50).await;
    }
    stand.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_leaves_no_partition_without_a_leader() {
    roll(Shape::Combined(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_controllers_and_brokers_leaves_no_partition_without_a_leader() {
    roll(APART).await;
}

/// The committers of the load check that what they were told is committed stays so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_dies_is_replaced_with_all_that_was_committed() {
    let mut stand = Stand::start(APART).await;
    for round in 0..rounds() {
        let group = format!("g{}", round % PARTITIONS);
        let address = until("a coordinator", async || stand.client().await.coordinator(&group).await.ok()).await;
        let brokers = stand.cluster.brokers();
        let id = brokers.into_iter().find(|id| stand.cluster.kafka(*id).is_ok_and(|at| at == address));
        let id = id.expect("a broker of this cluster");
        stand.cluster.kill(id).await.expect("it runs");
        until("another coordinator", async || {
            let found = stand.client().await.coordinator(&group).await.ok()?;
            (found != address).then_some(())
        })
        .await;
        stand.goes_on(100).await;
        stand.cluster.restart(id).await.unwrap_or_else(|error| panic!("node {id} does not start: {error}"));
        stand.in_sync(3, Some(id)).await;
    }
    stand.judge().await;
}
