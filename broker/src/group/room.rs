//! Memory that the members of all groups together may hold (BOUNDED): what a member brings stays until it leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A bound in bytes shared by all shards. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct MemberRoom {
    held: Arc<AtomicUsize>,
    limit: usize,
}

impl MemberRoom {
    pub(super) fn new(limit: usize) -> Self {
        Self { held: Arc::default(), limit }
    }

    /// Whether `more` bytes fit beside what is held.
    pub(super) fn fits(&self, more: usize) -> bool {
        self.held().saturating_add(more) <= self.limit
    }

    /// Something that took `before` bytes now takes `after`.
    pub(super) fn moved(&self, before: usize, after: usize) {
        self.held.fetch_add(after, Relaxed);
        self.held.fetch_sub(before, Relaxed);
    }

    pub(super) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }
}
