//! The binary `firn`: reads the command line, makes the runtimes, and hands over.

use broker::cli;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(cli::args::Cli::parse())
}
