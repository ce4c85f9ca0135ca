//! All partitions of this broker, and the data directories they lie in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use proto::host::{Clock, Spawner};
use proto::ids::{DirectoryId, NodeId, TopicPartition};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::core::{Core, Restored};
use super::handle::PartitionHandle;
use super::isr::{self, IsrAuthority, Outbox};
use super::shared::Shared;
use super::space::{Refusal, refused};
use crate::disk::Disk;
use crate::journal;
use crate::log::config::LogConfig;
use crate::log::dir::{DirConfig, DirOffline, LogDir};
use crate::log::life::{Life, Stop};
use crate::log::observer::Observer;
use crate::log::recovery::{self, Found, RecoveryError};
use crate::log::writer::Writer;

/// How often free space is looked at.
const SPACE_EVERY: Duration = Duration::from_secs(1);
/// Retention is looked at once in so many looks at free space.
const RETENTION_EVERY: u32 = 15;

/// A data directory to open.
#[derive(Debug, Clone)]
pub struct DirSpec {
    /// Its id, as its `meta.json` says.
    pub id: DirectoryId,
    /// Where it is.
    pub path: PathBuf,
    /// Why it cannot even be looked at: it is offline from the beginning.
    pub broken: Option<String>,
}

/// What [`Partitions::open`] needs.
pub struct Open {
    /// This broker.
    pub node: NodeId,
    /// The disk of all directories.
    pub disk: Arc<dyn Disk>,
    /// The directories (`log.dirs`).
    pub dirs: Vec<DirSpec>,
    /// Sizes of each journal.
    pub journal: journal::Config,
    /// Sizes of each directory's memory.
    pub dir: DirConfig,
    /// The boot of this machine, as it says; empty if it does not.
    pub boot: String,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Who counts what happens in all of them.
    pub observer: Arc<dyn Observer>,
    /// Where writers and duties run.
    pub spawner: Spawner,
}

/// Why nothing was opened.
#[derive(Debug, thiserror::Error)]
pub enum NoDirectory {
    /// None of the directories could be opened: the first one's reason.
    #[error("no data directory could be opened: {0}")]
    None(#[source] RecoveryError),
    /// Which of two logs is the partition's is not for us to say.
    #[error(
        "partition {tp} lies in both {} and {}: move one of the two folders away, the one that ends earlier as a rule",
        one.display(), other.display()
    )]
    Twice {
        /// The partition.
        tp: TopicPartition,
        /// One directory.
        one: PathBuf,
        /// The other.
        other: PathBuf,
    },
}

/// What a directory holds, for DescribeLogDirs.
#[derive(Debug)]
pub struct Directory {
    /// Its id.
    pub id: DirectoryId,
    /// Where it is.
    pub path: String,
    /// Whether it has not failed.
    pub online: bool,
    /// What lies in it.
    pub partitions: Vec<PartitionHandle>,
    /// Size of its file system in bytes, if known.
    pub total_bytes: Option<u64>,
    /// What may still be written there, in bytes, if known.
    pub usable_bytes: Option<u64>,
}

/// The partitions of this broker. Cheap to clone.
#[derive(Clone)]
pub struct Partitions {
    shared: Arc<Registry>,
}

/// The partitions of a broker, as long as somebody else holds them.
#[derive(Clone)]
pub struct WeakPartitions(Weak<Registry>);

impl WeakPartitions {
    /// The partitions; none once the broker has ended.
    pub fn upgrade(&self) -> Option<Partitions> {
        Some(Partitions { shared: self.0.upgrade()? })
    }
}

struct Registry {
    node: NodeId,
    dirs: Vec<Arc<LogDir>>,
    journal_bytes: u64,
    partitions: RwLock<BTreeMap<TopicPartition, PartitionHandle>>,
    /// Removed partitions whose files are not gone yet.
    leaving: Mutex<BTreeMap<TopicPartition, CancellationToken>>,
    writers: Mutex<Vec<(Arc<LogDir>, JoinHandle<()>)>>,
    /// Proposals for the controller.
    outbox: Arc<Outbox>,
    boot: String,
    /// How the last life of the directories ended.
    stop: Stop,
    /// Epoch of this broker's registration, -1 before it.
    broker_epoch: AtomicI64,
    duties: Mutex<Vec<JoinHandle<()>>>,
    /// Directories that have not failed.
    online: watch::Sender<usize>,
}

