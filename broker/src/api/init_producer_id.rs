//! InitProducerId (KIP-98, KIP-360): ids for idempotent producers, out of blocks the controller gives away.

use super::Context;
use controller::ControllerHandle;
use proto::errors::ErrorCode;
use proto::ids::NodeId;
use proto::messages::{InitProducerIdRequest, InitProducerIdResponse};
use std::ops::Range;
use tokio::sync::Mutex;

/// The block of producer ids this broker hands out.
pub struct ProducerIds {
    controller: ControllerHandle,
    node_id: NodeId,
    broker_epoch: i64,
    block: Mutex<Range<i64>>,
}

impl ProducerIds {
    /// No id yet: the first request takes a block.
    pub fn new(controller: ControllerHandle, node_id: NodeId, broker_epoch: i64) -> ProducerIds {
        ProducerIds { controller, node_id, broker_epoch, block: Mutex::new(0..0) }
    }

    /// An id that nobody else has or will get.
    pub async fn next(&self) -> Result<i64, ErrorCode> {
        let mut block = self.block.lock().await;
        if let Some(id) = block.next() {
            return Ok(id);
        }
        let fresh = self.controller.allocate_producer_ids(self.node_id, self.broker_epoch).await.map_err(|error| {
            // Whatever the quorum said: this is the one code at which every client asks again.
            tracing::warn!(%error, "no producer ids could be had");
            ErrorCode::CoordinatorLoadInProgress
        })?;
        *block = fresh.first..fresh.first + fresh.count;
        block.next().ok_or(ErrorCode::CoordinatorLoadInProgress)
    }
}

/// Answers a fresh id with epoch 0. A transactional id is refused: this release coordinates no transactions.
pub async fn handle(context: &Context<'_>, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let refuse = |code: ErrorCode| InitProducerIdResponse {
        error_code: code.code(),
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    match request.transactional_id.as_deref() {
        None => match context.services.producer_ids.next().await {
            Ok(producer_id) => InitProducerIdResponse { producer_id, producer_epoch: 0, ..Default::default() },
            Err(code) => refuse(code),
        },
        Some("") => refuse(ErrorCode::InvalidRequest),
        Some(_) => refuse(ErrorCode::TransactionalIdAuthorizationFailed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use controller::command::{Clean, RegisterBroker};
    use controller::{ControllerNode, NodeConfig};
    use proto::host::{ManualClock, Spawner};
    use std::sync::Arc;
    use uuid::Uuid;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_gets_no_id_is_told_to_ask_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = NodeConfig { dir: dir.path().join("metadata"), node_id: NodeId(0) };
        let spawner = Spawner::single(tokio::runtime::Handle::current());
        let started = ControllerNode::start(config, Arc::new(ManualClock::new(0)), &spawner).await;
        let (node, handle) = started.expect("the controller starts");
        let broker = RegisterBroker {
            id: NodeId(0),
            incarnation: Uuid::from_u128(1),
            endpoints: vec![],
            rack: None,
            directories: vec![],
            previous_epoch: None,
            clean: Clean::Yes,
            offline_directories: 0,
            features: controller::supported_features(),
        };
        let epoch = handle.register_broker(broker).await.expect("registered");
        assert_eq!(ProducerIds::new(handle.clone(), NodeId(0), epoch).next().await, Ok(0));
        let again = Err(ErrorCode::CoordinatorLoadInProgress);
        assert_eq!(ProducerIds::new(handle.clone(), NodeId(0), epoch + 1).next().await, again, "refused");
        let ids = ProducerIds::new(handle, NodeId(0), epoch);
        node.shutdown().await;
        assert_eq!(ids.next().await, again, "nobody there");
    }
}
