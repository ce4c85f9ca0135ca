//! Two brokers in one process: a whole node leads, the logs of another one follow it over the network, through the real codecs.

use super::start_over::{End, StartOverError};
use super::*;
use crate::api::services::Services;
use crate::config::server::{ServerConfig, Sources};
use crate::disk::sim::Fault;
use crate::disk::{Disk, Operation, SimDisk};
use crate::journal;
use crate::log::config::LogConfig;
use crate::log::dir::DirConfig;
use crate::log::observer::Unobserved;
use crate::net::wire_client::greet;
use crate::node::{Host, Node};
use crate::partition::types::{Isolation, Read, ReadData, Reader};
use crate::partition::{
    Acks, Append, Appended, Contradiction, DirSpec, Leadership, Open, Origin, Partitions, ReplicaInfo, describe,
};
use async_trait::async_trait;
use bytes::Bytes;
use controller::command::{BrokerState, Clean, CreateTopics, Mode, NewTopic, RegisterBroker, SetBrokerState, Shortage};
use futures::FutureExt;
use proto::errors::ErrorCode;
use proto::host::{Listener, ManualClock, Stream, TcpNetwork};
use proto::ids::{DirectoryId, Offset, TopicId, Uuid};
use proto::messages::fetch_request::{FetchPartition, FetchTopic};
use proto::messages::produce_request::{PartitionProduceData, TopicProduceData};
use proto::messages::{FetchRequest, ProduceRequest};
use proto::metadata::TierPointer;
use proto::records::BatchBuilder;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use tiering::format::EpochHistory;
use tokio::io::copy_bidirectional;
use tokio::sync::watch;

const LEADER: NodeId = NodeId(0);
const FOLLOWER: NodeId = NodeId(1);
const DIRECTORY: DirectoryId = DirectoryId(Uuid::from_u128(55));
const TOPIC: TopicId = TopicId(Uuid::from_u128(7));
const PARTITIONS: i32 = 3;

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new(TOPIC, partition)
}

/// TCP whose connections can all be broken at once, and which can be out of order for a while.
#[derive(Debug)]
struct Breakable(watch::Sender<u64>, AtomicBool);

#[async_trait]
impl Network for Breakable {
    async fn listen(&self, address: &str) -> io::Result<Listener> {
        TcpNetwork.listen(address).await
    }

    async fn connect(&self, address: &str) -> io::Result<Stream> {
        if self.1.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let mut tcp = TcpNetwork.connect(address).await?;
        let (local, peer) = (tcp.local_addr()?, tcp.peer_addr()?);
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let mut broken = self.0.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = broken.changed() => {}
                _ = copy_bidirectional(&mut theirs, &mut tcp) => {}
            }
        });
        Ok(Stream::Other { io: Box::new(ours), local, peer })
    }
}

impl Brokers for String {
    fn address(&self, id: NodeId) -> Option<String> {
        (id == LEADER).then(|| self.clone())
    }
}

/// A tier that holds what a test says.
#[derive(Default)]
struct Said {
    pointer: Mutex<Option<Arc<TierPointer>>>,
    epochs: Mutex<Vec<(LeaderEpoch, Offset)>>,
    /// Neither quorum nor store answer.
    down: AtomicBool,
}

#[async_trait]
impl Tier for Said {
    fn seen(&self, _: TopicPartition) -> Option<Arc<TierPointer>> {
        self.pointer.lock().clone()
    }

    async fn newest(&self, tp: TopicPartition) -> Result<Option<Arc<TierPointer>>, StartOverError> {
        if self.down.load(Ordering::Relaxed) { Err(StartOverError::Nothing) } else { Ok(self.seen(tp)) }
    }

    async fn end(&self, _: TopicPartition, pointer: &TierPointer) -> Result<Option<End>, StartOverError> {
        let epochs = EpochHistory { entries: self.epochs.lock().clone() };
        Ok(Some(End { end: pointer.tier_end, epochs, producers: Bytes::new() }))
    }
}

