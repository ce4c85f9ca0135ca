//! Which state a partition comes to: the table of elections, and what replicas that lost records do to it.

use proto::metadata::Recovery;

use super::super::change::{Change, Loss, Want};
use super::*;

/// Partition with replicas 4, 1, 2, 3 on a cluster in which those of `dead` are fenced.
fn image(dead: &[i32]) -> Image {
    let mut world = World::with_brokers(5);
    for id in dead {
        world.set_state(*id, BrokerState::Fenced);
    }
    world.image
}

fn state(isr: &[i32], elr: &[i32], last: Option<i32>) -> PartitionState {
    PartitionState {
        replicas: nodes(&[4, 1, 2, 3]),
        directories: [4, 1, 2, 3].map(|id| directory(id, 0)).to_vec(),
        isr: nodes(isr),
        elr: nodes(elr),
        leader: None,
        leader_epoch: 7,
        partition_epoch: 9,
        adding: Vec::new(),
        removing: Vec::new(),
        last_known_leader: last.map(NodeId),
        recovery: Recovery::Recovered,
    }
}

/// What a change came to, in one line: leader, sets, recovery, by how much the leader epoch rose.
fn line(old: &PartitionState, new: Option<PartitionState>) -> String {
    let new = new.unwrap_or_else(|| old.clone());
    let ids = |ids: &[NodeId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
    let leader = new.leader.map_or("-".to_owned(), |id| id.to_string());
    let recovery = if new.recovery == Recovery::Recovering { " recovering" } else { "" };
    format!("{leader} {:?} {:?} +{}{recovery}", ids(&new.isr), ids(&new.elr), new.leader_epoch - old.leader_epoch)
}

/// Replica 1 is the in-sync one, 2 the eligible one, 3 led last, 4 is there but has fallen behind. A dead in-sync replica
/// is not in sync, so without a live one the set is empty. Three have to be in sync.
///
/// in sync lives | eligible | last leader lives | unclean allowed | what comes of it
const ELECTIONS: &str = "
    yes | lives | yes | yes | 1 [1] [2] +1
    yes | lives | yes | no  | 1 [1] [2] +1
    yes | lives | no  | yes | 1 [1] [2] +1
    yes | lives | no  | no  | 1 [1] [2] +1
    yes | dead  | yes | yes | 1 [1] [2] +1
    yes | dead  | yes | no  | 1 [1] [2] +1
    yes | dead  | no  | yes | 1 [1] [2] +1
    yes | dead  | no  | no  | 1 [1] [2] +1
    yes | none  | yes | yes | 1 [1] [] +1
    yes | none  | yes | no  | 1 [1] [] +1
    yes | none  | no  | yes | 1 [1] [] +1
    yes | none  | no  | no  | 1 [1] [] +1
    no  | lives | yes | yes | 2 [2] [] +1
    no  | lives | yes | no  | 2 [2] [] +1
    no  | lives | no  | yes | 2 [2] [] +1
    no  | lives | no  | no  | 2 [2] [] +1
    no  | dead  | yes | yes | 4 [4] [] +1 recovering
    no  | dead  | yes | no  | - [] [2] +0
    no  | dead  | no  | yes | 4 [4] [] +1 recovering
    no  | dead  | no  | no  | - [] [2] +0
    no  | none  | yes | yes | 3 [3] [] +1 recovering
    no  | none  | yes | no  | 3 [3] [] +1 recovering
    no  | none  | no  | yes | 4 [4] [] +1 recovering
    no  | none  | no  | no  | - [] [] +0";

#[test]
fn who_leads_follows_the_table() {
    let rows: Vec<&str> = ELECTIONS.lines().map(str::trim).filter(|row| !row.is_empty()).collect();
    assert_eq!(rows.len(), 24);
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [in_sync, eligible, last, unclean, expected] = cells[..] else { panic!("{row}") };
        let mut dead = Vec::new();
        let isr: &[i32] = if in_sync == "yes" { &[1] } else { &[] };
        if isr.is_empty() {
            dead.push(1);
        }
        let elr: &[i32] = if eligible == "none" { &[] } else { &[2] };
        if eligible != "lives" {
            dead.push(2);
        }
        if last == "no" {
            dead.push(3);
        }
        let old = state(isr, elr, isr.is_empty().then_some(3));
        let image = image(&dead);
        let mut change = Change::of(&image, &old, 3);
        change.want = if unclean == "yes" { Want::Unclean } else { Want::Keep };
        assert_eq!(line(&old, change.finish()), expected, "{row}");
    }
}

