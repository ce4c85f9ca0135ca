//! Bugs on purpose, to prove that the simulation would find them.
//!
//! In a build without debug assertions, as every release is, the question is answered `false` at compile time, and nothing of a bug is in
//! the binary. In those with them, which tests are, `plant` plants one for the whole process; only tests call it. So tests need no build
//! of their own for it. Each hook is one line, `if planted(Bug::X)`, at the place that would have to be wrong.

use std::fmt;
use std::str::FromStr;

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        /// What can be made wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Bug {
            $($(#[$doc])* $name),*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &'static [Bug] = &[$(Bug::$name),*];

            /// Its name on the command line and in tables.
            pub const fn name(self) -> &'static str {
                match self { $(Bug::$name => $text),* }
            }
        }
    };
}

bugs! {
    /// A leader takes its own log for durable before it was synced.
    AckBeforeSync = "ack-before-sync",
    /// acks=all is answered without waiting for the other replicas.
    AckBeforeReplication = "ack-before-replication",
    /// The high watermark advances with fewer than `min.insync.replicas` in sync.
    HwBelowMinIsr = "hw-below-min-isr",
    /// A follower cuts its log to its high watermark instead of by epoch (before KIP-101).
    TruncateByHw = "truncate-by-hw",
    /// Consumers are served what not all in-sync replicas have.
    FetchAboveHw = "fetch-above-hw",
    /// Requests and appends under an older leader epoch are taken.
    OlderLeaderEpochAccepted = "older-leader-epoch-accepted",
    /// A broker that was replaced by a newer incarnation is still heard.
    ZombieNotFenced = "zombie-not-fenced",
    /// A leader takes its own proposal of in-sync replicas for decided.
    IsrWithoutController = "isr-without-controller",
    /// An election looks at no eligible leader replicas, and takes any that is alive (KIP-966).
    ElrIgnored = "elr-ignored",
    /// A voter answers before its vote is durable.
    VoteNotSynced = "vote-not-synced",
    /// A snapshot of the metadata claims an offset whose record it does not hold.
    SnapshotDropsLast = "snapshot-drops-last",
    /// The pointer is committed before the manifest root it names is written.
    PointerBeforeManifest = "pointer-before-manifest",
    /// The manifest root is written before the object it names.
    ManifestBeforeObject = "manifest-before-object",
    /// Local segments are dropped on the strength of a pointer that is not committed.
    TrimUncommitted = "trim-uncommitted",
    /// A commit of a tier pointer under an older leader epoch is taken.
    NoEpochInCommit = "no-epoch-in-commit",
    /// A PUT whose outcome is unknown is taken for failed.
    UnknownPutFailed = "unknown-put-failed",
    /// A PUT whose outcome is unknown is taken for done.
    UnknownPutDone = "unknown-put-done",
    /// A new leader does not know the producers of the old one.
    ProducersLostOnFailover = "producers-lost-on-failover",
    /// After a restart, a batch that is already in the log is appended again.
    DuplicateSequence = "duplicate-sequence",
    /// Recovery passes over what was cut from the log.
    ReplaySkipsTruncate = "replay-skips-truncate",
    /// Recovery keeps what was being written when power failed.
    TornTailKept = "torn-tail-kept",
    /// The tier's start goes back when the leader changes.
    TierStartBack = "tier-start-back",
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No bug has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no planted bug {0:?}")]
pub struct UnknownBug(String);

impl FromStr for Bug {
    type Err = UnknownBug;

    fn from_str(name: &str) -> Result<Bug, UnknownBug> {
        let found = Bug::ALL.iter().find(|bug| bug.name() == name);
        found.copied().ok_or_else(|| UnknownBug(name.to_owned()))
    }
}

/// Whether `bug` is planted in this process. Always false without debug assertions.
#[cfg(not(debug_assertions))]
#[inline]
pub const fn planted(_: Bug) -> bool {
    false
}

#[cfg(debug_assertions)]
mod switch {
    use super::Bug;
    use std::sync::atomic::{AtomicU8, Ordering};

    const NONE: u8 = u8::MAX;
    static PLANTED: AtomicU8 = AtomicU8::new(NONE);

    /// Whether `bug` is planted in this process.
    #[inline]
    pub fn planted(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as u8
    }

    /// Plants `bug` for the rest of this process, in place of whichever was planted before.
    pub fn plant(bug: Bug) {
        PLANTED.store(bug as u8, Ordering::Relaxed);
    }
}
#[cfg(debug_assertions)]
pub use switch::{plant, planted};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_is_found_by_its_name() {
        for bug in Bug::ALL {
            assert_eq!(bug.name().parse(), Ok(*bug));
        }
        assert!("none".parse::<Bug>().is_err());
        assert_eq!(Bug::ALL.len(), 22);
    }

    #[test]
    fn nothing_is_planted_by_itself() {
        assert!(Bug::ALL.iter().all(|bug| !planted(*bug)));
    }
}
