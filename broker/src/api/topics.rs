//! CreateTopics, DeleteTopics, CreatePartitions, and topics that come into being by being named.

use super::Context;
use super::errors::{refusal_code, submit_code};
use super::services::Services;
use crate::config;
use crate::config::internal::{self, is_internal};
use crate::node::settings::with_layers;
use controller::command::{
    CreatePartitions, CreateTopics, CreatedTopic, DeleteTopics, Mode, NewPartitions, NewTopic, Shortage, TopicSelector,
};
use proto::errors::ErrorCode;
use proto::ids::{NodeId, TopicId};
use proto::messages::create_partitions_response::CreatePartitionsTopicResult;
use proto::messages::create_topics_request::CreatableTopic;
use proto::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use proto::messages::delete_topics_response::DeletableTopicResult;
use proto::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// From this version on there is a code for brokers that delete no topics.
const DELETION_DISABLED: i16 = 3;

/// Creates topics, each for itself: some may be refused.
pub(super) async fn create(context: &Context<'_>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut names: HashMap<&str, usize> = HashMap::new();
    for topic in &request.topics {
        *names.entry(topic.name.as_str()).or_default() += 1;
    }
    let doubled: BTreeSet<String> =
        names.iter().filter(|(_, times)| **times > 1).map(|(name, _)| (*name).to_owned()).collect();
    let why = "the request names this topic twice";
    let mut results: Vec<_> = doubled.iter().map(|name| refused(name, ErrorCode::InvalidRequest, why)).collect();
    let mut accepted = Vec::new();
    for topic in request.topics {
        if doubled.contains(&topic.name) {
            continue;
        }
        match plan(context.services, &topic) {
            Ok(new) => accepted.push(new),
            Err((code, why)) => results.push(refused(&topic.name, code, &why)),
        }
    }
    let overrides: Vec<BTreeMap<String, String>> = accepted.iter().map(|topic| topic.configs.clone()).collect();
    let asked: Vec<String> = accepted.iter().map(|topic| topic.name.clone()).collect();
    let mode = if request.validate_only { Mode::Validate } else { Mode::Commit };
    let created = submit_create(context.services, accepted, mode).await;
    for ((name, overrides), outcome) in asked.iter().zip(overrides).zip(created) {
        results.push(match outcome {
            Ok(topic) => done(context.services, topic, &overrides),
            Err((code, why)) => refused(name, code, &why),
        });
    }
    CreateTopicsResponse { topics: results, ..Default::default() }
}

/// Creates topics that a Metadata request named, with the broker's defaults. Answers those that were refused.
pub(super) async fn auto_create(services: &Arc<Services>, names: &[&str]) -> Vec<(String, ErrorCode)> {
    let topics: Vec<NewTopic> = names.iter().map(|name| internal_or_default(services, name)).collect();
    let outcomes = submit_create(services, topics, Mode::Commit).await;
    let refusals = names.iter().zip(outcomes).filter_map(|(name, outcome)| {
        let (code, _) = outcome.err()?;
        // Someone else was faster: that is what the client wanted.
        (code != ErrorCode::TopicAlreadyExists).then(|| ((*name).to_owned(), code))
    });
    refusals.collect()
}

/// What an internal topic is made with; the broker's defaults for any other.
fn template(services: &Services, name: &str) -> Made {
    let image = services.controller.image();
    let template =
        with_layers(&image, services.node_id, &services.static_config, |layers| internal::template(name, layers));
    template.map_or(Made::default(), |template| Made {
        partitions: template.partitions,
        factor: template.replication_factor,
        shortage: Shortage::Shrink,
        configs: template.settings,
    })
}

/// What a topic is made with that does not say it itself.
struct Made {
    partitions: i32,
    factor: i16,
    shortage: Shortage,
    configs: BTreeMap<String, String>,
}

impl Default for Made {
    fn default() -> Self {
        Self { partitions: -1, factor: -1, shortage: Shortage::Refuse, configs: BTreeMap::new() }
    }
}

fn internal_or_default(services: &Services, name: &str) -> NewTopic {
    let Made { partitions, factor, shortage, configs } = template(services, name);
    NewTopic {
        id: TopicId(services.entropy.uuid()),
        name: name.to_owned(),
        partitions,
        replication_factor: factor,
        shortage,
        assignments: BTreeMap::new(),
        configs,
    }
}

