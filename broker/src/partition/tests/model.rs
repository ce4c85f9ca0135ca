//! What a log must be after a crash: all that happened to it, in order, and how much of that is certain.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use proto::ids::{LeaderEpoch, Offset};

use crate::log::producers::{Producer, Producers, REMEMBERED_BATCHES};

/// A batch as it lies in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) base: Offset,
    /// Exclusive.
    pub(super) end: Offset,
    pub(super) epoch: LeaderEpoch,
    /// Offset and epoch patched.
    pub(super) bytes: Bytes,
    /// Who sent it: id and sequence of its last record.
    pub(super) producer: Option<(i64, i32)>,
}

/// What a producer sent last, oldest first: sequence and offset of each batch's last record.
pub(super) type Sent = BTreeMap<i64, VecDeque<(i32, Offset)>>;

/// What `producers` remembers.
pub(super) fn sent_of(producers: &Producers) -> Sent {
    let of =
        |producer: &Producer| producer.batches.iter().map(|batch| (batch.last_sequence, batch.last_offset)).collect();
    producers.iter().map(|(id, producer)| (id, of(producer))).collect()
}

/// One thing that happened to a log.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Append(Batch),
    /// The local log begins here.
    Trim(Offset),
    /// The log ends here.
    Cut(Offset),
    /// The local log begins, and ends, here, and producers sent this before.
    Reset(Offset, Sent),
    Delete,
}

/// When an operation counts as safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    Journal,
    /// `firn.flush = os`: with the page cache.
    Loose,
}

/// A log at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    /// First local offset.
    pub(super) start: Offset,
    /// Where `history` begins.
    floor: Offset,
    /// What producers sent below `floor`.
    sent_below: Sent,
    /// All batches since `floor`, those below `start` included.
    history: Vec<Batch>,
}

impl State {
    pub(super) fn end(&self) -> Offset {
        self.history.last().map_or(self.floor, |batch| batch.end)
    }

    /// Batches that can be read, the one that holds `start` included.
    pub(super) fn batches(&self) -> impl DoubleEndedIterator<Item = &Batch> {
        self.history.iter().filter(|batch| batch.end > self.start)
    }

    /// The batch that ends with this sequence of this producer.
    pub(super) fn find(&self, producer: (i64, i32)) -> Option<&Batch> {
        self.history.iter().find(|batch| batch.producer == Some(producer))
    }

    /// What is remembered of producers at `offset`.
    pub(super) fn sent_at(&self, offset: Offset) -> Sent {
        let mut sent = self.sent_below.clone();
        for batch in self.history.iter().filter(|batch| batch.end <= offset) {
            if let Some((id, sequence)) = batch.producer {
                let batches = sent.entry(id).or_default();
                if batches.len() == REMEMBERED_BATCHES {
                    batches.pop_front();
                }
                batches.push_back((sequence, batch.end - 1));
            }
        }
        sent
    }

    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::Append(batch) => self.history.push(batch.clone()),
            // What lay between the end and the new start went past the journal and is lost.
            Op::Trim(to) if *to > self.end() => self.restart(*to, self.sent_at(self.end())),
            Op::Trim(to) => self.start = self.start.max(*to),
            Op::Cut(to) => self.history.retain(|batch| batch.end <= *to),
            Op::Reset(to, sent) => self.restart(*to, sent.clone()),
            Op::Delete => *self = Self::default(),
        }
    }

    fn restart(&mut self, at: Offset, sent: Sent) {
        self.sent_below = sent;
        self.history.clear();
        (self.start, self.floor) = (at, at);
    }
}

/// Something that happened, when (in its directory), and along which path.
#[derive(Debug, Clone)]
struct Step {
    at: u64,
    op: Op,
    path: Path,
    /// It was acknowledged itself.
    acked: bool,
}

/// All that happened to a log since it was last found on disk.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    found: State,
    steps: Vec<Step>,
    pub(super) now: State,
}

impl History {
    /// Notes what just happened, as number `at` of its directory.
    pub(super) fn note(&mut self, at: u64, op: Op, path: Path) {
        self.now.apply(&op);
        self.steps.push(Step { at, op, path, acked: false });
    }

    /// Everything up to `end` was acknowledged.
    pub(super) fn acked(&mut self, end: Offset) {
        for step in &mut self.steps {
            step.acked |= matches!(&step.op, Op::Append(batch) if batch.end <= end);
        }
    }

    /// Whether something went past the journal: a power cut may then cost what was acknowledged.
    pub(super) fn is_loose(&self) -> bool {
        self.steps.iter().any(|step| step.path == Path::Loose)
    }

    /// All states that may be found, the directory's journal being durable up to `durable`; with the page
    /// cache still there if only the process died.
    pub(super) fn candidates(&self, durable: u64, page_cache: bool) -> Vec<State> {
        let last = |must: &dyn Fn(&Step) -> bool| self.steps.iter().rposition(must).map_or(0, |at| at + 1);
        let loose = self.is_loose();
        let appends = last(&|step| {
            let safe = match step.path {
                // Behind something loose an acknowledgement waits until that is settled.
                Path::Journal => step.acked || (step.at <= durable && !loose),
                Path::Loose => step.acked && page_cache,
            };
            safe && matches!(step.op, Op::Append(_))
        });
        let others = last(&|step| step.at <= durable && !matches!(step.op, Op::Append(_)));
        let mut states = Vec::new();
        let count = self.steps.len();
        if !loose {
            let least = appends.max(others);
            states.extend((least..=count).map(|upto| self.fold(upto, upto)));
            return states;
        }
        for appended in appends..=count {
            states.extend((others..=count).map(|changed| self.fold(appended, changed)));
        }
        states
    }

    fn fold(&self, appends: usize, others: usize) -> State {
        let mut state = self.found.clone();
        for (at, step) in self.steps.iter().enumerate() {
            match &step.op {
                // What follows a gap is not appended.
                Op::Append(batch) if at < appends && (batch.base == state.end()) => state.apply(&step.op),
                Op::Append(_) => {}
                Op::Trim(_) | Op::Cut(_) | Op::Reset(..) | Op::Delete if at < others => state.apply(&step.op),
                Op::Trim(_) | Op::Cut(_) | Op::Reset(..) | Op::Delete => {}
            }
        }
        state
    }

    /// It was found like this: history begins here.
    pub(super) fn restart(&mut self, found: State) {
        self.now = found.clone();
        self.found = found;
        self.steps.clear();
    }
}
