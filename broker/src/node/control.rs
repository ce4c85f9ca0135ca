//! What the HTTP side asks of a node.

use super::cluster;
use crate::api::services::Services;
use crate::http::{ClusterAnswer, ClusterAsk, Control, ControlError, TierPartition};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tiering::runner::{PartitionStatus, RunnerHandle};

/// [`Control`] over the node's parts.
pub struct NodeControl {
    services: Arc<Services>,
    tier: RunnerHandle,
}

impl NodeControl {
    /// Answers from `services` and the tier's runner.
    pub fn new(services: Arc<Services>, tier: RunnerHandle) -> NodeControl {
        NodeControl { services, tier }
    }
}

impl Control for NodeControl {
    fn health(&self) -> Result<(), String> {
        if self.services.partitions.all_offline() {
            return Err("every data directory is offline; the log says why".to_owned());
        }
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        self.health()
    }

    fn tier_status(&self, topic: Option<&str>) -> Result<Vec<TierPartition>, ControlError> {
        let image = self.services.controller.image();
        if let Some(name) = topic
            && image.topic_named(name).is_none()
        {
            return Err(ControlError::UnknownTopic(name.to_owned()));
        }
        let statuses: BTreeMap<_, PartitionStatus> =
            self.tier.status().into_iter().map(|status| (status.tp, status)).collect();
        let mut rows = Vec::new();
        for partition in self.services.partitions.all() {
            let Some(named) = image.topic(partition.tp().topic) else { continue };
            if topic.is_some_and(|topic| *topic != *named.name) {
                continue;
            }
            let ends = partition.offsets();
            let status = statuses.get(&partition.tp());
            rows.push(TierPartition {
                topic: named.name.to_string(),
                partition: partition.tp().partition,
                log_start: ends.log_start,
                local_start: ends.local_start,
                tier_end: status.map_or(ends.tier_end, |status| status.tier_end),
                high_watermark: ends.high_watermark,
                lag_bytes: status.map_or(0, |status| status.lag_bytes),
                lag_ms: status.map_or(0, |status| u64::try_from(status.lag_ms).unwrap_or(0)),
                local_bytes: partition.size_bytes(),
                remote_bytes: status.map_or(0, |status| status.tiered_bytes),
                objects: status.and_then(|status| status.objects).unwrap_or(0),
                held_back_by: status.and_then(|status| status.error.clone()),
            });
        }
        rows.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        Ok(rows)
    }

    fn tier_flush(&self, topic: String, timeout: Duration) -> BoxFuture<'_, Result<(), ControlError>> {
        async move {
            let image = self.services.controller.image();
            let Some(named) = image.topic_named(&topic) else { return Err(ControlError::UnknownTopic(topic)) };
            let config = self.services.topic_config(named.id);
            if !config.remote_storage_enable || config.cleanup.compact {
                return Err(ControlError::HeldBack(format!(
                    "{topic} stays local: remote.storage.enable is false, or it is compacted"
                )));
            }
            if config.remote_copy_disable {
                return Err(ControlError::HeldBack(format!(
                    "nothing more of {topic} goes cold: remote.log.copy.disable is true"
                )));
            }
            let flushed = self.tier.flush(named.id, timeout, |_| ()).await;
            flushed.map(drop).map_err(|error| ControlError::HeldBack(error.to_string()))
        }
        .boxed()
    }

    fn cluster(&self, ask: ClusterAsk) -> BoxFuture<'_, Result<ClusterAnswer, ControlError>> {
        cluster::answer(&self.services, ask).boxed()
    }
}
