//! Power fails at every operation there is: what was reported durable is read back, as a prefix of what was
//! appended, and nothing torn with it.

use proto::host::{Entropy, SeededEntropy};

use super::*;

/// What was appended, in order, and how much of it was reported durable.
#[derive(Default)]
struct Model {
    records: Vec<OwnedRecord>,
    synced: Lsn,
}

/// How a life of the journal ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Closed,
    PowerLost,
}

fn draw(entropy: &SeededEntropy, below: u64) -> usize {
    usize::try_from(entropy.next_u64() % below).expect("small")
}

/// Reads the journal back, compares it with the model, and takes the model to what was read.
async fn check(disk: &SimDisk, model: &mut Model) -> Result<Option<Replay>, OpenError> {
    let mut replay = match open(disk, small()).await {
        Err(OpenError::Disk(_)) if !disk.is_powered() => return Ok(None),
        opened => opened?,
    };
    let from = replay.checkpoint().replay_from;
    let read = match read_all(&mut replay).await {
        Err(OpenError::Disk(_)) if !disk.is_powered() => return Ok(None),
        read => read?,
    };
    let end = from.0 - 1 + read.len() as u64;
    assert!(end >= model.synced.0, "read up to {end}, acknowledged {}", model.synced);
    assert!(end <= model.records.len() as u64, "nothing that was not appended");
    for (index, (lsn, record)) in read.into_iter().enumerate() {
        assert_eq!(lsn.0, from.0 + index as u64);
        assert_eq!(model.records.get(lsn.0 as usize - 1), Some(&record), "record {lsn}");
    }
    model.records.truncate(end as usize);
    Ok(Some(replay))
}

/// One life: reads back, appends for a while, settling as it goes, and closes unless power fails.
async fn live(disk: &SimDisk, entropy: &SeededEntropy, model: &mut Model, appends: usize) -> End {
    let Some(replay) = check(disk, model).await.expect("no corruption") else {
        return End::PowerLost;
    };
    let sink = Arc::new(Sink::default());
    let started = replay.start(Arc::clone(&sink) as Arc<dyn GroupSink>).await;
    let Ok(journal) = started else {
        assert!(!disk.is_powered(), "{started:?}");
        return End::PowerLost;
    };
    let settler = tokio::spawn(settle_when_pressed(disk.clone(), journal.clone(), Arc::clone(&sink)));
    let owners: Vec<_> = (0..3).map(|_| Waiter::new()).collect();
    let mut offline = false;
    for _ in 0..appends {
        if act(entropy, model, &journal, &sink, &owners).await.is_err() {
            offline = true;
            break;
        }
    }
    let closed = journal.close().await;
    settler.abort();
    let reported = owners.iter().map(|(waiter, _)| waiter.last()).max();
    model.synced = model.synced.max(reported.unwrap_or_default());
    for group in sink.groups.lock().iter() {
        for entry in group.entries.iter().filter(|entry| entry.kind == Kind::Append) {
            let index = entry.lsn.0 as usize - 1;
            let batch = group.payload(entry);
            let written = OwnedRecord::Append { tp: entry.tp, batch };
            assert_eq!(model.records.get(index), Some(&written));
        }
    }
    if offline || closed.is_err() {
        assert!(!disk.is_powered(), "only power fails here: {closed:?}");
        return End::PowerLost;
    }
    assert_eq!(model.synced.0, model.records.len() as u64, "closing writes all");
    End::Closed
}

/// What the log does all the time: settles when the journal asks for it.
async fn settle_when_pressed(disk: SimDisk, journal: Journal, sink: Arc<Sink>) {
    loop {
        sink.moved.notified().await;
        if let Err(error) = settle(&disk, &journal, journal.synced()).await {
            journal.take_offline(&error.to_string());
            return;
        }
    }
}

/// Something failed; what, does not matter here.
struct Failed;

impl From<Offline> for Failed {
    fn from(_: Offline) -> Self {
        Self
    }
}

async fn act(
    entropy: &SeededEntropy,
    model: &mut Model,
    journal: &Journal,
    sink: &Sink,
    owners: &[(Arc<Waiter>, Arc<dyn Owner>)],
) -> Result<(), Failed> {
    if draw(entropy, 20) == 0 {
        sink.moved.notify_one();
    }
    let len = match draw(entropy, 20) {
        0 => 70_000,
        1..5 => 5_000 + draw(entropy, 9_000),
        _ => 61 + draw(entropy, 600),
    };
    let partition = draw(entropy, 3);
    let batch = batch(len, model.records.len() as u8);
    let to = model.records.len() as i64;
    let tp = tp(partition as i32);
    let (record, owned) = match draw(entropy, 8) {
        0 => (Record::TrimHead { tp, to }, OwnedRecord::TrimHead { tp, to }),
        1 => (Record::Delete { tp }, OwnedRecord::Delete { tp }),
        _ => {
            let batch = &batch;
            let placed = placed(batch, to, 4);
            (append(batch, partition as i32, to), OwnedRecord::Append { tp, batch: placed })
        }
    };
    let permit = journal.admit(len).await?;
    let lsn = journal.append(record, &owners[partition].1)?.lsn;
    drop(permit);
    model.records.push(owned);
    assert_eq!(lsn.0, model.records.len() as u64);
    // Sometimes wait, so that groups of one record occur, too.
    if draw(entropy, 3) == 0 && !owners[partition].0.reached(lsn).await {
        return Err(Failed);
    }
    Ok(())
}

/// Three lives on one disk, each with power failing at the given change of that life, if it gets there.
async fn lives(seed: u64, cuts: [u64; 2]) -> (SimDisk, u64, Vec<End>) {
    let disk = sim(seed).await;
    let entropy = SeededEntropy::new(seed);
    let mut model = Model::default();
    let mut ends = Vec::new();
    let mut first_changes = 0;
    let mut disk = disk;
    for cut in cuts {
        disk.cut_power_at(disk.changes().saturating_add(cut));
        let before = disk.changes();
        ends.push(live(&disk, &entropy, &mut model, 40).await);
        first_changes = first_changes.max(disk.changes() - before);
        disk = disk.restart();
    }
    let end = live(&disk, &entropy, &mut model, 20).await;
    assert_eq!(end, End::Closed, "nothing fails in the last life");
    check(&disk, &mut model).await.expect("healthy").expect("powered");
    ends.push(end);
    (disk, first_changes, ends)
}

#[tokio::test]
async fn whenever_power_fails_all_that_was_acknowledged_is_read_back() {
    let mut lost = 0;
    let mut closed = 0;
    for seed in 0..4 {
        let (_, changes, _) = lives(seed, [u64::MAX, u64::MAX]).await;
        assert!(changes > 40, "a life has {changes} changes");
        for cut in 0..changes {
            let second = (cut * 7 + seed) % changes;
            let (_, _, ends) = lives(seed, [cut, second]).await;
            lost += ends.iter().filter(|end| **end == End::PowerLost).count();
            closed += ends.iter().filter(|end| **end == End::Closed).count();
        }
    }
    assert!(lost > 300 && closed > 100, "{lost} lives lost, {closed} closed");
}

#[tokio::test]
async fn the_same_seed_gives_the_same_history() {
    let mut prints = Vec::new();
    for seed in [5, 5, 6] {
        let (disk, _, ends) = lives(seed, [33, 21]).await;
        prints.push((disk.fingerprint(), disk.changes(), ends));
    }
    assert_eq!(prints[0], prints[1]);
    assert_ne!(prints[0].0, prints[2].0);
}
