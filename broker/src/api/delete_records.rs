//! DeleteRecords (KIP-107): moves the start of a log. For a tiered partition the answer waits for the pointer's commit.

use super::Context;
use super::errors::{ack_code, read_code, refusal_code, submit_code};
use super::partitions::{held, topic_named};
use super::services::Services;
use crate::config::internal::is_internal;
use crate::partition::types::AckFuture;
use crate::partition::{Deletion, PartitionHandle};
use controller::command::DeleteRecords;
use proto::errors::ErrorCode;
use proto::ids::Offset;
use proto::messages::delete_records_request::DeleteRecordsPartition;
use proto::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use proto::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use proto::metadata::Topic;
use std::time::Duration;
use tokio::time::Instant;

/// Answers the new log start of each partition asked for. What takes time is waited for together, for as long as the
/// request says: a replica that is alive and lags holds deletions up (KIP-107).
pub(super) async fn handle(context: &Context<'_>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let services = context.services;
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let deadline = Instant::now() + timeout;
    let image = services.controller.image();
    let mut begun = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = topic_named(&image, &asked.name);
        let begin = |wanted: &DeleteRecordsPartition| {
            topic.and_then(|topic| begin(services, topic, wanted.partition_index, wanted.offset))
        };
        let partitions: Vec<_> =
            asked.partitions.iter().map(|wanted| (wanted.partition_index, begin(wanted))).collect();
        begun.push((asked.name, partitions));
    }
    let mut pointers = commit(services, &begun).await.into_iter();
    let mut topics = Vec::with_capacity(begun.len());
    for (name, partitions) in begun {
        let mut results = Vec::with_capacity(partitions.len());
        for (partition_index, begun) in partitions {
            let deleted = match begun {
                Ok(Begun::Local(done, log_start)) => match tokio::time::timeout_at(deadline, done).await {
                    Ok(done) => done.map(|()| log_start).map_err(ack_code),
                    Err(_) => Err(ErrorCode::RequestTimedOut),
                },
                Ok(Begun::ViaPointer(..)) => pointers.next().unwrap_or(Err(ErrorCode::UnknownServerError)),
                Err(code) => Err(code),
            };
            results.push(DeleteRecordsPartitionResult {
                partition_index,
                low_watermark: deleted.unwrap_or(-1),
                error_code: deleted.err().unwrap_or(ErrorCode::None).code(),
            });
        }
        topics.push(DeleteRecordsTopicResult { name, partitions: results });
    }
    DeleteRecordsResponse { topics, ..Default::default() }
}

/// A deletion that is not done yet.
enum Begun {
    /// Done as soon as this resolves; the new log start.
    Local(AckFuture, Offset),
    /// The partition's pointer has to move.
    ViaPointer(PartitionHandle, Offset),
}

/// A partition's index, and how its deletion began.
type BegunOne = (i32, Result<Begun, ErrorCode>);

fn begin(services: &Services, topic: &Topic, index: i32, before: Offset) -> Result<Begun, ErrorCode> {
    let partition = held(services, topic, index)?;
    if is_internal(&topic.name) {
        return Err(ErrorCode::InvalidTopicException);
    }
    if !services.topic_config(topic.id).cleanup.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    Ok(match partition.delete_records(before).map_err(|error| read_code(&error))? {
        Deletion::Local(done, log_start) => Begun::Local(done, log_start),
        Deletion::ViaPointer(to) => Begun::ViaPointer(partition, to),
    })
}

/// Moves log starts in the quorum, so that no later leader brings the records back: all that the request asks for at once.
async fn commit(services: &Services, begun: &[(String, Vec<BegunOne>)]) -> Vec<Result<Offset, ErrorCode>> {
    let all = begun.iter().flat_map(|(_, partitions)| partitions);
    let (partitions, commands): (Vec<&PartitionHandle>, Vec<DeleteRecords>) = all
        .filter_map(|(_, begun)| match begun {
            Ok(Begun::ViaPointer(partition, log_start)) => {
                let leader_epoch = partition.leadership().epoch;
                Some((partition, DeleteRecords { tp: partition.tp(), leader_epoch, log_start: *log_start }))
            }
            Ok(Begun::Local(..)) | Err(_) => None,
        })
        .unzip();
    if commands.is_empty() {
        return Vec::new();
    }
    let outcomes = match services.controller.delete_records(commands).await {
        Ok(outcomes) => outcomes,
        Err(error) => return vec![Err(submit_code(&error)); partitions.len()],
    };
    let now = services.clock.now_ms();
    let moved = partitions.into_iter().zip(outcomes).map(|(partition, outcome)| {
        let pointer = outcome.map_err(|refusal| refusal_code(&refusal))?;
        partition.apply_pointer(&pointer, now);
        Ok(pointer.log_start)
    });
    moved.collect()
}
