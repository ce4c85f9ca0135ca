//! Drives [`elections`](super::elections): feeds the pacer what was heard and what time it is, and does what it asks for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use proto::host::{Entropy, Network};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::elections::{Command, Event, Pacer, Role, Timings};
use super::{Metrics, Quorum, is_leader, node_id};
use crate::peers::Peers;
use crate::session::Evidence;
use crate::transport::probe;
use crate::wire::calls::{Canvass, Kind, Members};
use crate::wire::decode;

/// How often the pacer is asked.
const TICK: Duration = Duration::from_millis(20);
/// How often where there is nobody to compete with.
const TICK_ALONE: Duration = Duration::from_secs(1);
/// How long the others have to say whether they would vote.
const CANVASS_WITHIN: Duration = Duration::from_millis(100);
/// How long a leader's host has to say that nobody listens.
const PROBE_WITHIN: Duration = Duration::from_millis(50);

/// How long a change of the voters that was left half done may take to be finished, before it is tried again.
const TIDY_WITHIN: Duration = Duration::from_secs(1);
/// How often it is said that nobody leads.
const COMPLAIN: Duration = Duration::from_secs(5);

/// When the leader was heard, and which.
#[derive(Debug, Default)]
pub(crate) struct Heard(Mutex<Option<(u64, Instant)>>);

impl Heard {
    /// The leader was heard now.
    pub(super) fn from(&self, leader: u64) {
        *self.0.lock() = Some((leader, Instant::now()));
    }

    /// Whether a leader was heard less than `ms` milliseconds ago.
    pub(crate) fn within(&self, ms: u64) -> bool {
        self.0.lock().is_some_and(|(_, at)| at.elapsed() <= Duration::from_millis(ms))
    }

    fn last(&self) -> Option<(u64, Instant)> {
        *self.0.lock()
    }
}

/// Owns the pacer of a member.
pub(crate) struct Pacemaker {
    pub(crate) quorum: Quorum,
    pub(crate) peers: Peers,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) timings: Timings,
    pub(crate) heard: Arc<Heard>,
    /// The leader hands over.
    pub(crate) called: mpsc::Receiver<()>,
    /// `host:port` of this member's control listener, as others are to reach it; empty if it was not told.
    pub(crate) listens_at: String,
    /// Told whether this member leads and its image shows all that was committed before.
    pub(crate) leading: watch::Sender<bool>,
}

impl Pacemaker {
    /// Runs until the member has ended.
    pub(crate) async fn run(mut self) {
        let start = Instant::now();
        let ms = |at: Instant| at.saturating_duration_since(start).as_millis() as u64;
        let mut pacer = Pacer::new(self.timings, 0, self.entropy.next_u64());
        let mut fed = None;
        let mut without_leader = start;
        let mut is_removed = false;
        loop {
            let role = match self.role() {
                Some(role) => role,
                None => return,
            };
            let leads = self.quorum.leads_for_sure();
            self.leading.send_if_modified(|known| std::mem::replace(known, leads) != leads);
            if role != Role::Leader {
                self.quorum.has_resigned();
            }
            if role == Role::Leader && self.quorum.is_untidy(&self.listens_at) {
                // Without a majority it would take for ever, and this task with it.
                let _ = tokio::time::timeout(TIDY_WITHIN, self.quorum.tidy_up(&self.listens_at)).await;
            }
            if self.metrics().current_leader.is_some() && role != Role::Follower
                || self.heard.within(COMPLAIN.as_millis() as u64)
            {
                (without_leader, is_removed) = (Instant::now(), false);
            } else if without_leader.elapsed() >= COMPLAIN {
                without_leader = Instant::now();
                is_removed = self.complain(is_removed).await;
            }
            let tick = if leads && self.is_only_voter() { TICK_ALONE } else { TICK };
            let heard = self.heard.last();
            if heard != fed {
                fed = heard;
                if let Some((leader, at)) = heard {
                    pacer.on(ms(at), Event::Heard { leader }, self.entropy.next_u64());
                }
            }
            let mut event = Event::Tick { role };
            while let Some(command) = pacer.on(ms(Instant::now()), event, self.entropy.next_u64()) {
                match self.perform(command).await {
                    Some(next) => event = next,
                    None => break,
                }
            }
            tokio::select! {
                biased;
                called = self.called.recv() => {
                    if called.is_none() {
                        return;
                    }
                    if let Some(command) = pacer.on(ms(Instant::now()), Event::Called, self.entropy.next_u64()) {
                        self.perform(command).await;
                    }
                }
                () = tokio::time::sleep(tick) => {}
            }
        }
    }