/// Partition led by 1 with 1 and 2 in sync, 3 eligible, 4 behind, three required; these lost that, these are dead.
///
/// lost | dead | what comes of it
const LOSSES: &str = "
    1 tail     | 1       | 2 [2] [3] +1
    1 disk     | 1       | 2 [2] [3] +1
    2 tail     | 2       | 1 [1] [3] +0
    3 tail     | 3       | 1 [1, 2] [] +0
    4 tail     | 4       | 1 [1, 2] [3] +0
    1 tail     | 1 2     | 3 [3] [2] +1
    1 tail     | 1 2 3   | - [] [2, 3] +1
    1 disk     | 1 2 3 4 | - [] [2, 3] +1
    1 tail, 2 tail, 3 tail | 2 3 | 1 [1] [] +1 recovering
    1 disk, 2 tail, 3 tail | 2 3 | - [] [] +1
    1 tail, 2 tail, 3 tail | 1 2 3 | - [] [] +1";

#[test]
fn replicas_that_lost_records_are_neither_in_sync_nor_eligible() {
    for row in LOSSES.lines().map(str::trim).filter(|row| !row.is_empty()) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [lost, dead, expected] = cells[..] else { panic!("{row}") };
        let dead: Vec<i32> = dead.split(' ').map(|id| id.parse().unwrap()).collect();
        let mut old = state(&[1, 2], &[3], None);
        old.leader = Some(NodeId(1));
        let image = image(&dead);
        let mut change = Change::of(&image, &old, 3);
        change.isr.retain(|id| !dead.contains(&id.0));
        change.lost = lost
            .split(", ")
            .map(|lost| {
                let (id, what) = lost.split_once(' ').unwrap();
                (NodeId(id.parse().unwrap()), if what == "tail" { Loss::Tail } else { Loss::Disk })
            })
            .collect();
        if lost.starts_with("1") && lost.contains(", ") {
            change.new_process = Some(NodeId(1));
        }
        // One that lost something has a new process: the old one does not lead on.
        let old_led = old.clone();
        assert_eq!(line(&old_led, change.finish()), expected, "{row}");
    }
}

#[test]
fn the_last_leader_is_remembered_while_nobody_is_in_sync() {
    let mut world = World::with_brokers(2);
    let tp = world.create_on("a", &[0, 1]);
    assert_eq!(world.ask_isr(tp, &[0], false), Ok(()));
    world.set_state(0, BrokerState::Fenced);
    assert_eq!(world.sets(tp), "- [] [0]");
    assert_eq!(world.at(tp).last_known_leader, Some(NodeId(0)));
    world.set_state(0, BrokerState::Active);
    assert_eq!(world.sets(tp), "0 [0] []");
    assert_eq!(world.at(tp).last_known_leader, None);
}

#[test]
fn eligible_replicas_are_given_up_once_enough_are_in_sync() {
    let mut world = World::with_brokers(3);
    world.require_in_sync(2);
    let tp = world.create_on("a", &[0, 1, 2]);
    world.set_state(0, BrokerState::Fenced);
    assert_eq!(world.sets(tp), "1 [1, 2] []", "two are enough");
    world.set_state(1, BrokerState::Fenced);
    assert_eq!(world.sets(tp), "2 [2] [1]");
    world.set_state(2, BrokerState::Fenced);
    assert_eq!(world.sets(tp), "- [] [1, 2]");
    world.set_state(0, BrokerState::Active);
    assert_eq!(world.sets(tp), "- [] [1, 2]", "what was committed since it does not have");
    world.set_state(1, BrokerState::Active);
    assert_eq!(world.sets(tp), "1 [1] [2]");
    assert_eq!(world.ask_isr(tp, &[1, 0], false), Ok(()));
    assert_eq!(world.sets(tp), "1 [1, 0] []");
}

#[test]
fn who_is_eligible_follows_min_in_sync() {
    let mut world = World::with_brokers(3);
    let tp = world.create_on("a", &[0, 1, 2]);
    assert_eq!(world.set_config(ConfigResource::topic("a"), "min.insync.replicas", "2"), Ok(()));
    world.set_state(0, BrokerState::Fenced);
    world.set_state(1, BrokerState::Fenced);
    assert_eq!(world.sets(tp), "2 [2] [1]");
    assert_eq!(world.set_config(ConfigResource::topic("a"), "min.insync.replicas", "3"), Ok(()));
    assert_eq!(world.sets(tp), "2 [2] [1]", "nothing more is committed than was");
    assert_eq!(world.set_config(ConfigResource::topic("a"), "min.insync.replicas", "1"), Ok(()));
    assert_eq!(world.sets(tp), "2 [2] []", "from here on more is committed without it");

    let other = world.create_on("b", &[2, 0, 1]);
    assert_eq!(world.sets(other), "2 [2] []");
    assert_eq!(world.set_config(ConfigResource::all_brokers(), "min.insync.replicas", "2"), Ok(()));
    world.set_state(2, BrokerState::Fenced);
    assert_eq!(world.sets(other), "- [] [2]");
    assert_eq!(world.set_config(ConfigResource::all_brokers(), "min.insync.replicas", "1"), Ok(()));
    assert_eq!(world.sets(other), "- [] [2]", "nobody commits anything");
}
