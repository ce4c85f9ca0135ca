//! What the HTTP side says of the cluster, and what it changes there: the `firn cluster` commands.

use super::{Control, ControlError, Shared};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

/// Something to know or to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterAsk {
    /// How the cluster is.
    Status,
    /// What would be moved to even out what brokers carry.
    Plan,
    /// The same, and it is moved.
    Rebalance,
    /// Empty a broker, or give it its share again.
    Drain {
        /// The broker.
        broker: i32,
        /// Whether to take it back.
        cancel: bool,
    },
    /// Take a broker that is empty and stopped out of the cluster.
    Forget {
        /// The broker.
        broker: i32,
    },
    /// Give a controller that runs a vote.
    AddVoter {
        /// Its node id.
        id: i32,
        /// `host:port` of its control listener.
        address: String,
        /// Its metadata directory, if only that one is meant.
        directory: Option<String>,
    },
    /// Take the vote of a controller.
    RemoveVoter {
        /// Its node id.
        id: i32,
        /// Its metadata directory, if only that one is meant.
        directory: Option<String>,
    },
}

/// The answer to a [`ClusterAsk`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ClusterAnswer {
    /// To [`ClusterAsk::Status`].
    Status(ClusterStatus),
    /// To [`ClusterAsk::Plan`] and [`ClusterAsk::Rebalance`].
    Plan(MovePlan),
    /// It is done.
    Done,
}

/// How a cluster is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Its id.
    pub cluster_id: String,
    /// Controllers, by id.
    pub controllers: Vec<ControllerRow>,
    /// Brokers, by id.
    pub brokers: Vec<BrokerRow>,
    /// Number of topics.
    pub topics: u64,
    /// Number of partitions.
    pub partitions: u64,
    /// Partitions with fewer in sync than they have replicas.
    pub under_replicated: u64,
    /// Partitions that nobody leads.
    pub offline: u64,
    /// Partitions that are on the move.
    pub moving: u64,
    /// Names of some that nobody leads.
    pub offline_names: Vec<String>,
    /// What keeps replicas on brokers that are to be emptied, what is most pressing first.
    #[serde(default)]
    pub holds: Vec<HoldRow>,
    /// Names of some that are on their way to a broker that is down, and that broker.
    #[serde(default)]
    pub stalled: Vec<(String, i32)>,
}

/// Why some replicas are still on a broker that is to be emptied.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HoldRow {
    /// The broker.
    pub broker: i32,
    /// Whether nothing comes of it before somebody does something.
    pub stuck: bool,
    /// How many replicas.
    pub partitions: u64,
    /// Names of some of their partitions.
    pub names: Vec<String>,
    /// In words.
    pub why: String,
    /// What can be done about it; empty if nothing has to be.
    pub hint: String,
}

/// A controller.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ControllerRow {
    /// Node id.
    pub id: i32,
    /// `host:port` of its control listener; empty if it has none.
    pub address: String,
    /// `leader`, `voter` or `observer`.
    pub role: String,
    /// Entries of the metadata log that it has not confirmed yet, as its leader knows it.
    pub behind: Option<u64>,
}

/// A broker.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BrokerRow {
    /// Node id.
    pub id: i32,
    /// `serving`, `stopping` or `down`.
    pub state: String,
    /// `joining` until it has its share, `leaving` while it is emptied, else `settled`.
    pub share: String,
    /// Its rack, if it tells one.
    pub rack: Option<String>,
    /// `host:port` of its first listener.
    pub address: String,
    /// Partitions that it leads.
    pub leaders: u64,
    /// Replicas on it, those that are on their way from there included.
    pub replicas: u64,
    /// Replicas on it that are not in sync.
    pub out_of_sync: u64,
    /// Bytes in use on its disks, by whomever; none before it told.
    pub disk_used: Option<u64>,
    /// Bytes of its disks.
    pub disk_total: Option<u64>,
    /// Bytes that producers bring, per second, to what it leads.
    pub bytes_in: u64,
    /// Bytes that consumers take, per second, from what it leads.
    pub bytes_out: u64,
}

