//! Identifiers and units that every crate shares.
//!
//! Kafka prints topic and directory ids as unpadded URL-safe base64 of the 16 bytes of the UUID
//! (`org.apache.kafka.common.Uuid`); so do we, so that an id in our output can be pasted into
//! Kafka's tools.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
pub use uuid::Uuid;

/// Position of a record in a partition. Dense, starts at 0.
pub type Offset = i64;
/// Term of a partition's leader. -1 means "unknown" on the wire.
pub type LeaderEpoch = i32;
/// Milliseconds: a point in time since the Unix epoch, or a span, as the name says.
pub type Millis = i64;

/// A broker or controller (`node.id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct NodeId(pub i32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A topic's identity, never reused when a topic of the same name is created again (KIP-516).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct TopicId(pub Uuid);

impl TopicId {
    /// The id that means "none" on the wire.
    pub const ZERO: Self = Self(Uuid::nil());

    /// Whether this is [`TopicId::ZERO`].
    pub const fn is_zero(&self) -> bool {
        self.0.is_nil()
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_base64url(&self.0, f)
    }
}

impl FromStr for TopicId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        parse_base64url(text).map(Self)
    }
}

/// A data directory's identity, written in it once (KIP-858).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct DirectoryId(pub Uuid);

impl DirectoryId {
    /// The id that means "not assigned yet" (KIP-858).
    pub const UNASSIGNED: Self = Self(Uuid::nil());
}

impl fmt::Display for DirectoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_base64url(&self.0, f)
    }
}

impl FromStr for DirectoryId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        parse_base64url(text).map(Self)
    }
}

/// One partition of one incarnation of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct TopicPartition {
    /// The topic's id.
    pub topic: TopicId,
    /// Index of the partition, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// The partition `partition` of `topic`.
    pub const fn new(topic: TopicId, partition: i32) -> Self {
        Self { topic, partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// A text that is not the 22 characters of a base64url id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected 22 characters of URL-safe base64")]
pub struct InvalidId;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn fmt_base64url(id: &Uuid, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = String::with_capacity(22);
    for chunk in id.as_bytes().chunks(3) {
        let mut word = [0u8; 4];
        word[1..=chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes(word);
        for digit in 0..=chunk.len() {
            let index = (word >> (18 - 6 * digit)) & 63;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    f.pad(&text)
}

fn parse_base64url(text: &str) -> Result<Uuid, InvalidId> {
    if text.len() != 22 {
        return Err(InvalidId);
    }
    let mut value: u128 = 0;
    let mut digits =
        text.bytes().map(|byte| ALPHABET.iter().position(|known| *known == byte).map(|at| at as u128).ok_or(InvalidId));
    for digit in digits.by_ref().take(21) {
        value = (value << 6) | digit?;
    }
    // 21 digits hold 126 bits; of the last one only the upper two bits mean anything.
    let last = digits.next().ok_or(InvalidId)??;
    if last & 0b1111 != 0 {
        return Err(InvalidId);
    }
    Ok(Uuid::from_u128((value << 2) | (last >> 4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_as_kafka_prints_them() {
        let id = TopicId(Uuid::from_u128(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f));
        assert_eq!(id.to_string(), "AAECAwQFBgcICQoLDA0ODw");
        assert_eq!("AAECAwQFBgcICQoLDA0ODw".parse(), Ok(id));
        assert_eq!(TopicId::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        let all = TopicId(Uuid::from_u128(u128::MAX));
        assert_eq!(all.to_string(), "_____________________w");
        assert_eq!("_____________________w".parse(), Ok(all));
    }

    #[test]
    fn texts_that_are_no_ids_are_refused() {
        for text in ["", "AAECAwQFBgcICQoLDA0OD", "AAECAwQFBgcICQoLDA0ODx", "AAECAwQFBgcICQoLDA0O+w"] {
            assert_eq!(text.parse::<TopicId>(), Err(InvalidId), "{text}");
        }
    }
}
