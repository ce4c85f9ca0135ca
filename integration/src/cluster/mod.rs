//! A cluster of real processes, each a `firn server` with a file of its own, and what one does to them: kill, stop, continue,
//! end, start again, cut off from each other, add more.

mod dev;
mod lan;
mod plan;

pub use dev::{Dev, Member};
pub use lan::{Cut, Lan};
pub use plan::{CONTROLLERS_FROM, Roles, Shape, free_ports};

use crate::client::{Client, ClientError};
use crate::process::{Firn, Running, StartError};
use plan::NodePlan;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A node ends in order within 30 s. Generous, for tests run beside others on few cores.
const END: Duration = Duration::from_secs(60);
/// The id that the directories of controllers are formatted for.
pub const CLUSTER_ID: &str = "firn-integration";

/// What a node does when it is told so by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// Ends without warning (`kill -9`).
    Kill,
    /// Stands still, connections open (SIGSTOP).
    Stop,
    /// Goes on (SIGCONT).
    Continue,
    /// Ends in order (SIGTERM).
    End,
}

/// How to make a cluster.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The binary that cargo built for the test.
    pub built: String,
    /// Everything is kept below, the bucket in `bucket`, node `I` in `node-I`.
    pub home: PathBuf,
    /// Which nodes.
    pub shape: Shape,
    /// Settings of all nodes, under Kafka's names.
    pub settings: Vec<(String, String)>,
    /// Data directories of nodes that do not lie where the others' do.
    pub elsewhere: BTreeMap<i32, PathBuf>,
    /// Exactly this binary, whatever the environment says.
    pub binary: Option<PathBuf>,
}

/// A node, whether it runs or not.
#[derive(Debug)]
struct Node {
    plan: NodePlan,
    firn: Firn,
    running: Option<Running>,
}

/// A running cluster. Dropping it kills every process.
#[derive(Debug)]
pub struct Cluster {
    plan: Plan,
    nodes: BTreeMap<i32, Node>,
    /// `id@host:port` of the first voters.
    voters: Vec<String>,
    /// Last, as it outlives the processes in it.
    lan: Option<Lan>,
}