impl Partitions {
    /// Opens all directories, side by side, and recovers what lies in them. One that cannot be opened is taken
    /// offline, with its partitions; the others go on.
    ///
    /// # Errors
    /// If none can be opened.
    pub async fn open(open: Open) -> Result<Self, NoDirectory> {
        let opening = open.dirs.iter().map(|spec| {
            let dir = LogDir::new(
                spec.id,
                spec.path.clone(),
                Arc::clone(&open.disk),
                Arc::clone(&open.clock),
                Arc::clone(&open.observer),
                open.dir.clone(),
            );
            let journal = open.journal.clone();
            let boot = &open.boot;
            async move {
                if let Some(cause) = &spec.broken {
                    dir.fail(cause.clone());
                    return (dir, None);
                }
                let opened = recovery::open(&dir, journal, boot).await;
                (dir, Some(opened))
            }
        });
        let mut dirs = Vec::new();
        let mut opened = Vec::new();
        let mut first_error = None;
        for (dir, outcome) in futures::future::join_all(opening).await {
            match outcome {
                Some(Ok(found)) => opened.push((Arc::clone(&dir), found)),
                Some(Err(error)) => {
                    dir.fail(error.to_string());
                    first_error.get_or_insert(error);
                }
                None => {}
            }
            dirs.push(dir);
        }
        if let (true, Some(error)) = (opened.is_empty(), first_error) {
            return Err(NoDirectory::None(error));
        }
        once_each(&opened)?;
        let registry = Arc::new(Registry {
            node: open.node,
            dirs,
            journal_bytes: open.journal.max_bytes,
            partitions: RwLock::default(),
            leaving: Mutex::default(),
            writers: Mutex::default(),
            outbox: Outbox::new(),
            boot: open.boot,
            stop: opened.iter().map(|(_, found)| found.stop).fold(Stop::Clean(-1), Stop::worst),
            broker_epoch: AtomicI64::new(-1),
            duties: Mutex::default(),
            online: watch::Sender::new(opened.len()),
        });
        for (dir, found) in opened {
            let replayed = found.replayed;
            tracing::info!(directory = %dir.path().display(), partitions = found.partitions.len(), replayed, "opened");
            for partition in found.partitions {
                registry.adopt(&dir, partition);
            }
            registry.start_writer(&dir, Writer::new(Arc::clone(&dir), found.checkpoint), &open.spawner);
        }
        let weak = Arc::downgrade(&registry);
        let clock = open.clock;
        let duties = open.spawner.spawn_hot(async move {
            let mut round = 0u32;
            while let Some(registry) = weak.upgrade() {
                registry.watch_space().await;
                registry.look_at_lag();
                if round.is_multiple_of(RETENTION_EVERY) {
                    registry.trim(clock.now_ms());
                }
                round = round.wrapping_add(1);
                drop(registry);
                tokio::time::sleep(SPACE_EVERY).await;
            }
        });
        registry.duties.lock().push(duties);
        Ok(Self { shared: registry })
    }

    /// How the last life of the data directories ended; those that are offline do not count.
    pub fn last_stop(&self) -> Stop {
        self.shared.stop
    }

    /// This broker is registered under `broker_epoch`: a clean stop will say so.
    pub fn registered(&self, broker_epoch: i64) {
        self.shared.broker_epoch.store(broker_epoch, Ordering::Relaxed);
    }

    /// Lets leaders propose changes of who is in sync to `authority`, until the close. Before that proposals wait.
    pub fn propose_to(&self, authority: Arc<dyn IsrAuthority>, spawner: &Spawner) {
        let registry = Arc::downgrade(&self.shared);
        let find = move |tp| registry.upgrade()?.partitions.read().get(&tp).cloned();
        let run = isr::run(Arc::clone(&self.shared.outbox), find, authority);
        self.shared.duties.lock().push(spawner.spawn_hot(run));
    }

    /// For somebody who only looks on.
    pub fn downgrade(&self) -> WeakPartitions {
        WeakPartitions(Arc::downgrade(&self.shared))
    }

    /// A partition, if this broker has it.
    pub fn get(&self, tp: TopicPartition) -> Option<PartitionHandle> {
        self.shared.partitions.read().get(&tp).cloned()
    }

    /// All partitions, those found on disk at start included, ascending.
    pub fn all(&self) -> Vec<PartitionHandle> {
        self.shared.partitions.read().values().cloned().collect()
    }

    /// What ends once the former files of a partition that was removed are gone, while they are not: nothing can be made in
    /// their place before ([`Partitions::create`]).
    pub fn leaving(&self, tp: TopicPartition) -> Option<CancellationToken> {
        self.shared.leaving.lock().get(&tp).filter(|left| !left.is_cancelled()).cloned()
    }

