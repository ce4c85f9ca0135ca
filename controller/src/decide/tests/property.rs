//! Whatever is asked in whatever order: what is decided applies, and partitions keep what must hold of them.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proto::metadata::Recovery;

use super::*;

/// Stands for the epoch that the broker has when the command is carried out.
const CURRENT: i64 = -77;

/// Commands about few brokers and topics, so that they meet each other.
fn any_command() -> impl Strategy<Value = Command> {
    let name = || prop_oneof!["[ab][._][ab]", "[a-c]", Just(" ".to_owned())];
    let id = || (0u128..6).prop_map(|id| TopicId(Uuid::from_u128(id)));
    let tp = move || (id(), 0i32..3).prop_map(|(topic, index)| TopicPartition::new(topic, index));
    let replicas = || vec((0i32..4).prop_map(NodeId), 0..4);
    let mode = || prop_oneof![Just(Mode::Commit), Just(Mode::Validate)];
    let new_topic = (id(), name(), -2i32..4, -2i16..4, proptest::collection::btree_map(0i32..3, replicas(), 0..3))
        .prop_map(|(id, name, partitions, replication_factor, assignments)| NewTopic {
            id,
            name,
            partitions,
            replication_factor,
            shortage: if partitions == 3 { Shortage::Shrink } else { Shortage::Refuse },
            assignments,
            configs: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        });
    let state = prop_oneof![Just(BrokerState::Active), Just(BrokerState::ShuttingDown), Just(BrokerState::Fenced)];
    let tier = (tp(), 0i32..4, 0u64..3, 0u128..9, vec(0i64..30, 1..4)).prop_map(
        |(tp, leader_epoch, expected_generation, request, mut bounds)| {
            bounds.sort_unstable();
            TierCommit {
                tp,
                leader_epoch,
                expected_generation,
                request: Uuid::from_u128(request),
                pointer: pointer(tp, &bounds),
            }
        },
    );
    prop_oneof![
        any_registration().prop_map(Command::RegisterBroker),
        any_registration().prop_map(Command::RegisterBroker),
        (0i32..4, state, any::<Option<bool>>()).prop_map(|(id, state, directories)| {
            Command::SetBrokerState(SetBrokerState {
                id: NodeId(id),
                broker_epoch: CURRENT,
                state,
                directories: directories.map(|one| vec![directory(id, u128::from(one))]),
            })
        }),
        (vec(new_topic, 0..4), mode())
            .prop_map(|(topics, mode)| { Command::CreateTopics(CreateTopics { mode, ..creation(topics) }) }),
        (name(), id(), any::<bool>()).prop_map(|(name, id, by_name)| {
            let topic = if by_name { TopicSelector::Name(name) } else { TopicSelector::Id(id) };
            Command::DeleteTopics(DeleteTopics { topics: vec![topic] })
        }),
        (name(), -1i32..5, proptest::option::of(vec(replicas(), 0..3)), mode()).prop_map(
            |(name, count, assignments, mode)| {
                let topics = vec![NewPartitions { name, count, assignments }];
                Command::CreatePartitions(CreatePartitions { topics, mode })
            }
        ),
        (0i32..3, 0i64..20)
            .prop_map(|(broker, broker_epoch)| Command::AllocateProducerIds { broker: NodeId(broker), broker_epoch }),
        vec(tier, 0..3).prop_map(Command::CommitTier),
        (tp(), 0i32..3, 0i64..30).prop_map(|(tp, leader_epoch, log_start)| {
            Command::DeleteRecords(vec![DeleteRecords { tp, leader_epoch, log_start }])
        }),
        (tp(), replicas(), any::<bool>()).prop_map(|(tp, isr, recovered)| {
            Command::AlterPartitions(AlterPartitions {
                broker: NodeId(-1),
                broker_epoch: CURRENT,
                partitions: vec![IsrChange {
                    tp,
                    leader_epoch: -1,
                    partition_epoch: -1,
                    isr: isr.into_iter().map(|id| (id, -1)).collect(),
                    recovered,
                }],
            })
        }),
        (tp(), proptest::option::of(replicas()), any::<bool>()).prop_map(|(tp, target, allow_factor_change)| {
            Command::AlterReassignments(AlterReassignments {
                changes: vec![(tp, target)],
                allow_factor_change,
                planned_on: Vec::new(),
            })
        }),
        (0i32..4, tp(), any::<bool>()).prop_map(|(id, tp, one)| {
            Command::AssignDirectories(AssignDirectories {
                broker: NodeId(id),
                broker_epoch: CURRENT,
                places: vec![(tp, directory(id, u128::from(one)))],
            })
        }),
        (0i32..4).prop_map(|id| Command::UnregisterBroker(NodeId(id))),
        (0i32..4, 0usize..3).prop_map(|(id, share)| Command::SetShare {
            id: NodeId(id),
            share: [Share::Kept, Share::Drained, Share::Filled][share],
        }),
        any::<(bool, bool)>().prop_map(|(unclean, preferred)| Command::Sweep(Elections { unclean, preferred })),
        (0i32..4).prop_map(|id| Command::AssignDuties(vec![(proto::metadata::Duty::Sweeper, NodeId(id))])),
        (any::<bool>(), "[a-c]", setting()).prop_map(|(all, name, (key, value))| {
            let resource = if all { ConfigResource::all_brokers() } else { ConfigResource::topic(name) };
            let ops = vec![(key.to_owned(), ConfigOp::Set(value.to_owned()))];
            let resources = vec![(resource, ConfigChange::Incremental(ops))];
            Command::AlterConfigs(AlterConfigs { resources, mode: Mode::Commit })
        }),
        any::<bool>().prop_map(|unclean| {
            let election = if unclean { Election::Unclean } else { Election::Preferred };
            Command::ElectLeaders(ElectLeaders { election, partitions: None })
        }),
        (vec(id(), 0..3), 0i32..2)
            .prop_map(|(topics, duty_epoch)| Command::FinishDeletions(FinishDeletions { topics, duty_epoch })),
    ]
}

