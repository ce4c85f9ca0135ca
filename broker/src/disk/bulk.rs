//! Large reads and writes that leave nothing in the page cache (`RWF_DONTCACHE`, Linux 6.14), where the file
//! system can do that.
//!
//! What was just written is read from the tail cache, and older records are as a rule read once by each who fell
//! behind. Filling fresh pages with them costs several times the transfer itself, and leaves the kernel with
//! a backlog to write in bursts. Reads fill the same memory over and over, for the same reason.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::io::{Errno, ReadWriteFlags};

use super::BLOCK;

/// A write of less goes through the page cache: it is likely to be followed by one to the same block.
const LEAST_WRITE: usize = 128 << 10;
/// Most pieces one vectored call takes (`IOV_MAX`).
const MAX_PIECES: usize = 1024;
/// Memory for reads comes in pieces of this size.
const PIECE: usize = 1 << 20;
/// So many of them are kept for the next reads.
const IDLE_PIECES: usize = 16;
/// `RWF_DONTCACHE`; rustix does not name it yet.
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// How one file is read and written.
#[derive(Debug)]
pub(super) struct Bulk {
    /// Whether the file system still is believed to know `RWF_DONTCACHE`.
    uncached: AtomicBool,
    memory: Arc<Memory>,
}

impl Bulk {
    pub(super) fn new(memory: &Arc<Memory>) -> Arc<Bulk> {
        Arc::new(Bulk { uncached: AtomicBool::new(true), memory: Arc::clone(memory) })
    }

    /// Writes `pieces` one after the other. The last, partial block stays cached: the next write begins in it.
    pub(super) fn write(&self, fd: &OwnedFd, offset: u64, pieces: &[&[u8]]) -> Result<(), Errno> {
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        if total < LEAST_WRITE || !self.uncached.load(Ordering::Relaxed) {
            return write_all(fd, offset, pieces, ReadWriteFlags::empty());
        }
        let partial = usize::try_from((offset + total as u64) % BLOCK as u64).unwrap_or(0);
        let whole = total - partial;
        let (body, rest) = split(pieces, whole);
        match write_all(fd, offset, &body, DONTCACHE) {
            Ok(()) => write_all(fd, offset + whole as u64, &rest, ReadWriteFlags::empty()),
            // Refused as a whole, before anything was written.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.uncached.store(false, Ordering::Relaxed);
                write_all(fd, offset, pieces, ReadWriteFlags::empty())
            }
            Err(errno) => Err(errno),
        }
    }

    /// Up to `len` bytes from `offset`; fewer only at the end of the file.
    pub(super) fn read(&self, fd: &OwnedFd, offset: u64, len: usize) -> Result<Bytes, Errno> {
        // Asking for more than there is must not reserve memory for it.
        let size = u64::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or(0);
        let there = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut piece = self.memory.take(len.min(there));
        let mut done = 0;
        while let Some(into) = piece.unread(done) {
            match self.read_some(fd, offset + done as u64, into, ReadWriteFlags::empty()) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(piece.finish(done))
    }

    /// What can be had without waiting, of up to `len` bytes; `None` if that is nothing, unless the file ends there.
    pub(super) fn read_now(&self, fd: &OwnedFd, offset: u64, len: usize) -> Result<Option<Bytes>, Errno> {
        let mut piece = self.memory.take(len);
        let Some(into) = piece.unread(0) else { return Ok(Some(Bytes::new())) };
        match self.read_some(fd, offset, into, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(Some(piece.finish(read))),
            // The last two: a file system without it never has an answer without waiting.
            Err(Errno::AGAIN | Errno::INTR | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn read_some(&self, fd: &OwnedFd, offset: u64, into: &mut [u8], flags: ReadWriteFlags) -> Result<usize, Errno> {
        if self.uncached.load(Ordering::Relaxed) {
            match rustix::io::preadv2(fd, &mut [IoSliceMut::new(into)], offset, flags | DONTCACHE) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.uncached.store(false, Ordering::Relaxed),
                other => return other,
            }
        }
        rustix::io::preadv2(fd, &mut [IoSliceMut::new(into)], offset, flags)
    }
}

/// The first `at` bytes of `pieces`, and the rest.
fn split<'a>(pieces: &[&'a [u8]], mut at: usize) -> (Vec<&'a [u8]>, Vec<&'a [u8]>) {
    let (mut before, mut after) = (Vec::with_capacity(pieces.len()), Vec::new());
    for piece in pieces {
        let (head, tail) = piece.split_at(at.min(piece.len()));
        at -= head.len();
        before.extend((!head.is_empty()).then_some(head));
        after.extend((!tail.is_empty()).then_some(tail));
    }
    (before, after)
}

