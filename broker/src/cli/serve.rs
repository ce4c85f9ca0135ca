//! `firn dev` and `firn server`: a node from its start to its end.

use super::args::{DevArgs, ServerArgs};
use super::dev_cluster;
use super::live;
use super::out;
use super::screen::{LogLines, Screen, Size};
use crate::config;
use crate::config::server::{ServerConfig, Sources};
use crate::http::Control;
use crate::node::{Host, Node};
use crate::telemetry::{self, LogFormat};
use proto::host::Spawner;
use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit};
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// How often the live view is redrawn.
const REDRAW: Duration = Duration::from_secs(1);
/// So long may the terminal take for the last lines. They are lost if it stands still: the process is to end nevertheless.
const LAST_LINES: Duration = Duration::from_millis(250);

/// Runs one node with everything it needs below one directory.
pub(super) fn dev(args: &DevArgs) -> Result<ExitCode, String> {
    std::fs::create_dir_all(&args.data).map_err(|error| {
        format!("the data directory {} cannot be made: {error} (--data names another)", args.data.display())
    })?;
    let data = args.data.canonicalize().map_err(|error| format!("{}: {error}", args.data.display()))?;
    match (args.nodes.unwrap_or(1), dev_cluster::nodes_in(&data)?) {
        (1, None) => {}
        (_, Some(had)) if args.nodes.is_none() => {
            let data = args.data.display();
            return Err(format!("{data} holds a cluster of {had} nodes: give --nodes {had}, or another --data"));
        }
        (nodes, _) => return dev_cluster::run(args, &data, nodes),
    }
    let mut presets = vec![
        ("node.id".to_owned(), "0".to_owned()),
        ("listeners".to_owned(), format!("PLAINTEXT://{}", args.kafka)),
        ("firn.http.listeners".to_owned(), args.http.clone()),
        ("log.dirs".to_owned(), data.display().to_string()),
    ];
    presets.extend(args.object_store.iter().map(|url| ("firn.object.store".to_owned(), url.clone())));
    let sources =
        Sources { presets, file: None, environment: std::env::vars().collect(), flags: args.overrides.set.clone() };
    serve(load(&sources)?, std::io::stdout().is_terminal(), with_flags)
}

/// An error of `firn dev`, which is told where to listen by flags and not by settings.
fn with_flags(why: String) -> String {
    why.replace("(listeners names the address)", "(--kafka names another address)")
        .replace("(firn.http.listeners names the address)", "(--http names another address)")
}

/// Runs a node from a configuration file.
pub(super) fn server(args: &ServerArgs) -> Result<ExitCode, String> {
    if let Some(parent) = args.parent {
        end_with(parent)?;
    }
    let path = &args.config;
    let file = std::fs::read_to_string(path)
        .map_err(|error| format!("the configuration file {} cannot be read: {error}", path.display()))?;
    let environment = std::env::vars().collect();
    let sources = Sources { presets: vec![], file: Some(file), environment, flags: args.overrides.set.clone() };
    serve(load(&sources)?, false, std::convert::identity)
}

/// Has the kernel end this process when `parent` does, however that ends.
fn end_with(parent: i32) -> Result<(), String> {
    let asked = set_parent_process_death_signal(Some(Signal::KILL));
    asked.map_err(|error| format!("this process cannot be tied to its parent: {error}"))?;
    // It may have ended before the kernel was asked.
    if getppid().map(Pid::as_raw_nonzero).map(std::num::NonZeroI32::get) != Some(parent) {
        return Err(format!("process {parent}, which was to be the parent, has ended"));
    }
    Ok(())
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
        let rows = serde_json::Value::from(rows);
        return out::print(format!("{rows}\n")).map_err(|error| error.to_string());
    }
    let mut text: String = explained.iter().map(|one| format!("{one}\n")).collect();
    text += &format!("{} is good: {} settings, the rest are defaults\n", path.display(), explained.len());
    out::print(text).map_err(|error| error.to_string())
}

