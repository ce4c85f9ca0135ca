//! Alterations of configs as pure functions over maps: IncrementalAlterConfigs (KIP-339) and AlterConfigs.
//!
//! The answers are Kafka 4.3's, with one departure: a broker config that no table knows is refused, where Kafka
//! stores it for plugins.

use std::collections::{BTreeMap, BTreeSet};

use super::definition::{Definition, Kind, Update, list};
use super::error::{ConfigError, Fault, Scope};
use super::layers::BrokerLayers;
use super::near::nearest;
use super::values::topic_value;
use super::{synonyms, tables};

/// The configs set for one resource.
pub type Settings = BTreeMap<String, String>;

/// One step of an IncrementalAlterConfigs request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alteration {
    /// Name of the config.
    pub name: String,
    /// What to do with it.
    pub operation: Operation,
    /// The value, or items of a list; `None` as sent.
    pub value: Option<String>,
}

/// What to do with a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Give it the value.
    Set,
    /// Unset it.
    Delete,
    /// Add items to a list, unless they are in it.
    Append,
    /// Take items out of a list.
    Subtract,
}

impl Operation {
    /// The operation with that number on the wire.
    pub fn from_wire(number: i8) -> Option<Self> {
        match number {
            0 => Some(Self::Set),
            1 => Some(Self::Delete),
            2 => Some(Self::Append),
            3 => Some(Self::Subtract),
            _ => None,
        }
    }
}

/// Checks one topic config.
///
/// # Errors
/// It is unknown, or does not take the value.
pub fn validate_topic(name: &str, value: &str) -> Result<(), ConfigError> {
    check_value(Scope::Topic, topic_definition(name)?, value)
}

/// Checks all the configs a topic would have against each other, and each for itself.
///
/// # Errors
/// The first that is wrong.
pub fn validate_topic_set(settings: &Settings) -> Result<(), ConfigError> {
    validate_topic_on(&BrokerLayers::none(), settings)
}

/// As [`validate_topic_set`], with the defaults of a broker for what is not set.
///
/// # Errors
/// The first that is wrong.
pub fn validate_topic_on(broker: &BrokerLayers<'_>, settings: &Settings) -> Result<(), ConfigError> {
    for (name, value) in settings {
        validate_topic(name, value)?;
    }
    check_together(broker, settings)
}

/// The settings of a topic after `alterations` of `current`, in their order.
///
/// # Errors
/// The first alteration that is wrong, or what is wrong with the result; nothing is then altered.
pub fn alter_topic(
    broker: &BrokerLayers<'_>,
    current: &Settings,
    alterations: &[Alteration],
) -> Result<Settings, ConfigError> {
    let mut settings = current.clone();
    for alteration in distinct(Scope::Topic, alterations)? {
        let name = &alteration.name;
        if alteration.operation == Operation::Delete {
            // A name that is not known, as an older version may have stored, can always be removed.
            settings.remove(name);
            continue;
        }
        let definition = topic_definition(name)?;
        let inherited = || inherited_topic(broker, name);
        let value = altered(Scope::Topic, definition, alteration, settings.get(name), inherited)?;
        check_value(Scope::Topic, definition, &value)?;
        settings.insert(name.clone(), value);
    }
    validate_topic_on(broker, &settings)?;
    check_switch_off(broker, current, &settings)?;
    Ok(settings)
}

/// The settings of a topic when they are replaced as a whole (AlterConfigs).
///
/// # Errors
/// As [`alter_topic`].
pub fn replace_topic(broker: &BrokerLayers<'_>, current: &Settings, new: &Settings) -> Result<(), ConfigError> {
    validate_topic_on(broker, new)?;
    check_switch_off(broker, current, new)
}

/// What the topic config `name` is while a topic does not set it: what Append and Subtract start from.
pub fn inherited_topic(broker: &BrokerLayers<'_>, name: &str) -> String {
    if tables::topic(name).is_some_and(|definition| definition.default.value().is_some()) {
        topic_value(broker, &(), name)
    } else {
        String::new()
    }
}

/// Which brokers an alteration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// One, by its id.
    Node,
    /// All (resource `BROKER` with an empty name).
    Cluster,
}

