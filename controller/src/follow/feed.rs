//! The serving side: the last batches a member has applied, and the conversation with one follower.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use proto::metadata::{Batch, Image, write_snapshot};
use tokio::sync::{Semaphore, mpsc, watch};

use super::Followed;
use crate::peers::Identity;
use crate::transport::Envelope;
use crate::wire::calls::{Kind, Refused};
use crate::wire::encode;

/// Bytes of batches that are kept.
const KEEP_BYTES: usize = 16 << 20;
/// How often a follower hears something while nothing happens.
const PING: Duration = Duration::from_millis(500);
/// How long a follower that is ahead of this member is kept waiting for it to catch up.
const AHEAD: Duration = Duration::from_secs(2);

/// The last batches that were applied, without a gap. Pure.
#[derive(Debug, Default)]
pub(super) struct Ring {
    batches: VecDeque<(u64, Bytes)>,
    bytes: usize,
    next: u64,
}

/// What a follower at some offset is told next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This batch, and after it there may be more.
    Batch {
        /// Where the follower is then.
        end: u64,
        /// See [`Batch::to_bytes`].
        bytes: Bytes,
    },
    /// It has all there is.
    Nothing,
    /// What it needs is not kept.
    Snapshot,
    /// It knows more than this member.
    Ahead,
}

impl Ring {
    /// A ring that continues an image at `next`.
    pub(super) fn at(next: u64) -> Self {
        Self { next, ..Self::default() }
    }

    pub(super) fn push(&mut self, base: u64, end: u64, batch: Bytes, keep_bytes: usize) {
        if base != self.next {
            *self = Self::at(base);
        }
        self.bytes += batch.len();
        self.next = end;
        self.batches.push_back((base, batch));
        while self.bytes > keep_bytes && self.batches.len() > 1 {
            if let Some((_, batch)) = self.batches.pop_front() {
                self.bytes -= batch.len();
            }
        }
    }

    pub(super) fn after(&self, offset: u64) -> Next {
        if offset == self.next {
            return Next::Nothing;
        }
        if offset > self.next {
            return Next::Ahead;
        }
        let at = self.batches.partition_point(|(base, _)| *base < offset);
        match self.batches.get(at) {
            Some((base, batch)) if *base == offset => {
                let end = self.batches.get(at + 1).map_or(self.next, |(base, _)| *base);
                Next::Batch { end, bytes: batch.clone() }
            }
            Some(_) | None => Next::Snapshot,
        }
    }
}

/// Followers that are told a snapshot at a time. The others wait: what each of them is told may be another one.
const TELLERS: usize = 8;

/// A snapshot as it is told, piece by piece.
type Pieces = Vec<Bytes>;

/// What a member has applied, for its followers.
#[derive(Debug)]
pub(crate) struct Feed {
    ring: Mutex<Ring>,
    /// The last snapshot that was told, and its offset: while one is told it, others are told the same.
    snapshot: Mutex<(u64, Weak<Pieces>)>,
    tellers: Semaphore,
}

impl Feed {
    /// A feed that continues an image at `next`.
    pub(crate) fn at(next: u64) -> Self {
        let ring = Mutex::new(Ring::at(next));
        Self { ring, snapshot: Mutex::default(), tellers: Semaphore::new(TELLERS) }
    }

    /// `batch` was applied to an image at its base. Called before the image is published.
    pub(crate) fn applied(&self, batch: &Batch) {
        let end = batch.base_offset + batch.records.len() as u64;
        self.ring.lock().push(batch.base_offset, end, batch.to_bytes().into(), KEEP_BYTES);
    }

    /// The image was replaced by one at `next`.
    pub(crate) fn replaced(&self, next: u64) {
        *self.ring.lock() = Ring::at(next);
    }

    fn after(&self, offset: u64) -> Next {
        self.ring.lock().after(offset)
    }

    /// The snapshot of `image`: the one that others are being told, if it is the same.
    fn snapshot(&self, image: &Image) -> Arc<Pieces> {
        let mut last = self.snapshot.lock();
        if let (offset, Some(pieces)) = (last.0, last.1.upgrade())
            && offset == image.offset()
        {
            return pieces;
        }
        let pieces = Arc::new(pieces(image));
        *last = (image.offset(), Arc::downgrade(&pieces));
        pieces
    }

    /// Tells a follower that knows everything before `offset` what comes after it, until one of the two goes away.
    pub(crate) async fn tell(
        &self,
        mut offset: u64,
        mut images: watch::Receiver<Arc<Image>>,
        identity: &Identity,
        to: &mpsc::Sender<Envelope>,
    ) {
        let say = |followed: Followed| to.send(identity.envelope(Kind::Follow, followed.to_bytes()));
        loop {
            images.mark_unchanged();
            let said = match self.after(offset) {
                Next::Batch { end, bytes } => {
                    offset = end;
                    say(Followed::Batch(bytes)).await
                }
                Next::Snapshot => {
                    let Ok(turn) = tokio::time::timeout(PING, self.tellers.acquire()).await else {
                        if say(Followed::Ping(offset)).await.is_err() {
                            return;
                        }
                        continue;
                    };
                    let image = Arc::clone(&images.borrow());
                    offset = image.offset();
                    let pieces = self.snapshot(&image);
                    drop(image);
                    for piece in pieces.iter() {
                        if to.send(identity.envelope(Kind::Follow, piece.clone())).await.is_err() {
                            return;
                        }
                    }
                    drop(turn);
                    say(Followed::Whole).await
                }
                Next::Ahead => {
                    let catching_up = images.wait_for(|image| image.offset() >= offset);
                    if !matches!(tokio::time::timeout(AHEAD, catching_up).await, Ok(Ok(_))) {
                        let refused = Refused::Cannot("it is behind".to_owned());
                        let _ = to.send(identity.envelope(Kind::Refused, encode(&refused))).await;
                        return;
                    }
                    Ok(())
                }
                Next::Nothing => match tokio::time::timeout(PING, images.changed()).await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) => return,
                    Err(_) => say(Followed::Ping(offset)).await,
                },
            };
            if said.is_err() {
                return;
            }
        }
    }
}

/// The snapshot of `image`, piece by piece. Cheap to hold beside it: an image of 10,000 partitions makes a few MiB.
fn pieces(image: &Image) -> Pieces {
    let mut pieces = Vec::new();
    let Ok(()) = write_snapshot(image, |chunk| {
        pieces.push(Followed::Chunk(Bytes::from(chunk)).to_bytes());
        Ok::<_, Infallible>(())
    });
    pieces
}
