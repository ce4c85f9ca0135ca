//! What `firn cluster` asks of a broker: how the cluster is, what would even it out, brokers emptied, voters changed.

use super::holds::holds;
use crate::api::services::Services;
use crate::http::{
    BrokerRow, CarriedRow, ClusterAnswer, ClusterAsk, ClusterStatus, ControlError, ControllerRow, LeaderRow, MovePlan,
    MoveRow,
};
use controller::balance::{Goals, Limits, Loads, Plan, Reason, plan};
use controller::command::{AlterReassignments, ElectLeaders, Election};
use controller::decide::MAX_PARTITIONS_PER_COMMAND;
use controller::{MemberView, VoterChange};
use proto::ids::{DirectoryId, NodeId, TopicPartition};
use proto::metadata::{Broker, Endpoint, Image, PartitionState, Share};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long the leader of the quorum is looked for before one goes on without what only it knows.
const FIND_LEADER: Duration = Duration::from_secs(2);
/// How long a change of voters may take.
const CHANGE_VOTERS: Duration = Duration::from_secs(30);
/// Partitions named in a status.
const NAMED: usize = 10;

/// Answers, or does what is asked.
pub(super) async fn answer(services: &Services, ask: ClusterAsk) -> Result<ClusterAnswer, ControlError> {
    let done = |outcome: Result<(), String>| outcome.map(|()| ClusterAnswer::Done).map_err(ControlError::Refused);
    match ask {
        ClusterAsk::Status => Ok(ClusterAnswer::Status(status(services).await)),
        ClusterAsk::Plan => {
            let loads = loads(services).await;
            let image = services.controller.image();
            let plan = plan(&image, &loads, Goals::ALL, Limits::default());
            Ok(ClusterAnswer::Plan(described(&image, &loads, &plan)))
        }
        ClusterAsk::Rebalance => rebalance(services).await.map(ClusterAnswer::Plan).map_err(ControlError::Refused),
        ClusterAsk::Drain { broker, cancel } => {
            let share = if cancel { Share::Filled } else { Share::Drained };
            done(services.controller.set_share(NodeId(broker), share).await.map_err(|error| error.to_string()))
        }
        ClusterAsk::Forget { broker } => done(forget(services, NodeId(broker)).await),
        ClusterAsk::AddVoter { id, address, directory } => {
            let directory = directory_of(directory.as_deref()).map_err(ControlError::Refused)?;
            done(change_voters(services, VoterChange::Add { id: NodeId(id), directory, address }).await)
        }
        ClusterAsk::RemoveVoter { id, directory } => {
            let directory = directory_of(directory.as_deref()).map_err(ControlError::Refused)?;
            done(change_voters(services, VoterChange::Remove { id: NodeId(id), directory }).await)
        }
    }
}

async fn change_voters(services: &Services, change: VoterChange) -> Result<(), String> {
    services.controller.change_voters(change, CHANGE_VOTERS).await.map_err(|error| error.to_string())
}

fn directory_of(text: Option<&str>) -> Result<DirectoryId, String> {
    match text {
        None => Ok(DirectoryId::UNASSIGNED),
        Some(text) => {
            text.parse().map_err(|_| format!("{text} is no directory id: it has 22 letters, digits, '_' or '-'"))
        }
    }
}

async fn loads(services: &Services) -> Loads {
    services.controller.loads(FIND_LEADER).await.unwrap_or_default()
}

/// A broker goes only when nothing is lost with it.
async fn forget(services: &Services, id: NodeId) -> Result<(), String> {
    let image = services.controller.image();
    let Some(broker) = image.broker(id) else { return Err(format!("there is no broker {id}")) };
    let left = image.replica_count(id);
    if left > 0 {
        return Err(format!("broker {id} still has {left} replica(s)"));
    }
    if !broker.fenced {
        return Err(format!("broker {id} still runs: stop it first"));
    }
    services.controller.unregister_broker(id).await.map_err(|error| error.to_string())
}

