//! DescribeConfigs, AlterConfigs and IncrementalAlterConfigs (KIP-226, KIP-339, KIP-524).
//!
//! What a value may be is decided by `config`; here resources are found, and what was found valid is handed to the controller.

use super::Context;
use super::errors::{refusal_code, submit_code};
use super::services::Services;
use crate::config::alter::{
    Alteration, Operation, Reach, Settings, alter_broker, alter_topic, inherited_broker, inherited_topic,
    replace_broker, replace_topic,
};
use crate::config::describe::{Entry, describe_broker, describe_cluster, describe_topic};
use crate::config::{BrokerLayers, ConfigError, internal};
use crate::node::settings::with_layers;
use controller::command::{AlterConfigs, ConfigChange, ConfigOp, Mode};
use indexmap::IndexMap;
use proto::errors::ErrorCode;
use proto::messages::alter_configs_request::AlterableConfig;
use proto::messages::alter_configs_response::AlterConfigsResourceResponse as AlterAnswer;
use proto::messages::describe_configs_request::DescribeConfigsResource;
use proto::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use proto::messages::incremental_alter_configs_request::AlterableConfig as IncrementalConfig;
use proto::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as IncrementalAnswer;
use proto::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use proto::metadata::{ConfigResource, Image};
use std::collections::HashSet;
use std::sync::Arc;

/// Kafka's numbers of resource types.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

type Failure = (ErrorCode, String);

/// What a request's resource stands for here.
enum Resource {
    Topic(ConfigResource),
    ThisBroker(ConfigResource),
    AllBrokers(ConfigResource),
}

impl Resource {
    fn find(services: &Services, image: &Image, kind: i8, name: &str) -> Result<Resource, Failure> {
        match kind {
            TOPIC => match image.topic_named(name) {
                Some(_) => Ok(Resource::Topic(ConfigResource::topic(name))),
                None if controller::decide::check_topic_name(name).is_err() => {
                    Err((ErrorCode::InvalidTopicException, format!("`{name}` cannot be a topic's name")))
                }
                None => Err((ErrorCode::UnknownTopicOrPartition, format!("there is no topic {name}"))),
            },
            BROKER if name.is_empty() => Ok(Resource::AllBrokers(ConfigResource::all_brokers())),
            BROKER if name == services.node_id.to_string() => {
                Ok(Resource::ThisBroker(ConfigResource::broker(services.node_id)))
            }
            BROKER => {
                Err((ErrorCode::InvalidRequest, format!("there is no broker {name}; this one is {}", services.node_id)))
            }
            _ => Err((ErrorCode::InvalidRequest, "only topics and brokers have settings here".to_owned())),
        }
    }

    fn key(&self) -> &ConfigResource {
        match self {
            Resource::Topic(key) | Resource::ThisBroker(key) | Resource::AllBrokers(key) => key,
        }
    }

    /// What is set for it now.
    fn current(&self, image: &Image) -> Settings {
        image.configs(self.key()).map(|settings| settings.as_ref().clone()).unwrap_or_default()
    }
}

/// What the description of a broker takes in an answer, documentation and all, and that of a topic.
const BROKER_BYTES: usize = 128 << 10;
const TOPIC_BYTES: usize = 24 << 10;

/// Describes the settings of each resource: all of them, or those named. A resource that is named twice is described once, as it was
/// named last, as in Kafka's clients and brokers, where resources are keys.
pub(super) async fn describe(context: &Context<'_>, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let services = context.services;
    let image = services.controller.image();
    let resources: IndexMap<(i8, String), DescribeConfigsResource> = request
        .resources
        .into_iter()
        .map(|asked| ((asked.resource_type, asked.resource_name.clone()), asked))
        .collect();
    let expected = resources.keys().map(|(kind, _)| if *kind == TOPIC { TOPIC_BYTES } else { BROKER_BYTES }).sum();
    context.admit_answer(expected).await;
    let results = resources
        .into_values()
        .map(|asked| match entries(services, &image, &asked) {
            Ok(entries) => DescribeConfigsResult {
                error_message: None,
                resource_type: asked.resource_type,
                resource_name: asked.resource_name,
                configs: entries
                    .into_iter()
                    .filter(|entry| {
                        asked
                            .configuration_keys
                            .as_ref()
                            .is_none_or(|keys| keys.is_empty() || keys.contains(&entry.name))
                    })
                    .map(|entry| described(entry, request.include_synonyms, request.include_documentation))
                    .collect(),
                ..Default::default()
            },
            Err((code, why)) => DescribeConfigsResult {
                error_code: code.code(),
                error_message: Some(why),
                resource_type: asked.resource_type,
                resource_name: asked.resource_name,
                configs: vec![],
            },
        })
        .collect();
    DescribeConfigsResponse { results, ..Default::default() }
}

