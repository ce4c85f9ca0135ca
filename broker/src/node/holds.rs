//! Why a broker that is to be emptied is not empty yet, and what can be done about it. Pure.

use super::cluster::{moves, name};
use crate::http::HoldRow;
use controller::balance::{FULL_PERCENT, Goals, Limits, Loads, Obstacle, plan};
use proto::ids::{NodeId, TopicPartition};
use proto::metadata::{Broker, ConfigResource, Image, PartitionState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Partitions named for each reason.
const NAMED: usize = 3;

/// What holds a replica; what is most pressing first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Hold {
    /// Nobody leads its partition: these have what it takes, and are down.
    Leaderless(Vec<NodeId>),
    /// Nobody can take it.
    Stuck(Obstacle),
    /// It is on its way to these, which are down.
    Down(Vec<NodeId>),
    /// Its partition is reassigned by somebody else, and not away from this broker.
    Reassigned,
    /// It is copied to these.
    Copied { to: Vec<NodeId>, throttled: bool },
    /// Others move first.
    Turn,
}

/// What keeps replicas on each broker that is to be emptied.
pub(super) fn holds(image: &Image, loads: &Loads) -> Vec<HoldRow> {
    let leaving: Vec<NodeId> = image.brokers().filter(|broker| broker.is_draining()).map(|broker| broker.id).collect();
    if leaving.is_empty() {
        return Vec::new();
    }
    // What the controller's leader plans next, without its bound on how much moves at a time.
    let goals = Goals { leaders: false, replicas: false, ..Goals::AUTOMATIC };
    let stuck = plan(image, loads, goals, Limits::automatic(usize::MAX)).stuck;
    let stuck: BTreeMap<(NodeId, TopicPartition), Obstacle> =
        stuck.into_iter().map(|one| ((one.broker, one.tp), one.why)).collect();
    let mut rows = Vec::new();
    for broker in leaving {
        let mut held: BTreeMap<Hold, Vec<TopicPartition>> = BTreeMap::new();
        for tp in image.replicas_of(broker) {
            let Some(state) = image.partition(tp) else { continue };
            let hold = hold(image, broker, tp, state, stuck.get(&(broker, tp)).copied());
            held.entry(hold).or_default().push(tp);
        }
        rows.extend(held.into_iter().map(|(hold, partitions)| row(image, loads, broker, &hold, &partitions)));
    }
    rows
}

fn hold(image: &Image, broker: NodeId, tp: TopicPartition, state: &PartitionState, obstacle: Option<Obstacle>) -> Hold {
    let down = |ids: &[NodeId]| -> Vec<NodeId> {
        let down = ids.iter().copied().filter(|id| !image.broker(*id).is_some_and(|broker| broker.is_active()));
        down.collect::<BTreeSet<_>>().into_iter().collect()
    };
    if state.leader.is_none() {
        let eligible: Vec<NodeId> = state.isr.iter().chain(&state.elr).copied().collect();
        return Hold::Leaderless(down(if eligible.is_empty() { &state.replicas } else { &eligible }));
    }
    if let Some(obstacle) = obstacle {
        return Hold::Stuck(obstacle);
    }
    if !moves(state) {
        return Hold::Turn;
    }
    if !state.removing.contains(&broker) {
        return Hold::Reassigned;
    }
    match down(&state.adding) {
        gone if !gone.is_empty() => Hold::Down(gone),
        _ => Hold::Copied { to: state.adding.clone(), throttled: throttled(image, tp, state) },
    }
}

