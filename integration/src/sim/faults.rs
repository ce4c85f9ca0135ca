//! What goes wrong, when and for how long, drawn from a seed. Pure: the same seed and shape give the same schedule, which can be printed,
//! and run again with some of its lines left out.

use crate::dice::Dice;
use std::fmt;
use std::str::FromStr;

/// Number of a node, from 0.
pub type NodeIndex = usize;

/// One kind of trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The process ends at once (`kill -9`); its machine lives on and refuses connections. At the end it is started again.
    Kill(NodeIndex),
    /// The machine loses power, and what was not synced. Nobody answers for it. At the end it is started again.
    PowerLoss(NodeIndex),
    /// The process ends, and at the end it is started again on an empty disk. For a node without a vote in the quorum: a voter's disk
    /// is not replaced, its process only ends.
    NewDisk(NodeIndex),
    /// All machines lose power at once.
    Blackout,
    /// Nothing goes between one node and all others, clients included.
    Isolate(NodeIndex),
    /// Nothing goes between two nodes.
    Cut(NodeIndex, NodeIndex),
    /// Nothing goes from the first to the second; the other direction is whole.
    CutOneWay(NodeIndex, NodeIndex),
    /// The nodes in the list see each other, and the rest see each other.
    Split(Vec<NodeIndex>),
    /// Everything between two nodes is held back, and delivered at the end.
    Hold(NodeIndex, NodeIndex),
    /// What goes between two nodes takes so many milliseconds.
    SlowLink(NodeIndex, NodeIndex, u64),
    /// The node's disk has no more room.
    FullDisk(NodeIndex),
    /// Every operation of the node's disk takes up to so many milliseconds.
    SlowDisk(NodeIndex, u64),
    /// The node's next sync of a file fails, and the directory with it; its process is started again at the end.
    FailedSync(NodeIndex),
    /// The node's wall clock is off by so many milliseconds.
    ClockOff(NodeIndex, i64),
    /// The object store errs in so many of 1000 requests: refused, answer lost, applied late.
    StoreErrs(u32),
    /// The object store never answers.
    StoreHangs,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill(node) => write!(f, "kill node {node}"),
            Fault::PowerLoss(node) => write!(f, "power loss of node {node}"),
            Fault::NewDisk(node) => write!(f, "new disk for node {node}"),
            Fault::Blackout => write!(f, "power loss of all nodes"),
            Fault::Isolate(node) => write!(f, "isolate node {node}"),
            Fault::Cut(a, b) => write!(f, "cut {a} <-> {b}"),
            Fault::CutOneWay(a, b) => write!(f, "cut {a} -> {b}"),
            Fault::Split(side) => write!(f, "split {side:?} from the rest"),
            Fault::Hold(a, b) => write!(f, "hold {a} <-> {b}"),
            Fault::SlowLink(a, b, ms) => write!(f, "slow link {a} <-> {b}: {ms} ms"),
            Fault::FullDisk(node) => write!(f, "full disk of node {node}"),
            Fault::SlowDisk(node, ms) => write!(f, "slow disk of node {node}: {ms} ms"),
            Fault::FailedSync(node) => write!(f, "failed sync of node {node}"),
            Fault::ClockOff(node, ms) => write!(f, "clock of node {node} off by {ms} ms"),
            Fault::StoreErrs(per_mille) => write!(f, "object store errs in {per_mille} of 1000"),
            Fault::StoreHangs => write!(f, "object store hangs"),
        }
    }
}

/// A fault with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timed {
    /// Its number in the schedule, by which it can be left out.
    pub number: usize,
    /// Begins so many milliseconds after the load began.
    pub from_ms: u64,
    /// Ends then.
    pub to_ms: u64,
    /// What.
    pub fault: Fault,
}

impl fmt::Display for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {}..{} ms {}", self.number, self.from_ms, self.to_ms, self.fault)
    }
}

/// What kind of trouble a schedule is made of: some bugs only show where one kind comes again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flavor {
    /// A little of everything.
    #[default]
    Mixed,
    /// Power is lost, mostly by all at once.
    Power,
    /// Nodes die or are cut off one soon after the other, so that leaders change often.
    Leaders,
    /// The object store errs all the time, hangs, and nodes die meanwhile.
    Store,
    /// Two nodes go, and as they come back a third does.
    Relay,
    /// Some nodes are cut off from the others, but not from clients, for as long as it takes to elect others.
    Splits,
    /// Links are slow, and all lose power again and again, so that votes are given shortly before.
    Votes,
    /// What goes between two nodes is held back until others have taken over from one of them, and delivered then.
    Late,
    /// A node without a vote loses its disk while few others have what it had.
    Disks,
}

