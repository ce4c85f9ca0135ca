use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::metadata::TierPointer;

use super::*;
use crate::fixtures::{entries, entry};
use crate::manifest::{Manifest, check_commit};
use crate::ports::{LocalState, SegmentBounds, TierSettings};

const NOW: i64 = 10_000_000;

fn settings() -> TierSettings {
    TierSettings { enabled: true, segment_bytes: 1000, max_lag_ms: 60_000, retention_ms: None, retention_bytes: None }
}

/// A local log of `[0, 50)` in rolled segments of ten offsets each and an open one up to 57.
fn local() -> LocalState {
    let rolled = (0..5)
        .map(|index| SegmentBounds { base: index * 10, end: index * 10 + 10, bytes: 1000, max_timestamp: NOW - 5000 })
        .collect();
    LocalState {
        leader_epoch: 3,
        is_leader: true,
        log_start: 0,
        local_start: 0,
        last_stable: 57,
        high_watermark: 57,
        log_end: 57,
        rolled,
        untiered_bytes: 5700,
        oldest_untiered_ms: Some(NOW - 5000),
        settings: settings(),
    }
}

/// A pointer over entries of ten offsets in its tail.
fn pointer(start: i64, count: i64) -> TierPointer {
    let tail = entries(start, count, 10);
    TierPointer {
        generation: 4,
        log_start: start,
        tier_start: start,
        tier_end: start + count * 10,
        bytes: tail.iter().map(|entry| entry.object.length).sum(),
        tail,
        ..TierPointer::default()
    }
}

#[test]
fn what_is_uploaded_when() {
    let due = Urgency::WhenDue;
    let range = |from, to, reason| Some(Upload { from, to, reason });
    assert_eq!(upload(&local(), &TierPointer::default(), NOW, due), range(0, 50, Reason::Full));
    assert_eq!(upload(&local(), &pointer(0, 3), NOW, due), range(30, 50, Reason::Full));
    assert_eq!(upload(&local(), &pointer(0, 5), NOW, due), None, "the open segment waits");
    assert_eq!(upload(&local(), &pointer(0, 5), NOW + 55_000, due), range(50, 57, Reason::Lag));
    assert_eq!(upload(&local(), &pointer(0, 5), NOW, Urgency::Now), range(50, 57, Reason::Flush));
    let mut unstable = LocalState { last_stable: 44, ..local() };
    assert_eq!(upload(&unstable, &pointer(0, 3), NOW, due), range(30, 40, Reason::Full));
    assert_eq!(upload(&unstable, &pointer(0, 4), NOW, due), None);
    assert_eq!(upload(&unstable, &pointer(0, 4), NOW + 55_000, due), range(40, 44, Reason::Lag));
    unstable.last_stable = 40;
    assert_eq!(upload(&unstable, &pointer(0, 4), NOW + 55_000, Urgency::Now), None);
}

#[test]
fn an_empty_tier_begins_where_the_log_does() {
    let local = LocalState { log_start: 20, local_start: 20, ..local() };
    let upload = upload(&local, &TierPointer::default(), NOW, Urgency::WhenDue).unwrap();
    assert_eq!((upload.from, upload.to), (20, 50));
}

#[test]
fn what_holds_back_is_named() {
    let tiered = pointer(0, 3);
    let not_leader = LocalState { is_leader: false, ..local() };
    assert_eq!(hold(&not_leader, &tiered, 57, None), Some(Hold::NotLeader));
    let mut disabled = local();
    disabled.settings.enabled = false;
    assert_eq!(hold(&disabled, &tiered, 57, None), Some(Hold::Disabled));
    assert_eq!(upload(&disabled, &tiered, NOW, Urgency::Now), None);
    let gap = LocalState { local_start: 40, ..local() };
    assert_eq!(hold(&gap, &tiered, 57, None), Some(Hold::Gap { local_start: 40, tier_end: 30 }));
    assert_eq!(upload(&gap, &tiered, NOW, Urgency::Now), None, "an object over the gap would hide it");
    assert_eq!(hold(&local(), &tiered, 57, Some("no bucket")), Some(Hold::Failing("no bucket".into())));
    assert_eq!(hold(&local(), &tiered, 57, None), None, "on its way");
    let open = LocalState { last_stable: 30, ..local() };
    assert_eq!(hold(&open, &tiered, 57, Some("old")), Some(Hold::OpenTransaction { from: 30, to: 57 }));
    let behind = LocalState { last_stable: 30, high_watermark: 30, ..local() };
    assert_eq!(hold(&behind, &tiered, 57, None), Some(Hold::Uncommitted { from: 30, to: 57 }));
    assert_eq!(hold(&local(), &tiered, 30, Some("whatever")), None, "done");
}

#[test]
fn retention_by_time_drops_from_the_front_only() {
    let mut local = local();
    // Entry i ends at 10 i + 10 and its newest record is 1,000,000 + its end.
    local.settings.retention_ms = Some(NOW - 1_000_025);
    let pointer = pointer(0, 5);
    let expiry = expire(&local, &pointer, pointer.tail.iter(), Extent::All, NOW).unwrap();
    assert_eq!((expiry.log_start, expiry.tier_start, expiry.tier_end), (20, 20, 50));
    assert_eq!((expiry.dropped, expiry.dropped_bytes), (2, 2000));
    let head = Head::from(&pointer.tail[0]);
    assert!(head_expired(&local, &pointer, &head, NOW));
    assert!(!head_expired(&local, &pointer, &Head::from(&pointer.tail[2]), NOW));
}

