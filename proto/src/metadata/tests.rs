//! Tests of records, image and snapshot.

use std::convert::Infallible;
use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::ids::{DirectoryId, NodeId, TopicId, TopicPartition};

/// One record of each kind, every field set. What they encode to is durable: a line of the golden
/// file may be added, never changed.
fn one_of_each() -> Vec<MetadataRecord> {
    let topic = TopicId(Uuid::from_u128(0x1111_2222_3333_4444_5555_6666_7777_8888));
    let tp = TopicPartition::new(topic, 0);
    let pointer = sample_pointer(tp);
    vec![
        MetadataRecord::ClusterFormed { cluster_id: "snow".to_owned() },
        MetadataRecord::FeatureSet { name: "metadata.version".to_owned(), level: 29 },
        MetadataRecord::BrokerSet(Broker {
            id: NodeId(1),
            epoch: 300,
            incarnation: Uuid::from_u128(7),
            endpoints: vec![Endpoint {
                listener: "PLAINTEXT".to_owned(),
                host: "localhost".to_owned(),
                port: 9092,
                protocol: SecurityProtocol::SaslSsl,
            }],
            rack: Some("r1".to_owned()),
            directories: vec![DirectoryId(Uuid::from_u128(9))],
            fenced: true,
            shutting_down: false,
            features: Vec::new(),
            share: Share::Kept,
        }),
        MetadataRecord::BrokerRemoved { id: NodeId(2) },
        MetadataRecord::TopicCreated { id: topic, name: "flights".to_owned(), created_at: 1_700_000_000_000 },
        MetadataRecord::PartitionSet {
            tp,
            state: PartitionState {
                replicas: vec![NodeId(1), NodeId(2)],
                directories: vec![DirectoryId(Uuid::from_u128(9)), DirectoryId::UNASSIGNED],
                isr: vec![NodeId(1)],
                elr: vec![NodeId(2)],
                leader: Some(NodeId(1)),
                leader_epoch: 5,
                partition_epoch: 11,
                adding: Vec::new(),
                removing: Vec::new(),
                last_known_leader: None,
                recovery: Recovery::Recovered,
            },
        },
        MetadataRecord::TopicDeleted { id: topic, deleted_at: -1 },
        MetadataRecord::DeletionFinished { id: topic },
        MetadataRecord::ConfigSet {
            resource: ConfigResource::topic("flights"),
            key: "retention.ms".to_owned(),
            value: Some("-1".to_owned()),
        },
        MetadataRecord::ProducerIdsAllocated { next: 2000 },
        MetadataRecord::TierPointerSet { tp, pointer: pointer.clone() },
        MetadataRecord::DeletionPending(DeletedTopic {
            id: topic,
            name: "flights".to_owned(),
            deleted_at: 17,
            tiers: vec![(0, pointer)],
        }),
    ]
}

fn sample_pointer(tp: TopicPartition) -> TierPointer {
    TierPointer {
        generation: 4,
        root: Some(RootRef { uuid: Uuid::from_u128(21), generation: 3, leader_epoch: 4, size: 4096, crc: 0xdead_beef }),
        log_start: 10,
        tier_start: 8,
        tier_end: 1000,
        tail: vec![TailEntry {
            base: 900,
            end: 1000,
            max_timestamp: 1_700_000_000_001,
            object: ObjectRef {
                key: ObjectKey { owner: tp, base_offset: 900, leader_epoch: 5, uuid: Uuid::from_u128(22) },
                start: 0,
                length: 1 << 20,
            },
            footer_position: 1 << 20,
            epochs: vec![(4, 850), (5, 950)],
            format: ObjectFormat::Segment,
            has_aborted: true,
            points: vec![TierPoint { offset: 900, timestamp: 5, position: 0 }],
        }],
        bytes: 3 << 20,
        leader_epoch: 5,
        committed_at: 1_700_000_000_002,
        request: Uuid::from_u128(23),
        end_epoch: -1,
    }
}

