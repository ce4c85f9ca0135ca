//! When to stand for election. openraft's own timer is off: it draws its timeout once per process, so that two voters
//! whose draws fall on one tick split every vote between them; and it raises the term without asking first, so that a
//! voter that was cut off unseats a leader that everybody else hears.
//!
//! Here a voter waits for a silence of the leader, plus a part drawn anew for each campaign; asks the others whether they
//! would vote for it (a pre-vote, which promises nothing); and stands for election when a majority would. Those who heard
//! the leader within its lease, or have a longer log, would not.
//!
//! [`Pacer`] is pure: events and the time go in, at most one command comes out. Times are milliseconds on a clock that
//! never goes back.

/// How long things take, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// Between two heartbeats of the leader; also how long one may be under way.
    pub heartbeat_ms: u64,
    /// For how long after its last heartbeat nobody votes against a leader.
    pub lease_ms: u64,
    /// Silence of the leader after which a voter stands for election (`controller.quorum.fetch.timeout.ms`).
    pub silence_ms: u64,
    /// Most that is drawn on top of it (`controller.quorum.election.backoff.max.ms`).
    pub backoff_ms: u64,
}

impl Default for Timings {
    fn default() -> Self {
        Self { heartbeat_ms: 100, lease_ms: 300, silence_ms: 500, backoff_ms: 300 }
    }
}

impl Timings {
    /// How long a request for a vote may be under way.
    pub(crate) const fn vote_ms(&self) -> u64 {
        // Longer than a heartbeat, shorter than the lease: openraft insists on both. A voter syncs its vote meanwhile.
        let (half, most) = (self.lease_ms / 2, self.lease_ms.saturating_sub(1));
        let wanted = if half > 100 { half } else { 100 };
        let allowed = if wanted < most { wanted } else { most };
        if allowed > self.heartbeat_ms { allowed } else { self.heartbeat_ms + 1 }
    }

    /// The lease as openraft has to be told, which wants it longer than [`Timings::vote_ms`].
    pub(crate) const fn lease_at_least_ms(&self) -> u64 {
        if self.lease_ms > self.vote_ms() { self.lease_ms } else { self.vote_ms() + 1 }
    }
}

/// What this member is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Leads.
    Leader,
    /// A voter that does not lead.
    Follower,
    /// The only voter, and it does not lead yet.
    Alone,
    /// Has no vote.
    Observer,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The leader's entries or heartbeat were accepted.
    Heard {
        /// Who leads.
        leader: u64,
    },
    /// The host of that leader is there, and nobody listens where it listened: its process is gone.
    Refused {
        /// Who led.
        leader: u64,
    },
    /// Whether a majority would vote for this member.
    Canvassed {
        /// It would.
        granted: bool,
    },
    /// The leader hands over to this member: its lease has been waited for.
    Called,
    /// Time has passed.
    Tick {
        /// What this member is.
        role: Role,
    },
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// See whether the leader's process is still there; [`Event::Refused`] if not.
    Probe(u64),
    /// Ask the voters; [`Event::Canvassed`] follows.
    Canvass,
    /// Stand for election.
    Elect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A leader was heard.
    Following { leader: u64, heard: u64, probe: Probe },
    /// No leader is known since then.
    Searching { since: u64 },
    /// The voters are being asked.
    Canvassing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    NotYet,
    Sent,
    Refused,
}

/// Decides when to stand for election.
#[derive(Debug, Clone)]
pub(crate) struct Pacer {
    timings: Timings,
    phase: Phase,
    /// What is waited on top, drawn for this campaign.
    draw: u64,
}

impl Pacer {
    /// A member that starts at `now` and has heard of nobody. `random` is any number, as below.
    pub(crate) fn new(timings: Timings, now: u64, random: u64) -> Self {
        let mut pacer = Self { timings, phase: Phase::Searching { since: now }, draw: 0 };
        pacer.draw_anew(random);
        pacer
    }

