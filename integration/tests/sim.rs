//! Seeds of the simulation, each in a process of its own. `integration/sim/run` runs those that are ignored otherwise.
//!
//! `FIRN_TEST_SEEDS` says how many fresh ones are run, `FIRN_TEST_SEED` names one to run alone. Every seed that ever failed stands in
//! `integration/sim/seeds.txt` and is run again. What fails is run again with faults left out, until only those are left that matter.

use proto::host::{Entropy, SystemEntropy};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const SIM: &str = env!("CARGO_BIN_EXE_sim");
/// Fresh seeds, unless somebody wants more or less.
const SEEDS: u64 = 2;
/// How many nodes they have and what kind of faults, in turns.
const SHAPES: [(usize, &str); 12] = [
    (5, "mixed"),
    (1, "power"),
    (3, "leaders"),
    (1, "mixed"),
    (3, "store"),
    (5, "relay"),
    (3, "power"),
    (3, "votes"),
    (5, "splits"),
    (3, "mixed"),
    (3, "late"),
    (5, "disks"),
];
const KEPT: &str = include_str!("../sim/seeds.txt");

/// How one seed ended.
struct Ended {
    clean: bool,
    said: String,
}

fn sim(arguments: &[&str], home: &Path) -> Ended {
    let mut command = Command::new(SIM);
    command.args(arguments).arg("--home").arg(home);
    let output = command.output().expect("the simulation can be run");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ended { clean: output.status.success(), said }
}

fn run(seed: u64, (nodes, flavor): (usize, &str), without: &BTreeSet<usize>) -> Ended {
    let home = tempfile::tempdir().expect("a directory");
    let numbers: Vec<String> = without.iter().map(ToString::to_string).collect();
    let (seed, nodes) = (seed.to_string(), nodes.to_string());
    let mut arguments = ["--seed", &seed, "--nodes", &nodes, "--flavor", flavor].map(str::to_owned).to_vec();
    if !numbers.is_empty() {
        arguments.extend(["--without".to_owned(), numbers.join(",")]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    sim(&arguments, &home.path().join("home"))
}

/// Leaves out faults as long as it still fails; the numbers that can be left out, and what the last failing run said.
fn shrink(seed: u64, shape: (usize, &str), mut said: String) -> (BTreeSet<usize>, String) {
    let numbers = said.lines().filter_map(|line| line.strip_prefix('#')?.split(' ').next()?.parse().ok());
    let numbers: Vec<usize> = numbers.collect();
    let mut without = BTreeSet::new();
    for number in numbers {
        without.insert(number);
        let ended = run(seed, shape, &without);
        if ended.clean {
            without.remove(&number);
        } else {
            said = ended.said;
        }
    }
    (without, said)
}

#[track_caller]
fn passes(seed: u64, shape: (usize, &str)) {
    let ended = run(seed, shape, &BTreeSet::new());
    if !ended.clean {
        let (without, said) = shrink(seed, shape, ended.said);
        let without: Vec<String> = without.iter().map(ToString::to_string).collect();
        let without = if without.is_empty() { String::new() } else { format!(" --without {}", without.join(",")) };
        let (nodes, flavor) = shape;
        panic!("sim --seed {seed} --nodes {nodes} --flavor {flavor}{without} fails:\n{said}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let home = tempfile::tempdir().expect("a directory");
    for (seed, nodes) in [("1", "1"), ("3", "3")] {
        let arguments = ["--seed", seed, "--nodes", nodes, "--span-ms", "3000", "--level", "trace"];
        let trace = || {
            let ended = sim(&arguments, &home.path().join("home"));
            let line = ended.said.lines().find(|line| line.starts_with("trace ")).map(str::to_owned);
            assert!(ended.clean, "seed {seed}: {}", ended.said);
            line.unwrap_or_else(|| panic!("no trace: {}", ended.said))
        };
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}

#[test]
#[ignore = "takes a minute: integration/sim/run"]
fn fresh_seeds_pass() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("FIRN_TEST_SEED") {
        return passes(seed, SHAPES[0]);
    }
    // A few of them are not always of the same kinds.
    let first = SystemEntropy.next_u64() as usize % SHAPES.len();
    let shapes = SHAPES.into_iter().cycle().skip(first);
    for (_, shape) in (0..number("FIRN_TEST_SEEDS").unwrap_or(SEEDS)).zip(shapes) {
        passes(SystemEntropy.next_u64() >> 16, shape);
    }
}

#[test]
#[ignore = "takes a minute: integration/sim/run"]
fn seeds_that_ever_failed_pass() {
    for line in KEPT.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let mut words = line.split_whitespace();
        let seed = words.next().and_then(|word| word.parse().ok());
        let nodes = words.next().and_then(|word| word.parse().ok());
        let (Some(seed), Some(nodes), Some(flavor)) = (seed, nodes, words.next()) else {
            panic!("{line:?} is not: seed, nodes, kind of faults")
        };
        passes(seed, (nodes, flavor));
    }
}
