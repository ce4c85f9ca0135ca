//! What the suites in `tests/` are made with: real processes, a client that may misbehave, an S3 that fails on purpose.
//!
//! Nothing here knows how the broker works inside: it is started, spoken to over its ports, and killed.

pub mod calls;
pub mod client;
pub mod process;
pub mod s3;
