//! One read stream: decides what to download for one consumer, and how far ahead of it.
//!
//! A stream lives from fetch to fetch. It sees the data of consecutive manifest entries as one line
//! of bytes, so that running ahead does not stop where an object ends. Pure: events in, commands
//! out; what it may hold in memory comes with each event as `room`.
//!
//! Invariants: GETs never overlap what is held or on its way; [`Core::held`] never exceeds the rooms
//! granted plus what was given back; nothing is fetched for a consumer that does not come back.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use super::pace::{Pace, WindowSettings};
use crate::cache::{BLOCK_BYTES, CHUNK_BYTES, Piece};

/// Numbers a stream's extents: the entries it reads, one after another, from 0.
pub type ExtentId = u64;

/// All that can happen to a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The next entry is known; its data has this many bytes.
    Extent {
        /// Bytes of data.
        length: u64,
    },
    /// There is no next entry at present.
    NoMore,
    /// A consumer asks for what comes at the stream's position.
    Asked,
    /// What is at hand is not enough: the batch at the position needs this many bytes.
    Need {
        /// Bytes from the position on.
        bytes: u64,
    },
    /// The consumer was given this many bytes (0: nothing to give, it goes away).
    Served {
        /// Bytes from the position on.
        bytes: u64,
    },
    /// Bytes before the batch that the consumer looks for: it passes over them.
    Skipped {
        /// Bytes from the position on.
        bytes: u64,
    },
    /// The consumer asks again for what it was given last.
    Rewound,
    /// Bytes came.
    Arrived {
        /// Of this extent.
        extent: ExtentId,
        /// The bytes.
        piece: Piece,
    },
    /// Bytes will not come.
    Failed {
        /// Of this extent.
        extent: ExtentId,
        /// Which, relative to the start of its data.
        range: Range<u64>,
    },
    /// A GET showed its first byte after this time.
    FirstByte {
        /// Since it was sent.
        after: Duration,
    },
    /// There is room again.
    Room,
}

/// All that a stream asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Download these bytes.
    Get {
        /// Of this extent.
        extent: ExtentId,
        /// Relative to the start of its data; begins and ends on blocks, or ends with the data.
        range: Range<u64>,
    },
    /// Say what follows the last extent.
    More,
    /// A waiting consumer should look again.
    Wake,
}

/// Contiguous bytes of one extent, ready to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The extent.
    pub extent: ExtentId,
    /// Its bytes, without gaps. Never empty.
    pub pieces: Vec<Piece>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    id: ExtentId,
    /// Where it begins on the stream's line.
    from: u64,
    length: u64,
}

