//! Where bytes come from: the port to the object store, and what every GET has in common (a bound on
//! how many run, a bound on how long each may take, retries with jittered backoff, counters).

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use proto::host::Entropy;
use proto::ids::TopicPartition;
use proto::metadata::{ObjectFormat, ObjectKey, RootRef};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::RemoteError;
use super::stats::{Outcome, Stats};
use crate::manifest::LeafRef;

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// Tiered data and its footer.
    Data(ObjectKey, ObjectFormat),
    /// A manifest root.
    Root(TopicPartition, RootRef),
    /// A manifest leaf.
    Leaf(TopicPartition, LeafRef),
}

/// Which part of it, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Span {
    /// Half open.
    Range(Range<u64>),
    /// From here to the end.
    From(u64),
    /// All of it.
    All,
}

/// Why a GET failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// There is no such object.
    #[error("no such object")]
    NotFound,
    /// Another attempt could succeed: the network, a busy server, a time limit.
    #[error("{0}")]
    Transient(Arc<str>),
    /// Another attempt would fail in the same way: permissions, a bad request.
    #[error("{0}")]
    Permanent(Arc<str>),
}

/// Bytes of one GET, in order.
pub type Body = BoxStream<'static, Result<Bytes, SourceError>>;

/// The port to the object store. One call is one GET, without retries of its own.
#[async_trait]
pub trait RangeSource: Send + Sync {
    /// Begins a GET; returns when the response has begun. A body that ends before the end of a
    /// [`Span::Range`] is taken as broken off.
    async fn get(&self, name: &Name, span: Span) -> Result<Body, SourceError>;
}

/// How patient GETs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Longest wait for the first byte, and then for each further piece of the body.
    pub stall: Duration,
    /// Attempts in all.
    pub attempts: u32,
    /// Wait before the second attempt; doubles with each further one, with full jitter.
    pub backoff: Duration,
    /// Greatest wait before an attempt.
    pub max_backoff: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(10),
            attempts: 5,
            backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(3),
        }
    }
}

/// A [`RangeSource`] with its limits.
pub(super) struct Getter {
    source: Arc<dyn RangeSource>,
    permits: Semaphore,
    patience: Patience,
    entropy: Arc<dyn Entropy>,
    stats: Arc<Stats>,
}

/// An open GET; holds its permit until it is dropped.
pub(super) struct Open<'a> {
    body: Body,
    stall: Duration,
    stats: &'a Stats,
    started: Instant,
    received: u64,
    finished: bool,
    _permit: tokio::sync::SemaphorePermit<'a>,
}

impl Getter {
    pub(super) fn new(
        source: Arc<dyn RangeSource>,
        max_gets: usize,
        patience: Patience,
        entropy: Arc<dyn Entropy>,
        stats: Arc<Stats>,
    ) -> Self {
        Self { source, permits: Semaphore::new(max_gets), patience, entropy, stats }
    }

    pub(super) fn patience(&self) -> &Patience {
        &self.patience
    }

    /// One attempt: waits for a permit, then for the response to begin.
    pub(super) async fn open(&self, name: &Name, span: Span) -> Result<Open<'_>, SourceError> {
        let Ok(permit) = self.permits.acquire().await else {
            return Err(SourceError::Permanent("the reader was closed".into()));
        };
        self.stats.get_started();
        let started = Instant::now();
        let body = match timeout(self.patience.stall, self.source.get(name, span)).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => {
                self.stats.get_ended(Outcome::of(&error), 0, started.elapsed());
                return Err(error);
            }
            Err(_) => {
                self.stats.get_ended(Outcome::TimedOut, 0, started.elapsed());
                return Err(SourceError::Transient("no answer in time".into()));
            }
        };
        Ok(Open {
            body,
            stall: self.patience.stall,
            stats: &self.stats,
            started,
            received: 0,
            finished: false,
            _permit: permit,
        })
    }

    /// Waits before attempt number `attempt` (the first retry is 1).
    pub(super) async fn back_off(&self, attempt: u32) {
        let doubled =
            self.patience.backoff.saturating_mul(1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
        let most = doubled.min(self.patience.max_backoff);
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX).max(1);
        tokio::time::sleep(Duration::from_micros(self.entropy.next_u64() % micros)).await;
    }

    /// A whole span, with retries.
    ///
    /// # Errors
    /// [`RemoteError::Missing`] on a 404, [`RemoteError::Unavailable`] when all attempts failed.
    pub(super) async fn fetch(&self, name: &Name, span: Span) -> Result<Bytes, RemoteError> {
        let mut attempt = 0;
        loop {
            match self.fetch_once(name, span.clone()).await {
                Ok(bytes) => return Ok(bytes),
                Err(SourceError::NotFound) => return Err(RemoteError::missing(name)),
                Err(SourceError::Permanent(reason)) => {
                    return Err(RemoteError::Unavailable { reason });
                }
                Err(SourceError::Transient(reason)) => {
                    attempt += 1;
                    if attempt >= self.patience.attempts {
                        return Err(RemoteError::Unavailable { reason });
                    }
                    self.back_off(attempt).await;
                }
            }
        }
    }

    async fn fetch_once(&self, name: &Name, span: Span) -> Result<Bytes, SourceError> {
        let mut open = self.open(name, span).await?;
        let mut first = Bytes::new();
        let mut rest: Option<BytesMut> = None;
        while let Some(bytes) = open.next().await? {
            match &mut rest {
                Some(rest) => rest.extend_from_slice(&bytes),
                None if first.is_empty() => first = bytes,
                None => {
                    let mut both = BytesMut::from(&first[..]);
                    both.extend_from_slice(&bytes);
                    rest = Some(both);
                }
            }
        }
        Ok(rest.map_or(first, BytesMut::freeze))
    }
}

impl Open<'_> {
    /// The next bytes of the body, none at its end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        let next = timeout(self.stall, self.body.next()).await;
        let error = match next {
            Ok(Some(Ok(bytes))) => {
                self.received += bytes.len() as u64;
                return Ok(Some(bytes));
            }
            Ok(None) => {
                self.end(Outcome::Ok);
                return Ok(None);
            }
            Ok(Some(Err(error))) => {
                self.end(Outcome::of(&error));
                error
            }
            Err(_) => {
                self.end(Outcome::TimedOut);
                SourceError::Transient("the response stalled".into())
            }
        };
        Err(error)
    }

    fn end(&mut self, outcome: Outcome) {
        if !self.finished {
            self.finished = true;
            self.stats.get_ended(outcome, self.received, self.started.elapsed());
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        // All that was asked for has come, the end of the body was not waited for.
        self.end(Outcome::Ok);
    }
}
