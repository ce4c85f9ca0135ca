//! A node's part in the metadata quorum: its only voter, one of several, or none that follows theirs.

use super::StartError;
use super::directories::METADATA;
use super::host::Host;
use super::listeners;
use crate::config::server::ServerConfig;
use crate::config::{BrokerConfig, BrokerLayers, ClusterConfig, Flush, internal};
use crate::disk::meta::Meta;
use controller::command::FormCluster;
use controller::duties::Settings;
use controller::session::Timing;
use controller::{
    ControllerHandle, ControllerNode, FollowConfig, Machine, MemberConfig, NodeConfig, Policy, SubmitError, Timings,
};
use proto::ids::NodeId;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often one is told what a start waits for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a controller may take to say whether it knows this node.
const GREETING: Duration = Duration::from_secs(1);
/// Between two looks at whether the quorum is there.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What runs of the quorum in this process.
pub(super) enum Part {
    Member(ControllerNode),
    Follower(controller::Follower),
}

impl Part {
    /// Returns when it cannot go on by itself, with the reason.
    pub(super) async fn ended(&self) -> String {
        match self {
            Part::Member(member) => member.ended().await,
            Part::Follower(_) => std::future::pending().await,
        }
    }

    /// Lets another voter lead, if this one does.
    pub(super) async fn hand_over(&self) {
        if let Part::Member(member) = self {
            member.hand_over().await;
        }
    }

    /// Ends it.
    pub(super) async fn shutdown(self) {
        match self {
            Part::Member(member) => member.shutdown().await,
            Part::Follower(follower) => follower.shutdown().await,
        }
    }
}

/// A part in the quorum, and what it takes to know the cluster's id.
pub(super) struct Joined {
    pub(super) part: Part,
    pub(super) handle: ControllerHandle,
    /// The id that the data directories were made for.
    cluster_id: Option<String>,
    /// Whether the cluster has, or may have, other nodes.
    pub(super) shared: bool,
    /// Which id this node has, and where it keeps its metadata.
    who: String,
    /// The controllers that it was told of.
    controllers: Vec<String>,
    /// How long they may take to be there. A controller waits for ever: the others may be waiting for it.
    patience: Option<Duration>,
}

/// Starts this node's part. `meta` is what the first data directory, which also holds the metadata, says of itself.
pub(super) async fn join(
    server: &ServerConfig,
    host: &Host,
    config: &BrokerConfig,
    first: &Path,
    meta: Option<&Meta>,
) -> Result<Joined, StartError> {
    let named = |error: controller::StartError| StartError(format!("{}: {error}", first.display()));
    let node_id = NodeId(server.node_id);
    let dir = first.join(METADATA);
    let quorum = &server.quorum;
    let cluster_id = meta.map(|meta| meta.cluster_id.clone());
    let (part, handle) = if !quorum.is_shared() {
        let node = NodeConfig { dir, node_id };
        let (member, handle) =
            ControllerNode::start_in(node, host.metadata.clone(), Arc::clone(&host.clock), &host.spawner)
                .await
                .map_err(named)?;
        (Part::Member(member), handle)
    } else if let Some(listener) = quorum.listener.as_ref().filter(|_| server.roles.controller) {
        let meta = meta.ok_or_else(|| {
            let first = first.display();
            StartError(format!(
                "{first} is not formatted, and a controller has to know its cluster before it votes: run firn cluster \
                 format --config FILE --cluster-id ID, with the same id on every node"
            ))
        })?;
        let socket = listeners::listen(host.network.as_ref(), listener).await?.socket;
        let member = MemberConfig {
            dir,
            node_id,
            directory: meta.directory_id,
            cluster_id: cluster_id.clone(),
            voters: quorum.voters.iter().map(|voter| (NodeId(voter.id), voter.address.clone())).collect(),
            bootstrap: quorum.bootstrap.clone(),
            timings: timings(&config.cluster),
            policy: policy(config),
            duties: duties(server, &config.cluster),
            has_been_member: meta.member,
        };
        let (member, handle) = ControllerNode::start_member(member, socket, machine(host)).await.map_err(named)?;
        (Part::Member(member), handle)
    } else {
        let voters = quorum.voters.iter().map(|voter| voter.address.clone());
        let bootstrap = voters.chain(quorum.bootstrap.iter().cloned()).collect();
        let follow = FollowConfig { node_id, cluster_id: cluster_id.clone(), bootstrap };
        let (follower, handle) = controller::Follower::start(follow, &machine(host));
        (Part::Follower(follower), handle)
    };
    let patience = Duration::from_millis(config.cluster.registration_timeout_ms);
    let voters = quorum.voters.iter().filter(|voter| voter.id != server.node_id).map(|voter| voter.address.clone());
    let joined = Joined {
        part,
        handle,
        cluster_id,
        shared: quorum.is_shared(),
        who: format!("node {node_id} with the data directory {}", first.display()),
        controllers: voters.chain(quorum.bootstrap.iter().cloned()).collect(),
        patience: (!server.roles.controller).then_some(patience),
    };
    let known = async {
        joined.introduce().await?;
        match (&joined.part, meta) {
            (Part::Member(member), Some(meta)) if joined.shared && member.belongs() => {
                meta.clone().join(host.disk.as_ref(), first).await.map_err(StartError::because)
            }
            _ => Ok(()),
        }
    };
    if let Err(error) = known.await {
        joined.part.shutdown().await;
        return Err(error);
    }
    Ok(joined)
}

