//! An S3 server in this process, on loopback HTTP, that fails the way real ones do.
//!
//! Clients reach it through their real HTTP stack and sign their requests; signatures are verified. What goes wrong is
//! either scripted ([`S3Server::script`]: the next requests of one kind, in order) or drawn from a seed
//! ([`S3Server::set_faults`]). Which request a drawn fault hits depends on the order in which concurrent requests
//! arrive, so a seed repeats a storm's mix, not its trace; tests that need one exact sequence script it.

mod bucket;
mod faults;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bucket::Bucket;
pub use bucket::{BucketSettings, Conditions};
use bytes::{Bytes, BytesMut};
use faults::Plan;
pub use faults::{Fault, Faults, Operation};
use futures::{Stream, StreamExt, TryStreamExt};
use hyper::StatusCode;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proto::host::SeededEntropy;
use s3s::auth::SimpleAuth;
use s3s::dto::StreamingBlob;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpRequest, HttpResponse};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// The one bucket that exists from the start.
pub const BUCKET: &str = "firn";
const ACCESS_KEY: &str = "firn-tests";
const SECRET_KEY: &str = "firn-tests-secret";
/// How long after its client gave up a late write is applied.
const LATE: Duration = Duration::from_millis(150);

/// The server; it ends when this is dropped.
pub struct S3Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    service: S3Service,
    bucket: Bucket,
    plan: Plan,
    uploads: Uploads,
}

/// Bytes of bodies that clients are sending or wait to have stored, and the most there were at a time.
#[derive(Default)]
struct Uploads {
    bytes: AtomicU64,
    most: AtomicU64,
}

/// One request's share of [`Uploads`], until it is answered or its connection ends.
struct UnderWay<'a> {
    uploads: &'a Uploads,
    bytes: u64,
}