fn entries(services: &Services, image: &Image, asked: &DescribeConfigsResource) -> Result<Vec<Entry>, Failure> {
    let resource = Resource::find(services, image, asked.resource_type, &asked.resource_name)?;
    Ok(layered(services, image, |layers| match &resource {
        Resource::Topic(_) => describe_topic(layers, &resource.current(image)),
        Resource::ThisBroker(_) => describe_broker(layers),
        Resource::AllBrokers(_) => describe_cluster(&resource.current(image)),
    }))
}

fn layered<T>(services: &Services, image: &Image, then: impl FnOnce(&BrokerLayers<'_>) -> T) -> T {
    with_layers(image, services.node_id, &services.static_config, then)
}

fn described(entry: Entry, synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult {
        name: entry.name,
        value: entry.value,
        read_only: entry.read_only,
        config_source: entry.source.number(),
        is_sensitive: entry.sensitive,
        synonyms: entry
            .synonyms
            .into_iter()
            .filter(|_| synonyms)
            .map(|synonym| DescribeConfigsSynonym {
                name: synonym.name,
                value: synonym.value,
                source: synonym.source.number(),
            })
            .collect(),
        config_type: entry.kind.wire(),
        documentation: documentation.then_some(entry.documentation),
    }
}

/// Changes some settings of each resource, each resource for itself.
pub(super) async fn incremental_alter(
    context: &Context<'_>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let image = context.services.controller.image();
    let resources = request.resources.iter().map(|asked| (asked.resource_type, asked.resource_name.as_str()));
    let twice = named_twice(resources);
    let mut planned = Vec::with_capacity(request.resources.len());
    let mut asked = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let (kind, name) = (resource.resource_type, resource.resource_name);
        let steps: Result<Vec<Alteration>, Failure> = resource.configs.into_iter().map(alteration).collect();
        planned.push(match steps {
            _ if twice.contains(&(kind, name.clone())) => Err(named_twice_failure()),
            Ok(steps) => plan_incremental(context, &image, kind, &name, &steps),
            Err(failure) => Err(failure),
        });
        asked.push((kind, name));
    }
    let outcomes = submit(context.services, planned, request.validate_only).await;
    let responses = asked.into_iter().zip(outcomes).map(|((resource_type, resource_name), outcome)| {
        let (code, error_message) = said(outcome);
        IncrementalAnswer { error_code: code.code(), error_message, resource_type, resource_name }
    });
    IncrementalAlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}

fn alteration(config: IncrementalConfig) -> Result<Alteration, Failure> {
    let operation = Operation::from_wire(config.config_operation)
        .ok_or_else(|| (ErrorCode::InvalidRequest, format!("operation {} is not known", config.config_operation)))?;
    Ok(Alteration { name: config.name, operation, value: config.value })
}

/// Replaces the settings of each resource as a whole.
pub(super) async fn alter(context: &Context<'_>, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let image = context.services.controller.image();
    let resources = request.resources.iter().map(|asked| (asked.resource_type, asked.resource_name.as_str()));
    let twice = named_twice(resources);
    let mut planned = Vec::with_capacity(request.resources.len());
    let mut asked = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let (kind, name) = (resource.resource_type, resource.resource_name);
        planned.push(match settings(resource.configs) {
            _ if twice.contains(&(kind, name.clone())) => Err(named_twice_failure()),
            Ok(new) => plan_replace(context, &image, kind, &name, new),
            Err(failure) => Err(failure),
        });
        asked.push((kind, name));
    }
    let outcomes = submit(context.services, planned, request.validate_only).await;
    let responses = asked.into_iter().zip(outcomes).map(|((resource_type, resource_name), outcome)| {
        let (code, error_message) = said(outcome);
        AlterAnswer { error_code: code.code(), error_message, resource_type, resource_name }
    });
    AlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}

/// The settings that are to replace the old ones: each is named once, and has a value.
fn settings(configs: Vec<AlterableConfig>) -> Result<Settings, Failure> {
    let mut settings = Settings::new();
    for config in configs {
        let Some(value) = config.value else {
            return Err((
                ErrorCode::InvalidRequest,
                format!("no value was given for the configuration {}", config.name),
            ));
        };
        if settings.contains_key(&config.name) {
            let why = format!("the configuration {} stands in the request twice", config.name);
            return Err((ErrorCode::InvalidRequest, why));
        }
        settings.insert(config.name, value);
    }
    Ok(settings)
}

