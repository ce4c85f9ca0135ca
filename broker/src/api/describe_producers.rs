//! DescribeProducers (KIP-664): the producers whose sequences a partition remembers.

use super::Context;
use super::errors::read_code;
use super::partitions::{held, topic_named};
use crate::partition::PartitionHandle;
use indexmap::{IndexMap, IndexSet};
use proto::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use proto::messages::{DescribeProducersRequest, DescribeProducersResponse};

/// Answers every producer that a partition knows, ascending by id; for each partition once, however often it is named.
pub(super) async fn handle(context: &Context<'_>, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let image = context.services.controller.image();
    let mut wanted: IndexMap<String, IndexSet<i32>> = IndexMap::new();
    for asked in request.topics {
        wanted.entry(asked.name).or_default().extend(asked.partition_indexes);
    }
    let mut topics = Vec::with_capacity(wanted.len());
    for (name, indexes) in wanted {
        let topic = topic_named(&image, &name);
        let mut partitions = Vec::with_capacity(indexes.len());
        for partition_index in indexes {
            let partition =
                topic.and_then(|topic| held(context.services, topic, partition_index)).and_then(|partition| {
                    partition.check_leader(None).map_err(|error| read_code(&error))?;
                    Ok(partition)
                });
            partitions.push(match partition {
                Ok(partition) => {
                    PartitionResponse { partition_index, active_producers: producers(&partition), ..Default::default() }
                }
                Err(code) => PartitionResponse { partition_index, error_code: code.code(), ..Default::default() },
            });
        }
        topics.push(TopicResponse { name, partitions });
    }
    DescribeProducersResponse { topics, ..Default::default() }
}

fn producers(partition: &PartitionHandle) -> Vec<ProducerState> {
    let known = partition.producers();
    let described = known.into_iter().map(|(producer_id, producer)| ProducerState {
        producer_id,
        producer_epoch: i32::from(producer.epoch),
        last_sequence: producer.batches.back().map_or(-1, |batch| batch.last_sequence),
        last_timestamp: producer.batches.back().map_or(-1, |batch| batch.timestamp),
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.txn_first_offset.unwrap_or(-1),
    });
    described.collect()
}
