//! Scripts: what happens to a follower, and every command it gives.

use super::super::session::Ask;
use super::*;
use crate::log::epochs::EpochEnd;
use bytes::Bytes;
use proto::ids::{DirectoryId, TopicId, Uuid};

const DIRECTORY: DirectoryId = DirectoryId(Uuid::from_u128(1));

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new(TopicId(Uuid::from_u128(7)), partition)
}

fn followed(partition: i32, epoch: LeaderEpoch) -> Followed {
    Followed { tp: tp(partition), epoch, directory: DIRECTORY, throttled: false }
}

fn position(end: Offset, last_epoch: LeaderEpoch) -> Position {
    Position { end, last_epoch, log_start: 0, high_watermark: 0 }
}

fn wanted(offset: Offset, epoch: LeaderEpoch, last_epoch: LeaderEpoch) -> Want {
    Want { offset, epoch, last_epoch, log_start: 0, high_watermark: 0, directory: DIRECTORY }
}

const SAID: Said = Said { high_watermark: 5, log_start: 0 };
const SAID_NOTHING: Said = Said { high_watermark: -1, log_start: -1 };

fn records() -> Bytes {
    Bytes::from_static(b"batches")
}

/// An answer about one partition, in session 42.
fn answer(partition: i32, error: ErrorCode, said: Said, diverging: Option<EpochEnd>, records: Bytes) -> Event {
    let one = PartitionAnswer { tp: tp(partition), error, said, diverging, records };
    Event::Answered(Answer { error: ErrorCode::None, session_id: 42, partitions: vec![one] })
}

fn brought(partition: i32) -> Event {
    answer(partition, ErrorCode::None, SAID, None, records())
}

fn refused(partition: i32, error: ErrorCode) -> Event {
    answer(partition, error, SAID_NOTHING, None, Bytes::new())
}

fn nothing_new() -> Event {
    Event::Answered(Answer { error: ErrorCode::None, session_id: 42, partitions: vec![] })
}

fn fetch(session_id: i32, session_epoch: i32, partitions: Vec<(TopicPartition, Want)>) -> Command {
    Command::Fetch(Ask { session_id, session_epoch, partitions, forgotten: vec![] })
}

/// Partitions 0, 1, .. that stand at offset 10 of epoch 3, and the first request for them.
fn fetching(count: i32) -> Core {
    let mut core = Core::new(1_000);
    let all: Vec<_> = (0..count).map(|partition| followed(partition, 3)).collect();
    for command in core.on(0, Event::Assigned(all)) {
        let Command::Settle(tp, ticket) = command else { panic!("{command:?}") };
        assert_eq!(core.on(0, Event::Done(tp, ticket, Outcome::At(position(10, 3)))), vec![]);
    }
    let all = (0..count).map(|partition| (tp(partition), wanted(10, 3, 3))).collect();
    assert_eq!(core.ask(0), vec![fetch(0, 0, all)]);
    assert_eq!(core.ask(0), vec![], "one at a time");
    core
}

