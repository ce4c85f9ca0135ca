//! The machines of a run, and what each fault does to them.

use super::faults::{Fault, NodeIndex, Timed};
use super::monitor::Monitor;
use super::net::{Links, SimNetwork};
use super::objects::SimObjects;
use super::run::Plan;
use super::store::SimStore;
use super::trace::Trace;
use broker::config::server::{ServerConfig, Sources};
use broker::disk::sim::Fault as DiskFault;
use broker::disk::{Disk, Operation, SimDisk};
use broker::node::{self, Host, Node, Objects};
use controller::{Storage, Wire};
use parking_lot::Mutex;
use proto::host::{Clock, SeededEntropy, Spawner};
use proto::ids::Millis;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use turmoil::Sim;

/// 2026-01-01, when every simulation begins, in Unix milliseconds.
const EPOCH_MS: Millis = 1_767_225_600_000;
/// A process that ended by itself is started again after so long.
const RESTART_AFTER: Duration = Duration::from_millis(500);
/// Id of every simulated cluster.
pub const CLUSTER: &str = "Zmlybi1zaW11bGF0aW9uMQ";
/// The host that clients run on.
pub const CLIENTS: &str = "clients";
/// The longest an operation of a disk takes while nothing is wrong.
const DISK_LATENCY: Duration = Duration::from_micros(2_000);
/// Entries of the quorum's log between two snapshots, and how many are kept behind one: few, as runs are short.
const SNAPSHOT_EVERY: u64 = 24;
const SNAPSHOT_KEEPS: u64 = 8;
/// Room on a disk that is full.
const FULL_BYTES: u64 = 1;

/// A wall clock: simulated time, and how far it is off.
#[derive(Debug, Default)]
struct SimClock {
    off_ms: Mutex<Millis>,
}

impl Clock for SimClock {
    fn now_ms(&self) -> Millis {
        let since = turmoil::sim_elapsed().unwrap_or_default().as_millis();
        EPOCH_MS + Millis::try_from(since).unwrap_or(0) + *self.off_ms.lock()
    }
}

/// One machine.
struct Machine {
    name: String,
    address: IpAddr,
    shared: Arc<Shared>,
    /// Why it is down, by number of the fault; it comes back when the last one has ended.
    down: Vec<usize>,
    /// When its process is started again after it ended by itself.
    restart_at: Option<Duration>,
}

/// What the process on a machine is started with.
struct Shared {
    state: Mutex<State>,
    clock: Arc<SimClock>,
}

struct State {
    disk: SimDisk,
    /// How often it was replaced by an empty one.
    disks: u64,
    /// The quorum's store, which does not lie on `disk`.
    store: Arc<SimStore>,
    up: bool,
    /// How often it was started.
    starts: u64,
    /// How often the machine lost power.
    boots: u64,
    /// Why the process ended by itself, once it has.
    ended: Option<String>,
}

impl State {
    /// The process is gone; what it wrote is not.
    fn restart_process(&mut self) {
        self.disk = self.disk.restart_process();
        self.store = self.store.restart_process();
    }
}

/// All machines, and everything between them.
pub struct World {
    seed: u64,
    /// How many of the first machines vote in the quorum.
    voters: usize,
    machines: Vec<Machine>,
    links: Links,
    objects: SimObjects,
    trace: Trace,
    clients: IpAddr,
    /// How many faults cut a direction.
    cuts: BTreeMap<(IpAddr, IpAddr), u32>,
    held: Vec<(usize, IpAddr, IpAddr)>,
}

/// The disk of a machine, empty: the first, or one that takes the place of another.
fn disk(seed: u64, index: NodeIndex, number: u64) -> SimDisk {
    let disk = SimDisk::new(seed ^ (index as u64 + 1) << 32 ^ number << 52);
    disk.set_latency(DISK_LATENCY);
    disk
}

/// Where node `index` serves clients.
pub fn address(index: NodeIndex) -> String {
    format!("node-{index}:9092")
}

