//! Configs. Names and values have been validated by the broker, which has the table of them; here
//! they are merged with what is set, in the order in which commands come.

use std::collections::BTreeMap;

use proto::metadata::{ConfigKind, ConfigResource, MetadataRecord};

use super::policy::MIN_IN_SYNC;
use super::topics::more_than_replicas;
use super::{Draft, partitions};
use crate::command::{AlterConfigs, ConfigChange, ConfigOp, Mode, Outcome, Refusal};

type Values = BTreeMap<String, String>;

pub(super) fn alter(draft: &mut Draft<'_>, alter: &AlterConfigs) -> Outcome {
    let answers = alter
        .resources
        .iter()
        .map(|(resource, change)| {
            check_resource(draft, resource)?;
            let old = draft.image.configs(resource).map(|set| (**set).clone()).unwrap_or_default();
            let mut new = changed(&old, change);
            keep_for_all(draft, resource, &mut new);
            let min_in_sync_changes = old.get(MIN_IN_SYNC) != new.get(MIN_IN_SYNC);
            if min_in_sync_changes {
                check_min_in_sync(draft, resource, &new)?;
            }
            if alter.mode == Mode::Commit {
                push_difference(draft, resource, &old, &new);
                if min_in_sync_changes {
                    min_in_sync_changed(draft, resource);
                }
            }
            Ok(())
        })
        .collect();
    Outcome::AlterConfigs(answers)
}

/// What must be one for all brokers of a cluster goes back to what this controller was started with, and never to what each broker was.
fn keep_for_all(draft: &Draft<'_>, resource: &ConfigResource, new: &mut Values) {
    if *resource == ConfigResource::all_brokers() && draft.image.brokers().count() > 1 {
        for (key, value) in draft.policy.for_all() {
            new.entry(key.to_owned()).or_insert(value);
        }
    }
}

/// Refuses more replicas in sync than the topic has.
fn check_min_in_sync(draft: &Draft<'_>, resource: &ConfigResource, new: &Values) -> Result<(), Refusal> {
    let topic = draft.image.topic_named(&resource.name).filter(|_| resource.kind == ConfigKind::Topic);
    let required = new.get(MIN_IN_SYNC).and_then(|value| value.trim().parse().ok());
    let (Some(topic), Some(required)) = (topic, required) else { return Ok(()) };
    let factor = topic.partitions.iter().map(|state| state.replicas.len() - state.removing.len()).min();
    factor.map_or(Ok(()), |factor| more_than_replicas(required, factor))
}

/// Replicas that were eligible may not be so any more.
fn min_in_sync_changed(draft: &mut Draft<'_>, resource: &ConfigResource) {
    match resource.kind {
        ConfigKind::Topic => partitions::min_in_sync_changed(draft, Some(&resource.name)),
        ConfigKind::Broker if resource.name.is_empty() => partitions::min_in_sync_changed(draft, None),
        ConfigKind::Broker | ConfigKind::BrokerLogger | ConfigKind::ClientMetrics | ConfigKind::Group => {}
    }
}

fn check_resource(draft: &Draft<'_>, resource: &ConfigResource) -> Result<(), Refusal> {
    match resource.kind {
        ConfigKind::Topic if draft.image.topic_named(&resource.name).is_none() => Err(Refusal::UnknownTopic),
        ConfigKind::Broker if !resource.name.is_empty() && resource.name.parse::<i32>().is_err() => {
            Err(Refusal::InvalidRequest(format!("Node id must be an integer, but it is: {}", resource.name)))
        }
        ConfigKind::Topic
        | ConfigKind::Broker
        | ConfigKind::BrokerLogger
        | ConfigKind::ClientMetrics
        | ConfigKind::Group => Ok(()),
    }
}

fn changed(old: &Values, change: &ConfigChange) -> Values {
    match change {
        ConfigChange::Replace(values) => values.clone(),
        ConfigChange::Incremental(ops) => {
            let mut values = old.clone();
            for (key, op) in ops {
                apply_op(&mut values, key, op);
            }
            values
        }
    }
}

fn apply_op(values: &mut Values, key: &str, op: &ConfigOp) {
    match op {
        ConfigOp::Set(value) => {
            values.insert(key.to_owned(), value.clone());
        }
        ConfigOp::Delete => {
            values.remove(key);
        }
        ConfigOp::Append { items, inherited } => {
            let current = values.get(key).unwrap_or(inherited);
            let mut list: Vec<&str> = split(current).collect();
            for item in split(items) {
                if !list.contains(&item) {
                    list.push(item);
                }
            }
            let joined = list.join(",");
            values.insert(key.to_owned(), joined);
        }
        ConfigOp::Subtract { items, inherited } => {
            let current = values.get(key).unwrap_or(inherited);
            let gone: Vec<&str> = split(items).collect();
            let left: Vec<&str> = split(current).filter(|item| !gone.contains(item)).collect();
            let joined = left.join(",");
            values.insert(key.to_owned(), joined);
        }
    }
}

fn split(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn push_difference(draft: &mut Draft<'_>, resource: &ConfigResource, old: &Values, new: &Values) {
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        draft.push(MetadataRecord::ConfigSet { resource: resource.clone(), key: key.clone(), value: None });
    }
    for (key, value) in new.iter().filter(|(key, value)| old.get(*key) != Some(*value)) {
        draft.push(MetadataRecord::ConfigSet {
            resource: resource.clone(),
            key: key.clone(),
            value: Some(value.clone()),
        });
    }
}
