//! What a running broker tells of itself, in Prometheus form.
//!
//! Names carry their unit and explain themselves; what is a state rather than an event (lags, budgets) is read at scrape
//! time from its owner through [`Metrics::on_scrape`], so that no hot path keeps a gauge up to date.

use crate::process::Usage;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

/// Requests by API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ApiLabel {
    pub api: &'static str,
}

/// Fetched bytes by where they came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SourceLabel {
    pub source: &'static str,
}

/// Object-store requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StoreLabel {
    /// put, get, delete, list or head.
    pub kind: &'static str,
    /// ok, not_found, exists, failed or unknown.
    pub outcome: &'static str,
}

/// A byte budget or cache, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BudgetLabel {
    pub budget: String,
}

/// A data directory, by path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DirectoryLabel {
    pub directory: String,
}

/// A topic, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TopicLabel {
    pub topic: String,
}

/// What changes at scrape time only.
#[derive(Debug, Default)]
pub struct Gauges {
    pub connections_open: Gauge,
    pub budget_used_bytes: Family<BudgetLabel, Gauge>,
    pub budget_limit_bytes: Family<BudgetLabel, Gauge>,
    pub tier_lag_bytes: Family<TopicLabel, Gauge>,
    pub tier_lag_seconds: Family<TopicLabel, Gauge>,
    pub tier_bytes: Family<TopicLabel, Gauge>,
    pub partitions: Gauge,
    pub partitions_offline: Gauge,
    pub partitions_led: Gauge,
    pub partitions_under_replicated: Gauge,
    pub partitions_under_min_isr: Gauge,
    pub partitions_without_leader: Gauge,
    pub partitions_reassigning: Gauge,
    pub replica_lag_records: Gauge,
    pub replica_lag_seconds: Gauge<f64, AtomicU64>,
    pub replicas_without_fetch: Gauge,
    pub replication: Replicated,
    pub brokers_active: Gauge,
    pub brokers_fenced: Gauge,
    pub metadata_offset: Gauge,
    pub journal_file_bytes: Family<DirectoryLabel, Gauge>,
    pub journal_unsettled_bytes: Family<DirectoryLabel, Gauge>,
    pub journal_unsynced_bytes: Family<DirectoryLabel, Gauge>,
    pub tail_pinned_bytes: Family<DirectoryLabel, Gauge>,
    pub directory_free_bytes: Family<DirectoryLabel, Gauge>,
    pub directory_online: Family<DirectoryLabel, Gauge>,
}

/// What replication from other brokers counts itself: carried over at each scrape.
#[derive(Debug, Default)]
pub struct Replicated {
    pub bytes_in: Counter,
    pub fetches: Counter,
    pub unanswered: Counter,
    pub refused: Counter,
    pub corrupt: Counter,
    pub cuts: Counter,
    pub started_over: Counter,
}

/// The name under which every Prometheus client library gives the CPU time of its process.
pub const PROCESS_CPU_SECONDS: &str = "process_cpu_seconds_total";
/// Likewise its resident memory.
pub const PROCESS_RESIDENT_BYTES: &str = "process_resident_memory_bytes";

/// What the kernel says of this process, at each scrape.
#[derive(Debug)]
struct OwnProcess;

impl Collector for OwnProcess {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        // Without /proc there is nothing to tell.
        let Ok(usage) = Usage::own() else { return Ok(()) };
        let cpu = ConstCounter::new(usage.cpu_seconds);
        let help = "User and system CPU time";
        cpu.encode(encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), cpu.metric_type())?)?;
        let rss = ConstGauge::new(usage.rss_bytes);
        let help = "Memory that is resident";
        rss.encode(encoder.encode_descriptor("process_resident_memory", help, Some(&Unit::Bytes), rss.metric_type())?)
    }
}

type Scrape = Box<dyn Fn(&Gauges) + Send + Sync>;

