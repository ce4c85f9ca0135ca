//! Settings of topics and brokers: described, altered, refused.

use crate::client::{code, versions};
use crate::world::{World, unique};
use proto::errors::ErrorCode;
use proto::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use proto::messages::describe_configs_request::DescribeConfigsResource;
use proto::messages::{
    AlterConfigsRequest, ApiKey, DescribeConfigsRequest, FindCoordinatorRequest, IncrementalAlterConfigsRequest,
    incremental_alter_configs_request as incremental,
};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn whole(kind: i8, name: &str, configs: &[(&str, Option<&str>)]) -> AlterConfigsResource {
    let one = |(name, value): &(&str, Option<&str>)| AlterableConfig {
        name: (*name).to_owned(),
        value: value.map(str::to_owned),
    };
    AlterConfigsResource {
        resource_type: kind,
        resource_name: name.to_owned(),
        configs: configs.iter().map(one).collect(),
    }
}

fn steps(kind: i8, name: &str, steps: &[(&str, i8, Option<&str>)]) -> incremental::AlterConfigsResource {
    let one = |(name, operation, value): &(&str, i8, Option<&str>)| incremental::AlterableConfig {
        name: (*name).to_owned(),
        config_operation: *operation,
        value: value.map(str::to_owned),
    };
    incremental::AlterConfigsResource {
        resource_type: kind,
        resource_name: name.to_owned(),
        configs: steps.iter().map(one).collect(),
    }
}

fn describe(kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsRequest {
    let keys = keys.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect());
    DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: kind,
            resource_name: name.to_owned(),
            configuration_keys: keys,
        }],
        include_synonyms: true,
        include_documentation: false,
    }
}

impl World {
    /// Alters as asked; answers the codes, resource by resource.
    async fn alter(&self, resources: Vec<incremental::AlterConfigsResource>) -> Vec<ErrorCode> {
        let request = IncrementalAlterConfigsRequest { resources, validate_only: false };
        let said = self.client().await.call(1, &request).await;
        said.responses.iter().map(|one| code(one.error_code)).collect()
    }

    /// Replaces as asked; answers the codes, resource by resource.
    async fn replace(&self, resources: Vec<AlterConfigsResource>) -> Vec<ErrorCode> {
        let request = AlterConfigsRequest { resources, validate_only: false };
        let said = self.client().await.call(2, &request).await;
        said.responses.iter().map(|one| code(one.error_code)).collect()
    }

