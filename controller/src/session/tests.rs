//! Tests of the tracker: each event with all it asks for.

use proto::ids::{TopicId, TopicPartition, Uuid};
use proto::metadata::{Endpoint, MetadataRecord, PartitionState, Recovery, SecurityProtocol};

use super::*;

fn broker(id: i32, epoch: i64, fenced: bool) -> Broker {
    Broker {
        id: NodeId(id),
        epoch,
        incarnation: Uuid::from_u128(1),
        endpoints: vec![Endpoint {
            listener: "INTERNAL".to_owned(),
            host: "h".to_owned(),
            port: 9092,
            protocol: SecurityProtocol::Plaintext,
        }],
        rack: None,
        directories: Vec::new(),
        fenced,
        shutting_down: false,
        features: Vec::new(),
        share: proto::metadata::Share::Kept,
    }
}

/// A tracker that leads since 0 and the image it leads on, which has these brokers.
struct World {
    tracker: Tracker,
    image: Image,
}

impl World {
    fn new(brokers: &[Broker]) -> Self {
        let mut image = Image::default();
        for broker in brokers {
            image.apply(&MetadataRecord::BrokerSet(broker.clone()));
        }
        let mut tracker = Tracker::new(Timing::default(), "INTERNAL");
        assert_eq!(tracker.on(Event::Lead { now: 0, image: Arc::new(image.clone()) }), []);
        Self { tracker, image }
    }

    fn set(&mut self, now: Millis, broker: Broker) {
        self.apply(now, &MetadataRecord::BrokerSet(broker));
    }

    fn apply(&mut self, now: Millis, record: &MetadataRecord) {
        self.image.apply(record);
        assert_eq!(self.tracker.on(Event::Image { now, image: Arc::new(self.image.clone()) }), []);
    }

    fn beat(&mut self, now: Millis, beat: Beat) -> (BeatReply, Vec<Action>) {
        let mut actions = self.tracker.on(Event::Beat { now, wall: 1_000_000, beat });
        match actions.remove(0) {
            Action::Reply(reply) => (reply, actions),
            other => panic!("{other:?}"),
        }
    }

    fn tick(&mut self, now: Millis) -> Vec<Action> {
        self.tracker.on(Event::Tick { now })
    }

    fn evidence(&mut self, now: Millis, id: i32, evidence: Evidence) -> Vec<Action> {
        let epoch = self.image.broker(NodeId(id)).unwrap().epoch;
        self.tracker.on(Event::Evidence { now, id: NodeId(id), epoch, evidence })
    }
}

fn beat(id: i32, epoch: i64, want: Want) -> Beat {
    Beat { id: NodeId(id), epoch, applied: 1_000, want, directories: None, load: None, wall: 0 }
}

fn submit(id: i32, epoch: i64, state: BrokerState) -> Action {
    Action::Submit(SetBrokerState { id: NodeId(id), broker_epoch: epoch, state, directories: None })
}

fn probe(id: i32, epoch: i64) -> Action {
    Action::Probe { id: NodeId(id), epoch, address: "h:9092".to_owned() }
}

const REPLY: BeatReply =
    BeatReply { fenced: false, may_stop: false, caught_up: true, leader_wall: 1_000_000, stale: false };

#[test]
fn a_broker_serves_once_its_image_shows_what_happened_without_it() {
    let mut world = World::new(&[broker(1, 0, true), broker(2, 1, true)]);
    let behind = Beat { applied: 1, ..beat(1, 0, Want::Serve) };
    let waits = BeatReply { fenced: true, caught_up: false, ..REPLY };
    assert_eq!(world.beat(10, behind), (waits, vec![]), "the image here is at 2");
    let (reply, actions) = world.beat(20, beat(1, 0, Want::Serve));
    assert_eq!((reply, actions), (BeatReply { fenced: true, ..REPLY }, vec![submit(1, 0, BrokerState::Active)]));
    assert_eq!(world.beat(30, beat(1, 0, Want::Serve)).1, [], "it was just asked for");
    assert_eq!(world.beat(1_020, beat(1, 0, Want::Serve)).1, [submit(1, 0, BrokerState::Active)], "and lost");
    world.set(1_030, broker(1, 0, false));
    assert_eq!(world.beat(1_040, beat(1, 0, Want::Serve)), (REPLY, vec![]));
    assert_eq!(world.beat(1_050, beat(2, 1, Want::StayFenced)).1, []);
    let fence = submit(1, 0, BrokerState::Fenced);
    assert_eq!(world.beat(1_060, beat(1, 0, Want::StayFenced)).1, [fence]);
}

