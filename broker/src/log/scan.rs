//! Walking the batches of a segment file from a known position on.

use std::ops::ControlFlow;

use bytes::Bytes;
use proto::records::{BatchHeader, BatchRef, HEADER_LEN};

use crate::disk::{DiskError, DiskFile};

/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 20;
/// No batch is larger than this; a length beyond it is damage.
const MAX_BATCH_BYTES: usize = 1 << 30;

/// How far a walk got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// The byte after the last batch that was accepted.
    pub position: u64,
    /// Whether it reached its limit; if not, what follows is no whole batch, or was not wanted.
    pub complete: bool,
}

/// Shows `look` each batch in bytes `[from, limit)` with its position, until it breaks (the batch is not
/// counted then) or something that is no whole batch is met. Checksums are checked if `check` says so.
///
/// # Errors
/// The disk's.
pub async fn walk(
    file: &dyn DiskFile,
    from: u64,
    limit: u64,
    check: bool,
    mut look: impl FnMut(u64, &BatchRef<'_>) -> ControlFlow<()> + Send,
) -> Result<Walked, DiskError> {
    let mut position = from;
    let mut want = CHUNK_BYTES;
    while position < limit {
        let len = want.min(usize::try_from(limit - position).unwrap_or(usize::MAX));
        let chunk: Bytes = file.read_at(position, len).await?;
        let mut at = 0;
        want = CHUNK_BYTES;
        while let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty()) {
            let Some(size) = size_of(rest) else {
                break;
            };
            if size > MAX_BATCH_BYTES {
                return Ok(Walked { position: position + at as u64, complete: false });
            }
            let Ok(batch) = BatchRef::first(rest) else {
                want = size.max(CHUNK_BYTES);
                break;
            };
            let sound = !check || batch.compute_crc() == batch.header.crc;
            if !sound || look(position + at as u64, &batch).is_break() {
                return Ok(Walked { position: position + at as u64, complete: false });
            }
            at += size;
        }
        let short = chunk.len() < len;
        let stuck = at == 0 && (want == CHUNK_BYTES || want <= len || position + want as u64 > limit);
        position += at as u64;
        if position < limit && (short || stuck) {
            return Ok(Walked { position, complete: false });
        }
    }
    Ok(Walked { position, complete: true })
}

/// The size of the batch that `bytes` begin with, if they say one.
fn size_of(bytes: &[u8]) -> Option<usize> {
    if bytes.len() < HEADER_LEN {
        return None;
    }
    BatchHeader::parse(bytes).ok().map(|header| header.size())
}