impl Cluster {
    /// Formats the directories of the controllers, starts all nodes on loopback and waits until all serve.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(plan: Plan) -> Result<Cluster, StartError> {
        Cluster::start_on(plan, None).await
    }

    /// The same with each node on a machine of its own, as far as the network is concerned.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_on(plan: Plan, lan: Option<Lan>) -> Result<Cluster, StartError> {
        let shape = plan.shape;
        let mut cluster = Cluster { plan, nodes: BTreeMap::new(), voters: Vec::new(), lan };
        let mut plans = Vec::new();
        for (id, roles) in shape.nodes() {
            plans.push(cluster.lay_out(id, roles)?);
        }
        cluster.voters = plans
            .iter()
            .filter(|node| node.roles.controls())
            .map(|node| format!("{}@{}", node.id, node.control))
            .collect();
        let voters = format!("controller.quorum.voters = \"{}\"", cluster.voters.join(","));
        for node in plans {
            let id = node.id;
            cluster.write(node, &voters)?;
            cluster.format(id).await?;
        }
        cluster.start_all().await?;
        Ok(cluster)
    }

    fn lay_out(&mut self, id: i32, roles: Roles) -> io::Result<NodePlan> {
        let data = self.plan.elsewhere.get(&id).cloned();
        let data = data.unwrap_or_else(|| self.plan.home.join(format!("node-{id}")));
        match &mut self.lan {
            None => {
                let port = free_ports(3)?;
                Ok(NodePlan::new(id, roles, data, "127.0.0.1", [port, port + 1, port + 2]))
            }
            Some(lan) => {
                let host = lan.add(id)?;
                Ok(NodePlan::new(id, roles, data, &host, [9092, 9093, 9644]))
            }
        }
    }

    /// Writes the file of a node, which finds the quorum by the line `quorum`.
    fn write(&mut self, node: NodePlan, quorum: &str) -> io::Result<()> {
        let file = self.plan.home.join(format!("node-{}.toml", node.id));
        let log = self.plan.home.join(format!("node-{}.log", node.id));
        std::fs::create_dir_all(&self.plan.home)?;
        std::fs::write(&file, node.configuration(&self.plan.home.join("bucket"), quorum, &self.plan.settings))?;
        let mut firn = Firn::new(&self.plan.built, &log, &["server", "--config"]).arg(&file.display().to_string());
        if let Some(binary) = &self.plan.binary {
            firn = firn.binary(binary);
        }
        if let Some(lan) = &self.lan {
            firn = firn.within(&lan.entry(node.id));
        }
        self.nodes.insert(node.id, Node { plan: node, firn, running: None });
        Ok(())
    }

    /// Formats a controller's directory.
    async fn format(&self, id: i32) -> Result<(), StartError> {
        let node = self.node(id)?;
        if !node.plan.roles.controls() {
            return Ok(());
        }
        let finished = self.firn(&["cluster", "format", "--cluster-id", CLUSTER_ID, "--config"], id)?.finish().await?;
        match finished.status.success() {
            true => Ok(()),
            false => Err(StartError::Ended { status: finished.status, said: finished.stderr }),
        }
    }

    /// Starts all nodes that do not run, at once, and waits until they serve.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_all(&mut self) -> Result<(), StartError> {
        let mut starting = Vec::new();
        for (id, node) in &self.nodes {
            if node.running.is_none() {
                starting.push((*id, node.firn.spawn()?));
            }
        }
        let ready = starting.into_iter().map(|(id, starting)| async move { (id, starting.ready().await) });
        for (id, running) in futures::future::join_all(ready).await {
            self.nodes.get_mut(&id).ok_or_else(|| unknown(id))?.running = Some(running?);
        }
        Ok(())
    }

    /// `firn` with `arguments` and the file of a node: another process than the node's.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn firn(&self, arguments: &[&str], id: i32) -> io::Result<Firn> {
        self.node(id)?;
        let home = &self.plan.home;
        let file = home.join(format!("node-{id}.toml"));
        Ok(Firn::new(&self.plan.built, &home.join("commands.log"), arguments).arg(&file.display().to_string()))
    }

    /// A `firn server` that is no node of this cluster yet: its configuration is `text` with the settings of all nodes. For starts
    /// that are to fail.
    ///
    /// # Errors
    /// If its file cannot be written.
    pub fn stranger(&self, name: &str, text: &str) -> io::Result<Firn> {
        let file = self.plan.home.join(format!("{name}.toml"));
        std::fs::write(&file, text)?;
        let log = self.plan.home.join(format!("{name}.log"));
        Ok(Firn::new(&self.plan.built, &log, &["server", "--config"]).arg(&file.display().to_string()))
    }

    fn node(&self, id: i32) -> io::Result<&Node> {
        self.nodes.get(&id).ok_or_else(|| unknown(id))
    }

    /// Brokers, by id, running or not.
    pub fn brokers(&self) -> Vec<i32> {
        self.nodes.values().filter(|node| node.plan.roles.serves()).map(|node| node.plan.id).collect()
    }

    /// Controllers, by id, running or not.
    pub fn controllers(&self) -> Vec<i32> {
        self.nodes.values().filter(|node| node.plan.roles.controls()).map(|node| node.plan.id).collect()
    }

    /// Everything is kept below it.
    pub fn home(&self) -> &Path {
        &self.plan.home
    }

    /// The text of a node's configuration file.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn configuration(&self, id: i32) -> io::Result<String> {
        self.node(id)?;
        std::fs::read_to_string(self.plan.home.join(format!("node-{id}.toml")))
    }

    /// Where a node keeps its data.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn data(&self, id: i32) -> io::Result<&Path> {
        Ok(&self.node(id)?.plan.data)
    }

    /// Where clients connect to a broker: `host:port`.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn kafka(&self, id: i32) -> io::Result<&str> {
        Ok(&self.node(id)?.plan.kafka)
    }

    /// Where a node serves metrics and health: `host:port`.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn http(&self, id: i32) -> io::Result<&str> {
        Ok(&self.node(id)?.plan.http)
    }

    /// Where clients may begin: all brokers.
    pub fn bootstrap(&self) -> Vec<String> {
        self.nodes.values().filter(|node| node.plan.roles.serves()).map(|node| node.plan.kafka.clone()).collect()
    }

    /// Where a node that joins may begin: all controllers.
    pub fn control(&self) -> Vec<String> {
        self.nodes.values().filter(|node| node.plan.roles.controls()).map(|node| node.plan.control.clone()).collect()
    }

    /// What a node has logged so far.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn log(&self, id: i32) -> io::Result<String> {
        Ok(self.node(id)?.firn.log())
    }

    /// The network between the nodes, if it is one of their own.
    pub fn lan(&self) -> Option<&Lan> {
        self.lan.as_ref()
    }

    /// Sends a node's process what makes it do this. A process that is gone takes nothing.
    ///
    /// # Errors
    /// If there is no such node, or the system refuses.
    pub fn strike(&self, id: i32, blow: Blow) -> io::Result<()> {
        let pid = self.node(id)?.running.as_ref().and_then(Running::pid).and_then(|pid| i32::try_from(pid).ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { return Ok(()) };
        let signal = match blow {
            Blow::Kill => Signal::KILL,
            Blow::Stop => Signal::STOP,
            Blow::Continue => Signal::CONT,
            Blow::End => Signal::TERM,
        };
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Strikes a node and waits for its end: how it ended.
    async fn end_by(&mut self, id: i32, blow: Blow) -> io::Result<ExitStatus> {
        self.strike(id, blow)?;
        let node = self.nodes.get_mut(&id).ok_or_else(|| unknown(id))?;
        let mut running = node.running.take().ok_or_else(|| io::Error::other(format!("node {id} does not run")))?;
        running.wait(END).await
    }

    /// `kill -9`; returns when the process is gone.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill(&mut self, id: i32) -> io::Result<()> {
        self.end_by(id, Blow::Kill).await.map(drop)
    }

    /// Ends a node in order (SIGTERM).
    ///
    /// # Errors
    /// If it does not run, or does not end.
    pub async fn end(&mut self, id: i32) -> io::Result<ExitStatus> {
        self.end_by(id, Blow::End).await
    }

    /// Waits until a node ends by itself: how it did.
    ///
    /// # Errors
    /// If it does not.
    pub async fn ends(&mut self, id: i32) -> io::Result<ExitStatus> {
        let node = self.nodes.get_mut(&id).ok_or_else(|| unknown(id))?;
        let mut running = node.running.take().ok_or_else(|| io::Error::other(format!("node {id} does not run")))?;
        running.wait(END).await
    }

    /// Whether a node's process is there.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn runs(&mut self, id: i32) -> io::Result<bool> {
        let node = self.nodes.get_mut(&id).ok_or_else(|| unknown(id))?;
        match &mut node.running {
            Some(running) => Ok(running.ended()?.is_none()),
            None => Ok(false),
        }
    }

    /// Starts a node again that was ended, and waits until it serves.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn restart(&mut self, id: i32) -> Result<(), StartError> {
        let node = self.nodes.get_mut(&id).ok_or_else(|| unknown(id))?;
        node.running = Some(node.firn.start().await?);
        Ok(())
    }

    /// A node runs this binary from its next start on.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn install(&mut self, id: i32, binary: &Path) -> io::Result<()> {
        let node = self.nodes.get_mut(&id).ok_or_else(|| unknown(id))?;
        node.firn = node.firn.clone().binary(binary);
        Ok(())
    }

    /// Runs a node to its end, as one that cannot start: what it said.
    ///
    /// # Errors
    /// If there is no such node, or it does not end.
    pub async fn fails(&self, id: i32) -> io::Result<crate::process::Finished> {
        self.node(id)?.firn.finish().await
    }

    /// Starts a broker that joins by the addresses of the controllers alone, and waits until it serves.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn join(&mut self, id: i32) -> Result<(), StartError> {
        self.join_as(id, Roles::Broker).await
    }

    /// [`Cluster::join`] with any roles. A controller's directory is formatted, and it gets no vote by itself.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn join_as(&mut self, id: i32, roles: Roles) -> Result<(), StartError> {
        let node = self.lay_out(id, roles)?;
        let quorum = format!("controller.quorum.bootstrap.servers = \"{}\"", self.control().join(","));
        self.write(node, &quorum)?;
        self.format(id).await?;
        self.restart(id).await
    }

    /// Where a controller listens for the others: `host:port`.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn control_of(&self, id: i32) -> io::Result<&str> {
        Ok(&self.node(id)?.plan.control)
    }

    /// Takes a node that was ended off the list.
    pub fn forget(&mut self, id: i32) {
        self.nodes.remove(&id);
    }

    /// A connection to a broker.
    ///
    /// # Errors
    /// If it does not come about.
    pub async fn connect_to(&self, id: i32) -> Result<Client, ClientError> {
        let address = self.kafka(id)?.to_owned();
        Client::connect_over(&proto::host::TcpNetwork, &address).await
    }

    /// A connection to any broker that takes one.
    ///
    /// # Errors
    /// If none does for too long.
    pub async fn connect(&self, within: Duration) -> Result<Client, ClientError> {
        let deadline = Instant::now() + within;
        loop {
            let mut last = None;
            for node in self.nodes.values().filter(|node| node.plan.roles.serves() && node.running.is_some()) {
                match Client::connect_over(&proto::host::TcpNetwork, &node.plan.kafka).await {
                    Ok(client) => return Ok(client),
                    Err(error) => last = Some(error),
                }
            }
            if Instant::now() >= deadline {
                return Err(last.unwrap_or(ClientError::Silent));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

fn unknown(id: i32) -> io::Error {
    io::Error::other(format!("there is no node {id}"))
}
