//! Buffers of a chunk's size, used again: memory fresh from the system costs more than the copy into it.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::cache::CHUNK_BYTES;

/// Keeps up to a bound of buffers that nobody uses.
#[derive(Debug)]
pub(super) struct Pool {
    most: usize,
    free: Mutex<Vec<Vec<u8>>>,
}

/// A buffer being filled. Goes back to the pool when the last user of its bytes lets go.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    home: Weak<Pool>,
}

impl Pool {
    /// Keeps at most `bytes` of unused buffers.
    pub(super) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self { most: usize::try_from(bytes / CHUNK_BYTES).unwrap_or(usize::MAX), free: Mutex::default() })
    }

    /// An empty buffer; memory is taken when it is first filled.
    pub(super) fn take(self: &Arc<Self>) -> Buffer {
        Buffer { bytes: Vec::new(), home: Arc::downgrade(self) }
    }
}

impl Buffer {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends; `length` is what the buffer will hold in the end.
    pub(super) fn extend(&mut self, bytes: &[u8], length: usize) {
        if self.bytes.capacity() == 0 {
            let reused = (length as u64 * 2 > CHUNK_BYTES).then(|| self.home.upgrade()?.free.lock().pop()).flatten();
            self.bytes = reused.unwrap_or_else(|| Vec::with_capacity(length));
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.capacity() as u64 != CHUNK_BYTES {
            return;
        }
        if let Some(home) = self.home.upgrade() {
            let mut free = home.free.lock();
            if free.len() < home.most {
                let mut bytes = std::mem::take(&mut self.bytes);
                bytes.clear();
                free.push(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_the_last_slice_is_gone() {
        let pool = Pool::new(CHUNK_BYTES);
        let mut buffer = pool.take();
        buffer.extend(&[7; 1 << 20], 1 << 20);
        let bytes = buffer.freeze();
        let slice = bytes.slice(5..6);
        drop(bytes);
        assert_eq!(pool.free.lock().len(), 0);
        assert_eq!(&slice[..], [7]);
        drop(slice);
        assert_eq!(pool.free.lock().len(), 1);
        let mut again = pool.take();
        again.extend(&[1], 1 << 20);
        assert_eq!((again.len(), pool.free.lock().len()), (1, 0));
    }

    #[test]
    fn the_pool_is_bounded_and_keeps_whole_chunks_only() {
        let pool = Pool::new(CHUNK_BYTES);
        let fill = |length: usize| {
            let mut buffer = pool.take();
            buffer.extend(&vec![0; length], length);
            buffer.freeze()
        };
        let all = (fill(1 << 20), fill(1 << 20), fill(1 << 16));
        drop(all);
        assert_eq!(pool.free.lock().len(), 1);
    }
}
