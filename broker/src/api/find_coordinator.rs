//! FindCoordinator (KIP-699): which broker answers for a group.

use super::Context;
use super::services::Services;
use super::topics::auto_create;
use crate::group::{OFFSETS_TOPIC, partition_for};
use proto::errors::ErrorCode;
use proto::messages::find_coordinator_response::Coordinator;
use proto::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use proto::metadata::{Image, Topic};
use std::sync::Arc;

/// `key_type` of consumer groups.
const GROUP: i8 = 0;
/// From this version on a request names many keys.
const MANY_KEYS: i16 = 4;

/// Answers the coordinator of each key. The topic that groups are written down in comes into being with the first
/// one who asks.
pub(super) async fn handle(context: &Context<'_>, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let many = context.caller.version >= MANY_KEYS;
    let keys = if many { request.coordinator_keys } else { vec![request.key] };
    let mut found = Vec::with_capacity(keys.len());
    if request.key_type == GROUP {
        let image = offsets_image(context.services).await;
        let topic = image.topic_named(OFFSETS_TOPIC);
        found.extend(keys.into_iter().map(|key| coordinator(&image, topic, &context.caller.listener, key)));
    } else {
        let why = "this broker coordinates consumer groups only (key type 0)";
        found.extend(keys.into_iter().map(|key| refused(key, ErrorCode::InvalidRequest, why)));
    }
    if many {
        return FindCoordinatorResponse { coordinators: found, ..Default::default() };
    }
    let only = found.pop().unwrap_or_default();
    FindCoordinatorResponse {
        error_code: only.error_code,
        error_message: only.error_message,
        node_id: only.node_id,
        host: only.host,
        port: only.port,
        ..Default::default()
    }
}

/// The image, with the topic of groups in it if it can be made.
async fn offsets_image(services: &Arc<Services>) -> Arc<Image> {
    let image = services.controller.image();
    if image.topic_named(OFFSETS_TOPIC).is_some() {
        return image;
    }
    for (topic, code) in auto_create(services, &[OFFSETS_TOPIC]).await {
        tracing::warn!(%topic, code = code.name(), "the topic of groups could not be made");
    }
    let image = services.controller.image();
    services.caught_up(image.offset()).await;
    image
}

fn coordinator(image: &Image, topic: Option<&Arc<Topic>>, listener: &str, key: String) -> Coordinator {
    let count = topic.map_or(0, |topic| i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX));
    let leader = topic
        .and_then(|topic| topic.partition(partition_for(&key, count)))
        .and_then(|state| state.leader)
        .and_then(|leader| image.broker(leader));
    match leader.and_then(|broker| Some((broker.id, broker.endpoint(listener)?))) {
        Some((id, endpoint)) => Coordinator {
            key,
            node_id: id.0,
            host: endpoint.host.clone(),
            port: i32::from(endpoint.port),
            error_code: ErrorCode::None.code(),
            error_message: None,
        },
        None => refused(key, ErrorCode::CoordinatorNotAvailable, "the group has no coordinator at the moment"),
    }
}

fn refused(key: String, code: ErrorCode, why: &str) -> Coordinator {
    Coordinator {
        key,
        node_id: -1,
        host: String::new(),
        port: -1,
        error_code: code.code(),
        error_message: Some(why.to_owned()),
    }
}
