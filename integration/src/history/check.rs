//! What cannot be true of a log that keeps its promises.
//!
//! Per partition the union of all polls is the log. Against it are held: what was acknowledged, what was refused, the order in which
//! producers sent and consumers read. The names are those of Jepsen's Kafka workload.

use super::model::{Acks, Entry, Event, Phase, Place};
use proto::ids::Offset;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    /// Acknowledged by all replicas, and not where later offsets were read.
    LostWrite {
        /// Where it was.
        place: Place,
        /// What.
        value: u64,
        /// The offset it was acknowledged at.
        offset: Offset,
    },
    /// Acknowledged by all replicas at or above the end that was read when everything was still.
    Unseen {
        /// Where it was.
        place: Place,
        /// What.
        value: u64,
        /// The offset it was acknowledged at.
        offset: Offset,
    },
    /// One send of an idempotent producer lies at several offsets.
    Duplicate {
        /// Where.
        place: Place,
        /// What.
        value: u64,
        /// At which offsets, ascending.
        offsets: Vec<Offset>,
    },
    /// Several values were said to lie at one offset.
    InconsistentOffset {
        /// Where.
        place: Place,
        /// At which offset.
        offset: Offset,
        /// Which ones, ascending.
        values: Vec<u64>,
    },
    /// Read, but nobody sent it there, or it was refused.
    Phantom {
        /// Where.
        place: Place,
        /// What.
        value: u64,
        /// At which offset.
        offset: Offset,
    },
    /// Read as committed, but its transaction was aborted.
    AbortedRead {
        /// Where.
        place: Place,
        /// What.
        value: u64,
    },
    /// Read as committed before anybody asked for the commit.
    PrecommittedRead {
        /// Where.
        place: Place,
        /// What.
        value: u64,
    },
    /// A consumer was given an offset at or below one it had been given, without a new assignment.
    NonMonotonicPoll {
        /// Whose poll.
        client: String,
        /// Where.
        place: Place,
        /// The offset it had.
        had: Offset,
        /// The offset it was given next.
        given: Offset,
    },
    /// A consumer was led past a record that others read.
    SkippedPoll {
        /// Whose poll.
        client: String,
        /// Where.
        place: Place,
        /// The offset it was not given.
        missed: Offset,
    },
    /// What a producer sent later lies before what it sent earlier.
    NonMonotonicSend {
        /// Whose send.
        client: String,
        /// Where.
        place: Place,
        /// Sent first, and where that lies.
        earlier: (u64, Offset),
        /// Sent next, and where that lies.
        later: (u64, Offset),
    },
}

impl Anomaly {
    /// Its name in a table.
    pub fn name(&self) -> &'static str {
        match self {
            Anomaly::LostWrite { .. } => "lost-write",
            Anomaly::Unseen { .. } => "unseen",
            Anomaly::Duplicate { .. } => "duplicate",
            Anomaly::InconsistentOffset { .. } => "inconsistent-offset",
            Anomaly::Phantom { .. } => "phantom",
            Anomaly::AbortedRead { .. } => "aborted-read",
            Anomaly::PrecommittedRead { .. } => "precommitted-read",
            Anomaly::NonMonotonicPoll { .. } => "nonmonotonic-poll",
            Anomaly::SkippedPoll { .. } => "skipped-poll",
            Anomaly::NonMonotonicSend { .. } => "nonmonotonic-send",
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name())?;
        match self {
            Anomaly::LostWrite { place, value, offset } => {
                write!(f, "{value}, acknowledged at {place}@{offset}, is not there, though the log goes on")
            }
            Anomaly::Unseen { place, value, offset } => {
                write!(f, "{value}, acknowledged at {place}@{offset}, was never read, and the log ends before it")
            }
            Anomaly::Duplicate { place, value, offsets } => write!(f, "{value} lies at {place}@{offsets:?}"),
            Anomaly::InconsistentOffset { place, offset, values } => {
                write!(f, "{place}@{offset} was said to hold {values:?}")
            }
            Anomaly::Phantom { place, value, offset } => {
                write!(f, "{value}, read at {place}@{offset}, was not sent there, or was refused")
            }
            Anomaly::AbortedRead { place, value } => write!(f, "{value} of {place} was read and is aborted"),
            Anomaly::PrecommittedRead { place, value } => {
                write!(f, "{value} of {place} was read before its commit was asked for")
            }
            Anomaly::NonMonotonicPoll { client, place, had, given } => {
                write!(f, "{client} had {place}@{had} and was given {given}")
            }
            Anomaly::SkippedPoll { client, place, missed } => {
                write!(f, "{client} was led past {place}@{missed}")
            }
            Anomaly::NonMonotonicSend { client, place, earlier, later } => {
                write!(
                    f,
                    "{client} sent {} and then {}, which lie at {place}@{} and {}",
                    earlier.0, later.0, earlier.1, later.1
                )
            }
        }
    }
}