fn any_registration() -> impl Strategy<Value = RegisterBroker> {
    let clean = prop_oneof![3 => Just(Clean::Yes), 1 => Just(Clean::SameBoot), 1 => Just(Clean::No)];
    let disks = prop_oneof![5 => Just(0i32), 1 => Just(10)];
    (0i32..4, 0u128..9, clean, disks, 0u32..2, 0u8..4).prop_map(
        |(id, incarnation, clean, disk, offline_directories, age)| RegisterBroker {
            clean,
            directories: vec![directory(id + disk, 0), directory(id, 1)],
            offline_directories,
            features: if age == 0 { Vec::new() } else { supported_features() },
            ..registration(id, incarnation)
        },
    )
}

fn setting() -> impl Strategy<Value = (&'static str, &'static str)> {
    prop_oneof![
        Just(("min.insync.replicas", "1")),
        Just(("min.insync.replicas", "2")),
        Just(("min.insync.replicas", "3")),
        Just(("unclean.leader.election.enable", "true")),
        Just(("unclean.leader.election.enable", "false")),
        Just(("firn.flush", "os")),
    ]
}

/// Puts into `command` what a live broker would know of `image`.
fn informed(image: &Image, command: Command) -> Command {
    let epoch = |id: NodeId| image.broker(id).map_or(0, |broker| broker.epoch);
    match command {
        Command::SetBrokerState(change) if change.broker_epoch == CURRENT => {
            Command::SetBrokerState(SetBrokerState { broker_epoch: epoch(change.id), ..change })
        }
        Command::AssignDirectories(assign) => {
            Command::AssignDirectories(AssignDirectories { broker_epoch: epoch(assign.broker), ..assign })
        }
        Command::AlterPartitions(mut alter) => {
            for change in &mut alter.partitions {
                let Some(state) = image.partition(change.tp) else { continue };
                (change.leader_epoch, change.partition_epoch) = (state.leader_epoch, state.partition_epoch);
                alter.broker = state.leader.unwrap_or(alter.broker);
                if !change.isr.iter().any(|(id, _)| *id == alter.broker) {
                    change.isr.push((alter.broker, -1));
                }
            }
            alter.broker_epoch = epoch(alter.broker);
            Command::AlterPartitions(alter)
        }
        other => other,
    }
}

