//! Sessions of brokers with the leader of the quorum, over the network: a broker says again and again that it lives, and
//! hears what the leader makes of it. That such a conversation ends is said, too: it may mean that the broker's process
//! did. What comes of it is decided in [`crate::session`].

use bytes::Bytes;
use futures::StreamExt;
use proto::ids::NodeId;

use crate::duties::Sessions;
use crate::peers::{Identity, Peers};
use crate::session::{Beat, BeatReply};
use crate::transport::Channel;
use crate::wire::calls::{Hint, Kind};
use crate::wire::{decode, encode};

/// The broker's end. The leader sees the end of the session's connection when it is dropped.
#[derive(Debug)]
pub struct SessionLink {
    leader: Hint,
    peers: Peers,
    channel: Channel,
}

impl SessionLink {
    pub(crate) fn new(leader: Hint, peers: Peers, channel: Channel) -> Self {
        Self { leader, peers, channel }
    }

    /// Who is at the other end.
    pub fn leader(&self) -> NodeId {
        self.leader.id
    }

    /// Says that the broker lives, and waits for the answer. None once the link has ended: the leader has gone, or does
    /// not lead any more. A link whose answer was not waited for is of no use any more: open another.
    pub async fn beat(&mut self, beat: &Beat) -> Option<BeatReply> {
        self.channel.to.send(self.peers.identity.envelope(Kind::Session, encode(beat))).await.ok()?;
        let said = self.channel.from.next().await?;
        let said = match self.peers.check(&self.leader.address, Some(self.leader.id), Kind::Session, said) {
            Ok(said) => said,
            Err(reason) => {
                tracing::info!(%reason, leader = %self.leader.id, "the quorum's leader ends the session of this broker");
                return None;
            }
        };
        match decode(&said.body) {
            Ok(reply) => Some(reply),
            Err(error) => {
                tracing::warn!(%error, leader = %self.leader.id, "cannot read what the quorum's leader says of this broker");
                None
            }
        }
    }

    /// Returns when the link has ended: nothing is said on it unasked.
    pub async fn ended(&mut self) {
        let _ = self.channel.from.next().await;
    }
}

/// The leader's end: holds a conversation until one of both goes away or `over` is ready.
pub(crate) async fn hold(
    sessions: &Sessions,
    identity: &Identity,
    mut channel: Channel,
    over: impl Future<Output = ()>,
) {
    // Also when this is dropped: the connection broke.
    let link = sessions.link();
    tokio::pin!(over);
    // What tells the other side that it has been let in.
    let mut saying = Bytes::new();
    loop {
        if channel.to.send(identity.envelope(Kind::Session, saying)).await.is_err() {
            return;
        }
        let said = tokio::select! {
            biased;
            () = &mut over => return,
            said = channel.from.next() => said,
        };
        let Some(said) = said else {
            return;
        };
        let beat: Beat = match decode(&said.body) {
            Ok(beat) => beat,
            Err(error) => {
                tracing::warn!(%error, broker = said.from, "cannot read what a broker says of itself");
                return;
            }
        };
        let reply = tokio::select! {
            biased;
            () = &mut over => return,
            reply = link.beat(beat) => reply,
        };
        let Some(reply) = reply else {
            return;
        };
        saying = encode(&reply);
    }
}
