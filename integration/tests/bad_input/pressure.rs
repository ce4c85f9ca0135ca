//! Clients in numbers: however many press, memory stays inside the budget, and who behaves is served.

use super::stand::{FIRN, Stand, Witness, batch, unique};
use bytes::Bytes;
use integration::calls::{
    ACKS_ALL, EARLIEST_LOCAL, FETCH_BY_NAME, PRODUCE_BY_NAME, fetch_request, produce_request, produced,
};
use integration::client::{Client, frame};
use integration::process::Firn;
use proto::messages::ProduceRequest;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Buffers of `firn dev`.
const BUDGET: u64 = 512 << 20;
/// Everything else: code (40 MiB of it in a debug build), stacks, the quorum's store, sockets, manifests, and what the allocator holds
/// back between threads.
const BASE: u64 = 160 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_producers_and_readers_that_do_not_read_stay_in_budget() {
    const PARTITIONS: i32 = 8;
    let mut stand = Stand::firn(|firn| firn).await;
    let mut witness = Witness::at(stand.address(), &[]).await;
    let topic = unique("pressed");
    stand.client().await.create_topic(&topic, PARTITIONS, &[("segment.bytes", "33554432")]).await.expect("a topic");
    let large = batch(&vec![3; 1_000_000]);
    let mut clients = producers(stand.address(), &topic, PARTITIONS, 200, &large);
    let readers = readers_that_do_not_read(&stand, &topic, PARTITIONS).await;
    while let Some(client) = clients.join_next().await {
        client.expect("every producer was acknowledged");
    }
    witness.is_well().await;
    // Who reads gets through beside those who do not.
    let mut reader = stand.client().await;
    let end = reader.offset(&topic, 0, -1).await.expect("the end");
    let mut next = 0;
    while next < end {
        let fetched = reader.fetch(&topic, 0, next, 4 << 20).await.expect("records");
        next += fetched.records.len() as i64 / large.len() as i64;
        assert!(!fetched.records.is_empty(), "at {next} of {end}");
    }
    stayed_in_budget(&mut stand);
    drop(readers);
}

/// Everything at once that takes memory: cold history for readers that do not read, records on their way in, uploads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_readers_that_do_not_read_producers_and_uploads_together_stay_in_budget() {
    const PARTITIONS: i32 = 8;
    let mut stand = Stand::firn(|firn| firn).await;
    let mut witness = Witness::at(stand.address(), &[]).await;
    let topic = unique("settling");
    let configs = [("segment.bytes", "4194304"), ("local.retention.bytes", "1"), ("firn.tier.max.lag.ms", "600000")];
    let mut client = stand.client().await;
    client.create_topic(&topic, PARTITIONS, &configs).await.expect("a topic");
    let large = batch(&vec![3; 1_000_000]);
    for number in 0..PARTITIONS * 12 {
        client.produce(&topic, number % PARTITIONS, large.clone()).await.expect("an acknowledgement");
    }
    flush(&mut stand, &topic).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    for partition in 0..PARTITIONS {
        while client.offset(&topic, partition, EARLIEST_LOCAL).await.expect("an offset") < 8 {
            assert!(Instant::now() < deadline, "partition {partition} does not go cold");
            sleep(Duration::from_millis(20)).await;
        }
    }
    let readers = readers_that_do_not_read(&stand, &topic, PARTITIONS).await;
    let mut clients = producers(stand.address(), &topic, PARTITIONS, 80, &large);
    // What was produced so far, while more of it comes.
    flush(&mut stand, &topic).await;
    while let Some(client) = clients.join_next().await {
        client.expect("every producer was acknowledged");
    }
    flush(&mut stand, &topic).await;
    witness.is_well().await;
    // Who reads gets what is cold beside those who do not. A fetch may come back empty when its wait is over: those before it in
    // the queue for memory may be some who read nothing, and who are let go one after the other.
    let deadline = Instant::now() + Duration::from_secs(60);
    while client.fetch(&topic, 0, 0, 4 << 20).await.expect("an answer").records.is_empty() {
        assert!(Instant::now() < deadline, "nothing cold came");
    }
    stayed_in_budget(&mut stand);
    drop(readers);
}

/// So many producers, each with three requests under way.
fn producers(address: SocketAddr, topic: &str, partitions: i32, count: i32, batch: &Bytes) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for number in 0..count {
        let request = produce_request(topic, number % partitions, ACKS_ALL, batch.clone());
        clients.spawn(async move {
            let mut client = Client::connect(address).await.expect("a connection");
            for _ in 0..3 {
                client.send(&request, PRODUCE_BY_NAME).await.expect("sent");
            }
            for _ in 0..3 {
                produced(client.receive::<ProduceRequest>().await.expect("an answer")).expect("an acknowledgement");
            }
        });
    }
    clients
}

/// Readers that ask for all there is, again and again, and take nothing of it.
async fn readers_that_do_not_read(stand: &Stand, topic: &str, partitions: i32) -> Vec<Client> {
    let mut readers = Vec::new();
    for number in 0..40 {
        let mut reader = stand.client().await;
        let ask =
            frame(&fetch_request(topic, number % partitions, 0, 50 << 20), FETCH_BY_NAME, number).expect("a frame");
        reader.send_raw(&ask.repeat(20)).await.expect("sent");
        readers.push(reader);
    }
    readers
}

async fn flush(stand: &mut Stand, topic: &str) {
    let admin = stand.running().expect("our own").http().to_string();
    let flush =
        Firn::new(FIRN, Path::new("/dev/null"), &["tier", "flush", topic, "--timeout", "50", "--admin", &admin]);
    let flushed = flush.finish().await.expect("it ends");
    assert!(flushed.status.success(), "{}", flushed.stderr);
}

fn stayed_in_budget(stand: &mut Stand) {
    let running = stand.running().expect("our own");
    let peak = running.peak_resident_bytes().expect("known");
    println!("peak: {} MiB", peak >> 20);
    assert!(peak < BUDGET + BASE, "{} MiB were resident", peak >> 20);
    assert!(running.ended().expect("known").is_none());
}

/// Many connections that say nothing cost next to nothing, and end with the process.
#[tokio::test]
async fn hundreds_of_silent_connections_are_cheap_and_do_not_hold_up_the_end() {
    let mut stand = Stand::firn(|firn| firn).await;
    let mut witness = Witness::at(stand.address(), &[]).await;
    let before = stand.running().expect("our own").peak_resident_bytes().expect("known");
    let mut silent = Vec::new();
    for _ in 0..500 {
        let mut client = stand.client().await;
        client.send_raw(b"\0\0\0\x20half").await.expect("sent");
        silent.push(client);
    }
    witness.is_well().await;
    let grown = stand.running().expect("our own").peak_resident_bytes().expect("known") - before;
    assert!(grown < 48 << 20, "500 connections took {} MiB", grown >> 20);
    let (status, _) = stand.terminate(Duration::from_secs(5)).await;
    assert!(status.success(), "{status}");
}
