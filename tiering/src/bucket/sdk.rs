//! The only place that talks to S3 through its SDK: what the data path's client cannot do.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{ProvideCredentials, Region, SharedCredentialsProvider};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration, ExpirationStatus,
    LifecycleRule as SdkRule,
};
use uuid::Uuid;

use super::credentials::{NoCredentials, innermost};
use super::judge::{self, LifecycleRule, Probe, Versioning};
use super::{Check, CreateError, Finding, Severity};
use crate::store::{AwsSettings, DEFAULT_REGION};

/// Bound of one request, its retries included.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A bucket, seen by its owner.
#[derive(Debug, Clone)]
pub struct BucketAdmin {
    client: Client,
    bucket: String,
    prefix: String,
    aws: AwsSettings,
    credentials: Option<SharedCredentialsProvider>,
}

/// Why a setting could not be read.
enum Unreadable {
    /// There is none.
    Absent,
    /// The store does not know this kind of setting.
    NotImplemented,
    /// The credentials do not allow it.
    Denied,
    /// Something else.
    Failed(String),
}

impl BucketAdmin {
    /// The bucket `bucket`, of which Firn uses what lies under `prefix` (may be empty). Region and endpoint are
    /// those of `aws`, credentials come from the SDK's chain: what the data path uses, too.
    pub async fn connect(bucket: &str, prefix: &str, aws: AwsSettings) -> Self {
        let timeouts =
            TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_timeout(OPERATION_TIMEOUT).build();
        let shared = aws_config::defaults(BehaviorVersion::latest())
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(2))
            .region(Region::new(aws.region.clone()))
            .load()
            .await;
        let credentials = shared.credentials_provider();
        let config = aws_sdk_s3::config::Builder::from(&shared);
        Self::with_config(config, aws, credentials, bucket, prefix)
    }

    /// Like [`connect`](Self::connect), with everything given. Stores of one's own have an endpoint and are addressed by path.
    pub(super) fn with_config(
        mut config: aws_sdk_s3::config::Builder,
        aws: AwsSettings,
        credentials: Option<SharedCredentialsProvider>,
        bucket: &str,
        prefix: &str,
    ) -> Self {
        config.set_region(Some(Region::new(aws.region.clone())));
        config.set_endpoint_url(aws.endpoint.clone());
        config.set_credentials_provider(credentials.clone());
        Self {
            client: Client::from_conf(config.force_path_style(aws.endpoint.is_some()).build()),
            bucket: bucket.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
            aws,
            credentials,
        }
    }

    /// Looks at everything, in the order in which it matters. Writes and deletes one small object whose
    /// name carries `probe`. What would only follow from an earlier finding is not looked at: a bucket that cannot be
    /// reached or is in another region.
    pub async fn check(&self, probe: Uuid) -> Vec<Finding> {
        if let Err(finding) = self.identity().await {
            return vec![finding];
        }
        let bucket_region = match self.reach().await {
            Ok(region) => region,
            Err(finding) => return vec![finding],
        };
        let mut findings = vec![Finding {
            check: Check::Reachable,
            severity: Severity::Fine,
            line: format!("bucket '{}' can be reached", self.bucket),
        }];
        let region = judge::region(bucket_region.as_deref(), &self.aws.region);
        let elsewhere = region.severity == Severity::Broken;
        findings.push(region);
        if elsewhere {
            return findings;
        }
        findings.push(self.conditional_writes(probe).await);
        let rules = self.lifecycle_rules().await;
        findings.push(self.versioning(rules.as_deref().unwrap_or_default()).await);
        match rules {
            Ok(rules) => findings.extend(judge::lifecycle(&rules, &self.prefix)),
            Err(unreadable) => findings.push(unreadable.finding(Check::Lifecycle, "s3:GetLifecycleConfiguration")),
        }
        findings.push(self.encryption().await);
        findings
    }

    /// Creates the bucket in the configured region; one that exists and is one's own is a success.
    pub async fn create(&self) -> Result<(), CreateError> {
        let elsewhere = Some(self.aws.region.as_str()).filter(|region| *region != DEFAULT_REGION);
        let configuration = elsewhere.map(|region| {
            CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::from(region)).build()
        });
        let created = self
            .client
            .create_bucket()
            .bucket(&self.bucket)
            .set_create_bucket_configuration(configuration)
            .send()
            .await;
        match created {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("BucketAlreadyOwnedByYou") => Ok(()),
            Err(error) => {
                let reason = match error.code() {
                    Some("BucketAlreadyExists") => {
                        "somebody else owns a bucket of that name: choose another".to_owned()
                    }
                    Some("AccessDenied") => "access denied: the credentials need s3:CreateBucket".to_owned(),
                    _ => self.reason(&error),
                };
                Err(CreateError { bucket: self.bucket.clone(), reason })
            }
        }
    }

    /// Whether there are credentials at all; whether they are good shows in the first request.
    async fn identity(&self) -> Result<(), Finding> {
        let why = match &self.credentials {
            None => NoCredentials { why: String::new() },
            Some(credentials) => {
                match tokio::time::timeout(OPERATION_TIMEOUT, credentials.provide_credentials()).await {
                    Ok(Ok(_)) => return Ok(()),
                    Ok(Err(error)) => NoCredentials::because(innermost(&error)),
                    Err(_) => NoCredentials::because(format!("no answer within {} s", OPERATION_TIMEOUT.as_secs())),
                }
            }
        };
        let line = why.to_string();
        Err(Finding { check: Check::Reachable, severity: Severity::Broken, line: bounded(&line) })
    }

    /// What the store said, or that it said nothing, in one line.
    fn reason<E: ProvideErrorMetadata + std::error::Error + 'static>(&self, error: &SdkError<E>) -> String {
        match error {
            SdkError::DispatchFailure(_) | SdkError::TimeoutError(_) => {
                let place = self.aws.endpoint.as_deref().unwrap_or("Amazon S3");
                bounded(&format!("{place} does not answer: {}; check AWS_ENDPOINT_URL", innermost(error)))
            }
            _ => one_line(error),
        }
    }

    /// The bucket's region, if the store names one.
    async fn reach(&self) -> Result<Option<String>, Finding> {
        let error = match self.client.head_bucket().bucket(&self.bucket).send().await {
            Ok(found) => return Ok(found.bucket_region().map(ToOwned::to_owned)),
            Err(error) => error,
        };
        let bucket = &self.bucket;
        let status = error.raw_response().map(|response| response.status().as_u16());
        let redirected =
            error.raw_response().and_then(|response| response.headers().get("x-amz-bucket-region")).map(str::to_owned);
        let line = match (status, redirected) {
            (Some(301 | 400), Some(region)) => return Ok(Some(region)),
            (Some(404), _) => {
                let prefix = if self.prefix.is_empty() { String::new() } else { format!("/{}", self.prefix) };
                format!(
                    "bucket '{bucket}' does not exist: create it with firn bucket check s3://{bucket}{prefix} --create"
                )
            }
            (Some(403), _) => format!(
                "access to bucket '{bucket}' is denied: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and that they \
                 allow s3:ListBucket"
            ),
            (Some(status), _) => format!("bucket '{bucket}' answers with HTTP status {status}: {}", one_line(&error)),
            (None, _) => format!("bucket '{bucket}' cannot be reached: {}", self.reason(&error)),
        };
        Err(Finding { check: Check::Reachable, severity: Severity::Broken, line })
    }

    async fn conditional_writes(&self, probe: Uuid) -> Finding {
        let name = format!("firn-probe-{probe}");
        let key = if self.prefix.is_empty() { name } else { format!("{}/{name}", self.prefix) };
        let first = self.put_if_absent(&key).await;
        let second = match &first {
            Probe::Stored => self.put_if_absent(&key).await,
            other => other.clone(),
        };
        if first == Probe::Stored
            && let Err(error) = self.client.delete_object().bucket(&self.bucket).key(&key).send().await
        {
            return Finding {
                check: Check::ConditionalWrites,
                severity: Severity::Broken,
                line: format!(
                    "the probe object '{key}' cannot be deleted: {}; retention needs s3:DeleteObject",
                    one_line(&error)
                ),
            };
        }
        judge::conditional_writes(&first, &second)
    }

    async fn put_if_absent(&self, key: &str) -> Probe {
        let put = self.client.put_object().bucket(&self.bucket).key(key).if_none_match("*");
        match put.body(ByteStream::from_static(b"firn")).send().await {
            Ok(_) => Probe::Stored,
            Err(error) => match error.raw_response().map(|response| response.status().as_u16()) {
                Some(409 | 412) => Probe::Exists,
                Some(501) => Probe::NotImplemented,
                _ => Probe::Failed(one_line(&error)),
            },
        }
    }

    async fn versioning(&self, rules: &[LifecycleRule]) -> Finding {
        match self.client.get_bucket_versioning().bucket(&self.bucket).send().await {
            Ok(found) => {
                let on = found.status() == Some(&BucketVersioningStatus::Enabled);
                let versioning = if on { Versioning::On } else { Versioning::Off };
                judge::versioning(versioning, rules, &self.prefix)
            }
            Err(error) => Unreadable::from(&error).finding(Check::Versioning, "s3:GetBucketVersioning"),
        }
    }

    async fn lifecycle_rules(&self) -> Result<Vec<LifecycleRule>, Unreadable> {
        match self.client.get_bucket_lifecycle_configuration().bucket(&self.bucket).send().await {
            Ok(found) => Ok(found.rules().iter().map(rule).collect()),
            Err(error) => match Unreadable::from(&error) {
                Unreadable::Absent => Ok(Vec::new()),
                unreadable => Err(unreadable),
            },
        }
    }

    async fn encryption(&self) -> Finding {
        match self.client.get_bucket_encryption().bucket(&self.bucket).send().await {
            Ok(found) => {
                let rules = found.server_side_encryption_configuration().map(|found| found.rules()).unwrap_or_default();
                let default = rules.iter().find_map(|rule| rule.apply_server_side_encryption_by_default());
                judge::encryption(default.map(|default| default.sse_algorithm().as_str()))
            }
            Err(error) => match Unreadable::from(&error) {
                Unreadable::Absent => judge::encryption(None),
                unreadable => unreadable.finding(Check::Encryption, "s3:GetEncryptionConfiguration"),
            },
        }
    }
}

