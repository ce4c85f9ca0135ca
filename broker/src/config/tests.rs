//! The table through its typed views, DescribeConfigs and alterations.

use std::collections::BTreeMap;

use proto::errors::ErrorCode;
use proto::records::{Codec, Compression, TimestampType};

use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn step(name: &str, operation: Operation, value: &str) -> Alteration {
    Alteration { name: name.to_owned(), operation, value: Some(value.to_owned()) }
}

fn set(name: &str, value: &str) -> Alteration {
    step(name, Operation::Set, value)
}

fn delete(name: &str) -> Alteration {
    Alteration { name: name.to_owned(), operation: Operation::Delete, value: None }
}

fn alter(current: &[(&str, &str)], alterations: &[Alteration]) -> Result<Settings, ConfigError> {
    alter_topic(&BrokerLayers::none(), &map(current), alterations)
}

#[test]
fn every_config_that_is_read_has_a_default_of_its_type() {
    let broker = BrokerConfig::default();
    assert_eq!(broker.topic_defaults, TopicConfig::default());
    assert_eq!(broker.groups.max_session_timeout_ms, 1_800_000);
    assert_eq!(broker.groups.offsets_retention_ms, 7 * 24 * 3_600_000);
    let topic = broker.topic_defaults;
    assert!(topic.remote_storage_enable);
    assert_eq!((topic.max_message_bytes, topic.compression, topic.flush), (1_048_588, None, Flush::Fsync));
    assert_eq!((topic.retention_ms, topic.retention_bytes), (Some(7 * 24 * 3_600_000), None));
    assert_eq!((topic.local_retention_ms, topic.local_retention_bytes), (Some(7 * 24 * 3_600_000), None));
    let firn = broker.firn;
    assert_eq!(firn.memory_bytes, 512 << 20);
    assert_eq!((firn.tail_cache_bytes, firn.writeback_bytes), (160 << 20, (160 << 20) / 3 * 2));
    assert_eq!(
        (firn.request_memory_bytes, firn.chunk_cache_bytes, firn.remote_read_bytes, firn.upload_bytes),
        (128 << 20, 24 << 20, 96 << 20, 64 << 20)
    );
    let parts = [firn.tail_cache_bytes, firn.request_memory_bytes, firn.chunk_cache_bytes, firn.remote_read_bytes];
    assert_eq!(parts.iter().sum::<usize>() + firn.upload_bytes + 5 * firn.index_bytes, firn.memory_bytes);
}

/// Remembers what was asked for, and sets nothing.
#[derive(Default)]
struct Recorder(std::cell::RefCell<std::collections::BTreeSet<String>>);

impl Lookup for Recorder {
    fn lookup(&self, name: &str) -> Option<&str> {
        self.0.borrow_mut().insert(name.to_owned());
        None
    }
}

/// What the table says Firn acts on, something reads.
#[test]
fn every_config_that_is_acted_on_is_read() {
    // Read by `server`, from what the process was started with.
    const AT_START: &[&str] = &[
        "advertised.listeners",
        "broker.id",
        "broker.rack",
        "controller.listener.names",
        "controller.quorum.bootstrap.servers",
        "controller.quorum.voters",
        "firn.http.listeners",
        "firn.log.filter",
        "firn.log.format",
        "firn.object.store",
        "firn.otlp.endpoint",
        "inter.broker.listener.name",
        "listener.security.protocol.map",
        "listeners",
        "log.dir",
        "log.dirs",
        "node.id",
        "process.roles",
    ];
    let (broker, topic) = (Recorder::default(), Recorder::default());
    let layers = BrokerLayers { node: &(), cluster: &(), fixed: &broker };
    BrokerConfig::resolve(&layers);
    // The levels of a codec are read when it is the one.
    for codec in ["gzip", "zstd"] {
        TopicConfig::resolve(&layers, &map(&[("compression.type", codec)]));
    }
    TopicConfig::resolve(&layers, &topic);
    for name in [internal::OFFSETS, internal::TRANSACTIONS, internal::SHARES] {
        internal::template(name, &layers);
    }
    let unread = |rows: &mut dyn Iterator<Item = &'static Definition>, read: &Recorder| -> Vec<&str> {
        let read = read.0.borrow();
        rows.filter(|row| row.effect == Effect::Acted && !read.contains(row.name)).map(|row| row.name).collect()
    };
    assert_eq!(unread(&mut tables::all_broker(), &broker), AT_START);
    // The bounds of replication are read for all topics at once, by whoever follows the metadata.
    let elsewhere = [
        "compression.gzip.level",
        "compression.zstd.level",
        "follower.replication.throttled.replicas",
        "leader.replication.throttled.replicas",
    ];
    assert_eq!(unread(&mut tables::all_topic(), &topic), elsewhere);
}