/// The records that have a version 1, with all that it added, and those that came with it.
fn one_of_each_new() -> Vec<MetadataRecord> {
    let mut records = one_of_each();
    for record in &mut records {
        match record {
            MetadataRecord::BrokerSet(broker) => {
                broker.features = vec![FeatureRange { name: FEATURE.to_owned(), min: 0, max: 1 }];
                broker.share = Share::Drained;
            }
            MetadataRecord::PartitionSet { state, .. } => {
                state.adding = vec![NodeId(2)];
                state.removing = vec![NodeId(1)];
                state.last_known_leader = Some(NodeId(1));
                state.recovery = Recovery::Recovering;
            }
            MetadataRecord::TierPointerSet { pointer, .. } => pointer.end_epoch = 5,
            MetadataRecord::DeletionPending(deleted) => deleted.tiers[0].1.end_epoch = 5,
            _ => {}
        }
    }
    records.retain(|record| record.level() == 1);
    records.extend([
        MetadataRecord::DutyAssigned { duty: Duty::Sweeper, node: Some(NodeId(1)), epoch: 1 },
        MetadataRecord::DutyAssigned { duty: Duty::Balancer, node: None, epoch: 2 },
        MetadataRecord::VoterBound { id: NodeId(1), directory: DirectoryId(Uuid::from_u128(9)) },
    ]);
    records
}

