//! A node in this process, its data in a directory that goes with the test.

use crate::client::{Client, code};
use broker::config::server::{ServerConfig, Sources};
use broker::http::Control;
use broker::node::{Host, Node};
use bytes::Bytes;
use proto::errors::ErrorCode;
use proto::host::{Clock, Spawner, SystemClock};
use proto::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use proto::messages::describe_configs_request::DescribeConfigsResource;
use proto::messages::fetch_request::{FetchPartition, FetchTopic};
use proto::messages::fetch_response::PartitionData;
use proto::messages::metadata_request::MetadataRequestTopic;
use proto::messages::produce_request::{PartitionProduceData, TopicProduceData};
use proto::messages::produce_response::PartitionProduceResponse;
use proto::messages::{CreateTopicsRequest, DescribeConfigsRequest, FetchRequest, MetadataRequest, ProduceRequest};
use proto::records::{BatchBuilder, batches, for_each_record};
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use uuid::Uuid;

/// The version that tests use of an API when nothing depends on it.
pub(crate) const PRODUCE: i16 = 12;
pub(crate) const FETCH: i16 = 12;
pub(crate) const CREATE: i16 = 7;

/// Settings of a topic whose records leave the local disk as soon as they are tiered.
pub(crate) const COLD: &[(&str, &str)] = &[("local.retention.ms", "1")];

/// A time that records carry, Unix ms: an hour ago, out of reach of retention. Tests count up from it.
pub(crate) fn t0() -> i64 {
    static T0: LazyLock<i64> = LazyLock::new(|| SystemClock.now_ms() - 3_600_000);
    *T0
}

/// A broker under test.
pub(crate) struct World {
    node: Option<Node>,
    data: TempDir,
    settings: Vec<(String, String)>,
    address: SocketAddr,
}

impl World {
    /// A broker with its defaults; Kafka itself, if the environment names one.
    pub(crate) async fn start() -> World {
        match std::env::var("FIRN_TEST_BOOTSTRAP") {
            Ok(address) => World {
                node: None,
                data: TempDir::new().expect("a directory"),
                settings: Vec::new(),
                address: address.parse().expect("FIRN_TEST_BOOTSTRAP is an address"),
            },
            Err(_) => World::launch(&[]).await,
        }
    }

    /// Firn with these settings; none when another broker is under test.
    pub(crate) async fn firn(settings: &[(&str, &str)]) -> Option<World> {
        if std::env::var("FIRN_TEST_BOOTSTRAP").is_ok() {
            return None;
        }
        Some(World::launch(settings).await)
    }

