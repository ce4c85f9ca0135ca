//! The state machine: applies committed batches to the image and publishes it, once for all entries
//! that openraft hands over together. In memory; what is durable of it is the snapshot and the log
//! behind it.

use std::convert::Infallible;
use std::io::Cursor;
use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, RaftSnapshotBuilder, Snapshot, StorageIOError};
use proto::metadata::{Image, SnapshotReader, write_snapshot};
use proto::planted::{Bug, planted};
use tokio::sync::watch;

use crate::follow::feed::Feed;
use crate::shown::Shown;

use super::store::{Store, StoreError};
use super::{Applied, Entry, LogId, SnapshotMeta, StorageError, StoredMembership, TypeConfig};

/// The image and where in the log it stands.
#[derive(Debug, Clone, Default)]
struct State {
    image: Image,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// The image before the last batch, kept only for [`Bug::SnapshotDropsLast`].
    before: Option<Image>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct StateMachine {
    store: Store,
    state: State,
    images: watch::Sender<Arc<Image>>,
    shown: Shown,
    feed: Arc<Feed>,
}

impl StateMachine {
    /// The state of the last snapshot. Blocks.
    pub(super) fn open(store: Store) -> Result<(Self, watch::Receiver<Arc<Image>>), StoreError> {
        let state = match store.read_snapshot()? {
            Some((meta, bytes)) => State {
                image: SnapshotReader::read_all(&bytes)?,
                applied: meta.last_log_id,
                membership: meta.last_membership,
                before: None,
            },
            None => State::default(),
        };
        let image = Arc::new(state.image.clone());
        let shown = Shown::new(Arc::clone(&image));
        let (images, watching) = watch::channel(image);
        let feed = Arc::new(Feed::at(state.image.offset()));
        Ok((Self { store, state, images, shown, feed }, watching))
    }

    /// What is applied, for those who follow.
    pub(crate) fn feed(&self) -> Arc<Feed> {
        Arc::clone(&self.feed)
    }

    /// Where this process shows what it knows; what is applied here is shown there before anybody is answered.
    pub(crate) fn shown(&self) -> Shown {
        self.shown.clone()
    }

    fn apply_entry(&mut self, entry: Entry) -> Applied {
        self.state.applied = Some(entry.log_id);
        if planted(Bug::SnapshotDropsLast) {
            self.state.before = Some(self.state.image.clone());
        }
        match entry.payload {
            EntryPayload::Blank => Applied::Nothing,
            EntryPayload::Normal(batch) => match self.state.image.apply_batch(entry.log_id.leader_id.term, &batch) {
                Ok(()) => {
                    if !batch.records.is_empty() {
                        self.feed.applied(&batch);
                    }
                    Applied::Batch
                }
                Err(rejected) => Applied::Rejected(rejected),
            },
            EntryPayload::Membership(membership) => {
                self.state.membership = StoredMembership::new(Some(entry.log_id), membership);
                Applied::Nothing
            }
        }
    }

    fn publish(&self) {
        let image = Arc::new(self.state.image.clone());
        self.images.send_replace(Arc::clone(&image));
        self.shown.show(&image);
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.state.applied, self.state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>, StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let before = self.state.image.offset();
        let applied = entries.into_iter().map(|entry| self.apply_entry(entry)).collect();
        if self.state.image.offset() != before {
            self.publish();
        }
        Ok(applied)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { store: self.store.clone(), state: self.state.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let bytes = snapshot.into_inner();
        let image = SnapshotReader::read_all(&bytes)
            .map_err(|error| StorageIOError::read_snapshot(Some(meta.signature()), AnyError::new(&error)))?;
        // Rows are only a way to store it in pieces: any cut will do.
        let chunks = bytes.chunks(proto::metadata::SNAPSHOT_CHUNK_BYTES).map(<[u8]>::to_vec).collect();
        self.store.write_snapshot(meta.clone(), chunks).await?;
        self.feed.replaced(image.offset());
        let membership = meta.last_membership.clone();
        self.state = State { image, applied: meta.last_log_id, membership, before: None };
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let loaded = self.store.load_snapshot().await?;
        Ok(loaded.map(|(meta, bytes)| Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) }))
    }
}

/// Writes a snapshot of the state as it was when it was made.
#[derive(Debug)]
pub(crate) struct Builder {
    store: Store,
    state: State,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let meta = SnapshotMeta {
            last_log_id: self.state.applied,
            last_membership: self.state.membership.clone(),
            snapshot_id: format!("metadata-{}", self.state.image.offset()),
        };
        let mut chunks = Vec::new();
        let image = self.state.before.as_ref().unwrap_or(&self.state.image);
        let Ok(()) = write_snapshot(image, |chunk| {
            chunks.push(chunk);
            Ok::<_, Infallible>(())
        });
        let bytes = chunks.concat();
        self.store.write_snapshot(meta.clone(), chunks).await?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}
