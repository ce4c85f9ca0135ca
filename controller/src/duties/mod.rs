//! What the leader of the quorum does by itself: it keeps the brokers' sessions, holds elections that are due, gives
//! duties to brokers that live, and evens out what they carry.
//!
//! One task on every controller; it acts only while its node leads. All that it decides goes through commands, so a
//! leader that does not know yet that it was replaced changes nothing. Its knowledge of sessions and loads is soft and
//! starts afresh with each term.

mod chores;
mod moves;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use proto::host::{Clock, Network};
use proto::ids::{Millis, NodeId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::ControllerHandle;
use crate::balance::Loads;
use crate::command::{Command, SetBrokerState};
use crate::session::{Action, Beat, BeatReply, Event, Evidence, Timing, Tracker};
use crate::transport::probe;
use chores::Chores;

/// What is set for the duties of a leader.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Times of sessions.
    pub timing: Timing,
    /// Listener between brokers (`inter.broker.listener.name`): where it is tried whether a broker is there.
    pub listener: String,
    /// How long an attempt to connect may take.
    pub probe_within: Duration,
    /// How often partitions are looked at that have no leader but may have any
    /// (`unclean.leader.election.interval.ms`).
    pub unclean_every: Duration,
    /// How often preferred leaders are restored (`leader.imbalance.check.interval.seconds`); none to leave them
    /// (`auto.leader.rebalance.enable`).
    pub preferred_every: Option<Duration>,
    /// Whether brokers that come get their share by themselves (`firn.balance.enable`). Brokers that are to be emptied are
    /// emptied in any case.
    pub balance: bool,
    /// How many partitions may be on the move at a time (`firn.balance.moves`), at least one.
    pub balance_moves: usize,
    /// Topics that were made with fewer replicas where there were not enough brokers, and how many they are to have
    /// (`offsets.topic.replication.factor` and its like).
    pub factors: BTreeMap<String, usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timing: Timing::default(),
            listener: "PLAINTEXT".to_owned(),
            probe_within: Duration::from_millis(500),
            unclean_every: Duration::from_secs(300),
            preferred_every: Some(Duration::from_secs(300)),
            balance: true,
            balance_moves: 20,
            factors: BTreeMap::new(),
        }
    }
}

/// How many beats may wait. Each broker has one on its way at most.
const QUEUED: usize = 1024;

#[derive(Debug)]
enum Message {
    Beat { link: u64, beat: Box<Beat>, answer: oneshot::Sender<BeatReply> },
    Closed { link: u64 },
    Loads { answer: oneshot::Sender<Loads> },
}

/// Where connections of brokers bring their beats. A cheap clone.
#[derive(Debug, Clone)]
pub struct Sessions {
    queue: mpsc::Sender<Message>,
    links: Arc<AtomicU64>,
}

impl Sessions {
    /// A connection that brings the beats of one broker.
    pub fn link(&self) -> Link {
        let number = self.links.fetch_add(1, Ordering::Relaxed);
        Link { number, queue: self.queue.clone() }
    }

    /// What brokers carry. None if this node does not lead the quorum.
    pub async fn loads(&self) -> Option<Loads> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Message::Loads { answer }).await.ok()?;
        answered.await.ok()
    }
}

/// The connection of one broker. When it is dropped, the broker has hung up.
#[derive(Debug)]
pub struct Link {
    number: u64,
    queue: mpsc::Sender<Message>,
}

impl Link {
    /// Brings a beat. None if this node does not lead the quorum.
    pub async fn beat(&self, beat: Beat) -> Option<BeatReply> {
        let (answer, answered) = oneshot::channel();
        let message = Message::Beat { link: self.number, beat: Box::new(beat), answer };
        self.queue.send(message).await.ok()?;
        answered.await.ok()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // If it does not get through, the session ends by silence.
        let _ = self.queue.try_send(Message::Closed { link: self.number });
    }
}

/// What the duties need of their host.
#[derive(Clone)]
pub struct Parts {
    /// Where commands go and images come from.
    pub controller: ControllerHandle,
    /// Whether this node leads: true only once its image shows all that was committed before its term.
    pub leading: watch::Receiver<bool>,
    /// To see whether brokers are there.
    pub network: Arc<dyn Network>,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// What is set.
    pub settings: Settings,
    /// Ends the task.
    pub stop: CancellationToken,
}

impl Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The task, and where it takes beats. It does nothing until it is polled.
pub fn duties(parts: Parts) -> (impl Future<Output = ()> + Send, Sessions) {
    let (to, queue) = mpsc::channel(QUEUED);
    let sessions = Sessions { queue: to, links: Arc::new(AtomicU64::new(0)) };
    let task = Task {
        tracker: Tracker::new(parts.settings.timing, parts.settings.listener.clone()),
        begun: Instant::now(),
        under_way: FuturesUnordered::new(),
        links: BTreeMap::new(),
        loads: Loads::default(),
        chores: Chores::new(&parts.settings),
        queue,
        parts,
    };
    (task.run(), sessions)
}

/// How often it is looked whether a chore is due.
const CHORES_EVERY: Duration = Duration::from_secs(1);

/// Sessions are looked at no more often than this, whatever is due.
const TICK_AT_MOST: Duration = Duration::from_millis(1);

/// What something that was begun has come to.
enum Done {
    /// A broker was tried.
    Probed { id: NodeId, epoch: i64, evidence: Evidence },
    /// A command was carried out, or not: the image tells.
    Submitted,
    /// A chore is over.
    Chore,
}

