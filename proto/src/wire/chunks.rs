//! A list of byte slices that stands for their concatenation.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

/// Bytes in pieces, none of them empty. Cloning copies the list, never the bytes. Two lists are equal when their
/// concatenations are, wherever they are cut.
///
/// A single piece lies in the list itself: the records field of a message that is decoded is always one, and allocating
/// for it would let small fields take many times their size.
#[derive(Debug, Clone, Default)]
pub struct Chunks {
    parts: SmallVec<[Bytes; 1]>,
    len: usize,
}

/// Record batches in pieces, as they lie in the tail cache, in segments or in the remote tier.
pub type RecordChunks = Chunks;

impl Chunks {
    /// No bytes at all.
    pub const fn new() -> Self {
        Self { parts: SmallVec::new_const(), len: 0 }
    }

    /// Appends a piece; an empty one is dropped.
    pub fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.len += part.len();
            self.parts.push(part);
        }
    }

    /// Length of the concatenation, in bytes.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is not a single byte.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces in order, for a vectored write.
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// The pieces in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Bytes> {
        self.parts.iter()
    }

    /// The pieces, given away.
    pub fn into_parts(self) -> Vec<Bytes> {
        self.parts.into_vec()
    }

    /// The concatenation. Copies only if there is more than one piece.
    pub fn to_bytes(&self) -> Bytes {
        match self.parts.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            parts => {
                let mut whole = BytesMut::with_capacity(self.len);
                for part in parts {
                    whole.extend_from_slice(part);
                }
                whole.freeze()
            }
        }
    }
}

impl PartialEq for Chunks {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.parts.iter().flatten().eq(other.parts.iter().flatten())
    }
}

impl Eq for Chunks {}

impl From<Bytes> for Chunks {
    fn from(part: Bytes) -> Self {
        let mut chunks = Self::new();
        chunks.push(part);
        chunks
    }
}

impl From<Vec<Bytes>> for Chunks {
    fn from(parts: Vec<Bytes>) -> Self {
        parts.into_iter().collect()
    }
}

impl FromIterator<Bytes> for Chunks {
    fn from_iter<I: IntoIterator<Item = Bytes>>(parts: I) -> Self {
        let mut chunks = Self::new();
        chunks.extend(parts);
        chunks
    }
}

impl Extend<Bytes> for Chunks {
    fn extend<I: IntoIterator<Item = Bytes>>(&mut self, parts: I) {
        for part in parts {
            self.push(part);
        }
    }
}

impl IntoIterator for Chunks {
    type Item = Bytes;
    type IntoIter = smallvec::IntoIter<[Bytes; 1]>;

    fn into_iter(self) -> Self::IntoIter {
        self.parts.into_iter()
    }
}

impl<'a> IntoIterator for &'a Chunks {
    type Item = &'a Bytes;
    type IntoIter = std::slice::Iter<'a, Bytes>;

    fn into_iter(self) -> Self::IntoIter {
        self.parts.iter()
    }
}
