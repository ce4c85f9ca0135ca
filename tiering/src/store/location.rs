//! Where a store is: from a URL to a client.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use crate::bucket::ChainCredentials;

/// A parsed `--object-store`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// `file:///path`: a directory, made if it does not exist.
    Directory(PathBuf),
    /// `memory:`: gone when the process ends.
    Memory,
    /// `s3://bucket/prefix`.
    S3 {
        /// The bucket.
        bucket: String,
        /// Path below it, without slashes at the ends; may be empty.
        prefix: String,
    },
}

/// Why a URL or its settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Not a URL, or one that names no place.
    #[error("object store '{url}': {reason}; use file:///path, memory: or s3://bucket/prefix")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The directory cannot be used.
    #[error("object store directory {path}: {reason}")]
    Directory {
        /// The directory.
        path: String,
        /// The operating system's reason.
        reason: String,
    },
    /// The S3 client cannot be made from these settings.
    #[error("object store s3://{bucket}: {reason}; check the AWS_* environment")]
    S3 {
        /// The bucket.
        bucket: String,
        /// The client's reason.
        reason: String,
    },
}

/// As a URL, without credentials.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => match Url::from_file_path(path) {
                Ok(url) => write!(f, "{url}"),
                Err(()) => write!(f, "{}", path.display()),
            },
            Self::Memory => write!(f, "memory:"),
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl Location {
    /// Parses a URL.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        let wrong = |reason: &str| LocationError::Url { url: text.to_owned(), reason: reason.to_owned() };
        let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
        match url.scheme() {
            "memory" => Ok(Self::Memory),
            "file" => {
                url.to_file_path().map(Self::Directory).map_err(|()| wrong("not an absolute path on this machine"))
            }
            "s3" | "s3a" => {
                let bucket = url.host_str().filter(|host| !host.is_empty());
                Ok(Self::S3 {
                    bucket: bucket.ok_or_else(|| wrong("no bucket"))?.to_owned(),
                    prefix: url.path().trim_matches('/').to_owned(),
                })
            }
            scheme => Err(wrong(&format!("scheme '{scheme}' is not known"))),
        }
    }

    /// The prefix that every key begins with.
    pub fn prefix(&self) -> &str {
        match self {
            Self::Directory(_) | Self::Memory => "",
            Self::S3 { prefix, .. } => prefix,
        }
    }

    /// Opens the store. `env` are the process's environment variables; only `AWS_*` ones are looked at.
    ///
    /// Credentials are those of the environment, else of the SDK's chain ([`ChainCredentials`]). Retries inside the
    /// client are off: a retried request hides that an earlier attempt may have been applied.
    pub fn open(
        &self,
        env: impl IntoIterator<Item = (String, String)>,
        timeouts: Timeouts,
    ) -> Result<Arc<dyn ObjectStore>, LocationError> {
        match self {
            Self::Memory => Ok(Arc::new(InMemory::new())),
            Self::Directory(path) => open_directory(path),
            Self::S3 { bucket, .. } => open_s3(bucket, env, timeouts),
        }
    }
}

/// Bounds on the time one request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection stands.
    pub connect: Duration,
    /// A request that moves hardly any bytes.
    pub request: Duration,
    /// Added per MiB of body.
    pub per_mib: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), request: Duration::from_secs(15), per_mib: Duration::from_secs(1) }
    }
}

impl Timeouts {
    /// For a request with a body of `bytes`.
    pub fn for_bytes(&self, bytes: u64) -> Duration {
        let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        self.request + self.per_mib.saturating_mul(mib)
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "making the store's own root directory happens once, when the process starts"
)]
fn open_directory(path: &std::path::Path) -> Result<Arc<dyn ObjectStore>, LocationError> {
    let wrong = |reason: String| LocationError::Directory { path: path.display().to_string(), reason };
    std::fs::create_dir_all(path).map_err(|error| wrong(error.to_string()))?;
    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| wrong(error.to_string()))?;
    Ok(Arc::new(store.with_fsync(true).with_automatic_cleanup(true)))
}

/// The region that requests are signed for unless another is set; what most own stores expect.
pub const DEFAULT_REGION: &str = "us-east-1";

/// Where S3 is, as the environment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsSettings {
    /// `AWS_ENDPOINT_URL_S3`, else `AWS_ENDPOINT_URL`; none for Amazon's own.
    pub endpoint: Option<String>,
    /// `AWS_REGION`, else `AWS_DEFAULT_REGION`, else [`DEFAULT_REGION`].
    pub region: String,
}

impl AwsSettings {
    /// Out of the process's environment variables. Empty ones count as not set.
    pub fn from_env(env: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut found: BTreeMap<String, String> = env.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let mut first = |names: [&str; 2]| names.iter().find_map(|name| found.remove(*name));
        let endpoint = first(["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]);
        let region = first(["AWS_REGION", "AWS_DEFAULT_REGION"]);
        Self { endpoint, region: region.unwrap_or_else(|| DEFAULT_REGION.to_owned()) }
    }
}

fn open_s3(
    bucket: &str,
    env: impl IntoIterator<Item = (String, String)>,
    timeouts: Timeouts,
) -> Result<Arc<dyn ObjectStore>, LocationError> {
    let wrong = |reason: String| LocationError::S3 { bucket: bucket.to_owned(), reason };
    let env: Vec<(String, String)> =
        env.into_iter().filter(|(name, value)| name.starts_with("AWS_") && !value.is_empty()).collect();
    let aws = AwsSettings::from_env(env.iter().cloned());
    let has_keys = env.iter().any(|(name, _)| matches!(name.as_str(), "AWS_ACCESS_KEY_ID" | "AWS_SKIP_SIGNATURE"));
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket);
    for (name, value) in env {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder.with_region(aws.region);
    if let Some(endpoint) = aws.endpoint {
        let url = Url::parse(&endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if url.is_none() {
            return Err(wrong(format!(
                "AWS_ENDPOINT_URL is '{endpoint}', which does not begin with http:// or https://"
            )));
        }
        let allow_http = endpoint.starts_with("http://");
        builder = builder.with_endpoint(endpoint).with_allow_http(allow_http);
    }
    if !has_keys {
        builder = builder.with_credentials(Arc::new(ChainCredentials::default()));
    }
    let options =
        ClientOptions::new().with_connect_timeout(timeouts.connect).with_allow_http(true).with_timeout_disabled();
    builder
        .with_client_options(options)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
        .build()
        .map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
        .map_err(|error| wrong(error.to_string()))
}