#[test]
fn retention_by_size_counts_the_whole_log() {
    let mut local = LocalState { untiered_bytes: 700, ..local() };
    let pointer = pointer(0, 5);
    let dropped = |local: &LocalState| {
        expire(local, &pointer, pointer.tail.iter(), Extent::All, NOW).map_or(0, |expiry| expiry.dropped)
    };
    for (keep, expected) in [(5700, 0), (4701, 0), (4700, 1), (4699, 1), (3700, 2), (1, 5)] {
        local.settings.retention_bytes = Some(keep);
        assert_eq!(dropped(&local), expected, "retention.bytes={keep}");
    }
    local.is_leader = false;
    assert_eq!(dropped(&local), 0, "only a leader expires");
}

#[test]
fn a_log_start_inside_an_entry_keeps_the_entry() {
    let mut pointer = pointer(0, 5);
    pointer.log_start = 25;
    let expiry = expire(&local(), &pointer, pointer.tail.iter(), Extent::All, NOW).unwrap();
    assert_eq!((expiry.log_start, expiry.tier_start), (25, 20));
    let next = expired(&pointer, &expiry);
    assert_eq!(check_commit(&pointer, &next, None), Ok(()));
    assert_eq!(expire(&local(), &next, next.tail.iter(), Extent::All, NOW), None);
}

#[test]
fn a_partial_look_never_moves_the_end() {
    let mut pointer = pointer(0, 5);
    pointer.log_start = 90;
    let heads = entries(0, 2, 10);
    let expiry = expire(&local(), &pointer, heads.iter(), Extent::Partial, NOW).unwrap();
    assert_eq!((expiry.tier_start, expiry.tier_end), (20, 50));
    let all = expire(&local(), &pointer, pointer.tail.iter(), Extent::All, NOW).unwrap();
    assert_eq!((all.tier_start, all.tier_end), (90, 90));
    pointer.end_epoch = 3;
    assert_eq!(expired(&pointer, &expiry).end_epoch, 3);
    assert_eq!(expired(&pointer, &all).end_epoch, -1, "the tier ends where no record of it was");
}

#[test]
fn the_tail_is_folded_when_it_is_full() {
    let old = pointer(0, 16);
    assert!(fits_tail(&pointer(0, 15), 1) && !fits_tail(&old, 1));
    let full = BTreeMap::from([(old.tail[3].object.key.uuid, entry(30, 40).points.repeat(1))]);
    let root = folded(&Manifest::default(), &old, &entries(160, 1, 10), &full).unwrap();
    assert_eq!(root.entries, entries(0, 17, 10));
    assert_eq!(root_end(&old), 0);
    let reference =
        proto::metadata::RootRef { uuid: uuid::Uuid::nil(), generation: 5, leader_epoch: 3, size: 1, crc: 0 };
    let next = appended(&old, &entries(160, 1, 10), 160, Some(reference));
    assert_eq!((next.tail.len(), next.tier_end, next.root), (0, 170, Some(reference)));
    assert_eq!(check_commit(&old, &next, Some(&root)), Ok(()));
    assert_eq!(root_end(&next), 170);
}

#[test]
fn only_objects_of_older_leaders_are_suspect() {
    use crate::fixtures::partition;
    use crate::store::{Key, Layout, Listed};
    let layout = Layout::new("", "c");
    let listed = |key: Key| Listed { key, size: 1, modified_ms: 0 };
    let mut own = entry(10, 20);
    own.object.key.leader_epoch = 7;
    let leaf = uuid::Uuid::from_u128(9);
    let page = vec![
        listed(layout.data(&entry(0, 10))),
        listed(layout.data(&own)),
        listed(layout.leaf_named(partition(0), 0, 6, leaf)),
        listed(layout.leaf_named(partition(0), 0, 8, uuid::Uuid::from_u128(10))),
    ];
    let suspects = suspects(page, 7);
    let expected = std::collections::BTreeSet::from([entry(0, 10).object.key.uuid, leaf]);
    assert_eq!(suspects.keys().copied().collect::<std::collections::BTreeSet<_>>(), expected);
}

proptest! {
    /// Uploads join at the end of the tier, end at stable batch borders, and never leave a gap.
    #[test]
    fn uploads_join_and_stay_below_the_stable_offset(
        tiered in 0i64..6, stable in 0i64..58, start in 0i64..58, age in 0i64..120_000, now in any::<bool>(),
    ) {
        let local = LocalState { last_stable: stable, local_start: start, oldest_untiered_ms: Some(NOW - age), ..local() };
        let pointer = if tiered == 0 { TierPointer::default() } else { pointer(0, tiered) };
        let urgency = if now { Urgency::Now } else { Urgency::WhenDue };
        if let Some(upload) = upload(&local, &pointer, NOW, urgency) {
            prop_assert_eq!(upload.from, next_base(&local, &pointer));
            prop_assert!(upload.from < upload.to && upload.to <= stable && upload.from >= start);
            prop_assert!(upload.to == stable || local.rolled.iter().any(|segment| segment.end == upload.to));
        }
    }

    /// Whatever is expired, the next pointer is sound and moves forward only.
    #[test]
    fn expiries_keep_every_invariant(
        count in 0i64..16, log_start in 0i64..80, ms in proptest::option::of(0i64..9_000_100), bytes in proptest::option::of(0u64..20_000),
    ) {
        let mut local = local();
        local.settings.retention_ms = ms;
        local.settings.retention_bytes = bytes;
        let mut old = pointer(0, count);
        old.log_start = log_start;
        if let Some(expiry) = expire(&local, &old, old.tail.iter(), Extent::All, NOW) {
            let next = expired(&old, &expiry);
            prop_assert_eq!(check_commit(&old, &next, None), Ok(()));
            prop_assert_eq!(expire(&local, &next, next.tail.iter(), Extent::All, NOW).filter(|again| again.log_start < next.log_start), None);
        }
    }
}
