//! What a client may make the broker hold: requests that wait, clients that left, questions asked many times over, connections.

use crate::client::{Client, code};
use crate::world::{FETCH, World, batch, fetch, read, unique};
use proto::errors::ErrorCode;
use proto::messages::describe_configs_request::DescribeConfigsResource;
use proto::messages::describe_producers_request::TopicRequest;
use proto::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use proto::messages::{
    ApiVersionsRequest, DescribeConfigsRequest, DescribeGroupsRequest, DescribeProducersRequest, FetchRequest,
    OffsetFetchRequest,
};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Fetches that have begun. There is no such line before the first.
const FETCHES: &str = r#"firn_requests_total{api="Fetch"}"#;
/// Longer than any test may take.
const FOR_EVER_MS: i32 = 600_000;
/// What is not so after this long will never be.
const SOON: Duration = Duration::from_secs(20);

/// The value of one line of the node's metrics.
async fn metric(world: &World, line: &str) -> u64 {
    let mut stream = TcpStream::connect(world.node().http_addresses()[0]).await.expect("the HTTP side listens");
    let ask = b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    stream.write_all(ask).await.expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("an answer");
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {line} in\n{text}"))
}

/// Waits until a metric has a value; fails if it never does.
async fn becomes(world: &World, line: &str, wanted: u64) {
    let reached = async {
        while metric(world, line).await != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let reached = tokio::time::timeout(SOON, reached).await;
    assert!(reached.is_ok(), "{line} is {} and not {wanted}", metric(world, line).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_while_its_fetch_waits_is_gone_at_once() {
    let Some(world) = World::firn(&[]).await else { return };
    let topic = world.topic(1, &[]).await;
    becomes(&world, "firn_connections_open", 0).await;
    let mut client = world.client().await;
    let waiting = FetchRequest { max_wait_ms: FOR_EVER_MS, min_bytes: 1, ..fetch(&topic, &[(0, 0)]) };
    client.fetch(&topic, 0, 0).await;
    client.send(FETCH, &waiting).await;
    becomes(&world, FETCHES, 2).await;
    becomes(&world, "firn_connections_open", 1).await;
    drop(client);
    becomes(&world, "firn_connections_open", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_waits_holds_nothing_of_the_request_budget() {
    let Some(world) = World::firn(&[]).await else { return };
    let topic = world.topic(1, &[]).await;
    let mut client = world.client().await;
    // Far more than fits into the buffer of a connection.
    let from: Vec<(i32, i64)> = (0..4_000).map(|partition| (partition, 0)).collect();
    let waiting = FetchRequest { max_wait_ms: FOR_EVER_MS, min_bytes: 1, ..fetch(&topic, &from) };
    client.fetch(&topic, 0, 0).await;
    let id = client.send(FETCH, &waiting).await;
    becomes(&world, FETCHES, 2).await;
    becomes(&world, "firn_budget_used_bytes{budget=\"requests\"}", 0).await;
    // It does wait, and what it waits for comes.
    world.client().await.produced(&topic, 0, batch(&[b"x"])).await;
    let answer = client.receive::<FetchRequest>(FETCH, id).await;
    assert_eq!(answer.responses[0].partitions.len(), 4_000);
    assert_eq!(read(&answer.responses[0].partitions[0]), [(0, b"x".to_vec())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_many_times_over_is_answered_once() {
    let Some(world) = World::firn(&[]).await else { return };
    let topic = world.topic(1, &[]).await;
    let mut client = world.client().await;
    client.produced(&topic, 0, batch(&[b"x"])).await;
    let resource =
        DescribeConfigsResource { resource_type: 4, resource_name: "0".to_owned(), configuration_keys: None };
    let other = DescribeConfigsResource { resource_type: 2, resource_name: topic.clone(), configuration_keys: None };
    let mut resources = vec![resource; 300];
    resources.push(other);
    let request = DescribeConfigsRequest { resources, include_synonyms: true, include_documentation: true };
    let answer = client.call(4, &request).await;
    let named: Vec<_> = answer.results.iter().map(|one| (one.resource_type, one.resource_name.as_str())).collect();
    assert_eq!(named, [(4, "0"), (2, topic.as_str())]);

    let groups = vec!["a".to_owned(), "b".to_owned(), "a".to_owned()];
    let answer = client.call(5, &DescribeGroupsRequest { groups, ..Default::default() }).await;
    let named: Vec<_> = answer.groups.iter().map(|group| group.group_id.as_str()).collect();
    assert_eq!(named, ["a", "b"]);

    let one = TopicRequest { name: topic.clone(), partition_indexes: vec![0, 0, 7, 0] };
    let answer = client.call(0, &DescribeProducersRequest { topics: vec![one.clone(), one] }).await;
    let named: Vec<Vec<i32>> = answer
        .topics
        .iter()
        .map(|topic| topic.partitions.iter().map(|partition| partition.partition_index).collect())
        .collect();
    assert_eq!(named, [[0, 7]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_that_are_asked_for_twice_come_once() {
    let Some(world) = World::firn(&[]).await else { return };
    let topic = world.topic(1, &[]).await;
    let mut client = world.client().await;
    let group = unique("group");
    crate::groups::ready(&mut client, &group).await;
    client.call(8, &crate::groups::commit(&group, "", -1, &topic, 7)).await;
    let asked =
        OffsetFetchRequestTopics { name: topic.clone(), partition_indexes: vec![0, 0, 3, 0, 3], ..Default::default() };
    let group =
        OffsetFetchRequestGroup { group_id: group, topics: Some(vec![asked.clone(), asked]), ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![group.clone(), group], ..Default::default() };
    let answer = client.call(9, &request).await;
    assert_eq!(answer.groups.len(), 1);
    let found: Vec<Vec<(i32, i64)>> = answer.groups[0]
        .topics
        .iter()
        .map(|topic| topic.partitions.iter().map(|one| (one.partition_index, one.committed_offset)).collect())
        .collect();
    assert_eq!(found, [[(0, 7), (3, -1)]]);
}

/// Answers that nobody reads are paid for, and their memory comes back with the end of the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_not_read_hold_memory_of_the_budget() {
    const USED: &str = "firn_budget_used_bytes{budget=\"fetch_answers\"}";
    let Some(world) = World::firn(&[("firn.request.memory.bytes", "16777216")]).await else { return };
    let mut client = world.client().await;
    let broker = DescribeConfigsResource { resource_type: 4, resource_name: "0".to_owned(), configuration_keys: None };
    let request =
        DescribeConfigsRequest { resources: vec![broker], include_synonyms: true, include_documentation: true };
    for _ in 0..200 {
        client.send(4, &request).await;
    }
    // All that there is, but for what is less than one answer: the next one waits for it.
    let taken = async {
        while metric(&world, USED).await < (4 << 20) - (256 << 10) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, taken).await.expect("the answers are paid for");
    drop(client);
    becomes(&world, USED, 0).await;
}

/// The broker answers this connection.
async fn served(client: &mut Client) {
    let answer = client.call(0, &ApiVersionsRequest::default()).await;
    assert_eq!(code(answer.error_code), ErrorCode::None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_gets_no_more_connections_than_it_may_have() {
    let Some(world) = World::firn(&[("max.connections.per.ip", "2")]).await else { return };
    let (mut first, mut second) = (world.client().await, world.client().await);
    served(&mut first).await;
    served(&mut second).await;
    world.client().await.expect_closed().await;
    // A place that is given up can be had again.
    drop(first);
    becomes(&world, "firn_connections_open", 1).await;
    let mut third = world.client().await;
    served(&mut third).await;
    served(&mut second).await;

    let settings = [("max.connections.per.ip", "1"), ("max.connections.per.ip.overrides", "127.0.0.1:2")];
    let Some(world) = World::firn(&settings).await else { return };
    let (mut first, mut second) = (world.client().await, world.client().await);
    served(&mut first).await;
    served(&mut second).await;
    world.client().await.expect_closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_when_all_places_are_taken_waits_for_one() {
    let Some(world) = World::firn(&[("max.connections", "2")]).await else { return };
    let (mut first, mut second) = (world.client().await, world.client().await);
    served(&mut first).await;
    served(&mut second).await;
    let mut third = world.client().await;
    let id = third.send(0, &ApiVersionsRequest::default()).await;
    assert!(third.is_silent().await, "there is no place for it");
    drop(first);
    let answer = third.receive::<ApiVersionsRequest>(0, id).await;
    assert_eq!(code(answer.error_code), ErrorCode::None);
    served(&mut second).await;
}
