//! Both disks against the conformance suite; what only one of them does, by itself.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proto::ids::{DirectoryId, NodeId, Uuid};
use rustix::io::Errno;
use tokio::runtime::Handle;

use super::meta::{Meta, MetaError};
use super::sim::Fault;
use super::*;

const DIR: &str = "/data";

async fn sim(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create_dir_all(Path::new(DIR)).await.expect("dir");
    disk
}

fn text(text: &'static str) -> Vec<Bytes> {
    vec![Bytes::from_static(text.as_bytes())]
}

#[tokio::test]
async fn the_local_disk_conforms() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = LocalDisk::new(Handle::current());
    conformance::check(Arc::new(disk), dir.path()).await;
}

#[tokio::test]
async fn the_simulated_disk_conforms_and_repeats_itself() {
    let mut prints = Vec::new();
    for seed in [1, 1, 2] {
        let disk = sim(seed).await;
        conformance::check(Arc::new(disk.clone()), Path::new(DIR)).await;
        prints.push((disk.fingerprint(), disk.changes()));
    }
    assert_eq!(prints[0], prints[1]);
}

#[tokio::test]
async fn a_power_cut_keeps_what_was_synced_and_anything_of_the_rest() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let disk = sim(seed).await;
        let path = Path::new(DIR).join("f");
        let file = disk.open(&path, OpenMode::CreateNew).await.expect("new");
        file.write_at(0, text("synced")).await.expect("write");
        file.sync_data().await.expect("sync");
        disk.sync_dir(Path::new(DIR)).await.expect("name");
        let later = vec![Bytes::from(vec![b'x'; 1024])];
        file.write_at(512, later).await.expect("write");
        let disk = disk.restart();
        let dead = file.read_at(0, 1).await.expect_err("handles die");
        assert_eq!(dead.errno, Errno::IO);
        let found = read_whole(&disk, &path).await.expect("read").expect("name");
        assert_eq!(found.get(..6), Some(&b"synced"[..]));
        let sector = |n: usize| found.get(512 * n).copied() == Some(b'x');
        outcomes.insert((sector(1), sector(2)));
    }
    assert_eq!(outcomes.len(), 4, "every combination of sectors occurs");
}

#[tokio::test]
async fn a_power_cut_forgets_names_that_were_not_synced() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let disk = sim(seed).await;
        for name in ["a", "b"] {
            let path = Path::new(DIR).join(name);
            disk.open(&path, OpenMode::CreateNew).await.expect("new");
        }
        let disk = disk.restart();
        let listed = disk.list(Path::new(DIR)).await.expect("list");
        let names: Vec<_> = listed.into_iter().map(|entry| entry.name).collect();
        assert!(["", "a", "ab"].contains(&names.concat().as_str()), "in order");
        outcomes.insert(names);
    }
    assert_eq!(outcomes.len(), 3);
}

#[tokio::test]
async fn the_change_during_which_power_fails_is_neither_reported_nor_certain() {
    let mut survived = 0;
    for seed in 0..40 {
        let disk = sim(seed).await;
        let path = Path::new(DIR).join("f");
        let file = disk.open(&path, OpenMode::CreateNew).await.expect("new");
        disk.sync_dir(Path::new(DIR)).await.expect("name");
        let direct = disk.open(&path, OpenMode::Direct).await.expect("direct");
        disk.cut_power_at(disk.changes());
        let data = conformance::aligned(BLOCK);
        let cut = direct.write_sync_at(0, data.clone()).await;
        assert_eq!(cut.expect_err("power").errno, Errno::IO);
        assert!(!disk.is_powered());
        assert!(file.sync_data().await.is_err(), "nothing works without power");
        let disk = disk.restart();
        let found = read_whole(&disk, &path).await.expect("read");
        survived += usize::from(found == Some(data));
    }
    assert!((1..40).contains(&survived), "{survived} of 40");
}

#[tokio::test]
async fn a_failed_sync_loses_the_data_for_good() {
    let disk = sim(3).await;
    let path = Path::new(DIR).join("f");
    let file = disk.open(&path, OpenMode::CreateNew).await.expect("new");
    disk.sync_dir(Path::new(DIR)).await.expect("name");
    disk.inject(Fault { operation: Operation::Sync, path: "/f".into(), skip: 0, times: 1, errno: Errno::IO });
    file.write_at(0, text("lost")).await.expect("write");
    file.sync_data().await.expect_err("injected");
    file.sync_data().await.expect("the kernel forgot");
    assert_eq!(file.read_at(0, 9).await.expect("read"), "lost");
    let disk = disk.restart();
    let found = read_whole(&disk, &path).await.expect("read");
    assert_eq!(found.expect("name"), "");
}

