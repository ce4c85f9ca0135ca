//! The way of a command to the leader of the quorum, wherever that is, and of its outcome back.
//!
//! What is known and what is not are kept apart: a member that does not lead, or that nobody reached, has done nothing,
//! and the command goes on to the next. A leader that was asked and did not answer may have carried it out: the command
//! is only submitted again if that is safe ([`Command::is_repeatable`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use proto::host::Entropy;
use proto::ids::{NodeId, TopicId};
use proto::metadata::Image;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::balance::Loads;
use crate::command::{Command, Outcome, Refusal, TopicSelector};
use crate::handle::{Local, SubmitError};
use crate::links::SessionLink;
use crate::peers::{CallError, Peers};
use crate::view::{QuorumView, VoterChange, VoterError};
use crate::wire::calls::{Hint, Kind, Levels, Members, Refused};
use crate::wire::outcome::Answer;
use crate::wire::{decode, encode};

/// How long a command may take that says nothing else (`controller.socket.timeout.ms`).
pub(crate) const SUBMIT_WITHIN: Duration = Duration::from_secs(30);
/// How long the leader may take to answer before it is asked again, or another one.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(5);
/// How long a member may take to say who leads.
const MEMBERS_WITHIN: Duration = Duration::from_millis(500);
/// Between two attempts: at least, and at most what is drawn on top.
const PAUSE_MS: (u64, u64) = (20, 180);

/// See the module.
#[derive(Debug)]
pub(crate) struct Router {
    /// The member in this process.
    pub(crate) local: Option<Local>,
    /// The way to others. None in a quorum of one that has no control listener.
    pub(crate) remote: Option<Remote>,
    pub(crate) images: watch::Receiver<Arc<Image>>,
}

/// The members in other processes.
pub(crate) struct Remote {
    /// The member in this process.
    pub(crate) id: Option<NodeId>,
    pub(crate) peers: Peers,
    /// Where members listen, as configured.
    pub(crate) bootstrap: Vec<String>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) known: Mutex<Members>,
    /// Why a leader did not listen to this node last: said once, not with every attempt.
    pub(crate) refused: Mutex<Option<Refused>>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("id", &self.id).field("known", &self.known.lock()).finish_non_exhaustive()
    }
}

/// Where a command goes.
enum Path {
    /// The member in this process leads.
    Here,
    /// That one leads.
    There(Hint),
}

/// What became of one attempt.
enum Attempt<T> {
    Done(T),
    /// Nothing was done; the next one may find the leader there.
    Elsewhere(Option<Hint>),
    /// It may have been done.
    Unknown,
}

impl Router {
    /// See `ControllerHandle::submit_within`.
    pub(crate) async fn submit(&self, command: Command, within: Duration) -> Result<Outcome, SubmitError> {
        let Some(remote) = &self.remote else {
            // The only member: nobody else would be faster.
            return match &self.local {
                Some(local) => local.submit(command).await,
                None => Err(SubmitError::Ended),
            };
        };
        let deadline = Instant::now() + within;
        let mut body = None;
        let mut maybe_done = false;
        let named = self.names_of(&command);
        loop {
            let attempt = match self.path(remote).await {
                Some(Path::Here) => self.submit_here(&command, deadline).await,
                Some(Path::There(leader)) => {
                    let body = body.get_or_insert_with(|| encode(&command)).clone();
                    self.submit_there(remote, &leader, body, deadline).await
                }
                None => Ok(Attempt::Elsewhere(None)),
            };
            let attempt = match attempt {
                // An earlier attempt may have been carried out all the same.
                Err(SubmitError::NoSpace | SubmitError::Ended) if maybe_done => return Err(SubmitError::Unknown),
                attempt => attempt?,
            };
            match attempt {
                Attempt::Done((offset, outcome)) => {
                    // The outcome stands, whether this node gets to see it in time or not.
                    let _ = tokio::time::timeout_at(deadline, self.caught_up(offset)).await;
                    return Ok(if maybe_done { after_all(&command, outcome, &named) } else { outcome });
                }
                Attempt::Elsewhere(hint) => remote.note(hint),
                Attempt::Unknown => {
                    maybe_done = true;
                    if !command.is_repeatable() {
                        return Err(SubmitError::Unknown);
                    }
                    remote.note(None);
                }
            }
            if !remote.pause(deadline).await {
                let leader = None;
                return Err(if maybe_done { SubmitError::Unknown } else { SubmitError::NotLeader { leader } });
            }
        }
    }

