//! Why a partition's round did not come to its end.

use crate::format::{BuildError, FormatError};
use crate::manifest::Violation;
use crate::ports::{CommitError, LocalError, PointerError};
use crate::store::StoreError;

/// The round is tried again after a wait, from a fresh plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoundError {
    /// The object store.
    #[error("object store: {doing}: {error}")]
    Store {
        /// What was being done.
        doing: &'static str,
        /// How it ended.
        #[source]
        error: StoreError,
    },
    /// The local log.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The batches of the local log.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Reading the pointer.
    #[error(transparent)]
    Pointer(#[from] PointerError),
    /// Committing the pointer.
    #[error("committing the pointer: {0}")]
    Commit(#[from] CommitError),
    /// An invariant would have been violated: a defect, nothing was committed.
    #[error("refusing to commit, invariant {0}")]
    Violation(#[from] Violation),
    /// A manifest in the store is not what the pointer says.
    #[error("manifest in the object store: {0}")]
    Manifest(#[from] FormatError),
}

impl RoundError {
    /// Whether the same request may succeed a little later.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Store { error, .. } if error.may_pass())
    }

    pub(super) const fn store(doing: &'static str) -> impl Fn(StoreError) -> Self {
        move |error| Self::Store { doing, error }
    }
}
