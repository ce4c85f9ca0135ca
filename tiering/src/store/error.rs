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
    /// No such object (or bucket).
    NotFound,
    /// An object of that name exists, and it is not the one to be stored.
    AlreadyExists,
    /// Credentials are missing, wrong, or not enough.
    Denied,
    /// The store asks for fewer requests (503 Slow Down, 429).
    Throttled,
    /// The store was not reached: the request was not sent.
    Unreachable,
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
            Self::AlreadyExists => "already_exists",
            Self::Denied => "denied",
            Self::Throttled => "throttled",
            Self::Unreachable => "unreachable",
            Self::Truncated => "truncated",
            Self::Unsupported => "unsupported",
        }
    }
}

impl std::fmt::Display for Definite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::Denied => "access denied",
            Self::Throttled => "the store asks to slow down",
            Self::Unreachable => "the store cannot be reached",
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
    /// access are among them: people repair those while Firn runs, and it must notice.
    pub const fn may_pass(&self) -> bool {
        !matches!(self.kind(), Some(Definite::NotFound | Definite::AlreadyExists | Definite::Unsupported))
    }

    /// What an error of the store's client means. Whatever is not surely a refusal is unknown.
    pub(super) fn from_client(error: &Error) -> Self {
        let message = one_line(error);
        match error {
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
            _ => Self::from_transport(error, message),
        }
    }

    fn from_transport(error: &Error, message: String) -> Self {
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
        let status = |code: &str| message.contains(&format!("status code: {code}"));
        if status("503") || status("429") {
            Self::definite(Definite::Throttled, message)
        } else if status("400") || status("404") || status("501") {
            Self::definite(Definite::Unsupported, message)
        } else {
            Self::unknown(message)
        }
    }
}

/// The error and what caused it, in one line of bounded length.
fn one_line(error: &Error) -> String {
    const LIMIT: usize = 400;
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
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > LIMIT {
        let cut = (0..=LIMIT).rev().find(|at| line.is_char_boundary(*at));
        line.truncate(cut.unwrap_or(0));
        line.push('…');
    }
    line
}