impl World {
    /// Puts up the machines of a plan and starts a process on each.
    pub fn new(sim: &mut Sim<'_>, plan: &Plan, monitor: &Monitor, trace: Trace) -> World {
        let Plan { seed, nodes, .. } = *plan;
        let links = Links::default();
        let objects = SimObjects::new(seed ^ 0x000b_1ec7);
        let mut machines = Vec::new();
        for index in 0..nodes {
            let name = format!("node-{index}");
            let disk = disk(seed, index, 0);
            let state = State { disk, disks: 0, store: Arc::default(), up: true, starts: 0, boots: 0, ended: None };
            let shared = Arc::new(Shared { state: Mutex::new(state), clock: Arc::default() });
            let (links, objects, of, plan) = (links.clone(), objects.clone(), Arc::clone(&shared), plan.clone());
            let monitor = monitor.clone();
            sim.host(name.as_str(), move || {
                let process = Process {
                    index,
                    plan: plan.clone(),
                    shared: Arc::clone(&of),
                    links: links.clone(),
                    objects: objects.clone(),
                    monitor: monitor.clone(),
                };
                process.run()
            });
            let address = sim.lookup(name.as_str());
            machines.push(Machine { name, address, shared, down: Vec::new(), restart_at: None });
        }
        let clients = sim.lookup(CLIENTS);
        let voters = plan.voters();
        World { seed, voters, machines, links, objects, trace, clients, cuts: BTreeMap::new(), held: Vec::new() }
    }

    /// The network as clients see it.
    pub fn network(&self) -> SimNetwork {
        SimNetwork::new(CLIENTS, self.links.clone())
    }

    /// The object store.
    pub fn objects(&self) -> &SimObjects {
        &self.objects
    }

    /// A checksum over all that the disks were asked and answered.
    pub fn fingerprints(&self) -> Vec<u32> {
        self.machines.iter().map(|machine| machine.shared.state.lock().disk.fingerprint()).collect()
    }

    /// Lets a fault begin.
    pub fn begin(&mut self, sim: &mut Sim<'_>, timed: &Timed) {
        self.trace.note(&format!("{:?} begins: {timed}", sim.elapsed()));
        let number = timed.number;
        match &timed.fault {
            Fault::Kill(node) => self.kill(sim, *node, number),
            Fault::PowerLoss(node) => self.cut_power(sim, *node, number),
            Fault::NewDisk(node) => {
                self.kill(sim, *node, number);
                if *node >= self.voters {
                    self.replace_disk(*node);
                }
            }
            Fault::Blackout => (0..self.machines.len()).for_each(|node| self.cut_power(sim, node, number)),
            Fault::Isolate(_) | Fault::Cut(..) | Fault::CutOneWay(..) | Fault::Split(_) => {
                for (from, to) in self.directions(&timed.fault) {
                    self.cut(sim, from, to);
                }
            }
            Fault::Hold(a, b) => {
                let (a, b) = (self.machines[*a].address, self.machines[*b].address);
                let busy =
                    self.is_cut(a, b) || self.held.iter().any(|(_, c, d)| (*c, *d) == (a, b) || (*c, *d) == (b, a));
                if !busy {
                    sim.hold(a, b);
                    self.held.push((number, a, b));
                }
            }
            Fault::SlowLink(a, b, ms) => {
                let (a, b) = (self.machines[*a].address, self.machines[*b].address);
                sim.set_link_latency(a, b, Duration::from_millis(*ms));
            }
            Fault::FullDisk(node) => self.disk(*node).set_capacity(FULL_BYTES),
            Fault::SlowDisk(node, ms) => self.disk(*node).set_latency(Duration::from_millis(*ms)),
            Fault::FailedSync(node) => {
                let path = String::new();
                let fault = DiskFault { operation: Operation::Sync, path, skip: 0, times: 1, errno: Errno::IO };
                self.disk(*node).inject(fault);
            }
            Fault::ClockOff(node, ms) => *self.machines[*node].shared.clock.off_ms.lock() = *ms,
            Fault::StoreErrs(per_mille) => self.objects.set_errors(*per_mille),
            Fault::StoreHangs => self.objects.set_hanging(true),
        }
    }