async fn rebalance(services: &Services) -> Result<MovePlan, String> {
    let loads = loads(services).await;
    let image = services.controller.read_linearizable().await.map_err(|error| error.to_string())?;
    if let Some((tp, _)) = partitions(&image).find(|(_, state)| moves(state)) {
        return Err(format!("{} is on the move: wait until nothing is, or cancel it", name(&image, tp)));
    }
    let plan = plan(&image, &loads, Goals::ALL, Limits::default());
    let epoch = |tp: &TopicPartition| Some((*tp, image.partition(*tp)?.partition_epoch));
    let targets: Vec<(&TopicPartition, &Vec<NodeId>)> = plan.targets.iter().collect();
    for some in targets.chunks(MAX_PARTITIONS_PER_COMMAND) {
        let alter = AlterReassignments {
            changes: some.iter().map(|(tp, target)| (**tp, Some((*target).clone()))).collect(),
            allow_factor_change: false,
            planned_on: some.iter().filter_map(|(tp, _)| epoch(tp)).collect(),
        };
        let outcomes = services.controller.alter_reassignments(alter).await.map_err(|error| error.to_string())?;
        for ((tp, _), outcome) in some.iter().zip(outcomes) {
            if let Err(refusal) = outcome {
                tracing::warn!(partition = %name(&image, **tp), %refusal, "a partition stays where it is");
            }
        }
    }
    // Where nothing is copied, whoever is preferred can lead at once; elsewhere when it has what it needs.
    let copied: BTreeSet<TopicPartition> = plan.moves.iter().map(|step| step.tp).collect();
    let displaced = partitions(&image).filter(|(tp, state)| {
        let target = plan.targets.get(tp).unwrap_or(&state.replicas);
        !copied.contains(tp) && state.leader.is_some() && state.leader.as_ref() != target.first()
    });
    let ready: Vec<TopicPartition> = displaced.map(|(tp, _)| tp).collect();
    if !ready.is_empty() {
        let elect = ElectLeaders { election: Election::Preferred, partitions: Some(ready) };
        services.controller.elect_leaders(elect).await.map_err(|error| error.to_string())?;
    }
    Ok(described(&image, &loads, &plan))
}

fn partitions(image: &Image) -> impl Iterator<Item = (TopicPartition, &PartitionState)> {
    let of = |topic: &proto::metadata::Topic| topic.id;
    image.topics().flat_map(move |topic| {
        let id = of(topic);
        topic.indexed().map(move |(index, state)| (TopicPartition::new(id, index), &**state))
    })
}

pub(super) fn moves(state: &PartitionState) -> bool {
    !state.adding.is_empty() || !state.removing.is_empty()
}

pub(super) fn name(image: &Image, tp: TopicPartition) -> String {
    format!("{}-{}", image.topic(tp.topic).map_or("?", |topic| &*topic.name), tp.partition)
}

async fn status(services: &Services) -> ClusterStatus {
    let loads = loads(services).await;
    let view = services.controller.describe_quorum(FIND_LEADER).await;
    let image = services.controller.image();
    let row = |member: &MemberView, role: &str| ControllerRow {
        id: member.id.0,
        address: member.address.clone(),
        role: if view.leader == Some(member.id) { "leader" } else { role }.to_owned(),
        behind: view.committed.zip(member.log_end).map(|(committed, end)| committed.saturating_sub(end)),
    };
    let voters = view.voters.iter().map(|member| row(member, "voter"));
    let mut status = ClusterStatus {
        cluster_id: services.cluster_id.clone(),
        controllers: voters.chain(view.observers.iter().map(|member| row(member, "observer"))).collect(),
        topics: image.topic_count() as u64,
        partitions: image.partition_count(),
        ..ClusterStatus::default()
    };
    let mut brokers: BTreeMap<NodeId, BrokerRow> =
        image.brokers().map(|broker| (broker.id, broker_row(broker, &loads))).collect();
    for (tp, state) in partitions(&image) {
        status.under_replicated += u64::from(state.isr.len() < state.replicas.len() - state.adding.len());
        status.moving += u64::from(moves(state));
        let down = |id: &&NodeId| image.broker(**id).is_none_or(|broker| broker.fenced);
        if let Some(id) = state.adding.iter().find(down).filter(|_| status.stalled.len() < NAMED) {
            status.stalled.push((name(&image, tp), id.0));
        }
        match state.leader.and_then(|leader| brokers.get_mut(&leader)) {
            Some(leader) => {
                leader.leaders += 1;
                let load = loads.partition(tp);
                leader.bytes_in += load.bytes_in;
                leader.bytes_out += load.bytes_out;
            }
            None => {
                status.offline += 1;
                if status.offline_names.len() < NAMED {
                    status.offline_names.push(name(&image, tp));
                }
            }
        }
        for id in &state.replicas {
            if let Some(broker) = brokers.get_mut(id) {
                broker.replicas += 1;
                broker.out_of_sync += u64::from(!state.isr.contains(id));
            }
        }
    }
    status.brokers = brokers.into_values().collect();
    status.holds = holds(&image, &loads);
    status
}

