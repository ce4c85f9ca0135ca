//! Metadata and DescribeTopicPartitions (KIP-966): topics, their partitions and who leads them.

use super::Context;
use super::topics::auto_create;
use crate::config::internal::is_internal;
use crate::replica::doubt::in_doubt_until;
use proto::errors::ErrorCode;
use proto::ids::{NodeId, TopicId};
use proto::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use proto::messages::metadata_request::MetadataRequestTopic;
use proto::messages::metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
use proto::messages::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, MetadataRequest, MetadataResponse,
};
use proto::metadata::{Image, PartitionState, Topic};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What a topic takes in an answer, about, and each of its partitions.
const TOPIC_BYTES: usize = 128;
const PARTITION_BYTES: usize = 96;
/// Kafka's way of saying that nobody asked for permissions.
pub(super) const NO_OPERATIONS: i32 = i32::MIN;
/// Every operation on a topic, as a set of bits by Kafka's numbers: without authorization all are allowed.
const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// Every operation on the cluster: CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS and
/// IDEMPOTENT_WRITE.
pub(super) const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;

/// Answers which brokers there are, and the topics asked for: all of them when the list is null.
pub(super) async fn handle(context: &Context<'_>, request: MetadataRequest) -> MetadataResponse {
    let version = context.caller.version;
    let mut image = context.services.controller.image();
    // Version 0 has no null: an empty list means all topics.
    let wanted = request.topics.filter(|topics| version > 0 || !topics.is_empty());
    // What is named twice is said once: an answer is no larger than what there is.
    let wanted = wanted.map(|topics| {
        let mut seen = HashSet::with_capacity(topics.len());
        topics.into_iter().filter(|topic| seen.insert((topic.name.clone(), topic.topic_id))).collect::<Vec<_>>()
    });
    let mut refused = HashMap::new();
    if let Some(topics) = &wanted
        && request.allow_auto_topic_creation
    {
        let missing: Vec<&str> = topics
            .iter()
            .filter(|topic| topic.topic_id.is_nil())
            .filter_map(|topic| topic.name.as_deref())
            .filter(|name| image.topic_named(name).is_none())
            .collect();
        if !missing.is_empty() && context.services.config.load().auto_create_topics {
            refused = auto_create(context.services, &missing).await.into_iter().collect();
        }
    }
    image = decided(context, wanted.as_deref()).await;
    let operations = if request.include_topic_authorized_operations { TOPIC_OPERATIONS } else { NO_OPERATIONS };
    // Few bytes may ask for all topics there are.
    let size = |topic: &Topic| TOPIC_BYTES + topic.partitions.len() * PARTITION_BYTES;
    let expected = match &wanted {
        None => image.topics().map(|topic| size(topic)).sum(),
        Some(topics) => topics.iter().filter_map(|asked| find(&image, asked)).map(|topic| size(topic)).sum(),
    };
    context.admit_answer(expected).await;
    let view = View::new(&image, context, version >= KNOWS_LISTENERS);
    let topics = match wanted {
        None => image.topics().map(|topic| describe(&view, topic, operations)).collect(),
        Some(topics) => topics.into_iter().map(|asked| one(&view, asked, &refused, operations)).collect(),
    };
    MetadataResponse {
        brokers: image
            .brokers()
            .filter(|broker| !broker.fenced)
            .filter_map(|broker| {
                let endpoint = broker.endpoint(&context.caller.listener)?;
                Some(MetadataResponseBroker {
                    node_id: broker.id.0,
                    host: endpoint.host.clone(),
                    port: i32::from(endpoint.port),
                    rack: broker.rack.clone(),
                })
            })
            .collect(),
        cluster_id: Some(context.services.cluster_id.clone()),
        controller_id: context.services.node_id.0,
        topics,
        cluster_authorized_operations: if request.include_cluster_authorized_operations {
            CLUSTER_OPERATIONS
        } else {
            NO_OPERATIONS
        },
        ..Default::default()
    }
}

/// How long an answer is held back at most, whoever else is doubted meanwhile: what follows on its connection waits, too. The quorum
/// has decided by then, unless it lost its leader.
const DECIDED_WITHIN: Duration = Duration::from_millis(700);

