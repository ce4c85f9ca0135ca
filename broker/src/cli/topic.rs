//! `firn topic`: create, list, describe, alter, delete.

use super::args::TopicCommand;
use super::client::{Client, ClientError, check};
use super::out::{self, counted};
use proto::ids::TopicId;
use proto::messages::create_partitions_request::CreatePartitionsTopic;
use proto::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use proto::messages::delete_topics_request::DeleteTopicState;
use proto::messages::describe_configs_request::DescribeConfigsResource;
use proto::messages::describe_configs_response::DescribeConfigsResourceResult;
use proto::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use proto::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use proto::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest, ListOffsetsRequest,
};
use serde_json::json;
use std::fmt::Write;

/// How long the broker may take to carry a change out.
const TIMEOUT_MS: i32 = 60_000;
/// Kafka's number of the resource type "topic".
const TOPIC: i8 = 2;
/// Config sources that a user set, by Kafka's number: the topic itself.
const SET_ON_TOPIC: i8 = 1;

/// Carries out one `firn topic` command.
pub(super) async fn run(command: TopicCommand) -> Result<(), ClientError> {
    match command {
        TopicCommand::Create { name, partitions, replication_factor, config, at } => {
            let mut client = Client::connect(&at.bootstrap).await?;
            create(&mut client, &name, partitions, replication_factor, config).await
        }
        TopicCommand::List { internal, json, at } => {
            let mut client = Client::connect(&at.bootstrap).await?;
            list(&mut client, internal, json).await
        }
        TopicCommand::Describe { name, verbose, json, at } => {
            let mut client = Client::connect(&at.bootstrap).await?;
            describe(&mut client, &name, verbose, json).await
        }
        TopicCommand::Alter { name, config, delete_config, partitions, at } => {
            let mut client = Client::connect(&at.bootstrap).await?;
            alter(&mut client, &name, config, delete_config, partitions).await
        }
        TopicCommand::Delete { name, at } => {
            let mut client = Client::connect(&at.bootstrap).await?;
            delete(&mut client, &name).await
        }
    }
}

async fn create(
    client: &mut Client,
    name: &str,
    partitions: Option<i32>,
    replication_factor: Option<i16>,
    config: Vec<(String, String)>,
) -> Result<(), ClientError> {
    let partitions = make(client, name, partitions, replication_factor, config).await?;
    out::print(format!("created {name} with {}\n", counted(partitions.unsigned_abs(), "partition")))
}

/// Makes a topic and answers how many partitions it has; `None` leaves a number to the broker.
pub(super) async fn make(
    client: &mut Client,
    name: &str,
    partitions: Option<i32>,
    replication_factor: Option<i16>,
    config: Vec<(String, String)>,
) -> Result<i32, ClientError> {
    let configs = config.into_iter().map(|(name, value)| CreatableTopicConfig { name, value: Some(value) }).collect();
    let topic = CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions.unwrap_or(-1),
        replication_factor: replication_factor.unwrap_or(-1),
        assignments: vec![],
        configs,
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, validate_only: false };
    let answer = client.call(&request).await?;
    let made = answer.topics.first();
    let made = made.ok_or_else(|| ClientError::Other("an empty answer to CreateTopics".to_owned()))?;
    check(&format!("creating topic {name}"), made.error_code, made.error_message.as_deref())?;
    Ok(made.num_partitions)
}

async fn list(client: &mut Client, internal: bool, json: bool) -> Result<(), ClientError> {
    let topics: Vec<_> = client.topics().await?.into_iter().filter(|topic| internal || !topic.internal).collect();
    if json {
        let rows: Vec<_> = topics
            .iter()
            .map(|topic| {
                json!({"name": topic.name, "id": topic.id, "partitions": topic.partitions.len(), "internal": topic.internal})
            })
            .collect();
        return out::print(format!("{}\n", json!(rows)));
    }
    let mut text = String::new();
    for topic in topics {
        let _ = writeln!(text, "{}\t{}", topic.name, counted(topic.partitions.len() as u64, "partition"));
    }
    out::print(text)
}