#[test]
fn less_memory_makes_its_parts_smaller() {
    let fixed = map(&[("firn.memory.bytes", "134217728"), ("firn.chunk.cache.bytes", "4194304")]);
    let firn = BrokerConfig::resolve(&BrokerLayers { node: &(), cluster: &(), fixed: &fixed }).firn;
    assert_eq!((firn.tail_cache_bytes, firn.writeback_bytes), (40 << 20, (40 << 20) / 3 * 2));
    assert_eq!((firn.request_memory_bytes, firn.chunk_cache_bytes), (32 << 20, 4 << 20));
}

#[test]
fn a_value_comes_from_the_nearest_layer_that_sets_it() {
    let fixed = map(&[("log.retention.hours", "2"), ("log.segment.bytes", "2000000"), ("log.roll.hours", "3")]);
    let cluster = map(&[("log.retention.ms", "500000"), ("log.segment.bytes", "3000000")]);
    let node = map(&[("log.segment.bytes", "4000000")]);
    let at = |node: &Settings, cluster: &Settings, topic: &Settings| {
        let config = TopicConfig::resolve(&BrokerLayers { node, cluster, fixed: &fixed }, topic);
        (config.retention_ms, config.segment_bytes, config.segment_ms)
    };
    let none = Settings::new();
    assert_eq!(at(&none, &none, &none), (Some(7_200_000), 2_000_000, 10_800_000));
    assert_eq!(at(&none, &cluster, &none), (Some(500_000), 3_000_000, 10_800_000));
    assert_eq!(at(&node, &cluster, &none), (Some(500_000), 4_000_000, 10_800_000));
    let topic = map(&[("retention.ms", "-1"), ("segment.bytes", "5000000"), ("segment.ms", " 7 ")]);
    assert_eq!(at(&node, &cluster, &topic), (None, 5_000_000, 7));
}

#[test]
fn topics_are_read_in_full() {
    let topic = map(&[
        ("compression.type", "zstd"),
        ("compression.zstd.level", "7"),
        ("message.timestamp.type", "LogAppendTime"),
        ("retention.ms", "1000"),
        ("local.retention.bytes", "2097152"),
        ("local.retention.ms", "500"),
        ("firn.flush", "os"),
        ("cleanup.policy", "compact,delete"),
    ]);
    let config = TopicConfig::resolve(&BrokerLayers::none(), &topic);
    assert_eq!(config.compression, Some(Compression { codec: Codec::Zstd, level: Some(7) }));
    assert_eq!(config.timestamp_type, TimestampType::LogAppendTime);
    assert_eq!((config.local_retention_ms, config.local_retention_bytes), (Some(500), Some(2_097_152)));
    assert_eq!(config.flush, Flush::Os);
    assert_eq!(config.cleanup, CleanupPolicy { delete: true, compact: true });
    assert!(!config.remote_storage_enable, "a compacted topic stays local");
    let plain = TopicConfig::resolve(&BrokerLayers::none(), &map(&[("compression.type", "uncompressed")]));
    assert_eq!(plain.compression, Some(Compression { codec: Codec::None, level: None }));
}