impl<'a> UnderWay<'a> {
    fn begin(uploads: &'a Uploads, request: &hyper::Request<Incoming>) -> Self {
        let bytes = request.body().size_hint().exact().unwrap_or(0);
        let now = uploads.bytes.fetch_add(bytes, Relaxed) + bytes;
        uploads.most.fetch_max(now, Relaxed);
        Self { uploads, bytes }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.uploads.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

/// The connection ends here without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut on purpose")]
struct Cut;

impl S3Server {
    /// Serves an empty bucket without faults on a free port.
    ///
    /// # Errors
    /// Those of binding.
    pub async fn start(seed: u64) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let bucket = Bucket::new(BUCKET);
        let mut service = S3ServiceBuilder::new(bucket.clone());
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let plan = Plan::new(Arc::new(SeededEntropy::new(seed)));
        let shared = Arc::new(Shared { service: service.build(), bucket, plan, uploads: Uploads::default() });
        Ok(Self {
            address: listener.local_addr()?,
            accepting: tokio::spawn(accept(listener, Arc::clone(&shared))),
            shared,
        })
    }

    /// The `AWS_*` environment with which clients reach the bucket.
    pub fn env(&self) -> Vec<(String, String)> {
        let pairs = [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// What is drawn from now on. Scripted faults come first.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.plan.set(faults);
    }

    /// The next requests of this kind meet these, in order.
    pub fn script(&self, operation: Operation, faults: impl IntoIterator<Item = Fault>) {
        self.shared.plan.script(operation, faults);
    }

    /// Replaces how the bucket is set up; at first it is as S3 makes it, encrypted, without versions or rules.
    pub fn set_bucket(&self, settings: BucketSettings) {
        self.shared.bucket.set(settings);
    }

    /// Takes the bucket and all that is in it away, as someone with too many rights would.
    pub fn drop_bucket(&self) {
        self.shared.bucket.drop_all();
    }

    /// Scripted faults that no request has met yet.
    pub fn scripted(&self) -> usize {
        self.shared.plan.scripted()
    }

    /// Requests that arrived, by kind, those that met a fault included.
    pub fn requests(&self) -> BTreeMap<Operation, u64> {
        self.shared.plan.requests()
    }

    /// How often each fault happened.
    pub fn happened(&self) -> BTreeMap<Fault, u64> {
        self.shared.plan.happened()
    }

    /// The most bytes of request bodies that waited for their answers at a time.
    pub fn most_bytes_under_way(&self) -> u64 {
        self.shared.uploads.most.load(Relaxed)
    }

    /// Every object, by key.
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        self.shared.bucket.objects()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, Arc::clone(&shared)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| Arc::clone(&shared).answer(request));
    // A connection that ends early is what this server is for.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Shared {
    async fn answer(self: Arc<Self>, request: hyper::Request<Incoming>) -> Result<HttpResponse, Cut> {
        let operation = Operation::of(request.method(), request.uri());
        let _under_way = UnderWay::begin(&self.uploads, &request);
        let fault = self.plan.next(operation);
        let request = request.map(Body::from);
        match fault {
            None => self.perform(request).await,
            Some(Fault::Slow(by)) => {
                tokio::time::sleep(by).await;
                self.perform(request).await
            }
            Some(Fault::Refuse) => {
                Ok(refusal(StatusCode::SERVICE_UNAVAILABLE, "SlowDown", "Please reduce your request rate."))
            }
            Some(Fault::Fail) => Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "Please try again.")),
            Some(Fault::Close) => Err(Cut),
            // Nothing is applied; the client's patience ends it, which is only noticed once the body is read.
            Some(Fault::Hang) => {
                read(request.into_body()).await?;
                std::future::pending().await
            }
            Some(Fault::Truncate) => {
                let cut = futures::stream::iter([Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))]);
                break_off(self.perform(request).await?, cut).await
            }
            Some(Fault::Stall) => break_off(self.perform(request).await?, futures::stream::pending()).await,
            Some(Fault::LoseAnswer) => {
                self.perform(request).await?;
                Err(Cut)
            }
            Some(Fault::Late) => {
                let (head, body) = request.into_parts();
                let body = read(body).await?;
                let shared = Arc::clone(&self);
                tokio::spawn(async move {
                    tokio::time::sleep(LATE).await;
                    // Nobody is left to hear how it went.
                    let _ = shared.perform(HttpRequest::from_parts(head, Body::from(body))).await;
                });
                Err(Cut)
            }
        }
    }

    async fn perform(&self, request: HttpRequest) -> Result<HttpResponse, Cut> {
        if let Some(region) =
            self.bucket.region().filter(|region| signed_for(&request).is_some_and(|signed| signed != region))
        {
            let mut elsewhere =
                refusal(StatusCode::MOVED_PERMANENTLY, "PermanentRedirect", "Use the bucket's own endpoint.");
            if let Ok(region) = region.parse() {
                elsewhere.headers_mut().insert("x-amz-bucket-region", region);
            }
            return Ok(elsewhere);
        }
        self.service.call(request).await.map_err(|_| Cut)
    }
}

/// The region in the scope of a request's signature.
fn signed_for(request: &HttpRequest) -> Option<&str> {
    let header = request.headers().get(hyper::header::AUTHORIZATION)?.to_str().ok()?;
    header.split_once("Credential=")?.1.split('/').nth(2)
}

/// What S3 says when it cannot or will not.
fn refusal(status: StatusCode, code: &str, message: &str) -> HttpResponse {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    let mut response = HttpResponse::new(Body::from(Bytes::from(body)));
    *response.status_mut() = status;
    response
}

/// The same answer with the same promised length, of whose body only the first half comes before `end`.
async fn break_off(
    response: HttpResponse,
    end: impl Stream<Item = std::io::Result<Bytes>> + Send + Sync + 'static,
) -> Result<HttpResponse, Cut> {
    let (mut head, body) = response.into_parts();
    let body = read(body).await?;
    head.headers.insert(hyper::header::CONTENT_LENGTH, body.len().into());
    let half = body.slice(..body.len() / 2);
    let body = StreamingBlob::wrap(futures::stream::iter([Ok(half)]).chain(end));
    Ok(HttpResponse::from_parts(head, Body::from(body)))
}

async fn read(body: Body) -> Result<Bytes, Cut> {
    let whole = StreamingBlob::from(body).try_fold(BytesMut::new(), |mut whole, part| async move {
        whole.extend_from_slice(&part);
        Ok(whole)
    });
    whole.await.map(BytesMut::freeze).map_err(|_| Cut)
}
