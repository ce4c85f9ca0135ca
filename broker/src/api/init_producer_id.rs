//! InitProducerId (KIP-98, KIP-360): ids for idempotent producers, out of blocks the controller gives away.

use super::Context;
use super::errors::submit_code;
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
        let fresh = self
            .controller
            .allocate_producer_ids(self.node_id, self.broker_epoch)
            .await
            .map_err(|error| submit_code(&error))?;
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
