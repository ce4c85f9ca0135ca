//! Which partition's round runs when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proto::ids::{Offset, TopicId, TopicPartition};
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
    /// Lanes that a tick found due while as many rounds ran as may.
    ready: VecDeque<TopicPartition>,
    rounds: JoinSet<(Box<Lane>, Outcome)>,
    sweeps: JoinSet<TopicId>,
    sweeping: BTreeSet<TopicId>,
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
            ready: VecDeque::new(),
            rounds: JoinSet::new(),
            sweeps: JoinSet::new(),
            sweeping: BTreeSet::new(),
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
                Some(ended) = self.rounds.join_next() => match ended {
                    Ok((lane, outcome)) => self.on_round(lane, outcome),
                    Err(error) => self.on_lost_round(&error),
                },
                Some(ended) = self.sweeps.join_next() => self.on_swept(ended).await,
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
                self.look(tp);
                self.fill();
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
                self.look(tp);
                self.fill();
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
        self.ready.clear();
        let known: Vec<TopicPartition> = self.lanes.keys().copied().collect();
        for tp in known {
            self.look(tp);
        }
        // Who comes first changes from tick to tick, so that no partition starves another.
        if !self.ready.is_empty() {
            let by = self.context.entropy.next_u64() % self.ready.len() as u64;
            self.ready.rotate_left(by as usize);
        }
        self.fill();
        self.sweep_deleted();
    }

    /// Posts the partition's status and notes whether it has something to do.
    fn look(&mut self, tp: TopicPartition) {
        let Some(Slot::Here(lane)) = self.lanes.get_mut(&tp) else { return };
        let local = self.context.locals.state(tp);
        let now = self.context.clock.now_ms();
        if lane.epoch.is_some()
            && let Some(pointer) = self.context.pointers.current(tp)
        {
            lane.learn(pointer);
        }
        let due = self.context.due(lane, local.as_ref(), now);
        match local.filter(|local| local.is_leader) {
            Some(local) if lane.epoch.is_some() => self.board.post(PartitionStatus::new(lane, &local, now)),
            Some(_) => {}
            None => {
                self.board.remove(tp);
                if lane.is_empty() {
                    self.lanes.remove(&tp);
                    return;
                }
            }
        }
        if due && !self.ready.contains(&tp) {
            self.ready.push_back(tp);
        }
    }

    /// Starts rounds until as many run as may.
    fn fill(&mut self) {
        while self.rounds.len() < self.context.config.partitions_at_once {
            let Some(tp) = self.ready.pop_front() else { return };
            let Some(slot) = self.lanes.get_mut(&tp) else { continue };
            let last_error = match slot {
                Slot::Here(lane) => lane.last_error.clone(),
                Slot::Away { .. } => continue,
            };
            let Slot::Here(mut lane) = std::mem::replace(slot, Slot::Away { flush_to: None, last_error }) else {
                continue;
            };
            let context = Arc::clone(&self.context);
            self.rounds.spawn(async move {
                let outcome = context.round(&mut lane).await;
                (lane, outcome)
            });
        }
    }

    fn on_round(&mut self, mut lane: Box<Lane>, outcome: Outcome) {
        let tp = lane.tp;
        if let Some(Slot::Away { flush_to, .. }) = self.lanes.get(&tp)
            && flush_to.is_some()
        {
            lane.flush_to = lane.flush_to.max(*flush_to);
            lane.not_before = 0;
        }
        if let Outcome::Failed(error) = &outcome {
            tracing::warn!(partition = %tp, %error, failures = lane.failures, "tiering will try again");
        }
        self.lanes.insert(tp, Slot::Here(lane));
        self.look(tp);
        self.fill();
    }

    /// A round that panicked: its lane is lost and made anew, as after a crash.
    fn on_lost_round(&mut self, error: &tokio::task::JoinError) {
        tracing::error!(%error, "a tiering round ended by a defect; its partition starts over");
        self.lanes.retain(|_, slot| matches!(slot, Slot::Here(_)));
    }

    fn meet(&mut self, tp: TopicPartition) {
        self.lanes.entry(tp).or_insert_with(|| Slot::Here(Box::new(Lane::new(tp))));
    }

    fn hold(&self, tp: TopicPartition, target: Offset) -> Option<Hold> {
        let Some(local) = self.context.locals.state(tp) else { return Some(Hold::NotLeader) };
        match self.lanes.get(&tp) {
            Some(Slot::Here(lane)) => plan::hold(&local, &lane.pointer, target, lane.last_error.as_deref()),
            Some(Slot::Away { last_error, .. }) => {
                let pointer = self.context.pointers.current(tp).unwrap_or_default();
                plan::hold(&local, &pointer, target, last_error.as_deref())
            }
            None => Some(Hold::NotLeader),
        }
    }

    /// Sweeps deleted topics whose grace is over, each as a whole.
    fn sweep_deleted(&mut self) {
        const AT_ONCE: usize = 4;
        if !self.context.pointers.clock_is_sound() {
            return;
        }
        let now = self.context.clock.now_ms();
        let mut topics: BTreeMap<TopicId, (Vec<TopicPartition>, bool)> = BTreeMap::new();
        for deleted in self.context.pointers.deleted() {
            let over = deleted.deleted_at.saturating_add(self.context.config.grace_ms) <= now;
            let (partitions, all_over) = topics.entry(deleted.tp.topic).or_insert((Vec::new(), true));
            partitions.push(deleted.tp);
            *all_over &= over;
        }
        for (topic, (partitions, over)) in topics {
            if over && self.sweeping.len() < AT_ONCE && self.sweeping.insert(topic) {
                let context = Arc::clone(&self.context);
                self.sweeps.spawn(async move {
                    context.sweep_topic(partitions).await;
                    topic
                });
            }
        }
    }

    async fn on_swept(&mut self, ended: Result<TopicId, tokio::task::JoinError>) {
        match ended {
            Ok(topic) => {
                self.sweeping.remove(&topic);
            }
            Err(error) => {
                tracing::error!(%error, "a sweep ended by a defect; sweeps start over");
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