    /// Lets a fault end.
    pub fn end(&mut self, sim: &mut Sim<'_>, timed: &Timed) {
        self.trace.note(&format!("{:?} ends: {timed}", sim.elapsed()));
        let number = timed.number;
        match &timed.fault {
            Fault::Kill(node) | Fault::NewDisk(node) => self.come_back(sim, *node, number),
            Fault::PowerLoss(node) => self.power_on(sim, *node, number),
            Fault::Blackout => (0..self.machines.len()).for_each(|node| self.power_on(sim, node, number)),
            Fault::Isolate(_) | Fault::Cut(..) | Fault::CutOneWay(..) | Fault::Split(_) => {
                for (from, to) in self.directions(&timed.fault) {
                    self.heal(sim, from, to);
                }
            }
            Fault::Hold(..) => {
                let (ours, others) = std::mem::take(&mut self.held).into_iter().partition(|(of, ..)| *of == number);
                self.held = others;
                let ours: Vec<(usize, IpAddr, IpAddr)> = ours;
                ours.into_iter().for_each(|(_, a, b)| sim.release(a, b));
            }
            Fault::SlowLink(a, b, _) => {
                let (a, b) = (self.machines[*a].address, self.machines[*b].address);
                sim.set_link_latency(a, b, Duration::from_millis(1));
            }
            Fault::FullDisk(node) => self.disk(*node).set_capacity(u64::MAX),
            Fault::SlowDisk(node, _) => self.disk(*node).set_latency(DISK_LATENCY),
            Fault::FailedSync(node) => self.disk(*node).heal(),
            Fault::ClockOff(node, _) => *self.machines[*node].shared.clock.off_ms.lock() = 0,
            Fault::StoreErrs(_) => self.objects.set_errors(0),
            Fault::StoreHangs => self.objects.set_hanging(false),
        }
    }

    /// Starts processes again that ended by themselves, as whoever runs them would. To be called once a tick.
    pub fn supervise(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        for machine in &mut self.machines {
            if let Some(why) = machine.shared.state.lock().ended.take() {
                self.trace.note(&format!("{now:?} {} ended by itself: {why}", machine.name));
                machine.restart_at = Some(now + RESTART_AFTER);
            }
            if machine.down.is_empty() && machine.restart_at.is_some_and(|at| at <= now) {
                machine.restart_at = None;
                {
                    let mut state = machine.shared.state.lock();
                    state.restart_process();
                }
                sim.bounce(machine.name.as_str());
            }
        }
    }

    fn disk(&self, node: NodeIndex) -> SimDisk {
        self.machines[node].shared.state.lock().disk.clone()
    }

    /// Ends the process; whoever connects to its machine is refused.
    fn kill(&mut self, sim: &mut Sim<'_>, node: NodeIndex, number: usize) {
        let machine = &mut self.machines[node];
        machine.down.push(number);
        if machine.down.len() > 1 {
            return;
        }
        {
            let mut state = machine.shared.state.lock();
            state.up = false;
            state.restart_process();
        }
        // The machine goes on without the process.
        sim.crash(machine.name.as_str());
        sim.bounce(machine.name.as_str());
    }

    fn replace_disk(&mut self, node: NodeIndex) {
        let mut state = self.machines[node].shared.state.lock();
        state.disks += 1;
        state.disk = disk(self.seed, node, state.disks);
    }

    fn come_back(&mut self, sim: &mut Sim<'_>, node: NodeIndex, number: usize) {
        let machine = &mut self.machines[node];
        machine.down.retain(|of| *of != number);
        if machine.down.is_empty() {
            machine.shared.state.lock().up = true;
            machine.restart_at = None;
            sim.bounce(machine.name.as_str());
        }
    }