/// Whether the copying of a partition is bounded by its topic's and the brokers' settings.
fn throttled(image: &Image, tp: TopicPartition, state: &PartitionState) -> bool {
    let set = |resource: ConfigResource, key: &str| {
        image.configs(&resource).and_then(|configs| configs.get(key)).is_some_and(|value| !value.is_empty())
    };
    let Some(topic) = image.topic(tp.topic) else { return false };
    let side = |side: &str, brokers: &[NodeId]| {
        let rate = format!("{side}.replication.throttled.rate");
        set(ConfigResource::topic(&*topic.name), &format!("{side}.replication.throttled.replicas"))
            && (set(ConfigResource::all_brokers(), &rate)
                || brokers.iter().any(|id| set(ConfigResource::broker(*id), &rate)))
    };
    side("leader", &state.replicas) || side("follower", &state.adding)
}

fn row(image: &Image, loads: &Loads, broker: NodeId, hold: &Hold, partitions: &[TopicPartition]) -> HoldRow {
    let (why, hint) = match hold {
        Hold::Leaderless(down) if down.is_empty() => ("nobody leads them yet".to_owned(), String::new()),
        Hold::Leaderless(down) => (
            format!("nobody leads them: {} could, and {} down", listed(down), verb(down)),
            "start it; if it is gone for good, kafka-leader-election.sh --election-type unclean has another lead, at the \
             price of records"
                .to_owned(),
        ),
        Hold::Stuck(obstacle) => stuck(image, loads, *obstacle, partitions),
        Hold::Down(down) => (
            format!("they are on their way to {}, which {} down", listed(down), verb(down)),
            "start it, or cancel the move (kafka-reassign-partitions.sh --cancel): another broker is chosen then".to_owned(),
        ),
        Hold::Reassigned => (
            "somebody reassigns their partitions to replicas that include this broker".to_owned(),
            "wait until that is done, or cancel it (kafka-reassign-partitions.sh --cancel)".to_owned(),
        ),
        Hold::Copied { to, throttled: false } => (format!("they are copied to {}", listed(to)), String::new()),
        Hold::Copied { to, throttled: true } => (
            format!("they are copied to {}, no faster than a throttle lets them", listed(to)),
            "leader.replication.throttled.rate and follower.replication.throttled.rate of the brokers bound it \
             (kafka-configs.sh raises or removes them)"
                .to_owned(),
        ),
        Hold::Turn => (
            "they wait for their turn: only so many partitions move at a time".to_owned(),
            "firn.balance.moves says how many".to_owned(),
        ),
    };
    HoldRow {
        broker: broker.0,
        stuck: match hold {
            Hold::Leaderless(down) => !down.is_empty(),
            Hold::Stuck(_) | Hold::Down(_) => true,
            Hold::Reassigned | Hold::Copied { .. } | Hold::Turn => false,
        },
        partitions: partitions.len() as u64,
        names: partitions.iter().take(NAMED).map(|tp| name(image, *tp)).collect(),
        why,
        hint,
    }
}

/// Why nobody takes a replica of these, and what would help.
fn stuck(image: &Image, loads: &Loads, obstacle: Obstacle, partitions: &[TopicPartition]) -> (String, String) {
    let stay = || image.brokers().filter(|broker| !broker.is_draining());
    let down: Vec<NodeId> = stay().filter(|broker| !broker.is_active()).map(|broker| broker.id).collect();
    let besides = if down.is_empty() { String::new() } else { format!(" ({} {} down)", listed(&down), verb(&down)) };
    match obstacle {
        Obstacle::Brokers => (
            format!("each broker that serves and stays has a replica of them already{besides}"),
            "start another broker, or lower the replication factor".to_owned(),
        ),
        Obstacle::Disks => {
            let fill = |broker: &Broker| {
                let disk = loads.disk(broker.id);
                let percent = (u128::from(disk.used) * 100).checked_div(u128::from(disk.total)).unwrap_or(0);
                format!("broker {} {percent} %", broker.id)
            };
            // Whoever has a replica of all of them could not take one in any case.
            let could = |broker: &&Arc<Broker>| {
                let has = |tp: &TopicPartition| image.partition(*tp).is_some_and(|p| p.replicas.contains(&broker.id));
                broker.is_active() && !partitions.iter().all(has)
            };
            let fills: Vec<String> = stay().filter(could).map(|broker| fill(broker)).collect();
            (
                format!(
                    "they would fill other disks above {FULL_PERCENT} %, which now are: {}{besides}",
                    fills.join(", ")
                ),
                "make room there (firn tier flush and local.retention.*, retention.*), or start another broker"
                    .to_owned(),
            )
        }
        Obstacle::Racks => (
            format!("only racks that have a replica of them already could take them{besides}"),
            "start a broker in another rack, or make room on the disks there".to_owned(),
        ),
    }
}