impl Flavor {
    /// All of them.
    pub const ALL: [Flavor; 9] = [
        Flavor::Mixed,
        Flavor::Power,
        Flavor::Leaders,
        Flavor::Store,
        Flavor::Relay,
        Flavor::Splits,
        Flavor::Votes,
        Flavor::Late,
        Flavor::Disks,
    ];

    /// Its name on the command line and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Flavor::Mixed => "mixed",
            Flavor::Power => "power",
            Flavor::Leaders => "leaders",
            Flavor::Store => "store",
            Flavor::Relay => "relay",
            Flavor::Splits => "splits",
            Flavor::Votes => "votes",
            Flavor::Late => "late",
            Flavor::Disks => "disks",
        }
    }
}

impl fmt::Display for Flavor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No flavor has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no flavor {0:?} of faults")]
pub struct UnknownFlavor(String);

impl FromStr for Flavor {
    type Err = UnknownFlavor;

    fn from_str(name: &str) -> Result<Flavor, UnknownFlavor> {
        let found = Flavor::ALL.into_iter().find(|flavor| flavor.name() == name);
        found.ok_or_else(|| UnknownFlavor(name.to_owned()))
    }
}

/// What a schedule is drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// What kind of trouble.
    pub flavor: Flavor,
    /// How many nodes there are.
    pub nodes: usize,
    /// All faults begin and end within so many milliseconds.
    pub span_ms: u64,
}

/// All that goes wrong in a run, by time of beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(Vec<Timed>);

impl Schedule {
    /// The schedule of a seed.
    pub fn draw(seed: u64, shape: Shape) -> Schedule {
        let mut dice = Dice::new(seed);
        let dice = &mut dice;
        let mut faults = match shape.flavor {
            Flavor::Mixed => mixed(dice, shape),
            Flavor::Power => power(dice, shape),
            Flavor::Leaders => leaders(dice, shape, 8),
            Flavor::Store => store(dice, shape),
            Flavor::Relay => relay(dice, shape),
            Flavor::Splits => splits(dice, shape),
            Flavor::Votes => votes(dice, shape),
            Flavor::Late => late(dice, shape),
            Flavor::Disks => disks(dice, shape),
        };
        for (from_ms, to_ms, _) in &mut faults {
            *to_ms = (*to_ms).min(shape.span_ms).max(*from_ms + 1);
        }
        faults.sort_by_key(|(from_ms, to_ms, _)| (*from_ms, *to_ms));
        let timed = faults.into_iter().enumerate();
        Schedule(timed.map(|(number, (from_ms, to_ms, fault))| Timed { number, from_ms, to_ms, fault }).collect())
    }

    /// The same without the faults of these numbers.
    #[must_use]
    pub fn without(mut self, numbers: &[usize]) -> Schedule {
        self.0.retain(|timed| !numbers.contains(&timed.number));
        self
    }

    /// Its faults.
    pub fn faults(&self) -> &[Timed] {
        &self.0
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for timed in &self.0 {
            writeln!(f, "{timed}")?;
        }
        Ok(())
    }
}

/// From when to when, and what.
type Drawn = (u64, u64, Fault);

fn mixed(dice: &mut Dice, shape: Shape) -> Vec<Drawn> {
    let mut faults = Vec::new();
    // A few seeds are quiet: load alone must pass, too.
    let count = dice.below(10);
    for _ in 0..count {
        let from_ms = dice.below(shape.span_ms * 3 / 4);
        let longest = (shape.span_ms - from_ms).min(6_000);
        let to_ms = from_ms + 50 + dice.below(longest.max(51) - 50);
        faults.push((from_ms, to_ms, draw_fault(dice, shape)));
    }
    faults
}

/// So many faults at any time, each so long.
fn scattered(
    dice: &mut Dice,
    shape: Shape,
    count: u64,
    (least_ms, most_ms): (u64, u64),
    mut fault: impl FnMut(&mut Dice) -> Fault,
) -> Vec<Drawn> {
    let one = |_| {
        let from_ms = dice.below(shape.span_ms * 4 / 5);
        let to_ms = from_ms + least_ms + dice.below(most_ms - least_ms);
        (from_ms, to_ms, fault(dice))
    };
    (0..count).map(one).collect()
}

fn power(dice: &mut Dice, shape: Shape) -> Vec<Drawn> {
    let count = 4 + dice.below(5);
    scattered(dice, shape, count, (100, 1_200), |dice| match dice.below(10) {
        0..6 => Fault::Blackout,
        6..9 => Fault::PowerLoss(dice.index(shape.nodes)),
        _ => Fault::Kill(dice.index(shape.nodes)),
    })
}