/// What the controller is asked for, once the settings were found valid.
fn plan(services: &Services, topic: &CreatableTopic) -> Result<NewTopic, (ErrorCode, String)> {
    let made = template(services, &topic.name);
    let mut configs = made.configs;
    for config in &topic.configs {
        let value = config.value.as_deref().ok_or_else(|| {
            (
                ErrorCode::InvalidConfig,
                format!("the setting {} has no value; leave it out for its default", config.name),
            )
        })?;
        config::alter::validate_topic(&config.name, value)
            .map_err(|error| (ErrorCode::InvalidConfig, error.to_string()))?;
        configs.insert(config.name.clone(), value.to_owned());
    }
    let image = services.controller.image();
    with_layers(&image, services.node_id, &services.static_config, |layers| {
        config::alter::validate_topic_on(layers, &configs)?;
        internal::check(&topic.name, layers, &configs)
    })
    .map_err(|error| (ErrorCode::InvalidConfig, error.to_string()))?;
    let mut assignments = BTreeMap::new();
    for assignment in &topic.assignments {
        let replicas = assignment.broker_ids.iter().copied().map(NodeId).collect();
        if assignments.insert(assignment.partition_index, replicas).is_some() {
            let why = format!("partition {} is assigned twice", assignment.partition_index);
            return Err((ErrorCode::InvalidReplicaAssignment, why));
        }
    }
    if !assignments.is_empty() && (topic.num_partitions != -1 || topic.replication_factor != -1) {
        let why = "with assignments, partitions and replication factor must be left at -1".to_owned();
        return Err((ErrorCode::InvalidRequest, why));
    }
    Ok(NewTopic {
        id: TopicId(services.entropy.uuid()),
        name: topic.name.clone(),
        partitions: match topic.num_partitions {
            -1 if assignments.is_empty() => made.partitions,
            partitions => partitions,
        },
        replication_factor: match topic.replication_factor {
            -1 if assignments.is_empty() => made.factor,
            factor => factor,
        },
        shortage: if topic.replication_factor == -1 { made.shortage } else { Shortage::Refuse },
        assignments,
        configs,
    })
}

async fn submit_create(
    services: &Arc<Services>,
    topics: Vec<NewTopic>,
    mode: Mode,
) -> Vec<Result<CreatedTopic, (ErrorCode, String)>> {
    let count = topics.len();
    if count == 0 {
        return Vec::new();
    }
    let (default_partitions, default_replication_factor) = {
        let broker = services.config.load();
        (broker.num_partitions, broker.default_replication_factor)
    };
    let command = CreateTopics { topics, default_partitions, default_replication_factor, mode };
    match services.controller.create_topics(command).await {
        Ok(outcomes) => {
            if mode == Mode::Commit {
                // A client may produce as soon as it is answered.
                services.caught_up(services.controller.image().offset()).await;
            }
            outcomes
                .into_iter()
                .map(|outcome| outcome.map_err(|refusal| (refusal_code(&refusal), refusal.to_string())))
                .collect()
        }
        Err(error) => (0..count).map(|_| Err((submit_code(&error), error.to_string()))).collect(),
    }
}

fn done(services: &Services, topic: CreatedTopic, overrides: &BTreeMap<String, String>) -> CreatableTopicResult {
    let image = services.controller.image();
    let described = with_layers(&image, services.node_id, &services.static_config, |layers| {
        config::describe::describe_topic(layers, overrides)
    });
    let configs = described
        .into_iter()
        .map(|entry| CreatableTopicConfigs {
            name: entry.name,
            value: entry.value,
            read_only: entry.read_only,
            config_source: entry.source.number(),
            is_sensitive: entry.sensitive,
        })
        .collect();
    CreatableTopicResult {
        name: topic.name,
        topic_id: topic.id.0,
        num_partitions: topic.partitions,
        replication_factor: topic.replication_factor,
        configs: Some(configs),
        error_message: None,
        ..Default::default()
    }
}

fn refused(name: &str, code: ErrorCode, why: &str) -> CreatableTopicResult {
    CreatableTopicResult {
        name: name.to_owned(),
        error_code: code.code(),
        error_message: Some(why.to_owned()),
        configs: None,
        ..Default::default()
    }
}