    /// Waits until the setting of a topic is `expected`: Kafka answers before its brokers have heard of it.
    async fn comes_to(&self, topic: &str, setting: &str, expected: &str) {
        for _ in 0..100 {
            if self.config(topic, setting).await == expected {
                return;
            }
            assert!(!self.is_firn(), "Firn has done what it answered: {setting} is not {expected}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("{setting} never came to be {expected}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_described_in_every_version() {
    let world = World::start().await;
    let topic = world.topic(1, &[("retention.ms", "12345")]).await;
    let mut client = world.client().await;
    for version in versions(ApiKey::DescribeConfigs) {
        let mut request = describe(TOPIC, &topic, Some(&["retention.ms", "segment.bytes", "no.such.config"]));
        request.include_documentation = version >= 3;
        let said = client.call(version, &request).await;
        assert_eq!(code(said.results[0].error_code), ErrorCode::None);
        let mut configs = said.results[0].configs.clone();
        configs.sort_by(|a, b| a.name.cmp(&b.name));
        let said: Vec<_> = configs
            .iter()
            .map(|one| (one.name.as_str(), one.value.as_deref(), one.config_source, one.read_only))
            .collect();
        let (own, preset) = (1, 5);
        let expected =
            [("retention.ms", Some("12345"), own, false), ("segment.bytes", Some("1073741824"), preset, false)];
        assert_eq!(said, expected, "version {version}");
        assert_eq!(configs[0].synonyms[0].name, "retention.ms");
        assert_eq!(configs[1].synonyms[0].name, "log.segment.bytes");
        if version >= 3 {
            let long = 5;
            assert_eq!(configs[0].config_type, long);
            assert!(configs.iter().all(|one| one.documentation.as_ref().is_some_and(|text| !text.is_empty())));
        }
    }
    for (kind, name, expected) in [
        (TOPIC, unique("missing"), ErrorCode::UnknownTopicOrPartition),
        (TOPIC, "no/such".to_owned(), ErrorCode::InvalidTopicException),
        (BROKER, "77".to_owned(), ErrorCode::InvalidRequest),
        (BROKER, "x".to_owned(), ErrorCode::InvalidRequest),
    ] {
        let said = client.call(4, &describe(kind, &name, None)).await;
        assert_eq!(code(said.results[0].error_code), expected, "{kind} {name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_altered_step_by_step() {
    let world = World::start().await;
    let topic = world.topic(1, &[]).await;
    let both = [("retention.ms", SET, Some("5000000")), ("cleanup.policy", SET, Some("delete"))];
    assert_eq!(world.alter(vec![steps(TOPIC, &topic, &both)]).await, [ErrorCode::None]);
    world.comes_to(&topic, "retention.ms", "5000000").await;
    let taken = [("retention.ms", DELETE, None), ("max.message.bytes", SET, Some("99999"))];
    assert_eq!(world.alter(vec![steps(TOPIC, &topic, &taken)]).await, [ErrorCode::None]);
    world.comes_to(&topic, "retention.ms", "604800000").await;
    world.comes_to(&topic, "max.message.bytes", "99999").await;
    let list = "leader.replication.throttled.replicas";
    for (operation, items, expected) in
        [(APPEND, "0:1,1:1", "0:1,1:1"), (SUBTRACT, "0:1", "1:1"), (APPEND, "1:1,2:1", "1:1,2:1")]
    {
        assert_eq!(world.alter(vec![steps(TOPIC, &topic, &[(list, operation, Some(items))])]).await, [ErrorCode::None]);
        world.comes_to(&topic, list, expected).await;
    }
    for (step, expected) in [
        (vec![("retention.ms", SET, Some("x"))], ErrorCode::InvalidConfig),
        (vec![("no.such.config", SET, Some("1"))], ErrorCode::InvalidConfig),
        (vec![("retention.ms", APPEND, Some("1"))], ErrorCode::InvalidConfig),
        (vec![("retention.ms", SET, None)], ErrorCode::InvalidRequest),
        (vec![("retention.ms", SET, Some("1")), ("retention.ms", DELETE, None)], ErrorCode::InvalidRequest),
    ] {
        assert_eq!(world.alter(vec![steps(TOPIC, &topic, &step)]).await, [expected], "{step:?}");
    }
    let missing = world.alter(vec![steps(TOPIC, &unique("missing"), &[("retention.ms", SET, Some("1"))])]).await;
    assert_eq!(missing, [ErrorCode::UnknownTopicOrPartition]);
    let checked = IncrementalAlterConfigsRequest {
        resources: vec![steps(TOPIC, &topic, &[("retention.ms", SET, Some("77"))])],
        validate_only: true,
    };
    let said = world.client().await.call(0, &checked).await;
    assert_eq!(code(said.responses[0].error_code), ErrorCode::None);
    assert_eq!(world.config(&topic, "retention.ms").await, "604800000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_replaced_as_a_whole() {
    let world = World::start().await;
    for version in versions(ApiKey::AlterConfigs) {
        let topic = world.topic(1, &[("retention.ms", "5000000"), ("max.message.bytes", "99999")]).await;
        let new = [("retention.ms", Some("6000000")), ("segment.ms", Some("1000000"))];
        let request = AlterConfigsRequest { resources: vec![whole(TOPIC, &topic, &new)], validate_only: false };
        let said = world.client().await.call(version, &request).await;
        assert_eq!(code(said.responses[0].error_code), ErrorCode::None, "version {version}");
        world.comes_to(&topic, "segment.ms", "1000000").await;
        assert_eq!(world.config(&topic, "retention.ms").await, "6000000");
        assert_eq!(world.config(&topic, "max.message.bytes").await, "1048588", "what is not named is unset");
    }
    let topic = world.topic(1, &[("retention.ms", "5000000")]).await;
    for (new, expected) in [
        (vec![("retention.ms", None)], ErrorCode::InvalidRequest),
        (vec![("retention.ms", Some("1")), ("retention.ms", Some("2"))], ErrorCode::InvalidRequest),
        (vec![("retention.ms", Some("x"))], ErrorCode::InvalidConfig),
        (vec![("no.such.config", Some("1"))], ErrorCode::InvalidConfig),
    ] {
        assert_eq!(world.replace(vec![whole(TOPIC, &topic, &new)]).await, [expected], "{new:?}");
    }
    assert_eq!(world.config(&topic, "retention.ms").await, "5000000", "nothing was changed on the way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_is_named_once() {
    // Kafka 4.3 refuses it inside, and never answers.
    let Some(world) = World::firn(&[]).await else { return };
    let (one, other) = (world.topic(1, &[]).await, world.topic(1, &[]).await);
    let new = [("retention.ms", Some("1000"))];
    let said = world.replace(vec![whole(TOPIC, &one, &new), whole(TOPIC, &one, &new)]).await;
    assert!(!said.is_empty() && said.iter().all(|said| *said == ErrorCode::InvalidRequest), "{said:?}");
    let said = world
        .alter(vec![
            steps(TOPIC, &one, &[("retention.ms", SET, Some("1000"))]),
            steps(TOPIC, &other, &[("retention.ms", SET, Some("3000"))]),
            steps(TOPIC, &one, &[("segment.ms", SET, Some("2000"))]),
        ])
        .await;
    let refused = said.iter().filter(|said| **said == ErrorCode::InvalidRequest).count();
    assert_eq!((refused, said.contains(&ErrorCode::None)), (said.len() - 1, true), "{said:?}");
    world.comes_to(&other, "retention.ms", "3000").await;
    assert_eq!(world.config(&one, "retention.ms").await, "604800000");
    let odd = world.alter(vec![steps(TOPIC, &one, &[("retention.ms", 9, Some("1"))])]).await;
    assert_eq!(odd, [ErrorCode::InvalidRequest], "an operation that there is not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_at_start_is_not_altered_at_run_time() {
    let Some(world) = World::firn(&[]).await else { return };
    for (name, value) in [
        ("listeners", "PLAINTEXT://127.0.0.1:9"),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT"),
        ("num.partitions", "3"),
    ] {
        let said = world.alter(vec![steps(BROKER, "0", &[(name, SET, Some(value))])]).await;
        assert_eq!(said, [ErrorCode::InvalidRequest], "{name}");
        let said = world.client().await.call(4, &describe(BROKER, "0", Some(&[name]))).await;
        assert!(said.results[0].configs[0].read_only, "{name}");
    }
    for kept in ["0", ""] {
        let step = [("log.retention.ms", SET, Some("7000000"))];
        assert_eq!(world.alter(vec![steps(BROKER, kept, &step)]).await, [ErrorCode::None]);
        let topic = world.topic(1, &[]).await;
        assert_eq!(world.config(&topic, "retention.ms").await, "7000000");
        assert_eq!(
            world.alter(vec![steps(BROKER, kept, &[("log.retention.ms", DELETE, None)])]).await,
            [ErrorCode::None]
        );
        assert_eq!(world.config(&topic, "retention.ms").await, "604800000");
    }
}

/// What Firn needs to know of groups must not be tiered, nor expire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn internal_topics_keep_what_they_hold() {
    let Some(world) = World::firn(&[]).await else { return };
    let find = FindCoordinatorRequest { coordinator_keys: vec!["g".to_owned()], ..Default::default() };
    world.client().await.call(4, &find).await;
    let topic = "__consumer_offsets";
    for step in [
        ("remote.storage.enable", SET, Some("true")),
        ("cleanup.policy", SET, Some("delete")),
        ("cleanup.policy", SET, Some("")),
        ("cleanup.policy", APPEND, Some("delete")),
        ("cleanup.policy", DELETE, None),
    ] {
        let said = world.alter(vec![steps(TOPIC, topic, &[step])]).await;
        assert_eq!(said, [ErrorCode::InvalidConfig], "{step:?}");
    }
    for new in [&[][..], &[("cleanup.policy", Some("compact,delete"))]] {
        assert_eq!(world.replace(vec![whole(TOPIC, topic, new)]).await, [ErrorCode::InvalidConfig], "{new:?}");
    }
    let said = world.alter(vec![steps(TOPIC, topic, &[("segment.bytes", SET, Some("2097152"))])]).await;
    assert_eq!(said, [ErrorCode::None]);
    assert_eq!(world.config(topic, "cleanup.policy").await, "compact");
    assert_eq!(world.config(topic, "remote.storage.enable").await, "false");
}
