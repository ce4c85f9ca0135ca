//! `life.firn`: whether the process that wrote to a data directory last ended as it should.
//!
//! It is written anew whenever a directory is opened, before anything is appended, and once more when it was closed with
//! everything settled. What it says decides whether what this broker acknowledged can be lost: records of topics with
//! `firn.flush = os` survive the end of a process, but not that of the machine.

use std::path::Path;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::snapshot::FormatError;
use crate::disk::{self, Disk, DiskError};

/// Name of the file.
pub const NAME: &str = "life.firn";
const MAGIC: &[u8; 8] = b"FIRNLIF1";
/// Bytes of a boot id that are kept.
const MAX_BOOT: usize = 128;

/// The contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// The boot of the machine that the process ran in; empty if it is not known.
    pub boot: String,
    /// Broker epoch of the process, once everything was settled and nothing came after it.
    pub ended: Option<i64>,
}

/// How the last life of this broker's directories ended; the worst of them counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It was closed, by a process registered under this broker epoch (-1: there was none).
    Clean(i64),
    /// The process ended early, the machine goes on: what the page cache held is there.
    SameBoot,
    /// Nothing is known: what was not synced may be gone.
    Unknown,
}

impl Stop {
    /// Of two directories.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::SameBoot, _) | (_, Self::SameBoot) => Self::SameBoot,
            // A directory that was not there in the last life tells of an earlier one, or of none.
            (Self::Clean(one), Self::Clean(other)) => Self::Clean(one.max(other)),
        }
    }
}

impl Life {
    /// Magic, 1 if it ended as it should, broker epoch, boot id, CRC-32C of all before it.
    pub fn encode(&self) -> Bytes {
        let boot: String = self.boot.chars().filter(char::is_ascii).take(MAX_BOOT).collect();
        let mut out = BytesMut::with_capacity(32 + boot.len());
        out.put_slice(MAGIC);
        out.put_u8(u8::from(self.ended.is_some()));
        out.put_i64(self.ended.unwrap_or(-1));
        out.put_slice(boot.as_bytes());
        out.put_u32(crc32c::crc32c(&out));
        out.freeze()
    }

    /// Reads what [`Life::encode`] wrote.
    ///
    /// # Errors
    /// Anything that differs.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut body, crc) = bytes.split_last_chunk::<4>().ok_or(FormatError::Truncated)?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
            return Err(FormatError::Crc);
        }
        body = body.strip_prefix(MAGIC.as_slice()).ok_or(FormatError::Magic)?;
        let ended = match (body.try_get_u8()?, body.try_get_i64()?) {
            (0, -1) => None,
            (1, epoch) => Some(epoch),
            _ => return Err(FormatError::Invalid("end")),
        };
        let boot = str::from_utf8(body).map_err(|_| FormatError::Invalid("boot id"))?.to_owned();
        Ok(Self { boot, ended })
    }

    /// How the life ended that left `found`, told in the boot `boot`. A directory that holds nothing has nothing to lose.
    pub fn stop(found: Option<&Self>, boot: &str, blank: bool) -> Stop {
        match found {
            Some(Self { ended: Some(epoch), .. }) => Stop::Clean(*epoch),
            Some(life) if !boot.is_empty() && life.boot == boot => Stop::SameBoot,
            None if blank => Stop::Clean(-1),
            Some(_) | None => Stop::Unknown,
        }
    }

    /// What `dir` says; none if it says nothing that can be read.
    ///
    /// # Errors
    /// The disk's.
    pub async fn load(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, DiskError> {
        let bytes = disk::read_whole(disk, &dir.join(NAME)).await?;
        Ok(bytes.and_then(|bytes| Self::decode(&bytes).ok()))
    }

    /// Lets `dir` say that a life goes on, durably. On a full disk it says nothing from here on, which counts as less.
    ///
    /// # Errors
    /// The disk's, except that it is full.
    pub async fn begin(disk: &dyn Disk, dir: &Path, boot: &str) -> Result<(), DiskError> {
        let life = Self { boot: boot.to_owned(), ended: None };
        match disk::replace(disk, dir, NAME, life.encode()).await {
            Err(error) if error.is_full() => {}
            done => return done,
        }
        match disk.remove(&dir.join(NAME)).await {
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => disk.sync_dir(dir).await,
        }
    }

    /// Lets `dir` say that a life ended as it should, everything in it being durable.
    ///
    /// # Errors
    /// The disk's.
    pub async fn end(disk: &dyn Disk, dir: &Path, boot: &str, broker_epoch: i64) -> Result<(), DiskError> {
        let life = Self { boot: boot.to_owned(), ended: Some(broker_epoch) };
        disk::replace(disk, dir, NAME, life.encode()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_what_it_was() {
        let life = Life { boot: "7a1c".into(), ended: Some(258) };
        let bytes = life.encode();
        let hex: String = bytes.iter().take(21).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "4649524e4c494631010000000000000102".to_owned() + "37613163");
        assert_eq!(Life::decode(&bytes), Ok(life));
        let going_on = Life { boot: String::new(), ended: None };
        assert_eq!(Life::decode(&going_on.encode()), Ok(going_on));
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            assert!(Life::decode(&damaged).is_err());
            assert!(Life::decode(&bytes[..at]).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn lives_read_back_as_they_were_written(boot in "[0-9a-f-]{0,60}", ended: Option<u32>) {
            let life = Life { boot, ended: ended.map(i64::from) };
            proptest::prop_assert_eq!(Life::decode(&life.encode()), Ok(life.clone()));
        }
    }

    #[test]
    fn only_what_is_known_to_have_ended_well_did() {
        let life = |ended| Life { boot: "a".into(), ended };
        for (found, boot, blank, expected) in [
            (Some(life(Some(7))), "b", false, Stop::Clean(7)),
            (Some(life(None)), "a", false, Stop::SameBoot),
            (Some(life(None)), "b", false, Stop::Unknown),
            (Some(Life { boot: String::new(), ended: None }), "", false, Stop::Unknown),
            (None, "a", false, Stop::Unknown),
            (None, "a", true, Stop::Clean(-1)),
        ] {
            assert_eq!(Life::stop(found.as_ref(), boot, blank), expected);
        }
        assert_eq!(Stop::Clean(3).worst(Stop::Clean(-1)), Stop::Clean(3));
        assert_eq!(Stop::SameBoot.worst(Stop::Clean(3)), Stop::SameBoot);
        assert_eq!(Stop::SameBoot.worst(Stop::Unknown), Stop::Unknown);
    }
}