    /// Nobody hears of it: what the machine had sent may arrive, and then nothing does.
    fn cut_power(&mut self, sim: &mut Sim<'_>, node: NodeIndex, number: usize) {
        for other in self.others(node) {
            let here = self.machines[node].address;
            self.cut(sim, here, other);
            self.cut(sim, other, here);
        }
        let machine = &mut self.machines[node];
        machine.down.push(number);
        let mut state = machine.shared.state.lock();
        state.up = false;
        state.disk = state.disk.restart();
        state.boots += 1;
        state.store = state.store.restart(self.seed ^ (node as u64 + 1) << 48 ^ state.boots);
        drop(state);
        sim.crash(machine.name.as_str());
        sim.bounce(machine.name.as_str());
    }

    fn power_on(&mut self, sim: &mut Sim<'_>, node: NodeIndex, number: usize) {
        for other in self.others(node) {
            let here = self.machines[node].address;
            self.heal(sim, here, other);
            self.heal(sim, other, here);
        }
        self.come_back(sim, node, number);
    }

    /// Every other machine, the clients' included.
    fn others(&self, node: NodeIndex) -> Vec<IpAddr> {
        let others = self.machines.iter().enumerate().filter(|(index, _)| *index != node);
        others.map(|(_, machine)| machine.address).chain([self.clients]).collect()
    }

    /// The directions that a fault of the network closes.
    fn directions(&self, fault: &Fault) -> Vec<(IpAddr, IpAddr)> {
        let at = |node: &NodeIndex| self.machines[*node].address;
        let both = |a: IpAddr, b: IpAddr| [(a, b), (b, a)];
        match fault {
            Fault::Isolate(node) => self.others(*node).into_iter().flat_map(|other| both(at(node), other)).collect(),
            Fault::Cut(a, b) => both(at(a), at(b)).to_vec(),
            Fault::CutOneWay(a, b) => vec![(at(a), at(b))],
            Fault::Split(side) => {
                let rest: Vec<NodeIndex> = (0..self.machines.len()).filter(|node| !side.contains(node)).collect();
                let pairs = side.iter().flat_map(|a| rest.iter().map(move |b| (a, b)));
                pairs.flat_map(|(a, b)| both(at(a), at(b))).collect()
            }
            _ => Vec::new(),
        }
    }

    fn is_cut(&self, a: IpAddr, b: IpAddr) -> bool {
        self.cuts.contains_key(&(a, b)) || self.cuts.contains_key(&(b, a))
    }

    fn cut(&mut self, sim: &mut Sim<'_>, from: IpAddr, to: IpAddr) {
        // Both at once is more than the network can do.
        let pair = |(_, a, b): &(usize, IpAddr, IpAddr)| (*a, *b) == (from, to) || (*a, *b) == (to, from);
        if self.held.iter().any(pair) {
            self.held.retain(|held| !pair(held));
            sim.release(from, to);
        }
        let count = self.cuts.entry((from, to)).or_default();
        *count += 1;
        if *count == 1 {
            self.links.cut(from, to);
            sim.partition_oneway(from, to);
        }
    }

    fn heal(&mut self, sim: &mut Sim<'_>, from: IpAddr, to: IpAddr) {
        let Some(count) = self.cuts.get_mut(&(from, to)) else { return };
        *count -= 1;
        if *count == 0 {
            self.cuts.remove(&(from, to));
            sim.repair_oneway(from, to);
            self.links.heal(from, to);
        }
    }
}

/// A process of Firn on a machine.
struct Process {
    index: NodeIndex,
    plan: Plan,
    shared: Arc<Shared>,
    links: Links,
    objects: SimObjects,
    monitor: Monitor,
}

impl Process {
    async fn run(self) -> turmoil::Result {
        let Some(booted) = self.boot() else { return std::future::pending().await };
        let why = match self.serve(booted).await {
            Ok(why) | Err(why) => why,
        };
        self.shared.state.lock().ended = Some(why);
        // Its supervisor ends what is left of it.
        std::future::pending().await
    }

