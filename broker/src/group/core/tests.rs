//! Tests of the group: each tells a story of events, and what came of each.

use bytes::Bytes;
use proto::ids::Millis;
use uuid::Uuid;

use super::super::types::{Join, JoinRefused, MemberRef, OffsetToCommit, Synced};
use super::*;
use crate::config::BrokerConfig;

/// A group, its time, and what it has written but not heard of.
struct Story {
    group: Group,
    config: GroupConfig,
    now: Millis,
    next: Ticket,
}

/// Member ids are made of the client id and a number that counts up with the tickets.
fn id(name: &str, ticket: Ticket) -> String {
    format!("{name}-{}", Uuid::from_u128(u128::from(ticket)))
}

fn member(member_id: &str) -> MemberRef {
    MemberRef { member_id: member_id.to_owned(), instance_id: None }
}

fn join(name: &str, member_id: &str) -> Join {
    Join {
        member: member(member_id),
        client_id: name.to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        rebalance_timeout_ms: 60_000,
        session_timeout_ms: 10_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(b"meta"))],
        requires_member_id: false,
        can_skip_assignment: true,
    }
}

fn fixed(name: &str, member_id: &str, instance: &str) -> Join {
    let member = MemberRef { member_id: member_id.to_owned(), instance_id: Some(instance.to_owned()) };
    Join { member, ..join(name, member_id) }
}

impl Story {
    fn new() -> Self {
        let config = GroupConfig { initial_rebalance_delay_ms: 0, max_size: 3, ..BrokerConfig::default().groups };
        let group = Group::new("g".to_owned(), Now { tick: 0, wall: 0 });
        Self { group, config, now: 0, next: 1 }
    }

