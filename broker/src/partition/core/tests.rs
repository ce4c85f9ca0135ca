//! The rules one by one; the model and the power cuts beside it try them in long runs.

use super::super::types::{AppendError, Isolation, Origin, ReadError, Reader};
use super::*;
use crate::log::batch::BatchMeta;
use crate::log::snapshot::Snapshot;

mod follow;
mod isr;

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const NOW: Millis = 1_000_000;

/// Segments of a kilobyte, nothing trimmed by itself, not tiered.
fn config() -> LogConfig {
    LogConfig { segment_bytes: 1_000, retention_ms: -1, remote: false, ..LogConfig::default() }
}

fn core(config: LogConfig) -> Core {
    Core::new(ME, config.clone(), Restored::empty(0, NOW, &config))
}

fn leadership(epoch: LeaderEpoch, isr: &[NodeId]) -> Leadership {
    Leadership::of(ME, epoch, isr, &[ME, OTHER])
}

/// The other one leads.
fn follows(epoch: LeaderEpoch, isr: &[NodeId]) -> Leadership {
    Leadership { leads: false, leader: Some(OTHER), ..leadership(epoch, isr) }
}

fn leader(config: LogConfig) -> Core {
    let mut core = core(config);
    core.on(Event::Leadership(leadership(5, &[ME])));
    core
}

/// A batch of `records` and 400 bytes.
fn batch(records: i32) -> BatchMeta {
    BatchMeta {
        size: 400,
        base_offset: 0,
        last_offset_delta: records - 1,
        max_timestamp: NOW,
        leader_epoch: 5,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        transactional: false,
        control: None,
    }
}

/// Appends a batch that is safe with `lsn`, or, without one, once it is written.
fn append(core: &mut Core, records: i32, lsn: Option<u64>) -> Offset {
    let Ok(Check::New(base)) = core.check(&batch(records), Origin::Client) else { panic!("a new batch") };
    core.appended(&batch(records), base, lsn.map(Lsn), NOW);
    base
}

/// Appends `count` batches of ten records, all of them durable.
fn filled(core: &mut Core, count: u64) {
    for lsn in 1..=count {
        append(core, 10, Some(lsn));
    }
    core.on(Event::Synced(Lsn(count)));
    core.on(Event::Written(10 * count as Offset));
}

/// What the other replica's fetch from `offset` on says, at time 0.
fn fetch(offset: Offset) -> ReplicaFetched {
    let last_fetched_epoch = (offset > 0).then_some(5);
    ReplicaFetched { replica: OTHER, broker_epoch: 1, offset, last_fetched_epoch, log_start: 0, now_ms: 0 }
}

fn fetched(offset: Offset) -> Event {
    Event::ReplicaFetched(fetch(offset))
}

fn pointer(generation: u64, log_start: Offset, tier_end: Offset) -> Event {
    Event::Pointer { generation, log_start, end: TierEnd { offset: tier_end, epoch: -1 }, now_ms: NOW }
}

#[test]
fn nothing_is_acknowledged_or_seen_before_it_is_durable() {
    let mut core = leader(config());
    assert_eq!((append(&mut core, 3, Some(7)), append(&mut core, 2, Some(9))), (0, 3));
    assert_eq!(core.on(Event::Written(5)), [], "the page cache is not the disk");
    assert_eq!((core.offsets().log_end, core.visible_end(Isolation::ReadUncommitted)), (5, 0));
    assert_eq!(core.on(Event::Synced(Lsn(8))), [Command::AckLeader(3), Command::AckAll(3), Command::Visible]);
    assert_eq!(core.on(Event::Synced(Lsn(8))), [], "once");
    assert_eq!(core.on(Event::Synced(Lsn(9))), [Command::AckLeader(5), Command::AckAll(5), Command::Visible]);
}

#[test]
fn without_flush_the_page_cache_is_enough_and_a_later_sync_waits_for_it() {
    let mut core = leader(LogConfig { flush: Flush::Os, ..config() });
    append(&mut core, 4, None);
    assert_eq!(core.on(Event::Written(4)), [Command::AckLeader(4), Command::AckAll(4), Command::Visible]);
    // The topic is switched to fsync: what was never journaled has to be in its segment first.
    core.configure(config());
    append(&mut core, 1, Some(3));
    assert_eq!(core.on(Event::Synced(Lsn(3))), []);
    assert!(core.waits_for_settling());
    assert_eq!(core.on(Event::Settled(4)), [Command::AckLeader(5), Command::AckAll(5), Command::Visible]);
}

