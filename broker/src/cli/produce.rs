//! `firn produce`: lines become records, each once: an idempotent producer that follows the leaders of its partitions.

use super::args::{Compression, ProduceArgs};
use super::client::{Client, ClientError, Patience, TopicView, check};
use super::out::{self, counted};
use super::topic::settings;
use bytes::Bytes;
use proto::errors::ErrorCode;
use proto::host::Clock;
use proto::messages::produce_request::{PartitionProduceData, TopicProduceData};
use proto::messages::{InitProducerIdRequest, ProduceRequest};
use proto::records::{BatchBuilder, Codec, Header};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio::time::{Instant, sleep_until};

/// No batch of several records measures more.
const BATCH_BYTES: usize = 512 << 10;
/// The topic's setting that says what the broker takes.
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
/// A record is sent after this long, though its batch is not full.
const LINGER: Duration = Duration::from_millis(50);
/// Of a line that is wrong, so many characters are quoted.
const QUOTED: usize = 100;
/// Requests under way to a broker at a time. Of each producer and partition the last five batches are known again.
const IN_FLIGHT: usize = 4;
/// How long the broker may take to acknowledge.
const TIMEOUT_MS: i32 = 60_000;

/// Reads records and sends them, acknowledged by all in-sync replicas.
pub(super) async fn run(args: ProduceArgs, clock: &dyn Clock) -> Result<(), ClientError> {
    let mut client = Client::connect(&args.at.bootstrap).await?;
    let topic = client.topic(&args.topic).await?;
    let limit = limit(&mut client, &topic.name).await?;
    let mut sender = Sender::start(topic, &args, limit, &mut client).await?;
    if let Some(value) = &args.value {
        sender.add(clock.now_ms(), args.key.as_deref().map(str::as_bytes), value.as_bytes(), &mut client).await?;
    } else {
        let lines = BufReader::new(tokio::io::stdin());
        each_line(lines, &mut sender, &mut client, clock).await?;
    }
    sender.flush(&mut client).await?;
    out::note(format_args!("produced {} to {}", counted(sender.records, "record"), args.topic));
    Ok(())
}

