//! `firn dev --nodes N`: a cluster of processes on this machine, started together and ended together.
//!
//! Each node is a `firn server` with a file of its own in its folder, as an operator would write it. A node that dies stays
//! dead, so that one can watch what the others do; the same command brings it back.

mod plan;

use super::args::DevArgs;
use super::{out, serve};
use crate::config::server::Sources;
use crate::node::{self, Host};
use plan::{Asked, Cluster, Member};
use proto::host::{Entropy, Spawner, SystemEntropy};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// Holds what nodes there are, in the data directory.
const CLUSTER: &str = "cluster.json";
/// Lies in the data directory of a single node.
const META: &str = "meta.json";
/// How often a starting node is asked whether it serves.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How long it may take before one is told what is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// A node ends within 30 s by itself. One that does not is killed then; it recovers at its next start.
const END: Duration = Duration::from_secs(35);

/// The nodes that the data directory belongs to, if a cluster was started in it.
pub(super) fn nodes_in(data: &Path) -> Result<Option<usize>, String> {
    recorded(data).map(|cluster| cluster.map(|cluster| cluster.least()))
}

/// Runs a cluster below one directory until it is told to end. Whatever is wrong with what is asked for is found before the
/// directory becomes a cluster's, or one of more nodes.
pub(super) fn run(args: &DevArgs, data: &Path, nodes: u16) -> Result<ExitCode, String> {
    let before = recorded(data)?;
    if before.is_none() && data.join(META).exists() {
        let data = data.display();
        return Err(format!(
            "{data} holds the records of a single node: start it without --nodes, or give another --data"
        ));
    }
    let cluster_id = proto::ids::TopicId(SystemEntropy.uuid()).to_string();
    let asked = Asked { nodes, kafka: &args.kafka, http: &args.http, cluster_id: &cluster_id };
    let mut given = BTreeSet::new();
    let cluster = Cluster::plan(&asked, before, |host| free_port(host, &mut given))?;
    let object_store = object_store(args, data)?;
    let sets = settings(args)?;
    let mut planned = Vec::new();
    for member in &cluster.nodes {
        let dir = data.join(format!("node-{}", member.id));
        let text = cluster.configuration(member, &dir, &object_store);
        // What is wrong with the settings is said once, and not by each node.
        let environment = std::env::vars().collect();
        let flags = args.overrides.set.clone();
        let config = serve::load(&Sources { presets: vec![], file: Some(text.clone()), environment, flags })?;
        planned.push((member, dir, text, config));
    }
    cluster.nodes.iter().try_for_each(all_free)?;
    record(data, &cluster)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let mut files = Vec::new();
    for (member, dir, text, config) in planned {
        let file = dir.join("server.toml");
        let written = fs::create_dir_all(&dir).and_then(|()| fs::write(&file, &text));
        written.map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
        if cluster.votes(member) {
            let host = Host::system(Spawner::single(runtime.handle().clone()));
            let formatted = runtime.block_on(node::format(&config, &host, &cluster.cluster_id));
            formatted.map_err(|error| format!("node {}: {error}", member.id))?;
        }
        files.push(file);
    }
    let serves = || record(data, &Cluster { served: None, ..cluster.clone() });
    runtime.block_on(supervise(&cluster, &files, &sets, args.json, serves))
}

fn object_store(args: &DevArgs, data: &Path) -> Result<String, String> {
    match &args.object_store {
        Some(url) if url == "memory:" => {
            Err("memory: is within one process, and nodes share their object store: name another".to_owned())
        }
        Some(url) => Ok(url.clone()),
        None => {
            let bucket = data.join("bucket");
            let url = url::Url::from_file_path(&bucket);
            url.map(String::from).map_err(|()| format!("{} is not an absolute path", bucket.display()))
        }
    }
}

/// What is set for all nodes, as their flags.
fn settings(args: &DevArgs) -> Result<Vec<String>, String> {
    let own = ["node.id", "listeners", "log.dirs", "process.roles", "controller.quorum.voters"];
    let set = |(name, value): &(String, String)| {
        if own.contains(&name.as_str()) {
            return Err(format!("{name} differs from node to node: firn dev --nodes sets it itself"));
        }
        Ok(format!("--set={name}={value}"))
    };
    args.overrides.set.iter().map(set).collect()
}

