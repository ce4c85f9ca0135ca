//! Commands and outcomes survive the way, keep their bytes, and nothing that is damaged passes for one.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use proto::ids::{DirectoryId, NodeId, TopicId, TopicPartition, Uuid};
use proto::metadata::{ConfigResource, Durable, Duty, FeatureRange, TierPointer};

use super::calls::Hint;
use super::outcome::Answer;
use super::{decode, encode};
use crate::balance::{Disk, Load, PartitionLoad};
use crate::command::{
    AlterConfigs, AlterReassignments, Clean, Command, ConfigChange, ConfigOp, CreatedTopic, DeleteRecords,
    DeleteTopics, ElectLeaders, Election, Elections, Mode, Outcome, ProducerIdBlock, Refusal, RegisterBroker,
    TierCommit, TierRefusal, TopicSelector,
};
use crate::session::{Beat, BeatReply, Want};

fn survives<T: Durable + PartialEq + Debug>(value: &T) {
    let bytes = encode(value);
    assert_eq!(decode::<T>(&bytes).as_ref(), Ok(value));
    for cut in 0..bytes.len() {
        // Whatever it is, it is not read as the whole, and nothing panics.
        assert_ne!(decode::<T>(&bytes[..cut]).as_ref(), Ok(value), "cut at {cut}");
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert!(decode::<T>(&longer).is_err(), "with a byte too many");
}

fn tp() -> TopicPartition {
    TopicPartition::new(TopicId(Uuid::from_u128(7)), 3)
}

fn pointer() -> TierPointer {
    TierPointer { generation: 4, tier_end: 100, log_start: -1, ..TierPointer::default() }
}

#[test]
fn commands_survive() {
    let ops = vec![
        ("a".to_owned(), ConfigOp::Set("1".to_owned())),
        ("b".to_owned(), ConfigOp::Delete),
        ("c".to_owned(), ConfigOp::Append { items: "x".to_owned(), inherited: String::new() }),
        ("d".to_owned(), ConfigOp::Subtract { items: "y".to_owned(), inherited: "z".to_owned() }),
    ];
    let replaced = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    let resources = vec![
        (ConfigResource::topic("t"), ConfigChange::Incremental(ops)),
        (ConfigResource::all_brokers(), ConfigChange::Replace(replaced)),
    ];
    let commit = TierCommit {
        tp: tp(),
        leader_epoch: 2,
        expected_generation: 3,
        request: Uuid::from_u128(9),
        pointer: pointer(),
    };
    let commands = [
        Command::AlterConfigs(AlterConfigs { resources, mode: Mode::Validate }),
        Command::DeleteTopics(DeleteTopics {
            topics: vec![TopicSelector::Name("n".to_owned()), TopicSelector::Id(tp().topic)],
        }),
        Command::AllocateProducerIds { broker: NodeId(1), broker_epoch: 77 },
        Command::CommitTier(vec![commit]),
        Command::DeleteRecords(vec![DeleteRecords { tp: tp(), leader_epoch: 1, log_start: 5 }]),
        Command::ElectLeaders(ElectLeaders { election: Election::Unclean, partitions: Some(vec![tp()]) }),
        Command::ElectLeaders(ElectLeaders { election: Election::Preferred, partitions: None }),
        Command::AlterReassignments(AlterReassignments {
            changes: vec![(tp(), Some(vec![NodeId(1), NodeId(2)])), (tp(), None)],
            allow_factor_change: true,
            planned_on: vec![(tp(), 7)],
        }),
        Command::RegisterBroker(RegisterBroker {
            id: NodeId(1),
            incarnation: Uuid::from_u128(5),
            previous_epoch: Some(-1),
            clean: Clean::SameBoot,
            endpoints: Vec::new(),
            rack: Some("r".to_owned()),
            directories: vec![DirectoryId(Uuid::from_u128(6))],
            offline_directories: 1,
            features: vec![FeatureRange { name: "f".to_owned(), min: 0, max: 1 }],
        }),
        Command::BindVoter { id: NodeId(1), directory: DirectoryId(Uuid::from_u128(6)) },
        Command::AssignDuties(vec![(Duty::Sweeper, NodeId(2))]),
        Command::Sweep(Elections { unclean: true, preferred: false }),
    ];
    for command in &commands {
        survives(command);
    }
}

#[test]
fn outcomes_survive() {
    let created = CreatedTopic { id: tp().topic, name: "t".to_owned(), partitions: 3, replication_factor: 1 };
    let refused = || Refusal::FencedLeaderEpoch { asked: 1, current: 2 };
    let outcomes = [
        Outcome::FormCluster("c".to_owned()),
        Outcome::RegisterBroker(9),
        Outcome::SetBrokerState,
        Outcome::CreateTopics(vec![Ok(created), Err(Refusal::TopicExists("x".to_owned()))]),
        Outcome::DeleteTopics(vec![Ok((tp().topic, "t".to_owned())), Err(Refusal::UnknownTopicId)]),
        Outcome::CreatePartitions(vec![Ok(()), Err(Refusal::InvalidPartitions("why".to_owned()))]),
        Outcome::AlterConfigs(vec![Err(Refusal::InvalidConfig("why".to_owned())), Ok(())]),
        Outcome::AllocateProducerIds(ProducerIdBlock { first: 1_000, count: 1_000 }),
        Outcome::CommitTier(vec![
            Ok(Arc::new(pointer())),
            Err(TierRefusal::Stale(Some(Arc::new(pointer())))),
            Err(TierRefusal::Stale(None)),
            Err(TierRefusal::Fenced { asked: 1, current: 2 }),
            Err(TierRefusal::Gone),
        ]),
        Outcome::DeleteRecords(vec![Ok(Arc::new(pointer())), Err(refused())]),
        Outcome::AlterPartitions(vec![Ok(()), Err(Refusal::IneligibleReplica(NodeId(2)))]),
        Outcome::ElectLeaders(vec![(tp(), Ok(())), (tp(), Err(Refusal::ElectionNotNeeded))]),
        Outcome::FinishDeletions,
        Outcome::AlterReassignments(vec![Err(Refusal::NoReassignmentInProgress), Ok(())]),
        Outcome::AssignDirectories(vec![Ok(())]),
        Outcome::UnregisterBroker,
        Outcome::SetShare,
        Outcome::UpdateFeatures(vec![Err(Refusal::FeatureUpdateFailed("why".to_owned()))]),
        Outcome::BindVoter,
        Outcome::AssignDuties(vec![1, 300]),
        Outcome::Sweep(3),
    ];
    for outcome in outcomes {
        survives(&outcome);
        survives(&Answer::Done { offset: 300, outcome });
    }
    let hint = Hint { id: NodeId(1), address: "b:1".to_owned() };
    let answers = [
        Answer::Refused(refused()),
        Answer::NotLeader(Some(hint)),
        Answer::NotLeader(None),
        Answer::Unknown,
        Answer::NoSpace,
        Answer::Ended,
    ];
    for answer in answers {
        survives(&answer);
    }
}

#[test]
fn beats_survive() {
    let load = Load {
        disk: Disk { used: 1 << 40, total: 1 << 41 },
        partitions: vec![(tp(), PartitionLoad { bytes_in: 1, bytes_out: 2, hot: 3 })],
    };
    for want in [Want::Serve, Want::StayFenced, Want::ShutDown, Want::Stopped] {
        survives(&Beat {
            id: NodeId(1),
            epoch: 300,
            applied: 301,
            want,
            directories: Some(vec![DirectoryId(Uuid::from_u128(6))]),
            load: Some(load.clone()),
            wall: 1_700_000_000_000,
        });
    }
    survives(&BeatReply { fenced: true, may_stop: false, caught_up: true, leader_wall: -1, stale: false });
}

#[test]
fn commands_keep_their_bytes() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let allocate = Command::AllocateProducerIds { broker: NodeId(1), broker_epoch: 77 };
    assert_eq!(hex(&encode(&allocate)), "08029a01");
    let elect = Command::ElectLeaders(ElectLeaders { election: Election::Unclean, partitions: None });
    assert_eq!(hex(&encode(&elect)), "0c0200");
    let done = Answer::Done { offset: 300, outcome: Outcome::RegisterBroker(9) };
    assert_eq!(hex(&encode(&done)), "01ac020212");
    let refused = Answer::Refused(Refusal::StaleBrokerEpoch { asked: 1, current: 2 });
    assert_eq!(hex(&encode(&refused)), "020d0204");
}