fn broker_row(broker: &Broker, loads: &Loads) -> BrokerRow {
    let disk = Some(loads.disk(broker.id)).filter(|disk| disk.total > 0);
    BrokerRow {
        id: broker.id.0,
        state: match (broker.fenced, broker.shutting_down) {
            (true, _) => "down",
            (false, true) => "stopping",
            (false, false) => "serving",
        }
        .to_owned(),
        share: match broker.share {
            Share::Kept => "settled",
            Share::Filled => "joining",
            Share::Drained => "leaving",
        }
        .to_owned(),
        rack: broker.rack.clone(),
        address: broker.endpoints.first().map_or(String::new(), Endpoint::address),
        disk_used: disk.map(|disk| disk.used),
        disk_total: disk.map(|disk| disk.total),
        ..BrokerRow::default()
    }
}

/// What brokers carry when each partition has the replicas that `of` says.
fn carried(
    image: &Image,
    loads: &Loads,
    of: impl Fn(TopicPartition, &PartitionState) -> Vec<NodeId>,
) -> BTreeMap<NodeId, [u64; 4]> {
    let mut carried: BTreeMap<NodeId, [u64; 4]> = image.brokers().map(|broker| (broker.id, [0; 4])).collect();
    for (tp, state) in partitions(image) {
        let load = loads.partition(tp);
        for (rank, id) in of(tp, state).into_iter().enumerate() {
            let [leaders, replicas, bytes_in, disk] = carried.entry(id).or_default();
            *leaders += u64::from(rank == 0);
            *replicas += 1;
            *bytes_in += load.bytes_in;
            *disk += load.hot;
        }
    }
    carried
}

fn described(image: &Image, loads: &Loads, plan: &Plan) -> MovePlan {
    let target = |_: TopicPartition, state: &PartitionState| -> Vec<NodeId> {
        state.replicas.iter().copied().filter(|id| !state.removing.contains(id)).collect()
    };
    let before = carried(image, loads, target);
    let after = carried(image, loads, |tp, state| plan.targets.get(&tp).cloned().unwrap_or_else(|| target(tp, state)));
    let topic = |tp: TopicPartition| image.topic(tp.topic).map_or(String::new(), |topic| topic.name.to_string());
    let preferred = |tp: TopicPartition| image.partition(tp).and_then(|state| state.replicas.first().copied());
    MovePlan {
        moves: plan
            .moves
            .iter()
            .map(|step| MoveRow {
                topic: topic(step.tp),
                partition: step.tp.partition,
                from: step.from.0,
                to: step.to.0,
                bytes: step.bytes,
                why: why(step.reason, step.from),
            })
            .collect(),
        leaders: plan
            .leaders
            .iter()
            .map(|(tp, to)| LeaderRow {
                topic: topic(*tp),
                partition: tp.partition,
                from: preferred(*tp).map_or(-1, |id| id.0),
                to: to.0,
            })
            .collect(),
        brokers: before
            .iter()
            .map(|(id, before)| {
                let after = after.get(id).copied().unwrap_or_default();
                let pair = |at: usize| (before.get(at).copied().unwrap_or(0), after.get(at).copied().unwrap_or(0));
                CarriedRow { id: id.0, leaders: pair(0), replicas: pair(1), bytes_in: pair(2), disk: pair(3) }
            })
            .collect(),
        stuck: plan.stuck.iter().map(|stuck| (name(image, stuck.tp), stuck.broker.0)).collect(),
        crowded: plan.crowded.iter().map(|tp| name(image, *tp)).collect(),
    }
}

fn why(reason: Reason, from: NodeId) -> String {
    match reason {
        Reason::Drain => format!("broker {from} is to be emptied, or is gone"),
        Reason::Rack => "two replicas are in one rack".to_owned(),
        Reason::Leaders => format!("broker {from} leads too many partitions"),
        Reason::Replicas => format!("broker {from} has too many replicas"),
        Reason::BytesIn => format!("broker {from} takes in too much"),
        Reason::Disk => format!("broker {from} holds too much"),
    }
}