/// What a batch of several records may measure, in bytes before compression.
async fn limit(client: &mut Client, topic: &str) -> Result<usize, ClientError> {
    let found = match settings(client, topic, Some(&[MAX_MESSAGE_BYTES])).await {
        Ok(found) => found,
        // Who may write need not be allowed to read settings.
        Err(ClientError::Refused { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    let taken = found.iter().find(|config| config.name == MAX_MESSAGE_BYTES);
    Ok(within(taken.and_then(|config| config.value.as_deref()?.parse().ok())))
}

/// Less than what the broker takes by what any codec adds to records that it cannot make smaller.
fn within(taken: Option<usize>) -> usize {
    taken.map_or(BATCH_BYTES, |taken| BATCH_BYTES.min(taken.saturating_sub(taken / 1_000 + 128)))
}

/// Adds the records of all lines, and sends what there is whenever no line comes for a while.
async fn each_line(
    mut input: impl AsyncBufRead + Unpin,
    sender: &mut Sender<'_>,
    client: &mut Client,
    clock: &dyn Clock,
) -> Result<(), ClientError> {
    let mut line = Vec::new();
    loop {
        let due = sender.due;
        // Whatever was read of a line when the time is up stays in `line`.
        let read = tokio::select! {
            read = input.read_until(b'\n', &mut line) => read.map_err(|error| ClientError::Other(error.to_string()))?,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                sender.flush(client).await?;
                continue;
            }
        };
        if read == 0 && line.is_empty() {
            return Ok(());
        }
        let (key, value) = key_and_value(without_end(&line), sender.args)?;
        sender.add(clock.now_ms(), key, value, client).await?;
        line.clear();
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn key_and_value<'a>(line: &'a [u8], args: &'a ProduceArgs) -> Result<(Option<&'a [u8]>, &'a [u8]), ClientError> {
    let Some(separator) = &args.key_separator else {
        return Ok((args.key.as_deref().map(str::as_bytes), line));
    };
    let at = line.windows(separator.len().max(1)).position(|window| window == separator.as_bytes());
    match at.and_then(|at| Some((line.get(..at)?, line.get(at + separator.len()..)?))) {
        Some((key, value)) => Ok((Some(key), value)),
        None => {
            let line: String = String::from_utf8_lossy(line).chars().take(QUOTED).collect();
            Err(ClientError::Other(format!("this line has no `{separator}`: {line}")))
        }
    }
}

/// Batches of one partition that are not acknowledged, in their order.
#[derive(Debug, Default)]
struct Lane {
    /// Sequence of the next record.
    next: i32,
    unacked: VecDeque<Bytes>,
    /// How many of them, from the first, are sent and not answered.
    sent: usize,
    /// Something of it is there: a broker takes the first batch of a producer whatever its sequence, so that no other may pass it.
    begun: bool,
}

impl Lane {
    /// Takes a batch of `producer`.
    fn push(&mut self, batch: BatchBuilder, producer: (i64, i16)) {
        let records = i32::try_from(batch.len()).unwrap_or(i32::MAX);
        self.unacked.push_back(batch.producer(producer.0, producer.1, self.next).build());
        // Behind the largest number comes 0.
        self.next = self.next.wrapping_add(records) & i32::MAX;
    }

    /// The next batch to send.
    fn send(&mut self) -> Option<Bytes> {
        let batch = self.unacked.get(self.sent).cloned()?;
        self.sent += 1;
        Some(batch)
    }

    /// Whether the next batch has to wait for the first one.
    const fn waits_for_first(&self) -> bool {
        self.sent > 0 && !self.begun
    }

    /// The first is there.
    fn acked(&mut self) {
        self.begun = true;
        self.unacked.pop_front();
        self.sent = self.sent.saturating_sub(1);
    }
}

struct Sender<'a> {
    topic: TopicView,
    args: &'a ProduceArgs,
    /// Id and epoch: what a broker knows batches again by.
    producer: (i64, i16),
    /// What a batch of several records may measure. A record that is larger goes alone.
    limit: usize,
    open: BTreeMap<i32, BatchBuilder>,
    /// When the open batches are to be sent, if there is one.
    due: Option<Instant>,
    /// Partition of the records without key, moved on with each batch.
    sticky: usize,
    lanes: BTreeMap<i32, Lane>,
    /// Leaders, and the partition of each request that they have not answered yet.
    outstanding: BTreeMap<i32, VecDeque<i32>>,
    patience: Patience,
    records: u64,
}

impl<'a> Sender<'a> {
    /// Gets an id for a producer.
    async fn start(
        topic: TopicView,
        args: &'a ProduceArgs,
        limit: usize,
        client: &mut Client,
    ) -> Result<Self, ClientError> {
        let mut patience = Patience::default();
        let request =
            InitProducerIdRequest { transactional_id: None, producer_id: -1, producer_epoch: -1, ..Default::default() };
        let producer = loop {
            let asked = client.call(&request).await;
            let given = asked.and_then(|answer| {
                check("getting a producer id", answer.error_code, None)?;
                Ok((answer.producer_id, answer.producer_epoch))
            });
            match given {
                Ok(producer) => break producer,
                Err(error) => patience.after(error, client, &topic.name).await?,
            };
        };
        Ok(Sender {
            topic,
            args,
            producer,
            limit,
            open: BTreeMap::new(),
            due: None,
            sticky: 0,
            lanes: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            patience: Patience::default(),
            records: 0,
        })
    }

    async fn add(
        &mut self,
        now: i64,
        key: Option<&[u8]>,
        value: &[u8],
        client: &mut Client,
    ) -> Result<(), ClientError> {
        let null = |bytes: &[u8]| self.args.empty_as_null && bytes.is_empty();
        let key = key.filter(|key| !null(key));
        let value = Some(value).filter(|value| !null(value));
        let headers: Vec<Header<'_>> = self
            .args
            .headers
            .iter()
            .map(|(name, value)| Header { key: name.as_bytes(), value: Some(value.as_bytes()) })
            .collect();
        // Whatever has no key may go to another partition once the batch of this one is gone.
        let partition = loop {
            let partition = self.partition(key)?;
            let open = self.open.get(&partition);
            if open.is_none_or(|batch| batch.size_with(now, key, value, &headers) <= self.limit) {
                break partition;
            }
            self.seal(partition, client).await?;
        };
        let codec = match self.args.compression {
            Compression::None => Codec::None,
            Compression::Gzip => Codec::Gzip,
            Compression::Snappy => Codec::Snappy,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd => Codec::Zstd,
        };
        let batch = self.open.entry(partition).or_insert_with(|| BatchBuilder::new().codec(codec));
        batch.append(now, key, value, &headers);
        self.records += 1;
        self.due.get_or_insert_with(|| Instant::now() + LINGER);
        if batch.size() >= self.limit {
            self.seal(partition, client).await?;
        }
        Ok(())
    }

    /// Sends the open batch of a partition.
    async fn seal(&mut self, partition: i32, client: &mut Client) -> Result<(), ClientError> {
        self.sticky += 1;
        match self.open.remove(&partition) {
            Some(batch) => self.send(partition, batch, client).await,
            None => Ok(()),
        }
    }

    /// Kafka's choice: by hash of the key; without a key, one partition per batch in turn.
    fn partition(&self, key: Option<&[u8]>) -> Result<i32, ClientError> {
        if let Some(partition) = self.args.partition {
            return Ok(partition);
        }
        let count = self.topic.partitions.len();
        let index = match key {
            Some(key) => usize::try_from(murmur2(key) & 0x7fff_ffff).unwrap_or(0) % count.max(1),
            None => self.sticky % count.max(1),
        };
        let chosen = self.topic.partitions.get(index).map(|(partition, _)| *partition);
        chosen.ok_or_else(|| ClientError::Other(format!("topic {} has no partitions", self.topic.name)))
    }

    async fn send(&mut self, partition: i32, batch: BatchBuilder, client: &mut Client) -> Result<(), ClientError> {
        self.lanes.entry(partition).or_default().push(batch, self.producer);
        self.advance(IN_FLIGHT - 1, client).await
    }

    /// Sends all batches, again to whoever leads if a leader goes, until no broker has more than `most` of them to answer.
    async fn advance(&mut self, most: usize, client: &mut Client) -> Result<(), ClientError> {
        loop {
            match self.step(most, client).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    self.topic = self.patience.after(error, client, &self.topic.name).await?;
                    // Nothing comes over the connections of before. What did get there is known again by its sequence.
                    self.outstanding.clear();
                    self.lanes.values_mut().for_each(|lane| lane.sent = 0);
                }
            }
        }
    }

    /// Whether all is sent, and no broker has more than `most` to answer.
    async fn step(&mut self, most: usize, client: &mut Client) -> Result<bool, ClientError> {
        let partitions: Vec<i32> = self.lanes.keys().copied().collect();
        for partition in partitions {
            while self.lanes.get(&partition).is_some_and(|lane| lane.sent < lane.unacked.len()) {
                let leader = self.leader(partition)?;
                let is_full = self.outstanding.get(&leader).is_some_and(|asked| asked.len() >= IN_FLIGHT);
                if is_full || self.lanes.get(&partition).is_some_and(Lane::waits_for_first) {
                    self.receive(leader, client).await?;
                    continue;
                }
                let Some(records) = self.lanes.get_mut(&partition).and_then(Lane::send) else { break };
                client.node(leader).await?.send(&self.request(partition, records)).await?;
                self.outstanding.entry(leader).or_default().push_back(partition);
            }
        }
        let late = self.outstanding.iter().find(|(_, asked)| asked.len() > most).map(|(leader, _)| *leader);
        match late {
            Some(leader) => self.receive(leader, client).await.map(|()| false),
            None => Ok(true),
        }
    }

    fn leader(&self, partition: i32) -> Result<i32, ClientError> {
        let found = self.topic.partitions.iter().find(|(index, _)| *index == partition).map(|(_, leader)| *leader);
        found.ok_or_else(|| ClientError::Other(format!("topic {} has no partition {partition}", self.topic.name)))
    }

    fn request(&self, partition: i32, records: Bytes) -> ProduceRequest {
        ProduceRequest {
            acks: -1,
            timeout_ms: TIMEOUT_MS,
            topic_data: vec![TopicProduceData {
                name: self.topic.name.clone(),
                topic_id: self.topic.id,
                partition_data: vec![PartitionProduceData { index: partition, records: Some(records) }],
            }],
            ..Default::default()
        }
    }

    /// Takes the answer to the oldest request that `leader` has not answered.
    async fn receive(&mut self, leader: i32, client: &mut Client) -> Result<(), ClientError> {
        let answer = client.node(leader).await?.receive::<ProduceRequest>().await?;
        let asked = self.outstanding.get_mut(&leader).and_then(VecDeque::pop_front);
        for partition in answer.responses.iter().flat_map(|topic| &topic.partition_responses) {
            let what = format!("producing to {}-{}", self.topic.name, partition.index);
            // One that is known again was written before.
            if partition.error_code != ErrorCode::DuplicateSequenceNumber.code() {
                check(&what, partition.error_code, partition.error_message.as_deref())?;
            }
        }
        if let Some(lane) = asked.and_then(|partition| self.lanes.get_mut(&partition)) {
            lane.acked();
        }
        self.patience = Patience::default();
        Ok(())
    }

    /// Sends what there is, and waits until it is acknowledged.
    async fn flush(&mut self, client: &mut Client) -> Result<(), ClientError> {
        self.due = None;
        self.sticky += 1;
        for (partition, batch) in std::mem::take(&mut self.open) {
            self.send(partition, batch, client).await?;
        }
        self.advance(0, client).await
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
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser;
    use proto::records::batches;

    fn args(more: &[&str]) -> ProduceArgs {
        let Command::Produce(args) = Cli::parse_from(["firn", "produce", "t"].iter().chain(more)).command else {
            panic!("a produce command");
        };
        args
    }

    #[test]
    fn lines_are_bytes_split_at_the_first_separator() {
        let whole = args(&["--key", "k"]);
        let read = |line: &'static [u8], args| key_and_value(without_end(line), args).expect("a record");
        assert_eq!(read(b"\xff\xfe\r\n", &whole), (Some(&b"k"[..]), &b"\xff\xfe"[..]));
        let plain = args(&[]);
        assert_eq!(read(b"", &plain), (None, &b""[..]));
        let split = args(&["--key-separator", "::"]);
        assert_eq!(read(b"a:\xff::b::c\n", &split), (Some(&b"a:\xff"[..]), &b"b::c"[..]));
        assert_eq!(read(b"::\n", &split), (Some(&b""[..]), &b""[..]));
        let error = key_and_value(b"no\xff", &split).expect_err("no separator").to_string();
        assert!(error.contains("has no `::`"), "{error}");
    }

    /// Whatever is sent again has the sequence it had, and what comes behind it goes on from there.
    #[test]
    fn a_batch_keeps_its_sequence() {
        let batch = |records: usize| {
            let mut batch = BatchBuilder::new();
            (0..records).for_each(|_| batch.append(0, None, Some(b"x"), &[]));
            batch
        };
        let sequence = |batch: Option<Bytes>| {
            let batch = batch.expect("one to send");
            let header = batches(&batch).next().expect("a batch").expect("a whole one").header;
            (header.producer_id, header.producer_epoch, header.base_sequence)
        };
        let mut lane = Lane::default();
        lane.push(batch(3), (7, 1));
        lane.push(batch(2), (7, 1));
        assert_eq!([lane.send(), lane.send()].map(sequence), [(7, 1, 0), (7, 1, 3)]);
        assert!(lane.send().is_none());
        assert!(lane.waits_for_first(), "nobody knows the producer yet");
        lane.acked();
        assert!(!lane.waits_for_first());
        lane.push(batch(1), (7, 1));
        // The leader is gone.
        lane.sent = 0;
        assert_eq!([lane.send(), lane.send()].map(sequence), [(7, 1, 3), (7, 1, 5)]);
        lane.next = i32::MAX;
        lane.push(batch(2), (7, 1));
        lane.push(batch(1), (7, 1));
        assert_eq!([lane.send(), lane.send()].map(sequence), [(7, 1, i32::MAX), (7, 1, 1)]);
    }

    #[test]
    fn batches_stay_below_what_the_topic_takes() {
        assert_eq!(within(None), BATCH_BYTES);
        assert_eq!(within(Some(1_048_588)), BATCH_BYTES);
        assert_eq!(within(Some(20_000)), 19_852);
        assert_eq!(within(Some(0)), 0);
    }

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