/// The ticket of the only command.
#[track_caller]
fn ticket(commands: &[Command]) -> Ticket {
    match commands {
        [Command::Settle(_, ticket)]
        | [Command::Append { ticket, .. } | Command::Cut { ticket, .. } | Command::StartOver { ticket, .. }] => *ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_next_request_leaves_when_all_that_came_is_durable() {
    let mut core = fetching(3);
    let one = |partition| PartitionAnswer {
        tp: tp(partition),
        error: ErrorCode::None,
        said: SAID,
        diverging: None,
        records: if partition < 2 { records() } else { Bytes::new() },
    };
    let all = Answer { error: ErrorCode::None, session_id: 42, partitions: (0..3).map(one).collect() };
    let append = |partition, ticket| Command::Append {
        tp: tp(partition),
        ticket: Ticket(ticket),
        epoch: 3,
        records: records(),
        said: SAID,
    };
    let learn = Command::Learn(tp(2), 3, SAID);
    assert_eq!(core.on(1, Event::Answered(all)), vec![append(0, 4), append(1, 5), learn]);
    assert_eq!((core.ask(1), core.due()), (vec![], None));
    let there = Position { end: 12, last_epoch: 3, log_start: 0, high_watermark: 5 };
    assert_eq!(core.on(2, Event::Done(tp(1), Ticket(5), Outcome::At(there))), vec![]);
    assert_eq!(core.ask(2), vec![], "the other one is not durable yet");
    assert_eq!(core.on(3, Event::Done(tp(0), Ticket(4), Outcome::At(position(11, 3)))), vec![]);
    let next = vec![
        (tp(0), wanted(11, 3, 3)),
        (tp(1), Want { high_watermark: 5, ..wanted(12, 3, 3) }),
        (tp(2), Want { high_watermark: 5, ..wanted(10, 3, 3) }),
    ];
    assert_eq!(core.ask(3), vec![fetch(42, 1, next)]);
    assert_eq!(core.on(4, nothing_new()), vec![]);
    assert_eq!(core.ask(4), vec![fetch(42, 2, vec![])], "nothing changed");
}

#[test]
fn a_diverging_history_is_cut_until_it_agrees() {
    let mut core = fetching(1);
    let end = EpochEnd { epoch: 2, end: 8 };
    let cut = core.on(0, answer(0, ErrorCode::None, SAID, Some(end), Bytes::new()));
    assert_eq!(cut, vec![Command::Cut { tp: tp(0), ticket: Ticket(2), epoch: 3, end }]);
    assert_eq!(core.ask(0), vec![], "it is the only one");
    core.on(1, Event::Done(tp(0), Ticket(2), Outcome::At(position(8, 2))));
    assert_eq!(core.ask(1), vec![fetch(42, 1, vec![(tp(0), wanted(8, 3, 2))])]);
    let end = EpochEnd { epoch: 1, end: 4 };
    let cut = core.on(2, answer(0, ErrorCode::None, SAID, Some(end), Bytes::new()));
    core.on(3, Event::Done(tp(0), ticket(&cut), Outcome::At(position(4, 1))));
    assert_eq!(core.ask(3), vec![fetch(42, 2, vec![(tp(0), wanted(4, 3, 1))])]);
    assert!(matches!(core.on(4, brought(0))[..], [Command::Append { .. }]));
}

#[test]
fn what_is_being_cut_is_forgotten_and_holds_nobody_up() {
    let mut core = fetching(2);
    let end = EpochEnd { epoch: 2, end: 8 };
    let cut = core.on(0, answer(0, ErrorCode::None, SAID, Some(end), Bytes::new()));
    let ask = Ask { session_id: 42, session_epoch: 1, partitions: vec![], forgotten: vec![tp(0)] };
    assert_eq!(core.ask(0), vec![Command::Fetch(ask)]);
    // It comes back while that request is under way, which is given up for it.
    core.on(200, Event::Done(tp(0), ticket(&cut), Outcome::At(position(8, 2))));
    let all = vec![(tp(0), wanted(8, 3, 2)), (tp(1), wanted(10, 3, 3))];
    assert_eq!(core.ask(200), vec![Command::Abandon, fetch(42, 0, all)]);
}

#[test]
fn requests_are_not_given_up_one_after_the_other() {
    let mut core = fetching(1);
    let again = ABANDON_AGE_MS + ABANDON_PAUSE_MS;
    let script = [(1, 1, 0, ABANDON_AGE_MS), (ABANDON_AGE_MS, 2, 2, 0), (50, 3, 0, again), (again, 4, 2, 0)];
    for (now, partition, expected, due) in script {
        let settle = core.on(now, Event::Assigned(vec![followed(partition, 3)]));
        core.on(now, Event::Done(tp(partition), ticket(&settle), Outcome::At(position(10, 3))));
        assert_eq!(core.ask(now).len(), expected, "at {now}");
        assert_eq!(core.due(), (expected == 0).then_some(due));
    }
}

#[test]
fn an_offset_that_only_the_tier_has_starts_over() {
    let mut core = fetching(1);
    let over = Command::StartOver { tp: tp(0), ticket: Ticket(2), epoch: 3, because: Because::OfTier };
    assert_eq!(core.on(0, refused(0, ErrorCode::OffsetMovedToTieredStorage)), vec![over]);
    core.on(9, Event::Done(tp(0), Ticket(2), Outcome::At(position(50, 3))));
    assert_eq!(core.ask(9), vec![fetch(42, 1, vec![(tp(0), wanted(50, 3, 3))])]);
    // Starting over did not help: once more, but not at once.
    assert_eq!(core.on(10, refused(0, ErrorCode::OffsetMovedToTieredStorage)), vec![]);
    let (_, phase, _) = core.partitions().next().expect("it is followed");
    let why = Trouble::Answered(ErrorCode::OffsetMovedToTieredStorage);
    assert_eq!(phase, Phase::Waiting { until: 10 + 2 * FIRST_PAUSE_MS, why });
    let settle = core.on(10 + 2 * FIRST_PAUSE_MS, Event::Tick);
    core.on(61, Event::Done(tp(0), ticket(&settle), Outcome::At(position(50, 3))));
    assert_eq!(core.ask(61).len(), 1);
    let again = core.on(62, refused(0, ErrorCode::OffsetMovedToTieredStorage));
    assert!(matches!(again[..], [Command::StartOver { .. }]));
}

#[test]
fn a_log_that_lacks_what_is_tiered_is_not_fetched_for() {
    let mut core = Core::new(1_000);
    let settle = core.on(0, Event::Assigned(vec![followed(0, 3)]));
    let over = core.on(0, Event::Done(tp(0), ticket(&settle), Outcome::Behind));
    assert_eq!(over, vec![Command::StartOver { tp: tp(0), ticket: Ticket(2), epoch: 3, because: Because::OfTier }]);
    assert_eq!(core.ask(0), vec![]);
    // The object store is down: it alone waits.
    assert_eq!(core.on(1, Event::Done(tp(0), Ticket(2), Outcome::Failed(Failure::Other))), vec![]);
    assert_eq!(core.due(), Some(1 + FIRST_PAUSE_MS));
    let settle = core.on(1 + FIRST_PAUSE_MS, Event::Tick);
    let over = core.on(30, Event::Done(tp(0), ticket(&settle), Outcome::Behind));
    core.on(40, Event::Done(tp(0), ticket(&over), Outcome::At(position(50, 2))));
    assert_eq!(core.ask(40), vec![fetch(0, 0, vec![(tp(0), wanted(50, 3, 2))])]);
}

#[test]
fn an_offset_below_the_leaders_start_goes_on_there() {
    let mut core = fetching(1);
    let said = Said { high_watermark: 90, log_start: 70 };
    let over = Command::StartOver { tp: tp(0), ticket: Ticket(2), epoch: 3, because: Because::BeforeStart(70) };
    assert_eq!(core.on(0, answer(0, ErrorCode::OffsetOutOfRange, said, None, Bytes::new())), vec![over]);
}

#[test]
fn a_history_that_parts_below_what_is_here_starts_over() {
    let mut core = fetching(1);
    let said = Said { high_watermark: 90, log_start: 6 };
    let end = EpochEnd { epoch: 0, end: 3 };
    let cut = ticket(&core.on(0, answer(0, ErrorCode::None, said, Some(end), Bytes::new())));
    let over = Command::StartOver { tp: tp(0), ticket: Ticket(3), epoch: 3, because: Because::Apart(6) };
    assert_eq!(core.on(1, Event::Done(tp(0), cut, Outcome::Apart)), vec![over]);
}

#[test]
fn an_offset_out_of_range_never_drops_what_is_in_it() {
    let mut core = fetching(1);
    for said in [SAID, SAID_NOTHING] {
        assert_eq!(core.on(0, answer(0, ErrorCode::OffsetOutOfRange, said, None, Bytes::new())), vec![]);
        let settle = core.on(1_000, Event::Tick);
        core.on(1_000, Event::Done(tp(0), ticket(&settle), Outcome::At(position(10, 3))));
        assert_eq!(core.ask(1_000).len(), 1);
    }
}

#[test]
fn who_does_not_lead_is_asked_again_later_and_later() {
    for code in [ErrorCode::NotLeaderOrFollower, ErrorCode::FencedLeaderEpoch, ErrorCode::UnknownLeaderEpoch] {
        let mut core = fetching(1);
        let mut now = 0;
        for pause in [25, 50, 100, 200, 400, 800, 1_000, 1_000] {
            assert_eq!(core.on(now, refused(0, code)), vec![]);
            assert_eq!((core.ask(now), core.due()), (vec![], Some(now + pause)));
            now += pause;
            let settle = core.on(now, Event::Tick);
            core.on(now, Event::Done(tp(0), ticket(&settle), Outcome::At(position(10, 3))));
            assert_eq!(core.ask(now).len(), 1);
        }
    }
}

#[test]
fn a_newer_epoch_ends_the_wait() {
    let mut core = fetching(1);
    core.on(0, refused(0, ErrorCode::UnknownLeaderEpoch));
    let settle = core.on(1, Event::Assigned(vec![followed(0, 4)]));
    core.on(1, Event::Done(tp(0), ticket(&settle), Outcome::At(position(10, 3))));
    assert_eq!(core.ask(1), vec![fetch(42, 1, vec![(tp(0), wanted(10, 4, 3))])]);
    assert_eq!(core.due(), None, "nothing waits any more");
}

#[test]
fn an_answer_to_what_was_asked_under_another_epoch_does_not_count() {
    let mut core = fetching(1);
    let settle = core.on(0, Event::Assigned(vec![followed(0, 4)]));
    core.on(0, Event::Done(tp(0), ticket(&settle), Outcome::At(position(10, 3))));
    assert_eq!(core.on(1, brought(0)), vec![]);
    assert_eq!(core.ask(1), vec![fetch(42, 1, vec![(tp(0), wanted(10, 4, 3))])]);
    assert!(matches!(core.on(2, brought(0))[..], [Command::Append { epoch: 4, .. }]));
}

#[test]
fn the_same_assignment_again_changes_nothing() {
    let mut core = fetching(1);
    assert_eq!(core.on(0, Event::Assigned(vec![followed(0, 3)])), vec![]);
    assert!(matches!(core.on(1, brought(0))[..], [Command::Append { .. }]));
}

#[test]
fn a_connection_lost_between_append_and_sync_asks_again_when_it_is_durable() {
    let mut core = fetching(2);
    let append = core.on(0, brought(0));
    let append = ticket(&append);
    // Nothing is asked before, and what is durable by then is told to the new connection.
    assert_eq!(core.on(1, Event::Done(tp(0), append, Outcome::At(position(12, 3)))), vec![]);
    assert_eq!(core.ask(1).len(), 1);
    assert_eq!(core.on(2, Event::Broke), vec![]);
    assert_eq!((core.ask(2), core.due()), (vec![], Some(2 + FIRST_PAUSE_MS)));
    let all = vec![(tp(0), wanted(12, 3, 3)), (tp(1), wanted(10, 3, 3))];
    assert_eq!(core.ask(27), vec![fetch(42, 0, all)]);
    core.on(28, Event::Broke);
    assert_eq!(core.due(), Some(28 + 2 * FIRST_PAUSE_MS));
}

#[test]
fn an_append_that_was_overtaken_by_another_epoch_is_waited_for() {
    let mut core = fetching(1);
    let append = ticket(&core.on(0, brought(0)));
    let settle = core.on(1, Event::Assigned(vec![followed(0, 4)]));
    assert_eq!(core.on(2, Event::Done(tp(0), append, Outcome::Failed(Failure::Moved))), vec![]);
    assert_eq!(core.ask(2), vec![], "it is not known what is durable");
    core.on(3, Event::Done(tp(0), ticket(&settle), Outcome::At(position(12, 3))));
    assert_eq!(core.ask(3), vec![fetch(42, 1, vec![(tp(0), wanted(12, 4, 3))])]);
}

#[test]
fn what_is_dropped_while_it_is_appended_holds_nobody_up() {
    let mut core = fetching(2);
    let append = ticket(&core.on(0, brought(0)));
    assert_eq!(core.on(1, Event::Dropped(vec![tp(0)])), vec![Command::Left(tp(0))]);
    let ask = Ask { session_id: 42, session_epoch: 1, partitions: vec![], forgotten: vec![tp(0)] };
    assert_eq!(core.ask(1), vec![Command::Fetch(ask)]);
    assert_eq!(core.on(2, Event::Done(tp(0), append, Outcome::At(position(12, 3)))), vec![]);
}

#[test]
fn what_is_dropped_while_it_is_cut_leaves_when_that_is_done() {
    let mut core = fetching(1);
    let end = EpochEnd { epoch: 2, end: 8 };
    let cut = ticket(&core.on(0, answer(0, ErrorCode::None, SAID, Some(end), Bytes::new())));
    assert_eq!(core.on(1, Event::Dropped(vec![tp(0)])), vec![]);
    assert_eq!(core.partitions().count(), 0);
    let left = core.on(2, Event::Done(tp(0), cut, Outcome::At(position(8, 2))));
    assert_eq!(left, vec![Command::Left(tp(0))]);
    assert!(core.is_empty());
}

#[test]
fn what_comes_back_while_it_is_cut_is_looked_at_anew() {
    // It may have left the broker in between: what was cut, or failed to be, was another log then.
    for outcome in [Outcome::At(position(3, 2)), Outcome::Failed(Failure::Gone), Outcome::Apart] {
        let mut core = fetching(1);
        let end = EpochEnd { epoch: 2, end: 8 };
        let cut = ticket(&core.on(0, answer(0, ErrorCode::None, SAID, Some(end), Bytes::new())));
        core.on(1, Event::Dropped(vec![tp(0)]));
        assert_eq!(core.on(2, Event::Assigned(vec![followed(0, 4)])), vec![]);
        let settle = core.on(3, Event::Done(tp(0), cut, outcome));
        assert_eq!(settle, vec![Command::Settle(tp(0), ticket(&settle))]);
        core.on(3, Event::Done(tp(0), ticket(&settle), Outcome::At(position(8, 2))));
        let partitions = vec![(tp(0), wanted(8, 4, 2))];
        let ask = Ask { session_id: 42, session_epoch: 1, partitions, forgotten: vec![] };
        assert_eq!(core.ask(3), vec![Command::Fetch(ask)]);
    }
}

#[test]
fn dropping_what_is_not_followed_is_done_at_once() {
    assert_eq!(Core::new(1_000).on(0, Event::Dropped(vec![tp(0)])), vec![Command::Left(tp(0))]);
}

#[test]
fn a_session_that_is_gone_is_begun_anew_at_once_but_not_for_ever() {
    let gone = || {
        let error = ErrorCode::FetchSessionIdNotFound;
        Event::Answered(Answer { error, session_id: 0, partitions: vec![] })
    };
    let mut core = fetching(1);
    core.on(0, nothing_new());
    core.ask(0);
    core.on(1, gone());
    assert_eq!(core.ask(1), vec![fetch(0, 0, vec![(tp(0), wanted(10, 3, 3))])]);
    core.on(2, gone());
    assert_eq!((core.ask(2), core.due()), (vec![], Some(2 + 2 * FIRST_PAUSE_MS)));
}

#[test]
fn a_request_that_is_refused_is_made_again_later() {
    let mut core = fetching(1);
    let error = ErrorCode::ClusterAuthorizationFailed;
    core.on(0, Event::Answered(Answer { error, session_id: 0, partitions: vec![] }));
    assert_eq!((core.ask(0), core.due()), (vec![], Some(FIRST_PAUSE_MS)));
}

#[test]
fn corrupt_answers_are_asked_for_again_and_then_of_the_tier() {
    let mut core = fetching(1);
    let mut now = 0;
    for _ in 1..CORRUPT_ANSWERS {
        let append = ticket(&core.on(now, brought(0)));
        assert_eq!(core.on(now, Event::Done(tp(0), append, Outcome::Failed(Failure::Corrupt))), vec![]);
        now += 1_000;
        let settle = core.on(now, Event::Tick);
        core.on(now, Event::Done(tp(0), ticket(&settle), Outcome::At(position(10, 3))));
        assert_eq!(core.ask(now).len(), 1);
    }
    let append = ticket(&core.on(now, brought(0)));
    let over = core.on(now, Event::Done(tp(0), append, Outcome::Failed(Failure::Corrupt)));
    let ticket = ticket(&over);
    assert_eq!(over, vec![Command::StartOver { tp: tp(0), ticket, epoch: 3, because: Because::OfTier }]);
}

#[test]
fn a_full_directory_is_tried_again_and_a_failed_one_is_not() {
    let mut core = fetching(1);
    let append = ticket(&core.on(0, brought(0)));
    core.on(0, Event::Done(tp(0), append, Outcome::Failed(Failure::Full)));
    assert_eq!(core.due(), Some(FULL_PAUSE_MS));
    let settle = core.on(FULL_PAUSE_MS, Event::Tick);
    core.on(FULL_PAUSE_MS, Event::Done(tp(0), ticket(&settle), Outcome::At(position(10, 3))));
    core.ask(FULL_PAUSE_MS);
    let append = ticket(&core.on(FULL_PAUSE_MS, brought(0)));
    core.on(FULL_PAUSE_MS, Event::Done(tp(0), append, Outcome::Failed(Failure::Gone)));
    assert_eq!((core.ask(FULL_PAUSE_MS), core.due()), (vec![], None));
    assert!(matches!(core.on(FULL_PAUSE_MS, Event::Assigned(vec![followed(0, 3)]))[..], [Command::Settle(..)]));
}

#[test]
fn what_the_leader_says_without_records_is_learnt_and_told_back() {
    let mut core = fetching(1);
    let said = Said { high_watermark: 99, log_start: 7 };
    let learn = core.on(0, answer(0, ErrorCode::None, said, None, Bytes::new()));
    assert_eq!(learn, vec![Command::Learn(tp(0), 3, said)]);
    let want = Want { high_watermark: 10, log_start: 7, ..wanted(10, 3, 3) };
    assert_eq!(core.ask(0), vec![fetch(42, 1, vec![(tp(0), want)])]);
}

#[test]
fn what_is_throttled_waits_and_holds_nobody_up() {
    let mut core = fetching(1);
    let throttled = Followed { throttled: true, ..followed(1, 3) };
    let settle = core.on(0, Event::Assigned(vec![throttled]));
    assert_eq!(core.on(0, Event::Held(true)), vec![]);
    core.on(0, Event::Done(tp(1), ticket(&settle), Outcome::At(position(10, 3))));
    assert_eq!(core.ask(0), vec![], "no request is given up for it");
    core.on(1, nothing_new());
    assert_eq!(core.ask(1), vec![fetch(42, 1, vec![])]);
    core.on(2, nothing_new());
    let settle = core.on(2, Event::Held(false));
    core.on(2, Event::Done(tp(1), ticket(&settle), Outcome::At(position(10, 3))));
    assert_eq!(core.ask(2), vec![fetch(42, 2, vec![(tp(1), wanted(10, 3, 3))])]);
    // Reached again, by what that brought: it is forgotten until there is room.
    let append = ticket(&core.on(3, brought(1)));
    core.on(3, Event::Held(true));
    core.on(4, Event::Done(tp(1), append, Outcome::At(position(12, 3))));
    let ask = Ask { session_id: 42, session_epoch: 3, partitions: vec![], forgotten: vec![tp(1)] };
    assert_eq!(core.ask(4), vec![Command::Fetch(ask)]);
    // In sync, it is not held any more.
    let settle = core.on(5, Event::Assigned(vec![followed(1, 3)]));
    core.on(5, Event::Done(tp(1), ticket(&settle), Outcome::At(position(12, 3))));
    core.on(6, nothing_new());
    assert_eq!(core.ask(6), vec![fetch(42, 4, vec![(tp(1), wanted(12, 3, 3))])]);
}
