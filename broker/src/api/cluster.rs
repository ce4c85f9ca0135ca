//! DescribeCluster (KIP-700, KIP-919, KIP-1073).

use super::Context;
use super::metadata::{CLUSTER_OPERATIONS, NO_OPERATIONS};
use proto::errors::ErrorCode;
use proto::messages::describe_cluster_response::DescribeClusterBroker;
use proto::messages::{DescribeClusterRequest, DescribeClusterResponse};

/// `endpoint_type` of brokers; 2 would be controllers, which have no Kafka listener here.
const BROKERS: i8 = 1;

/// Answers which brokers there are; fenced ones only when asked for.
pub(super) async fn describe(context: &Context<'_>, request: DescribeClusterRequest) -> DescribeClusterResponse {
    if request.endpoint_type != BROKERS {
        return DescribeClusterResponse {
            error_code: ErrorCode::MismatchedEndpointType.code(),
            error_message: Some("this listener describes brokers (endpoint type 1) only".to_owned()),
            endpoint_type: request.endpoint_type,
            cluster_authorized_operations: NO_OPERATIONS,
            ..Default::default()
        };
    }
    let image = context.services.controller.image();
    let operations = request.include_cluster_authorized_operations;
    DescribeClusterResponse {
        endpoint_type: BROKERS,
        cluster_id: context.services.cluster_id.clone(),
        controller_id: context.services.node_id.0,
        brokers: image
            .brokers()
            .filter(|broker| request.include_fenced_brokers || !broker.fenced)
            .filter_map(|broker| {
                let endpoint = broker.endpoint(&context.caller.listener)?;
                Some(DescribeClusterBroker {
                    broker_id: broker.id.0,
                    host: endpoint.host.clone(),
                    port: i32::from(endpoint.port),
                    rack: broker.rack.clone(),
                    is_fenced: broker.fenced,
                })
            })
            .collect(),
        cluster_authorized_operations: if operations { CLUSTER_OPERATIONS } else { NO_OPERATIONS },
        ..Default::default()
    }
}
