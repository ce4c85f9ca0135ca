//! The layers a value can come from, nearest first: the topic, the broker, the cluster, the file, the table.

use std::collections::BTreeMap;

/// A flat map of Kafka names to values, however it is kept.
pub trait Lookup {
    /// The value set for `name` in this layer, if any.
    fn lookup(&self, name: &str) -> Option<&str>;
}

/// Nothing is set.
impl Lookup for () {
    fn lookup(&self, _name: &str) -> Option<&str> {
        None
    }
}

impl Lookup for BTreeMap<String, String> {
    fn lookup(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

impl<T: Lookup + ?Sized> Lookup for &T {
    fn lookup(&self, name: &str) -> Option<&str> {
        (**self).lookup(name)
    }
}

impl<T: Lookup> Lookup for Option<T> {
    fn lookup(&self, name: &str) -> Option<&str> {
        self.as_ref()?.lookup(name)
    }
}

/// The layers of a broker, nearest first.
#[derive(Clone, Copy)]
pub struct BrokerLayers<'a> {
    /// Altered at run time for this broker (resource `BROKER`, its id).
    pub node: &'a dyn Lookup,
    /// Altered at run time for all brokers (resource `BROKER`, empty name).
    pub cluster: &'a dyn Lookup,
    /// Set when the process started: file, environment, flags.
    pub fixed: &'a dyn Lookup,
}

impl BrokerLayers<'_> {
    /// No layer sets anything.
    pub const fn none() -> Self {
        Self { node: &(), cluster: &(), fixed: &() }
    }
}