async fn describe(client: &mut Client, name: &str, verbose: bool, json: bool) -> Result<(), ClientError> {
    let topic = client.topic(name).await?;
    let configs = settings(client, name, None).await?;
    let set = configs.iter().filter(|config| config.config_source == SET_ON_TOPIC);
    let set: Vec<_> = set.map(|config| (config.name.as_str(), config.value.as_deref().unwrap_or(""))).collect();
    let mut rows = Vec::new();
    for (partition, leader) in &topic.partitions {
        let mut offsets = [0; 3];
        // Earliest, earliest on local disk, latest.
        for (offset, timestamp) in offsets.iter_mut().zip([-2, -4, -1]) {
            *offset = list_offset(client, name, *partition, *leader, timestamp).await?;
        }
        rows.push((*partition, *leader, offsets));
    }
    if json {
        let partitions: Vec<_> = rows
            .iter()
            .map(|(partition, leader, [start, local, end])| {
                let replicas = topic.replicas.get(partition).cloned().unwrap_or_default();
                json!({"partition": partition, "leader": leader, "log_start": start, "local_start": local, "end": end,
                    "replicas": replicas.all, "in_sync": replicas.in_sync})
            })
            .collect();
        let set: serde_json::Map<_, _> = set.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let topic = json!({"name": topic.name, "id": topic.id, "config": set, "partitions": partitions});
        return out::print(format!("{topic}\n"));
    }
    let mut text = format!("{}: {}\n", topic.name, counted(topic.partitions.len() as u64, "partition"));
    if verbose {
        let _ = writeln!(text, "  id {} (its folders and objects are called by it)", TopicId(topic.id));
    }
    for (name, value) in set {
        let _ = writeln!(text, "  {name}={value}");
    }
    let listed = |ids: &[i32]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let _ = writeln!(
        text,
        "{:>9} {:>6} {:>10} {:>10} {:>12} {:>12} {:>12}",
        "partition", "leader", "replicas", "in sync", "log start", "local start", "end"
    );
    for (partition, leader, [start, local, end]) in rows {
        let replicas = topic.replicas.get(&partition).cloned().unwrap_or_default();
        let (all, in_sync) = (listed(&replicas.all), listed(&replicas.in_sync));
        let _ = writeln!(text, "{partition:>9} {leader:>6} {all:>10} {in_sync:>10} {start:>12} {local:>12} {end:>12}");
    }
    out::print(text)
}

/// The settings of a topic: all of them, or `only` some.
pub(super) async fn settings(
    client: &mut Client,
    topic: &str,
    only: Option<&[&str]>,
) -> Result<Vec<DescribeConfigsResourceResult>, ClientError> {
    let resource = DescribeConfigsResource {
        resource_type: TOPIC,
        resource_name: topic.to_owned(),
        configuration_keys: only.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let mut found = Vec::new();
    for result in client.call(&request).await?.results {
        check("reading its settings", result.error_code, result.error_message.as_deref())?;
        found.extend(result.configs);
    }
    Ok(found)
}

/// One offset of one partition; `timestamp` as in ListOffsets.
pub(super) async fn list_offset(
    client: &mut Client,
    topic: &str,
    partition: i32,
    leader: i32,
    timestamp: i64,
) -> Result<i64, ClientError> {
    let wanted = ListOffsetsPartition { partition_index: partition, current_leader_epoch: -1, timestamp };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic { name: topic.to_owned(), partitions: vec![wanted] }],
        ..Default::default()
    };
    let answer = client.node(leader).await?.call(&request).await?;
    let found = answer.topics.first().and_then(|topic| topic.partitions.first());
    let found = found.ok_or_else(|| ClientError::Other("an empty answer to ListOffsets".to_owned()))?;
    check(&format!("offsets of {topic}-{partition}"), found.error_code, None)?;
    Ok(found.offset)
}

async fn alter(
    client: &mut Client,
    name: &str,
    set: Vec<(String, String)>,
    delete: Vec<String>,
    partitions: Option<i32>,
) -> Result<(), ClientError> {
    if set.is_empty() && delete.is_empty() && partitions.is_none() {
        return Err(ClientError::Other("nothing to change: give --config, --delete-config or --partitions".to_owned()));
    }
    if let Some(count) = partitions {
        let topic = CreatePartitionsTopic { name: name.to_owned(), count, assignments: None };
        let request = CreatePartitionsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, validate_only: false };
        for result in client.call(&request).await?.results {
            check(&format!("adding partitions to {name}"), result.error_code, result.error_message.as_deref())?;
        }
        out::print(format!("{name} has {}\n", counted(count.unsigned_abs(), "partition")))?;
    }
    if set.is_empty() && delete.is_empty() {
        return Ok(());
    }
    let sets = set.into_iter().map(|(name, value)| AlterableConfig { name, config_operation: 0, value: Some(value) });
    let deletes = delete.into_iter().map(|name| AlterableConfig { name, config_operation: 1, value: None });
    let resource = AlterConfigsResource {
        resource_type: TOPIC,
        resource_name: name.to_owned(),
        configs: sets.chain(deletes).collect(),
    };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    for result in client.call(&request).await?.responses {
        check(&format!("changing settings of {name}"), result.error_code, result.error_message.as_deref())?;
    }
    out::print(format!("changed {name}\n"))
}

async fn delete(client: &mut Client, name: &str) -> Result<(), ClientError> {
    remove(client, name).await?;
    out::print(format!("deleted {name}\n"))
}

/// Deletes a topic with all its records.
pub(super) async fn remove(client: &mut Client, name: &str) -> Result<(), ClientError> {
    let request = DeleteTopicsRequest {
        topics: vec![DeleteTopicState { name: Some(name.to_owned()), ..Default::default() }],
        topic_names: vec![],
        timeout_ms: TIMEOUT_MS,
    };
    for result in client.call(&request).await?.responses {
        check(&format!("deleting topic {name}"), result.error_code, result.error_message.as_deref())?;
    }
    Ok(())
}
