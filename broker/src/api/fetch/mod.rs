//! Fetch.

pub mod session;
