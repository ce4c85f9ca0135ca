//! Replicas agree: whatever fails, what is committed stays as it is on every replica, and what was acknowledged to an
//! idempotent producer is there once.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use tokio::runtime::Builder;

use super::replicas::{Group, Pulled, REPLICAS, read_batches};
use crate::log::config::LogConfig;
use crate::partition::*;

/// What happened in all runs, for tests that must not be vacuous.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    acked: usize,
    duplicates: usize,
    pulls: usize,
    cuts: usize,
    started_over: usize,
    kills: usize,
    joined: usize,
    left: usize,
}

/// A producer with one batch in flight, which it sends again until it is acknowledged.
#[derive(Default)]
struct Producer {
    sequence: i32,
    sent: Option<(Bytes, i32)>,
    /// The answer, and from which life of which broker.
    waits: Option<(AckFuture, usize, i64)>,
}

struct Run {
    group: Group,
    producer: Producer,
    seen: Seen,
}

impl Run {
    /// Whoever believes to lead gets the batch: it may be wrong.
    fn produce(&mut self) {
        self.poll();
        let leaders: Vec<usize> =
            (0..REPLICAS).filter(|at| self.group.handle(*at).is_some_and(|handle| handle.leadership().leads)).collect();
        let Some(at) = leaders.get(self.group.draw(leaders.len().max(1))).copied() else { return };
        if self.producer.waits.is_some() && self.group.draw(4) > 0 {
            return;
        }
        if self.producer.sent.is_none() {
            let records = 1 + self.group.draw(4);
            let batch = self.group.build(self.producer.sequence, records);
            self.producer.sent = Some((batch, i32::try_from(records).expect("few")));
        }
        let Some(handle) = self.group.handle(at).cloned() else { return };
        let Some((batch, _)) = &self.producer.sent else { return };
        match self.group.append(&handle, batch) {
            Ok(appended) => {
                self.seen.duplicates += usize::from(appended.duplicate);
                self.producer.waits = Some((appended.acked, at, self.group.life(at)));
            }
            Err(AppendError::OutOfOrderSequence { .. }) => {
                let epoch = self.group.table.lock().epoch;
                assert!(handle.leadership().epoch < epoch, "only a leader of the past knows less of its producers");
            }
            Err(_) => {}
        }
    }

    fn poll(&mut self) {
        let Some((waits, at, life)) = &mut self.producer.waits else { return };
        if self.group.handle(*at).is_none() || self.group.life(*at) != *life {
            // The connection is gone with the process.
            self.producer.waits = None;
            return;
        }
        let Some(outcome) = waits.now_or_never() else { return };
        self.producer.waits = None;
        if outcome.is_ok() {
            self.acked();
        }
    }

    fn acked(&mut self) {
        if let Some((_, records)) = self.producer.sent.take() {
            self.producer.sequence += records;
            self.seen.acked += 1;
        }
    }

    async fn pull(&mut self, at: usize) {
        self.seen.pulls += 1;
        match self.group.pull(at).await {
            Pulled::Cut => self.seen.cuts += 1,
            Pulled::StartedOver => self.seen.started_over += 1,
            Pulled::Nothing | Pulled::Records => {}
        }
    }

