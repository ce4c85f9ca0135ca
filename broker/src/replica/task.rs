//! One fetcher: owns a [`Core`] and a connection to one leader, and performs.
//!
//! What the core asks for runs beside the loop and comes back as an event. Cuts and starts over are tasks of their own, which nothing
//! interrupts half way; appends belong to the loop and end with it.

use super::client::{Connection, FetchSettings, answer, request};
use super::core::{Answer, Because, Command, Core, Event, Failure, Followed, Outcome, Phase, Position, Ticket};
use super::crew::{Inbox, Order, Orders};
use super::doubt::Doubts;
use super::figures::Figures;
use super::local::{self, Voice};
use super::session::Ask;
use super::start_over::Tier;
use super::throttle::{Throttle, Throttled};
use super::{Following, Peers, Status};
use crate::net::budget::{Budget, Grant};
use crate::net::wire_client::CallError;
use crate::partition::PartitionHandle;
use arc_swap::ArcSwap;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use proto::errors::ErrorCode;
use proto::host::Spawner;
use proto::ids::{LeaderEpoch, Millis, NodeId, TopicId, TopicPartition};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What all fetchers of a broker share.
pub(super) struct Ground {
    /// This broker.
    pub node: NodeId,
    /// Its incarnation, which the leader checks (KIP-903).
    pub broker_epoch: i64,
    /// The way to other brokers.
    pub peers: Peers,
    pub tier: Arc<dyn Tier>,
    pub spawner: Spawner,
    /// Memory of answers.
    pub memory: Budget,
    pub settings: Mutex<FetchSettings>,
    pub figures: Figures,
    /// What throttled partitions may take, in time since `began`.
    pub throttle: Mutex<Throttle>,
    /// What throttled replicas elsewhere may take from here, in time since `began`.
    pub serving: Mutex<Throttle>,
    /// Replicas elsewhere that the bound on what they take holds for.
    pub slowed: ArcSwap<BTreeMap<TopicId, Throttled>>,
    /// Leaders that may be gone.
    pub doubts: Doubts,
    pub began: Instant,
    /// Ends every fetcher.
    pub stop: CancellationToken,
}

impl Ground {
    /// Milliseconds since the start, for all fetchers alike.
    pub(super) fn now(&self) -> Millis {
        Millis::try_from(self.began.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }
}

/// While the bound on replication is reached it is looked at again after this at the latest: it may be lifted.
const LOOK_AGAIN_MS: Millis = 1_000;

type Ended = (TopicPartition, Ticket, Outcome);
type Reply = (Option<Connection>, Result<(Answer, Option<Grant>), CallError>);

/// See the module.
pub(super) struct Task {
    ground: Arc<Ground>,
    leader: NodeId,
    inbox: Arc<Inbox>,
    core: Core,
    handles: BTreeMap<TopicPartition, PartitionHandle>,
    throttled: BTreeSet<TopicPartition>,
    /// Partitions whose trouble the log tells of already.
    troubled: BTreeSet<TopicPartition>,
    /// To be told when a partition is left alone.
    leaving: BTreeMap<TopicPartition, Vec<oneshot::Sender<()>>>,
    /// Partitions that another fetcher has yet to leave alone, with the number of the order.
    coming: FuturesUnordered<BoxFuture<'static, (u64, TopicPartition)>>,
    /// What becomes of each then, by the number of the order that is waited for.
    expected: BTreeMap<TopicPartition, (u64, Next)>,
    next_order: u64,
    work: FuturesUnordered<BoxFuture<'static, Ended>>,
    connection: Option<Connection>,
    request: Option<BoxFuture<'static, Reply>>,
    /// The bound on replication is reached, as the core was told.
    held: bool,
    /// Whether the leader was reached last time: only changes are worth a line in the log.
    reached: bool,
}

/// What is to be done with a partition once another fetcher leaves it alone.
enum Next {
    Follow(Following),
    Leave(Vec<oneshot::Sender<()>>),
}

/// What woke the loop.
enum Woken {
    Orders,
    Stopped,
    Came(u64, TopicPartition),
    Ended(Ended),
    Replied(Box<Reply>),
    Time,
}

impl Task {
    pub(super) fn new(ground: Arc<Ground>, leader: NodeId, inbox: Arc<Inbox>, longest_pause_ms: Millis) -> Task {
        Task {
            ground,
            leader,
            inbox,
            core: Core::new(longest_pause_ms),
            handles: BTreeMap::new(),
            throttled: BTreeSet::new(),
            troubled: BTreeSet::new(),
            leaving: BTreeMap::new(),
            coming: FuturesUnordered::new(),
            expected: BTreeMap::new(),
            next_order: 0,
            work: FuturesUnordered::new(),
            connection: None,
            request: None,
            held: false,
            reached: true,
        }
    }

