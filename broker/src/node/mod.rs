//! A node: the parts of a broker, made in order, tied together, and ended in the reverse order.

mod control;
mod directories;
mod follow;
mod front;
mod listeners;
mod memory;
mod observe;
mod pointers;
mod room;
pub mod settings;

use crate::api::Listener;
use crate::api::fetch::session::Sessions;
use crate::api::init_producer_id::ProducerIds;
use crate::api::services::Services;
use crate::config::BrokerConfig;
use crate::config::server::ServerConfig;
use crate::disk::{DirectoryLock, Disk, LocalDisk};
use crate::group::GroupHandle;
use crate::metrics::Metrics;
use crate::net::budget::Budget;
use crate::net::connection::Limits;
use crate::net::frame::FrameBudget;
use crate::net::server;
use crate::partition::{DirSpec, Open, Partitions};
use arc_swap::ArcSwap;
use control::NodeControl;
use controller::command::{BrokerState, FormCluster, RegisterBroker, SetBrokerState};
use controller::{ControllerHandle, ControllerNode, NodeConfig};
use directories::Directories;
use follow::Follower;
use front::HttpSide;
use listeners::{Bound, KafkaSocket};
use pointers::QuorumPointers;
use proto::host::{Clock, Entropy, Spawner, SystemClock, SystemEntropy};
use proto::ids::{DirectoryId, Millis, NodeId};
use proto::metadata::Endpoint;
use room::DirectoryRoom;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tiering::bucket::{BucketAdmin, Severity};
use tiering::cache::MokaChunks;
use tiering::reader::{NoRootStore, ReaderSettings, RemoteReader, StoreSource};
use tiering::runner::{self, RunnerConfig, RunnerHandle};
use tiering::store::{AwsSettings, Layout, Location, Store, Timeouts, remove_unfinished};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Why a node did not start, in one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

impl StartError {
    fn because(what: impl std::fmt::Display) -> StartError {
        StartError(what.to_string())
    }
}

/// A running node.
pub struct Node {
    data: Vec<PathBuf>,
    object_store: String,
    kafka: Vec<(String, SocketAddr)>,
    http: HttpSide,
    services: Arc<Services>,
    control: Arc<NodeControl>,
    controller: ControllerNode,
    tier: RunnerHandle,
    stop: CancellationToken,
    tasks: TaskTracker,
    _locks: Vec<DirectoryLock>,
}

