//! Groups in the making: records are copied one after the other into the open group of a lane, and full
//! groups queue behind it in order. Knows nothing of disks or threads.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::Config;
use super::buffer::{Closed, Pool, Region, Tail};
use super::format::{self, ENTRY_HEADER, FRAME_HEADER};
use super::group::{GroupEntry, GroupSeq, Slice};
use super::record::{Lsn, Owner, Record};
use crate::disk::BLOCK;

/// What a lane's groups are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be written as frames of the journal.
    Journal,
    /// To be handed on as they are; payloads only.
    Loose,
}

/// One open group, and the full ones before it.
#[derive(Debug)]
pub(super) struct Lane {
    purpose: Purpose,
    open: Option<Open>,
    full: VecDeque<Sealed>,
    /// What the last group left of its block.
    rest: Option<Tail>,
}

#[derive(Debug)]
struct Open {
    region: Region,
    seq: GroupSeq,
    entries: Vec<GroupEntry>,
    unused: usize,
    charge: usize,
}

/// A group that grows no more.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) closed: Closed,
    pub(super) seq: GroupSeq,
    pub(super) entries: Vec<GroupEntry>,
    /// Bytes of the block before that could not be used.
    pub(super) unused: usize,
    /// Bytes it counts as not yet synced.
    pub(super) charge: usize,
}

impl Sealed {
    /// Position of the first record. Groups are never empty.
    pub(super) fn first_lsn(&self) -> Lsn {
        self.entries.first().map_or(Lsn(0), |entry| entry.lsn)
    }

    /// Position of the last record, inclusive.
    pub(super) fn last_lsn(&self) -> Lsn {
        self.entries.last().map_or(Lsn(0), |entry| entry.lsn)
    }
}

impl Lane {
    pub(super) fn new(purpose: Purpose) -> Self {
        Self { purpose, open: None, full: VecDeque::new(), rest: None }
    }

    /// Copies `record` in. `lsn` is the position it gets, `seq` the number for a group it may start; whether it
    /// did is in the answer.
    pub(super) fn place(
        &mut self,
        record: &Record<'_>,
        owner: &Arc<dyn Owner>,
        lsn: Lsn,
        seq: GroupSeq,
        config: &Config,
        pool: &Arc<Pool>,
    ) -> PlacedIn {
        let payload = format::payload_len(record);
        let need = self.overhead() + payload;
        let crowded = self
            .open
            .as_ref()
            .is_some_and(|open| need > open.region.remaining() || open.region.len() + need > config.max_group_bytes);
        if crowded {
            self.close_open();
        }
        let head = self.head();
        let open = self.open.get_or_insert_with(|| Open::new(seq, head, need, &mut self.rest, pool));
        let started = open.seq == seq;
        let tp = record.tp();
        let kind = record.kind();
        if self.purpose == Purpose::Journal {
            let payload = u32::try_from(payload).expect("requests are bounded far below 4 GiB");
            open.region.push(&format::encode_entry_header(kind, tp, payload));
        }
        let start = open.region.len() as u32;
        format::encode_payload(record, |piece| open.region.push(piece));
        let end = open.region.len() as u32;
        let (base_offset, last_offset) = format::offsets(record);
        open.charge += need;
        open.entries.push(GroupEntry {
            tp,
            owner: Arc::clone(owner),
            kind,
            lsn,
            base_offset,
            last_offset,
            range: start..end,
        });
        PlacedIn { slice: Slice { group: open.seq, start, len: end - start }, charge: need, started }
    }

    /// The oldest group, the open one if there is no other. `None` if nothing was placed.
    pub(super) fn next(&mut self) -> Option<Sealed> {
        if self.full.is_empty() {
            self.close_open();
        }
        self.full.pop_front()
    }

    /// The bytes of a slice, if its group is still in this lane.
    pub(super) fn view(&self, slice: &Slice) -> Option<Bytes> {
        if let Some(open) = self.open.as_ref().filter(|open| open.seq == slice.group) {
            return Some(open.region.view(slice.range()));
        }
        let sealed = self.full.iter().find(|sealed| sealed.seq == slice.group)?;
        Some(sealed.closed.view(slice.range()))
    }

    /// Empties the lane: all entries that were in it.
    pub(super) fn clear(&mut self) -> Vec<GroupEntry> {
        let mut entries = Vec::new();
        while let Some(sealed) = self.next() {
            entries.extend(sealed.entries);
        }
        self.rest = None;
        entries
    }

    fn close_open(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        let (closed, rest) = open.region.close(self.align());
        self.rest = Some(rest);
        self.full.push_back(Sealed {
            closed,
            seq: open.seq,
            entries: open.entries,
            unused: open.unused,
            charge: open.charge,
        });
    }

    const fn head(&self) -> usize {
        match self.purpose {
            Purpose::Journal => FRAME_HEADER,
            Purpose::Loose => 0,
        }
    }

    const fn overhead(&self) -> usize {
        match self.purpose {
            Purpose::Journal => ENTRY_HEADER,
            Purpose::Loose => 0,
        }
    }

    /// What a group's length is rounded up to.
    const fn align(&self) -> usize {
        match self.purpose {
            Purpose::Journal => BLOCK,
            Purpose::Loose => 64,
        }
    }
}

impl Open {
    fn new(seq: GroupSeq, head: usize, need: usize, rest: &mut Option<Tail>, pool: &Arc<Pool>) -> Self {
        let (tail, unused) = match rest.take() {
            Some(rest) if rest.remaining() >= head + need => (rest, 0),
            rest => {
                let unused = rest.map_or(0, |rest| rest.remaining());
                (pool.take(head + need), unused)
            }
        };
        Self { region: tail.begin(head), seq, entries: Vec::new(), unused, charge: 0 }
    }
}

/// Where a record went.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlacedIn {
    pub(super) slice: Slice,
    /// Bytes it counts as not yet synced.
    pub(super) charge: usize,
    /// Whether it is the first of a new group.
    pub(super) started: bool,
}
