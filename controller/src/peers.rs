//! Asking other members: who asks is said with each question, and who answered is checked.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::ids::{DirectoryId, NodeId};
use proto::metadata::{Durable, Image};
use tokio::sync::watch;

use crate::transport::{Channel, Envelope, Transport, TransportError};
use crate::wire::calls::{Kind, Refused, VERSIONS};
use crate::wire::{decode, encode};

/// Who this node is to others.
#[derive(Debug)]
pub(crate) struct Identity {
    /// Node id; -1 for who is no node.
    pub(crate) id: NodeId,
    /// Id of the directory with its metadata; unassigned if it has none.
    pub(crate) directory: DirectoryId,
    /// Id of the cluster it was told it belongs to.
    pub(crate) cluster: Option<String>,
    /// What it knows: the cluster's id, once it is formed, and the disks of the voters.
    pub(crate) images: watch::Receiver<Arc<Image>>,
}

impl Identity {
    /// Id of its cluster, empty while it knows none. What the quorum agreed on counts more than what was configured.
    pub(crate) fn cluster(&self) -> String {
        let image = self.images.borrow();
        image.cluster_id().or(self.cluster.as_deref()).unwrap_or_default().to_owned()
    }

    /// The envelope of what this node says.
    pub(crate) fn envelope(&self, kind: Kind, body: Bytes) -> Envelope {
        Envelope {
            cluster: self.cluster(),
            from: self.id.0,
            directory: Bytes::copy_from_slice(self.directory.0.as_bytes()),
            version: VERSIONS.1,
            kind: kind as u32,
            body,
        }
    }

    /// Whether this node listens to who sent `envelope`.
    pub(crate) fn accepts(&self, envelope: &Envelope) -> Result<(), Refused> {
        if !(VERSIONS.0..=VERSIONS.1).contains(&envelope.version) {
            return Err(Refused::Version { oldest: VERSIONS.0, newest: VERSIONS.1 });
        }
        let cluster = self.cluster();
        if !cluster.is_empty() && !envelope.cluster.is_empty() && cluster != envelope.cluster {
            return Err(Refused::Cluster { theirs: cluster });
        }
        let id = NodeId(envelope.from);
        let theirs = directory(envelope);
        match self.images.borrow().voter(id) {
            Some(known) if theirs != DirectoryId::UNASSIGNED && theirs != known => Err(Refused::Disk { id, known }),
            _ => Ok(()),
        }
    }
}

/// The directory an envelope names.
pub(crate) fn directory(envelope: &Envelope) -> DirectoryId {
    decode(&envelope.directory).unwrap_or(DirectoryId::UNASSIGNED)
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// It was not done. Definite.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Nobody, or not the one meant, was reached. Definite: it was not done.
    #[error("{0}")]
    Unreachable(String),
    /// It may have been done.
    #[error("{0}")]
    Unknown(String),
}

impl From<TransportError> for CallError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Unreachable(why) => Self::Unreachable(why),
            TransportError::Unknown(why) => Self::Unknown(why),
        }
    }
}

/// The way to other members.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) identity: Arc<Identity>,
}

impl Peers {
    /// Asks who listens at `address`, which must be node `to` if that is given. Gives up after `within`: unknown then.
    pub(crate) async fn ask(
        &self,
        address: &str,
        to: Option<NodeId>,
        (kind, body): (Kind, Bytes),
        within: Duration,
    ) -> Result<Envelope, CallError> {
        let question = self.identity.envelope(kind, body);
        let asking = self.transport.ask(address, question);
        let answer = tokio::time::timeout(within, asking)
            .await
            .map_err(|_| CallError::Unknown(format!("{address} did not answer within {} ms", within.as_millis())))??;
        self.check(address, to, kind, answer)
    }

    /// [`Peers::ask`], body to body.
    pub(crate) async fn call<T: Durable>(
        &self,
        address: &str,
        to: Option<NodeId>,
        (kind, body): (Kind, &impl Durable),
        within: Duration,
    ) -> Result<T, CallError> {
        let answer = self.ask(address, to, (kind, encode(body)), within).await?;
        decode(&answer.body).map_err(|error| CallError::Unknown(format!("{address}: {error}")))
    }

    /// Begins a conversation with who listens at `address`. Who that is shows in what it says.
    pub(crate) async fn open(&self, address: &str, kind: Kind, body: Bytes) -> Result<Channel, CallError> {
        Ok(self.transport.open(address, self.identity.envelope(kind, body)).await?)
    }

    /// Whether `answer` came from whom it should, and is one.
    pub(crate) fn check(
        &self,
        address: &str,
        to: Option<NodeId>,
        kind: Kind,
        answer: Envelope,
    ) -> Result<Envelope, CallError> {
        if answer.kind == Kind::Refused as u32 {
            let refused: Refused =
                decode(&answer.body).map_err(|error| CallError::Unknown(format!("{address}: {error}")))?;
            return Err(refused.into());
        }
        if let Some(to) = to.filter(|to| to.0 != answer.from) {
            return Err(CallError::Unreachable(format!("node {} listens at {address}, not node {to}", answer.from)));
        }
        self.identity.accepts(&answer).map_err(|refused| match refused {
            Refused::Cluster { .. } => Refused::Cluster { theirs: answer.cluster.clone() },
            other => other,
        })?;
        if answer.kind != kind as u32 {
            return Err(CallError::Unknown(format!("{address} answered with kind {}", answer.kind)));
        }
        Ok(answer)
    }
}
