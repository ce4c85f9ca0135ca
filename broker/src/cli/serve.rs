//! `firn dev` and `firn server`: a node from its start to its end.

use super::args::{DevArgs, ServerArgs};
use super::live;
use crate::config;
use crate::config::server::{ServerConfig, Sources};
use crate::http::Control;
use crate::node::Node;
use crate::telemetry::{self, LogFormat};
use proto::host::Spawner;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

/// How often the live view is redrawn.
const REDRAW: Duration = Duration::from_secs(1);
/// A node that has not ended by then is left to recovery: the process is to be gone within 5 s.
const SHUTDOWN: Duration = Duration::from_secs(4);

/// Runs one node with everything it needs below one directory.
pub(super) fn dev(args: &DevArgs) -> Result<(), String> {
    std::fs::create_dir_all(&args.data).map_err(|error| {
        format!("the data directory {} cannot be made: {error} (--data names another)", args.data.display())
    })?;
    let data = args.data.canonicalize().map_err(|error| format!("{}: {error}", args.data.display()))?;
    let mut presets = vec![
        ("node.id".to_owned(), "0".to_owned()),
        ("listeners".to_owned(), format!("PLAINTEXT://{}", args.kafka)),
        ("firn.http.listeners".to_owned(), args.http.clone()),
        ("log.dirs".to_owned(), data.display().to_string()),
    ];
    presets.extend(args.object_store.iter().map(|url| ("firn.object.store".to_owned(), url.clone())));
    let sources =
        Sources { presets, file: None, environment: std::env::vars().collect(), flags: args.overrides.set.clone() };
    serve(load(&sources)?, std::io::stdout().is_terminal())
}

/// Runs a node from a configuration file.
pub(super) fn server(args: &ServerArgs) -> Result<(), String> {
    let path = &args.config;
    let file = std::fs::read_to_string(path)
        .map_err(|error| format!("the configuration file {} cannot be read: {error}", path.display()))?;
    let environment = std::env::vars().collect();
    let sources = Sources { presets: vec![], file: Some(file), environment, flags: args.overrides.set.clone() };
    serve(load(&sources)?, false)
}

/// Explains what a configuration file sets, or everything that is wrong with it.
pub(super) fn check_config(path: &Path, json: bool) -> Result<(), String> {
    let file = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let environment = std::env::vars().collect();
    let config = load(&Sources { presets: vec![], file: Some(file), environment, flags: vec![] })?;
    let explained = config.explain();
    if json {
        let rows: Vec<_> = explained
            .iter()
            .map(|one| {
                serde_json::json!({"name": one.definition.name, "value": one.value, "set_by": one.origin.to_string(),
                    "acted_on": one.is_acted(), "documentation": one.documentation()})
            })
            .collect();
        println!("{}", serde_json::Value::from(rows));
        return Ok(());
    }
    for one in &explained {
        println!("{one}");
    }
    println!("{} is good: {} settings, the rest are defaults", path.display(), explained.len());
    Ok(())
}

fn load(sources: &Sources) -> Result<ServerConfig, String> {
    ServerConfig::load(sources).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        lines.join("\n      ")
    })
}

/// Threads that wait for one of the two kinds of storage at the same time.
const BLOCKING_THREADS: usize = 64;

/// The runtimes of a node. Cold work has threads of its own, those that wait for an object store on a file system included, so that no
/// acknowledgement waits for it (ISOLATED).
struct Runtimes {
    hot: Runtime,
    cold: Runtime,
    /// Whose blocking threads wait for the data directories.
    disk: Runtime,
}

impl Runtimes {
    fn new() -> std::io::Result<Runtimes> {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let hot = Builder::new_multi_thread().worker_threads(cores).thread_name("hot").enable_all().build()?;
        let cold = Builder::new_multi_thread()
            .worker_threads(cores.div_ceil(2))
            .thread_name("cold")
            .max_blocking_threads(BLOCKING_THREADS)
            .enable_all()
            .build()?;
        let disk = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("disk")
            .max_blocking_threads(BLOCKING_THREADS)
            .enable_all()
            .build()?;
        Ok(Runtimes { hot, cold, disk })
    }

    fn spawner(&self) -> Spawner {
        Spawner::new(self.hot.handle().clone(), self.cold.handle().clone(), self.disk.handle().clone())
    }
}

fn serve(config: ServerConfig, live_view: bool) -> Result<(), String> {
    let telemetry = telemetry::install(&telemetry::Settings {
        format: match config.log_format {
            config::server::LogFormat::Text => LogFormat::Text,
            config::server::LogFormat::Json => LogFormat::Json,
        },
        // The live view and a stream of lines would overwrite each other.
        filter: if live_view && !config.settings.contains_key("firn.log.filter") {
            "warn".to_owned()
        } else {
            config.log_filter.clone()
        },
        otlp_endpoint: config.otlp_endpoint.clone(),
    });
    let telemetry = telemetry.map_err(|error| error.to_string())?;
    raise_descriptor_limit();
    let runtimes = Runtimes::new().map_err(|error| format!("no threads to run on: {error}"))?;
    let spawner = runtimes.spawner();
    let outcome = runtimes.hot.block_on(run(config, spawner, live_view));
    // Downloads and uploads still under way are not waited for: whatever they would have done is done again.
    runtimes.cold.shutdown_background();
    runtimes.disk.shutdown_background();
    runtimes.hot.shutdown_background();
    drop(telemetry);
    outcome
}

/// Segments, connections and requests to the object store each take a descriptor, and what a shell allows is meant for small programs.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if let Err(error) = raised {
        tracing::warn!(%error, allowed = limit.current, "the limit of open files stays as it is");
    }
}

async fn run(config: ServerConfig, spawner: Spawner, live_view: bool) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    // Recovery may take long: it is interrupted, and repeated at the next start.
    let node = tokio::select! {
        started = Node::start(config, spawner) => started.map_err(|error| error.to_string())?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever runs on any of them may wait for a moment: the journal does, on a thread of the disk's.
    #[test]
    fn every_runtime_keeps_time() {
        let runtimes = Runtimes::new().expect("threads");
        let spawner = runtimes.spawner();
        for handle in [runtimes.hot.handle(), runtimes.cold.handle(), spawner.blocking()] {
            let outcome =
                handle.block_on(async { tokio::time::timeout(Duration::ZERO, std::future::pending::<()>()).await });
            assert!(outcome.is_err());
        }
    }
}
