//! Fetch (KIP-74, KIP-227, KIP-320, KIP-516): records from wherever they are.
//!
//! `session` remembers what a consumer reads; `engine` gathers records from memory and disk, and `cold`
//! from the remote tier, within the limits of the request; `beyond` doubts what is called out of range; `follower` is what is different for
//! replicas. Here all meet the message.

mod beyond;
mod cold;
mod engine;
mod follower;
mod nearest;
pub mod session;
#[cfg(test)]
mod tests;

use super::Context;
use super::services::Services;
use crate::partition::types::Reader;
use engine::{Found, Limits, Target};
use follower::Follower;
use indexmap::IndexMap;
use nearest::Near;
use proto::errors::ErrorCode;
use proto::ids::NodeId;
use proto::messages::fetch_request::{FetchTopic, ForgottenTopic};
use proto::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use proto::messages::{FetchRequest, FetchResponse};
use proto::metadata::Image;
use session::{Key, Request, Said, SessionError, TopicRef, Wanted};
use std::collections::HashMap;
use std::time::Instant;

/// From this version on consumers say their rack, and can be sent to another replica (KIP-392).
const NEAREST: i16 = 11;
/// From this version on topics are named by id (KIP-516).
const BY_ID: i16 = 13;
/// From this version on an answer names the leader that a misdirected client should ask (KIP-595).
const NAMES_LEADER: i16 = 12;
/// From this version on an answer carries the addresses of leaders it names (KIP-951).
const NAMES_ENDPOINTS: i16 = 16;

/// Answers with records as soon as `min_bytes` are there, something failed, or `max_wait_ms` have passed. Only who waits
/// for memory waits longer, by a few seconds at most.
pub async fn handle(context: &Context<'_>, request: FetchRequest) -> FetchResponse {
    let began = Instant::now();
    let services = context.services;
    let by_id = context.caller.version >= BY_ID;
    let asker = Asker::of(context, &request);
    if let Asker::Follower(follower) = &asker
        && let Err(code) = follower.check(services)
    {
        return FetchResponse { error_code: code.code(), ..Default::default() };
    }
    let limits = asker.limits(&request, services.config.load().net.fetch_max_bytes);
    // A partition that is named twice is read once, as it was named last.
    let partitions: IndexMap<Key, Wanted> = request.topics.into_iter().flat_map(|topic| wanted(topic, by_id)).collect();
    let asked = Request {
        session_id: request.session_id,
        session_epoch: request.session_epoch,
        by_id,
        replica: asker.replica(),
        partitions: partitions.into_iter().collect(),
        forgotten: request.forgotten_topics_data.into_iter().flat_map(|topic| forgotten(topic, by_id)).collect(),
    };
    let plan = match services.sessions.begin(services.clock.now_ms(), services.entropy.next_u64(), asked) {
        Ok(plan) => plan,
        Err(error) => {
            let code = match error {
                SessionError::NotFound => ErrorCode::FetchSessionIdNotFound,
                SessionError::WrongEpoch => ErrorCode::InvalidFetchSessionEpoch,
                SessionError::MixedTopicIds => ErrorCode::FetchSessionTopicIdError,
            };
            return FetchResponse { error_code: code.code(), ..Default::default() };
        }
    };
    let image = services.controller.image();
    let mut targets: Vec<Target> =
        plan.partitions.iter().map(|(key, wanted)| engine::resolve(services, &image, key, wanted)).collect();
    targets.iter_mut().for_each(|target| asker.look(services, target));
    let mut gathered = engine::gather(services, &targets, limits, context.memory.as_ref()).await;
    if asker.replica().is_none() {
        beyond::confirm(services, &targets, &mut gathered.partitions).await;
    }
    // While it waited others may have begun to lead: whom to ask is said as of now.
    let image = services.controller.image();
    for (target, found) in targets.iter().zip(&mut gathered.partitions) {
        found.leader = found.leader.and_then(|_| engine::leader(&image, target.tp?));
    }
    let mut response = FetchResponse { session_id: plan.session_id, ..Default::default() };
    let mut topics: HashMap<TopicRef, usize> = HashMap::new();
    for ((key, _), mut found) in plan.partitions.iter().zip(gathered.partitions) {
        if !plan.say(key, said(&found)) {
            continue;
        }
        let at = *topics.entry(key.topic.clone()).or_insert_with(|| {
            let (topic, topic_id) = match &key.topic {
                TopicRef::Name(name) => (name.to_string(), uuid::Uuid::nil()),
                TopicRef::Id(id) => (String::new(), *id),
            };
            response.responses.push(FetchableTopicResponse { topic, topic_id, partitions: Vec::new() });
            response.responses.len() - 1
        });
        if context.caller.version < NAMES_LEADER {
            found.leader = None;
        }
        if context.caller.version >= NAMES_ENDPOINTS {
            name_endpoint(&image, &context.caller.listener, &found, &mut response.node_endpoints);
        }
        let data = partition_data(key.partition, found);
        response.responses.get_mut(at).expect("the index was just given").partitions.push(data);
    }
    context.hold_until_sent(gathered.grants);
    if asker.replica().is_none() {
        services.metrics.fetch_latency.observe(began.elapsed().as_secs_f64());
    }
    response
}