    /// The partition, made if it is not here: in `directory`, or, if none is named, in the one with the fewest
    /// partitions. Nothing is written before the first record. One that was removed comes again once its former
    /// files are gone: waits for that.
    ///
    /// # Errors
    /// If the directory it lies in is offline, or not here: what was acknowledged may be in it, so it is not begun
    /// anew elsewhere.
    pub async fn create(
        &self,
        tp: TopicPartition,
        topic: &str,
        directory: DirectoryId,
        config: LogConfig,
    ) -> Result<PartitionHandle, DirOffline> {
        let leaving = self.shared.leaving.lock().get(&tp).cloned();
        if let Some(leaving) = leaving {
            leaving.cancelled().await;
        }
        let mut partitions = self.shared.partitions.write();
        if let Some(known) = partitions.get(&tp) {
            if known.dir().is_offline() {
                return Err(known.dir().offline());
            }
            known.configure(config);
            known.name(topic);
            return Ok(known.clone());
        }
        let dir = self.shared.choose(directory, &partitions)?;
        let log = Restored::empty(0, dir.now_ms(), &config);
        let core = Core::new(self.shared.node, config, log);
        let shared = Shared::new(tp, topic.into(), Arc::clone(&dir), core, Arc::clone(&self.shared.outbox));
        dir.join(&shared);
        let handle = PartitionHandle::new(shared);
        partitions.insert(tp, handle.clone());
        Ok(handle)
    }

    /// The partition leaves this broker; its files go in the background.
    pub async fn remove(&self, tp: TopicPartition) {
        let mut partitions = self.shared.partitions.write();
        if let Some(partition) = partitions.remove(&tp) {
            partition.remove();
            let mut leaving = self.shared.leaving.lock();
            leaving.retain(|_, left| !left.is_cancelled());
            leaving.insert(tp, partition.shared.left.clone());
        }
    }

    /// The data directories and what lies in them.
    pub async fn directories(&self) -> Vec<Directory> {
        let all = self.all();
        let of = |dir: &Arc<LogDir>| {
            let partitions = all.iter().filter(|partition| Arc::ptr_eq(partition.dir(), dir)).cloned().collect();
            Directory {
                id: dir.id(),
                path: dir.path().display().to_string(),
                online: !dir.is_offline(),
                partitions,
                total_bytes: dir.space().map(|space| space.total),
                usable_bytes: dir.space().map(|space| space.free),
            }
        };
        self.shared.dirs.iter().map(of).collect()
    }

    /// The data directories.
    pub fn dirs(&self) -> &[Arc<LogDir>] {
        &self.shared.dirs
    }

    /// Those that have not failed.
    pub fn online_directories(&self) -> Vec<DirectoryId> {
        self.shared.dirs.iter().filter(|dir| !dir.is_offline()).map(|dir| dir.id()).collect()
    }

    /// Changes whenever a directory fails.
    pub fn directory_failures(&self) -> watch::Receiver<usize> {
        self.shared.online.subscribe()
    }

    /// Whether every directory has failed.
    pub fn all_offline(&self) -> bool {
        self.shared.dirs.iter().all(|dir| dir.is_offline())
    }

    /// Resolves once every directory has failed, with the reasons: nothing is left to serve.
    pub async fn all_failed(&self) -> String {
        let mut online = self.shared.online.subscribe();
        // The sender lives as long as we do.
        let _ = online.wait_for(|online| *online == 0).await;
        let reasons: Vec<String> = self.shared.dirs.iter().map(|dir| dir.offline().to_string()).collect();
        reasons.join("; ")
    }

    /// Takes no more records, settles everything and stores checkpoints, so that the next start has nothing to
    /// repeat, and knows that ([`Partitions::last_stop`]).
    ///
    /// # Errors
    /// The first directory that could not be closed; it recovers at the next start.
    pub async fn close(&self) -> Result<(), DirOffline> {
        for duty in self.shared.duties.lock().drain(..) {
            duty.abort();
        }
        let writers = std::mem::take(&mut *self.shared.writers.lock());
        let closing = writers.into_iter().map(|(dir, writer)| async move {
            let journal = dir.journal()?.clone();
            dir.begin_close();
            if let Err(offline) = journal.close().await {
                dir.fail(offline.cause.to_string());
            }
            dir.inbox.lock().close = true;
            dir.work.notify_one();
            if writer.await.is_err() {
                dir.fail("its writer ended early");
            }
            if dir.is_offline() {
                return Err(dir.offline());
            }
            let broker_epoch = self.shared.broker_epoch.load(Ordering::Relaxed);
            if let Err(error) = Life::end(&**dir.disk(), dir.path(), &self.shared.boot, broker_epoch).await {
                let directory = dir.path().display();
                tracing::warn!(%directory, %error, "closed, but the next start will not know that");
            }
            Ok(())
        });
        futures::future::join_all(closing).await.into_iter().collect()
    }
}

