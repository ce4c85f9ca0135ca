//! Several members in one process: a network in memory whose links can be cut, and members that can be killed and
//! started again. Under the paused clock a whole run takes milliseconds, and a seed fixes it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proto::host::{ManualClock, SeededEntropy, Spawner};
use proto::ids::{DirectoryId, NodeId, Uuid};
use proto::metadata::{ConfigKind, ConfigResource, Image};
use tempfile::TempDir;
use tokio::time::Instant;

use super::network::Net;
use crate::command::{AlterConfigs, ConfigChange, ConfigOp, Mode};
use crate::duties::Settings;
use crate::peers::Peers;
use crate::raft::Quorum;
use crate::{Command, ControllerHandle, ControllerNode, Machine, MemberConfig, Policy, SubmitError, Timings, Wire};

/// A quorum of members `0..n`.
pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) wire: Wire,
    pub(crate) voters: BTreeMap<NodeId, String>,
    pub(crate) members: BTreeMap<NodeId, (ControllerNode, ControllerHandle)>,
    dirs: BTreeMap<NodeId, TempDir>,
    /// Each start of a member has randomness of its own.
    seed: u64,
}

impl World {
    /// Members that have not been started.
    pub(crate) fn new(members: i32, wire: Wire, seed: u64) -> Self {
        let voters = (0..members).map(|id| (NodeId(id), format!("host-{id}:9093"))).collect();
        let dirs = (0..members).map(|id| (NodeId(id), tempfile::tempdir().expect("a temporary directory")));
        Self { net: Net::default(), wire, voters, members: BTreeMap::new(), dirs: dirs.collect(), seed }
    }

    /// A place for a member that is not among the voters yet; its id.
    pub(crate) fn newcomer(&mut self) -> NodeId {
        let id = NodeId(self.dirs.len() as i32);
        self.dirs.insert(id, tempfile::tempdir().expect("a temporary directory"));
        id
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
            entropy: Arc::new(SeededEntropy::new(self.seed ^ host.bytes().map(u64::from).sum::<u64>())),
            spawner: Spawner::simulated(tokio::runtime::Handle::current()),
            network: Arc::new(self.net.host(host)),
            wire: self.wire,
            storage: crate::Storage::default(),
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
            policy: Policy::default(),
            duties: Settings::default(),
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

    /// The way of a member to others.
    pub(crate) fn peers(&self, id: NodeId) -> Peers {
        let local = self.members[&id].1.router.local.as_ref().expect("it is a member");
        local.peers.clone().expect("it has a control listener")
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

    /// Writes `name` through `id`, whoever leads.
    pub(crate) async fn write(&self, id: NodeId, name: &str) -> Result<(), SubmitError> {
        write(&self.handle(id), name, Duration::from_secs(30)).await
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

/// What tests write: a config named `name` of a group that need not exist.
pub(crate) async fn write(handle: &ControllerHandle, name: &str, within: Duration) -> Result<(), SubmitError> {
    let change = ConfigChange::Incremental(vec![(name.to_owned(), ConfigOp::Set("1".to_owned()))]);
    let alter = AlterConfigs { resources: vec![(written(), change)], mode: Mode::Commit };
    handle.submit_within(Command::AlterConfigs(alter), within).await.map(drop)
}

/// Whether `image` shows that `name` was written.
pub(crate) fn shows(image: &Image, name: &str) -> bool {
    image.configs(&written()).is_some_and(|values| values.contains_key(name))
}

fn written() -> ConfigResource {
    ConfigResource { kind: ConfigKind::Group, name: "written".to_owned() }
}
