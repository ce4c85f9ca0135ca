//! What the quorum knows: the records that change it and the image they add up to.
//!
//! Pure: no clock, no randomness, no I/O. Whoever applies the same records in the same order holds
//! the same image.

pub mod tier;

pub use tier::{ObjectFormat, ObjectKey, ObjectRef, RootRef, TailEntry, TierPoint, TierPointer};
