//! What a registered node tells the controller while it lives.

use crate::api::services::Services;
use controller::command::{BrokerState, SetBrokerState};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// After this, a failed data directory is reported again if the controller could not be told.
const REPORT_AGAIN: Duration = Duration::from_secs(1);

/// Tells the controller which data directories are left when one fails: nobody leads what lies in it (KIP-858).
pub(super) async fn report_directories(services: Arc<Services>, stop: CancellationToken) {
    let mut failures = services.partitions.directory_failures();
    loop {
        failures.mark_unchanged();
        let online = services.partitions.online_directories();
        let image = services.controller.image();
        let mut told = image.broker(services.node_id).is_some_and(|broker| broker.directories == online);
        if !told {
            let state = SetBrokerState {
                id: services.node_id,
                broker_epoch: services.broker_epoch,
                state: BrokerState::Active,
                directories: Some(online),
            };
            let outcome = services.controller.set_broker_state(state).await;
            told = outcome.is_ok();
            if let Err(error) = outcome {
                tracing::error!(%error, "the controller does not know of a failed data directory yet");
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(REPORT_AGAIN), if !told => {}
            changed = failures.changed() => if changed.is_err() { return },
        }
    }
}
