//! A model of one partition on three brokers: the real decisions of the controller (`decide`) and the real cores of the replicas, between
//! them messages that are lost, late or out of order, crashes, power cuts, replaced disks and commits of the tier.
//!
//! What holds after every step: what was committed once stays what it is, on every replica in sync, on every eligible leader and in the
//! tier (ACKED, TIER-IS-TRUTH); a leader epoch has one leader (ONE-LEADER).

use broker::log::batch::BatchMeta;
use broker::log::config::LogConfig;
use broker::log::epochs::EpochCache;
use broker::log::layout::Place;
use broker::log::producers::Producers;
use broker::log::snapshot::Snapshot;
use broker::partition::core::{
    Check, Contradiction, Core, Cut, Event, IsrProposal, IsrRefused, LeaderSaid, ReplicaFetched, Restored, TierEnd,
    Truncation,
};
use broker::partition::{Leadership, Origin, ReplicaInfo};
use controller::command::{
    AlterPartitions, BrokerState, Clean, Command, CreateTopics, FormCluster, IsrChange, Mode, NewTopic, Outcome,
    RegisterBroker, SetBrokerState, Shortage, TierCommit,
};
use controller::decide;
use controller::decide::{Policy, supported_features};
use proptest::prelude::*;
use proto::ids::{DirectoryId, LeaderEpoch, Millis, NodeId, Offset, TopicId, TopicPartition, Uuid};
use proto::metadata::{Image, ObjectFormat, ObjectKey, ObjectRef, TailEntry, TierPointer};
use std::collections::BTreeMap;

const NODES: usize = 3;
const MIN_IN_SYNC: usize = 2;
const TP: TopicPartition = TopicPartition::new(TopicId(Uuid::from_u128(1)), 0);
/// More than `replica.lag.time.max.ms`.
const LAG_MS: Millis = 60_000;

