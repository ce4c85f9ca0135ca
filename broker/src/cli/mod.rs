//! The command line: `args` is what a person types, the other modules carry it out.

pub mod args;
pub mod client;
pub mod live;
pub mod screen;

mod admin;
mod bench;
mod bucket;
mod bytes;
mod cluster;
mod cluster_tend;
mod consume;
mod dev_cluster;
mod dump;
mod out;
mod produce;
mod serve;
mod tier;
mod topic;

use args::{BucketCommand, Cli, ClusterCommand, Command, ConfigCommand, LogCommand};
use clap::CommandFactory;
use client::ClientError;
use proto::host::{SystemClock, SystemEntropy};
use std::process::ExitCode;

/// Carries out a command; the exit code says whether it worked.
pub fn run(cli: Cli) -> ExitCode {
    let outcome = match cli.command {
        Command::Dev(args) => return code(serve::dev(&args)),
        Command::Server(args) => return code(serve::server(&args)),
        Command::Config(ConfigCommand::Check { file, json }) => serve::check_config(&file, json),
        Command::Bucket(BucketCommand::Check { url, create, json }) => client(bucket::check(&url, create, json)),
        Command::Cluster(ClusterCommand::Format { config, cluster_id }) => cluster::format(&config, cluster_id),
        Command::Cluster(command) => client(cluster_tend::run(command)),
        Command::Bench(args) => client(bench::run(args, &SystemClock, &SystemEntropy)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "firn", &mut script);
            out::print(script).map_err(|error| error.to_string())
        }
        Command::Topic(command) => client(topic::run(command)),
        Command::Produce(args) => client(produce::run(args, &SystemClock)),
        Command::Consume(args) => client(consume::run(args)),
        Command::Tier(command) => client(tier::run(command)),
        Command::Log(LogCommand::Dump { file, records, json }) => dump::run(&file, dump::Options { records, json }),
    };
    code(outcome.map(|()| ExitCode::SUCCESS))
}

/// Says why a command failed.
fn code(outcome: Result<ExitCode, String>) -> ExitCode {
    outcome.unwrap_or_else(|why| {
        out::note(format_args!("firn: {why}"));
        ExitCode::FAILURE
    })
}

/// Runs a client command: one thread is enough.
fn client(work: impl Future<Output = Result<(), ClientError>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let outcome = runtime.block_on(work).map_err(|error| error.to_string());
    // A command that failed does not wait for the next line of its standard input.
    runtime.shutdown_background();
    outcome
}
