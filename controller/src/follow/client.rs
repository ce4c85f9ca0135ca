//! The following side: keeps an image up to date from whichever member can be reached, the leader first.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use proto::ids::{DirectoryId, NodeId};
use proto::metadata::Image;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Followed, Replica};
use crate::handle::ControllerHandle;
use crate::node::Machine;
use crate::peers::{CallError, Identity, Peers};
use crate::raft::Quorum;
use crate::router::{Remote, Router};
use crate::shown::Shown;
use crate::wire::calls::Kind;
use crate::wire::encode;

/// A member that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(2);
/// Between two rounds over all members.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it is said that nobody can be reached.
const COMPLAIN: Duration = Duration::from_secs(5);

/// What a node without a member of the quorum is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowConfig {
    /// This node.
    pub node_id: NodeId,
    /// Id of the cluster it belongs to, if it knows. Members of other clusters are not followed.
    pub cluster_id: Option<String>,
    /// `host:port` of control listeners of members; one that can be reached is enough.
    pub bootstrap: Vec<String>,
}

/// The task that follows the metadata. Dropping this leaves it running; see [`Follower::shutdown`].
#[derive(Debug)]
pub struct Follower {
    task: JoinHandle<()>,
}

impl Follower {
    /// Begins to follow. Returns at once; the image is empty until a member was reached. The handle may be used as that
    /// of a member.
    pub fn start(config: FollowConfig, machine: &Machine) -> (Self, ControllerHandle) {
        let FollowConfig { node_id, cluster_id, bootstrap } = config;
        let shown = Shown::new(Arc::default());
        let images = shown.watch();
        let directory = DirectoryId::UNASSIGNED;
        let identity = Arc::new(Identity { id: node_id, directory, cluster: cluster_id, images: images.clone() });
        let transport = machine.wire.transport(Arc::clone(&machine.network));
        let peers = Peers { transport, identity };
        let entropy = Arc::clone(&machine.entropy);
        // It is nobody's member: whoever leads is another node, also one of the same id.
        let remote = Remote {
            id: None,
            peers: peers.clone(),
            bootstrap,
            entropy,
            known: Default::default(),
            refused: Default::default(),
        };
        let router = Arc::new(Router { local: None, remote: Some(remote), images: images.clone() });
        let task = Task { router: Arc::clone(&router), peers, shown, replica: Replica::default() };
        let task = machine.spawner.spawn_hot(task.run());
        (Self { task }, ControllerHandle { router, images })
    }

    /// Stops following. The handle's image stays as it is.
    pub async fn shutdown(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// After so long without a word of the leader a member looks elsewhere for what the quorum decides.
const ALONE: Duration = Duration::from_secs(1);
/// How often it looks whether it was.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Follows others in the place of a member of the quorum that raft tells nothing: it was removed, or is to be added yet, or only
/// the leader cannot be reached. The rest of its process goes on with what is committed.
pub(crate) struct Shadow {
    router: Arc<Router>,
    peers: Peers,
    shown: Shown,
    quorum: Quorum,
}

impl Shadow {
    pub(crate) fn new(router: Arc<Router>, peers: Peers, shown: Shown, quorum: Quorum) -> Self {
        Self { router, peers, shown, quorum }
    }

    /// Runs until the member has ended.
    pub(crate) async fn run(self) {
        let mut heard = Instant::now();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.is_told() {
                heard = Instant::now();
            } else if heard.elapsed() >= ALONE {
                let replica = Replica::at(Image::clone(&self.shown.image()));
                let (router, peers, shown) = (Arc::clone(&self.router), self.peers.clone(), self.shown.clone());
                tokio::select! {
                    biased;
                    () = self.is_told_again() => {}
                    () = Task { router, peers, shown, replica }.run() => {}
                }
                heard = Instant::now();
            }
        }
    }

    fn is_told(&self) -> bool {
        self.quorum.term_if_leader().is_some() || self.quorum.heard().within(ALONE.as_millis() as u64)
    }

    async fn is_told_again(&self) {
        while !self.is_told() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

struct Task {
    router: Arc<Router>,
    peers: Peers,
    shown: Shown,
    replica: Replica,
}

impl Task {
    async fn run(mut self) {
        let mut reached = Instant::now();
        let mut complained = reached;
        loop {
            let mut why = Vec::new();
            for address in self.addresses() {
                let before = self.replica.image().offset();
                let ended = self.follow(&address).await;
                if self.replica.image().offset() != before {
                    reached = Instant::now();
                }
                why.push(format!("{address}: {ended}"));
            }
            // A member complains by itself.
            let complains = self.router.local.is_none();
            if complains && reached.elapsed() >= COMPLAIN && complained.elapsed() >= COMPLAIN {
                complained = Instant::now();
                tracing::warn!("no controller can be followed ({})", why.join("; "));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The leader, if it is known, then the others.
    fn addresses(&self) -> Vec<String> {
        let Some(remote) = &self.router.remote else {
            return Vec::new();
        };
        let mut addresses = remote.addresses();
        // What a member knew of the voters last, and where it is configured to look.
        let known = self.router.local.iter().flat_map(|local| local.quorum.voters());
        for (_, address) in known.filter(|(id, _)| Some(*id) != remote.id) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if let Some(leader) = remote.leader() {
            addresses.retain(|address| *address != leader.address);
            addresses.insert(0, leader.address);
        }
        addresses
    }

    /// Follows the member at `address` until that fails: why it did.
    async fn follow(&mut self, address: &str) -> CallError {
        self.replica.begin_again();
        let from = encode(&self.replica.image().offset());
        let opening = tokio::time::timeout(SILENCE, self.peers.open(address, Kind::Follow, from));
        let mut channel = match opening.await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return error,
            Err(_) => return CallError::Unreachable("it does not answer".to_owned()),
        };
        loop {
            let said = match tokio::time::timeout(SILENCE, channel.from.next()).await {
                Ok(Some(envelope)) => envelope,
                Ok(None) => return CallError::Unknown("it hung up".to_owned()),
                Err(_) => return CallError::Unknown("it has gone silent".to_owned()),
            };
            let said = match self.peers.check(address, None, Kind::Follow, said) {
                Ok(said) => said,
                Err(error) => return error,
            };
            if self.router.local.is_some() && said.from == self.peers.identity.id.0 {
                return CallError::Unreachable("it is this node".to_owned());
            }
            let taken = Followed::from_bytes(&said.body).map_err(Into::into).and_then(|said| self.replica.take(&said));
            match taken {
                Ok(true) => {
                    self.shown.show(&Arc::new(self.replica.image().clone()));
                }
                Ok(false) => {}
                Err(error) => return CallError::Unknown(error.to_string()),
            }
        }
    }
}
