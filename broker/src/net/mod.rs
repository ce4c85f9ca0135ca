//! The network side: frames, connections and their budgets, served and asked. Knows nothing of what requests mean.

pub mod budget;
pub mod connection;
pub mod frame;
pub mod server;
pub mod wire_client;
