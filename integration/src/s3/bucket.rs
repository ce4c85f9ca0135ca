//! What the server stores: one bucket in memory, with as much of S3 as Firn's clients use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use parking_lot::Mutex;
use proto::host::{Clock, SystemClock};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, BucketVersioningStatus, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CreateBucketInput, CreateBucketOutput, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput,
    DeletedObject, ETag, ExpirationStatus, GetBucketEncryptionInput, GetBucketEncryptionOutput,
    GetBucketLifecycleConfigurationInput, GetBucketLifecycleConfigurationOutput, GetBucketVersioningInput,
    GetBucketVersioningOutput, GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput,
    HeadObjectOutput, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter, ListObjectsV2Input, ListObjectsV2Output,
    Object, PutObjectInput, PutObjectOutput, ServerSideEncryption, ServerSideEncryptionByDefault,
    ServerSideEncryptionConfiguration, ServerSideEncryptionRule, StreamingBlob, Timestamp, UploadPartInput,
    UploadPartOutput,
};
use s3s::{Body, S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

/// The bucket; clones share everything.
#[derive(Clone)]
pub(super) struct Bucket(Arc<Mutex<State>>);

/// How the bucket is set up.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BucketSettings {
    /// What becomes of conditional writes.
    pub conditions: Conditions,
    /// Where the bucket is; requests signed for elsewhere are refused and told where.
    pub region: Option<String>,
    /// Whether old versions are said to be kept. None are.
    pub versioned: bool,
    /// Whether a lifecycle rule is said to delete what is under this prefix after 30 days. It is never applied.
    pub expiring: Option<String>,
    /// Whether there is no default encryption.
    pub plain: bool,
}

/// What a store does with `If-None-Match: *`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Conditions {
    /// 412 if there is such an object.
    #[default]
    Honoured,
    /// The object is replaced: a store that does not know the condition.
    Ignored,
    /// 501: a store that knows that it does not know it.
    Refused,
}

#[derive(Default)]
struct State {
    settings: BucketSettings,
    buckets: BTreeSet<String>,
    objects: BTreeMap<String, Stored>,
    /// Parts by upload id and number.
    uploads: BTreeMap<String, BTreeMap<i32, Bytes>>,
    /// For entity tags and upload ids.
    next: u64,
}

#[derive(Clone)]
struct Stored {
    bytes: Bytes,
    tag: String,
    modified: SystemTime,
}

impl State {
    fn fresh(&mut self) -> String {
        self.next += 1;
        format!("{:016x}", self.next)
    }

    fn reach(&self, bucket: &str) -> S3Result<()> {
        if self.buckets.contains(bucket) { Ok(()) } else { Err(s3_error!(NoSuchBucket)) }
    }

    fn store(&mut self, key: String, bytes: Bytes, only_if_absent: bool) -> S3Result<ETag> {
        match self.settings.conditions {
            Conditions::Refused if only_if_absent => return Err(s3_error!(NotImplemented)),
            Conditions::Honoured if only_if_absent && self.objects.contains_key(&key) => {
                return Err(s3_error!(PreconditionFailed));
            }
            Conditions::Honoured | Conditions::Ignored | Conditions::Refused => {}
        }
        let tag = self.fresh();
        let since_epoch = Duration::from_millis(u64::try_from(SystemClock.now_ms()).unwrap_or(0));
        let modified = SystemTime::UNIX_EPOCH + since_epoch;
        self.objects.insert(key, Stored { bytes, tag: tag.clone(), modified });
        Ok(ETag::Strong(tag))
    }

    fn find(&self, bucket: &str, key: &str) -> S3Result<Stored> {
        self.reach(bucket)?;
        self.objects.get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey))
    }
}

impl Bucket {
    pub(super) fn new(name: &str) -> Self {
        Self(Arc::new(Mutex::new(State { buckets: BTreeSet::from([name.to_owned()]), ..State::default() })))
    }

