//! What the follower of one leader decides: which partitions a request names, what becomes of an answer, when to ask again.
//! Events in, commands out; no clock, no I/O, no randomness.
//!
//! A partition is fetched only while it is at rest: its offset is the end of what is durable here, and nothing of it is being appended, cut or
//! started over. The next request leaves when all that the last answer brought is durable, so that its offsets are acknowledgements. An
//! answer counts for a partition only if the request was made after the partition came to rest, under the leader epoch it has now.
//!
//! History is compared by epochs alone (KIP-101, 279, 595): the leader says where ours leaves its own, and the log is cut there, never at a
//! high watermark. What the tier holds is not fetched: a log that ends before it starts over at its end (KIP-1023).

mod types;

use super::session::{Session, Want};
use proto::errors::ErrorCode;
use proto::ids::{LeaderEpoch, Millis, Offset, TopicPartition};
use std::collections::{BTreeMap, BTreeSet};
pub use types::{
    Answer, Because, Command, Event, Failure, Followed, Outcome, PartitionAnswer, Phase, Position, Said, Ticket,
    Trouble,
};

/// Pause after a first failure.
const FIRST_PAUSE_MS: Millis = 25;
/// Pause of a partition whose data directory is full.
const FULL_PAUSE_MS: Millis = 1_000;
/// A request under way is not given up for the sake of new partitions within this time of the last that was.
const ABANDON_PAUSE_MS: Millis = 100;
/// A request that is younger may be about to be answered, with records.
const ABANDON_AGE_MS: Millis = 30;
/// A partition that failed more often in a row is not worth giving up a request for.
const URGENT_FAILURES: u32 = 3;
/// So many corrupt answers in a row, and the tier is asked for what the leader cannot give.
const CORRUPT_ANSWERS: u32 = 3;

#[derive(Debug)]
struct Entry {
    /// None once it was dropped, while work on it cannot be given up.
    followed: Option<Followed>,
    phase: Phase,
    position: Option<Position>,
    /// The leader's log start, as it said last.
    leader_start: Offset,
    /// In a row.
    failures: u32,
    /// Corrupt answers in a row.
    corrupt: u32,
    /// The work under way was begun for an earlier assignment, on an earlier life of the log perhaps: what comes of it says nothing.
    outdated: bool,
}

/// The partitions that follow one leader over one connection.
#[derive(Debug)]
pub struct Core {
    entries: BTreeMap<TopicPartition, Entry>,
    session: Session,
    /// Partitions that keep the next request waiting.
    syncing: BTreeSet<TopicPartition>,
    /// Partitions in [`Phase::Waiting`], by time.
    waiting: BTreeSet<(Millis, TopicPartition)>,
    /// Requests made so far.
    requests: u64,
    in_flight: bool,
    /// The bound on replication is reached.
    held: bool,
    /// Partitions came to rest that the request under way does not name, and should not wait for its end.
    urgent: bool,
    /// No request is given up before.
    abandon_from: Millis,
    /// When the request under way was made.
    asked_at: Millis,
    /// No request is made before.
    ask_from: Millis,
    /// Requests that failed in a row.
    failures: u32,
    next_ticket: u64,
    longest_pause_ms: Millis,
}

impl Core {
    /// Nothing to follow yet. Pauses after failures grow up to `longest_pause_ms` (`replica.fetch.backoff.ms`).
    pub fn new(longest_pause_ms: Millis) -> Core {
        Core {
            entries: BTreeMap::new(),
            session: Session::default(),
            syncing: BTreeSet::new(),
            waiting: BTreeSet::new(),
            requests: 0,
            in_flight: false,
            held: false,
            urgent: false,
            abandon_from: 0,
            asked_at: 0,
            ask_from: 0,
            failures: 0,
            next_ticket: 0,
            longest_pause_ms,
        }
    }

    /// Takes note of what happened and says what is to be done about it. `now` counts milliseconds from any fixed moment and never falls.
    /// When all that happened was told, [`Core::ask`] says whether a request is due.
    pub fn on(&mut self, now: Millis, event: Event) -> Vec<Command> {
        let mut commands = Vec::new();
        match event {
            Event::Assigned(all) => {
                for followed in all {
                    self.assign(followed, &mut commands);
                }
            }
            Event::Dropped(all) => {
                for tp in all {
                    self.drop_one(tp, &mut commands);
                }
            }
            Event::Answered(answer) => self.answered(now, answer, &mut commands),
            Event::Broke => {
                self.in_flight = false;
                self.session.lost();
                self.pause(now);
            }
            Event::Done(tp, ticket, outcome) => self.done(now, tp, ticket, outcome, &mut commands),
            Event::Held(held) => self.hold(held, &mut commands),
            Event::Tick => {
                while let Some((until, tp)) = self.waiting.first().copied().filter(|(until, _)| *until <= now) {
                    self.waiting.remove(&(until, tp));
                    self.settle(tp, &mut commands);
                }
            }
        }
        commands
    }