/// The node that leads, and the broker that follows.
struct World {
    node: Node,
    disk: SimDisk,
    partitions: Partitions,
    replication: Replication,
    network: Arc<Breakable>,
    tier: Arc<Said>,
    broker_epoch: i64,
    _data: tempfile::TempDir,
}

impl World {
    async fn start() -> World {
        let data = tempfile::tempdir().expect("a directory");
        let presets = [
            ("node.id", "0".to_owned()),
            ("listeners", "PLAINTEXT://127.0.0.1:0".to_owned()),
            ("firn.http.listeners", "127.0.0.1:0".to_owned()),
            ("log.dirs", data.path().join("log").display().to_string()),
            ("firn.journal.file.bytes", "1048576".to_owned()),
            ("firn.journal.bytes", "33554432".to_owned()),
        ];
        let presets = presets.map(|(name, value)| (name.to_owned(), value)).into();
        let config = ServerConfig::load(&Sources { presets, ..Sources::default() });
        let config = config.unwrap_or_else(|errors| panic!("{errors:?}"));
        let node = Node::start(config, Host::system(Spawner::single(tokio::runtime::Handle::current()))).await;
        let node = node.expect("the node starts");
        let services = node.services();
        let broker = RegisterBroker {
            id: FOLLOWER,
            incarnation: Uuid::from_u128(1),
            previous_epoch: None,
            clean: Clean::Yes,
            endpoints: vec![],
            rack: Some("near".to_owned()),
            directories: vec![DIRECTORY],
            offline_directories: 0,
            features: controller::supported_features(),
        };
        let broker_epoch = services.controller.register_broker(broker).await.expect("it may come");
        // The quorum of one node asks nobody to beat.
        let serves = SetBrokerState {
            id: FOLLOWER,
            broker_epoch,
            state: BrokerState::Active,
            directories: Some(vec![DIRECTORY]),
        };
        services.controller.set_broker_state(serves).await.expect("it may serve");
        let topic = NewTopic {
            id: TOPIC,
            name: "topic".to_owned(),
            partitions: -1,
            replication_factor: -1,
            shortage: Shortage::Refuse,
            assignments: (0..PARTITIONS).map(|partition| (partition, vec![LEADER, FOLLOWER])).collect(),
            configs: BTreeMap::new(),
        };
        let create = CreateTopics {
            topics: vec![topic],
            default_partitions: 1,
            default_replication_factor: 1,
            mode: Mode::Commit,
        };
        for created in services.controller.create_topics(create).await.expect("the quorum answers") {
            created.expect("the topic is fine");
        }
        services.caught_up(services.controller.image().offset()).await;
        let disk = SimDisk::new(1);
        disk.create_dir_all(&PathBuf::from("/data")).await.expect("a fresh disk");
        let partitions = open(&disk).await;
        let network = Arc::new(Breakable(watch::channel(0).0, AtomicBool::new(false)));
        let tier = Arc::new(Said::default());
        let replication = replicate(&node, &network, &tier, broker_epoch);
        World { node, disk, partitions, replication, network, tier, broker_epoch, _data: data }
    }

    fn services(&self) -> &Arc<Services> {
        self.node.services()
    }

    fn led(&self, partition: i32) -> PartitionHandle {
        self.services().partitions.get(tp(partition)).expect("the node holds it")
    }

    /// The follower's replica, told who leads.
    async fn replica(&self, partition: i32, leadership: Leadership) -> PartitionHandle {
        let config = LogConfig { retention_ms: -1, remote: false, ..LogConfig::default() };
        let made = self.partitions.create(tp(partition), "topic", DIRECTORY, config).await;
        let handle = made.expect("the directory is online");
        handle.lead(leadership);
        handle
    }

    /// Follows a partition under the epoch that its leader has.
    async fn follow(&self, partition: i32) -> PartitionHandle {
        let epoch = self.led(partition).leadership().epoch;
        self.follow_under(partition, epoch).await
    }

