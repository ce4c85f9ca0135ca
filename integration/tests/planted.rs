//! Planted bugs, and the seeds of the simulation that catch them: a checker that catches none proves nothing.
//!
//! `integration/sim/planted.txt` names for each bug a seed that failed with it and passed without it. Whatever changes what a node does
//! changes what a seed stands for: where it catches nothing any more, others are tried, `FIRN_TEST_WITHIN` of them at most.
//! `FIRN_TEST_PLANTED` says how many lines are tried, drawn by chance, if not all. The last test looks for the seeds anew and prints the
//! table.
#![cfg(debug_assertions)]

use integration::sim::faults::Flavor;
use proto::host::{Entropy, SystemEntropy};
use proto::planted::Bug;
use std::collections::BTreeSet;
use std::process::Command;

const SIM: &str = env!("CARGO_BIN_EXE_sim");
const TABLE: &str = include_str!("../sim/planted.txt");
/// Within so many seeds every bug is caught.
const SEEDS: u64 = 200;

/// Whether a seed passes; and what it said.
fn passes(seed: u64, nodes: u64, flavor: Flavor, bug: Option<Bug>) -> (bool, String) {
    let home = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(SIM);
    command.arg("--seed").arg(seed.to_string()).arg("--nodes").arg(nodes.to_string());
    command.arg("--flavor").arg(flavor.name()).arg("--home").arg(home.path().join("home"));
    if let Some(bug) = bug {
        command.arg("--bug").arg(bug.name());
    }
    let output = command.output().expect("the simulation can be run");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The lines of the table: bug, seed, nodes, flavor.
fn table() -> Vec<(Bug, u64, u64, Flavor)> {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let parse = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [bug, seed, nodes, flavor] = words[..] else { panic!("{line:?} is not: bug, seed, nodes, flavor") };
        let parsed = (bug.parse(), seed.parse(), nodes.parse(), flavor.parse());
        let (Ok(bug), Ok(seed), Ok(nodes), Ok(flavor)) = parsed else { panic!("{line:?} names something unknown") };
        (bug, seed, nodes, flavor)
    };
    lines.map(parse).collect()
}

#[test]
#[ignore = "takes minutes: integration/sim/run"]
fn every_bug_of_the_table_is_caught_and_only_the_bug_is() {
    let mut clean = BTreeSet::new();
    let mut lines = table();
    if let Some(some) = std::env::var("FIRN_TEST_PLANTED").ok().and_then(|some| some.parse::<usize>().ok()) {
        while lines.len() > some {
            lines.swap_remove(SystemEntropy.next_u64() as usize % lines.len());
        }
    }
    let within = std::env::var("FIRN_TEST_WITHIN").ok().and_then(|most| most.parse().ok()).unwrap_or(SEEDS);
    for (bug, noted, nodes, flavor) in lines {
        let mut tried = std::iter::once(noted).chain((1..=within).filter(|seed| *seed != noted));
        let Some(seed) = tried.find(|seed| !passes(*seed, nodes, flavor, Some(bug)).0) else {
            panic!("{bug} is not caught on {nodes} nodes under {flavor} by any of {within} seeds");
        };
        println!("{bug} {seed} {nodes} {flavor}");
        if clean.insert((seed, nodes, flavor.name())) {
            let (passed, said) = passes(seed, nodes, flavor, None);
            assert!(passed, "seed {seed} on {nodes} nodes under {flavor} fails without any bug:\n{said}");
        }
    }
}

#[test]
#[ignore = "takes hours: looks for the seeds of the table"]
fn every_bug_of_the_table_is_caught_within_200_seeds() {
    let wanted = std::env::var("FIRN_TEST_BUG").ok();
    let mut missed = Vec::new();
    for (bug, _, nodes, flavor) in table() {
        if wanted.as_ref().is_some_and(|name| name != bug.name()) {
            continue;
        }
        let caught = |seed: &u64| !passes(*seed, nodes, flavor, Some(bug)).0 && passes(*seed, nodes, flavor, None).0;
        match (1..=SEEDS).find(caught) {
            Some(seed) => println!("{bug} {seed} {nodes} {flavor}"),
            None => missed.push(bug.name()),
        }
    }
    assert!(missed.is_empty(), "not caught within {SEEDS} seeds: {missed:?}");
}
