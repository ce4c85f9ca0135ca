//! Credentials for the data path from where Amazon's tools look for them.
//!
//! The data path's client knows keys in the environment and little else. This gives it the chain of the SDK: shared profiles,
//! web identity, containers, instance metadata. What `firn bucket check` finds is then what the broker uses.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::BehaviorVersion;
use aws_sdk_s3::config::{ProvideCredentials, SharedCredentialsProvider};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

/// How long credentials are used before the chain is asked again. Those that expire are renewed minutes before they do,
/// so that a minute needs no clock to be safe, and costs one request a minute at most.
const KEPT: Duration = Duration::from_secs(60);

/// The SDK's chain, asked when a request first needs it.
#[derive(Debug, Default)]
pub struct ChainCredentials {
    chain: OnceCell<Option<SharedCredentialsProvider>>,
    held: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    credential: Arc<AwsCredential>,
    until: Instant,
}

/// Nothing in the chain has credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a profile or role{why}"
)]
pub(super) struct NoCredentials {
    /// What the chain said, in parentheses, if it said anything.
    pub(super) why: String,
}

impl NoCredentials {
    pub(super) fn because(why: impl std::fmt::Display) -> Self {
        Self { why: format!(" ({why})") }
    }
}

impl ChainCredentials {
    async fn ask(&self) -> Result<Arc<AwsCredential>, NoCredentials> {
        let load = async { aws_config::defaults(BehaviorVersion::latest()).load().await.credentials_provider() };
        let chain = Box::pin(self.chain.get_or_init(|| load)).await;
        let chain = chain.as_ref().ok_or_else(|| NoCredentials { why: String::new() })?;
        let found = chain.provide_credentials().await.map_err(|error| NoCredentials::because(innermost(&error)))?;
        Ok(Arc::new(AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(ToOwned::to_owned),
        }))
    }
}

#[async_trait]
impl CredentialProvider for ChainCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut held = self.held.lock().await;
        let now = Instant::now();
        if let Some(held) = held.as_ref().filter(|held| now < held.until) {
            return Ok(Arc::clone(&held.credential));
        }
        let credential = match (self.ask().await, held.as_ref()) {
            (Ok(credential), _) => credential,
            // They may well still be good; if not, the store says so.
            (Err(error), Some(held)) => {
                tracing::warn!(%error, "credentials could not be renewed");
                Arc::clone(&held.credential)
            }
            (Err(error), None) => {
                return Err(object_store::Error::Unauthenticated { path: String::new(), source: Box::new(error) });
            }
        };
        *held = Some(Held { credential: Arc::clone(&credential), until: now + KEPT });
        Ok(credential)
    }
}

/// What is at the bottom of an error: what happened, without who was told.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
