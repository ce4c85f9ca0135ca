//! What the handlers may call: one bundle of handles, made by the node.

use super::fetch::session::Sessions;
use crate::config::{BrokerConfig, TopicConfig};
use crate::group::GroupHandle;
use crate::metrics::Metrics;
use crate::net::budget::Budget;
use crate::partition::Partitions;
use crate::replica::Replication;
use arc_swap::ArcSwap;
use controller::ControllerHandle;
use proto::host::{Clock, Entropy, Spawner};
use proto::ids::{NodeId, TopicId};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tiering::reader::RemoteReader;
use tokio::sync::watch;

use super::init_producer_id::ProducerIds;

/// The handles of one broker.
pub struct Services {
    pub node_id: NodeId,
    pub cluster_id: String,
    /// Metadata offset of this broker's registration.
    pub broker_epoch: i64,
    pub controller: ControllerHandle,
    pub partitions: Partitions,
    pub groups: GroupHandle,
    pub remote: RemoteReader,
    pub config: ArcSwap<BrokerConfig>,
    /// Settings of every topic, resolved; replaced as a whole when one changes.
    pub topic_configs: ArcSwap<HashMap<TopicId, Arc<TopicConfig>>>,
    /// What the configuration file and the command line set, for DescribeConfigs.
    pub static_config: BTreeMap<String, String>,
    pub sessions: Sessions,
    pub producer_ids: ProducerIds,
    /// Memory of what large requests are decoded to.
    pub decoded_memory: Budget,
    /// Memory of answers, and of what fetch answers hold of local records.
    pub fetch_memory: Budget,
    /// Memory of what fetch answers hold of records from the remote tier.
    pub cold_memory: Budget,
    /// Memory of what answers to replicas hold.
    pub replica_memory: Budget,
    /// What replicas here fetch from leaders elsewhere.
    pub replication: Replication,
    /// Metadata offset up to which the partitions of this broker follow the image.
    pub applied: watch::Receiver<u64>,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    /// Where work goes that would keep a connection's thread for long.
    pub spawner: Spawner,
}

impl Services {
    /// Returns once the partitions of this broker follow the image at metadata offset `offset`.
    pub async fn caught_up(&self, offset: u64) {
        // An error means that the follower is gone with the node: whoever asks is answered by what is there.
        let _ = self.applied.clone().wait_for(|applied| *applied >= offset).await;
    }

    /// The settings of a topic; the broker's defaults for one that was created a moment ago.
    pub fn topic_config(&self, topic: TopicId) -> Arc<TopicConfig> {
        match self.topic_configs.load().get(&topic) {
            Some(config) => Arc::clone(config),
            None => Arc::new(self.config.load().topic_defaults),
        }
    }
}
