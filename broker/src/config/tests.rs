//! The table read through its typed views.

use super::{BrokerConfig, TopicConfig};

#[test]
fn every_config_that_is_read_has_a_default_of_its_type() {
    let broker = BrokerConfig::default();
    assert_eq!(broker.topic_defaults, TopicConfig::default());
    assert_eq!(broker.groups.max_session_timeout_ms, 1_800_000);
    assert!(broker.topic_defaults.remote_storage_enable);
    assert_eq!(broker.topic_defaults.retention_ms, Some(7 * 24 * 3_600_000));
    assert_eq!(broker.topic_defaults.local_retention_ms, Some(7 * 24 * 3_600_000));
    assert_eq!(broker.topic_defaults.local_retention_bytes, None);
}