#[test]
fn silence_fences_after_a_session_and_beats_keep_it() {
    let mut world = World::new(&[broker(1, 0, false), broker(2, 1, false)]);
    for now in [100, 2_000, 2_900] {
        world.beat(now, beat(1, 0, Want::Serve));
    }
    world.beat(100, beat(2, 1, Want::Serve));
    assert_eq!(world.tracker.deadline(), Some(3_100));
    assert_eq!(world.tick(3_099), []);
    assert_eq!(world.tick(3_100), [submit(2, 1, BrokerState::Fenced)]);
    assert_eq!(world.tick(3_200), [], "it was just asked for");
    assert_eq!(world.tracker.deadline(), Some(4_100));
    assert_eq!(world.tick(4_100), [submit(2, 1, BrokerState::Fenced)]);
    world.set(4_200, broker(2, 1, true));
    assert_eq!(world.tick(5_500), []);
    assert_eq!(world.tick(5_900), [submit(1, 0, BrokerState::Fenced)]);
}

#[test]
fn who_was_stopped_itself_blames_nobody() {
    let mut world = World::new(&[broker(1, 0, false)]);
    world.beat(100, beat(1, 0, Want::Serve));
    assert_eq!(world.tick(60_000), [], "it was due at 3,100");
    assert_eq!(world.tracker.deadline(), Some(63_000));
    world.beat(60_001, beat(1, 0, Want::Serve));
    assert_eq!(world.tick(63_000), []);
    assert_eq!(world.tick(63_001), [submit(1, 0, BrokerState::Fenced)]);
}

#[test]
fn a_process_is_gone_when_it_hung_up_and_nobody_listens_twice() {
    let mut world = World::new(&[broker(1, 0, false)]);
    world.beat(10, beat(1, 0, Want::Serve));
    let closed = |now| Event::Closed { now, id: NodeId(1), epoch: 0 };
    assert_eq!(world.tracker.on(closed(20)), [probe(1, 0)]);
    assert_eq!(world.tick(25), [], "one at a time");
    assert_eq!(world.evidence(30, 1, Evidence::Refused), []);
    assert_eq!(world.tracker.deadline(), Some(60));
    assert_eq!(world.tick(60), [probe(1, 0)]);
    assert_eq!(world.evidence(70, 1, Evidence::Refused), [submit(1, 0, BrokerState::Fenced)]);
}

#[test]
fn what_proves_nothing_leaves_a_broker_its_session() {
    for evidence in [Evidence::Alive, Evidence::Silent] {
        let mut world = World::new(&[broker(1, 0, false)]);
        world.beat(10, beat(1, 0, Want::Serve));
        world.tracker.on(Event::Closed { now: 20, id: NodeId(1), epoch: 0 });
        assert_eq!(world.evidence(30, 1, Evidence::Refused), []);
        assert_eq!(world.tick(60), [probe(1, 0)]);
        assert_eq!(world.evidence(70, 1, evidence), []);
        assert_eq!(world.tick(3_009), []);
        assert_eq!(world.tick(3_010), [submit(1, 0, BrokerState::Fenced)]);
    }
    let mut world = World::new(&[broker(1, 0, false)]);
    world.beat(10, beat(1, 0, Want::Serve));
    world.tracker.on(Event::Closed { now: 20, id: NodeId(1), epoch: 0 });
    world.evidence(30, 1, Evidence::Refused);
    world.beat(40, beat(1, 0, Want::Serve));
    assert_eq!(world.tick(60), [], "it is back");
    assert_eq!(world.evidence(70, 1, Evidence::Refused), [], "of before it came back");
}

#[test]
fn a_new_leader_grants_everyone_a_session_but_looks_after_the_missing() {
    let mut world = World::new(&[broker(1, 0, false), broker(2, 1, false), broker(3, 2, true)]);
    assert_eq!(world.tracker.deadline(), Some(30));
    world.beat(10, beat(1, 0, Want::Serve));
    assert_eq!(world.tick(30), [probe(2, 1)], "whoever is fenced is not missed");
    assert_eq!(world.evidence(40, 2, Evidence::Refused), []);
    assert_eq!(world.tick(70), [probe(2, 1)]);
    assert_eq!(world.evidence(80, 2, Evidence::Refused), [submit(2, 1, BrokerState::Fenced)]);
}

#[test]
fn who_does_not_lead_decides_nothing() {
    let mut world = World::new(&[broker(1, 0, false)]);
    assert_eq!(world.tracker.on(Event::Follow), []);
    assert_eq!(world.tick(10_000), []);
    assert_eq!(world.tracker.deadline(), None);
    let beat = Event::Beat { now: 0, wall: 0, beat: beat(1, 0, Want::Serve) };
    assert_eq!(world.tracker.on(beat), []);
    let lead = Event::Lead { now: 20_000, image: Arc::new(world.image.clone()) };
    assert_eq!(world.tracker.on(lead), []);
    assert_eq!(world.tick(20_029), []);
}