/// All metrics of one broker.
pub struct Metrics {
    registry: Registry,
    /// Under the names that are the same everywhere, hence without our prefix.
    process: Registry,
    scrapes: Mutex<Vec<Scrape>>,
    pub gauges: Gauges,
    pub produce_latency: Histogram,
    pub fetch_latency: Histogram,
    pub requests: Family<ApiLabel, Counter>,
    pub produced_bytes: Counter,
    pub produced_batches: Counter,
    pub fetched_bytes: Family<SourceLabel, Counter>,
    pub journal_sync: Histogram,
    pub journal_group_bytes: Histogram,
    pub tail_cache_hits: Counter,
    pub tail_cache_misses: Counter,
    pub directory_failures: Counter,
    pub corrupt_reads: Counter,
    pub uncommitted_cuts: Counter,
    pub isr_shrinks: Counter,
    pub isr_expands: Counter,
    pub store_requests: Family<StoreLabel, Counter>,
    pub store_latency: Histogram,
    pub remote_bytes_asked: Counter,
    pub remote_bytes_served: Counter,
    pub connections_total: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl Metrics {
    /// Metrics at zero, registered under `firn_`.
    pub fn new() -> Metrics {
        // From 100 µs (a cached answer) to 13 s (a hanging store).
        let latency = || Histogram::new(exponential_buckets(0.0001, 2.0, 18));
        let mut metrics = Metrics {
            registry: Registry::with_prefix("firn"),
            process: Registry::default(),
            scrapes: Mutex::default(),
            gauges: Gauges::default(),
            produce_latency: latency(),
            fetch_latency: latency(),
            requests: Family::default(),
            produced_bytes: Counter::default(),
            produced_batches: Counter::default(),
            fetched_bytes: Family::default(),
            journal_sync: latency(),
            journal_group_bytes: Histogram::new(exponential_buckets(4096.0, 4.0, 8)),
            tail_cache_hits: Counter::default(),
            tail_cache_misses: Counter::default(),
            directory_failures: Counter::default(),
            corrupt_reads: Counter::default(),
            uncommitted_cuts: Counter::default(),
            isr_shrinks: Counter::default(),
            isr_expands: Counter::default(),
            store_requests: Family::default(),
            store_latency: latency(),
            remote_bytes_asked: Counter::default(),
            remote_bytes_served: Counter::default(),
            connections_total: Counter::default(),
        };
        metrics.register();
        metrics.process.register_collector(Box::new(OwnProcess));
        metrics
    }

    /// Adds something to be read at each scrape.
    pub fn on_scrape(&self, read: impl Fn(&Gauges) + Send + Sync + 'static) {
        self.scrapes.lock().push(Box::new(read));
    }

    /// The text a Prometheus server reads.
    pub fn render(&self) -> String {
        for read in self.scrapes.lock().iter() {
            read(&self.gauges);
        }
        let mut out = String::new();
        let written = text::encode_registry(&mut out, &self.registry)
            .and_then(|()| text::encode_registry(&mut out, &self.process))
            .and_then(|()| text::encode_eof(&mut out));
        written.expect("writing to a string does not fail");
        out
    }

    fn register(&mut self) {
        let Metrics { registry: r, gauges: g, .. } = self;
        let seconds = || Unit::Seconds;
        let bytes = || Unit::Bytes;
        let hist = |r: &mut Registry, name: &str, help: &str, unit, metric: &Histogram| {
            r.register_with_unit(name, help, unit, metric.clone());
        };
        hist(
            r,
            "produce_latency",
            "Produce requests: first byte read to answer ready",
            seconds(),
            &self.produce_latency,
        );
        hist(r, "fetch_latency", "Fetch requests: first byte read to answer ready", seconds(), &self.fetch_latency);
        hist(r, "journal_sync", "Journal groups: write and sync", seconds(), &self.journal_sync);
        hist(r, "journal_group", "Size of what one journal sync made durable", bytes(), &self.journal_group_bytes);
        r.register("requests", "Requests answered, by API", self.requests.clone());
        r.register_with_unit("produced", "Record batches taken", bytes(), self.produced_bytes.clone());
        r.register("produced_batches", "Record batches taken", self.produced_batches.clone());
        r.register_with_unit("fetched", "Record batches sent, by where they lay", bytes(), self.fetched_bytes.clone());
        let hits = self.tail_cache_hits.clone();
        r.register_with_unit("tail_cache_hits", "Record batches read from memory, just written", bytes(), hits);
        let misses = self.tail_cache_misses.clone();
        r.register_with_unit("tail_cache_misses", "Record batches read from local segments", bytes(), misses);
        let failures = self.directory_failures.clone();
        r.register("data_directory_failures", "Data directories that went offline", failures);
        let corrupt = self.corrupt_reads.clone();
        r.register("corrupt_reads", "Reads that found something else than was written", corrupt);
        let cuts = self.uncommitted_cuts.clone();
        r.register("uncommitted_cuts", "Logs cut below their high watermark after an unclean election", cuts);
        let shrinks = self.isr_shrinks.clone();
        r.register("isr_shrinks", "Times that replicas of a partition led here left those in sync", shrinks);
        let expands = self.isr_expands.clone();
        r.register("isr_expands", "Times that replicas of a partition led here joined those in sync", expands);
        r.register("object_store_requests", "Object-store requests, by kind and outcome", self.store_requests.clone());
        hist(
            r,
            "object_store_latency",
            "Object-store requests, whatever their outcome",
            seconds(),
            &self.store_latency,
        );
        r.register_with_unit("remote_asked", "Fetched from the object store", bytes(), self.remote_bytes_asked.clone());
        r.register_with_unit(
            "remote_served",
            "Cold records sent to clients",
            bytes(),
            self.remote_bytes_served.clone(),
        );
        r.register("connections", "Connections accepted", self.connections_total.clone());
        r.register("connections_open", "Connections open now", g.connections_open.clone());
        r.register_with_unit("budget_used", "Memory in use, by budget", bytes(), g.budget_used_bytes.clone());
        r.register_with_unit("budget_limit", "Size of each memory budget", bytes(), g.budget_limit_bytes.clone());
        r.register_with_unit("tier_lag_size", "Records not yet in the object store", bytes(), g.tier_lag_bytes.clone());
        r.register_with_unit(
            "tier_lag_age",
            "Age of the oldest record not tiered",
            seconds(),
            g.tier_lag_seconds.clone(),
        );
        r.register_with_unit("tier_stored", "Records in the object store", bytes(), g.tier_bytes.clone());
        r.register("partitions", "Partitions served", g.partitions.clone());
        r.register("partitions_offline", "Partitions whose directory failed", g.partitions_offline.clone());
        register_directories(r, g);
        register_cluster(r, g);
        register_replication(r, g);
    }
}

fn register_cluster(r: &mut Registry, g: &Gauges) {
    let gauges = [
        ("partitions_led", "Partitions that this broker leads", &g.partitions_led),
        (
            "partitions_under_replicated",
            "Partitions led here with replicas that are not in sync",
            &g.partitions_under_replicated,
        ),
        (
            "partitions_under_min_isr",
            "Partitions led here with fewer replicas in sync than min.insync.replicas asks for",
            &g.partitions_under_min_isr,
        ),
        (
            "partitions_without_leader",
            "Partitions of the whole cluster that nobody leads, as this broker knows",
            &g.partitions_without_leader,
        ),
        (
            "partitions_reassigning",
            "Partitions of the whole cluster whose replicas are moving",
            &g.partitions_reassigning,
        ),
        ("brokers_active", "Brokers that serve, as this broker knows", &g.brokers_active),
        ("brokers_fenced", "Brokers that are registered and do not serve", &g.brokers_fenced),
        ("metadata_offset", "How far this broker knows the metadata of the cluster", &g.metadata_offset),
    ];
    for (name, help, gauge) in gauges {
        r.register(name, help, gauge.clone());
    }
}

fn register_replication(r: &mut Registry, g: &Gauges) {
    let of = &g.replication;
    r.register_with_unit("replication_in", "Record batches that came from leaders", Unit::Bytes, of.bytes_in.clone());
    let counters = [
        ("replication_fetches", "Fetches from leaders that were answered", &of.fetches),
        ("replication_fetches_unanswered", "Fetches from leaders that were not answered", &of.unanswered),
        ("replication_refusals", "Partitions of which a leader answered with an error", &of.refused),
        ("replication_corrupt", "Answers of leaders that did not check out or did not fit", &of.corrupt),
        ("replica_log_cuts", "Logs cut where their history left their leader's", &of.cuts),
        (
            "replica_log_restarts",
            "Logs that started over, at the end of the tier or where their leader starts",
            &of.started_over,
        ),
    ];
    for (name, help, counter) in counters {
        r.register(name, help, counter.clone());
    }
    r.register(
        "replica_max_lag_records",
        "Records that the replica lacks which lacks most, of partitions led here",
        g.replica_lag_records.clone(),
    );
    r.register_with_unit(
        "replica_max_lag",
        "Time since the replica had all records that lags longest, of partitions led here",
        Unit::Seconds,
        g.replica_lag_seconds.clone(),
    );
    r.register(
        "replicas_silent",
        "Replicas of partitions led here that have not fetched since this broker leads",
        g.replicas_without_fetch.clone(),
    );
}

fn register_directories(r: &mut Registry, g: &Gauges) {
    let families = [
        ("journal_files", "Journal files on disk, those made ahead included", &g.journal_file_bytes),
        ("journal_unsettled", "Journal files that hold records not settled in segments", &g.journal_unsettled_bytes),
        ("journal_unsynced", "Records that no sync has made durable yet", &g.journal_unsynced_bytes),
        ("tail_cache_pinned", "Memory of records that are in no segment yet", &g.tail_pinned_bytes),
        ("data_directory_free", "Free space of the file system of a data directory", &g.directory_free_bytes),
    ];
    for (name, help, family) in families {
        r.register_with_unit(name, help, Unit::Bytes, family.clone());
    }
    r.register("data_directory_online", "1, or 0 once the directory has failed", g.directory_online.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_shows_events_and_states() {
        let metrics = Metrics::new();
        metrics.requests.get_or_create(&ApiLabel { api: "Produce" }).inc();
        metrics.on_scrape(|gauges| {
            gauges.budget_used_bytes.get_or_create(&BudgetLabel { budget: "requests".into() }).set(7);
        });
        let text = metrics.render();
        assert!(text.contains("firn_requests_total{api=\"Produce\"} 1"), "{text}");
        let shown =
            ["firn_isr_shrinks_total 0", "firn_replication_in_bytes_total 0", "firn_replica_max_lag_seconds 0.0"];
        assert!(shown.iter().all(|line| text.contains(line)), "{text}");
        assert!(text.contains("firn_budget_used_bytes{budget=\"requests\"} 7"), "{text}");
    }
}