impl Node {
    /// Starts every part. When it returns, clients are served; until then the HTTP side says that the node recovers.
    pub async fn start(server: ServerConfig, spawner: Spawner) -> Result<Node, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        // Addresses first: a port that is taken is found before anything is recovered.
        let kafka = listeners::bind_kafka(&server).await?;
        let http = listeners::bind_http(&server).await?;
        let metrics = Arc::new(Metrics::new());
        let http = HttpSide::start(http, &metrics);
        let first =
            server.data_dirs.first().ok_or_else(|| StartError("log.dirs names no directory".to_owned()))?.clone();
        let object_store = match &server.object_store {
            Some(url) => url.clone(),
            None => directory_url(&first.join("bucket"))?,
        };
        Location::parse(&object_store).map_err(StartError::because)?;
        let mut directories = Directories::take(&server.data_dirs)?;
        let node_id = NodeId(server.node_id);
        let disk: Arc<dyn Disk> = Arc::new(LocalDisk::new(spawner.blocking().clone()));
        let config = NodeConfig { dir: first.join("metadata"), node_id };
        directories.survey(&server, disk.as_ref(), &config.dir).await?;
        let (controller, handle) = ControllerNode::start(config, Arc::clone(&clock), &spawner)
            .await
            .map_err(|error| StartError(format!("{}: {error}", first.display())))?;
        let addresses: Vec<_> = kafka.iter().map(|socket| (socket.name.clone(), socket.bound.address)).collect();
        let endpoints = listeners::endpoints(&server.advertised, &addresses, &listeners::machine());
        let host = Host {
            clock: &clock,
            entropy: entropy.as_ref(),
            disk: &disk,
            spawner: &spawner,
            metrics: &metrics,
            object_store: &object_store,
        };
        let found = Found::look(&server, &handle, &mut directories, endpoints, &host).await;
        let (broker_config, Found { cluster_id, broker_epoch, partitions, store }) = match found {
            Ok(found) => found,
            Err(error) => {
                // It has threads of its own, which would go on about their end.
                controller.shutdown().await;
                return Err(error);
            }
        };
        let image = handle.image();
        let pointers = Arc::new(QuorumPointers::new(handle.clone()));
        look_at_bucket(&object_store, &spawner, entropy.uuid())?;
        clear_directory(&object_store, clock.now_ms() - broker_config.firn.tier_delete_grace_ms, &spawner)?;
        let reader = reader(&broker_config, &store, &pointers, &spawner, &entropy);
        let tier = start_tier(&broker_config, store, &pointers, &partitions, &clock, &entropy, &spawner);
        let (applied, applied_seen) = watch::channel(0);
        let groups =
            GroupHandle::new(broker_config.groups.clone(), Arc::clone(&clock), Arc::clone(&entropy), spawner.clone());
        let services = Arc::new(Services {
            node_id,
            cluster_id,
            broker_epoch,
            producer_ids: ProducerIds::new(handle.clone(), node_id, broker_epoch),
            controller: handle.clone(),
            partitions,
            groups,
            remote: reader,
            topic_configs: ArcSwap::from_pointee(settings::topics(&image, node_id, &server.settings)),
            static_config: server.settings,
            sessions: Sessions::new(broker_config.net.fetch_session_slots),
            decoded_memory: Budget::new(broker_config.firn.request_memory_bytes / 8),
            fetch_memory: Budget::new(broker_config.firn.request_memory_bytes / 4),
            cold_memory: Budget::new(broker_config.firn.request_memory_bytes / 4),
            config: ArcSwap::from_pointee(broker_config),
            applied: applied_seen,
            metrics: Arc::clone(&metrics),
            clock,
            entropy,
            spawner,
        });
        let control = Arc::new(NodeControl::new(Arc::clone(&services), tier.clone()));
        let follower = Follower::new(Arc::clone(&services), tier.clone(), handle.watch(), applied);
        let node = Node {
            kafka: addresses,
            http,
            data: server.data_dirs,
            object_store,
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

    async fn serve(&self, kafka: Vec<KafkaSocket>, mut follower: Follower) {
        let config = self.services.config.load();
        // The rest is for what they are decoded to, for members of groups, and for answers.
        let requests = FrameBudget::new(config.firn.request_memory_bytes / 4);
        observe::install(&self.services, requests.all(), &self.tier);
        let limits = Limits {
            max_frame_bytes: config.net.socket_request_max_bytes,
            idle: match u64::try_from(config.net.connections_max_idle_ms) {
                Ok(ms) if ms > 0 => Duration::from_millis(ms),
                // -1 stands for never.
                _ => Duration::from_secs(u64::from(u32::MAX)),
            },
            requests,
        };
        follower.drop_strays(&self.services.controller.image()).await;
        follower.catch_up().await;
        self.tasks.spawn(follower.run());
        self.tasks.spawn(report_directories(Arc::clone(&self.services), self.stop.clone()));
        let open = Arc::new(server::Open::default());
        for KafkaSocket { name, bound: Bound { socket, .. } } in kafka {
            let listener = Arc::new(Listener::new(Arc::clone(&self.services), &name));
            self.tasks.spawn(server::run(socket, listener, Arc::clone(&open), limits.clone(), self.stop.clone()));
        }
        self.http.serving(Arc::clone(&self.control));
    }

    /// Resolves when the node cannot go on by itself, with the reason.
    pub async fn failed(&self) -> String {
        tokio::select! {
            reason = self.controller.ended() => format!("the metadata quorum ended: {reason}"),
            reason = self.services.partitions.all_failed() => reason,
        }
    }

    /// Stops serving, syncs and checkpoints every log, and ends the quorum.
    pub async fn shutdown(self) {
        self.http.shutting_down();
        self.stop.cancel();
        self.tier.stop().await;
        for partition in self.services.groups.led() {
            self.services.groups.resigned(partition);
        }
        if let Err(error) = self.services.partitions.close().await {
            tracing::error!(%error, "a log could not be closed cleanly; it recovers at the next start");
        }
        self.controller.shutdown().await;
        self.tasks.close();
        self.tasks.wait().await;
        self.http.end().await;
    }

    /// Where Kafka clients connect: the name of each listener, and where it listens, at least one.
    pub fn kafka_addresses(&self) -> &[(String, SocketAddr)] {
        &self.kafka
    }

    /// Where metrics and health are served; nowhere, if so configured.
    pub fn http_addresses(&self) -> &[SocketAddr] {
        self.http.addresses()
    }

    /// Where records are kept, for a person.
    pub fn data(&self) -> String {
        let dirs: Vec<String> = self.data.iter().map(|dir| dir.display().to_string()).collect();
        dirs.join(", ")
    }

    /// Where cold records are kept, for a person.
    pub fn object_store(&self) -> &str {
        &self.object_store
    }

    /// What handlers call, for tests of theirs that need no connection.
    #[cfg(test)]
    pub(crate) fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// What the HTTP side asks.
    pub fn control(&self) -> &NodeControl {
        &self.control
    }
}

/// What a start works with.
struct Host<'a> {
    clock: &'a Arc<dyn Clock>,
    entropy: &'a dyn Entropy,
    disk: &'a Arc<dyn Disk>,
    spawner: &'a Spawner,
    metrics: &'a Arc<Metrics>,
    object_store: &'a str,
}

