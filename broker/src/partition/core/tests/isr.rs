//! What a leader makes of fetches, of silence, and of what the controller says.

use super::*;

const THIRD: NodeId = NodeId(3);
const LAG_MS: Millis = 30_000;

/// A leader of three replicas in term 5, on version `partition_epoch`, with these in sync.
fn image(partition_epoch: i32, isr: &[NodeId]) -> Leadership {
    Leadership { partition_epoch, ..Leadership::of(ME, 5, isr, &[ME, OTHER, THIRD]) }
}

fn leading(isr: &[NodeId]) -> Core {
    let mut core = core(config());
    core.on(Event::Leadership(image(0, isr)));
    core
}

fn by(replica: NodeId, offset: Offset, now_ms: Millis) -> Event {
    Event::ReplicaFetched(ReplicaFetched { replica, now_ms, ..fetch(offset) })
}

fn proposal(partition_epoch: i32, isr: &[NodeId]) -> IsrProposal {
    let isr = isr.iter().map(|id| (*id, 1)).collect();
    IsrProposal { leader_epoch: 5, partition_epoch, isr, recovered: false }
}

fn propose(partition_epoch: i32, isr: &[NodeId]) -> Command {
    Command::ProposeIsr(proposal(partition_epoch, isr))
}

fn answer(partition_epoch: i32, outcome: Result<(), IsrRefused>) -> Event {
    Event::IsrAnswered { partition_epoch, outcome }
}

fn high_watermark(core: &Core) -> Offset {
    core.offsets().high_watermark
}

#[test]
fn who_caught_up_may_join_and_holds_the_high_watermark_back_from_the_proposal_on() {
    let mut core = leading(&[ME]);
    append(&mut core, 5, Some(1));
    core.on(Event::Synced(Lsn(1)));
    assert_eq!(core.on(by(OTHER, 3, 0)), [], "it lacks what is committed");
    assert_eq!(core.on(by(OTHER, 5, 1)), [propose(0, &[ME, OTHER])]);
    append(&mut core, 5, Some(2));
    assert_eq!(core.on(Event::Synced(Lsn(2))), [Command::AckLeader(10)], "the controller may count it already");
    assert_eq!(core.on(answer(0, Ok(()))), [], "an answer changes nothing (ISR-BY-IMAGE)");
    assert_eq!(core.leadership().isr, [ME]);
    assert_eq!(core.on(Event::Leadership(image(1, &[ME, OTHER]))), []);
    assert_eq!(core.on(by(OTHER, 10, 2)), [Command::AckAll(10), Command::Visible]);
}

#[test]
fn one_change_at_a_time() {
    let mut core = leading(&[ME]);
    assert_eq!(core.on(by(OTHER, 0, 0)), [propose(0, &[ME, OTHER])]);
    assert_eq!(core.on(by(THIRD, 0, 0)), []);
    core.on(Event::Leadership(image(1, &[ME, OTHER])));
    assert_eq!(core.on(by(THIRD, 0, 1)), [propose(1, &[ME, OTHER, THIRD])]);
    // The image of another version answers it, whatever it says.
    core.on(Event::Leadership(image(2, &[ME])));
    assert_eq!(core.on(by(THIRD, 0, 2)), [propose(2, &[ME, THIRD])]);
    assert_eq!(core.on(answer(1, Err(IsrRefused::Ineligible))), [], "that one is long answered");
    assert_eq!(core.on(by(OTHER, 0, 2)), []);
}

#[test]
fn a_refusal_goes_back_to_what_the_image_says_and_is_not_asked_again_at_once() {
    let mut core = leading(&[ME]);
    core.on(by(OTHER, 0, 0));
    append(&mut core, 5, Some(1));
    core.on(Event::Synced(Lsn(1)));
    assert_eq!(core.on(answer(0, Err(IsrRefused::Ineligible))), [Command::AckAll(5), Command::Visible]);
    assert_eq!(core.on(by(OTHER, 5, 1)), []);
    core.on(Event::IsrTick { now_ms: 1_000 });
    assert_eq!(core.on(by(OTHER, 5, 1_001)), [propose(0, &[ME, OTHER])]);
    // Perhaps it was done: it counts on, and is asked again as it is.
    assert_eq!(core.on(answer(0, Err(IsrRefused::Unknown))), [propose(0, &[ME, OTHER])]);
    append(&mut core, 1, Some(2));
    assert_eq!(core.on(Event::Synced(Lsn(2))), [Command::AckLeader(6)]);
    // Now there is a newer version: it may be what was proposed, and who would join counts until the image tells.
    assert_eq!(core.on(answer(0, Err(IsrRefused::Outdated))), []);
    core.on(Event::IsrTick { now_ms: 2_000 });
    assert_eq!(high_watermark(&core), 5);
    assert_eq!(core.on(Event::Leadership(image(1, &[ME]))), [Command::AckAll(6), Command::Visible]);
}

