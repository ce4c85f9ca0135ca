//! Kafka APIs: one file each decodes, calls a handle, encodes.

pub mod fetch;