struct Task {
    parts: Parts,
    tracker: Tracker,
    begun: Instant,
    queue: mpsc::Receiver<Message>,
    under_way: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
    /// The connection over which each broker beats, and its epoch.
    links: BTreeMap<NodeId, (u64, i64)>,
    loads: Loads,
    chores: Chores,
}

impl Task {
    async fn run(mut self) {
        let mut images = self.parts.controller.watch();
        let mut chores = tokio::time::interval(CHORES_EVERY);
        chores.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.leadership_changed();
        let mut ticked = self.begun;
        loop {
            let due = self.tracker.deadline().map(|at| self.begun + Duration::from_millis(at.unsigned_abs()));
            // Whatever is due and cannot be done: this task must not look at it without end.
            let due = due.map(|due| due.max(ticked + TICK_AT_MOST));
            let stop = self.parts.stop.clone();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = self.parts.leading.changed() => match changed {
                    Ok(()) => self.leadership_changed(),
                    Err(_) => return,
                },
                changed = images.changed() => match changed {
                    Ok(()) => {
                        let image = Arc::clone(&images.borrow_and_update());
                        self.tell(Event::Image { now: self.now(), image });
                    }
                    Err(_) => return,
                },
                message = self.queue.recv() => match message {
                    Some(message) => self.on_message(message),
                    None => return,
                },
                Some(done) = self.under_way.next(), if !self.under_way.is_empty() => match done {
                    Done::Probed { id, epoch, evidence } => {
                        let now = self.now();
                        self.tell(Event::Evidence { now, id, epoch, evidence });
                    }
                    Done::Submitted => {}
                    Done::Chore => self.chores.done(),
                },
                () = at(due) => {
                    ticked = Instant::now();
                    let now = self.now();
                    self.tell(Event::Tick { now });
                }
                _ = chores.tick() => self.look_for_chores(),
            }
        }
    }

    /// Milliseconds since the task began.
    fn now(&self) -> Millis {
        Millis::try_from(self.begun.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    fn leads(&self) -> bool {
        *self.parts.leading.borrow()
    }

    fn leadership_changed(&mut self) {
        if *self.parts.leading.borrow_and_update() {
            let image = self.parts.controller.image();
            self.tell(Event::Lead { now: self.now(), image });
        } else {
            self.links.clear();
            self.loads = Loads::default();
            self.chores = Chores::new(&self.parts.settings);
            self.tell(Event::Follow);
        }
    }

    fn on_message(&mut self, message: Message) {
        let now = self.now();
        match message {
            // Whoever asks finds the leader elsewhere: the answer is dropped.
            Message::Beat { .. } if !self.leads() => {}
            Message::Beat { link, beat, answer } => {
                let image = self.parts.controller.image();
                let fresh = image.broker(beat.id).is_some_and(|broker| broker.epoch == beat.epoch);
                if fresh {
                    self.links.insert(beat.id, (link, beat.epoch));
                }
                if let Some(load) = beat.load.as_ref().filter(|_| fresh) {
                    self.loads.tell(&image, beat.id, load);
                }
                let wall = self.parts.clock.now_ms();
                if let Some(reply) = self.tell(Event::Beat { now, wall, beat: *beat }) {
                    // Who has hung up does not want to know.
                    let _ = answer.send(reply);
                }
            }
            // Who does not lead knows nothing: the answer is dropped.
            Message::Loads { answer } if self.leads() => _ = answer.send(self.loads.clone()),
            Message::Loads { .. } => {}
            Message::Closed { link } => {
                let broker = self.links.iter().find(|(_, (newest, _))| *newest == link);
                if let Some((id, epoch)) = broker.map(|(id, (_, epoch))| (*id, *epoch)) {
                    self.links.remove(&id);
                    self.tell(Event::Closed { now, id, epoch });
                }
            }
        }
    }

    /// Tells the tracker and does what it asks for. The answer to a beat is returned.
    fn tell(&mut self, event: Event) -> Option<BeatReply> {
        let mut reply = None;
        for action in self.tracker.on(event) {
            match action {
                Action::Reply(answer) => reply = Some(answer),
                Action::Submit(change) => self.submit(change),
                Action::Probe { id, epoch, address } => self.probe(id, epoch, address),
            }
        }
        reply
    }

    fn submit(&mut self, change: SetBrokerState) {
        let controller = self.parts.controller.clone();
        tracing::info!(broker = change.id.0, epoch = change.broker_epoch, state = ?change.state, "a broker's state changes");
        self.under_way.push(Box::pin(async move {
            let id = change.id;
            if let Err(error) = controller.submit(Command::SetBrokerState(change)).await {
                tracing::debug!(broker = id.0, %error, "a broker's state has not changed");
            }
            Done::Submitted
        }));
    }

    fn probe(&mut self, id: NodeId, epoch: i64, address: String) {
        let network = Arc::clone(&self.parts.network);
        let within = self.parts.settings.probe_within;
        self.under_way.push(Box::pin(async move {
            let evidence = probe(network.as_ref(), &address, within).await;
            Done::Probed { id, epoch, evidence }
        }));
    }

    fn look_for_chores(&mut self) {
        if !self.leads() {
            return;
        }
        let image = self.parts.controller.image();
        self.loads.prune(&image);
        for command in self.chores.due(self.now(), &image, &self.loads) {
            let controller = self.parts.controller.clone();
            self.under_way.push(Box::pin(async move {
                if let Err(error) = controller.submit(command).await {
                    tracing::debug!(%error, "a chore of the controller is put off");
                }
                Done::Chore
            }));
        }
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
