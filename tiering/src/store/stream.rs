//! Reading a range as it arrives, instead of when all of it is here.

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::{GetOptions, GetRange, GetResultPayload};
use tokio::time::Instant;

use super::{Definite, Key, RequestKind, Store, StoreError, StoreMetrics, metrics};

/// What a read of a local file returns at a time, and on whose multiples it ends.
const FILE_BLOCK_BYTES: u64 = 1 << 20;

/// A body: bytes in order, as they come.
pub type Body = BoxStream<'static, Result<Bytes, StoreError>>;

/// Which part of an object to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Span {
    /// Half open.
    Range(Range<u64>),
    /// From here to the end.
    From(u64),
}

impl Store {
    /// Begins to read; returns when the response has begun. Only that is bounded in time here: the
    /// caller bounds the waits in between. The body may end early.
    pub async fn stream(&self, key: &Key, span: Span) -> Result<Body, StoreError> {
        let mut report =
            Report { metrics: Arc::clone(&self.metrics), started: Instant::now(), bytes: 0, outcome: "ok" };
        let range = match span {
            Span::Range(range) => GetRange::Bounded(range),
            Span::From(from) => GetRange::Offset(from),
        };
        let options = GetOptions { range: Some(range), ..GetOptions::default() };
        let request = async {
            let response = self.inner.get_opts(key.path(), options).await;
            response.map_err(|error| StoreError::from_client(&error))
        };
        let response = self.bounded(0, request).await.inspect_err(|error| {
            report.outcome = metrics::outcome::<()>(&Err(error.clone()));
        })?;
        let body = match response.payload {
            GetResultPayload::File(file, _) => file_body(file, response.range),
            GetResultPayload::Stream(body) => {
                body.map(|part| part.map_err(|error| StoreError::from_client(&error))).boxed()
            }
        };
        Ok(body.inspect(move |part| report.note(part)).boxed())
    }
}

/// Reads a file in large blocks, each on a thread that may block.
fn file_body(file: std::fs::File, range: Range<u64>) -> Body {
    stream::try_unfold((file, range), |(mut file, range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let border = (range.start / FILE_BLOCK_BYTES + 1) * FILE_BLOCK_BYTES;
        let block = range.start..border.min(range.end);
        let read = tokio::task::spawn_blocking(move || {
            let length = block.end - block.start;
            let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
            file.seek(SeekFrom::Start(block.start))?;
            file.by_ref().take(length).read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>((file, bytes))
        });
        match read.await {
            Ok(Ok((file, bytes))) if !bytes.is_empty() => {
                let rest = range.start + bytes.len() as u64..range.end;
                Ok(Some((Bytes::from(bytes), (file, rest))))
            }
            Ok(Ok(_)) => Err(StoreError::definite(Definite::Truncated, "the file ends early")),
            Ok(Err(error)) => Err(StoreError::unknown(format!("reading a local object: {error}"))),
            Err(error) => Err(StoreError::unknown(format!("reading a local object: {error}"))),
        }
    })
    .boxed()
}

/// Reports the request when the body is dropped.
struct Report {
    metrics: Arc<dyn StoreMetrics>,
    started: Instant,
    bytes: u64,
    outcome: &'static str,
}

impl Report {
    fn note(&mut self, part: &Result<Bytes, StoreError>) {
        match part {
            Ok(bytes) => self.bytes += bytes.len() as u64,
            Err(error) => self.outcome = metrics::outcome::<()>(&Err(error.clone())),
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        self.metrics.request(RequestKind::Get, self.outcome, self.bytes, took);
    }
}
