//! Fetch sessions (KIP-227): the broker remembers which partitions a consumer reads, so that a poll names, and an answer
//! carries, only what changed.
//!
//! A pure core: time comes in, nothing is read here. The cache is bounded, in sessions and in what they remember together; a
//! session that was not used for [`EVICT_AFTER_MS`] may be replaced by a new one, and a consumer whose session is gone starts a
//! full fetch, which needs none.

use parking_lot::Mutex;
use proto::ids::{LeaderEpoch, Millis, NodeId, Offset};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use uuid::Uuid;

/// A session idle for longer may be evicted for a new one (Kafka's `MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS`).
pub const EVICT_AFTER_MS: Millis = 120_000;
/// Partitions that all sessions may remember together, for each session there may be. One takes about 250 bytes: a thousand sessions
/// take up to 50 MB.
pub const PARTITIONS_PER_SLOT: usize = 200;
/// Sessions that one broker may have as a replica: one for each of its fetchers, and those that a broken connection left behind.
const SESSIONS_PER_REPLICA: usize = 64;
/// Epoch of a request that starts a session.
const INITIAL_EPOCH: i32 = 0;
/// Epoch of a request that neither has nor wants a session.
const FINAL_EPOCH: i32 = -1;

/// How a request names a topic: by name up to version 12, by id from 13.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicRef {
    Name(Arc<str>),
    Id(Uuid),
}

/// A partition as a fetch names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub topic: TopicRef,
    pub partition: i32,
}

/// What a consumer wants of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub offset: Offset,
    pub max_bytes: i32,
    pub current_leader_epoch: LeaderEpoch,
    pub last_fetched_epoch: LeaderEpoch,
    pub log_start: Offset,
    /// What a replica knows to be committed; [`Offset::MAX`] from who does not say (version 18).
    pub high_watermark: Offset,
}

/// What an answer says of a partition, as far as it decides whether it must be said again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    pub high_watermark: Offset,
    pub log_start: Offset,
    pub error: bool,
    /// Records, a diverging epoch or a preferred replica: worth saying whatever was said before.
    pub news: bool,
}

/// Why a request does not fit its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// `FETCH_SESSION_ID_NOT_FOUND`.
    NotFound,
    /// `INVALID_FETCH_SESSION_EPOCH`.
    WrongEpoch,
    /// `FETCH_SESSION_TOPIC_ID_ERROR`: ids and names are mixed in one session.
    MixedTopicIds,
}

#[derive(Debug)]
struct Remembered {
    key: Key,
    wanted: Wanted,
    said: Option<Said>,
}

/// Partitions in the order in which they are to be read.
#[derive(Debug)]
struct Remembers {
    by_turn: BTreeMap<u64, Remembered>,
    turns: HashMap<Key, u64>,
    next_turn: u64,
    /// What all sessions remember together: given back with the session.
    all: Arc<AtomicUsize>,
}

impl Remembers {
    fn none(all: &Arc<AtomicUsize>) -> Remembers {
        Remembers { by_turn: BTreeMap::new(), turns: HashMap::new(), next_turn: 0, all: Arc::clone(all) }
    }

    /// Remembers what is wanted of a partition; a new one comes last.
    fn want(&mut self, key: Key, wanted: Wanted) {
        if let Some(known) = self.get_mut(&key) {
            known.wanted = wanted;
            return;
        }
        self.turns.insert(key.clone(), self.next_turn);
        self.by_turn.insert(self.next_turn, Remembered { key, wanted, said: None });
        self.next_turn += 1;
        self.all.fetch_add(1, Ordering::Relaxed);
    }

    fn get_mut(&mut self, key: &Key) -> Option<&mut Remembered> {
        self.by_turn.get_mut(self.turns.get(key)?)
    }