/// Whether nobody listens where a node is to.
fn all_free(member: &Member) -> Result<(), String> {
    for (address, flag) in [(&member.kafka, "--kafka"), (&member.control, "--kafka"), (&member.http, "--http")] {
        TcpListener::bind(address.as_str()).map_err(|error| {
            format!("node {} cannot listen on {address}: {error} ({flag} names other addresses)", member.id)
        })?;
    }
    Ok(())
}

fn recorded(data: &Path) -> Result<Option<Cluster>, String> {
    let path = data.join(CLUSTER);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| format!("{} cannot be read: {error}", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

fn record(data: &Path, cluster: &Cluster) -> Result<(), String> {
    let path = data.join(CLUSTER);
    let text = serde_json::to_vec_pretty(cluster).map_err(|error| error.to_string())?;
    let temporary = data.join(format!("{CLUSTER}.tmp"));
    let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, &path));
    written.map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

/// A port that nobody listens on now, and that is none of `given`. Where there is one it lies below those that the system gives
/// to outgoing connections: a node that was down for a while finds its port free.
fn free_port(host: &str, given: &mut BTreeSet<u16>) -> Result<u16, String> {
    /// Services of the machine lie below.
    const FIRST: u64 = 10_000;
    const ATTEMPTS: usize = 100;
    let said = |error: std::io::Error| format!("no port is to be had on {host}: {error}");
    let address = (host.trim_matches(['[', ']']), 0).to_socket_addrs().map_err(said)?.next();
    let mut address = address.ok_or_else(|| format!("{host} has no address"))?;
    let outgoing = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let outgoing = outgoing.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768_u64);
    for _ in 0..ATTEMPTS {
        let drawn = FIRST + SystemEntropy.next_u64() % outgoing.saturating_sub(FIRST).max(1);
        address.set_port(u16::try_from(drawn).unwrap_or(0));
        if let Ok(socket) = TcpListener::bind(address).and_then(|socket| socket.local_addr())
            && given.insert(socket.port())
        {
            return Ok(socket.port());
        }
    }
    address.set_port(0);
    let port = TcpListener::bind(address).and_then(|socket| socket.local_addr()).map_err(said)?.port();
    given.insert(port);
    Ok(port)
}

/// Said when there is nothing left to run.
const ALL_ENDED: &str =
    "every node has ended; what each said last stands above, and the same command starts them again";

/// A node's process.
struct Running<'a> {
    member: &'a Member,
    child: Child,
    pid: u32,
}

fn start<'a>(
    member: &'a Member,
    file: &PathBuf,
    sets: &[String],
    logs: &mut JoinSet<()>,
) -> Result<Running<'a>, String> {
    let program = std::env::current_exe().map_err(|error| format!("where this program lies is not known: {error}"))?;
    let mut command = Command::new(program);
    command.arg("server").arg("--config").arg(file).args(sets);
    command.arg("--parent").arg(std::process::id().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    // A signal of the terminal is for this process, which ends the others in order.
    command.process_group(0);
    let mut child = command.spawn().map_err(|error| format!("node {} cannot be started: {error}", member.id))?;
    if let Some(lines) = child.stderr.take() {
        logs.spawn(pass_on(member.id, lines));
    }
    let pid = child.id().unwrap_or_default();
    Ok(Running { member, child, pid })
}

/// Passes the log lines of a node on, each with the node's id in front unless they are JSON.
async fn pass_on(id: i32, lines: impl AsyncRead + Unpin) {
    /// A line is cut there, so that memory stays bounded whatever a node writes.
    const LONGEST: u64 = 1 << 20;
    let mut lines = BufReader::new(lines);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut part = tokio::io::AsyncReadExt::take(&mut lines, LONGEST);
        match part.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                let text = text.trim_end_matches('\n');
                if text.starts_with('{') { out::note(text) } else { out::note(format_args!("[{id}] {text}")) }
            }
        }
    }
}

