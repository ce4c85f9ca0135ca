//! The start of a node: its parts made in order, each on those before it.

use super::cold::{self, Place};
use super::control::NodeControl;
use super::directories::Directories;
use super::front::HttpSide;
use super::host::Host;
use super::life::Life;
use super::listeners::KafkaSocket;
use super::pointers::QuorumPointers;
use super::quorum::{self, Joined};
use super::{Broker, Node, StartError, listeners, memory, observe, settings};
use crate::api::fetch::session::Sessions;
use crate::api::init_producer_id::ProducerIds;
use crate::api::services::Services;
use crate::config::BrokerConfig;
use crate::config::server::ServerConfig;
use crate::group::GroupHandle;
use crate::log::life::Stop;
use crate::metrics::Metrics;
use crate::net::budget::Budget;
use crate::partition::isr::AskController;
use crate::partition::{DirSpec, Open, Partitions};
use crate::replica::start_over::{QuorumTier, Tier};
use crate::replica::{self, ImageBrokers, Replication};
use arc_swap::ArcSwap;
use controller::SubmitError;
use controller::command::{Clean, Refusal, RegisterBroker};
use proto::ids::NodeId;
use proto::metadata::Endpoint;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Between two attempts to register.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A broker that is registered has the metadata up to there within this time.
const CATCHES_UP_WITHIN: Duration = Duration::from_secs(60);

impl Node {
    /// Starts every part. When it returns, clients are served; until then the HTTP side says that the node recovers.
    ///
    /// # Errors
    /// In one line, what is in the way and what to do about it.
    pub async fn start(server: ServerConfig, host: Host) -> Result<Node, StartError> {
        // Addresses first: a port that is taken is found before anything is recovered.
        let kafka = listeners::bind_kafka(&server, host.network.as_ref()).await?;
        let http = listeners::bind_http(&server).await?;
        let metrics = Arc::new(Metrics::new());
        let http = HttpSide::start(http, &metrics);
        let first =
            server.data_dirs.first().ok_or_else(|| StartError("log.dirs names no directory".to_owned()))?.clone();
        let mut directories = Directories::take(&server.data_dirs, host.disk.as_ref()).await?;
        let meta = directories.survey(&server, host.disk.as_ref()).await?;
        let joined = quorum::join(&server, &host, &server.broker(), &first, meta.as_ref()).await?;
        let making = Making { server: &server, joined: &joined, host: &host, metrics: &metrics, first: &first };
        let made = match making.make(&mut directories, kafka, &http).await {
            Ok(made) => made,
            Err(error) => {
                // It has threads of its own, which would go on about their end.
                joined.part.shutdown().await;
                return Err(error);
            }
        };
        joined.note_membership(&host, &first);
        Ok(Node { broker: made, http, data: server.data_dirs, part: joined.part, _locks: directories.into_locks() })
    }
}

/// Makes the data directories of a node that is to be part of a quorum of several, before its first start.
///
/// # Errors
/// In one line, what is in the way: another process, or another cluster.
pub async fn format(server: &ServerConfig, host: &Host, cluster_id: &str) -> Result<(), StartError> {
    let disk = host.disk.as_ref();
    let mut directories = Directories::take(&server.data_dirs, disk).await?;
    directories.claim(NodeId(server.node_id), disk, cluster_id, None, host.entropy.as_ref()).await.map(drop)
}

/// What a node is made of once its part in the quorum runs.
struct Making<'a> {
    server: &'a ServerConfig,
    joined: &'a Joined,
    host: &'a Host,
    metrics: &'a Arc<Metrics>,
    /// The first data directory.
    first: &'a Path,
}

