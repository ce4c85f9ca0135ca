//! Several members: elections, failover, partitions, restarts. Times are those of the paused clock: what they bound is
//! the protocol, not the machine.

pub(crate) mod network;
pub(crate) mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proto::ids::{DirectoryId, NodeId, Uuid};
use proto::metadata::{Endpoint, FEATURE, Image, SecurityProtocol};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use world::{World, shows, write};

use crate::command::{Clean, Direction, FeatureUpdate, Mode, Refusal, RegisterBroker, UpdateFeatures};
use crate::peers::Identity;
use crate::session::{Beat, Want};
use crate::transport::{Channel, Envelope, Serve};
use crate::wire::calls::{Kind, Levels, Refused};
use crate::wire::encode;
use crate::{
    ControllerHandle, ControllerNode, FollowConfig, Follower, MemberConfig, SubmitError, VoterChange, VoterError, Wire,
    supported_features,
};

/// Runs a test over both transports.
macro_rules! over_both {
    ($($(#[$doc:meta])* $name:ident($wire:ident) $body:block)*) => {$(
        mod $name {
            use super::*;

            $(#[$doc])*
            async fn test($wire: Wire) $body

            #[tokio::test(start_paused = true)]
            async fn frames() {
                test(Wire::Frames).await;
            }

            #[tokio::test(start_paused = true)]
            async fn grpc() {
                test(Wire::Grpc).await;
            }
        }
    )*};
}

over_both! {
    three_members_elect_write_lose_their_leader_and_go_on(wire) {
        let start = Instant::now();
        let mut world = World::started(3, wire, 1).await;
        let first = world.leader(&world.ids()).await;
        assert!(start.elapsed() < Duration::from_secs(2), "elected after {:?}", start.elapsed());
        for id in world.ids() {
            world.write(id, &format!("before-{id}")).await.expect("one leads");
        }
        let before = world.agreed().await;

        world.kill(first).await;
        let killed = Instant::now();
        let survivor = world.ids()[0];
        world.write(survivor, "after").await.expect("two of three are enough");
        assert!(killed.elapsed() < Duration::from_secs(2), "written after {:?}", killed.elapsed());
        let second = world.leader(&world.ids()).await;
        assert_ne!(first, second);

        world.start(first).await;
        let after = world.agreed().await;
        assert!(after.offset() > before.offset());
        assert!(shows(&after, "after"));
    }

    a_leader_cut_off_decides_nothing_and_its_return_unseats_nobody(wire) {
        let world = World::started(3, wire, 2).await;
        let hosts: Vec<String> = world.ids().iter().map(|id| format!("host-{id}")).collect();
        let first = world.leader(&world.ids()).await;
        world.write(first, "before").await.expect("one leads");
        world.net.isolate(&format!("host-{first}"), &hosts);
        let others: Vec<NodeId> = world.ids().into_iter().filter(|id| *id != first).collect();
        let second = world.leader(&others).await;
        world.write(second, "of the majority").await.expect("two of three are enough");
        // It may be committed later or never: it is not said to be done.
        let of_minority =
            write(&world.handle(first), "of the minority", Duration::from_secs(3)).await;
        assert!(matches!(of_minority, Err(SubmitError::Unknown | SubmitError::NotLeader { .. })), "{of_minority:?}");
        assert_eq!(world.leaders(), [second]);
        let within = tokio::time::timeout(Duration::from_secs(5), world.handle(first).read_linearizable()).await;
        assert!(!matches!(within, Ok(Ok(_))), "a minority reads nothing");

        let term = world.quorum(second).term_if_leader();
        world.net.heal();
        world.write(first, "after").await.expect("all are there");
        assert_eq!(world.leaders(), [second]);
        assert_eq!(world.quorum(second).term_if_leader(), term);
        assert!(shows(&*world.agreed().await, "after"));
    }

    a_follower_that_was_cut_off_for_long_comes_back_quietly(wire) {
        let world = World::started(3, wire, 3).await;
        let hosts: Vec<String> = world.ids().iter().map(|id| format!("host-{id}")).collect();
        let leader = world.leader(&world.ids()).await;
        let follower = *world.ids().iter().find(|id| **id != leader).expect("three run");
        world.write(leader, "before").await.expect("one leads");
        let term = world.quorum(leader).term_if_leader();
        world.net.isolate(&format!("host-{follower}"), &hosts);
        for round in 0..20 {
            world.write(leader, &format!("round-{round}")).await.expect("two of three are enough");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        world.net.heal();
        world.write(follower, "after").await.expect("all are there");
        assert_eq!((world.leaders(), world.quorum(leader).term_if_leader()), (vec![leader], term));
        world.agreed().await;
    }

    all_restart_at_once_and_nothing_is_lost(wire) {
        let mut world = World::started(3, wire, 4).await;
        for round in 0..10 {
            world.write(NodeId(round % 3), &format!("round-{round}")).await.expect("one leads");
        }
        let before = world.agreed().await;
        for id in world.ids() {
            world.kill(id).await;
        }
        let start = Instant::now();
        for id in 0..3 {
            world.start(NodeId(id)).await;
        }
        world.write(NodeId(1), "after").await.expect("one leads");
        assert!(start.elapsed() < Duration::from_secs(2), "written after {:?}", start.elapsed());
        let after = world.agreed().await;
        assert!((0..10).all(|round| shows(&after, &format!("round-{round}"))));
        assert!(after.offset() > before.offset());
    }

    a_lone_voter_grows_to_three_and_is_removed(wire) {
        let mut world = World::started(1, wire, 5).await;
        world.write(NodeId(0), "alone").await.expect("it leads");
        for _ in 0..2 {
            let id = world.newcomer();
            let config = MemberConfig {
                voters: BTreeMap::new(),
                bootstrap: vec!["host-0:9093".to_owned()],
                ..world.config(id)
            };
            let add = VoterChange::Add { id, directory: config.directory, address: format!("host-{id}:9093") };
            world.start_with(config).await;
            // Asked of a member that has no vote yet.
            world.handle(id).change_voters(add, Duration::from_secs(90)).await.expect("it catches up");
        }
        let view = world.handle(NodeId(2)).describe_quorum(Duration::from_secs(5)).await;
        let voters: Vec<_> = view.voters.iter().map(|voter| (voter.id.0, voter.address.as_str())).collect();
        assert_eq!(voters, [(0, "host-0:9093"), (1, "host-1:9093"), (2, "host-2:9093")]);
        assert!(view.voters.iter().all(|voter| voter.log_end.is_some()), "{view:?}");
        assert_eq!(view.voters[2].directory, world.config(NodeId(2)).directory);

        let remove = VoterChange::Remove { id: NodeId(0), directory: DirectoryId::UNASSIGNED };
        world.handle(NodeId(1)).change_voters(remove.clone(), Duration::from_secs(30)).await.expect("two are left");
        // It lives on without a vote, and does not take itself for the leader.
        world.leader(&[NodeId(1), NodeId(2)]).await;
        assert!(!world.leaders().contains(&NodeId(0)));
        world.kill(NodeId(0)).await;
        world.write(NodeId(1), "without the first").await.expect("two of two");
        let again = world.handle(NodeId(1)).change_voters(remove, Duration::from_secs(30)).await;
        assert_eq!(again, Err(VoterError::NotFound));
        assert!(shows(&*world.agreed().await, "alone"));
    }

    a_change_of_voters_is_carried_out_by_who_was_asked(wire) {
        let world = World::started(3, wire, 12).await;
        let leader = world.leader(&world.ids()).await;
        let other = *world.ids().iter().find(|id| **id != leader).expect("three run");
        // What the pacemaker does as soon as it sees a change half done.
        let quorum = world.quorum(leader);
        let tidier = tokio::spawn(async move {
            loop {
                quorum.tidy_up("").await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        for _ in 0..3 {
            let remove = VoterChange::Remove { id: other, directory: DirectoryId::UNASSIGNED };
            let removed = world.handle(leader).change_voters(remove, Duration::from_secs(30)).await;
            assert_eq!(removed, Ok(()));
            let (directory, address) = (world.config(other).directory, format!("host-{other}:9093"));
            let add = VoterChange::Add { id: other, directory, address };
            assert_eq!(world.handle(leader).change_voters(add, Duration::from_secs(90)).await, Ok(()));
        }
        tidier.abort();
        assert_eq!(world.leaders(), [leader]);
        world.write(other, "after").await.expect("one leads");
    }

    a_leader_that_hands_over_is_not_missed(wire) {
        let mut world = World::started(3, wire, 6).await;
        let first = world.leader(&world.ids()).await;
        world.write(first, "before").await.expect("one leads");
        let start = Instant::now();
        world.members[&first].0.hand_over().await;
        let others: Vec<NodeId> = world.ids().into_iter().filter(|id| *id != first).collect();
        let second = world.leader(&others).await;
        world.write(first, "after").await.expect("one leads");
        assert!(start.elapsed() < Duration::from_secs(1), "written after {:?}", start.elapsed());
        world.kill(first).await;
        world.write(second, "later").await.expect("two of three are enough");
        assert_eq!(world.leaders(), [second]);
    }

    who_belongs_elsewhere_is_told_so(wire) {
        let mut world = World::started(3, wire, 8).await;
        world.write(NodeId(0), "before").await.expect("one leads");
        let follow = |cluster: &str| FollowConfig {
            node_id: NodeId(9),
            cluster_id: Some(cluster.to_owned()),
            bootstrap: vec!["host-1:9093".to_owned()],
        };
        let (_, handle) = Follower::start(follow("other"), &world.machine("host-9"));
        let refused = handle.introduce(Duration::from_secs(1)).await.expect_err("it is another cluster's").to_string();
        assert_eq!(
            refused,
            "the controller at host-1:9093 does not accept this node: it belongs to cluster test"
        );
        let (_, handle) = Follower::start(follow("test"), &world.machine("host-9"));
        handle.introduce(Duration::from_secs(1)).await.expect("it is this cluster's");

        // A member whose directory is empty though it has been one.
        world.kill(NodeId(2)).await;
        let lost = world.newcomer();
        let config = MemberConfig { dir: world.dir(lost).to_owned(), has_been_member: true, ..world.config(NodeId(2)) };
        let machine = world.machine("host-2");
        let listener = machine.network.listen("host-2:9093").await.expect("the port is free");
        let refused = ControllerNode::start_member(config, listener, machine).await.expect_err("it has lost its disk");
        assert!(refused.to_string().starts_with("controller 2 has lost its metadata: "), "{refused}");
    }

    a_broker_serves_while_its_process_is_there(wire) {
        let mut world = World::started(3, wire, 9).await;
        let leader = world.leader(&world.ids()).await;
        let (follower, handle) = Follower::start(
            FollowConfig { node_id: BROKER, cluster_id: None, bootstrap: world.voters.values().cloned().collect() },
            &world.machine("host-9"),
        );
        let listener = world.machine("host-9").network.listen("host-9:9092").await.expect("the port is free");
        // The first one is taken into service as it comes.
        handle.register_broker(broker(NodeId(8))).await.expect("one leads");
        let epoch = handle.register_broker(broker(BROKER)).await.expect("one leads");
        let fenced = |handle: &ControllerHandle| handle.image().broker(BROKER).is_none_or(|broker| broker.fenced);
        assert!(fenced(&handle), "until it has said that it is up to date");

        let mut session = handle.session(Duration::from_secs(5)).await.expect("one leads");
        assert_eq!(session.leader(), leader);
        let start = Instant::now();
        while fenced(&handle) {
            let beat = beat(epoch, &handle, Want::Serve);
            match session.beat(&beat).await {
                Some(reply) => assert!(!reply.stale),
                // The leader was not sure of its lead yet.
                None => session = handle.session(Duration::from_secs(5)).await.expect("one leads"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(start.elapsed() < Duration::from_secs(5), "it may serve");
        }
        let another = session.beat(&beat(epoch - 1, &handle, Want::Serve)).await.expect("the leader answers");
        assert!(another.stale, "of an earlier registration");

        // The quorum elects another leader: the session goes on there.
        world.kill(leader).await;
        let own = beat(epoch, &handle, Want::Serve);
        assert_eq!(session.beat(&own).await, None);
        let mut session = handle.session(Duration::from_secs(5)).await.expect("two of three are enough");
        for _ in 0..20 {
            if session.beat(&own).await.is_none() {
                session = handle.session(Duration::from_secs(5)).await.expect("one leads");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(!fenced(&handle));
        }

        // Its process ends: its connections do, and nobody listens where it listened.
        drop((session, listener));
        let ended = Instant::now();
        while !fenced(&handle) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(ended.elapsed() < Duration::from_secs(1), "it is fenced long before its session would end");
        }
        follower.shutdown().await;
    }

    a_voter_with_another_disk_is_refused(wire) {
        let mut world = World::started(3, wire, 11).await;
        let leader = world.leader(&world.ids()).await;
        // With the first broker the cluster settles for what it understands.
        world.handle(leader).register_broker(broker(NodeId(8))).await.expect("one leads");
        let mut images = world.handle(leader).watch();
        let bound = |image: &Arc<Image>| (0..3).all(|id| image.voter(NodeId(id)).is_some());
        let binding = tokio::time::timeout(Duration::from_secs(20), images.wait_for(bound));
        drop(binding.await.expect("voters are bound to their disks"));

        let lost = *world.ids().iter().find(|id| **id != leader).expect("three run");
        world.kill(lost).await;
        let empty = world.newcomer();
        let config = MemberConfig {
            dir: world.dir(empty).to_owned(),
            directory: DirectoryId(Uuid::from_u128(77)),
            ..world.config(lost)
        };
        world.start_with(config).await;
        let refused = world.handle(lost).introduce(Duration::from_secs(1)).await.expect_err("its disk is not known");
        assert!(refused.to_string().contains("is known with another metadata directory"), "{refused}");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(world.leaders(), [leader]);
        assert_eq!(world.handle(lost).image().offset(), 0, "nothing is told to it");

        // The way back: removed, and added again.
        let remove = VoterChange::Remove { id: lost, directory: DirectoryId::UNASSIGNED };
        world.handle(leader).change_voters(remove, Duration::from_secs(30)).await.expect("two are left");
        let add = VoterChange::Add {
            id: lost,
            directory: DirectoryId(Uuid::from_u128(77)),
            address: format!("host-{lost}:9093"),
        };
        world.handle(leader).change_voters(add, Duration::from_secs(90)).await.expect("it catches up");
        world.write(lost, "after").await.expect("one leads");
        assert!(shows(&*world.agreed().await, "after"));
    }

    a_leader_that_is_removed_hands_over_and_goes_on_with_the_image(wire) {
        let mut world = World::started(3, wire, 12).await;
        let removed = world.leader(&world.ids()).await;
        world.write(removed, "before").await.expect("one leads");
        let term = world.quorum(removed).term_if_leader();
        let remove = VoterChange::Remove { id: removed, directory: DirectoryId::UNASSIGNED };
        // Asked of itself.
        world.handle(removed).change_voters(remove, Duration::from_secs(30)).await.expect("two are left");
        let others: Vec<NodeId> = world.ids().into_iter().filter(|id| *id != removed).collect();
        let second = world.leader(&others).await;
        assert!(world.quorum(second).term_if_leader() > term, "it handed over first");
        assert_eq!(world.quorum(second).view().voters.iter().map(|voter| voter.id).collect::<Vec<_>>(), others);
        let start = Instant::now();
        world.write(second, "without it").await.expect("two of two");
        world.agreed().await;
        assert!(start.elapsed() < Duration::from_secs(5), "it saw that after {:?}", start.elapsed());
        world.write(removed, "through it").await.expect("it finds the leader");

        // It does not know of this election by itself.
        world.members[&second].0.hand_over().await;
        let third = *others.iter().find(|id| **id != second).expect("two are left");
        world.leader(&[third]).await;
        world.write(removed, "through it again").await.expect("it finds the leader");
        assert!(shows(&*world.agreed().await, "through it again"));

        world.kill(removed).await;
        world.write(third, "while it was away").await.expect("two of two");
        world.start_with(MemberConfig { has_been_member: true, ..world.config(removed) }).await;
        world.write(removed, "when it was back").await.expect("it finds the leader");
        assert!(shows(&*world.agreed().await, "while it was away"));
    }

    a_level_waits_for_controllers_that_do_not_understand_it(wire) {
        let mut world = World::new(3, wire, 14);
        for id in [0, 1] {
            world.start(NodeId(id)).await;
        }
        let leader = world.leader(&world.ids()).await;
        let machine = world.machine("host-2");
        let listener = machine.network.listen("host-2:9093").await.expect("the port is free");
        let images = watch::channel(Arc::new(Image::default())).1;
        let directory = DirectoryId(Uuid::from_u128(3));
        let older = Older(Identity { id: NodeId(2), directory, cluster: Some("test".to_owned()), images });
        let stop = CancellationToken::new();
        tokio::spawn(wire.serve(listener, Arc::new(older), stop.clone()));

        // Alone, a broker settles for what it understands; but not for more than a controller does.
        let handle = world.handle(leader);
        handle.register_broker(broker(NodeId(8))).await.expect("one leads");
        assert_eq!(handle.image().level(), 0);
        let refused = raise(&handle).await.expect_err("an older one would not understand");
        assert_eq!(refused, "Controller 2 understands levels of firn.metadata up to 0 only.");
        stop.cancel();
        while raise(&handle).await != Err(
            "Controller 2 does not say which levels of firn.metadata it understands: start it, or take its vote.".to_owned()
        ) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        world.start(NodeId(2)).await;
        // At level 0 the metadata does not say what brokers understand: they do, when they come again.
        let again = RegisterBroker { incarnation: Uuid::from_u128(2), ..broker(NodeId(8)) };
        handle.register_broker(again).await.expect("one leads");
        assert_eq!(handle.image().level(), 1);

        // From here on an older one has no business here.
        world.agreed().await;
        let peers = world.peers(NodeId(2));
        let hello = (Kind::Hello, encode(&Levels { oldest: 0, newest: 0 }));
        let refused = peers.ask("host-0:9093", None, hello, Duration::from_secs(1)).await.expect_err("it is too old");
        assert!(refused.to_string().starts_with("the cluster is at level 1 of firn.metadata, and this node"), "{refused}");
    }

    a_member_that_was_never_added_follows_and_belongs_nowhere(wire) {
        let mut world = World::started(3, wire, 13).await;
        let id = world.newcomer();
        let bootstrap = vec!["host-0:9093".to_owned()];
        let config = MemberConfig { voters: BTreeMap::new(), bootstrap, ..world.config(id) };
        for round in 0..2 {
            world.start_with(config.clone()).await;
            assert!(!world.members[&id].0.belongs());
            world.write(id, &format!("round-{round}")).await.expect("it finds the leader");
            assert!(shows(&*world.agreed().await, &format!("round-{round}")));
            if round == 0 {
                world.kill(id).await;
            }
        }
        let add = VoterChange::Add { id, directory: config.directory, address: format!("host-{id}:9093") };
        world.handle(id).change_voters(add, Duration::from_secs(90)).await.expect("it catches up");
        assert!(world.members[&id].0.joined().await);
        assert!(world.members[&id].0.belongs());
    }

    a_member_that_was_away_for_long_gets_a_snapshot_in_chunks(wire) {
        let mut world = World::started(3, wire, 10).await;
        let leader = world.leader(&world.ids()).await;
        let away = *world.ids().iter().find(|id| **id != leader).expect("three run");
        world.write(leader, "before").await.expect("one leads");
        world.kill(away).await;
        // More than a chunk, and more entries than stay behind a snapshot.
        for round in 0..30 {
            world.write(leader, &format!("{round}-{}", "x".repeat(100_000))).await.expect("two of three are enough");
        }
        for round in 0..330 {
            world.write(leader, &format!("other-{round}")).await.expect("two of three are enough");
        }
        let quorum = world.quorum(leader);
        quorum.snapshot().await;
        quorum.purged().await;
        world.start(away).await;
        world.write(away, "after").await.expect("all are there");
        assert!(shows(&*world.agreed().await, "other-7"));
    }
}

/// A voter of an earlier version, as far as it is asked what it understands.
struct Older(Identity);

#[async_trait]
impl Serve for Older {
    async fn answer(&self, question: Envelope) -> Envelope {
        match Kind::of(question.kind) {
            Some(Kind::Hello) => self.0.envelope(Kind::Hello, encode(&Levels { oldest: 0, newest: 0 })),
            _ => self.0.envelope(Kind::Refused, encode(&Refused::Cannot("it is made up".to_owned()))),
        }
    }

    async fn converse(&self, _: Envelope, _: Channel) {}
}

/// Asks for level 1: why not.
async fn raise(handle: &ControllerHandle) -> Result<(), String> {
    let update = FeatureUpdate { name: FEATURE.to_owned(), level: 1, direction: Direction::Upgrade };
    let update = UpdateFeatures { updates: vec![update], mode: Mode::Commit };
    match handle.update_features(update).await.expect("one leads").remove(0) {
        Ok(()) => Ok(()),
        Err(Refusal::FeatureUpdateFailed(why)) => Err(why),
        Err(other) => panic!("{other}"),
    }
}

const BROKER: NodeId = NodeId(9);

fn broker(id: NodeId) -> RegisterBroker {
    let endpoint = Endpoint {
        listener: "PLAINTEXT".to_owned(),
        host: format!("host-{id}"),
        port: 9092,
        protocol: SecurityProtocol::Plaintext,
    };
    RegisterBroker {
        id,
        incarnation: Uuid::from_u128(1),
        previous_epoch: None,
        clean: Clean::Yes,
        endpoints: vec![endpoint],
        rack: None,
        directories: vec![DirectoryId(Uuid::from_u128(2))],
        offline_directories: 0,
        features: supported_features(),
    }
}

fn beat(epoch: i64, handle: &ControllerHandle, want: Want) -> Beat {
    let applied = handle.image().offset();
    Beat { id: BROKER, epoch, applied, want, directories: None, load: None, wall: 1_000 }
}
