//! The table of configs against Kafka's own facts, which `integration/peers/config-facts` wrote to `config_facts.tsv`.

use std::collections::BTreeSet;

use broker::config::definition::{Importance, Preset, Update};
use broker::config::{Definition, Effect, synonyms, tables};

const FACTS: &str = include_str!("config_facts.tsv");

/// Defaults that differ on purpose: (scope, name, ours).
const OTHER_DEFAULTS: [(&str, &str, &str); 11] = [
    ("broker", "broker.heartbeat.interval.ms", "500"),
    ("broker", "broker.session.timeout.ms", "3000"),
    ("broker", "controller.quorum.election.backoff.max.ms", "300"),
    ("broker", "controller.quorum.fetch.timeout.ms", "500"),
    ("topic", "remote.storage.enable", "true"),
    ("broker", "remote.log.storage.system.enable", "true"),
    ("broker", "controller.listener.names", ""),
    ("broker", "listeners", "PLAINTEXT://127.0.0.1:9092"),
    ("broker", "log.dir", "./firn-data"),
    ("broker", "node.id", "0"),
    ("broker", "process.roles", "broker,controller"),
];

/// Kafka looks at the pairs of one after its own check; another may be empty here, since one node opens no control port; addresses
/// are looked at when a server starts; and where Kafka takes any class, Firn knows two by name.
const CHECKED_OTHERWISE: [&str; 7] = [
    "log.dir",
    "log.dirs",
    "max.connections.per.ip.overrides",
    "controller.listener.names",
    "controller.quorum.bootstrap.servers",
    "controller.quorum.voters",
    "replica.selector.class",
];

/// Kafka keeps these in a table of its own (`QuotaConfig`), which the facts leave out.
const QUOTAS: [&str; 3] = [
    "follower.replication.throttled.rate",
    "leader.replication.throttled.rate",
    "replica.alter.log.dirs.io.max.bytes.per.second",
];

struct Fact {
    scope: &'static str,
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    importance: &'static str,
    update: &'static str,
    internal: bool,
    synonyms: &'static str,
    taken: Vec<&'static str>,
    refused: Vec<&'static str>,
}

fn facts() -> Vec<Fact> {
    FACTS
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [scope, name, kind, default, importance, update, visibility, synonyms, taken, refused] = fields[..]
            else {
                panic!("ten fields: {line}");
            };
            let values = |field: &'static str| field.split('|').skip(1).collect();
            Fact {
                scope,
                name,
                kind,
                default,
                importance,
                update,
                internal: visibility == "internal",
                synonyms,
                taken: values(taken),
                refused: values(refused),
            }
        })
        .collect()
}

fn ours(fact: &Fact) -> &'static Definition {
    let found = if fact.scope == "topic" { tables::topic(fact.name) } else { tables::broker(fact.name) };
    found.unwrap_or_else(|| panic!("{} config {} is missing", fact.scope, fact.name))
}

#[test]
fn every_config_of_kafka_is_in_the_table_and_no_other() {
    for (scope, names) in [
        ("topic", tables::all_topic().map(|row| row.name).collect::<BTreeSet<_>>()),
        ("broker", tables::all_broker().map(|row| row.name).collect()),
    ] {
        let kafkas: BTreeSet<&str> = facts().iter().filter(|fact| fact.scope == scope).map(|fact| fact.name).collect();
        let firns: BTreeSet<&str> = names.iter().copied().filter(|name| name.starts_with("firn.")).collect();
        let quotas: BTreeSet<&str> = QUOTAS.into_iter().filter(|_| scope == "broker").collect();
        assert_eq!(names, &(&kafkas | &firns) | &quotas, "{scope}");
    }
}

#[test]
fn types_defaults_importance_and_updates_are_kafkas() {
    for fact in facts() {
        let (name, row) = (fact.name, ours(&fact));
        assert_eq!(row.kind.to_string(), fact.kind, "{name}");
        let importance = match row.importance {
            Importance::High => "HIGH",
            Importance::Medium => "MEDIUM",
            Importance::Low => "LOW",
        };
        assert_eq!(importance, fact.importance, "{name}");
        assert_eq!(row.internal, fact.internal, "{name}");
        if fact.scope == "broker" {
            let update = match row.update {
                Update::ReadOnly => "read-only",
                Update::PerBroker => "per-broker",
                Update::ClusterWide => "cluster-wide",
            };
            assert_eq!(update, fact.update, "{name}");
        }
        let differs = OTHER_DEFAULTS.iter().find(|(scope, of, _)| (*scope, *of) == (fact.scope, name));
        let expected = differs.map_or(fact.default, |(_, _, default)| default);
        let default = match row.default {
            Preset::Value(value) => value,
            Preset::Null => "(null)",
            Preset::Required => "(required)",
        };
        assert_eq!(default, expected, "{name}");
        assert!(differs.is_none_or(|(_, _, default)| *default != fact.default), "{name} does not differ");
    }
}

#[test]
fn topics_inherit_from_the_same_broker_configs() {
    for fact in facts().iter().filter(|fact| fact.scope == "topic") {
        let chain: Vec<String> = synonyms::of_topic(fact.name)
            .iter()
            .map(|synonym| format!("{}*{}", synonym.name, synonym.factor))
            .collect();
        let chain = if chain.is_empty() { "-".to_owned() } else { chain.join(",") };
        assert_eq!(chain, fact.synonyms, "{}", fact.name);
    }
}

#[test]
fn the_same_values_are_taken_and_refused() {
    let mut wrong = Vec::new();
    for fact in facts() {
        let row = ours(&fact);
        if matches!(row.effect, Effect::Refused(_)) || CHECKED_OTHERWISE.contains(&fact.name) {
            continue;
        }
        for (values, taken) in [(&fact.taken, true), (&fact.refused, false)] {
            // Kafka's brokers drop duplicates in lists with a warning before this check sees them.
            for value in values.iter().filter(|value| **value != "delete,delete") {
                if row.check(value).is_ok() != taken {
                    wrong.push(format!(
                        "{} {}: {value:?} should be {}",
                        fact.scope,
                        fact.name,
                        if taken { "taken" } else { "refused" }
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn refused_configs_take_their_default_only() {
    for row in tables::all_broker().filter(|row| matches!(row.effect, Effect::Refused(_))) {
        assert!(row.check("something else").is_err(), "{}", row.name);
        if let Preset::Value(default) = row.default {
            assert_eq!(row.check(default), Ok(()), "{}", row.name);
        }
    }
}

#[test]
fn every_config_says_what_it_is_for() {
    for row in tables::all_topic().chain(tables::all_broker()) {
        assert!(row.doc.ends_with('.') && row.doc.len() > 15, "{}", row.name);
        if let Preset::Value(default) = row.default {
            assert_eq!(row.check(default), Ok(()), "the default of {}", row.name);
            assert_eq!(row.normal(default), default, "the default of {}", row.name);
        }
    }
}
