//! The stream's core: whole lists of commands.

use std::time::Duration;

use bytes::Bytes;

use crate::cache::Piece;
use crate::reader::pace::WindowSettings;
use crate::reader::stream::{Command, Core, Event, ExtentId, Run};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const ROOM: u64 = u64::MAX;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn get(extent: ExtentId, range: std::ops::Range<u64>) -> Command {
    Command::Get { extent, range }
}

fn arrived(extent: ExtentId, range: std::ops::Range<u64>) -> Event {
    Event::Arrived { extent, piece: piece(range) }
}

fn piece(range: std::ops::Range<u64>) -> Piece {
    let length = usize::try_from(range.end - range.start).unwrap();
    Piece { at: range.start, bytes: Bytes::from(vec![0; length]), checked: true }
}

/// A core at the start of an extent of 32 MiB.
fn started() -> Core {
    let mut core = Core::new(WindowSettings::default(), 0, 0, Some(ms(100)));
    assert_eq!(core.on(ms(0), 0, Event::Extent { length: 32 * MIB }), vec![]);
    core
}

fn in_flight(commands: &[Command]) -> u64 {
    let length = |command: &Command| match command {
        Command::Get { range, .. } => range.end - range.start,
        Command::More | Command::Wake => 0,
    };
    commands.iter().map(length).sum()
}

#[test]
fn the_first_get_is_small_and_its_chunk_follows_at_once() {
    let mut core = started();
    assert_eq!(core.on(ms(0), ROOM, Event::Asked), vec![get(0, 0..256 * KIB), get(0, 256 * KIB..MIB)]);
    assert_eq!(core.held(), MIB);
    assert_eq!(core.on(ms(0), ROOM, Event::Asked), vec![], "asked again: it is on its way");
}

#[test]
fn a_start_amid_the_data_is_aligned_to_blocks() {
    let mut core = Core::new(WindowSettings::default(), 5 * MIB + 70_000, 0, None);
    core.on(ms(0), 0, Event::Extent { length: 32 * MIB });
    let from = 5 * MIB + 64 * KIB;
    assert_eq!(
        core.on(ms(0), ROOM, Event::Asked),
        vec![get(0, from..from + 256 * KIB), get(0, from + 256 * KIB..6 * MIB)]
    );
}

#[test]
fn all_that_may_hold_the_offset_is_fetched_in_one_round_trip() {
    let mut core = Core::new(WindowSettings::default(), 0, 3 * MIB, None);
    core.on(ms(0), 0, Event::Extent { length: 32 * MIB });
    let commands = core.on(ms(0), ROOM, Event::Asked);
    assert_eq!(in_flight(&commands), 3 * MIB);
}

#[test]
fn the_reader_is_woken_when_its_bytes_come_and_only_then() {
    let mut core = started();
    core.on(ms(0), ROOM, Event::Asked);
    assert_eq!(core.on(ms(100), ROOM, arrived(0, 256 * KIB..MIB)), vec![], "not yet contiguous");
    assert_eq!(core.on(ms(101), ROOM, arrived(0, 0..256 * KIB)), vec![Command::Wake]);
    let run = Run { extent: 0, pieces: vec![piece(0..256 * KIB), piece(256 * KIB..MIB)] };
    assert_eq!(core.ready(MIB), vec![run]);
}

#[test]
fn a_consumer_that_comes_back_at_once_opens_the_window() {
    let mut core = started();
    core.on(ms(0), ROOM, Event::Asked);
    core.on(ms(100), ROOM, Event::FirstByte { after: ms(100) });
    core.on(ms(100), ROOM, arrived(0, 0..256 * KIB));
    core.on(ms(100), ROOM, arrived(0, 256 * KIB..MIB));
    core.on(ms(100), ROOM, Event::Served { bytes: 200 * KIB });
    // 200 KiB in 1 ms, for 105 ms, and a quarter on top, but not more than what was read earns: 88 times.
    let commands = core.on(ms(101), ROOM, Event::Asked);
    assert_eq!(core.window(), 200 * KIB * 88);
    let sizes = vec![
        get(0, MIB..3 * MIB),
        get(0, 3 * MIB..5 * MIB),
        get(0, 5 * MIB..9 * MIB),
        get(0, 9 * MIB..13 * MIB),
        get(0, 13 * MIB..17 * MIB),
    ];
    assert_eq!(commands, sizes, "small at first, then larger");
}

#[test]
fn a_window_goes_on_into_the_next_objects() {
    let settings = WindowSettings { first_window: 40 * MIB, ..WindowSettings::default() };
    let mut core = Core::new(settings, 0, 0, None);
    core.on(ms(0), 0, Event::Extent { length: 5 * MIB });
    let commands = core.on(ms(0), ROOM, Event::Asked);
    assert_eq!(commands.last(), Some(&Command::More));
    assert_eq!(in_flight(&commands), 5 * MIB);
    assert_eq!(
        core.on(ms(0), ROOM, Event::Extent { length: 300 * KIB }),
        vec![Command::Wake, get(1, 0..300 * KIB), Command::More],
    );
    assert_eq!(core.on(ms(0), ROOM, Event::NoMore), vec![Command::Wake]);
    core.on(ms(1), ROOM, arrived(0, 0..5 * MIB));
    core.on(ms(1), ROOM, arrived(1, 0..300 * KIB));
    let extents: Vec<_> = core.ready(u64::MAX).iter().map(|run| run.extent).collect();
    assert_eq!(extents, vec![0, 1]);
    core.on(ms(1), ROOM, Event::Served { bytes: 5 * MIB + 300 * KIB });
    assert!(core.at_end());
    // Later there is more: it is asked for again.
    assert_eq!(core.on(ms(9), ROOM, Event::Asked), vec![Command::More]);
    assert!(!core.at_end());
    assert_eq!(core.on(ms(9), ROOM, Event::Extent { length: MIB }), vec![Command::Wake, get(2, 0..MIB), Command::More]);
}

