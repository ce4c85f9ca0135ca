//! Dice whose throws follow from their seed.

use proto::host::{Entropy, SeededEntropy};

/// Dice whose throws follow from their seed.
#[derive(Debug)]
pub struct Dice(SeededEntropy);

impl Dice {
    /// Dice of `seed`.
    pub fn new(seed: u64) -> Dice {
        Dice(SeededEntropy::new(seed))
    }

    /// Any number.
    pub fn throw(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.throw() % bound.max(1)
    }

    /// An index of something that has `len` elements.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// True once in `n` throws.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// Dice for somebody else.
    #[must_use]
    pub fn split(&mut self) -> Dice {
        Dice::new(self.throw())
    }
}
