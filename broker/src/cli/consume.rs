//! `firn consume`: records become lines.

use super::args::{ConsumeArgs, ConsumeFormat, From};
use super::bytes::to_json;
use super::client::{Client, ClientError, Patience, TopicView, check};
use super::out::ended;
use super::topic::list_offset;
use proto::errors::ErrorCode;
use proto::messages::FetchRequest;
use proto::messages::fetch_request::{FetchPartition, FetchTopic};
use proto::records::{BatchError, Record, Records, batches};
use proto::wire::RecordChunks;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

/// What one fetch may carry.
const FETCH_BYTES: i32 = 4 << 20;
/// How long a fetch waits at the end of the topic.
const WAIT_MS: i32 = 500;
/// Records of a batch measure at most this once decompressed.
const MAX_BATCH_BYTES: usize = 256 << 20;
/// The end of what may be read, in ListOffsets.
const LATEST: i64 = -1;
/// The first offset that can be read, in ListOffsets.
const EARLIEST: i64 = -2;

/// Where a partition is read.
struct Position {
    leader: i32,
    next: i64,
    /// Where reading ends without `--follow`.
    end: i64,
}

/// Prints records until the end the topic had at the start, or `--count`, or for ever.
pub(super) async fn run(args: ConsumeArgs) -> Result<(), ClientError> {
    let mut client = Client::connect(&args.at.bootstrap).await?;
    let mut topic = client.topic(&args.topic).await?;
    let mut patience = Patience::default();
    let mut positions = loop {
        match start(&mut client, &topic, &args).await {
            Ok(positions) => break positions,
            Err(error) => topic = patience.after(error, &mut client, &args.topic).await?,
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        if !args.follow {
            positions.retain(|_, position| position.next < position.end);
        }
        let leaders: std::collections::BTreeSet<i32> = positions.values().map(|position| position.leader).collect();
        if leaders.is_empty() {
            break;
        }
        for leader in leaders {
            let (fetched, failed) = match fetch(&mut client, &topic, leader, &positions).await {
                Ok(fetched) => fetched,
                Err(error) => (Vec::new(), Some(error)),
            };
            if fetched.iter().any(|(_, records)| !records.is_empty()) || failed.is_none() {
                patience = Patience::default();
            }
            for (partition, records) in fetched {
                let Some(position) = positions.get_mut(&partition) else { continue };
                match print(&args, partition, position, records, &mut left, &mut out) {
                    Ok(()) => {}
                    Err(Failed::Output(error)) => return ended(error),
                    Err(Failed::Batch(error)) => {
                        let at = position.next;
                        return Err(ClientError::Other(format!("{}-{partition} at {at}: {error}", args.topic)));
                    }
                }
            }
            if let Some(error) = failed {
                topic = patience.after(error, &mut client, &args.topic).await?;
                for (partition, leader) in &topic.partitions {
                    if let Some(position) = positions.get_mut(partition) {
                        position.leader = *leader;
                    }
                }
                // The leaders may be others now.
                break;
            }
        }
        if let Err(error) = out.flush() {
            return ended(error);
        }
    }
    Ok(())
}

async fn start(
    client: &mut Client,
    topic: &TopicView,
    args: &ConsumeArgs,
) -> Result<BTreeMap<i32, Position>, ClientError> {
    for partition in &args.partition {
        if topic.partitions.iter().all(|(index, _)| index != partition) {
            return Err(ClientError::Other(format!("topic {} has no partition {partition}", topic.name)));
        }
    }
    let mut positions = BTreeMap::new();
    for (partition, leader) in &topic.partitions {
        if !args.partition.is_empty() && !args.partition.contains(partition) {
            continue;
        }
        let end = list_offset(client, &topic.name, *partition, *leader, LATEST).await?;
        let next = match args.from {
            From::Beginning => list_offset(client, &topic.name, *partition, *leader, EARLIEST).await?,
            From::End => end,
            From::Offset(offset) => {
                let first = list_offset(client, &topic.name, *partition, *leader, EARLIEST).await?;
                if !(first..=end).contains(&offset) {
                    return Err(out_of_range(&topic.name, *partition, offset, first, end));
                }
                offset
            }
            From::Timestamp(time) => match list_offset(client, &topic.name, *partition, *leader, time).await? {
                // Nothing is that young.
                -1 => end,
                offset => offset,
            },
        };
        positions.insert(*partition, Position { leader: *leader, next, end });
    }
    Ok(positions)
}

fn out_of_range(topic: &str, partition: i32, offset: i64, first: i64, end: i64) -> ClientError {
    let there = if first < end {
        format!("it has offsets {first} to {}, and {end} will be the next", end - 1)
    } else {
        format!("it is empty, and {end} will be the next offset")
    };
    ClientError::Other(format!("{topic}-{partition} cannot be read from offset {offset}: {there}"))
}

/// What was fetched, by partition, and what was refused first.
type Fetched = (Vec<(i32, RecordChunks)>, Option<ClientError>);

async fn fetch(
    client: &mut Client,
    topic: &TopicView,
    leader: i32,
    positions: &BTreeMap<i32, Position>,
) -> Result<Fetched, ClientError> {
    let partitions = positions
        .iter()
        .filter(|(_, position)| position.leader == leader)
        .map(|(partition, position)| FetchPartition {
            partition: *partition,
            fetch_offset: position.next,
            partition_max_bytes: FETCH_BYTES,
            ..Default::default()
        })
        .collect();
    let request = FetchRequest {
        max_wait_ms: WAIT_MS,
        min_bytes: 1,
        max_bytes: 4 * FETCH_BYTES,
        session_epoch: -1,
        topics: vec![FetchTopic { topic: topic.name.clone(), topic_id: topic.id, partitions }],
        ..Default::default()
    };
    let answer = client.node(leader).await?.call(&request).await?;
    check("fetching", answer.error_code, None)?;
    let mut fetched = Vec::new();
    let mut failed = None;
    for partition in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
        let index = partition.partition_index;
        if partition.error_code == ErrorCode::OffsetOutOfRange.code() {
            // What was to come next was deleted in the meantime.
            let first = list_offset(client, &topic.name, index, leader, EARLIEST).await?;
            let end = list_offset(client, &topic.name, index, leader, LATEST).await?;
            let at = positions.get(&index).map_or(-1, |position| position.next);
            return Err(out_of_range(&topic.name, index, at, first, end));
        }
        match check(&format!("fetching {}-{index}", topic.name), partition.error_code, None) {
            Ok(()) => fetched.push((index, partition.records.unwrap_or_default())),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Ok((fetched, failed))
}

enum Failed {
    Output(io::Error),
    Batch(BatchError),
}

fn print(
    args: &ConsumeArgs,
    partition: i32,
    position: &mut Position,
    records: RecordChunks,
    left: &mut u64,
    out: &mut impl Write,
) -> Result<(), Failed> {
    let bytes = records.to_bytes();
    for batch in batches(&bytes) {
        let batch = match batch {
            Ok(batch) => batch,
            // A response may end in the middle of a batch; the next fetch brings it whole.
            Err(BatchError::Truncated { .. }) => break,
            Err(error) => return Err(Failed::Batch(error)),
        };
        if !batch.header.is_control() {
            for record in &Records::new(&batch, MAX_BATCH_BYTES).map_err(Failed::Batch)? {
                let record = record.map_err(Failed::Batch)?;
                let past_end = !args.follow && record.offset >= position.end;
                if record.offset < position.next || past_end || *left == 0 {
                    continue;
                }
                if args.key.as_deref().is_some_and(|key| record.key != Some(key.as_bytes())) {
                    continue;
                }
                *left -= 1;
                line(args, partition, &record, out).map_err(Failed::Output)?;
            }
        }
        position.next = position.next.max(batch.header.next_offset());
    }
    Ok(())
}

fn line(args: &ConsumeArgs, partition: i32, record: &Record<'_>, out: &mut impl Write) -> io::Result<()> {
    if args.headers && args.format != ConsumeFormat::Json {
        for (at, (name, value)) in record.headers.enumerate() {
            out.write_all(if at > 0 { b"," } else { b"" })?;
            out.write_all(name)?;
            out.write_all(b":")?;
            out.write_all(value.unwrap_or_default())?;
        }
        out.write_all(b"\t")?;
    }
    match args.format {
        ConsumeFormat::Value => out.write_all(record.value.unwrap_or_default())?,
        ConsumeFormat::KeyValue => {
            out.write_all(record.key.unwrap_or_default())?;
            out.write_all(b"\t")?;
            out.write_all(record.value.unwrap_or_default())?;
        }
        ConsumeFormat::Json => {
            let headers: Vec<_> = record
                .headers
                .map(|(name, value)| json!({"name": to_json(Some(name)), "value": to_json(value)}))
                .collect();
            let row = json!({
                "partition": partition, "offset": record.offset, "timestamp": record.timestamp,
                "key": to_json(record.key), "value": to_json(record.value), "headers": headers,
            });
            write!(out, "{row}")?;
        }
    }
    out.write_all(b"\n")
}