    /// What the pacer is told of it.
    async fn perform(&self, command: Command) -> Option<Event> {
        match command {
            Command::Probe(leader) => {
                let address = self.address(leader)?;
                let evidence = probe(self.network.as_ref(), &address, PROBE_WITHIN).await;
                (evidence == Evidence::Refused).then_some(Event::Refused { leader })
            }
            Command::Canvass => {
                let asked_at = Instant::now();
                let granted = self.canvass().await;
                // A leader that turned up meanwhile counts more.
                let heard = self.heard.last().is_some_and(|(_, at)| at >= asked_at);
                Some(Event::Canvassed { granted: granted && !heard })
            }
            Command::Elect => {
                tracing::info!("standing for election to lead the quorum");
                // It fails when the member has ended: then so does `run`.
                let _ = self.quorum.raft.trigger().elect().await;
                None
            }
        }
    }

    /// None when the member has ended.
    fn role(&self) -> Option<Role> {
        let metrics = self.metrics();
        metrics.running_state.as_ref().ok()?;
        let voters: BTreeSet<u64> = metrics.membership_config.membership().voter_ids().collect();
        Some(if is_leader(&metrics) {
            Role::Leader
        } else if !voters.contains(&self.quorum.id) {
            Role::Observer
        } else if voters.len() == 1 {
            Role::Alone
        } else {
            Role::Follower
        })
    }

    fn is_only_voter(&self) -> bool {
        let metrics = self.metrics();
        let mut voters = metrics.membership_config.membership().voter_ids();
        voters.next() == Some(self.quorum.id) && voters.next().is_none()
    }

    fn metrics(&self) -> Metrics {
        self.quorum.raft.metrics().borrow().clone()
    }

    fn address(&self, id: u64) -> Option<String> {
        let metrics = self.metrics();
        let node = metrics.membership_config.membership().get_node(&id)?;
        (!node.address.is_empty()).then(|| node.address.clone())
    }

    /// Says which voters cannot be reached, and why; or that this member does not vote any more, unless that was said. Answers
    /// whether it does not.
    async fn complain(&self, is_removed: bool) -> bool {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let others = membership.nodes().filter(|(id, _)| **id != self.quorum.id);
        let asked = others.map(|(id, node)| async move {
            let call = self.peers.ask(&node.address, node_id(*id), (Kind::Members, Bytes::new()), CANVASS_WITHIN);
            call.await.map_err(|why| format!("{id} at {} ({why})", node.address))
        });
        let answered = futures::future::join_all(asked).await;
        let silent: Vec<&str> =
            answered.iter().filter_map(|answer| answer.as_ref().err().map(String::as_str)).collect();
        let answers = answered.iter().filter_map(|answer| answer.as_ref().ok());
        let members = answers.filter_map(|answer| decode::<Members>(&answer.body).ok());
        let own = node_id(self.quorum.id);
        let mut led = members.filter(|members| members.leader.is_some());
        if led.any(|members| members.voters.iter().all(|voter| Some(voter.id) != own)) {
            if !is_removed {
                tracing::warn!("this controller does not vote any more: the quorum goes on without it, and it follows");
            }
            return true;
        }
        if membership.nodes().next().is_none() {
            tracing::warn!("this controller waits to be made a member of the quorum");
        } else if silent.is_empty() {
            tracing::warn!("the quorum of the metadata has no leader yet, though all voters can be reached");
        } else {
            tracing::warn!(
                "the quorum of the metadata has no leader; no answer from voter {}",
                silent.join(", voter ")
            );
        }
        false
    }

    /// Whether a majority of the voters, of both sets while they change, would vote for this member.
    async fn canvass(&self) -> bool {
        let Some(last) = self.quorum.last_log().await else {
            return false;
        };
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let mut granted = BTreeSet::from([self.quorum.id]);
        let has_majority = |granted: &BTreeSet<u64>| {
            membership.get_joint_config().iter().all(|voters| voters.intersection(granted).count() > voters.len() / 2)
        };
        let mut asked: FuturesUnordered<_> = membership
            .nodes()
            .filter(|(id, _)| **id != self.quorum.id && membership.voter_ids().any(|voter| voter == **id))
            .map(|(id, node)| async move {
                let body = Canvass { last };
                let call = self.peers.call(&node.address, node_id(*id), (Kind::Canvass, &body), CANVASS_WITHIN);
                (*id, call.await.unwrap_or(false))
            })
            .collect();
        while !has_majority(&granted) {
            match asked.next().await {
                Some((id, true)) => {
                    granted.insert(id);
                }
                Some((_, false)) => {}
                None => return false,
            }
        }
        true
    }
}