    /// Follows until the inbox is closed and nothing is left to follow.
    pub(super) async fn run(mut self) {
        loop {
            let due = self.due();
            let mut woken = self.woken(due).await;
            // All that happened is told before a request is made: it should name all that came to rest.
            loop {
                if matches!(woken, Woken::Stopped) {
                    return;
                }
                self.take(woken);
                match self.woken(None).now_or_never() {
                    Some(next) => woken = next,
                    None => break,
                }
            }
            self.look_at_throttle();
            let commands = self.core.ask(self.now());
            self.perform(commands, None);
            if self.inbox.is_closed() && self.core.is_empty() && self.coming.is_empty() {
                return;
            }
        }
    }

    fn now(&self) -> Millis {
        self.ground.now()
    }

    /// When the loop has something to do if nothing happens.
    fn due(&self) -> Option<Millis> {
        let look = self.held.then(|| self.ground.throttle.lock().free_at().unwrap_or(Millis::MAX));
        let look = look.map(|free| free.min(self.now() + LOOK_AGAIN_MS));
        self.core.due().into_iter().chain(look).min()
    }

    /// Tells the core whether the bound on replication is reached.
    fn look_at_throttle(&mut self) {
        let held = !self.ground.throttle.lock().is_free(self.now());
        if std::mem::replace(&mut self.held, held) != held {
            self.tell(Event::Held(held), None);
        }
    }

