//! The data directories at a start: taken, looked at, claimed. One whose disk is broken costs its own partitions only.

use super::StartError;
use crate::config::server::ServerConfig;
use crate::disk::{
    DirectoryGuard, Disk, DiskError, LockError,
    meta::{Meta, MetaError},
};
use crate::partition::DirSpec;
use proto::host::Entropy;
use proto::ids::{DirectoryId, NodeId};
use std::path::{Path, PathBuf};

/// Name of the folder of the first data directory that holds the metadata.
pub(super) const METADATA: &str = "metadata";

/// The object store, as data directories note it.
pub(super) struct Noted {
    /// Which one, without credentials.
    pub(super) url: String,
    /// Whether it is known to hold records of the cluster.
    pub(super) holds_records: bool,
}

/// A data directory that belongs to this process.
struct Taken {
    path: PathBuf,
    /// Kept until the process ends; `None` for a directory whose disk is broken.
    lock: Option<Box<dyn DirectoryGuard>>,
    /// Why it is offline from the beginning.
    broken: Option<String>,
}

impl Taken {
    fn breaks(&mut self, cause: impl ToString) {
        self.broken = Some(cause.to_string());
    }
}

/// All of `log.dirs`. The first also holds the metadata: without it a node does not start.
pub(super) struct Directories(Vec<Taken>);

impl Directories {
    /// Takes the data directories, which are made if they are not there.
    ///
    /// # Errors
    /// If another process has one of them, or the first is of no use.
    pub(super) async fn take(paths: &[PathBuf], disk: &dyn Disk) -> Result<Directories, StartError> {
        let mut taken = Vec::new();
        for path in paths {
            let locked = lock(path, disk).await;
            let (lock, broken) = match locked {
                Ok(lock) => (Some(lock), None),
                Err(Unusable::Now(cause)) if !taken.is_empty() => (None, Some(cause.to_string())),
                Err(Unusable::Now(cause) | Unusable::Taken(cause)) => return Err(cause),
            };
            taken.push(Taken { path: path.clone(), lock, broken });
        }
        Ok(Directories(taken))
    }

    /// Looks at what they say of themselves before anything is made or started: nothing is mixed, and records whose
    /// metadata is missing are not taken for a new cluster. Returns what the first one says.
    ///
    /// # Errors
    /// If they belong to others, or do not belong together.
    pub(super) async fn survey(&mut self, server: &ServerConfig, disk: &dyn Disk) -> Result<Option<Meta>, StartError> {
        let mut known: Option<(String, PathBuf)> = None;
        let mut of_first = None;
        for (at, taken) in self.usable() {
            let meta = match Meta::load(disk, &taken.path).await {
                Ok(Some(meta)) => meta,
                Ok(None) => continue,
                Err(MetaError::Disk(error)) if at > 0 => {
                    taken.breaks(error);
                    continue;
                }
                Err(error) => return Err(StartError::because(error)),
            };
            let (expected, found) = (NodeId(server.node_id), meta.node_id);
            if found != expected {
                let directory = taken.path.clone();
                return Err(StartError::because(MetaError::ForeignNode { directory, expected, found }));
            }
            match &known {
                Some((cluster, first)) if *cluster != meta.cluster_id => {
                    return Err(StartError(format!(
                        "the data directories {} and {} belong to two clusters: {cluster} and {}",
                        first.display(),
                        taken.path.display(),
                        meta.cluster_id
                    )));
                }
                Some(_) => {}
                None => known = Some((meta.cluster_id.clone(), taken.path.clone())),
            }
            if at == 0 {
                of_first = Some(meta);
            }
        }
        // Other nodes of a cluster have its metadata, too.
        if let (Some((cluster, directory)), Some(first), false) = (known, self.0.first(), server.quorum.is_shared()) {
            let metadata = first.path.join(METADATA);
            if disk.list(&metadata).await.is_err() {
                return Err(StartError(format!(
                    "the data directory {} belongs to cluster {cluster}, whose metadata is not in {}",
                    directory.display(),
                    metadata.display()
                )));
            }
        }
        Ok(of_first)
    }

    /// Claims them for this node of this cluster, whose cold records lie in `store` if it serves any. One that is broken gets
    /// an id that nobody knows.
    ///
    /// # Errors
    /// If one belongs to others, or its cold records lie elsewhere.
    pub(super) async fn claim(
        &mut self,
        node_id: NodeId,
        disk: &dyn Disk,
        cluster_id: &str,
        store: Option<&Noted>,
        entropy: &dyn Entropy,
    ) -> Result<Vec<DirSpec>, StartError> {
        let mut ids = vec![None; self.0.len()];
        for (at, taken) in self.usable() {
            let claimed = async {
                let meta = Meta::claim(disk, &taken.path, cluster_id, node_id, DirectoryId(entropy.uuid())).await?;
                let id = meta.directory_id;
                if let Some(Noted { url, holds_records }) = store {
                    meta.settle(disk, &taken.path, url, *holds_records).await?;
                }
                Ok(id)
            };
            match claimed.await {
                Ok(id) => ids[at] = Some(id),
                Err(MetaError::Disk(error)) if at > 0 => taken.breaks(error),
                Err(error) => return Err(StartError::because(error)),
            }
        }
        let spec = |(taken, id): (&Taken, Option<DirectoryId>)| DirSpec {
            id: id.unwrap_or_else(|| DirectoryId(entropy.uuid())),
            path: taken.path.clone(),
            broken: taken.broken.clone(),
        };
        Ok(self.0.iter().zip(ids).map(spec).collect())
    }

    /// What is to be held until the process ends.
    pub(super) fn into_locks(self) -> Vec<Box<dyn DirectoryGuard>> {
        self.0.into_iter().filter_map(|taken| taken.lock).collect()
    }

    fn usable(&mut self) -> impl Iterator<Item = (usize, &mut Taken)> {
        self.0.iter_mut().enumerate().filter(|(_, taken)| taken.broken.is_none())
    }
}

/// Why a directory is not taken.
enum Unusable {
    /// By its disk, which may be well again another time.
    Now(StartError),
    /// By another process.
    Taken(StartError),
}

async fn lock(path: &Path, disk: &dyn Disk) -> Result<Box<dyn DirectoryGuard>, Unusable> {
    disk.create_dir_all(path).await.map_err(|DiskError { errno, .. }| {
        Unusable::Now(StartError(format!(
            "the data directory {} cannot be made: {errno} (log.dirs names it)",
            path.display()
        )))
    })?;
    disk.lock(path).await.map_err(|error| match error {
        LockError::InUse { .. } => Unusable::Taken(StartError::because(error)),
        LockError::Refused { .. } => Unusable::Now(StartError::because(error)),
    })
}
