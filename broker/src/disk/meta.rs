//! `meta.json`: which cluster, node and directory the files here belong to.
//!
//! Written when a directory is first used; a directory of another cluster or node, or one whose cold records lie in another
//! object store, is refused rather than mixed in.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use proto::ids::{DirectoryId, NodeId};
use serde::{Deserialize, Serialize};

use super::{Disk, DiskError, read_whole, replace};

/// Name of the file.
pub const NAME: &str = "meta.json";
/// The layout of the data directory that this version reads and writes.
pub const FORMAT: u32 = 1;

/// The object store of a node that is given none: this folder of the first data directory, which goes where that goes.
pub const OWN_BUCKET: &str = "bucket";

fn shown(store: &str) -> &str {
    if store == OWN_BUCKET { "of its own (the folder bucket in it)" } else { store }
}

/// The contents of `meta.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Meta {
    /// The layout of the directory, [`FORMAT`].
    pub format: u32,
    /// The cluster's id, as Kafka prints it.
    pub cluster_id: String,
    /// The broker.
    pub node_id: NodeId,
    /// The directory's own id (KIP-858).
    pub directory_id: DirectoryId,
    /// The metadata in it belong to a quorum of several nodes: without them its node could vote a second time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub member: bool,
    /// The object store with the cold records of the logs in it, as a URL without credentials. None before it was first
    /// served from, and in a directory of a version that did not write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_store: Option<String>,
}

/// Why a directory cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Not what a `meta.json` looks like.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// Made by another version.
    #[error("{} has format {found}, this version reads {FORMAT}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format it has.
        found: u32,
    },
    /// Another cluster's.
    #[error(
        "data directory {} belongs to cluster {found}, this node to cluster {expected}",
        directory.display()
    )]
    ForeignCluster {
        /// The directory.
        directory: PathBuf,
        /// The cluster of this node.
        expected: String,
        /// The cluster it was made for.
        found: String,
    },
    /// Another node's.
    #[error(
        "data directory {} belongs to node {found}, this is node {expected}",
        directory.display()
    )]
    ForeignNode {
        /// The directory.
        directory: PathBuf,
        /// This node.
        expected: NodeId,
        /// The node it was made for.
        found: NodeId,
    },
    /// Its cold records lie elsewhere.
    #[error(
        "data directory {} was started with the object store {}, and is given {} now, which holds none of its records: use \
         the former again (firn.object.store, or firn dev --object-store); or, if they were all moved, remove object-store \
         from {}",
        directory.display(),
        shown(found),
        shown(given),
        directory.join(NAME).display()
    )]
    OtherStore {
        /// The directory.
        directory: PathBuf,
        /// The object store that is configured now.
        given: String,
        /// The one it was started with.
        found: String,
    },
}

/// What stands for the folder [`OWN_BUCKET`] of the first data directory.
impl Meta {
    /// What `dir` says about itself; `None` if it was never used.
    ///
    /// # Errors
    /// [`MetaError::Damaged`] or [`MetaError::Format`] if it cannot be understood.
    pub async fn load(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, MetaError> {
        let path = dir.join(NAME);
        let Some(text) = read_whole(disk, &path).await? else {
            return Ok(None);
        };
        let damaged = |reason: serde_json::Error| MetaError::Damaged { path: path.clone(), reason: reason.to_string() };
        // The format first: another version may have other fields.
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let Versioned { format } = serde_json::from_slice(&text).map_err(damaged)?;
        if format != FORMAT {
            return Err(MetaError::Format { path, found: format });
        }
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }

    /// Claims `dir` for this node: checks what it says about itself, or writes it if it was never used, with
    /// `fresh` as its id.
    ///
    /// # Errors
    /// [`MetaError::ForeignCluster`] or [`MetaError::ForeignNode`] if it is somebody else's.
    pub async fn claim(
        disk: &dyn Disk,
        dir: &Path,
        cluster_id: &str,
        node_id: NodeId,
        fresh: DirectoryId,
    ) -> Result<Self, MetaError> {
        let Some(found) = Self::load(disk, dir).await? else {
            let meta = Self {
                format: FORMAT,
                cluster_id: cluster_id.to_owned(),
                node_id,
                directory_id: fresh,
                member: false,
                object_store: None,
            };
            meta.store(disk, dir).await?;
            return Ok(meta);
        };
        if found.cluster_id != cluster_id {
            return Err(MetaError::ForeignCluster {
                directory: dir.to_owned(),
                expected: cluster_id.to_owned(),
                found: found.cluster_id,
            });
        }
        if found.node_id != node_id {
            return Err(MetaError::ForeignNode { directory: dir.to_owned(), expected: node_id, found: found.node_id });
        }
        Ok(found)
    }

    /// Notes that the metadata in `dir` belong to a quorum of several nodes from here on.
    ///
    /// # Errors
    /// The disk's.
    pub async fn join(mut self, disk: &dyn Disk, dir: &Path) -> Result<(), MetaError> {
        if self.member {
            return Ok(());
        }
        self.member = true;
        self.store(disk, dir).await
    }

    /// Notes that the cold records of the logs in `dir` lie in the object store `given`. `moved` says whether that store
    /// holds the cluster's records though another one is noted: then they were moved there.
    ///
    /// # Errors
    /// [`MetaError::OtherStore`] if another one is noted, and the records were not moved; the disk's.
    pub async fn settle(mut self, disk: &dyn Disk, dir: &Path, given: &str, moved: bool) -> Result<(), MetaError> {
        match &self.object_store {
            Some(found) if found == given => return Ok(()),
            Some(found) if !moved => {
                return Err(MetaError::OtherStore {
                    directory: dir.to_owned(),
                    given: given.to_owned(),
                    found: found.clone(),
                });
            }
            Some(_) | None => {}
        }
        self.object_store = Some(given.to_owned());
        self.store(disk, dir).await
    }

    async fn store(&self, disk: &dyn Disk, dir: &Path) -> Result<(), MetaError> {
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|reason| MetaError::Damaged { path: dir.join(NAME), reason: reason.to_string() })?;
        text.push(b'\n');
        replace(disk, dir, NAME, Bytes::from(text)).await?;
        Ok(())
    }
}
