//! What an operator sees of a running broker: traces in a collector, metrics, health, log lines a program can read.

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use integration::client::Client;
use integration::process::{Firn, Running};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use proto::records::BatchBuilder;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const FIRN: &str = env!("CARGO_BIN_EXE_firn-under-test");
/// Nothing here takes long; this is when a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_shows_a_produce_through_the_journal_and_a_fetch_into_the_tier() {
    let (collector, endpoint) = Collector::start().await;
    let home = tempfile::tempdir().expect("a directory");
    let firn = Firn::dev(FIRN, &home.path().join("data")).set("firn.otlp.endpoint", endpoint);
    let running = firn.start().await.expect("starts");
    let mut client = Client::connect(running.kafka()).await.expect("connects");
    go_cold(&running, &mut client).await;
    let fetched = client.fetch("seen", 0, 0, 1 << 20).await.expect("a cold read");
    assert!(!fetched.records.is_empty());
    collector.wait_for_child("journal and acknowledge", "Produce").await;
    collector.wait_for_child("remote tier", "Fetch").await;
    running.terminate(PATIENCE).await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_explain_themselves_and_move() {
    let home = tempfile::tempdir().expect("a directory");
    let running = Firn::dev(FIRN, &home.path().join("data")).start().await.expect("starts");
    let mut client = Client::connect(running.kafka()).await.expect("connects");
    go_cold(&running, &mut client).await;
    client.fetch("seen", 0, 0, 1 << 20).await.expect("a cold read");
    // What was written a moment ago comes from memory.
    let newest = client.produce("seen", 0, batch()).await.expect("acknowledged");
    client.fetch("seen", 0, newest, 1 << 20).await.expect("a hot read");
    assert_eq!(get(running.http(), "/healthz").await.0, 200);
    assert_eq!(get(running.http(), "/readyz").await.0, 200);
    let (_, metrics) = get(running.http(), "/metrics").await;
    for moved in [
        "firn_produce_latency_seconds_count",
        "firn_fetch_latency_seconds_count",
        r#"firn_requests_total{api="Produce"}"#,
        "firn_produced_bytes_total",
        "firn_connections_open",
        "firn_journal_sync_seconds_count",
        "firn_journal_group_bytes_count",
        "firn_remote_asked_bytes_total",
        "firn_remote_served_bytes_total",
        "firn_tail_cache_hits_bytes_total",
        r#"firn_object_store_requests_total{kind="put",outcome="ok"}"#,
        r#"firn_object_store_requests_total{kind="get",outcome="ok"}"#,
        r#"firn_tier_stored_bytes{topic="seen"}"#,
        r#"firn_budget_used_bytes{budget="tail_cache"}"#,
        r#"firn_budget_limit_bytes{budget="tail_cache"}"#,
        r#"firn_budget_limit_bytes{budget="uploads"}"#,
    ] {
        let value = metrics.lines().find_map(|line| line.strip_prefix(moved)?.trim().parse::<f64>().ok());
        assert!(value.is_some_and(|value| value > 0.0), "{moved} in\n{metrics}");
    }
    for named in [
        "firn_tail_cache_misses_bytes_total",
        "firn_journal_files_bytes{directory=",
        "firn_journal_unsettled_bytes{directory=",
        "firn_journal_unsynced_bytes{directory=",
        "firn_tail_cache_pinned_bytes{directory=",
        "firn_data_directory_online{directory=",
        "firn_data_directory_failures_total",
        "firn_corrupt_reads_total",
        r#"firn_tier_lag_size_bytes{topic="seen"}"#,
        r#"firn_tier_lag_age_seconds{topic="seen"}"#,
        r#"firn_budget_used_bytes{budget="uploads"}"#,
    ] {
        assert!(metrics.contains(named), "{named} in\n{metrics}");
    }
    for line in metrics.lines().filter(|line| line.starts_with("# HELP")) {
        assert!(line.split_whitespace().count() > 4, "says what it means: {line}");
    }
    running.terminate(PATIENCE).await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_are_objects_for_a_program_that_asks() {
    let home = tempfile::tempdir().expect("a directory");
    let firn = Firn::dev(FIRN, &home.path().join("data")).set("firn.log.format", "json");
    let running = firn.start().await.expect("starts");
    running.terminate(PATIENCE).await.expect("ends");
    let log = firn.log();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    let ready = lines.iter().find(|line| line["fields"]["message"] == "ready").expect("says when it is ready");
    assert_eq!(ready["level"], "INFO");
}

/// SIGTERM promises an end within 5 s, whatever a collector does.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_does_not_hold_the_end() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}/v1/traces", silent.local_addr().expect("bound"));
    let (asked, mut first) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = silent.accept().await {
            held.push(connection);
            let _ = asked.try_send(());
        }
    });
    let home = tempfile::tempdir().expect("a directory");
    let firn = Firn::dev(FIRN, &home.path().join("data")).set("firn.otlp.endpoint", endpoint);
    let running = firn.start().await.expect("starts");
    let mut client = Client::connect(running.kafka()).await.expect("connects");
    client.create_topic("seen", 1, &[]).await.expect("created");
    client.produce("seen", 0, batch()).await.expect("acknowledged");
    let ended = running.terminate(Duration::from_secs(5)).await;
    let (status, _) = ended.expect("it ends in time");
    assert!(status.success(), "{status}: {}", firn.log());
    let asked = timeout(PATIENCE, first.recv()).await.expect("nobody has asked the collector");
    asked.expect("spans were to be sent");
}