/// Deletes topics by name or, from version 6, by id.
pub(super) async fn delete(context: &Context<'_>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let named = request.topic_names.into_iter().map(|name| (Some(name), uuid::Uuid::nil()));
    let asked: Vec<(Option<String>, uuid::Uuid)> =
        named.chain(request.topics.into_iter().map(|topic| (topic.name, topic.topic_id))).collect();
    let deletable = context.services.config.load().delete_topics;
    let disabled = if context.caller.version < DELETION_DISABLED {
        ErrorCode::InvalidRequest
    } else {
        ErrorCode::TopicDeletionDisabled
    };
    let mut times: HashMap<(Option<String>, uuid::Uuid), usize> = HashMap::new();
    for one in &asked {
        *times.entry(one.clone()).or_default() += 1;
    }
    let image = context.services.controller.image();
    let mut responses = Vec::with_capacity(asked.len());
    let mut accepted = Vec::new();
    for (name, topic_id) in asked {
        let meant = name.as_deref().or_else(|| image.topic(TopicId(topic_id)).map(|topic| &*topic.name));
        let refusal = match &name {
            _ if !deletable => Some((disabled, "delete.topic.enable is false")),
            _ if times.get(&(name.clone(), topic_id)).is_some_and(|times| *times > 1) => {
                Some((ErrorCode::InvalidRequest, "the request names this topic twice"))
            }
            Some(_) if !topic_id.is_nil() => Some((ErrorCode::InvalidRequest, "give a name or an id, not both")),
            None if topic_id.is_nil() => Some((ErrorCode::InvalidRequest, "neither a name nor an id was given")),
            _ if meant.is_some_and(is_internal) => Some((ErrorCode::InvalidTopicException, "internal topics stay")),
            Some(_) | None => None,
        };
        match refusal {
            Some((code, why)) => responses.push(DeletableTopicResult {
                name,
                topic_id,
                error_code: code.code(),
                error_message: Some(why.to_owned()),
            }),
            None => accepted.push((name, topic_id)),
        }
    }
    let topics = accepted
        .iter()
        .map(|(name, id)| match name {
            Some(name) => TopicSelector::Name(name.clone()),
            None => TopicSelector::Id(TopicId(*id)),
        })
        .collect();
    let outcomes = match context.services.controller.delete_topics(DeleteTopics { topics }).await {
        Ok(outcomes) => outcomes
            .into_iter()
            .map(|outcome| outcome.map_err(|refusal| (refusal_code(&refusal), refusal.to_string())))
            .collect(),
        Err(error) => vec![Err((submit_code(&error), error.to_string())); accepted.len()],
    };
    for ((name, topic_id), outcome) in accepted.into_iter().zip(outcomes) {
        responses.push(match outcome {
            Ok((id, name)) => DeletableTopicResult { name: Some(name), topic_id: id.0, ..Default::default() },
            Err((code, why)) => {
                DeletableTopicResult { name, topic_id, error_code: code.code(), error_message: Some(why) }
            }
        });
    }
    DeleteTopicsResponse { responses, ..Default::default() }
}

/// Adds partitions to topics; their number only grows.
pub(super) async fn create_partitions(
    context: &Context<'_>,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    // Which partition has a group, or a transaction, follows from their number.
    let (kept, grown): (Vec<_>, Vec<_>) = request.topics.into_iter().partition(|topic| is_internal(&topic.name));
    let names: Vec<String> = grown.iter().map(|topic| topic.name.clone()).collect();
    let topics = grown
        .into_iter()
        .map(|topic| NewPartitions {
            name: topic.name,
            count: topic.count,
            assignments: topic.assignments.map(|assignments| {
                assignments.into_iter().map(|one| one.broker_ids.into_iter().map(NodeId).collect()).collect()
            }),
        })
        .collect();
    let mode = if request.validate_only { Mode::Validate } else { Mode::Commit };
    let outcomes = match context.services.controller.create_partitions(CreatePartitions { topics, mode }).await {
        Ok(outcomes) => outcomes
            .into_iter()
            .map(|outcome| outcome.err().map(|refusal| (refusal_code(&refusal), refusal.to_string())))
            .collect(),
        Err(error) => vec![Some((submit_code(&error), error.to_string())); names.len()],
    };
    let kept = kept.into_iter().map(|topic| CreatePartitionsTopicResult {
        name: topic.name,
        error_code: ErrorCode::InvalidTopicException.code(),
        error_message: Some("the number of an internal topic's partitions is fixed when it is made".to_owned()),
    });
    let results = names
        .into_iter()
        .zip(outcomes)
        .map(|(name, error)| CreatePartitionsTopicResult {
            name,
            error_code: error.as_ref().map_or(ErrorCode::None, |(code, _)| *code).code(),
            error_message: error.map(|(_, why)| why),
        })
        .chain(kept)
        .collect();
    CreatePartitionsResponse { results, ..Default::default() }
}
