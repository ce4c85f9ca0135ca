//! A controller in this process: starts the quorum member and its queue, ends them in order.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use proto::host::{Clock, Entropy, Listener, Network, Spawner};
use proto::ids::{DirectoryId, NodeId};
use proto::metadata::Image;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::binder::Binder;
use crate::decide::Policy;
use crate::duties::{Parts, Settings, duties};
use crate::follow::client::Shadow;
use crate::handle::{ControllerHandle, Local, QUEUE_BYTES, QUEUE_COMMANDS};
use crate::member::{CONVERSATIONS, Member};
use crate::peers::{Identity, Peers};
use crate::raft::{Electorate, Pacemaker, Quorum, Slack, Store, StoreError, Timings, Voter};
use crate::router::{Remote, Router};
use crate::storage::Storage;
use crate::task::Task;
use crate::transport::Wire;

/// What a controller is told at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Directory of the quorum's store. Made if it is not there.
    pub dir: PathBuf,
    /// This node.
    pub node_id: NodeId,
}

/// What a member of a quorum is told at its start.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberConfig {
    /// Directory of the quorum's store. Made if it is not there.
    pub dir: PathBuf,
    /// This node.
    pub node_id: NodeId,
    /// Id of the directory, drawn when it was formatted: a voter is known by it.
    pub directory: DirectoryId,
    /// Id of the cluster the directory was formatted for, if it was. Members of other clusters are refused. What the
    /// quorum has agreed on counts more.
    pub cluster_id: Option<String>,
    /// The voters a fresh store begins with, and the `host:port` of their control listeners: the same at all of them.
    /// Empty for a member that is to be added to a quorum that runs. Without effect on a store that holds a quorum.
    pub voters: BTreeMap<NodeId, String>,
    /// Where members of a quorum that runs listen (`controller.quorum.bootstrap.servers`), beside the voters.
    pub bootstrap: Vec<String>,
    /// How long things take.
    pub timings: Timings,
    /// What holds where neither a topic nor the cluster says otherwise: the same at all members.
    pub policy: Policy,
    /// What the leader of the quorum does by itself.
    pub duties: Settings,
    /// Whether this directory has belonged to a quorum before. If its store holds none it was lost, and this node does
    /// not start: it could vote a second time in an election.
    pub has_been_member: bool,
}

/// What a controller, or a handle to one, stands on.
#[derive(Clone)]
pub struct Machine {
    /// Wall clock: what commands are dated with. Elections do not look at it.
    pub clock: Arc<dyn Clock>,
    /// Randomness of elections and of pauses between attempts.
    pub entropy: Arc<dyn Entropy>,
    /// Where tasks run.
    pub spawner: Spawner,
    /// The way to other nodes.
    pub network: Arc<dyn Network>,
    /// What carries calls over it: the same at all nodes.
    pub wire: Wire,
    /// What the store of a member stands on.
    pub storage: Storage,
}

/// Why a controller did not start, in one clear line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub(crate) String);

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

