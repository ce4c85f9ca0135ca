//! What a node stands on: all that a machine gives it, passed in, so that a simulation can give it something else.

use crate::disk::{Disk, LocalDisk};
use controller::Wire;
use object_store::ObjectStore;
use proto::host::{Clock, Entropy, Network, Spawner, SystemClock, SystemEntropy, TcpNetwork};
use std::sync::Arc;

/// The parts of a machine. The configuration says what to do with them.
#[derive(Clone)]
pub struct Host {
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Between this node, the others and clients.
    pub network: Arc<dyn Network>,
    /// What carries calls of the quorum over it: the same on all nodes.
    pub wire: Wire,
    /// Tells this boot of the machine from others; empty if nothing does.
    pub boot: String,
    /// Where tasks run.
    pub spawner: Spawner,
    /// Data directories lie here.
    pub disk: Arc<dyn Disk>,
    /// What the store of a controller stands on.
    pub metadata: controller::Storage,
    /// Cold records lie here.
    pub objects: Objects,
}

/// The object store of a node.
#[derive(Clone)]
pub enum Objects {
    /// The one that `firn.object.store` names, or the folder `bucket` in the first data directory.
    Configured,
    /// This one, whatever is configured.
    Given(Arc<dyn ObjectStore>),
}

impl Host {
    /// This machine, with tasks on the runtimes of `spawner`.
    pub fn system(spawner: Spawner) -> Host {
        Host {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            network: Arc::new(TcpNetwork),
            wire: Wire::default(),
            boot: std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
            disk: Arc::new(LocalDisk::new(spawner.blocking().clone())),
            metadata: controller::Storage::default(),
            objects: Objects::Configured,
            spawner,
        }
    }
}