    pub(super) fn set(&self, settings: BucketSettings) {
        self.0.lock().settings = settings;
    }

    pub(super) fn region(&self) -> Option<String> {
        self.0.lock().settings.region.clone()
    }

    pub(super) fn drop_all(&self) {
        let mut state = self.0.lock();
        state.buckets.clear();
        state.objects.clear();
        state.uploads.clear();
    }

    pub(super) fn objects(&self) -> BTreeMap<String, Bytes> {
        self.0.lock().objects.iter().map(|(key, object)| (key.clone(), object.bytes.clone())).collect()
    }
}

async fn collect(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let Some(body) = body else { return Ok(Bytes::new()) };
    let whole = body.try_fold(BytesMut::new(), |mut whole, part| async move {
        whole.extend_from_slice(&part);
        Ok(whole)
    });
    whole.await.map(BytesMut::freeze).map_err(|error| S3Error::with_source(S3ErrorCode::IncompleteBody, error))
}

fn length(bytes: &Bytes) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}

fn absent(code: &'static str) -> S3Error {
    let mut error = S3Error::new(S3ErrorCode::Custom(code.into()));
    error.set_status_code(hyper::StatusCode::NOT_FOUND);
    error
}

#[async_trait]
impl S3 for Bucket {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        let only_if_absent = input.if_none_match.as_ref().is_some_and(|condition| condition.is_any());
        let bytes = collect(input.body).await?;
        let mut state = self.0.lock();
        state.reach(&input.bucket)?;
        let tag = state.store(input.key, bytes, only_if_absent)?;
        Ok(S3Response::new(PutObjectOutput { e_tag: Some(tag), ..Default::default() }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let object = self.0.lock().find(&input.bucket, &input.key)?;
        let size = object.bytes.len();
        let (bytes, content_range) = match input.range {
            None => (object.bytes, None),
            Some(range) => {
                let range = range.check(size as u64)?;
                let named = format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
                // In range of what is in memory, so both fit.
                (object.bytes.slice(range.start as usize..range.end as usize), Some(named))
            }
        };
        Ok(S3Response::new(GetObjectOutput {
            content_length: Some(length(&bytes)),
            content_range,
            body: Some(StreamingBlob::from(Body::from(bytes))),
            e_tag: Some(ETag::Strong(object.tag)),
            last_modified: Some(Timestamp::from(object.modified)),
            ..Default::default()
        }))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let object = self.0.lock().find(&request.input.bucket, &request.input.key)?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(length(&object.bytes)),
            e_tag: Some(ETag::Strong(object.tag)),
            last_modified: Some(Timestamp::from(object.modified)),
            ..Default::default()
        }))
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let mut state = self.0.lock();
        state.reach(&request.input.bucket)?;
        state.objects.remove(&request.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let mut state = self.0.lock();
        state.reach(&request.input.bucket)?;
        let mut deleted = Vec::new();
        for object in request.input.delete.objects {
            state.objects.remove(&object.key);
            deleted.push(DeletedObject { key: Some(object.key), ..Default::default() });
        }
        Ok(S3Response::new(DeleteObjectsOutput { deleted: Some(deleted), ..Default::default() }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let state = self.0.lock();
        state.reach(&input.bucket)?;
        let prefix = input.prefix.unwrap_or_default();
        let after = input.continuation_token.or(input.start_after).unwrap_or_default();
        let most = usize::try_from(input.max_keys.unwrap_or(1000)).unwrap_or(0);
        let mut rest = state.objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after).peekable();
        let mut contents = Vec::new();
        while contents.len() < most
            && let Some((key, object)) = rest.next()
        {
            contents.push(Object {
                key: Some(key.clone()),
                size: Some(length(&object.bytes)),
                e_tag: Some(ETag::Strong(object.tag.clone())),
                last_modified: Some(Timestamp::from(object.modified)),
                ..Default::default()
            });
        }
        let more = rest.peek().is_some();
        let last = contents.last().and_then(|object| object.key.clone());
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(prefix),
            key_count: i32::try_from(contents.len()).ok(),
            is_truncated: Some(more),
            next_continuation_token: last.filter(|_| more),
            contents: Some(contents),
            ..Default::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        let mut state = self.0.lock();
        state.reach(&input.bucket)?;
        let id = state.fresh();
        state.uploads.insert(id.clone(), BTreeMap::new());
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..Default::default()
        }))
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        let bytes = collect(input.body).await?;
        let mut state = self.0.lock();
        let tag = state.fresh();
        let parts = state.uploads.get_mut(&input.upload_id).ok_or_else(|| s3_error!(NoSuchUpload))?;
        parts.insert(input.part_number, bytes);
        Ok(S3Response::new(UploadPartOutput { e_tag: Some(ETag::Strong(tag)), ..Default::default() }))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let mut state = self.0.lock();
        let parts = state.uploads.remove(&input.upload_id).ok_or_else(|| s3_error!(NoSuchUpload))?;
        let named = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let mut whole = BytesMut::new();
        for part in named {
            let part = part.part_number.and_then(|number| parts.get(&number));
            whole.extend_from_slice(part.ok_or_else(|| s3_error!(InvalidPart))?);
        }
        let only_if_absent = input.if_none_match.as_ref().is_some_and(|condition| condition.is_any());
        let tag = state.store(input.key.clone(), whole.freeze(), only_if_absent)?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(tag),
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let removed = self.0.lock().uploads.remove(&request.input.upload_id);
        removed.ok_or_else(|| s3_error!(NoSuchUpload))?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.0.lock().reach(&request.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        if !self.0.lock().buckets.insert(request.input.bucket) {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        Ok(S3Response::new(CreateBucketOutput::default()))
    }

    async fn get_bucket_versioning(
        &self,
        request: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        let state = self.0.lock();
        state.reach(&request.input.bucket)?;
        let enabled = BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED);
        let status = state.settings.versioned.then_some(enabled);
        Ok(S3Response::new(GetBucketVersioningOutput { status, ..Default::default() }))
    }

    async fn get_bucket_lifecycle_configuration(
        &self,
        _request: S3Request<GetBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<GetBucketLifecycleConfigurationOutput>> {
        let prefix = self.0.lock().settings.expiring.clone();
        let prefix = prefix.ok_or_else(|| absent("NoSuchLifecycleConfiguration"))?;
        let rule = LifecycleRule {
            abort_incomplete_multipart_upload: None,
            expiration: Some(LifecycleExpiration { days: Some(30), ..Default::default() }),
            filter: Some(LifecycleRuleFilter { prefix: Some(prefix), ..Default::default() }),
            id: Some("tidy-up".to_owned()),
            noncurrent_version_expiration: None,
            noncurrent_version_transitions: None,
            prefix: None,
            status: ExpirationStatus::from_static(ExpirationStatus::ENABLED),
            transitions: None,
        };
        Ok(S3Response::new(GetBucketLifecycleConfigurationOutput { rules: Some(vec![rule]), ..Default::default() }))
    }

    async fn get_bucket_encryption(
        &self,
        _request: S3Request<GetBucketEncryptionInput>,
    ) -> S3Result<S3Response<GetBucketEncryptionOutput>> {
        if self.0.lock().settings.plain {
            return Err(absent("ServerSideEncryptionConfigurationNotFoundError"));
        }
        let algorithm = ServerSideEncryption::from_static(ServerSideEncryption::AES256);
        let by_default = ServerSideEncryptionByDefault { kms_master_key_id: None, sse_algorithm: algorithm };
        let rule = ServerSideEncryptionRule {
            apply_server_side_encryption_by_default: Some(by_default),
            ..Default::default()
        };
        let configuration = ServerSideEncryptionConfiguration { rules: vec![rule] };
        Ok(S3Response::new(GetBucketEncryptionOutput { server_side_encryption_configuration: Some(configuration) }))
    }
}