/// What a history shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// All that must not be, ascending.
    pub anomalies: Vec<Anomaly>,
    /// Values that were sent.
    pub sent: usize,
    /// Values that were acknowledged.
    pub acked: usize,
    /// Values that were read at least once.
    pub read: usize,
    /// Values a leader alone had acknowledged, and that are gone. Allowed.
    pub lost_with_leader: usize,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.anomalies.is_empty()
    }
}

/// Checks a history. Anomalies are found whatever the order of reasons: each is named once.
pub fn check(history: &[Entry]) -> Report {
    let mut facts = Facts::default();
    for entry in history {
        facts.note(entry);
    }
    facts.judge()
}

/// One value's story.
#[derive(Debug)]
struct Sent<'a> {
    client: &'a str,
    place: &'a Place,
    acks: Acks,
    idempotent: bool,
    transaction: Option<u64>,
    /// How many acknowledgements its client had heard before it was sent.
    heard: usize,
    /// Its acknowledgement: the offset, and which one it is among those of its client.
    acked: Option<(Offset, usize)>,
    refused: bool,
}

/// One partition's story.
#[derive(Debug, Default)]
struct Log {
    /// Offset → values that were read there.
    read: BTreeMap<Offset, BTreeSet<u64>>,
    /// Value → offsets it was read at.
    found: BTreeMap<u64, BTreeSet<Offset>>,
    /// The greatest end that was read when all was still.
    ended: Option<Offset>,
    /// Everything below may be gone.
    deletable: Offset,
}

#[derive(Debug, Default)]
struct Facts<'a> {
    sent: BTreeMap<u64, Sent<'a>>,
    /// Values in the order in which they were sent, per client and place.
    order: BTreeMap<(&'a str, &'a Place), Vec<u64>>,
    heard: BTreeMap<&'a str, usize>,
    logs: BTreeMap<&'a Place, Log>,
    /// The last offset a consumer was given.
    positions: BTreeMap<(&'a str, &'a Place), Offset>,
    /// Steps of consumers from one offset to the next that they were given.
    steps: Vec<(&'a str, &'a Place, Offset, Offset)>,
    transactions: BTreeMap<u64, Phase>,
    anomalies: BTreeSet<Anomaly>,
    /// Values that were read as committed.
    committed_reads: BTreeSet<u64>,
}

impl<'a> Facts<'a> {
    fn note(&mut self, entry: &'a Entry) {
        let client = entry.client.as_str();
        match &entry.event {
            Event::Send { place, value, acks, idempotent, transaction } => {
                let heard = self.heard.get(client).copied().unwrap_or(0);
                let sent = Sent {
                    client,
                    place,
                    acks: *acks,
                    idempotent: *idempotent,
                    transaction: *transaction,
                    heard,
                    acked: None,
                    refused: false,
                };
                self.sent.insert(*value, sent);
                self.order.entry((client, place)).or_default().push(*value);
            }
            Event::Acked { value, offset, .. } => {
                let heard = self.heard.entry(client).or_default();
                *heard += 1;
                if let Some(sent) = self.sent.get_mut(value) {
                    sent.acked = Some((*offset, *heard));
                }
            }
            Event::Refused { value, .. } => {
                if let Some(sent) = self.sent.get_mut(value) {
                    sent.refused = true;
                }
            }
            Event::Poll { place, records, committed } => self.note_poll(client, place, records, *committed),
            Event::Assigned {} => self.positions.retain(|(of, _), _| *of != client),
            Event::Transaction { transaction, phase } => {
                self.transactions.insert(*transaction, *phase);
            }
            Event::Deleting { place, to } => {
                let log = self.logs.entry(place).or_default();
                log.deletable = log.deletable.max(*to);
            }
            Event::End { place, end } => {
                let log = self.logs.entry(place).or_default();
                log.ended = Some(log.ended.map_or(*end, |before| before.max(*end)));
            }
        }
    }

