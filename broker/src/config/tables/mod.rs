//! The table of all configs, in one file for each meaning. Names, types, defaults, bounds, importance and update
//! modes are Kafka 4.3's, checked against `broker/tests/config_facts.tsv`; the words are ours.

mod cluster;
mod effects;
mod firn;
mod groups;
mod log;
mod net;
mod quotas;
mod security;
mod share;
mod tier;
mod topic;
mod transactions;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::definition::Definition;

/// Rows `Type "name" = default, check, Importance Update [internal], EFFECT, "doc";` as a static list of definitions.
macro_rules! table {
    ($(#[$meta:meta])* $vis:vis $table:ident $(
        $kind:ident $name:literal = $default:tt, $check:expr, $importance:ident $update:ident $($internal:ident)?,
        $effect:expr, $doc:literal;
    )*) => {
        $(#[$meta])*
        $vis static $table: &[Definition] = &[$(Definition {
            name: $name,
            kind: $crate::config::definition::Kind::$kind,
            default: table!(@default $default),
            check: $check,
            importance: $crate::config::definition::Importance::$importance,
            update: $crate::config::definition::Update::$update,
            internal: table!(@internal $($internal)?),
            effect: $effect,
            doc: $doc,
        }),*];
    };
    (@default NULL) => { $crate::config::definition::Preset::Null };
    (@default REQUIRED) => { $crate::config::definition::Preset::Required };
    (@default $text:tt) => { $crate::config::definition::Preset::Value($text) };
    (@internal internal) => { true };
    (@internal) => { false };
}
use table;

static TOPIC: LazyLock<BTreeMap<&'static str, &'static Definition>> =
    LazyLock::new(|| index(&[topic::ROWS, firn::FIRN_TOPIC]));

static BROKER: LazyLock<BTreeMap<&'static str, &'static Definition>> = LazyLock::new(|| {
    index(&[
        cluster::ROWS,
        groups::ROWS,
        log::ROWS,
        net::ROWS,
        quotas::ROWS,
        security::ROWS,
        share::ROWS,
        tier::ROWS,
        transactions::ROWS,
        firn::FIRN_TOPIC,
        firn::FIRN_BROKER,
    ])
});

fn index(tables: &[&'static [Definition]]) -> BTreeMap<&'static str, &'static Definition> {
    tables.iter().copied().flatten().map(|row| (row.name, row)).collect()
}

/// The topic config of that name.
pub fn topic(name: &str) -> Option<&'static Definition> {
    TOPIC.get(name).copied()
}

/// The broker config of that name.
pub fn broker(name: &str) -> Option<&'static Definition> {
    BROKER.get(name).copied()
}

/// All topic configs by name.
pub fn all_topic() -> impl Iterator<Item = &'static Definition> {
    TOPIC.values().copied()
}

/// All broker configs by name.
pub fn all_broker() -> impl Iterator<Item = &'static Definition> {
    BROKER.values().copied()
}