/// Writes `pieces` one after the other, whatever it takes.
pub(super) fn write_all(fd: &OwnedFd, mut offset: u64, pieces: &[&[u8]], flags: ReadWriteFlags) -> Result<(), Errno> {
    for window in pieces.chunks(MAX_PIECES) {
        let mut slices: Vec<IoSlice<'_>> = window.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut left = slices.as_mut_slice();
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match rustix::io::pwritev2(fd, left, offset, flags) {
                Ok(0) => return Err(Errno::IO),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

/// Memory that reads have filled and nobody looks at any more, for the next ones.
#[derive(Debug, Default)]
pub(super) struct Memory {
    idle: Mutex<Vec<Vec<u8>>>,
}

impl Memory {
    fn take(self: &Arc<Self>, len: usize) -> Piece {
        // A small read must not pin a whole piece.
        if len <= PIECE / 4 || len > PIECE {
            return Piece { memory: vec![0; len], len, home: Weak::new() };
        }
        let kept = self.idle.lock().pop();
        Piece { memory: kept.unwrap_or_else(|| vec![0; PIECE]), len, home: Arc::downgrade(self) }
    }

    #[cfg(test)]
    fn idle(&self) -> usize {
        self.idle.lock().len()
    }
}

/// Memory of one read; goes back when the last who looks at it is gone.
#[derive(Debug)]
struct Piece {
    memory: Vec<u8>,
    /// How much of it is of interest.
    len: usize,
    home: Weak<Memory>,
}

impl Piece {
    /// What is still to be read after `done` bytes, if anything.
    fn unread(&mut self, done: usize) -> Option<&mut [u8]> {
        self.memory.get_mut(done..self.len).filter(|unread| !unread.is_empty())
    }

    /// The first `len` bytes. Copied if they are so few that they would pin much more than they are.
    fn finish(mut self, len: usize) -> Bytes {
        if len < self.memory.len() / 2 {
            return Bytes::copy_from_slice(self.memory.get(..len).unwrap_or_default());
        }
        self.len = len;
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.memory.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            let mut idle = home.idle.lock();
            if idle.len() < IDLE_PIECES {
                idle.push(std::mem::take(&mut self.memory));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_at_any_byte() {
        let pieces: [&[u8]; 3] = [b"one", b"", b"three"];
        let cut = |at| {
            let (before, after) = split(&pieces, at);
            assert!(before.iter().chain(&after).all(|piece| !piece.is_empty()));
            (before.concat(), after.concat())
        };
        for at in 0..=8 {
            let (before, after) = cut(at);
            assert_eq!((before.len(), [before, after].concat()), (at, b"onethree".to_vec()));
        }
    }

    #[test]
    fn memory_of_large_reads_is_used_again_and_small_ones_pin_little() {
        let memory = Arc::new(Memory::default());
        let large = memory.take(PIECE - 1).finish(PIECE - 1);
        assert_eq!((large.len(), memory.idle()), (PIECE - 1, 0));
        let view = large.slice(5..6);
        drop(large);
        assert_eq!(memory.idle(), 0, "somebody still looks at it");
        drop(view);
        assert_eq!(memory.idle(), 1);
        let short = memory.take(PIECE).finish(10);
        assert_eq!((short.len(), memory.idle()), (10, 1), "copied, for it is little");
        let small = memory.take(100).finish(100);
        assert_eq!((small.len(), memory.idle()), (100, 1));
        drop((short, small));
        assert_eq!(memory.idle(), 1);
    }
}
