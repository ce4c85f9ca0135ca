//! What is in `__consumer_offsets`, byte by byte: other tools read it, and so does every later version.

use proptest::prelude::*;

use super::*;

fn group(members: Vec<MemberRecord>) -> GroupRecord {
    let metadata = MetadataRecord {
        protocol_type: "consumer".into(),
        generation: 5,
        protocol: Some("range".into()),
        leader: Some("m-1".into()),
        since: 1_700_000_000_000,
        members,
    };
    GroupRecord::Metadata { group: "g".into(), metadata: Some(metadata) }
}

fn member() -> MemberRecord {
    MemberRecord {
        member: MemberRef { member_id: "m-1".into(), instance_id: Some("i".into()) },
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: 300_000,
        session_timeout_ms: 45_000,
        subscription: Bytes::from_static(&[0, 1, 2]),
        assignment: Bytes::from_static(&[3]),
    }
}

fn offset(expire_timestamp: Option<Millis>) -> GroupRecord {
    let offset = CommittedOffset {
        offset: 4_711,
        leader_epoch: if expire_timestamp.is_some() { -1 } else { 7 },
        metadata: "meta".into(),
        commit_timestamp: 1_700_000_000_000,
        expire_timestamp,
    };
    GroupRecord::Offset { group: "g".into(), topic: "flights".into(), partition: 3, offset: Some(offset) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Each line: what it is, the key's bytes and the value's, by Kafka's schemas (`GroupMetadataKey` 2, `OffsetCommitKey` 1).
#[test]
fn records_are_what_they_were() {
    let key_only = GroupRecord::Metadata { group: "g".into(), metadata: None };
    let gone = GroupRecord::Offset { group: "g".into(), topic: "flights".into(), partition: 3, offset: None };
    let empty = group(Vec::new());
    let cases = [
        ("group", group(vec![member()])),
        ("empty", empty),
        ("deleted", key_only),
        ("offset", offset(None)),
        ("expiring", offset(Some(1_700_000_060_000))),
        ("forgotten", gone),
    ];
    let lines = cases.map(|(name, record)| {
        let (key, value) = record.encode().expect("short strings");
        assert_eq!(GroupRecord::decode(key.clone(), value.clone()), Ok(Some(record)), "{name}");
        format!("{name} {} {}", hex(&key), value.map_or_else(|| "-".to_owned(), |value| hex(&value)))
    });
    let golden: Vec<&str> = include_str!("golden-v1.hex").lines().collect();
    assert_eq!(lines.to_vec(), golden, "{}", lines.join("\n"));
}

#[test]
fn groups_are_where_kafka_puts_them() {
    // "console-consumer".hashCode() == -1178083226, "test".hashCode() == 3556498, "".hashCode() == 0;
    // "polygenelubricants".hashCode() is the smallest of all ints, which has no absolute value.
    for (group, partition) in [("test", 48), ("", 0), ("polygenelubricants", 0)] {
        assert_eq!(partition_for(group, 50), partition, "{group}");
    }
    assert_eq!(partition_for("polygenelubricants", 7), 0);
}

fn both_ways(record: &GroupRecord) {
    let (key, value) = record.encode().expect("it fits the schema");
    assert_eq!(GroupRecord::decode(key, value), Ok(Some(record.clone())));
}

#[test]
fn records_are_kafkas() {
    let offset = CommittedOffset {
        offset: 5,
        leader_epoch: 2,
        metadata: "m".to_owned(),
        commit_timestamp: 7,
        expire_timestamp: None,
    };
    let record = GroupRecord::Offset {
        group: "g".to_owned(),
        topic: "t".to_owned(),
        partition: 3,
        offset: Some(offset.clone()),
    };
    let (key, value) = record.encode().expect("it fits the schema");
    assert_eq!(&key[..], b"\x00\x01\x00\x01g\x00\x01t\x00\x00\x00\x03");
    let value = value.expect("it is no tombstone");
    assert_eq!(
        &value[..],
        b"\x00\x03\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x02\x00\x01m\x00\x00\x00\x00\x00\x00\x00\x07"
    );
    both_ways(&record);
    let expiring = CommittedOffset { leader_epoch: -1, expire_timestamp: Some(9), ..offset };
    both_ways(&GroupRecord::Offset {
        group: "g".to_owned(),
        topic: "t".to_owned(),
        partition: 3,
        offset: Some(expiring),
    });
    both_ways(&GroupRecord::Offset { group: "g".to_owned(), topic: "t".to_owned(), partition: 3, offset: None });
    both_ways(&GroupRecord::Metadata { group: "g".to_owned(), metadata: None });
    both_ways(&GroupRecord::Metadata {
        group: "g".to_owned(),
        metadata: Some(MetadataRecord {
            protocol_type: "consumer".to_owned(),
            generation: 4,
            protocol: Some("range".to_owned()),
            leader: Some("m".to_owned()),
            since: 11,
            members: vec![MemberRecord {
                member: MemberRef { member_id: "m".to_owned(), instance_id: Some("i".to_owned()) },
                client_id: "c".to_owned(),
                client_host: "/127.0.0.1".to_owned(),
                rebalance_timeout_ms: 30_000,
                session_timeout_ms: 10_000,
                subscription: Bytes::from_static(b"s"),
                assignment: Bytes::from_static(b"a"),
            }],
        }),
    });
}

#[test]
fn records_of_other_coordinators_are_passed_over() {
    let key = Bytes::from_static(b"\x00\x03anything");
    assert_eq!(GroupRecord::decode(key, None), Ok(None));
    assert!(GroupRecord::decode(Bytes::from_static(b"\x00"), None).is_err());
    assert!(GroupRecord::decode(Bytes::from_static(b"\x00\x02\x00\x05x"), None).is_err());
}

#[test]
fn subscriptions_tell_their_topics() {
    let metadata = Bytes::from_static(b"\x00\x00\x00\x00\x00\x02\x00\x01a\x00\x01b\xff\xff\xff\xff");
    let topics = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
    assert_eq!(subscribed_topics(metadata), Some(topics));
    assert_eq!(subscribed_topics(Bytes::from_static(b"\x00")), None);
}

fn text() -> impl Strategy<Value = String> {
    "[a-z0-9é]{0,12}"
}

fn members() -> impl Strategy<Value = Vec<MemberRecord>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
    let one = (text(), prop::option::of(text()), text(), text(), 0..i32::MAX, 0..i32::MAX, bytes(), bytes());
    let one = one.prop_map(|(member_id, instance_id, client_id, client_host, rebalance, session, sub, assignment)| {
        MemberRecord {
            member: MemberRef { member_id, instance_id },
            client_id,
            client_host,
            rebalance_timeout_ms: rebalance,
            session_timeout_ms: session,
            subscription: sub,
            assignment,
        }
    });
    prop::collection::vec(one, 0..4)
}

fn records() -> impl Strategy<Value = GroupRecord> {
    let metadata = (text(), any::<i32>(), prop::option::of(text()), prop::option::of(text()), 0..i64::MAX, members());
    let metadata = metadata.prop_map(|(protocol_type, generation, protocol, leader, since, members)| MetadataRecord {
        protocol_type,
        generation,
        protocol,
        leader,
        since,
        members,
    });
    let group =
        (text(), prop::option::of(metadata)).prop_map(|(group, metadata)| GroupRecord::Metadata { group, metadata });
    // The schema that has room for a time of expiry has none for an epoch.
    let committed = (any::<i64>(), any::<i32>(), text(), any::<i64>(), prop::option::of(0..i64::MAX)).prop_map(
        |(offset, leader_epoch, metadata, commit_timestamp, expire_timestamp)| CommittedOffset {
            offset,
            leader_epoch: if expire_timestamp.is_some() { -1 } else { leader_epoch },
            metadata,
            commit_timestamp,
            expire_timestamp,
        },
    );
    let offset = (text(), text(), any::<i32>(), prop::option::of(committed))
        .prop_map(|(group, topic, partition, offset)| GroupRecord::Offset { group, topic, partition, offset });
    prop_oneof![group, offset]
}

proptest! {
    #[test]
    fn records_read_back_as_they_were_written(record in records()) {
        let (key, value) = record.encode().expect("short strings");
        prop_assert_eq!(GroupRecord::decode(key, value), Ok(Some(record)));
    }

    #[test]
    fn anything_has_an_answer(
        kind in 0..4u8,
        key in prop::collection::vec(any::<u8>(), 0..40),
        value in prop::option::of(prop::collection::vec(any::<u8>(), 0..80)),
    ) {
        let key = [&[0, kind], &key[..]].concat();
        let _ = GroupRecord::decode(key.into(), value.map(Bytes::from));
    }
}