/// What is to be moved, and what comes of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MovePlan {
    /// Replicas that move.
    pub moves: Vec<MoveRow>,
    /// Partitions that get another preferred leader among the replicas they have.
    pub leaders: Vec<LeaderRow>,
    /// What brokers carry, before and after.
    pub brokers: Vec<CarriedRow>,
    /// Replicas that should move, and nobody can take them: topic-partition and broker.
    pub stuck: Vec<(String, i32)>,
    /// Partitions that keep two replicas in one rack.
    pub crowded: Vec<String>,
}

/// A replica that moves.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MoveRow {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// From which broker.
    pub from: i32,
    /// To which broker.
    pub to: i32,
    /// Bytes to copy, as far as known.
    pub bytes: u64,
    /// In words.
    pub why: String,
}

/// Another preferred leader.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeaderRow {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Who is preferred now.
    pub from: i32,
    /// Who will be.
    pub to: i32,
}

/// What a broker carries: before and after.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CarriedRow {
    /// Node id.
    pub id: i32,
    /// Partitions it is preferred to lead.
    pub leaders: (u64, u64),
    /// Replicas.
    pub replicas: (u64, u64),
    /// Bytes that come in, per second.
    pub bytes_in: (u64, u64),
    /// Bytes of its replicas on disk.
    pub disk: (u64, u64),
}

/// The paths of `firn cluster`.
pub(super) fn routes<C: Control>() -> Router<Shared<C>> {
    Router::new()
        .route("/v1/cluster", get(status::<C>))
        .route("/v1/cluster/rebalance", get(plan::<C>).post(rebalance::<C>))
        .route("/v1/cluster/drain", post(drain::<C>))
        .route("/v1/cluster/forget", post(forget::<C>))
        .route("/v1/cluster/voter/add", post(add_voter::<C>))
        .route("/v1/cluster/voter/remove", post(remove_voter::<C>))
}

async fn answer<C: Control>(shared: Shared<C>, ask: ClusterAsk) -> Response {
    match shared.control.cluster(ask).await {
        Ok(ClusterAnswer::Done) => "ok\n".into_response(),
        Ok(answer) => Json(answer).into_response(),
        Err(error) => ControlError::into_response(error),
    }
}

async fn status<C: Control>(State(shared): State<Shared<C>>) -> Response {
    answer(shared, ClusterAsk::Status).await
}

async fn plan<C: Control>(State(shared): State<Shared<C>>) -> Response {
    answer(shared, ClusterAsk::Plan).await
}

async fn rebalance<C: Control>(State(shared): State<Shared<C>>) -> Response {
    answer(shared, ClusterAsk::Rebalance).await
}

#[derive(Deserialize)]
struct DrainQuery {
    broker: i32,
    #[serde(default)]
    cancel: bool,
}

async fn drain<C: Control>(State(shared): State<Shared<C>>, Query(query): Query<DrainQuery>) -> Response {
    answer(shared, ClusterAsk::Drain { broker: query.broker, cancel: query.cancel }).await
}

#[derive(Deserialize)]
struct ForgetQuery {
    broker: i32,
}

async fn forget<C: Control>(State(shared): State<Shared<C>>, Query(query): Query<ForgetQuery>) -> Response {
    answer(shared, ClusterAsk::Forget { broker: query.broker }).await
}

#[derive(Deserialize)]
struct AddQuery {
    id: i32,
    address: String,
    directory: Option<String>,
}

async fn add_voter<C: Control>(State(shared): State<Shared<C>>, Query(query): Query<AddQuery>) -> Response {
    let AddQuery { id, address, directory } = query;
    answer(shared, ClusterAsk::AddVoter { id, address, directory }).await
}

#[derive(Deserialize)]
struct RemoveQuery {
    id: i32,
    directory: Option<String>,
}

async fn remove_voter<C: Control>(State(shared): State<Shared<C>>, Query(query): Query<RemoveQuery>) -> Response {
    answer(shared, ClusterAsk::RemoveVoter { id: query.id, directory: query.directory }).await
}
