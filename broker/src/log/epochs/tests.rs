use proptest::prelude::*;

use super::*;

fn cache(entries: &[(i32, i64)]) -> EpochCache {
    let entries = entries.iter().map(|&(epoch, start)| EpochEntry { epoch, start }).collect();
    EpochCache::from_entries(entries).expect("valid entries")
}

fn end(epoch: i32, end: i64) -> Option<EpochEnd> {
    Some(EpochEnd { epoch, end })
}

#[test]
fn ends_of_epochs_as_kip_279_answers_them() {
    let cache = cache(&[(2, 10), (4, 20), (7, 30)]);
    assert_eq!(cache.end_of(7, 50), end(7, 50), "latest ends at the log end");
    assert_eq!(cache.end_of(4, 50), end(4, 30));
    assert_eq!(cache.end_of(5, 50), end(4, 30), "unknown: greatest below");
    assert_eq!(cache.end_of(2, 50), end(2, 20));
    assert_eq!(cache.end_of(1, 50), end(1, 10), "before all known");
    assert_eq!(cache.end_of(8, 50), None, "later than all known");
    assert_eq!(cache.end_of(-1, 50), None);
    assert_eq!(EpochCache::default().end_of(0, 50), None);
}

#[test]
fn assigning_displaces_what_it_contradicts() {
    let mut epochs = cache(&[(2, 10), (4, 20), (7, 30)]);
    assert!(!epochs.assign(7, 40), "the same epoch goes on");
    assert!(epochs.assign(8, 20));
    assert_eq!(epochs, cache(&[(2, 10), (8, 20)]));
    assert!(epochs.assign(3, 30));
    assert_eq!(epochs, cache(&[(2, 10), (3, 30)]));
    assert!(!epochs.assign(-1, 90));
}

#[test]
fn truncation_at_both_ends() {
    let mut epochs = cache(&[(2, 10), (4, 20), (7, 30)]);
    epochs.truncate_head(25);
    assert_eq!(epochs, cache(&[(4, 25), (7, 30)]));
    epochs.truncate_head(30);
    assert_eq!(epochs, cache(&[(7, 30)]));
    epochs.truncate_tail(30);
    assert_eq!(epochs, EpochCache::default());
    let mut early = cache(&[(2, 10)]);
    early.truncate_head(5);
    assert_eq!(early, cache(&[(2, 10)]));
}

#[test]
fn epochs_of_an_offset_and_of_a_range() {
    let epochs = cache(&[(2, 10), (4, 20), (7, 30)]);
    assert_eq!(epochs.epoch_at(9), None);
    assert_eq!(epochs.epoch_at(10), Some(2));
    assert_eq!(epochs.epoch_at(29), Some(4));
    assert_eq!(epochs.epoch_at(1000), Some(7));
    assert_eq!(epochs.range(15, 30), epochs.entries()[..2].to_vec());
    assert_eq!(epochs.range(20, 31), epochs.entries()[1..].to_vec());
}

#[test]
fn entries_out_of_order_are_refused() {
    let entry = |epoch, start| EpochEntry { epoch, start };
    assert_eq!(EpochCache::from_entries(vec![entry(1, 5), entry(1, 6)]), None);
    assert_eq!(EpochCache::from_entries(vec![entry(1, 5), entry(2, 5)]), None);
    assert_eq!(EpochCache::from_entries(vec![entry(-1, 5)]), None);
}

proptest! {
    #[test]
    fn whatever_is_assigned_the_order_holds(
        steps in prop::collection::vec((0i32..8, 0i64..40, 0u8..3), 0..40),
    ) {
        let mut epochs = EpochCache::default();
        for (epoch, offset, what) in steps {
            match what {
                0 => { epochs.assign(epoch, offset); }
                1 => epochs.truncate_tail(offset),
                _ => epochs.truncate_head(offset),
            }
            let again = EpochCache::from_entries(epochs.entries().to_vec());
            prop_assert_eq!(again.as_ref(), Some(&epochs));
        }
    }
}

/// A replica led for a moment and wrote nothing; the leader it follows again goes on with the epoch before.
#[test]
fn an_epoch_that_wrote_nothing_gives_way_to_the_one_before() {
    let mut epochs = cache(&[(0, 0), (1, 3740)]);
    assert!(epochs.assign(2, 3928));
    assert!(epochs.assign(1, 3928));
    assert_eq!(epochs.entries(), [EpochEntry { epoch: 0, start: 0 }, EpochEntry { epoch: 1, start: 3740 }]);
    assert_eq!(epochs.epoch_at(3742), Some(1));
    assert!(!epochs.assign(1, 3929), "it goes on");
}