fn encoded(value: &impl Durable) -> Vec<u8> {
    let mut out = Vec::new();
    value.put(&mut out);
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn records_keep_their_bytes() {
    let lines: Vec<String> = one_of_each().iter().map(|record| hex(&encoded(record))).collect();
    let golden: Vec<&str> = include_str!("golden/records-v0.hex").lines().collect();
    assert_eq!(lines, golden, "{}", lines.join("\n"));
}

#[test]
fn records_of_version_1_keep_their_bytes_and_are_read() {
    let records = one_of_each_new();
    assert_eq!(records.len(), 7);
    let lines: Vec<String> = records.iter().map(|record| hex(&encoded(record))).collect();
    let golden: Vec<&str> = include_str!("golden/records-v1.hex").lines().collect();
    assert_eq!(lines, golden, "{}", lines.join("\n"));
    for record in records {
        assert_eq!(MetadataRecord::take(&mut encoded(&record).as_slice()), Ok(record));
    }
}

#[test]
fn at_the_old_level_a_record_loses_what_is_new_and_is_written_as_before() {
    let mut old = one_of_each().into_iter().filter(|record| {
        matches!(
            record,
            MetadataRecord::BrokerSet(_)
                | MetadataRecord::PartitionSet { .. }
                | MetadataRecord::TierPointerSet { .. }
                | MetadataRecord::DeletionPending(_)
        )
    });
    for record in one_of_each_new() {
        assert_eq!(record.clone().at_level(1), Some(record.clone()));
        let lowered = record.clone().at_level(0);
        if matches!(record, MetadataRecord::DutyAssigned { .. } | MetadataRecord::VoterBound { .. }) {
            assert_eq!(lowered, None, "it cannot be said");
        } else {
            assert_eq!(lowered, old.next());
        }
    }
    assert!(one_of_each().iter().all(|record| record.level() == 0));
}

#[test]
fn the_replicas_of_a_broker_are_found() {
    let mut image = Image::default();
    for record in one_of_each() {
        image.apply(&record);
    }
    let topic = TopicId(Uuid::from_u128(0xabc));
    image.apply(&MetadataRecord::TopicCreated { id: topic, name: "t".to_owned(), created_at: 0 });
    let set = |image: &mut Image, index, replicas: &[i32]| {
        let replicas: Vec<NodeId> = replicas.iter().copied().map(NodeId).collect();
        let Some(MetadataRecord::PartitionSet { mut state, .. }) =
            one_of_each().into_iter().find(|record| matches!(record, MetadataRecord::PartitionSet { .. }))
        else {
            panic!("there is one of each")
        };
        state.replicas = replicas;
        image.apply(&MetadataRecord::PartitionSet { tp: TopicPartition::new(topic, index), state });
    };
    let of = |image: &Image, id| image.replicas_of(NodeId(id)).map(|tp| tp.partition).collect::<Vec<_>>();
    set(&mut image, 0, &[1, 2]);
    set(&mut image, 1, &[2, 3]);
    assert_eq!((of(&image, 1), of(&image, 2), of(&image, 3)), (vec![0], vec![0, 1], vec![1]));
    set(&mut image, 0, &[3, 1]);
    assert_eq!((of(&image, 1), of(&image, 2), of(&image, 3)), (vec![0], vec![1], vec![0, 1]));
    image.apply(&MetadataRecord::TopicDeleted { id: topic, deleted_at: 1 });
    assert_eq!((1..4).map(|id| image.replica_count(NodeId(id))).sum::<usize>(), 0);
}

#[test]
fn duties_and_voters_are_remembered() {
    let mut image = Image::default();
    assert_eq!((image.duty(Duty::Sweeper), image.duty_epoch(Duty::Sweeper)), (None, 0));
    for record in one_of_each_new() {
        image.apply(&record);
    }
    assert_eq!(image.duty(Duty::Sweeper), Some((NodeId(1), 1)));
    assert_eq!((image.duty(Duty::Balancer), image.duty_epoch(Duty::Balancer)), (None, 2));
    assert_eq!(image.voter(NodeId(1)), Some(DirectoryId(Uuid::from_u128(9))));
    image.apply(&MetadataRecord::VoterBound { id: NodeId(1), directory: DirectoryId::UNASSIGNED });
    assert_eq!(image.voter(NodeId(1)), None);
}

#[test]
fn batches_and_snapshots_keep_their_bytes() {
    let batch = Batch { term: 3, base_offset: 300, records: one_of_each() };
    let mut image = Image::default();
    // Without the deletion, there is one of each thing to be written down.
    for record in one_of_each().iter().filter(|record| !matches!(record, MetadataRecord::TopicDeleted { .. })) {
        image.apply(record);
    }
    let mut snapshot = Vec::new();
    let Ok(()) = write_snapshot(&image, |chunk| {
        snapshot.extend_from_slice(&chunk);
        Ok::<_, Infallible>(())
    });
    let lines = [hex(&batch.to_bytes()), hex(&snapshot)];
    let golden: Vec<&str> = include_str!("golden/snapshot-v0.hex").lines().collect();
    assert_eq!(lines.to_vec(), golden, "{}", lines.join("\n"));
    assert_eq!(Batch::from_bytes(&batch.to_bytes()), Ok(batch));
    assert_eq!(SnapshotReader::read_all(&snapshot), Ok(image));
}

#[test]
fn a_record_of_a_newer_version_is_named() {
    let mut bytes = encoded(&MetadataRecord::ProducerIdsAllocated { next: 1 });
    bytes[1] = 1;
    assert_eq!(
        MetadataRecord::take(&mut bytes.as_slice()),
        Err(DecodeError::UnknownVersion { number: 10, version: 1 })
    );
    bytes[1] = 0;
    bytes[0] = 99;
    assert_eq!(
        MetadataRecord::take(&mut bytes.as_slice()),
        Err(DecodeError::UnknownVariant { what: "record", number: 99 })
    );
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let mut image = Image::default();
    for record in one_of_each() {
        image.apply(&record);
    }
    let mut whole = Vec::new();
    let Ok(()) = write_snapshot(&image, |chunk| {
        whole.extend_from_slice(&chunk);
        Ok::<_, Infallible>(())
    });
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        assert!(SnapshotReader::read_all(&damaged).is_err(), "flipped a bit of byte {at}");
        assert!(SnapshotReader::read_all(&whole[..at]).is_err(), "cut at byte {at}");
    }
}

