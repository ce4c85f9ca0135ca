//! Append-only memory of which the written part can be read while the rest is still being written.
//!
//! A [`Block`] is one aligned allocation. Exactly one [`Tail`] owns its unwritten rest; what has been
//! written is handed out as [`Bytes`] that keep the block alive. When the last of them is gone the memory goes
//! back to its [`Pool`]: touching fresh pages is expensive, touching the same ones again is not.
//!
//! This is the only module of the crate that is allowed `unsafe`. What it relies on, everywhere: a byte
//! of a block is written at most once between two stays in the pool, by the one owner of the region that
//! it lies in, and is part of a reference only after that.
#![allow(
    unsafe_code,
    reason = "one writer and many readers of disjoint parts of one allocation cannot be had from safe slices"
)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::disk::BLOCK;

/// Blocks of at least this size are aligned to it, so that the kernel can back them with huge pages.
const HUGE_PAGE: usize = 2 << 20;

/// An owned, aligned, possibly uninitialized allocation.
#[derive(Debug)]
struct Memory {
    start: NonNull<u8>,
    capacity: usize,
}

// SAFETY: `Memory` owns its allocation as a `Box<[MaybeUninit<u8>]>` would.
unsafe impl Send for Memory {}
// SAFETY: shared access is only offered by this module, which keeps writers and readers disjoint.
unsafe impl Sync for Memory {}

impl Memory {
    fn layout(capacity: usize) -> Layout {
        let align = if capacity < HUGE_PAGE { BLOCK } else { HUGE_PAGE };
        Layout::from_size_align(capacity, align).expect("capacities are far below the address space")
    }

    fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1).next_multiple_of(BLOCK);
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is at least one block, hence not zero.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        #[cfg(not(miri))]
        if capacity >= HUGE_PAGE {
            // Advice only: without huge pages it works as well, with more page faults.
            // SAFETY: the range is our allocation, and this advice does not change its contents.
            let _ = unsafe { rustix::mm::madvise(start.as_ptr().cast(), capacity, rustix::mm::Advice::LinuxHugepage) };
        }
        Self { start, capacity }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the same layout, and dropped once.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.capacity)) }
    }
}

/// Memory of blocks that nobody reads any more, kept for the next ones.
#[derive(Debug)]
pub(super) struct Pool {
    block_bytes: usize,
    keep: usize,
    state: Mutex<PoolState>,
}

#[derive(Debug, Default)]
struct PoolState {
    /// Blocks of the pool's size that somebody holds.
    lent: usize,
    idle: Vec<Memory>,
}

impl Pool {
    /// A pool of blocks of `block_bytes` that keeps idle ones as long as there are at most `keep` blocks in all, those that
    /// are in use included.
    pub(super) fn new(block_bytes: usize, keep: usize) -> Arc<Self> {
        Arc::new(Self { block_bytes: block_bytes.max(1).next_multiple_of(BLOCK), keep, state: Mutex::default() })
    }

    /// A block of the pool's size, or of `at_least` bytes if that is more (such a one is not kept).
    pub(super) fn take(self: &Arc<Self>, at_least: usize) -> Tail {
        let memory = if at_least <= self.block_bytes {
            let kept = {
                let mut state = self.state.lock();
                state.lent += 1;
                state.idle.pop()
            };
            kept.unwrap_or_else(|| Memory::new(self.block_bytes))
        } else {
            Memory::new(at_least.max(self.block_bytes + 1))
        };
        let end = memory.capacity;
        Tail { block: Arc::new(Block { memory: Some(memory), pool: Arc::downgrade(self) }), start: 0, end }
    }

    fn put(&self, memory: Memory) {
        if memory.capacity != self.block_bytes {
            return;
        }
        let mut state = self.state.lock();
        state.lent -= 1;
        if state.lent + state.idle.len() < self.keep {
            state.idle.push(memory);
        }
    }

    /// How many blocks lie idle.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.state.lock().idle.len()
    }
}

/// One allocation on loan from a pool.
#[derive(Debug)]
struct Block {
    /// `None` only while dropping.
    memory: Option<Memory>,
    pool: Weak<Pool>,
}