#[test]
fn old_processes_are_told_and_new_ones_wait_for_the_image() {
    let mut world = World::new(&[broker(1, 0, false), broker(2, 1, false)]);
    world.set(5, broker(1, 2, false));
    let stale = BeatReply { fenced: true, caught_up: false, stale: true, ..REPLY };
    assert_eq!(world.beat(10, beat(1, 0, Want::Serve)), (stale, vec![]), "registered anew");
    assert_eq!(world.beat(10, beat(7, 1, Want::Serve)), (stale, vec![]), "not registered any more");
    let waits = BeatReply { stale: false, ..stale };
    assert_eq!(world.beat(10, beat(1, 3, Want::Serve)), (waits, vec![]), "the image is at 3");
    assert_eq!(world.tracker.on(Event::Closed { now: 20, id: NodeId(1), epoch: 0 }), [], "of the old one");
    assert_eq!(world.tick(30), [probe(2, 1)]);
    assert_eq!(world.evidence(40, 2, Evidence::Silent), []);
    assert_eq!(world.tick(3_000), [submit(2, 1, BrokerState::Fenced)]);
    assert_eq!(world.tick(3_004), [], "the new one has a session of its own");
    assert_eq!(world.tick(3_005), [submit(1, 2, BrokerState::Fenced)]);
}

#[test]
fn a_lost_directory_is_passed_on_with_the_state_the_broker_has() {
    let mut world = World::new(&[broker(1, 0, false)]);
    let online = vec![DirectoryId(Uuid::from_u128(5))];
    let told = Beat { directories: Some(online.clone()), ..beat(1, 0, Want::Serve) };
    let change = |state| {
        let directories = Some(online.clone());
        Action::Submit(SetBrokerState { id: NodeId(1), broker_epoch: 0, state, directories })
    };
    assert_eq!(world.beat(10, told.clone()).1, [change(BrokerState::Active)]);
    let leaves = Beat { want: Want::ShutDown, ..told.clone() };
    assert_eq!(world.beat(20, leaves).1, [change(BrokerState::ShuttingDown)]);
    world.set(30, Broker { directories: online, ..broker(1, 0, false) });
    assert_eq!(world.beat(40, told).1, []);
}

#[test]
fn who_leaves_may_stop_once_nobody_else_could_lead_what_it_leads() {
    let mut world = World::new(&[broker(1, 0, false), broker(2, 1, false)]);
    let topic = TopicId(Uuid::from_u128(3));
    world.apply(5, &MetadataRecord::TopicCreated { id: topic, name: "t".to_owned(), created_at: 0 });
    let led_by = |leader: i32, isr: &[i32], index| MetadataRecord::PartitionSet {
        tp: TopicPartition::new(topic, index),
        state: PartitionState {
            replicas: vec![NodeId(1), NodeId(2)],
            directories: vec![DirectoryId::UNASSIGNED; 2],
            isr: isr.iter().copied().map(NodeId).collect(),
            elr: Vec::new(),
            leader: Some(NodeId(leader)),
            leader_epoch: 0,
            partition_epoch: 0,
            adding: Vec::new(),
            removing: Vec::new(),
            last_known_leader: None,
            recovery: Recovery::Recovered,
        },
    };
    world.apply(5, &led_by(1, &[1, 2], 0));
    world.apply(5, &led_by(1, &[1], 1));
    let (reply, actions) = world.beat(10, beat(1, 0, Want::ShutDown));
    assert_eq!((reply.may_stop, actions), (false, vec![submit(1, 0, BrokerState::ShuttingDown)]));
    world.set(20, Broker { shutting_down: true, ..broker(1, 0, false) });
    assert!(!world.beat(30, beat(1, 0, Want::ShutDown)).0.may_stop, "2 could lead the first one");
    world.apply(40, &led_by(2, &[1, 2], 0));
    assert!(world.beat(50, beat(1, 0, Want::ShutDown)).0.may_stop, "the second one nobody else can lead");
    assert_eq!(world.beat(60, beat(1, 0, Want::Stopped)).1, [submit(1, 0, BrokerState::Fenced)]);
}

/// A fence that was asked for and failed, since nobody but this node was there, must not keep it busy when the broker turns up.
#[test]
fn who_turns_up_after_a_failed_fence_is_not_looked_at_without_end() {
    for want in [Want::Serve, Want::Stopped] {
        let mut world = World::new(&[broker(1, 5, false)]);
        world.beat(100, beat(1, 5, Want::Serve));
        assert_eq!(world.tick(3_100), [submit(1, 5, BrokerState::Fenced)]);
        world.beat(3_200, beat(1, 5, want));
        for _ in 0..3 {
            let due = world.tracker.deadline().expect("its session ends once");
            assert!(due >= 6_200, "{want:?}: {due}");
            world.tick(due);
            assert!(world.tracker.deadline().is_none_or(|next| next > due), "{want:?}: ticks at {due} without end");
        }
    }
}
