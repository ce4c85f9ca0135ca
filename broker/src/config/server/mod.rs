//! The configuration of a process: one TOML file, `FIRN_*` environment variables and `--set` flags, laid over each
//! other in that order, all under Kafka's names. [`load`] is a pure function of their contents.
//!
//! **File.** `log.retention.ms = 1000`, `[log.retention]` with `ms = 1000`, and `"log.retention.ms" = 1000` are the
//! same. A name that is also the start of another (`max.connections`, `max.connections.per.ip`) has to be quoted when
//! both are set. Lists are arrays or texts with commas.
//!
//! **Environment.** The name in capitals with `_` for `.` behind `FIRN_`: `FIRN_LOG_RETENTION_MS` is `log.retention.ms`.
//! Firn's own names do not repeat the prefix: `FIRN_OBJECT_STORE` is `firn.object.store`. `FIRN_BOOTSTRAP` and
//! `FIRN_ADMIN` belong to the client commands, and `FIRN_SERVICE_*` and `FIRN_PORT*` are what Kubernetes sets for a
//! service called firn; these, and the `FIRN_TEST_*` of Firn's own test suites, are left alone. Any other unknown one is an error.

mod check;
mod listener;
mod quorum;
mod sources;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::alter::{broker_definition, check_value};
use super::definition::{Definition, Effect, list};
use super::describe::documentation;
use super::error::{ConfigError, Origin, Scope};
use super::layers::BrokerLayers;
use super::values::{broker_value, text_of};
use super::{BrokerConfig, tables};

pub use listener::Listener;
pub use quorum::{QuorumConfig, Voter};

/// What a process is told from outside.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// What the command itself chooses; anything else wins over it.
    pub presets: Vec<(String, String)>,
    /// Contents of the configuration file, if there is one.
    pub file: Option<String>,
    /// Environment variables; those not for us are passed over.
    pub environment: BTreeMap<String, String>,
    /// `--set NAME=VALUE`, in order; the last of a name wins.
    pub flags: Vec<(String, String)>,
}

/// The checked configuration of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// `node.id` (or its older name `broker.id`).
    pub node_id: i32,
    /// `process.roles`.
    pub roles: Roles,
    /// How it is part of the metadata quorum.
    pub quorum: QuorumConfig,
    /// `listeners` for Kafka clients; none without the role of a broker.
    pub listeners: Vec<Listener>,
    /// `advertised.listeners`, or the listeners themselves: one for each listener, in any order. An empty host stands for the machine's
    /// name, port 0 for the port that the listener got.
    pub advertised: Vec<Listener>,
    /// `inter.broker.listener.name`: the one of `listeners` that brokers use among themselves.
    pub inter_broker: String,
    /// `firn.http.listeners`, as host:port; none serves none.
    pub http: Vec<String>,
    /// `log.dirs` (or `log.dir`), at least one.
    pub data_dirs: Vec<PathBuf>,
    /// `firn.object.store`; `None` is the folder `bucket` in the first data directory.
    pub object_store: Option<String>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// `firn.log.filter`.
    pub log_filter: String,
    /// `firn.log.format`.
    pub log_format: LogFormat,
    /// `firn.otlp.endpoint`.
    pub otlp_endpoint: Option<String>,
    /// All that was set, by name: the fixed layer of [`BrokerLayers`].
    pub settings: BTreeMap<String, String>,
    /// Where each was set.
    pub origins: BTreeMap<String, Origin>,
}

/// `process.roles`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Serves clients.
    pub broker: bool,
    /// Is part of the metadata quorum.
    pub controller: bool,
}

/// `firn.log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// Lines of JSON.
    Json,
}

impl ServerConfig {
    /// Reads, merges and checks everything.
    ///
    /// # Errors
    /// All that is wrong, not only the first.
    pub fn load(sources: &Sources) -> Result<Self, Vec<ConfigError>> {
        let (set, mut errors) = sources::merge(sources);
        for (name, (value, origin)) in &set {
            let scope = Scope::Server(origin.clone());
            let checked =
                broker_definition(scope.clone(), name).and_then(|definition| check_value(scope, definition, value));
            errors.extend(checked.err());
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut settings = BTreeMap::new();
        let mut origins = BTreeMap::new();
        for (name, (value, origin)) in set {
            settings.insert(name.clone(), value);
            origins.insert(name, origin);
        }
        check::build(settings, origins)
    }

    /// The layers of a broker on which nothing was altered at run time.
    pub fn layers(&self) -> BrokerLayers<'_> {
        BrokerLayers { node: &(), cluster: &(), fixed: &self.settings }
    }

    /// The typed view of a broker on which nothing was altered at run time.
    pub fn broker(&self) -> BrokerConfig {
        BrokerConfig::resolve(&self.layers())
    }

    /// Each setting that was made, for `firn config check`.
    pub fn explain(&self) -> Vec<Explained> {
        let explained = self.settings.iter().filter_map(|(name, value)| {
            let definition = tables::broker(name)?;
            Some(Explained {
                definition,
                value: if definition.is_sensitive() { "(hidden)".to_owned() } else { definition.normal(value) },
                origin: self.origins.get(name).cloned().unwrap_or(Origin::Preset),
            })
        });
        explained.collect()
    }
}

/// One setting, what it is for, and where it was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    /// Which config.
    pub definition: &'static Definition,
    /// Its value, with secrets hidden.
    pub value: String,
    /// Where it was set.
    pub origin: Origin,
}

impl Explained {
    /// What it is for, with the reason if it has no effect.
    pub fn documentation(&self) -> String {
        documentation(self.definition)
    }

    /// Whether Firn acts on it.
    pub fn is_acted(&self) -> bool {
        self.definition.effect == Effect::Acted
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { definition, value, origin } = self;
        writeln!(f, "{} = {value}   ({origin}; default {})", definition.name, text_of(definition.default))?;
        write!(f, "    {}", self.documentation())
    }
}

/// Reads settled settings; they were checked before.
struct Read<'a> {
    layers: BrokerLayers<'a>,
}

impl Read<'_> {
    fn text(&self, name: &str) -> String {
        broker_value(&self.layers, name)
    }

    fn items(&self, name: &str) -> Vec<String> {
        list(&self.text(name)).map(str::to_owned).collect()
    }

    fn optional(&self, name: &str) -> Option<String> {
        let value = self.layers.fixed.lookup(name)?.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }
}

#[cfg(test)]
mod tests;
