//! What a follower makes of its leader's answers, and of the tier.

use super::*;

/// A follower of term 5.
fn follower() -> Core {
    let mut core = core(config());
    core.on(Event::Leadership(follows(5, &[ME, OTHER])));
    core
}

/// Takes a batch of ten records that was written under `epoch`; it is safe with the position of its last offset.
fn take(core: &mut Core, epoch: LeaderEpoch) {
    let base = core.offsets().log_end;
    let batch = BatchMeta { base_offset: base, leader_epoch: epoch, ..batch(10) };
    assert_eq!(core.check(&batch, Origin::Replica), Ok(Check::New(base)));
    core.appended(&batch, base, Some(lsn(base + 10)), NOW);
}

fn lsn(end: Offset) -> Lsn {
    Lsn(u64::try_from(end).expect("an offset"))
}

/// Batches of ten records under these epochs, all of them synced.
fn with(epochs: &[LeaderEpoch]) -> Core {
    let mut core = follower();
    for epoch in epochs {
        take(&mut core, *epoch);
    }
    let end = core.offsets().log_end;
    core.on(Event::Synced(lsn(end)));
    core
}

fn said(epoch: LeaderEpoch, high_watermark: Offset, log_start: Offset) -> Event {
    Event::LeaderSaid(LeaderSaid { epoch, high_watermark, log_start })
}

/// A cut for what the leader of `term` has.
fn cut(term: LeaderEpoch, loss: Loss) -> Cut {
    Cut { term, loss }
}

fn at(core: &Core, offset: Offset) -> Snapshot {
    let mut epochs = core.epochs().clone();
    epochs.truncate_tail(offset);
    Snapshot { offset, epochs, position: 40 * u64::try_from(offset).expect("an offset"), ..Snapshot::default() }
}

#[test]
fn a_follower_takes_what_its_leader_of_this_term_says_and_only_whole_batches_in_a_row() {
    let mut core = follower();
    take(&mut core, 5);
    for base in [9, 11, 0] {
        let batch = BatchMeta { base_offset: base, ..batch(1) };
        let refused = Err(AppendError::OutOfOrderOffset { expected: 10, got: base });
        assert_eq!(core.check(&batch, Origin::Replica), refused);
    }
    assert_eq!(core.check_writer(Some(5), Origin::Replica, false), Ok(()));
    assert_eq!(core.check_writer(None, Origin::Replica, false), Err(AppendError::NotLeader));
    assert_eq!(core.check_writer(Some(4), Origin::Replica, false), Err(AppendError::FencedLeaderEpoch { current: 5 }));
    assert_eq!(core.check_writer(Some(5), Origin::Client, false), Err(AppendError::NotLeader));
    core.on(Event::Leadership(leadership(6, &[ME, OTHER])));
    assert_eq!(core.check_writer(Some(6), Origin::Replica, false), Err(AppendError::NotLeader), "it leads itself");
}

#[test]
fn the_high_watermark_is_the_leaders_as_far_as_it_is_synced_here() {
    let mut core = follower();
    take(&mut core, 5);
    take(&mut core, 5);
    assert_eq!(core.on(said(5, 15, 0)), [], "nothing is synced");
    assert_eq!(core.on(Event::Synced(Lsn(10))), [Command::AckLeader(10), Command::Visible]);
    assert_eq!(core.offsets().high_watermark, 10);
    assert_eq!(core.on(Event::Synced(Lsn(20))), [Command::AckLeader(20), Command::Visible]);
    assert_eq!(core.offsets().high_watermark, 15);
    assert_eq!(core.on(said(5, 12, 0)), [], "it does not go back");
    assert_eq!(core.on(said(4, 20, 0)), [], "another term");
    assert_eq!(core.on(said(6, 20, 0)), []);
    assert_eq!(core.on(said(5, 40, 0)), [Command::Visible], "the leader has more than is here");
    assert_eq!(core.offsets().high_watermark, 20);
    // What the last leader said says nothing of what the next one has.
    core.on(Event::Leadership(follows(7, &[ME, OTHER])));
    take(&mut core, 7);
    assert_eq!(core.on(Event::Synced(Lsn(30))), [Command::AckLeader(30)]);
    assert_eq!(core.on(said(7, 30, 0)), [Command::Visible]);
}

