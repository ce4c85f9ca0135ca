//! Which brokers live: what the quorum's leader makes of their beats, of connections that end and of attempts to
//! connect.
//!
//! Pure: events in, actions out. Time is that of a monotonic clock, in milliseconds. What it believes is soft: a new
//! leader begins with a session granted to everyone, and every decision goes through a command that the quorum has to
//! agree on and that carries the epoch of the broker it is about.
//!
//! A broker is fenced when nothing was heard of it for a session's time, or earlier when its process is known to be gone:
//! its connection ended and its address *refuses* connections, twice in a row. Silence or an accepted connection proves
//! nothing: the process may be stopped, cut off or just started.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::ids::{DirectoryId, Millis, NodeId};
use proto::metadata::{Broker, Image};

use crate::balance::Load;
use crate::command::{BrokerState, SetBrokerState};
use crate::decide::can_take_over;

/// What a broker says about itself, again and again.
#[derive(Debug, Clone, PartialEq)]
pub struct Beat {
    /// Its node id.
    pub id: NodeId,
    /// Epoch of its registration.
    pub epoch: i64,
    /// Metadata offset its image stands at.
    pub applied: u64,
    /// What it wants to be.
    pub want: Want,
    /// Data directories that are online, if that changed since its last beat on this connection.
    pub directories: Option<Vec<DirectoryId>>,
    /// What its partitions carry, from time to time.
    pub load: Option<Load>,
    /// Its wall clock.
    pub wall: Millis,
}

/// What a broker wants to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// In service, as soon as it knows what it is to serve.
    Serve,
    /// Out of service: it cannot serve yet, or any more.
    StayFenced,
    /// In service until others lead what it leads.
    ShutDown,
    /// Out of service at once: it has stopped.
    Stopped,
}

/// The answer to a beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeatReply {
    /// The broker is fenced.
    pub fenced: bool,
    /// It leads nothing that anybody else could lead: it may stop.
    pub may_stop: bool,
    /// Its image shows its own registration and what happened while it was fenced.
    pub caught_up: bool,
    /// Wall clock of the leader.
    pub leader_wall: Millis,
    /// Another process is registered under its id, or none: it has no business here any more.
    pub stale: bool,
}

proto::durable_enum!(Want { Serve = 0, StayFenced = 1, ShutDown = 2, Stopped = 3 });
proto::durable_struct!(
    Beat { id, epoch, applied, want, directories, load, wall }
    BeatReply { fenced, may_stop, caught_up, leader_wall, stale }
);

/// What an attempt to connect says about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// It accepts connections.
    Alive,
    /// Its host is there, and nobody listens: the process is gone.
    Refused,
    /// Nothing, or something that proves nothing.
    Silent,
}

/// All that can happen.
#[derive(Debug, Clone)]
pub enum Event {
    /// This node leads the quorum from here on; its image shows all that was committed before.
    Lead {
        /// When.
        now: Millis,
        /// The image.
        image: Arc<Image>,
    },
    /// Another node leads, or none.
    Follow,
    /// The image moved.
    Image {
        /// When.
        now: Millis,
        /// The image.
        image: Arc<Image>,
    },
    /// A broker was heard.
    Beat {
        /// When.
        now: Millis,
        /// Wall clock of this node.
        wall: Millis,
        /// What it said.
        beat: Beat,
    },
    /// The connection over which a broker beats has ended, and there is no newer one.
    Closed {
        /// When.
        now: Millis,
        /// The broker.
        id: NodeId,
        /// Epoch under which it has beaten.
        epoch: i64,
    },
    /// An attempt to connect that was asked for came to something.
    Evidence {
        /// When.
        now: Millis,
        /// The broker.
        id: NodeId,
        /// Its epoch when it was asked for.
        epoch: i64,
        /// What it came to.
        evidence: Evidence,
    },
    /// Time passed: see [`Tracker::deadline`].
    Tick {
        /// When.
        now: Millis,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Have this carried out. If it fails it is asked for again.
    Submit(SetBrokerState),
    /// Try to connect.
    Probe {
        /// The broker.
        id: NodeId,
        /// Its epoch.
        epoch: i64,
        /// `host:port`
        address: String,
    },
    /// Answer the beat.
    Reply(BeatReply),
}

/// How long things may take. All in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// After this long without a beat a broker is fenced (`broker.session.timeout.ms`).
    pub session_ms: Millis,
    /// A new leader looks after those that have not turned up after this. An attempt to connect harms nobody who lives,
    /// and the broker that is missing is most often the one whose process led before.
    pub grace_ms: Millis,
    /// Between two attempts to connect.
    pub probe_gap_ms: Millis,
    /// A command that has shown no effect is submitted again after this.
    pub again_ms: Millis,
}

