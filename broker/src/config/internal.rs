//! Topics that only Firn itself writes: their names, what they are made with, and what of them nobody may change.
//!
//! They hold what coordinators know. Tiering cannot keep the last record of each key yet, and retention would forget
//! committed offsets, so neither is let near them, whoever made the topic and whatever it says.

use std::collections::BTreeMap;

use proto::ids::Millis;

use super::alter::Settings;
use super::error::{ConfigError, Fault, Scope};
use super::layers::BrokerLayers;
use super::topic::{CleanupPolicy, TopicConfig};
use super::values::{FromConfig, broker_value, topic_value};

/// Consumer groups and their offsets.
pub const OFFSETS: &str = "__consumer_offsets";
/// Transactions.
pub const TRANSACTIONS: &str = "__transaction_state";
/// Share groups (KIP-932).
pub const SHARES: &str = "__share_group_state";

/// Whether `topic` is one that only Firn writes.
pub fn is_internal(topic: &str) -> bool {
    policy_of(topic).is_some()
}

/// What an internal topic is made with, as in Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// How many partitions it has.
    pub partitions: i32,
    /// How many replicas each of them has, if there are as many brokers.
    pub replication_factor: i16,
    /// What is set for it.
    pub settings: Settings,
}

/// What the internal topic `topic` is made with on a broker with these layers; `None` if it is not internal.
pub fn template(topic: &str, broker: &BrokerLayers<'_>) -> Option<Template> {
    let policy = policy_of(topic)?;
    let own = match topic {
        OFFSETS => Own {
            partitions: "offsets.topic.num.partitions",
            factor: "offsets.topic.replication.factor",
            segment_bytes: "offsets.topic.segment.bytes",
            min_isr: None,
            compression: "producer",
        },
        TRANSACTIONS => Own {
            partitions: "transaction.state.log.num.partitions",
            factor: "transaction.state.log.replication.factor",
            segment_bytes: "transaction.state.log.segment.bytes",
            min_isr: Some("transaction.state.log.min.isr"),
            compression: "uncompressed",
        },
        _ => Own {
            partitions: "share.coordinator.state.topic.num.partitions",
            factor: "share.coordinator.state.topic.replication.factor",
            segment_bytes: "share.coordinator.state.topic.segment.bytes",
            min_isr: Some("share.coordinator.state.topic.min.isr"),
            compression: "producer",
        },
    };
    let number = |name: &str| broker_value::<i64>(broker, name);
    let mut settings = vec![
        ("cleanup.policy", policy.to_owned()),
        ("compression.type", own.compression.to_owned()),
        ("remote.storage.enable", "false".to_owned()),
        ("segment.bytes", number(own.segment_bytes).to_string()),
    ];
    if let Some(min_isr) = own.min_isr {
        // More than there are replicas would make it read-only.
        let least = number(min_isr).min(number("default.replication.factor"));
        settings.push(("min.insync.replicas", least.to_string()));
    }
    if topic == SHARES {
        settings.push(("retention.ms", "-1".to_owned()));
    }
    Some(Template {
        partitions: broker_value(broker, own.partitions),
        replication_factor: broker_value(broker, own.factor),
        settings: settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    })
}

/// How many replicas the internal topics are to have.
pub fn factors(broker: &BrokerLayers<'_>) -> BTreeMap<String, usize> {
    let factor = |name: &str| {
        let factor = template(name, broker)?.replication_factor;
        Some((name.to_owned(), usize::try_from(factor).ok()?))
    };
    [OFFSETS, TRANSACTIONS, SHARES].into_iter().filter_map(factor).collect()
}

/// Which broker configs an internal topic's settings come from.
struct Own {
    partitions: &'static str,
    factor: &'static str,
    segment_bytes: &'static str,
    min_isr: Option<&'static str>,
    compression: &'static str,
}

/// Checks what would be set for `topic`; any setting will do for one that is not internal.
///
/// # Errors
/// It would be tiered, or lose records that coordinators need.
pub fn check(topic: &str, broker: &BrokerLayers<'_>, settings: &Settings) -> Result<(), ConfigError> {
    let Some(policy) = policy_of(topic) else { return Ok(()) };
    let refuse = |why: String| Err(ConfigError { scope: Scope::Topic, fault: Fault::Conflict { why } });
    let wanted = CleanupPolicy::from_config(policy);
    if Some(topic_value::<CleanupPolicy>(broker, settings, "cleanup.policy")) != wanted {
        return refuse(format!("{topic} keeps cleanup.policy={policy}: coordinators need all that it holds"));
    }
    let set = settings.get("remote.storage.enable").and_then(|value| bool::from_config(value));
    if set == Some(true) {
        return refuse(format!("{topic} stays on local disk: remote.storage.enable cannot be true for it"));
    }
    let limited = |name: &str| topic_value::<i64>(broker, settings, name) >= 0;
    if topic == SHARES && (limited("retention.ms") || limited("retention.bytes")) {
        return refuse(format!("{topic} is trimmed by its coordinator: its retention stays unlimited"));
    }
    Ok(())
}

/// Lets neither the tier nor retention near an internal topic, however it came by its settings.
pub fn keep(topic: &str, config: &mut TopicConfig) {
    let Some(cleanup) = policy_of(topic).and_then(CleanupPolicy::from_config) else { return };
    let unlimited: (Option<Millis>, Option<u64>) = (None, None);
    config.cleanup = cleanup;
    config.remote_storage_enable = false;
    (config.retention_ms, config.retention_bytes) = unlimited;
    (config.local_retention_ms, config.local_retention_bytes) = unlimited;
}

/// The cleanup policy of an internal topic.
fn policy_of(topic: &str) -> Option<&'static str> {
    match topic {
        OFFSETS | TRANSACTIONS => Some("compact"),
        // Its coordinator deletes what no group needs any more.
        SHARES => Some("delete"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(topic: &str, settings: &[(&str, &str)]) -> TopicConfig {
        let settings: BTreeMap<String, String> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut config = TopicConfig::resolve(&BrokerLayers::none(), &settings);
        keep(topic, &mut config);
        config
    }

    #[test]
    fn what_it_is_made_with_passes_its_own_check() {
        let none = BrokerLayers::none();
        for topic in [OFFSETS, TRANSACTIONS, SHARES] {
            let template = template(topic, &none).expect("an internal topic");
            assert_eq!(check(topic, &none, &template.settings), Ok(()), "{topic}");
            assert_eq!(super::super::validate_topic_set(&template.settings), Ok(()), "{topic}");
            assert_eq!(template.partitions, 50, "{topic}");
        }
        assert_eq!(template("mine", &none), None);
        assert_eq!(check("mine", &none, &Settings::new()), Ok(()));
    }

    #[test]
    fn whatever_is_set_it_is_neither_tiered_nor_expired() {
        let wild = [("cleanup.policy", "delete"), ("retention.ms", "1"), ("retention.bytes", "1")];
        for topic in [OFFSETS, TRANSACTIONS, SHARES] {
            let config = resolved(topic, &wild);
            assert!(!config.remote_storage_enable, "{topic}");
            assert_eq!((config.retention_ms, config.retention_bytes), (None, None), "{topic}");
            assert_eq!((config.local_retention_ms, config.local_retention_bytes), (None, None), "{topic}");
            assert_eq!(config.cleanup.compact, topic != SHARES, "{topic}");
        }
        let mine = resolved("mine", &wild);
        assert_eq!((mine.remote_storage_enable, mine.retention_ms), (true, Some(1)));
    }
}
