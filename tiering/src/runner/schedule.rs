//! Which partition's round runs when.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use proto::ids::{Millis, Offset, TopicPartition};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::context::Context;
use super::handle::Request;
use super::lane::Lane;
use super::round::Outcome;
use super::status::{Board, PartitionStatus};
use crate::plan::{self, Hold};

/// Owns all lanes; a lane is away while its round runs.
pub(super) struct Schedule {
    context: Arc<Context>,
    board: Arc<Board>,
    lanes: BTreeMap<TopicPartition, Slot>,
    rounds: JoinSet<(Box<Lane>, Outcome)>,
    /// Whose round each task is, should it be lost.
    running: HashMap<tokio::task::Id, TopicPartition>,
    sweeps: JoinSet<Option<TopicPartition>>,
    sweeping: Vec<TopicPartition>,
    /// Where the search for work goes on, so that no partition starves another.
    next: Option<TopicPartition>,
}

enum Slot {
    Here(Box<Lane>),
    /// Its round runs; a flush asked for meanwhile waits here, as does the last error.
    Away {
        flush_to: Option<Offset>,
        last_error: Option<String>,
    },
}

impl Schedule {
    pub(super) fn new(context: Arc<Context>, board: Arc<Board>) -> Self {
        Self {
            context,
            board,
            lanes: BTreeMap::new(),
            rounds: JoinSet::new(),
            running: HashMap::new(),
            sweeps: JoinSet::new(),
            sweeping: Vec::new(),
            next: None,
        }
    }

