//! Finds entries: the pointer's tail, the root (loaded once and kept, also on local disk), leaves on
//! demand.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use proto::host::Spawner;
use proto::ids::{LeaderEpoch, Millis, Offset, TopicPartition, Uuid};
use proto::metadata::{RootRef, TierPointer};

use super::RemoteError;
use super::load::{Load, Loads};
use super::source::{Getter, Name, Span};
use crate::manifest::{Entry, Found, Leaf, LeafRef, Manifest, View, by_epoch_above, by_offset, by_timestamp};

/// Keeps copies of manifest roots on local disk, so that the first read after a restart needs no
/// round trip for one. Best effort: a lost or damaged copy is fetched again.
#[async_trait]
pub trait RootStore: Send + Sync {
    /// The copy of a root, none if there is none.
    async fn load(&self, tp: TopicPartition, root: &RootRef) -> Option<Bytes>;
    /// Keeps a copy; older ones of the partition may go.
    async fn save(&self, tp: TopicPartition, root: &RootRef, bytes: Bytes);
}

/// Keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRootStore;

#[async_trait]
impl RootStore for NoRootStore {
    async fn load(&self, _tp: TopicPartition, _root: &RootRef) -> Option<Bytes> {
        None
    }

    async fn save(&self, _tp: TopicPartition, _root: &RootRef, _bytes: Bytes) {}
}

/// A pointer and the root it names. Immutable.
#[derive(Debug)]
pub(super) struct Catalog {
    pub(super) tp: TopicPartition,
    pub(super) pointer: TierPointer,
    root: Option<Arc<Manifest>>,
}

/// Where a lookup led.
#[derive(Debug, Clone)]
pub(super) enum Located {
    Entry(Arc<Entry>),
    Leaf(LeafRef),
    Nowhere,
}

impl Catalog {
    /// The entry that holds `offset`, if no leaf has to be loaded for it.
    pub(super) fn at(&self, offset: Offset) -> Located {
        self.view().by_offset(offset).into()
    }

    /// Whether lookups for a reader of `pointer` at `from` may go here.
    pub(super) fn serves(&self, pointer: &TierPointer, from: Offset) -> bool {
        let same = self.pointer.generation == pointer.generation;
        let in_tail = || self.pointer.tail.first().is_some_and(|entry| entry.base <= from);
        same && (self.root.is_some() || self.pointer.root.is_none() || in_tail())
    }

    fn view(&self) -> View<'_> {
        View::new(&self.pointer, self.root.as_deref())
    }
}

impl From<Found<'_>> for Located {
    fn from(found: Found<'_>) -> Self {
        match found {
            Found::Entry(entry) => Self::Entry(Arc::new(entry.clone())),
            Found::Leaf(leaf) => Self::Leaf(*leaf),
            Found::Nowhere => Self::Nowhere,
        }
    }
}

/// Loads roots and leaves.
pub(super) struct Catalogs {
    getter: Arc<Getter>,
    disk: Arc<dyn RootStore>,
    roots: Loads<Uuid, Arc<Manifest>>,
    leaves: Loads<Uuid, Arc<Leaf>>,
}

impl Catalogs {
    /// Keeps up to `bytes` of roots, and as much of leaves.
    pub(super) fn new(getter: Arc<Getter>, disk: Arc<dyn RootStore>, bytes: u64, spawner: &Spawner) -> Self {
        Self { getter, disk, roots: Loads::new(bytes, spawner.clone()), leaves: Loads::new(bytes, spawner.clone()) }
    }

    /// The catalog of `pointer`, for lookups at and above `from`: what lies wholly in the pointer's tail
    /// needs no root.
    pub(super) async fn open(
        &self,
        tp: TopicPartition,
        pointer: &TierPointer,
        from: Offset,
    ) -> Result<Catalog, RemoteError> {
        let in_tail = pointer.tail.first().is_some_and(|entry| entry.base <= from);
        let root = match &pointer.root {
            Some(root) if !in_tail => Some(self.root(tp, *root).wait().await?),
            Some(_) | None => None,
        };
        Ok(Catalog { tp, pointer: pointer.clone(), root })
    }

    /// Forgets a root that did not lead to living objects.
    pub(super) fn forget(&self, pointer: &TierPointer) {
        if let Some(root) = &pointer.root {
            self.roots.remove(&root.uuid);
        }
    }

    /// The entry that holds `offset`.
    pub(super) async fn locate(&self, catalog: &Catalog, offset: Offset) -> Result<Option<Arc<Entry>>, RemoteError> {
        self.resolve(catalog, catalog.at(offset), |entries| by_offset(entries, offset)).await
    }