fn machine(host: &Host) -> Machine {
    Machine {
        clock: Arc::clone(&host.clock),
        entropy: Arc::clone(&host.entropy),
        spawner: host.spawner.clone(),
        network: Arc::clone(&host.network),
        wire: host.wire,
        storage: host.metadata.clone(),
    }
}

/// A leader that is heard of five times in the time that its silence may last; nobody votes against one that was heard of
/// in the last three of them.
fn timings(config: &ClusterConfig) -> Timings {
    let silence_ms = config.quorum_fetch_timeout_ms.max(5);
    Timings {
        heartbeat_ms: silence_ms / 5,
        lease_ms: silence_ms / 5 * 3,
        silence_ms,
        backoff_ms: config.election_backoff_max_ms.max(1),
    }
}

/// What holds where neither a topic nor the cluster says otherwise.
fn policy(config: &BrokerConfig) -> Policy {
    Policy {
        min_insync_replicas: config.topic_defaults.min_insync_replicas,
        unclean_leader_election: config.topic_defaults.unclean_leader_election,
        // As with Kafka's quorum: whoever is preferred and can lead does, however few miss their preferred leader.
        leader_imbalance_percent: 0,
        flush: match config.topic_defaults.flush {
            Flush::Fsync => controller::decide::Flush::Fsync,
            Flush::Os => controller::decide::Flush::Os,
        },
        ..Policy::default()
    }
}

fn duties(server: &ServerConfig, config: &ClusterConfig) -> Settings {
    let session_ms = i64::try_from(config.session_timeout_ms).unwrap_or(i64::MAX);
    Settings {
        timing: Timing { session_ms, ..Timing::default() },
        listener: server.inter_broker.clone(),
        unclean_every: Duration::from_millis(config.unclean_interval_ms.max(1)),
        preferred_every: config.preferred_interval_ms.map(Duration::from_millis),
        balance: config.balance,
        balance_moves: config.balance_moves,
        factors: internal::factors(&BrokerLayers { fixed: &server.settings, ..BrokerLayers::none() }),
        ..Settings::default()
    }
}

impl Joined {
    /// Says to the controllers that can be reached who this node is.
    ///
    /// # Errors
    /// If one of them says that it has no business here.
    async fn introduce(&self) -> Result<(), StartError> {
        let known = self.cluster_id.as_ref().map_or_else(String::new, |id| format!(", of cluster {id}"));
        let refused = |error| StartError(format!("{}{known}: {error}", self.who));
        self.handle.introduce(GREETING).await.map_err(refused)
    }

