//! tiering
