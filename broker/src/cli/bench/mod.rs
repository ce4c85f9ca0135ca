//! `firn bench`: what a running broker does on this machine, in figures that anybody can take again.
//!
//! Every figure is taken over the Kafka protocol with records of one size and `acks=all`, so any broker can be measured. The
//! broker's CPU time and memory come from its `/metrics`, or from its process id; where neither is known, those
//! columns stay empty. Runs are bounded in bytes and in time; the topics made are deleted at the end.

mod load;
mod pace;
mod read;
mod report;
mod usage;

use super::args::BenchArgs;
use super::client::{Client, ClientError, TopicView};
use super::{out, tier, topic};
use load::{Batches, Steady, Throughput};
use proto::host::{Clock, Entropy};
use report::{Progress, Row};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use usage::Meter;

/// No run takes longer, whatever was asked for.
const LONGEST: Duration = Duration::from_secs(120);
/// How long uploading and trimming may take.
const SETTLE: Duration = Duration::from_secs(120);
/// Cold reads cross the borders of segments of at most this size.
const COLD_SEGMENT_MIB: u64 = 32;
/// Partitions get their leaders within this.
const LEADERS: Duration = Duration::from_secs(30);
/// The first offset on local disk, in ListOffsets (KIP-405).
const EARLIEST_LOCAL: i64 = -4;

/// Takes all figures and prints them.
pub(super) async fn run(args: BenchArgs, clock: &dyn Clock, entropy: &dyn Entropy) -> Result<(), ClientError> {
    let mut bench = Bench::start(args, clock, entropy).await?;
    let outcome = tokio::select! {
        outcome = bench.figures() => outcome,
        _ = tokio::signal::ctrl_c() => Err(ClientError::Other("interrupted".to_owned())),
    };
    bench.progress.done();
    bench.clean_up().await;
    let rows = &bench.rows;
    out::print(if bench.args.json { format!("{}\n", report::json(rows)) } else { report::table(rows) })?;
    outcome
}

struct Bench<'a> {
    args: BenchArgs,
    clock: &'a dyn Clock,
    client: Client,
    meter: Meter,
    progress: Progress,
    /// Begins the names of all topics of this run.
    stem: String,
    made: Vec<String>,
    rows: Vec<Row>,
}

impl<'a> Bench<'a> {
    async fn start(args: BenchArgs, clock: &'a dyn Clock, entropy: &dyn Entropy) -> Result<Self, ClientError> {
        let client = Client::connect(&args.at.bootstrap).await?;
        let meter = Meter::find(args.pid, &args.admin.admin).await?;
        let stem = format!("firn-bench-{:08x}", entropy.next_u64() >> 32);
        let progress = Progress::new();
        Ok(Bench { args, clock, client, meter, progress, stem, made: Vec::new(), rows: Vec::new() })
    }

    async fn figures(&mut self) -> Result<(), ClientError> {
        let batches = Batches::of(&self.args, self.clock.now_ms());
        let idle = self.meter.read().await;
        self.rows.push(Row { rss_bytes: idle.map(|usage| usage.rss_bytes), ..Row::new("before") });
        let mut hot = Vec::new();
        for partitions in [1, self.args.partitions] {
            let topic = self.topic(&format!("hot-{partitions}"), partitions, self.args.config.clone()).await?;
            self.produce(&topic, &batches, "warm up", self.args.mib / 4).await?;
            self.rows.pop();
            self.produce(&topic, &batches, "produce", self.args.mib).await?;
            hot.push(topic);
            if partitions == self.args.partitions {
                break;
            }
        }
        let steady = self.topic("latency", 1, self.args.config.clone()).await?;
        for linger in [Duration::from_millis(5), Duration::ZERO] {
            self.latency(&steady, linger).await?;
        }
        for topic in &hot {
            self.consume(topic, "consume, hot", None).await?;
        }
        if !self.args.skip_cold {
            self.cold(&batches).await?;
        }
        Ok(())
    }

    async fn produce(
        &mut self,
        topic: &TopicView,
        batches: &Batches,
        what: &'static str,
        mib: u64,
    ) -> Result<(), ClientError> {
        let figure = format!("{what}, {}", partitions(topic));
        self.progress.begin(&figure);
        let throughput = Throughput { bytes: mib << 20, in_flight: self.args.in_flight, longest: LONGEST };
        let before = self.meter.read().await;
        let done = throughput.run(&mut self.client, topic, batches, &self.progress).await?;
        let after = self.meter.read().await;
        self.rows.push(Row::moved(figure, done, before, after));
        Ok(())
    }

