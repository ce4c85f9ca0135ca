//! Frames of the Kafka protocol: a 4-byte big-endian length, then as many bytes.
//!
//! The length is checked and its bytes are admitted against the budget *before* the body is read, so that a
//! lying prefix costs nothing and many large requests wait instead of filling the memory.

use super::budget::{Budget, Grant};
use bytes::{Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Small requests are read together into a buffer of this size; larger frames get their exact size.
const READ_AHEAD_BYTES: usize = 16 * 1024;
/// A read buffer that a large frame has grown beyond this is given back once the frame is done.
const KEEP_BYTES: usize = 2 * 1024 * 1024;

/// One request as it came in, with the memory it holds.
#[derive(Debug)]
pub struct Frame {
    /// The bytes after the length prefix.
    pub body: Bytes,
    /// The share of the request budget, held until the frame's bytes are freed.
    pub grant: Grant,
}

/// Why a connection cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length prefix is negative or above `socket.request.max.bytes`.
    #[error("a frame of {length} bytes was announced; socket.request.max.bytes allows {max}")]
    Length { length: i32, max: usize },
    /// The peer went away in the middle of a frame.
    #[error("the connection ended in the middle of a frame")]
    Truncated,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads frames from one connection.
pub struct FrameReader<R> {
    from: R,
    buffer: BytesMut,
    budget: Budget,
    max_frame_bytes: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// `max_frame_bytes` is `socket.request.max.bytes`.
    pub fn new(from: R, budget: Budget, max_frame_bytes: usize) -> Self {
        FrameReader { from, buffer: BytesMut::new(), budget, max_frame_bytes }
    }

    /// The next frame, or `None` when the peer closed between two frames.
    pub async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if !self.fill(4).await? {
            return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Truncated) };
        }
        let length = i32::from_be_bytes([self.buffer[0], self.buffer[1], self.buffer[2], self.buffer[3]]);
        let size = usize::try_from(length)
            .ok()
            .filter(|size| *size <= self.max_frame_bytes)
            .ok_or(FrameError::Length { length, max: self.max_frame_bytes })?;
        let grant = self.budget.admit(size).await;
        if !self.fill(4 + size).await? {
            return Err(FrameError::Truncated);
        }
        let mut body = self.buffer.split_to(4 + size);
        if size > KEEP_BYTES {
            // What was read ahead moves to a buffer of its own, or it would pin the large one.
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        Ok(Some(Frame { body: body.split_off(4).freeze(), grant }))
    }

    /// Reads until `wanted` bytes are there; `false` at the end of the stream.
    async fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        while self.buffer.len() < wanted {
            let missing = wanted - self.buffer.len();
            self.buffer.reserve(missing.max(READ_AHEAD_BYTES));
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &'static [u8]) -> FrameReader<&'static [u8]> {
        FrameReader::new(bytes, Budget::new(1024), 64)
    }

    #[tokio::test]
    async fn pipelined_frames_come_out_one_by_one() {
        let mut reader = reader(b"\0\0\0\x03abc\0\0\0\0\0\0\0\x01z");
        for expected in [&b"abc"[..], b"", b"z"] {
            let frame = reader.next().await.expect("readable").expect("a frame");
            assert_eq!(frame.body, expected);
            assert_eq!(frame.grant.bytes(), expected.len());
        }
        assert!(reader.next().await.expect("a clean end").is_none());
    }

    #[tokio::test]
    async fn a_lying_length_costs_no_memory() {
        for prefix in [&b"\x7f\xff\xff\xff"[..], b"\xff\xff\xff\xff", b"\0\0\0\x41"] {
            let budget = Budget::new(1024);
            let mut reader = FrameReader::new(prefix, budget.clone(), 64);
            assert!(matches!(reader.next().await, Err(FrameError::Length { max: 64, .. })));
            assert_eq!(budget.used_bytes(), 0);
        }
    }

    #[tokio::test]
    async fn a_cut_frame_is_told_from_a_clean_end() {
        assert!(matches!(reader(b"\0\0").next().await, Err(FrameError::Truncated)));
        assert!(matches!(reader(b"\0\0\0\x09abc").next().await, Err(FrameError::Truncated)));
    }
}
