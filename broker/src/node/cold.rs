//! The parts of a node that settle records in the object store and read them back.

use super::StartError;
use super::directories::Noted;
use super::host::{Host, Objects};
use super::observe;
use super::pointers::QuorumPointers;
use super::room::DirectoryRoom;
use crate::config::BrokerConfig;
use crate::disk::Disk;
use crate::disk::meta::OWN_BUCKET;
use crate::metrics::Metrics;
use crate::partition::Partitions;
use object_store::ObjectStore;
use proto::host::Spawner;
use proto::ids::Millis;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tiering::bucket::{BucketAdmin, Severity};
use tiering::cache::MokaChunks;
use tiering::reader::{NoRootStore, ReaderSettings, RemoteReader, StoreSource};
use tiering::runner::{self, RunnerConfig, RunnerHandle};
use tiering::store::{AwsSettings, Layout, Location, Store, Timeouts, remove_unfinished};

/// Where a node's cold records lie.
pub(super) enum Place {
    At { url: String, location: Location },
    Given(Arc<dyn ObjectStore>),
}

impl Place {
    /// The place that `url` names, else the folder `bucket` in `first`, unless the host gives one.
    pub(super) fn find(objects: &Objects, url: Option<&String>, first: &Path) -> Result<Place, StartError> {
        let url = match (objects, url) {
            (Objects::Given(store), _) => return Ok(Place::Given(Arc::clone(store))),
            (Objects::Configured, Some(url)) => url.clone(),
            (Objects::Configured, None) => directory_url(&first.join(OWN_BUCKET))?,
        };
        let location = Location::parse(&url).map_err(StartError::because)?;
        Ok(Place::At { url, location })
    }

    /// What data directories note of it, of which `first` is the first. Nothing where the host gives it.
    pub(super) async fn noted(&self, cluster_id: &str, disk: &dyn Disk, first: &Path) -> Option<Noted> {
        let Place::At { location, .. } = self else { return None };
        let holds_records = match location {
            // A directory that was moved, with all that is in it.
            Location::Directory(path) => disk.list(&path.join(cluster_id)).await.is_ok(),
            Location::Memory | Location::S3 { .. } => false,
        };
        // The default goes where its data directory goes.
        let is_default = matches!(location, Location::Directory(path) if *path == first.join(OWN_BUCKET));
        let url = if is_default { OWN_BUCKET.to_owned() } else { location.to_string() };
        Some(Noted { url, holds_records })
    }

    /// The place, for a person.
    pub(super) fn describe(&self) -> &str {
        match self {
            Place::At { url, .. } => url,
            Place::Given(_) => "a store of the process",
        }
    }

    /// Opens it for one cluster. Where it is a directory of this machine, uploads keep off the last `reserve_bytes`.
    pub(super) fn open(
        &self,
        cluster_id: &str,
        host: &Host,
        metrics: &Arc<Metrics>,
        reserve_bytes: u64,
    ) -> Result<Store, StartError> {
        let timeouts = Timeouts::default();
        let reports = Arc::new(observe::StoreReports::new(Arc::clone(metrics)));
        let location = match self {
            Place::Given(client) => {
                return Ok(Store::new(Arc::clone(client), Layout::new("", cluster_id), timeouts, reports));
            }
            Place::At { location, .. } => location,
        };
        let client = location.open(std::env::vars(), timeouts).map_err(StartError::because)?;
        let store = Store::new(client, Layout::new(location.prefix(), cluster_id), timeouts, reports);
        Ok(match location.clone() {
            Location::Directory(directory) => {
                store.within(Arc::new(DirectoryRoom { disk: Arc::clone(&host.disk), directory, reserve_bytes }))
            }
            Location::Memory | Location::S3 { .. } => store,
        })
    }

    /// Looks after the place beside the start, as hot records do not wait for the object store (ISOLATED): says what is
    /// wrong with an S3 bucket, and removes what uploads into a directory left when their process was killed before
    /// `before`.
    pub(super) fn tidy(&self, host: &Host, before: Millis) {
        match self {
            Place::At { location: Location::S3 { bucket, prefix }, .. } => {
                look_at_bucket(bucket.clone(), prefix.clone(), &host.spawner, host.entropy.uuid());
            }
            Place::At { location: Location::Directory(root), .. } => {
                clear_directory(root.clone(), before, &host.spawner);
            }
            Place::At { location: Location::Memory, .. } | Place::Given(_) => {}
        }
    }
}

fn directory_url(path: &Path) -> Result<String, StartError> {
    let url = url::Url::from_file_path(path);
    url.map(String::from).map_err(|()| StartError(format!("{} is not an absolute path", path.display())))
}

fn look_at_bucket(bucket: String, prefix: String, spawner: &Spawner, probe: uuid::Uuid) {
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

fn clear_directory(root: PathBuf, before: Millis, spawner: &Spawner) {
    let before = UNIX_EPOCH + Duration::from_millis(u64::try_from(before).unwrap_or(0));
    let clear = move || match remove_unfinished(&root, before) {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, root = %root.display(), "removed unfinished uploads"),
        Err(error) => tracing::warn!(%error, root = %root.display(), "unfinished uploads may be left"),
    };
    // On threads of the cold runtime: it may hang.
    spawner.spawn_cold(async move { drop(tokio::task::spawn_blocking(clear).await) });
}

/// Reads cold records.
pub(super) fn reader(
    config: &BrokerConfig,
    store: &Store,
    pointers: &Arc<QuorumPointers>,
    host: &Host,
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
        spawner: host.spawner.clone(),
        entropy: Arc::clone(&host.entropy),
    };
    RemoteReader::new(settings, parts)
}

/// Settles records of the partitions that this node leads.
pub(super) fn start_tier(
    config: &BrokerConfig,
    store: Store,
    pointers: &Arc<QuorumPointers>,
    partitions: &Partitions,
    host: &Host,
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
        clock: Arc::clone(&host.clock),
        entropy: Arc::clone(&host.entropy),
    };
    runner::start(settings, parts, &host.spawner)
}