fn leaders(dice: &mut Dice, shape: Shape, least: u64) -> Vec<Drawn> {
    let count = least + dice.below(least);
    scattered(dice, shape, count, (100, 2_500), |dice| {
        let node = dice.index(shape.nodes);
        match dice.below(10) {
            0..4 => Fault::Kill(node),
            4..7 if shape.nodes > 1 => Fault::Isolate(node),
            7 if shape.nodes > 1 => Fault::CutOneWay(node, other(dice, shape.nodes, node)),
            8 if shape.nodes > 1 => Fault::Hold(node, other(dice, shape.nodes, node)),
            _ => Fault::PowerLoss(node),
        }
    })
}

fn store(dice: &mut Dice, shape: Shape) -> Vec<Drawn> {
    let per_mille = 200 + u32::try_from(dice.below(500)).unwrap_or(0);
    let mut faults = vec![(0, shape.span_ms - 1_000, Fault::StoreErrs(per_mille))];
    faults.extend(scattered(dice, shape, 3, (300, 2_000), |_| Fault::StoreHangs));
    faults.extend(leaders(dice, shape, 3));
    faults
}

/// How long a round of faults takes that belong together.
const ROUND_MS: u64 = 4_500;

/// The same where somebody has to be taken for dead first, and out of the replicas in sync.
const SPLIT_ROUND_MS: u64 = 7_000;

fn relay(dice: &mut Dice, shape: Shape) -> Vec<Drawn> {
    let mut faults = Vec::new();
    for round in 0..shape.span_ms / ROUND_MS {
        let (a, b, c) = three(dice, shape.nodes);
        let from_ms = round * ROUND_MS + dice.below(300);
        let to_ms = from_ms + 1_000 + dice.below(1_200);
        let gone = |node: NodeIndex, dice: &mut Dice| match dice.below(3) {
            0 => Fault::Kill(node),
            1 => Fault::PowerLoss(node),
            _ => Fault::Isolate(node),
        };
        faults.push((from_ms, to_ms, gone(a, dice)));
        faults.push((from_ms + dice.below(300), to_ms + dice.below(400), gone(b, dice)));
        let then_ms = to_ms - dice.below(400);
        faults.push((then_ms, then_ms + 500 + dice.below(1_500), gone(c, dice)));
    }
    faults
}

fn splits(dice: &mut Dice, shape: Shape) -> Vec<Drawn> {
    let mut faults = Vec::new();
    for round in 0..shape.span_ms / SPLIT_ROUND_MS {
        let from_ms = round * SPLIT_ROUND_MS + dice.below(300);
        let to_ms = from_ms + 5_500 + dice.below(1_200);
        let (a, b, _) = three(dice, shape.nodes);
        let side = if shape.nodes > 3 { vec![a.min(b), a.max(b)] } else { vec![a] };
        faults.push((from_ms, to_ms, Fault::Split(side)));
    }
    faults
}

/// A vote is on its way for tens of milliseconds, and elections follow blackouts within a few hundred.
fn votes(dice: &mut Dice, shape: Shape) -> Vec<Drawn> {
    let mut faults = Vec::new();
    for a in 0..shape.nodes {
        for b in a + 1..shape.nodes {
            faults.push((0, shape.span_ms, Fault::SlowLink(a, b, 20 + dice.below(25))));
        }
    }
    let mut from_ms = 500;
    while from_ms + 1_500 < shape.span_ms {
        let to_ms = from_ms + 20 + dice.below(60);
        faults.push((from_ms, to_ms, Fault::Blackout));
        from_ms = to_ms + 100 + dice.below(600);
    }
    faults
}

/// A broker of which nothing is heard is taken for dead after three seconds.
const SESSION_MS: u64 = 3_000;

fn late(dice: &mut Dice, shape: Shape) -> Vec<Drawn> {
    let mut faults = Vec::new();
    for round in 0..shape.span_ms / 5_000 {
        let (a, b, c) = three(dice, shape.nodes);
        let from_ms = round * 5_000 + dice.below(500);
        let to_ms = from_ms + SESSION_MS - 400 + dice.below(1_400);
        faults.push((from_ms, to_ms, Fault::Hold(a, b)));
        let then_ms = from_ms + dice.below(1_500);
        faults.push((then_ms.saturating_sub(700), then_ms + dice.below(500), Fault::Kill(c)));
        if dice.one_in(2) {
            // Nobody else can put anything into the store meanwhile.
            faults.push((from_ms + 1_200 + dice.below(1_000), to_ms + 200, Fault::StoreHangs));
        }
    }
    faults
}

