//! AlterPartitionReassignments and ListPartitionReassignments (KIP-455, KIP-860).

use super::Context;
use super::errors::{late_code, patience, refusal_code};
use controller::command::AlterReassignments;
use proto::errors::ErrorCode;
use proto::ids::{NodeId, TopicPartition};
use proto::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use proto::messages::list_partition_reassignments_response::{OngoingPartitionReassignment, OngoingTopicReassignment};
use proto::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
};
use proto::metadata::{PartitionState, Topic};
use std::collections::BTreeMap;

/// Starts moving replicas, or takes it back.
pub(super) async fn alter(
    context: &Context<'_>,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let image = context.services.controller.image();
    let allow_factor_change = request.allow_replication_factor_change;
    let mut changes = Vec::new();
    let mut responses = Vec::with_capacity(request.topics.len());
    // Where the outcome of each change belongs.
    let mut places = Vec::new();
    for (at, topic) in request.topics.into_iter().enumerate() {
        let known = image.topic_named(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let index = asked.partition_index;
            let mut response = ReassignablePartitionResponse { partition_index: index, ..Default::default() };
            match known.filter(|known| known.partition(index).is_some()) {
                Some(known) => {
                    places.push((at, partitions.len()));
                    let replicas = asked.replicas.map(|replicas| replicas.into_iter().map(NodeId).collect());
                    changes.push((TopicPartition { topic: known.id, partition: index }, replicas));
                }
                None => {
                    response.error_code = ErrorCode::UnknownTopicOrPartition.code();
                    response.error_message = Some(match known {
                        Some(_) => format!("No such partition as {}-{index}", topic.name),
                        None => format!("No such topic as {}", topic.name),
                    });
                }
            }
            partitions.push(response);
        }
        responses.push(ReassignableTopicResponse { name: topic.name, partitions });
    }
    let alter = AlterReassignments { changes, allow_factor_change, planned_on: Vec::new() };
    let within = patience(request.timeout_ms);
    let outcomes = context.services.controller.alter_reassignments_within(alter, within).await;
    let outcomes = match outcomes {
        Ok(outcomes) => outcomes,
        Err(error) => {
            return AlterPartitionReassignmentsResponse {
                allow_replication_factor_change: allow_factor_change,
                error_code: late_code(&error).code(),
                error_message: Some(error.to_string()),
                ..Default::default()
            };
        }
    };
    for ((topic, partition), outcome) in places.into_iter().zip(outcomes) {
        let place = responses.get_mut(topic).and_then(|topic| topic.partitions.get_mut(partition));
        if let (Some(place), Err(refusal)) = (place, outcome) {
            place.error_code = refusal_code(&refusal).code();
            place.error_message = Some(refusal.to_string());
        }
    }
    AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: allow_factor_change,
        responses,
        ..Default::default()
    }
}

/// Answers which replicas are moving: of the partitions asked for, or of all.
pub(super) async fn list(
    context: &Context<'_>,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let image = context.services.controller.image();
    let mut topics = Vec::new();
    let mut add = |topic: &Topic, partitions: Vec<OngoingPartitionReassignment>| {
        if !partitions.is_empty() {
            topics.push(OngoingTopicReassignment { name: topic.name.to_string(), partitions });
        }
    };
    match request.topics {
        None => {
            for topic in image.topics() {
                add(topic, topic.indexed().filter_map(|(index, state)| moving(index, state)).collect());
            }
        }
        Some(asked) => {
            // What is not known does not move.
            let asked: BTreeMap<String, Vec<i32>> =
                asked.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect();
            for (name, indexes) in asked {
                let Some(topic) = image.topic_named(&name) else { continue };
                let moving = |index| moving(index, topic.partition(index)?);
                add(topic, indexes.into_iter().filter_map(moving).collect());
            }
        }
    }
    ListPartitionReassignmentsResponse { topics, ..Default::default() }
}

fn moving(index: i32, state: &PartitionState) -> Option<OngoingPartitionReassignment> {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    (!state.adding.is_empty() || !state.removing.is_empty()).then(|| OngoingPartitionReassignment {
        partition_index: index,
        replicas: ids(&state.replicas),
        adding_replicas: ids(&state.adding),
        removing_replicas: ids(&state.removing),
    })
}