/// The image, once it says who leads instead of brokers that seem to be gone, or is not going to: clients come to ask because their
/// connection broke, too, and many of them would wait for seconds before they ask again.
async fn decided(context: &Context<'_>, wanted: Option<&[MetadataRequestTopic]>) -> Arc<Image> {
    let latest = Instant::now() + DECIDED_WITHIN;
    let mut doubted = context.services.replication.doubted();
    let mut images = context.services.controller.watch();
    loop {
        let image = Arc::clone(&images.borrow_and_update());
        let leads = |nodes: &[NodeId]| {
            let led =
                |topic: &Topic| topic.indexed().any(|(_, state)| state.leader.is_some_and(|l| nodes.contains(&l)));
            match wanted {
                None => image.topics().any(|topic| led(topic)),
                Some(topics) => topics.iter().filter_map(|asked| find(&image, asked)).any(|topic| led(topic)),
            }
        };
        let until = in_doubt_until(&doubted.borrow_and_update(), Instant::now(), leads);
        let Some(until) = until.filter(|_| Instant::now() < latest) else { return image };
        tokio::select! {
            biased;
            changed = images.changed() => if changed.is_err() { return image },
            changed = doubted.changed() => if changed.is_err() { return image },
            () = tokio::time::sleep_until(until.min(latest)) => {}
        }
    }
}

/// The topic that is asked for. An id counts before a name: clients that ask by id send an empty name beside it.
fn find<'a>(image: &'a Image, asked: &MetadataRequestTopic) -> Option<&'a Arc<Topic>> {
    if asked.topic_id.is_nil() {
        image.topic_named(asked.name.as_deref()?)
    } else {
        image.topic(TopicId(asked.topic_id))
    }
}

fn one(
    view: &View<'_>,
    asked: MetadataRequestTopic,
    refused: &HashMap<String, ErrorCode>,
    operations: i32,
) -> MetadataResponseTopic {
    let image = view.image;
    let by_id = !asked.topic_id.is_nil();
    let found = match (&asked.name, by_id) {
        (_, true) => find(image, &asked).ok_or(ErrorCode::UnknownTopicId),
        (Some(name), false) => find(image, &asked).ok_or_else(|| {
            let refusal = refused.get(name).copied();
            let legal = controller::decide::check_topic_name(name).is_ok();
            refusal.unwrap_or(if legal { ErrorCode::UnknownTopicOrPartition } else { ErrorCode::InvalidTopicException })
        }),
        (None, false) => Err(ErrorCode::InvalidRequest),
    };
    match found {
        Ok(topic) => describe(view, topic, operations),
        Err(code) => MetadataResponseTopic {
            error_code: code.code(),
            // Below version 12 a name must be there.
            name: Some(asked.name.unwrap_or_default()).filter(|name| !by_id || !name.is_empty()),
            topic_id: asked.topic_id,
            topic_authorized_operations: NO_OPERATIONS,
            ..Default::default()
        },
    }
}

fn describe(view: &View<'_>, topic: &Topic, operations: i32) -> MetadataResponseTopic {
    MetadataResponseTopic {
        name: Some(topic.name.to_string()),
        topic_id: topic.id.0,
        is_internal: is_internal(&topic.name),
        partitions: topic
            .indexed()
            .map(|(partition_index, state)| {
                let (leader_id, error) = view.leader(state);
                MetadataResponsePartition {
                    error_code: error.code(),
                    partition_index,
                    leader_id,
                    leader_epoch: state.leader_epoch,
                    replica_nodes: nodes(&state.replicas),
                    isr_nodes: nodes(&state.isr),
                    offline_replicas: view.offline(state),
                }
            })
            .collect(),
        topic_authorized_operations: operations,
        ..Default::default()
    }
}