impl Block {
    /// The start of the allocation; provenance covers all of it.
    fn base(&self) -> *mut u8 {
        self.memory.as_ref().expect("taken only by drop").start.as_ptr()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let (Some(memory), Some(pool)) = (self.memory.take(), self.pool.upgrade()) {
            pool.put(memory);
        }
    }
}

/// The part of a block that nobody has written yet. Not `Clone`: it is what makes a writer the only one.
#[derive(Debug)]
pub(super) struct Tail {
    block: Arc<Block>,
    start: usize,
    end: usize,
}

impl Tail {
    /// Bytes that can still be written.
    pub(super) fn remaining(&self) -> usize {
        self.end - self.start
    }

    /// Starts a region of which the first `head` bytes are left out, to be filled in by
    /// [`Closed::finish`].
    ///
    /// # Panics
    /// If the head does not fit.
    pub(super) fn begin(self, head: usize) -> Region {
        assert!(head <= self.remaining(), "the caller checks for room");
        Region { written: head, head, tail: self }
    }
}

/// A region at the end of a block that grows at its own end.
#[derive(Debug)]
pub(super) struct Region {
    /// The region starts where its tail does; `written` and `head` count from there.
    tail: Tail,
    head: usize,
    written: usize,
}

impl Region {
    /// Bytes so far, the head included.
    pub(super) fn len(&self) -> usize {
        self.written
    }

    /// Bytes that still fit.
    pub(super) fn remaining(&self) -> usize {
        self.tail.remaining() - self.written
    }

    /// Appends `data`.
    ///
    /// # Panics
    /// If it does not fit.
    pub(super) fn push(&mut self, data: &[u8]) {
        assert!(data.len() <= self.remaining(), "the caller checks for room");
        // SAFETY: the destination is within the allocation (checked above), nobody else writes it (`Tail`
        // is unique and ends there), no reference covers it (only `[head, written)` is handed out), and
        // `data`, being a reference, cannot overlap what no reference covers.
        unsafe {
            let to = self.tail.block.base().add(self.tail.start + self.written);
            std::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len());
        }
        self.written += data.len();
    }

    /// What was written at `range`, counted from the start of the region.
    ///
    /// # Panics
    /// If the range covers the head or what is not written yet.
    pub(super) fn view(&self, range: Range<usize>) -> Bytes {
        let written = self.head..self.written;
        view(&self.tail.block, self.tail.start, &written, range)
    }

    /// Ends the region on a multiple of `align` (the block's own alignment at most) and gives the rest of the
    /// block to the next one. Cheap: the padding is written by [`Closed::finish`].
    ///
    /// # Panics
    /// If the padding does not fit; blocks are multiples of [`BLOCK`], so up to that it does.
    pub(super) fn close(self, align: usize) -> (Closed, Tail) {
        let padded = self.written.next_multiple_of(align);
        let start = self.tail.start;
        assert!(start + padded <= self.tail.end, "padding fits in the block");
        let closed =
            Closed { block: Arc::clone(&self.tail.block), start, head: self.head, written: self.written, padded };
        let rest = Tail { start: start + padded, ..self.tail };
        (closed, rest)
    }
}

/// A region that grows no more; its head and padding are not written yet.
#[derive(Debug)]
pub(super) struct Closed {
    block: Arc<Block>,
    start: usize,
    head: usize,
    written: usize,
    padded: usize,
}

impl Closed {
    /// Bytes with head, without padding.
    pub(super) fn len(&self) -> usize {
        self.written
    }

    /// Bytes with head and padding.
    pub(super) fn padded_len(&self) -> usize {
        self.padded
    }

    /// What was written at `range`, counted from the start of the region.
    ///
    /// # Panics
    /// If the range covers head or padding.
    pub(super) fn view(&self, range: Range<usize>) -> Bytes {
        let written = self.head..self.written;
        view(&self.block, self.start, &written, range)
    }

