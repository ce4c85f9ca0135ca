//! How a request to the object store ends: done, failed, or *unknown*.

use object_store::Error;

/// Why a request did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It did not happen.
    #[error("{kind}: {message}")]
    Definite {
        /// What kind of refusal.
        kind: Definite,
        /// What the store said, in one line.
        message: String,
    },
    /// It may have happened, or may still happen: no answer, or one that leaves it open. Only the
    /// caller can decide what that means; to treat it as failed is a bug.
    #[error("outcome unknown: {message}")]
    Unknown {
        /// What is known, in one line.
        message: String,
    },
}

/// Kinds of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Definite {
    /// No such object.
    NotFound,
    /// No such bucket: that says nothing about what is in it.
    NoBucket,
    /// An object of that name exists, and it is not the one to be stored.
    AlreadyExists,
    /// Credentials are missing, wrong, or not enough.
    Denied,
    /// The store asks for fewer requests (503 Slow Down, 429).
    Throttled,
    /// The store was not reached: the request was not sent.
    Unreachable,
    /// There is no room for the object where the store is. Nothing was sent.
    NoSpace,
    /// The body did not have the promised length.
    Truncated,
    /// The request cannot be served by this store, or makes no sense to it.
    Unsupported,
}

impl Definite {
    /// Stable name, for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::NoBucket => "no_bucket",
            Self::AlreadyExists => "already_exists",
            Self::Denied => "denied",
            Self::Throttled => "throttled",
            Self::Unreachable => "unreachable",
            Self::NoSpace => "no_space",
            Self::Truncated => "truncated",
            Self::Unsupported => "unsupported",
        }
    }
}

impl std::fmt::Display for Definite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::NoBucket => "the bucket does not exist",
            Self::AlreadyExists => "already exists",
            Self::Denied => "access denied",
            Self::Throttled => "the store asks to slow down",
            Self::Unreachable => "the store cannot be reached",
            Self::NoSpace => "no space",
            Self::Truncated => "truncated answer",
            Self::Unsupported => "not supported by the store",
        })
    }
}

impl StoreError {
    /// A refusal.
    pub fn definite(kind: Definite, message: impl Into<String>) -> Self {
        Self::Definite { kind, message: message.into() }
    }

    /// An open outcome.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::Unknown { message: message.into() }
    }

    /// The kind, if it is a refusal.
    pub const fn kind(&self) -> Option<Definite> {
        match self {
            Self::Definite { kind, .. } => Some(*kind),
            Self::Unknown { .. } => None,
        }
    }

    /// Whether the object is not there.
    pub const fn is_not_found(&self) -> bool {
        matches!(self.kind(), Some(Definite::NotFound))
    }

    /// Whether the same request may succeed later without anybody repairing something. Refusals of
    /// access and a bucket that is gone are among them: people repair those while Firn runs, and it must notice.
    pub const fn may_pass(&self) -> bool {
        !matches!(self.kind(), Some(Definite::NotFound | Definite::AlreadyExists | Definite::Unsupported))
    }

    /// What an error of the store's client means. Whatever is not surely a refusal is unknown.
    pub(super) fn from_client(error: &Error) -> Self {
        let text = whole(error);
        let message = one_line(&text);
        match error {
            Error::NotFound { .. } if text.contains("<Code>NoSuchBucket</Code>") => {
                Self::definite(Definite::NoBucket, message)
            }
            Error::NotFound { .. } => Self::definite(Definite::NotFound, message),
            // A store answers 409 also to concurrent writes of one name; both mean that ours was refused.
            Error::AlreadyExists { .. } | Error::Precondition { .. } => {
                Self::definite(Definite::AlreadyExists, message)
            }
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Self::definite(Definite::Denied, message),
            Error::NotSupported { .. }
            | Error::NotImplemented { .. }
            | Error::InvalidPath { .. }
            | Error::UnknownConfigurationKey { .. }
            | Error::NotModified { .. } => Self::definite(Definite::Unsupported, message),
            _ => Self::from_transport(error, &text, message),
        }
    }

    fn from_transport(error: &Error, text: &str, message: String) -> Self {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(current) = source {
            if let Some(http) = current.downcast_ref::<object_store::client::HttpError>()
                && http.kind() == object_store::client::HttpErrorKind::Connect
            {
                return Self::definite(Definite::Unreachable, message);
            }
            source = current.source();
        }
        // The client keeps the status to itself and shows it only in its text. If the text ever
        // changes the outcome falls back to unknown, which is always safe.
        let status = |code: &str| text.contains(&format!("status code: {code}"));
        if status("503") || status("429") {
            Self::definite(Definite::Throttled, message)
        } else if status("400") || status("404") || status("501") {
            Self::definite(Definite::Unsupported, message)
        } else {
            Self::unknown(message)
        }
    }
}

/// The error and all that caused it.
fn whole(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// What a person needs of it, in one line of bounded length: the store's own words if it said any, for what surrounds
/// them repeats the object's name.
fn one_line(text: &str) -> String {
    const LIMIT: usize = 400;
    let text = store_said(text).unwrap_or_else(|| text.to_owned());
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > LIMIT {
        let cut = (0..=LIMIT).rev().find(|at| line.is_char_boundary(*at));
        line.truncate(cut.unwrap_or(0));
        line.push('…');
    }
    line
}

/// Status, code and message of an answer in S3's form.
fn store_said(text: &str) -> Option<String> {
    let (_, answer) = text.split_once("status code: ")?;
    let status = answer.split([':', '<']).next()?.trim();
    let code = element(answer, "Code")?;
    Some(match element(answer, "Message") {
        Some(message) => format!("{status}, {code}: {message}"),
        None => format!("{status}, {code}"),
    })
}

/// The content of the first XML element of that name, if there is any.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(content, _)| content).filter(|content| !content.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: &str, body: &str) -> StoreError {
        let said = format!("Error performing PUT http://s3/{} in 3ms - status code: {status}: {body}", "k".repeat(500));
        StoreError::from_client(&Error::Generic { store: "S3", source: said.into() })
    }

    #[test]
    fn what_the_store_said_comes_first_however_long_the_name_is() {
        let body = "<?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code><Message>Please\n wait.</Message></Error>";
        let error = refused("503 Service Unavailable", body);
        assert_eq!(error, StoreError::definite(Definite::Throttled, "503 Service Unavailable, SlowDown: Please wait."));
        assert_eq!(refused("501 Not Implemented", "no XML").kind(), Some(Definite::Unsupported));
        assert_eq!(refused("500 Internal Server Error", body).kind(), None);
    }

    #[test]
    fn a_missing_bucket_is_no_missing_object() {
        let not_found =
            |body: &str| Error::NotFound { path: "k".into(), source: format!("status code: 404: {body}").into() };
        let bucket = StoreError::from_client(&not_found("<Error><Code>NoSuchBucket</Code></Error>"));
        assert_eq!(bucket.to_string(), "the bucket does not exist: 404, NoSuchBucket");
        assert!(!bucket.is_not_found() && bucket.may_pass());
        assert!(StoreError::from_client(&not_found("<Error><Code>NoSuchKey</Code></Error>")).is_not_found());
    }
}