impl Default for Timing {
    fn default() -> Self {
        Self { session_ms: 3_000, grace_ms: 30, probe_gap_ms: 30, again_ms: 1_000 }
    }
}

/// A deadline that is missed by this much, in milliseconds, means that this node itself stood still.
const STALLED_MS: Millis = 250;

/// How many refused connections in a row mean that a process is gone.
const REFUSALS: u8 = 2;

/// The sessions of all registered brokers, while this node leads.
#[derive(Debug)]
pub struct Tracker {
    timing: Timing,
    /// Listener that is tried to see whether a broker is there, any if it has none of this name.
    listener: String,
    leading: bool,
    image: Arc<Image>,
    sessions: BTreeMap<NodeId, Session>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Session {
    epoch: i64,
    /// When it was heard last, or when it was granted a session unheard.
    heard: Millis,
    link: Link,
    /// Offset its image has to reach before it may serve: nothing that was decided while it was out may surprise it.
    catch_up: u64,
    /// What was submitted and has not shown yet, and when.
    asked: Option<(SetBrokerState, Millis)>,
}

impl Session {
    /// Whether its process is known to be gone.
    const fn is_gone(&self) -> bool {
        matches!(self.link, Link::Ended { refused: REFUSALS.., .. })
    }
}

/// What is known of the connection over which a broker beats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// It is there, or it was not looked after.
    Fine,
    /// It has not been there since this node leads. Looked after from this time on.
    Awaited(Millis),
    /// It has ended. So many refusals have been seen; the next attempt is due at this time, or is under way.
    Ended { refused: u8, probe: Option<Millis> },
}

impl Tracker {
    /// Tracks nobody until it is told that this node leads. `listener` is that between brokers.
    pub fn new(timing: Timing, listener: impl Into<String>) -> Self {
        Self {
            timing,
            listener: listener.into(),
            leading: false,
            image: Arc::new(Image::default()),
            sessions: BTreeMap::new(),
        }
    }

    /// Takes in what happened.
    pub fn on(&mut self, event: Event) -> Vec<Action> {
        if self.leading {
            self.forgive(&event);
        }
        match event {
            Event::Lead { now, image } => {
                self.leading = true;
                self.sessions.clear();
                self.follow_image(now, image, Link::Awaited(now + self.timing.grace_ms));
                Vec::new()
            }
            Event::Follow => {
                self.leading = false;
                self.sessions.clear();
                Vec::new()
            }
            _ if !self.leading => Vec::new(),
            Event::Image { now, image } => {
                self.follow_image(now, image, Link::Awaited(now + self.timing.session_ms));
                Vec::new()
            }
            Event::Beat { now, wall, beat } => self.beat(now, wall, &beat),
            Event::Closed { now, id, epoch } => {
                if let Some(session) = self.session(id, epoch) {
                    session.link = Link::Ended { refused: 0, probe: Some(now) };
                }
                self.tick(now)
            }
            Event::Evidence { now, id, epoch, evidence } => self.evidence(now, id, epoch, evidence),
            Event::Tick { now } => self.tick(now),
        }
    }

