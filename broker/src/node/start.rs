//! The start of a node: its parts made in order, each on those before it.

use super::cold::{self, Place};
use super::control::NodeControl;
use super::directories::Directories;
use super::follow::Follower;
use super::front::HttpSide;
use super::host::Host;
use super::pointers::QuorumPointers;
use super::{Node, StartError, listeners, memory, observe, settings};
use crate::api::fetch::session::Sessions;
use crate::api::init_producer_id::ProducerIds;
use crate::api::services::Services;
use crate::config::BrokerConfig;
use crate::config::server::ServerConfig;
use crate::group::GroupHandle;
use crate::metrics::Metrics;
use crate::net::budget::Budget;
use crate::partition::{DirSpec, Open, Partitions};
use arc_swap::ArcSwap;
use controller::command::{FormCluster, RegisterBroker};
use controller::{ControllerHandle, ControllerNode, NodeConfig};
use proto::host::Entropy;
use proto::ids::{DirectoryId, NodeId};
use proto::metadata::Endpoint;
use std::sync::Arc;
use tiering::store::Store;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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
        let place = Place::find(&host.objects, server.object_store.as_ref(), &first)?;
        let mut directories = Directories::take(&server.data_dirs, host.disk.as_ref()).await?;
        let node_id = NodeId(server.node_id);
        let config = NodeConfig { dir: first.join("metadata"), node_id };
        directories.survey(&server, host.disk.as_ref(), &config.dir).await?;
        let (controller, handle) = ControllerNode::start(config, Arc::clone(&host.clock), &host.spawner)
            .await
            .map_err(|error| StartError(format!("{}: {error}", first.display())))?;
        let addresses: Vec<_> = kafka.iter().map(|socket| (socket.name.clone(), socket.bound.address)).collect();
        let endpoints = listeners::endpoints(&server.advertised, &addresses, &listeners::machine());
        let making = Making { server: &server, controller: &handle, host: &host, metrics: &metrics, place: &place };
        let (broker_config, found) = match making.look(&mut directories, endpoints).await {
            Ok(found) => found,
            Err(error) => {
                // It has threads of its own, which would go on about their end.
                controller.shutdown().await;
                return Err(error);
            }
        };
        place.tidy(&host, host.clock.now_ms() - broker_config.firn.tier_delete_grace_ms);
        let pointers = Arc::new(QuorumPointers::new(handle.clone()));
        let reader = cold::reader(&broker_config, &found.store, &pointers, &host);
        let Found { cluster_id, broker_epoch, partitions, store } = found;
        let tier = cold::start_tier(&broker_config, store, &pointers, &partitions, &host);
        let (applied, applied_seen) = watch::channel(0);
        let groups = GroupHandle::new(
            broker_config.groups.clone(),
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
            remote: reader,
            topic_configs: ArcSwap::from_pointee(settings::topics(&handle.image(), node_id, &server.settings)),
            static_config: server.settings,
            sessions: Sessions::new(broker_config.net.fetch_session_slots),
            decoded_memory: Budget::new(broker_config.firn.request_memory_bytes / 8),
            fetch_memory: Budget::new(broker_config.firn.request_memory_bytes / 4),
            cold_memory: Budget::new(broker_config.firn.request_memory_bytes / 4),
            config: ArcSwap::from_pointee(broker_config),
            applied: applied_seen,
            metrics: Arc::clone(&metrics),
            clock: host.clock,
            entropy: host.entropy,
            spawner: host.spawner,
        });
        let control = Arc::new(NodeControl::new(Arc::clone(&services), tier.clone()));
        let follower = Follower::new(Arc::clone(&services), tier.clone(), handle.watch(), applied);
        let node = Node {
            kafka: addresses,
            http,
            data: server.data_dirs,
            object_store: place.describe().to_owned(),
            control,
            services,
            controller,
            tier,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            _locks: directories.into_locks(),
        };
        node.serve(kafka, follower).await;
        Ok(node)
    }
}

/// What a node is made of until it is known to the quorum.
struct Making<'a> {
    server: &'a ServerConfig,
    controller: &'a ControllerHandle,
    host: &'a Host,
    metrics: &'a Arc<Metrics>,
    place: &'a Place,
}

/// What a start finds on its disks, known to the quorum.
struct Found {
    cluster_id: String,
    broker_epoch: i64,
    partitions: Partitions,
    store: Store,
}

impl Making<'_> {
    async fn look(
        &self,
        directories: &mut Directories,
        endpoints: Vec<Endpoint>,
    ) -> Result<(BrokerConfig, Found), StartError> {
        let (host, server) = (self.host, self.server);
        let node_id = NodeId(server.node_id);
        let cluster_id = form(self.controller, host.entropy.as_ref()).await?;
        let specs = directories.claim(node_id, host.disk.as_ref(), &cluster_id, host.entropy.as_ref()).await?;
        let config = settings::broker(&self.controller.image(), node_id, &server.settings);
        let store = self.place.open(&cluster_id, host, self.metrics, config.firn.disk_reserve_bytes)?;
        let partitions = self.open_partitions(node_id, &config, specs).await?;
        // Only what is open may be given partitions to lead.
        let online = partitions.online_directories();
        let broker_epoch = self.register(endpoints, online).await?;
        Ok((config, Found { cluster_id, broker_epoch, partitions, store }))
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
            clock: Arc::clone(&self.host.clock),
            observer: Arc::new(observe::LogReports::new(Arc::clone(self.metrics))),
            spawner: self.host.spawner.clone(),
        };
        Partitions::open(open).await.map_err(StartError::because)
    }

    async fn register(&self, endpoints: Vec<Endpoint>, directories: Vec<DirectoryId>) -> Result<i64, StartError> {
        let broker = RegisterBroker {
            id: NodeId(self.server.node_id),
            incarnation: self.host.entropy.uuid(),
            endpoints,
            rack: self.server.rack.clone(),
            directories,
            ready: true,
        };
        self.controller.register_broker(broker).await.map_err(StartError::because)
    }
}

/// Gives a new cluster its id; an old one keeps what it has.
async fn form(controller: &ControllerHandle, entropy: &dyn Entropy) -> Result<String, StartError> {
    if let Some(id) = controller.image().cluster_id() {
        return Ok(id.to_owned());
    }
    let cluster_id = proto::ids::TopicId(entropy.uuid()).to_string();
    let features = vec![("metadata.version".to_owned(), 27)];
    controller.form_cluster(FormCluster { cluster_id, features }).await.map_err(StartError::because)
}
