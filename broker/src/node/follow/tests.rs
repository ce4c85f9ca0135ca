//! A follower of its own beside that of a whole node: it is shown images that no controller would make so soon after one another.

use super::*;
use crate::config::server::{ServerConfig, Sources};
use crate::disk::sim::Fault;
use crate::disk::{Operation, SimDisk};
use crate::node::{Host, Node, Objects};
use crate::partition::{Acks, Append, Origin, describe};
use crate::replica::start_over::End;
use async_trait::async_trait;
use controller::command::AssignDirectories;
use controller::command::{BrokerState, Clean, CreateTopics, Mode, NewTopic, RegisterBroker, SetBrokerState, Shortage};
use object_store::memory::InMemory;
use proto::host::Spawner;
use proto::ids::{TopicId, Uuid};
use proto::metadata::{ConfigResource, MetadataRecord, TierPointer};
use proto::records::BatchBuilder;
use rustix::io::Errno;
use tiering::format::EpochHistory;
use tokio::sync::Semaphore;

const OTHER: NodeId = NodeId(1);
const TP: TopicPartition = TopicPartition { topic: TopicId(Uuid::from_u128(7)), partition: 0 };
const DIRECTORY: DirectoryId = DirectoryId(Uuid::from_u128(55));

/// A tier whose pointer is not told before it is let.
struct Slow {
    lets: Semaphore,
    pointer: TierPointer,
}

#[async_trait]
impl Tier for Slow {
    fn seen(&self, _: TopicPartition) -> Option<Arc<TierPointer>> {
        Some(Arc::new(self.pointer.clone()))
    }

    async fn newest(&self, tp: TopicPartition) -> Result<Option<Arc<TierPointer>>, StartOverError> {
        self.lets.acquire().await.expect("it is not closed").forget();
        Ok(self.seen(tp))
    }

    async fn end(&self, _: TopicPartition, pointer: &TierPointer) -> Result<Option<End>, StartOverError> {
        let entries = vec![(pointer.end_epoch, 0)];
        Ok(Some(End { end: pointer.tier_end, epochs: EpochHistory { entries }, producers: bytes::Bytes::new() }))
    }
}

struct World {
    node: Node,
    disk: SimDisk,
    follower: Follower,
    truth: Arc<Slow>,
    image: Image,
    /// Where the quorum's store lies, which is no part of the simulated disk.
    _home: tempfile::TempDir,
}

impl World {
    /// A node that leads the only partition of a topic, of which another broker has a replica that never fetches.
    async fn start() -> World {
        let home = tempfile::tempdir().expect("a directory");
        let dirs = ["one", "two"].map(|name| home.path().join(name).display().to_string()).join(",");
        let presets = [
            ("node.id", "0"),
            ("listeners", "PLAINTEXT://127.0.0.1:0"),
            ("firn.http.listeners", "127.0.0.1:0"),
            ("log.dirs", &dirs),
            ("firn.journal.file.bytes", "1048576"),
            ("firn.journal.bytes", "33554432"),
        ];
        let presets = presets.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let config = ServerConfig::load(&Sources { presets, ..Sources::default() });
        let config = config.unwrap_or_else(|errors| panic!("{errors:?}"));
        let disk = SimDisk::new(1);
        let host = Host {
            disk: Arc::new(disk.clone()),
            objects: Objects::Given(Arc::new(InMemory::new())),
            ..Host::system(Spawner::single(tokio::runtime::Handle::current()))
        };
        let node = Node::start(config, host).await.expect("the node starts");
        create_topic(node.services()).await;
        let broker = node.broker.as_ref().expect("it is one");
        let pointer = TierPointer { generation: 1, tier_end: 2, end_epoch: 77, ..TierPointer::default() };
        let truth = Arc::new(Slow { lets: Semaphore::new(0), pointer });
        let (services, tier) = (Arc::clone(&broker.services), broker.tier.clone());
        let mut follower = Follower::new(services, tier, Arc::clone(&truth) as _, watch::channel(0).0);
        follower.seen = node.services().controller.image();
        let image = Image::clone(&follower.seen);
        World { node, disk, follower, truth, image, _home: home }
    }

    /// Shows the follower an image with all of `records` beside those before.
    async fn show(&mut self, records: &[MetadataRecord]) {
        for record in records {
            self.image.apply(record);
        }
        let image = Arc::new(self.image.clone());
        self.follower.apply(&image).await;
        self.follower.seen = image;
    }

    /// The next version of the partition.
    fn changed(&self, change: impl FnOnce(&mut PartitionState)) -> MetadataRecord {
        let mut state = PartitionState::clone(self.image.partition(TP).expect("it is there"));
        state.partition_epoch += 1;
        change(&mut state);
        MetadataRecord::PartitionSet { tp: TP, state }
    }

