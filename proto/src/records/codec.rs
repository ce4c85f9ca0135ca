//! The compression codecs of Kafka, and reading them in a stream of bounded memory.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lz4_flex::frame::FrameDecoder;

use super::error::BatchError;
use super::xerial;

/// How the records of a batch are compressed. Numbers are those of the attributes' low three bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Codec {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952; several members are read as one.
    Gzip,
    /// Snappy blocks in the framing of Java's snappy library; one bare block is read, too.
    Snappy,
    /// LZ4 frame format.
    Lz4,
    /// RFC 8878.
    Zstd,
}

impl Codec {
    /// All codecs, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec with that number.
    ///
    /// # Errors
    /// [`BatchError::UnknownCodec`].
    pub fn from_number(number: u8) -> Result<Self, BatchError> {
        match Self::ALL.get(usize::from(number)) {
            Some(codec) => Ok(*codec),
            None => Err(BatchError::UnknownCodec(number)),
        }
    }

    /// Its number in the attributes.
    pub fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Its name in Kafka's configs.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Codec {
    type Err = String;

    /// Parses a config's name; Kafka's alias `uncompressed` is [`Codec::None`].
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "none" | "uncompressed" => Ok(Self::None),
            "gzip" => Ok(Self::Gzip),
            "snappy" => Ok(Self::Snappy),
            "lz4" => Ok(Self::Lz4),
            "zstd" => Ok(Self::Zstd),
            other => Err(format!("there is no compression type {other}")),
        }
    }
}

/// A codec with a level for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compression {
    /// The codec.
    pub codec: Codec,
    /// gzip 1 to 9, zstd up to 22 (negative ones are fast); `None` and what a codec does not have (lz4
    /// has one level here) mean its default.
    pub level: Option<i32>,
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Self {
        Self { codec, level: None }
    }
}

/// A decompressing stream. Its memory is bounded: by the codec's window for gzip (32 KiB) and lz4 (blocks
/// of 4 MiB), by `max` for a snappy block, and for zstd by 8 MiB, or by 128 MiB with one such stream at a time.
pub(super) enum Reader<'a> {
    Gzip(Box<flate2::bufread::MultiGzDecoder<&'a [u8]>>),
    Snappy(xerial::Reader<'a>),
    Lz4(Box<FrameDecoder<&'a [u8]>>),
    Zstd { decoder: zstd::stream::read::Decoder<'static, &'a [u8]>, _turn: Option<MutexGuard<'static, ()>> },
}

impl<'a> Reader<'a> {
    /// A reader of `body`, which is compressed with `codec` (not [`Codec::None`]: that is read as it is).
    pub(super) fn new(codec: Codec, body: &'a [u8], max: usize) -> Result<Self, BatchError> {
        match codec {
            Codec::None => Err(BatchError::Compression { codec, why: "it is not compressed".to_owned() }),
            Codec::Gzip => Ok(Self::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(body)))),
            Codec::Snappy => Ok(Self::Snappy(xerial::Reader::new(body, max))),
            Codec::Lz4 => Ok(Self::Lz4(Box::new(FrameDecoder::new(body)))),
            Codec::Zstd => Self::zstd(body).map_err(|error| BatchError::from_decoder(codec, &error)),
        }
    }

    fn zstd(body: &'a [u8]) -> io::Result<Self> {
        let large = zstd_window(body) > 1 << ZSTD_WINDOW_LOG;
        let turn = large.then(|| LARGE_WINDOW.lock().unwrap_or_else(PoisonError::into_inner));
        let mut decoder = zstd::stream::read::Decoder::with_buffer(body)?;
        decoder.window_log_max(if large { ZSTD_WINDOW_LOG_MAX } else { ZSTD_WINDOW_LOG })?;
        Ok(Self::Zstd { decoder, _turn: turn })
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(buf),
            Self::Snappy(decoder) => decoder.read(buf),
            Self::Lz4(decoder) => decoder.read(buf),
            Self::Zstd { decoder, .. } => decoder.read(buf),
        }
    }
}

/// Windows up to this (8 MiB) are what RFC 8878 asks a decoder to support, and what levels up to 19 use.
const ZSTD_WINDOW_LOG: u32 = 23;
/// Levels 20 to 22 use up to this (128 MiB), the most that Java's decoder takes.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Held while a window above [`ZSTD_WINDOW_LOG`] may be allocated, so that many clients at the highest
/// levels cost the memory of one.
static LARGE_WINDOW: Mutex<()> = Mutex::new(());

/// The window the first frame asks for, in bytes (RFC 8878 §3.1.1.1); 0 when there is no frame.
fn zstd_window(body: &[u8]) -> u64 {
    let Some((magic, rest)) = body.split_first_chunk::<4>() else {
        return 0;
    };
    let Some((&descriptor, rest)) = rest.split_first() else {
        return 0;
    };
    if u32::from_le_bytes(*magic) != 0xFD2F_B528 {
        return 0;
    }
    let single_segment = descriptor & 0x20 != 0;
    if !single_segment {
        let Some(&window) = rest.first() else {
            return 0;
        };
        let base = 1_u64 << (10 + (window >> 3));
        return base + base / 8 * u64::from(window & 7);
    }
    // The window is the content: a size of 1, 2, 4 or 8 bytes behind the dictionary id.
    let skip = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size_len = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let mut size = [0; 8];
    match rest.get(skip..skip + size_len) {
        Some(bytes) => size[..size_len].copy_from_slice(bytes),
        None => return 0,
    }
    u64::from_le_bytes(size)
}

/// Ends in [`OverLimit`] when more than `max` bytes are read of what it wraps.
pub(super) struct Limited<R> {
    inner: R,
    left: usize,
    max: usize,
}

impl<R: Read> Limited<R> {
    pub(super) fn new(inner: R, max: usize) -> Self {
        Self { inner, left: max, max }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.left = self.left.checked_sub(count).ok_or_else(|| io::Error::other(OverLimit(self.max)))?;
        Ok(count)
    }
}

/// More comes out than so many bytes.
#[derive(Debug, thiserror::Error)]
#[error("it decompresses to more than {0} bytes")]
pub(super) struct OverLimit(pub(super) usize);

impl BatchError {
    /// Turns what a decoder said into ours.
    pub(super) fn from_decoder(codec: Codec, error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<OverLimit>()) {
            Some(OverLimit(max)) => Self::Bomb(*max),
            None => Self::Compression { codec, why: error.to_string() },
        }
    }
}