impl Unreadable {
    fn from<E: ProvideErrorMetadata + std::error::Error + 'static>(error: &SdkError<E>) -> Self {
        let status = error.raw_response().map(|response| response.status().as_u16());
        match (status, error.code()) {
            (_, Some("NoSuchLifecycleConfiguration" | "ServerSideEncryptionConfigurationNotFoundError"))
            | (Some(404), _) => Self::Absent,
            (Some(501 | 405), _) | (_, Some("NotImplemented")) => Self::NotImplemented,
            (Some(403), _) => Self::Denied,
            _ => Self::Failed(one_line(error)),
        }
    }

    fn finding(&self, check: Check, permission: &str) -> Finding {
        let line = match self {
            Self::Absent => "there is no such setting".to_owned(),
            Self::NotImplemented => "the store does not have this setting".to_owned(),
            Self::Denied => format!("cannot be looked at: the credentials lack {permission}"),
            Self::Failed(error) => format!("cannot be looked at: {error}"),
        };
        let severity = match self {
            Self::Absent | Self::NotImplemented => Severity::Fine,
            Self::Denied => Severity::Note,
            Self::Failed(_) => Severity::Warning,
        };
        Finding { check, severity, line }
    }
}

fn rule(rule: &SdkRule) -> LifecycleRule {
    let filter = rule.filter();
    let and = filter.and_then(|filter| filter.and());
    #[allow(deprecated, reason = "rules written before filters existed carry their prefix here")]
    let old_prefix = rule.prefix();
    let prefix = filter.and_then(|filter| filter.prefix()).or(and.and_then(|and| and.prefix())).or(old_prefix);
    let tagged = filter.is_some_and(|filter| filter.tag().is_some()) || and.is_some_and(|and| !and.tags().is_empty());
    LifecycleRule {
        id: rule.id().unwrap_or_default().to_owned(),
        enabled: rule.status() == &ExpirationStatus::Enabled,
        prefix: prefix.unwrap_or_default().to_owned(),
        tagged_only: tagged,
        expires: rule.expiration().is_some_and(|expiration| expiration.days().is_some() || expiration.date().is_some()),
        transitions: rule
            .transitions()
            .iter()
            .filter_map(|transition| Some(transition.storage_class()?.as_str().to_owned()))
            .collect(),
        expires_noncurrent: rule.noncurrent_version_expiration().is_some(),
        aborts_multipart: rule.abort_incomplete_multipart_upload().is_some(),
    }
}

/// What the store said, or why it was not reached, in one line of bounded length.
fn one_line<E: ProvideErrorMetadata + std::error::Error + 'static>(error: &SdkError<E>) -> String {
    let text = match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            text
        }
    };
    bounded(&text)
}

fn bounded(text: &str) -> String {
    const LIMIT: usize = 300;
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > LIMIT {
        let cut = (0..=LIMIT).rev().find(|at| line.is_char_boundary(*at));
        line.truncate(cut.unwrap_or(0));
        line.push('…');
    }
    line
}