/// What a start finds on its disks, known to the quorum.
struct Found {
    cluster_id: String,
    broker_epoch: i64,
    partitions: Partitions,
    store: Store,
}

impl Found {
    async fn look(
        server: &ServerConfig,
        controller: &ControllerHandle,
        directories: &mut Directories,
        endpoints: Vec<Endpoint>,
        host: &Host<'_>,
    ) -> Result<(BrokerConfig, Found), StartError> {
        let node_id = NodeId(server.node_id);
        let cluster_id = form(controller, host.entropy).await?;
        let specs = directories.claim(node_id, host.disk.as_ref(), &cluster_id, host.entropy).await?;
        let config = settings::broker(&controller.image(), node_id, &server.settings);
        let store =
            open_store(host.object_store, &cluster_id, host.metrics, (host.disk, config.firn.disk_reserve_bytes))?;
        let partitions = open_partitions(node_id, &config, specs, host).await?;
        // Only what is open may be given partitions to lead.
        let online = partitions.online_directories();
        let broker_epoch = register(server, controller, endpoints, online, host.entropy).await?;
        Ok((config, Found { cluster_id, broker_epoch, partitions, store }))
    }
}

fn directory_url(path: &Path) -> Result<String, StartError> {
    let url = url::Url::from_file_path(path);
    url.map(String::from).map_err(|()| StartError(format!("{} is not an absolute path", path.display())))
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

async fn register(
    server: &ServerConfig,
    controller: &ControllerHandle,
    endpoints: Vec<Endpoint>,
    directories: Vec<DirectoryId>,
    entropy: &dyn Entropy,
) -> Result<i64, StartError> {
    let broker = RegisterBroker {
        id: NodeId(server.node_id),
        incarnation: entropy.uuid(),
        endpoints,
        rack: server.rack.clone(),
        directories,
        ready: true,
    };
    controller.register_broker(broker).await.map_err(StartError::because)
}

/// After this, a failed data directory is reported again if the controller could not be told.
const REPORT_AGAIN: Duration = Duration::from_secs(1);

/// Tells the controller which data directories are left when one fails: nobody leads what lies in it (KIP-858).
async fn report_directories(services: Arc<Services>, stop: CancellationToken) {
    let mut failures = services.partitions.directory_failures();
    loop {
        failures.mark_unchanged();
        let online = services.partitions.online_directories();
        let image = services.controller.image();
        let mut told = image.broker(services.node_id).is_some_and(|broker| broker.directories == online);
        if !told {
            let state = SetBrokerState {
                id: services.node_id,
                broker_epoch: services.broker_epoch,
                state: BrokerState::Active,
                directories: Some(online),
            };
            let outcome = services.controller.set_broker_state(state).await;
            told = outcome.is_ok();
            if let Err(error) = outcome {
                tracing::error!(%error, "the controller does not know of a failed data directory yet");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(REPORT_AGAIN), if !told => {}
            changed = failures.changed() => if changed.is_err() { return },
        }
    }
}

fn open_store(
    url: &str,
    cluster_id: &str,
    metrics: &Arc<Metrics>,
    (disk, reserve_bytes): (&Arc<dyn Disk>, u64),
) -> Result<Store, StartError> {
    let location = Location::parse(url).map_err(StartError::because)?;
    let timeouts = Timeouts::default();
    let client = location.open(std::env::vars(), timeouts).map_err(StartError::because)?;
    let layout = Layout::new(location.prefix(), cluster_id);
    let store = Store::new(client, layout, timeouts, Arc::new(observe::StoreReports::new(Arc::clone(metrics))));
    Ok(match location {
        Location::Directory(directory) => {
            store.within(Arc::new(DirectoryRoom { disk: Arc::clone(disk), directory, reserve_bytes }))
        }
        Location::Memory | Location::S3 { .. } => store,
    })
}

/// Says what is wrong with an S3 bucket, beside the start: hot records do not wait for the object store (ISOLATED).
fn look_at_bucket(url: &str, spawner: &Spawner, probe: uuid::Uuid) -> Result<(), StartError> {
    if let Location::S3 { bucket, prefix } = Location::parse(url).map_err(StartError::because)? {
        let aws = AwsSettings::from_env(std::env::vars());
        spawner.spawn_cold(async move {
            for finding in BucketAdmin::connect(&bucket, &prefix, aws).await.check(probe).await {
                match finding.severity {
                    Severity::Fine | Severity::Note => tracing::info!(%bucket, "{finding}"),
                    Severity::Warning => tracing::warn!(%bucket, "{finding}"),
                    Severity::Broken => tracing::error!(%bucket, "{finding}"),
                }
            }
        });
    }
    Ok(())
}

/// Removes what uploads into a local directory left when their process was killed before `before`, beside the start.
fn clear_directory(url: &str, before: Millis, spawner: &Spawner) -> Result<(), StartError> {
    if let Location::Directory(root) = Location::parse(url).map_err(StartError::because)? {
        let before = UNIX_EPOCH + Duration::from_millis(u64::try_from(before).unwrap_or(0));
        let clear = move || match remove_unfinished(&root, before) {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, root = %root.display(), "removed unfinished uploads"),
            Err(error) => tracing::warn!(%error, root = %root.display(), "unfinished uploads may be left"),
        };
        // On threads of the cold runtime: it may hang.
        spawner.spawn_cold(async move { drop(tokio::task::spawn_blocking(clear).await) });
    }
    Ok(())
}

fn reader(
    config: &BrokerConfig,
    store: &Store,
    pointers: &Arc<QuorumPointers>,
    spawner: &Spawner,
    entropy: &Arc<dyn Entropy>,
) -> RemoteReader {
    let settings = ReaderSettings {
        window_budget: config.firn.remote_read_bytes as u64,
        max_gets: config.firn.remote_gets,
        index_bytes: config.firn.index_bytes as u64,
        pool_bytes: config.firn.index_bytes as u64,
        ..ReaderSettings::default()
    };
    let parts = tiering::reader::Parts {
        source: Arc::new(StoreSource::new(store.clone())),
        cache: Arc::new(MokaChunks::new(config.firn.chunk_cache_bytes as u64)),
        roots: Arc::new(NoRootStore),
        pointers: Arc::clone(pointers) as _,
        spawner: spawner.clone(),
        entropy: Arc::clone(entropy),
    };
    RemoteReader::new(settings, parts)
}

async fn open_partitions(
    node: NodeId,
    config: &BrokerConfig,
    dirs: Vec<DirSpec>,
    host: &Host<'_>,
) -> Result<Partitions, StartError> {
    let (journal, dir) = memory::shares(&config.firn, dirs.len());
    let open = Open {
        node,
        disk: Arc::clone(host.disk),
        dirs,
        journal,
        dir,
        clock: Arc::clone(host.clock),
        observer: Arc::new(observe::LogReports::new(Arc::clone(host.metrics))),
        spawner: host.spawner.clone(),
    };
    Partitions::open(open).await.map_err(StartError::because)
}

fn start_tier(
    config: &BrokerConfig,
    store: Store,
    pointers: &Arc<QuorumPointers>,
    partitions: &Partitions,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
    spawner: &Spawner,
) -> RunnerHandle {
    let settings = RunnerConfig {
        partitions_at_once: config.firn.tier_uploads,
        upload_budget_bytes: config.firn.upload_bytes as u64,
        // Two at a time: one is read while the other is sent.
        max_object_bytes: config.firn.upload_bytes as u64 / 2,
        tick: Duration::from_millis(config.firn.tier_check_interval_ms.unsigned_abs()),
        retention_check_ms: config.retention_check_interval_ms,
        grace_ms: config.firn.tier_delete_grace_ms,
        manifest_cache_bytes: config.firn.index_bytes as u64,
        ..RunnerConfig::default()
    };
    let parts = runner::Parts {
        store,
        pointers: Arc::clone(pointers) as _,
        locals: Arc::new(partitions.clone()),
        clock: Arc::clone(clock),
        entropy: Arc::clone(entropy),
    };
    runner::start(settings, parts, spawner)
}