/// Answers page by page: at most `response_partition_limit` partitions, topics in order of their names.
pub(super) async fn describe_topic_partitions(
    context: &Context<'_>,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    if let Some(cursor) = &request.cursor {
        let asked = |name: &str| request.topics.is_empty() || request.topics.iter().any(|topic| topic.name == name);
        if cursor.partition_index < 0 || !asked(&cursor.topic_name) {
            let topics = request.topics.into_iter().map(|topic| absent(topic.name, ErrorCode::InvalidRequest));
            return DescribeTopicPartitionsResponse { topics: topics.collect(), ..Default::default() };
        }
    }
    let image = context.services.controller.image();
    let view = View::new(&image, context, true);
    let most = context.services.config.load().net.max_request_partitions;
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, most.max(1));
    let (from, first_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.as_str(), cursor.partition_index),
        None => ("", 0),
    };
    let mut names: Vec<String> = if request.topics.is_empty() {
        image.topics_from(from).map(|topic| topic.name.to_string()).collect()
    } else {
        request.topics.into_iter().map(|topic| topic.name).filter(|name| name.as_str() >= from).collect()
    };
    names.sort_unstable();
    names.dedup();
    let mut response = DescribeTopicPartitionsResponse::default();
    let mut left = limit;
    for name in names {
        if left == 0 {
            // It begins the next page, whether it exists or not.
            response.next_cursor = Some(Cursor { topic_name: name, partition_index: 0 });
            break;
        }
        let Some(topic) = image.topic_named(&name) else {
            let legal = controller::decide::check_topic_name(&name).is_ok();
            let code = if legal { ErrorCode::UnknownTopicOrPartition } else { ErrorCode::InvalidTopicException };
            response.topics.push(absent(name, code));
            continue;
        };
        let skip = if name == from { first_partition } else { 0 };
        let mut rest = topic.indexed().filter(|(index, _)| *index >= skip).peekable();
        let partitions: Vec<_> =
            rest.by_ref().take(left).map(|(index, state)| page_entry(&view, index, state)).collect();
        left -= partitions.len();
        response.topics.push(DescribeTopicPartitionsResponseTopic {
            name: Some(name.clone()),
            topic_id: topic.id.0,
            is_internal: is_internal(&name),
            partitions,
            topic_authorized_operations: TOPIC_OPERATIONS,
            ..Default::default()
        });
        if let Some((partition_index, _)) = rest.next() {
            response.next_cursor = Some(Cursor { topic_name: name, partition_index });
            break;
        }
    }
    response
}

fn absent(name: String, code: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        error_code: code.code(),
        name: Some(name),
        topic_authorized_operations: NO_OPERATIONS,
        ..Default::default()
    }
}

fn page_entry(
    view: &View<'_>,
    partition_index: i32,
    state: &PartitionState,
) -> DescribeTopicPartitionsResponsePartition {
    let (leader_id, error) = view.leader(state);
    DescribeTopicPartitionsResponsePartition {
        error_code: error.code(),
        partition_index,
        leader_id,
        leader_epoch: state.leader_epoch,
        replica_nodes: nodes(&state.replicas),
        isr_nodes: nodes(&state.isr),
        eligible_leader_replicas: Some(nodes(&state.elr)),
        last_known_elr: Some(nodes(state.last_known_leader.as_slice())),
        offline_replicas: view.offline(state),
    }
}

/// The brokers as a client sees them, who came through one of the listeners.
struct View<'a> {
    image: &'a Image,
    listener: &'a str,
    /// Whether the client knows LISTENER_NOT_FOUND.
    knows_listeners: bool,
}

/// Version of Metadata from which on clients know LISTENER_NOT_FOUND.
const KNOWS_LISTENERS: i16 = 6;

impl<'a> View<'a> {
    fn new(image: &'a Image, context: &'a Context<'_>, knows_listeners: bool) -> View<'a> {
        View { image, listener: &context.caller.listener, knows_listeners }
    }

    /// Who leads, -1 if nobody whom this client can reach does, and why.
    fn leader(&self, state: &PartitionState) -> (i32, ErrorCode) {
        const NOBODY: i32 = -1;
        let broker = state.leader.and_then(|leader| self.image.broker(leader)).filter(|broker| !broker.fenced);
        match broker {
            None => (NOBODY, ErrorCode::LeaderNotAvailable),
            Some(broker) if broker.endpoint(self.listener).is_some() => (broker.id.0, ErrorCode::None),
            Some(_) if !self.knows_listeners => (NOBODY, ErrorCode::LeaderNotAvailable),
            Some(_) => (NOBODY, ErrorCode::ListenerNotFound),
        }
    }

    /// Replicas that this client cannot reach.
    fn offline(&self, state: &PartitionState) -> Vec<i32> {
        let reachable = |id: &NodeId| {
            let broker = self.image.broker(*id).filter(|broker| !broker.fenced);
            broker.is_some_and(|broker| broker.endpoint(self.listener).is_some())
        };
        state.replicas.iter().filter(|id| !reachable(id)).map(|id| id.0).collect()
    }
}

fn nodes(ids: &[NodeId]) -> Vec<i32> {
    ids.iter().map(|node| node.0).collect()
}
