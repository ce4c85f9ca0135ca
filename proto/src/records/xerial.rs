//! Snappy in the framing of Java's snappy library: a 16 byte header (magic, version, compatible version),
//! then blocks, each behind its length as i32. Clients in other languages also send one bare block.

use std::io::{self, Read, Write};

use super::codec::OverLimit;

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const HEADER_LEN: usize = 16;
/// Uncompressed bytes per block when writing, as Java does.
const BLOCK: usize = 32 * 1024;
/// No snappy element makes more than 64 bytes out of one, so a block that claims more is lying.
const MOST_PER_BYTE: usize = 64;

/// Writes blocks behind the header.
pub(super) struct Writer<W> {
    out: W,
    encoder: snap::raw::Encoder,
    /// What waits to become a block.
    waiting: Vec<u8>,
    block: Vec<u8>,
    begun: bool,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        let waiting = Vec::with_capacity(BLOCK);
        Self { out, encoder: snap::raw::Encoder::new(), waiting, block: Vec::new(), begun: false }
    }

    /// Writes what still waits.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.write_block()
    }

    fn write_block(&mut self) -> io::Result<()> {
        if !self.begun {
            self.out.write_all(&MAGIC)?;
            self.out.write_all(&1_i32.to_be_bytes())?;
            self.out.write_all(&1_i32.to_be_bytes())?;
            self.begun = true;
        }
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.block.resize(snap::raw::max_compress_len(self.waiting.len()), 0);
        let written = self.encoder.compress(&self.waiting, &mut self.block).map_err(io::Error::other)?;
        self.waiting.clear();
        self.out.write_all(&(written as i32).to_be_bytes())?;
        self.out.write_all(self.block.get(..written).unwrap_or_default())
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(BLOCK - self.waiting.len());
        self.waiting.extend_from_slice(bytes.get(..count).unwrap_or_default());
        if self.waiting.len() == BLOCK {
            self.write_block()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads either form, one block in memory at a time.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    framed: bool,
    max: usize,
    decoder: snap::raw::Decoder,
    block: Vec<u8>,
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader whose blocks may have up to `max` bytes each.
    pub(super) fn new(bytes: &'a [u8], max: usize) -> Self {
        let framed = bytes.len() >= HEADER_LEN && bytes.starts_with(&MAGIC);
        Self {
            rest: if framed { bytes.get(HEADER_LEN..).unwrap_or_default() } else { bytes },
            framed,
            max,
            decoder: snap::raw::Decoder::new(),
            block: Vec::new(),
            at: 0,
        }
    }

    /// Decompresses the next block into `self.block`; false at the end.
    fn next_block(&mut self) -> io::Result<bool> {
        let Some(compressed) = self.take_block()? else {
            return Ok(false);
        };
        let size = snap::raw::decompress_len(compressed).map_err(io::Error::other)?;
        if size > self.max {
            return Err(io::Error::other(OverLimit(self.max)));
        }
        if size > compressed.len().saturating_mul(MOST_PER_BYTE) {
            return Err(io::Error::other("a block claims an impossible size"));
        }
        self.block.resize(size, 0);
        self.at = 0;
        let written = self.decoder.decompress(compressed, &mut self.block).map_err(io::Error::other)?;
        self.block.truncate(written);
        Ok(true)
    }

    fn take_block(&mut self) -> io::Result<Option<&'a [u8]>> {
        // Java's writer may be closed and reopened on the same stream: headers repeat between blocks.
        while self.framed && self.rest.len() >= HEADER_LEN && self.rest.starts_with(&MAGIC) {
            self.rest = self.rest.get(HEADER_LEN..).unwrap_or_default();
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        if !self.framed {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        let Some((length, rest)) = self.rest.split_first_chunk::<4>() else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let length = usize::try_from(i32::from_be_bytes(*length))
            .map_err(|_| io::Error::other("a block has a negative length"))?;
        if length > rest.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (block, rest) = rest.split_at(length);
        self.rest = rest;
        Ok(Some(block))
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let ready = self.block.get(self.at..).unwrap_or_default();
        let count = ready.len().min(buf.len());
        let (from, to) = (ready.get(..count), buf.get_mut(..count));
        if let (Some(from), Some(to)) = (from, to) {
            to.copy_from_slice(from);
        }
        self.at += count;
        Ok(count)
    }
}
