//! The object store as Firn uses it: immutable objects, created once, read by range, and outcomes that
//! say whether something is done, failed or *unknown* ([`StoreError`]).
//!
//! One call here is one attempt, bounded in time. Retrying is the caller's, because only the caller
//! knows what an unknown outcome means for it. The one thing resolved here is a name that is already
//! taken: since names carry a UUID, an object of that name with the same length and the same last
//! bytes (every format ends in a checksum that covers the rest) *is* the one being stored.

mod error;
#[cfg(any(test, feature = "faults"))]
pub mod faulty;
mod keys;
mod local;
mod location;
mod metrics;

mod stream;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, Fuse};
use futures::{StreamExt, TryStreamExt};
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload,
};
use proto::ids::Millis;
use tokio::time::Instant;

pub use error::{Definite, StoreError};
pub use keys::{Key, Layout, NamedKind, NamedObject};
pub use local::remove_unfinished;
pub use location::{AwsSettings, DEFAULT_REGION, Location, LocationError, Timeouts};
pub use metrics::{NoMetrics, RequestKind, StoreMetrics};
pub use stream::{Body, Span};

/// Bodies above this length are stored in parts.
pub const MULTIPART_ABOVE_BYTES: u64 = 64 << 20;
/// Length of a part.
const PART_BYTES: usize = 16 << 20;
/// How many of the last bytes are compared when a name is already taken.
const PROOF_BYTES: usize = 64;

/// A store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    room: Option<Arc<dyn Room>>,
    metrics: Arc<dyn StoreMetrics>,
    timeouts: Timeouts,
    layout: Arc<Layout>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("inner", &self.inner).field("layout", &self.layout).finish_non_exhaustive()
    }
}

/// Says whether there is room where a store lies, if that is not without limits: a directory may be on the very disk
/// that the log is on.
#[async_trait]
pub trait Room: Send + Sync + 'static {
    /// Why an object of `bytes` bytes may not be stored now; none if it may.
    async fn lacks(&self, bytes: u64) -> Option<String>;
}

/// How a successful [`Store::create`] came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// By this request.
    Now,
    /// By an earlier attempt whose answer was lost.
    Before,
}

/// An object as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub key: Key,
    /// Length in bytes.
    pub size: u64,
    /// When the store says it was last written.
    pub modified_ms: Millis,
}

impl Store {
    /// A store over any client.
    pub fn new(
        inner: Arc<dyn ObjectStore>,
        layout: Layout,
        timeouts: Timeouts,
        metrics: Arc<dyn StoreMetrics>,
    ) -> Self {
        Self { inner, room: None, metrics, timeouts, layout: Arc::new(layout) }
    }

    /// The store, in which nothing is created that `room` has no room for.
    #[must_use]
    pub fn within(self, room: Arc<dyn Room>) -> Self {
        Self { room: Some(room), ..self }
    }

