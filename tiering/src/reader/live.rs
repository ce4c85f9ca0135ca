//! A read stream at work: the core, the bytes' entries and footers, and whoever waits.
//!
//! There is no task that owns it: callers, downloads and lookups bring their events under a short lock
//! and carry out what the core asks for after they let go of it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use proto::ids::{Offset, TopicPartition};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::catalog::{Catalog, Located};
use super::download::{Sink, Wanted};
use super::gather::{Gathered, Reading, Suspect};
use super::load::Load;
use super::shared::Shared;
use super::stream::{Command, Core, Event, ExtentId};
use super::{RemoteData, RemoteError};
use crate::cache::{CHUNK_BYTES, Piece};
use crate::format::Footer;
use crate::manifest::Entry;

/// Nobody came back for so many times what it takes its consumer at most, and for at least so long: the stream gives its
/// room to those who run ahead, if it holds more than its share.
const PAUSES: u32 = 4;
const PAUSED: Duration = Duration::from_millis(200);
/// The same, whatever it holds.
const LEFT: Duration = Duration::from_secs(5);

/// One consumer's stream.
pub(super) struct Live {
    pub(super) tp: TopicPartition,
    shared: Weak<Shared>,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    core: Core,
    catalog: Arc<Catalog>,
    entries: BTreeMap<ExtentId, Reading>,
    next_extent: ExtentId,
    /// Bytes from the position on that the next batch needs, as far as known.
    need: u64,
    /// End of the last entry the core knows. Exclusive.
    known_end: Offset,
    /// Offset the core's position stands for.
    next: Offset,
    /// Offset of the read before.
    previous: Offset,
    /// What the budget was told.
    held: u64,
    /// In the budget's list of those who wait for room.
    listed: bool,
    failed: Option<RemoteError>,
    trouble: Option<RemoteError>,
    used: Instant,
    /// The longest that its consumer took to come back, lately.
    pause: Duration,
    readers: u32,
    closed: bool,
}

/// Where a consumer seems to have left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    pub(super) tp: TopicPartition,
    /// The offset it would have read next.
    pub(super) next: Offset,
    pub(super) since: Instant,
}

/// What a look at a stream gave.
pub(super) enum Looked {
    /// This.
    Done(RemoteData),
    /// The stream has moved elsewhere, or is gone.
    Elsewhere,
    /// Nothing yet.
    Wait,
    /// The footer is needed first.
    Footer(Load<Arc<Footer>>),
    /// It went wrong.
    Failed(RemoteError),
    /// These bytes are not what was uploaded.
    Suspect(Suspect),
}

/// How a read ended that did not fail.
pub(super) enum Ended {
    /// With this.
    Data(RemoteData),
    /// The stream is not at that offset (any more).
    Elsewhere,
    /// These bytes have to be fetched again.
    Suspect(Suspect),
}

/// What a caller wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) from: Offset,
    pub(super) max_bytes: u64,
    pub(super) min_one: bool,
}

impl Live {
    /// A stream that begins in `entry`, `position` bytes into its data, to look for `from` within `look`
    /// bytes, for a consumer that is known to have paused that long.
    pub(super) fn new(
        shared: &Arc<Shared>,
        catalog: Arc<Catalog>,
        entry: Arc<Entry>,
        from: Offset,
        place: (u64, u64),
        pause: Duration,
    ) -> Arc<Self> {
        let (position, look) = place;
        let core = Core::new(shared.settings.window, position, look, shared.downloads.latency());
        let live = Arc::new(Self {
            tp: catalog.tp,
            shared: Arc::downgrade(shared),
            state: Mutex::new(State {
                core,
                catalog,
                known_end: entry.base,
                entries: BTreeMap::new(),
                next_extent: 0,
                need: 0,
                next: from,
                previous: from,
                held: 0,
                listed: false,
                failed: None,
                trouble: None,
                used: Instant::now(),
                pause,
                readers: 0,
                closed: false,
            }),
            changed: Notify::new(),
        });
        shared.budget.lock().stream_opened();
        live.extend(entry);
        live
    }