impl Making<'_> {
    async fn make(
        &self,
        directories: &mut Directories,
        kafka: Vec<KafkaSocket>,
        http: &HttpSide,
    ) -> Result<Option<Broker>, StartError> {
        let (host, server) = (self.host, self.server);
        let cluster_id = self.joined.cluster_id(host).await?;
        let node_id = NodeId(server.node_id);
        let disk = host.disk.as_ref();
        if !server.roles.broker {
            directories.claim(node_id, disk, &cluster_id, None, host.entropy.as_ref()).await?;
            http.controls();
            return Ok(None);
        }
        let place = Place::find(&host.objects, server.object_store.as_ref(), self.first)?;
        let noted = place.noted(&cluster_id, disk, self.first).await;
        let specs = directories.claim(node_id, disk, &cluster_id, noted.as_ref(), host.entropy.as_ref()).await?;
        let broker = self.make_broker(cluster_id, place, specs, &kafka).await?;
        broker.serve(kafka, http).await?;
        Ok(Some(broker))
    }

    async fn make_broker(
        &self,
        cluster_id: String,
        place: Place,
        specs: Vec<DirSpec>,
        kafka: &[KafkaSocket],
    ) -> Result<Broker, StartError> {
        let (host, server, handle) = (self.host, self.server, &self.joined.handle);
        let node_id = NodeId(server.node_id);
        let config = settings::broker(&handle.image(), node_id, &server.settings);
        let store = place.open(&cluster_id, host, self.metrics, config.firn.disk_reserve_bytes)?;
        let partitions = self.open_partitions(node_id, &config, specs).await?;
        let addresses: Vec<_> = kafka.iter().map(|socket| (socket.name.clone(), socket.bound.address)).collect();
        let endpoints = listeners::endpoints(&server.advertised, &addresses, &listeners::machine());
        // Only what is open may be given partitions to lead.
        let broker_epoch = self.register(endpoints, &partitions).await?;
        for (name, own, of_cluster) in settings::overruled(&handle.image(), &server.settings) {
            tracing::warn!(
                "{name} is {own} in this node's configuration, but {of_cluster} in the cluster, and that counts: change it for all \
                 (kafka-configs --entity-type brokers --entity-default --alter --add-config {name}=…), or for a topic"
            );
        }
        place.tidy(host, host.clock.now_ms() - config.firn.tier_delete_grace_ms);
        let life = Life::new();
        let pointers = Arc::new(QuorumPointers::new(handle.clone(), life.clock()));
        let remote = cold::reader(&config, &store, &pointers, host);
        let tier = cold::start_tier(&config, store, &pointers, &partitions, host);
        let truth: Arc<dyn Tier> = Arc::new(QuorumTier::new(handle.clone(), remote.clone(), host.spawner.clone()));
        let replication = Replication::start(replica::Parts {
            node: node_id,
            broker_epoch,
            network: Arc::clone(&host.network),
            brokers: Arc::new(ImageBrokers::new(handle.clone(), &server.inter_broker)),
            tier: Arc::clone(&truth),
            spawner: host.spawner.clone(),
            memory: Budget::new(config.firn.replica_memory_bytes),
            settings: replica::Settings::of(&config.replication),
        });
        let authority = AskController { controller: handle.clone(), broker: node_id, broker_epoch };
        partitions.registered(broker_epoch);
        partitions.propose_to(Arc::new(authority), &host.spawner);
        let (applied, applied_seen) = watch::channel(0);
        let groups = GroupHandle::new(
            config.groups.clone(),
            Arc::clone(&host.clock),
            Arc::clone(&host.entropy),
            host.spawner.clone(),
        );
        let services = Arc::new(Services {
            node_id,
            cluster_id,
            broker_epoch,
            producer_ids: ProducerIds::new(handle.clone(), node_id, broker_epoch),
            controller: handle.clone(),
            partitions,
            groups,
            remote,
            topic_configs: ArcSwap::from_pointee(settings::topics(&handle.image(), node_id, &server.settings)),
            static_config: server.settings.clone(),
            sessions: Sessions::new(config.net.fetch_session_slots),
            decoded_memory: Budget::new(config.firn.request_memory_bytes / 8),
            fetch_memory: Budget::new(config.firn.request_memory_bytes / 4),
            cold_memory: Budget::new(config.firn.request_memory_bytes / 4),
            replication,
            replica_memory: Budget::new(config.firn.replica_memory_bytes),
            config: ArcSwap::from_pointee(config),
            applied: applied_seen,
            metrics: Arc::clone(self.metrics),
            clock: Arc::clone(&host.clock),
            entropy: Arc::clone(&host.entropy),
            spawner: host.spawner.clone(),
        });
        Ok(Broker {
            kafka: addresses,
            object_store: place.describe().to_owned(),
            control: Arc::new(NodeControl::new(Arc::clone(&services), tier.clone())),
            services,
            tier,
            truth,
            applied,
            life: self.joined.shared.then_some(life),
            serving: CancellationToken::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    async fn open_partitions(
        &self,
        node: NodeId,
        config: &BrokerConfig,
        dirs: Vec<DirSpec>,
    ) -> Result<Partitions, StartError> {
        let (journal, dir) = memory::shares(&config.firn, dirs.len());
        let open = Open {
            node,
            disk: Arc::clone(&self.host.disk),
            dirs,
            journal,
            dir,
            boot: self.host.boot.clone(),
            clock: Arc::clone(&self.host.clock),
            observer: Arc::new(observe::LogReports::new(Arc::clone(self.metrics))),
            spawner: self.host.spawner.clone(),
        };
        Partitions::open(open).await.map_err(StartError::because)
    }

    /// Registers. Where another process has the id, it may be one that is gone without a word: that is known after its session.
    async fn admitted(&self, broker: RegisterBroker) -> Result<i64, StartError> {
        let session =
            settings::broker(&self.joined.handle.image(), broker.id, &self.server.settings).cluster.session_timeout_ms;
        let patience = Duration::from_millis(session) * 2 + ASK_AGAIN;
        let asked = Instant::now();
        loop {
            match self.joined.handle.register_broker(broker.clone()).await {
                Ok(epoch) => return Ok(epoch),
                Err(SubmitError::Refused(refusal @ Refusal::DuplicateBroker { .. })) if asked.elapsed() < patience => {
                    tracing::info!(%refusal, "waiting whether it is gone");
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                Err(error) => return Err(StartError::because(error)),
            }
        }
    }

    async fn register(&self, endpoints: Vec<Endpoint>, partitions: &Partitions) -> Result<i64, StartError> {
        let directories = partitions.online_directories();
        let (previous_epoch, clean) = match partitions.last_stop() {
            Stop::Clean(epoch) => (Some(epoch).filter(|epoch| *epoch >= 0), Clean::Yes),
            Stop::SameBoot => (None, Clean::SameBoot),
            Stop::Unknown => (None, Clean::No),
        };
        let offline = self.server.data_dirs.len().saturating_sub(directories.len());
        let broker = RegisterBroker {
            id: NodeId(self.server.node_id),
            incarnation: self.host.entropy.uuid(),
            endpoints,
            rack: self.server.rack.clone(),
            directories,
            previous_epoch,
            clean,
            offline_directories: u32::try_from(offline).unwrap_or(u32::MAX),
            features: controller::supported_features(),
        };
        let handle = &self.joined.handle;
        let epoch = self.admitted(broker).await?;
        // What an older image does not know of this broker would be taken for strays.
        let knows = u64::try_from(epoch).unwrap_or(0) + 1;
        if tokio::time::timeout(CATCHES_UP_WITHIN, handle.caught_up(knows)).await.is_err() {
            return Err(StartError(format!(
                "the metadata did not come within {} s, although this broker is registered: can the other controllers reach \
                 its control listener, or it theirs?",
                CATCHES_UP_WITHIN.as_secs()
            )));
        }
        Ok(epoch)
    }
}
