//! An object store in memory that fails the way real ones do, for tests and simulation.
//!
//! Everything random follows from the entropy it is given, and all waiting is tokio time, so that a
//! seed repeats a run. It can refuse, hang, cut bodies short, apply a write and lose the answer, or
//! apply it long after its client gave up.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use parking_lot::Mutex;
use proto::host::Entropy;

/// How often what goes wrong, in 1/1000 of requests. All 0 by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// 503 Slow Down, nothing happened.
    pub throttle: u32,
    /// No answer ever, nothing happened.
    pub hang: u32,
    /// The answer to a write is lost, the write is applied.
    pub lost_answer: u32,
    /// The client gives up on a write, which is applied up to a minute later.
    pub late: u32,
    /// A read ends early.
    pub truncate: u32,
}

/// Counts of requests that reached the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes of whole objects.
    pub puts: u64,
    /// Reads.
    pub gets: u64,
    /// Deletions.
    pub deletes: u64,
    /// Listings.
    pub lists: u64,
}

/// Asked before and after the effect of every request; may hang for ever to simulate a crash there.
#[async_trait]
pub trait Fuse: Send + Sync {
    /// One step is about to happen, or has just happened.
    async fn step(&self);
}

/// Never blows.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFuse;

#[async_trait]
impl Fuse for NoFuse {
    async fn step(&self) {}
}

/// The store; clones share everything.
#[derive(Clone)]
pub struct FaultyStore(Arc<Inner>);

struct Inner {
    objects: Mutex<BTreeMap<Path, Bytes>>,
    faults: Mutex<Faults>,
    counts: Mutex<Counts>,
    entropy: Arc<dyn Entropy>,
    fuse: Arc<dyn Fuse>,
    /// Bound of the time a request takes.
    latency: Duration,
}

impl FaultyStore {
    /// An empty store whose requests take up to `latency`.
    pub fn new(entropy: Arc<dyn Entropy>, fuse: Arc<dyn Fuse>, latency: Duration) -> Self {
        Self(Arc::new(Inner {
            objects: Mutex::default(),
            faults: Mutex::default(),
            counts: Mutex::default(),
            entropy,
            fuse,
            latency,
        }))
    }

    /// From now on this goes wrong.
    pub fn set_faults(&self, faults: Faults) {
        *self.0.faults.lock() = faults;
    }

    /// Requests so far.
    pub fn counts(&self) -> Counts {
        *self.0.counts.lock()
    }

    /// Every object there is.
    pub fn objects(&self) -> BTreeMap<Path, Bytes> {
        self.0.objects.lock().clone()
    }

    /// Puts or replaces an object, without faults.
    pub fn insert(&self, path: Path, bytes: Bytes) {
        self.0.objects.lock().insert(path, bytes);
    }

    /// Removes an object, without faults.
    pub fn remove(&self, path: &Path) -> Option<Bytes> {
        self.0.objects.lock().remove(path)
    }

    fn chance(&self, per_mille: u32) -> bool {
        self.0.entropy.next_u64() % 1000 < u64::from(per_mille)
    }

    async fn arrive(&self) -> Result<()> {
        let micros = self.0.latency.as_micros() as u64;
        if micros > 0 {
            tokio::time::sleep(Duration::from_micros(self.0.entropy.next_u64() % micros)).await;
        }
        let faults = *self.0.faults.lock();
        if self.chance(faults.throttle) {
            return Err(generic("Server returned non-2xx status code: 503 Service Unavailable"));
        }
        if self.chance(faults.hang) {
            std::future::pending::<()>().await;
        }
        self.0.fuse.step().await;
        Ok(())
    }

