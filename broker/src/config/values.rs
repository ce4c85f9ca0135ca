//! Effective values: found through the layers and synonyms, and turned into types.

use std::net::IpAddr;

use proto::records::{Codec, TimestampType};

use super::definition::{Preset, list, per_ip};
use super::layers::{BrokerLayers, Lookup};
use super::synonyms;
use super::tables;
use super::topic::{CleanupPolicy, Flush};

/// A type that a config's text can be read as.
pub(super) trait FromConfig: Sized {
    /// Reads `text`; `None` if it cannot be. Stored values were checked, so that it can.
    fn from_config(text: &str) -> Option<Self>;
}

/// The effective value of the broker config `name`.
///
/// # Panics
/// If the table has no such config with a default of type `T`: names are written in code, and a test reads all.
pub(super) fn broker_value<T: FromConfig>(layers: &BrokerLayers<'_>, name: &str) -> T {
    broker_value_if_any(layers, name).expect("the table has a default of this type for every config that is read")
}

/// The effective value of the broker config `name`; `None` if nothing sets it and the table has no default.
pub(super) fn broker_value_if_any<T: FromConfig>(layers: &BrokerLayers<'_>, name: &str) -> Option<T> {
    let own = synonyms::of_broker(name).and_then(|chain| from_chain(layers, chain));
    own.or_else(|| T::from_config(&in_broker(layers, name)?))
        .or_else(|| T::from_config(tables::broker(name)?.default.value()?))
}

/// The effective value of the topic config `name`.
///
/// # Panics
/// As [`broker_value`].
pub(super) fn topic_value<T: FromConfig>(broker: &BrokerLayers<'_>, overrides: &dyn Lookup, name: &str) -> T {
    overrides
        .lookup(name)
        .and_then(T::from_config)
        .or_else(|| from_chain(broker, synonyms::of_topic(name)))
        .or_else(|| T::from_config(tables::topic(name)?.default.value()?))
        .expect("the table has a default of this type for every config that is read")
}

/// The first synonym that is set anywhere, else the first that has a default.
fn from_chain<T: FromConfig>(layers: &BrokerLayers<'_>, chain: &[synonyms::Synonym]) -> Option<T> {
    let set = chain.iter().find_map(|synonym| {
        let text = in_broker(layers, synonym.name)?;
        T::from_config(&scaled(&text, synonym.factor))
    });
    set.or_else(|| {
        chain.iter().find_map(|synonym| {
            let text = tables::broker(synonym.name)?.default.value()?;
            T::from_config(&scaled(text, synonym.factor))
        })
    })
}

/// What the nearest layer that sets `name` says.
fn in_broker(layers: &BrokerLayers<'_>, name: &str) -> Option<String> {
    let text =
        layers.node.lookup(name).or_else(|| layers.cluster.lookup(name)).or_else(|| layers.fixed.lookup(name))?;
    Some(text.to_owned())
}

/// A value in units of `factor`. Negative ones mean "unlimited" in each unit; the product saturates.
pub(super) fn scaled(text: &str, factor: i64) -> String {
    match text.trim().parse::<i64>() {
        Ok(number) if factor != 1 && number >= 0 => number.saturating_mul(factor).to_string(),
        _ => text.to_owned(),
    }
}

macro_rules! from_number {
    ($($type:ty),*) => {$(
        impl FromConfig for $type {
            fn from_config(text: &str) -> Option<Self> {
                text.trim().parse().ok()
            }
        }
    )*};
}
from_number!(i16, i32, i64, u32, f64);

impl FromConfig for bool {
    fn from_config(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("true") { Some(true) } else { text.eq_ignore_ascii_case("false").then_some(false) }
    }
}

impl FromConfig for String {
    fn from_config(text: &str) -> Option<Self> {
        Some(text.trim().to_owned())
    }
}

impl FromConfig for Vec<String> {
    fn from_config(text: &str) -> Option<Self> {
        Some(list(text).map(str::to_owned).collect())
    }
}

impl FromConfig for TimestampType {
    fn from_config(text: &str) -> Option<Self> {
        match text.trim() {
            "CreateTime" => Some(Self::CreateTime),
            "LogAppendTime" => Some(Self::LogAppendTime),
            _ => None,
        }
    }
}

impl FromConfig for CleanupPolicy {
    fn from_config(text: &str) -> Option<Self> {
        let mut policy = Self { delete: false, compact: false };
        for item in list(text) {
            match item {
                "delete" => policy.delete = true,
                "compact" => policy.compact = true,
                _ => return None,
            }
        }
        Some(policy)
    }
}

impl FromConfig for Flush {
    fn from_config(text: &str) -> Option<Self> {
        match text.trim() {
            "fsync" => Some(Self::Fsync),
            "os" => Some(Self::Os),
            _ => None,
        }
    }
}

/// `compression.type`: a codec, or none to keep the producer's.
pub(super) struct TopicCodec(pub(super) Option<Codec>);

impl FromConfig for TopicCodec {
    fn from_config(text: &str) -> Option<Self> {
        match text.trim() {
            "producer" => Some(Self(None)),
            name => name.parse().ok().map(|codec| Self(Some(codec))),
        }
    }
}

/// `max.connections.per.ip.overrides`.
pub(super) struct PerIp(pub(super) Vec<(IpAddr, usize)>);

impl FromConfig for PerIp {
    fn from_config(text: &str) -> Option<Self> {
        per_ip(text).ok().map(Self)
    }
}

/// A default in words.
pub(super) fn text_of(default: Preset) -> &'static str {
    match default {
        Preset::Value("") => "empty",
        Preset::Value(value) => value,
        Preset::Null => "unset",
        Preset::Required => "none",
    }
}
