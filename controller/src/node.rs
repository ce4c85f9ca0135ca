//! A controller in this process: starts the quorum member and its queue, ends them in order.

use std::path::PathBuf;
use std::sync::Arc;

use proto::host::{Clock, Spawner};
use proto::ids::NodeId;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::handle::{ControllerHandle, QUEUE_BYTES, QUEUE_COMMANDS};
use crate::raft::{Quorum, Store, StoreError};
use crate::task::Task;

/// What a controller is told at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Directory of the quorum's store. Made if it is not there.
    pub dir: PathBuf,
    /// This node.
    pub node_id: NodeId,
}

/// Why a controller did not start, in one clear line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

/// The running controller. Dropping it leaves it running; see [`ControllerNode::shutdown`].
#[derive(Debug)]
pub struct ControllerNode {
    quorum: Quorum,
    task: JoinHandle<()>,
}

impl ControllerNode {
    /// Starts the controller of a one-node cluster. When it returns, this node leads the quorum and
    /// the image shows all that was ever committed.
    pub async fn start(
        config: NodeConfig,
        clock: Arc<dyn Clock>,
        spawner: &Spawner,
    ) -> Result<(Self, ControllerHandle), StartError> {
        let NodeConfig { dir, node_id } = config;
        let opening = spawner.clone();
        let store = spawner
            .spawn_blocking(move || Store::open(&dir, node_id, opening))
            .await
            .map_err(|error| StartError(error.to_string()))??;
        Self::start_on(store, node_id, clock, spawner).await
    }

    /// [`ControllerNode::start`] on an open store.
    pub(crate) async fn start_on(
        store: Store,
        node_id: NodeId,
        clock: Arc<dyn Clock>,
        spawner: &Spawner,
    ) -> Result<(Self, ControllerHandle), StartError> {
        let slack = Arc::clone(store.slack());
        let (quorum, images) = Quorum::start(node_id, store, spawner).await?;
        let (queue, queued) = mpsc::channel(QUEUE_COMMANDS);
        let task = Task {
            quorum: quorum.clone(),
            images: images.clone(),
            queue: queued,
            clock,
            slack,
            spawner: spawner.clone(),
        };
        let task = spawner.spawn_hot(task.run());
        let budget = Arc::new(Semaphore::new(QUEUE_BYTES));
        let handle = ControllerHandle { queue, budget, images, quorum: quorum.clone() };
        Ok((Self { quorum, task }, handle))
    }

    /// Returns when the quorum member has stopped by itself, with the reason: its store failed. The
    /// process cannot go on then.
    pub async fn ended(&self) -> String {
        self.quorum.ended().await
    }

    /// Ends the controller. What was answered stays; commands still queued end as unknown.
    pub async fn shutdown(self) {
        self.task.abort();
        self.quorum.shutdown().await;
    }
}