/// A topic whose first records lie in the object store only.
async fn go_cold(running: &Running, client: &mut Client) {
    let small = [("segment.bytes", "1048576"), ("local.retention.bytes", "1"), ("firn.tier.max.lag.ms", "1000")];
    client.create_topic("seen", 1, &small).await.expect("created");
    let deadline = Instant::now() + PATIENCE;
    while client.offset("seen", 0, EARLIEST_LOCAL).await.expect("listed") == 0 {
        assert!(Instant::now() < deadline, "does not go cold:\n{}", running.log());
        client.produce("seen", 0, batch()).await.expect("acknowledged");
        sleep(Duration::from_millis(20)).await;
    }
}

/// ListOffsets' first offset on local disk (KIP-405).
const EARLIEST_LOCAL: i64 = -4;

fn batch() -> Bytes {
    let mut batch = BatchBuilder::new();
    for _ in 0..256 {
        batch.append(0, None, Some(&[7; 1024]), &[]);
    }
    batch.build()
}

async fn get(from: SocketAddr, path: &str) -> (u16, String) {
    let answer = reqwest::get(format!("http://{from}{path}")).await.expect("answers");
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

/// An OTLP/HTTP collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    async fn start() -> (Collector, String) {
        let collector = Collector::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}/v1/traces", listener.local_addr().expect("bound"));
        let router = axum::Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, endpoint)
    }

    /// Waits for a span called `name` whose parent, in the same trace, is a request of `api`.
    async fn wait_for_child(&self, name: &str, api: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            {
                let spans = self.spans.lock().expect("no test panics while it holds it");
                let is_child = |child: &&Span| {
                    spans.iter().any(|parent| {
                        parent.span_id == child.parent_span_id
                            && parent.trace_id == child.trace_id
                            && parent.attributes.iter().any(|a| a.key == "api" && format!("{a:?}").contains(api))
                    })
                };
                if spans.iter().filter(|span| span.name == name).any(|span| is_child(&span)) {
                    return;
                }
                assert!(Instant::now() < deadline, "no `{name}` under {api} in {spans:#?}");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn take(State(collector): State<Collector>, body: Bytes) {
    let export = ExportTraceServiceRequest::decode(body).expect("OTLP");
    let spans = export.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|scope| scope.spans);
    collector.spans.lock().expect("no test panics while it holds it").extend(spans);
}