    /// Fills in the head and zeros the padding: the whole region, padding included.
    ///
    /// # Panics
    /// If `head` is not as long as was left out for it.
    pub(super) fn finish(self, head: &[u8]) -> Bytes {
        assert_eq!(head.len(), self.head, "the head fills the gap");
        // SAFETY: head and padding lie within the region, which lies within the allocation; views never
        // cover them, `self` is their only owner and is used up here.
        unsafe {
            let region = self.block.base().add(self.start);
            std::ptr::copy_nonoverlapping(head.as_ptr(), region, head.len());
            std::ptr::write_bytes(region.add(self.written), 0, self.padded - self.written);
        }
        Bytes::from_owner(View { block: self.block, start: self.start, len: self.padded })
    }
}

fn view(block: &Arc<Block>, start: usize, written: &Range<usize>, range: Range<usize>) -> Bytes {
    assert!(
        written.start <= range.start && range.start <= range.end && range.end <= written.end,
        "only what is written can be read"
    );
    Bytes::from_owner(View { block: Arc::clone(block), start: start + range.start, len: range.end - range.start })
}

/// A written part of a block.
#[derive(Debug)]
struct View {
    block: Arc<Block>,
    start: usize,
    len: usize,
}

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: views are made of written bytes only, which nobody writes again while the block lives.
        unsafe { std::slice::from_raw_parts(self.block.base().add(self.start), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_while_more_is_written() {
        let pool = Pool::new(2 * BLOCK, 1);
        let mut region = pool.take(0).begin(4);
        region.push(b"first");
        let first = region.view(4..9);
        let reader = std::thread::Builder::new().spawn(move || assert_eq!(first, "first")).expect("a thread");
        region.push(b"second");
        reader.join().expect("the reader saw its bytes");
        let second = region.view(9..15);
        let (closed, rest) = region.close(BLOCK);
        let mut next = rest.begin(0);
        next.push(b"beside");
        assert_eq!(closed.view(4..9), "first");
        let whole = closed.finish(b"HEAD");
        assert_eq!(whole.get(..15), Some(&b"HEADfirstsecond"[..]));
        assert!(whole.iter().skip(15).all(|byte| *byte == 0));
        assert_eq!(whole.len(), BLOCK);
        assert_eq!(second, "second");
        assert_eq!(next.view(0..6), "beside");
    }

    #[test]
    fn memory_returns_to_the_pool_with_the_last_reader() {
        let pool = Pool::new(BLOCK, 1);
        let mut region = pool.take(0).begin(0);
        region.push(b"kept");
        let view = region.view(0..4);
        let (closed, rest) = region.close(8);
        drop(rest);
        let whole = closed.finish(&[]);
        drop(whole);
        assert_eq!(pool.idle(), 0);
        assert_eq!(view, "kept");
        drop(view);
        assert_eq!(pool.idle(), 1);
        // Taken again, dirty as it is, it shows only what is written now.
        let mut again = pool.take(BLOCK).begin(0);
        assert_eq!(pool.idle(), 0);
        again.push(b"new");
        let (closed, _) = again.close(8);
        assert_eq!(closed.finish(&[]), &b"new\0\0\0\0\0"[..]);
    }

    #[test]
    fn the_pool_is_bounded_and_keeps_no_odd_sizes() {
        let pool = Pool::new(BLOCK, 1);
        let large = pool.take(3 * BLOCK);
        assert_eq!(large.remaining(), 3 * BLOCK);
        drop(large);
        assert_eq!(pool.idle(), 0);
        let pair = (pool.take(0), pool.take(0));
        drop(pair);
        assert_eq!(pool.idle(), 1);
    }

    #[test]
    fn a_block_outlives_its_pool() {
        let pool = Pool::new(BLOCK, 1);
        let mut region = pool.take(0).begin(0);
        drop(pool);
        region.push(b"here");
        assert_eq!(region.view(0..4), "here");
    }

    #[test]
    #[should_panic(expected = "only what is written")]
    fn the_head_cannot_be_read_early() {
        let region = Pool::new(BLOCK, 1).take(0).begin(4);
        let _ = region.view(0..4);
    }
}
