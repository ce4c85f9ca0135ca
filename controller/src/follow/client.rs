//! The following side: keeps an image up to date from whichever member can be reached, the leader first.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use proto::ids::{DirectoryId, NodeId};
use proto::metadata::Image;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Followed, Replica};
use crate::handle::ControllerHandle;
use crate::node::Machine;
use crate::peers::{CallError, Identity, Peers};
use crate::router::{Remote, Router};
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
        let (publish, images) = watch::channel(Arc::new(Image::default()));
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
        let task = Task { router: Arc::clone(&router), peers, publish, replica: Replica::default() };
        let task = machine.spawner.spawn_hot(task.run());
        (Self { task }, ControllerHandle { router, images })
    }

    /// Stops following. The handle's image stays as it is.
    pub async fn shutdown(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

struct Task {
    router: Arc<Router>,
    peers: Peers,
    publish: watch::Sender<Arc<Image>>,
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
            if reached.elapsed() >= COMPLAIN && complained.elapsed() >= COMPLAIN {
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
            let taken = Followed::from_bytes(&said.body).map_err(Into::into).and_then(|said| self.replica.take(&said));
            match taken {
                Ok(true) => {
                    self.publish.send_replace(Arc::new(self.replica.image().clone()));
                }
                Ok(false) => {}
                Err(error) => return CallError::Unknown(error.to_string()),
            }
        }
    }
}