#[test]
fn the_high_watermark_is_the_least_of_the_replicas_in_sync() {
    let mut core = core(LogConfig { min_insync_replicas: 2, ..config() });
    core.on(Event::Leadership(leadership(5, &[ME, OTHER])));
    append(&mut core, 6, Some(1));
    assert_eq!(core.on(Event::Synced(Lsn(1))), [Command::AckLeader(6)], "acks=1 only");
    assert_eq!(core.on(fetched(4)), [Command::AckAll(4), Command::Visible]);
    assert_eq!(core.on(fetched(6)), [Command::AckAll(6), Command::Visible]);
    // Below min.insync.replicas nothing is committed, and acks=all is refused.
    core.on(Event::Leadership(leadership(5, &[ME])));
    append(&mut core, 1, Some(2));
    assert_eq!(core.on(Event::Synced(Lsn(2))), [Command::AckLeader(7)]);
    let refused = Err(AppendError::NotEnoughReplicas { in_sync: 1, required: 2 });
    assert_eq!(core.check_writer(None, Origin::Client, true), refused);
    assert_eq!(core.check_writer(None, Origin::Client, false), Ok(()));
}

#[test]
fn writers_and_readers_of_another_term_are_turned_away() {
    let mut core = core(config());
    assert_eq!(core.check_writer(None, Origin::Client, false), Err(AppendError::NotLeader));
    assert_eq!(core.check_reader(None, Reader::Consumer), Err(ReadError::NotLeader));
    core.on(Event::Leadership(leadership(5, &[ME])));
    assert_eq!(core.check_reader(Some(5), Reader::Consumer), Ok(()));
    assert_eq!(core.check_reader(Some(4), Reader::Consumer), Err(ReadError::FencedLeaderEpoch { current: 5 }));
    assert_eq!(core.check_reader(Some(6), Reader::Consumer), Err(ReadError::UnknownLeaderEpoch { current: 5 }));
    assert_eq!(core.check_writer(Some(4), Origin::Client, false), Err(AppendError::FencedLeaderEpoch { current: 5 }));
    assert_eq!(core.check_writer(Some(6), Origin::Client, false), Err(AppendError::UnknownLeaderEpoch { current: 5 }));
    // An image that comes late changes nothing.
    core.on(Event::Leadership(leadership(3, &[ME])));
    assert_eq!(core.leadership().epoch, 5);
    // Whoever waits is told when the leadership is lost.
    append(&mut core, 1, Some(1));
    let lost = core.on(Event::Leadership(follows(6, &[OTHER])));
    assert_eq!(lost, [Command::FailAcks(AckError::NotLeader), Command::WakeReaders]);
}

#[test]
fn of_a_tiered_log_only_what_the_pointer_covers_is_trimmed() {
    let mut core = leader(LogConfig { remote: true, local_retention_bytes: 0, ..config() });
    filled(&mut core, 6);
    assert_eq!(core.on(Event::Retention(NOW)), [], "POINTED: nothing is committed");
    // Segments hold two batches each: [0, 20), [20, 40), [40, 60).
    assert_eq!(core.on(pointer(1, 0, 30)), [Command::TrimHead(20)]);
    let ends = core.offsets();
    assert_eq!((ends.log_start, ends.local_start, ends.tier_end), (0, 20, 30), "history stays readable");
    assert_eq!(core.on(pointer(2, 0, 60)), [Command::TrimHead(60)], "the open segment, too");
    assert_eq!(core.offsets().log_end, 60);
    assert_eq!(append(&mut core, 1, Some(9)), 60, "offsets go on");
}

#[test]
fn a_pointer_that_comes_late_takes_nothing_back() {
    let mut core = leader(LogConfig { remote: true, ..config() });
    filled(&mut core, 4);
    assert_eq!(core.on(pointer(7, 15, 20)), [Command::WakeReaders]);
    assert_eq!(core.on(pointer(6, 0, 10)), []);
    assert_eq!((core.offsets().log_start, core.offsets().tier_end), (15, 20));
}