/// The running controller. Dropping it leaves it running; see [`ControllerNode::shutdown`].
#[derive(Debug)]
pub struct ControllerNode {
    local: Local,
    tasks: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl ControllerNode {
    /// Starts the controller of a one-node cluster without a control listener. When it returns, this node leads the quorum
    /// and the image shows all that was ever committed.
    pub async fn start(
        config: NodeConfig,
        clock: Arc<dyn Clock>,
        spawner: &Spawner,
    ) -> Result<(Self, ControllerHandle), StartError> {
        Self::start_in(config, Storage::default(), clock, spawner).await
    }

    /// [`ControllerNode::start`] with a store that stands on `storage`.
    pub async fn start_in(
        config: NodeConfig,
        storage: Storage,
        clock: Arc<dyn Clock>,
        spawner: &Spawner,
    ) -> Result<(Self, ControllerHandle), StartError> {
        let NodeConfig { dir, node_id } = config;
        let store = open(dir, storage, node_id, spawner).await?;
        Self::start_on(store, node_id, clock, spawner).await
    }

    /// [`ControllerNode::start`] on an open store.
    pub(crate) async fn start_on(
        store: Store,
        node_id: NodeId,
        clock: Arc<dyn Clock>,
        spawner: &Spawner,
    ) -> Result<(Self, ControllerHandle), StartError> {
        let slack = Arc::clone(store.slack());
        let (quorum, images) = Quorum::start_alone(node_id, store, spawner).await?;
        let (local, task) = queue(quorum.clone(), images.clone(), (clock, Policy::default()), slack, spawner);
        let router = Arc::new(Router { local: Some(local.clone()), remote: None, images: images.clone() });
        let node = Self { local, tasks: vec![task], stop: CancellationToken::new() };
        Ok((node, ControllerHandle { router, images }))
    }

    /// Starts a member of a quorum that listens to the others at `listener`. Returns at once: the image is that of the
    /// last snapshot until a leader is known and says what was committed since. The handle may be used at any member,
    /// whoever leads; it waits while nobody does.
    ///
    /// A quorum whose only voter is this node, with or without data of [`ControllerNode::start`], leads itself, and may
    /// grow.
    pub async fn start_member(
        config: MemberConfig,
        listener: Listener,
        machine: Machine,
    ) -> Result<(Self, ControllerHandle), StartError> {
        let store = open(config.dir.clone(), machine.storage.clone(), config.node_id, &machine.spawner).await?;
        Self::start_member_on(store, config, listener, machine).await
    }

    /// [`ControllerNode::start_member`] on an open store.
    pub(crate) async fn start_member_on(
        store: Store,
        config: MemberConfig,
        listener: Listener,
        machine: Machine,
    ) -> Result<(Self, ControllerHandle), StartError> {
        let MemberConfig {
            dir,
            node_id,
            directory,
            cluster_id,
            voters,
            bootstrap,
            timings,
            policy,
            duties: settings,
            has_been_member,
        } = config;
        let Machine { clock, entropy, spawner, network, wire, storage: _ } = machine;
        if has_been_member && !store.holds_a_quorum().await? {
            return Err(StartError(format!(
                "controller {node_id} has lost its metadata: {} holds none, and did before. Remove the voter \
                 (firn cluster voter remove {node_id}) and add it again",
                dir.display()
            )));
        }
        let slack = Arc::clone(store.slack());
        let opened = store.clone();
        let prepared = spawner.spawn_blocking(move || Quorum::prepare(&opened)).await;
        let (state, images) = prepared.map_err(|error| StartError(error.to_string()))??;
        let (feed, shown) = (state.feed(), state.shown());
        let identity = Arc::new(Identity { id: node_id, directory, cluster: cluster_id, images: shown.watch() });
        let peers = Peers { transport: wire.transport(Arc::clone(&network)), identity: Arc::clone(&identity) };
        let bootstrap: Vec<String> =
            voters.iter().filter(|(id, _)| **id != node_id).map(|(_, at)| at.clone()).chain(bootstrap).collect();
        let listens_at = voters.get(&node_id).cloned().unwrap_or_default();
        let voters =
            voters.into_iter().map(|(id, address)| (id, Voter { address, directory: DirectoryId::UNASSIGNED }));
        let electorate = Electorate { voters: voters.collect(), peers: peers.clone(), timings };
        let quorum = Quorum::start_member(node_id, (store, state), &electorate, &spawner).await?;

        let stop = CancellationToken::new();
        let (call, called) = mpsc::channel(1);
        let (leads, leading) = watch::channel(false);
        let (mut local, queue) = queue(quorum.clone(), images.clone(), (Arc::clone(&clock), policy), slack, &spawner);
        local.peers = Some(peers.clone());
        let pacemaker = Pacemaker {
            quorum: quorum.clone(),
            peers: peers.clone(),
            network: Arc::clone(&network),
            entropy: Arc::clone(&entropy),
            timings,
            heard: Arc::clone(quorum.heard()),
            called,
            listens_at,
            leading: leads,
        };
        let binder =
            Binder { local: local.clone(), peers: peers.clone(), images: images.clone(), leading: leading.clone() };
        let (known, refused) = Default::default();
        let remote = Remote { id: Some(node_id), peers: peers.clone(), bootstrap, entropy, known, refused };
        let router = Arc::new(Router { local: Some(local.clone()), remote: Some(remote), images: shown.watch() });
        let shadow = Shadow::new(Arc::clone(&router), peers.clone(), shown.clone(), quorum.clone());
        let handle = ControllerHandle { router, images: shown.watch() };
        let parts = Parts { controller: handle.clone(), leading, network, clock, settings, stop: stop.clone() };
        let (duties, sessions) = duties(parts);
        let own = local.clone();
        let places = Semaphore::new(CONVERSATIONS);
        let member = Member { identity, quorum, call, local, images, feed, sessions, places };
        let serving = wire.serve(listener, Arc::new(member), stop.clone());
        let serving = async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the control listener ended");
            }
        };
        let tasks = vec![
            queue,
            spawner.spawn_hot(pacemaker.run()),
            spawner.spawn_hot(binder.run()),
            spawner.spawn_hot(duties),
            spawner.spawn_hot(shadow.run()),
            spawner.spawn_hot(serving),
        ];
        Ok((Self { local: own, tasks, stop }, handle))
    }

    /// Returns when the quorum member has stopped by itself, with the reason: its store failed. The
    /// process cannot go on then.
    pub async fn ended(&self) -> String {
        self.local.quorum.ended().await
    }

    /// Whether this member belongs to a quorum. One that was formatted to be added does not until it is.
    pub fn belongs(&self) -> bool {
        self.local.quorum.belongs()
    }

    /// Waits until this member belongs to a quorum, or has ended: whether it does. Holds nothing of it that would keep it open.
    pub fn joined(&self) -> impl Future<Output = bool> + Send + use<> {
        let quorum = self.local.quorum.clone();
        async move { quorum.joined().await }
    }

    /// Hands the lead of the quorum over to another member, if this one has it and there is another: so that nobody has
    /// to miss it first. Takes about a lease. Commands go to the other member from here on.
    pub async fn hand_over(&self) {
        self.local.hand_over().await;
    }

    /// Ends the controller. What was answered stays; commands still queued end as unknown.
    pub async fn shutdown(self) {
        self.stop.cancel();
        for task in &self.tasks {
            task.abort();
        }
        self.local.quorum.shutdown().await;
    }
}

async fn open(dir: PathBuf, storage: Storage, node_id: NodeId, spawner: &Spawner) -> Result<Store, StartError> {
    let opening = spawner.clone();
    let opened = spawner.spawn_blocking(move || Store::open(&dir, &storage, node_id, opening)).await;
    Ok(opened.map_err(|error| StartError(error.to_string()))??)
}

/// The queue in front of `quorum`, and the task that empties it.
fn queue(
    quorum: Quorum,
    images: watch::Receiver<Arc<Image>>,
    (clock, policy): (Arc<dyn Clock>, Policy),
    slack: Arc<Slack>,
    spawner: &Spawner,
) -> (Local, JoinHandle<()>) {
    let (queue, queued) = mpsc::channel(QUEUE_COMMANDS);
    let understanding = Arc::default();
    let local = Local {
        queue,
        budget: Arc::new(Semaphore::new(QUEUE_BYTES)),
        quorum: quorum.clone(),
        peers: None,
        understanding: Arc::clone(&understanding),
    };
    let spawner = spawner.clone();
    let task = Task { quorum, images, queue: queued, clock, slack, spawner: spawner.clone(), policy, understanding };
    let task = spawner.spawn_hot(task.run());
    (local, task)
}