/// Resources that a request names more than once: what they are to be in the end, nobody could tell.
fn named_twice<'a>(resources: impl Iterator<Item = (i8, &'a str)>) -> HashSet<(i8, String)> {
    let mut seen = HashSet::new();
    resources.filter(|resource| !seen.insert(*resource)).map(|(kind, name)| (kind, name.to_owned())).collect()
}

fn named_twice_failure() -> Failure {
    (ErrorCode::InvalidRequest, "the request names this resource twice".to_owned())
}

fn said(outcome: Result<(), Failure>) -> (ErrorCode, Option<String>) {
    outcome.err().map_or((ErrorCode::None, None), |(code, why)| (code, Some(why)))
}

type Planned = Result<(ConfigResource, ConfigChange), Failure>;

fn invalid(error: ConfigError) -> Failure {
    (error.code(), error.to_string())
}

/// Checks alterations against what is set now. They are submitted as steps, not as their result, so that two clients who alter
/// different settings at once do not undo each other.
fn plan_incremental(context: &Context<'_>, image: &Image, kind: i8, name: &str, steps: &[Alteration]) -> Planned {
    let services = context.services;
    let resource = Resource::find(services, image, kind, name)?;
    let current = resource.current(image);
    layered(services, image, |layers| {
        let inherited: Box<dyn Fn(&str) -> String> = match &resource {
            Resource::Topic(_) => {
                let altered = alter_topic(layers, &current, steps).map_err(invalid)?;
                internal::check(name, layers, &altered).map_err(invalid)?;
                Box::new(|name: &str| inherited_topic(layers, name))
            }
            Resource::ThisBroker(_) => {
                alter_broker(Reach::Node, layers, &current, steps).map_err(invalid)?;
                Box::new(|name: &str| inherited_broker(Reach::Node, layers, name))
            }
            Resource::AllBrokers(_) => {
                alter_broker(Reach::Cluster, layers, &current, steps).map_err(invalid)?;
                Box::new(|name: &str| inherited_broker(Reach::Cluster, layers, name))
            }
        };
        let ops = steps.iter().map(|step| {
            let value = step.value.clone().unwrap_or_default();
            let op = match step.operation {
                Operation::Set => ConfigOp::Set(value),
                Operation::Delete => ConfigOp::Delete,
                Operation::Append => ConfigOp::Append { items: value, inherited: inherited(&step.name) },
                Operation::Subtract => ConfigOp::Subtract { items: value, inherited: inherited(&step.name) },
            };
            (step.name.clone(), op)
        });
        Ok((resource.key().clone(), ConfigChange::Incremental(ops.collect())))
    })
}

fn plan_replace(context: &Context<'_>, image: &Image, kind: i8, name: &str, new: Settings) -> Planned {
    let services = context.services;
    let resource = Resource::find(services, image, kind, name)?;
    let current = resource.current(image);
    layered(services, image, |layers| match &resource {
        Resource::Topic(_) => replace_topic(layers, &current, &new).and_then(|()| internal::check(name, layers, &new)),
        Resource::ThisBroker(_) => replace_broker(Reach::Node, layers, &new),
        Resource::AllBrokers(_) => replace_broker(Reach::Cluster, layers, &new),
    })
    .map_err(invalid)?;
    Ok((resource.key().clone(), ConfigChange::Replace(new)))
}

/// Hands what was found valid to the controller, all at once; answers in the order planned.
async fn submit(services: &Arc<Services>, planned: Vec<Planned>, validate_only: bool) -> Vec<Result<(), Failure>> {
    let mode = if validate_only { Mode::Validate } else { Mode::Commit };
    let mut resources = Vec::with_capacity(planned.len());
    let planned: Vec<Result<(), Failure>> =
        planned.into_iter().map(|planned| planned.map(|change| resources.push(change))).collect();
    let submitted = resources.len();
    let mut outcomes = if resources.is_empty() {
        Vec::new()
    } else {
        match services.controller.alter_configs(AlterConfigs { resources, mode }).await {
            Ok(outcomes) => outcomes
                .into_iter()
                .map(|outcome| outcome.map_err(|refusal| (refusal_code(&refusal), refusal.to_string())))
                .collect(),
            Err(error) => vec![Err((submit_code(&error), error.to_string())); submitted],
        }
    }
    .into_iter();
    if submitted > 0 && !validate_only {
        services.caught_up(services.controller.image().offset()).await;
    }
    let unanswered = || Err((ErrorCode::UnknownServerError, "the controller gave no answer".to_owned()));
    planned.into_iter().map(|planned| planned.and_then(|()| outcomes.next().unwrap_or_else(unanswered))).collect()
}