    /// Whether a read at `from` would go on (or repeat) what this stream does.
    pub(super) fn serves(&self, from: Offset) -> bool {
        let state = self.state.lock();
        !state.closed && (state.next == from || state.can_rewind_to(from))
    }

    /// When it was last used; none while somebody waits.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        (state.readers == 0).then_some(state.used)
    }

    /// Whether and where its consumer seems to have left, so that what it holds beyond `share` bytes is of more use to others.
    pub(super) fn is_left(&self, share: u64) -> Option<Left> {
        let state = self.state.lock();
        let away = if state.readers == 0 { state.used.elapsed() } else { Duration::ZERO };
        let long = (state.pause * PAUSES).max(PAUSED);
        let left = state.held > 0 && (away >= LEFT.max(long) || (away >= long && state.held > share));
        left.then_some(Left { tp: self.tp, next: state.next, since: state.used })
    }

    /// Gives back all it holds. Downloads go on, into the cache.
    pub(super) fn close(&self, shared: &Shared) {
        let mut state = self.state.lock();
        if !state.closed {
            state.closed = true;
            shared.budget.lock().stream_closed(state.held);
            state.held = 0;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Reads, waiting for bytes at most until `deadline`.
    pub(super) async fn read(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        catalog: &Arc<Catalog>,
        wish: Wish,
        deadline: Instant,
    ) -> Result<Ended, RemoteError> {
        {
            let mut state = self.state.lock();
            if state.catalog.pointer.generation < catalog.pointer.generation {
                state.catalog = Arc::clone(catalog);
            }
            state.failed = None;
            state.trouble = None;
            if state.readers == 0 {
                state.pause = state.used.elapsed().max(state.pause / 8 * 7);
            }
            state.readers += 1;
        }
        let _reader = Reader(self);
        let mut asked = false;
        loop {
            let notified = self.changed.notified();
            tokio::pin!(notified);
            // Registered before looking, so that nothing that happens in between is missed.
            notified.as_mut().enable();
            match self.look(shared, wish, &mut asked) {
                Looked::Done(data) => return Ok(Ended::Data(data)),
                Looked::Elsewhere => return Ok(Ended::Elsewhere),
                Looked::Suspect(suspect) => return Ok(Ended::Suspect(suspect)),
                Looked::Failed(error) => return Err(error),
                Looked::Footer(mut footer) => {
                    tokio::time::timeout_at(deadline, footer.wait()).await.unwrap_or_else(|_| Err(self.late()))?;
                }
                Looked::Wait => {
                    if tokio::time::timeout_at(deadline, notified).await.is_err() {
                        return Err(self.late());
                    }
                }
            }
        }
    }

    fn late(&self) -> RemoteError {
        let trouble = self.state.lock().trouble.clone();
        trouble.unwrap_or(RemoteError::TimedOut)
    }

    /// Takes what is ready, and asks for what is not.
    fn look(self: &Arc<Self>, shared: &Arc<Shared>, wish: Wish, asked: &mut bool) -> Looked {
        let mut effects = Effects::default();
        let looked = self.look_locked(shared, wish, asked, &mut effects);
        self.perform(shared, effects);
        looked
    }

    fn look_locked(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        wish: Wish,
        asked: &mut bool,
        effects: &mut Effects,
    ) -> Looked {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.closed {
            return Looked::Elsewhere;
        }
        if state.next != wish.from {
            if !state.can_rewind_to(wish.from) {
                return Looked::Elsewhere;
            }
            state.next = state.previous;
            self.run(shared, state, Event::Rewound, effects);
        }
        if !std::mem::replace(asked, true) {
            self.run(shared, state, Event::Asked, effects);
        }
        loop {
            let runs = state.core.ready(wish.max_bytes.max(state.need).max(1));
            let gathered = match Gathered::from(&runs, &mut state.entries, wish, shared) {
                Ok(gathered) => gathered,
                Err(suspect) => return Looked::Suspect(suspect),
            };
            if let Some(footer) = gathered.missing_footer() {
                return Looked::Footer(footer);
            }
            if gathered.bytes > 0 || gathered.full {
                return self.serve(shared, state, gathered, wish, effects);
            }
            if gathered.skipped > 0 {
                state.need = 0;
                let bytes = gathered.skipped;
                self.run(shared, state, Event::Skipped { bytes }, effects);
            } else if let Some(error) = &state.failed {
                return Looked::Failed(error.clone());
            } else if state.core.at_end() {
                return Looked::Done(RemoteData::empty(state.known_end.max(wish.from)));
            } else if gathered.need > state.need {
                state.need = gathered.need;
                let bytes = gathered.need;
                self.run(shared, state, Event::Need { bytes }, effects);
            } else {
                return Looked::Wait;
            }
        }
    }

    fn serve(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        state: &mut State,
        gathered: Gathered,
        wish: Wish,
        effects: &mut Effects,
    ) -> Looked {
        let next = gathered.next.filter(|_| gathered.bytes > 0).unwrap_or(wish.from);
        if gathered.skipped > 0 {
            let bytes = gathered.skipped;
            self.run(shared, state, Event::Skipped { bytes }, effects);
        }
        let bytes = gathered.bytes;
        self.run(shared, state, Event::Served { bytes }, effects);
        state.need = 0;
        if bytes > 0 {
            state.previous = wish.from;
            state.next = next;
        }
        let aborted = gathered.aborted(wish.from);
        Looked::Done(RemoteData { chunks: gathered.chunks, bytes, next, aborted })
    }

    /// Brings an event from outside.
    fn drive(self: &Arc<Self>, event: Event) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let mut effects = Effects::default();
        {
            let mut state = self.state.lock();
            if matches!(event, Event::Room) {
                state.listed = false;
            }
            if state.closed {
                return;
            }
            self.run(&shared, &mut state, event, &mut effects);
        }
        self.perform(&shared, effects);
    }

    /// The entry that follows is known.
    fn extend(self: &Arc<Self>, entry: Arc<Entry>) {
        let event = self.state.lock().note(self, entry);
        self.drive(event);
    }

    /// Runs the core; collects what is to be done without the lock.
    fn run(self: &Arc<Self>, shared: &Arc<Shared>, state: &mut State, event: Event, effects: &mut Effects) {
        let now = shared.started.elapsed();
        let mut queue = VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            let commands = {
                let mut budget = shared.budget.lock();
                let waits = matches!(event, Event::Asked | Event::Need { .. }) || state.core.urgent();
                let room = if waits {
                    let needed = (state.need + CHUNK_BYTES).saturating_sub(state.held);
                    budget.room_now(state.held, needed.max(CHUNK_BYTES))
                } else {
                    budget.room_ahead(state.held)
                };
                let commands = state.core.on(now, room, event);
                let held = state.core.held();
                effects.freed |= held < state.held;
                budget.moved(state.held, held);
                state.held = held;
                if state.core.hungry() && !state.listed {
                    state.listed = true;
                    budget.wait(Arc::downgrade(self));
                }
                commands
            };
            effects.hungry |= state.core.hungry();
            effects.starving |= state.core.hungry() && state.core.urgent();
            for command in commands {
                match command {
                    Command::Get { extent, range } => effects.gets.push((extent, range)),
                    Command::Wake => effects.wake = true,
                    Command::More => queue.extend(self.more(state, effects)),
                }
            }
        }
        let oldest = state.core.oldest_extent();
        state.entries.retain(|extent, _| *extent >= oldest);
    }

    fn more(self: &Arc<Self>, state: &mut State, effects: &mut Effects) -> Option<Event> {
        match state.catalog.at(state.known_end) {
            Located::Entry(entry) => Some(state.note(self, entry)),
            Located::Nowhere => Some(Event::NoMore),
            Located::Leaf(_) => {
                effects.locate = Some((Arc::clone(&state.catalog), state.known_end));
                None
            }
        }
    }

    /// Does what the core asked for.
    fn perform(self: &Arc<Self>, shared: &Arc<Shared>, effects: Effects) {
        for (extent, range) in effects.gets {
            if let Some((wanted, sink)) = self.wanted(shared, extent, range) {
                shared.downloads.fetch(&wanted, &sink);
            }
        }
        if let Some((catalog, offset)) = effects.locate {
            let (live, owner) = (Arc::clone(self), Arc::clone(shared));
            shared.spawner.spawn_cold(async move {
                match owner.catalogs.locate(&catalog, offset).await {
                    Ok(Some(entry)) => live.extend(entry),
                    Ok(None) => live.drive(Event::NoMore),
                    Err(error) => {
                        live.state.lock().failed = Some(error);
                        live.drive(Event::NoMore);
                    }
                }
            });
        }
        if effects.wake {
            self.changed.notify_waiters();
        }
        if effects.starving {
            shared.reclaim();
        } else if effects.hungry {
            shared.reclaim_left();
        }
        if effects.freed {
            shared.feed_hungry();
        }
    }

    /// What to download for an extent, and who receives it. Its footer is on its way from now on.
    fn wanted(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        extent: ExtentId,
        range: Range<u64>,
    ) -> Option<(Wanted, Arc<dyn Sink>)> {
        let mut state = self.state.lock();
        let reading = state.entries.get_mut(&extent)?;
        let wanted = Wanted { entry: Arc::clone(&reading.entry), range, footer: reading.footer(shared) };
        Some((wanted, Arc::clone(&reading.sink)))
    }

    /// There may be room again.
    pub(super) fn room(self: &Arc<Self>) {
        self.drive(Event::Room);
    }
}

