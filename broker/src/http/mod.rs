//! The HTTP side of a broker: metrics, health, and the tier and cluster commands of the command line.
//!
//! | path | what it answers |
//! |---|---|
//! | `GET /metrics` | Prometheus text |
//! | `GET /healthz` | 200 while the process can serve at all |
//! | `GET /readyz` | 200 while clients may be sent here; 503 while the node recovers, and from when it begins to end |
//! | `GET /v1/tier?topic=T` | what is hot and cold, per partition |
//! | `POST /v1/tier/flush?topic=T&timeout_ms=N` | uploads what may be uploaded, then answers |
//! | `GET /v1/cluster` | controllers, brokers, how the partitions are, and what keeps replicas on brokers that are to be emptied |
//! | `GET`, `POST /v1/cluster/rebalance` | what would be moved to even out what brokers carry; moves it |
//! | `POST /v1/cluster/drain?broker=N&cancel=B` | has a broker emptied, or takes it back |
//! | `POST /v1/cluster/forget?broker=N` | takes a broker that is empty and stopped out of the cluster |
//! | `POST /v1/cluster/voter/add?id=N&address=A`, `remove?id=N` | gives a controller a vote, or takes it |

mod cluster;

pub use cluster::{
    BrokerRow, CarriedRow, ClusterAnswer, ClusterAsk, ClusterStatus, ControllerRow, HoldRow, LeaderRow, MovePlan,
    MoveRow,
};

use crate::metrics::Metrics;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What one partition holds where. Offsets ending in `_end` are exclusive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierPartition {
    pub topic: String,
    pub partition: i32,
    /// The first offset that can be read at all.
    pub log_start: i64,
    /// The first offset on local disk.
    pub local_start: i64,
    /// One past the last offset in the object store.
    pub tier_end: i64,
    /// One past the last offset that consumers may read.
    pub high_watermark: i64,
    /// Committed bytes that are only local.
    pub lag_bytes: u64,
    /// Age of the oldest record that is only local.
    pub lag_ms: u64,
    pub local_bytes: u64,
    pub remote_bytes: u64,
    /// Objects with records of this partition.
    pub objects: u64,
    /// What holds an upload back, if something does.
    pub held_back_by: Option<String>,
}

/// Why a request of the HTTP side failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("there is no topic `{0}`")]
    UnknownTopic(String),
    #[error("{0}")]
    HeldBack(String),
    /// It was refused: nothing changed.
    #[error("{0}")]
    Refused(String),
    /// The node is not there yet, or not any more.
    #[error("this node does not serve now: {0}")]
    NotServing(String),
}

/// What the HTTP side asks of the broker.
pub trait Control: Send + Sync + 'static {
    /// `Err` says why the process cannot serve.
    fn health(&self) -> Result<(), String>;
    /// `Err` says what is still missing.
    fn ready(&self) -> Result<(), String>;
    /// All partitions, or those of one topic.
    fn tier_status(&self, topic: Option<&str>) -> Result<Vec<TierPartition>, ControlError>;
    /// Uploads what may be uploaded; `Err` names what holds it back at the end of `timeout`.
    fn tier_flush(&self, topic: String, timeout: Duration) -> BoxFuture<'_, Result<(), ControlError>>;
    /// Says how the cluster is, or changes it.
    fn cluster(&self, ask: ClusterAsk) -> BoxFuture<'_, Result<ClusterAnswer, ControlError>>;
}

struct Shared<C> {
    control: Arc<C>,
    metrics: Arc<Metrics>,
}

impl<C> Clone for Shared<C> {
    fn clone(&self) -> Self {
        Shared { control: Arc::clone(&self.control), metrics: Arc::clone(&self.metrics) }
    }
}

/// Serves until `stop` is cancelled.
pub async fn serve<C: Control>(
    listener: TcpListener,
    control: Arc<C>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(render::<C>))
        .route("/healthz", get(health::<C>))
        .route("/readyz", get(ready::<C>))
        .route("/v1/tier", get(tier_status::<C>))
        .route("/v1/tier/flush", post(tier_flush::<C>))
        .merge(cluster::routes::<C>())
        .with_state(Shared { control, metrics });
    axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await }).await
}

async fn render<C: Control>(State(shared): State<Shared<C>>) -> Response {
    let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, form)], shared.metrics.render()).into_response()
}

async fn health<C: Control>(State(shared): State<Shared<C>>) -> Response {
    said(shared.control.health())
}

async fn ready<C: Control>(State(shared): State<Shared<C>>) -> Response {
    said(shared.control.ready())
}

fn said(state: Result<(), String>) -> Response {
    match state {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response(),
    }
}

#[derive(Deserialize)]
struct StatusQuery {
    topic: Option<String>,
}

async fn tier_status<C: Control>(State(shared): State<Shared<C>>, Query(query): Query<StatusQuery>) -> Response {
    match shared.control.tier_status(query.topic.as_deref()) {
        Ok(partitions) => Json(partitions).into_response(),
        Err(error) => error.into_response(),
    }
}

#[derive(Deserialize)]
struct FlushQuery {
    topic: String,
    timeout_ms: u64,
}

async fn tier_flush<C: Control>(State(shared): State<Shared<C>>, Query(query): Query<FlushQuery>) -> Response {
    match shared.control.tier_flush(query.topic, Duration::from_millis(query.timeout_ms)).await {
        Ok(()) => "ok\n".into_response(),
        Err(error) => error.into_response(),
    }
}

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        let status = match &self {
            ControlError::UnknownTopic(_) => StatusCode::NOT_FOUND,
            ControlError::HeldBack(_) | ControlError::Refused(_) => StatusCode::CONFLICT,
            ControlError::NotServing(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, format!("{self}\n")).into_response()
    }
}