fn listed(ids: &[NodeId]) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    format!("broker{} {}", if ids.len() == 1 { "" } else { "s" }, ids.join(", "))
}

fn verb(ids: &[NodeId]) -> &'static str {
    if ids.len() == 1 { "is" } else { "are" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use controller::balance::{Disk, Load};
    use proto::ids::{DirectoryId, TopicId, Uuid};
    use proto::metadata::{MetadataRecord, Recovery, Share};

    const TOPIC: TopicId = TopicId(Uuid::from_u128(1));

    fn broker(id: i32) -> Broker {
        Broker {
            id: NodeId(id),
            epoch: 0,
            incarnation: Uuid::nil(),
            endpoints: Vec::new(),
            rack: None,
            directories: Vec::new(),
            fenced: false,
            shutting_down: false,
            features: Vec::new(),
            share: Share::Kept,
        }
    }

    fn nodes(ids: &[i32]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    /// A partition that the first one leads, with all in sync.
    fn settled(replicas: &[i32]) -> PartitionState {
        PartitionState {
            replicas: nodes(replicas),
            directories: vec![DirectoryId::UNASSIGNED; replicas.len()],
            isr: nodes(replicas),
            elr: Vec::new(),
            leader: replicas.first().copied().map(NodeId),
            leader_epoch: 0,
            partition_epoch: 0,
            adding: Vec::new(),
            removing: Vec::new(),
            last_known_leader: None,
            recovery: Recovery::Recovered,
        }
    }

    /// The same on its way from broker 0 to another.
    fn moving(replicas: &[i32], to: i32) -> PartitionState {
        let all: Vec<i32> = replicas.iter().copied().chain([to]).collect();
        PartitionState { isr: nodes(replicas), adding: nodes(&[to]), removing: nodes(&[0]), ..settled(&all) }
    }

    /// A cluster whose broker 0 is to be emptied.
    fn image(brokers: &[Broker], partitions: &[PartitionState]) -> Image {
        let mut image = Image::default();
        for broker in brokers {
            let share = if broker.id == NodeId(0) { Share::Drained } else { Share::Kept };
            image.apply(&MetadataRecord::BrokerSet(Broker { share, ..broker.clone() }));
        }
        image.apply(&MetadataRecord::TopicCreated { id: TOPIC, name: "t".to_owned(), created_at: 0 });
        for (index, state) in (0..).zip(partitions) {
            let tp = TopicPartition::new(TOPIC, index);
            image.apply(&MetadataRecord::PartitionSet { tp, state: state.clone() });
        }
        image
    }

    fn disks(image: &Image, used: &[(i32, u64)]) -> Loads {
        let mut loads = Loads::default();
        for (id, used) in used {
            let disk = Disk { used: *used, total: 100 };
            loads.tell(image, NodeId(*id), &Load { disk, partitions: Vec::new() });
        }
        loads
    }

    /// What holds replicas, in short.
    fn told(image: &Image, loads: &Loads) -> Vec<(bool, u64, String)> {
        holds(image, loads).into_iter().map(|row| (row.stuck, row.partitions, row.why)).collect()
    }

    #[test]
    fn nothing_holds_what_nobody_empties() {
        let mut image = image(&[broker(0), broker(1)], &[settled(&[0, 1])]);
        image.apply(&MetadataRecord::BrokerSet(broker(0)));
        assert_eq!(holds(&image, &Loads::default()), []);
    }

    #[test]
    fn a_move_that_cannot_end_is_told_with_what_helps() {
        let down = Broker { fenced: true, ..broker(2) };
        let leaderless = PartitionState { leader: None, isr: nodes(&[2]), ..settled(&[0, 2]) };
        let image = image(&[broker(0), broker(1), down], &[moving(&[0, 1], 2), leaderless]);
        let rows = holds(&image, &Loads::default());
        let short: Vec<_> = rows.iter().map(|row| (row.stuck, row.names.join(" "), row.why.as_str())).collect();
        let expected = [
            (true, "t-1".to_owned(), "nobody leads them: broker 2 could, and is down"),
            (true, "t-0".to_owned(), "they are on their way to broker 2, which is down"),
        ];
        assert_eq!(short, expected);
        assert!(rows.iter().all(|row| row.hint.starts_with("start it")), "{rows:?}");
    }

    #[test]
    fn what_nobody_can_take_is_told_with_the_reason() {
        let others = [broker(0), broker(1), broker(2)];
        let crowded = image(&others[..2], &[settled(&[0, 1]), settled(&[1, 0])]);
        let why = "each broker that serves and stays has a replica of them already".to_owned();
        assert_eq!(told(&crowded, &Loads::default()), [(true, 2, why)]);

        let full = image(&others, &[settled(&[0, 1])]);
        let loads = disks(&full, &[(0, 10), (1, 20), (2, 96)]);
        let why = "they would fill other disks above 95 %, which now are: broker 2 96 %".to_owned();
        assert_eq!(told(&full, &loads), [(true, 1, why)]);
        assert!(!told(&full, &disks(&full, &[(2, 95)]))[0].0, "up to the bound it is taken");

        let racks = ["a", "b", "c", "a"].map(|rack| Some(rack.to_owned()));
        let mut brokers: Vec<Broker> = (0..4).zip(racks).map(|(id, rack)| Broker { rack, ..broker(id) }).collect();
        brokers[1].rack = Some("c".to_owned());
        brokers[3].rack = Some("b".to_owned());
        // Broker 0 is all of its rack; of the others one is full, and one is in the rack of a replica.
        let one = image(&brokers, &[settled(&[0, 1])]);
        let why = "only racks that have a replica of them already could take them".to_owned();
        assert_eq!(told(&one, &disks(&one, &[(3, 99)])), [(true, 1, why)]);
    }

    #[test]
    fn what_goes_on_is_told_apart_from_what_is_stuck() {
        let brokers = [broker(0), broker(1), broker(2)];
        let elsewhere = PartitionState { removing: nodes(&[1]), ..moving(&[0, 1], 2) };
        let states = [moving(&[0, 1], 2), moving(&[0, 1], 2), settled(&[0, 1]), elsewhere];
        let mut image = image(&brokers, &states);
        let short = |image: &Image| told(image, &Loads::default());
        let expected = [
            (false, 1, "somebody reassigns their partitions to replicas that include this broker".to_owned()),
            (false, 2, "they are copied to broker 2".to_owned()),
            (false, 1, "they wait for their turn: only so many partitions move at a time".to_owned()),
        ];
        assert_eq!(short(&image), expected);

        let set = |resource: ConfigResource, key: &str, value: &str| MetadataRecord::ConfigSet {
            resource,
            key: key.to_owned(),
            value: Some(value.to_owned()),
        };
        image.apply(&set(ConfigResource::topic("t"), "follower.replication.throttled.replicas", "*"));
        assert_eq!(short(&image), expected, "a throttle without a rate holds nothing");
        image.apply(&set(ConfigResource::broker(NodeId(2)), "follower.replication.throttled.rate", "1000"));
        assert_eq!(short(&image)[1].2, "they are copied to broker 2, no faster than a throttle lets them");
    }
}
