//! Commands in bytes. The numbers are stable; a command whose fields change gets a new number beside the old one.

use proto::{durable_enum, durable_struct};

use super::durable_union;
use crate::command::{
    AlterConfigs, AlterPartitions, AlterReassignments, AssignDirectories, BrokerState, Clean, Command, ConfigChange,
    ConfigOp, CreatePartitions, CreateTopics, DeleteRecords, DeleteTopics, Direction, ElectLeaders, Election,
    Elections, FeatureUpdate, FinishDeletions, FormCluster, IsrChange, Mode, NewPartitions, NewTopic, RegisterBroker,
    SetBrokerState, Shortage, TierCommit, TopicSelector, UpdateFeatures,
};

durable_union!(
    Command {
        1 = FormCluster(form),
        2 = RegisterBroker(register),
        3 = SetBrokerState(state),
        4 = CreateTopics(create),
        5 = DeleteTopics(delete),
        6 = CreatePartitions(create),
        7 = AlterConfigs(alter),
        8 = AllocateProducerIds { broker, broker_epoch },
        9 = CommitTier(commits),
        10 = DeleteRecords(deletes),
        11 = AlterPartitions(alter),
        12 = ElectLeaders(elect),
        13 = FinishDeletions(finish),
        14 = AlterReassignments(alter),
        15 = AssignDirectories(assign),
        16 = UnregisterBroker(id),
        17 = SetShare { id, share },
        18 = UpdateFeatures(update),
        19 = BindVoter { id, directory },
        20 = AssignDuties(duties),
        21 = Sweep(elections),
    }
    TopicSelector { 1 = Id(id), 2 = Name(name) }
    ConfigChange { 1 = Replace(values), 2 = Incremental(ops) }
    ConfigOp { 1 = Set(value), 2 = Delete, 3 = Append { items, inherited }, 4 = Subtract { items, inherited } }
);

durable_enum!(
    BrokerState { Active = 1, ShuttingDown = 2, Fenced = 3 }
    Clean { Yes = 1, SameBoot = 2, No = 3 }
    Direction { Upgrade = 1, SafeDowngrade = 2, UnsafeDowngrade = 3 }
    Election { Preferred = 1, Unclean = 2 }
    Mode { Commit = 1, Validate = 2 }
    Shortage { Refuse = 1, Shrink = 2 }
);

durable_struct!(
    FormCluster { cluster_id, features }
    RegisterBroker {
        id, incarnation, previous_epoch, clean, endpoints, rack, directories, offline_directories, features
    }
    SetBrokerState { id, broker_epoch, state, directories }
    CreateTopics { topics, default_partitions, default_replication_factor, mode }
    NewTopic { id, name, partitions, replication_factor, shortage, assignments, configs }
    DeleteTopics { topics }
    CreatePartitions { topics, mode }
    NewPartitions { name, count, assignments }
    AlterConfigs { resources, mode }
    TierCommit { tp, leader_epoch, expected_generation, request, pointer }
    DeleteRecords { tp, leader_epoch, log_start }
    AlterPartitions { broker, broker_epoch, partitions }
    IsrChange { tp, leader_epoch, partition_epoch, isr, recovered }
    ElectLeaders { election, partitions }
    Elections { unclean, preferred }
    FinishDeletions { topics, duty_epoch }
    AlterReassignments { changes, allow_factor_change, planned_on }
    AssignDirectories { broker, broker_epoch, places }
    UpdateFeatures { updates, mode }
    FeatureUpdate { name, level, direction }
);
