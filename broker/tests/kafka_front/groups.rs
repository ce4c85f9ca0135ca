//! Consumer groups: members come together, share, go; offsets are kept.

use crate::client::{Client, code, versions};
use crate::world::{World, unique};
use bytes::Bytes;
use proto::errors::ErrorCode;
use proto::messages::join_group_request::JoinGroupRequestProtocol;
use proto::messages::leave_group_request::MemberIdentity;
use proto::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use proto::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use proto::messages::sync_group_request::SyncGroupRequestAssignment;
use proto::messages::*;
use std::time::Duration;

/// Finds the coordinator, so that there is one, and waits until it has loaded.
pub(crate) async fn ready(client: &mut Client, group: &str) {
    for _ in 0..500 {
        let find = FindCoordinatorRequest { coordinator_keys: vec![group.to_owned()], ..Default::default() };
        let found = client.call(4, &find).await;
        let beat = HeartbeatRequest { group_id: group.to_owned(), member_id: "x".to_owned(), ..Default::default() };
        let beaten = code(client.call(4, &beat).await.error_code);
        if found.coordinators[0].error_code == 0 && beaten == ErrorCode::UnknownMemberId {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no coordinator");
}

fn join(group: &str, member: &str, instance: Option<&str>) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.to_owned(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        member_id: member.to_owned(),
        group_instance_id: instance.map(str::to_owned),
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".to_owned(), metadata: Bytes::from_static(b"meta") }],
        ..Default::default()
    }
}

/// Joins as versions from 4 on do: with the id that the first answer gave.
async fn joined(client: &mut Client, version: i16, group: &str) -> JoinGroupResponse {
    let answer = client.call(version, &join(group, "", None)).await;
    if version < 4 {
        return answer;
    }
    assert_eq!(code(answer.error_code), ErrorCode::MemberIdRequired, "version {version}");
    client.call(version, &join(group, &answer.member_id, None)).await
}

fn sync(group: &str, member: &str, generation: i32, assignments: &[(&str, &'static [u8])]) -> SyncGroupRequest {
    SyncGroupRequest {
        group_id: group.to_owned(),
        generation_id: generation,
        member_id: member.to_owned(),
        assignments: assignments
            .iter()
            .map(|(member, bytes)| SyncGroupRequestAssignment {
                member_id: (*member).to_owned(),
                assignment: Bytes::from_static(bytes),
            })
            .collect(),
        ..Default::default()
    }
}

pub(crate) fn commit(group: &str, member: &str, generation: i32, topic: &str, offset: i64) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: group.to_owned(),
        generation_id_or_member_epoch: generation,
        member_id: member.to_owned(),
        topics: vec![OffsetCommitRequestTopic {
            name: topic.to_owned(),
            partitions: vec![OffsetCommitRequestPartition {
                committed_offset: offset,
                committed_metadata: Some("note".to_owned()),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_lives_through_every_version() {
    let world = World::start().await;
    let mut client = world.client().await;
    for version in versions(ApiKey::JoinGroup) {
        let group = unique("group");
        ready(&mut client, &group).await;
        let within = |key| version.min(*versions(key).end());
        let me = joined(&mut client, version, &group).await;
        assert_eq!((code(me.error_code), me.generation_id), (ErrorCode::None, 1), "version {version}");
        assert_eq!((me.leader == me.member_id, me.members.len()), (true, 1), "version {version}");
        let mine = sync(&group, &me.member_id, 1, &[(&me.member_id, b"all of it")]);
        let mut with_type = mine.clone();
        let sync_version = within(ApiKey::SyncGroup);
        if sync_version >= 5 {
            with_type.protocol_type = Some("consumer".to_owned());
            with_type.protocol_name = Some("range".to_owned());
        }
        let got = client.call(sync_version, &with_type).await;
        assert_eq!(
            (code(got.error_code), &got.assignment[..]),
            (ErrorCode::None, &b"all of it"[..]),
            "version {version}"
        );
        let beat = |member: &str, generation_id| HeartbeatRequest {
            group_id: group.clone(),
            generation_id,
            member_id: member.to_owned(),
            ..Default::default()
        };
        let heartbeats = within(ApiKey::Heartbeat);
        for (member, generation, expected) in [
            (&*me.member_id, 1, ErrorCode::None),
            (&*me.member_id, 2, ErrorCode::IllegalGeneration),
            ("stranger", 1, ErrorCode::UnknownMemberId),
        ] {
            assert_eq!(code(client.call(heartbeats, &beat(member, generation)).await.error_code), expected);
        }
        for describe in versions(ApiKey::DescribeGroups) {
            let groups = vec![group.clone(), "missing".to_owned()];
            let answer = client.call(describe, &DescribeGroupsRequest { groups, ..Default::default() }).await;
            let said: Vec<_> =
                answer.groups.iter().map(|one| (code(one.error_code), &*one.group_state, one.members.len())).collect();
            let missing = if describe >= 6 { ErrorCode::GroupIdNotFound } else { ErrorCode::None };
            assert_eq!(said, [(ErrorCode::None, "Stable", 1), (missing, "Dead", 0)], "version {describe}");
        }
        for list in versions(ApiKey::ListGroups) {
            let listed = |answer: ListGroupsResponse| answer.groups.iter().any(|one| one.group_id == group);
            assert!(listed(client.call(list, &ListGroupsRequest::default()).await));
            if list >= 4 {
                let states_filter = vec!["Empty".to_owned()];
                assert!(!listed(client.call(list, &ListGroupsRequest { states_filter, ..Default::default() }).await));
            }
        }
        let delete = DeleteGroupsRequest { groups_names: vec![group.clone()] };
        assert_eq!(code(client.call(2, &delete).await.results[0].error_code), ErrorCode::NonEmptyGroup);
        let leaves = within(ApiKey::LeaveGroup);
        let leave = LeaveGroupRequest {
            group_id: group.clone(),
            member_id: if leaves < 3 { me.member_id.clone() } else { String::new() },
            members: if leaves < 3 {
                vec![]
            } else {
                vec![MemberIdentity { member_id: me.member_id.clone(), group_instance_id: None, reason: None }]
            },
        };
        let left = client.call(leaves, &leave).await;
        assert_eq!(code(left.error_code), ErrorCode::None, "version {version}");
        assert!(left.members.iter().all(|one| one.error_code == 0));
        assert_eq!(code(client.call(2, &delete).await.results[0].error_code), ErrorCode::None);
        assert_eq!(code(client.call(2, &delete).await.results[0].error_code), ErrorCode::GroupIdNotFound);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_share_and_one_takes_over() {
    let world = World::start().await;
    let group = unique("group");
    let (mut one, mut two) = (world.client().await, world.client().await);
    ready(&mut one, &group).await;
    let first = joined(&mut one, 9, &group).await;
    one.call(5, &sync_5(&group, &first.member_id, 1, &[(&first.member_id, b"all")])).await;
    // The second waits for the first to come again.
    let id = two.call(9, &join(&group, "", None)).await.member_id;
    let waits = two.send(9, &join(&group, &id, None)).await;
    let beat = HeartbeatRequest {
        group_id: group.clone(),
        generation_id: 1,
        member_id: first.member_id.clone(),
        ..Default::default()
    };
    // The first is told as soon as the second is there.
    let told = async {
        loop {
            match code(one.call(4, &beat).await.error_code) {
                ErrorCode::None => tokio::time::sleep(Duration::from_millis(5)).await,
                other => break other,
            }
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(60), told).await;
    assert_eq!(told, Ok(ErrorCode::RebalanceInProgress));
    let mut other = join(&group, "", None);
    other.protocols[0].name = "another".to_owned();
    let mut three = world.client().await;
    assert_eq!(code(three.call(9, &other).await.error_code), ErrorCode::InconsistentGroupProtocol);
    let first = one.call(9, &join(&group, &first.member_id, None)).await;
    let second = two.receive::<JoinGroupRequest>(9, waits).await;
    assert_eq!((first.generation_id, second.generation_id), (2, 2));
    assert_eq!((first.members.len(), second.members.len(), &first.leader), (2, 0, &second.leader));
    // The follower's share comes with the leader's assignment.
    let waits = two.send(5, &sync_5(&group, &second.member_id, 2, &[])).await;
    assert!(two.is_silent().await);
    let shares = [(&*first.member_id, &b"left"[..]), (&*second.member_id, &b"right"[..])];
    let left = one.call(5, &sync_5(&group, &first.member_id, 2, &shares)).await;
    let right = two.receive::<SyncGroupRequest>(5, waits).await;
    assert_eq!((&left.assignment[..], &right.assignment[..]), (&b"left"[..], &b"right"[..]));
    // The leader goes: the other learns of it, comes again and leads.
    let members = vec![MemberIdentity { member_id: first.member_id, group_instance_id: None, reason: None }];
    let leave = LeaveGroupRequest { group_id: group.clone(), members, ..Default::default() };
    assert_eq!(code(one.call(5, &leave).await.members[0].error_code), ErrorCode::None);
    let second = two.call(9, &join(&group, &second.member_id, None)).await;
    assert_eq!((second.generation_id, &second.leader), (3, &second.member_id));
}

fn sync_5(group: &str, member: &str, generation: i32, assignments: &[(&str, &'static [u8])]) -> SyncGroupRequest {
    SyncGroupRequest {
        protocol_type: Some("consumer".to_owned()),
        protocol_name: Some("range".to_owned()),
        ..sync(group, member, generation, assignments)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_member_is_let_go() {
    let Some(world) = World::firn(&[]).await else { return };
    let group = unique("group");
    let mut client = world.client().await;
    ready(&mut client, &group).await;
    let short = |member: &str| JoinGroupRequest { session_timeout_ms: 200, ..join(&group, member, None) };
    let id = client.call(9, &short("")).await.member_id;
    assert_eq!(code(client.call(9, &short(&id)).await.error_code), ErrorCode::None);
    client.call(5, &sync_5(&group, &id, 1, &[(&id, b"x")])).await;
    for _ in 0..2_000 {
        let request = DescribeGroupsRequest { groups: vec![group.clone()], ..Default::default() };
        if client.call(5, &request).await.groups[0].group_state == "Empty" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the group still has its member");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_member_is_replaced_without_a_rebalance_and_fenced() {
    let world = World::start().await;
    let group = unique("group");
    let mut client = world.client().await;
    ready(&mut client, &group).await;
    let first = client.call(9, &join(&group, "", Some("static"))).await;
    assert_eq!((code(first.error_code), first.generation_id), (ErrorCode::None, 1), "no id is asked for first");
    let mut mine = sync_5(&group, &first.member_id, 1, &[(&first.member_id, b"mine")]);
    mine.group_instance_id = Some("static".to_owned());
    assert_eq!(code(client.call(5, &mine).await.error_code), ErrorCode::None);
    let again = client.call(9, &join(&group, "", Some("static"))).await;
    assert_eq!((code(again.error_code), again.generation_id), (ErrorCode::None, 1));
    assert_ne!(again.member_id, first.member_id);
    let mut back = sync_5(&group, &again.member_id, 1, &[]);
    back.group_instance_id = Some("static".to_owned());
    assert_eq!(&client.call(5, &back).await.assignment[..], b"mine");
    let beat = HeartbeatRequest {
        group_id: group.clone(),
        generation_id: 1,
        member_id: first.member_id,
        group_instance_id: Some("static".to_owned()),
    };
    assert_eq!(code(client.call(4, &beat).await.error_code), ErrorCode::FencedInstanceId);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_committed_and_fetched_in_every_version_and_survive() {
    let Some(mut world) = World::firn(&[]).await else { return };
    let topic = world.topic(1, &[]).await;
    let topic_id = world.id(&topic).await;
    let group = unique("group");
    let mut client = world.client().await;
    ready(&mut client, &group).await;
    let mut last = 0;
    for version in versions(ApiKey::OffsetCommit) {
        last += 10;
        let mut request = commit(&group, "", -1, &topic, last);
        if version >= 10 {
            request.topics[0].name = String::new();
            request.topics[0].topic_id = topic_id;
        }
        let answer = client.call(version, &request).await;
        assert_eq!(code(answer.topics[0].partitions[0].error_code), ErrorCode::None, "version {version}");
        // Nobody knows this group: who claims a generation of it is wrong.
        let mut stranger = commit(&unique("group"), "member", 1, &topic, 1);
        if version >= 10 {
            stranger.topics[0].name = String::new();
            stranger.topics[0].topic_id = topic_id;
        }
        let answer = client.call(version, &stranger).await;
        let expected = if version >= 9 { ErrorCode::GroupIdNotFound } else { ErrorCode::IllegalGeneration };
        assert_eq!(code(answer.topics[0].partitions[0].error_code), expected, "version {version}");
    }
    let member = joined(&mut client, 9, &group).await;
    client.call(5, &sync_5(&group, &member.member_id, 1, &[(&member.member_id, b"kept")])).await;
    for restarted in [false, true] {
        if restarted {
            world.restart().await;
            client = world.client().await;
            ready(&mut client, &unique("group")).await;
            ready(&mut client, &group).await;
        }
        for version in versions(ApiKey::OffsetFetch) {
            let (name, id) = if version >= 10 { (String::new(), topic_id) } else { (topic.clone(), uuid::Uuid::nil()) };
            let request = if version < 8 {
                let topics = vec![OffsetFetchRequestTopic { name, partition_indexes: vec![0, 5] }];
                OffsetFetchRequest { group_id: group.clone(), topics: Some(topics), ..Default::default() }
            } else {
                let asked = OffsetFetchRequestTopics { name, topic_id: id, partition_indexes: vec![0, 5] };
                let one = |topics| OffsetFetchRequestGroup { group_id: group.clone(), topics, ..Default::default() };
                OffsetFetchRequest { groups: vec![one(Some(vec![asked])), one(None)], ..Default::default() }
            };
            let answer = client.call(version, &request).await;
            if version < 8 {
                let found: Vec<_> = answer.topics[0].partitions.iter().map(|one| one.committed_offset).collect();
                assert_eq!(found, [last, -1], "version {version}");
                assert_eq!(answer.topics[0].partitions[0].metadata.as_deref(), Some("note"));
            } else {
                let found: Vec<Vec<i64>> = answer
                    .groups
                    .iter()
                    .map(|group| group.topics[0].partitions.iter().map(|one| one.committed_offset).collect())
                    .collect();
                assert_eq!(found, [vec![last, -1], vec![last]], "version {version}");
            }
        }
        // The member and its generation are there, too.
        let beat = HeartbeatRequest {
            group_id: group.clone(),
            generation_id: 1,
            member_id: member.member_id.clone(),
            ..Default::default()
        };
        assert_eq!(code(client.call(4, &beat).await.error_code), ErrorCode::None, "restarted: {restarted}");
    }
}

/// What can never be written down is refused, and takes nobody else's with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_larger_than_a_record_may_be_is_refused() {
    let Some(world) = World::firn(&[("message.max.bytes", "100000")]).await else { return };
    let topic = world.topic(40, &[]).await;
    let group = unique("group");
    let mut client = world.client().await;
    ready(&mut client, &group).await;
    let member = joined(&mut client, 9, &group).await;
    let large: &'static [u8] = &[7; 200_000];
    let synced = client.call(5, &sync_5(&group, &member.member_id, 1, &[(&member.member_id, large)])).await;
    assert_eq!(code(synced.error_code), ErrorCode::UnknownServerError);
    let mut wordy = join(&unique("group"), "", None);
    wordy.protocols[0].metadata = Bytes::from_static(large);
    assert_eq!(code(client.call(9, &wordy).await.error_code), ErrorCode::UnknownServerError);

    let mut request = commit(&unique("group"), "", -1, &topic, 1);
    let one = request.topics[0].partitions[0].clone();
    request.topics[0].partitions = (0..40)
        .map(|partition_index| OffsetCommitRequestPartition {
            partition_index,
            committed_metadata: Some("m".repeat(4_000)),
            ..one.clone()
        })
        .collect();
    let answer = client.call(8, &request).await;
    let codes: Vec<_> = answer.topics[0].partitions.iter().map(|one| code(one.error_code)).collect();
    assert_eq!(codes, [ErrorCode::InvalidCommitOffsetSize; 40]);
    request.topics[0].partitions.truncate(20);
    let answer = client.call(8, &request).await;
    assert!(answer.topics[0].partitions.iter().all(|one| one.error_code == 0));
    request.topics[0].partitions[1].committed_metadata = Some("m".repeat(5_000));
    let answer = client.call(8, &request).await;
    let codes: Vec<_> = answer.topics[0].partitions.iter().map(|one| code(one.error_code)).take(3).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::OffsetMetadataTooLarge, ErrorCode::None]);
}

/// Before there is a coordinator, too, a question is answered and does not end the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_nobody_coordinates_is_described_in_every_version() {
    let Some(world) = World::firn(&[]).await else { return };
    let mut client = world.client().await;
    for version in versions(ApiKey::DescribeGroups) {
        let request = DescribeGroupsRequest { groups: vec![unique("group")], ..Default::default() };
        let described = client.call(version, &request).await.groups.remove(0);
        assert_eq!(code(described.error_code), ErrorCode::NotCoordinator, "version {version}");
        assert_eq!(described.error_message.is_some(), version >= 6, "version {version}");
    }
}
