//! A disk that refuses: errors of every operation, no space, read-only, a damaged journal. One directory goes offline
//! with its own partitions and says why; what was acknowledged is there again once the disk is well.

use std::time::Duration;

use rustix::io::Errno;

use super::world::*;
use crate::disk::sim::Fault;
use crate::disk::{Disk, Operation};
use crate::log::config::LogConfig;
use crate::partition::*;

/// A partition of the directory `dir`, led.
async fn lead_in(world: &World, dir: usize, epoch: i32) -> PartitionHandle {
    let directory = world.dirs[dir].id;
    let handle = world.partitions.create(tp(dir as i32), "flights", directory, local()).await.expect("online");
    handle.lead(Leadership::alone(NODE, epoch));
    handle
}

/// Appends until `count` batches are acknowledged, or one is not.
async fn fill(world: &World, handle: &PartitionHandle, count: i64, acked: &mut Vec<Vec<u8>>) -> Result<(), String> {
    for _ in 0..count {
        let value = format!("value {} {}", acked.len(), "x".repeat(300)).into_bytes();
        let permit = tokio::time::timeout(Duration::from_secs(600), handle.admit(400)).await;
        let permit = permit.map_err(|_| "stuck".to_owned())?.map_err(|offline| offline.to_string())?;
        let appended = append(world, handle, &batch(world_now(world), &[&value])).map_err(|error| error.to_string())?;
        drop(permit);
        let outcome = tokio::time::timeout(Duration::from_secs(600), appended.acked).await;
        outcome.map_err(|_| "stuck".to_owned())?.map_err(|error| error.to_string())?;
        acked.push(value);
    }
    Ok(())
}

fn world_now(world: &World) -> i64 {
    proto::host::Clock::now_ms(&*world.clock)
}

/// What was acknowledged is a prefix of what is read, and nothing is there that was not sent.
async fn check(handle: &PartitionHandle, acked: &[Vec<u8>]) {
    let found: Vec<Vec<u8>> = read_all(handle, 0, 4096).await.into_iter().map(|(_, value)| value).collect();
    assert!(found.len() >= acked.len(), "{} of {} are left", found.len(), acked.len());
    assert!(found.starts_with(acked));
    assert!(found.len() <= acked.len() + 1, "only the one in flight may be there, too");
}

const OPERATIONS: [Operation; 12] = [
    Operation::Open,
    Operation::Create,
    Operation::Read,
    Operation::Write,
    Operation::Sync,
    Operation::WriteSync,
    Operation::Resize,
    Operation::Rename,
    Operation::Remove,
    Operation::List,
    Operation::SyncDir,
    Operation::Inspect,
];

#[tokio::test(start_paused = true)]
async fn an_error_of_any_operation_costs_one_directory_and_nothing_acknowledged() {
    let mut offline = 0;
    for operation in OPERATIONS {
        for skip in [0, 1, 2, 4, 7, 12, 20] {
            let mut world = World::with_dirs(skip * 31 + 5, 2).await;
            let (first, second) = (lead_in(&world, 0, 0).await, lead_in(&world, 1, 0).await);
            let mut acked = [Vec::new(), Vec::new()];
            fill(&world, &first, 5, &mut acked[0]).await.expect("well");
            world.disk.inject(Fault { operation, path: "/data0".into(), skip, times: 1, errno: Errno::IO });
            let mut failed = fill(&world, &first, 60, &mut acked[0]).await.err();
            tokio::time::sleep(Duration::from_secs(5)).await;
            fill(&world, &second, 60, &mut acked[1]).await.expect("the other directory is well");
            check(&second, &acked[1]).await;
            if failed.is_none() && !first.dir().is_offline() {
                // Reading may meet it yet.
                let read = read_once(&first, 0, 4096).await;
                failed = read.err().map(|error| error.to_string());
            }
            if first.dir().is_offline() {
                offline += 1;
                let said = first.dir().offline().to_string();
                assert!(said.contains("Input/output error") && said.contains("/data0"), "{operation}: {said}");
                // Its partitions are told by the writer.
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert_eq!(read_once(&first, 0, 100).await, Err(ReadError::Offline));
                assert!(!world.partitions.all_offline());
            } else {
                assert_eq!(failed, None, "{operation}, {skip}");
            }
            world.disk.heal();
            world.disk.cut_power();
            world.reopen().await.unwrap_or_else(|error| panic!("{operation}, {skip}: {error}"));
            let (first, second) = (lead_in(&world, 0, 1).await, lead_in(&world, 1, 1).await);
            check(&first, &acked[0]).await;
            check(&second, &acked[1]).await;
            let found = read_all(&first, 0, 4096).await.into_iter().map(|(_, value)| value);
            let mut again = found.collect();
            fill(&world, &first, 3, &mut again).await.expect("goes on");
        }
    }
    assert!(offline > 25, "{offline} directories went offline");
}

