//! What a disk can answer instead of doing what it was asked.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// An operation of the disk that failed, where, and with which error of the operating system.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {operation} {}: {errno}", path.display())]
pub struct DiskError {
    /// What was asked.
    pub operation: Operation,
    /// Of which file or directory.
    pub path: PathBuf,
    /// The answer.
    pub errno: Errno,
}

impl DiskError {
    /// `operation` on `path` was answered with `errno`.
    pub fn new(operation: Operation, path: &Path, errno: Errno) -> Self {
        Self { operation, path: path.to_owned(), errno }
    }

    /// No such file or directory.
    pub fn is_not_found(&self) -> bool {
        self.errno == Errno::NOENT
    }

    /// There is a file of that name already.
    pub fn is_already_there(&self) -> bool {
        self.errno == Errno::EXIST
    }

    /// The disk (or this user's share of it) is full: the same may be asked again once there is room. Never true of a
    /// sync, with which the kernel may have dropped what it had no room for: another would find nothing left to do, and
    /// succeed.
    pub fn is_full(&self) -> bool {
        let may_repeat = !matches!(self.operation, Operation::Sync | Operation::SyncDir);
        may_repeat && (self.errno == Errno::NOSPC || self.errno == Errno::DQUOT)
    }

    /// The operating system is short of descriptors or memory: nothing is wrong with the disk, and asking again may do.
    pub fn is_shortage(&self) -> bool {
        [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN, Errno::INTR].contains(&self.errno)
    }

    /// The disk, or this name on it, cannot be written.
    pub fn is_read_only(&self) -> bool {
        self.errno == Errno::ROFS || self.errno == Errno::ACCESS || self.errno == Errno::PERM
    }
}

/// The outcome of several operations: of errors, one that is not for want of space before one that is.
///
/// # Errors
/// If one of them failed.
pub fn worst(outcomes: impl IntoIterator<Item = Result<(), DiskError>>) -> Result<(), DiskError> {
    let errors = outcomes.into_iter().filter_map(Result::err);
    errors.min_by_key(DiskError::is_full).map_or(Ok(()), Err)
}

/// What can be asked of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Opening a file.
    Open,
    /// Creating a file or directory.
    Create,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Making contents durable.
    Sync,
    /// Writing and making durable in one.
    WriteSync,
    /// Changing the length, or reserving space.
    Resize,
    /// Renaming.
    Rename,
    /// Removing.
    Remove,
    /// Listing a directory.
    List,
    /// Making names durable.
    SyncDir,
    /// Asking for length or free space.
    Inspect,
    /// Starting a thread.
    Dedicate,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::WriteSync => "write and sync",
            Self::Resize => "resize",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::List => "list",
            Self::SyncDir => "sync directory",
            Self::Inspect => "inspect",
            Self::Dedicate => "start a thread for",
        })
    }
}
