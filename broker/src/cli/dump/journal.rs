//! A journal file: frame by frame, up to where it was cut off, or up to where it is corrupt.

use super::{Failed, MAX_ENTRY_BYTES, Options, damaged, print_batch, read_up_to};
use crate::disk::BLOCK;
use crate::journal::format::{
    FRAME_HEADER, FileHeader, Frame, FrameError, FrameHeader, Seed, check_frame, decode_frame,
};
use crate::journal::{Lsn, OwnedRecord};
use bytes::Bytes;
use serde_json::json;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// Prints the frames behind the `header` of `file`.
pub(super) fn dump(
    header: FileHeader,
    file: &mut (impl Read + Seek),
    options: Options,
    out: &mut impl Write,
) -> Result<(), Failed> {
    if options.json {
        let (directory, sequence) = (header.directory.0.to_string(), header.sequence);
        writeln!(out, "{}", json!({"journal": sequence, "directory": directory, "capacity": header.capacity}))?;
    } else {
        writeln!(out, "journal file {} of directory {}", header.sequence, header.directory.0)?;
    }
    let mut frames = Frames { len: file.seek(SeekFrom::End(0))?, seed: header.seed(), file };
    let mut at = BLOCK as u64;
    // The first record of the file may be any.
    let mut expected: Option<Lsn> = None;
    let why = loop {
        let Some(bytes) = frames.candidate(at)? else { break "no room for a frame" };
        match bytes.and_then(|bytes| decode_frame(&bytes, frames.seed)) {
            Ok(frame) if expected.is_none_or(|expected| frame.header.first_lsn == expected) => {
                print_frame(at, &frame, options, out)?;
                expected = Some(frame.header.next_lsn());
                at += frame.header.padded_length();
            }
            Ok(_) => break "what follows does not go on where it ends",
            // Behind the last frame lie zeros.
            Err(FrameError::NotAFrame) => break "no frame follows",
            Err(FrameError::Checksum | FrameError::Truncated) => {
                break "what follows is torn, or of an earlier use of the file";
            }
            Err(error @ FrameError::Entry(_)) => return Err(damaged(at, error)),
        }
    };
    if let Some((later, synced_to)) = frames.contradiction(at, expected)? {
        let why = format!(
            "what was written here cannot be read, and it was durable: the frame at byte {later} says that everything up to record \
             {synced_to} was"
        );
        return Err(damaged(at, why));
    }
    if options.json {
        writeln!(out, "{}", json!({"end": at, "why": why}))?;
    } else {
        writeln!(out, "end at byte {at}: {why}")?;
    }
    Ok(())
}

/// The frames of a file, by their place.
struct Frames<'a, F> {
    file: &'a mut F,
    len: u64,
    seed: Seed,
}

impl<F: Read + Seek> Frames<'_, F> {
    /// The bytes of what looks like a frame at byte `at`; `None` at the end of the file.
    fn candidate(&mut self, at: u64) -> io::Result<Option<Result<Bytes, FrameError>>> {
        let left = self.len.saturating_sub(at);
        if left < BLOCK as u64 {
            return Ok(None);
        }
        self.file.seek(SeekFrom::Start(at))?;
        let mut bytes = read_up_to(self.file, BLOCK)?;
        let header = match FrameHeader::peek(&bytes) {
            Ok(header) => header,
            Err(error) => return Ok(Some(Err(error))),
        };
        let whole = header.padded_length();
        if whole > left.min(MAX_ENTRY_BYTES) {
            return Ok(Some(Err(FrameError::Truncated)));
        }
        (&mut *self.file).take(whole.saturating_sub(bytes.len() as u64)).read_to_end(&mut bytes)?;
        Ok(Some(Ok(Bytes::from(bytes))))
    }

    /// A frame from byte `at` on which says that the record that should stand at `at` was durable, and up to which record all was. This
    /// is the rule by which a start refuses a journal: a torn end is none, for nothing behind it knows of more than what is before it.
    ///
    /// If no record is `expected`, because the first frame is the one that cannot be read, it is the one before the first frame that can.
    fn contradiction(&mut self, at: u64, expected: Option<Lsn>) -> io::Result<Option<(u64, Lsn)>> {
        let (mut at, mut expected) = (at, expected);
        while let Some(bytes) = self.candidate(at)? {
            match bytes.and_then(|bytes| check_frame(&bytes, self.seed)) {
                Ok(later) => {
                    let expected = *expected.get_or_insert_with(|| later.first_lsn.previous());
                    if later.synced_to >= expected {
                        return Ok(Some((at, later.synced_to)));
                    }
                    at += later.padded_length();
                }
                Err(_) => at += BLOCK as u64,
            }
        }
        Ok(None)
    }
}

fn print_frame(at: u64, frame: &Frame, options: Options, out: &mut impl Write) -> Result<(), Failed> {
    let Frame { header, records } = frame;
    let bytes = header.length - FRAME_HEADER as u64;
    if options.json {
        let frame = json!({"at": at, "first_lsn": header.first_lsn.0, "synced_to": header.synced_to.0,
            "records": header.count, "bytes": bytes});
        writeln!(out, "{frame}")?;
    } else {
        let (first, synced, count) = (header.first_lsn, header.synced_to, header.count);
        writeln!(out, "frame at {at}: lsn {first}.., {count} records, {bytes} bytes, synced to {synced}")?;
    }
    for (lsn, record) in (header.first_lsn.0..).zip(records) {
        let tp = record.tp();
        match record {
            OwnedRecord::Append { batch, .. } => {
                if !options.json {
                    write!(out, "  lsn {lsn} {tp} append: ")?;
                }
                print_batch(at, batch, options, out)?;
            }
            other if options.json => {
                writeln!(out, "{}", json!({"lsn": lsn, "partition": tp.to_string(), "change": format!("{other:?}")}))?;
            }
            other => writeln!(out, "  lsn {lsn} {tp} {other:?}")?,
        }
    }
    Ok(())
}