    fn services(&self) -> &Arc<Services> {
        self.node.services()
    }

    fn handle(&self) -> PartitionHandle {
        self.services().partitions.get(TP).expect("the node holds it")
    }

    /// Appends records and waits until they are durable here.
    async fn append(&self, count: usize) {
        let mut batch = BatchBuilder::new();
        for _ in 0..count {
            batch.append(self.services().clock.now_ms(), None, Some(b"value"), &[]);
        }
        let batches = batch.build();
        let info = describe(&batches).expect("a batch that was just built");
        let append = Append {
            leader_epoch: None,
            batches,
            info: &info,
            origin: Origin::Client,
            acks: Acks::Leader,
            now_ms: self.services().clock.now_ms(),
            log_append_time: None,
        };
        self.handle().append(append).expect("it is taken").acked.await.expect("it is durable");
    }
}

async fn create_topic(services: &Services) {
    let broker = RegisterBroker {
        id: OTHER,
        incarnation: Uuid::from_u128(1),
        previous_epoch: None,
        clean: Clean::Yes,
        endpoints: vec![],
        rack: None,
        directories: vec![DIRECTORY],
        offline_directories: 0,
        features: controller::supported_features(),
    };
    let broker_epoch = services.controller.register_broker(broker).await.expect("it may come");
    let directories = Some(vec![DIRECTORY]);
    let serves = SetBrokerState { id: OTHER, broker_epoch, state: BrokerState::Active, directories };
    services.controller.set_broker_state(serves).await.expect("it may serve");
    let topic = NewTopic {
        id: TP.topic,
        name: "topic".to_owned(),
        partitions: -1,
        replication_factor: -1,
        shortage: Shortage::Refuse,
        assignments: BTreeMap::from([(0, vec![services.node_id, OTHER])]),
        configs: BTreeMap::new(),
    };
    let create =
        CreateTopics { topics: vec![topic], default_partitions: 1, default_replication_factor: 1, mode: Mode::Commit };
    for created in services.controller.create_topics(create).await.expect("the quorum answers") {
        created.expect("the topic is fine");
    }
    services.caught_up(services.controller.image().offset()).await;
}

