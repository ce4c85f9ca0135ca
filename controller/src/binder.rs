//! Binds the ids of voters to their disks: what the leader sees behind an id first is that voter, and another disk under
//! the same id is refused from then on, by all. Else a voter that has lost its disk could vote twice in one election, and
//! nobody would know.

use std::sync::Arc;
use std::time::Duration;

use proto::ids::{DirectoryId, NodeId};
use proto::metadata::Image;
use tokio::sync::watch;

use crate::command::Command;
use crate::handle::Local;
use crate::peers::{Peers, directory};
use crate::view::MemberView;
use crate::wire::calls::{Kind, Levels};
use crate::wire::encode;

/// How often it is looked whether a voter is not bound.
const EVERY: Duration = Duration::from_secs(2);
/// How long a voter may take to say who it is.
const HELLO_WITHIN: Duration = Duration::from_millis(500);

/// A task of every member that acts while its member leads.
pub(crate) struct Binder {
    pub(crate) local: Local,
    pub(crate) peers: Peers,
    pub(crate) images: watch::Receiver<Arc<Image>>,
    /// Whether this member leads.
    pub(crate) leading: watch::Receiver<bool>,
}

impl Binder {
    /// Runs until the member has ended.
    pub(crate) async fn run(mut self) {
        while self.leading.wait_for(|leads| *leads).await.is_ok() {
            for voter in self.local.quorum.view().voters {
                if self.images.borrow().voter(voter.id).is_none() {
                    self.bind(voter).await;
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn bind(&self, voter: MemberView) {
        let MemberView { id, directory, .. } = voter;
        let directory = if directory == DirectoryId::UNASSIGNED { self.ask(&voter).await } else { directory };
        if directory == DirectoryId::UNASSIGNED {
            return;
        }
        match self.local.submit(Command::BindVoter { id, directory }).await {
            Ok(_) => {
                tracing::info!(voter = %id, %directory, "a voter of the quorum is bound to its metadata directory")
            }
            Err(error) => tracing::debug!(voter = %id, %error, "a voter is not bound to its metadata directory yet"),
        }
    }

    /// Which directory a voter has; unassigned if it does not say.
    async fn ask(&self, voter: &MemberView) -> DirectoryId {
        if voter.id == self.own_id() {
            return self.peers.identity.directory;
        }
        let hello = self.peers.ask(&voter.address, Some(voter.id), (Kind::Hello, encode(&Levels::OWN)), HELLO_WITHIN);
        hello.await.map_or(DirectoryId::UNASSIGNED, |answer| directory(&answer))
    }

    fn own_id(&self) -> NodeId {
        self.peers.identity.id
    }
}
