//! `firn dev` and `firn server`: a node from its start to its end.

use super::args::{DevArgs, ServerArgs};
use super::live;
use super::screen::{LogLines, Screen, Size};
use crate::config;
use crate::config::server::{ServerConfig, Sources};
use crate::http::Control;
use crate::node::Node;
use crate::telemetry::{self, LogFormat};
use proto::host::Spawner;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

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
    let screen = live_view.then(|| Arc::new(Screen::default()));
    // Where both are the same terminal, log lines and the live view would overwrite each other.
    let above = screen.clone().filter(|_| std::io::stderr().is_terminal());
    let lines = match above {
        Some(screen) => BoxMakeWriter::new(move || LogLines(Arc::clone(&screen))),
        None => BoxMakeWriter::new(std::io::stderr),
    };
    let telemetry = telemetry::Settings {
        format: match config.log_format {
            config::server::LogFormat::Text => LogFormat::Text,
            config::server::LogFormat::Json => LogFormat::Json,
        },
        // A stream of lines would push the live view away all the time.
        filter: if live_view && !config.settings.contains_key("firn.log.filter") {
            "warn".to_owned()
        } else {
            config.log_filter.clone()
        },
        otlp_endpoint: config.otlp_endpoint.clone(),
    };
    let telemetry = telemetry::install(&telemetry, lines);
    let telemetry = telemetry.map_err(|error| error.to_string())?;
    raise_descriptor_limit();
    let runtimes = Runtimes::new().map_err(|error| format!("no threads to run on: {error}"))?;
    let spawner = runtimes.spawner();
    let outcome = runtimes.hot.block_on(run(config, spawner, screen));
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

async fn run(config: ServerConfig, spawner: Spawner, screen: Option<Arc<Screen>>) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    // Recovery may take long: it is interrupted, and repeated at the next start.
    let node = tokio::select! {
        started = Node::start(config, spawner) => started.map_err(|error| error.to_string())?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    greet(&node);
    let mut view = View { screen };
    let failed = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            reason = node.failed() => break Some(reason),
            () = tokio::time::sleep(REDRAW), if view.screen.is_some() => view.draw(&node),
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

/// Says where everything is.
fn greet(node: &Node) {
    let all = |addresses: Vec<String>| addresses.join(" and ");
    let kafka = all(node.kafka_addresses().iter().map(|(_, address)| address.to_string()).collect());
    let http = all(node.http_addresses().iter().map(|address| format!("http://{address}/metrics")).collect());
    let http = if http.is_empty() { "nowhere (firn.http.listeners is empty)".to_owned() } else { http };
    println!("Firn serves Kafka clients at {kafka}, metrics at {http}");
    println!("data in {}, cold records in {}", node.data(), node.object_store());
    info!(%kafka, %http, "ready");
}

/// The live view, redrawn over its last drawing while the terminal takes it.
struct View {
    screen: Option<Arc<Screen>>,
}

impl View {
    fn draw(&mut self, node: &Node) {
        let Some(screen) = &self.screen else { return };
        let Ok(partitions) = node.control().tier_status(None) else { return };
        let size = Size::of_stdout();
        let drawn = screen.draw(&live::render(&partitions, size), size, &mut std::io::stdout().lock());
        if drawn.is_err() {
            // A terminal that went away is no reason to stop serving.
            self.screen = None;
        }
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