#[test]
fn deleting_a_topic_leaves_its_tier_to_be_swept_and_nothing_else() {
    let id = TopicId(Uuid::from_u128(1));
    let tp = TopicPartition::new(id, 0);
    let state = PartitionState {
        replicas: vec![NodeId(0)],
        directories: vec![DirectoryId::UNASSIGNED],
        isr: vec![NodeId(0)],
        elr: Vec::new(),
        leader: Some(NodeId(0)),
        leader_epoch: 0,
        partition_epoch: 0,
        adding: Vec::new(),
        removing: Vec::new(),
        last_known_leader: None,
        recovery: Recovery::Recovered,
    };
    let mut image = Image::default();
    for record in [
        MetadataRecord::TopicCreated { id, name: "a.b".to_owned(), created_at: 1 },
        MetadataRecord::PartitionSet { tp, state },
        MetadataRecord::ConfigSet {
            resource: ConfigResource::topic("a.b"),
            key: "retention.ms".to_owned(),
            value: Some("1".to_owned()),
        },
        MetadataRecord::TierPointerSet { tp, pointer: sample_pointer(tp) },
    ] {
        image.apply(&record);
    }
    assert_eq!(image.topic_colliding_with("a_b").map(|topic| topic.id), Some(id));
    let before = image.clone();

    image.apply(&MetadataRecord::TopicDeleted { id, deleted_at: 5 });
    assert_eq!(image.topic_named("a.b"), None);
    assert_eq!(image.topic_colliding_with("a_b"), None);
    assert_eq!(image.partition_count(), 0);
    assert_eq!(image.configs(&ConfigResource::topic("a.b")), None);
    assert_eq!(image.tier(tp), None);
    let pending = image.pending_delete(id).expect("it had a pointer");
    assert_eq!((pending.deleted_at, pending.tiers.len()), (5, 1));
    let changes: Vec<_> = image.topics_changed(&before).collect();
    assert_eq!(changes, [TopicChange::Removed(before.topic(id).expect("it was there"))]);
    let tiers: Vec<_> = image.tiers_changed(&before).collect();
    assert_eq!(tiers, [TierChange { tp, pointer: None }]);

    image.apply(&MetadataRecord::DeletionFinished { id });
    assert_eq!(image.pending_deletes().count(), 0);
}

fn features(max: Option<u8>) -> Vec<FeatureRange> {
    max.map(|max| FeatureRange { name: FEATURE.to_owned(), min: 0, max: max.into() }).into_iter().collect()
}

/// Records about few things, so that they meet and contradict each other.
fn any_record() -> impl Strategy<Value = MetadataRecord> {
    let topic = || (0u128..4).prop_map(|id| TopicId(Uuid::from_u128(id)));
    let tp = || (topic(), -1i32..4).prop_map(|(topic, index)| TopicPartition::new(topic, index));
    let name = || prop_oneof!["[ab][._][ab]", "[a-c]"];
    let resource = || {
        (prop_oneof![Just(ConfigKind::Topic), Just(ConfigKind::Broker)], name())
            .prop_map(|(kind, name)| ConfigResource { kind, name })
    };
    let state =
        (vec(0i32..3, 0..3), any::<Option<i32>>(), any::<i32>()).prop_map(|(replicas, leader, epoch)| PartitionState {
            directories: replicas.iter().map(|_| DirectoryId::UNASSIGNED).collect(),
            isr: replicas.iter().copied().map(NodeId).collect(),
            replicas: replicas.into_iter().map(NodeId).collect(),
            elr: Vec::new(),
            leader: leader.map(NodeId),
            leader_epoch: epoch,
            partition_epoch: epoch,
            adding: leader.map(NodeId).into_iter().collect(),
            removing: Vec::new(),
            last_known_leader: leader.map(NodeId),
            recovery: if epoch % 2 == 0 { Recovery::Recovered } else { Recovery::Recovering },
        });
    let broker =
        (0i32..3, any::<i64>(), any::<bool>(), any::<Option<u8>>()).prop_map(|(id, epoch, fenced, rack)| Broker {
            id: NodeId(id),
            epoch,
            incarnation: Uuid::from_u128(u128::from(epoch.unsigned_abs())),
            endpoints: Vec::new(),
            rack: rack.map(|rack| rack.to_string()),
            directories: Vec::new(),
            fenced,
            shutting_down: !fenced,
            features: features(rack),
            share: [Share::Kept, Share::Filled, Share::Drained][epoch.rem_euclid(3) as usize],
        });
    prop_oneof![
        name().prop_map(|cluster_id| MetadataRecord::ClusterFormed { cluster_id }),
        (name(), 0i16..3).prop_map(|(name, level)| MetadataRecord::FeatureSet { name, level }),
        broker.prop_map(MetadataRecord::BrokerSet),
        (0i32..3).prop_map(|id| MetadataRecord::BrokerRemoved { id: NodeId(id) }),
        (topic(), name(), any::<i64>())
            .prop_map(|(id, name, created_at)| { MetadataRecord::TopicCreated { id, name, created_at } }),
        (tp(), state).prop_map(|(tp, state)| MetadataRecord::PartitionSet { tp, state }),
        (topic(), any::<i64>()).prop_map(|(id, deleted_at)| MetadataRecord::TopicDeleted { id, deleted_at }),
        topic().prop_map(|id| MetadataRecord::DeletionFinished { id }),
        (resource(), name(), any::<Option<bool>>()).prop_map(|(resource, key, value)| {
            MetadataRecord::ConfigSet { resource, key, value: value.map(|v| v.to_string()) }
        }),
        any::<i64>().prop_map(|next| MetadataRecord::ProducerIdsAllocated { next }),
        (tp(), any::<u64>()).prop_map(|(tp, generation)| MetadataRecord::TierPointerSet {
            tp,
            pointer: TierPointer { generation, end_epoch: (generation % 3) as i32 - 1, ..sample_pointer(tp) },
        }),
        (1i32..3, any::<Option<bool>>()).prop_map(|(epoch, node)| MetadataRecord::DutyAssigned {
            duty: if epoch == 1 { Duty::Sweeper } else { Duty::Balancer },
            node: node.map(|node| NodeId(node.into())),
            epoch,
        }),
        (0i32..3, 0u128..3).prop_map(|(id, directory)| MetadataRecord::VoterBound {
            id: NodeId(id),
            directory: DirectoryId(Uuid::from_u128(directory)),
        }),
    ]
}