    async fn latency(&mut self, topic: &TopicView, linger: Duration) -> Result<(), ClientError> {
        let figure = format!("latency, {} MiB/s, linger {} ms", self.args.rate_mib, linger.as_millis());
        self.progress.begin(&figure);
        let steady = Steady {
            record_bytes: self.args.record_bytes,
            batch_bytes: self.args.batch_bytes,
            bytes_per_second: self.args.rate_mib << 20,
            linger,
            lasting: Duration::from_secs(self.args.seconds).min(LONGEST),
        };
        let before = self.meter.read().await;
        let (moved, latencies) = steady.run(&mut self.client, topic, self.clock, &self.progress).await?;
        let after = self.meter.read().await;
        self.rows.push(Row::moved(figure, moved, before, after).with(&latencies));
        Ok(())
    }

    async fn consume(&mut self, topic: &TopicView, what: &str, until: Option<i64>) -> Result<(), ClientError> {
        let figure = format!("{what}, {}", partitions(topic));
        self.progress.begin(&figure);
        let before = self.meter.read().await;
        let done = read::run(&mut self.client, topic, until, LONGEST, self.args.record_bytes, &self.progress).await?;
        let after = self.meter.read().await;
        let mut row = Row::moved(figure, done.moved, before, after);
        row.first_record_ms = Some(done.first.as_secs_f64() * 1e3);
        self.rows.push(row);
        Ok(())
    }

    /// Produces, waits until all but the youngest segment lies in the object store only, and reads that.
    async fn cold(&mut self, batches: &Batches) -> Result<(), ClientError> {
        // Of little, too, most gets cold: the youngest segment stays.
        let segment_mib = (self.args.mib / 4).clamp(1, COLD_SEGMENT_MIB);
        let mut config = vec![
            ("remote.storage.enable".to_owned(), "true".to_owned()),
            ("segment.bytes".to_owned(), (segment_mib << 20).to_string()),
            ("local.retention.bytes".to_owned(), "1".to_owned()),
        ];
        config.extend(self.args.config.clone());
        let topic = self.topic("cold", 1, config).await?;
        self.produce(&topic, batches, "produce to be tiered", self.args.mib).await?;
        self.progress.begin("upload and trim");
        tier::flush(&self.args.admin, &topic.name, SETTLE).await?;
        let cold_end = self.trimmed(&topic).await?;
        self.consume(&topic, "consume, cold", Some(cold_end)).await
    }

    /// Waits until trimming has come to rest; answers the first offset on local disk.
    async fn trimmed(&mut self, topic: &TopicView) -> Result<i64, ClientError> {
        let leader = topic.partitions.first().map_or(0, |(_, leader)| *leader);
        let (began, mut since, mut start) = (Instant::now(), Instant::now(), 0);
        loop {
            let now = topic::list_offset(&mut self.client, &topic.name, 0, leader, EARLIEST_LOCAL).await?;
            if now != start {
                (start, since) = (now, Instant::now());
            }
            // Trimming follows a pointer's commit within two seconds.
            if start > 0 && since.elapsed() > Duration::from_secs(3) {
                return Ok(start);
            }
            if began.elapsed() > SETTLE {
                let seconds = SETTLE.as_secs();
                return Err(ClientError::Other(format!("{}: nothing was trimmed in {seconds} s", topic.name)));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn topic(
        &mut self,
        what: &str,
        partitions: i32,
        config: Vec<(String, String)>,
    ) -> Result<TopicView, ClientError> {
        let name = format!("{}-{what}", self.stem);
        topic::make(&mut self.client, &name, Some(partitions), None, config).await?;
        self.made.push(name.clone());
        let began = Instant::now();
        loop {
            let view = self.client.topic(&name).await;
            match view {
                Ok(view) if view.partitions.iter().all(|(_, leader)| *leader >= 0) => return Ok(view),
                Err(error) if began.elapsed() > LEADERS => return Err(error),
                _ if began.elapsed() > LEADERS => {
                    return Err(ClientError::Other(format!("{name} has no leaders after {} s", LEADERS.as_secs())));
                }
                _ => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Deletes what was made. What does not go is named, no more: the figures are what was asked for.
    async fn clean_up(&mut self) {
        // The connection may be in the middle of an answer that nobody waited for.
        let Ok(mut client) = Client::connect(&self.args.at.bootstrap).await else { return };
        for name in std::mem::take(&mut self.made) {
            if let Err(error) = topic::remove(&mut client, &name).await {
                out::note(format_args!("firn: {error}"));
            }
        }
    }
}

fn partitions(topic: &TopicView) -> String {
    match topic.partitions.len() {
        1 => "1 partition".to_owned(),
        count => format!("{count} partitions"),
    }
}