    async fn follow_under(&self, partition: i32, epoch: LeaderEpoch) -> PartitionHandle {
        let handle = self.replica(partition, self.leadership(epoch, LEADER, FOLLOWER)).await;
        let following =
            Following { tp: tp(partition), leader: LEADER, epoch, partition: handle.clone(), throttled: false };
        self.replication.assign(vec![following]);
        handle
    }

    /// What the image would say to `node` while `leader` leads.
    fn leadership(&self, epoch: LeaderEpoch, leader: NodeId, node: NodeId) -> Leadership {
        let info = |id, broker_epoch| ReplicaInfo { id, broker_epoch, eligible: true, rack: None };
        Leadership {
            epoch,
            partition_epoch: epoch,
            leader: Some(leader),
            leads: leader == node,
            isr: vec![LEADER, FOLLOWER],
            replicas: vec![info(LEADER, self.services().broker_epoch), info(FOLLOWER, self.broker_epoch)],
            recovering: false,
        }
    }

    /// The follower loses power and starts again.
    async fn power_cut(&mut self) {
        self.disk.cut_power();
        self.replication.stop().await;
        self.disk = self.disk.restart();
        self.partitions = open(&self.disk).await;
        self.replication = replicate(&self.node, &self.network, &self.tier, self.broker_epoch);
    }

    async fn end(self) {
        self.replication.stop().await;
        self.node.shutdown().await;
    }
}

async fn open(disk: &SimDisk) -> Partitions {
    let journal = journal::Config {
        file_bytes: 1 << 20,
        max_bytes: 8 << 20,
        max_group_bytes: 256 << 10,
        block_bytes: 64 << 10,
        pooled_blocks: 2,
        max_unsynced_bytes: 1 << 20,
    };
    let dir = DirConfig {
        tail_bytes: 1 << 20,
        max_backlog_bytes: 1 << 20,
        backlog_target_bytes: 64 << 10,
        write_bytes: 64 << 10,
        sync_bytes: 256 << 10,
        snapshot_bytes: 64 << 10,
        reserve_bytes: 0,
        settle_ms: 2_000,
        write_ms: 100,
    };
    let opened = Partitions::open(Open {
        node: FOLLOWER,
        disk: Arc::new(disk.clone()),
        dirs: vec![DirSpec { id: DIRECTORY, path: PathBuf::from("/data"), broken: None }],
        journal,
        dir,
        clock: Arc::new(ManualClock::new(1_000_000)),
        boot: "one".to_owned(),
        observer: Arc::new(Unobserved),
        spawner: Spawner::single(tokio::runtime::Handle::current()),
    });
    opened.await.expect("the disk is fine")
}

fn replicate(node: &Node, network: &Arc<Breakable>, tier: &Arc<Said>, broker_epoch: i64) -> Replication {
    let (_, address) = &node.kafka_addresses()[0];
    Replication::start(Parts {
        node: FOLLOWER,
        broker_epoch,
        network: Arc::clone(network) as _,
        brokers: Arc::new(address.to_string()),
        tier: Arc::clone(tier) as _,
        spawner: Spawner::single(tokio::runtime::Handle::current()),
        memory: Budget::new(16 << 20),
        settings: Settings {
            fetchers: 2,
            backoff_ms: 100,
            fetch: FetchSettings {
                wait_ms: 500,
                min_bytes: 1,
                partition_bytes: 1 << 20,
                response_bytes: 10 << 20,
                timeout: Duration::from_secs(30),
            },
        },
    })
}

/// Appends one batch of these values.
fn append(handle: &PartitionHandle, now_ms: Millis, values: &[&str], acks: Acks) -> Appended {
    let mut batch = BatchBuilder::new();
    for value in values {
        batch.append(now_ms, None, Some(value.as_bytes()), &[]);
    }
    let batches = batch.build();
    let info = describe(&batches).expect("a batch that was just built");
    let append = Append {
        leader_epoch: None,
        batches,
        info: &info,
        origin: Origin::Client,
        acks,
        now_ms,
        log_append_time: None,
    };
    handle.append(append).expect("it is taken")
}