/// Who fetches.
enum Asker {
    /// A consumer of the leader.
    Consumer,
    /// A consumer that says its rack.
    Near(Near),
    /// A replica.
    Follower(Follower),
}

impl Asker {
    fn of(context: &Context<'_>, request: &FetchRequest) -> Asker {
        if let Some(follower) = Follower::of(request) {
            return Asker::Follower(follower);
        }
        if context.caller.version < NEAREST || request.rack_id.is_empty() {
            return Asker::Consumer;
        }
        let selects = context.services.config.load().replication.nearest_replica;
        Asker::Near(Near { rack: request.rack_id.clone(), selects })
    }

    fn limits(&self, request: &FetchRequest, most: usize) -> Limits {
        match self {
            Asker::Consumer => Limits::of(request, most),
            Asker::Near(_) => Limits { reader: Reader::NearConsumer, ..Limits::of(request, most) },
            Asker::Follower(follower) => follower.limits(request, most),
        }
    }

    /// The broker, and its epoch, if it is one.
    fn replica(&self) -> Option<(NodeId, i64)> {
        match self {
            Asker::Consumer | Asker::Near(_) => None,
            Asker::Follower(follower) => Some((follower.id, follower.broker_epoch)),
        }
    }

    /// Done once with each partition, before any is read.
    fn look(&self, services: &Services, target: &mut Target) {
        match self {
            Asker::Consumer => {}
            Asker::Near(near) => near.look(services, target),
            Asker::Follower(follower) => follower.fetched(services, target),
        }
    }
}

fn wanted(topic: FetchTopic, by_id: bool) -> Vec<(Key, Wanted)> {
    let name = topic_ref(&topic.topic, topic.topic_id, by_id);
    let partitions = topic.partitions.into_iter().map(|partition| {
        let wanted = Wanted {
            offset: partition.fetch_offset,
            max_bytes: partition.partition_max_bytes,
            current_leader_epoch: partition.current_leader_epoch,
            last_fetched_epoch: partition.last_fetched_epoch,
            log_start: partition.log_start_offset,
            high_watermark: partition.high_watermark,
        };
        (Key { topic: name.clone(), partition: partition.partition }, wanted)
    });
    partitions.collect()
}

fn forgotten(topic: ForgottenTopic, by_id: bool) -> Vec<Key> {
    let name = topic_ref(&topic.topic, topic.topic_id, by_id);
    topic.partitions.into_iter().map(|partition| Key { topic: name.clone(), partition }).collect()
}

fn topic_ref(name: &str, id: uuid::Uuid, by_id: bool) -> TopicRef {
    if by_id { TopicRef::Id(id) } else { TopicRef::Name(name.into()) }
}

fn said(found: &Found) -> Said {
    Said {
        high_watermark: found.high_watermark,
        log_start: found.log_start,
        error: found.error != ErrorCode::None,
        news: !found.records.is_empty() || found.diverging.is_some() || found.preferred.is_some(),
    }
}

fn partition_data(partition_index: i32, found: Found) -> PartitionData {
    PartitionData {
        partition_index,
        error_code: found.error.code(),
        high_watermark: found.high_watermark,
        last_stable_offset: found.last_stable,
        log_start_offset: found.log_start,
        diverging_epoch: found
            .diverging
            .map(|end| EpochEndOffset { epoch: end.epoch, end_offset: end.end })
            .unwrap_or_default(),
        current_leader: found
            .leader
            .map(|(leader, leader_epoch)| LeaderIdAndEpoch { leader_id: leader.0, leader_epoch })
            .unwrap_or_default(),
        aborted_transactions: found.aborted.map(|aborted| {
            aborted
                .into_iter()
                .map(|txn| AbortedTransaction { producer_id: txn.producer_id, first_offset: txn.first_offset })
                .collect()
        }),
        preferred_read_replica: found.preferred.map_or(-1, |id| id.0),
        // Clients expect an empty list of batches, not null.
        records: Some(found.records),
        ..Default::default()
    }
}

fn name_endpoint(image: &Image, listener: &str, found: &Found, endpoints: &mut Vec<NodeEndpoint>) {
    let Some((leader, _)) = found.leader else { return };
    let Some(broker) = image.broker(leader) else { return };
    let Some(endpoint) = broker.endpoint(listener) else { return };
    if endpoints.iter().all(|known| known.node_id != leader.0) {
        endpoints.push(NodeEndpoint {
            node_id: leader.0,
            host: endpoint.host.clone(),
            port: i32::from(endpoint.port),
            rack: broker.rack.clone(),
        });
    }
}
