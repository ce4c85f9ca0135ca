//! The Kafka front as a client sees it: a whole node in this process, spoken to over TCP through the codecs of `proto`.
//!
//! What is not Firn's own is what Kafka answers: with `FIRN_TEST_BOOTSTRAP=host:port` the cases that need nothing of
//! Firn run against that broker instead, so that a disputed expectation can be put to Kafka itself. The others do nothing
//! then.

mod admin;
mod client;
mod cold;
mod fetch;
mod groups;
mod listeners;
mod metadata;
mod pressure;
mod sessions;
mod settings;

mod produce;
mod protocol;

mod world;