    async fn launch(settings: &[(&str, &str)]) -> World {
        let data = TempDir::new().expect("a directory");
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut world = World {
            node: None,
            data,
            settings: settings.iter().map(own).collect(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        world.boot().await;
        world
    }

    async fn boot(&mut self) {
        let presets = [
            ("node.id", "0".to_owned()),
            ("listeners", "PLAINTEXT://127.0.0.1:0".to_owned()),
            ("firn.http.listeners", "127.0.0.1:0".to_owned()),
            ("log.dirs", self.data.path().join("log").display().to_string()),
            ("firn.object.store", format!("file://{}", self.data.path().join("bucket").display())),
            ("firn.journal.file.bytes", "1048576".to_owned()),
            ("firn.journal.bytes", "33554432".to_owned()),
            ("firn.tier.check.interval.ms", "50".to_owned()),
            ("group.initial.rebalance.delay.ms", "0".to_owned()),
            ("group.min.session.timeout.ms", "100".to_owned()),
            ("offsets.topic.num.partitions", "2".to_owned()),
        ];
        let sources = Sources {
            presets: presets.map(|(name, value)| (name.to_owned(), value)).into(),
            flags: self.settings.clone(),
            ..Sources::default()
        };
        let config = ServerConfig::load(&sources).unwrap_or_else(|errors| panic!("{errors:?}"));
        let spawner = Spawner::single(tokio::runtime::Handle::current());
        let node = Node::start(config, Host::system(spawner)).await.expect("the node starts");
        self.address = node.kafka_addresses().first().expect("a listener").1;
        self.node = Some(node);
    }

    /// Stops the node and starts it again over the same data.
    pub(crate) async fn restart(&mut self) {
        self.node.take().expect("Firn runs in this process").shutdown().await;
        self.boot().await;
    }

    pub(crate) fn node(&self) -> &Node {
        self.node.as_ref().expect("Firn runs in this process")
    }

    /// Where the object store keeps its files.
    pub(crate) fn bucket(&self) -> std::path::PathBuf {
        self.data.path().join("bucket")
    }

    /// Moves all there is of a topic to the remote tier and off the local disk. Its records are older than what
    /// [`COLD`] keeps.
    pub(crate) async fn cool(&self, topic: &str) {
        let control = self.node().control().expect("a broker");
        control.tier_flush(topic.to_owned(), Duration::from_secs(30)).await.expect("tiered");
        let cold = || {
            let status = control.tier_status(Some(topic)).expect("a topic that exists");
            status.iter().all(|one| one.local_start == one.high_watermark)
        };
        while !cold() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn is_firn(&self) -> bool {
        self.node.is_some()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// A topic of its own for a test: its name.
    pub(crate) async fn topic(&self, partitions: i32, configs: &[(&str, &str)]) -> String {
        let name = unique("topic");
        let mut client = self.client().await;
        let request = create(&name, partitions, configs);
        let answer = client.call(CREATE, &request).await;
        let topic = answer.topics.first().expect("an answer for the topic");
        assert_eq!((code(topic.error_code), &topic.error_message), (ErrorCode::None, &None));
        // Kafka answers before its brokers have heard of the topic.
        for _ in 0..200 {
            if self.metadata(&name).await.is_ok() {
                if !self.is_firn() {
                    // Its leader hears of it later still.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                return name;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{name} never came");
    }

    /// The id of a topic.
    pub(crate) async fn id(&self, topic: &str) -> Uuid {
        self.metadata(topic).await.expect("a topic that exists")
    }

    /// How many partitions a topic has.
    pub(crate) async fn partitions(&self, topic: &str) -> usize {
        let asked = MetadataRequestTopic { name: Some(topic.to_owned()), ..Default::default() };
        let request =
            MetadataRequest { topics: Some(vec![asked]), allow_auto_topic_creation: false, ..Default::default() };
        self.client().await.call(12, &request).await.topics.first().expect("an answer").partitions.len()
    }

    /// Waits until a topic has that many partitions, all of them led: Kafka answers before its brokers have heard of them.
    pub(crate) async fn has_partitions(&self, topic: &str, count: usize) {
        for _ in 0..200 {
            if self.partitions(topic).await == count && self.metadata(topic).await.is_ok() {
                if !self.is_firn() {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{topic} never had {count} partitions");
    }

    /// A setting of a topic, wherever it comes from.
    pub(crate) async fn config(&self, topic: &str, setting: &str) -> String {
        let resource = DescribeConfigsResource {
            resource_type: 2,
            resource_name: topic.to_owned(),
            configuration_keys: Some(vec![setting.to_owned()]),
        };
        let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
        let said = self.client().await.call(4, &request).await;
        let found = said.results.into_iter().next().expect("an answer").configs.into_iter().next();
        found.and_then(|config| config.value).expect("a setting that is described")
    }

    async fn metadata(&self, topic: &str) -> Result<Uuid, ErrorCode> {
        let asked = MetadataRequestTopic { name: Some(topic.to_owned()), ..Default::default() };
        let request =
            MetadataRequest { topics: Some(vec![asked]), allow_auto_topic_creation: false, ..Default::default() };
        let answer = self.client().await.call(12, &request).await;
        let topic = answer.topics.first().expect("an answer for the topic");
        let led = topic.partitions.iter().all(|partition| partition.leader_id >= 0);
        if topic.error_code == 0 && led { Ok(topic.topic_id) } else { Err(code(topic.error_code)) }
    }
}

/// A name nobody else uses, be it on a broker that outlives the test.
pub(crate) fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}-{}", Uuid::new_v4().simple(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A request to create one topic.
pub(crate) fn create(name: &str, partitions: i32, configs: &[(&str, &str)]) -> CreateTopicsRequest {
    CreateTopicsRequest { topics: vec![creatable(name, partitions, configs)], timeout_ms: 30_000, ..Default::default() }
}

pub(crate) fn creatable(name: &str, partitions: i32, configs: &[(&str, &str)]) -> CreatableTopic {
    let configs = configs
        .iter()
        .map(|(name, value)| CreatableTopicConfig { name: (*name).to_owned(), value: Some((*value).to_owned()) });
    CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: -1,
        configs: configs.collect(),
        ..Default::default()
    }
}

/// A batch of records without keys, with timestamps that count up from [`t0`].
pub(crate) fn batch(values: &[&[u8]]) -> Bytes {
    filled(BatchBuilder::new(), values)
}

/// As [`batch`], with a builder that was told something else before.
pub(crate) fn filled(mut builder: BatchBuilder, values: &[&[u8]]) -> Bytes {
    for (timestamp, value) in (t0()..).zip(values) {
        builder.append(timestamp, None, Some(value), &[]);
    }
    builder.build()
}

/// One batch of exactly `bytes` with one record.
pub(crate) fn sized(bytes: usize) -> Bytes {
    let overhead = |value: usize| batch(&[&vec![b'x'; value]]).len() - value;
    let mut value = bytes - overhead(bytes);
    value += bytes - value - overhead(value);
    let batch = batch(&[&vec![b'x'; value]]);
    assert_eq!(batch.len(), bytes);
    batch
}

/// A produce request with one batch for each partition named.
pub(crate) fn produce(topic: &str, acks: i16, batches: &[(i32, Bytes)]) -> ProduceRequest {
    let partitions =
        batches.iter().map(|(index, batch)| PartitionProduceData { index: *index, records: Some(batch.clone()) });
    ProduceRequest {
        acks,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: topic.to_owned(),
            partition_data: partitions.collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

impl Client {
    /// Produces one batch with acks=all; answers what the broker said of it.
    pub(crate) async fn produce(&mut self, topic: &str, partition: i32, batch: Bytes) -> PartitionProduceResponse {
        let answer = self.call(PRODUCE, &produce(topic, -1, &[(partition, batch)])).await;
        answer
            .responses
            .into_iter()
            .next()
            .expect("a topic")
            .partition_responses
            .into_iter()
            .next()
            .expect("a partition")
    }

    /// As [`Client::produce`]; the batch must be taken. Answers its first offset.
    pub(crate) async fn produced(&mut self, topic: &str, partition: i32, batch: Bytes) -> i64 {
        let said = self.produce(topic, partition, batch).await;
        assert_eq!((code(said.error_code), &said.error_message), (ErrorCode::None, &None));
        said.base_offset
    }

    /// Fetches as asked; answers the partitions of the first topic.
    pub(crate) async fn fetched(&mut self, request: &FetchRequest) -> Vec<PartitionData> {
        let answer = self.call(FETCH, request).await;
        assert_eq!(code(answer.error_code), ErrorCode::None);
        answer.responses.into_iter().next().expect("a topic").partitions
    }

    /// Fetches one partition without waiting.
    pub(crate) async fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> PartitionData {
        self.fetched(&fetch(topic, &[(partition, offset)])).await.into_iter().next().expect("a partition")
    }

    /// All values of a partition from `offset` on, up to the high watermark.
    pub(crate) async fn values(&mut self, topic: &str, partition: i32, mut offset: i64) -> Vec<Vec<u8>> {
        let mut values = Vec::new();
        loop {
            let mut request = fetch(topic, &[(partition, offset)]);
            request.max_wait_ms = 10_000;
            request.min_bytes = 1;
            let answer = self.call(FETCH, &request).await;
            let found = answer.responses.into_iter().next().expect("a topic").partitions.into_iter().next();
            let found = found.expect("a partition");
            assert_eq!(code(found.error_code), ErrorCode::None);
            for record in read(&found) {
                if record.0 >= offset {
                    values.push(record.1);
                    offset = record.0 + 1;
                }
            }
            if offset >= found.high_watermark {
                return values;
            }
        }
    }
}

/// A fetch of these partitions from these offsets: no session, no wait, no limits to speak of.
pub(crate) fn fetch(topic: &str, partitions: &[(i32, i64)]) -> FetchRequest {
    let partitions = partitions.iter().map(|(partition, offset)| FetchPartition {
        partition: *partition,
        fetch_offset: *offset,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    });
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 0,
        max_bytes: 50 << 20,
        session_epoch: -1,
        topics: vec![FetchTopic { topic: topic.to_owned(), partitions: partitions.collect(), ..Default::default() }],
        ..Default::default()
    }
}

/// Offset and value of the records that were fetched.
pub(crate) fn read(found: &PartitionData) -> Vec<(i64, Vec<u8>)> {
    let bytes = found.records.as_ref().map(|records| records.to_bytes()).unwrap_or_default();
    let mut records = Vec::new();
    for batch in batches(&bytes) {
        let batch = batch.expect("whole batches");
        let visit = |record: proto::records::Record<'_>| {
            records.push((record.offset, record.value.unwrap_or_default().to_vec()));
        };
        for_each_record(&batch, 64 << 20, visit).expect("readable records");
    }
    records
}

/// Bytes of the records that were fetched.
pub(crate) fn size(found: &PartitionData) -> usize {
    found.records.as_ref().map_or(0, |records| records.len())
}
