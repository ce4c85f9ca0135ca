//! Reads one journal file, front to back.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::format::{self, FileHeader, FileHeaderError, Frame, FrameError, FrameHeader, Seed};
use crate::disk::{BLOCK, Disk, DiskError, DiskFile, OpenMode};

/// Files are read in pieces of at least this size.
const WINDOW: usize = 1 << 20;

/// An open journal file.
#[derive(Debug)]
pub struct FileReader {
    file: Arc<dyn DiskFile>,
    header: FileHeader,
    seed: Seed,
    len: u64,
    position: u64,
    window: Bytes,
    window_at: u64,
}

/// What may be wrong with a journal file as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Its first block.
    #[error("journal file {}: {error}", path.display())]
    Header {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        error: FileHeaderError,
    },
}

impl FileReader {
    /// Opens `path` and reads its header.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn open(disk: &dyn Disk, path: &Path) -> Result<Self, ReadError> {
        let file = disk.open(path, OpenMode::Read).await?;
        let len = file.size().await?;
        let block = file.read_at(0, BLOCK).await?;
        let header = FileHeader::decode(&block).map_err(|error| ReadError::Header { path: path.to_owned(), error })?;
        Ok(Self { file, header, seed: header.seed(), len, position: BLOCK as u64, window: Bytes::new(), window_at: 0 })
    }

    /// The file's header.
    pub const fn header(&self) -> &FileHeader {
        &self.header
    }

    /// Its length in bytes when it was opened. The header says what it was made with; this is what it takes.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// The file's name.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Where [`FileReader::frame`] reads next, in bytes from the start of the file.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Goes back to a position that was read before.
    pub(super) fn rewind(&mut self, position: u64) {
        self.position = position;
    }

    /// The frame at the current position. Moves behind it if it validates, else stays. `None` at the end
    /// of the file.
    ///
    /// # Errors
    /// The disk's.
    pub async fn frame(&mut self) -> Result<Option<Result<Frame, FrameError>>, DiskError> {
        let Some(bytes) = self.candidate().await? else {
            return Ok(None);
        };
        let frame = bytes.and_then(|bytes| format::decode_frame(&bytes, self.seed));
        if let Ok(frame) = &frame {
            self.position += frame.header.padded_length();
        }
        Ok(Some(frame))
    }

    /// Looks for the next valid frame from the current position on, block by block. Moves behind it, or to
    /// the end.
    ///
    /// # Errors
    /// The disk's.
    pub async fn seek_frame(&mut self) -> Result<Option<FrameHeader>, DiskError> {
        while let Some(bytes) = self.candidate().await? {
            let found = bytes.and_then(|bytes| format::check_frame(&bytes, self.seed));
            if let Ok(header) = found {
                self.position += header.padded_length();
                return Ok(Some(header));
            }
            self.position += BLOCK as u64;
        }
        Ok(None)
    }

    /// The bytes of what looks like a frame at the current position; `None` at the end of the file.
    async fn candidate(&mut self) -> Result<Option<Result<Bytes, FrameError>>, DiskError> {
        let left = self.len.saturating_sub(self.position);
        if left < BLOCK as u64 {
            return Ok(None);
        }
        let header = match FrameHeader::peek(&self.bytes(BLOCK).await?) {
            Ok(header) => header,
            Err(error) => return Ok(Some(Err(error))),
        };
        if header.padded_length() > left {
            return Ok(Some(Err(FrameError::Truncated)));
        }
        match usize::try_from(header.length) {
            Ok(length) => self.bytes(length).await.map(|bytes| Some(Ok(bytes))),
            Err(_) => Ok(Some(Err(FrameError::Truncated))),
        }
    }

    /// `len` bytes from the current position, fewer at the end of the file.
    async fn bytes(&mut self, len: usize) -> Result<Bytes, DiskError> {
        let inside = |reader: &Self| {
            let from = usize::try_from(reader.position.checked_sub(reader.window_at)?).ok()?;
            let to = from.checked_add(len)?;
            (to <= reader.window.len()).then_some(from..to)
        };
        if let Some(range) = inside(self) {
            return Ok(self.window.slice(range));
        }
        self.window = self.file.read_at(self.position, len.max(WINDOW)).await?;
        self.window_at = self.position;
        Ok(self.window.slice(..len.min(self.window.len())))
    }
}
