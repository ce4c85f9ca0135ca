//! A disk that has no room at a bad moment, or fails at one: what was acknowledged stays so, what was journaled is
//! carried out once there is room, nobody waits for ever, and other directories do not notice.

use std::sync::Arc;
use std::time::Duration;

use proto::host::{Clock, Spawner};
use proto::ids::TopicPartition;
use rustix::io::Errno;
use tokio::runtime::Handle;

use super::world::*;
use crate::disk::sim::Fault;
use crate::disk::{Disk, Operation, SimDisk};
use crate::journal;
use crate::log::dir::DirConfig;
use crate::log::folder::Folder;
use crate::log::observer::Unobserved;
use crate::partition::*;

/// Nothing takes so long, in simulated time.
const LONG: Duration = Duration::from_secs(600);

fn full(operation: Operation, path: &str, times: u64) -> Fault {
    Fault { operation, path: path.into(), skip: 0, times, errno: Errno::NOSPC }
}

/// Opens directories whose journals hold two files.
async fn with_tiny_journals(seed: u64, count: u32) -> World {
    let mut world = World::with_dirs(seed, count).await;
    world.partitions.close().await.expect("closed");
    world.disk = world.disk.restart();
    let opened = Partitions::open(Open {
        node: NODE,
        disk: Arc::new(world.disk.clone()),
        dirs: world.dirs.clone(),
        journal: journal::Config { max_bytes: 128 << 10, ..small_journal() },
        dir: DirConfig { max_backlog_bytes: 1 << 20, ..small_dir() },
        clock: Arc::clone(&world.clock) as Arc<dyn Clock>,
        observer: Arc::new(Unobserved),
        boot: "boot".to_owned(),
        spawner: Spawner::single(Handle::current()),
    });
    world.partitions = opened.await.expect("well");
    world
}

async fn lead_in(world: &World, dir: usize, index: i32) -> PartitionHandle {
    let directory = world.dirs[dir].id;
    let handle = world.partitions.create(tp(index), "flights", directory, local()).await.expect("online");
    handle.lead(Leadership::alone(NODE, 0));
    handle
}

