//! What to do with a partition: pure decisions from its local state, its pointer and the time.
//!
//! Nothing here reads a clock, waits, or touches a store; [`runner`](crate::runner) performs what is
//! decided.

mod expire;
mod pointer;
mod sweep;
mod upload;

#[cfg(test)]
mod tests;

pub use expire::{Expiry, Extent, Head, expire, head_expired};
pub use pointer::{POINTER_POINTS, appended, expired, fits_tail, folded, root_end};
pub use sweep::suspects;
pub use upload::{Hold, Reason, Upload, Urgency, blocked, hold, lag_due, next_base, upload};
