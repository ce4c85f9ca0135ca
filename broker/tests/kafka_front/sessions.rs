//! Fetch sessions (KIP-227): what is remembered between fetches, and what is said of it.

use crate::client::{Client, code};
use crate::world::{CREATE, World, batch, create, fetch, read};
use proto::errors::ErrorCode;
use proto::messages::fetch_request::ForgottenTopic;
use proto::messages::{DeleteTopicsRequest, FetchRequest, FetchResponse};

const BY_NAME: i16 = 12;

/// A request of a session: no wait.
fn step(session_id: i32, session_epoch: i32, topic: &str, partitions: &[(i32, i64)]) -> FetchRequest {
    let mut request = FetchRequest { session_id, session_epoch, ..fetch(topic, partitions) };
    request.topics.retain(|topic| !topic.partitions.is_empty());
    request
}

/// Partition and values, in the order of the answer.
fn said(answer: &FetchResponse) -> Vec<(i32, Vec<Vec<u8>>)> {
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|one| (one.partition_index, read(one).into_iter().map(|(_, value)| value).collect())).collect()
}

async fn ok(client: &mut Client, request: &FetchRequest) -> FetchResponse {
    let answer = client.call(BY_NAME, request).await;
    assert_eq!(code(answer.error_code), ErrorCode::None);
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_says_only_what_changed() {
    let world = World::start().await;
    let topic = world.topic(4, &[]).await;
    let mut client = world.client().await;
    client.produced(&topic, 1, batch(&[b"a"])).await;

    // The first answer is full and opens the session.
    let first = ok(&mut client, &step(0, 0, &topic, &[(0, 0), (1, 0)])).await;
    let id = first.session_id;
    assert_ne!(id, 0);
    assert_eq!(said(&first), [(0, vec![]), (1, vec![b"a".to_vec()])]);

    // What was not read on is said again: the session holds the old position.
    let again = ok(&mut client, &step(id, 1, &topic, &[])).await;
    assert_eq!((again.session_id, said(&again)), (id, vec![(1, vec![b"a".to_vec()])]));
    // The position moves with a request that names it.
    assert!(said(&ok(&mut client, &step(id, 2, &topic, &[(1, 1)])).await).is_empty());
    assert!(said(&ok(&mut client, &step(id, 3, &topic, &[])).await).is_empty());

    client.produced(&topic, 0, batch(&[b"b"])).await;
    assert_eq!(said(&ok(&mut client, &step(id, 4, &topic, &[])).await), [(0, vec![b"b".to_vec()])]);

    // A partition may join, another go.
    let mut change = step(id, 5, &topic, &[(0, 1), (2, 0)]);
    change.forgotten_topics_data =
        vec![ForgottenTopic { topic: topic.clone(), partitions: vec![1], ..Default::default() }];
    assert_eq!(said(&ok(&mut client, &change).await), [(2, vec![])], "one that is new is said once");
    for partition in [1, 2] {
        client.produced(&topic, partition, batch(&[b"c"])).await;
    }
    assert_eq!(said(&ok(&mut client, &step(id, 6, &topic, &[])).await), [(2, vec![b"c".to_vec()])], "1 is forgotten");

    // One that is only asked for waits for all of the session.
    let waiting = FetchRequest { max_wait_ms: 600_000, min_bytes: 1, ..step(id, 7, &topic, &[(2, 1)]) };
    let sent = client.send(BY_NAME, &waiting).await;
    assert!(client.is_silent().await);
    world.client().await.produced(&topic, 0, batch(&[b"d"])).await;
    let answer = client.receive::<FetchRequest>(BY_NAME, sent).await;
    assert_eq!(said(&answer), [(0, vec![b"d".to_vec()])]);

    // A fetch outside of any session ends it.
    let last = ok(&mut client, &step(id, -1, &topic, &[(0, 2)])).await;
    assert_eq!((last.session_id, said(&last)), (0, vec![(0, vec![])]));
    let gone = client.call(BY_NAME, &step(id, 8, &topic, &[])).await;
    assert_eq!((code(gone.error_code), gone.session_id), (ErrorCode::FetchSessionIdNotFound, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_held_to_their_id_and_epoch() {
    let world = World::start().await;
    let topic = world.topic(1, &[]).await;
    let mut client = world.client().await;
    let id = ok(&mut client, &step(0, 0, &topic, &[(0, 0)])).await.session_id;
    for epoch in [2, 5, i32::MAX] {
        let answer = client.call(BY_NAME, &step(id, epoch, &topic, &[])).await;
        assert_eq!((code(answer.error_code), answer.session_id), (ErrorCode::InvalidFetchSessionEpoch, 0));
        assert!(answer.responses.is_empty());
    }
    let stranger = client.call(BY_NAME, &step(id ^ 0x55, 1, &topic, &[])).await;
    assert_eq!(code(stranger.error_code), ErrorCode::FetchSessionIdNotFound);
    // None of that hurt the session.
    assert_eq!(ok(&mut client, &step(id, 1, &topic, &[])).await.session_id, id);
    // A retry of what was answered already has the wrong epoch.
    let again = client.call(BY_NAME, &step(id, 1, &topic, &[])).await;
    assert_eq!(code(again.error_code), ErrorCode::InvalidFetchSessionEpoch);
    // A new session in place of the old one.
    let next = ok(&mut client, &step(id, 0, &topic, &[(0, 0)])).await.session_id;
    assert!(next != 0 && next != id);
    assert_eq!(
        code(client.call(BY_NAME, &step(id, 2, &topic, &[])).await.error_code),
        ErrorCode::FetchSessionIdNotFound
    );
    // All forgotten: the session ends with it.
    let mut forget = step(next, 1, &topic, &[]);
    forget.forgotten_topics_data =
        vec![ForgottenTopic { topic: topic.clone(), partitions: vec![0], ..Default::default() }];
    let answer = ok(&mut client, &forget).await;
    assert_eq!((answer.session_id, said(&answer)), (0, vec![]));
    // Below version 7 nobody heard of sessions.
    let old = client.call(6, &fetch(&topic, &[(0, 0)])).await;
    assert_eq!((old.session_id, old.responses.len()), (0, 1));
    // A session may begin empty, and get its partitions later.
    let empty = ok(&mut client, &step(0, 0, &topic, &[])).await.session_id;
    assert_ne!(empty, 0);
    let answer = ok(&mut client, &step(empty, 1, &topic, &[(0, 0)])).await;
    assert_eq!((answer.session_id, said(&answer)), (empty, vec![(0, vec![])]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_and_names_are_not_mixed_in_one_session() {
    let world = World::start().await;
    let topic = world.topic(1, &[]).await;
    let mut client = world.client().await;
    let by_name = ok(&mut client, &step(0, 0, &topic, &[(0, 0)])).await.session_id;
    let mut request = step(by_name, 1, "", &[(0, 0)]);
    request.topics[0].topic_id = world.id(&topic).await;
    assert_eq!(code(client.call(13, &request).await.error_code), ErrorCode::FetchSessionTopicIdError);
    let opened = client.call(13, &FetchRequest { session_id: 0, session_epoch: 0, ..request }).await;
    let answer = client.call(BY_NAME, &step(opened.session_id, 1, &topic, &[(0, 0)])).await;
    assert_eq!(code(answer.error_code), ErrorCode::FetchSessionTopicIdError);
}

/// Since version 13 topics have ids, also those that a session is to forget.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_forgotten_by_id() {
    let world = World::start().await;
    let (topic, other) = (world.topic(2, &[]).await, world.topic(1, &[]).await);
    let (id, other_id) = (world.id(&topic).await, world.id(&other).await);
    let mut client = world.client().await;
    // Each round begins where the last one ended.
    for (begin, version) in (0..).zip([13, 18]) {
        let mut open = step(0, 0, "", &[(0, begin), (1, begin)]);
        open.topics[0].topic_id = id;
        let mut second = open.topics[0].clone();
        second.topic_id = other_id;
        second.partitions.truncate(1);
        open.topics.push(second);
        let opened = client.call(version, &open).await;
        assert_eq!(code(opened.error_code), ErrorCode::None, "version {version}");
        let session = opened.session_id;
        let produce = async |client: &mut Client| {
            for (topic, partition) in [(&topic, 0), (&topic, 1), (&other, 0)] {
                client.produced(topic, partition, batch(&[b"new"])).await;
            }
        };
        // Topic id and partition of all that is said.
        let said = |answer: &FetchResponse| -> Vec<_> {
            let each = answer.responses.iter().flat_map(|one| {
                one.partitions.iter().map(|partition| {
                    assert_eq!(code(partition.error_code), ErrorCode::None);
                    (one.topic_id, partition.partition_index)
                })
            });
            each.collect()
        };
        let mut forget = step(session, 1, "", &[]);
        forget.forgotten_topics_data = vec![ForgottenTopic { topic_id: id, partitions: vec![1], ..Default::default() }];
        assert!(said(&client.call(version, &forget).await).is_empty(), "version {version}");
        produce(&mut client).await;
        let answer = client.call(version, &step(session, 2, "", &[])).await;
        assert_eq!(said(&answer), [(id, 0), (other_id, 0)], "version {version}: partition 1 is forgotten");
        // All of a topic.
        let mut forget = step(session, 3, "", &[]);
        forget.forgotten_topics_data = vec![ForgottenTopic { topic_id: id, partitions: vec![0], ..Default::default() }];
        let answer = client.call(version, &forget).await;
        assert_eq!((answer.session_id, said(&answer)), (session, vec![(other_id, 0)]), "version {version}");
        // One that is not in the session, and the last there is: the session ends.
        let mut forget = step(session, 4, "", &[]);
        forget.forgotten_topics_data = vec![
            ForgottenTopic { topic_id: id, partitions: vec![0, 7], ..Default::default() },
            ForgottenTopic { topic_id: other_id, partitions: vec![0], ..Default::default() },
        ];
        let answer = client.call(version, &forget).await;
        assert_eq!((code(answer.error_code), answer.session_id, said(&answer)), (ErrorCode::None, 0, vec![]));
    }
}

/// Kafka's session remembers a name beside the id, and says sometimes that the topic, sometimes that its id is unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_repeats_what_is_wrong() {
    let Some(world) = World::firn(&[]).await else { return };
    let (kept, gone) = (world.topic(1, &[]).await, world.topic(1, &[]).await);
    let mut client = world.client().await;
    let mut open = step(0, 0, "", &[(0, 0)]);
    open.topics[0].topic_id = world.id(&kept).await;
    let mut other = open.topics[0].clone();
    other.topic_id = world.id(&gone).await;
    let lost = other.topic_id;
    open.topics.push(other);
    let id = client.call(13, &open).await.session_id;
    let delete = DeleteTopicsRequest { topic_names: vec![gone.clone()], timeout_ms: 30_000, ..Default::default() };
    assert_eq!(code(client.call(5, &delete).await.responses[0].error_code), ErrorCode::None);
    // A topic of the same name is another topic.
    assert_eq!(client.call(CREATE, &create(&gone, 1, &[])).await.topics[0].error_code, 0);
    for epoch in 1..4 {
        let answer = client.call(13, &step(id, epoch, "", &[])).await;
        let said: Vec<_> =
            answer.responses.iter().map(|topic| (topic.topic_id, topic.partitions[0].error_code)).collect();
        assert_eq!(said, [(lost, ErrorCode::UnknownTopicId.code())]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_for_a_session_one_fetches_without() {
    let Some(world) = World::firn(&[("max.incremental.fetch.session.cache.slots", "2")]).await else { return };
    let topic = world.topic(1, &[]).await;
    let mut client = world.client().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let answer = ok(&mut client, &step(0, 0, &topic, &[(0, 0)])).await;
        assert_eq!(said(&answer), [(0, vec![])], "the answer is full with or without");
        ids.push(answer.session_id);
    }
    assert!(ids[0] != 0 && ids[1] != 0 && ids[0] != ids[1]);
    assert_eq!(ids[2], 0, "those there are were used a moment ago");
    // One that ends makes room.
    ok(&mut client, &step(ids[0], -1, &topic, &[(0, 0)])).await;
    assert_ne!(ok(&mut client, &step(0, 0, &topic, &[(0, 0)])).await.session_id, 0);
}
