//! What every [`Disk`] must do, run against each of them.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::{BLOCK, Disk, EntryKind, LockError, OpenMode, Operation, read_whole, replace};

/// Checks `disk` in `dir`, an existing empty directory.
///
/// # Panics
/// On the first thing that is not as [`Disk`] says.
pub async fn check(disk: Arc<dyn Disk>, dir: &Path) {
    names(&*disk, dir).await;
    contents(&*disk, dir).await;
    synced_writes(&disk, dir).await;
    whole_files(&*disk, dir).await;
    locks(&*disk, dir).await;
    let space = disk.space(dir).await.expect("space");
    assert!(space.free <= space.total && space.total > 0);
}

async fn locks(disk: &dyn Disk, dir: &Path) {
    let held = disk.lock(dir).await.expect("free");
    let refused = disk.lock(dir).await.expect_err("held");
    assert_eq!(refused.to_string(), format!("data directory {} is in use by another process", dir.display()));
    drop(held);
    drop(disk.lock(dir).await.expect("free again"));
    let nowhere = disk.lock(&dir.join("missing")).await;
    assert!(matches!(nowhere, Err(LockError::Refused { errno: Errno::NOENT, .. })));
}

async fn names(disk: &dyn Disk, dir: &Path) {
    let file = dir.join("b");
    let missing = disk.open(&file, OpenMode::Read).await.expect_err("no file");
    assert!(missing.is_not_found(), "{missing}");
    assert_eq!(missing.operation, Operation::Open);
    assert_eq!(missing.path, file);
    disk.open(&file, OpenMode::CreateNew).await.expect("create");
    let again = disk.open(&file, OpenMode::CreateNew).await;
    assert!(again.expect_err("it exists").is_already_there());
    let deep = dir.join("a/deep/directory");
    for _ in 0..2 {
        disk.create_dir_all(&deep).await.expect("directories");
    }
    disk.open(&deep.join("leaf"), OpenMode::OpenOrCreate).await.expect("create inside");
    let listed = disk.list(dir).await.expect("list");
    let seen: Vec<_> = listed.iter().map(|entry| (entry.name.as_str(), entry.kind)).collect();
    assert_eq!(seen, [("a", EntryKind::Directory), ("b", EntryKind::File)], "ordered by name, one level only");
    let renamed = dir.join("c");
    disk.rename(&file, &renamed).await.expect("rename");
    disk.sync_dir(dir).await.expect("sync directory");
    assert!(disk.open(&file, OpenMode::Write).await.is_err());
    disk.open(&renamed, OpenMode::Write).await.expect("renamed");
    for _ in 0..2 {
        disk.remove_dir_all(&dir.join("a")).await.expect("removing what is gone is fine");
    }
    disk.remove(&renamed).await.expect("remove");
    let gone = disk.remove(&renamed).await.expect_err("gone");
    assert!(gone.is_not_found(), "{gone}");
    assert_eq!(disk.list(dir).await.expect("list"), []);
    let nowhere = dir.join("no/such");
    assert!(disk.list(&nowhere).await.is_err());
    let orphan = disk.open(&nowhere.join("x"), OpenMode::CreateNew).await;
    assert!(orphan.expect_err("no parent").is_not_found());
}

