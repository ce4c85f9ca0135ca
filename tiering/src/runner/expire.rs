//! Retention of what is tiered.

use proto::ids::Millis;
use uuid::Uuid;

use super::context::Context;
use super::error::RoundError;
use super::lane::Lane;
use super::settle::Step;
use crate::manifest::{Entry, View};
use crate::plan::{self, Expiry, Extent, Head};
use crate::ports::LocalState;
use crate::store::Key;

impl Context {
    /// Whether retention may have something to do, as far as is known without reading a manifest.
    pub(super) fn expiry_due(&self, lane: &Lane, local: &LocalState, now: Millis) -> bool {
        if !self.pointers.clock_is_sound() {
            return false;
        }
        let deleted_records = lane.pointer.log_start > lane.pointer.tier_start
            && lane.head.is_none_or(|head| head.end <= lane.pointer.log_start);
        let beyond = lane.pointer.log_start > lane.pointer.tier_end;
        deleted_records || beyond || (lane.retention_due <= now && self.head_may_expire(lane, local, now))
    }

    fn head_may_expire(&self, lane: &Lane, local: &LocalState, now: Millis) -> bool {
        let unlimited = local.settings.retention_ms.is_none() && local.settings.retention_bytes.is_none();
        !unlimited && lane.head.is_none_or(|head| plan::head_expired(local, &lane.pointer, &head, now))
    }

    /// Drops what retention allows; at most the entries of one leaf, or of the root. Returns whether
    /// anything changed.
    pub(super) async fn expire(&self, lane: &mut Lane, local: &LocalState, now: Millis) -> Result<bool, RoundError> {
        let Some((expiry, objects)) = self.plan_expiry(lane, local, now).await? else {
            lane.retention_due = now + self.config.retention_check_ms;
            return Ok(false);
        };
        self.settle(lane, local, Step::Expire(expiry, objects)).await?;
        Ok(true)
    }

    async fn plan_expiry(
        &self,
        lane: &mut Lane,
        local: &LocalState,
        now: Millis,
    ) -> Result<Option<(Expiry, Vec<(Key, Uuid)>)>, RoundError> {
        let pointer = lane.pointer.clone();
        let root = match &pointer.root {
            Some(reference) => Some(self.root(lane.tp, reference).await?),
            None => None,
        };
        let view = View::new(&pointer, root.as_deref());
        lane.entries = Some(view.count());
        let mut leaves = view.leaves();
        let (leaf, extent) = match leaves.next() {
            Some(reference) => (Some((self.leaf(lane.tp, reference).await?, *reference)), Extent::Partial),
            None => (None, Extent::All),
        };
        let heads: Vec<&Entry> = match &leaf {
            Some((leaf, _)) => leaf.entries.iter().filter(|entry| entry.end > pointer.tier_start).collect(),
            None => view.entries().collect(),
        };
        lane.head = heads.first().map(|entry| Head::from(*entry));
        let Some(expiry) = plan::expire(local, &pointer, heads.iter().copied(), extent, now) else {
            return Ok(None);
        };
        let layout = self.store.layout();
        let mut objects: Vec<(Key, Uuid)> =
            heads.iter().take(expiry.dropped).map(|entry| (layout.data(entry), entry.object.key.uuid)).collect();
        if let Some((_, reference)) = leaf.filter(|(_, leaf)| leaf.end <= expiry.tier_start) {
            objects.push((layout.leaf(lane.tp, &reference), reference.uuid));
        }
        Ok(Some((expiry, objects)))
    }
}