#[test]
fn a_version_that_changes_nothing_is_a_refusal_and_not_asked_again_at_once() {
    let mut core = leading(&[ME]);
    assert_eq!(core.on(by(OTHER, 0, 0)), [propose(0, &[ME, OTHER])]);
    core.on(Event::Leadership(image(1, &[ME])));
    assert_eq!(core.on(by(OTHER, 0, 1)), []);
    core.on(Event::IsrTick { now_ms: 1_000 });
    assert_eq!(core.on(by(OTHER, 0, 1_001)), [propose(1, &[ME, OTHER])]);
}

#[test]
fn who_lags_is_dropped_and_counts_until_the_image_says_so() {
    let mut core = leading(&[ME, OTHER, THIRD]);
    assert_eq!(core.on(Event::IsrTick { now_ms: 7_000 }), []);
    append(&mut core, 5, Some(1));
    core.on(Event::Synced(Lsn(1)));
    core.on(by(OTHER, 5, 8_000));
    assert_eq!(core.on(Event::IsrTick { now_ms: 7_000 + LAG_MS }), [], "silent since the term was first looked at");
    assert_eq!(core.on(Event::IsrTick { now_ms: 7_001 + LAG_MS }), [propose(0, &[ME, OTHER])]);
    assert_eq!(core.on(Event::IsrTick { now_ms: 9_000 + LAG_MS }), [], "one at a time");
    assert_eq!(high_watermark(&core), 0);
    let told = core.on(Event::Leadership(image(1, &[ME, OTHER])));
    assert_eq!(told, [Command::AckAll(5), Command::Visible]);
    assert_eq!(core.on(Event::IsrTick { now_ms: 9_000 + LAG_MS }), [propose(1, &[ME])]);
}

#[test]
fn who_keeps_pace_is_in_sync_though_it_never_has_all() {
    let mut core = leading(&[ME, OTHER]);
    core.on(Event::IsrTick { now_ms: 0 });
    let mut end = 0;
    for round in 1..=20 {
        append(&mut core, 10, Some(round));
        core.on(Event::Synced(Lsn(round)));
        let now = 10_000 * Millis::try_from(round).expect("small");
        // It asks for what came since its last fetch; more comes meanwhile.
        core.on(by(OTHER, end, now));
        end = core.offsets().log_end;
        assert_eq!(core.on(Event::IsrTick { now_ms: now }), [], "round {round}");
    }
    let lag = |core: &Core| core.replica_views(200_000).iter().map(|view| view.lag_ms).collect::<Vec<_>>();
    assert_eq!(lag(&core), [Some(0), Some(10_000), None]);
    // It stands still from here on, though it asks.
    let mut dropped = Vec::new();
    for round in 21..=25 {
        append(&mut core, 10, Some(round));
        let now = 10_000 * Millis::try_from(round).expect("small");
        core.on(by(OTHER, end - 5, now));
        dropped.extend(core.on(Event::IsrTick { now_ms: now }));
    }
    assert_eq!(dropped, [propose(0, &[ME])]);
}

#[test]
fn who_never_caught_up_lags_since_it_is_looked_at() {
    let mut core = leading(&[ME, OTHER]);
    append(&mut core, 10, Some(1));
    core.on(Event::Synced(Lsn(1)));
    core.on(Event::IsrTick { now_ms: 1_000 });
    core.on(by(OTHER, 5, 2_000));
    assert_eq!(core.replica_views(3_500)[1].lag_ms, Some(2_500));
}

#[test]
fn fetches_of_another_incarnation_or_history_count_for_nothing() {
    let mut core = leading(&[ME, OTHER]);
    append(&mut core, 5, Some(1));
    core.on(Event::Synced(Lsn(1)));
    for strange in [
        ReplicaFetched { broker_epoch: 0, ..fetch(5) },
        ReplicaFetched { replica: NodeId(9), ..fetch(5) },
        ReplicaFetched { replica: ME, ..fetch(5) },
        // It has more than we do, or the same offsets from another leader: it has not cut its log yet.
        fetch(6),
        ReplicaFetched { last_fetched_epoch: Some(4), ..fetch(5) },
        ReplicaFetched { last_fetched_epoch: Some(6), ..fetch(5) },
    ] {
        assert_eq!(core.on(Event::ReplicaFetched(strange)), [], "{strange:?}");
    }
    assert_eq!(core.replica_views(0)[1].synced_end, None);
    core.on(fetched(3));
    assert_eq!(high_watermark(&core), 3);
    // It comes again without its disk, before the image tells: what the last incarnation had does not count.
    let again = ReplicaFetched { broker_epoch: 2, last_fetched_epoch: None, ..fetch(0) };
    core.on(Event::ReplicaFetched(again));
    assert_eq!(core.replica_views(0)[1].synced_end, Some(0));
    assert_eq!(core.on(fetched(5)), [], "a fetch of the old one, late");
    assert_eq!(high_watermark(&core), 3, "it does not go back");
    // Or the image tells first.
    let mut image = image(0, &[ME, OTHER]);
    image.replicas[1].broker_epoch = 3;
    core.on(Event::Leadership(image));
    assert_eq!(core.replica_views(0)[1].synced_end, None);
}