    /// Applies a write now, or later while the client goes without an answer.
    async fn write<T: Send + 'static>(&self, effect: impl FnOnce(&Self) -> Result<T> + Send + 'static) -> Result<T> {
        let faults = *self.0.faults.lock();
        if self.chance(faults.late) {
            let (store, wait) = (self.clone(), Duration::from_millis(self.0.entropy.next_u64() % 60_000));
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                // Nobody is left to hear how it ended.
                let _ = effect(&store);
            });
            return Err(generic("connection reset by peer"));
        }
        let done = effect(self);
        self.0.fuse.step().await;
        if self.chance(faults.lost_answer) {
            return Err(generic("connection closed before the response"));
        }
        done
    }

    fn put(&self, path: &Path, bytes: Bytes, mode: &PutMode) -> Result<PutResult> {
        let mut objects = self.0.objects.lock();
        if matches!(mode, PutMode::Create) && objects.contains_key(path) {
            return Err(Error::AlreadyExists { path: path.to_string(), source: "412 Precondition Failed".into() });
        }
        objects.insert(path.clone(), bytes);
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

fn generic(text: &'static str) -> Error {
    Error::Generic { store: "faulty", source: text.into() }
}

fn collect(payload: PutPayload) -> Bytes {
    Bytes::from(payload.iter().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>())
}

fn meta(path: &Path, bytes: &Bytes) -> ObjectMeta {
    ObjectMeta {
        location: path.clone(),
        last_modified: Default::default(),
        size: bytes.len() as u64,
        e_tag: None,
        version: None,
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.counts.lock().puts += 1;
        self.arrive().await?;
        let (path, bytes) = (location.clone(), collect(payload));
        self.write(move |store| store.put(&path, bytes, &options.mode)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.arrive().await?;
        Ok(Box::new(Parts { store: self.clone(), path: location.clone(), parts: Arc::default(), count: 0 }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.counts.lock().gets += 1;
        self.arrive().await?;
        let bytes = self.0.objects.lock().get(location).cloned();
        let Some(bytes) = bytes else {
            return Err(Error::NotFound { path: location.to_string(), source: "404 Not Found".into() });
        };
        let size = bytes.len() as u64;
        let range = match options.range {
            Some(range) => range.as_range(size).map_err(|_| generic("416 Range Not Satisfiable"))?,
            None => 0..size,
        };
        let mut body = bytes.slice(range.start as usize..range.end as usize);
        let truncate = self.0.faults.lock().truncate;
        if self.chance(truncate) && !body.is_empty() {
            body.truncate((self.0.entropy.next_u64() % body.len() as u64) as usize);
        }
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::once(async move { Ok(body) }).boxed()),
            meta: meta(location, &bytes),
            range,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |path| {
                let store = store.clone();
                async move {
                    let path = path?;
                    store.0.counts.lock().deletes += 1;
                    store.arrive().await?;
                    let removed = path.clone();
                    store
                        .write(move |store| {
                            store.0.objects.lock().remove(&removed);
                            Ok(())
                        })
                        .await?;
                    Ok(path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        let prefix = prefix.cloned().unwrap_or_default();
        stream::once(async move {
            store.0.counts.lock().lists += 1;
            store.arrive().await?;
            let objects = store.0.objects.lock();
            let under = objects.iter().filter(|(path, _)| path.prefix_matches(&prefix) && **path != prefix);
            Ok(under.map(|(path, bytes)| Ok(meta(path, bytes))).collect::<Vec<_>>())
        })
        .map(|listed: Result<Vec<Result<ObjectMeta>>>| stream::iter(listed.unwrap_or_else(|error| vec![Err(error)])))
        .flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, _prefix: Option<&Path>) -> Result<ListResult> {
        Err(Error::NotImplemented { operation: "list_with_delimiter".into(), implementer: "FaultyStore".into() })
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copy".into(), implementer: "FaultyStore".into() })
    }
}

#[derive(Debug)]
struct Parts {
    store: FaultyStore,
    path: Path,
    parts: Arc<Mutex<BTreeMap<usize, Bytes>>>,
    count: usize,
}

#[async_trait]
impl MultipartUpload for Parts {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, parts, number) = (self.store.clone(), Arc::clone(&self.parts), self.count);
        self.count += 1;
        Box::pin(async move {
            store.arrive().await?;
            parts.lock().insert(number, collect(data));
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.store.0.counts.lock().puts += 1;
        self.store.arrive().await?;
        let whole: Vec<u8> = self.parts.lock().values().flat_map(|part| part.iter().copied()).collect();
        let path = self.path.clone();
        self.store.write(move |store| store.put(&path, Bytes::from(whole), &PutMode::Overwrite)).await
    }

    async fn abort(&mut self) -> Result<()> {
        Ok(())
    }
}
