//! Several members: elections, failover, partitions, restarts. Times are those of the paused clock: what they bound is
//! the protocol, not the machine.

use std::time::Duration;

use proto::ids::NodeId;
use tokio::time::Instant;

use crate::testing::World;
use crate::{SubmitError, Wire};

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
        assert_eq!(after.feature("after"), 1);
        assert_eq!(after.cluster_id(), Some("test"));
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
            crate::testing::write(&world.handle(first), &world.entropy, "of the minority", Duration::from_secs(3)).await;
        assert!(matches!(of_minority, Err(SubmitError::Unknown | SubmitError::NotLeader { .. })), "{of_minority:?}");
        assert_eq!(world.leaders(), [second]);
        let within = tokio::time::timeout(Duration::from_secs(5), world.handle(first).read_linearizable()).await;
        assert!(!matches!(within, Ok(Ok(_))), "a minority reads nothing");

        let term = world.quorum(second).term_if_leader();
        world.net.heal();
        world.write(first, "after").await.expect("all are there");
        assert_eq!(world.leaders(), [second]);
        assert_eq!(world.quorum(second).term_if_leader(), term);
        assert_eq!(world.agreed().await.feature("after"), 1);
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
        assert!((0..10).all(|round| after.feature(&format!("round-{round}")) == 1));
        assert!(after.offset() > before.offset());
    }
}
