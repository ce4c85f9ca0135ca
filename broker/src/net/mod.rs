//! The TCP side: frames, connections and their budgets. Knows nothing of what requests mean.

pub mod budget;
pub mod connection;
pub mod frame;
pub mod server;