    /// Runs until told to stop.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>, stopped: watch::Sender<bool>) {
        let mut ticks = tokio::time::interval(self.context.config.tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                request = requests.recv() => match request {
                    Some(Request::Stop) => break,
                    Some(request) => self.on_request(request),
                    // Without handles there is nobody to ask; the work goes on.
                    None => { ticks.tick().await; self.on_tick(); }
                },
                Some(ended) = self.rounds.join_next_with_id() => match ended {
                    Ok((task, (lane, outcome))) => {
                        self.running.remove(&task);
                        self.on_round(lane, outcome);
                    }
                    Err(error) => self.on_lost_round(&error),
                },
                Some(ended) = self.sweeps.join_next() => self.on_swept(ended.ok().flatten()).await,
                _ = ticks.tick() => self.on_tick(),
            }
        }
        self.rounds.shutdown().await;
        self.sweeps.shutdown().await;
        stopped.send_replace(true);
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Nudge(tp) => {
                self.meet(tp);
                self.start(tp);
            }
            Request::Flush(tp, target) => {
                self.meet(tp);
                match self.lanes.get_mut(&tp) {
                    Some(Slot::Here(lane)) => {
                        lane.flush_to = lane.flush_to.max(Some(target));
                        lane.not_before = 0;
                    }
                    Some(Slot::Away { flush_to, .. }) => *flush_to = (*flush_to).max(Some(target)),
                    None => {}
                }
                self.start(tp);
                self.post(tp);
            }
            Request::Hold(tp, target, answer) => {
                // Who asked may have gone.
                let _ = answer.send(self.hold(tp, target));
            }
            Request::Stop => {}
        }
    }

    fn on_tick(&mut self) {
        for tp in self.context.locals.led() {
            self.meet(tp);
        }
        self.fill();
        let known: Vec<TopicPartition> = self.lanes.keys().copied().collect();
        for tp in known {
            self.post(tp);
        }
        self.sweep_deleted();
    }

    /// Starts rounds until as many run as may, beginning after the partition that had the last turn.
    fn fill(&mut self) {
        let all: Vec<TopicPartition> = self.lanes.keys().copied().collect();
        let from = all.partition_point(|tp| self.next.is_some_and(|next| *tp <= next));
        let (before, after) = all.split_at(from);
        for tp in after.iter().chain(before) {
            if self.rounds.len() >= self.context.config.partitions_at_once {
                return;
            }
            if self.start(*tp) {
                self.next = Some(*tp);
            }
        }
    }

    /// Starts the partition's round if one is due and may run.
    fn start(&mut self, tp: TopicPartition) -> bool {
        if self.rounds.len() >= self.context.config.partitions_at_once {
            return false;
        }
        let now = self.context.clock.now_ms();
        let Some(slot) = self.lanes.get_mut(&tp) else { return false };
        let Slot::Here(lane) = slot else { return false };
        let local = self.context.locals.state(tp);
        if let Some(pointer) = self.context.pointers.current(tp)
            && lane.epoch.is_some()
        {
            lane.learn(pointer);
        }
        if !self.context.due(lane, local.as_ref(), now) {
            let leads = local.is_some_and(|local| local.is_leader);
            if !leads && lane.is_empty() {
                self.lanes.remove(&tp);
                self.board.remove(tp);
            }
            return false;
        }
        let away = Slot::Away { flush_to: lane.flush_to, last_error: lane.last_error.clone() };
        let Slot::Here(mut lane) = std::mem::replace(slot, away) else { return false };
        let context = Arc::clone(&self.context);
        let task = self.rounds.spawn(async move {
            let outcome = context.round(&mut lane).await;
            (lane, outcome)
        });
        self.running.insert(task.id(), tp);
        true
    }

    fn on_round(&mut self, mut lane: Box<Lane>, outcome: Outcome) {
        let tp = lane.tp;
        if let Some(Slot::Away { flush_to, .. }) = self.lanes.get(&tp) {
            lane.flush_to = lane.flush_to.max(*flush_to);
        }
        match outcome {
            Outcome::Gone => {
                self.lanes.remove(&tp);
                self.board.remove(tp);
            }
            Outcome::Failed(error) => {
                tracing::warn!(partition = %tp, %error, failures = lane.failures, "tiering will try again");
                self.lanes.insert(tp, Slot::Here(lane));
            }
            Outcome::Moved | Outcome::Idle => {
                self.lanes.insert(tp, Slot::Here(lane));
                self.start(tp);
            }
        }
        self.post(tp);
        self.fill();
    }

    /// A round that panicked: its lane is lost and made anew, as after a crash.
    fn on_lost_round(&mut self, error: &tokio::task::JoinError) {
        let Some(tp) = self.running.remove(&error.id()) else { return };
        tracing::error!(partition = %tp, %error, "a tiering round ended by a defect; its partition starts over");
        let mut lane = Box::new(Lane::new(tp));
        if let Some(Slot::Away { flush_to, .. }) = self.lanes.get(&tp) {
            lane.flush_to = *flush_to;
        }
        lane.last_error = Some(format!("a defect ended the round: {error}"));
        lane.not_before = self.context.clock.now_ms() + self.context.config.backoff.cap.as_millis() as Millis;
        self.lanes.insert(tp, Slot::Here(lane));
        self.context.troubles.lock().remove(&tp);
    }

    fn meet(&mut self, tp: TopicPartition) {
        self.lanes.entry(tp).or_insert_with(|| Slot::Here(Box::new(Lane::new(tp))));
    }

    fn post(&self, tp: TopicPartition) {
        let Some(local) = self.context.locals.state(tp) else { return };
        let now = self.context.clock.now_ms();
        match self.lanes.get(&tp) {
            Some(Slot::Here(lane)) if local.is_leader && lane.epoch.is_some() => {
                self.board.post(PartitionStatus::new(lane, &local, now));
            }
            Some(Slot::Away { last_error, .. }) if local.is_leader => {
                let known = self.board.get(tp).unwrap_or_else(|| {
                    let mut lane = Lane::new(tp);
                    lane.learn(self.context.pointers.current(tp).unwrap_or_default());
                    PartitionStatus::new(&lane, &local, now)
                });
                let error = self.trouble(tp).or_else(|| last_error.clone());
                self.board.post(known.meanwhile(&local, now, error));
            }
            Some(Slot::Here(_) | Slot::Away { .. }) | None => {}
        }
    }

    /// The last failure in the round of this partition that is under way.
    fn trouble(&self, tp: TopicPartition) -> Option<String> {
        self.context.troubles.lock().get(&tp).cloned()
    }

    fn hold(&self, tp: TopicPartition, target: Offset) -> Option<Hold> {
        let Some(local) = self.context.locals.state(tp) else { return Some(Hold::NotLeader) };
        match self.lanes.get(&tp) {
            Some(Slot::Here(lane)) => plan::hold(&local, &lane.pointer, target, lane.last_error.as_deref()),
            Some(Slot::Away { last_error, .. }) => {
                let pointer = self.context.pointers.current(tp).unwrap_or_default();
                let error = self.trouble(tp).or_else(|| last_error.clone());
                plan::hold(&local, &pointer, target, error.as_deref())
            }
            None => Some(Hold::NotLeader),
        }
    }

    fn sweep_deleted(&mut self) {
        const AT_ONCE: usize = 4;
        if !self.context.pointers.clock_is_sound() {
            return;
        }
        let now = self.context.clock.now_ms();
        for deleted in self.context.pointers.deleted() {
            let over = deleted.deleted_at.saturating_add(self.context.config.grace_ms) <= now;
            if !over || self.sweeping.contains(&deleted.tp) || self.sweeping.len() >= AT_ONCE {
                continue;
            }
            self.sweeping.push(deleted.tp);
            let context = Arc::clone(&self.context);
            self.sweeps.spawn(async move {
                match context.sweep_deleted(deleted.tp).await {
                    Ok(()) => context.pointers.swept(vec![deleted.tp]).await,
                    Err(error) => {
                        tracing::warn!(partition = %deleted.tp, %error, "objects of a deleted topic stay until the next try");
                        tokio::time::sleep(context.config.backoff.cap).await;
                    }
                }
                Some(deleted.tp)
            });
        }
    }

    async fn on_swept(&mut self, tp: Option<TopicPartition>) {
        match tp {
            Some(tp) => self.sweeping.retain(|sweeping| *sweeping != tp),
            // One of them panicked; the others end before any is tried again.
            None => {
                self.sweeps.shutdown().await;
                self.sweeping.clear();
            }
        }
    }
}

impl Lane {
    /// Whether nothing would be lost with it.
    fn is_empty(&self) -> bool {
        self.doomed.is_empty() && self.in_doubt.is_none()
    }
}
