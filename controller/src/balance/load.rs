//! What brokers tell of their load. Soft state of whoever leads the quorum.

use std::collections::BTreeMap;

use proto::ids::{NodeId, TopicPartition};
use proto::metadata::Image;

/// What one broker tells: its disk, and its partitions as far as they changed notably.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Load {
    /// Its disks together.
    pub disk: Disk,
    /// Partitions it leads whose load is new or has changed by more than a tenth.
    pub partitions: Vec<(TopicPartition, PartitionLoad)>,
}

/// What lies on the disks of a broker, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Disk {
    /// In use, by whomever.
    pub used: u64,
    /// Altogether; 0 if it is not known.
    pub total: u64,
}

/// What a partition carries, smoothed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartitionLoad {
    /// Bytes that producers bring, per second.
    pub bytes_in: u64,
    /// Bytes that consumers take, per second.
    pub bytes_out: u64,
    /// Bytes of each replica on disk: what a move has to copy.
    pub hot: u64,
}

proto::durable_struct!(
    Load { disk, partitions }
    Disk { used, total }
    PartitionLoad { bytes_in, bytes_out, hot }
    Loads { disks, partitions }
);

/// The latest of all brokers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loads {
    disks: BTreeMap<NodeId, Disk>,
    partitions: BTreeMap<TopicPartition, PartitionLoad>,
}

impl Loads {
    /// Takes in what broker `id` tells. Partitions that `image` does not have are left out: what is kept has a bound.
    pub fn tell(&mut self, image: &Image, id: NodeId, load: &Load) {
        self.disks.insert(id, load.disk);
        for (tp, load) in load.partitions.iter().filter(|(tp, _)| image.partition(*tp).is_some()) {
            self.partitions.insert(*tp, *load);
        }
    }

    /// Forgets what `image` does not have any more.
    pub fn prune(&mut self, image: &Image) {
        self.disks.retain(|id, _| image.broker(*id).is_some());
        self.partitions.retain(|tp, _| image.partition(*tp).is_some());
    }

    /// Disks of a broker, zeros if it has not told.
    pub fn disk(&self, id: NodeId) -> Disk {
        self.disks.get(&id).copied().unwrap_or_default()
    }

    /// Load of a partition, zeros if it was not told.
    pub fn partition(&self, tp: TopicPartition) -> PartitionLoad {
        self.partitions.get(&tp).copied().unwrap_or_default()
    }
}
