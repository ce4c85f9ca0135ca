//! Power fails, or the process ends, at every change of the disk: nothing acknowledged is lost, nothing else
//! appears twice, and what was deleted, trimmed or cut off stays so.
//!
//! `FIRN_TEST_CUTS=20000 cargo test -p broker crash` tries as many cuts instead of some hundred.

use tokio::runtime::Builder;

use super::life::{End, Failure, Lives, Seen};

/// One history: a life, cut off during change `cuts.0` of it, another, cut off during change `cuts.1` (early ones lie in
/// its recovery), and a last one that is closed, opened and looked at. `None` does not cut.
struct Plan {
    seed: u64,
    acts: u64,
    cuts: (Option<u64>, Option<u64>),
    failures: [Failure; 2],
}

struct Outcome {
    /// Changes of the disk in the first life.
    changes: u64,
    fingerprint: u32,
    ends: [End; 2],
    seen: Seen,
}

impl Plan {
    fn run(&self) -> Outcome {
        // A runtime of its own: whatever a life left running ends with it.
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let what = format!("seed {}, cuts {:?}, {:?}", self.seed, self.cuts, self.failures);
        let named = Named(what);
        let outcome = runtime.expect("a runtime").block_on(self.live());
        std::mem::forget(named);
        outcome
    }

    async fn live(&self) -> Outcome {
        let mut lives = Lives::new(self.seed).await;
        let before = lives.disk.changes();
        if let Some(cut) = self.cuts.0 {
            lives.disk.cut_power_at(before + cut);
        }
        let first = lives.live(self.acts).await;
        let changes = lives.disk.changes() - before;
        lives.restart(self.failures[0]);
        if let Some(cut) = self.cuts.1 {
            lives.disk.cut_power_at(lives.disk.changes() + cut);
        }
        let second = lives.live(self.acts / 2).await;
        lives.restart(self.failures[1]);
        for acts in [self.acts / 2, 0] {
            assert_eq!(lives.live(acts).await, End::Closed, "nothing fails any more");
            lives.restart(Failure::Power);
        }
        Outcome { changes, fingerprint: lives.disk.fingerprint(), ends: [first, second], seen: lives.seen }
    }
}

/// Says which history it was when a test panics.
struct Named(String);

impl Drop for Named {
    fn drop(&mut self) {
        eprintln!("in the history of {}", self.0);
    }
}

fn cuts(otherwise: u64) -> u64 {
    let cuts = std::env::var("FIRN_TEST_CUTS").ok().and_then(|cuts| cuts.parse().ok());
    cuts.unwrap_or(0).max(otherwise)
}

/// Kinds of failures for one cut, all combinations in turn.
fn failures(turn: u64) -> [Failure; 2] {
    let failure = |bit: u64| if bit.is_multiple_of(2) { Failure::Power } else { Failure::Process };
    [failure(turn), failure(turn / 2)]
}

fn add(total: &mut Seen, seen: &Seen) {
    total.acked += seen.acked;
    total.lost += seen.lost;
    total.duplicates += seen.duplicates;
    total.trims += seen.trims;
    total.cuts += seen.cuts;
    total.resets += seen.resets;
    total.deletes += seen.deletes;
    total.restarts_at_tier += seen.restarts_at_tier;
}

#[test]
fn whenever_it_is_cut_off_the_logs_are_as_they_were_acknowledged() {
    let wanted = cuts(400);
    let mut done = 0;
    let mut seen = Seen::default();
    let mut in_recovery = 0;
    for seed in 0.. {
        let plan = Plan { seed, acts: 24, cuts: (None, None), failures: failures(seed) };
        let changes = plan.run().changes;
        for cut in 0..changes {
            let second = (cut * 7 + seed) % 40;
            let plan = Plan { cuts: (Some(cut), Some(second)), failures: failures(cut / 3 + cut), ..plan };
            let outcome = plan.run();
            assert_ne!(outcome.ends[0], End::Closed);
            in_recovery += u64::from(outcome.ends[1] == End::CutOffInRecovery);
            add(&mut seen, &outcome.seen);
            done += 1;
        }
        if done >= wanted {
            break;
        }
    }
    println!("{done} cuts, {in_recovery} in recovery: {seen:?}");
    assert!(in_recovery > done / 10, "{in_recovery} of {done} recoveries were cut off, too");
}

#[test]
fn longer_histories_hold_as_well() {
    let mut seen = Seen::default();
    for seed in 1_000..1_000 + cuts(400) / 10 {
        let plan = Plan { seed, acts: 150, cuts: (None, None), failures: failures(seed) };
        let cut = (seed * 7919) % 450;
        let plan = Plan { cuts: (Some(cut), Some((seed * 31) % 300)), ..plan };
        add(&mut seen, &plan.run().seen);
    }
    println!("{seen:?}");
    let each = [seen.acked, seen.lost, seen.duplicates, seen.trims, seen.cuts, seen.resets, seen.deletes];
    assert!(each.iter().all(|count| *count > 20), "everything happens: {seen:?}");
    assert!(seen.restarts_at_tier > 0);
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let prints = [5, 5, 6].map(|seed| {
        let plan = Plan { seed, acts: 60, cuts: (Some(150), Some(90)), failures: failures(seed) };
        plan.run().fingerprint
    });
    assert_eq!(prints[0], prints[1]);
    assert_ne!(prints[0], prints[2]);
}