/// Counts those who wait.
struct Reader<'a>(&'a Live);

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.readers -= 1;
        state.used = Instant::now();
    }
}

/// What is done after the lock is let go.
#[derive(Default)]
struct Effects {
    gets: Vec<(ExtentId, Range<u64>)>,
    locate: Option<(Arc<Catalog>, Offset)>,
    wake: bool,
    freed: bool,
    /// It would run further ahead than there is room for.
    hungry: bool,
    /// Its reader waits, and there is no room.
    starving: bool,
}

impl State {
    /// Whether the read before began at `from` and its bytes are still kept.
    fn can_rewind_to(&self, from: Offset) -> bool {
        self.previous == from && self.core.can_rewind()
    }

    /// Registers an entry; the event tells the core.
    fn note(&mut self, live: &Arc<Live>, entry: Arc<Entry>) -> Event {
        let extent = self.next_extent;
        self.next_extent += 1;
        self.known_end = entry.end;
        let length = entry.object.length;
        let sink = Arc::new(ExtentSink { live: Arc::downgrade(live), extent });
        let reading = Reading { entry, footer: None, sink };
        self.entries.insert(extent, reading);
        Event::Extent { length }
    }
}

/// Brings an extent's bytes to its stream, if that still lives.
struct ExtentSink {
    live: Weak<Live>,
    extent: ExtentId,
}

impl ExtentSink {
    fn bring(&self, event: Event) {
        if let Some(live) = self.live.upgrade() {
            live.drive(event);
        }
    }
}

impl Sink for ExtentSink {
    fn arrived(&self, piece: Piece) {
        let extent = self.extent;
        self.bring(Event::Arrived { extent, piece });
    }

    fn failed(&self, range: Range<u64>, error: RemoteError) {
        if let Some(live) = self.live.upgrade() {
            live.state.lock().failed = Some(error);
            let extent = self.extent;
            live.drive(Event::Failed { extent, range });
        }
    }

    fn first_byte(&self, after: Duration) {
        self.bring(Event::FirstByte { after });
    }

    fn troubled(&self, error: RemoteError) {
        if let Some(live) = self.live.upgrade() {
            live.state.lock().trouble = Some(error);
        }
    }
}