    async fn woken(&mut self, due: Option<Millis>) -> Woken {
        let Task { ground, inbox, coming, work, request, .. } = self;
        let due = due.map(|due| ground.began + Duration::from_millis(due.unsigned_abs()));
        let time = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let reply = async {
            match request {
                Some(request) => request.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = ground.stop.cancelled() => Woken::Stopped,
            () = inbox.filled() => Woken::Orders,
            Some((order, tp)) = coming.next() => Woken::Came(order, tp),
            Some(ended) = work.next() => Woken::Ended(ended),
            reply = reply => Woken::Replied(Box::new(reply)),
            () = time => Woken::Time,
        }
    }

    fn take(&mut self, woken: Woken) {
        match woken {
            Woken::Orders => self.take_orders(),
            Woken::Came(order, tp) => {
                let (_, next) = match self.expected.remove(&tp) {
                    Some(next) if next.0 == order => next,
                    Some(newer) => {
                        self.expected.insert(tp, newer);
                        return;
                    }
                    None => return,
                };
                match next {
                    Next::Follow(following) => self.follow(vec![following]),
                    Next::Leave(waiting) => self.leave(vec![(tp, waiting)]),
                }
            }
            Woken::Ended((tp, ticket, outcome)) => {
                match outcome {
                    Outcome::At(_) => {
                        self.troubled.remove(&tp);
                    }
                    Outcome::Failed(failure) => self.failed(tp, failure),
                    Outcome::Behind | Outcome::Apart => {}
                }
                self.tell(Event::Done(tp, ticket, outcome), None);
            }
            Woken::Replied(replied) => {
                let (connection, reply) = *replied;
                self.request = None;
                self.connection = connection;
                self.replied(reply);
            }
            Woken::Time => self.tell(Event::Tick, None),
            Woken::Stopped => {}
        }
    }

    // ---- orders

    fn take_orders(&mut self) {
        let (mut assigned, mut dropped) = (Vec::new(), Vec::new());
        let Orders { of_partitions, asked } = self.inbox.take();
        for (tp, order) in of_partitions {
            match (order, self.expected.get_mut(&tp)) {
                (Order::Follow { following, after: Some(left) }, _) => {
                    self.next_order += 1;
                    let order = self.next_order;
                    self.expected.insert(tp, (order, Next::Follow(following)));
                    let comes = async move {
                        // An error means that the other fetcher is gone, which leaves alone, too.
                        let _ = left.await;
                        (order, tp)
                    };
                    self.coming.push(comes.boxed());
                }
                (Order::Follow { following, after: None }, Some((_, next))) => *next = Next::Follow(following),
                (Order::Follow { following, after: None }, None) => assigned.push(following),
                (Order::Leave(waiting), Some((_, next))) => *next = Next::Leave(waiting),
                (Order::Leave(waiting), None) => dropped.push((tp, waiting)),
            }
        }
        self.leave(dropped);
        self.follow(assigned);
        for answer in asked {
            let _ = answer.send(self.status());
        }
    }

    fn leave(&mut self, all: Vec<(TopicPartition, Vec<oneshot::Sender<()>>)>) {
        let dropped: Vec<TopicPartition> = all.iter().map(|(tp, _)| *tp).collect();
        for (tp, waiting) in all {
            self.leaving.entry(tp).or_default().extend(waiting);
        }
        if !dropped.is_empty() {
            self.tell(Event::Dropped(dropped), None);
        }
    }

    fn follow(&mut self, all: Vec<Following>) {
        if all.is_empty() {
            return;
        }
        let followed = |one: &Following| Followed {
            tp: one.tp,
            epoch: one.epoch,
            directory: one.partition.dir().id(),
            throttled: one.throttled,
        };
        let assigned = all.iter().map(followed).collect();
        for following in all {
            // Who waited for it to be left alone did so in vain, and has nothing to wait for any more.
            self.leaving.remove(&following.tp);
            if following.throttled {
                self.throttled.insert(following.tp);
            } else {
                self.throttled.remove(&following.tp);
            }
            self.handles.insert(following.tp, following.partition);
        }
        self.tell(Event::Assigned(assigned), None);
    }

    fn status(&self) -> Vec<Status> {
        let status = |(followed, phase, position): (Followed, Phase, Option<Position>)| Status {
            tp: followed.tp,
            leader: self.leader,
            epoch: followed.epoch,
            phase,
            position,
        };
        self.core.partitions().map(status).collect()
    }

    // ---- what the core asks for

    fn tell(&mut self, event: Event, memory: Option<Arc<Grant>>) {
        let commands = self.core.on(self.now(), event);
        self.perform(commands, memory);
    }

    fn perform(&mut self, commands: Vec<Command>, memory: Option<Arc<Grant>>) {
        for command in commands {
            match command {
                Command::Settle(tp, ticket) => {
                    let tier = Arc::clone(&self.ground.tier);
                    self.begin(tp, ticket, |handle, _| async move { local::settle(&handle, &*tier).await }.boxed());
                }
                Command::Append { tp, ticket, epoch, records, said } => {
                    Figures::add(&self.ground.figures.bytes, records.len() as u64);
                    let memory = memory.clone();
                    self.begin(tp, ticket, |handle, voice| {
                        async move { local::append(&handle, epoch, records, said, memory, voice).await }.boxed()
                    });
                }
                Command::Learn(tp, epoch, said) => {
                    if let Some(handle) = self.handles.get(&tp) {
                        local::learn(handle, epoch, said);
                    }
                }
                Command::Cut { tp, ticket, epoch, end } => {
                    Figures::add(&self.ground.figures.cuts, 1);
                    let ground = Arc::clone(&self.ground);
                    self.begin(tp, ticket, |handle, voice| {
                        let tier = Arc::clone(&ground.tier);
                        let cut = async move { local::cut(&handle, &*tier, epoch, end, voice).await };
                        uninterrupted(ground.spawner.spawn_hot(cut))
                    });
                }
                Command::StartOver { tp, ticket, epoch, because } => self.start_over(tp, ticket, epoch, because),
                Command::Left(tp) => {
                    self.handles.remove(&tp);
                    self.throttled.remove(&tp);
                    self.troubled.remove(&tp);
                    for waiting in self.leaving.remove(&tp).unwrap_or_default() {
                        let _ = waiting.send(());
                    }
                }
                Command::Abandon => {
                    self.request = None;
                    self.connection = None;
                }
                Command::Fetch(ask) => self.fetch(ask),
            }
        }
    }

    fn failed(&mut self, tp: TopicPartition, failure: Failure) {
        if failure != Failure::Moved {
            self.troubled.insert(tp);
        }
        if matches!(failure, Failure::Corrupt | Failure::OutOfOrder) {
            Figures::add(&self.ground.figures.corrupt, 1);
        }
        tracing::debug!(%tp, leader = %self.leader, ?failure, "replicating a partition failed");
    }

    fn start_over(&mut self, tp: TopicPartition, ticket: Ticket, epoch: LeaderEpoch, because: Because) {
        Figures::add(&self.ground.figures.started_over, 1);
        let ground = Arc::clone(&self.ground);
        self.begin(tp, ticket, |handle, voice| {
            let tier = Arc::clone(&ground.tier);
            let over = async move { local::over(&handle, &*tier, epoch, because, voice).await };
            uninterrupted(ground.spawner.spawn_cold(over))
        });
    }

    fn begin(
        &mut self,
        tp: TopicPartition,
        ticket: Ticket,
        work: impl FnOnce(PartitionHandle, Voice) -> BoxFuture<'static, Outcome>,
    ) {
        let handle = self.handles.get(&tp).cloned().expect("the core works on what is followed only");
        let voice = if self.troubled.contains(&tp) { Voice::Low } else { Voice::Loud };
        let work = work(handle, voice);
        self.work.push(async move { (tp, ticket, work.await) }.boxed());
    }

    // ---- the leader

    fn fetch(&mut self, ask: Ask) {
        let ground = Arc::clone(&self.ground);
        let (leader, connection) = (self.leader, self.connection.take());
        self.request = Some(
            async move {
                let settings = *ground.settings.lock();
                let request = request(ask, ground.node, ground.broker_epoch, &settings);
                let mut connection = match connection {
                    Some(connection) => connection,
                    None => match ground.peers.connect(ground.node, leader, settings.timeout).await {
                        Ok(connection) => {
                            // It is there, though there may be nothing to fetch from it for a while.
                            ground.doubts.answered(leader);
                            connection
                        }
                        Err(error) => return (None, Err(error)),
                    },
                };
                match connection.fetch(&request, settings.timeout, &ground.memory).await {
                    Ok((response, grant)) => (Some(connection), Ok((answer(response), grant))),
                    Err(error) => (None, Err(error)),
                }
            }
            .boxed(),
        );
    }

    /// Counts what came for throttled partitions against the bound.
    fn pay(&self, answer: &Answer) {
        let mut throttle = self.ground.throttle.lock();
        if throttle.is_set() {
            let throttled = answer.partitions.iter().filter(|one| self.throttled.contains(&one.tp));
            throttle.take(self.now(), throttled.map(|one| one.records.len() as u64).sum());
        }
    }

    fn replied(&mut self, reply: Result<(Answer, Option<Grant>), CallError>) {
        match reply {
            Ok((answer, grant)) => {
                Figures::add(&self.ground.figures.answers, 1);
                self.ground.doubts.answered(self.leader);
                if !std::mem::replace(&mut self.reached, true) {
                    tracing::info!(leader = %self.leader, "replication from a broker goes on");
                }
                for one in answer.partitions.iter().filter(|one| one.error != ErrorCode::None) {
                    Figures::add(&self.ground.figures.refused, 1);
                    tracing::debug!(tp = %one.tp, leader = %self.leader, code = one.error.name(), "a leader refuses a fetch");
                }
                self.pay(&answer);
                self.tell(Event::Answered(answer), grant.map(Arc::new));
            }
            Err(error) => {
                Figures::add(&self.ground.figures.unanswered, 1);
                if matches!(error, CallError::Broken(_)) {
                    self.ground.doubts.broke(self.leader);
                }
                if std::mem::replace(&mut self.reached, false) {
                    tracing::warn!(leader = %self.leader, %error, "replication from a broker is interrupted");
                }
                self.tell(Event::Broke, None);
            }
        }
    }
}

/// Waits for a task that goes on whoever waits.
fn uninterrupted(task: tokio::task::JoinHandle<Outcome>) -> BoxFuture<'static, Outcome> {
    async move { task.await.unwrap_or(Outcome::Failed(Failure::Other)) }.boxed()
}
