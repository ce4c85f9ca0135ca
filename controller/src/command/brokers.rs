//! Commands about the cluster as a whole and its brokers.

use proto::ids::{DirectoryId, NodeId, Uuid};
use proto::metadata::{Endpoint, FeatureRange};

use super::Mode;

/// See [`Command::FormCluster`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormCluster {
    /// The id to take, if there is none yet.
    pub cluster_id: String,
    /// Features and their levels to set.
    pub features: Vec<(String, i16)>,
}

/// See [`Command::RegisterBroker`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterBroker {
    /// Node id.
    pub id: NodeId,
    /// Drawn once by the process.
    pub incarnation: Uuid,
    /// Epoch that the process before it on the same disks was registered with, if it is known (KIP-903).
    pub previous_epoch: Option<i64>,
    /// How the process before it ended.
    pub clean: Clean,
    /// Where it can be reached.
    pub endpoints: Vec<Endpoint>,
    /// Failure domain.
    pub rack: Option<String>,
    /// Data directories that are online.
    pub directories: Vec<DirectoryId>,
    /// How many directories it was told of but cannot use. While there are any, a directory that is missing from
    /// `directories` may come back with all it had; otherwise its disk was replaced.
    pub offline_directories: u32,
    /// Levels of features it understands.
    pub features: Vec<FeatureRange>,
}

/// What a process that starts can say of the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clean {
    /// It closed its logs: they hold all they held.
    #[default]
    Yes,
    /// It died, the machine did not: what it wrote is there, synced or not.
    SameBoot,
    /// The machine went down: what was not synced may be lost.
    No,
}

/// See [`Command::SetBrokerState`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetBrokerState {
    /// Node id.
    pub id: NodeId,
    /// Epoch of its registration.
    pub broker_epoch: i64,
    /// What it wants to be.
    pub state: BrokerState,
    /// Data directories that are online, if that changed.
    pub directories: Option<Vec<DirectoryId>>,
}

/// Whether a broker serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerState {
    /// Serves.
    Active,
    /// Still serves, but hands over what it leads.
    ShuttingDown,
    /// Serves nothing.
    Fenced,
}

/// See [`Command::UpdateFeatures`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateFeatures {
    /// Features and their levels to be.
    pub updates: Vec<FeatureUpdate>,
    /// Whether to do it.
    pub mode: Mode,
}

/// A level for a feature (KIP-584, KIP-778).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureUpdate {
    /// Name of the feature.
    pub name: String,
    /// Level to be; 0 removes the feature.
    pub level: i16,
    /// Which way it may move.
    pub direction: Direction,
}

/// Which way the level of a feature may move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// Up.
    #[default]
    Upgrade,
    /// Down, as long as nothing is lost.
    SafeDowngrade,
    /// Down. Firn loses nothing even so: it is refused what is not safe.
    UnsafeDowngrade,
}
