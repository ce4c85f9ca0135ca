//! From the layers of configuration to what the parts of the broker read: resolved once when something changes.

use crate::config::internal;
use crate::config::{BrokerConfig, BrokerLayers, FOR_ALL, Flush, TopicConfig};
use crate::log::config::{Flush as LogFlush, LogConfig};
use proto::ids::{NodeId, TopicId};
use proto::metadata::{ConfigResource, Image};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Calls `then` with the layers of this broker's configuration.
pub fn with_layers<T>(
    image: &Image,
    node: NodeId,
    fixed: &BTreeMap<String, String>,
    then: impl FnOnce(&BrokerLayers<'_>) -> T,
) -> T {
    let of_node = image.configs(&ConfigResource::broker(node)).map(Arc::as_ref);
    let of_cluster = image.configs(&ConfigResource::all_brokers()).map(Arc::as_ref);
    then(&BrokerLayers { node: &of_node, cluster: &of_cluster, fixed })
}

/// The broker's own settings.
pub fn broker(image: &Image, node: NodeId, fixed: &BTreeMap<String, String>) -> BrokerConfig {
    with_layers(image, node, fixed, BrokerConfig::resolve)
}

/// Settings of this node's own that do not count, as the cluster has one value for all: name, own value, the cluster's.
pub fn overruled<'a>(
    image: &'a Image,
    fixed: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = (&'static str, &'a str, &'a str)> {
    let of_cluster = image.configs(&ConfigResource::all_brokers());
    FOR_ALL.into_iter().filter_map(move |name| {
        let (own, all) = (fixed.get(name)?, of_cluster?.get(name)?);
        (own != all).then_some((name, own.as_str(), all.as_str()))
    })
}

/// The settings of every topic.
pub fn topics(image: &Image, node: NodeId, fixed: &BTreeMap<String, String>) -> HashMap<TopicId, Arc<TopicConfig>> {
    with_layers(image, node, fixed, |layers| {
        // Most topics set nothing: they share one.
        let default = Arc::new(TopicConfig::resolve(layers, &()));
        let resolved = image.topics().map(|topic| {
            let overrides = image.configs(&ConfigResource::topic(&*topic.name));
            let config = match overrides {
                _ if internal::is_internal(&topic.name) => {
                    let mut config = TopicConfig::resolve(layers, &overrides.map(Arc::as_ref));
                    internal::keep(&topic.name, &mut config);
                    Arc::new(config)
                }
                Some(overrides) => Arc::new(TopicConfig::resolve(layers, overrides.as_ref())),
                None => Arc::clone(&default),
            };
            (topic.id, config)
        });
        resolved.collect()
    })
}

/// What the log needs of a topic's settings.
pub fn log(topic: &TopicConfig, broker: &BrokerConfig) -> LogConfig {
    let bytes = |limit: Option<u64>| limit.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    LogConfig {
        segment_bytes: topic.segment_bytes,
        segment_ms: topic.segment_ms,
        index_interval_bytes: topic.index_interval_bytes as u64,
        retention_bytes: bytes(topic.retention_bytes),
        retention_ms: topic.retention_ms.unwrap_or(-1),
        local_retention_bytes: bytes(topic.local_retention_bytes),
        local_retention_ms: topic.local_retention_ms.unwrap_or(-1),
        // Compacted topics stay local until the tier can compact.
        remote: topic.remote_storage_enable && !topic.cleanup.compact,
        remote_copy: !topic.remote_copy_disable,
        delete: topic.cleanup.delete,
        flush: match topic.flush {
            Flush::Fsync => LogFlush::Fsync,
            Flush::Os => LogFlush::Os,
        },
        min_insync_replicas: topic.min_insync_replicas,
        producer_expiration_ms: broker.producers.id_expiration_ms,
        replica_lag_max_ms: broker.replication.lag_max_ms,
        tier_max_lag_ms: topic.tier_max_lag_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::metadata::MetadataRecord;

    #[test]
    fn how_long_a_replica_may_lag_is_as_configured() {
        let fixed = BTreeMap::from([("replica.lag.time.max.ms".to_owned(), "1234".to_owned())]);
        let broker = broker(&Image::default(), NodeId(0), &fixed);
        let topic = with_layers(&Image::default(), NodeId(0), &fixed, |layers| TopicConfig::resolve(layers, &()));
        assert_eq!(log(&topic, &broker).replica_lag_max_ms, 1234);
    }

    #[test]
    fn what_must_be_one_for_all_brokers_is_the_clusters() {
        let own = |value: &str| BTreeMap::from([("min.insync.replicas".to_owned(), value.to_owned())]);
        let required = |image: &Image, fixed: &_| {
            with_layers(image, NodeId(0), fixed, |layers| TopicConfig::resolve(layers, &()).min_insync_replicas)
        };
        let mut image = Image::default();
        assert_eq!((required(&image, &own("3")), overruled(&image, &own("3")).count()), (3, 0));
        let (resource, key) = (ConfigResource::all_brokers(), "min.insync.replicas".to_owned());
        image.apply(&MetadataRecord::ConfigSet { resource, key, value: Some("2".to_owned()) });
        assert_eq!(required(&image, &own("3")), 2);
        let fixed = own("3");
        assert_eq!(overruled(&image, &fixed).collect::<Vec<_>>(), [("min.insync.replicas", "3", "2")]);
        assert_eq!(overruled(&image, &own("2")).count(), 0);
    }
}