    async fn act(&mut self) {
        let at = self.group.draw(REPLICAS);
        match self.group.draw(100) {
            0..33 => self.produce(),
            33..70 => self.pull(at).await,
            70..78 => self.group.deliver(at),
            78..85 => {
                let ms = [1, 5, 20, 300, 2_600][self.group.draw(5)];
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            85 => {
                let preferred = self.group.draw(REPLICAS);
                self.group.table.lock().elect(Some(preferred));
            }
            86 => {
                self.seen.kills += 1;
                let power = self.group.draw(2) == 0;
                self.group.kill(at, power);
            }
            88 => {
                // Power fails in the middle of something.
                let changes = self.group.replicas[at].disk.changes();
                let after = self.group.draw(12) as u64;
                self.group.replicas[at].disk.cut_power_at(changes + after);
            }
            87 | 89..96 => self.group.start(at).await,
            96 => {
                self.group.wipe(at);
            }
            97 => self.group.table.lock().lose = 1,
            _ => {
                self.group.compare(at).await;
                if let Some(handle) = self.group.handle(at).cloned() {
                    let to = handle.offsets().high_watermark - 3;
                    let _ = handle.delete_records(to.max(0));
                }
            }
        }
        self.group.bury();
        self.group.compare(at).await;
        self.poll();
    }

    /// Everything is well again: all catch up, join, and have the same.
    async fn settle(&mut self) {
        for _ in 0..400 {
            for at in 0..REPLICAS {
                self.group.start(at).await;
                self.group.deliver(at);
                self.pull(at).await;
            }
            self.group.bury();
            tokio::time::sleep(Duration::from_millis(30)).await;
            self.poll();
            if self.producer.sent.is_some() && self.producer.waits.is_none() {
                self.produce();
            }
            if self.is_settled() {
                return;
            }
        }
        let ends: Vec<_> = (0..REPLICAS).map(|at| self.group.handle(at).map(PartitionHandle::offsets)).collect();
        panic!("never settled: {ends:#?}, {:?}", self.group.table.lock());
    }

    fn is_settled(&self) -> bool {
        let ends: Vec<_> = (0..REPLICAS).filter_map(|at| self.group.handle(at).map(PartitionHandle::offsets)).collect();
        let end = ends.iter().map(|offsets| offsets.log_end).max().unwrap_or(0);
        let level = ends.iter().all(|offsets| offsets.high_watermark == end && offsets.log_end == end);
        level && ends.len() == REPLICAS && self.producer.sent.is_none() && self.group.table.lock().isr.len() == REPLICAS
    }

    async fn check(&mut self) {
        let offsets: Vec<_> = (0..REPLICAS).map(|at| self.group.handle(at).expect("running").offsets()).collect();
        // Who deleted what is told by the leader of the day: after the next election one may have more than it.
        let start = offsets.iter().map(|offsets| offsets.local_start).max().unwrap_or(0);
        let mut logs = Vec::new();
        for (at, offsets) in offsets.iter().enumerate() {
            self.group.compare(at).await;
            let handle = self.group.handle(at).expect("running").clone();
            logs.push(read_batches(&handle, start, offsets.log_end).await.expect("readable"));
        }
        assert!(logs.windows(2).all(|pair| pair[0] == pair[1]), "the logs are the same, byte by byte");
        let mut next = 0;
        for batch in self.group.committed() {
            let header = proto::records::BatchHeader::parse(batch).expect("a batch");
            assert_eq!(header.base_sequence, next, "each batch that was sent is there once, in order");
            next += header.last_offset_delta + 1;
        }
        assert_eq!(next, self.producer.sequence, "all that was acknowledged is there");
    }
}

fn run(seed: u64, acts: usize) -> Seen {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let named = Named(seed);
    let seen = runtime.block_on(async {
        let mut run = Run { group: Group::new(seed).await, producer: Producer::default(), seen: Seen::default() };
        for _ in 0..acts {
            run.act().await;
        }
        run.settle().await;
        run.check().await;
        (run.seen.joined, run.seen.left) = run.group.table.lock().changes;
        run.seen
    });
    std::mem::forget(named);
    seen
}

/// Says which run it was when a test panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        eprintln!("in the run of seed {}", self.0);
    }
}