    /// Has it noted in the first data directory that its metadata belong to a quorum, as soon as they do: a controller that was
    /// formatted to be added does not vote before, and has nothing to lose. To be called when nobody else writes there.
    pub(super) fn note_membership(&self, host: &Host, first: &Path) {
        let Part::Member(member) = &self.part else { return };
        if !self.shared {
            return;
        }
        let (joined, disk, first) = (member.joined(), Arc::clone(&host.disk), first.to_owned());
        host.spawner.spawn_hot(async move {
            if !joined.await {
                return;
            }
            let noted = match Meta::load(disk.as_ref(), &first).await {
                Ok(Some(meta)) => meta.join(disk.as_ref(), &first).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = noted {
                tracing::warn!(%error, "that this controller votes could not be noted: it is at its next start");
            }
        });
    }

    /// The cluster's id. A new cluster gets one: what its directories were formatted for, or one of its own if it has no
    /// other node. An old one keeps what it has.
    ///
    /// # Errors
    /// If the quorum does not know this node, or cannot be reached for as long as a start may take.
    pub(super) async fn cluster_id(&self, host: &Host) -> Result<String, StartError> {
        let mut images = self.handle.watch();
        if let Some(id) = images.borrow_and_update().cluster_id() {
            return Ok(id.to_owned());
        }
        let form = match (&self.part, &self.cluster_id) {
            (Part::Member(_), Some(id)) if self.shared => Some(id.clone()),
            (Part::Member(_), _) if !self.shared => Some(proto::ids::TopicId(host.entropy.uuid()).to_string()),
            _ => None,
        };
        let begun = Instant::now();
        let mut told = begun;
        loop {
            let mut why = "no controller answers".to_owned();
            if let Some(cluster_id) = &form
                && let Some(id) = self.form(cluster_id, &mut why).await?
            {
                return Ok(id);
            }
            if let Some(id) = images.borrow_and_update().cluster_id() {
                return Ok(id.to_owned());
            }
            let tried = if self.controllers.is_empty() { "nobody".to_owned() } else { self.controllers.join(", ") };
            if let Some(patience) = self.patience.filter(|patience| begun.elapsed() >= *patience) {
                return Err(StartError(format!(
                    "the metadata quorum could not be reached for {} s ({why}; asked: {tried}): are enough controllers \
                     running, and does controller.quorum.voters or controller.quorum.bootstrap.servers name them?",
                    patience.as_secs()
                )));
            }
            if told.elapsed() >= PATIENCE {
                told = Instant::now();
                tracing::warn!(
                    seconds = begun.elapsed().as_secs(),
                    why,
                    asked = tried,
                    "waiting for the metadata quorum"
                );
                // One may have come by now that does not know this node.
                self.introduce().await?;
            }
            let _ = tokio::time::timeout(ASK_AGAIN, images.changed()).await;
        }
    }

    /// Has the cluster formed, unless it is. Nothing if that is not known; `why` says why then.
    async fn form(&self, cluster_id: &str, why: &mut String) -> Result<Option<String>, StartError> {
        let features = vec![("metadata.version".to_owned(), 27)];
        let form = FormCluster { cluster_id: cluster_id.to_owned(), features };
        match tokio::time::timeout(PATIENCE, self.handle.form_cluster(form)).await {
            Ok(Ok(id)) => return Ok(Some(id)),
            Ok(Err(SubmitError::Refused(refusal))) => return Err(StartError::because(refusal)),
            Ok(Err(SubmitError::NotLeader { .. })) | Err(_) => "not enough voters answer".clone_into(why),
            Ok(Err(error)) => *why = error.to_string(),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_ends_before_the_silence() {
        let config = |quorum_fetch_timeout_ms| ClusterConfig {
            quorum_fetch_timeout_ms,
            election_backoff_max_ms: 300,
            ..BrokerConfig::default().cluster
        };
        assert_eq!(timings(&config(500)), Timings::default());
        for fetch_timeout_ms in [0, 7, 200, 2000] {
            let timings = timings(&config(fetch_timeout_ms));
            assert!(timings.heartbeat_ms > 0 && timings.heartbeat_ms < timings.lease_ms, "{timings:?}");
            assert!(timings.lease_ms < timings.silence_ms, "{timings:?}");
        }
    }
}
