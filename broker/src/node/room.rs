//! Room for objects where the object store is a directory of this machine.
//!
//! Uploads go on while records are refused for want of space, and may be on the same disk: they keep off the reserve
//! too, or they would take what the journal, checkpoints and the metadata need to go on.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tiering::store::Room;

use crate::disk::Disk;

/// A directory whose file system keeps `reserve_bytes` free.
#[derive(Debug)]
pub(super) struct DirectoryRoom {
    /// How the file system is asked.
    pub(super) disk: Arc<dyn Disk>,
    /// The store's directory.
    pub(super) directory: PathBuf,
    /// `firn.disk.reserve.bytes`.
    pub(super) reserve_bytes: u64,
}

#[async_trait]
impl Room for DirectoryRoom {
    async fn lacks(&self, bytes: u64) -> Option<String> {
        // A store that does not answer says so itself.
        let free = self.disk.space(&self.directory).await.ok()?.free;
        let (directory, reserve) = (self.directory.display(), self.reserve_bytes);
        (free < bytes.saturating_add(reserve))
            .then(|| format!("{directory} has {free} bytes free, {reserve} of them reserved (firn.disk.reserve.bytes)"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use object_store::memory::InMemory;
    use proto::ids::{TopicId, TopicPartition, Uuid};
    use tiering::store::{Created, Definite, Layout, NoMetrics, Store, Timeouts};

    use super::*;
    use crate::disk::{OpenMode, SimDisk};

    #[tokio::test]
    async fn objects_keep_off_the_reserve() {
        let disk = SimDisk::new(1);
        disk.set_capacity(1000);
        let directory = PathBuf::from("/bucket");
        disk.create_dir_all(&directory).await.expect("room");
        let room = DirectoryRoom { disk: Arc::new(disk.clone()), directory, reserve_bytes: 400 };
        assert_eq!(room.lacks(600).await, None);
        let why = room.lacks(601).await.expect("refused");
        assert_eq!(why, "/bucket has 1000 bytes free, 400 of them reserved (firn.disk.reserve.bytes)");
        let file = disk.open(Path::new("/bucket/other"), OpenMode::CreateNew).await.expect("opened");
        file.write_at(0, vec![Bytes::from_static(&[1; 500])]).await.expect("room");
        assert!(room.lacks(101).await.is_some());

        let layout = Layout::new("", "cluster");
        let key = layout.leaf_named(TopicPartition::new(TopicId(Uuid::from_u128(1)), 0), 0, 0, Uuid::from_u128(2));
        let store = Store::new(Arc::new(InMemory::new()), layout, Timeouts::default(), Arc::new(NoMetrics));
        let store = store.within(Arc::new(room));
        let refused = store.create(&key, &[Bytes::from_static(&[1; 101])]).await.expect_err("no room");
        assert_eq!(refused.kind(), Some(Definite::NoSpace));
        assert!(refused.may_pass(), "there may be room later");
        assert_eq!(store.create(&key, &[Bytes::from_static(&[1; 100])]).await, Ok(Created::Now));
    }
}
