//! What DescribeConfigs 1 to 4 says of each config: value, where it comes from, synonyms, documentation.

use super::definition::{Definition, Effect, Kind, Update};
use super::layers::{BrokerLayers, Lookup};
use super::synonyms::{self, Synonym};
use super::tables;
use super::values::scaled;

/// Where a value comes from; the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The topic.
    DynamicTopic,
    /// This broker, altered at run time.
    DynamicBroker,
    /// All brokers, altered at run time.
    DynamicDefaultBroker,
    /// The broker's file, environment or flags.
    StaticBroker,
    /// The table.
    Default,
}

impl Source {
    /// Its number on the wire.
    pub fn number(self) -> i8 {
        match self {
            Self::DynamicTopic => 1,
            Self::DynamicBroker => 2,
            Self::DynamicDefaultBroker => 3,
            Self::StaticBroker => 4,
            Self::Default => 5,
        }
    }
}

/// One config of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name.
    pub name: String,
    /// Effective value; `None` when it is a secret or unset.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: Source,
    /// Whether it cannot be altered at run time.
    pub read_only: bool,
    /// Whether its value is a secret.
    pub sensitive: bool,
    /// Type; see [`Kind::wire`].
    pub kind: Kind,
    /// All that was considered for it, nearest first.
    pub synonyms: Vec<SynonymEntry>,
    /// What it is for, and whether it has an effect.
    pub documentation: String,
}

/// One value that was considered for an [`Entry`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SynonymEntry {
    /// Name of the config it was set as.
    pub name: String,
    /// Its value as set; `None` when it is a secret.
    pub value: Option<String>,
    /// Where it was set.
    pub source: Source,
}

/// All configs of a topic with `overrides` of its own on a broker with `broker`'s layers.
pub fn describe_topic(broker: &BrokerLayers<'_>, overrides: &dyn Lookup) -> Vec<Entry> {
    tables::all_topic()
        .filter(|definition| !definition.internal || overrides.lookup(definition.name).is_some())
        .map(|definition| {
            let own = overrides.lookup(definition.name).map(|value| Found {
                name: definition.name,
                value: value.to_owned(),
                factor: 1,
                source: Source::DynamicTopic,
            });
            let found = own.into_iter().chain(considered(broker, synonyms::of_topic(definition.name))).collect();
            entry(definition, found, false)
        })
        .collect()
}

/// All configs of a broker.
pub fn describe_broker(layers: &BrokerLayers<'_>) -> Vec<Entry> {
    tables::all_broker()
        .filter(|definition| !definition.internal || set_in(layers, definition.name).next().is_some())
        .map(|definition| {
            let itself = [Synonym { name: definition.name, factor: 1 }];
            let chain = synonyms::of_broker(definition.name).unwrap_or(&itself);
            entry(definition, considered(layers, chain).collect(), definition.alterable() == Update::ReadOnly)
        })
        .collect()
}

/// The configs altered for all brokers, as the resource `BROKER` without a name has them.
pub fn describe_cluster(cluster: &dyn Lookup) -> Vec<Entry> {
    tables::all_broker()
        .filter_map(|definition| {
            let value = cluster.lookup(definition.name)?.to_owned();
            let source = Source::DynamicDefaultBroker;
            let found = vec![Found { name: definition.name, value, factor: 1, source }];
            Some(entry(definition, found, definition.alterable() == Update::ReadOnly))
        })
        .collect()
}

/// A value considered for a config.
struct Found {
    name: &'static str,
    value: String,
    factor: i64,
    source: Source,
}

/// What the layers set for `name`, nearest first.
fn set_in<'a>(layers: &'a BrokerLayers<'_>, name: &'a str) -> impl Iterator<Item = (Source, &'a str)> {
    let layers = [
        (Source::DynamicBroker, layers.node),
        (Source::DynamicDefaultBroker, layers.cluster),
        (Source::StaticBroker, layers.fixed),
    ];
    layers.into_iter().filter_map(move |(source, layer)| Some((source, layer.lookup(name)?)))
}

/// All values of a chain of synonyms: what is set, by layer and then by name, then the table's defaults.
fn considered(layers: &BrokerLayers<'_>, chain: &[Synonym]) -> impl Iterator<Item = Found> {
    let mut found = Vec::new();
    for synonym in chain {
        let Some(definition) = tables::broker(synonym.name) else {
            continue;
        };
        let mut push = |source, value: &str| {
            let value = value.to_owned();
            found.push(Found { name: definition.name, value, factor: synonym.factor, source });
        };
        for (source, value) in set_in(layers, definition.name) {
            push(source, value);
        }
        if let Some(value) = definition.default.value() {
            push(Source::Default, value);
        }
    }
    found.sort_by_key(|found| found.source);
    found.into_iter()
}

fn entry(definition: &Definition, found: Vec<Found>, read_only: bool) -> Entry {
    let sensitive = definition.is_sensitive();
    let nearest = found.first();
    let value = match nearest {
        Some(found) => Some(definition.normal(&scaled(&found.value, found.factor))),
        None => definition.default.value().map(str::to_owned),
    };
    Entry {
        name: definition.name.to_owned(),
        value: value.filter(|_| !sensitive),
        source: nearest.map_or(Source::Default, |found| found.source),
        read_only,
        sensitive,
        kind: definition.kind,
        documentation: documentation(definition),
        synonyms: found
            .into_iter()
            .map(|found| SynonymEntry {
                name: found.name.to_owned(),
                value: Some(found.value).filter(|_| !sensitive),
                source: found.source,
            })
            .collect(),
    }
}

/// Our words for a config, with what Firn makes of it.
pub(super) fn documentation(definition: &Definition) -> String {
    let doc = definition.doc;
    match definition.effect {
        Effect::Acted => doc.to_owned(),
        Effect::WithoutEffect(why) => format!("{doc} Without effect in Firn: {why}."),
        Effect::Refused(why) => format!("{doc} Firn takes only the default: {why}."),
    }
}
