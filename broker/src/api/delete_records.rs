//! DeleteRecords (KIP-107): moves the start of a log. For a tiered partition the answer waits for the pointer's commit.

use super::Context;
use super::errors::{ack_code, read_code, refusal_code, submit_code};
use super::partitions::{held, topic_named};
use super::services::Services;
use crate::partition::{Deletion, PartitionHandle};
use controller::command::DeleteRecords;
use proto::errors::ErrorCode;
use proto::ids::Offset;
use proto::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use proto::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use proto::metadata::Topic;
use std::sync::Arc;

/// Answers the new log start of each partition asked for.
pub(super) async fn handle(context: &Context<'_>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let services = context.services;
    let image = services.controller.image();
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = topic_named(&image, &asked.name).cloned();
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for wanted in asked.partitions {
            let deleted = match &topic {
                Ok(topic) => delete(services, topic, wanted.partition_index, wanted.offset).await,
                Err(code) => Err(*code),
            };
            partitions.push(DeleteRecordsPartitionResult {
                partition_index: wanted.partition_index,
                low_watermark: deleted.unwrap_or(-1),
                error_code: deleted.err().unwrap_or(ErrorCode::None).code(),
            });
        }
        topics.push(DeleteRecordsTopicResult { name: asked.name, partitions });
    }
    DeleteRecordsResponse { topics, ..Default::default() }
}

async fn delete(services: &Arc<Services>, topic: &Topic, index: i32, before: Offset) -> Result<Offset, ErrorCode> {
    let partition = held(services, topic, index)?;
    if !services.topic_config(topic.id).cleanup.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    match partition.delete_records(before).map_err(|error| read_code(&error))? {
        Deletion::Local(done, log_start) => {
            done.await.map_err(ack_code)?;
            Ok(log_start)
        }
        Deletion::ViaPointer(to) => commit(services, &partition, to).await,
    }
}

/// Moves the log start in the quorum, so that no later leader brings the records back.
async fn commit(services: &Services, partition: &PartitionHandle, log_start: Offset) -> Result<Offset, ErrorCode> {
    let leader_epoch = partition.leadership().epoch;
    let command = DeleteRecords { tp: partition.tp(), leader_epoch, log_start };
    let outcomes = services.controller.delete_records(vec![command]).await.map_err(|error| submit_code(&error))?;
    match outcomes.into_iter().next() {
        Some(Ok(pointer)) => {
            partition.apply_pointer(&pointer, services.clock.now_ms());
            Ok(pointer.log_start)
        }
        Some(Err(refusal)) => Err(refusal_code(&refusal)),
        None => Err(ErrorCode::UnknownServerError),
    }
}
