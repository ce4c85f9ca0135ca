//! Writing with the codecs: what Java's readers take, in a stream, into memory that is bounded.

use std::io::{self, Read, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use super::codec::{Codec, Compression};
use super::xerial;

/// Bytes in memory, up to a limit. A write past it fails and is remembered.
pub(super) struct Bounded {
    pub(super) bytes: Vec<u8>,
    max: usize,
    full: bool,
}

impl Bounded {
    /// `bytes` count against `max` themselves.
    pub(super) fn new(bytes: Vec<u8>, max: usize) -> Self {
        Self { bytes, max, full: false }
    }

    /// Whether a write would have passed the limit.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }
}

impl Write for Bounded {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if more.len() > self.max.saturating_sub(self.bytes.len()) {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses all of `source` onto the end of `out`. `size` is how much there is, when that is known: zstd then
/// chooses a window that fits.
///
/// # Errors
/// Those of reading `source` and of writing to `out`.
pub(super) fn compress(
    compression: Compression,
    source: &mut impl Read,
    size: Option<u64>,
    out: &mut Bounded,
) -> io::Result<()> {
    match compression.codec {
        Codec::None => io::copy(source, out).map(drop),
        Codec::Gzip => {
            let level = match compression.level.map(u32::try_from) {
                Some(Ok(level)) => flate2::Compression::new(level.min(9)),
                Some(Err(_)) | None => flate2::Compression::default(),
            };
            let mut encoder = flate2::write::GzEncoder::new(out, level);
            io::copy(source, &mut encoder)?;
            encoder.finish().map(drop)
        }
        Codec::Snappy => {
            let mut encoder = xerial::Writer::new(out);
            io::copy(source, &mut encoder)?;
            encoder.finish()
        }
        Codec::Lz4 => {
            // What Java's reader accepts: independent blocks, no content size.
            let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
            let mut encoder = FrameEncoder::with_frame_info(info, out);
            io::copy(source, &mut encoder)?;
            encoder.finish().map(drop).map_err(io::Error::other)
        }
        Codec::Zstd => {
            let level = compression.level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
            let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
            encoder.set_pledged_src_size(size)?;
            io::copy(source, &mut encoder)?;
            encoder.finish().map(drop)
        }
    }
}
