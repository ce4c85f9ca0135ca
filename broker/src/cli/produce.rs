//! `firn produce`: lines become records.

use super::args::{Compression, ProduceArgs};
use super::client::{Client, ClientError, TopicView, check};
use bytes::Bytes;
use proto::host::Clock;
use proto::messages::ProduceRequest;
use proto::messages::produce_request::{PartitionProduceData, TopicProduceData};
use proto::records::{BatchBuilder, Codec, Header};
use std::collections::BTreeMap;
use tokio::io::{AsyncBufReadExt, BufReader};

/// A batch is sent when it measures this much.
const BATCH_BYTES: usize = 512 << 10;
/// Requests under way at a time.
const IN_FLIGHT: usize = 4;
/// How long the broker may take to acknowledge.
const TIMEOUT_MS: i32 = 60_000;

/// Reads records and sends them, acknowledged by all in-sync replicas.
pub(super) async fn run(args: ProduceArgs, clock: &dyn Clock) -> Result<(), ClientError> {
    let mut client = Client::connect(&args.at.bootstrap).await?;
    let topic = client.topic(&args.topic).await?;
    let mut sender = Sender::new(&topic, &args);
    if let Some(value) = &args.value {
        sender.add(clock.now_ms(), args.key.as_deref(), value, &mut client).await?;
    } else {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Some(line) = lines.next_line().await.map_err(|error| ClientError::Other(error.to_string()))? {
            let (key, value) = match &args.key_separator {
                Some(separator) => match line.split_once(separator.as_str()) {
                    Some((key, value)) => (Some(key), value),
                    None => return Err(ClientError::Other(format!("this line has no `{separator}`: {line}"))),
                },
                None => (args.key.as_deref(), line.as_str()),
            };
            sender.add(clock.now_ms(), key, value, &mut client).await?;
        }
    }
    sender.finish(&mut client).await?;
    eprintln!("produced {} records to {}", sender.records, topic.name);
    Ok(())
}

struct Sender<'a> {
    topic: &'a TopicView,
    args: &'a ProduceArgs,
    open: BTreeMap<i32, BatchBuilder>,
    /// Partition of the records without key, moved on with each batch.
    sticky: usize,
    /// Leaders with the number of requests each has not answered yet.
    outstanding: BTreeMap<i32, usize>,
    records: u64,
}

impl<'a> Sender<'a> {
    fn new(topic: &'a TopicView, args: &'a ProduceArgs) -> Self {
        Sender { topic, args, open: BTreeMap::new(), sticky: 0, outstanding: BTreeMap::new(), records: 0 }
    }

    async fn add(&mut self, now: i64, key: Option<&str>, value: &str, client: &mut Client) -> Result<(), ClientError> {
        let partition = self.partition(key)?;
        let codec = match self.args.compression {
            Compression::None => Codec::None,
            Compression::Gzip => Codec::Gzip,
            Compression::Snappy => Codec::Snappy,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd => Codec::Zstd,
        };
        let batch = self.open.entry(partition).or_insert_with(|| BatchBuilder::new().codec(codec));
        let headers: Vec<_> = self.args.headers.iter().collect();
        let headers: Vec<Header<'_>> = headers
            .iter()
            .map(|(name, value)| Header { key: name.as_bytes(), value: Some(value.as_bytes()) })
            .collect();
        batch.append(now, key.map(str::as_bytes), Some(value.as_bytes()), &headers);
        self.records += 1;
        if batch.size() >= BATCH_BYTES {
            self.sticky += 1;
            if let Some(batch) = self.open.remove(&partition) {
                self.send(partition, batch.build(), client).await?;
            }
        }
        Ok(())
    }

    /// Kafka's choice: by hash of the key; without a key, one partition per batch in turn.
    fn partition(&self, key: Option<&str>) -> Result<i32, ClientError> {
        if let Some(partition) = self.args.partition {
            return Ok(partition);
        }
        let count = self.topic.partitions.len();
        let index = match key {
            Some(key) => usize::try_from(murmur2(key.as_bytes()) & 0x7fff_ffff).unwrap_or(0) % count.max(1),
            None => self.sticky % count.max(1),
        };
        let chosen = self.topic.partitions.get(index).map(|(partition, _)| *partition);
        chosen.ok_or_else(|| ClientError::Other(format!("topic {} has no partitions", self.topic.name)))
    }

    async fn send(&mut self, partition: i32, records: Bytes, client: &mut Client) -> Result<(), ClientError> {
        let leader = self.topic.partitions.iter().find(|(index, _)| *index == partition).map(|(_, leader)| *leader);
        let leader = leader
            .ok_or_else(|| ClientError::Other(format!("topic {} has no partition {partition}", self.topic.name)))?;
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: TIMEOUT_MS,
            topic_data: vec![TopicProduceData {
                name: self.topic.name.clone(),
                topic_id: self.topic.id,
                partition_data: vec![PartitionProduceData { index: partition, records: Some(records) }],
            }],
            ..Default::default()
        };
        client.node(leader).await?.send(&request).await?;
        *self.outstanding.entry(leader).or_default() += 1;
        while self.outstanding.get(&leader).is_some_and(|count| *count >= IN_FLIGHT) {
            self.receive(leader, client).await?;
        }
        Ok(())
    }

    async fn receive(&mut self, leader: i32, client: &mut Client) -> Result<(), ClientError> {
        let answer = client.node(leader).await?.receive::<ProduceRequest>().await?;
        if let Some(count) = self.outstanding.get_mut(&leader) {
            *count -= 1;
        }
        for partition in answer.responses.iter().flat_map(|topic| &topic.partition_responses) {
            let what = format!("producing to {}-{}", self.topic.name, partition.index);
            check(&what, partition.error_code, partition.error_message.as_deref())?;
        }
        Ok(())
    }

    async fn finish(&mut self, client: &mut Client) -> Result<(), ClientError> {
        for (partition, batch) in std::mem::take(&mut self.open) {
            self.send(partition, batch.build(), client).await?;
        }
        let leaders: Vec<i32> = self.outstanding.keys().copied().collect();
        for leader in leaders {
            while self.outstanding.get(&leader).is_some_and(|count| *count > 0) {
                self.receive(leader, client).await?;
            }
        }
        Ok(())
    }
}

/// The hash that Kafka's default partitioner uses (MurmurHash2, 32 bit, its own seed), so that a key goes to the partition every other
/// client would choose.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash: u32 = 0x9747_b28c ^ u32::try_from(data.len()).unwrap_or(u32::MAX);
    let words = data.chunks_exact(4);
    let tail = words.remainder();
    for word in words {
        let mut k = word.iter().rev().fold(0, |k, byte| k << 8 | u32::from(*byte)).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        hash ^= tail.iter().rev().fold(0, |k, byte| k << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::murmur2;

    /// The values Kafka's own tests expect, as signed numbers there.
    #[test]
    fn keys_hash_as_in_kafka() {
        let expected: [(&str, i32); 4] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("abc", 479_470_107),
        ];
        for (key, hash) in expected {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }
}
