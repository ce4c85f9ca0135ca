//! From objects in the store to a committed pointer: leaf, root, pointer, in that order.

use std::sync::Arc;

use proto::metadata::{RootRef, TierPointer};
use proto::planted::{Bug, planted};
use uuid::Uuid;

use super::context::{Cached, Context};
use super::error::RoundError;
use super::lane::Lane;
use crate::manifest::{Change, Entry, Leaf, LeafRef, Manifest, View, check_commit};
use crate::plan::{self, Expiry};
use crate::ports::{Commit, CommitError, LocalState, PointerError};
use crate::store::Key;

/// How often a change is moved onto a newer pointer before the whole is planned again.
const REBASES: usize = 4;

/// What a pointer is to be changed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Uploaded objects join. They are contiguous.
    Append(Vec<Entry>),
    /// Old entries go; their objects, and the leaves that list only them, are to be deleted.
    Expire(Expiry, Vec<(Key, Uuid)>),
}

/// A commit with all that depends on its outcome.
#[derive(Debug)]
pub(super) struct Attempt {
    commit: Commit,
    step: Step,
    /// Root and leaves written for it.
    written: Vec<(Key, Uuid)>,
    /// Objects that nothing refers to once it is committed.
    replaced: Vec<(Key, Uuid)>,
    entries: Option<u64>,
}

/// How an attempt ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Landed(Box<TierPointer>),
    /// Another change came first.
    Stale,
}

impl Context {
    /// Changes the partition's pointer by `step`.
    ///
    /// If it cannot be done, the objects of the step are doomed; if the outcome is unknown, the attempt
    /// stays in `lane.in_doubt`.
    pub(super) async fn settle(&self, lane: &mut Lane, local: &LocalState, step: Step) -> Result<(), RoundError> {
        for _ in 0..REBASES {
            let mut written = Vec::new();
            let attempt = match self.draft(lane, local, &step, &mut written).await {
                Ok(attempt) => attempt,
                Err(error) => {
                    self.abandon(lane, written);
                    self.abandon(lane, self.objects(&step));
                    return Err(error);
                }
            };
            match self.commit(lane, attempt).await? {
                Ended::Landed(pointer) => {
                    self.locals.committed(lane.tp, &pointer);
                    return Ok(());
                }
                Ended::Stale => {
                    match self.pointers.read_fresh(lane.tp).await {
                        Ok(pointer) => lane.learn(pointer),
                        Err(error) => {
                            self.abandon(lane, self.objects(&step));
                            return Err(error.into());
                        }
                    }
                    if !step.applies(&lane.pointer, local) {
                        break;
                    }
                }
            }
        }
        self.abandon(lane, self.objects(&step));
        Ok(())
    }

    /// Finds out what became of the commit in doubt, or asks for it again. Afterwards nothing is in
    /// doubt, unless it fails.
    pub(super) async fn resolve(&self, lane: &mut Lane) -> Result<(), RoundError> {
        let Some(attempt) = lane.in_doubt.take() else { return Ok(()) };
        match self.outcome(lane, &attempt).await {
            Ok(pointer) if attempt.landed_in(&pointer) => {
                self.landed(lane, *attempt, pointer);
                self.locals.committed(lane.tp, &lane.pointer);
                Ok(())
            }
            Ok(pointer) => {
                // It cannot land any more. Usually it never did; but another leader may have built on it
                // since, so what a manifest names is left alone.
                let mut objects = attempt.written.clone();
                objects.extend(self.objects(&attempt.step));
                match self
                    .unreferenced(lane.tp, &pointer, objects.into_iter().map(|(key, uuid)| (uuid, key)).collect())
                    .await
                {
                    Ok(lost) => {
                        lane.learn(pointer);
                        self.abandon(lane, lost.into_iter().map(|(uuid, key)| (key, uuid)).collect());
                        Ok(())
                    }
                    Err(error) => {
                        lane.in_doubt = Some(attempt);
                        Err(error)
                    }
                }
            }
            Err(RoundError::Pointer(PointerError::Gone)) => {
                self.abandon(lane, attempt.written);
                self.abandon(lane, self.objects(&attempt.step));
                Err(PointerError::Gone.into())
            }
            Err(error) => {
                lane.in_doubt = Some(attempt);
                Err(error)
            }
        }
    }

