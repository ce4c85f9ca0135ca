//! How members of the quorum, and brokers, reach a member: one question and its answer, or a
//! conversation of many. What is said is in [`crate::wire`]; here it is an [`Envelope`] with bytes.
//!
//! - [`grpc`]: gRPC over the host's network. Production.
//! - [`frames`]: the same envelopes behind a length on a plain stream, without bounds. The simulation, where each task
//!   and timer of an HTTP/2 stack would make the trace of a seed longer and harder to read.
//!
//! Both pass one suite of tests (`tests.rs`).

mod bounds;
pub(crate) mod frames;
pub(crate) mod grpc;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use proto::host::{Listener, Network};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::session::Evidence;

mod generated {
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        clippy::allow_attributes_without_reason,
        reason = "written by tonic-prost-build"
    )]
    include!(concat!(env!("OUT_DIR"), "/firn.control.rs"));
}

pub(crate) use generated::Envelope;

/// No envelope is longer, in bytes: a peer that sends a longer one is not one of ours.
pub(crate) const MAX_ENVELOPE_BYTES: usize = 64 << 20;
/// Envelopes that wait in each direction of a conversation.
pub(crate) const CHANNEL_ENVELOPES: usize = 16;
/// Questions and conversations that one connection may have open.
pub(crate) const MAX_OPEN_PER_CONNECTION: u32 = 256;
/// How long a connection may take to be made.
pub(crate) const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// Why there is no answer. What a member refused is an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TransportError {
    /// Nobody was reached. Definite: the question was not heard.
    #[error("{0}")]
    Unreachable(String),
    /// The question may have been heard.
    #[error("{0}")]
    Unknown(String),
}

/// Both directions of a conversation. The other side sees its end when this is dropped.
pub(crate) struct Channel {
    /// To the other side. Waits while [`CHANNEL_ENVELOPES`] are on their way.
    pub(crate) to: mpsc::Sender<Envelope>,
    /// From the other side. Ends when it went away, for whatever reason.
    pub(crate) from: BoxStream<'static, Envelope>,
}

impl Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").finish_non_exhaustive()
    }
}

/// The asking side. Cheap to use: connections are kept.
#[async_trait]
pub(crate) trait Transport: Debug + Send + Sync + 'static {
    /// Asks whoever listens at `address`. Has no timeout beyond that of connecting; dropping it gives the question up.
    async fn ask(&self, address: &str, question: Envelope) -> Result<Envelope, TransportError>;

    /// Begins a conversation with whoever listens at `address`.
    async fn open(&self, address: &str, first: Envelope) -> Result<Channel, TransportError>;
}

/// The answering side.
#[async_trait]
pub(crate) trait Serve: Send + Sync + 'static {
    /// Answers a question. May be dropped at any await, when who asked has gone.
    async fn answer(&self, question: Envelope) -> Envelope;

    /// Holds a conversation that begins with `first`; it ends when this returns.
    async fn converse(&self, first: Envelope, channel: Channel);
}

/// What carries envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wire {
    /// gRPC.
    #[default]
    Grpc,
    /// Plain frames: for the simulation.
    Frames,
}

impl Wire {
    /// The asking side over `network`.
    pub(crate) fn transport(self, network: Arc<dyn Network>) -> Arc<dyn Transport> {
        match self {
            Self::Grpc => Arc::new(grpc::Grpc::new(network)),
            Self::Frames => Arc::new(frames::Frames::new(network)),
        }
    }

    /// Serves what comes in at `listener` until `stop` is cancelled; all connections end with it.
    pub(crate) async fn serve(
        self,
        listener: Listener,
        service: Arc<dyn Serve>,
        stop: CancellationToken,
    ) -> Result<(), io::Error> {
        match self {
            Self::Grpc => grpc::serve(listener, service, stop).await,
            Self::Frames => {
                frames::serve(listener, service, stop).await;
                Ok(())
            }
        }
    }
}

/// Connects to `address` and hangs up.
pub async fn probe(network: &dyn Network, address: &str, within: Duration) -> Evidence {
    match tokio::time::timeout(within, network.connect(address)).await {
        Ok(Ok(_)) => Evidence::Alive,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Evidence::Refused,
        Ok(Err(_)) | Err(_) => Evidence::Silent,
    }
}