fn disks(dice: &mut Dice, shape: Shape) -> Vec<Drawn> {
    // Always the same one: another copy of what was acknowledged is on a disk that stays.
    let lost = shape.nodes - 1;
    let mut faults = Vec::new();
    for round in 0..shape.span_ms / ROUND_MS {
        let from_ms = round * ROUND_MS + dice.below(300);
        let to_ms = from_ms + 2_500 + dice.below(1_400);
        let gone = dice.index(lost.max(1));
        faults.push((from_ms, to_ms, if dice.one_in(2) { Fault::Kill(gone) } else { Fault::Isolate(gone) }));
        let then_ms = from_ms + 300 + dice.below(1_500);
        faults.push((then_ms, then_ms + 50 + dice.below(300), Fault::NewDisk(lost)));
    }
    faults
}

/// Three nodes, all different where there are so many.
fn three(dice: &mut Dice, nodes: usize) -> (NodeIndex, NodeIndex, NodeIndex) {
    let a = dice.index(nodes);
    let b = (a + 1 + dice.index(nodes.max(2) - 1)) % nodes;
    let rest: Vec<NodeIndex> = (0..nodes).filter(|node| *node != a && *node != b).collect();
    (a, b, if rest.is_empty() { a } else { dice.pick(&rest) })
}

fn draw_fault(dice: &mut Dice, shape: Shape) -> Fault {
    let nodes = shape.nodes;
    let node = dice.index(nodes);
    // One node alone has no links between nodes: its faults are those of the machine.
    let kind = if nodes > 1 { dice.below(100) } else { dice.below(50) };
    match kind {
        0..12 => Fault::Kill(node),
        12..22 => Fault::PowerLoss(node),
        22..26 => Fault::Blackout,
        26..29 => Fault::FullDisk(node),
        29..32 => Fault::FailedSync(node),
        32..34 => Fault::SlowDisk(node, 20 + dice.below(180)),
        34..38 => Fault::ClockOff(node, dice.below(7_200_000).cast_signed() - 3_600_000),
        38..46 => Fault::StoreErrs(50 + u32::try_from(dice.below(400)).unwrap_or(0)),
        46..50 => Fault::StoreHangs,
        50..62 => Fault::Isolate(node),
        62..70 => Fault::Cut(node, other(dice, nodes, node)),
        70..80 => Fault::CutOneWay(node, other(dice, nodes, node)),
        80..88 => Fault::Split(some(dice, nodes)),
        88..94 => Fault::Hold(node, other(dice, nodes, node)),
        _ => Fault::SlowLink(node, other(dice, nodes, node), 10 + dice.below(300)),
    }
}

/// An index that is not `one`.
fn other(dice: &mut Dice, nodes: usize, one: NodeIndex) -> NodeIndex {
    let other = dice.index(nodes.max(2) - 1);
    if other >= one { other + 1 } else { other }
}

/// One index at least, and not all of them.
fn some(dice: &mut Dice, nodes: usize) -> Vec<NodeIndex> {
    let bits = 1 + dice.below((1 << nodes) - 2);
    (0..nodes).filter(|index| bits >> index & 1 == 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { flavor: Flavor::Mixed, nodes: 5, span_ms: 15_000 };

    #[test]
    fn a_seed_fixes_its_schedule_and_seeds_differ() {
        assert_eq!(Schedule::draw(7, SHAPE), Schedule::draw(7, SHAPE));
        assert_ne!(Schedule::draw(7, SHAPE), Schedule::draw(8, SHAPE));
    }

    #[test]
    fn every_fault_ends_within_the_span_and_names_nodes_that_are() {
        for (seed, flavor) in (0..900).zip(Flavor::ALL.into_iter().cycle()) {
            for timed in Schedule::draw(seed, Shape { flavor, ..SHAPE }).faults() {
                assert!(timed.from_ms < timed.to_ms && timed.to_ms <= SHAPE.span_ms, "{timed}");
                match &timed.fault {
                    Fault::Cut(a, b) | Fault::CutOneWay(a, b) | Fault::Hold(a, b) | Fault::SlowLink(a, b, _) => {
                        assert!(a != b && *a < 5 && *b < 5, "{timed}");
                    }
                    Fault::Split(side) => assert!(!side.is_empty() && side.len() < 5, "{timed}"),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn one_node_has_the_faults_of_a_machine() {
        let alone = Shape { nodes: 1, ..SHAPE };
        let between = |fault: &Fault| matches!(fault, Fault::Cut(..) | Fault::Split(_) | Fault::Isolate(_));
        assert!((0..200).all(|seed| !Schedule::draw(seed, alone).faults().iter().any(|timed| between(&timed.fault))));
    }

    #[test]
    fn what_is_left_out_keeps_the_numbers_of_the_rest() {
        let seed = (0..).find(|seed| Schedule::draw(*seed, SHAPE).faults().len() == 4).expect("some seed has four");
        let left = Schedule::draw(seed, SHAPE).without(&[1, 2]);
        let numbers: Vec<usize> = left.faults().iter().map(|timed| timed.number).collect();
        assert_eq!(numbers, [0, 3]);
    }
}
