//! What a broker must bear: garbage on the port, lies in requests, wrong disks, vanishing buckets, clients in numbers. Each gets Kafka's
//! error code or one clear line, and whoever behaves notices nothing: see [`stand::Witness`].
//!
//! `FIRN_TEST_BOOTSTRAP=host:port` asks another broker than Firn, such as Kafka itself, where that makes sense: the codes
//! expected here are Kafka's.

#[path = "bad_input/batches.rs"]
mod batches;
#[path = "bad_input/commands.rs"]
mod commands;
#[path = "bad_input/directories.rs"]
mod directories;
#[path = "bad_input/disks.rs"]
mod disks;
#[path = "bad_input/mount.rs"]
mod mount;
#[path = "bad_input/pressure.rs"]
mod pressure;
#[path = "bad_input/requests.rs"]
mod requests;
#[path = "bad_input/stand.rs"]
mod stand;
#[path = "bad_input/wire.rs"]
mod wire;