async fn contents(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("contents");
    let file = disk.open(&path, OpenMode::OpenOrCreate).await.expect("new");
    assert_eq!(file.path(), path);
    assert_eq!(file.size().await.expect("size"), 0);
    assert_eq!(file.read_at(5, 10).await.expect("read"), "");
    let pieces = ["one ", "", "two ", "three"].map(Bytes::from);
    file.write_at(3, pieces.to_vec()).await.expect("write");
    assert_eq!(file.read_at(0, 100).await.expect("read"), "\0\0\0one two three");
    assert_eq!(file.read_at(7, 3).await.expect("read"), "two");
    let many: Vec<_> = (0..3000u32).map(|n| Bytes::copy_from_slice(&n.to_le_bytes())).collect();
    file.write_at(100, many.clone()).await.expect("many pieces");
    assert_eq!(file.read_at(100, 12_000).await.expect("read"), many.concat());
    assert_eq!(file.size().await.expect("size"), 12_100);
    // Much at once, off any block: it may take another way to the disk than little does.
    let much: Vec<_> = (0..40u8).map(|n| Bytes::from(vec![n; 10_001])).collect();
    for at in [12_100, 412_140] {
        file.write_at(at, much.clone()).await.expect("much");
        assert!(file.read_at(at, 400_040).await.expect("read") == much.concat(), "written at {at}");
    }
    assert_eq!(file.read_at(100, 12_000).await.expect("read"), many.concat(), "what lies before is as it was");
    if let Some(cached) = file.read_at_nowait(3, 7).expect("read what is cached") {
        assert!(b"one two".starts_with(&cached), "{cached:?}");
    }
    file.sync_data().await.expect("sync");
    file.set_len(6).await.expect("cut");
    file.set_len(8).await.expect("extend");
    assert_eq!(file.read_at(0, 100).await.expect("read"), "\0\0\0one\0\0");
    assert_eq!(file.read_at_nowait(8, 1).expect("end").unwrap_or_default(), "");
    file.allocate(0, 1 << 16).await.expect("allocate");
    assert_eq!(file.size().await.expect("size"), 8, "only reserved");
    file.evict(0, 8).await.expect("evict");

    let reader = disk.open(&path, OpenMode::Read).await.expect("reader");
    let refused = reader.write_at(0, vec![Bytes::from_static(b"x")]).await;
    assert!(refused.is_err(), "opened for reading");
    disk.remove(&path).await.expect("remove");
    assert_eq!(reader.read_at(3, 3).await.expect("read"), "one", "an open file outlives its name");
}

async fn synced_writes(disk: &Arc<dyn Disk>, dir: &Path) {
    let path = dir.join("synced");
    disk.open(&path, OpenMode::CreateNew).await.expect("new");
    let file = disk.open(&path, OpenMode::Direct).await.expect("direct");
    let len = 64 * BLOCK as u64;
    file.zero_fill(len).await.expect("zeros");
    assert_eq!(file.size().await.expect("size"), len);
    let data = aligned(3 * BLOCK);
    let (done, outcome) = oneshot::channel();
    let (writer, bytes) = (Arc::clone(&file), data.clone());
    let work = async move {
        let at = BLOCK as u64;
        let first = writer.write_sync_at(at, bytes.clone()).await;
        let skewed = writer.write_sync_at(at + 1, bytes.clone()).await;
        let short = writer.write_sync_at(at, bytes.slice(..BLOCK - 1)).await;
        // Whoever waits is gone only if the check has failed already.
        let _ = done.send((first, skewed, short));
    };
    disk.dedicate("conformance", Box::pin(work)).expect("a thread");
    let (first, skewed, short) = outcome.await.expect("the work ran to its end");
    first.expect("aligned");
    assert_eq!(skewed.expect_err("misaligned").errno, Errno::INVAL);
    assert_eq!(short.expect_err("misaligned").errno, Errno::INVAL);
    let reader = disk.open(&path, OpenMode::Read).await.expect("reader");
    let all = reader.read_at(0, usize::MAX).await.expect("read");
    assert_eq!(all.len() as u64, len);
    assert_eq!(all.slice(BLOCK..4 * BLOCK), data);
    assert!(all.iter().take(BLOCK).all(|byte| *byte == 0));
    assert!(all.iter().skip(4 * BLOCK).all(|byte| *byte == 0));
    disk.remove(&path).await.expect("remove");
}

async fn whole_files(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("whole");
    assert_eq!(read_whole(disk, &path).await.expect("none"), None);
    for text in ["a longer one", "short"] {
        let contents = Bytes::from_static(text.as_bytes());
        replace(disk, dir, "whole", contents.clone()).await.expect("replace");
        assert_eq!(read_whole(disk, &path).await.expect("read"), Some(contents));
    }
    assert_eq!(disk.list(dir).await.expect("list").len(), 1, "nothing is left over");
    disk.remove(&path).await.expect("remove");
}

/// Counting bytes in memory aligned to [`BLOCK`].
pub(super) fn aligned(len: usize) -> Bytes {
    let memory = Bytes::from(vec![0u8; len + BLOCK]);
    let skip = memory.as_ptr().align_offset(BLOCK);
    let mut memory = memory.try_into_mut().expect("nobody else has it");
    for (index, byte) in memory.iter_mut().skip(skip).take(len).enumerate() {
        *byte = (index % 251) as u8;
    }
    memory.freeze().slice(skip..skip + len)
}