#[test]
fn nothing_is_fetched_for_a_consumer_that_does_not_come_back() {
    let mut core = started();
    core.on(ms(0), ROOM, Event::Asked);
    core.on(ms(9), ROOM, arrived(0, 0..256 * KIB));
    core.on(ms(9), ROOM, arrived(0, 256 * KIB..MIB));
    let after = core.on(ms(9), ROOM, Event::Served { bytes: MIB });
    assert_eq!(after, vec![], "what was served is not evidence of more to come, the next read is");
    assert_eq!(core.on(ms(10), ROOM, Event::Room), vec![]);
}

#[test]
fn what_was_read_before_the_last_read_is_let_go() {
    let mut core = started();
    core.on(ms(0), ROOM, Event::Asked);
    core.on(ms(1), ROOM, arrived(0, 0..256 * KIB));
    core.on(ms(1), ROOM, arrived(0, 256 * KIB..MIB));
    core.on(ms(1), ROOM, Event::Served { bytes: 256 * KIB });
    assert_eq!(core.held(), MIB, "the consumer may come back to it");
    core.on(ms(1), 0, Event::Asked);
    core.on(ms(1), 0, Event::Served { bytes: 100 * KIB });
    assert_eq!(core.held(), MIB - 256 * KIB);
}

#[test]
fn a_lost_answer_is_read_again_without_fetching() {
    let mut core = started();
    core.on(ms(0), ROOM, Event::Asked);
    core.on(ms(1), ROOM, arrived(0, 0..256 * KIB));
    core.on(ms(1), ROOM, Event::Served { bytes: 100 * KIB });
    assert_eq!(core.place(), Some((0, 100 * KIB)));
    core.on(ms(5), 0, Event::Rewound);
    assert_eq!(core.place(), Some((0, 0)));
    assert_eq!(core.ready(1), vec![Run { extent: 0, pieces: vec![piece(0..256 * KIB)] }]);
}

#[test]
fn a_large_batch_opens_the_window_as_far_as_it_needs() {
    let mut core = started();
    core.on(ms(0), ROOM, Event::Asked);
    let commands = core.on(ms(1), ROOM, Event::Need { bytes: 10 * MIB });
    assert_eq!(in_flight(&commands), 9 * MIB);
}

#[test]
fn room_bounds_what_is_asked_for() {
    let mut core = started();
    assert_eq!(core.on(ms(0), 0, Event::Asked), vec![]);
    assert!(core.hungry() && core.urgent());
    assert_eq!(core.on(ms(1), 100 * KIB, Event::Room), vec![get(0, 0..64 * KIB)], "what fits");
    assert!(core.hungry());
    assert!(!core.urgent(), "something is on its way");
    assert_eq!(core.on(ms(2), 100 * KIB, Event::Room), vec![], "no small GETs ahead of need");
    assert_eq!(core.held(), 64 * KIB);
}

#[test]
fn without_room_a_waiting_reader_lets_go_of_what_was_read() {
    let mut core = started();
    core.on(ms(0), ROOM, Event::Asked);
    core.on(ms(1), ROOM, arrived(0, 0..256 * KIB));
    core.on(ms(1), ROOM, arrived(0, 256 * KIB..MIB));
    core.on(ms(1), 0, Event::Served { bytes: MIB });
    assert_eq!(core.held(), MIB);
    assert_eq!(core.on(ms(2), 0, Event::Asked), vec![get(0, MIB..2 * MIB)]);
    assert_eq!(core.held(), MIB);
}

#[test]
fn failed_bytes_are_asked_for_again_with_the_next_read_only() {
    let mut core = started();
    core.on(ms(0), ROOM, Event::Asked);
    core.on(ms(1), ROOM, arrived(0, 256 * KIB..MIB));
    let failed = Event::Failed { extent: 0, range: 0..256 * KIB };
    assert_eq!(core.on(ms(1), ROOM, failed), vec![Command::Wake]);
    assert_eq!(core.on(ms(2), ROOM, Event::Room), vec![]);
    assert_eq!(core.on(ms(3), ROOM, Event::Asked), vec![get(0, 0..256 * KIB)], "what came is not fetched again");
}

#[test]
fn small_remainders_of_an_extent_are_not_left_for_a_get_of_their_own() {
    let mut core = Core::new(WindowSettings::default(), 0, 0, None);
    core.on(ms(0), 0, Event::Extent { length: MIB + 200 * KIB });
    assert_eq!(core.on(ms(0), ROOM, Event::Asked), vec![get(0, 0..256 * KIB), get(0, 256 * KIB..MIB + 200 * KIB)]);
}

#[test]
fn passing_over_bytes_earns_no_trust() {
    let mut core = started();
    core.on(ms(0), ROOM, Event::Asked);
    core.on(ms(1), ROOM, arrived(0, 0..256 * KIB));
    core.on(ms(1), ROOM, arrived(0, 256 * KIB..MIB));
    assert_eq!(core.on(ms(1), ROOM, Event::Skipped { bytes: 900 * KIB }), vec![]);
    assert_eq!((core.window(), core.place()), (MIB, Some((0, 900 * KIB))));
}