/// One thing that happens; numbers are of nodes.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A client appends, if this node leads as far as it knows.
    Append(usize),
    /// All that was appended is durable.
    Sync(usize),
    /// A follower asks its leader, and is answered.
    Fetch(usize),
    /// Time passes, and the leader looks at who lags.
    Lag(usize),
    /// What the leader proposes reaches the controller.
    Propose(usize),
    /// What the leader proposed is not answered, and asked again.
    ProposeInVain(usize),
    /// The image goes on by one version.
    Learn(usize),
    /// The image goes on to the newest version.
    CatchUp(usize),
    /// The controller hears nothing of it.
    Fence(usize),
    /// It serves again.
    Unfence(usize),
    /// The process dies.
    Kill(usize),
    /// The machine loses power, and what was not durable.
    PowerCut(usize),
    /// Its disk is replaced by an empty one, while others hold everything.
    Replace(usize),
    /// The process starts.
    Start(usize),
    /// What is committed is uploaded and its pointer committed.
    Tier(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..NODES;
    prop_oneof![
        6 => node.clone().prop_map(Step::Append),
        6 => node.clone().prop_map(Step::Sync),
        12 => node.clone().prop_map(Step::Fetch),
        1 => node.clone().prop_map(Step::Lag),
        3 => node.clone().prop_map(Step::Propose),
        1 => node.clone().prop_map(Step::ProposeInVain),
        2 => node.clone().prop_map(Step::Learn),
        5 => node.clone().prop_map(Step::CatchUp),
        1 => node.clone().prop_map(Step::Fence),
        3 => node.clone().prop_map(Step::Unfence),
        1 => node.clone().prop_map(Step::Kill),
        1 => node.clone().prop_map(Step::PowerCut),
        1 => node.clone().prop_map(Step::Replace),
        4 => node.clone().prop_map(Step::Start),
        1 => node.prop_map(Step::Tier),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    epoch: LeaderEpoch,
    value: u64,
}

/// One broker: what it has on disk, and the process while it runs.
struct Node {
    id: NodeId,
    directory: DirectoryId,
    /// First offset on disk.
    start: Offset,
    log: Vec<(Record, Place)>,
    /// Epochs as of `start`, and of the log after it.
    epochs: EpochCache,
    durable: Offset,
    clean: Clean,
    process: Option<Process>,
}

struct Process {
    core: Core,
    broker_epoch: i64,
    /// Version of the image it knows.
    image: usize,
    leadership: Leadership,
    appends: u64,
    proposals: Vec<IsrProposal>,
}

struct World {
    /// All versions of the image, the newest last.
    images: Vec<Image>,
    policy: Policy,
    nodes: Vec<Node>,
    /// What readers may have seen.
    committed: BTreeMap<Offset, u64>,
    /// Who appended under an epoch.
    leaders: BTreeMap<LeaderEpoch, NodeId>,
    tier: Vec<Record>,
    now_ms: Millis,
    next: u64,
}

fn config() -> LogConfig {
    LogConfig { min_insync_replicas: MIN_IN_SYNC, ..LogConfig::default() }
}

fn meta(base: Offset, epoch: LeaderEpoch) -> BatchMeta {
    BatchMeta {
        size: 100,
        base_offset: base,
        last_offset_delta: 0,
        max_timestamp: -1,
        leader_epoch: epoch,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        transactional: false,
        control: None,
    }
}

impl Node {
    fn end(&self) -> Offset {
        self.start + self.log.len() as Offset
    }

    fn at(&self, offset: Offset) -> Option<Record> {
        let index = usize::try_from(offset - self.start).ok()?;
        self.log.get(index).map(|(record, _)| *record)
    }

    fn push(&mut self, record: Record, now_ms: Millis) {
        let base = self.end();
        let process = self.process.as_mut().expect("it runs");
        process.appends += 1;
        let lsn = broker::journal::Lsn(process.appends);
        let place = process.core.appended(&meta(base, record.epoch), base, Some(lsn), now_ms);
        self.epochs.assign(record.epoch, base);
        self.log.push((record, place));
    }

    /// What was known at `offset`.
    fn snapshot(&self, offset: Offset) -> Snapshot {
        let mut epochs = self.epochs.clone();
        epochs.truncate_tail(offset);
        let index = usize::try_from(offset - self.start).unwrap_or(0);
        let place = self.log.get(index).map(|(_, place)| *place);
        let (segment_base, position) = place.map_or((offset, 0), |place| (place.segment, place.position));
        Snapshot { offset, segment_base, position, epochs, producers: Producers::default() }
    }

    fn truncate(&mut self, to: Offset, why: Cut) {
        let snapshot = self.snapshot(to);
        self.epochs = snapshot.epochs.clone();
        self.log.truncate(usize::try_from(to - self.start).unwrap_or(0));
        self.durable = self.durable.min(to);
        let process = self.process.as_mut().expect("it runs");
        assert_eq!(process.core.may_cut(to, why), Ok(()), "node {} may not cut to {to}", self.id);
        process.core.truncate(snapshot, why);
    }

    /// Drops the log and begins where the tier ends.
    fn start_over(&mut self, tier: &[Record], now_ms: Millis) {
        let end = tier.len() as Offset;
        let mut epochs = EpochCache::default();
        for (offset, record) in (0..).zip(tier) {
            epochs.assign(record.epoch, offset);
        }
        (self.start, self.durable, self.log, self.epochs) = (end, end, Vec::new(), epochs);
        let snapshot = self.snapshot(end);
        if let Some(process) = &mut self.process {
            // Nobody appends to a log that starts over.
            process.core.on(Event::Leadership(Leadership { leads: false, ..process.leadership.clone() }));
            process.core.reset(now_ms, 0, snapshot);
            if process.leadership.leads {
                self.epochs.assign(process.leadership.epoch, end);
            }
        }
    }
}

impl World {
    fn new() -> World {
        let directory = |id: i32| DirectoryId(Uuid::from_u128(100 + u128::from(id.unsigned_abs())));
        let node = |id: i32| Node {
            id: NodeId(id),
            directory: directory(id),
            start: 0,
            log: Vec::new(),
            epochs: EpochCache::default(),
            durable: 0,
            clean: Clean::Yes,
            process: None,
        };
        let mut world = World {
            images: vec![Image::default()],
            policy: Policy { min_insync_replicas: MIN_IN_SYNC, ..Policy::default() },
            nodes: (0..NODES as i32).map(node).collect(),
            committed: BTreeMap::new(),
            leaders: BTreeMap::new(),
            tier: Vec::new(),
            now_ms: 1_000,
            next: 1,
        };
        let features = supported_features().into_iter().map(|feature| (feature.name, feature.max)).collect();
        world.decide(Command::FormCluster(FormCluster { cluster_id: "model".to_owned(), features })).expect("it forms");
        for index in 0..NODES {
            world.take(Step::Start(index));
            world.take(Step::Unfence(index));
        }
        let topic = NewTopic {
            id: TP.topic,
            name: "model".to_owned(),
            partitions: -1,
            replication_factor: -1,
            shortage: Shortage::Refuse,
            assignments: BTreeMap::from([(0, (0..NODES as i32).map(NodeId).collect())]),
            configs: BTreeMap::new(),
        };
        let create = CreateTopics {
            topics: vec![topic],
            default_partitions: 1,
            default_replication_factor: 3,
            mode: Mode::Commit,
        };
        world.decide(Command::CreateTopics(create)).expect("three brokers serve");
        for index in 0..NODES {
            world.take(Step::CatchUp(index));
        }
        world
    }

    fn image(&self) -> &Image {
        self.images.last().expect("there is always one")
    }

    /// Decides and applies, as the quorum does.
    fn decide(&mut self, command: Command) -> Option<Outcome> {
        let decision = decide(self.image(), &command, self.now_ms, &self.policy).ok()?;
        let mut image = self.image().clone();
        decision.records.iter().for_each(|record| image.apply(record));
        self.images.push(image);
        Some(decision.outcome)
    }

    fn take(&mut self, step: Step) {
        self.now_ms += 10;
        match step {
            Step::Append(n) => self.append(n),
            Step::Sync(n) => self.sync(n),
            Step::Fetch(n) => self.fetch(n),
            Step::Lag(n) => {
                self.now_ms += LAG_MS;
                let now_ms = self.now_ms;
                self.tell(n, Event::IsrTick { now_ms });
            }
            Step::Propose(n) => self.propose(n),
            Step::ProposeInVain(n) => {
                if let Some(process) = &mut self.nodes[n].process
                    && let Some(proposal) = process.proposals.pop()
                {
                    let (partition_epoch, outcome) = (proposal.partition_epoch, Err(IsrRefused::Unknown));
                    self.tell(n, Event::IsrAnswered { partition_epoch, outcome });
                }
            }
            Step::Learn(n) => self.learn(n, 1),
            Step::CatchUp(n) => self.learn(n, usize::MAX),
            Step::Fence(n) => self.set_state(n, BrokerState::Fenced),
            Step::Unfence(n) => {
                self.learn(n, usize::MAX);
                if self.nodes[n].process.is_some() {
                    self.set_state(n, BrokerState::Active);
                }
            }
            Step::Kill(n) => self.stop(n, false),
            Step::PowerCut(n) => self.stop(n, true),
            Step::Replace(n) => self.replace(n),
            Step::Start(n) => self.start(n),
            Step::Tier(n) => self.upload(n),
        }
        self.check();
    }

    /// Lets a core know, and keeps what it asks for.
    fn tell(&mut self, n: usize, event: Event) {
        let Some(process) = &mut self.nodes[n].process else { return };
        let commands = process.core.on(event);
        self.obey(n, commands);
    }

    fn obey(&mut self, n: usize, commands: Vec<broker::partition::core::Command>) {
        let Some(process) = &mut self.nodes[n].process else { return };
        for command in commands {
            if let broker::partition::core::Command::ProposeIsr(proposal) = command {
                process.proposals.push(proposal);
            }
        }
    }

    fn append(&mut self, n: usize) {
        let Some(process) = &self.nodes[n].process else { return };
        let epoch = process.leadership.epoch;
        let base = self.nodes[n].end();
        let core = &process.core;
        if !process.leadership.leads || core.check_writer(Some(epoch), Origin::Client, false).is_err() {
            return;
        }
        assert_eq!(core.check(&meta(base, epoch), Origin::Client), Ok(Check::New(base)));
        let first = *self.leaders.entry(epoch).or_insert(self.nodes[n].id);
        assert_eq!(first, self.nodes[n].id, "epoch {epoch} has two leaders (ONE-LEADER)");
        let record = Record { epoch, value: self.next };
        self.next += 1;
        self.nodes[n].push(record, self.now_ms);
    }

    fn sync(&mut self, n: usize) {
        let end = self.nodes[n].end();
        let Some(process) = &self.nodes[n].process else { return };
        let lsn = broker::journal::Lsn(process.appends);
        self.nodes[n].durable = end;
        self.tell(n, Event::Synced(lsn));
    }

    fn fetch(&mut self, n: usize) {
        let follower = &self.nodes[n];
        let Some(process) = &follower.process else { return };
        let (epoch, id, broker_epoch) = (process.leadership.epoch, follower.id, process.broker_epoch);
        let Some(leader) = process.leadership.leader.filter(|_| !process.leadership.leads) else { return };
        // The next fetch waits until the last one is durable.
        if follower.durable < follower.end() {
            return;
        }
        let (offset, last_epoch) = (follower.end(), process.core.last_epoch());
        let l = usize::try_from(leader.0).expect("node ids are indexes");
        let leads = |process: &Process| process.leadership.leads && process.leadership.epoch == epoch;
        if !self.nodes[l].process.as_ref().is_some_and(leads) {
            return;
        }
        if offset < self.nodes[l].start {
            let tier = self.tier.clone();
            return self.nodes[n].start_over(&tier, self.now_ms);
        }
        let (log_start, now_ms) = (0, self.now_ms);
        let last_fetched_epoch = last_epoch;
        let fetched = ReplicaFetched { replica: id, broker_epoch, offset, last_fetched_epoch, log_start, now_ms };
        self.tell(l, Event::ReplicaFetched(fetched));
        let leader = &self.nodes[l];
        let ours = last_epoch.and_then(|epoch| leader.epochs.end_of(epoch, leader.end()).map(|end| (epoch, end)));
        if let Some((epoch, end)) = ours
            && (end.epoch < epoch || end.end < offset)
        {
            return self.cut(n, end.epoch, end.end);
        }
        if offset > leader.end() {
            return self.cut(n, epoch, leader.end());
        }
        let Some(process) = &leader.process else { return };
        let high_watermark = process.core.offsets().high_watermark;
        let news: Vec<Record> = (offset..leader.end()).filter_map(|offset| leader.at(offset)).take(3).collect();
        for record in news {
            let base = self.nodes[n].end();
            let core = &self.nodes[n].process.as_ref().expect("it runs").core;
            assert!(core.check_writer(Some(epoch), Origin::Replica, false).is_ok());
            assert_eq!(core.check(&meta(base, record.epoch), Origin::Replica), Ok(Check::New(base)));
            self.nodes[n].push(record, self.now_ms);
        }
        self.tell(n, Event::LeaderSaid(LeaderSaid { epoch, high_watermark, log_start: 0 }));
    }

    /// The leader says that its `epoch` ends at `end`.
    fn cut(&mut self, n: usize, epoch: LeaderEpoch, end: Offset) {
        let core = &self.nodes[n].process.as_ref().expect("it runs").core;
        let term = core.leadership().epoch;
        match core.truncation_point(term, epoch, end) {
            Truncation::Agrees => {}
            Truncation::Cut { to, why } => self.nodes[n].truncate(to, why),
            Truncation::StartOver => {
                let tier = self.tier.clone();
                self.nodes[n].start_over(&tier, self.now_ms);
            }
        }
    }

    fn propose(&mut self, n: usize) {
        let node = self.nodes[n].id;
        let Some(process) = &mut self.nodes[n].process else { return };
        let (broker_epoch, proposal) = (process.broker_epoch, process.proposals.pop());
        let Some(IsrProposal { leader_epoch, partition_epoch, isr, recovered }) = proposal else { return };
        let change = IsrChange { tp: TP, leader_epoch, partition_epoch, isr, recovered };
        let alter = AlterPartitions { broker: node, broker_epoch, partitions: vec![change] };
        let outcome = match self.decide(Command::AlterPartitions(alter)) {
            Some(Outcome::AlterPartitions(answers)) if answers.iter().all(Result::is_ok) => Ok(()),
            _ if self.image().partition(TP).is_some_and(|state| state.partition_epoch != partition_epoch) => {
                Err(IsrRefused::Outdated)
            }
            _ => Err(IsrRefused::Ineligible),
        };
        self.tell(n, Event::IsrAnswered { partition_epoch, outcome });
    }

    /// Lets a broker learn of up to so many versions of the image, but of none but the last what they change.
    fn learn(&mut self, n: usize, versions: usize) {
        let newest = self.images.len() - 1;
        let (id, now_ms) = (self.nodes[n].id, self.now_ms);
        let Some(process) = &mut self.nodes[n].process else { return };
        process.image = process.image.saturating_add(versions).min(newest);
        let image = &self.images[process.image];
        let Some(state) = image.partition(TP) else { return };
        let info = |id: &NodeId| {
            let broker = image.broker(*id);
            ReplicaInfo {
                id: *id,
                broker_epoch: broker.map_or(-1, |broker| broker.epoch),
                eligible: broker.is_some_and(|broker| !broker.fenced && !broker.shutting_down),
                rack: None,
            }
        };
        let leadership = Leadership {
            epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
            leader: state.leader,
            leads: state.leader == Some(id),
            isr: state.isr.clone(),
            replicas: state.replicas.iter().map(info).collect(),
            recovering: state.recovery == proto::metadata::Recovery::Recovering,
        };
        let pointer = image.tier(TP).cloned();
        // TIER-IS-TRUTH, before anything is appended.
        let end = pointer.as_ref().map(|pointer| TierEnd { offset: pointer.tier_end, epoch: pointer.end_epoch });
        let new_term = leadership.epoch > process.leadership.epoch;
        if let (Some(pointer), Some(end)) = (&pointer, end)
            && new_term
            && matches!(
                process.core.contradiction(pointer.log_start, end),
                Contradiction::EndsBefore | Contradiction::OtherEpoch
            )
        {
            let tier = self.tier.clone();
            self.nodes[n].start_over(&tier, now_ms);
        }
        let end_of_log = self.nodes[n].end();
        let process = self.nodes[n].process.as_mut().expect("it runs");
        process.leadership = leadership.clone();
        if new_term && leadership.leads {
            self.nodes[n].epochs.assign(leadership.epoch, end_of_log);
        }
        self.tell(n, Event::Leadership(leadership));
        if let (Some(pointer), Some(end)) = (pointer, end) {
            let (generation, log_start) = (pointer.generation, pointer.log_start);
            self.tell(n, Event::Pointer { generation, log_start, end, now_ms });
        }
    }

    fn set_state(&mut self, n: usize, state: BrokerState) {
        let id = self.nodes[n].id;
        let Some(broker_epoch) = self.image().broker(id).map(|broker| broker.epoch) else { return };
        // A process speaks for itself only.
        let own = self.nodes[n].process.as_ref().is_none_or(|process| process.broker_epoch == broker_epoch);
        if own {
            self.decide(Command::SetBrokerState(SetBrokerState { id, broker_epoch, state, directories: None }));
        }
    }

    fn stop(&mut self, n: usize, power: bool) {
        let node = &mut self.nodes[n];
        if node.process.take().is_none() {
            return;
        }
        node.clean = if power { Clean::No } else { Clean::SameBoot };
        if power {
            let lost = node.durable;
            node.epochs.truncate_tail(lost);
            node.log.truncate(usize::try_from(lost - node.start).unwrap_or(0));
        }
        // Recovery makes durable whatever it finds.
        node.durable = node.end();
    }

    fn replace(&mut self, n: usize) {
        let id = self.nodes[n].id;
        let needed = self.image().partition(TP).is_some_and(|state| {
            let others = |ids: &[NodeId]| ids.contains(&id);
            others(&state.isr) || others(&state.elr) || state.last_known_leader == Some(id)
        });
        if needed || self.nodes[n].process.is_some() {
            return;
        }
        self.next += 1;
        let node = &mut self.nodes[n];
        node.directory = DirectoryId(Uuid::from_u128(1_000 + u128::from(self.next)));
        (node.start, node.durable, node.log, node.epochs) = (0, 0, Vec::new(), EpochCache::default());
    }

    fn start(&mut self, n: usize) {
        if self.nodes[n].process.is_some() {
            return;
        }
        self.next += 1;
        let node = &self.nodes[n];
        let previous_epoch = self.image().broker(node.id).map(|broker| broker.epoch);
        let register = RegisterBroker {
            id: node.id,
            incarnation: Uuid::from_u128(u128::from(self.next)),
            previous_epoch,
            clean: node.clean,
            endpoints: Vec::new(),
            rack: None,
            directories: vec![node.directory],
            offline_directories: 0,
            features: supported_features(),
        };
        let Some(Outcome::RegisterBroker(broker_epoch)) = self.decide(Command::RegisterBroker(register)) else {
            return;
        };
        let (image, now_ms) = (self.images.len() - 1, self.now_ms);
        let node = &mut self.nodes[n];
        let restored = Restored { epochs: node.epochs.clone(), ..Restored::empty(node.start, now_ms, &config()) };
        let core = Core::new(node.id, config(), restored);
        let leadership = Leadership::none();
        node.process = Some(Process { core, broker_epoch, image, leadership, appends: 0, proposals: Vec::new() });
        for (record, _) in std::mem::take(&mut node.log) {
            node.push(record, now_ms);
        }
        self.sync(n);
        self.learn(n, 0);
    }

    /// A leader uploads what is committed as one object and commits its pointer.
    fn upload(&mut self, n: usize) {
        let node = &self.nodes[n];
        let Some(process) = node.process.as_ref().filter(|process| process.leadership.leads) else { return };
        let (epoch, high_watermark) = (process.leadership.epoch, process.core.offsets().high_watermark);
        let before = self.images[process.image].tier(TP).cloned().unwrap_or_default();
        if before.tier_end < node.start || high_watermark <= before.tier_end {
            return;
        }
        let mut records = self.tier[..usize::try_from(before.tier_end).unwrap_or(0)].to_vec();
        records.extend((before.tier_end..high_watermark).filter_map(|offset| node.at(offset)));
        let mut epochs = EpochCache::default();
        for (offset, record) in (0..).zip(&records) {
            epochs.assign(record.epoch, offset);
        }
        self.next += 1;
        let uuid = Uuid::from_u128(u128::from(self.next));
        let key = ObjectKey { owner: TP, base_offset: 0, leader_epoch: epoch, uuid };
        let entry = TailEntry {
            base: 0,
            end: high_watermark,
            max_timestamp: -1,
            object: ObjectRef { key, start: 0, length: 1 },
            footer_position: 1,
            epochs: epochs.entries().iter().map(|entry| (entry.epoch, entry.start)).collect(),
            format: ObjectFormat::Segment,
            has_aborted: false,
            points: Vec::new(),
        };
        let end_epoch = epochs.latest().unwrap_or(-1);
        let pointer =
            TierPointer { tier_end: high_watermark, tail: vec![entry], end_epoch, ..TierPointer::clone(&before) };
        let (expected_generation, request) = (before.generation, uuid);
        let commit = TierCommit { tp: TP, leader_epoch: epoch, expected_generation, request, pointer };
        if let Some(Outcome::CommitTier(answers)) = self.decide(Command::CommitTier(vec![commit]))
            && answers.iter().all(Result::is_ok)
        {
            self.tier = records;
        }
    }

    fn check(&mut self) {
        for n in 0..NODES {
            let node = &self.nodes[n];
            let Some(process) = &node.process else { continue };
            for offset in node.start..process.core.offsets().high_watermark {
                let record = node.at(offset).expect("the high watermark is at most the log end");
                let known = *self.committed.entry(offset).or_insert(record.value);
                assert_eq!(known, record.value, "node {} has other records at {offset} (ACKED)", node.id);
            }
        }
        for (offset, record) in (0..).zip(&self.tier) {
            assert_eq!(self.committed.get(&offset), Some(&record.value), "the tier at {offset} (TIER-IS-TRUTH)");
        }
        let Some(state) = self.image().partition(TP) else { return };
        let tiered = self.tier.len() as Offset;
        for id in state.isr.iter().chain(&state.elr) {
            let node = self.nodes.iter().find(|node| node.id == *id).expect("replicas are nodes");
            for (offset, value) in self.committed.range(tiered.max(node.start)..) {
                let there = node.at(*offset).filter(|_| *offset < node.durable || node.process.is_none());
                assert_eq!(there.map(|record| record.value), Some(*value), "node {id} lacks {offset}: {state:?}");
            }
        }
    }
}

/// Names a bug to plant in this process, which is another one than that of all other tests.
const PLANT: &str = "FIRN_TEST_PLANT";

/// Plants what this process is asked to. Whether it was.
fn plant() -> bool {
    #[cfg(debug_assertions)]
    if let Ok(bug) = std::env::var(PLANT) {
        proto::planted::plant(bug.parse().expect("a bug"));
        return true;
    }
    false
}

fn proptest_config() -> ProptestConfig {
    let config = ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() };
    // That it fails is enough to know then.
    if plant() { ProptestConfig { max_shrink_iters: 0, failure_persistence: None, ..config } } else { config }
}