#[test]
fn the_log_start_follows_the_leaders() {
    let mut core = with(&[5, 5]);
    let commands = core.on(said(5, 10, 7));
    assert_eq!(commands, [Command::Visible, Command::TrimHead(7), Command::WakeReaders]);
    assert_eq!((core.offsets().log_start, core.offsets().local_start), (7, 7));
    assert_eq!(core.on(said(5, 10, 3)), []);
    // Of a tiered log the pointer says where it starts, on every replica.
    let mut tiered = with(&[5, 5]);
    tiered.configure(LogConfig { remote: true, ..config() });
    assert_eq!(tiered.on(said(5, 10, 7)), [Command::Visible]);
    assert_eq!(tiered.offsets().log_start, 0);
}

#[test]
fn histories_part_where_their_epochs_do() {
    // [0, 10) of epoch 1, [10, 20) of 3, [20, 40) of 4.
    let core = with(&[1, 3, 4, 4]);
    let to = |to| Truncation::Cut { to, why: cut(5, Loss::Uncommitted) };
    for (epoch, end, expected) in [
        // The leader has less of the same epoch.
        (4, 30, to(30)),
        (4, 40, Truncation::Agrees),
        (4, 50, Truncation::Agrees),
        (3, 15, to(15)),
        // It has more of an epoch that goes on otherwise here.
        (3, 35, to(20)),
        (1, 5, to(5)),
        // It has an epoch that we lack: it is asked again about the one before.
        (2, 8, to(10)),
        (2, 100, to(10)),
        // Nothing is the same.
        (0, 0, to(0)),
        (-1, 0, to(0)),
    ] {
        assert_eq!(core.truncation_point(5, epoch, end), expected, "epoch {epoch} ends at {end}");
    }
    assert_eq!(core.last_epoch(), Some(4));
    assert_eq!(follower().last_epoch(), None);
}

#[test]
fn what_was_led_without_a_record_is_no_epoch_of_the_log() {
    let mut core = with(&[5]);
    core.on(Event::Leadership(leadership(6, &[ME, OTHER])));
    core.on(Event::Leadership(follows(7, &[ME, OTHER])));
    assert_eq!(core.last_epoch(), Some(5));
    assert_eq!(core.truncation_point(5, 5, 10), Truncation::Agrees);
    take(&mut core, 7);
    let epochs: Vec<_> = core.epochs().entries().iter().map(|entry| (entry.epoch, entry.start)).collect();
    assert_eq!(epochs, [(5, 0), (7, 10)]);
}

#[test]
fn histories_that_part_below_the_local_log_or_in_the_tier_start_over() {
    let mut core = with(&[1, 3, 4, 4]);
    core.on(said(5, 30, 10));
    assert_eq!(core.truncation_point(5, 1, 5), Truncation::StartOver);
    assert_eq!(core.truncation_point(5, 3, 10), Truncation::Cut { to: 10, why: cut(5, Loss::Committed) });
    let mut tiered = with(&[1, 3, 4, 4]);
    tiered.on(Event::Pointer { generation: 1, log_start: 0, end: TierEnd { offset: 20, epoch: 3 }, now_ms: NOW });
    assert_eq!(tiered.truncation_point(5, 3, 15), Truncation::StartOver);
    assert_eq!(tiered.truncation_point(5, 4, 25), Truncation::Cut { to: 25, why: cut(5, Loss::Uncommitted) });
}

#[test]
fn what_is_committed_is_cut_only_after_an_unclean_election() {
    let mut core = with(&[5, 5, 5]);
    core.on(said(5, 20, 0));
    let (uncommitted, committed) = (cut(5, Loss::Uncommitted), cut(5, Loss::Committed));
    assert_eq!(core.may_cut(20, uncommitted), Ok(()));
    assert_eq!(core.may_cut(10, uncommitted), Err(Uncuttable::Committed));
    assert_eq!(core.may_cut(10, committed), Err(Uncuttable::Committed), "this leader said that it is committed");
    let mut recovering = core.clone();
    let unclean = Leadership { recovering: true, partition_epoch: 1, ..follows(5, &[OTHER]) };
    recovering.on(Event::Leadership(unclean));
    assert_eq!(recovering.may_cut(10, committed), Ok(()));
    core.on(Event::Leadership(follows(6, &[OTHER])));
    assert_eq!(core.may_cut(10, cut(6, Loss::Uncommitted)), Err(Uncuttable::Committed));
    let commands = core.truncate(at(&core, 10), cut(6, Loss::Committed));
    let uncommitted = Command::Uncommitted { cut_to: 10, was: 20 };
    assert_eq!(commands, [Command::FailAcks(AckError::NotLeader), Command::WakeReaders, uncommitted]);
    let ends = core.offsets();
    assert_eq!((ends.high_watermark, ends.last_stable, ends.synced_end, ends.log_end), (10, 10, 10, 10));
}