    /// The request to be made now, if one is due; with one that is to be given up for it.
    pub fn ask(&mut self, now: Millis) -> Vec<Command> {
        let mut commands = Vec::new();
        if self.session.is_idle() || !self.syncing.is_empty() || now < self.ask_from {
            return commands;
        }
        if self.in_flight {
            if !self.urgent || now < self.may_abandon_at() {
                return commands;
            }
            self.session.lost();
            commands.push(Command::Abandon);
            self.abandon_from = now + ABANDON_PAUSE_MS;
        }
        self.urgent = false;
        self.in_flight = true;
        self.asked_at = now;
        self.requests += 1;
        commands.push(Command::Fetch(self.session.ask()));
        commands
    }

    fn may_abandon_at(&self) -> Millis {
        self.abandon_from.max(self.asked_at + ABANDON_AGE_MS)
    }

    /// When [`Event::Tick`] and [`Core::ask`] are due next, if nothing else happens.
    pub fn due(&self) -> Option<Millis> {
        let wait = self.waiting.first().map(|(until, _)| *until);
        let idle = self.session.is_idle() || !self.syncing.is_empty();
        let ask = if idle {
            None
        } else if self.in_flight {
            self.urgent.then_some(self.may_abandon_at().max(self.ask_from))
        } else {
            Some(self.ask_from)
        };
        wait.into_iter().chain(ask).min()
    }