/// A model that sees no bug proves nothing.
#[cfg(debug_assertions)]
#[test]
fn planted_bugs_are_seen() {
    use proto::planted::Bug;
    let bugs =
        [Bug::AckBeforeSync, Bug::AckBeforeReplication, Bug::HwBelowMinIsr, Bug::IsrWithoutController, Bug::ElrIgnored];
    for bug in bugs {
        let mut again = std::process::Command::new(std::env::current_exe().expect("this test"));
        again.args(["--exact", "what_was_committed_stays"]).env(PLANT, bug.name()).env("PROPTEST_CASES", "2000");
        let output = again.output().expect("it can be run");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success() && said.contains("what_was_committed_stays"), "{bug} is not seen:\n{said}");
    }
}

proptest! {
    #![proptest_config(proptest_config())]

    #[test]
    fn what_was_committed_stays(steps in prop::collection::vec(step(), 0..400)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
    }
}

/// Steps that must lead somewhere, or the property above says nothing.
#[test]
fn records_are_committed_and_leaders_change() {
    let mut world = World::new();
    let round = |world: &mut World, leader: usize| {
        world.take(Step::Append(leader));
        world.take(Step::Sync(leader));
        for _ in 0..3 {
            for n in (0..NODES).filter(|n| *n != leader) {
                world.take(Step::Fetch(n));
                world.take(Step::Sync(n));
            }
        }
    };
    round(&mut world, 0);
    assert_eq!(world.committed.len(), 1);
    world.take(Step::Tier(0));
    assert_eq!(world.tier.len(), 1);
    world.take(Step::PowerCut(0));
    world.take(Step::Fence(0));
    (1..NODES).for_each(|n| world.take(Step::CatchUp(n)));
    let leader = world.image().partition(TP).and_then(|state| state.leader).expect("two are left");
    round(&mut world, usize::try_from(leader.0).expect("node ids are indexes"));
    assert_eq!((leader, world.committed.len()), (NodeId(1), 2));
}
