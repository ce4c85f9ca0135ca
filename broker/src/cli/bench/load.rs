//! Producing: as fast as it goes, and at a fixed rate with the time each record took.

use super::pace::Pace;
use super::report::{Moved, Progress};
use crate::cli::args::BenchArgs;
use crate::cli::client::{Client, ClientError, Connection, Receiving, Sending, TopicView, check};
use crate::net::wire_client::Sent;
use bytes::Bytes;
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use proto::host::Clock;
use proto::messages::produce_request::{PartitionProduceData, TopicProduceData};
use proto::messages::{ProduceRequest, ProduceResponse};
use proto::records::BatchBuilder;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How long the broker may take to acknowledge.
const TIMEOUT_MS: i32 = 60_000;
/// Requests of a steady run that wait for their answer.
const OUTSTANDING: usize = 1 << 16;
/// Latencies are kept to three digits, up to a minute.
const DIGITS: u8 = 3;
const LONGEST_US: u64 = 60_000_000;

/// A batch that is sent over and over: the broker is measured, not the making of batches. It is checked,
/// stored and acknowledged like any other.
pub(super) struct Batches {
    batch: Bytes,
    records: u64,
    record_bytes: u64,
}

impl Batches {
    pub(super) fn of(args: &BenchArgs, now_ms: i64) -> Batches {
        let text = Text::new(args.record_bytes);
        let mut builder = BatchBuilder::new();
        while builder.is_empty() || builder.size() + args.record_bytes + Text::OVERHEAD <= args.batch_bytes {
            builder.append(now_ms, None, Some(text.record(builder.len() as u64)), &[]);
        }
        let records = builder.len() as u64;
        Batches { batch: builder.build(), records, record_bytes: args.record_bytes as u64 }
    }
}

/// Text that no codec and no file system makes much smaller; each record begins elsewhere in it.
struct Text {
    text: Vec<u8>,
    record_bytes: usize,
}

impl Text {
    const SPARE: usize = 1 << 16;
    /// What a record takes beside its value, at most.
    const OVERHEAD: usize = 32;

    fn new(record_bytes: usize) -> Text {
        let mut state = 0x1234_5678_9abc_def1_u64;
        let text = (0..record_bytes + Self::SPARE).map(|_| {
            // xorshift: any noise will do, as long as it is the same in each run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            b' ' + u8::try_from(state % 95).unwrap_or(0)
        });
        Text { text: text.collect(), record_bytes }
    }

    fn record(&self, number: u64) -> &[u8] {
        let at = usize::try_from(number * 61 % Self::SPARE as u64).unwrap_or(0);
        &self.text[at..at + self.record_bytes]
    }
}

/// A run at full speed.
pub(super) struct Throughput {
    pub(super) bytes: u64,
    /// Requests under way on each connection.
    pub(super) in_flight: usize,
    pub(super) longest: Duration,
}

impl Throughput {
    /// Sends to all partitions in turn, over one connection to each leader.
    pub(super) async fn run(
        &self,
        client: &mut Client,
        topic: &TopicView,
        batches: &Batches,
        progress: &Progress,
    ) -> Result<Moved, ClientError> {
        let mut by_leader: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for (partition, leader) in &topic.partitions {
            by_leader.entry(*leader).or_default().push(*partition);
        }
        let mut connections = Vec::new();
        for (leader, partitions) in by_leader {
            connections.push((client.own(leader).await?, partitions));
        }
        let unsent = Cell::new(self.bytes);
        let acked = Cell::new(0);
        let began = Instant::now();
        let all = connections.into_iter().map(|(connection, partitions)| {
            let requests: Vec<_> =
                partitions.into_iter().map(|index| request(topic, index, batches.batch.clone())).collect();
            self.drive(connection, requests, batches, (&unsent, &acked), progress)
        });
        try_join_all(all).await?;
        Ok(Moved { bytes: acked.get() * batches.record_bytes, took: began.elapsed() })
    }

    async fn drive(
        &self,
        mut connection: Connection,
        requests: Vec<ProduceRequest>,
        batches: &Batches,
        (unsent, acked): (&Cell<u64>, &Cell<u64>),
        progress: &Progress,
    ) -> Result<(), ClientError> {
        let began = Instant::now();
        let size = batches.records * batches.record_bytes;
        let mut turn = requests.iter().cycle();
        let mut under_way = 0;
        loop {
            while under_way < self.in_flight && unsent.get() > 0 && began.elapsed() < self.longest {
                let Some(request) = turn.next() else { break };
                unsent.set(unsent.get().saturating_sub(size));
                connection.send(request).await?;
                under_way += 1;
            }
            if under_way == 0 {
                return Ok(());
            }
            accepted(&connection.receive::<ProduceRequest>().await?)?;
            under_way -= 1;
            acked.set(acked.get() + batches.records);
            progress.at(acked.get() * batches.record_bytes, self.bytes);
        }
    }
}

/// A run at a fixed rate: records are due on a schedule, and latency runs from the moment a record was due to
/// its acknowledgement, so that a stall also counts against the records that had to wait behind it.
pub(super) struct Steady {
    pub(super) record_bytes: usize,
    pub(super) batch_bytes: usize,
    pub(super) bytes_per_second: u64,
    /// A batch is sent this long after its first record was due; at zero each record is a request.
    pub(super) linger: Duration,
    pub(super) lasting: Duration,
}