    /// The pointer at a moment when the attempt has landed or can no longer land.
    async fn outcome(&self, lane: &mut Lane, attempt: &Attempt) -> Result<TierPointer, RoundError> {
        let commit = &attempt.commit;
        let pointer = self.pointers.read_fresh(lane.tp).await?;
        let may_still_land =
            pointer.generation == commit.expected_generation && lane.epoch == Some(commit.leader_epoch);
        if !may_still_land {
            return Ok(pointer);
        }
        // The request may still be under way: only asking again, for the very same change, is safe.
        match self.committer.commit(commit.clone()).await {
            Ok(pointer) => Ok(pointer),
            Err(error @ CommitError::Unknown(_)) => Err(error.into()),
            Err(CommitError::Gone) => Err(PointerError::Gone.into()),
            // A refusal of the repetition says nothing about the first request.
            Err(CommitError::Stale | CommitError::Refused(_)) => Ok(self.pointers.read_fresh(lane.tp).await?),
            Err(CommitError::Fenced) => {
                lane.epoch = None;
                Ok(self.pointers.read_fresh(lane.tp).await?)
            }
        }
    }

    async fn commit(&self, lane: &mut Lane, attempt: Attempt) -> Result<Ended, RoundError> {
        if planted(Bug::TrimUncommitted) {
            let generation = attempt.commit.expected_generation + 1;
            self.locals.committed(lane.tp, &TierPointer { generation, ..attempt.commit.pointer.clone() });
        }
        match self.committer.commit(attempt.commit.clone()).await {
            Ok(pointer) => {
                self.landed(lane, attempt, pointer.clone());
                Ok(Ended::Landed(Box::new(pointer)))
            }
            Err(CommitError::Stale) => {
                self.abandon(lane, attempt.written);
                Ok(Ended::Stale)
            }
            Err(error @ CommitError::Unknown(_)) if !planted(Bug::UnknownPutFailed) => {
                lane.in_doubt = Some(Box::new(attempt));
                Err(error.into())
            }
            Err(
                error @ (CommitError::Unknown(_) | CommitError::Fenced | CommitError::Gone | CommitError::Refused(_)),
            ) => {
                lane.epoch = None;
                self.abandon(lane, attempt.written);
                self.abandon(lane, self.objects(&attempt.step));
                Err(error.into())
            }
        }
    }

    fn landed(&self, lane: &mut Lane, attempt: Attempt, pointer: TierPointer) {
        let due = self.clock.now_ms() + self.config.grace_ms;
        if let Step::Append(entries) = &attempt.step {
            lane.points.extend(entries.iter().map(|entry| (entry.object.key.uuid, entry.points.clone())));
        }
        lane.entries = attempt.entries;
        lane.learn(pointer);
        lane.doom(attempt.replaced, due);
        if let Step::Expire(_, objects) = attempt.step {
            lane.doom(objects, due);
        }
    }

    /// Objects that this leader wrote and that no pointer will ever name. They wait the grace like all
    /// others, because a request of unknown outcome may still create one of them.
    pub(super) fn abandon(&self, lane: &mut Lane, objects: Vec<(Key, Uuid)>) {
        lane.doom(objects, self.clock.now_ms() + self.config.grace_ms);
    }

    /// The data objects that a step brings: those of an expiry are not its own.
    fn objects(&self, step: &Step) -> Vec<(Key, Uuid)> {
        match step {
            Step::Append(entries) => {
                entries.iter().map(|entry| (self.store.layout().data(entry), entry.object.key.uuid)).collect()
            }
            Step::Expire(..) => Vec::new(),
        }
    }

    async fn draft(
        &self,
        lane: &Lane,
        local: &LocalState,
        step: &Step,
        written: &mut Vec<(Key, Uuid)>,
    ) -> Result<Attempt, RoundError> {
        let old = &lane.pointer;
        let old_root = old.root.map(|root| (self.store.layout().root(lane.tp, &root), root.uuid));
        let mut root = None;
        let next = match step {
            Step::Expire(expiry, _) => plan::expired(old, expiry),
            Step::Append(entries) => {
                let base = plan::next_base(local, old);
                let reference = if plan::fits_tail(old, entries.len()) {
                    None
                } else {
                    let (reference, manifest) = self.write_root(lane, local, entries, written).await?;
                    root = Some(manifest);
                    Some(reference)
                };
                plan::appended(old, entries, base, reference)
            }
        };
        let next = TierPointer {
            leader_epoch: local.leader_epoch,
            committed_at: self.clock.now_ms(),
            request: self.entropy.uuid(),
            ..next
        };
        if root.is_none() && next.root.is_some() {
            root = self.cached_root(&next);
        }
        check_commit(old, &next, root.as_deref())?;
        let entries = match (&root, next.root) {
            (None, Some(_)) => lane.entries.map(|count| count + step.added()),
            (root, _) => Some(View::new(&next, root.as_deref()).count()),
        };
        Ok(Attempt {
            commit: Commit {
                tp: lane.tp,
                leader_epoch: local.leader_epoch,
                expected_generation: old.generation,
                request: next.request,
                pointer: next.clone(),
            },
            step: step.clone(),
            written: std::mem::take(written),
            replaced: old_root.filter(|_| next.root != old.root).into_iter().collect(),
            entries,
        })
    }

