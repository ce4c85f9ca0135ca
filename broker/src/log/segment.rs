//! Segment files: their names, and opening them when they are first needed.
//!
//! A partition's folder holds, named by offset with 20 digits as Kafka does: `.log` (batches, back to back),
//! `.idx` ([`super::index::SegmentSummary`]), `.snap` ([`super::snapshot::Snapshot`]); and `partition.firn`
//! ([`super::folder`]).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use proto::ids::Offset;

use crate::disk::{Disk, DiskError, DiskFile, OpenMode};

/// What a file in a partition's folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Record batches.
    Log,
    /// The segment's index.
    Index,
    /// The state of the log at the offset in the name.
    Snapshot,
}

impl FileKind {
    const fn extension(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Index => "idx",
            Self::Snapshot => "snap",
        }
    }
}

/// The name of a file for `offset`.
pub fn file_name(offset: Offset, kind: FileKind) -> String {
    format!("{offset:020}.{}", kind.extension())
}

/// What a name stands for, if it is one of ours.
pub fn parse_file_name(name: &str) -> Option<(Offset, FileKind)> {
    let (digits, extension) = name.split_once('.')?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let kind = [FileKind::Log, FileKind::Index, FileKind::Snapshot];
    let kind = kind.into_iter().find(|kind| kind.extension() == extension)?;
    Some((digits.parse().ok()?, kind))
}

/// One segment's file, opened at most once.
#[derive(Debug)]
pub struct Segment {
    /// First offset, inclusive.
    pub base: Offset,
    path: PathBuf,
    reader: OnceLock<Arc<dyn DiskFile>>,
    writer: OnceLock<Arc<dyn DiskFile>>,
    named: AtomicBool,
}

impl Segment {
    /// The segment `base` in `folder`, not opened yet.
    pub fn new(folder: &Path, base: Offset) -> Arc<Self> {
        let path = folder.join(file_name(base, FileKind::Log));
        Arc::new(Self { base, path, reader: OnceLock::new(), writer: OnceLock::new(), named: AtomicBool::new(false) })
    }

    /// Its file's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file if it is open.
    pub fn opened(&self) -> Option<&Arc<dyn DiskFile>> {
        self.writer.get().or_else(|| self.reader.get())
    }

    /// The file, opened to read; it must exist.
    ///
    /// # Errors
    /// The disk's.
    pub async fn open(&self, disk: &dyn Disk) -> Result<Arc<dyn DiskFile>, DiskError> {
        if let Some(file) = self.opened() {
            return Ok(Arc::clone(file));
        }
        let file = disk.open(&self.path, OpenMode::Read).await?;
        Ok(Arc::clone(self.reader.get_or_init(|| file)))
    }

    /// The file, opened to write, created if it is not there.
    ///
    /// # Errors
    /// The disk's.
    pub async fn create(&self, disk: &dyn Disk) -> Result<Arc<dyn DiskFile>, DiskError> {
        if let Some(file) = self.writer.get() {
            return Ok(Arc::clone(file));
        }
        let file = disk.open(&self.path, OpenMode::OpenOrCreate).await?;
        Ok(Arc::clone(self.writer.get_or_init(|| file)))
    }

    /// Whether its name may not be durable yet; asked once, by the writer, which then makes it so.
    pub fn is_new_name(&self) -> bool {
        !self.named.swap(true, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas() {
        assert_eq!(file_name(42, FileKind::Log), "00000000000000000042.log");
        assert_eq!(file_name(i64::MAX, FileKind::Snapshot), "09223372036854775807.snap");
        for (offset, kind) in [(0, FileKind::Log), (7, FileKind::Index), (i64::MAX, FileKind::Snapshot)] {
            assert_eq!(parse_file_name(&file_name(offset, kind)), Some((offset, kind)));
        }
        for other in
            ["", "x", "0.log", "0000000000000000004x.log", "00000000000000000042.timeindex", "00000000000000000042"]
        {
            assert_eq!(parse_file_name(other), None, "{other}");
        }
    }
}
