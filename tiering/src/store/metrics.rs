//! What a store reports of every request.

use std::time::Duration;

use super::StoreError;

/// Kinds of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestKind {
    /// Storing an object in one request.
    Put,
    /// Storing an object in parts; the whole counts once.
    PutMultipart,
    /// Reading (a range of) an object.
    Get,
    /// Deleting one object.
    Delete,
    /// Listing a page of a prefix.
    List,
}

impl RequestKind {
    /// Stable name, for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::PutMultipart => "put_multipart",
            Self::Get => "get",
            Self::Delete => "delete",
            Self::List => "list",
        }
    }
}

/// Receives one report per request sent.
pub trait StoreMetrics: Send + Sync {
    /// A request of `kind` ended after `took`. `outcome` is `ok`, `unknown`, or a
    /// [`Definite::name`](super::Definite::name); `bytes` of body were sent or received if it succeeded.
    fn request(&self, kind: RequestKind, outcome: &'static str, bytes: u64, took: Duration);
}

/// Reports to nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMetrics;

impl StoreMetrics for NoMetrics {
    fn request(&self, _: RequestKind, _: &'static str, _: u64, _: Duration) {}
}

/// The outcome's stable name.
pub(super) fn outcome<T>(result: &Result<T, StoreError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(StoreError::Unknown { .. }) => "unknown",
        Err(StoreError::Definite { kind, .. }) => kind.name(),
    }
}