    /// When the next [`Event::Tick`] is due, if any.
    pub fn deadline(&self) -> Option<Millis> {
        let serving = self.sessions.iter().filter(|(id, _)| self.image.broker(**id).is_some_and(|b| !b.fenced));
        serving
            .map(|(_, session)| {
                let end = session.heard + self.timing.session_ms;
                let end = match &session.asked {
                    Some((asked, since)) if asked.state == BrokerState::Fenced => {
                        let again = since + self.timing.again_ms;
                        // One that was heard since has its session: it is not fenced before that ends.
                        if session.is_gone() { again } else { again.max(end) }
                    }
                    Some(_) | None => end,
                };
                match session.link {
                    Link::Awaited(at) | Link::Ended { probe: Some(at), .. } => end.min(at),
                    Link::Fine | Link::Ended { probe: None, .. } => end,
                }
            })
            .min()
    }

    /// Whoever was stopped itself must not take its own absence for that of others: if a deadline was missed by much,
    /// nobody was listened to meanwhile, and everyone is granted a session from now on.
    fn forgive(&mut self, event: &Event) {
        let now = match event {
            Event::Image { now, .. }
            | Event::Beat { now, .. }
            | Event::Closed { now, .. }
            | Event::Evidence { now, .. }
            | Event::Tick { now } => *now,
            Event::Lead { .. } | Event::Follow => return,
        };
        if self.deadline().is_none_or(|due| now - due < STALLED_MS) {
            return;
        }
        for session in self.sessions.values_mut() {
            session.heard = now;
            if let Link::Awaited(at) = &mut session.link {
                *at = now + self.timing.grace_ms;
            }
        }
    }

    fn session(&mut self, id: NodeId, epoch: i64) -> Option<&mut Session> {
        self.sessions.get_mut(&id).filter(|session| session.epoch == epoch)
    }

    /// Takes over who is registered. Whoever is new is granted a session from now on.
    fn follow_image(&mut self, now: Millis, image: Arc<Image>, link: Link) {
        self.sessions.retain(|id, session| image.broker(*id).is_some_and(|broker| broker.epoch == session.epoch));
        for broker in image.brokers() {
            let session = self.sessions.entry(broker.id).or_insert_with(|| Session {
                epoch: broker.epoch,
                heard: now,
                link,
                catch_up: 0,
                asked: None,
            });
            if broker.fenced && session.catch_up == 0 {
                session.catch_up = image.offset();
            } else if !broker.fenced {
                session.catch_up = 0;
            }
            if session.asked.as_ref().is_some_and(|(asked, _)| is_done(broker, asked)) {
                session.asked = None;
            }
        }
        self.image = image;
    }

    fn beat(&mut self, now: Millis, wall: Millis, beat: &Beat) -> Vec<Action> {
        let image = Arc::clone(&self.image);
        let reply = BeatReply { fenced: true, may_stop: false, caught_up: false, leader_wall: wall, stale: false };
        let registered = u64::try_from(beat.epoch).unwrap_or(u64::MAX);
        let broker = match image.broker(beat.id) {
            Some(broker) if broker.epoch == beat.epoch => broker,
            // Registered, but the image here does not show it yet.
            _ if registered >= image.offset() => return vec![Action::Reply(reply)],
            _ => return vec![Action::Reply(BeatReply { stale: true, ..reply })],
        };
        let Some(session) = self.session(beat.id, beat.epoch) else {
            return vec![Action::Reply(reply)];
        };
        session.heard = now;
        session.link = Link::Fine;
        let caught_up = beat.applied > registered && beat.applied >= session.catch_up;
        let leaving = broker.fenced || broker.shutting_down;
        let may_stop =
            leaving && matches!(beat.want, Want::ShutDown | Want::Stopped) && !leads_for_others(&image, beat.id);
        let reply = BeatReply { fenced: broker.fenced, may_stop, caught_up, ..reply };
        let mut actions = vec![Action::Reply(reply)];
        let state = wanted(broker, beat.want, caught_up);
        let directories = beat.directories.clone().filter(|online| *online != broker.directories);
        if state.is_some() || directories.is_some() {
            let state = state.unwrap_or_else(|| current(broker));
            let change = SetBrokerState { id: beat.id, broker_epoch: beat.epoch, state, directories };
            actions.extend(self.submit(now, change));
        }
        actions
    }