/// The settings of a broker, or of all, after `alterations` of `current`, in their order.
///
/// # Errors
/// The first alteration that is wrong; nothing is then altered.
pub fn alter_broker(
    reach: Reach,
    layers: &BrokerLayers<'_>,
    current: &Settings,
    alterations: &[Alteration],
) -> Result<Settings, ConfigError> {
    let mut settings = current.clone();
    for alteration in distinct(Scope::Broker, alterations)? {
        let name = &alteration.name;
        if alteration.operation == Operation::Delete {
            settings.remove(name);
            continue;
        }
        let definition = broker_definition(Scope::Broker, name)?;
        check_dynamic(reach, definition)?;
        let inherited = || inherited_broker(reach, layers, definition.name);
        let value = altered(Scope::Broker, definition, alteration, settings.get(name), inherited)?;
        check_value(Scope::Broker, definition, &value)?;
        settings.insert(name.clone(), value);
    }
    check_broker_together(reach, layers, &settings)?;
    Ok(settings)
}

/// The settings of a broker, or of all, when they are replaced as a whole (AlterConfigs).
///
/// # Errors
/// As [`alter_broker`].
pub fn replace_broker(reach: Reach, layers: &BrokerLayers<'_>, new: &Settings) -> Result<(), ConfigError> {
    for (name, value) in new {
        let definition = broker_definition(Scope::Broker, name)?;
        check_dynamic(reach, definition)?;
        check_value(Scope::Broker, definition, value)?;
    }
    check_broker_together(reach, layers, new)
}

/// The broker config of that name, in words if there is none.
pub(super) fn broker_definition(scope: Scope, name: &str) -> Result<&'static Definition, ConfigError> {
    tables::broker(name).ok_or_else(|| {
        let hint = match tables::topic(name) {
            Some(_) => synonyms::of_topic(name)
                .first()
                .map(|synonym| format!("it is a topic's, and {} is its default for all topics", synonym.name)),
            None if name.starts_with("listener.name.") => {
                Some("settings of one listener are not supported yet".to_owned())
            }
            None => nearest(name, tables::all_broker().map(|row| row.name)).map(|near| format!("did you mean {near}?")),
        };
        ConfigError { scope, fault: Fault::Unknown { name: name.to_owned(), hint } }
    })
}

/// Checks one value, wherever it was set.
pub(super) fn check_value(scope: Scope, definition: &Definition, value: &str) -> Result<(), ConfigError> {
    definition.check(value).map_err(|why| {
        let shown = (!definition.is_sensitive()).then(|| value.to_owned());
        ConfigError { scope, fault: Fault::Invalid { name: definition.name.to_owned(), value: shown, why } }
    })
}

fn topic_definition(name: &str) -> Result<&'static Definition, ConfigError> {
    tables::topic(name).ok_or_else(|| {
        let near = nearest(name, tables::all_topic().map(|row| row.name));
        let hint = near.map(|near| format!("did you mean {near}?"));
        ConfigError { scope: Scope::Topic, fault: Fault::Unknown { name: name.to_owned(), hint } }
    })
}

/// The alterations, of which no two may be of the same config.
fn distinct(scope: Scope, alterations: &[Alteration]) -> Result<&[Alteration], ConfigError> {
    let mut names = BTreeSet::new();
    match alterations.iter().find(|alteration| !names.insert(&alteration.name)) {
        None => Ok(alterations),
        Some(twice) => Err(ConfigError { scope, fault: Fault::Duplicate { name: twice.name.clone() } }),
    }
}

/// The value after an alteration other than Delete.
fn altered(
    scope: Scope,
    definition: &Definition,
    alteration: &Alteration,
    current: Option<&String>,
    inherited: impl FnOnce() -> String,
) -> Result<String, ConfigError> {
    let name = alteration.name.clone();
    let Some(value) = &alteration.value else {
        return Err(ConfigError { scope, fault: Fault::NoValue { name } });
    };
    if alteration.operation == Operation::Set {
        return Ok(value.clone());
    }
    if definition.kind != Kind::List {
        return Err(ConfigError { scope, fault: Fault::NotList { name } });
    }
    let start = current.cloned().unwrap_or_else(inherited);
    let mut items: Vec<&str> = list(&start).collect();
    for item in list(value) {
        match alteration.operation {
            Operation::Append if !items.contains(&item) => items.push(item),
            Operation::Subtract => items.retain(|have| *have != item),
            Operation::Append | Operation::Set | Operation::Delete => {}
        }
    }
    Ok(items.join(","))
}

/// The controller judges by these whom it may elect: a broker that went by its own would promise what nobody keeps (KIP-966). It settles
/// what a cluster's value is.
pub const FOR_ALL: [&str; 2] = ["min.insync.replicas", "firn.flush"];

fn check_dynamic(reach: Reach, definition: &Definition) -> Result<(), ConfigError> {
    let name = || definition.name.to_owned();
    let fault = match (definition.alterable(), reach) {
        (Update::ClusterWide, Reach::Node) if FOR_ALL.contains(&definition.name) => Fault::ForAll { name: name() },
        (Update::ClusterWide, _) | (Update::PerBroker, Reach::Node) => return Ok(()),
        (Update::PerBroker, Reach::Cluster) => Fault::PerBroker { name: name() },
        (Update::ReadOnly, _) => Fault::ReadOnly { name: name() },
    };
    Err(ConfigError { scope: Scope::Broker, fault })
}