    /// How objects are named here.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Stores an object that must not exist yet, or finds that an earlier attempt of one's own has.
    /// The last bytes of `chunks` must depend on all of them (a checksum).
    ///
    /// # Errors
    /// `AlreadyExists` if *another* object has that name. `NoSpace` if there is no room for it: nothing was sent.
    /// Unknown if it may have been stored: try again
    /// with the same key and the same bytes.
    pub async fn create(&self, key: &Key, chunks: &[Bytes]) -> Result<Created, StoreError> {
        let length = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let attempt = if length > MULTIPART_ABOVE_BYTES {
            // Completing an upload in parts replaces what has the name, so look first.
            match self.proves_created(key, chunks, length).await {
                Ok(true) => return Ok(Created::Before),
                Ok(false) => return Err(taken(key)),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
            let put = async {
                self.check_room(length).await?;
                self.put_multipart(key, chunks).await
            };
            self.timed(RequestKind::PutMultipart, length, put).await
        } else {
            let put = async {
                self.check_room(length).await?;
                self.put_whole(key, chunks).await
            };
            self.timed(RequestKind::Put, length, put).await
        };
        match attempt {
            Ok(()) => Ok(Created::Now),
            Err(error) if error.kind() == Some(Definite::AlreadyExists) => {
                match self.proves_created(key, chunks, length).await {
                    Ok(true) => Ok(Created::Before),
                    Ok(false) => Err(taken(key)),
                    // The name is taken, but by whom could not be seen: that is not a refusal.
                    Err(error) => Err(StoreError::unknown(format!("{key} exists, reading it back failed: {error}"))),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Bytes `range` of an object, all of them.
    ///
    /// # Errors
    /// `Truncated` if the object or the answer is shorter.
    pub async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        let length = range.end.saturating_sub(range.start);
        let (bytes, _) = self.get(key, GetRange::Bounded(range), length).await?;
        if bytes.len() as u64 == length { Ok(bytes) } else { Err(truncated(key, bytes.len() as u64, length)) }
    }

    /// The object from byte `from` to its end, at most `max_bytes` of it, and the object's length.
    ///
    /// # Errors
    /// `Unsupported` if there is more than `max_bytes`.
    pub async fn get_from(&self, key: &Key, from: u64, max_bytes: u64) -> Result<(Bytes, u64), StoreError> {
        let (bytes, size) = self.get(key, GetRange::Offset(from), max_bytes).await?;
        let length = size.saturating_sub(from);
        if bytes.len() as u64 == length { Ok((bytes, size)) } else { Err(truncated(key, bytes.len() as u64, length)) }
    }

    /// The last `bytes` of an object (all of it if it is shorter) and the object's length.
    pub async fn get_last(&self, key: &Key, bytes: u64) -> Result<(Bytes, u64), StoreError> {
        let (got, size) = self.get(key, GetRange::Suffix(bytes), bytes).await?;
        if got.len() as u64 == bytes.min(size) {
            Ok((got, size))
        } else {
            Err(truncated(key, got.len() as u64, bytes.min(size)))
        }
    }

    /// A whole object of known length.
    pub async fn get_whole(&self, key: &Key, size: u64) -> Result<Bytes, StoreError> {
        let (bytes, found) = self.get_from(key, 0, size).await?;
        if found == size { Ok(bytes) } else { Err(truncated(key, found, size)) }
    }

    /// Deletes an object. One that does not exist counts as deleted.
    pub async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let delete = async { self.inner.delete(key.path()).await.map_err(|error| StoreError::from_client(&error)) };
        match self.timed(RequestKind::Delete, 0, delete).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    /// Lists what lies under `prefix`, page by page.
    pub fn list(&self, prefix: &Key) -> Lister {
        Lister { stream: self.inner.list(Some(prefix.path())).fuse(), store: self.clone() }
    }

    async fn get(&self, key: &Key, range: GetRange, max_bytes: u64) -> Result<(Bytes, u64), StoreError> {
        let client = |error| StoreError::from_client(&error);
        let get = async {
            let options = GetOptions { range: Some(range), ..GetOptions::default() };
            let result = self.inner.get_opts(key.path(), options).await.map_err(client)?;
            let size = result.meta.size;
            let promised = result.range.end.saturating_sub(result.range.start);
            if promised > max_bytes {
                return Err(StoreError::definite(
                    Definite::Unsupported,
                    format!("{key}: {promised} bytes where at most {max_bytes} were expected"),
                ));
            }
            let mut stream = result.into_stream();
            let Some(first) = stream.try_next().await.map_err(client)? else {
                return Ok((Bytes::new(), size));
            };
            if first.len() as u64 >= promised {
                return Ok((first, size));
            }
            let mut body = BytesMut::with_capacity(promised as usize);
            body.extend_from_slice(&first);
            while let Some(part) = stream.try_next().await.map_err(client)? {
                if (body.len() + part.len()) as u64 > promised {
                    return Err(truncated(key, (body.len() + part.len()) as u64, promised));
                }
                body.extend_from_slice(&part);
            }
            Ok((body.freeze(), size))
        };
        let started = Instant::now();
        let result = self.bounded(max_bytes, get).await;
        let bytes = result.as_ref().map_or(0, |(body, _)| body.len() as u64);
        self.metrics.request(RequestKind::Get, metrics::outcome(&result), bytes, started.elapsed());
        result
    }

    async fn check_room(&self, bytes: u64) -> Result<(), StoreError> {
        let Some(room) = &self.room else { return Ok(()) };
        match room.lacks(bytes).await {
            Some(why) => Err(StoreError::definite(Definite::NoSpace, why)),
            None => Ok(()),
        }
    }

    async fn put_whole(&self, key: &Key, chunks: &[Bytes]) -> Result<(), StoreError> {
        let payload: PutPayload = chunks.iter().cloned().collect();
        let options = PutOptions::from(PutMode::Create);
        self.inner
            .put_opts(key.path(), payload, options)
            .await
            .map(drop)
            .map_err(|error| StoreError::from_client(&error))
    }

    async fn put_multipart(&self, key: &Key, chunks: &[Bytes]) -> Result<(), StoreError> {
        let client = |error| StoreError::from_client(&error);
        let mut upload =
            self.inner.put_multipart_opts(key.path(), PutMultipartOptions::default()).await.map_err(client)?;
        for part in parts(chunks, PART_BYTES) {
            let payload: PutPayload = part.into_iter().collect();
            if let Err(error) = upload.put_part(payload).await {
                // Without completion nothing exists under the name; what an abort leaves behind is
                // billed until the bucket's own rule removes it, which the bucket check asks for.
                let _ = upload.abort().await;
                return Err(client(error));
            }
        }
        let completed = upload.complete().await;
        if completed.is_err() {
            // Whether it took place is found out by reading; if it did not, its parts are not to stay.
            let _ = upload.abort().await;
        }
        completed.map(drop).map_err(client)
    }

    /// Whether the object under `key` is the one that `chunks` make.
    async fn proves_created(&self, key: &Key, chunks: &[Bytes], length: u64) -> Result<bool, StoreError> {
        let proof = last_bytes(chunks, PROOF_BYTES);
        let (found, size) = self.get_last(key, proof.len() as u64).await?;
        Ok(size == length && found == proof)
    }

    async fn timed<T>(
        &self,
        kind: RequestKind,
        bytes: u64,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let result = self.bounded(bytes, request).await;
        let sent = if result.is_ok() { bytes } else { 0 };
        self.metrics.request(kind, metrics::outcome(&result), sent, started.elapsed());
        result
    }

    async fn bounded<T>(
        &self,
        bytes: u64,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let limit = self.timeouts.for_bytes(bytes);
        tokio::time::timeout(limit, request).await.unwrap_or_else(|_| {
            Err(StoreError::unknown(format!("no answer from the store within {} s", limit.as_secs())))
        })
    }
}

/// A listing under way.
pub struct Lister {
    /// Fused: the page after the last one asks again.
    stream: Fuse<BoxStream<'static, object_store::Result<object_store::ObjectMeta>>>,
    store: Store,
}

impl Lister {
    /// The next `max` objects, ordered by name within the page; an empty page is the end. What order
    /// the pages come in is the store's affair.
    pub async fn next_page(&mut self, max: usize) -> Result<Vec<Listed>, StoreError> {
        let store = self.store.clone();
        let page = async {
            let mut page = Vec::new();
            while page.len() < max {
                let next = self.stream.try_next().await;
                let Some(meta) = next.map_err(|error| StoreError::from_client(&error))? else {
                    break;
                };
                page.push(Listed {
                    modified_ms: meta.last_modified.timestamp_millis(),
                    size: meta.size,
                    key: Key::from_path(meta.location),
                });
            }
            page.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            Ok(page)
        };
        store.timed(RequestKind::List, 0, page).await
    }
}

fn taken(key: &Key) -> StoreError {
    StoreError::definite(Definite::AlreadyExists, format!("{key} holds something else"))
}

fn truncated(key: &Key, got: u64, expected: u64) -> StoreError {
    StoreError::definite(Definite::Truncated, format!("{key}: {got} of {expected} bytes"))
}

/// The last `count` bytes of the concatenated chunks.
fn last_bytes(chunks: &[Bytes], count: usize) -> Bytes {
    let mut reversed: Vec<u8> = chunks.iter().rev().flat_map(|chunk| chunk.iter().rev().copied()).take(count).collect();
    reversed.reverse();
    Bytes::from(reversed)
}

/// Regroups chunks into parts of `size` bytes, the last one shorter, without copying.
fn parts(chunks: &[Bytes], size: usize) -> Vec<Vec<Bytes>> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut room = size;
    for chunk in chunks {
        let mut chunk = chunk.clone();
        while !chunk.is_empty() {
            let taken = chunk.split_to(room.min(chunk.len()));
            room -= taken.len();
            part.push(taken);
            if room == 0 {
                parts.push(std::mem::take(&mut part));
                room = size;
            }
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}