    fn note_poll(&mut self, client: &'a str, place: &'a Place, records: &[(Offset, u64)], committed: bool) {
        for &(offset, value) in records {
            let log = self.logs.entry(place).or_default();
            log.read.entry(offset).or_default().insert(value);
            log.found.entry(value).or_default().insert(offset);
            if let Some(had) = self.positions.insert((client, place), offset) {
                if offset <= had {
                    let place = place.clone();
                    let poll = Anomaly::NonMonotonicPoll { client: client.to_owned(), place, had, given: offset };
                    self.anomalies.insert(poll);
                } else if offset > had + 1 {
                    self.steps.push((client, place, had, offset));
                }
            }
            if committed {
                self.note_committed(place, value);
            }
        }
    }

    fn note_committed(&mut self, place: &Place, value: u64) {
        self.committed_reads.insert(value);
        let transaction = self.sent.get(&value).and_then(|sent| sent.transaction);
        if transaction.is_some_and(|transaction| !self.transactions.contains_key(&transaction)) {
            self.anomalies.insert(Anomaly::PrecommittedRead { place: place.clone(), value });
        }
    }

    fn judge(mut self) -> Report {
        let mut report = Report { sent: self.sent.len(), ..Report::default() };
        let mut found = std::mem::take(&mut self.anomalies);
        for (place, log) in &self.logs {
            self.judge_log(place, log, &mut found);
            report.read += log.found.len();
        }
        for (value, sent) in &self.sent {
            report.acked += usize::from(sent.acked.is_some());
            self.judge_send(*value, sent, &mut found, &mut report);
        }
        for ((client, place), values) in &self.order {
            self.judge_order(client, place, values, &mut found);
        }
        for (client, place, had, given) in &self.steps {
            self.judge_step(client, place, *had, *given, &mut found);
        }
        report.anomalies = found.into_iter().collect();
        report
    }

    /// One offset, one value; one value, one offset; nothing that nobody sent.
    fn judge_log(&self, place: &Place, log: &Log, found: &mut BTreeSet<Anomaly>) {
        for (offset, values) in log.read.iter().filter(|(_, values)| values.len() > 1) {
            let values = values.iter().copied().collect();
            found.insert(Anomaly::InconsistentOffset { place: place.clone(), offset: *offset, values });
        }
        for (value, offsets) in &log.found {
            let sent = self.sent.get(value).filter(|sent| sent.place == place && !sent.refused);
            let Some(sent) = sent else {
                let offset = offsets.first().copied().unwrap_or(-1);
                found.insert(Anomaly::Phantom { place: place.clone(), value: *value, offset });
                continue;
            };
            if sent.idempotent && offsets.len() > 1 {
                let offsets = offsets.iter().copied().collect();
                found.insert(Anomaly::Duplicate { place: place.clone(), value: *value, offsets });
            }
        }
    }

