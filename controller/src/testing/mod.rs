//! Several members in one process: a network in memory whose links can be cut, and members that can be killed and
//! started again. Under the paused clock a whole run takes milliseconds, and a seed fixes it.

mod network;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proto::host::{Entropy, ManualClock, SeededEntropy, Spawner};
use proto::ids::{DirectoryId, NodeId, Uuid};
use proto::metadata::Image;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::raft::Quorum;
use crate::{Command, ControllerHandle, ControllerNode, Machine, MemberConfig, SubmitError, Timings, Wire};
pub(crate) use network::Net;

/// A quorum of members `0..n`.
pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) wire: Wire,
    pub(crate) voters: BTreeMap<NodeId, String>,
    pub(crate) entropy: Arc<SeededEntropy>,
    pub(crate) members: BTreeMap<NodeId, (ControllerNode, ControllerHandle)>,
    dirs: BTreeMap<NodeId, TempDir>,
}

impl World {
    /// Members that have not been started.
    pub(crate) fn new(members: i32, wire: Wire, seed: u64) -> Self {
        let voters = (0..members).map(|id| (NodeId(id), format!("host-{id}:9093"))).collect();
        let dirs = (0..members).map(|id| (NodeId(id), tempfile::tempdir().expect("a temporary directory")));
        Self {
            net: Net::default(),
            wire,
            voters,
            entropy: Arc::new(SeededEntropy::new(seed)),
            members: BTreeMap::new(),
            dirs: dirs.collect(),
        }
    }

    /// Members that run.
    pub(crate) async fn started(members: i32, wire: Wire, seed: u64) -> Self {
        let mut world = Self::new(members, wire, seed);
        for id in 0..members {
            world.start(NodeId(id)).await;
        }
        world
    }

    pub(crate) fn machine(&self, host: &str) -> Machine {
        Machine {
            clock: Arc::new(ManualClock::new(1_000)),
            entropy: Arc::clone(&self.entropy) as Arc<dyn Entropy>,
            spawner: Spawner::simulated(tokio::runtime::Handle::current()),
            network: Arc::new(self.net.host(host)),
            wire: self.wire,
        }
    }

    pub(crate) fn dir(&self, id: NodeId) -> &Path {
        self.dirs[&id].path()
    }

    pub(crate) fn config(&self, id: NodeId) -> MemberConfig {
        MemberConfig {
            dir: self.dir(id).to_owned(),
            node_id: id,
            directory: DirectoryId(Uuid::from_u128(id.0 as u128 + 1)),
            cluster_id: Some("test".to_owned()),
            voters: self.voters.clone(),
            bootstrap: Vec::new(),
            timings: Timings::default(),
            has_been_member: false,
        }
    }

    pub(crate) async fn start(&mut self, id: NodeId) {
        self.start_with(self.config(id)).await;
    }

    pub(crate) async fn start_with(&mut self, config: MemberConfig) {
        let id = config.node_id;
        let machine = self.machine(&format!("host-{id}"));
        let listener = machine.network.listen(&format!("host-{id}:9093")).await.expect("the port is free");
        let started = ControllerNode::start_member(config, listener, machine).await.expect("it starts");
        self.members.insert(id, started);
    }

    /// Ends a member from one moment to the next.
    pub(crate) async fn kill(&mut self, id: NodeId) {
        let (node, handle) = self.members.remove(&id).expect("it runs");
        self.net.kill(&format!("host-{id}"));
        drop(handle);
        node.shutdown().await;
    }

    pub(crate) fn handle(&self, id: NodeId) -> ControllerHandle {
        self.members[&id].1.clone()
    }

    pub(crate) fn quorum(&self, id: NodeId) -> Quorum {
        self.members[&id].1.router.local.as_ref().expect("it is a member").quorum.clone()
    }

    /// Those that run and believe that they lead and may take commands.
    pub(crate) fn leaders(&self) -> Vec<NodeId> {
        self.members.keys().copied().filter(|id| self.quorum(*id).term_if_leader().is_some()).collect()
    }

    /// Waits until one of `among` leads.
    pub(crate) async fn leader(&self, among: &[NodeId]) -> NodeId {
        let found = async {
            loop {
                let leads = |id: &&NodeId| self.quorum(**id).term_if_leader().is_some();
                if let Some(leader) = among.iter().find(leads) {
                    return *leader;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), found).await.expect("a leader within a minute")
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.members.keys().copied().collect()
    }

    /// Allocates something through `id`, whoever leads.
    pub(crate) async fn write(&self, id: NodeId, name: &str) -> Result<(), SubmitError> {
        write(&self.handle(id), &self.entropy, name, Duration::from_secs(30)).await
    }

    /// Waits until the images of all members that run are equal.
    pub(crate) async fn agreed(&self) -> Arc<Image> {
        let start = Instant::now();
        loop {
            let mut images = self.members.values().map(|(_, handle)| handle.image());
            let first = images.next().expect("one runs");
            if images.all(|image| image == first) {
                return first;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "the members do not agree");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A change that shows in the image: a config of a topic that need not exist.
pub(crate) async fn write(
    handle: &ControllerHandle,
    entropy: &SeededEntropy,
    name: &str,
    within: Duration,
) -> Result<(), SubmitError> {
    let form = crate::command::FormCluster { cluster_id: "test".to_owned(), features: vec![(name.to_owned(), 1)] };
    let _ = entropy.next_u64();
    handle.submit_within(Command::FormCluster(form), within).await.map(drop)
}