/// Refuses a partition that was found in two directories.
fn once_each(opened: &[(Arc<LogDir>, recovery::Opened)]) -> Result<(), NoDirectory> {
    let mut places = BTreeMap::new();
    for (dir, found) in opened {
        for partition in &found.partitions {
            if let Some(other) = places.insert(partition.tp, dir.path()) {
                let (one, other) = (other.to_owned(), dir.path().to_owned());
                return Err(NoDirectory::Twice { tp: partition.tp, one, other });
            }
        }
    }
    Ok(())
}

impl Registry {
    /// Takes in a partition that was found on disk. Its settings come with the image.
    fn adopt(&self, dir: &Arc<LogDir>, found: Found) {
        let topic = found.topic.unwrap_or_default();
        let core = Core::new(self.node, LogConfig::default(), found.log);
        let shared = Shared::new(found.tp, topic.into(), Arc::clone(dir), core, Arc::clone(&self.outbox));
        {
            let mut inner = shared.inner.lock();
            inner.described = found.described;
            inner.processed_lsn = found.lsn;
        }
        dir.join(&shared);
        self.partitions.write().insert(found.tp, PartitionHandle::new(shared));
    }

    fn start_writer(self: &Arc<Self>, dir: &Arc<LogDir>, writer: Writer, spawner: &Spawner) {
        let weak = Arc::downgrade(self);
        let failed = Arc::clone(dir);
        let task = spawner.spawn_hot(async move {
            writer.run().await;
            if failed.is_offline()
                && let Some(registry) = weak.upgrade()
            {
                registry.online.send_modify(|online| *online -= 1);
            }
        });
        self.writers.lock().push((Arc::clone(dir), task));
    }

    fn choose(
        &self,
        directory: DirectoryId,
        partitions: &BTreeMap<TopicPartition, PartitionHandle>,
    ) -> Result<Arc<LogDir>, DirOffline> {
        let online = |dir: &&Arc<LogDir>| !dir.is_offline();
        let offline = |dir: Option<&Arc<LogDir>>| match dir {
            Some(dir) => dir.offline(),
            None => DirOffline { path: directory.to_string().into(), cause: "log.dirs names none of this id".into() },
        };
        if directory != DirectoryId::UNASSIGNED {
            let assigned = self.dirs.iter().find(|dir| dir.id() == directory);
            return assigned.filter(online).cloned().ok_or_else(|| offline(assigned));
        }
        let count =
            |dir: &&Arc<LogDir>| partitions.values().filter(|partition| Arc::ptr_eq(partition.dir(), dir)).count();
        let fewest = self.dirs.iter().filter(online).min_by_key(count);
        fewest.cloned().ok_or_else(|| offline(self.dirs.first()))
    }

    fn trim(&self, now_ms: i64) {
        let all: Vec<PartitionHandle> = self.partitions.read().values().cloned().collect();
        for partition in all {
            partition.trim(now_ms);
        }
    }

    /// Looks at who lags behind in the partitions that are led here.
    fn look_at_lag(&self) {
        let all: Vec<PartitionHandle> = self.partitions.read().values().cloned().collect();
        for partition in all {
            partition.look_at_lag();
        }
    }

    /// Looks at free space, and refuses appends where it runs out.
    async fn watch_space(&self) {
        for dir in self.dirs.iter().filter(|dir| !dir.is_offline()) {
            let Ok(space) = dir.disk().space(dir.path()).await else {
                continue;
            };
            let journal_left =
                dir.journal().map_or(0, |journal| self.journal_bytes.saturating_sub(journal.usage().file_bytes));
            let all: Vec<PartitionHandle> = self.partitions.read().values().cloned().collect();
            let here: Vec<PartitionHandle> =
                all.into_iter().filter(|partition| Arc::ptr_eq(partition.dir(), dir)).collect();
            let reserved = journal_left.saturating_add(dir.config().reserve_bytes);
            let free = space.free.saturating_sub(dir.owed_bytes());
            let refusal = if free > reserved.saturating_mul(2) {
                Refusal::None
            } else {
                let sizes: Vec<_> =
                    here.iter().map(|partition| (partition.tp(), partition.untrimmable_bytes())).collect();
                refused(free, reserved, &sizes)
            };
            let (was_full, full) = (dir.is_full(), refusal == Refusal::All);
            if full != was_full {
                tracing::warn!(directory = %dir.path().display(), free_bytes = space.free, full, "free space");
            }
            dir.set_space(space, free.saturating_sub(reserved));
            for partition in &here {
                partition.refuse(matches!(&refusal, Refusal::Some(some) if some.contains(&partition.tp())));
            }
        }
    }
}
