//! `firn dev` and `firn server`: a node from its start to its end.

use super::args::{DevArgs, ServerArgs};
use super::live;
use crate::http::Control;
use crate::node::{Node, NodeSettings};
use crate::telemetry::{self, LogFormat};
use proto::host::Spawner;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

/// How often the live view is redrawn.
const REDRAW: Duration = Duration::from_secs(1);
/// A node that has not ended by then is left to recovery.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Runs one node with everything it needs below one directory.
pub fn dev(args: &DevArgs) -> Result<(), String> {
    std::fs::create_dir_all(&args.data).map_err(|error| {
        format!("the data directory {} cannot be made: {error} (--data names another)", args.data.display())
    })?;
    let data = args.data.canonicalize().map_err(|error| format!("{}: {error}", args.data.display()))?;
    let object_store = match &args.object_store {
        Some(url) => url.clone(),
        None => directory_url(&data.join("bucket"))?,
    };
    let settings = NodeSettings {
        node_id: 0,
        log_dirs: vec![data.join("log")],
        metadata_dir: data.join("metadata"),
        kafka: args.kafka.clone(),
        advertised: None,
        http: args.http.clone(),
        object_store,
        fixed: args.overrides.set.iter().cloned().collect::<BTreeMap<_, _>>(),
        rack: None,
        directories_to_lock: vec![data],
    };
    serve(settings, std::io::stdout().is_terminal())
}

/// Runs a node from a configuration file.
pub fn server(args: &ServerArgs) -> Result<(), String> {
    let settings = crate::node::settings::from_file(&args.config, &args.overrides.set)?;
    serve(settings, false)
}

fn directory_url(path: &Path) -> Result<String, String> {
    url::Url::from_file_path(path).map(String::from).map_err(|()| format!("{} is not an absolute path", path.display()))
}

/// The runtimes of a node. Cold work has threads of its own, so that no acknowledgement waits for it (ISOLATED).
struct Runtimes {
    hot: Runtime,
    cold: Runtime,
}

impl Runtimes {
    fn new() -> std::io::Result<Runtimes> {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let hot = Builder::new_multi_thread().worker_threads(cores).thread_name("hot").enable_all().build()?;
        let cold = Builder::new_multi_thread()
            .worker_threads(cores.div_ceil(2))
            .thread_name("cold")
            .max_blocking_threads(64)
            .enable_all()
            .build()?;
        Ok(Runtimes { hot, cold })
    }

    fn spawner(&self) -> Spawner {
        Spawner::new(self.hot.handle().clone(), self.cold.handle().clone(), self.cold.handle().clone())
    }
}

fn serve(settings: NodeSettings, live_view: bool) -> Result<(), String> {
    let telemetry = telemetry::install(&telemetry::Settings {
        format: match std::env::var("FIRN_LOG_FORMAT").as_deref() {
            Ok("json") => LogFormat::Json,
            _ => LogFormat::Text,
        },
        filter: std::env::var("FIRN_LOG").unwrap_or_else(|_| if live_view { "warn" } else { "info" }.to_owned()),
        otlp_endpoint: std::env::var("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").ok().or_else(|| {
            let base = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok()?;
            Some(format!("{}/v1/traces", base.trim_end_matches('/')))
        }),
    });
    let telemetry = telemetry.map_err(|error| error.to_string())?;
    let runtimes = Runtimes::new().map_err(|error| format!("no threads to run on: {error}"))?;
    let spawner = runtimes.spawner();
    let outcome = runtimes.hot.block_on(run(settings, spawner, live_view));
    // Downloads and uploads still under way are not waited for: whatever they would have done is done again.
    runtimes.cold.shutdown_background();
    runtimes.hot.shutdown_background();
    drop(telemetry);
    outcome
}

async fn run(settings: NodeSettings, spawner: Spawner, live_view: bool) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let node = Node::start(settings, spawner).await.map_err(|error| error.to_string())?;
    println!(
        "Firn serves Kafka clients at {}, metrics at http://{}/metrics",
        node.kafka_address(),
        node.http_address()
    );
    println!("data in {}, cold records in {}", node.data(), node.object_store());
    info!(kafka = %node.kafka_address(), http = %node.http_address(), "ready");
    let mut view = View::new(live_view);
    let failed = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            reason = node.failed() => break Some(reason),
            () = tokio::time::sleep(REDRAW), if live_view => view.draw(&node),
        }
    };
    if let Some(reason) = failed {
        return Err(reason);
    }
    info!("shutting down");
    match tokio::time::timeout(SHUTDOWN, node.shutdown()).await {
        Ok(()) => Ok(()),
        Err(_) => Err("the node did not end in time; it will recover at its next start".to_owned()),
    }
}

/// Redraws the live view over its last drawing.
struct View {
    enabled: bool,
    lines: usize,
}

impl View {
    fn new(enabled: bool) -> View {
        View { enabled, lines: 0 }
    }

    fn draw(&mut self, node: &Node) {
        let Ok(partitions) = node.control().tier_status(None) else { return };
        if !self.enabled {
            return;
        }
        let text = live::render(&partitions);
        let mut out = std::io::stdout().lock();
        let up = if self.lines > 0 { format!("\x1b[{}A", self.lines) } else { String::new() };
        // Back to where the last drawing began, and clear from there.
        let drawn = write!(out, "{up}\x1b[0J{text}").and_then(|()| out.flush());
        self.lines = text.lines().count();
        // A terminal that went away is no reason to stop serving.
        self.enabled = drawn.is_ok();
    }
}