#[test]
fn what_a_leader_lacked_is_cut_only_in_its_term() {
    let mut core = with(&[5, 5, 5]);
    core.on(said(5, 20, 0));
    assert_eq!(core.may_cut(25, cut(4, Loss::Uncommitted)), Err(Uncuttable::Moved));
    // The next leader may have all of it, and may have committed it since.
    core.on(Event::Leadership(follows(6, &[ME, OTHER])));
    assert_eq!(core.may_cut(25, cut(5, Loss::Uncommitted)), Err(Uncuttable::Moved));
    core.on(Event::Leadership(leadership(7, &[ME])));
    assert_eq!(core.may_cut(25, cut(7, Loss::Uncommitted)), Err(Uncuttable::Moved), "a leader cuts nothing");
}

#[test]
fn a_log_that_contradicts_the_tier_takes_nothing_from_its_pointer() {
    let core = with(&[1, 3, 4, 4]);
    let end = |offset, epoch| TierEnd { offset, epoch };
    for (end, expected) in [
        (end(0, -1), Contradiction::None),
        (end(20, 3), Contradiction::None),
        (end(20, 2), Contradiction::OtherEpoch),
        (end(20, 4), Contradiction::OtherEpoch),
        (end(20, -1), Contradiction::Unknown),
        (end(40, 4), Contradiction::None),
        (end(41, 4), Contradiction::EndsBefore),
    ] {
        assert_eq!(core.contradiction(5, end), expected, "{end:?}");
        let mut core = core.clone();
        core.on(Event::Pointer { generation: 3, log_start: 5, end, now_ms: NOW });
        let taken = !matches!(expected, Contradiction::OtherEpoch | Contradiction::EndsBefore);
        let committed = if expected == Contradiction::None { end.offset } else { 0 };
        let ends = core.offsets();
        let expected = if taken { (5, end.offset, committed) } else { (0, 0, 0) };
        assert_eq!((ends.log_start, ends.tier_end, ends.high_watermark), expected, "{end:?}");
    }
    // What was put on disk behind the tier does not contradict it.
    let mut fresh = follower();
    fresh.reset(NOW, 0, Snapshot { offset: 100, segment_base: 100, ..Snapshot::default() });
    assert_eq!(fresh.contradiction(100, end(100, 7)), Contradiction::None);
    assert_eq!(
        fresh.contradiction(101, end(100, 7)),
        Contradiction::EndsBefore,
        "all that it could append was deleted"
    );
    assert_eq!(fresh.contradiction(101, end(0, -1)), Contradiction::EndsBefore, "the same with nothing tiered yet");
}

#[test]
fn an_empty_log_may_begin_before_its_first_readable_offset() {
    let mut core = follower();
    core.reset(NOW, 25, Snapshot { offset: 25, segment_base: 25, ..Snapshot::default() });
    assert!(core.is_blank());
    core.begin_before(NOW, Snapshot { offset: 20, segment_base: 20, ..Snapshot::default() });
    take(&mut core, 5);
    assert_eq!((core.offsets().log_start, core.offsets().local_start, core.offsets().log_end), (25, 20, 30));
    core.on(Event::Synced(Lsn(30)));
    let commands = core.on(said(5, 28, 25));
    assert_eq!(commands, [Command::Visible, Command::TrimHead(25), Command::WakeReaders]);
}

#[test]
fn a_follower_serves_who_asks_for_the_nearest() {
    let core = with(&[5]);
    assert_eq!(core.check_reader(Some(5), Reader::NearConsumer), Ok(()));
    assert_eq!(core.check_reader(Some(5), Reader::Consumer), Err(ReadError::NotLeader));
    assert_eq!(core.check_reader(Some(5), Reader::Follower(OTHER)), Err(ReadError::NotLeader));
    let unknown = Err(ReadError::UnknownLeaderEpoch { current: 5 });
    assert_eq!(core.check_reader(Some(6), Reader::NearConsumer), unknown);
}