/// All bytes of a log from `from` on.
async fn bytes(handle: &PartitionHandle, from: Offset) -> Vec<u8> {
    let mut all = Vec::new();
    let mut at = from;
    loop {
        let read = Read {
            offset: at,
            max_bytes: 1 << 20,
            min_one: true,
            isolation: Isolation::LogEnd,
            leader_epoch: None,
            last_fetched_epoch: None,
            reader: Reader::NearConsumer,
        };
        let chunks = match handle.read(read).expect("it is here").data {
            ReadData::Ready(chunks) => chunks,
            ReadData::Disk(read) => read.run().await.expect("the disk is fine"),
            ReadData::Empty => return all,
            ReadData::Remote => panic!("{at} is not here any more"),
        };
        for chunk in chunks {
            let info = describe(&chunk).expect("whole batches");
            let last = info.last().expect("one at least");
            at = last.base_offset + i64::from(last.last_offset_delta) + 1;
            all.extend_from_slice(&chunk);
        }
    }
}

/// Waits for what comes true by itself, or never.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("{what}: not within a minute"));
}

#[tokio::test]
async fn what_is_acknowledged_by_all_is_on_both_sides() {
    let mut world = World::start().await;
    let now = world.services().clock.now_ms();
    for partition in 0..PARTITIONS {
        world.follow(partition).await;
    }
    let mut acks = Vec::new();
    for round in 0..50 {
        for partition in 0..PARTITIONS {
            let value = format!("{partition}: {round}");
            acks.push(append(&world.led(partition), now, &[&value, "and another"], Acks::All).acked);
        }
    }
    for acked in acks {
        acked.await.expect("it is acknowledged");
    }
    world.power_cut().await;
    for partition in 0..PARTITIONS {
        let leader = world.led(partition);
        let replica = world.follow(partition).await;
        assert_eq!(replica.offsets().log_end, 100, "what was acknowledged outlives a power cut");
        assert_eq!(bytes(&replica, 0).await, bytes(&leader, 0).await);
        until("the high watermark is told", || replica.offsets().high_watermark == 100).await;
        let (sent, received) = (leader.fetch_position(), replica.fetch_position());
        assert_eq!((sent.last_epoch, sent.offset), (received.last_epoch, received.offset));
    }
    world.end().await;
}

#[tokio::test]
async fn what_is_not_durable_on_the_replica_is_not_acknowledged() {
    let world = World::start().await;
    let now = world.services().clock.now_ms();
    world.follow(0).await;
    let leader = world.led(0);
    append(&leader, now, &["a"], Acks::All).acked.await.expect("it is acknowledged");
    let fails = Fault {
        operation: Operation::WriteSync,
        path: "journal-".to_owned(),
        skip: 0,
        times: u64::MAX,
        errno: Errno::IO,
    };
    world.disk.inject(fails);
    let mut acked = append(&leader, now, &["b"], Acks::All).acked;
    let stopped = async {
        while !world.replication.status().await.iter().any(|one| matches!(one.phase, core::Phase::Stopped(_))) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), stopped).await.expect("the directory fails");
    assert_eq!(leader.offsets().high_watermark, 1);
    assert!((&mut acked).now_or_never().is_none());
    world.end().await;
}

