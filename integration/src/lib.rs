//! What the suites in `tests/` are made with: real processes and a client that may misbehave.
//!
//! Nothing here knows how the broker works inside: it is started, spoken to over its ports, and killed.

pub mod calls;
pub mod client;
pub mod process;
