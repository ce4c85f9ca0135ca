//! Performs what [`plan`](crate::plan) decides: object, manifest root, pointer, in that order.
//!
//! A *lane* is what is remembered of a partition; a *round* settles what is in doubt, expires, uploads
//! and sweeps; the *schedule* says whose round runs. The invariants:
//!
//! - **POINTED**: the local log hears of a pointer ([`LocalLog::committed`](crate::ports::LocalLog)) only
//!   after the quorum accepted it, and nothing is deleted before a committed pointer stopped naming it.
//! - **FENCED**: a leader reads the pointer linearizably before its first plan, and every commit carries
//!   its epoch and the generation it was planned on.
//! - **Unknown outcomes**: an object whose PUT is in doubt is put again under the same name; a commit in
//!   doubt is settled before anything else is planned.
//! - **BOUNDED**: objects are admitted by bytes before they are read.
//! - A round may end at any await (a crash): what it left behind is found by the next leader's listing.
//!
//! It runs on the cold runtime; nothing that is acknowledged ever waits for it (ISOLATED).

mod backoff;
mod committer;
mod config;
mod context;
mod error;
mod expire;
mod handle;
mod lane;
mod round;
mod schedule;
mod settle;
mod status;
mod sweep;
mod upload;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::Mutex;
use proto::host::{Clock, Entropy, Spawner};
use tokio::sync::{Semaphore, mpsc, watch};

pub use backoff::Backoff;
pub use config::RunnerConfig;
pub use error::RoundError;
pub use handle::{FlushError, FlushProgress, RunnerHandle, UploadMemory};
pub use status::PartitionStatus;

use crate::ports::{LocalLog, Pointers};
use crate::store::Store;
use committer::Committer;
use context::{Context, ManifestCache};
use schedule::Schedule;
use status::Board;

/// Requests that may wait for the schedule.
const QUEUE: usize = 4096;

/// What the runner works with.
pub struct Parts {
    /// The object store.
    pub store: Store,
    /// The pointers.
    pub pointers: Arc<dyn Pointers>,
    /// The local logs.
    pub locals: Arc<dyn LocalLog>,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for names and waits.
    pub entropy: Arc<dyn Entropy>,
}

/// Starts the runner on the cold runtime.
pub fn start(config: RunnerConfig, parts: Parts, spawner: &Spawner) -> RunnerHandle {
    let (committer, committing) = Committer::new(Arc::clone(&parts.pointers));
    let budget_kib = usize::try_from(config.upload_budget_bytes >> 10).unwrap_or(usize::MAX);
    let budget_kib = budget_kib.clamp(1, Semaphore::MAX_PERMITS);
    let budget = Arc::new(Semaphore::new(budget_kib));
    let context = Arc::new(Context {
        budget: Arc::clone(&budget),
        manifests: ManifestCache::new(config.manifest_cache_bytes),
        troubles: Mutex::default(),
        config,
        store: parts.store,
        pointers: parts.pointers,
        locals: Arc::clone(&parts.locals),
        clock: parts.clock,
        entropy: parts.entropy,
        committer,
    });
    let board = Arc::new(Board::new());
    let (requests, inbox) = mpsc::channel(QUEUE);
    let (stopping, stopped) = watch::channel(false);
    let schedule = Schedule::new(context, Arc::clone(&board));
    spawner.spawn_cold(committing);
    spawner.spawn_cold(schedule.run(inbox, stopping));
    RunnerHandle { requests, board, locals: parts.locals, budget, budget_kib, stopped }
}