/// `FIRN_TEST_RUNS=2000 cargo test -p broker agreement` tries as many runs instead of some dozens.
#[test]
fn replicas_agree_whatever_fails() {
    let runs = std::env::var("FIRN_TEST_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(40);
    let first = std::env::var("FIRN_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let mut total = Seen::default();
    for seed in first..first + runs {
        let seen = run(seed, 600);
        total.acked += seen.acked;
        total.duplicates += seen.duplicates;
        total.pulls += seen.pulls;
        total.cuts += seen.cuts;
        total.started_over += seen.started_over;
        total.kills += seen.kills;
        total.joined += seen.joined;
        total.left += seen.left;
    }
    println!("{runs} runs: {total:?}");
    let each = [total.acked, total.duplicates, total.cuts, total.started_over, total.kills, total.joined, total.left];
    assert!(first > 0 || each.iter().all(|count| *count > 0), "everything happens: {total:?}");
}

/// Appends batches to the leader and lets the others have them; answers the log end.
async fn fill(group: &mut Group, leader: usize, others: &[usize], sequences: std::ops::Range<i32>) -> i64 {
    for sequence in sequences {
        let batch = group.build(sequence, 1);
        let handle = group.handle(leader).expect("running").clone();
        drop(group.append(&handle, &batch).expect("it leads"));
    }
    level(group, leader, others).await;
    group.handle(leader).expect("running").offsets().log_end
}

/// Lets followers fetch until they have what their leader has, and know it.
async fn level(group: &mut Group, leader: usize, others: &[usize]) {
    for _ in 0..100 {
        for at in others {
            group.pull(*at).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        let end = group.handle(leader).expect("running").offsets();
        let has = |at: &usize| {
            let ends = group.handle(*at).expect("running").offsets();
            (ends.log_end, ends.high_watermark) == (end.log_end, end.log_end)
        };
        if others.iter().all(has) {
            return;
        }
    }
    panic!("they never have it all");
}

/// Some seconds in which these followers fetch: space is looked at, who lags drops out, who caught up joins.
async fn keep_up(group: &mut Group, followers: &[usize]) {
    for _ in 0..100 {
        for at in followers {
            group.pull(*at).await;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
        deliver_all(group);
    }
}

fn deliver_all(group: &Group) {
    for at in 0..REPLICAS {
        group.deliver(at);
    }
}

async fn batches_of(group: &Group, at: usize, from: i64) -> Vec<(i64, i64, Bytes)> {
    let handle = group.handle(at).expect("running");
    read_batches(handle, from, handle.offsets().log_end).await.expect("readable")
}

#[tokio::test(start_paused = true)]
async fn after_an_unclean_election_what_was_committed_is_cut() {
    let mut group = Group::new(1).await;
    fill(&mut group, 0, &[1, 2], 0..5).await;
    // The third is cut off and drops out; the others go on.
    group.table.lock().died(2);
    deliver_all(&group);
    assert_eq!(fill(&mut group, 0, &[1], 5..12).await, 12);
    assert_eq!(group.handle(1).expect("running").offsets().high_watermark, 12);
    // Then it is the only one that is left, and somebody wants service at any price.
    group.kill(0, false);
    group.table.lock().died(1);
    {
        let mut table = group.table.lock();
        table.alive[2] = true;
        (table.epoch, table.leader, table.isr, table.recovering) = (2_000, Some(2), vec![2], true);
        table.version += 1;
    }
    group.deliver(2);
    let batch = group.build(5, 1);
    let third = group.handle(2).expect("running").clone();
    third.configure(LogConfig { min_insync_replicas: 1, ..group.config.clone() });
    drop(group.append(&third, &batch).expect("it leads"));
    // One that never stopped has to take back what it counted as committed; it may join then, and the leader recovered.
    group.table.lock().alive[1] = true;
    deliver_all(&group);
    assert_eq!(group.pull(1).await, Pulled::Cut);
    let ends = group.handle(1).expect("running").offsets();
    assert_eq!((ends.high_watermark, ends.log_end), (5, 5));
    for _ in 0..20 {
        group.pull(1).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        deliver_all(&group);
    }
    let table = group.table.lock().clone();
    assert_eq!((table.isr, table.recovering), (vec![1, 2], false));
    assert_eq!(group.handle(1).expect("running").offsets().high_watermark, 6);
    assert_eq!(batches_of(&group, 1, 0).await, batches_of(&group, 2, 0).await);
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_contradicts_the_tier_starts_over_at_its_end() {
    let mut group = Group::new(2).await;
    group.config = LogConfig { remote: true, ..group.config.clone() };
    for at in 0..REPLICAS {
        group.handle(at).expect("running").configure(group.config.clone());
    }
    fill(&mut group, 0, &[1, 2], 0..4).await;
    // The first goes on alone, without being believed; the second leads, and the tier takes what it has.
    let first = group.handle(0).expect("running").clone();
    for sequence in 4..9 {
        drop(group.append(&first, &group.build(sequence, 1)).expect("it thinks that it leads"));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    group.table.lock().elect(Some(1));
    group.table.lock().isr = vec![1, 2];
    group.deliver(1);
    group.deliver(2);
    fill(&mut group, 1, &[2], 4..7).await;
    let second = group.handle(1).expect("running").clone();
    let state = second.state_at(6).await.expect("a batch border");
    let pointer = proto::metadata::TierPointer {
        generation: 1,
        tier_end: 6,
        end_epoch: state.epochs.latest().expect("there are records"),
        ..Default::default()
    };
    assert_eq!(second.contradiction(&pointer, None), Contradiction::None);
    assert_eq!(first.contradiction(&pointer, None), Contradiction::OtherEpoch);
    group.deliver(0);
    first.apply_pointer(&pointer, 0);
    assert_eq!(first.offsets().high_watermark, 4, "nothing foreign counts as committed");
    let epochs = state.epochs.entries().to_vec();
    let producers = state.encode();
    let anew = Anew { start: 6, log_start: 0, epochs: &epochs, producers: &producers };
    first.reset(first.leadership().epoch, anew).await.expect("started over");
    first.apply_pointer(&pointer, 0);
    level(&mut group, 1, &[0, 2]).await;
    assert_eq!((first.offsets().local_start, first.offsets().tier_end, first.offsets().log_start), (6, 6, 0));
    assert_eq!(batches_of(&group, 0, 6).await, batches_of(&group, 1, 6).await);
    assert_eq!(first.producers(), second.producers(), "producers are known as if it had been there");
}

#[tokio::test(start_paused = true)]
async fn a_consumer_reads_from_a_follower_what_is_known_to_be_committed() {
    let mut group = Group::new(3).await;
    fill(&mut group, 0, &[1, 2], 0..5).await;
    let leader = group.handle(0).expect("running").clone();
    drop(group.append(&leader, &group.build(5, 1)).expect("it leads"));
    assert_eq!(group.pull(1).await, Pulled::Records);
    let follower = group.handle(1).expect("running").clone();
    let read = |offset, reader| {
        follower.read(Read {
            offset,
            max_bytes: 10_000,
            min_one: true,
            isolation: Isolation::ReadUncommitted,
            leader_epoch: None,
            last_fetched_epoch: None,
            reader,
        })
    };
    let near = read(0, Reader::NearConsumer).expect("served");
    assert_eq!((near.high_watermark, near.visible_end), (5, 5));
    assert!(matches!(near.data, ReadData::Ready(_)));
    let at_end = read(5, Reader::NearConsumer).expect("it waits");
    assert!(matches!(at_end.data, ReadData::Empty));
    assert_eq!(read(7, Reader::NearConsumer).err(), Some(ReadError::OffsetNotAvailable), "its leader may have it");
    assert_eq!(read(0, Reader::Consumer).err(), Some(ReadError::NotLeader));
    // It waits here, and is told when the follower knows more.
    let waiter = FetchWaiter::new(1);
    follower.subscribe(&waiter, Reader::NearConsumer, Isolation::ReadUncommitted, 5);
    assert!(!waiter.is_done());
    level(&mut group, 0, &[1, 2]).await;
    assert!(waiter.is_done());
}

#[tokio::test(start_paused = true)]
async fn a_follower_on_a_full_disk_pauses_and_drops_out() {
    let mut group = Group::new(4).await;
    fill(&mut group, 0, &[1, 2], 0..5).await;
    let space = group.replicas[1].disk.clone();
    space.set_capacity(1);
    keep_up(&mut group, &[1, 2]).await;
    let leader = group.handle(0).expect("running").clone();
    drop(group.append(&leader, &group.build(5, 1)).expect("it leads"));
    for _ in 0..80 {
        group.pull(2).await;
        assert_eq!(group.pull(1).await, Pulled::Nothing, "it takes nothing");
        tokio::time::sleep(Duration::from_millis(100)).await;
        deliver_all(&group);
    }
    assert_eq!(group.table.lock().isr, [0, 2], "it lagged for too long");
    assert_eq!(leader.offsets().high_watermark, 6, "the others go on");
    space.set_capacity(u64::MAX);
    keep_up(&mut group, &[1, 2]).await;
    assert_eq!(group.table.lock().isr, [0, 1, 2]);
    assert_eq!(batches_of(&group, 1, 0).await, batches_of(&group, 0, 0).await);
}