#[tokio::test]
async fn a_full_and_a_read_only_disk_say_so() {
    let disk = sim(4).await;
    let path = Path::new(DIR).join("f");
    let file = disk.open(&path, OpenMode::CreateNew).await.expect("new");
    disk.set_capacity(4);
    file.write_at(0, text("1234")).await.expect("fits");
    let full = file.write_at(4, text("5")).await.expect_err("full");
    assert!(full.is_full(), "{full}");
    assert_eq!(full.to_string(), "cannot write /data/f: No space left on device (os error 28)");
    disk.set_read_only(true);
    let refused = file.write_at(0, text("1")).await.expect_err("read-only");
    assert!(refused.is_read_only(), "{refused}");
    let refused = disk.open(&path, OpenMode::Write).await;
    assert!(refused.expect_err("read-only").is_read_only());
    assert_eq!(file.read_at(0, 9).await.expect("reads go on"), "1234");
}

#[tokio::test]
async fn a_directory_is_free_when_its_process_is_gone() {
    let disk = sim(6).await;
    let dir = Path::new(DIR);
    let dead = disk.lock(dir).await.expect("free");
    let disk = disk.restart_process();
    let held = disk.lock(dir).await.expect("free again");
    // What an earlier boot left changes nothing.
    drop(dead);
    assert!(disk.lock(dir).await.is_err());
    drop(held);
    assert!(disk.lock(dir).await.is_ok());
}

#[tokio::test]
async fn a_directory_belongs_to_one_cluster_and_node() {
    let disk = sim(5).await;
    let dir = Path::new(DIR);
    let id = DirectoryId(Uuid::from_u128(7));
    let other = DirectoryId(Uuid::from_u128(8));
    let claimed = Meta::claim(&disk, dir, "mine", NodeId(1), id).await;
    let claimed = claimed.expect("fresh");
    let disk = disk.restart();
    let again = Meta::claim(&disk, dir, "mine", NodeId(1), other).await;
    assert_eq!(again.expect("known"), claimed);
    assert_eq!(claimed.directory_id, id);
    let foreign = Meta::claim(&disk, dir, "other", NodeId(1), id).await;
    assert_eq!(
        foreign.expect_err("foreign").to_string(),
        "data directory /data belongs to cluster mine, this node to cluster other"
    );
    let foreign = Meta::claim(&disk, dir, "mine", NodeId(2), id).await;
    assert_eq!(foreign.expect_err("foreign").to_string(), "data directory /data belongs to node 1, this is node 2");
}

/// What every later version must be able to read.
#[tokio::test]
async fn meta_has_its_golden_bytes() {
    const GOLDEN: &[u8] = include_bytes!("../../tests/golden/meta-v1.json");
    let (disk, dir) = (sim(7).await, Path::new(DIR));
    let id = DirectoryId(Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10));
    let meta = Meta::claim(&disk, dir, "AAECAwQFBgcICQoLDA0ODw", NodeId(3), id).await.expect("fresh");
    let written = read_whole(&disk, &dir.join(meta::NAME)).await.expect("read").expect("there");
    assert_eq!(written, GOLDEN, "{}", String::from_utf8_lossy(&written));
    let other = sim(8).await;
    replace(&other, dir, meta::NAME, Bytes::from_static(GOLDEN)).await.expect("write");
    assert_eq!(Meta::load(&other, dir).await, Ok(Some(meta)));
}

#[tokio::test]
async fn a_directory_keeps_to_its_object_store() {
    let (disk, dir) = (sim(9).await, Path::new(DIR));
    let id = DirectoryId(Uuid::from_u128(1));
    // One without a note, as earlier versions left it, takes the first store.
    let claim = async || Meta::claim(&disk, dir, "cluster", NodeId(3), id).await.expect("ours");
    claim().await.settle(&disk, dir, meta::OWN_BUCKET, false).await.expect("noted");
    claim().await.settle(&disk, dir, meta::OWN_BUCKET, false).await.expect("the same");
    let refused = claim().await.settle(&disk, dir, "s3://other/prefix", false).await.expect_err("another");
    let said = refused.to_string();
    assert!(said.contains("of its own (the folder bucket in it), and is given s3://other/prefix now"), "{said}");
    assert_eq!(claim().await.object_store.as_deref(), Some(meta::OWN_BUCKET));
    claim().await.settle(&disk, dir, "file:///moved", true).await.expect("what it had was moved there");
    assert_eq!(claim().await.object_store.as_deref(), Some("file:///moved"));
}

#[tokio::test]
async fn a_damaged_or_newer_meta_is_not_guessed_at() {
    let disk = sim(6).await;
    let dir = Path::new(DIR);
    let contents = Bytes::from_static(b"{\"format\": 2, \"something\": \"new\"}");
    replace(&disk, dir, meta::NAME, contents).await.expect("write");
    let newer = Meta::load(&disk, dir).await;
    assert!(matches!(newer, Err(MetaError::Format { found: 2, .. })));
    let contents = Bytes::from_static(b"{\"format\": 1");
    replace(&disk, dir, meta::NAME, contents).await.expect("write");
    let damaged = Meta::load(&disk, dir).await;
    assert!(matches!(damaged, Err(MetaError::Damaged { .. })));
}
