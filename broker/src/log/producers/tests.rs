use super::*;
fn batch(producer_id: i64, epoch: i16, base_sequence: i32, records: i32) -> BatchMeta {
    BatchMeta {
        size: 100,
        base_offset: 0,
        last_offset_delta: records - 1,
        max_timestamp: 77,
        leader_epoch: 0,
        producer_id,
        producer_epoch: epoch,
        base_sequence,
        transactional: false,
        control: None,
    }
}

fn txn(producer_id: i64, base_sequence: i32, records: i32) -> BatchMeta {
    BatchMeta { transactional: true, ..batch(producer_id, 0, base_sequence, records) }
}

fn marker(producer_id: i64, control: ControlRecord) -> BatchMeta {
    BatchMeta { control: Some(control), transactional: true, ..batch(producer_id, 0, NO_SEQUENCE, 1) }
}

fn abort(coordinator_epoch: i32) -> ControlRecord {
    ControlRecord::Abort { coordinator_epoch }
}

fn commit(coordinator_epoch: i32) -> ControlRecord {
    ControlRecord::Commit { coordinator_epoch }
}

fn out_of_order(last: i32, got: i32) -> Result<Verdict, AppendError> {
    Err(AppendError::OutOfOrderSequence { producer_id: 1, last, got })
}

#[test]
fn sequences_follow_each_other() {
    let mut producers = Producers::default();
    // Nothing known: any start is taken (KIP-360).
    assert_eq!(producers.check(&batch(1, 0, 40, 3), Origin::Client), Ok(Verdict::New));
    producers.apply(&batch(1, 0, 0, 3), 100, 1);
    assert_eq!(producers.check(&batch(1, 0, 3, 2), Origin::Client), Ok(Verdict::New));
    assert_eq!(producers.check(&batch(1, 0, 4, 2), Origin::Client), out_of_order(2, 4));
    assert_eq!(producers.check(&batch(1, 0, 1, 2), Origin::Client), out_of_order(2, 1));
    assert_eq!(producers.check(&batch(1, 0, 4, 2), Origin::Coordinator), Ok(Verdict::New));
    assert_eq!(producers.check(&batch(1, 0, 4, 2), Origin::Replica), Ok(Verdict::New));
}

#[test]
fn a_new_epoch_starts_at_zero_and_fences_the_old() {
    let mut producers = Producers::default();
    producers.apply(&batch(1, 3, 0, 3), 100, 1);
    assert_eq!(producers.check(&batch(1, 4, 1, 1), Origin::Client), out_of_order(2, 1));
    assert_eq!(producers.check(&batch(1, 4, 0, 1), Origin::Client), Ok(Verdict::New));
    producers.apply(&batch(1, 4, 0, 1), 103, 1);
    let fenced = Err(AppendError::InvalidProducerEpoch { producer_id: 1, current: 4, got: 3 });
    assert_eq!(producers.check(&batch(1, 3, 3, 1), Origin::Client), fenced);
    assert_eq!(producers.check(&batch(1, 3, 3, 1), Origin::Replica), Ok(Verdict::New));
}

#[test]
fn the_last_five_batches_are_known_again() {
    let mut producers = Producers::default();
    for at in 0..6 {
        producers.apply(&batch(1, 0, at * 2, 2), 100 + i64::from(at) * 2, 1);
    }
    assert_eq!(
        producers.check(&batch(1, 0, 2, 2), Origin::Client),
        Ok(Verdict::Duplicate(SentBatch { last_sequence: 3, last_offset: 103, offset_delta: 1, timestamp: 77 }))
    );
    assert_eq!(producers.check(&batch(1, 0, 0, 2), Origin::Client), out_of_order(11, 0), "the sixth last is forgotten");
    assert_eq!(
        producers.check(&batch(1, 0, 2, 1), Origin::Client),
        out_of_order(11, 2),
        "another extent is no duplicate"
    );
}

#[test]
fn sequences_wrap_to_zero() {
    assert_eq!(sequence_back(1, 3), i32::MAX - 1);
    assert_eq!(sequence_back(5, 5), 0);
    let mut producers = Producers::default();
    producers.apply(&batch(1, 0, i32::MAX - 1, 4), 10, 1);
    assert_eq!(producers.check(&batch(1, 0, 2, 1), Origin::Client), Ok(Verdict::New));
    assert!(matches!(producers.check(&batch(1, 0, i32::MAX - 1, 4), Origin::Client), Ok(Verdict::Duplicate(_))));
    let mut at_max = Producers::default();
    at_max.apply(&batch(1, 0, i32::MAX, 1), 10, 1);
    assert_eq!(at_max.check(&batch(1, 0, 0, 1), Origin::Client), Ok(Verdict::New));
}

#[test]
fn a_transaction_holds_the_stable_offset_until_its_marker_is_replicated() {
    let mut producers = Producers::default();
    producers.apply(&txn(1, 0, 5), 10, 1);
    producers.apply(&txn(2, 0, 5), 15, 1);
    assert_eq!(producers.first_unstable(), Some(10));
    assert_eq!(
        producers.check(&batch(1, 0, 5, 1), Origin::Client),
        Err(AppendError::InvalidTxnState { producer_id: 1 })
    );
    let aborted = producers.apply(&marker(1, abort(3)), 20, 1);
    let expected = AbortedTxn { producer_id: 1, first_offset: 10, last_offset: 20, last_stable: 15 };
    assert_eq!(aborted, Some(expected));
    assert_eq!(producers.first_unstable(), Some(10), "the marker is not replicated");
    producers.replicated(20);
    assert_eq!(producers.first_unstable(), Some(10));
    producers.replicated(21);
    assert_eq!(producers.first_unstable(), Some(15));
    assert_eq!(producers.apply(&marker(2, commit(3)), 21, 1), None);
    producers.replicated(22);
    assert_eq!(producers.first_unstable(), None);
    assert_eq!(producers.aborted_in(0, 10), vec![]);
    assert_eq!(producers.aborted_in(0, 11), vec![expected]);
    assert_eq!(producers.aborted_in(20, 30), vec![expected]);
    assert_eq!(producers.aborted_in(21, 30), vec![]);
    producers.truncate_head(21);
    assert_eq!(producers.aborted().count(), 0);
}

#[test]
fn markers_of_an_old_coordinator_are_fenced() {
    let mut producers = Producers::default();
    producers.apply(&txn(1, 0, 1), 10, 1);
    producers.apply(&marker(1, commit(3)), 11, 1);
    assert_eq!(
        producers.check(&marker(1, commit(2)), Origin::Coordinator),
        Err(AppendError::CoordinatorFenced { current: 3 })
    );
    assert_eq!(producers.check(&marker(1, commit(3)), Origin::Coordinator), Ok(Verdict::New));
}

#[test]
fn silent_producers_expire_unless_a_transaction_is_open() {
    let mut producers = Producers::default();
    producers.apply(&batch(1, 0, 0, 1), 0, 1_000);
    producers.apply(&txn(2, 0, 1), 1, 1_000);
    producers.apply(&batch(3, 0, 0, 1), 2, 1_500);
    assert_eq!(producers.expire(1_999, 1_000), 0);
    assert_eq!(producers.expire(2_000, 1_000), 1);
    let left: Vec<i64> = producers.iter().map(|(id, _)| id).collect();
    assert_eq!(left, vec![2, 3]);
}