fn set(ids: &[NodeId]) -> BTreeSet<NodeId> {
    let set: BTreeSet<NodeId> = ids.iter().copied().collect();
    assert_eq!(set.len(), ids.len(), "{ids:?}");
    set
}

/// What holds of every image that decide led to.
fn check_image(image: &Image, policy: &Policy) {
    for topic in image.topics() {
        assert!(!topic.partitions.is_empty(), "{topic:?}");
        for (index, state) in topic.indexed() {
            let (replicas, isr, elr) = (set(&state.replicas), set(&state.isr), set(&state.elr));
            let (adding, removing) = (set(&state.adding), set(&state.removing));
            assert!(!replicas.is_empty(), "{state:?}");
            assert!([&isr, &elr, &adding, &removing].iter().all(|ids| ids.is_subset(&replicas)), "{state:?}");
            assert!(isr.is_disjoint(&elr) && adding.is_disjoint(&removing), "{state:?}");
            assert_eq!(state.directories.len(), state.replicas.len());
            let required = policy.min_in_sync(image, &topic.name).min(replicas.len());
            assert!(elr.is_empty() || isr.len() < required, "{state:?}");
            assert!(state.last_known_leader.is_none() || isr.is_empty(), "{state:?}");
            for id in &isr {
                assert!(!image.broker(*id).expect("it is in sync").fenced, "{state:?}");
            }
            match state.leader {
                Some(leader) => assert!(isr.contains(&leader), "{state:?}"),
                None => assert!(isr.is_empty(), "{state:?}"),
            }
            if let Some(pointer) = image.tier(TopicPartition::new(topic.id, index)) {
                assert!(pointer.tier_start <= pointer.tier_end, "{pointer:?}");
            }
        }
    }
}

/// What holds of a partition before and after any command.
fn check_step(command: &Command, old: &PartitionState, new: &PartitionState, level: i16) {
    let told = format!("{command:?}\n{old:?}\n{new:?}");
    assert!(new.leader_epoch >= old.leader_epoch, "{told}");
    assert!(new.leader == old.leader || new.leader_epoch > old.leader_epoch, "{told}");
    assert!(new == old || new.partition_epoch == old.partition_epoch + 1, "{told}");
    let before: BTreeSet<NodeId> = old.isr.iter().chain(&old.elr).copied().collect();
    let holders = |state: &PartitionState| state.isr.iter().chain(&state.elr).any(|id| before.contains(id));
    let loses = matches!(command, Command::RegisterBroker(_));
    // At the old level the state does not say that an election was unclean.
    let unclean = level < 1 || (new.recovery == Recovery::Recovering && new.leader_epoch > old.leader_epoch);
    // Records that were committed stay with somebody who may lead.
    assert!(before.is_empty() || holders(new) || loses || unclean, "{told}");
    // Only the leader's word brings anybody in sync, and nobody becomes eligible who was not in sync.
    let joins = matches!(command, Command::AlterPartitions(_));
    assert!(joins || unclean || set(&new.isr).is_subset(&before), "{told}");
    assert!(joins || set(&new.elr).is_subset(&before), "{told}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_decided_applies(commands in vec(any_command(), 0..60), first in any_registration()) {
        let policy = Policy::default();
        let mut image = Image::default();
        for command in std::iter::once(Command::RegisterBroker(first)).chain(commands) {
            let command = informed(&image, command);
            let before = image.clone();
            let Ok(decision) = decide(&image, &command, NOW, &policy) else { continue };
            prop_assert_eq!(decide(&image, &command, NOW, &policy), Ok(decision.clone()), "not deterministic");
            for record in &decision.records {
                let one_before = image.clone();
                prop_assert!(record.level() <= image.level().max(1));
                image.apply(record);
                let changed = image.to_records().ne(one_before.to_records());
                // The sole record that may find its fact there already is an empty FeatureSet; decide
                // writes none.
                prop_assert!(changed, "{:?} changed nothing", record);
            }
            check_image(&image, &policy);
            for topic in before.topics() {
                let Some(now) = image.topic(topic.id) else { continue };
                for (old, new) in topic.partitions.iter().zip(&now.partitions) {
                    check_step(&command, old, new, image.level());
                }
            }
        }
    }
}
