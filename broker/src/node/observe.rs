//! Ties the parts' own counters to the broker's metrics.

use crate::api::services::Services;
use crate::log::observer::{Failure, Observer};
use crate::metrics::{BudgetLabel, DirectoryLabel, Metrics, StoreLabel, TopicLabel};
use crate::net::budget::Budget;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tiering::runner::RunnerHandle;
use tiering::store::{RequestKind, StoreMetrics};

/// Counts object-store requests.
pub(super) struct StoreReports {
    metrics: Arc<Metrics>,
}

impl StoreReports {
    /// Reports into `metrics`.
    pub(super) fn new(metrics: Arc<Metrics>) -> StoreReports {
        StoreReports { metrics }
    }
}

impl StoreMetrics for StoreReports {
    fn request(&self, kind: RequestKind, outcome: &'static str, bytes: u64, took: Duration) {
        let label = StoreLabel { kind: kind.name(), outcome };
        self.metrics.store_requests.get_or_create(&label).inc();
        self.metrics.store_latency.observe(took.as_secs_f64());
        if kind == RequestKind::Get {
            self.metrics.remote_bytes_asked.inc_by(bytes);
        }
    }
}

/// Counts what happens in journals and partitions.
pub(super) struct LogReports {
    metrics: Arc<Metrics>,
}

impl LogReports {
    /// Reports into `metrics`.
    pub(super) fn new(metrics: Arc<Metrics>) -> LogReports {
        LogReports { metrics }
    }
}

impl Observer for LogReports {
    fn synced(&self, bytes: usize, took: Duration) {
        self.metrics.journal_sync.observe(took.as_secs_f64());
        self.metrics.journal_group_bytes.observe(bytes as f64);
    }

    fn read(&self, memory_bytes: usize, segment_bytes: usize) {
        self.metrics.tail_cache_hits.inc_by(memory_bytes as u64);
        self.metrics.tail_cache_misses.inc_by(segment_bytes as u64);
    }

    fn failed(&self, failure: Failure) {
        match failure {
            Failure::Directory => self.metrics.directory_failures.inc(),
            Failure::Corrupt => self.metrics.corrupt_reads.inc(),
            Failure::Uncommitted => self.metrics.uncommitted_cuts.inc(),
        };
    }
}

/// Lets each scrape read the present state of budgets, caches and the tier.
pub(super) fn install(services: &Arc<Services>, requests: &Budget, tier: &RunnerHandle) {
    let weak = Arc::downgrade(services);
    let requests = requests.clone();
    let tier = tier.clone();
    services.metrics.on_scrape(move |gauges| {
        let Some(services) = weak.upgrade() else { return };
        let budget = |name: &str, used: u64, limit: u64| {
            let label = BudgetLabel { budget: name.to_owned() };
            gauges.budget_used_bytes.get_or_create(&label).set(i64::try_from(used).unwrap_or(i64::MAX));
            gauges.budget_limit_bytes.get_or_create(&label).set(i64::try_from(limit).unwrap_or(i64::MAX));
        };
        let config = services.config.load();
        budget("requests", requests.used_bytes() as u64, requests.total_bytes() as u64);
        let decoded = &services.decoded_memory;
        budget("decoded_requests", decoded.used_bytes() as u64, decoded.total_bytes() as u64);
        let (members, limit) = services.groups.members_memory();
        budget("group_members", members as u64, limit as u64);
        let fetch = &services.fetch_memory;
        budget("fetch_answers", fetch.used_bytes() as u64, fetch.total_bytes() as u64);
        let cold = &services.cold_memory;
        budget("cold_fetch_answers", cold.used_bytes() as u64, cold.total_bytes() as u64);
        let tail: usize = services.partitions.dirs().iter().map(|dir| dir.tail().bytes()).sum();
        budget("tail_cache", tail as u64, config.firn.tail_cache_bytes as u64);
        let uploads = tier.upload_memory();
        budget("uploads", uploads.used_bytes, uploads.limit_bytes);
        let remote = services.remote.stats();
        budget("remote_windows", remote.window_bytes, config.firn.remote_read_bytes as u64);
        budget("chunk_cache", remote.cache_bytes, config.firn.chunk_cache_bytes as u64);
        let partitions = services.partitions.all();
        gauges.partitions.set(i64::try_from(partitions.len()).unwrap_or(i64::MAX));
        let offline = partitions.iter().filter(|partition| partition.dir().is_offline()).count();
        gauges.partitions_offline.set(i64::try_from(offline).unwrap_or(i64::MAX));
        cluster(&services, gauges);
        replication(&services, gauges);
        directories(&services, gauges);
        tier_lags(&services, &tier, gauges);
    });
}

