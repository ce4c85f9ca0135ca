//! Names of objects. Names are only ever built from what a pointer or a manifest says; parsing one back
//! is for the sweeper, which has to know what a listed object was.

use std::fmt;

use object_store::path::Path;
use proto::ids::{LeaderEpoch, Offset, TopicPartition};
use proto::metadata::{ObjectFormat, ObjectKey, RootRef};
use uuid::Uuid;

use crate::manifest::{Entry, LeafRef};

/// The name of an object of a cluster, below the store's own prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Path);

impl Key {
    /// The path in the store.
    pub const fn path(&self) -> &Path {
        &self.0
    }

    /// A key from a listed path.
    pub(super) const fn from_path(path: Path) -> Self {
        Self(path)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_ref())
    }
}

/// Where a cluster's objects lie.
///
/// ```text
/// <cluster>/<hash>/<topic id>/<partition>/<base offset>-<leader epoch>-<uuid>.seg | .parquet
/// <cluster>/<hash>/<topic id>/<partition>/manifest/<generation>-<leader epoch>-<uuid>.firn
/// <cluster>/<hash>/<topic id>/<partition>/manifest/leaf-<first offset>-<leader epoch>-<uuid>.firn
/// ```
///
/// `hash` is four hexadecimal digits of the partition's CRC-32C: it spreads partitions over the key
/// space. A leaf's name carries its leader epoch like every other, so that a sweeper can tell a fenced
/// leader's leftovers from what a newer one is about to refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: String,
}

/// What a name says about an object under a partition's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedObject {
    /// Which kind of object.
    pub kind: NamedKind,
    /// First offset (data, leaf) or generation (root).
    pub number: i64,
    /// Leader epoch of its writer.
    pub leader_epoch: LeaderEpoch,
    /// What makes the name unique.
    pub uuid: Uuid,
}

/// Kinds of objects under a partition's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedKind {
    /// Record data.
    Data,
    /// A manifest root.
    Root,
    /// A manifest leaf.
    Leaf,
}

impl Layout {
    /// The layout of the cluster `cluster` (its id) under `prefix`, the path of the store's URL (may be
    /// empty; slashes at its ends do not matter).
    pub fn new(prefix: &str, cluster: &str) -> Self {
        let root = [prefix.trim_matches('/'), cluster]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("/");
        Self { root }
    }

    /// Everything of one partition lies under this prefix.
    pub fn partition(&self, tp: TopicPartition) -> Key {
        Key(Path::from(self.partition_prefix(tp)))
    }

    /// Everything of the cluster lies under this prefix.
    pub fn cluster(&self) -> Key {
        Key(Path::from(self.root.as_str()))
    }

    /// The object with an entry's data.
    pub fn data(&self, entry: &Entry) -> Key {
        self.object(&entry.object.key, entry.format)
    }

    /// A data object by its key.
    pub fn object(&self, key: &ObjectKey, format: ObjectFormat) -> Key {
        let extension = match format {
            ObjectFormat::Segment => "seg",
            ObjectFormat::Parquet => "parquet",
        };
        Key(Path::from(format!(
            "{}/{:020}-{}-{}.{extension}",
            self.partition_prefix(key.owner),
            key.base_offset,
            key.leader_epoch,
            key.uuid
        )))
    }

    /// A partition's manifest root.
    pub fn root(&self, tp: TopicPartition, root: &RootRef) -> Key {
        Key(Path::from(format!(
            "{}/manifest/{:020}-{}-{}.firn",
            self.partition_prefix(tp),
            root.generation,
            root.leader_epoch,
            root.uuid
        )))
    }

    /// A partition's manifest leaf.
    pub fn leaf(&self, tp: TopicPartition, leaf: &LeafRef) -> Key {
        self.leaf_named(tp, leaf.base, leaf.leader_epoch, leaf.uuid)
    }

    /// A leaf by what its name is made of.
    pub fn leaf_named(&self, tp: TopicPartition, base: Offset, leader_epoch: LeaderEpoch, uuid: Uuid) -> Key {
        Key(Path::from(format!("{}/manifest/leaf-{base:020}-{leader_epoch}-{uuid}.firn", self.partition_prefix(tp))))
    }

    /// What `key`'s name says; None if it is not one of ours (it is then left alone).
    pub fn parse(key: &Key) -> Option<NamedObject> {
        let name = key.0.filename()?;
        let (stem, extension) = name.rsplit_once('.')?;
        let (kind, stem) = match (extension, stem.strip_prefix("leaf-")) {
            ("seg" | "parquet", None) => (NamedKind::Data, stem),
            ("firn", None) => (NamedKind::Root, stem),
            ("firn", Some(stem)) => (NamedKind::Leaf, stem),
            _ => return None,
        };
        let (number, rest) = stem.split_once('-')?;
        let (epoch, uuid) = rest.split_once('-')?;
        Some(NamedObject {
            kind,
            number: number.parse().ok()?,
            leader_epoch: epoch.parse().ok()?,
            uuid: Uuid::parse_str(uuid).ok()?,
        })
    }

    fn partition_prefix(&self, tp: TopicPartition) -> String {
        let mut seed = tp.topic.0.into_bytes().to_vec();
        seed.extend_from_slice(&tp.partition.to_be_bytes());
        let hash = crc32c::crc32c(&seed) >> 16;
        format!("{}/{hash:04x}/{}/{}", self.root, tp.topic, tp.partition)
    }
}