    /// The disk, the quorum's store, and which start this is; none while the machine is down.
    fn boot(&self) -> Option<(SimDisk, Arc<SimStore>, u64)> {
        let mut state = self.shared.state.lock();
        if !state.up {
            return None;
        }
        state.starts += 1;
        Some((state.disk.clone(), Arc::clone(&state.store), state.starts))
    }

    /// Serves until it cannot go on, and says why.
    async fn serve(&self, (disk, store, start): (SimDisk, Arc<SimStore>, u64)) -> Result<String, String> {
        // The quorum's store does not lie on the simulated disk. That it is there must be seen on it, too.
        let metadata = self.plan.home.join(format!("node-{}", self.index)).join("metadata");
        if metadata.is_dir() {
            disk.create_dir_all(&metadata).await.map_err(|error| error.to_string())?;
        }
        let host = Host {
            clock: Arc::clone(&self.shared.clock) as Arc<dyn Clock>,
            entropy: Arc::new(SeededEntropy::new(self.plan.seed ^ (self.index as u64 + 1) << 40 ^ start << 8)),
            spawner: Spawner::simulated(tokio::runtime::Handle::current()),
            network: Arc::new(SimNetwork::new(format!("node-{}", self.index), self.links.clone())),
            wire: Wire::Frames,
            boot: format!("boot {}", self.shared.state.lock().boots),
            disk: Arc::new(disk),
            metadata: Storage { file: Some(store), snapshot_every: SNAPSHOT_EVERY, keep: SNAPSHOT_KEEPS },
            objects: Objects::Given(self.objects.client()),
        };
        let config = config(self.index, &self.plan)?;
        if self.plan.nodes > 1 {
            node::format(&config, &host, CLUSTER).await.map_err(|error| error.to_string())?;
        }
        let node = Node::start(config, host).await.map_err(|error| error.to_string())?;
        if let (Some(images), Some(partitions)) = (node.images(), node.partitions()) {
            tokio::spawn(self.monitor.clone().follow(self.index, images, partitions));
        }
        tracing::info!(start, "serves");
        Ok(node.failed().await)
    }
}

/// The configuration of node `index`.
fn config(index: NodeIndex, plan: &Plan) -> Result<ServerConfig, String> {
    let mut presets = vec![
        ("node.id", index.to_string()),
        ("advertised.listeners", format!("PLAINTEXT://{}", address(index))),
        ("log.dirs", plan.home.join(format!("node-{index}")).display().to_string()),
        ("firn.http.listeners", String::new()),
        ("firn.object.store", "memory:".to_owned()),
        ("firn.journal.file.bytes", (1 << 20).to_string()),
        ("firn.journal.bytes", (32 << 20).to_string()),
        ("firn.tier.check.interval.ms", "200".to_owned()),
        ("firn.tier.delete.grace.ms", "2000".to_owned()),
        ("replica.lag.time.max.ms", "3000".to_owned()),
        ("log.retention.check.interval.ms", "1000".to_owned()),
        ("firn.disk.reserve.bytes", "0".to_owned()),
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
        ("offsets.topic.num.partitions", "2".to_owned()),
        ("min.insync.replicas", plan.nodes.min(2).to_string()),
    ];
    let votes = index < plan.voters();
    if plan.nodes > 1 {
        let voters: Vec<String> = (0..plan.voters()).map(|voter| format!("{voter}@node-{voter}:9093")).collect();
        presets.push(("controller.quorum.voters", voters.join(",")));
        presets.push(("controller.listener.names", "CONTROLLER".to_owned()));
        presets.push(("process.roles", if votes { "broker,controller" } else { "broker" }.to_owned()));
    }
    let control = if plan.nodes > 1 && votes { ",CONTROLLER://0.0.0.0:9093" } else { "" };
    presets.push(("listeners", format!("PLAINTEXT://0.0.0.0:9092{control}")));
    let presets = presets.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let loaded = ServerConfig::load(&Sources { presets, ..Sources::default() });
    loaded.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}
