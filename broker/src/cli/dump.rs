//! `firn log dump`: prints and verifies a segment, an object of the bucket or a journal file, batch by batch or frame by frame.
//!
//! Reads as much as one batch or frame at a time, whatever the file measures. What it is shows at its ends: a journal file begins with
//! a header, an object ends with a trailer, and a segment is batches and nothing else.

mod journal;
mod object;

use super::bytes::to_json;
use crate::disk::BLOCK;
use crate::journal::format::{FileHeader, FileHeaderError};
use proto::records::{BatchHeader, BatchRef, HEADER_LEN, Records, control_record};
use serde_json::json;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::Path;

/// No batch or frame measures more; a length beyond it is damage.
const MAX_ENTRY_BYTES: u64 = 1 << 30;
/// Records of a batch measure at most this once decompressed.
const MAX_UNCOMPRESSED_BYTES: usize = 256 << 20;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// The records inside the batches, too.
    pub records: bool,
    /// A JSON object a line.
    pub json: bool,
}

/// Prints the file; `Err` names the first thing that is wrong with it, after everything before was printed.
pub(super) fn run(path: &Path, options: Options) -> Result<(), String> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut out = io::stdout().lock();
    let outcome = dump(&mut file, options, &mut out);
    match outcome {
        Ok(()) => Ok(()),
        Err(Failed::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Failed::Io(error)) => Err(format!("{}: {error}", path.display())),
        Err(Failed::Damaged { at, why }) => Err(format!("{} is damaged at byte {at}: {why}", path.display())),
    }
}

enum Failed {
    Io(io::Error),
    Damaged { at: u64, why: String },
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        Failed::Io(error)
    }
}

fn damaged(at: u64, why: impl std::fmt::Display) -> Failed {
    Failed::Damaged { at, why: why.to_string() }
}

fn dump(file: &mut (impl Read + Seek), options: Options, out: &mut impl Write) -> Result<(), Failed> {
    let start = read_up_to(file, BLOCK)?;
    match FileHeader::decode(&start) {
        Ok(header) => return journal::dump(header, file, options, out),
        Err(error @ FileHeaderError::Version(_)) => return Err(damaged(0, error)),
        Err(error) if FileHeader::is_meant_by(&start) => return Err(damaged(0, error)),
        Err(_) => {}
    }
    if object::ends(file)? {
        return object::dump(file, options, out);
    }
    file.rewind()?;
    segment(file, Offsets::WithoutGap, options, out).map(drop)
}

/// How the offsets of batches follow each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Offsets {
    /// In a log, each begins where the one before ends.
    WithoutGap,
    /// In an object, the range may have gaps.
    Rising,
}

/// Prints a row of batches; the offset after the last, if there is one.
fn segment(
    file: &mut impl Read,
    offsets: Offsets,
    options: Options,
    out: &mut impl Write,
) -> Result<Option<i64>, Failed> {
    let mut at = 0;
    let mut next_offset = None;
    loop {
        let mut bytes = read_up_to(file, HEADER_LEN)?;
        if bytes.is_empty() {
            return Ok(next_offset);
        }
        let header = BatchHeader::parse(&bytes).map_err(|error| damaged(at, error))?;
        let size = header.size();
        if size as u64 > MAX_ENTRY_BYTES {
            return Err(damaged(at, format!("a batch of {size} bytes")));
        }
        file.take((size - bytes.len().min(size)) as u64).read_to_end(&mut bytes)?;
        if let Some(expected) = next_offset
            && (header.base_offset < expected || offsets == Offsets::WithoutGap && header.base_offset != expected)
        {
            return Err(damaged(at, format!("offset {} follows, {expected} was expected", header.base_offset)));
        }
        print_batch(at, &bytes, options, out)?;
        next_offset = Some(header.next_offset());
        at += size as u64;
    }
}

fn print_batch(at: u64, bytes: &[u8], options: Options, out: &mut impl Write) -> Result<(), Failed> {
    let wrong = |error: proto::records::BatchError| damaged(at, error);
    let batch = BatchRef::first(bytes).map_err(wrong)?;
    let header = &batch.header;
    if batch.compute_crc() != header.crc {
        return Err(damaged(at, format!("the CRC of the batch at offset {} is wrong", header.base_offset)));
    }
    let codec = header.codec().map_err(wrong)?.name();
    let (base, last) = (header.base_offset, header.last_offset());
    let marker = control_record(&batch).map_err(wrong)?;
    if options.json {
        let row = json!({"at": at, "base_offset": base, "last_offset": last, "records": header.record_count,
            "bytes": header.size(), "leader_epoch": header.leader_epoch, "codec": codec,
            "producer_id": header.producer_id, "producer_epoch": header.producer_epoch,
            "base_sequence": header.base_sequence, "max_timestamp": header.max_timestamp,
            "transactional": header.is_transactional(), "marker": marker.map(|marker| format!("{marker:?}"))});
        writeln!(out, "{row}")?;
    } else {
        let (count, size, epoch) = (header.record_count, header.size(), header.leader_epoch);
        write!(out, "offsets {base}..={last}, {count} records, {size} bytes, epoch {epoch}, {codec}")?;
        if header.has_producer_id() {
            let (id, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
            write!(out, ", producer {id} epoch {epoch} sequence {sequence}")?;
        }
        if let Some(marker) = marker {
            write!(out, ", {marker:?}")?;
        }
        writeln!(out)?;
    }
    if options.records && !header.is_control() {
        let indent = if options.json { "" } else { "    " };
        for record in &Records::new(&batch, MAX_UNCOMPRESSED_BYTES).map_err(wrong)? {
            let record = record.map_err(wrong)?;
            let row = json!({"offset": record.offset, "timestamp": record.timestamp, "key": to_json(record.key),
                "value": to_json(record.value), "headers": record.headers.len()});
            writeln!(out, "{indent}{row}")?;
        }
    }
    Ok(())
}

/// Reads `bytes`, or what there is.
fn read_up_to(file: &mut impl Read, bytes: usize) -> io::Result<Vec<u8>> {
    let mut read = Vec::with_capacity(bytes);
    file.take(bytes as u64).read_to_end(&mut read)?;
    Ok(read)
}

#[cfg(test)]
mod tests;
