//! Gathers whole batches from what a stream has at hand, entry by entry.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proto::ids::Offset;

use super::download::Sink;
use super::live::Wish;
use super::load::Load;
use super::shared::Shared;
use super::stream::{ExtentId, Run};
use super::walk::{self, Ask, Broken, Stop};
use crate::format::{AbortedTxn, Footer};
use crate::manifest::Entry;

/// An entry that a stream reads.
pub(super) struct Reading {
    pub(super) entry: Arc<Entry>,
    pub(super) footer: Option<Load<Arc<Footer>>>,
    /// Receives its bytes.
    pub(super) sink: Arc<dyn Sink>,
}

/// Whole batches that are ready.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) chunks: Vec<Bytes>,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Bytes from the position to the first of them.
    pub(super) skipped: u64,
    /// Base offset of the first.
    pub(super) base: Option<Offset>,
    /// First offset after the last.
    pub(super) next: Option<Offset>,
    /// There are more, but they exceed the limit.
    pub(super) full: bool,
    /// Bytes from the position to the end of the next batch, of which not all are here; 0 if unknown.
    pub(super) need: u64,
    /// Footers whose aborted transactions matter.
    pub(super) footers: Vec<Load<Arc<Footer>>>,
}

/// Bytes that have to be fetched again: they are not what was uploaded.
pub(super) struct Suspect {
    pub(super) entry: Arc<Entry>,
    pub(super) broken: Broken,
}

impl Gathered {
    /// Walks `runs`, which begin at the stream's position, for what `wish` asks.
    pub(super) fn from(
        runs: &[Run],
        entries: &mut BTreeMap<ExtentId, Reading>,
        wish: Wish,
        shared: &Arc<Shared>,
    ) -> Result<Self, Suspect> {
        let mut out = Self::default();
        let mut from = wish.from;
        let mut walked = 0;
        for run in runs {
            let (Some(reading), Some(first)) = (entries.get_mut(&run.extent), run.pieces.first()) else {
                break;
            };
            let left = reading.entry.object.length.saturating_sub(first.at);
            let ask = Ask {
                from,
                max_bytes: wish.max_bytes.saturating_sub(out.bytes),
                min_one: wish.min_one && out.bytes == 0,
                left,
                end: reading.entry.end,
            };
            let taken = match walk::take(&run.pieces, &ask) {
                Ok(taken) => taken,
                Err(_) if out.bytes > 0 => break,
                Err(broken) => return Err(Suspect { entry: Arc::clone(&reading.entry), broken }),
            };
            if taken.bytes > 0 && reading.entry.has_aborted {
                out.footers.push(reading.footer(shared));
            }
            if out.bytes == 0 {
                out.skipped += taken.skipped;
                out.base = taken.base;
            }
            out.bytes += taken.bytes;
            out.chunks.extend(taken.chunks);
            out.next = taken.next.or(out.next);
            match taken.stop {
                Stop::End => {
                    from = from.max(reading.entry.end);
                    out.next = Some(from);
                    walked += left;
                }
                Stop::Full => {
                    out.full = true;
                    break;
                }
                Stop::Need(bytes) => {
                    out.need = walked + bytes;
                    break;
                }
            }
        }
        Ok(out)
    }

    /// A footer that has to be here before the batches can be served.
    pub(super) fn missing_footer(&self) -> Option<Load<Arc<Footer>>> {
        self.footers.iter().find(|footer| footer.now().is_none()).cloned()
    }

    /// Aborted transactions that overlap the batches, which were asked for from `from` on.
    pub(super) fn aborted(&self, from: Offset) -> Vec<AbortedTxn> {
        let (base, next) = (self.base.unwrap_or(from), self.next.unwrap_or(from));
        let mut aborted = Vec::new();
        for footer in self.footers.iter().filter_map(Load::now) {
            aborted.extend(overlapping(&footer, base, next));
        }
        aborted.sort_unstable();
        aborted.dedup();
        aborted
    }
}

impl Reading {
    /// The footer, whose GET leaves now if it has not yet.
    pub(super) fn footer(&mut self, shared: &Arc<Shared>) -> Load<Arc<Footer>> {
        match &self.footer {
            Some(footer) if !footer.failed() => footer.clone(),
            Some(_) | None => {
                let footer = shared.footer(&self.entry);
                self.footer = Some(footer.clone());
                footer
            }
        }
    }
}

/// Aborted transactions of `footer` that overlap `[from, to)`.
pub(super) fn overlapping(footer: &Footer, from: Offset, to: Offset) -> impl Iterator<Item = AbortedTxn> + '_ {
    let overlaps = move |txn: &&AbortedTxn| txn.first_offset < to && txn.last_offset >= from;
    footer.aborted.iter().filter(overlaps).copied()
}
