//! The parts on a real disk with real threads: what a simulation in one thread cannot interleave.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::host::{ManualClock, Spawner};
use proto::ids::{DirectoryId, Offset, Uuid};
use tokio::runtime::Handle;

use super::world::{NODE, batch, local, small_dir, small_journal, tp};
use crate::disk::LocalDisk;
use crate::log::folder::Folder;
use crate::log::observer::Unobserved;
use crate::log::segment::{FileKind, parse_file_name};
use crate::partition::*;

/// A change of files is carried out once it is durable, not when the next record happens to come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trimmed_files_go_without_another_append() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = DirSpec { id: DirectoryId(Uuid::from_u128(1)), path: home.path().to_owned(), broken: None };
    let partitions = Partitions::open(Open {
        node: NODE,
        disk: Arc::new(LocalDisk::new(Handle::current())),
        dirs: vec![dir.clone()],
        journal: small_journal(),
        dir: small_dir(),
        clock: Arc::new(ManualClock::new(1_000_000)),
        observer: Arc::new(Unobserved),
        boot: "boot".to_owned(),
        spawner: Spawner::single(Handle::current()),
    })
    .await
    .expect("a fresh directory");
    let handle = partitions.create(tp(0), "flights", dir.id, local()).await.expect("online");
    handle.lead(Leadership::alone(NODE, 0));
    let folder = dir.path.join(Folder::name(tp(0)));
    for round in 0..60 {
        for _ in 0..8 {
            append(&handle).await;
        }
        let end = handle.offsets().log_end;
        let Ok(Deletion::Local(done, _)) = handle.delete_records(end) else { panic!("it is not tiered") };
        done.await.expect("durable");
        let deadline = Instant::now() + Duration::from_secs(20);
        let kept = handle.segments().first().map_or(end, |segment| segment.base);
        while first_segment(&folder) < kept {
            assert!(Instant::now() < deadline, "round {round}: files of what was trimmed stay");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    partitions.close().await.expect("closed");
}

async fn append(handle: &PartitionHandle) {
    let batches = batch(1_000_000, &[&[7; 2000]]);
    let info = describe(&batches).expect("a batch that was just built");
    let appended = handle.append(Append {
        leader_epoch: None,
        batches: batches.clone(),
        info: &info,
        origin: Origin::Client,
        acks: Acks::All,
        now_ms: 1_000_000,
        log_append_time: None,
    });
    appended.expect("taken").acked.await.expect("durable");
}

/// Base offset of the oldest segment file; the end of time if there is none, or its folder was never needed so far.
fn first_segment(folder: &std::path::Path) -> Offset {
    let Ok(entries) = std::fs::read_dir(folder) else { return Offset::MAX };
    let names = entries.filter_map(Result::ok);
    let parsed = names.filter_map(|entry| parse_file_name(entry.file_name().to_str()?));
    parsed.filter(|(_, kind)| *kind == FileKind::Log).map(|(base, _)| base).min().unwrap_or(Offset::MAX)
}
