//! Clients in numbers: however many press, memory stays inside the budget, and who behaves is served.

use super::stand::{Stand, Witness, batch, unique};
use integration::calls::{ACKS_ALL, FETCH_BY_NAME, PRODUCE_BY_NAME, fetch_request, produce_request, produced};
use integration::client::{Client, frame};
use proto::messages::ProduceRequest;
use std::time::Duration;
use tokio::task::JoinSet;

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
    let mut clients = JoinSet::new();
    for number in 0..200 {
        let request = produce_request(&topic, number % PARTITIONS, ACKS_ALL, large.clone());
        let address = stand.address();
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
    // Readers that ask for all there is, again and again, and take nothing of it.
    let mut readers = Vec::new();
    for number in 0..40 {
        let mut reader = stand.client().await;
        let ask =
            frame(&fetch_request(&topic, number % PARTITIONS, 0, 50 << 20), FETCH_BY_NAME, number).expect("a frame");
        reader.send_raw(&ask.repeat(20)).await.expect("sent");
        readers.push(reader);
    }
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
    let running = stand.running().expect("our own");
    let peak = running.peak_resident_bytes().expect("known");
    println!("peak: {} MiB", peak >> 20);
    assert!(peak < BUDGET + BASE, "{} MiB were resident", peak >> 20);
    assert!(running.ended().expect("known").is_none());
    drop(readers);
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