    /// What was acknowledged is where that was said.
    fn judge_send(&self, value: u64, sent: &Sent<'_>, found: &mut BTreeSet<Anomaly>, report: &mut Report) {
        let aborted = sent.transaction.and_then(|of| self.transactions.get(&of)) == Some(&Phase::Aborted);
        if aborted && self.committed_reads.contains(&value) {
            found.insert(Anomaly::AbortedRead { place: sent.place.clone(), value });
        }
        let Some((offset, _)) = sent.acked.filter(|(offset, _)| *offset >= 0) else { return };
        let none = Log::default();
        let log = self.logs.get(sent.place).unwrap_or(&none);
        let offsets = log.found.get(&value);
        // What a transaction wrote is only seen once it is committed.
        let uncommitted = sent.transaction.is_some_and(|of| self.transactions.get(&of) != Some(&Phase::Committed));
        if offsets.is_none() && (offset < log.deletable || uncommitted) {
            return;
        }
        if sent.acks != Acks::All {
            report.lost_with_leader += usize::from(offsets.is_none() && log.ended.is_some());
            return;
        }
        let place = sent.place.clone();
        match offsets {
            Some(offsets) if offsets.contains(&offset) => {}
            // Something else may lie there, or it was told another offset than it got.
            Some(offsets) if sent.idempotent => {
                let offsets = offsets.iter().copied().chain([offset]).collect::<BTreeSet<_>>();
                found.insert(Anomaly::Duplicate { place, value, offsets: offsets.into_iter().collect() });
            }
            _ => {
                if let Some(others) = log.read.get(&offset) {
                    let values = others.iter().copied().chain([value]).collect::<BTreeSet<_>>();
                    let values = values.into_iter().collect();
                    found.insert(Anomaly::InconsistentOffset { place: place.clone(), offset, values });
                }
                let goes_on = log.read.last_key_value().is_some_and(|(last, _)| *last >= offset)
                    || log.ended.is_some_and(|end| end > offset);
                if goes_on {
                    found.insert(Anomaly::LostWrite { place, value, offset });
                } else if log.ended.is_some() {
                    found.insert(Anomaly::Unseen { place, value, offset });
                }
            }
        }
    }

    /// Where a value lies, if it lies at one place only.
    fn offset_of(&self, place: &Place, value: u64) -> Option<Offset> {
        let read = self.logs.get(place).and_then(|log| log.found.get(&value));
        match read {
            Some(offsets) if offsets.len() == 1 => offsets.first().copied(),
            Some(_) => None,
            None => self.sent.get(&value).filter(|sent| sent.acks == Acks::All)?.acked.map(|(offset, _)| offset),
        }
        .filter(|offset| *offset >= 0)
    }

    /// An idempotent producer's values keep their order. Those of others do if one was acknowledged before the next was sent.
    fn judge_order(&self, client: &str, place: &Place, values: &[u64], found: &mut BTreeSet<Anomaly>) {
        let mut before: Option<(u64, Offset)> = None;
        for value in values {
            let (Some(sent), Some(offset)) = (self.sent.get(value), self.offset_of(place, *value)) else { continue };
            if let Some(earlier) = before {
                let waited = self.sent.get(&earlier.0).and_then(|earlier| earlier.acked);
                let ordered = sent.idempotent || waited.is_some_and(|(_, number)| number <= sent.heard);
                if ordered && offset <= earlier.1 && sent.client == client {
                    found.insert(Anomaly::NonMonotonicSend {
                        client: client.to_owned(),
                        place: place.clone(),
                        earlier,
                        later: (*value, offset),
                    });
                }
            }
            before = Some((*value, offset));
        }
    }

    /// Between two offsets that a consumer was given one after the other lies nothing that it should have been given.
    fn judge_step(&self, client: &str, place: &Place, had: Offset, given: Offset, found: &mut BTreeSet<Anomaly>) {
        let Some(log) = self.logs.get(place) else { return };
        let from = had.max(log.deletable - 1) + 1;
        if from >= given {
            return;
        }
        let visible = |value: &u64| {
            let transaction = self.sent.get(value).and_then(|sent| sent.transaction);
            transaction.is_none_or(|of| self.transactions.get(&of) == Some(&Phase::Committed))
        };
        if let Some((missed, _)) = log.read.range(from..given).find(|(_, values)| values.iter().any(visible)) {
            let (client, place) = (client.to_owned(), place.clone());
            found.insert(Anomaly::SkippedPoll { client, place, missed: *missed });
        }
    }
}
