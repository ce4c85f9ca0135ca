//! The task on a quorum of one: what beats, hang-ups and time make of brokers.

use proto::host::{ManualClock, Spawner, TcpNetwork};
use proto::ids::Uuid;
use proto::metadata::{Duty, Endpoint, SecurityProtocol};

use super::*;
use crate::command::{Clean, RegisterBroker};
use crate::session::Want;
use crate::{ControllerNode, NodeConfig, supported_features};

struct World {
    /// Removed with the world.
    _dir: tempfile::TempDir,
    node: Option<ControllerNode>,
    controller: ControllerHandle,
    sessions: Sessions,
    leading: watch::Sender<bool>,
    stop: CancellationToken,
}

impl World {
    async fn start(timing: Timing) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spawner = Spawner::single(tokio::runtime::Handle::current());
        let config = NodeConfig { dir: dir.path().to_owned(), node_id: NodeId(0) };
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(77));
        let (node, controller) = ControllerNode::start(config, Arc::clone(&clock), &spawner).await.unwrap();
        let (leading, leads) = watch::channel(true);
        let stop = CancellationToken::new();
        let settings = Settings { timing, ..Settings::default() };
        let network: Arc<dyn Network> = Arc::new(TcpNetwork);
        let parts =
            Parts { controller: controller.clone(), leading: leads, network, clock, settings, stop: stop.clone() };
        let (task, sessions) = duties(parts);
        spawner.spawn_hot(task);
        Self { _dir: dir, node: Some(node), controller, sessions, leading, stop }
    }

    async fn register(&self, id: i32, port: u16) -> i64 {
        let endpoint = Endpoint {
            listener: "PLAINTEXT".to_owned(),
            host: "127.0.0.1".to_owned(),
            port,
            protocol: SecurityProtocol::Plaintext,
        };
        let register = RegisterBroker {
            id: NodeId(id),
            incarnation: Uuid::from_u128(id.unsigned_abs().into()),
            previous_epoch: None,
            clean: Clean::Yes,
            endpoints: vec![endpoint],
            rack: None,
            directories: Vec::new(),
            offline_directories: 0,
            features: supported_features(),
        };
        self.controller.register_broker(register).await.unwrap()
    }

    /// Waits until the image says of `id` that it is fenced, or is not.
    async fn until(&self, id: i32, fenced: bool) {
        let mut images = self.controller.watch();
        let shows = |image: &Arc<proto::metadata::Image>| image.broker(NodeId(id)).is_some_and(|b| b.fenced == fenced);
        images.wait_for(shows).await.unwrap();
    }

    fn beat(&self, id: i32, epoch: i64, want: Want) -> Beat {
        let applied = self.controller.image().offset();
        Beat { id: NodeId(id), epoch, applied, want, directories: None, load: None, wall: 0 }
    }

    async fn end(mut self) {
        self.stop.cancel();
        if let Some(node) = self.node.take() {
            node.shutdown().await;
        }
    }
}

/// Sessions that do not end by themselves while a test runs.
const LONG: Timing = Timing { session_ms: 600_000, grace_ms: 600_000, probe_gap_ms: 1, again_ms: 600_000 };

#[tokio::test]
async fn brokers_come_into_service_by_their_beats_and_go_when_they_are_gone() {
    let world = World::start(LONG).await;
    world.register(0, 1).await;
    // Nobody listens on a port that was just closed.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let epoch = world.register(1, port).await;
    let link = world.sessions.link();
    let reply = link.beat(world.beat(1, epoch, Want::Serve)).await.unwrap();
    assert_eq!(reply, BeatReply { fenced: true, may_stop: false, caught_up: true, leader_wall: 77, stale: false });
    world.until(1, false).await;
    assert!(link.beat(world.beat(1, epoch - 1, Want::Serve)).await.unwrap().stale);
    drop(listener);
    drop(link);
    world.until(1, true).await;

    let link = world.sessions.link();
    link.beat(world.beat(1, epoch, Want::Serve)).await.unwrap();
    world.until(1, false).await;
    link.beat(world.beat(1, epoch, Want::Stopped)).await.unwrap();
    world.until(1, true).await;
    world.end().await;
}

#[tokio::test]
async fn silence_ends_a_session_and_who_does_not_lead_answers_nothing() {
    let timing = Timing { session_ms: 30, grace_ms: 600_000, ..LONG };
    let world = World::start(timing).await;
    world.register(0, 1).await;
    world.until(0, true).await;
    world.leading.send(false).unwrap();
    let link = world.sessions.link();
    let answered = link.beat(world.beat(0, 0, Want::Serve)).await;
    assert_eq!(answered, None);
    world.end().await;
}

#[tokio::test]
async fn duties_go_to_a_broker_that_serves() {
    let world = World::start(LONG).await;
    world.register(0, 1).await;
    let mut images = world.controller.watch();
    images.wait_for(|image| image.duty(Duty::Sweeper) == Some((NodeId(0), 1))).await.unwrap();
    world.end().await;
}
