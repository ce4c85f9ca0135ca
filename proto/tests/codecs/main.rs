//! All generated codecs against messages made from the schemas' facts: they agree byte for byte with the crate
//! `kafka-protocol` where both have a version, refuse every truncation, and stay within their memory whatever they are given.

mod agreement;
mod facts;
mod headers;
mod hostile;
mod memory;
mod random;
mod shown;
mod theirs;