    /// Names of the topics that are to be deleted by their ids: nobody knows them any more once they are.
    fn names_of(&self, command: &Command) -> BTreeMap<TopicId, String> {
        let Command::DeleteTopics(delete) = command else { return BTreeMap::new() };
        let image = self.images.borrow();
        let named = |selector: &TopicSelector| match selector {
            TopicSelector::Id(id) => image.topic(*id).map(|topic| (*id, topic.name.to_string())),
            TopicSelector::Name(_) => None,
        };
        delete.topics.iter().filter_map(named).collect()
    }

    async fn submit_here(&self, command: &Command, deadline: Instant) -> Result<Attempt<(u64, Outcome)>, SubmitError> {
        let Some(local) = &self.local else {
            return Ok(Attempt::Elsewhere(None));
        };
        match tokio::time::timeout_at(deadline, local.submit(command.clone())).await {
            Ok(Ok(outcome)) => Ok(Attempt::Done((0, outcome))),
            Ok(Err(SubmitError::NotLeader { .. })) => Ok(Attempt::Elsewhere(None)),
            Ok(Err(SubmitError::Unknown)) | Err(_) => Ok(Attempt::Unknown),
            Ok(Err(error)) => Err(error),
        }
    }

    async fn submit_there(
        &self,
        remote: &Remote,
        leader: &Hint,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Attempt<(u64, Outcome)>, SubmitError> {
        match self.ask_leader(remote, leader, Kind::Submit, body, deadline).await {
            Attempt::Done(answer) => match decode::<Answer>(&answer) {
                Ok(Answer::Done { offset, outcome }) => Ok(Attempt::Done((offset, outcome))),
                Ok(Answer::Refused(refusal)) => Err(SubmitError::Refused(refusal)),
                Ok(Answer::NotLeader(hint)) => Ok(Attempt::Elsewhere(hint)),
                Ok(Answer::NoSpace) => Err(SubmitError::NoSpace),
                Ok(Answer::Ended) => Ok(Attempt::Elsewhere(None)),
                Ok(Answer::Unknown) => Ok(Attempt::Unknown),
                Err(error) => {
                    tracing::warn!(%error, leader = %leader.address, "cannot read the answer of the quorum's leader");
                    Ok(Attempt::Unknown)
                }
            },
            Attempt::Elsewhere(hint) => Ok(Attempt::Elsewhere(hint)),
            Attempt::Unknown => Ok(Attempt::Unknown),
        }
    }

    /// Asks the leader, until it turns out that another one leads.
    async fn ask_leader(
        &self,
        remote: &Remote,
        leader: &Hint,
        kind: Kind,
        body: Bytes,
        deadline: Instant,
    ) -> Attempt<Bytes> {
        let within = ATTEMPT_WITHIN.min(deadline.saturating_duration_since(Instant::now()));
        let asking = remote.peers.ask(&leader.address, Some(leader.id), (kind, body), within);
        let answer = tokio::select! {
            biased;
            answer = asking => answer,
            () = self.another_leads(remote, leader) => return Attempt::Unknown,
        };
        match answer {
            Ok(answer) => {
                *remote.refused.lock() = None;
                Attempt::Done(answer.body)
            }
            Err(CallError::Refused(Refused::NotLeader(hint))) => Attempt::Elsewhere(hint),
            Err(CallError::Refused(refused)) => {
                let mut said = remote.refused.lock();
                if said.as_ref() != Some(&refused) {
                    tracing::warn!(leader = %leader.address, reason = %refused, "the quorum's leader does not listen to this node");
                    *said = Some(refused);
                }
                Attempt::Elsewhere(None)
            }
            Err(CallError::Unreachable(_)) => Attempt::Elsewhere(None),
            Err(CallError::Unknown(_)) => Attempt::Unknown,
        }
    }

    /// Returns when the member in this process, or one that is asked from time to time, comes to know another leader.
    async fn another_leads(&self, remote: &Remote, leader: &Hint) {
        if let Some(local) = self.local.as_ref().filter(|local| local.quorum.is_in_touch()) {
            return local.quorum.another_leads(leader.id).await;
        }
        loop {
            tokio::time::sleep(MEMBERS_WITHIN).await;
            for address in remote.addresses().iter().filter(|address| **address != leader.address) {
                let members = remote.members(address).await;
                if members.and_then(|members| members.leader).is_some_and(|other| other != leader.id) {
                    return;
                }
            }
        }
    }

    /// Who leads, as far as can be found out.
    async fn path(&self, remote: &Remote) -> Option<Path> {
        let known = self.known_here(remote);
        // One that was cut off, or removed, knows who led once: others may know better.
        if known.is_some() && self.local.as_ref().is_some_and(|local| local.quorum.is_in_touch()) {
            return known;
        }
        if let Some(leader) = remote.leader() {
            return Some(Path::There(leader));
        }
        remote.look_around().await;
        remote.leader().map(Path::There).or(known)
    }

    /// Who leads, as the member in this process knows.
    fn known_here(&self, remote: &Remote) -> Option<Path> {
        let quorum = &self.local.as_ref()?.quorum;
        let leader = quorum.leader()?;
        if Some(leader) == remote.id {
            return Some(Path::Here);
        }
        let (id, address) = quorum.voters().into_iter().find(|(id, _)| *id == leader)?;
        Some(Path::There(Hint { id, address }))
    }

    /// Returns when the image shows what was committed before the call.
    pub(crate) async fn read_linearizable(&self, within: Duration) -> Result<(), SubmitError> {
        let Some(remote) = &self.remote else {
            return match &self.local {
                Some(local) => local.quorum.ensure_linearizable().await,
                None => Err(SubmitError::Ended),
            };
        };
        let deadline = Instant::now() + within;
        loop {
            let attempt = match (self.path(remote).await, &self.local) {
                (Some(Path::Here), Some(local)) => {
                    match tokio::time::timeout_at(deadline, local.quorum.ensure_linearizable()).await {
                        Ok(Ok(())) => return Ok(()),
                        Ok(Err(SubmitError::Ended)) => return Err(SubmitError::Ended),
                        Ok(Err(_)) | Err(_) => Attempt::Elsewhere(None),
                    }
                }
                (Some(Path::There(leader)), _) => {
                    self.ask_leader(remote, &leader, Kind::ReadIndex, Bytes::new(), deadline).await
                }
                (Some(Path::Here) | None, _) => Attempt::Elsewhere(None),
            };
            match attempt {
                Attempt::Done(body) => {
                    if let Ok(offset) = decode::<u64>(&body) {
                        let seen = tokio::time::timeout_at(deadline, self.caught_up(offset)).await;
                        return seen.map_err(|_| SubmitError::NotLeader { leader: None });
                    }
                }
                Attempt::Elsewhere(hint) => remote.note(hint),
                Attempt::Unknown => remote.note(None),
            }
            if !remote.pause(deadline).await {
                return Err(SubmitError::NotLeader { leader: None });
            }
        }
    }

    /// See `ControllerHandle::change_voters`.
    pub(crate) async fn change_voters(&self, change: VoterChange, within: Duration) -> Result<(), VoterError> {
        let Some(remote) = &self.remote else {
            return match &self.local {
                Some(local) => local.change_voters(change).await,
                None => Err(VoterError::NoLeader),
            };
        };
        let deadline = Instant::now() + within;
        let body = encode(&change);
        loop {
            let hint = match (self.path(remote).await, &self.local) {
                (Some(Path::Here), Some(local)) => {
                    let changed = local.change_voters(change.clone());
                    match tokio::time::timeout_at(deadline, changed).await {
                        Ok(Err(VoterError::NoLeader)) => None,
                        Ok(changed) => return changed,
                        Err(_) => return Err(VoterError::Unknown),
                    }
                }
                (Some(Path::There(leader)), _) => {
                    let within = deadline.saturating_duration_since(Instant::now());
                    let call = (Kind::ChangeVoters, body.clone());
                    match remote.peers.ask(&leader.address, Some(leader.id), call, within).await {
                        Ok(answer) => match decode::<Option<VoterError>>(&answer.body) {
                            Ok(None) => return Ok(()),
                            Ok(Some(error)) => return Err(error),
                            Err(_) => return Err(VoterError::Unknown),
                        },
                        Err(CallError::Refused(Refused::NotLeader(hint))) => hint,
                        Err(CallError::Refused(_) | CallError::Unreachable(_)) => None,
                        Err(CallError::Unknown(_)) => return Err(VoterError::Unknown),
                    }
                }
                (Some(Path::Here) | None, _) => None,
            };
            remote.note(hint);
            if !remote.pause(deadline).await {
                return Err(VoterError::NoLeader);
            }
        }
    }

    /// See `ControllerHandle::introduce`.
    pub(crate) async fn introduce(&self, within: Duration) -> Result<(), String> {
        let Some(remote) = &self.remote else {
            return Ok(());
        };
        let addresses = remote.addresses();
        let asked = addresses
            .iter()
            .map(|address| remote.peers.ask(address, None, (Kind::Hello, encode(&Levels::OWN)), within));
        for (address, answer) in addresses.iter().zip(futures::future::join_all(asked).await) {
            match answer {
                Err(CallError::Refused(
                    refused @ (Refused::Cluster { .. }
                    | Refused::Disk { .. }
                    | Refused::Version { .. }
                    | Refused::Level { .. }),
                )) => return Err(format!("the controller at {address} does not accept this node: {refused}")),
                Err(error) => tracing::debug!(%error, %address, "a controller did not answer a greeting"),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// See `ControllerHandle::session`.
    pub(crate) async fn session(&self, within: Duration) -> Result<SessionLink, SubmitError> {
        let no_leader = SubmitError::NotLeader { leader: None };
        let remote = self.remote.as_ref().ok_or_else(|| no_leader.clone())?;
        let deadline = Instant::now() + within;
        loop {
            let leader = match (self.path(remote).await, &self.local) {
                (Some(Path::Here), Some(local)) => {
                    // Over the network like everybody else: it is the process that is looked after.
                    let own = local.quorum.voters().into_iter().find(|(id, _)| Some(*id) == remote.id);
                    own.map(|(id, address)| Hint { id, address })
                }
                (Some(Path::There(leader)), _) => Some(leader),
                (Some(Path::Here) | None, _) => None,
            };
            if let Some(leader) = leader {
                match tokio::time::timeout_at(deadline, remote.link(leader)).await {
                    Ok(Ok(link)) => return Ok(link),
                    Ok(Err(CallError::Refused(Refused::NotLeader(hint)))) => remote.note(hint),
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "no session with the quorum's leader yet");
                        remote.note(None);
                    }
                    // It may have vanished without a word: another is looked for next.
                    Err(_) => {
                        remote.note(None);
                        return Err(no_leader);
                    }
                }
            }
            if !remote.pause(deadline).await {
                return Err(no_leader);
            }
        }
    }

    /// The quorum as its leader sees it, or as much as can be found out.
    pub(crate) async fn describe(&self, within: Duration) -> QuorumView {
        let here = self.local.as_ref().map(|local| local.quorum.view());
        let Some(remote) = &self.remote else {
            return here.unwrap_or_default();
        };
        let deadline = Instant::now() + within;
        loop {
            match self.path(remote).await {
                Some(Path::Here) => return here.unwrap_or_default(),
                Some(Path::There(leader)) => {
                    let asked = self.ask_leader(remote, &leader, Kind::Describe, Bytes::new(), deadline).await;
                    if let Attempt::Done(body) = asked
                        && let Ok(view) = decode(&body)
                    {
                        return view;
                    }
                    remote.note(None);
                }
                None => {}
            }
            if !remote.pause(deadline).await {
                return here.unwrap_or_default();
            }
        }
    }

    /// See `ControllerHandle::loads`.
    pub(crate) async fn loads(&self, within: Duration) -> Option<Loads> {
        let remote = self.remote.as_ref()?;
        let deadline = Instant::now() + within;
        loop {
            let leader = match (self.path(remote).await, &self.local) {
                // Its duties are asked like those of another process: that is rare enough.
                (Some(Path::Here), Some(local)) => {
                    let own = local.quorum.voters().into_iter().find(|(id, _)| Some(*id) == remote.id);
                    own.map(|(id, address)| Hint { id, address })
                }
                (Some(Path::There(leader)), _) => Some(leader),
                (Some(Path::Here) | None, _) => None,
            };
            if let Some(leader) = leader {
                match self.ask_leader(remote, &leader, Kind::Loads, Bytes::new(), deadline).await {
                    Attempt::Done(body) => return decode(&body).ok(),
                    Attempt::Elsewhere(hint) => remote.note(hint),
                    Attempt::Unknown => remote.note(None),
                }
            }
            if !remote.pause(deadline).await {
                return None;
            }
        }
    }

    /// Returns when the image shows `offset`. Never, if images have ended before that.
    pub(crate) async fn caught_up(&self, offset: u64) {
        let mut images = self.images.clone();
        if images.wait_for(|image| image.offset() >= offset).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The outcome of a command that an earlier attempt may have carried out: what is not there any more was deleted by that. An id is
/// never given twice, so nothing else can have been meant.
fn after_all(command: &Command, outcome: Outcome, named: &BTreeMap<TopicId, String>) -> Outcome {
    match (command, outcome) {
        (Command::DeleteTopics(delete), Outcome::DeleteTopics(answers)) => {
            let answers = delete.topics.iter().zip(answers).map(|(selector, answer)| match (selector, answer) {
                (TopicSelector::Id(id), Err(Refusal::UnknownTopicId)) => {
                    named.get(id).map(|name| (*id, name.clone())).ok_or(Refusal::UnknownTopicId)
                }
                (_, answer) => answer,
            });
            Outcome::DeleteTopics(answers.collect())
        }
        (_, outcome) => outcome,
    }
}

impl Remote {
    /// What is known of the leader from here on: nothing, or that.
    fn note(&self, leader: Option<Hint>) {
        let mut known = self.known.lock();
        known.leader = leader.as_ref().map(|leader| leader.id);
        if let Some(leader) = leader {
            known.voters.retain(|voter| voter.id != leader.id);
            known.voters.push(leader);
        }
    }

    /// Who leads, from hints.
    pub(crate) fn leader(&self) -> Option<Hint> {
        let known = self.known.lock();
        let leader = known.leader?;
        known.voters.iter().find(|voter| voter.id == leader && Some(leader) != self.id).cloned()
    }

    /// Where members may listen: what is known, then what was configured.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let known = self.known.lock();
        let voters = known.voters.iter().filter(|voter| Some(voter.id) != self.id).map(|voter| voter.address.clone());
        let mut addresses: Vec<String> = voters.collect();
        drop(known);
        for address in &self.bootstrap {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
    }

    /// Opens a link to `leader`.
    async fn link(&self, leader: Hint) -> Result<SessionLink, CallError> {
        let mut channel = self.peers.open(&leader.address, Kind::Session, Bytes::new()).await?;
        let greeting = channel.from.next().await;
        let greeting = greeting.ok_or_else(|| CallError::Unreachable(format!("{} hung up", leader.address)))?;
        self.peers.check(&leader.address, Some(leader.id), Kind::Session, greeting)?;
        Ok(SessionLink::new(leader, self.peers.clone(), channel))
    }

    /// Asks the members who leads, one after the other, until one knows.
    async fn look_around(&self) {
        for address in self.addresses() {
            let Some(members) = self.members(&address).await else {
                continue;
            };
            let found = members.leader.is_some_and(|leader| Some(leader) != self.id);
            if !members.voters.is_empty() {
                *self.known.lock() = members;
            }
            if found {
                return;
            }
        }
    }

    /// What the member at `address` says of the quorum; nothing if it does not answer.
    async fn members(&self, address: &str) -> Option<Members> {
        let asked = self.peers.ask(address, None, (Kind::Members, Bytes::new()), MEMBERS_WITHIN).await;
        asked.ok().and_then(|answer| decode(&answer.body).ok())
    }

    /// Waits a little; whether there is time left then.
    async fn pause(&self, deadline: Instant) -> bool {
        let (least, most) = PAUSE_MS;
        let pause = Duration::from_millis(least + self.entropy.next_u64() % most);
        let until = Instant::now() + pause;
        tokio::time::sleep_until(until.min(deadline)).await;
        until < deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::DeleteTopics;
    use proto::ids::Uuid;

    #[test]
    fn a_topic_that_an_attempt_before_deleted_is_answered_as_deleted() {
        let [gone, unknown, left] = [1, 2, 3].map(|id| TopicId(Uuid::from_u128(id)));
        let topics = [gone, unknown, left].map(TopicSelector::Id).to_vec();
        let command = Command::DeleteTopics(DeleteTopics { topics });
        let named = BTreeMap::from([(gone, "gone".to_owned()), (left, "left".to_owned())]);
        let answers =
            vec![Err(Refusal::UnknownTopicId), Err(Refusal::UnknownTopicId), Err(Refusal::InvalidUpdateVersion)];
        let outcome = after_all(&command, Outcome::DeleteTopics(answers), &named);
        let expected =
            vec![Ok((gone, "gone".to_owned())), Err(Refusal::UnknownTopicId), Err(Refusal::InvalidUpdateVersion)];
        assert_eq!(outcome, Outcome::DeleteTopics(expected));
    }
}