async fn supervise(
    cluster: &Cluster,
    files: &[PathBuf],
    sets: &[String],
    json: bool,
    serves: impl FnOnce() -> Result<(), String>,
) -> Result<ExitCode, String> {
    // A terminal that is closed ends the nodes in order, too.
    let mut hangup = signal(SignalKind::hangup()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut logs = JoinSet::new();
    let mut running = Vec::new();
    for (member, file) in cluster.nodes.iter().zip(files) {
        running.push(start(member, file, sets, &mut logs)?);
    }
    let served = tokio::select! {
        biased;
        _ = terminate.recv() => Ok(false),
        _ = interrupt.recv() => Ok(false),
        _ = hangup.recv() => Ok(false),
        served = all_serve(&mut running) => served.map(|()| true),
    };
    let mut fallen = Ok(());
    if matches!(served, Ok(true)) {
        if let Err(error) = serves() {
            out::note(error);
        }
        let greeted = out::print(greeting(&running, json));
        if let Err(error) = greeted {
            // That it cannot be said is no reason not to serve.
            out::note(error);
        }
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
            () = watch(&mut running) => fallen = Err(ALL_ENDED.to_owned()),
        }
    }
    let ended = end(running).await;
    // The last lines of those that ended.
    while logs.join_next().await.is_some() {}
    served.and(fallen).and(ended).map(|()| ExitCode::SUCCESS)
}

/// Returns when all nodes serve clients.
///
/// # Errors
/// If one of them ended instead. Its last lines say why.
async fn all_serve(running: &mut [Running<'_>]) -> Result<(), String> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(1)).build();
    let http = http.map_err(|error| error.to_string())?;
    let begun = tokio::time::Instant::now();
    let mut told = begun;
    let mut waiting: Vec<usize> = (0..running.len()).collect();
    loop {
        for one in running.iter_mut() {
            if let Ok(Some(status)) = one.child.try_wait() {
                return Err(format!("node {} did not start ({status}); what it said last stands above", one.member.id));
            }
        }
        let mut still = Vec::new();
        let mut why = String::new();
        for index in waiting {
            let Some(one) = running.get(index) else { continue };
            match http.get(format!("http://{}/readyz", one.member.http)).send().await {
                Ok(answer) if answer.status().is_success() => {}
                Ok(answer) => {
                    why = answer.text().await.unwrap_or_default();
                    still.push(index);
                }
                Err(_) => still.push(index),
            }
        }
        if still.is_empty() {
            return Ok(());
        }
        if told.elapsed() >= PATIENCE {
            told = tokio::time::Instant::now();
            let ids: Vec<String> = still.iter().map(ToString::to_string).collect();
            let after = begun.elapsed().as_secs();
            out::note(format_args!("after {after} s, not serving yet: node {} {}", ids.join(", "), why.trim()));
        }
        waiting = still;
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn greeting(running: &[Running<'_>], as_json: bool) -> String {
    if as_json {
        let nodes: Vec<_> = running
            .iter()
            .map(|Running { member, pid, .. }| {
                json!({"id": member.id, "pid": pid, "kafka": member.kafka, "http": member.http})
            })
            .collect();
        return format!("{}\n", json!({ "nodes": nodes }));
    }
    let mut text = String::new();
    for Running { member: Member { id, kafka, http, .. }, pid, .. } in running {
        text +=
            &format!("node {id} (process {pid}) serves Kafka clients at {kafka}, metrics at http://{http}/metrics\n");
    }
    let bootstrap: Vec<&str> = running.iter().map(|one| one.member.kafka.as_str()).collect();
    text + &format!("bootstrap servers: {}\n", bootstrap.join(","))
}

/// Says which nodes end. Returns when all have.
async fn watch(running: &mut [Running<'_>]) {
    let ends = running.iter_mut().map(|one| async {
        let status = one.child.wait().await;
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        out::note(format_args!(
            "node {} (process {}) ended: {how}; the same command starts it again",
            one.member.id, one.pid
        ));
    });
    futures::future::join_all(ends).await;
}

/// Ends all nodes that are left, together.
///
/// # Errors
/// Names those that had to be killed.
async fn end(running: Vec<Running<'_>>) -> Result<(), String> {
    let ends = running.into_iter().map(|mut one| async move {
        if matches!(one.child.try_wait(), Ok(Some(_))) {
            return None;
        }
        // A process that ended in between is not there any more, and its id is not given away before it is waited for.
        if let Some(pid) = i32::try_from(one.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(END, one.child.wait()).await.is_ok() {
            return None;
        }
        let _ = one.child.kill().await;
        Some(one.member.id.to_string())
    });
    let killed: Vec<String> = futures::future::join_all(ends).await.into_iter().flatten().collect();
    if killed.is_empty() {
        return Ok(());
    }
    Err(format!("node {} did not end in time and was killed; it will recover at its next start", killed.join(", ")))
}