#[test]
fn of_a_local_log_retention_moves_the_start() {
    let mut core = leader(LogConfig { retention_bytes: 900, ..config() });
    filled(&mut core, 6);
    assert_eq!(core.on(Event::Retention(NOW)), [Command::TrimHead(20), Command::WakeReaders]);
    assert_eq!((core.offsets().log_start, core.offsets().local_start), (20, 20));
    let mut aged = leader(LogConfig { retention_ms: 500, ..config() });
    filled(&mut aged, 6);
    assert_eq!(aged.on(Event::Retention(NOW + 500)), []);
    assert_eq!(aged.on(Event::Retention(NOW + 501)), [Command::TrimHead(60), Command::WakeReaders]);
    // Only compaction removes anything from a log without `delete`.
    let mut kept = leader(LogConfig { retention_ms: 500, delete: false, ..config() });
    filled(&mut kept, 6);
    assert_eq!(kept.on(Event::Retention(NOW + 501)), []);
}

#[test]
fn records_are_deleted_up_to_the_high_watermark_at_most() {
    let mut core = leader(config());
    filled(&mut core, 2);
    append(&mut core, 10, Some(3));
    assert_eq!(core.on(Event::DeleteTo(25)), [Command::TrimHead(20), Command::WakeReaders]);
    assert_eq!((core.offsets().log_start, core.offsets().log_end), (20, 30));
    assert_eq!(core.on(Event::DeleteTo(5)), [], "it does not come back");
}

#[test]
fn a_failed_directory_and_a_removal_tell_whoever_waits() {
    let mut core = leader(config());
    append(&mut core, 1, Some(1));
    assert_eq!(core.on(Event::Offline), [Command::FailAcks(AckError::Offline), Command::WakeReaders]);
    assert_eq!(core.on(Event::Synced(Lsn(1))), [], "a sync that ends afterwards acknowledges nothing");
    assert_eq!(core.check_writer(None, Origin::Client, false), Err(AppendError::Offline));
    assert_eq!(core.check_reader(None, Reader::Consumer), Err(ReadError::Offline));
    let mut core = leader(config());
    assert_eq!(core.on(Event::Removed), [Command::FailAcks(AckError::Deleted), Command::WakeReaders]);
    assert_eq!(core.check_reader(None, Reader::Consumer), Err(ReadError::Deleted));
}

#[test]
fn a_log_starts_over_at_the_end_of_the_tier() {
    let mut core = leader(LogConfig { remote: true, ..config() });
    filled(&mut core, 2);
    assert_eq!(core.may_rewind(5), Err(AckError::NotLeader), "a leader drops nothing");
    let leads = leadership(5, &[ME]);
    core.on(Event::Leadership(Leadership { leads: false, ..leads.clone() }));
    assert_eq!((core.may_rewind(4), core.may_rewind(5)), (Err(AckError::NotLeader), Ok(())));
    let commands = core.reset(NOW, 0, Snapshot { offset: 100, segment_base: 100, ..Snapshot::default() });
    assert_eq!(commands, [Command::FailAcks(AckError::NotLeader), Command::WakeReaders]);
    let ends = core.offsets();
    assert_eq!((ends.log_start, ends.local_start, ends.high_watermark, ends.log_end), (0, 100, 100, 100));
    // It begins to lead within its term.
    core.on(Event::Leadership(leads));
    assert!(core.watermark_is_known());
    assert_eq!(core.epochs().latest(), Some(5));
    assert_eq!(append(&mut core, 1, Some(9)), 100);
}

#[test]
fn a_log_that_left_is_neither_cut_nor_started_over() {
    for (event, error) in [(Event::Removed, AckError::Deleted), (Event::Offline, AckError::Offline)] {
        let mut core = core(config());
        core.on(Event::Leadership(follows(5, &[OTHER])));
        assert_eq!(core.may_rewind(5), Ok(()));
        core.on(event);
        assert_eq!(core.may_rewind(5), Err(error));
    }
}

#[test]
fn a_minimum_that_is_raised_with_an_image_holds_before_its_replicas_in_sync() {
    let mut core = core(config());
    core.on(Event::Leadership(leadership(5, &[ME, OTHER])));
    append(&mut core, 6, Some(1));
    core.on(Event::Synced(Lsn(1)));
    core.require_in_sync(2);
    core.require_in_sync(1);
    core.on(Event::Leadership(Leadership { partition_epoch: 1, ..leadership(5, &[ME]) }));
    assert_eq!(core.offsets().high_watermark, 0, "the other one may be elected, and lacks it");
    assert_eq!(core.configure(config()), [Command::AckAll(6), Command::Visible]);
}
