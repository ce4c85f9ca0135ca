//! One process per data directory.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

/// Name of the file that carries the lock, as in Kafka's log directories.
const NAME: &str = ".lock";

/// What holds a data directory for its process, until it is dropped.
pub trait DirectoryGuard: std::fmt::Debug + Send + Sync {}

impl DirectoryGuard for DirectoryLock {}

/// Held as long as this process uses the directory. The kernel lets go of it when the process ends, however
/// it ends.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: OwnedFd,
}

/// Why a data directory cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("data directory {} is in use by another process", directory.display())]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// The lock file cannot be made.
    #[error("cannot lock data directory {}: {errno}", directory.display())]
    Refused {
        /// The directory.
        directory: PathBuf,
        /// What the operating system said.
        errno: Errno,
    },
}

impl DirectoryLock {
    /// Takes the lock of an existing directory without waiting.
    ///
    /// # Errors
    /// [`LockError::InUse`] if another process (or another lock of this one) holds it.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let refused = |errno| LockError::Refused { directory: directory.to_owned(), errno };
        let file = rustix::fs::open(
            directory.join(NAME),
            OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o644),
        )
        .map_err(refused)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(LockError::InUse { directory: directory.to_owned() }),
            Err(errno) => Err(refused(errno)),
        }
    }
}