fn minimum(value: &str) -> MetadataRecord {
    let resource = ConfigResource::topic("topic");
    MetadataRecord::ConfigSet { resource, key: "min.insync.replicas".to_owned(), value: Some(value.to_owned()) }
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
async fn a_minimum_that_rises_acts_before_and_one_that_falls_after_who_is_in_sync() {
    let mut world = World::start().await;
    world.append(3).await;
    assert_eq!(world.handle().offsets().high_watermark, 0, "the other one is in sync, and has nothing");
    // It stays eligible: it lacks what would be acknowledged without it.
    let alone = world.changed(|state| (state.isr, state.elr) = (vec![NodeId(0)], vec![OTHER]));
    world.show(&[minimum("2"), alone]).await;
    assert_eq!(world.handle().offsets().high_watermark, 0);
    // It was elected before less was asked for.
    let elected = world.changed(|state| {
        (state.leader, state.isr, state.elr) = (Some(OTHER), vec![OTHER], vec![]);
        state.leader_epoch += 1;
    });
    world.show(&[elected, minimum("1")]).await;
    assert_eq!(world.handle().offsets().high_watermark, 0);
    assert_eq!(world.handle().config().min_insync_replicas, 1);
    world.node.shutdown().await;
}

#[tokio::test]
async fn a_log_that_is_not_what_is_tiered_is_not_led_and_hears_who_leads_meanwhile() {
    let mut world = World::start().await;
    world.append(3).await;
    let pointer = world.truth.pointer.clone();
    let changed = world.changed(|_| {});
    world.show(&[MetadataRecord::TierPointerSet { tp: TP, pointer }, changed]).await;
    let before = world.handle().leadership();
    assert!(!before.leads, "what it would append does not follow on what is tiered");
    let elected = world.changed(|state| {
        (state.leader, state.isr) = (Some(OTHER), vec![OTHER]);
        state.leader_epoch += 1;
    });
    world.show(&[elected]).await;
    let leadership = world.handle().leadership();
    assert_eq!((leadership.leader, leadership.epoch), (Some(OTHER), before.epoch + 1));
    // The object store may never answer what was asked for the earlier term.
    assert!(world.follower.behind.is_empty());
    let ended = world.follower.leveling.join_next().await.expect("one was under way");
    assert!(ended.is_err_and(|error| error.is_cancelled()));
    assert_eq!(world.services().replication.leaders(), BTreeSet::from([OTHER]));
    world.node.shutdown().await;
}

#[tokio::test]
async fn a_log_that_starts_over_is_led_after_that_and_forgotten_when_it_leaves() {
    let mut world = World::start().await;
    world.append(3).await;
    let pointer = world.truth.pointer.clone();
    let changed = world.changed(|_| {});
    world.show(&[MetadataRecord::TierPointerSet { tp: TP, pointer }, changed]).await;
    world.truth.lets.add_permits(1);
    let (tp, number) = world.follower.leveling.join_next().await.expect("one is under way").expect("it ends");
    world.follower.is_level(tp, number);
    let (handle, offsets) = (world.handle(), world.handle().offsets());
    assert!(handle.leadership().leads);
    assert_eq!((offsets.log_start, offsets.local_start, offsets.log_end, offsets.tier_end), (0, 2, 2, 2));

    let mut newer = world.truth.pointer.clone();
    (newer.generation, newer.tier_end, newer.end_epoch) = (2, 5, 78);
    let changed = world.changed(|_| {});
    world.show(&[MetadataRecord::TierPointerSet { tp: TP, pointer: newer }, changed]).await;
    assert!(world.follower.behind.contains_key(&TP));
    let left = world.changed(|state| {
        (state.replicas, state.directories, state.isr) = (vec![OTHER], vec![DIRECTORY], vec![OTHER]);
        state.leader = Some(OTHER);
        state.leader_epoch += 1;
    });
    world.show(&[left]).await;
    assert!(world.follower.behind.is_empty());
    let ended = world.follower.leveling.join_next().await.expect("one was under way");
    assert!(ended.is_err_and(|error| error.is_cancelled()), "the object store may never answer");
    world.node.shutdown().await;
}

#[tokio::test]
async fn a_replica_that_lies_elsewhere_does_not_follow_before_the_image_says_so() {
    let mut world = World::start().await;
    let lies = world.handle().dir().id();
    let misplaced = world.follower.misplaced();
    let replaced = world.changed(|state| {
        (state.leader, state.isr) = (Some(OTHER), vec![OTHER]);
        state.directories[0] = DirectoryId::UNASSIGNED;
        state.leader_epoch += 1;
    });
    world.show(&[replaced]).await;
    assert_eq!(*misplaced.borrow(), Misplaced::from([(TP, lies)]));
    assert!(world.services().replication.leaders().is_empty(), "nobody may count on what it holds");
    let placed = world.changed(|state| state.directories[0] = lies);
    world.show(&[placed]).await;
    assert!(misplaced.borrow().is_empty());
    assert_eq!(world.services().replication.leaders(), BTreeSet::from([OTHER]));
    world.node.shutdown().await;
}

#[tokio::test]
async fn where_a_replica_lies_is_reported() {
    let world = World::start().await;
    let services = world.services();
    let lies = world.handle().dir().id();
    let directory = || directory_of(services.node_id, services.controller.image().partition(TP).expect("it is there"));
    assert_eq!(directory(), Some(lies));
    let other = services.partitions.dirs().iter().map(|dir| dir.id()).find(|id| *id != lies).expect("a second one");
    let wrong =
        AssignDirectories { broker: services.node_id, broker_epoch: services.broker_epoch, places: vec![(TP, other)] };
    let before = services.controller.image().partition(TP).expect("it is there").partition_epoch;
    services.controller.assign_directories(wrong).await.expect("the quorum answers");
    until("the broker says where it lies", || {
        let image = services.controller.image();
        let changes = image.partition(TP).map_or(0, |state| state.partition_epoch - before);
        changes == 2 && directory() == Some(lies)
    })
    .await;
    world.node.shutdown().await;
}

#[tokio::test]
async fn a_replica_that_comes_again_holds_nobody_up() {
    let mut world = World::start().await;
    world.append(1).await;
    let full = Fault {
        operation: Operation::Create,
        path: "checkpoint.firn".to_owned(),
        skip: 0,
        times: u64::MAX,
        errno: Errno::NOSPC,
    };
    world.disk.inject(full);
    let held = PartitionState::clone(world.image.partition(TP).expect("it is there"));
    let left = world.changed(|state| {
        (state.replicas, state.directories, state.isr) = (vec![OTHER], vec![DIRECTORY], vec![OTHER]);
        state.leader = Some(OTHER);
        state.leader_epoch += 1;
    });
    world.show(&[left]).await;
    let again = world.changed(|state| {
        (state.replicas, state.directories) = (held.replicas, held.directories);
    });
    // Its former files are not gone, nor can that be written down: other partitions must not wait for it.
    let shown = tokio::time::timeout(Duration::from_secs(30), world.show(&[again])).await;
    shown.expect("the image is followed");
    assert!(world.services().partitions.get(TP).is_none());
    world.disk.heal();
    let tp = world.follower.leaving.join_next().await.expect("it is waited for").expect("it ends");
    world.follower.came(tp).await;
    assert_eq!(world.handle().offsets().log_end, 0);
    assert_eq!(world.services().replication.leaders(), BTreeSet::from([OTHER]));
    world.node.shutdown().await;
}