    /// The first entry that ends above `from` and has a record with a timestamp at or after `timestamp`.
    pub(super) async fn by_timestamp(
        &self,
        catalog: &Catalog,
        timestamp: Millis,
        mut from: Offset,
    ) -> Result<Option<Arc<Entry>>, RemoteError> {
        from = from.max(catalog.pointer.tier_start);
        loop {
            let located = catalog.view().by_timestamp_after(timestamp, from).into();
            let leaf_end = match &located {
                Located::Leaf(leaf) => Some(leaf.end),
                Located::Entry(_) | Located::Nowhere => None,
            };
            let found = self.resolve(catalog, located, |entries| by_timestamp(entries, timestamp, from)).await?;
            match (found, leaf_end) {
                // Such records of this leaf lie below `from`.
                (None, Some(end)) => from = end,
                (found, _) => return Ok(found),
            }
        }
    }

    /// The first entry in which an epoch above `epoch` begins or continues.
    pub(super) async fn by_epoch_above(
        &self,
        catalog: &Catalog,
        epoch: LeaderEpoch,
    ) -> Result<Option<Arc<Entry>>, RemoteError> {
        let located = catalog.view().by_epoch_above(epoch).into();
        self.resolve(catalog, located, |entries| by_epoch_above(entries, epoch)).await
    }

    /// The greatest timestamp in the tier, -1 if there is none.
    pub(super) fn max_timestamp(catalog: &Catalog) -> Millis {
        let view = catalog.view();
        let entries = view.entries().map(|entry| entry.max_timestamp);
        let leaves = view.leaves().map(|leaf| leaf.max_timestamp);
        entries.chain(leaves).max().unwrap_or(-1)
    }

    /// A leaf, loading it if it is not here.
    pub(super) fn leaf(&self, tp: TopicPartition, leaf: LeafRef) -> Load<Arc<Leaf>> {
        let getter = Arc::clone(&self.getter);
        self.leaves.get(leaf.uuid, move || async move {
            let name = Name::Leaf(tp, leaf);
            let bytes = getter.fetch(&name, Span::All).await?;
            let leaf = Leaf::decode(&bytes, tp, &leaf).map_err(|error| RemoteError::corrupt_object(&name, error))?;
            let weight = weight(&leaf.entries);
            Ok((Arc::new(leaf), weight))
        })
    }

    async fn resolve(
        &self,
        catalog: &Catalog,
        located: Located,
        pick: impl Fn(&[Entry]) -> Option<&Entry>,
    ) -> Result<Option<Arc<Entry>>, RemoteError> {
        match located {
            Located::Entry(entry) => Ok(Some(entry)),
            Located::Nowhere => Ok(None),
            Located::Leaf(leaf) => {
                let leaf = self.leaf(catalog.tp, leaf).wait().await?;
                Ok(pick(&leaf.entries).map(|entry| Arc::new(entry.clone())))
            }
        }
    }

    fn root(&self, tp: TopicPartition, root: RootRef) -> Load<Arc<Manifest>> {
        let (getter, disk) = (Arc::clone(&self.getter), Arc::clone(&self.disk));
        self.roots.get(root.uuid, move || async move {
            if let Some(bytes) = disk.load(tp, &root).await
                && let Ok(manifest) = decode_root(tp, &root, &bytes)
            {
                let weight = weight(&manifest.entries);
                return Ok((Arc::new(manifest), weight));
            }
            let bytes = getter.fetch(&Name::Root(tp, root), Span::All).await?;
            let manifest = decode_root(tp, &root, &bytes)?;
            let weight = weight(&manifest.entries);
            disk.save(tp, &root, bytes).await;
            Ok((Arc::new(manifest), weight))
        })
    }
}

fn decode_root(tp: TopicPartition, root: &RootRef, bytes: &[u8]) -> Result<Manifest, RemoteError> {
    let name = Name::Root(tp, *root);
    if bytes.len() as u64 != root.size || crc32c::crc32c(bytes) != root.crc {
        return Err(RemoteError::corrupt_object(&name, "checksum mismatch"));
    }
    Manifest::decode(bytes, tp).map_err(|error| RemoteError::corrupt_object(&name, error))
}

/// What decoded entries take, in bytes.
fn weight(entries: &[Entry]) -> u64 {
    let of = |entry: &Entry| size_of::<Entry>() + size_of_val(&entry.points[..]) + size_of_val(&entry.epochs[..]);
    entries.iter().map(of).sum::<usize>() as u64
}