fn applied(records: &[MetadataRecord]) -> Image {
    let mut image = Image::default();
    for record in records {
        image.apply(record);
    }
    image
}

proptest! {
    #[test]
    fn records_round_trip(record in any_record()) {
        let bytes = encoded(&record);
        let mut input = bytes.as_slice();
        prop_assert_eq!(MetadataRecord::take(&mut input), Ok(record));
        prop_assert!(input.is_empty());
        for cut in 0..bytes.len() {
            prop_assert!(MetadataRecord::take(&mut &bytes[..cut]).is_err());
        }
    }

    #[test]
    fn no_bytes_upset_the_decoder(bytes in vec(any::<u8>(), 0..256)) {
        let _ = MetadataRecord::take(&mut bytes.as_slice());
        let _ = Batch::from_bytes(&bytes);
        let _ = SnapshotReader::read_all(&bytes);
    }

    #[test]
    fn apply_takes_any_records_and_counts_them(records in vec(any_record(), 0..64)) {
        let image = applied(&records);
        prop_assert_eq!(image.offset(), records.len() as u64);
        prop_assert_eq!(&image, &applied(&records));
        let partitions: usize = image.topics().map(|topic| topic.partitions.len()).sum();
        prop_assert_eq!(image.partition_count(), partitions as u64);
        prop_assert_eq!(image.topics().count(), image.topic_count());
        for id in (-1..4).map(NodeId) {
            let found: Vec<_> = image.replicas_of(id).collect();
            let mut scanned: Vec<_> = image
                .topics()
                .flat_map(|t| t.indexed().map(|(index, state)| (TopicPartition::new(t.id, index), state)))
                .filter(|(_, state)| state.replicas.contains(&id))
                .map(|(tp, _)| tp)
                .collect();
            scanned.sort_unstable();
            prop_assert_eq!(found, scanned);
        }
    }

    #[test]
    fn a_snapshot_restores_the_image(records in vec(any_record(), 0..64)) {
        let image = applied(&records);
        let mut chunks = Vec::new();
        let Ok(()) = write_snapshot(&image, |chunk| { chunks.push(chunk); Ok::<_, Infallible>(()) });
        prop_assert_eq!(SnapshotReader::read_all(&chunks.concat()), Ok(image));
    }

    #[test]
    fn a_batch_applies_only_where_it_was_decided(
        records in vec(any_record(), 1..16), term in 0u64..3, met in 0u64..3, ahead in 0u64..2,
    ) {
        let mut image = Image::default();
        let batch = Batch { term, base_offset: ahead, records: records.clone() };
        let outcome = image.apply_batch(met, &batch);
        if term == met && ahead == 0 {
            prop_assert_eq!(outcome, Ok(()));
            prop_assert_eq!(image, applied(&records));
        } else {
            prop_assert!(outcome.is_err());
            prop_assert_eq!(image, Image::default());
        }
    }
}
