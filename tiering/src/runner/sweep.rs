//! Deleting what nothing refers to: what this leader knows of, what crashed leaders left behind, and
//! what deleted topics leave.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt};
use proto::ids::{Millis, TopicPartition};
use proto::metadata::TierPointer;
use uuid::Uuid;

use super::context::Context;
use super::error::RoundError;
use super::lane::Lane;
use crate::manifest::View;
use crate::plan;
use crate::ports::LocalState;
use crate::store::Key;

/// Objects by what makes their names unique.
type Named = BTreeMap<Uuid, Key>;

/// Objects looked at together.
const PAGE: usize = 5_000;
/// Deletions under way at once, per partition.
const DELETES: usize = 8;
/// Deletions in one round, so that a partition that sheds much history still uploads.
const DELETES_PER_ROUND: usize = 512;
/// When to try again what could not be deleted or listed.
const RETRY_MS: Millis = 60_000;

impl Context {
    /// Deletes doomed objects whose grace is over. One that fails is tried again later; that holds up
    /// nothing else.
    pub(super) async fn delete_doomed(&self, lane: &mut Lane, now: Millis) {
        if !self.pointers.clock_is_sound() {
            return;
        }
        let due = lane.doomed.iter().filter(|doomed| doomed.due <= now);
        let named: Named = due.take(DELETES_PER_ROUND).map(|doomed| (doomed.uuid, doomed.key.clone())).collect();
        if named.is_empty() {
            return;
        }
        let tried: Vec<Uuid> = named.keys().copied().collect();
        let mut error = None;
        match self.not_retained(lane.tp, named).await {
            Ok(named) => {
                let mut deletions = stream::iter(named)
                    .map(|(uuid, key)| async move { (uuid, self.store.delete(&key).await) })
                    .buffer_unordered(DELETES);
                while let Some((uuid, result)) = deletions.next().await {
                    match result {
                        Ok(()) => lane.doomed.retain(|doomed| doomed.uuid != uuid),
                        Err(failure) => error = Some(RoundError::store("deleting objects")(failure)),
                    }
                }
            }
            Err(failure) => error = Some(failure),
        }
        // Also those that a snapshot retains are asked about again later.
        for doomed in lane.doomed.iter_mut().filter(|doomed| tried.contains(&doomed.uuid)) {
            doomed.due = now + RETRY_MS;
        }
        if let Some(error) = error {
            tracing::warn!(partition = %lane.tp, %error, "objects that are no longer needed stay until the next try");
        }
    }

    /// [`look_for_leftovers`](Self::look_for_leftovers), where a failure only means to look again later.
    pub(super) async fn sweep(&self, lane: &mut Lane, local: &LocalState, now: Millis) {
        if let Err(error) = self.look_for_leftovers(lane, local, now).await {
            tracing::warn!(partition = %lane.tp, %error, "looking for leftover objects failed");
            lane.sweep_due = now + RETRY_MS;
        }
    }

    /// Lists the partition's prefix for objects of older leaders that nothing refers to, and dooms them
    /// from now on: when they were dropped is not known, so they wait a whole grace.
    async fn look_for_leftovers(&self, lane: &mut Lane, local: &LocalState, now: Millis) -> Result<(), RoundError> {
        let failed = RoundError::store("listing a partition's objects");
        let prefix = self.store.layout().partition(lane.tp);
        let mut lister = self.store.list(&prefix);
        loop {
            let page = lister.next_page(PAGE).await.map_err(&failed)?;
            if page.is_empty() {
                break;
            }
            let named = plan::suspects(page, local.leader_epoch);
            let pointer = lane.pointer.clone();
            let lost = self.unreferenced(lane.tp, &pointer, named).await?;
            let lost = lost.into_iter().filter(|(uuid, _)| lane.doomed.iter().all(|doomed| doomed.uuid != *uuid));
            let lost: Vec<_> = lost.map(|(uuid, key)| (key, uuid)).collect();
            lane.doom(lost, now + self.config.grace_ms);
        }
        // Spread over a tenth of the interval, so that partitions do not list in step.
        let interval = self.config.sweep_interval_ms.max(1);
        let jitter = self.entropy.next_u64() % (interval as u64 / 10 + 1);
        lane.sweep_due = now + interval + jitter as Millis;
        Ok(())
    }

    /// Those of `named` that neither `pointer` nor what it leads to refers to.
    pub(super) async fn unreferenced(
        &self,
        tp: TopicPartition,
        pointer: &TierPointer,
        mut named: Named,
    ) -> Result<Named, RoundError> {
        for entry in &pointer.tail {
            named.remove(&entry.object.key.uuid);
        }
        let Some(reference) = &pointer.root else { return Ok(named) };
        named.remove(&reference.uuid);
        if named.is_empty() {
            return Ok(named);
        }
        let root = self.root(tp, reference).await?;
        let view = View::new(pointer, Some(&root));
        for entry in view.entries() {
            named.remove(&entry.object.key.uuid);
        }
        for leaf in view.leaves() {
            named.remove(&leaf.uuid);
        }
        for reference in view.leaves() {
            if named.is_empty() {
                break;
            }
            let leaf = self.leaf(tp, reference).await?;
            for entry in leaf.entries.iter().filter(|entry| entry.end > pointer.tier_start) {
                named.remove(&entry.object.key.uuid);
            }
        }
        Ok(named)
    }

    /// Those of `named` that no cluster snapshot could bring back (ROOTED).
    async fn not_retained(&self, tp: TopicPartition, mut named: Named) -> Result<Named, RoundError> {
        for pointer in self.pointers.retained(tp) {
            named = self.unreferenced(tp, &pointer, named).await?;
        }
        Ok(named)
    }

    /// Deletes everything of a partition whose topic was deleted long enough ago.
    pub(super) async fn sweep_deleted(&self, tp: TopicPartition) -> Result<(), RoundError> {
        let listing = RoundError::store("listing a deleted partition's objects");
        let prefix = self.store.layout().partition(tp);
        let mut lister = self.store.list(&prefix);
        loop {
            let page = lister.next_page(PAGE).await.map_err(&listing)?;
            if page.is_empty() {
                return Ok(());
            }
            let named: Named = page
                .into_iter()
                .filter_map(|object| Some((crate::store::Layout::parse(&object.key)?.uuid, object.key)))
                .collect();
            let named = self.not_retained(tp, named).await?;
            let mut deletions = stream::iter(named.into_values())
                .map(|key| async move { self.store.delete(&key).await })
                .buffer_unordered(DELETES);
            while let Some(result) = deletions.next().await {
                result.map_err(RoundError::store("deleting a deleted partition's objects"))?;
            }
        }
    }
}