fn cluster(services: &Services, gauges: &crate::metrics::Gauges) {
    let image = services.controller.image();
    let [mut led, mut under_replicated, mut under_min, mut leaderless, mut moving] = [0; 5];
    for topic in image.topics() {
        let least = services.topic_config(topic.id).min_insync_replicas;
        for (_, state) in topic.indexed() {
            leaderless += i64::from(state.leader.is_none());
            moving += i64::from(!state.adding.is_empty() || !state.removing.is_empty());
            if state.leader == Some(services.node_id) {
                led += 1;
                // As in Kafka, one that is being added is not missed yet.
                under_replicated += i64::from(state.isr.len() < state.replicas.len() - state.adding.len());
                // A partition cannot have more in sync than it has.
                under_min += i64::from(state.isr.len() < least.min(state.replicas.len()));
            }
        }
    }
    gauges.partitions_led.set(led);
    gauges.partitions_under_replicated.set(under_replicated);
    gauges.partitions_under_min_isr.set(under_min);
    gauges.partitions_without_leader.set(leaderless);
    gauges.partitions_reassigning.set(moving);
    let count = |brokers: usize| i64::try_from(brokers).unwrap_or(i64::MAX);
    gauges.brokers_active.set(count(image.brokers().filter(|broker| broker.is_active()).count()));
    gauges.brokers_fenced.set(count(image.brokers().filter(|broker| broker.fenced).count()));
    gauges.metadata_offset.set(i64::try_from(image.offset()).unwrap_or(i64::MAX));
}

/// How far replicas of what is led here lag, and what came from other leaders.
fn replication(services: &Services, gauges: &crate::metrics::Gauges) {
    let (mut records, mut lag_ms, mut silent) = (0, 0, 0);
    for partition in services.partitions.all() {
        // A snapshot of each alone: what is appended in between does not count.
        let views = partition.replicas();
        if views.len() < 2 {
            continue;
        }
        let end = partition.offsets().log_end;
        for view in &views {
            match view.synced_end.zip(view.lag_ms) {
                Some((_, 0)) => {}
                Some((synced, lag)) => {
                    records = records.max(end - synced);
                    lag_ms = lag_ms.max(lag);
                }
                None => silent += 1,
            }
        }
    }
    gauges.replica_lag_records.set(records);
    gauges.replica_lag_seconds.set(lag_ms as f64 / 1_000.0);
    gauges.replicas_without_fetch.set(silent);
    let (shown, figures) = (&gauges.replication, services.replication.figures());
    for (shown, counted) in [
        (&shown.bytes_in, &figures.bytes),
        (&shown.fetches, &figures.answers),
        (&shown.unanswered, &figures.unanswered),
        (&shown.refused, &figures.refused),
        (&shown.corrupt, &figures.corrupt),
        (&shown.cuts, &figures.cuts),
        (&shown.started_over, &figures.started_over),
    ] {
        shown.inner().store(counted.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

fn directories(services: &Services, gauges: &crate::metrics::Gauges) {
    for dir in services.partitions.dirs() {
        let label = DirectoryLabel { directory: dir.path().display().to_string() };
        let count = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let usage = dir.journal().map(crate::journal::Journal::usage).ok();
        gauges.directory_online.get_or_create(&label).set(i64::from(!dir.is_offline()));
        let (files, unsettled, unsynced) =
            usage.map_or((0, 0, 0), |usage| (usage.file_bytes, usage.used_file_bytes, usage.unsynced_bytes as u64));
        gauges.journal_file_bytes.get_or_create(&label).set(count(files));
        gauges.journal_unsettled_bytes.get_or_create(&label).set(count(unsettled));
        gauges.journal_unsynced_bytes.get_or_create(&label).set(count(unsynced));
        gauges.tail_pinned_bytes.get_or_create(&label).set(count(dir.tail().pinned_bytes() as u64));
        if let Some(space) = dir.space() {
            gauges.directory_free_bytes.get_or_create(&label).set(count(space.free));
        }
    }
}

fn tier_lags(services: &Services, tier: &RunnerHandle, gauges: &crate::metrics::Gauges) {
    let image = services.controller.image();
    // Bytes that wait, age of the oldest in seconds, bytes tiered.
    let mut topics: BTreeMap<String, (u64, i64, u64)> = BTreeMap::new();
    for status in tier.status() {
        let Some(topic) = image.topic(status.tp.topic) else { continue };
        let (lag, age, stored) = topics.entry(topic.name.to_string()).or_default();
        *lag += status.lag_bytes;
        *age = (*age).max(status.lag_ms / 1_000);
        *stored += status.tiered_bytes;
    }
    // A topic that is gone is not reported any more.
    gauges.tier_lag_bytes.clear();
    gauges.tier_lag_seconds.clear();
    gauges.tier_bytes.clear();
    for (topic, (lag, age, stored)) in topics {
        let label = TopicLabel { topic };
        let count = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        gauges.tier_lag_bytes.get_or_create(&label).set(count(lag));
        gauges.tier_lag_seconds.get_or_create(&label).set(age);
        gauges.tier_bytes.get_or_create(&label).set(count(stored));
    }
}
