//! From the local log to objects in the store.

use std::ops::Range;
use std::sync::Arc;

use futures::future::join_all;
use proto::ids::{Offset, TopicPartition};
use proto::metadata::tier::MAX_POINTS;
use proto::metadata::{ObjectFormat, ObjectKey, ObjectRef};
use proto::planted::{Bug, planted};
use tokio::sync::OwnedSemaphorePermit;

use super::context::Context;
use super::error::RoundError;
use super::lane::Lane;
use crate::format::{EpochHistory, ObjectBuilder, Sealed};
use crate::manifest::Entry;
use crate::plan::Upload;
use crate::ports::{LocalError, LocalState};

/// Bytes of footer for one of data, at most, used to size the admission.
const FOOTER_SHARE: u64 = 64;

impl Context {
    /// Uploads the first objects of the range, several at once as far as the budget goes, and returns
    /// the entries of those that are stored without a gap. What was stored behind a failure is doomed.
    ///
    /// # Errors
    /// If not even the first object could be stored.
    pub(super) async fn upload(
        &self,
        lane: &mut Lane,
        local: &LocalState,
        range: Upload,
    ) -> Result<Vec<Entry>, RoundError> {
        let mut built = Vec::new();
        let mut from = range.from;
        while built.len() < self.config.objects_at_once && from < range.to {
            let admission = if built.is_empty() { Some(self.admit(local).await) } else { self.try_admit(local) };
            let Some(permit) = admission else { break };
            match self.build(lane.tp, local, from..range.to).await {
                Ok(sealed) => {
                    from = sealed.end;
                    built.push((sealed, permit));
                }
                Err(error) if built.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        let puts = built.into_iter().map(|(sealed, permit)| self.put(lane.tp, local, sealed, permit));
        let results = join_all(puts).await;
        let mut stored = Vec::new();
        let mut failure = None;
        for (entry, result) in results {
            match (result, &failure) {
                (Ok(()), None) => stored.push(entry),
                (result, _) => {
                    let name = (self.store.layout().data(&entry), entry.object.key.uuid);
                    self.abandon(lane, vec![name]);
                    failure = failure.or(result.err());
                }
            }
        }
        match failure {
            Some(error) if stored.is_empty() => Err(error),
            _ => Ok(stored),
        }
    }

    /// Reads batches of `range` until the object is full or all of them are in it. It begins with the whole
    /// batch that holds the first offset.
    async fn build(&self, tp: TopicPartition, local: &LocalState, range: Range<Offset>) -> Result<Sealed, RoundError> {
        let (limit, to) = (self.object_limit(local), range.end);
        let mut builder = ObjectBuilder::new(range.start);
        'filling: while builder.end() < to && builder.data_length() < limit {
            let room = limit - builder.data_length();
            let ask = usize::try_from(room).unwrap_or(usize::MAX).min(self.config.read_chunk_bytes);
            let chunks = self.locals.read(tp, builder.end(), to, ask).await?;
            if chunks.iter().all(bytes::Bytes::is_empty) {
                break;
            }
            for chunk in &chunks {
                if builder.push(chunk, to, limit)? < chunk.len() {
                    break 'filling;
                }
            }
        }
        if builder.data_length() == 0 {
            return Err(LocalError::OutOfRange.into());
        }
        let sections = self.locals.sections(tp, builder.base(), builder.end()).await?;
        Ok(builder.seal(sections.epochs, sections.aborted, sections.producers)?)
    }

    /// Stores one object. Its bytes and its part of the budget are given back when this ends.
    async fn put(
        &self,
        tp: TopicPartition,
        local: &LocalState,
        sealed: Sealed,
        permit: OwnedSemaphorePermit,
    ) -> (Entry, Result<(), RoundError>) {
        let key = ObjectKey {
            owner: tp,
            base_offset: sealed.base,
            leader_epoch: local.leader_epoch,
            uuid: self.entropy.uuid(),
        };
        let entry = entry(&sealed, key, local);
        let name = self.store.layout().data(&entry);
        let result = if planted(Bug::ManifestBeforeObject) {
            self.create_too_late(&name, &sealed.chunks);
            Ok(())
        } else {
            self.create(tp, "storing a segment", &name, &sealed.chunks).await
        };
        drop(permit);
        (entry, result)
    }

    fn object_limit(&self, local: &LocalState) -> u64 {
        local.settings.segment_bytes.clamp(1, self.config.max_object_bytes.max(1))
    }

    /// Permits for one object, in KiB.
    fn permits(&self, local: &LocalState) -> u32 {
        let limit = self.object_limit(local);
        let kib = (limit + limit / FOOTER_SHARE).min(self.config.upload_budget_bytes) >> 10;
        u32::try_from(kib).unwrap_or(u32::MAX).max(1)
    }

    async fn admit(&self, local: &LocalState) -> OwnedSemaphorePermit {
        let budget = Arc::clone(&self.budget);
        budget.acquire_many_owned(self.permits(local)).await.expect("the budget is never closed")
    }

    /// More objects of the same partition only take what nobody waits for: waiting for it while holding
    /// some could wait forever.
    fn try_admit(&self, local: &LocalState) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.budget).try_acquire_many_owned(self.permits(local)).ok()
    }
}

fn entry(sealed: &Sealed, key: ObjectKey, local: &LocalState) -> Entry {
    Entry {
        base: sealed.base,
        end: sealed.end,
        max_timestamp: sealed.max_timestamp,
        object: ObjectRef { key, start: 0, length: sealed.data_length },
        footer_position: sealed.data_length,
        epochs: covering(&sealed.footer.epochs, sealed.base, sealed.end, local),
        format: ObjectFormat::Segment,
        has_aborted: !sealed.footer.aborted.is_empty(),
        points: sealed.points(MAX_POINTS),
    }
}

/// The epochs of the range. A log without any epoch (it was written before there were epochs) counts as
/// of the current one.
fn covering(
    history: &EpochHistory,
    base: Offset,
    end: Offset,
    local: &LocalState,
) -> Vec<(proto::ids::LeaderEpoch, Offset)> {
    let clipped = history.clipped(base, end);
    if clipped.is_empty() { vec![(local.leader_epoch, base)] } else { clipped }
}