/// Sends `count` batches with a value of `len` bytes, each once the one before is acknowledged.
async fn send(world: &World, handle: &PartitionHandle, count: usize, len: usize) -> Result<(), String> {
    for _ in 0..count {
        let waited = tokio::time::timeout(LONG, handle.admit(len + 100)).await.map_err(|_| "stuck in admission")?;
        let permit = waited.map_err(|offline| offline.to_string())?;
        let appended = append(world, handle, &batch(world.clock.now_ms(), &[&vec![7; len]]));
        drop(permit);
        let acked = appended.map_err(|error| error.to_string())?.acked;
        let outcome = tokio::time::timeout(LONG, acked).await.map_err(|_| "stuck unacknowledged")?;
        outcome.map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn exists(disk: &SimDisk, dir: &DirSpec, partition: TopicPartition) -> bool {
    let name = Folder::name(partition);
    disk.list(&dir.path).await.expect("a directory").iter().any(|entry| entry.name.starts_with(&name))
}

/// Lets a settling begin, and the first write to a new partition, or the removal of another, arrive while it is
/// under way, with `fault` to meet.
async fn settle_into(fault: Fault, seed: u64) -> (World, PartitionHandle) {
    let world = World::new(seed).await;
    let first = world.lead(0, local()).await;
    let removed = world.lead(2, local()).await;
    send(&world, &first, 3, 300).await.expect("well");
    send(&world, &removed, 1, 300).await.expect("well");
    tokio::time::sleep(Duration::from_millis(600)).await;
    world.disk.inject(fault);
    first.dir().settle_soon(tp(0));
    for _ in 0..seed % 24 {
        tokio::task::yield_now().await;
    }
    if seed.is_multiple_of(2) {
        // The directory may fail first.
        if let Ok(new) = world.partitions.create(tp(1), "flights", world.dirs[0].id, local()).await {
            new.lead(Leadership::alone(NODE, 0));
            let _ = append(&world, &new, &batch(1, &[&[7; 5000]]));
        }
    } else {
        world.partitions.remove(tp(2)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    (world, first)
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_without_room_is_stored_later_with_all_that_it_was_for() {
    for seed in 0..96 {
        for operation in [Operation::Create, Operation::Write] {
            let (mut world, first) = settle_into(full(operation, "checkpoint.firn", 1), seed).await;
            world.disk.heal();
            let other = world.lead(3, local()).await;
            send(&world, &other, 3, 3000).await.expect("there is room again");
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert!(!first.dir().is_offline(), "{}", first.dir().offline());
            world.disk.cut_power();
            world.reopen().await.expect("recovers");
            let first = world.lead(0, local()).await;
            assert_eq!(first.offsets().log_end, 3, "seed {seed}: acknowledged records");
            assert_eq!(read_all(&first, 0, 4096).await.len(), 3);
        }
    }
}

/// The kernel may have dropped what it could not write: trying again would find nothing left to do.
#[tokio::test(start_paused = true)]
async fn a_sync_without_room_is_final() {
    for seed in 0..48 {
        let (mut world, first) = settle_into(full(Operation::Sync, ".log", 1), seed).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(first.dir().is_offline(), "seed {seed}");
        world.disk.cut_power();
        world.reopen().await.expect("recovers");
        assert_eq!(world.lead(0, local()).await.offsets().log_end, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn records_deleted_while_the_disk_is_full_stay_deleted() {
    for seed in 0..12 {
        let mut world = World::new(seed).await;
        let handle = world.lead(0, local()).await;
        send(&world, &handle, 5, 1000).await.expect("well");
        world.disk.inject(full(Operation::Write, ".snap", u64::MAX));
        // The next segment's state waits for room.
        send(&world, &handle, 12, 1000).await.expect("well");
        tokio::time::sleep(Duration::from_millis(50 * seed)).await;
        let Ok(Deletion::Local(done, _)) = handle.delete_records(16) else { panic!("it is not tiered") };
        done.await.expect("durable");
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.disk.heal();
        let other = world.lead(1, local()).await;
        send(&world, &other, 3, 3000).await.expect("well");
        tokio::time::sleep(Duration::from_secs(20)).await;
        let names = world.disk.list(&world.dirs[0].path.join(Folder::name(tp(0)))).await.expect("there");
        let logs = names.iter().filter(|entry| entry.name.ends_with(".log")).count();
        assert!(logs <= 2, "seed {seed}: the trim is carried out: {names:?}");
        world.disk.cut_power();
        world.reopen().await.expect("recovers");
        let handle = world.lead(0, local()).await;
        let offsets = handle.offsets();
        assert_eq!((offsets.log_start, offsets.log_end), (16, 17), "seed {seed}");
    }
}

/// Its files are what makes room.
#[tokio::test(start_paused = true)]
async fn a_removal_that_the_disk_has_no_room_for_is_tried_again() {
    for (seed, operation) in [(1, Operation::Rename), (2, Operation::Remove), (3, Operation::Rename)] {
        let mut world = World::new(seed).await;
        let handle = world.lead(0, local()).await;
        send(&world, &handle, 8, 1000).await.expect("well");
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(exists(&world.disk, &world.dirs[0], tp(0)).await);
        world.disk.inject(full(operation, &Folder::name(tp(0)), 3));
        world.partitions.remove(tp(0)).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(!world.partitions.all_offline(), "{}", handle.dir().offline());
        assert!(!exists(&world.disk, &world.dirs[0], tp(0)).await, "{operation}");
        let other = world.lead(1, local()).await;
        send(&world, &other, 3, 1000).await.expect("well");
        world.disk.cut_power();
        world.reopen().await.expect("recovers");
        assert_eq!(world.partitions.all().len(), 1, "the removed one does not come back");
    }
}

#[tokio::test(start_paused = true)]
async fn a_trim_goes_on_where_the_state_it_needs_is_saved() {
    let world = World::new(3).await;
    let handle = world.lead(0, local()).await;
    send(&world, &handle, 12, 1000).await.expect("well");
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.disk.inject(full(Operation::Write, ".snap", u64::MAX));
    send(&world, &handle, 6, 1000).await.expect("well");
    let Ok(Deletion::Local(done, _)) = handle.delete_records(9) else { panic!("it is not tiered") };
    done.await.expect("durable");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let names = world.disk.list(&world.dirs[0].path.join(Folder::name(tp(0)))).await.expect("there");
    let first = names.iter().find(|entry| entry.name.ends_with(".log")).expect("a segment");
    assert!(!first.name.starts_with("00000000000000000000."), "room is made: {}", first.name);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_directory_that_fails_is_told_and_others_go_on() {
    let mut failed = 0;
    for skip in 0..40 {
        let world = Arc::new(with_tiny_journals(skip, 2).await);
        let mut senders = Vec::new();
        for index in 0..8 {
            let handle = lead_in(&world, 0, index).await;
            let world = Arc::clone(&world);
            senders.push(tokio::spawn(async move { send(&world, &handle, 400, 9000).await }));
        }
        world.disk.inject(Fault {
            operation: Operation::Sync,
            path: "/data0/".into(),
            skip,
            times: u64::MAX,
            errno: Errno::IO,
        });
        for sender in senders {
            let outcome = sender.await.expect("no panic");
            let error = outcome.expect_err("its directory failed");
            assert!(!error.contains("stuck"), "{skip}: {error}");
            failed += 1;
        }
        let other = lead_in(&world, 1, 100).await;
        send(&world, &other, 20, 9000).await.expect("the other directory is well");
        assert!(!other.dir().is_offline());
    }
    assert_eq!(failed, 320);
}

#[tokio::test(start_paused = true)]
async fn a_removed_partition_does_not_hold_up_a_journal_that_stands_still() {
    for seed in 0..8 {
        let mut world = with_tiny_journals(seed, 1).await;
        let doomed = lead_in(&world, 0, 0).await;
        // The journal fills up, and stands still.
        world.disk.inject(full(Operation::Write, ".log", u64::MAX));
        let mut waits = false;
        for _ in 0..40 {
            let sending = send(&world, &doomed, 1, 9000);
            waits = tokio::time::timeout(Duration::from_secs(20), sending).await.is_err();
            if waits {
                break;
            }
        }
        assert!(waits, "seed {seed}");
        world.partitions.remove(tp(0)).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.disk.heal();
        let other = lead_in(&world, 0, 1).await;
        send(&world, &other, 40, 9000).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!exists(&world.disk, &world.dirs[0], tp(0)).await);
        world.disk.cut_power();
        world.reopen().await.expect("recovers");
        assert_eq!(world.partitions.all().len(), 1);
        assert_eq!(world.lead(1, local()).await.offsets().log_end, 40);
    }
}

#[tokio::test(start_paused = true)]
async fn a_journal_waits_for_the_room_of_its_next_file() {
    for len in [9_000, 70_000] {
        let world = with_tiny_journals(5, 1).await;
        let handle = lead_in(&world, 0, 0).await;
        world.disk.inject(full(Operation::Write, "journal-", 6));
        send(&world, &handle, 30, len).await.expect("once there is room");
        assert!(!handle.dir().is_offline());
        assert_eq!(read_all(&handle, 0, 4096).await.len(), 30);
    }
}

/// Whatever it is that finds no room, twice in a row.
#[tokio::test(start_paused = true)]
async fn an_operation_without_room_is_made_up_for() {
    let operations = [Operation::Create, Operation::Write, Operation::Resize, Operation::Rename, Operation::Remove];
    for operation in operations {
        for skip in 0..40 {
            let mut world = World::new(skip).await;
            let handle = world.lead(0, local()).await;
            let doomed = world.lead(1, local()).await;
            send(&world, &handle, 6, 1500).await.expect("well");
            send(&world, &doomed, 3, 1500).await.expect("well");
            let fault = Fault { operation, path: "/data0/".into(), skip, times: 2, errno: Errno::NOSPC };
            world.disk.inject(fault);
            let what = format!("{operation}, {skip}");
            send(&world, &handle, 12, 1500).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            let Ok(Deletion::Local(done, _)) = handle.delete_records(9) else { panic!("it is not tiered") };
            done.await.expect("durable");
            world.partitions.remove(tp(1)).await;
            let new = world.lead(2, local()).await;
            send(&world, &new, 2, 1500).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            send(&world, &handle, 12, 1500).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert!(!handle.dir().is_offline(), "{what}: {}", handle.dir().offline());
            assert!(!exists(&world.disk, &world.dirs[0], tp(1)).await, "{what}");
            world.disk.heal();
            world.disk.cut_power();
            world.reopen().await.unwrap_or_else(|error| panic!("{what}: {error}"));
            let (handle, new) = (world.lead(0, local()).await, world.lead(2, local()).await);
            let offsets = handle.offsets();
            assert_eq!((offsets.log_start, offsets.log_end), (9, 30), "{what}");
            assert_eq!(read_all(&handle, 9, 4096).await.len(), 21, "{what}");
            assert_eq!(new.offsets().log_end, 2, "{what}");
            assert_eq!(world.partitions.all().len(), 2, "{what}");
        }
    }
}

/// The names of new segments are made durable though the first write that made some of them failed further on.
#[tokio::test(start_paused = true)]
async fn segments_of_a_write_that_did_not_fit_are_there_after_a_power_cut() {
    for seed in 0..16 {
        let mut world = World::new(seed).await;
        let handle = world.lead(0, local()).await;
        send(&world, &handle, 1, 300).await.expect("well");
        tokio::time::sleep(Duration::from_secs(5)).await;
        let fault = Fault { operation: Operation::Create, path: ".log".into(), skip: 1, times: 1, errno: Errno::NOSPC };
        world.disk.inject(fault);
        let mut last = None;
        for _ in 0..8 {
            last = Some(append(&world, &handle, &batch(1, &[&[7; 1500]])).expect("taken"));
        }
        last.expect("some").acked.await.expect("acknowledged");
        tokio::time::sleep(Duration::from_secs(10)).await;
        world.disk.cut_power();
        world.reopen().await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(world.lead(0, local()).await.offsets().log_end, 9);
    }
}
