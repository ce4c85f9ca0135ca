//! Hand-made histories: one that is fine, and for each anomaly one that has it and nothing else.

use super::{Acks, Anomaly, Event, History, Place, check};
use crate::history::model::Phase;

/// A history that is written line by line. Partition `t-0`, producer `p`, consumer `c` unless said otherwise.
#[derive(Default)]
struct Tale(History);

fn place() -> Place {
    Place::new("t", 0)
}

impl Tale {
    fn add(mut self, client: &str, event: Event) -> Tale {
        self.0.add(0, client, event);
        self
    }

    fn send_as(self, client: &str, value: u64, acks: Acks, idempotent: bool) -> Tale {
        self.add(client, Event::Send { place: place(), value, acks, idempotent, transaction: None })
    }

    /// Sends and acknowledges with acks=all from an idempotent producer.
    fn kept(self, value: u64, offset: i64) -> Tale {
        self.send_as("p", value, Acks::All, true).acked(value, offset)
    }

    fn acked(self, value: u64, offset: i64) -> Tale {
        self.add("p", Event::Acked { place: place(), value, offset })
    }

    fn in_transaction(self, value: u64, transaction: u64, offset: i64) -> Tale {
        let transaction = Some(transaction);
        self.add("p", Event::Send { place: place(), value, acks: Acks::All, idempotent: true, transaction })
            .acked(value, offset)
    }

    fn phase(self, transaction: u64, phase: Phase) -> Tale {
        self.add("p", Event::Transaction { transaction, phase })
    }

    fn poll(self, records: &[(i64, u64)]) -> Tale {
        self.poll_of("c", records)
    }

    fn poll_of(self, client: &str, records: &[(i64, u64)]) -> Tale {
        self.add(client, Event::Poll { place: place(), records: records.to_vec(), committed: true })
    }

    fn end(self, end: i64) -> Tale {
        self.add("c", Event::End { place: place(), end })
    }

    fn anomalies(&self) -> Vec<Anomaly> {
        check(self.0.entries()).anomalies
    }

    fn is_fine(&self) {
        assert_eq!(self.anomalies(), Vec::new());
    }
}

#[test]
fn what_may_happen_is_fine() {
    let tale = Tale::default()
        .kept(1, 0)
        .kept(2, 1)
        // Never answered, and there.
        .send_as("p", 3, Acks::All, true)
        .poll(&[(0, 1), (1, 2)])
        .poll(&[(2, 3)])
        // Never answered, and not there.
        .send_as("p", 4, Acks::All, true)
        // A plain producer's retry may come twice.
        .send_as("q", 5, Acks::All, false)
        .poll(&[(3, 5), (4, 5)])
        .end(5);
    tale.is_fine();
    let report = check(tale.0.entries());
    assert_eq!((report.sent, report.acked, report.read), (5, 2, 4));
}

#[test]
fn a_lost_write() {
    let tale = Tale::default().kept(1, 0).kept(2, 1).kept(3, 2).poll(&[(0, 1)]).poll_of("d", &[(2, 3)]);
    assert_eq!(tale.anomalies(), [Anomaly::LostWrite { place: place(), value: 2, offset: 1 }]);
}

#[test]
fn an_unseen_write() {
    let tale = Tale::default().kept(1, 0).kept(2, 1).poll(&[(0, 1)]);
    tale.is_fine();
    assert_eq!(tale.end(1).anomalies(), [Anomaly::Unseen { place: place(), value: 2, offset: 1 }]);
}

#[test]
fn what_only_the_leader_had_may_go() {
    let lone = |tale: Tale| tale.send_as("q", 2, Acks::Leader, false).acked(2, 1);
    let tale = lone(Tale::default().kept(1, 0)).kept(3, 1).poll(&[(0, 1), (1, 3)]).end(2);
    tale.is_fine();
    assert_eq!(check(tale.0.entries()).lost_with_leader, 1);
}

#[test]
fn a_duplicate() {
    let tale = Tale::default().kept(1, 0).poll(&[(0, 1), (1, 1)]).end(2);
    assert_eq!(tale.anomalies(), [Anomaly::Duplicate { place: place(), value: 1, offsets: vec![0, 1] }]);
    // Told another offset than it is read at.
    let tale = Tale::default().kept(1, 7).poll(&[(0, 1)]);
    assert_eq!(tale.anomalies(), [Anomaly::Duplicate { place: place(), value: 1, offsets: vec![0, 7] }]);
}

#[test]
fn two_values_at_one_offset() {
    let both = |tale: Tale| tale.send_as("p", 1, Acks::All, true).send_as("q", 2, Acks::All, true);
    let tale = both(Tale::default()).poll(&[(0, 1)]).poll_of("d", &[(0, 2)]);
    assert_eq!(tale.anomalies(), [Anomaly::InconsistentOffset { place: place(), offset: 0, values: vec![1, 2] }]);
    // One acknowledged there, the other read.
    let tale = Tale::default().kept(1, 0).send_as("q", 2, Acks::All, true).poll(&[(0, 2)]);
    let both = Anomaly::InconsistentOffset { place: place(), offset: 0, values: vec![1, 2] };
    assert_eq!(tale.anomalies(), [Anomaly::LostWrite { place: place(), value: 1, offset: 0 }, both]);
}