/// What the broker config `name` is while `reach` does not set it: what Append and Subtract start from.
pub fn inherited_broker(reach: Reach, layers: &BrokerLayers<'_>, name: &str) -> String {
    let cluster = match reach {
        Reach::Node => layers.cluster.lookup(name),
        Reach::Cluster => None,
    };
    cluster
        .or_else(|| layers.fixed.lookup(name))
        .or_else(|| tables::broker(name).and_then(|definition| definition.default.value()))
        .unwrap_or_default()
        .to_owned()
}

/// What Kafka checks between the configs of one topic.
fn check_together(broker: &BrokerLayers<'_>, settings: &Settings) -> Result<(), ConfigError> {
    let number = |name: &str| topic_value::<i64>(broker, settings, name);
    let flag = |name: &str| topic_value::<bool>(broker, settings, name);
    let policy: super::CleanupPolicy = topic_value(broker, settings, "cleanup.policy");
    let (min_lag, max_lag) = (number("min.compaction.lag.ms"), number("max.compaction.lag.ms"));
    if min_lag > max_lag {
        return conflict(format!("min.compaction.lag.ms ({min_lag}) is above max.compaction.lag.ms ({max_lag})"));
    }
    if !flag("remote.storage.enable") {
        return Ok(());
    }
    if policy.compact {
        // Tiering is on by default here, off in Kafka: a compacted topic that does not ask for it stays local.
        return match settings.contains_key("remote.storage.enable") {
            true => conflict("a compacted topic cannot have remote.storage.enable=true".to_owned()),
            false => Ok(()),
        };
    }
    for (local_name, whole_name) in
        [("local.retention.ms", "retention.ms"), ("local.retention.bytes", "retention.bytes")]
    {
        let (local, whole) = (number(local_name), number(whole_name));
        if flag("remote.log.copy.disable") && local != -2 && local != whole {
            return conflict(format!(
                "with remote.log.copy.disable=true, {local_name} ({local}) must be -2 or that of {whole_name} ({whole})"
            ));
        }
        if whole >= 0 && (local == -1 || local > whole) {
            return conflict(format!("{local_name} ({local}) must not be above {whole_name} ({whole})"));
        }
    }
    Ok(())
}

/// Tiering is switched off only together with the tiered history (KIP-950).
fn check_switch_off(broker: &BrokerLayers<'_>, current: &Settings, new: &Settings) -> Result<(), ConfigError> {
    let enabled = |settings| topic_value::<bool>(broker, settings, "remote.storage.enable");
    if !enabled(current) || enabled(new) || topic_value(broker, new, "remote.log.delete.on.disable") {
        return Ok(());
    }
    conflict(
        "remote.storage.enable cannot be switched off for a topic whose history may be tiered; \
         remote.log.copy.disable=true stops its uploads and keeps the history readable"
            .to_owned(),
    )
}

fn conflict(why: String) -> Result<(), ConfigError> {
    Err(ConfigError { scope: Scope::Topic, fault: Fault::Conflict { why } })
}

/// What Kafka checks between the configs of a broker.
fn check_broker_together(reach: Reach, layers: &BrokerLayers<'_>, new: &Settings) -> Result<(), ConfigError> {
    let after = match reach {
        Reach::Node => BrokerLayers { node: new, ..*layers },
        Reach::Cluster => BrokerLayers { cluster: new, ..*layers },
    };
    check_retention(Scope::Broker, &after)
}

/// The broker-wide retention: neither 0, nor below the local one.
pub(super) fn check_retention(scope: Scope, layers: &BrokerLayers<'_>) -> Result<(), ConfigError> {
    let number = |name: &str| topic_value::<i64>(layers, &(), name);
    let fail = |why: String| Err(ConfigError { scope: scope.clone(), fault: Fault::Conflict { why } });
    if number("retention.ms") == 0 {
        return fail("log.retention.ms must be -1 for unlimited, or at least 1".to_owned());
    }
    for (local_name, whole_name) in
        [("local.retention.ms", "retention.ms"), ("local.retention.bytes", "retention.bytes")]
    {
        let (local, whole) = (number(local_name), number(whole_name));
        if whole >= 0 && (local == -1 || local > whole) {
            return fail(format!("log.{local_name} ({local}) must not be above log.{whole_name} ({whole})"));
        }
    }
    Ok(())
}
