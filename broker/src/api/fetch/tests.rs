//! How long a fetch waits, by a clock that moves only when everybody waits for it.

use super::engine::MEMORY_PATIENCE;
use super::*;
use crate::api::partitions::{held, topic_named};
use crate::api::{Caller, topics};
use crate::config::server::{ServerConfig, Sources};
use crate::net::budget::Grant;
use crate::node::{Host, Node};
use crate::partition::{Acks, Append, Origin, describe};
use parking_lot::Mutex;
use proto::host::Spawner;
use proto::messages::CreateTopicsRequest;
use proto::messages::create_topics_request::CreatableTopic;
use proto::messages::fetch_request::FetchPartition;
use proto::records::BatchBuilder;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, pause, sleep};

const TOPIC: &str = "topic";
/// More than there is.
const MUCH: i32 = 1 << 20;
/// Timers end at full milliseconds, and there may be one for each of the waits that follow each other.
const ROUNDING: Duration = Duration::from_millis(3);

/// A node with one record in one partition.
struct World {
    node: Node,
    _data: tempfile::TempDir,
}

impl World {
    /// The clock stands still from here on, but for who waits.
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
        let world = World { node: node.expect("the node starts"), _data: data };
        world.fill().await;
        pause();
        world
    }

    async fn fill(&self) {
        let topic = CreatableTopic {
            name: TOPIC.to_owned(),
            num_partitions: 1,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
        let created = topics::create(&self.context(7, None), request).await;
        assert_eq!(created.topics[0].error_code, 0);
        let services = self.node.services();
        let image = services.controller.image();
        let partition = held(services, topic_named(&image, TOPIC).expect("created"), 0).expect("held here");
        let mut batch = BatchBuilder::new();
        let now_ms = services.clock.now_ms();
        batch.append(now_ms, None, Some(b"value"), &[]);
        let batches = batch.build();
        let info = describe(&batches).expect("a batch that was just built");
        let append = Append {
            leader_epoch: None,
            batches,
            info: &info,
            origin: Origin::Client,
            acks: Acks::All,
            now_ms,
            log_append_time: None,
        };
        partition.append(append).expect("taken").acked.await.expect("acknowledged");
    }

    fn context(&self, version: i16, memory: Option<Grant>) -> Context<'_> {
        let caller = Caller {
            version,
            client_id: None,
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            listener: Arc::from("PLAINTEXT"),
        };
        Context { services: self.node.services(), caller, memory, held: Mutex::default() }
    }

    /// Fetches from `offset` on; how many bytes came, and after how long.
    async fn fetch(&self, offset: i64, min_bytes: i32, max_wait_ms: i32, memory: Option<Grant>) -> (usize, Duration) {
        let partition = FetchPartition { fetch_offset: offset, partition_max_bytes: MUCH, ..Default::default() };
        let topic = FetchTopic { topic: TOPIC.to_owned(), partitions: vec![partition], ..Default::default() };
        let request = FetchRequest {
            max_wait_ms,
            min_bytes,
            max_bytes: 50 << 20,
            session_epoch: -1,
            topics: vec![topic],
            ..Default::default()
        };
        let began = Instant::now();
        let answer = handle(&self.context(12, memory), request).await;
        let waited = began.elapsed();
        let found = &answer.responses[0].partitions[0];
        assert_eq!(found.error_code, 0);
        (found.records.as_ref().map_or(0, |records| records.len()), waited)
    }

    /// All the memory that answers may take.
    fn all_memory(&self) -> Grant {
        let memory = &self.node.services().fetch_memory;
        memory.try_admit(memory.total_bytes()).expect("nobody has any of it")
    }
}

#[track_caller]
fn assert_waited(waited: Duration, expected: Duration) {
    assert!((expected..expected + ROUNDING).contains(&waited), "{waited:?} instead of {expected:?}");
}

#[tokio::test]
async fn a_fetch_waits_as_long_as_it_may_and_no_longer() {
    let world = World::start().await;
    for max_wait_ms in [20, 300, 4_999, 45_000] {
        let expected = Duration::from_millis(max_wait_ms as u64);
        // Nothing is there.
        let (bytes, waited) = world.fetch(1, 1, max_wait_ms, None).await;
        assert_eq!(bytes, 0);
        assert_waited(waited, expected);
        // Something is, but not enough: it comes all the same.
        let (bytes, waited) = world.fetch(0, MUCH, max_wait_ms, None).await;
        assert!(bytes > 0);
        assert_waited(waited, expected);
        // A large request looks now and then whether others need its memory. Nobody does.
        let memory = world.node.services().decoded_memory.admit(1 << 10).await;
        let (bytes, waited) = world.fetch(0, MUCH, max_wait_ms, Some(memory)).await;
        assert!(bytes > 0);
        assert_waited(waited, expected);
    }
    let (bytes, waited) = world.fetch(0, 1, 45_000, None).await;
    assert!(bytes > 0);
    assert_waited(waited, Duration::ZERO);
    world.node.shutdown().await;
}

#[tokio::test]
async fn who_waits_for_memory_waits_no_longer_than_its_patience_beyond_that() {
    let world = World::start().await;
    let short = Duration::from_millis(300);
    // There is none from the beginning on: whoever may wait longer than the patience lasts, does.
    let memory = world.all_memory();
    for (max_wait_ms, expected) in [(0, MEMORY_PATIENCE), (300, MEMORY_PATIENCE), (45_000, Duration::from_secs(45))] {
        let (bytes, waited) = world.fetch(0, 1, max_wait_ms, None).await;
        assert_eq!(bytes, 0, "nothing is read without");
        assert_waited(waited, expected);
    }
    drop(memory);
    // It goes while the fetch waits for more records, and the last look finds none. Nobody waits longer than this.
    let taken = async {
        sleep(short / 3).await;
        world.all_memory()
    };
    let ((bytes, waited), memory) = tokio::join!(world.fetch(0, MUCH, 300, None), taken);
    assert_eq!(bytes, 0);
    assert_waited(waited, short + MEMORY_PATIENCE);
    // It comes back meanwhile.
    let given = async move {
        sleep(MEMORY_PATIENCE / 2).await;
        drop(memory);
    };
    let ((bytes, waited), ()) = tokio::join!(world.fetch(0, 1, 300, None), given);
    assert!(bytes > 0);
    assert_waited(waited, MEMORY_PATIENCE / 2);
    world.node.shutdown().await;
}
