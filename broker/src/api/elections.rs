//! ElectLeaders (KIP-183, KIP-460).

use super::Context;
use super::errors::{late_code, patience, refusal_code};
use controller::command::{ElectLeaders, Election};
use proto::errors::ErrorCode;
use proto::ids::TopicPartition;
use proto::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use proto::messages::{ElectLeadersRequest, ElectLeadersResponse};
use std::collections::BTreeMap;

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// Elects leaders of the partitions asked for. If all are, only those are answered where there was something to do.
pub(super) async fn elect(context: &Context<'_>, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let election = match request.election_type {
        PREFERRED => Election::Preferred,
        UNCLEAN => Election::Unclean,
        _ => return ElectLeadersResponse { error_code: ErrorCode::InvalidRequest.code(), ..Default::default() },
    };
    let image = context.services.controller.image();
    let mut results: BTreeMap<String, Vec<PartitionResult>> = BTreeMap::new();
    let asked = request.topic_partitions.map(|topics| {
        let mut asked = Vec::new();
        for topic in topics {
            let known = image.topic_named(&topic.topic);
            for partition in topic.partitions {
                match known.filter(|known| known.partition(partition).is_some()) {
                    Some(known) => asked.push(TopicPartition { topic: known.id, partition }),
                    None => results.entry(topic.topic.clone()).or_default().push(PartitionResult {
                        partition_id: partition,
                        error_code: ErrorCode::UnknownTopicOrPartition.code(),
                        error_message: Some(match known {
                            Some(_) => format!("No such partition as {}-{partition}", topic.topic),
                            None => format!("No such topic as {}", topic.topic),
                        }),
                    }),
                }
            }
        }
        asked
    });
    let all = asked.is_none();
    let within = patience(request.timeout_ms);
    let elect = ElectLeaders { election, partitions: asked };
    let elected = match context.services.controller.elect_leaders_within(elect, within).await {
        Ok(elected) => elected,
        Err(error) => {
            return ElectLeadersResponse { error_code: late_code(&error).code(), ..Default::default() };
        }
    };
    let image = context.services.controller.image();
    for (tp, outcome) in elected {
        // A topic that was deleted in between has no name any more, and nobody asks for it.
        let Some(topic) = image.topic(tp.topic) else { continue };
        let (code, why) = match outcome {
            Ok(()) => (ErrorCode::None, None),
            Err(refusal) => (refusal_code(&refusal), Some(refusal.to_string())),
        };
        if all && code == ErrorCode::ElectionNotNeeded {
            continue;
        }
        results.entry(topic.name.to_string()).or_default().push(PartitionResult {
            partition_id: tp.partition,
            error_code: code.code(),
            error_message: why,
        });
    }
    let result = |(topic, partition_result)| ReplicaElectionResult { topic, partition_result };
    ElectLeadersResponse { replica_election_results: results.into_iter().map(result).collect(), ..Default::default() }
}