    /// Something happened at `now`. `random` is used if a wait has to be drawn.
    pub(crate) fn on(&mut self, now: u64, event: Event, random: u64) -> Option<Command> {
        match event {
            Event::Heard { leader } => {
                if !matches!(self.phase, Phase::Following { leader: known, .. } if known == leader) {
                    self.draw_anew(random);
                }
                self.phase = Phase::Following { leader, heard: now, probe: Probe::NotYet };
                None
            }
            Event::Refused { leader: gone } => {
                if let Phase::Following { leader, probe: probe @ Probe::Sent, .. } = &mut self.phase
                    && *leader == gone
                {
                    *probe = Probe::Refused;
                }
                None
            }
            Event::Canvassed { granted } => {
                if self.phase != Phase::Canvassing {
                    // A leader was heard meanwhile.
                    return None;
                }
                self.search(now, random);
                granted.then_some(Command::Elect)
            }
            Event::Called => {
                self.search(now, random);
                Some(Command::Elect)
            }
            Event::Tick { role } => self.tick(now, role, random),
        }
    }

    fn tick(&mut self, now: u64, role: Role, random: u64) -> Option<Command> {
        match role {
            Role::Leader | Role::Observer => {
                self.phase = Phase::Searching { since: now };
                None
            }
            Role::Alone => {
                self.search(now, random);
                Some(Command::Elect)
            }
            Role::Follower => match self.phase {
                Phase::Following { leader, heard, probe } => {
                    let silent = now.saturating_sub(heard);
                    if probe == Probe::NotYet && silent >= 2 * self.timings.heartbeat_ms {
                        self.phase = Phase::Following { leader, heard, probe: Probe::Sent };
                        return Some(Command::Probe(leader));
                    }
                    let wait = if probe == Probe::Refused { 0 } else { self.timings.silence_ms };
                    self.canvass_if(silent >= wait.max(self.timings.lease_ms) + self.draw)
                }
                Phase::Searching { since } => self.canvass_if(now.saturating_sub(since) >= self.draw),
                Phase::Canvassing => None,
            },
        }
    }

    fn canvass_if(&mut self, due: bool) -> Option<Command> {
        due.then(|| {
            self.phase = Phase::Canvassing;
            Command::Canvass
        })
    }

    /// Nobody leads, as far as is known. The next campaign waits at least until this one can be won.
    fn search(&mut self, now: u64, random: u64) {
        self.phase = Phase::Searching { since: now };
        self.draw_anew(random);
        self.draw += self.timings.vote_ms();
    }