#[test]
fn only_who_is_eligible_and_known_to_the_image_as_it_is_may_join() {
    let mut core = core(config());
    let mut fenced = image(0, &[ME]);
    fenced.replicas[1].eligible = false;
    core.on(Event::Leadership(fenced));
    assert_eq!(core.on(fetched(0)), []);
    // Its brokers' state comes without a new version of the partition.
    core.on(Event::Leadership(image(0, &[ME])));
    let newer = ReplicaFetched { broker_epoch: 2, ..fetch(0) };
    assert_eq!(core.on(Event::ReplicaFetched(newer)), [], "the image knows only its last incarnation");
    let mut image = image(0, &[ME]);
    image.replicas[1].broker_epoch = 2;
    core.on(Event::Leadership(image));
    let isr = vec![(ME, 1), (OTHER, 2)];
    let proposed = core.on(Event::ReplicaFetched(newer));
    assert_eq!(proposed, [Command::ProposeIsr(IsrProposal { isr, ..proposal(0, &[]) })]);
}

#[test]
fn a_leader_that_was_elected_uncleanly_says_when_it_is_followed() {
    let mut core = core(config());
    core.on(Event::Leadership(Leadership { recovering: true, ..image(0, &[ME]) }));
    let proposed = core.on(fetched(0));
    assert_eq!(proposed, [Command::ProposeIsr(IsrProposal { recovered: true, ..proposal(0, &[ME, OTHER]) })]);
}

#[test]
fn below_min_insync_replicas_nothing_is_committed_until_it_is_lowered() {
    let mut core = core(LogConfig { min_insync_replicas: 2, ..config() });
    core.on(Event::Leadership(image(0, &[ME])));
    append(&mut core, 5, Some(1));
    assert_eq!(core.on(Event::Synced(Lsn(1))), [Command::AckLeader(5)]);
    // Who would join does not count towards it before the image says so.
    assert_eq!(core.on(fetched(5)), [propose(0, &[ME, OTHER])]);
    assert_eq!(high_watermark(&core), 0);
    assert_eq!(core.configure(config()), [Command::AckAll(5), Command::Visible]);
}

#[test]
fn a_new_leader_knows_the_high_watermark_once_it_reaches_its_term() {
    let mut core = core(config());
    core.on(Event::Leadership(Leadership { leads: false, leader: Some(OTHER), ..image(0, &[ME, OTHER]) }));
    let batch = BatchMeta { base_offset: 0, ..batch(10) };
    assert_eq!(core.check(&batch, Origin::Replica), Ok(Check::New(0)));
    core.appended(&batch, 0, Some(Lsn(1)), NOW);
    core.on(Event::Synced(Lsn(1)));
    assert!(!core.watermark_is_known(), "it does not lead");
    core.on(Event::Leadership(Leadership { epoch: 6, ..image(1, &[ME, OTHER]) }));
    assert!(!core.watermark_is_known());
    let sixth = |offset| Event::ReplicaFetched(ReplicaFetched { last_fetched_epoch: Some(5), ..fetch(offset) });
    core.on(sixth(9));
    assert_eq!((high_watermark(&core), core.watermark_is_known()), (9, false));
    core.on(sixth(10));
    assert_eq!((high_watermark(&core), core.watermark_is_known()), (10, true));
}

#[test]
fn what_comes_late_and_a_second_leader_of_one_term_change_nothing() {
    let mut core = leading(&[ME, OTHER]);
    core.on(Event::Leadership(image(3, &[ME])));
    core.on(Event::Leadership(image(2, &[ME, OTHER])));
    core.on(Event::Leadership(Leadership { leads: false, leader: Some(OTHER), ..image(4, &[OTHER]) }));
    assert_eq!(*core.leadership(), image(3, &[ME]));
    // The next term forgets what replicas told this one.
    core.on(fetched(0));
    core.on(Event::Leadership(Leadership { epoch: 6, ..image(4, &[ME, OTHER]) }));
    assert_eq!(core.replica_views(0)[1].synced_end, None);
}

#[test]
fn deletions_are_done_when_all_live_replicas_have_carried_them_out() {
    let mut core = leading(&[ME, OTHER]);
    filled(&mut core, 2);
    let fetch_with = |replica, log_start| Event::ReplicaFetched(ReplicaFetched { replica, log_start, ..fetch(20) });
    core.on(fetch_with(OTHER, 0));
    assert_eq!(core.on(Event::DeleteTo(15)), [Command::TrimHead(15), Command::WakeReaders]);
    assert_eq!(core.low_watermark(), 0);
    assert_eq!(core.on(fetch_with(OTHER, 15)), [], "the third may have them still");
    // It is fenced: who is dead does not hold up deletions.
    let mut fenced = image(0, &[ME, OTHER]);
    fenced.replicas[2].eligible = false;
    assert_eq!(core.on(Event::Leadership(fenced)), [Command::CompleteDeletes(15)]);
    assert_eq!(core.low_watermark(), 15);
}