impl Extent {
    fn end(&self) -> u64 {
        self.from + self.length
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ahead {
    Unknown,
    Asked,
    Nothing,
}

/// The state of one stream. Positions are on its line: extent after extent, from 0.
#[derive(Debug)]
pub struct Core {
    settings: WindowSettings,
    pace: Pace,
    extents: VecDeque<Extent>,
    next_id: ExtentId,
    ahead: Ahead,
    /// What lies below is let go.
    keep: u64,
    /// Where the read before began: the consumer may come back to it.
    previous: u64,
    /// Where the consumer last asked: the window begins here. What it is given does not move it; that
    /// it comes back does.
    anchor: u64,
    /// Next byte for the consumer.
    position: u64,
    /// Everything in `[keep, planned)` is held or on its way.
    planned: u64,
    /// Whether the first GET was sent.
    started: bool,
    /// Whether a GET failed since somebody asked.
    halted: bool,
    window: u64,
    need: u64,
    waiting: bool,
    hungry: bool,
    pieces: BTreeMap<u64, Piece>,
}

impl Core {
    /// A stream that begins `position` bytes into its first extent (which [`Event::Extent`] has yet to
    /// tell). At least `look` bytes from there are wanted at once: the batch that is looked for lies
    /// somewhere in them. `latency` is what the store showed lately.
    pub fn new(settings: WindowSettings, position: u64, look: u64, latency: Option<Duration>) -> Self {
        let window = first_window(&settings, position, look);
        let planned = position - position % BLOCK_BYTES;
        Self {
            settings: WindowSettings { first_window: window, ..settings },
            pace: Pace::new(latency),
            extents: VecDeque::new(),
            next_id: 0,
            ahead: Ahead::Unknown,
            keep: planned,
            previous: position,
            anchor: position,
            position,
            planned,
            started: false,
            halted: false,
            window,
            need: 0,
            waiting: false,
            hungry: false,
            pieces: BTreeMap::new(),
        }
    }

    /// Bytes planned or held, of which the budget has to know.
    pub fn held(&self) -> u64 {
        self.planned - self.keep
    }

    /// Whether the bytes of the last read are still kept, so that [`Event::Rewound`] leads back to them.
    pub fn can_rewind(&self) -> bool {
        self.previous < self.position
    }

    /// How many bytes this stream would like to add to what it holds.
    pub fn appetite(&self) -> u64 {
        let target = self.target().min(self.known_end().unwrap_or(u64::MAX));
        target.saturating_sub(self.planned)
    }

    /// Whether a plan was cut short for lack of room.
    pub fn hungry(&self) -> bool {
        self.hungry
    }

    /// Whether a consumer waits for bytes that are not even on their way.
    pub fn urgent(&self) -> bool {
        self.waiting && self.planned < self.position + self.need.max(1)
    }

    /// The present window, in bytes.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Takes in what happened at `now` (any clock that does not step back). The commands' GETs take
    /// at most `room` bytes.
    pub fn on(&mut self, now: Duration, room: u64, event: Event) -> Vec<Command> {
        let mut commands = Vec::new();
        match event {
            Event::Extent { length } => self.extend(length, &mut commands),
            Event::NoMore => {
                self.ahead = Ahead::Nothing;
                self.wake(&mut commands);
            }
            Event::Asked => {
                self.pace.asked(now);
                self.window = self.pace.window(&self.settings);
                self.anchor = self.position;
                self.waiting = true;
                self.halted = false;
                if self.ahead == Ahead::Nothing {
                    self.ahead = Ahead::Unknown;
                }
            }
            Event::Need { bytes } => {
                self.need = bytes;
                self.waiting = true;
            }
            Event::Served { bytes } => self.serve(now, bytes),
            Event::Skipped { bytes } => {
                self.position += bytes;
                self.previous = self.position;
                self.release();
            }
            Event::Rewound => self.position = self.previous,
            Event::Arrived { extent, piece } => self.arrive(extent, piece, &mut commands),
            Event::Failed { extent, range } => self.fail(extent, &range, &mut commands),
            Event::FirstByte { after } => self.pace.first_byte(after),
            Event::Room => {}
        }
        let room = self.plan(room, &mut commands);
        if self.hungry && self.urgent() && self.can_rewind() {
            // Somebody waits: better to let go of what may be asked for again.
            let before = self.held();
            self.previous = self.position;
            self.release();
            self.plan(room + before - self.held(), &mut commands);
        }
        commands
    }

    /// What can be read at the position without waiting: at least `at_least` bytes if they are there,
    /// and no more pieces than that takes.
    pub fn ready(&self, at_least: u64) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut next = self.position;
        for extent in self.extents.iter().filter(|e| e.end() > self.position) {
            while next < extent.end() && next - self.position < at_least {
                let Some(piece) = self.piece_at(next, extent) else {
                    return runs;
                };
                next = extent.from + piece.end();
                match runs.last_mut() {
                    Some(run) if run.extent == extent.id => run.pieces.push(piece),
                    Some(_) | None => runs.push(Run { extent: extent.id, pieces: vec![piece] }),
                }
            }
        }
        runs
    }

    /// The extent the position lies in and the position relative to its data. At the end of an
    /// extent that is the next one, if known.
    pub fn place(&self) -> Option<(ExtentId, u64)> {
        let extent = self.extents.iter().find(|e| e.end() > self.position)?;
        Some((extent.id, self.position - extent.from))
    }

    /// Oldest extent that is still of use.
    pub fn oldest_extent(&self) -> ExtentId {
        self.extents.front().map_or(self.next_id, |extent| extent.id)
    }

    /// Whether the position is at the end of all that the manifest knows.
    pub fn at_end(&self) -> bool {
        self.ahead == Ahead::Nothing && self.known_end().is_none_or(|end| self.position >= end)
    }

    fn extend(&mut self, length: u64, commands: &mut Vec<Command>) {
        let from = self.known_end().unwrap_or(0);
        self.extents.push_back(Extent { id: self.next_id, from, length });
        self.next_id += 1;
        self.ahead = Ahead::Unknown;
        self.wake(commands);
    }

    fn serve(&mut self, now: Duration, bytes: u64) {
        self.waiting = false;
        self.need = 0;
        if bytes == 0 {
            return;
        }
        self.pace.served(now, bytes);
        // What was served last is kept for one more read: its answer may have got lost.
        self.previous = self.position;
        self.position += bytes;
        self.release();
    }

    /// Lets go of everything that lies wholly below the previous read.
    fn release(&mut self) {
        while let Some(first) = self.pieces.first_entry() {
            if first.key() + first.get().bytes.len() as u64 > self.previous {
                break;
            }
            first.remove();
        }
        let held = self.pieces.first_key_value().map(|(at, _)| *at);
        let keep = held.unwrap_or(self.previous).min(self.previous);
        self.keep = self.keep.max(keep).min(self.planned);
        while self.extents.len() > 1 && self.extents.front().is_some_and(|e| e.end() <= keep) {
            self.extents.pop_front();
        }
    }

    fn arrive(&mut self, id: ExtentId, piece: Piece, commands: &mut Vec<Command>) {
        let Some(extent) = self.extents.iter().find(|extent| extent.id == id) else {
            return;
        };
        let (from, end) = (extent.from + piece.at, extent.from + piece.end());
        if end <= self.keep || self.covered(from).is_some_and(|held| held >= end) {
            return;
        }
        let missing = self.contiguous();
        self.pieces.insert(from, piece);
        if from <= missing && missing < end {
            self.wake(commands);
        }
    }

    fn fail(&mut self, id: ExtentId, range: &Range<u64>, commands: &mut Vec<Command>) {
        let Some(extent) = self.extents.iter().find(|extent| extent.id == id) else {
            return;
        };
        let from = extent.from + range.start;
        if from < self.planned {
            // Planned again when somebody asks again, not before: the store just failed.
            self.planned = from.max(self.keep);
            self.halted = true;
        }
        self.wake(commands);
    }

    /// Asks for what the window lacks, within `room`; returns what is left of that.
    fn plan(&mut self, mut room: u64, commands: &mut Vec<Command>) -> u64 {
        self.hungry = false;
        while !self.halted && self.planned < self.target() {
            let planned = self.planned;
            let Some(extent) = self.extents.iter().find(|e| e.end() > planned).copied() else {
                if self.ahead == Ahead::Unknown {
                    self.ahead = Ahead::Asked;
                    commands.push(Command::More);
                }
                break;
            };
            if let Some(end) = self.covered(planned) {
                room = room.saturating_sub(end - planned);
                self.planned = end;
                continue;
            }
            let at = planned - extent.from;
            let Some(mut end) = self.end_of_get(at, extent.length) else {
                break;
            };
            if let Some((held, _)) = self.pieces.range(planned..).next() {
                end = end.min(held - extent.from);
            }
            if end - at > room {
                // A GET smaller than it should be is worth its price only if somebody waits for it.
                self.hungry = true;
                let fits = at + room / BLOCK_BYTES * BLOCK_BYTES;
                if fits == at || !self.urgent() {
                    break;
                }
                end = fits;
            }
            room -= end - at;
            self.planned = extent.from + end;
            self.started = true;
            commands.push(Command::Get { extent: extent.id, range: at..end });
        }
        room
    }

    /// Where the next GET ends that begins at `at` of an extent of `length` bytes; none if it is
    /// better to wait until the window has opened further.
    fn end_of_get(&self, at: u64, length: u64) -> Option<u64> {
        let settings = &self.settings;
        let open = self.target() - self.planned;
        let ahead = self.planned.saturating_sub(self.position);
        if !self.started {
            return Some((at + settings.first_get).min(length));
        }
        // While the window grows, the nearest bytes come in the smallest GETs: they share the
        // bandwidth with those behind them, and the consumer waits for the former.
        let size = (self.window / 2).min(settings.max_get).min(ahead).max(settings.min_get);
        let end = if open >= size {
            let end = at + size;
            let aligned = end - end % CHUNK_BYTES;
            if aligned > at { aligned } else { end }
        } else if self.urgent() || ahead < self.window / 2 || !self.pace.is_proven() {
            (at + open).next_multiple_of(BLOCK_BYTES)
        } else if length - at <= open {
            length
        } else {
            return None;
        };
        // No GET for a small remainder.
        Some(if length.saturating_sub(end) < CHUNK_BYTES { length } else { end })
    }

    fn target(&self) -> u64 {
        (self.anchor + self.window).max(self.position + self.need)
    }

    fn known_end(&self) -> Option<u64> {
        self.extents.back().map(Extent::end)
    }

    /// End of the piece held at `position`, if one is.
    fn covered(&self, position: u64) -> Option<u64> {
        let (from, piece) = self.pieces.range(..=position).next_back()?;
        let end = from + piece.bytes.len() as u64;
        (end > position).then_some(end)
    }

    /// The first byte from the position on that is not held.
    fn contiguous(&self) -> u64 {
        let mut next = self.position;
        while let Some(end) = self.covered(next) {
            next = end;
        }
        next
    }

    fn piece_at(&self, position: u64, extent: &Extent) -> Option<Piece> {
        let (from, piece) = self.pieces.range(..=position).next_back()?;
        if *from < extent.from {
            return None;
        }
        piece.part(position - extent.from, u64::MAX)
    }

    fn wake(&self, commands: &mut Vec<Command>) {
        if self.waiting {
            commands.push(Command::Wake);
        }
    }
}

/// The window of a stream that begins at `position`: at least `look`, about the first window, up to the
/// border of a chunk.
fn first_window(settings: &WindowSettings, position: u64, look: u64) -> u64 {
    let end = position + settings.first_window.max(look);
    let border = end - end % CHUNK_BYTES;
    let end = if border >= position + look.max(settings.first_window / 2) {
        border
    } else {
        end.next_multiple_of(CHUNK_BYTES)
    };
    (end - position).min(settings.max_window)
}