pub(super) fn load(sources: &Sources) -> Result<ServerConfig, String> {
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

/// A screen and the thread that writes it. That thread may have to wait for the terminal for ever, so nobody waits for it.
fn screen() -> Result<Arc<Screen>, String> {
    let screen = Arc::new(Screen::default());
    let written = Arc::clone(&screen);
    let thread = std::thread::Builder::new().name("screen".to_owned()).spawn(move || written.write());
    thread.map(|_| screen).map_err(|error| format!("no thread to draw on: {error}"))
}

/// Runs a node to its end. An error is still to be said, as `said` has it; an exit code is all there is to say.
fn serve(config: ServerConfig, live_view: bool, said: fn(String) -> String) -> Result<ExitCode, String> {
    let screen = if live_view { Some(screen()?) } else { None };
    // Where both are the same terminal, log lines and the live view would overwrite each other.
    let above = screen.clone().filter(|_| std::io::stderr().is_terminal());
    let lines = match above.clone() {
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
    let outcome = runtimes.hot.block_on(run(config, spawner, screen.as_deref())).map_err(said);
    // Downloads and uploads still under way are not waited for: whatever they would have done is done again.
    runtimes.cold.shutdown_background();
    runtimes.disk.shutdown_background();
    runtimes.hot.shutdown_background();
    drop(telemetry);
    let code = match (outcome, above) {
        (Err(why), Some(above)) => {
            above.log(format!("firn: {why}\n").as_bytes());
            Ok(ExitCode::FAILURE)
        }
        (outcome, _) => outcome.map(|()| ExitCode::SUCCESS),
    };
    if let Some(screen) = screen {
        screen.finish(LAST_LINES);
    }
    code
}

/// Segments, connections and requests to the object store each take a descriptor, and what a shell allows is meant for small programs.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if let Err(error) = raised {
        tracing::warn!(%error, allowed = limit.current, "the limit of open files stays as it is");
    }
}

async fn run(config: ServerConfig, spawner: Spawner, screen: Option<&Screen>) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    // Recovery may take long: it is interrupted, and repeated at the next start.
    let node = tokio::select! {
        started = Node::start(config, Host::system(spawner)) => started.map_err(|error| error.to_string())?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    greet(&node, screen);
    let failed = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            reason = node.failed() => break Some(reason),
            () = tokio::time::sleep(REDRAW), if screen.is_some_and(Screen::is_seen) => draw(&node, screen),
        }
    };
    if let Some(reason) = failed {
        return Err(reason);
    }
    info!("shutting down");
    // A node that has not ended by then is left to recovery.
    match tokio::time::timeout(node.patience(), node.shutdown()).await {
        Ok(()) => Ok(()),
        Err(_) => Err("the node did not end in time; it will recover at its next start".to_owned()),
    }
}

/// Says where everything is.
fn greet(node: &Node, screen: Option<&Screen>) {
    let all = |addresses: Vec<String>| addresses.join(" and ");
    let kafka = all(node.kafka_addresses().iter().map(|(_, address)| address.to_string()).collect());
    let http = all(node.http_addresses().iter().map(|address| format!("http://{address}/metrics")).collect());
    let http = if http.is_empty() { "nowhere (firn.http.listeners is empty)".to_owned() } else { http };
    let (data, cold) = (node.data(), node.object_store());
    let text = if kafka.is_empty() {
        format!("Firn is a controller, metrics at {http}\nmetadata in {data}\n")
    } else {
        format!("Firn serves Kafka clients at {kafka}, metrics at {http}\ndata in {data}, cold records in {cold}\n")
    };
    match screen {
        Some(screen) => screen.print(&text),
        // That it cannot be said is no reason not to serve.
        None => _ = out::print(text),
    }
    info!(%kafka, %http, "ready");
}

/// Draws the live view over its last drawing.
fn draw(node: &Node, screen: Option<&Screen>) {
    let status = node.control().map(|control| control.tier_status(None));
    if let (Some(screen), Some(Ok(partitions))) = (screen, status) {
        let size = Size::of_stdout();
        screen.draw(live::render(&partitions, size), size);
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