    fn evidence(&mut self, now: Millis, id: NodeId, epoch: i64, evidence: Evidence) -> Vec<Action> {
        let gap = self.timing.probe_gap_ms;
        let Some(session) = self.session(id, epoch) else { return Vec::new() };
        let Link::Ended { refused, .. } = session.link else { return Vec::new() };
        if evidence != Evidence::Refused {
            // Whatever it is, it is not gone for sure: it has until its session ends.
            session.link = Link::Fine;
            return Vec::new();
        }
        session.link = Link::Ended { refused: refused.saturating_add(1), probe: Some(now + gap) };
        self.tick(now)
    }

    fn tick(&mut self, now: Millis) -> Vec<Action> {
        let image = Arc::clone(&self.image);
        let mut actions = Vec::new();
        for broker in image.brokers().filter(|broker| !broker.fenced) {
            let Some(session) = self.sessions.get_mut(&broker.id) else { continue };
            if let Link::Awaited(at) = session.link
                && at <= now
            {
                session.link = Link::Ended { refused: 0, probe: Some(now) };
            }
            let gone = session.is_gone();
            if gone || now - session.heard >= self.timing.session_ms {
                let state = BrokerState::Fenced;
                let fence = SetBrokerState { id: broker.id, broker_epoch: broker.epoch, state, directories: None };
                if gone {
                    session.link = Link::Ended { refused: REFUSALS, probe: None };
                }
                actions.extend(self.submit(now, fence));
            } else if let Link::Ended { refused, probe: Some(at) } = session.link
                && at <= now
            {
                match address(broker, &self.listener) {
                    Some(address) => {
                        session.link = Link::Ended { refused, probe: None };
                        actions.push(Action::Probe { id: broker.id, epoch: broker.epoch, address });
                    }
                    None => session.link = Link::Fine,
                }
            }
        }
        actions
    }

    /// Submits `change` unless it was just submitted.
    fn submit(&mut self, now: Millis, change: SetBrokerState) -> Option<Action> {
        let again = self.timing.again_ms;
        let session = self.session(change.id, change.broker_epoch)?;
        if session.asked.as_ref().is_some_and(|(asked, since)| *asked == change && now - since < again) {
            return None;
        }
        session.asked = Some((change.clone(), now));
        Some(Action::Submit(change))
    }
}

/// The state a broker is to be given, none if it has what it wants or may not have it yet.
fn wanted(broker: &Broker, want: Want, caught_up: bool) -> Option<BrokerState> {
    match want {
        Want::Serve if !broker.is_active() && caught_up => Some(BrokerState::Active),
        Want::ShutDown if !broker.shutting_down => Some(BrokerState::ShuttingDown),
        Want::StayFenced | Want::Stopped if !broker.fenced => Some(BrokerState::Fenced),
        Want::Serve | Want::ShutDown | Want::StayFenced | Want::Stopped => None,
    }
}

fn current(broker: &Broker) -> BrokerState {
    match (broker.fenced, broker.shutting_down) {
        (true, _) => BrokerState::Fenced,
        (false, true) => BrokerState::ShuttingDown,
        (false, false) => BrokerState::Active,
    }
}

fn is_done(broker: &Broker, asked: &SetBrokerState) -> bool {
    let told = asked.directories.as_ref().is_none_or(|directories| *directories == broker.directories);
    told && match asked.state {
        BrokerState::Active => broker.is_active(),
        BrokerState::ShuttingDown => broker.shutting_down,
        BrokerState::Fenced => broker.fenced,
    }
}

/// Whether `id` leads a partition that another replica could lead instead.
fn leads_for_others(image: &Image, id: NodeId) -> bool {
    image.replicas_of(id).filter_map(|tp| image.partition(tp)).any(|state| {
        state.leader == Some(id) && state.isr.iter().any(|other| *other != id && can_take_over(image, state, *other))
    })
}

fn address(broker: &Broker, listener: &str) -> Option<String> {
    let endpoint = broker.endpoint(listener).or_else(|| broker.endpoints.first())?;
    Some(endpoint.address())
}

#[cfg(test)]
mod tests;