/// What a Kafka 4.3.1 broker answers to the same alterations.
#[test]
fn topic_alterations_are_judged_as_kafka_does() {
    let refused = [
        ("nope", "1"),
        ("retention.ms", "x"),
        ("retention.ms", "-5"),
        ("retention.ms", ""),
        ("segment.bytes", "100"),
        ("segment.bytes", "99999999999"),
        ("cleanup.policy", "foo"),
        ("compression.type", "LZ4"),
        ("compression.type", "none"),
        ("compression.gzip.level", "0"),
        ("preallocate", "yes"),
        ("min.insync.replicas", "0"),
        ("min.cleanable.dirty.ratio", "1.5"),
        ("leader.replication.throttled.replicas", "0:1,x"),
        ("message.timestamp.type", "createtime"),
    ];
    for (name, value) in refused {
        let error = alter(&[], &[set(name, value)]).expect_err(value);
        assert_eq!(error.code(), ErrorCode::InvalidConfig, "{name}={value}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let taken = [
        ("retention.ms", " 1000000 "),
        ("retention.ms", "+5000000"),
        ("cleanup.policy", ""),
        ("cleanup.policy", "delete,delete"),
        ("cleanup.policy", "delete, compact"),
        ("compression.gzip.level", "-1"),
        ("preallocate", "TRUE"),
        ("min.cleanable.dirty.ratio", "1e-1"),
        ("leader.replication.throttled.replicas", "*"),
    ];
    for (name, value) in taken {
        let settings = alter(&[("firn.flush", "os")], &[set(name, value)]).expect(value);
        assert_eq!(settings, map(&[("firn.flush", "os"), (name, value)]));
    }
    assert_eq!(
        alter(&[("retention.ms", "5"), ("gone", "1")], &[delete("retention.ms"), delete("gone"), delete("nope")]),
        Ok(map(&[]))
    );
    let error = alter(&[], &[step("retention.ms", Operation::Append, "5")]).expect_err("no list");
    assert_eq!(error.code(), ErrorCode::InvalidConfig);
    let error = alter(&[], &[set("retention.ms", "5"), delete("retention.ms")]).expect_err("twice");
    assert_eq!(error.code(), ErrorCode::InvalidRequest);
    let error = alter(&[], &[Alteration { name: "retention.ms".into(), operation: Operation::Set, value: None }]);
    assert_eq!(error.expect_err("no value").code(), ErrorCode::InvalidRequest);
}

#[test]
fn lists_grow_and_shrink_from_what_is_inherited() {
    let append = |value| step("cleanup.policy", Operation::Append, value);
    let subtract = |value| step("cleanup.policy", Operation::Subtract, value);
    assert_eq!(alter(&[], &[append("compact")]), Ok(map(&[("cleanup.policy", "delete,compact")])));
    let both = [("cleanup.policy", "delete,compact")];
    assert_eq!(alter(&both, &[append("compact")]), Ok(map(&both)));
    assert_eq!(alter(&both, &[subtract("compact")]), Ok(map(&[("cleanup.policy", "delete")])));
    assert_eq!(alter(&[], &[subtract("delete")]), Ok(map(&[("cleanup.policy", "")])));
    let cluster = map(&[("log.cleanup.policy", "compact")]);
    let layers = BrokerLayers { node: &(), cluster: &cluster, fixed: &() };
    let result = alter_topic(&layers, &map(&[]), &[append("delete")]);
    assert_eq!(result, Ok(map(&[("cleanup.policy", "compact,delete")])));
}

#[test]
fn values_that_do_not_go_together_are_refused() {
    let refused: [&[(&str, &str)]; 6] = [
        &[("min.compaction.lag.ms", "10000"), ("max.compaction.lag.ms", "5000")],
        &[("retention.ms", "1000"), ("local.retention.ms", "2000")],
        &[("retention.bytes", "1000"), ("local.retention.bytes", "-1")],
        &[("cleanup.policy", "compact"), ("remote.storage.enable", "true")],
        &[("remote.log.copy.disable", "true"), ("local.retention.ms", "5000")],
        &[("local.retention.ms", "99999999999")],
    ];
    for settings in refused {
        let error = validate_topic_set(&map(settings)).expect_err("a conflict");
        assert_eq!(error.code(), ErrorCode::InvalidConfig, "{settings:?}");
    }
    let taken: [&[(&str, &str)]; 5] = [
        &[("cleanup.policy", "compact")],
        &[("remote.storage.enable", "false"), ("retention.ms", "1000"), ("local.retention.ms", "2000")],
        &[("remote.log.copy.disable", "true"), ("local.retention.ms", "-2")],
        &[("retention.ms", "-1"), ("local.retention.ms", "99999999999")],
        &[("segment.bytes", "1048576"), ("local.retention.bytes", "2097152")],
    ];
    for settings in taken {
        assert_eq!(validate_topic_set(&map(settings)), Ok(()), "{settings:?}");
    }
}

#[test]
fn tiering_is_not_switched_off_while_history_is_kept() {
    assert!(alter(&[], &[set("remote.storage.enable", "false")]).is_err());
    let both = [set("remote.storage.enable", "false"), set("remote.log.delete.on.disable", "true")];
    assert!(alter(&[], &both).is_err(), "deleting the tiered history is not supported yet");
    assert!(alter(&[], &[set("remote.log.copy.disable", "true")]).is_ok());
    assert!(alter(&[("remote.storage.enable", "false")], &[set("retention.ms", "5")]).is_ok());
    let (old, new) = (map(&[]), map(&[("remote.storage.enable", "false")]));
    assert!(replace_topic(&BrokerLayers::none(), &old, &new).is_err());
    assert!(validate_topic_set(&new).is_ok(), "a new topic may be local");
}

#[test]
fn broker_alterations_are_judged_as_kafka_does() {
    let none = BrokerLayers::none();
    let alter = |reach, alteration| alter_broker(reach, &none, &map(&[]), &[alteration]);
    for (reach, name, value) in [
        (Reach::Node, "num.partitions", "3"),
        (Reach::Node, "log.retention.hours", "5"),
        (Reach::Cluster, "listeners", "PLAINTEXT://:1234"),
        (Reach::Cluster, "log.retention.ms", "0"),
        (Reach::Cluster, "log.retention.ms", "abc"),
        (Reach::Cluster, "log.local.retention.ms", "99999999999"),
        (Reach::Node, "ssl.keystore.password", "abc"),
        (Reach::Node, "no.such.config", "1"),
    ] {
        let error = alter(reach, set(name, value)).expect_err(name);
        assert_eq!(error.code(), ErrorCode::InvalidRequest, "{name}");
    }
    assert!(alter(Reach::Cluster, set("num.io.threads", "9")).is_ok());
    assert!(alter(Reach::Cluster, set("log.cleanup.policy", "delete,compact")).is_ok());
    assert!(alter(Reach::Node, set("max.connections", "10")).is_ok());
    assert!(alter(Reach::Cluster, delete("log.retention.ms")).is_ok());
    let secret = alter(Reach::Node, set("ssl.keystore.password", "hunter2")).expect_err("refused");
    assert!(!secret.to_string().contains("hunter2"));
}

#[test]
fn near_misses_are_named() {
    let error = validate_topic("retention.mss", "1").expect_err("unknown").to_string();
    assert!(error.contains("did you mean retention.ms?"), "{error}");
    let error = validate_topic("completely.else", "1").expect_err("unknown").to_string();
    assert!(!error.contains("did you mean"), "{error}");
}

fn entry(entries: &[Entry], name: &str) -> Entry {
    entries.iter().find(|entry| entry.name == name).unwrap_or_else(|| panic!("{name} is described")).clone()
}

fn synonyms_of(entry: &Entry) -> Vec<(&str, Option<&str>, Source)> {
    entry.synonyms.iter().map(|one| (one.name.as_str(), one.value.as_deref(), one.source)).collect()
}

#[test]
fn a_topic_is_described_with_where_values_come_from() {
    let fixed = map(&[("log.segment.delete.delay.ms", "1000")]);
    let cluster = map(&[("log.retention.ms", "7200000")]);
    let node = map(&[("log.segment.bytes", "3000000")]);
    let layers = BrokerLayers { node: &node, cluster: &cluster, fixed: &fixed };
    let entries =
        describe_topic(&layers, &map(&[("segment.bytes", " 2097152"), ("cleanup.policy", "delete, compact")]));
    let one = entry(&entries, "segment.bytes");
    assert_eq!((one.value.as_deref(), one.source, one.read_only), (Some("2097152"), Source::DynamicTopic, false));
    assert_eq!(
        synonyms_of(&one),
        [
            ("segment.bytes", Some(" 2097152"), Source::DynamicTopic),
            ("log.segment.bytes", Some("3000000"), Source::DynamicBroker),
            ("log.segment.bytes", Some("1073741824"), Source::Default),
        ]
    );
    let one = entry(&entries, "retention.ms");
    assert_eq!((one.value.as_deref(), one.source), (Some("7200000"), Source::DynamicDefaultBroker));
    assert_eq!(
        synonyms_of(&one),
        [
            ("log.retention.ms", Some("7200000"), Source::DynamicDefaultBroker),
            ("log.retention.hours", Some("168"), Source::Default),
        ]
    );
    assert_eq!(entry(&entries, "file.delete.delay.ms").source, Source::StaticBroker);
    assert_eq!(entry(&entries, "cleanup.policy").value.as_deref(), Some("delete,compact"));
    let one = entry(&entries, "segment.ms");
    assert_eq!((one.value.as_deref(), one.source), (Some("604800000"), Source::Default));
    let one = entry(&entries, "flush.ms");
    assert_eq!(one.value.as_deref(), Some("9223372036854775807"));
    assert!(one.documentation.contains("Without effect in Firn"));
    let one = entry(&entries, "remote.storage.enable");
    assert_eq!((one.value.as_deref(), one.source, one.synonyms.len()), (Some("true"), Source::Default, 0));
    assert!(
        entries.iter().all(|entry| entry.name != "internal.segment.bytes"),
        "internal ones are not shown unless set"
    );
}

#[test]
fn a_broker_is_described_without_its_secrets() {
    let fixed =
        map(&[("sasl.jaas.config", "secret"), ("log.retention.hours", "5"), ("log.initial.task.delay.ms", "1")]);
    let node = map(&[("max.connections", "7")]);
    let layers = BrokerLayers { node: &node, cluster: &(), fixed: &fixed };
    let entries = describe_broker(&layers);
    let one = entry(&entries, "sasl.jaas.config");
    assert_eq!((one.value.as_ref(), one.sensitive, one.kind), (None, true, Kind::Password));
    assert!(!format!("{one:?}").contains("\"secret\""));
    let one = entry(&entries, "max.connections");
    assert_eq!((one.value.as_deref(), one.source, one.read_only), (Some("7"), Source::DynamicBroker, false));
    let one = entry(&entries, "num.partitions");
    assert_eq!((one.value.as_deref(), one.source, one.read_only), (Some("1"), Source::Default, true));
    let one = entry(&entries, "log.retention.ms");
    assert_eq!((one.value.as_deref(), one.source), (Some("18000000"), Source::StaticBroker));
    assert!(entries.iter().any(|entry| entry.name == "log.initial.task.delay.ms"));
    assert!(entries.iter().all(|entry| entry.name != "server.max.startup.time.ms"));
    let cluster = describe_cluster(&map(&[("log.retention.ms", "5")]));
    assert_eq!(cluster.len(), 1);
    assert_eq!((cluster[0].source, cluster[0].value.as_deref()), (Source::DynamicDefaultBroker, Some("5")));
}
