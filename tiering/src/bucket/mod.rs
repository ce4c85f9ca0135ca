//! Looking at a bucket before trusting it with data, and creating it.
//!
//! Run by `firn bucket check` and when a broker starts. Each [`Finding`] is one clear line that says
//! what to do. What the settings mean is decided in [`judge`], which is pure; only [`sdk`] talks to S3
//! through its SDK. [`ChainCredentials`] lends the SDK's way to credentials to the data path.

mod credentials;
pub mod judge;
mod sdk;

#[cfg(test)]
mod tests;

use std::fmt;

pub use credentials::ChainCredentials;
pub use sdk::BucketAdmin;

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// The bucket exists and can be reached.
    Reachable,
    /// It is in the region that requests are signed for.
    Region,
    /// Writes with If-None-Match are refused if the object exists.
    ConditionalWrites,
    /// What becomes of deleted objects.
    Versioning,
    /// Rules that delete or move objects.
    Lifecycle,
    /// Encryption at rest.
    Encryption,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reachable => "reachable",
            Self::Region => "region",
            Self::ConditionalWrites => "conditional writes",
            Self::Versioning => "versioning",
            Self::Lifecycle => "lifecycle",
            Self::Encryption => "encryption",
        })
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// As it should be.
    Fine,
    /// Could be better; nothing is at risk.
    Note,
    /// Costs money or trust; data is safe.
    Warning,
    /// Data would be lost or cannot be stored.
    Broken,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fine => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Broken => "error",
        })
    }
}

/// One thing found out about a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// How bad it is.
    pub severity: Severity,
    /// One line: what is the case, and what to do about it.
    pub line: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.severity, self.check, self.line)
    }
}

/// A bucket that could not be created, in one line with what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("creating bucket '{bucket}': {reason}")]
pub struct CreateError {
    /// The bucket.
    pub bucket: String,
    /// The store's reason.
    pub reason: String,
}