#[test]
fn what_nobody_sent_or_what_was_refused() {
    let phantom = |value| vec![Anomaly::Phantom { place: place(), value, offset: 0 }];
    assert_eq!(Tale::default().poll(&[(0, 9)]).anomalies(), phantom(9));
    let refused = Event::Refused { place: place(), value: 1 };
    let tale = Tale::default().send_as("p", 1, Acks::All, true).add("p", refused);
    tale.is_fine();
    assert_eq!(tale.poll(&[(0, 1)]).anomalies(), phantom(1));
}

#[test]
fn an_aborted_read() {
    let begun = || Tale::default().in_transaction(1, 7, 0);
    begun().phase(7, Phase::Aborted).poll(&[]).end(2).is_fine();
    let tale = begun().phase(7, Phase::Committing).poll(&[(0, 1)]).phase(7, Phase::Aborted);
    assert_eq!(tale.anomalies(), [Anomaly::AbortedRead { place: place(), value: 1 }]);
}

#[test]
fn a_precommitted_read() {
    let begun = || Tale::default().in_transaction(1, 7, 0);
    begun().phase(7, Phase::Committing).poll(&[(0, 1)]).phase(7, Phase::Committed).end(2).is_fine();
    let tale = begun().poll(&[(0, 1)]).phase(7, Phase::Committing).phase(7, Phase::Committed);
    assert_eq!(tale.anomalies(), [Anomaly::PrecommittedRead { place: place(), value: 1 }]);
}

#[test]
fn a_committed_transaction_that_is_lost() {
    let tale = Tale::default().in_transaction(1, 7, 0).phase(7, Phase::Committed).kept(2, 2).poll(&[(2, 2)]).end(3);
    assert_eq!(tale.anomalies(), [Anomaly::LostWrite { place: place(), value: 1, offset: 0 }]);
}

#[test]
fn a_poll_that_goes_back() {
    let read = || Tale::default().kept(1, 0).kept(2, 1).poll(&[(0, 1), (1, 2)]);
    let back = Anomaly::NonMonotonicPoll { client: "c".to_owned(), place: place(), had: 1, given: 1 };
    assert_eq!(read().poll(&[(1, 2)]).anomalies(), [back]);
    read().add("c", Event::Assigned {}).poll(&[(1, 2)]).is_fine();
}

#[test]
fn a_poll_that_leaves_something_out() {
    let sent = || Tale::default().kept(1, 0).kept(2, 1).kept(3, 2).poll_of("d", &[(0, 1), (1, 2), (2, 3)]);
    let skipped = Anomaly::SkippedPoll { client: "c".to_owned(), place: place(), missed: 1 };
    assert_eq!(sent().poll(&[(0, 1)]).poll(&[(2, 3)]).anomalies(), [skipped]);
    let deleting = Event::Deleting { place: place(), to: 2 };
    sent().poll(&[(0, 1)]).add("a", deleting).poll(&[(2, 3)]).is_fine();
}

#[test]
fn a_send_out_of_order() {
    let behind =
        |earlier, later| [Anomaly::NonMonotonicSend { client: "p".to_owned(), place: place(), earlier, later }];
    assert_eq!(Tale::default().kept(1, 5).kept(2, 4).anomalies(), behind((1, 5), (2, 4)));
    // Without idempotence only what waited for the answer before it is ordered.
    let plain = |tale: Tale, value| tale.send_as("p", value, Acks::All, false);
    let at_once = plain(plain(Tale::default(), 1), 2).acked(2, 4).acked(1, 5);
    at_once.is_fine();
    let waited = plain(plain(Tale::default(), 1).acked(1, 5), 2).acked(2, 4);
    assert_eq!(waited.anomalies(), behind((1, 5), (2, 4)));
}

#[test]
fn a_history_is_written_and_read_as_lines() {
    let tale = Tale::default()
        .in_transaction(1, 7, 0)
        .phase(7, Phase::Committing)
        .poll(&[(0, 1)])
        .add("a", Event::Deleting { place: place(), to: 1 })
        .add("c", Event::Assigned {})
        .end(1);
    let mut lines = Vec::new();
    tale.0.write(&mut lines).expect("memory takes it");
    assert_eq!(History::read(lines.as_slice()).expect("it was just written"), tale.0);
    let by_hand = r#"{"client":"p","op":"send","topic":"t","partition":0,"value":1,"acks":"all"}"#;
    assert_eq!(History::read(by_hand.as_bytes()).expect("defaults").entries().len(), 1);
    assert!(History::read("{}".as_bytes()).is_err());
}
