//! One seed of the simulation, from beginning to verdict, in a process whose clock and randomness are simulated, too.
//!
//! Exit 0: nothing is wrong. 1: something is, and the last lines say what. The line that begins with `trace` is equal for equal runs.

use clap::Parser;
use integration::sim::faults::Flavor;
use integration::sim::run::{Plan, Verdict, run};
use integration::sim::trace::Trace;
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs one seed of the simulation.
#[derive(Debug, Parser)]
struct Arguments {
    /// Everything follows from it.
    #[arg(long)]
    seed: u64,
    /// How many nodes the cluster has.
    #[arg(long, default_value_t = 5)]
    nodes: usize,
    /// What kind of faults: mixed, power, leaders, store, relay, splits, votes, late or disks.
    #[arg(long, default_value_t = Flavor::Mixed)]
    flavor: Flavor,
    /// How long faults come, in simulated milliseconds.
    #[arg(long, default_value_t = 15_000)]
    span_ms: u64,
    /// Numbers of faults to leave out, to find those that matter.
    #[arg(long, value_delimiter = ',')]
    without: Vec<usize>,
    /// A bug to plant (needs a build with debug assertions).
    #[arg(long)]
    bug: Option<String>,
    /// Write what is traced into this file.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// How much of it: info, debug or trace. With trace, the checksum covers every message on the network, too.
    #[arg(long, default_value = "debug")]
    level: tracing::Level,
    /// Write the history into this file, as JSON lines.
    #[arg(long)]
    history: Option<PathBuf>,
    /// Where the quorum's stores lie: a directory that is emptied first. Its path is part of the trace.
    #[arg(long)]
    home: Option<PathBuf>,
    /// Only print the schedule.
    #[arg(long)]
    print: bool,
}

/// What panicked. A task that does ends silently otherwise.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Arguments { seed, nodes, flavor, span_ms, without, .. } = &arguments;
    let home = arguments.home.clone().unwrap_or_else(|| std::env::temp_dir().join(format!("firn-sim-{seed}")));
    let flavor = *flavor;
    let plan = Plan { seed: *seed, flavor, nodes: *nodes, span_ms: *span_ms, without: without.clone(), home };
    print!("seed {seed}, {nodes} nodes, {flavor} faults\n{}", plan.schedule());
    if arguments.print {
        return ExitCode::SUCCESS;
    }
    if let Some(bug) = &arguments.bug
        && let Err(why) = plant(bug)
    {
        eprintln!("{why}");
        return ExitCode::FAILURE;
    }
    let _ = std::fs::remove_dir_all(&plan.home);
    let text = match arguments.trace.as_ref().map(File::create).transpose() {
        Ok(file) => file.map(|file| Box::new(BufWriter::new(file)) as Box<dyn Write + Send>),
        Err(error) => {
            eprintln!("the trace cannot be written: {error}");
            return ExitCode::FAILURE;
        }
    };
    std::panic::set_hook(Box::new(|panic| PANICS.lock().push(panic.to_string())));
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(*seed));
    let _clocks = mad_turmoil::time::SimClocksGuard::init();
    let trace = Trace::install(text, arguments.level);
    let verdict = run(&plan, &trace);
    let _ = std::fs::remove_dir_all(&plan.home);
    report(&verdict, arguments.history.as_ref())
}

#[cfg(debug_assertions)]
fn plant(bug: &str) -> Result<(), String> {
    proto::planted::plant(bug.parse().map_err(|error: proto::planted::UnknownBug| error.to_string())?);
    Ok(())
}

#[cfg(not(debug_assertions))]
fn plant(bug: &str) -> Result<(), String> {
    Err(format!("{bug} cannot be planted: this binary was built without debug assertions"))
}

fn report(verdict: &Verdict, history: Option<&PathBuf>) -> ExitCode {
    let Verdict { report, wrong, trace, disks, took, objects, .. } = verdict;
    println!("trace {:08x} in {} lines, disks {disks:08x?}", trace.0, trace.1);
    println!(
        "{} sent, {} acknowledged, {} read, {} lost with a leader that alone had them; {objects} objects; {took:?} simulated",
        report.sent, report.acked, report.read, report.lost_with_leader
    );
    if let Some(path) = history {
        let written = File::create(path).and_then(|file| verdict.history.write(BufWriter::new(file)));
        if let Err(error) = written {
            eprintln!("the history cannot be written: {error}");
        }
    }
    let panics = std::mem::take(&mut *PANICS.lock());
    panics.iter().for_each(|panic| println!("PANIC: {panic}"));
    wrong.iter().for_each(|what| println!("WRONG: {what}"));
    report.anomalies.iter().take(20).for_each(|anomaly| println!("ANOMALY: {anomaly}"));
    if verdict.is_clean() && panics.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
