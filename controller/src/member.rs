//! What a member of the quorum answers at its control listener.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use proto::ids::NodeId;
use proto::metadata::Image;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::duties::Sessions;
use crate::follow::feed::Feed;
use crate::handle::{Local, SubmitError};
use crate::links;
use crate::peers::Identity;
use crate::raft::Quorum;
use crate::transport::{Channel, Envelope, Serve};
use crate::view::VoterError;
use crate::wire::calls::{Canvass, Hint, Kind, Levels, Members, Refused};
use crate::wire::outcome::Answer;
use crate::wire::{decode, encode};

/// The answering side of a member.
pub(crate) struct Member {
    pub(crate) identity: Arc<Identity>,
    pub(crate) quorum: Quorum,
    /// Tells the pacemaker that the leader hands over.
    pub(crate) call: mpsc::Sender<()>,
    pub(crate) local: Local,
    pub(crate) images: watch::Receiver<Arc<Image>>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) sessions: Sessions,
    /// Places for conversations.
    pub(crate) places: Semaphore,
}

/// Conversations at a time: each broker has two, with one member or with two.
pub(crate) const CONVERSATIONS: usize = 1024;

/// How often a member looks whether it still learns what the quorum decides.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Member {
    /// Returns when this member does not learn any more what the quorum decides: it was cut off, or is no member now. Who follows it
    /// would stand still with it, and has to follow another.
    async fn is_out_of_touch(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if !self.quorum.is_in_touch() {
                return;
            }
        }
    }
}

#[async_trait]
impl Serve for Member {
    async fn answer(&self, question: Envelope) -> Envelope {
        let kind = match Kind::of(question.kind) {
            Some(kind) => kind,
            None => return self.refuse(&Refused::Malformed(format!("kind {}", question.kind))),
        };
        let accepted = self.identity.accepts(&question);
        let answered = match accepted {
            Ok(()) => self.carry_out(kind, &question.body).await,
            Err(refused) => Err(refused),
        };
        match answered {
            Ok(body) => self.identity.envelope(kind, body),
            Err(refused) => self.refuse(&refused),
        }
    }

    async fn converse(&self, first: Envelope, channel: Channel) {
        let Ok(_place) = self.places.try_acquire() else {
            let full = Refused::Cannot(format!("{CONVERSATIONS} conversations are open: it takes no more now"));
            // Who asked may be gone.
            let _ = channel.to.send(self.refuse(&full)).await;
            return;
        };
        let refused = match (self.identity.accepts(&first), Kind::of(first.kind)) {
            (Err(refused), _) => refused,
            (Ok(()), Some(Kind::Follow)) => match decode(&first.body) {
                Ok(from) => {
                    let telling = self.feed.tell(from, self.images.clone(), &self.identity, &channel.to);
                    return tokio::select! {
                        biased;
                        () = self.is_out_of_touch() => {}
                        () = telling => {}
                    };
                }
                Err(error) => Refused::Malformed(error.to_string()),
            },
            (Ok(()), Some(Kind::Session)) if self.quorum.term_if_leader().is_none() => {
                Refused::NotLeader(self.hint(self.quorum.leader()))
            }
            (Ok(()), Some(Kind::Session)) => {
                return links::hold(&self.sessions, &self.identity, channel, self.quorum.leads_no_more()).await;
            }
            (Ok(()), _) => Refused::Malformed(format!("kind {} is not a conversation", first.kind)),
        };
        // Who asked may be gone.
        let _ = channel.to.send(self.refuse(&refused)).await;
    }
}

impl Member {
    fn refuse(&self, refused: &Refused) -> Envelope {
        self.identity.envelope(Kind::Refused, encode(refused))
    }

    async fn carry_out(&self, kind: Kind, body: &Bytes) -> Result<Bytes, Refused> {
        Ok(match kind {
            Kind::Hello => {
                let (level, levels) = (self.images.borrow().level(), Levels::of(body));
                if !levels.contain(level) {
                    return Err(Refused::Level { level, oldest: levels.oldest, newest: levels.newest });
                }
                encode(&Levels::OWN)
            }
            Kind::Append => self.quorum.append(body, self.quorum.heard()).await?.into(),
            Kind::Vote => self.quorum.vote(body).await?.into(),
            Kind::Install => self.quorum.install(body, self.quorum.heard()).await?.into(),
            Kind::Canvass => {
                let canvass: Canvass = decode(body).map_err(|error| Refused::Malformed(error.to_string()))?;
                encode(&self.quorum.would_vote(&canvass, self.quorum.heard()).await)
            }
            Kind::Campaign => {
                // One waiting is enough.
                let _ = self.call.try_send(());
                Bytes::new()
            }
            Kind::Submit => {
                let command = decode(body).map_err(|error| Refused::Malformed(error.to_string()))?;
                let answer = match self.local.submit(command).await {
                    Ok(outcome) => Answer::Done { offset: self.images.borrow().offset(), outcome },
                    Err(error) => self.answer_to(error),
                };
                encode(&answer)
            }
            Kind::ReadIndex => match self.quorum.ensure_linearizable().await {
                Ok(()) => encode(&self.images.borrow().offset()),
                Err(SubmitError::NotLeader { leader }) => return Err(Refused::NotLeader(self.hint(leader))),
                Err(error) => return Err(Refused::Cannot(error.to_string())),
            },
            Kind::Members => {
                let voters = self.quorum.voters().into_iter().map(|(id, address)| Hint { id, address });
                // One that was cut off, or removed, knows who led once.
                let leader = self.quorum.leader().filter(|_| self.quorum.is_in_touch());
                encode(&Members { leader, voters: voters.collect() })
            }
            Kind::Describe => encode(&self.quorum.view()),
            Kind::Loads => match self.sessions.loads().await {
                Some(loads) => encode(&loads),
                None => return Err(Refused::NotLeader(self.hint(self.quorum.leader()))),
            },
            Kind::ChangeVoters => {
                let change = decode(body).map_err(|error| Refused::Malformed(error.to_string()))?;
                match self.local.change_voters(change).await {
                    Err(VoterError::NoLeader) => return Err(Refused::NotLeader(self.hint(self.quorum.leader()))),
                    changed => encode(&changed.err()),
                }
            }
            Kind::Follow | Kind::Session | Kind::Refused => {
                return Err(Refused::Malformed(format!("{kind:?} is not a question")));
            }
        })
    }

    fn answer_to(&self, error: SubmitError) -> Answer {
        match error {
            SubmitError::Refused(refusal) => Answer::Refused(refusal),
            SubmitError::NotLeader { leader } => Answer::NotLeader(self.hint(leader)),
            SubmitError::Unknown => Answer::Unknown,
            SubmitError::NoSpace => Answer::NoSpace,
            SubmitError::Ended => Answer::Ended,
        }
    }

    fn hint(&self, leader: Option<NodeId>) -> Option<Hint> {
        let leader = leader?;
        self.quorum.voters().into_iter().find(|(id, _)| *id == leader).map(|(id, address)| Hint { id, address })
    }
}