#[tokio::test(start_paused = true)]
async fn an_error_while_opening_leaves_the_other_directories() {
    for operation in OPERATIONS {
        let mut world = World::with_dirs(77, 2).await;
        let (first, second) = (lead_in(&world, 0, 0).await, lead_in(&world, 1, 0).await);
        let mut acked = [Vec::new(), Vec::new()];
        fill(&world, &first, 20, &mut acked[0]).await.expect("well");
        fill(&world, &second, 20, &mut acked[1]).await.expect("well");
        world.disk.cut_power();
        let fault = Fault { operation, path: "/data0".into(), skip: 0, times: u64::MAX, errno: Errno::IO };
        world.disk = world.disk.restart();
        world.disk.inject(fault);
        world.partitions = open(&world.disk, &world.dirs, &world.clock).await.expect("one is well");
        let dir = &world.partitions.dirs()[0];
        if dir.is_offline() {
            let said = dir.offline().to_string();
            assert!(said.contains("Input/output error") && said.contains("/data0"), "{said}");
        }
        check(&lead_in(&world, 1, 1).await, &acked[1]).await;
        world.disk.heal();
        world.disk.cut_power();
        world.reopen().await.expect("both are well");
        check(&lead_in(&world, 0, 2).await, &acked[0]).await;
        check(&lead_in(&world, 1, 2).await, &acked[1]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_full_for_a_while_loses_nothing() {
    for spare in [0, 100, 5_000, 20_000, 70_000] {
        let mut world = World::new(spare + 3).await;
        let handle = lead_in(&world, 0, 0).await;
        let mut acked = Vec::new();
        fill(&world, &handle, 30, &mut acked).await.expect("well");
        let used = world.disk.space(&world.dirs[0].path).await.expect("known");
        world.disk.set_capacity(used.total - used.free + spare);
        let mut stopped = None;
        for _ in 0..3_000 {
            let filling = tokio::time::timeout(Duration::from_secs(30), fill(&world, &handle, 1, &mut acked)).await;
            match filling {
                Ok(Ok(())) => {}
                Ok(Err(error)) => stopped = Some(error),
                Err(_) => stopped = Some("waits".to_owned()),
            }
            if stopped.is_some() {
                break;
            }
        }
        let stopped = stopped.expect("a full disk stops appends");
        assert!(!handle.dir().is_offline(), "{spare} to spare, {stopped}: {}", handle.dir().offline());
        let readable = read_all(&handle, 0, 4096).await;
        assert!(readable.len() >= acked.len(), "reads go on");
        world.disk.set_capacity(u64::MAX);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let mut now: Vec<Vec<u8>> = read_all(&handle, 0, 4096).await.into_iter().map(|(_, value)| value).collect();
        assert!(now.starts_with(&acked));
        fill(&world, &handle, 20, &mut now).await.expect("goes on");
        world.disk.cut_power();
        world.reopen().await.expect("recovers");
        check(&lead_in(&world, 0, 1).await, &now).await;
    }
}

#[tokio::test(start_paused = true)]
async fn appends_are_refused_before_the_reserve_is_touched() {
    let world = World::new(21).await;
    let handle = lead_in(&world, 0, 0).await;
    let mut acked = Vec::new();
    fill(&world, &handle, 10, &mut acked).await.expect("well");
    let used = world.disk.space(&world.dirs[0].path).await.expect("known");
    world.disk.set_capacity(used.total - used.free + 1000);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let refused = append(&world, &handle, &batch(1, &[b"no"])).err();
    assert_eq!(refused, Some(AppendError::DiskFull));
    check(&handle, &acked).await;
    world.disk.set_capacity(u64::MAX);
    tokio::time::sleep(Duration::from_secs(3)).await;
    fill(&world, &handle, 10, &mut acked).await.expect("goes on");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_became_read_only_is_named() {
    let mut world = World::new(22).await;
    let handle = lead_in(&world, 0, 0).await;
    let mut acked = Vec::new();
    fill(&world, &handle, 30, &mut acked).await.expect("well");
    world.disk.set_read_only(true);
    fill(&world, &handle, 1, &mut acked).await.expect_err("read-only");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let said = handle.dir().offline().to_string();
    assert!(said.contains("Read-only file system") && said.contains("/data0"), "{said}");
    world.disk = world.disk.restart();
    let refused = open(&world.disk, &world.dirs, &world.clock).await.err().expect("read-only");
    assert!(refused.to_string().contains("Read-only file system"), "{refused}");
    world.disk.set_read_only(false);
    world.reopen().await.expect("recovers");
    check(&lead_in(&world, 0, 1).await, &acked).await;
}

#[tokio::test(start_paused = true)]
async fn a_journal_damaged_where_it_was_durable_is_refused_and_only_that_one() {
    let mut world = World::with_dirs(23, 2).await;
    let (first, second) = (lead_in(&world, 0, 0).await, lead_in(&world, 1, 0).await);
    let mut acked = [Vec::new(), Vec::new()];
    fill(&world, &first, 10, &mut acked[0]).await.expect("well");
    fill(&world, &second, 10, &mut acked[1]).await.expect("well");
    world.disk.cut_power();
    world.disk = world.disk.restart();
    let journal = world.dirs[0].path.join("journal-0001.firn");
    world.disk.corrupt(&journal, 2 * 4096 + 100, 1).expect("there");
    world.partitions = open(&world.disk, &world.dirs, &world.clock).await.expect("one is well");
    let said = world.partitions.dirs()[0].offline().to_string();
    assert!(said.contains("journal-0001.firn is corrupt at byte 8192"), "{said}");
    check(&lead_in(&world, 1, 1).await, &acked[1]).await;
    // As it was: nothing was changed in a directory that is not understood.
    world.disk.corrupt(&journal, 2 * 4096 + 100, 1).expect("there");
    world.disk.cut_power();
    world.reopen().await.expect("both are well");
    check(&lead_in(&world, 0, 2).await, &acked[0]).await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_comes_again_under_its_own_id() {
    let mut world = World::new(24).await;
    for wait_ms in [0, 50, 3_000] {
        let config = LogConfig { segment_bytes: 1 << 10, ..local() };
        for round in 0..4 {
            let handle = world.lead(0, config.clone()).await;
            assert_eq!(handle.offsets().log_end, 0, "round {round}: it begins anew");
            let mut acked = Vec::new();
            fill(&world, &handle, 12, &mut acked).await.expect("well");
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            check(&handle, &acked).await;
            if round == 3 {
                world.disk.cut_power();
                world.reopen().await.expect("recovers");
                let handle = world.lead(0, config.clone()).await;
                check(&handle, &acked).await;
            }
            world.partitions.remove(tp(0)).await;
        }
    }
}

/// What one partition cannot write must not keep another's files on a disk that is full.
#[tokio::test(start_paused = true)]
async fn deleting_makes_room_on_a_full_disk() {
    let world = World::new(25).await;
    let directory = world.dirs[0].id;
    let mut handles = Vec::new();
    for index in 0..2 {
        let handle = world.partitions.create(tp(index), "flights", directory, local()).await.expect("online");
        handle.lead(Leadership::alone(NODE, 0));
        handles.push(handle);
    }
    let mut acked = [Vec::new(), Vec::new()];
    fill(&world, &handles[1], 100, &mut acked[1]).await.expect("well");
    // Between two looks at the free space.
    tokio::time::sleep(Duration::from_millis(5_050)).await;
    let used = world.disk.space(&world.dirs[0].path).await.expect("known");
    world.disk.set_capacity(used.total - used.free + 1_000);
    fill(&world, &handles[0], 3, &mut acked[0]).await.expect("the journal has room");
    tokio::time::sleep(Duration::from_millis(850)).await;
    world.partitions.remove(tp(1)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!handles[0].dir().is_offline(), "{}", handles[0].dir().offline());
    let freed = world.disk.space(&world.dirs[0].path).await.expect("known");
    assert!(freed.free > 20_000, "{} bytes are free", freed.free);
    world.disk.set_capacity(u64::MAX);
    tokio::time::sleep(Duration::from_secs(5)).await;
    fill(&world, &handles[0], 20, &mut acked[0]).await.expect("goes on");
    check(&handles[0], &acked[0]).await;
}

/// Whoever is done with a directory gives all of its memory back: groups and journal hold on to those they belong to.
#[tokio::test(start_paused = true)]
async fn nothing_stays_of_a_directory_that_was_left() {
    for way in ["closed", "failed"] {
        let world = World::new(26).await;
        let handle = lead_in(&world, 0, 0).await;
        fill(&world, &handle, 20, &mut Vec::new()).await.expect("well");
        let dir = std::sync::Arc::downgrade(handle.dir());
        if way == "closed" {
            world.partitions.close().await.expect("well");
        } else {
            world.disk.cut_power();
            fill(&world, &handle, 1, &mut Vec::new()).await.expect_err("no power");
        }
        drop((handle, world));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(dir.strong_count(), 0, "{way}");
    }
}
