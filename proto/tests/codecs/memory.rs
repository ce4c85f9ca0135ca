//! What decoding takes from the allocator, measured.

#![allow(unsafe_code, reason = "a global allocator can only be written so; it counts and passes on to the system's")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(bytes: isize) {
    LIVE.set(LIVE.get() + bytes);
    PEAK.set(PEAK.get().max(LIVE.get()));
}

// SAFETY: every call goes to the system's allocator with the arguments it came with; counting touches only
// thread-local cells that need neither allocation nor drop.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both blocks may be there while one is copied into the other.
        count(size as isize);
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// The most memory that was allocated at once while `work` ran on this thread, in bytes beyond what was there before.
pub(crate) fn peak<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    ((PEAK.get() - before) as usize, result)
}

#[test]
fn the_measure_measures() {
    let (bytes, buffer) = peak(|| vec![0u8; 1000]);
    assert_eq!(bytes, 1000);
    let (bytes, ()) = peak(|| drop(buffer));
    assert_eq!(bytes, 0);
    let (bytes, _) = peak(|| drop((vec![0u8; 10], vec![0u8; 20])));
    assert_eq!(bytes, 30);
}