/// Latencies of records, and how late the client itself woke, in microseconds.
pub(super) struct Latencies {
    pub(super) records: Histogram<u64>,
    /// Pauses of the machine: no broker can have a better tail than that.
    pub(super) pauses: Histogram<u64>,
}

/// A request under way: the records in it.
type UnderWay = (Sent, Range<u64>);

impl Steady {
    pub(super) async fn run(
        &self,
        client: &mut Client,
        topic: &TopicView,
        clock: &dyn Clock,
        progress: &Progress,
    ) -> Result<(Moved, Latencies), ClientError> {
        let (index, leader) =
            topic.partitions.first().copied().ok_or_else(|| ClientError::Other("a topic without partitions".into()))?;
        let mut connection = client.own(leader).await?;
        // The first record outside of the clock: whatever is made on first use is there then.
        let mut first = BatchBuilder::new();
        first.append(clock.now_ms(), None, Some(b"first"), &[]);
        accepted(&connection.call(&request(topic, index, first.build())).await?)?;
        let (sending, receiving) = connection.split();
        let (sent, answers) = mpsc::channel(OUTSTANDING);
        let schedule = Schedule {
            began: Instant::now(),
            interval: Duration::from_secs_f64(self.record_bytes as f64 / self.bytes_per_second.max(1) as f64),
        };
        let send = self.send(sending, sent, &schedule, (topic, index), clock);
        let receive = self.receive(receiving, answers, &schedule, progress);
        let (pauses, (records, acked)) = tokio::try_join!(send, receive)?;
        let moved = Moved { bytes: acked * self.record_bytes as u64, took: schedule.began.elapsed() };
        Ok((moved, Latencies { records, pauses }))
    }

    async fn send(
        &self,
        mut sending: Sending,
        sent: mpsc::Sender<UnderWay>,
        schedule: &Schedule,
        (topic, index): (&TopicView, i32),
        clock: &dyn Clock,
    ) -> Result<Histogram<u64>, ClientError> {
        let text = Text::new(self.record_bytes);
        let per_batch = (self.batch_bytes / (self.record_bytes + Text::OVERHEAD)).max(1) as u64;
        let per_batch = if self.linger.is_zero() { 1 } else { per_batch };
        let total = schedule.due_after(self.lasting);
        let mut pace = Pace::every(schedule.interval.clamp(Duration::from_micros(100), Duration::from_millis(1)))?;
        let mut pauses = histogram();
        let mut next = 0;
        while next < total {
            pauses.saturating_record(micros(pace.tick().await?));
            let now = schedule.began.elapsed();
            let due = schedule.due_after(now).min(total);
            while next < due {
                let end = due.min(next + per_batch);
                let full = end - next == per_batch;
                if !full && end < total && now < schedule.due(next) + self.linger {
                    break;
                }
                let mut batch = BatchBuilder::new();
                let stamp = clock.now_ms();
                (next..end).for_each(|record| batch.append(stamp, None, Some(text.record(record)), &[]));
                let under_way = sending.send(&request(topic, index, batch.build())).await?;
                // An error means that the receiver failed, which says why.
                let _ = sent.send((under_way, next..end)).await;
                next = end;
            }
        }
        Ok(pauses)
    }

    async fn receive(
        &self,
        mut receiving: Receiving,
        mut answers: mpsc::Receiver<UnderWay>,
        schedule: &Schedule,
        progress: &Progress,
    ) -> Result<(Histogram<u64>, u64), ClientError> {
        let mut latencies = histogram();
        let mut acked = 0;
        while let Some((sent, records)) = answers.recv().await {
            accepted(&receiving.receive::<ProduceRequest>(sent).await?)?;
            let now = schedule.began.elapsed();
            for record in records {
                latencies.saturating_record(micros(now.saturating_sub(schedule.due(record))));
                acked += 1;
            }
            progress.at(acked * self.record_bytes as u64, self.bytes_per_second * self.lasting.as_secs());
        }
        Ok((latencies, acked))
    }
}

/// When which record is due.
struct Schedule {
    began: Instant,
    interval: Duration,
}

impl Schedule {
    /// How many records are due within `time` of the start.
    fn due_after(&self, time: Duration) -> u64 {
        (time.as_secs_f64() / self.interval.as_secs_f64()) as u64
    }

    fn due(&self, record: u64) -> Duration {
        self.interval.mul_f64(record as f64)
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("the bounds are in order")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn request(topic: &TopicView, index: i32, records: Bytes) -> ProduceRequest {
    ProduceRequest {
        acks: -1,
        timeout_ms: TIMEOUT_MS,
        topic_data: vec![TopicProduceData {
            name: topic.name.clone(),
            topic_id: topic.id,
            partition_data: vec![PartitionProduceData { index, records: Some(records) }],
        }],
        ..Default::default()
    }
}

fn accepted(answer: &ProduceResponse) -> Result<(), ClientError> {
    for partition in answer.responses.iter().flat_map(|topic| &topic.partition_responses) {
        let what = format!("producing to partition {}", partition.index);
        check(&what, partition.error_code, partition.error_message.as_deref())?;
    }
    Ok(())
}