    /// Each partition that is followed: under which epoch, what it is at, where its log stood when it was at rest last.
    pub fn partitions(&self) -> impl Iterator<Item = (Followed, Phase, Option<Position>)> + '_ {
        self.entries.values().filter_map(|entry| Some((entry.followed?, entry.phase, entry.position)))
    }

    /// Whether nothing is followed, nor being worked on.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    // ---- coming and going

    fn assign(&mut self, followed: Followed, commands: &mut Vec<Command>) {
        let tp = followed.tp;
        let Some(entry) = self.entries.get_mut(&tp) else {
            let ticket = Self::ticket(&mut self.next_ticket);
            let phase = Phase::Settling(ticket);
            let entry = Entry {
                followed: Some(followed),
                phase,
                position: None,
                leader_start: 0,
                failures: 0,
                corrupt: 0,
                outdated: false,
            };
            self.entries.insert(tp, entry);
            commands.push(Command::Settle(tp, ticket));
            return;
        };
        if entry.followed == Some(followed) && !matches!(entry.phase, Phase::Stopped(_)) {
            return;
        }
        entry.followed = Some(followed);
        (entry.failures, entry.corrupt) = (0, 0);
        match entry.phase {
            // What is under way ends first.
            Phase::Cutting(_) | Phase::StartingOver(_) => entry.outdated = true,
            Phase::Settling(_) | Phase::Fetching { .. } | Phase::Syncing(_) | Phase::Paused | Phase::Stopped(_) => {
                self.settle(tp, commands);
            }
            Phase::Waiting { until, .. } => {
                self.waiting.remove(&(until, tp));
                self.settle(tp, commands);
            }
        }
    }

    fn drop_one(&mut self, tp: TopicPartition, commands: &mut Vec<Command>) {
        self.session.forget(tp);
        self.syncing.remove(&tp);
        let Some(entry) = self.entries.get_mut(&tp) else {
            commands.push(Command::Left(tp));
            return;
        };
        match entry.phase {
            Phase::Cutting(_) | Phase::StartingOver(_) => {
                entry.followed = None;
                return;
            }
            Phase::Waiting { until, .. } => {
                self.waiting.remove(&(until, tp));
            }
            Phase::Settling(_) | Phase::Fetching { .. } | Phase::Syncing(_) | Phase::Paused | Phase::Stopped(_) => {}
        }
        self.entries.remove(&tp);
        commands.push(Command::Left(tp));
    }

    /// Leaves what is throttled alone, or goes on with it.
    fn hold(&mut self, held: bool, commands: &mut Vec<Command>) {
        self.held = held;
        let mut released = Vec::new();
        for (tp, entry) in &mut self.entries {
            match entry.phase {
                Phase::Fetching { .. } if held && entry.followed.is_some_and(|followed| followed.throttled) => {
                    entry.phase = Phase::Paused;
                    self.session.forget(*tp);
                }
                Phase::Paused if !held => released.push(*tp),
                _ => {}
            }
        }
        for tp in released {
            self.settle(tp, commands);
        }
    }

    fn ticket(next: &mut u64) -> Ticket {
        *next += 1;
        Ticket(*next)
    }

    /// Finds out where the log is, once it is at rest.
    fn settle(&mut self, tp: TopicPartition, commands: &mut Vec<Command>) {
        self.work(tp, Phase::Settling, |_, ticket| Command::Settle(tp, ticket), commands);
    }

    /// Begins a piece of work; the partition is not fetched until it ends.
    fn work(
        &mut self,
        tp: TopicPartition,
        phase: impl FnOnce(Ticket) -> Phase,
        command: impl FnOnce(LeaderEpoch, Ticket) -> Command,
        commands: &mut Vec<Command>,
    ) {
        let Some(entry) = self.entries.get_mut(&tp) else { return };
        let Some(followed) = entry.followed else { return };
        let ticket = Self::ticket(&mut self.next_ticket);
        entry.phase = phase(ticket);
        self.session.forget(tp);
        if matches!(entry.phase, Phase::Syncing(_)) {
            self.syncing.insert(tp);
        } else {
            self.syncing.remove(&tp);
        }
        commands.push(command(followed.epoch, ticket));
    }

    // ---- answers

    fn answered(&mut self, now: Millis, answer: Answer, commands: &mut Vec<Command>) {
        self.in_flight = false;
        if let Err(code) = self.session.answered(answer.error, answer.session_id) {
            // A session that is gone, by a restart or for want of room, is begun anew at once; anything else, and that again, may last.
            let first = self.failures == 0;
            self.pause(now);
            let session = matches!(
                code,
                ErrorCode::FetchSessionIdNotFound
                    | ErrorCode::InvalidFetchSessionEpoch
                    | ErrorCode::FetchSessionTopicIdError
            );
            if first && session {
                self.ask_from = now;
            }
            return;
        }
        self.failures = 0;
        for partition in answer.partitions {
            self.answered_one(now, partition, commands);
        }
    }

    fn answered_one(&mut self, now: Millis, answer: PartitionAnswer, commands: &mut Vec<Command>) {
        let PartitionAnswer { tp, error, said, diverging, records } = answer;
        let request = self.requests;
        let Some(entry) = self.entries.get_mut(&tp) else { return };
        let (Some(followed), Some(position)) = (entry.followed, &mut entry.position) else { return };
        // Asked before it was cut, started over, or given to this leader.
        if !matches!(entry.phase, Phase::Fetching { since } if since <= request) {
            return;
        }
        match error {
            ErrorCode::None => {}
            code @ ErrorCode::OffsetMovedToTieredStorage => {
                return self.start_over(now, tp, Trouble::Answered(code), Because::OfTier, commands);
            }
            // With a history to compare, an end above the leader's shows as a divergence.
            code @ ErrorCode::OffsetOutOfRange
                if said.log_start >= 0 && (position.end < said.log_start || position.last_epoch < 0) =>
            {
                let because = Because::BeforeStart(said.log_start);
                return self.start_over(now, tp, Trouble::Answered(code), because, commands);
            }
            code => return self.wait(now, tp, Trouble::Answered(code)),
        }
        entry.leader_start = said.log_start.max(0);
        if let Some(end) = diverging {
            return self.work(tp, Phase::Cutting, |epoch, ticket| Command::Cut { tp, ticket, epoch, end }, commands);
        }
        if !records.is_empty() {
            let append = |epoch, ticket| Command::Append { tp, ticket, epoch, records, said };
            return self.work(tp, Phase::Syncing, append, commands);
        }
        entry.failures = 0;
        position.high_watermark = position.high_watermark.max(said.high_watermark.min(position.end));
        position.log_start = position.log_start.max(said.log_start.min(position.end));
        let want = want(&followed, position);
        self.session.want(tp, want);
        commands.push(Command::Learn(tp, followed.epoch, said));
    }

    /// Starts over for the reason `why`, which may be there again afterwards: every other time the partition is left alone for a while first.
    fn start_over(
        &mut self,
        now: Millis,
        tp: TopicPartition,
        why: Trouble,
        because: Because,
        commands: &mut Vec<Command>,
    ) {
        let Some(entry) = self.entries.get_mut(&tp) else { return };
        if entry.failures % 2 == 1 {
            return self.wait(now, tp, why);
        }
        entry.failures += 1;
        self.work_over(tp, because, commands);
    }

    fn work_over(&mut self, tp: TopicPartition, because: Because, commands: &mut Vec<Command>) {
        let command = |epoch, ticket| Command::StartOver { tp, ticket, epoch, because };
        self.work(tp, Phase::StartingOver, command, commands);
    }

    // ---- the ends of work

    fn done(&mut self, now: Millis, tp: TopicPartition, ticket: Ticket, outcome: Outcome, commands: &mut Vec<Command>) {
        let Some(entry) = self.entries.get_mut(&tp) else { return };
        let appended = match entry.phase {
            Phase::Syncing(current) if current == ticket => true,
            Phase::Settling(current) | Phase::Cutting(current) | Phase::StartingOver(current) if current == ticket => {
                false
            }
            // Another piece of work replaced it.
            _ => return,
        };
        self.syncing.remove(&tp);
        let Some(followed) = entry.followed else {
            self.entries.remove(&tp);
            commands.push(Command::Left(tp));
            return;
        };
        if std::mem::take(&mut entry.outdated) {
            return self.settle(tp, commands);
        }
        match outcome {
            Outcome::At(position) => {
                entry.position = Some(position);
                if appended {
                    (entry.failures, entry.corrupt) = (0, 0);
                }
                if self.held && followed.throttled {
                    entry.phase = Phase::Paused;
                    return;
                }
                entry.phase = Phase::Fetching { since: self.requests + 1 };
                // After an append the request it came with has ended.
                self.urgent |= !appended && entry.failures <= URGENT_FAILURES;
                self.session.want(tp, want(&followed, &position));
            }
            Outcome::Behind => self.work_over(tp, Because::OfTier, commands),
            Outcome::Apart => {
                let because = Because::Apart(entry.leader_start);
                self.start_over(now, tp, Trouble::Failed(Failure::OutOfOrder), because, commands);
            }
            Outcome::Failed(failure @ Failure::Corrupt) => {
                entry.corrupt += 1;
                if entry.corrupt < CORRUPT_ANSWERS {
                    return self.wait(now, tp, Trouble::Failed(failure));
                }
                entry.corrupt = 0;
                self.start_over(now, tp, Trouble::Failed(failure), Because::OfTier, commands);
            }
            Outcome::Failed(failure @ Failure::OutOfOrder) => {
                self.start_over(now, tp, Trouble::Failed(failure), Because::OfTier, commands);
            }
            Outcome::Failed(Failure::Gone) => {
                entry.phase = Phase::Stopped(Trouble::Failed(Failure::Gone));
                self.session.forget(tp);
            }
            Outcome::Failed(failure @ (Failure::Moved | Failure::Full | Failure::Other)) => {
                self.wait(now, tp, Trouble::Failed(failure));
            }
        }
    }

    /// Leaves a partition alone for a while; the image may change it before.
    fn wait(&mut self, now: Millis, tp: TopicPartition, why: Trouble) {
        let Some(entry) = self.entries.get_mut(&tp) else { return };
        let pause = match why {
            Trouble::Failed(Failure::Full) => FULL_PAUSE_MS,
            Trouble::Answered(_) | Trouble::Failed(_) => pause_after(entry.failures, self.longest_pause_ms),
        };
        entry.failures = entry.failures.saturating_add(1);
        let until = now + pause;
        entry.phase = Phase::Waiting { until, why };
        self.waiting.insert((until, tp));
        self.session.forget(tp);
    }

    fn pause(&mut self, now: Millis) {
        self.ask_from = now + pause_after(self.failures, self.longest_pause_ms);
        self.failures = self.failures.saturating_add(1);
    }
}

fn want(followed: &Followed, position: &Position) -> Want {
    Want {
        offset: position.end,
        epoch: followed.epoch,
        last_epoch: position.last_epoch,
        log_start: position.log_start,
        high_watermark: position.high_watermark,
        directory: followed.directory,
    }
}

/// Doubles with each failure.
fn pause_after(failures: u32, longest: Millis) -> Millis {
    FIRST_PAUSE_MS.saturating_mul(1 << failures.min(16)).min(longest)
}

#[cfg(test)]
#[path = "core/tests.rs"]
mod tests;
