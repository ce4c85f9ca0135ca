//! What must hold after every cut, asked as a client asks.

use super::World;
use super::load::{COMMITTED, GROUP, metadata};
use integration::calls::{CallError, EARLIEST, EARLIEST_LOCAL, LATEST, LATEST_TIERED};
use integration::client::Client;
use integration::history::ledger::Ledger;
use proto::messages::OffsetFetchRequest;
use proto::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const FETCH_BYTES: i32 = 4 << 20;
/// What is known for sure right after a start, but for what is still being read.
const SETTLES_WITHIN: Duration = Duration::from_secs(30);

/// Checks partitions, committed offsets and topics; the bytes that were read from the bucket.
pub(super) async fn everything(world: &mut World, kafka: SocketAddr) -> Result<u64, String> {
    let mut reads = tokio::task::JoinSet::new();
    for ((topic, partition), ledger) in &world.ledgers {
        let (topic, partition, ledger) = (*topic, *partition, Arc::clone(ledger));
        reads.spawn(async move {
            let read = read_back(kafka, topic, partition, &ledger).await;
            read.map_err(|why| format!("{topic}-{partition}: {why}"))
        });
    }
    let mut cold_bytes = 0;
    while let Some(read) = reads.join_next().await {
        cold_bytes += read.map_err(|error| error.to_string())??;
    }
    let mut client = Client::connect(kafka).await.map_err(|error| error.to_string())?;
    offsets(world, &mut client).await.map_err(|why| format!("committed offsets: {why}"))?;
    topics(world, &mut client).await.map_err(|why| format!("topics: {why}"))?;
    Ok(cold_bytes)
}

/// Reads a partition from its first to its last offset; the bytes of it that lie only in the bucket.
async fn read_back(kafka: SocketAddr, topic: &str, partition: i32, ledger: &Mutex<Ledger>) -> Result<u64, String> {
    let said = |error: CallError| error.to_string();
    let mut client = Client::connect(kafka).await.map_err(|error| error.to_string())?;
    let start = client.offset(topic, partition, EARLIEST).await.map_err(said)?;
    let end = client.offset(topic, partition, LATEST).await.map_err(said)?;
    let local = client.offset(topic, partition, EARLIEST_LOCAL).await.map_err(said)?;
    let tiered = client.offset(topic, partition, LATEST_TIERED).await.map_err(said)?;
    if !(start <= end && local <= end && tiered < end.max(1)) {
        return Err(format!("impossible ends: log {start}..{end}, local from {local}, tiered to {tiered}"));
    }
    if local > start && local > tiered + 1 {
        return Err(format!("a gap: local from {local}, tiered to {tiered}, log from {start}"));
    }
    let lock = || ledger.lock().expect("no panic under this lock");
    let mut audit = lock().audit(start, end)?;
    let mut cold_bytes = 0;
    while audit.next() < end {
        let from = audit.next();
        let fetched = client.fetch(topic, partition, from, FETCH_BYTES).await;
        let fetched =
            fetched.map_err(|error| format!("fetch at {from} (log {start}..{end}, local from {local}): {error}"))?;
        if fetched.high_watermark != end {
            return Err(format!("the high watermark is {} in a fetch, {end} before", fetched.high_watermark));
        }
        if fetched.records.is_empty() {
            return Err(format!("nothing at {from}, though the log ends at {end}"));
        }
        if from < local {
            cold_bytes += fetched.records.len() as u64;
        }
        audit.take(&lock(), &fetched.records)?;
    }
    lock().close(audit)?;
    Ok(cold_bytes)
}

async fn offsets(world: &mut World, client: &mut Client) -> Result<(), String> {
    if world.committer.sent == 0 {
        return Ok(());
    }
    let topic =
        OffsetFetchRequestTopics { name: COMMITTED.to_owned(), partition_indexes: vec![0], ..Default::default() };
    let group = OffsetFetchRequestGroup {
        group_id: GROUP.to_owned(),
        member_epoch: -1,
        topics: Some(vec![topic]),
        ..Default::default()
    };
    let request = OffsetFetchRequest { groups: vec![group], ..Default::default() };
    let deadline = Instant::now() + SETTLES_WITHIN;
    loop {
        let answer = client.call_in(&request, 9).await.map_err(|error| error.to_string())?;
        let group = answer.groups.into_iter().next().ok_or("no group in the answer")?;
        // COORDINATOR_LOAD_IN_PROGRESS: the partition is being read.
        if group.error_code == 14 && Instant::now() < deadline {
            sleep(Duration::from_millis(5)).await;
            continue;
        }
        let one = group.topics.into_iter().next().and_then(|topic| topic.partitions.into_iter().next());
        let one = one.ok_or(format!("no partition in the answer, error {}", group.error_code))?;
        let (least, most) = (world.committer.acknowledged, world.committer.sent);
        let there = one.committed_offset;
        // Nothing was acknowledged and nothing is there: -1.
        let fine = (least..=most).contains(&there) || (least == 0 && there == -1);
        if !fine || one.error_code != 0 {
            return Err(format!("{there} (error {}), not in {least}..={most}", one.error_code));
        }
        if there > 0 && one.metadata.as_deref() != Some(&metadata(there)) {
            return Err(format!("offset {there} has the metadata {:?}", one.metadata));
        }
        world.committer.acknowledged = there.max(0);
        return Ok(());
    }
}

async fn topics(world: &mut World, client: &mut Client) -> Result<(), String> {
    let there = client.topics().await.map_err(|error| error.to_string())?;
    for (name, known) in &mut world.administrator.topics {
        let is = there.contains(name);
        if known.is_some_and(|known| known != is) {
            return Err(format!("{name} is {}there", if is { "" } else { "not " }));
        }
        *known = Some(is);
    }
    Ok(())
}