    fn cached_root(&self, pointer: &TierPointer) -> Option<Arc<Manifest>> {
        match self.manifests.get(pointer.root?.uuid)? {
            Cached::Root(root) => Some(root),
            Cached::Leaf(_) => None,
        }
    }

    /// Writes the root that holds everything up to and including `entries`, and the leaves it spills
    /// into. What was written is noted in `written` before it is tried, for an attempt may succeed
    /// without our knowing.
    async fn write_root(
        &self,
        lane: &Lane,
        local: &LocalState,
        entries: &[Entry],
        written: &mut Vec<(Key, Uuid)>,
    ) -> Result<(RootRef, Arc<Manifest>), RoundError> {
        let old = &lane.pointer;
        let before = match &old.root {
            Some(reference) if !old.is_empty() => self.root(lane.tp, reference).await?,
            _ => Arc::default(),
        };
        let mut manifest = plan::folded(&before, old, entries, &lane.points)?;
        while let Some(leaf) = manifest.full_leaf(self.config.leaf_entries) {
            let reference = self.write_leaf(lane, local, leaf, written).await?;
            manifest = manifest.apply(&Change::Spill { leaf: reference })?;
        }
        let bytes = manifest.encode(lane.tp);
        let reference = RootRef {
            uuid: self.entropy.uuid(),
            generation: old.generation + 1,
            leader_epoch: local.leader_epoch,
            size: bytes.len() as u64,
            crc: crc32c::crc32c(&bytes),
        };
        let key = self.store.layout().root(lane.tp, &reference);
        written.push((key.clone(), reference.uuid));
        if planted(Bug::PointerBeforeManifest) {
            self.create_too_late(&key, &[bytes]);
        } else {
            self.create(lane.tp, "writing a manifest root", &key, &[bytes]).await?;
        }
        let manifest = Arc::new(manifest);
        self.manifests.put(reference.uuid, Cached::Root(manifest.clone()), reference.size);
        Ok((reference, manifest))
    }

    async fn write_leaf(
        &self,
        lane: &Lane,
        local: &LocalState,
        leaf: Leaf,
        written: &mut Vec<(Key, Uuid)>,
    ) -> Result<LeafRef, RoundError> {
        let uuid = self.entropy.uuid();
        let (bytes, reference) = leaf.encode(lane.tp, uuid, local.leader_epoch).expect("a full leaf has entries");
        let key = self.store.layout().leaf(lane.tp, &reference);
        written.push((key.clone(), uuid));
        self.create(lane.tp, "writing a manifest leaf", &key, &[bytes]).await?;
        self.manifests.put(uuid, Cached::Leaf(Arc::new(leaf)), reference.size);
        Ok(reference)
    }
}

impl Step {
    /// Whether the step still makes sense on a pointer that moved on.
    fn applies(&self, pointer: &TierPointer, local: &LocalState) -> bool {
        match self {
            Self::Append(entries) => {
                let base = plan::next_base(local, pointer);
                entries.first().is_some_and(|first| first.base == base && pointer.log_start <= base)
            }
            // What expires is decided anew: nothing was written for it.
            Self::Expire(..) => false,
        }
    }

    const fn added(&self) -> u64 {
        match self {
            Self::Append(entries) => entries.len() as u64,
            Self::Expire(..) => 0,
        }
    }
}

impl Attempt {
    /// Whether `pointer`, of a later generation, contains what this attempt wanted.
    fn landed_in(&self, pointer: &TierPointer) -> bool {
        if pointer.request == self.commit.request {
            return true;
        }
        let wanted = &self.commit.pointer;
        match &self.step {
            Step::Expire(..) => pointer.tier_start == wanted.tier_start && pointer.log_start >= wanted.log_start,
            // Between this request and the read only a new log start can have been committed, which
            // touches neither root nor tail.
            Step::Append(entries) => {
                let last = entries.last().map(|entry| entry.object.key.uuid);
                let in_tail = pointer.tail.last().map(|entry| entry.object.key.uuid) == last && last.is_some();
                in_tail || (wanted.root.is_some() && wanted.tail.is_empty() && pointer.root == wanted.root)
            }
        }
    }
}
