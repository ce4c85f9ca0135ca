//! The store as a source of ranges.

use async_trait::async_trait;
use futures::StreamExt;

use super::source::{Body, Name, RangeSource, SourceError, Span};
use crate::store::{self, Key, Store, StoreError};

/// Reads from a [`Store`].
#[derive(Debug, Clone)]
pub struct StoreSource(Store);

impl StoreSource {
    /// Reads from `store`.
    pub const fn new(store: Store) -> Self {
        Self(store)
    }

    fn key(&self, name: &Name) -> Key {
        let layout = self.0.layout();
        match name {
            Name::Data(key, format) => layout.object(key, *format),
            Name::Root(tp, root) => layout.root(*tp, root),
            Name::Leaf(tp, leaf) => layout.leaf(*tp, leaf),
        }
    }
}

#[async_trait]
impl RangeSource for StoreSource {
    async fn get(&self, name: &Name, span: Span) -> Result<Body, SourceError> {
        let span = match span {
            Span::Range(range) => store::Span::Range(range),
            Span::From(from) => store::Span::From(from),
            Span::All => store::Span::From(0),
        };
        let body = self.0.stream(&self.key(name), span).await?;
        Ok(body.map(|part| part.map_err(SourceError::from)).boxed())
    }
}

impl From<StoreError> for SourceError {
    fn from(error: StoreError) -> Self {
        // A read has no side effects: an unknown outcome is as good as a failed one.
        if error.is_not_found() {
            Self::NotFound
        } else if error.may_pass() {
            Self::Transient(error.to_string().into())
        } else {
            Self::Permanent(error.to_string().into())
        }
    }
}