    fn forget(&mut self, key: &Key) {
        if let Some(turn) = self.turns.remove(key) {
            self.by_turn.remove(&turn);
            self.all.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn put_last(&mut self, key: &Key) {
        let Some(turn) = self.turns.get_mut(key) else { return };
        if let Some(remembered) = self.by_turn.remove(turn) {
            *turn = self.next_turn;
            self.by_turn.insert(self.next_turn, remembered);
            self.next_turn += 1;
        }
    }
}

impl Drop for Remembers {
    fn drop(&mut self) {
        self.all.fetch_sub(self.turns.len(), Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    used: Millis,
    by_id: bool,
    /// The broker, and its epoch, that fetches as a replica in it.
    replica: Option<(NodeId, i64)>,
    partitions: Remembers,
}

/// One fetch request, as far as sessions care.
#[derive(Debug)]
pub struct Request {
    pub session_id: i32,
    pub session_epoch: i32,
    pub by_id: bool,
    /// The broker that fetches as a replica, and its epoch.
    pub replica: Option<(NodeId, i64)>,
    pub partitions: Vec<(Key, Wanted)>,
    pub forgotten: Vec<Key>,
}

/// What to fetch, in which order, and how to answer.
#[derive(Debug)]
pub struct Plan {
    /// Partitions to read, those first that were answered with records longest ago.
    pub partitions: Vec<(Key, Wanted)>,
    session: Option<Arc<Mutex<Session>>>,
    /// The session id the answer carries; 0 without a session.
    pub session_id: i32,
    incremental: bool,
}

/// All sessions of a broker.
#[derive(Debug)]
pub struct Sessions {
    slots: usize,
    /// Partitions that all sessions of consumers remember.
    remembered: Arc<AtomicUsize>,
    /// Partitions that all sessions of replicas remember.
    replicated: Arc<AtomicUsize>,
    known: Mutex<Known>,
}

/// Sessions by their ids.
type Known = HashMap<i32, Arc<Mutex<Session>>>;

impl Sessions {
    /// `slots` is `max.incremental.fetch.session.cache.slots`.
    pub fn new(slots: usize) -> Sessions {
        Sessions { slots, remembered: Arc::default(), replicated: Arc::default(), known: Mutex::default() }
    }

    /// Sessions open now.
    pub fn len(&self) -> usize {
        self.known.lock().len()
    }

    /// Whether no session is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Finds or opens the session of `request`. `fresh_id` is a random number that a new session may use.
    pub fn begin(&self, now: Millis, fresh_id: u64, request: Request) -> Result<Plan, SessionError> {
        match request.session_epoch {
            INITIAL_EPOCH | FINAL_EPOCH => {
                if request.session_id != 0 {
                    self.known.lock().remove(&request.session_id);
                }
                let wants_session = request.session_epoch == INITIAL_EPOCH;
                Ok(self.full(now, wants_session.then_some(fresh_id), request))
            }
            _ => self.resume(now, request),
        }
    }

    fn full(&self, now: Millis, fresh_id: Option<u64>, request: Request) -> Plan {
        let opened = fresh_id.and_then(|fresh_id| self.open(now, fresh_id, &request));
        let (session_id, session) = opened.map_or((0, None), |(id, session)| (id, Some(session)));
        Plan { partitions: request.partitions, session, session_id, incremental: false }
    }

    /// Whether `more` partitions are more than sessions may remember together.
    fn is_full(&self, more: usize) -> bool {
        self.remembered.load(Ordering::Relaxed).saturating_add(more) > self.slots.saturating_mul(PARTITIONS_PER_SLOT)
    }

    fn open(&self, now: Millis, fresh_id: u64, request: &Request) -> Option<(i32, Arc<Mutex<Session>>)> {
        let mut known = self.known.lock();
        let all = match request.replica {
            Some(replica) => {
                make_room_for(&mut known, replica);
                &self.replicated
            }
            None => {
                self.make_room(&mut known, now, request.partitions.len()).then_some(())?;
                &self.remembered
            }
        };
        let mut partitions = Remembers::none(all);
        for (key, wanted) in &request.partitions {
            partitions.want(key.clone(), wanted.clone());
        }
        let session = Session { epoch: 1, used: now, by_id: request.by_id, replica: request.replica, partitions };
        let mut id = i32::try_from(fresh_id & 0x7fff_ffff).expect("31 bits fit");
        while id == 0 || known.contains_key(&id) {
            id = id.wrapping_add(1) & i32::MAX;
        }
        let session = Arc::new(Mutex::new(session));
        known.insert(id, Arc::clone(&session));
        Some((id, session))
    }

    /// Lets go of consumers' sessions until there is room for one more of `partitions`, if enough of them are idle.
    fn make_room(&self, known: &mut Known, now: Millis, partitions: usize) -> bool {
        if partitions > self.slots.saturating_mul(PARTITIONS_PER_SLOT) {
            return false;
        }
        loop {
            let mut consumers = 0;
            let mut stalest = None;
            for (id, session) in known.iter() {
                let session = session.lock();
                if session.replica.is_none() {
                    consumers += 1;
                    let this = (session.used, *id);
                    stalest = Some(stalest.map_or(this, |other: (Millis, i32)| other.min(this)));
                }
            }
            if consumers < self.slots && !self.is_full(partitions) {
                return true;
            }
            match stalest {
                Some((used, id)) if now - used > EVICT_AFTER_MS => known.remove(&id),
                _ => return false,
            };
        }
    }

    fn resume(&self, now: Millis, request: Request) -> Result<Plan, SessionError> {
        let found = self.known.lock().get(&request.session_id).cloned().ok_or(SessionError::NotFound)?;
        let mut session = found.lock();
        if session.epoch != request.session_epoch {
            return Err(SessionError::WrongEpoch);
        }
        if session.by_id != request.by_id {
            return Err(SessionError::MixedTopicIds);
        }
        if session.replica != request.replica {
            return Err(SessionError::NotFound);
        }
        let bounded = session.replica.is_none();
        if bounded
            && self.is_full(request.partitions.len())
            && request.partitions.iter().any(|(key, _)| !session.knows(key))
        {
            // It starts again with a full fetch, and has no session then.
            drop(session);
            self.known.lock().remove(&request.session_id);
            return Err(SessionError::NotFound);
        }
        session.used = now;
        session.epoch = if session.epoch == i32::MAX { 1 } else { session.epoch + 1 };
        for (key, wanted) in request.partitions {
            session.partitions.want(key, wanted);
        }
        for key in &request.forgotten {
            session.partitions.forget(key);
        }
        if session.partitions.turns.is_empty() {
            drop(session);
            self.known.lock().remove(&request.session_id);
            return Ok(Plan { partitions: Vec::new(), session: None, session_id: 0, incremental: true });
        }
        let partitions = session.partitions.by_turn.values().map(|one| (one.key.clone(), one.wanted.clone())).collect();
        drop(session);
        Ok(Plan { partitions, session: Some(found), session_id: request.session_id, incremental: true })
    }
}

/// Replicas have sessions of their own, which no consumer takes the place of. What they remember is bounded by the partitions there are. One broker
/// has no more than a few: those of an earlier incarnation go, and then the stalest.
fn make_room_for(known: &mut Known, (id, broker_epoch): (NodeId, i64)) {
    known.retain(|_, session| !matches!(session.lock().replica, Some((of, epoch)) if of == id && epoch < broker_epoch));
    let of_broker = |(session_id, session): (&i32, &Arc<Mutex<Session>>)| {
        let session = session.lock();
        session.replica.is_some_and(|(of, _)| of == id).then_some((session.used, *session_id))
    };
    let mut used: Vec<(Millis, i32)> = known.iter().filter_map(of_broker).collect();
    used.sort_unstable();
    let surplus = (used.len() + 1).saturating_sub(SESSIONS_PER_REPLICA);
    for (_, id) in used.into_iter().take(surplus) {
        known.remove(&id);
    }
}

impl Session {
    fn knows(&self, key: &Key) -> bool {
        self.partitions.turns.contains_key(key)
    }
}

impl Plan {
    /// Whether the answer must carry this partition; remembers what it says.
    pub fn say(&self, key: &Key, said: Said) -> bool {
        let Some(session) = &self.session else { return true };
        let mut session = session.lock();
        let Some(remembered) = session.partitions.get_mut(key) else { return !self.incremental };
        let before = remembered.said.replace(Said { news: false, ..said });
        // A follower that was told before, and did not take it then, asks with what it knows: never more than where its log ends.
        let lags = remembered.wanted.high_watermark < said.high_watermark.min(remembered.wanted.offset);
        if said.news {
            // Whoever had records goes last, so that a fetch cut short by max.bytes serves the others next time.
            session.partitions.put_last(key);
        }
        !self.incremental || said.news || said.error || lags || before != Some(Said { news: false, ..said })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> Key {
        Key { topic: TopicRef::Id(Uuid::from_u128(7)), partition }
    }

    fn wanted(offset: Offset) -> Wanted {
        Wanted {
            offset,
            max_bytes: 100,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            log_start: -1,
            high_watermark: Offset::MAX,
        }
    }

    fn request(session_id: i32, session_epoch: i32, partitions: &[(i32, Offset)]) -> Request {
        Request {
            session_id,
            session_epoch,
            by_id: true,
            replica: None,
            partitions: partitions.iter().map(|(p, offset)| (key(*p), wanted(*offset))).collect(),
            forgotten: vec![],
        }
    }

    fn asked(plan: &Plan) -> Vec<(i32, Offset)> {
        plan.partitions.iter().map(|(key, wanted)| (key.partition, wanted.offset)).collect()
    }

    const QUIET: Said = Said { high_watermark: 5, log_start: 0, error: false, news: false };

    #[test]
    fn a_session_remembers_partitions_and_says_only_changes() {
        let sessions = Sessions::new(2);
        let first = sessions.begin(0, 42, request(0, 0, &[(0, 10), (1, 20)])).expect("a session");
        assert_eq!(first.session_id, 42);
        assert!(first.say(&key(0), QUIET) && first.say(&key(1), QUIET), "a full answer names every partition");

        let mut next = request(42, 1, &[(1, 21)]);
        next.forgotten = vec![];
        let plan = sessions.begin(1, 1, next).expect("the session goes on");
        assert_eq!(asked(&plan), [(0, 10), (1, 21)]);
        assert!(!plan.say(&key(0), QUIET));
        assert!(plan.say(&key(1), Said { high_watermark: 6, ..QUIET }));

        let mut forget = request(42, 2, &[]);
        forget.forgotten = vec![key(0)];
        assert_eq!(asked(&sessions.begin(2, 1, forget).expect("goes on")), [(1, 21)]);
    }

    #[test]
    fn a_high_watermark_is_said_until_the_follower_has_it() {
        let sessions = Sessions::new(2);
        let fetch = |epoch, high_watermark| {
            let mut fetch = request(if epoch == 0 { 0 } else { 42 }, epoch, &[(0, 10)]);
            fetch.partitions[0].1.high_watermark = high_watermark;
            sessions.begin(0, 42, fetch).expect("a session")
        };
        assert!(fetch(0, 3).say(&key(0), QUIET));
        // It was cutting its log, say, and took nothing from that answer.
        assert!(fetch(1, 3).say(&key(0), QUIET));
        assert!(!fetch(2, 5).say(&key(0), QUIET));
        assert!(!fetch(3, Offset::MAX).say(&key(0), QUIET), "an older one does not say what it has");
    }

    #[test]
    fn partitions_with_records_go_last() {
        let sessions = Sessions::new(2);
        let plan = sessions.begin(0, 42, request(0, 0, &[(0, 0), (1, 0), (2, 0)])).expect("a session");
        plan.say(&key(0), Said { news: true, ..QUIET });
        plan.say(&key(1), QUIET);
        let plan = sessions.begin(1, 1, request(42, 1, &[])).expect("goes on");
        assert_eq!(asked(&plan), [(1, 0), (2, 0), (0, 0)]);
    }

    #[test]
    fn errors_are_said_every_time_and_their_end_too() {
        let sessions = Sessions::new(2);
        let plan = sessions.begin(0, 42, request(0, 0, &[(0, 0)])).expect("a session");
        plan.say(&key(0), Said { error: true, ..QUIET });
        let plan = sessions.begin(0, 1, request(42, 1, &[])).expect("goes on");
        assert!(plan.say(&key(0), Said { error: true, ..QUIET }));
        let plan = sessions.begin(0, 1, request(42, 2, &[])).expect("goes on");
        assert!(plan.say(&key(0), QUIET));
    }

    #[test]
    fn what_does_not_fit_its_session_is_told_why() {
        let sessions = Sessions::new(2);
        assert_eq!(sessions.begin(0, 1, request(9, 1, &[])).expect_err("unknown"), SessionError::NotFound);
        sessions.begin(0, 42, request(0, 0, &[(0, 0)])).expect("a session");
        assert_eq!(sessions.begin(0, 1, request(42, 3, &[])).expect_err("epoch"), SessionError::WrongEpoch);
        let names = Request { by_id: false, ..request(42, 1, &[]) };
        assert_eq!(sessions.begin(0, 1, names).expect_err("names"), SessionError::MixedTopicIds);
    }

    #[test]
    fn the_cache_is_bounded_and_gives_up_only_idle_sessions() {
        let sessions = Sessions::new(1);
        sessions.begin(0, 42, request(0, 0, &[(0, 0)])).expect("a session");
        assert_eq!(sessions.begin(1, 43, request(0, 0, &[(0, 0)])).expect("sessionless").session_id, 0);
        let later = EVICT_AFTER_MS + 1;
        assert_eq!(sessions.begin(later, 43, request(0, 0, &[(0, 0)])).expect("a session").session_id, 43);
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn all_sessions_together_remember_no_more_than_they_may() {
        let sessions = Sessions::new(2);
        let many = |from: i32, count: i32| (from..from + count).map(|p| (p, 0)).collect::<Vec<_>>();
        let most = i32::try_from(2 * PARTITIONS_PER_SLOT).expect("small");
        let begin = |now, id, request| sessions.begin(now, id, request).map(|plan| plan.session_id);
        assert_eq!(begin(0, 9, request(0, 0, &many(0, most + 1))), Ok(0), "that is too much for one");
        assert_eq!(begin(0, 42, request(0, 0, &many(0, most - 1))), Ok(42));
        assert_eq!(begin(0, 43, request(0, 0, &many(0, 2))), Ok(0));
        assert_eq!(begin(0, 43, request(0, 0, &many(0, 1))), Ok(43));
        // What it knows may be asked anew, what it does not know is too much.
        assert_eq!(begin(1, 1, request(42, 1, &many(0, 5))), Ok(42));
        assert_eq!(begin(1, 1, request(43, 1, &many(0, 2))), Err(SessionError::NotFound));
        assert_eq!(begin(1, 1, request(43, 2, &[])), Err(SessionError::NotFound), "it is gone");
        // Forgetting makes room, and so does what is not used any more.
        let mut forget = request(42, 2, &[]);
        forget.forgotten = (0..10).map(key).collect();
        assert_eq!(begin(1, 1, forget), Ok(42));
        assert_eq!(begin(1, 44, request(0, 0, &many(0, 11))), Ok(44));
        let later = EVICT_AFTER_MS + 2;
        assert_eq!(begin(later, 45, request(0, 0, &many(0, most))), Ok(45));
        assert_eq!(sessions.len(), 1);
        assert_eq!(begin(later, 46, request(45, -1, &[])), Ok(0));
        assert_eq!((sessions.len(), sessions.remembered.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn a_final_fetch_closes_its_session_and_a_new_one_replaces_it() {
        let sessions = Sessions::new(2);
        sessions.begin(0, 42, request(0, 0, &[(0, 0)])).expect("a session");
        assert_eq!(sessions.begin(0, 43, request(42, 0, &[(0, 0)])).expect("replaced").session_id, 43);
        assert_eq!(sessions.begin(0, 44, request(43, -1, &[(0, 0)])).expect("closed").session_id, 0);
        assert!(sessions.is_empty());
    }

    fn replica(broker: i32, epoch: i64, session_id: i32, session_epoch: i32) -> Request {
        Request { replica: Some((NodeId(broker), epoch)), ..request(session_id, session_epoch, &[(0, 0)]) }
    }

    #[test]
    fn replicas_find_room_whatever_consumers_take_and_take_none_of_theirs() {
        let sessions = Sessions::new(1);
        let begin = |now, id, request| sessions.begin(now, id, request).map(|plan| plan.session_id);
        assert_eq!(begin(0, 42, request(0, 0, &[(0, 0)])), Ok(42));
        assert_eq!(begin(0, 43, replica(1, 5, 0, 0)), Ok(43));
        assert_eq!(begin(0, 44, replica(2, 5, 0, 0)), Ok(44));
        let later = EVICT_AFTER_MS + 1;
        assert_eq!(begin(later, 45, request(0, 0, &[(0, 0)])), Ok(45), "in place of the idle consumer");
        assert_eq!(begin(later, 46, request(0, 0, &[(0, 0)])), Ok(0), "in place of nobody");
        assert_eq!(begin(later, 1, replica(1, 5, 43, 1)), Ok(43));
        assert_eq!(sessions.len(), 3);
    }

    #[test]
    fn a_session_belongs_to_the_incarnation_that_began_it() {
        let sessions = Sessions::new(1);
        let begin = |id, request| sessions.begin(0, id, request).map(|plan| plan.session_id);
        assert_eq!(begin(43, replica(1, 5, 0, 0)), Ok(43));
        assert_eq!(begin(44, replica(1, 5, 0, 0)), Ok(44), "another fetcher of the same");
        assert_eq!(begin(1, replica(2, 5, 43, 1)), Err(SessionError::NotFound));
        assert_eq!(begin(1, request(43, 1, &[])), Err(SessionError::NotFound));
        assert_eq!(begin(45, replica(1, 6, 0, 0)), Ok(45));
        assert_eq!(begin(1, replica(1, 5, 43, 1)), Err(SessionError::NotFound), "its broker started anew");
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn one_broker_has_no_more_than_a_few_sessions() {
        let sessions = Sessions::new(1);
        for at in 0..2 * SESSIONS_PER_REPLICA as i64 {
            sessions.begin(at, at as u64 + 1, replica(1, 5, 0, 0)).expect("a session");
        }
        assert_eq!(sessions.len(), SESSIONS_PER_REPLICA);
    }
}
