//! `partition.firn`: what a partition's folder says of itself.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use proto::ids::{Offset, TopicId, TopicPartition, Uuid};

use super::snapshot::FormatError;

/// Name of the file.
pub const NAME: &str = "partition.firn";
const MAGIC: &[u8; 8] = b"FIRNPRT1";

/// How the tail of a log is found after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// From the checkpoint and the journal.
    Journal,
    /// From the batches themselves, by their CRC, as some went past the journal (`firn.flush = os`).
    Scan,
}

/// The contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Whose log this is.
    pub tp: TopicPartition,
    /// The topic's name, for whoever looks into the directory.
    pub topic: String,
    /// First offset on local disk.
    pub local_start: Offset,
    /// How to recover.
    pub recovery: Recovery,
}

impl Folder {
    /// The name of a partition's folder: topic ids are never used again, names are.
    pub fn name(tp: TopicPartition) -> String {
        format!("{}-{}", tp.topic, tp.partition)
    }

    /// The partition that a folder's name stands for.
    pub fn parse_name(name: &str) -> Option<TopicPartition> {
        // Ids may contain hyphens; the index does not.
        let (topic, partition) = name.rsplit_once('-')?;
        let tp = TopicPartition::new(topic.parse().ok()?, partition.parse().ok()?);
        (Self::name(tp) == name).then_some(tp)
    }

    /// Magic, topic id, partition, local start, recovery, topic name, CRC-32C of all before it.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(48 + self.topic.len());
        out.put_slice(MAGIC);
        out.put_slice(self.tp.topic.0.as_bytes());
        out.put_i32(self.tp.partition);
        out.put_i64(self.local_start);
        out.put_u8(match self.recovery {
            Recovery::Journal => 0,
            Recovery::Scan => 1,
        });
        out.put_slice(self.topic.as_bytes());
        out.put_u32(crc32c::crc32c(&out));
        out.freeze()
    }

    /// Reads what [`Folder::encode`] wrote.
    ///
    /// # Errors
    /// Anything that differs.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut body, crc) = bytes.split_last_chunk::<4>().ok_or(FormatError::Truncated)?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
            return Err(FormatError::Crc);
        }
        body = body.strip_prefix(MAGIC.as_slice()).ok_or(FormatError::Magic)?;
        let topic = TopicId(Uuid::from_u128(body.try_get_u128()?));
        let tp = TopicPartition::new(topic, body.try_get_i32()?);
        let local_start = body.try_get_i64()?;
        let recovery = match body.try_get_u8()? {
            0 => Recovery::Journal,
            1 => Recovery::Scan,
            _ => return Err(FormatError::Invalid("recovery")),
        };
        let topic = str::from_utf8(body).map_err(|_| FormatError::Invalid("topic name"))?.to_owned();
        if local_start < 0 {
            return Err(FormatError::Invalid("local start"));
        }
        Ok(Self { tp, topic, local_start, recovery })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> Folder {
        let id = TopicId(Uuid::from_u128(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f));
        Folder { tp: TopicPartition::new(id, 7), topic: "flights".into(), local_start: 42, recovery: Recovery::Scan }
    }

    #[test]
    fn the_file_is_what_it_was() {
        let bytes = folder().encode();
        let hex: String = bytes.iter().take(44).map(|byte| format!("{byte:02x}")).collect();
        let golden = "4649524e50525431000102030405060708090a0b0c0d0e0f00000007000000000000002a01666c6967687473";
        assert_eq!(hex, golden);
        assert_eq!(Folder::decode(&bytes), Ok(folder()));
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            assert!(Folder::decode(&damaged).is_err());
            assert!(Folder::decode(&bytes[..at]).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn descriptions_read_back_as_they_were_written(
            id: u128,
            partition in 0..i32::MAX,
            topic in "[a-zA-Z0-9._-]{1,60}",
            local_start in 0..i64::MAX,
            scan: bool,
        ) {
            let recovery = if scan { Recovery::Scan } else { Recovery::Journal };
            let tp = TopicPartition::new(TopicId(Uuid::from_u128(id)), partition);
            let folder = Folder { tp, topic, local_start, recovery };
            proptest::prop_assert_eq!(Folder::decode(&folder.encode()), Ok(folder.clone()));
            proptest::prop_assert_eq!(Folder::parse_name(&Folder::name(tp)), Some(tp));
        }
    }

    #[test]
    fn folders_are_named_by_id_and_index() {
        let name = Folder::name(folder().tp);
        assert_eq!(name, "AAECAwQFBgcICQoLDA0ODw-7");
        assert_eq!(Folder::parse_name(&name), Some(folder().tp));
        for other in ["flights-7", "AAECAwQFBgcICQoLDA0ODw", "AAECAwQFBgcICQoLDA0ODw-07", "journal"] {
            assert_eq!(Folder::parse_name(other), None, "{other}");
        }
    }
}
