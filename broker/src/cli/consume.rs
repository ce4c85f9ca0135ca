//! `firn consume`: records become lines.

use super::args::{ConsumeArgs, ConsumeFormat, From};
use super::client::{Client, ClientError, TopicView, check};
use super::topic::list_offset;
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
    let topic = client.topic(&args.topic).await?;
    let mut positions = start(&mut client, &topic, &args).await?;
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
            let fetched = fetch(&mut client, &topic, leader, &positions).await?;
            for (partition, records) in fetched {
                let Some(position) = positions.get_mut(&partition) else { continue };
                match print(&args, partition, position, records, &mut left, &mut out) {
                    Ok(()) => {}
                    // Whoever reads our output has seen enough.
                    Err(Failed::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                    Err(Failed::Output(error)) => return Err(ClientError::Other(error.to_string())),
                    Err(Failed::Batch(error)) => {
                        let at = position.next;
                        return Err(ClientError::Other(format!("{}-{partition} at {at}: {error}", args.topic)));
                    }
                }
            }
        }
        if let Err(error) = out.flush() {
            return if error.kind() == io::ErrorKind::BrokenPipe {
                Ok(())
            } else {
                Err(ClientError::Other(error.to_string()))
            };
        }
    }
    Ok(())
}

async fn start(
    client: &mut Client,
    topic: &TopicView,
    args: &ConsumeArgs,
) -> Result<BTreeMap<i32, Position>, ClientError> {
    let mut positions = BTreeMap::new();
    for (partition, leader) in &topic.partitions {
        if !args.partition.is_empty() && !args.partition.contains(partition) {
            continue;
        }
        let end = list_offset(client, &topic.name, *partition, *leader, LATEST).await?;
        let next = match args.from {
            From::Beginning => list_offset(client, &topic.name, *partition, *leader, EARLIEST).await?,
            From::End => end,
            From::Offset(offset) => offset,
            From::Timestamp(time) => match list_offset(client, &topic.name, *partition, *leader, time).await? {
                // Nothing is that young.
                -1 => end,
                offset => offset,
            },
        };
        positions.insert(*partition, Position { leader: *leader, next, end });
    }
    for partition in &args.partition {
        if !positions.contains_key(partition) {
            return Err(ClientError::Other(format!("topic {} has no partition {partition}", topic.name)));
        }
    }
    Ok(positions)
}

async fn fetch(
    client: &mut Client,
    topic: &TopicView,
    leader: i32,
    positions: &BTreeMap<i32, Position>,
) -> Result<Vec<(i32, RecordChunks)>, ClientError> {
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
    for partition in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
        check(&format!("fetching {}-{}", topic.name, partition.partition_index), partition.error_code, None)?;
        fetched.push((partition.partition_index, partition.records.unwrap_or_default()));
    }
    Ok(fetched)
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
                line(args.format, partition, &record, out).map_err(Failed::Output)?;
            }
        }
        position.next = position.next.max(batch.header.next_offset());
    }
    Ok(())
}

fn line(format: ConsumeFormat, partition: i32, record: &Record<'_>, out: &mut impl Write) -> io::Result<()> {
    match format {
        ConsumeFormat::Value => out.write_all(record.value.unwrap_or_default())?,
        ConsumeFormat::KeyValue => {
            out.write_all(record.key.unwrap_or_default())?;
            out.write_all(b"\t")?;
            out.write_all(record.value.unwrap_or_default())?;
        }
        ConsumeFormat::Json => {
            let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            let headers: Vec<_> = record
                .headers
                .map(|(name, value)| json!({"name": String::from_utf8_lossy(name), "value": text(value)}))
                .collect();
            let row = json!({
                "partition": partition, "offset": record.offset, "timestamp": record.timestamp,
                "key": text(record.key), "value": text(record.value), "headers": headers,
            });
            write!(out, "{row}")?;
        }
    }
    out.write_all(b"\n")
}