    /// What comes of an event; what is to be written is written at once.
    fn on(&mut self, event: Event) -> Vec<Command> {
        let now = Now { tick: self.now, wall: self.now };
        let mut told = Vec::new();
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for command in self.group.on(&self.config, now, event) {
                match command {
                    Command::Write { id, .. } => events.push(Event::Written { id, outcome: Ok(()) }),
                    other => told.push(other),
                }
            }
        }
        told
    }

    fn ticket(&mut self) -> Ticket {
        self.next += 1;
        self.next - 1
    }

    fn joins(&mut self, join: Join) -> (Ticket, Vec<Command>) {
        let ticket = self.ticket();
        let fresh = Uuid::from_u128(u128::from(ticket));
        (ticket, self.on(Event::Join { ticket, join, fresh }))
    }

    fn syncs(&mut self, member_id: &str, generation: i32, given: &[(&str, &'static [u8])]) -> (Ticket, Vec<Command>) {
        let ticket = self.ticket();
        let assignments = given.iter().map(|(id, bytes)| ((*id).to_owned(), Bytes::from_static(bytes))).collect();
        let sync = Sync { member: member(member_id), generation, assignments, ..Default::default() };
        (ticket, self.on(Event::Sync { ticket, sync }))
    }

    fn beats(&mut self, member_id: &str, generation: i32) -> Result<(), GroupError> {
        let ticket = self.ticket();
        let heartbeat = Heartbeat { member: member(member_id), generation };
        match self.on(Event::Heartbeat { ticket, heartbeat }).as_slice() {
            [Command::Beaten(answered, answer)] if *answered == ticket => *answer,
            other => panic!("one answer to a heartbeat, not {other:?}"),
        }
    }

    /// Time passes up to `now`, and the group hears of it.
    fn passes(&mut self, now: Millis) -> Vec<Command> {
        self.now = now;
        self.on(Event::Tick)
    }

    /// A stable group of that many members, all with their assignment: their ids, the leader first.
    fn stable(&mut self, members: usize) -> Vec<String> {
        let names: Vec<String> = (0..members).map(|at| format!("m{at}")).collect();
        let mut ids = Vec::new();
        for name in &names {
            let (ticket, _) = self.joins(join(name, ""));
            ids.push(id(name, ticket));
            // Those who were there come back for it.
            for (name, known) in names.iter().zip(ids.clone()).take(ids.len() - 1) {
                self.joins(join(name, &known));
            }
        }
        let generation = self.group.generation;
        let leader = self.group.leader.clone().expect("a leader");
        ids.sort_by_key(|id| *id != leader);
        for id in ids.iter().rev() {
            self.syncs(id, generation, &[(id, b"share")]);
        }
        assert_eq!((self.group.state(), self.group.members.len()), (GroupState::Stable, members));
        ids
    }
}

/// The generation of each join that was answered, by ticket; refused ones by their error.
fn answered(commands: &[Command]) -> Vec<(Ticket, Result<i32, GroupError>)> {
    let joined = commands.iter().filter_map(|command| match command {
        Command::Joined(ticket, Ok(joined)) => Some((*ticket, Ok(joined.generation))),
        Command::Joined(ticket, Err(refused)) => Some((*ticket, Err(refused.error))),
        _ => None,
    });
    let mut joined: Vec<_> = joined.collect();
    joined.sort_by_key(|one| one.0);
    joined
}

#[test]
fn one_member_joins_and_gets_what_it_gives_itself() {
    let mut story = Story::new();
    let (ticket, told) = story.joins(join("a", ""));
    let me = id("a", ticket);
    let [Command::Joined(_, Ok(joined))] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((joined.generation, &joined.leader, &joined.member_id), (1, &me, &me));
    assert_eq!((joined.protocol.as_deref(), joined.members.len()), (Some("range"), 1));
    assert_eq!(story.group.state(), GroupState::CompletingRebalance);
    let (ticket, told) = story.syncs(&me, 1, &[(&me, b"all"), ("nobody", b"none")]);
    let synced = Synced {
        protocol_type: Some("consumer".to_owned()),
        protocol: Some("range".to_owned()),
        assignment: Bytes::from_static(b"all"),
    };
    assert_eq!(told, [Command::Synced(ticket, Ok(synced.clone()))]);
    assert_eq!(story.beats(&me, 1), Ok(()));
    // Asked again, told again.
    let (ticket, told) = story.syncs(&me, 1, &[]);
    assert_eq!(told, [Command::Synced(ticket, Ok(synced))]);
}

#[test]
fn who_is_not_of_the_generation_is_told_so() {
    let mut story = Story::new();
    let ids = story.stable(1);
    let generation = story.group.generation;
    for (member_id, generation, expected) in [
        (ids[0].as_str(), generation, Ok(())),
        (&ids[0], generation - 1, Err(GroupError::IllegalGeneration)),
        (&ids[0], generation + 1, Err(GroupError::IllegalGeneration)),
        ("nobody", generation, Err(GroupError::UnknownMember)),
        ("", generation, Err(GroupError::UnknownMember)),
    ] {
        assert_eq!(story.beats(member_id, generation), expected, "{member_id} {generation}");
        let (ticket, told) = story.syncs(member_id, generation, &[]);
        let [Command::Synced(answered, answer)] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((*answered, answer.clone().map(drop)), (ticket, expected), "{member_id} {generation}");
    }
}

#[test]
fn what_a_join_must_bring_is_checked() {
    let plain = || join("b", "");
    for (what, asked, expected) in [
        ("too short", Join { session_timeout_ms: 1, ..plain() }, GroupError::InvalidSessionTimeout),
        ("too long", Join { session_timeout_ms: i32::MAX, ..plain() }, GroupError::InvalidSessionTimeout),
        ("another kind", Join { protocol_type: "connect".into(), ..plain() }, GroupError::InconsistentProtocol),
        (
            "nothing in common",
            Join { protocols: vec![("x".into(), Bytes::new())], ..plain() },
            GroupError::InconsistentProtocol,
        ),
        ("nobody", join("b", "nobody"), GroupError::UnknownMember),
        ("no such instance", fixed("b", "nobody", "i"), GroupError::UnknownMember),
        ("an id first", Join { requires_member_id: true, ..plain() }, GroupError::MemberIdRequired),
    ] {
        let mut story = Story::new();
        story.stable(1);
        let (ticket, told) = story.joins(asked);
        assert_eq!(answered(&told), [(ticket, Err(expected))], "{what}");
        assert_eq!(story.group.state(), GroupState::Stable, "{what}");
    }
    let mut story = Story::new();
    story.stable(3);
    let (ticket, told) = story.joins(join("d", ""));
    assert_eq!(answered(&told), [(ticket, Err(GroupError::MaxSizeReached))]);
}

#[test]
fn three_members_come_together_and_one_leaves() {
    let mut story = Story::new();
    let ids = story.stable(3);
    let generation = story.group.generation;
    let ticket = story.ticket();
    let told = story.on(Event::Leave { ticket, members: vec![member(&ids[2]), member("nobody")] });
    let answer = vec![(member(&ids[2]), Ok(())), (member("nobody"), Err(GroupError::UnknownMember))];
    assert_eq!(told, [Command::Left(ticket, Ok(answer))]);
    assert_eq!(story.group.state(), GroupState::PreparingRebalance);
    assert_eq!(story.beats(&ids[1], generation), Err(GroupError::RebalanceInProgress));
    let (first, told) = story.joins(join("x", &ids[1]));
    assert_eq!(told, [], "it waits for the other");
    let (second, told) = story.joins(join("x", &ids[0]));
    assert_eq!(answered(&told), [(first, Ok(generation + 1)), (second, Ok(generation + 1))]);
    assert_eq!(story.group.leader.as_ref(), Some(&ids[0]), "who led, leads");
}

#[test]
fn silence_is_taken_for_leaving() {
    let mut story = Story::new();
    let ids = story.stable(2);
    let generation = story.group.generation;
    assert_eq!(story.passes(9_999), []);
    assert_eq!(story.beats(&ids[1], generation), Ok(()));
    assert_eq!(story.passes(10_000), [], "nobody waits for an answer");
    assert_eq!((story.group.state(), story.group.members.len()), (GroupState::PreparingRebalance, 1));
    let (ticket, told) = story.joins(join("x", &ids[1]));
    assert_eq!(answered(&told), [(ticket, Ok(generation + 1))], "the leader is gone, the next one leads");
    assert_eq!(story.group.leader.as_ref(), Some(&ids[1]));
    story.passes(30_000);
    assert_eq!((story.group.state(), story.group.members.len()), (GroupState::Empty, 0));
}

#[test]
fn a_rebalance_waits_no_longer_than_it_may() {
    let mut story = Story::new();
    let ids = story.stable(2);
    let generation = story.group.generation;
    // The other goes on to beat, and does not come back.
    let (ticket, told) = story.joins(join("x", &ids[0]));
    assert_eq!(told, []);
    for now in (5_000..60_000).step_by(5_000) {
        assert_eq!(story.passes(now), [], "{now}");
        assert_eq!(story.beats(&ids[1], generation), Err(GroupError::RebalanceInProgress));
    }
    assert_eq!(answered(&story.passes(60_000)), [(ticket, Ok(generation + 1))]);
    assert_eq!(story.group.members.len(), 1);
}

#[test]
fn who_joins_and_does_not_sync_is_out() {
    let mut story = Story::new();
    let (ticket, _) = story.joins(Join { session_timeout_ms: 120_000, ..join("a", "") });
    assert_eq!(story.passes(59_999), []);
    assert_eq!(story.group.state(), GroupState::CompletingRebalance);
    story.passes(60_000);
    assert_eq!((story.group.state(), story.group.members.len()), (GroupState::Empty, 0));
    assert_eq!(story.beats(&id("a", ticket), 1), Err(GroupError::UnknownMember));
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let mut story = Story::new();
    let (ticket, _) = story.joins(fixed("a", "", "i"));
    let old = id("i", ticket);
    let sync = Sync {
        member: MemberRef { member_id: old.clone(), instance_id: Some("i".to_owned()) },
        generation: 1,
        assignments: [(old.clone(), Bytes::from_static(b"all"))].into(),
        ..Default::default()
    };
    story.on(Event::Sync { ticket: 50, sync: sync.clone() });
    assert_eq!(story.group.state(), GroupState::Stable);
    let (ticket, told) = story.joins(fixed("a", "", "i"));
    let new = id("i", ticket);
    assert_eq!(answered(&told), [(ticket, Ok(1))], "the same generation");
    assert_eq!((story.group.state(), story.group.leader.as_ref()), (GroupState::Stable, Some(&new)));
    // It has what it had; who it was before is fenced.
    let again =
        Sync { member: MemberRef { member_id: new, ..sync.member.clone() }, assignments: [].into(), ..sync.clone() };
    let told = story.on(Event::Sync { ticket: 51, sync: again });
    assert!(matches!(&told[..], [Command::Synced(51, Ok(synced))] if synced.assignment == "all"), "{told:?}");
    let told = story.on(Event::Sync { ticket: 52, sync });
    assert_eq!(told, [Command::Synced(52, Err(GroupError::FencedInstance))]);
    let (ticket, told) = story.joins(fixed("a", &old, "i"));
    let refused = JoinRefused { error: GroupError::FencedInstance, member_id: old };
    assert_eq!(told, [Command::Joined(ticket, Err(refused))]);
}

#[test]
fn a_group_that_starts_waits_for_newcomers() {
    let mut story = Story::new();
    story.config.initial_rebalance_delay_ms = 3_000;
    let (first, told) = story.joins(join("a", ""));
    assert_eq!(told, []);
    story.now = 2_000;
    let (second, told) = story.joins(join("b", ""));
    assert_eq!(told, []);
    assert_eq!(story.passes(3_000), [], "someone came: it waits once more");
    assert_eq!(answered(&story.passes(6_000)), [(first, Ok(1)), (second, Ok(1))]);
}

#[test]
fn an_assignment_that_is_not_written_is_not_handed_out() {
    let mut story = Story::new();
    let (ticket, _) = story.joins(join("a", ""));
    let me = id("a", ticket);
    let now = Now { tick: 0, wall: 0 };
    let sync = Sync { member: member(&me), generation: 1, ..Default::default() };
    let told = story.group.on(&story.config, now, Event::Sync { ticket: 60, sync });
    let [Command::Write { id, .. }] = told.as_slice() else { panic!("{told:?}") };
    let told = story.on(Event::Written { id: *id, outcome: Err(GroupError::NotAvailable) });
    assert_eq!(told, [Command::Synced(60, Err(GroupError::NotAvailable))]);
    assert_eq!(story.group.state(), GroupState::PreparingRebalance);
}

/// One commit of an offset of `t-0`, by one that manages its partitions itself.
fn commit(ticket: Ticket, offset: i64) -> Event {
    let offsets = vec![(("t".to_owned(), 0), OffsetToCommit { offset, ..Default::default() })];
    Event::Commit { ticket, commit: Commit { generation: -1, offsets, ..Default::default() } }
}

#[test]
fn a_commit_that_takes_too_long_is_given_up_and_may_count_later() {
    let mut story = Story::new();
    let at = |tick| Now { tick, wall: tick };
    let told = story.group.on(&story.config, at(100), commit(1, 5));
    let [Command::Write { id, .. }] = told.as_slice() else { panic!("{told:?}") };
    let first = *id;
    let told = story.group.on(&story.config, at(200), commit(2, 6));
    let [Command::Write { id, .. }] = told.as_slice() else { panic!("{told:?}") };
    let second = *id;
    assert_eq!(story.group.deadline(), Some(5_100), "offsets.commit.timeout.ms");
    assert_eq!(story.passes(5_099), []);
    let late = vec![(("t".to_owned(), 0), Err(GroupError::NotAvailable))];
    assert_eq!(story.passes(5_100), [Command::Committed(1, late.clone())]);
    assert_eq!(story.passes(5_100), [], "once");
    assert_eq!(story.group.deadline(), Some(5_200));
    assert!(!story.group.is_trivial(), "it is not forgotten while something of it may be written");
    assert_eq!(story.on(Event::Written { id: first, outcome: Ok(()) }), [], "nobody waits for it any more");
    let shown = |group: &Group| group.offset(&("t".to_owned(), 0)).map(|committed| committed.offset);
    assert_eq!(shown(&story.group), Some(5), "the record is there, and so is the offset");
    assert_eq!(story.passes(5_200), [Command::Committed(2, late)]);
    story.on(Event::Written { id: second, outcome: Err(GroupError::NotCoordinator) });
    assert_eq!((shown(&story.group), story.group.deadline()), (Some(5), None));
    // What was written in time is nobody's any more when the time has come.
    let told = story.on(commit(3, 7));
    assert_eq!(told, [Command::Committed(3, vec![(("t".to_owned(), 0), Ok(()))])]);
    assert_eq!((story.passes(20_000), shown(&story.group)), (vec![], Some(7)));
}

#[test]
fn an_assignment_that_takes_too_long_is_asked_for_again() {
    let mut story = Story::new();
    let (ticket, _) = story.joins(join("a", ""));
    let me = id("a", ticket);
    let sync = Sync { member: member(&me), generation: 1, ..Default::default() };
    let told = story.group.on(&story.config, Now { tick: 0, wall: 0 }, Event::Sync { ticket: 60, sync });
    let [Command::Write { id, .. }] = told.as_slice() else { panic!("{told:?}") };
    let first = *id;
    assert_eq!(story.passes(4_999), []);
    assert_eq!(story.passes(5_000), [Command::Synced(60, Err(GroupError::NotAvailable))]);
    assert_eq!(story.group.state(), GroupState::PreparingRebalance);
    assert_eq!(story.on(Event::Written { id: first, outcome: Ok(()) }), [], "it comes too late");
    assert_eq!(story.group.state(), GroupState::PreparingRebalance);
    let (ticket, told) = story.joins(join("a", &me));
    assert_eq!(answered(&told), [(ticket, Ok(2))]);
    let (_, told) = story.syncs(&me, 2, &[(&me, b"all")]);
    assert!(matches!(&told[..], [Command::Synced(_, Ok(synced))] if synced.assignment == "all"), "{told:?}");
}

#[test]
fn a_deletion_that_takes_too_long_is_given_up_and_may_come_to_be() {
    let mut story = Story::new();
    story.on(commit(1, 5));
    let now = Now { tick: 0, wall: 0 };
    let partitions = vec![("t".to_owned(), 0)];
    let told = story.group.on(&story.config, now, Event::DeleteOffsets { ticket: 2, partitions });
    let [Command::Write { id: offsets, .. }] = told.as_slice() else { panic!("{told:?}") };
    let told = story.group.on(&story.config, now, Event::Delete { ticket: 3 });
    let [Command::Write { id: group, .. }] = told.as_slice() else { panic!("{told:?}") };
    let late = GroupError::NotAvailable;
    let told = story.passes(5_000);
    assert_eq!(told, [Command::OffsetsDeleted(2, Err(late)), Command::Deleted(3, Err(late))]);
    for id in [*offsets, *group] {
        assert_eq!(story.on(Event::Written { id, outcome: Ok(()) }), []);
    }
    assert_eq!((story.group.state(), story.group.offsets().len()), (GroupState::Dead, 0));
}