    fn draw_anew(&mut self, random: u64) {
        self.draw = random % (self.timings.backoff_ms + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLLOWER: Event = Event::Tick { role: Role::Follower };

    fn timings() -> Timings {
        Timings::default()
    }

    /// Ticks until there is a command; when, and which.
    fn next(pacer: &mut Pacer, mut now: u64, random: u64) -> (u64, Command) {
        loop {
            if let Some(command) = pacer.on(now, FOLLOWER, random) {
                return (now, command);
            }
            now += 10;
            assert!(now < 10_000, "nothing happens");
        }
    }

    #[test]
    fn the_first_campaign_waits_for_its_draw_only() {
        let mut pacer = Pacer::new(timings(), 0, 120);
        assert_eq!(next(&mut pacer, 0, 0), (120, Command::Canvass));
        assert_eq!(pacer.on(130, Event::Canvassed { granted: true }, 40), Some(Command::Elect));
        // Lost: again, when that one could have been won, and a new draw later.
        assert_eq!(next(&mut pacer, 130, 0), (320, Command::Canvass));
        assert_eq!(pacer.on(330, Event::Canvassed { granted: false }, 0), None);
        assert_eq!(next(&mut pacer, 330, 0), (480, Command::Canvass));
    }

    #[test]
    fn who_hears_the_leader_stands_still() {
        let mut pacer = Pacer::new(timings(), 0, 0);
        for now in (0..5_000).step_by(100) {
            assert_eq!(pacer.on(now, Event::Heard { leader: 1 }, 0), None);
            assert_eq!(pacer.on(now + 50, FOLLOWER, 0), None);
        }
    }

    #[test]
    fn silence_is_probed_then_waited_out() {
        let mut pacer = Pacer::new(timings(), 0, 0);
        pacer.on(1_000, Event::Heard { leader: 1 }, 70);
        assert_eq!(next(&mut pacer, 1_000, 0), (1_200, Command::Probe(1)));
        assert_eq!(next(&mut pacer, 1_210, 0), (1_570, Command::Canvass));
    }

    #[test]
    fn a_process_that_is_gone_is_waited_for_no_longer_than_its_lease() {
        let mut pacer = Pacer::new(timings(), 0, 0);
        pacer.on(1_000, Event::Heard { leader: 1 }, 70);
        assert_eq!(next(&mut pacer, 1_000, 0), (1_200, Command::Probe(1)));
        assert_eq!(pacer.on(1_201, Event::Refused { leader: 1 }, 0), None);
        assert_eq!(next(&mut pacer, 1_210, 0), (1_370, Command::Canvass));
    }

    #[test]
    fn evidence_against_an_older_leader_proves_nothing() {
        let mut pacer = Pacer::new(timings(), 0, 0);
        pacer.on(1_000, Event::Heard { leader: 1 }, 0);
        assert_eq!(next(&mut pacer, 1_000, 0), (1_200, Command::Probe(1)));
        pacer.on(1_210, Event::Heard { leader: 2 }, 0);
        pacer.on(1_220, Event::Refused { leader: 1 }, 0);
        assert_eq!(next(&mut pacer, 1_220, 0), (1_410, Command::Probe(2)));
        assert_eq!(next(&mut pacer, 1_420, 0), (1_710, Command::Canvass));
    }

    #[test]
    fn a_leader_that_turns_up_ends_the_campaign() {
        let mut pacer = Pacer::new(timings(), 0, 0);
        assert_eq!(next(&mut pacer, 0, 0), (0, Command::Canvass));
        pacer.on(10, Event::Heard { leader: 2 }, 0);
        assert_eq!(pacer.on(20, Event::Canvassed { granted: true }, 0), None);
    }

    #[test]
    fn the_only_voter_asks_nobody_and_an_observer_does_nothing() {
        let mut pacer = Pacer::new(timings(), 0, 300);
        assert_eq!(pacer.on(0, Event::Tick { role: Role::Alone }, 0), Some(Command::Elect));
        let mut pacer = Pacer::new(timings(), 0, 0);
        for now in (0..5_000).step_by(100) {
            assert_eq!(pacer.on(now, Event::Tick { role: Role::Observer }, 0), None);
            assert_eq!(pacer.on(now, Event::Tick { role: Role::Leader }, 0), None);
        }
    }

    #[test]
    fn the_leader_that_hands_over_is_not_waited_for() {
        let mut pacer = Pacer::new(timings(), 0, 0);
        pacer.on(1_000, Event::Heard { leader: 1 }, 0);
        assert_eq!(pacer.on(1_001, Event::Called, 0), Some(Command::Elect));
    }

    #[test]
    fn short_timings_satisfy_what_openraft_wants() {
        for timings in [timings(), Timings { heartbeat_ms: 40, lease_ms: 120, silence_ms: 200, backoff_ms: 60 }] {
            assert!(timings.heartbeat_ms < timings.vote_ms() && timings.vote_ms() < timings.lease_at_least_ms());
            assert_eq!(timings.lease_at_least_ms(), timings.lease_ms);
        }
        let odd = Timings { heartbeat_ms: 100, lease_ms: 100, silence_ms: 0, backoff_ms: 0 };
        assert!(odd.heartbeat_ms < odd.vote_ms() && odd.vote_ms() < odd.lease_at_least_ms());
    }
}
