//! What can be wrong with a config, and which of Kafka's error codes says so.

use std::fmt;

use proto::errors::ErrorCode;

/// What is wrong with one config, or with several together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Whose config it is.
    pub scope: Scope,
    /// What is wrong.
    pub fault: Fault,
}

/// Whose config is at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// A topic's.
    Topic,
    /// A broker's or the cluster's, altered at run time.
    Broker,
    /// A process's, where it was set.
    Server(Origin),
}

/// Where a setting of a process came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The command chose it, such as `firn dev`.
    Preset,
    /// The configuration file.
    File,
    /// This environment variable.
    Environment(String),
    /// `--set`.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preset => f.write_str("command line"),
            Self::File => f.write_str("file"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::Flag => f.write_str("--set"),
        }
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// No config has this name.
    Unknown {
        /// The name as given.
        name: String,
        /// What may have been meant.
        hint: Option<String>,
    },
    /// The value is not allowed.
    Invalid {
        /// Name of the config.
        name: String,
        /// The value as given; `None` when it is a secret.
        value: Option<String>,
        /// Why not.
        why: String,
    },
    /// A list operation on what is no list.
    NotList {
        /// Name of the config.
        name: String,
    },
    /// It is set when the process starts, and not later.
    ReadOnly {
        /// Name of the config.
        name: String,
    },
    /// It can be altered for topics and for all brokers, not for one.
    ForAll {
        /// Name of the config.
        name: String,
    },
    /// It can be altered for one broker only, not for all.
    PerBroker {
        /// Name of the config.
        name: String,
    },
    /// The same config twice in a request.
    Duplicate {
        /// Name of the config.
        name: String,
    },
    /// An operation that needs a value has none.
    NoValue {
        /// Name of the config.
        name: String,
    },
    /// Values that do not go together.
    Conflict {
        /// Which and why.
        why: String,
    },
    /// The configuration file cannot be read as TOML.
    Syntax {
        /// What and where, maybe several lines.
        why: String,
    },
}

impl ConfigError {
    /// The error code Kafka answers an alteration with.
    pub fn code(&self) -> ErrorCode {
        match (&self.scope, &self.fault) {
            (_, Fault::Duplicate { .. } | Fault::NoValue { .. }) => ErrorCode::InvalidRequest,
            (Scope::Topic, _) | (Scope::Broker, Fault::NotList { .. }) => ErrorCode::InvalidConfig,
            (Scope::Broker | Scope::Server(_), _) => ErrorCode::InvalidRequest,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Scope::Server(origin) = &self.scope {
            write!(f, "{origin}: ")?;
        }
        let of = match self.scope {
            Scope::Topic => "topic",
            Scope::Broker | Scope::Server(_) => "broker",
        };
        match &self.fault {
            Fault::Unknown { name, hint: Some(hint) } => write!(f, "there is no {of} configuration {name}; {hint}"),
            Fault::Unknown { name, hint: None } => write!(f, "there is no {of} configuration {name}"),
            Fault::Invalid { name, value: Some(value), why } => {
                write!(f, "invalid value {value} for configuration {name}: {why}")
            }
            Fault::Invalid { name, value: None, why } => write!(f, "invalid value for configuration {name}: {why}"),
            Fault::NotList { name } => write!(f, "items cannot be added to or taken from {name}: it is not a list"),
            Fault::ReadOnly { name } => write!(f, "{name} is read when a broker starts and cannot be altered later"),
            Fault::ForAll { name } => {
                write!(f, "{name} can be altered for a topic or for all brokers, not for one broker by its id")
            }
            Fault::PerBroker { name } => write!(f, "{name} can only be altered for one broker by its id, not for all"),
            Fault::Duplicate { name } => write!(f, "the configuration {name} stands in the request twice"),
            Fault::NoValue { name } => write!(f, "no value was given for the configuration {name}"),
            Fault::Conflict { why } => f.write_str(why),
            Fault::Syntax { why } => f.write_str(why),
        }
    }
}

impl std::error::Error for ConfigError {}
