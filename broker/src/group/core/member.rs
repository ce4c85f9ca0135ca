//! A member of a group.

use bytes::Bytes;
use proto::ids::Millis;

use super::super::types::MemberRef;
use super::{Now, Ticket};

/// How long someone who is new may wait for the rebalance it joined.
pub(super) const NEW_MEMBER_PATIENCE_MS: Millis = 5 * 60 * 1_000;

/// What a protocol takes beside its name and metadata, about.
pub(super) const PROTOCOL_BYTES: usize = 64;

/// A member, alive or not heard of for less than its session timeout.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    /// By preference, with metadata.
    pub(crate) protocols: Vec<(String, Bytes)>,
    pub(crate) assignment: Bytes,
    /// The join that waits for the rebalance to complete.
    pub(crate) joining: Option<Ticket>,
    /// The sync that waits for the leader.
    pub(crate) syncing: Option<Ticket>,
    /// When it is taken for dead. None while it waits for us.
    pub(crate) expires: Option<Millis>,
}

/// What a member takes beside what it brought, about: its ids, its addresses, its places in maps.
const MEMBER_BYTES: usize = 512;

/// Memory that a member with these protocols takes, about.
pub(crate) fn member_bytes(protocols: &[(String, Bytes)]) -> usize {
    let protocols = protocols.iter().map(|(name, metadata)| PROTOCOL_BYTES + name.len() + metadata.len());
    MEMBER_BYTES + protocols.sum::<usize>()
}

impl Member {
    /// Memory that it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        member_bytes(&self.protocols) + self.assignment.len()
    }

    pub(crate) fn reference(&self) -> MemberRef {
        MemberRef { member_id: self.id.clone(), instance_id: self.instance_id.clone() }
    }

    /// Its metadata for a protocol, empty if it has none.
    pub(crate) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    pub(crate) fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    /// It was heard of.
    pub(crate) fn heard(&mut self, now: Now) {
        self.expires = Some(now.tick + Millis::from(self.session_timeout_ms));
    }
}