#[tokio::test]
async fn a_connection_that_breaks_again_and_again_loses_nothing() {
    let world = World::start().await;
    let now = world.services().clock.now_ms();
    let replica = world.follow(0).await;
    let leader = world.led(0);
    let mut acks = Vec::new();
    for round in 0..100 {
        acks.push(append(&leader, now, &[&format!("record {round}")], Acks::All).acked);
        if round % 7 == 0 {
            world.network.0.send_modify(|times| *times += 1);
        }
        world.network.1.store(round % 20 > 15, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    world.network.1.store(false, Ordering::Relaxed);
    for acked in acks {
        acked.await.expect("it is acknowledged");
    }
    assert_eq!(bytes(&replica, 0).await, bytes(&leader, 0).await);
    assert!(world.replication.figures().unanswered.load(Ordering::Relaxed) > 0, "it was to break");
    world.end().await;
}

#[tokio::test]
async fn a_tail_that_the_leader_does_not_have_is_cut_by_epoch() {
    let world = World::start().await;
    let now = world.services().clock.now_ms();
    let leader = world.led(0);
    let first = leader.leadership().epoch;
    // Both have the first three records; then the follower led for a while, alone, and wrote what nobody else has.
    let replica = world.follow(0).await;
    append(&leader, now, &["a", "b", "c"], Acks::All).acked.await.expect("it is acknowledged");
    world.replication.drop([tp(0)]).wait().await;
    replica.lead(world.leadership(first + 1, FOLLOWER, FOLLOWER));
    append(&replica, now, &["lost"], Acks::Leader).acked.await.expect("it is durable");
    append(&replica, now, &["lost, too"], Acks::Leader).acked.await.expect("it is durable");
    // The other one leads again and never heard of that.
    leader.lead(world.leadership(first + 2, LEADER, LEADER));
    append(&leader, now, &["d"], Acks::Leader).acked.await.expect("it is durable");
    world.follow_under(0, first + 2).await;
    append(&leader, now, &["e"], Acks::All).acked.await.expect("it is acknowledged");
    assert_eq!(replica.offsets().log_end, 5);
    assert_eq!(bytes(&replica, 0).await, bytes(&leader, 0).await);
    assert_eq!(replica.fetch_position().last_epoch, Some(first + 2));
    assert_eq!(world.replication.figures().cuts.load(Ordering::Relaxed), 1);
    world.end().await;
}

#[tokio::test]
async fn an_epoch_that_the_leader_does_not_have_is_waited_for() {
    let world = World::start().await;
    let now = world.services().clock.now_ms();
    let leader = world.led(0);
    let next = leader.leadership().epoch + 1;
    let replica = world.follow_under(0, next).await;
    append(&leader, now, &["a"], Acks::Leader).acked.await.expect("it is durable");
    let figures = world.replication.figures();
    until("the leader refuses", || figures.refused.load(Ordering::Relaxed) > 2).await;
    assert_eq!(replica.offsets().log_end, 0);
    leader.lead(world.leadership(next, LEADER, LEADER));
    append(&leader, now, &["b"], Acks::All).acked.await.expect("it is acknowledged");
    assert_eq!(replica.offsets().log_end, 2);
    world.end().await;
}

#[tokio::test]
async fn a_new_replica_starts_at_the_end_of_the_tier() {
    let world = World::start().await;
    let now = world.services().clock.now_ms();
    let leader = world.led(0);
    for value in 0..20 {
        append(&leader, now, &[&value.to_string()], Acks::Leader).acked.await.expect("it is durable");
    }
    let epoch = leader.leadership().epoch;
    let pointer = TierPointer { generation: 1, tier_end: 15, ..TierPointer::default() };
    *world.tier.pointer.lock() = Some(Arc::new(pointer));
    *world.tier.epochs.lock() = vec![(epoch, 0)];
    world.tier.down.store(true, Ordering::Relaxed);
    let replica = world.follow(0).await;
    let figures = world.replication.figures();
    until("it is tried again", || figures.started_over.load(Ordering::Relaxed) > 1).await;
    assert_eq!(replica.offsets().log_end, 0, "what is tiered is not fetched");
    world.tier.down.store(false, Ordering::Relaxed);
    append(&leader, now, &["last"], Acks::All).acked.await.expect("it is acknowledged");
    let offsets = replica.offsets();
    assert_eq!((offsets.local_start, offsets.log_end), (15, 21));
    assert_eq!(bytes(&replica, 15).await, bytes(&leader, 15).await);
    assert!(
        figures.bytes.load(Ordering::Relaxed) as usize <= bytes(&leader, 15).await.len(),
        "no more than what is hot"
    );
    world.end().await;
}

#[tokio::test]
async fn a_new_replica_starts_at_the_end_of_a_tier_that_was_emptied() {
    let world = World::start().await;
    let now = world.services().clock.now_ms();
    let leader = world.led(0);
    for value in 0..20 {
        append(&leader, now, &[&value.to_string()], Acks::Leader).acked.await.expect("it is durable");
    }
    let emptied = TierPointer { generation: 2, log_start: 15, tier_start: 15, tier_end: 15, ..TierPointer::default() };
    *world.tier.pointer.lock() = Some(Arc::new(emptied));
    let replica = world.follow(0).await;
    append(&leader, now, &["last"], Acks::All).acked.await.expect("it is acknowledged");
    let offsets = replica.offsets();
    assert_eq!((offsets.log_start, offsets.local_start, offsets.log_end), (15, 15, 21));
    assert_eq!(bytes(&replica, 15).await, bytes(&leader, 15).await);
    // Another one holds all of it, and what the tier's last record was written under is of no interest any more.
    let other =
        TierPointer { end_epoch: 77, generation: 3, ..TierPointer::clone(&world.tier.seen(tp(0)).expect("set")) };
    assert_eq!(leader.contradiction(&other, None), Contradiction::Unknown);
    world.end().await;
}

#[tokio::test]
async fn a_pointer_that_a_log_did_not_reach_is_taken_when_it_does() {
    let world = World::start().await;
    let now = world.services().clock.now_ms();
    let leader = world.led(0);
    let replica = world.follow(0).await;
    append(&leader, now, &["a", "b", "c"], Acks::All).acked.await.expect("it is acknowledged");
    let deleted = TierPointer { generation: 1, log_start: 2, ..TierPointer::default() };
    *world.tier.pointer.lock() = Some(Arc::new(deleted));
    assert_eq!(replica.offsets().log_start, 0, "nobody told it");
    world.replication.drop([tp(0)]).wait().await;
    world.follow(0).await;
    until("it is taken when the log comes to rest", || replica.offsets().log_start == 2).await;
    world.end().await;
}

#[tokio::test]
async fn who_waits_while_the_leader_changes_is_told_of_the_next() {
    let world = World::start().await;
    let services = world.services();
    let address = world.node.kafka_addresses()[0].1.to_string();
    let minute = Duration::from_secs(60);
    let connect = async || {
        let stream = TcpNetwork.connect(&address).await.expect("the node listens");
        greet(stream.split(), "tester", 1 << 20, minute).await.expect("it speaks with us")
    };
    let (mut consumer, mut to_consumer) = connect().await;
    let partition = FetchPartition { partition_max_bytes: 1 << 20, ..FetchPartition::default() };
    let topic = FetchTopic { topic_id: TOPIC.0, partitions: vec![partition], ..FetchTopic::default() };
    let fetch = FetchRequest { max_wait_ms: 60_000, min_bytes: 1, topics: vec![topic], ..FetchRequest::default() };
    let fetching = consumer.send(&fetch).await.expect("it is sent");
    until("the fetch waits", || world.led(0).is_waited_for()).await;
    let (mut producer, mut to_producer) = connect().await;
    let mut batch = BatchBuilder::new();
    batch.append(services.clock.now_ms(), None, Some(b"value"), &[]);
    let data = PartitionProduceData { index: 0, records: Some(batch.build()) };
    let topic = TopicProduceData { topic_id: TOPIC.0, partition_data: vec![data], ..Default::default() };
    let produce = ProduceRequest { acks: -1, timeout_ms: 60_000, topic_data: vec![topic], ..Default::default() };
    let producing = producer.send(&produce).await.expect("it is sent");
    until("the batch waits for the other replica", || world.led(0).offsets().log_end == 1).await;
    let leaves = SetBrokerState {
        id: LEADER,
        broker_epoch: services.broker_epoch,
        state: BrokerState::ShuttingDown,
        directories: None,
    };
    services.controller.set_broker_state(leaves).await.expect("it may go");
    let misdirected = ErrorCode::NotLeaderOrFollower.code();
    let answer = to_producer.receive::<ProduceRequest>(producing, minute).await.expect("it is answered");
    let said = &answer.responses[0].partition_responses[0];
    assert_eq!((said.error_code, said.current_leader.leader_id, said.current_leader.leader_epoch), (misdirected, 1, 1));
    let answer = to_consumer.receive::<FetchRequest>(fetching, minute).await.expect("it is answered");
    let said = &answer.responses[0].partitions[0];
    assert_eq!((said.error_code, said.current_leader.leader_id, said.current_leader.leader_epoch), (misdirected, 1, 1));
    world.end().await;
}

#[tokio::test]
async fn a_stale_incarnation_is_not_served() {
    let mut world = World::start().await;
    let now = world.services().clock.now_ms();
    world.replication.stop().await;
    world.replication = replicate(&world.node, &world.network, &world.tier, world.broker_epoch - 1);
    let replica = world.follow(0).await;
    append(&world.led(0), now, &["a"], Acks::Leader).acked.await.expect("it is durable");
    let figures = world.replication.figures();
    until("it was refused", || figures.answers.load(Ordering::Relaxed) > 2).await;
    assert_eq!((replica.offsets().log_end, world.led(0).offsets().high_watermark), (0, 0));
    world.end().await;
}

#[tokio::test]
async fn status_says_who_follows_whom() {
    let world = World::start().await;
    for partition in 0..PARTITIONS {
        world.follow(partition).await;
    }
    let mut status = world.replication.status().await;
    status.sort_by_key(|one| one.tp);
    let named: Vec<_> = status.iter().map(|one| (one.tp, one.leader)).collect();
    assert_eq!(named, (0..PARTITIONS).map(|partition| (tp(partition), LEADER)).collect::<Vec<_>>());
    assert_eq!(world.replication.leaders(), BTreeSet::from([LEADER]));
    world.replication.drop((0..PARTITIONS).map(tp)).wait().await;
    assert!(world.replication.status().await.is_empty() && world.replication.leaders().is_empty());
    world.end().await;
}

#[tokio::test]
async fn a_consumer_is_sent_to_the_replica_in_its_rack() {
    let world = World::start().await;
    let services = world.services();
    let mut config = crate::config::BrokerConfig::clone(&services.config.load());
    config.replication.nearest_replica = true;
    services.config.store(Arc::new(config));
    world.follow(0).await;
    let now = services.clock.now_ms();
    append(&world.led(0), now, &["a"], Acks::All).acked.await.expect("it is acknowledged");
    let address = world.node.kafka_addresses()[0].1.to_string();
    let soon = Duration::from_secs(60);
    let mut consumer = Connection::open(&TcpNetwork, &address, "tester", soon).await.expect("the node listens");
    let memory = Budget::new(1 << 20);
    for (rack, expected, has_records) in [("near", FOLLOWER.0, false), ("far", -1, true), ("", -1, true)] {
        let partition = FetchPartition { partition_max_bytes: 1 << 20, ..FetchPartition::default() };
        let topic = FetchTopic { topic_id: TOPIC.0, partitions: vec![partition], ..FetchTopic::default() };
        let request = FetchRequest {
            max_wait_ms: 500,
            min_bytes: 1,
            rack_id: rack.to_owned(),
            topics: vec![topic],
            ..FetchRequest::default()
        };
        let (answer, _) = consumer.fetch(&request, soon, &memory).await.expect("it is answered");
        let found = &answer.responses[0].partitions[0];
        assert_eq!((found.error_code, found.preferred_read_replica), (0, expected), "{rack}");
        assert_eq!(found.records.as_ref().is_some_and(|records| !records.is_empty()), has_records, "{rack}");
    }
    world.end().await;
}
