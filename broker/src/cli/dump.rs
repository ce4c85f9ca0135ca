//! `firn log dump`: prints and verifies a segment or a journal file, batch by batch or frame by frame.
//!
//! Reads as much as one batch or frame at a time, whatever the file measures.

use crate::disk::BLOCK;
use crate::journal::OwnedRecord;
use crate::journal::format::{FRAME_HEADER, FileHeader, FrameError, FrameHeader, decode_frame};
use bytes::Bytes;
use proto::records::{BatchHeader, BatchRef, HEADER_LEN, Records, control_record};
use serde_json::json;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
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

fn dump(file: &mut impl Read, options: Options, out: &mut impl Write) -> Result<(), Failed> {
    let start = read_up_to(file, BLOCK)?;
    match FileHeader::decode(&start) {
        Ok(header) => journal(header, file, options, out),
        Err(_) => segment(start.as_slice().chain(file), options, out),
    }
}

fn journal(header: FileHeader, file: &mut impl Read, options: Options, out: &mut impl Write) -> Result<(), Failed> {
    if options.json {
        let (directory, sequence) = (header.directory.0.to_string(), header.sequence);
        writeln!(out, "{}", json!({"journal": sequence, "directory": directory, "capacity": header.capacity}))?;
    } else {
        writeln!(out, "journal file {} of directory {}", header.sequence, header.directory.0)?;
    }
    let mut at = BLOCK as u64;
    loop {
        let block = read_up_to(file, BLOCK)?;
        let Ok(frame) = FrameHeader::peek(&block) else {
            // Behind the last frame lie zeros, or what an earlier use of the file left.
            writeln!(out, "end at byte {at}")?;
            return Ok(());
        };
        let whole = frame.padded_length();
        if whole > MAX_ENTRY_BYTES {
            return Err(Failed::Damaged { at, why: format!("a frame of {whole} bytes") });
        }
        let mut bytes = block;
        let more = whole.saturating_sub(bytes.len() as u64);
        file.take(more).read_to_end(&mut bytes)?;
        match decode_frame(&Bytes::from(bytes), header.seed()) {
            Ok(frame) => print_frame(at, &frame.header, &frame.records, options, out)?,
            Err(FrameError::Checksum | FrameError::NotAFrame | FrameError::Truncated) => {
                writeln!(out, "end at byte {at}: what follows is torn, or of an earlier use of the file")?;
                return Ok(());
            }
            Err(error @ FrameError::Entry(_)) => return Err(Failed::Damaged { at, why: error.to_string() }),
        }
        at += whole;
    }
}

fn print_frame(
    at: u64,
    header: &FrameHeader,
    records: &[OwnedRecord],
    options: Options,
    out: &mut impl Write,
) -> Result<(), Failed> {
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

fn segment(mut file: impl Read, options: Options, out: &mut impl Write) -> Result<(), Failed> {
    let mut at = 0;
    let mut next_offset = None;
    loop {
        let mut bytes = read_up_to(&mut file, HEADER_LEN)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let header = BatchHeader::parse(&bytes).map_err(|error| Failed::Damaged { at, why: error.to_string() })?;
        let size = header.size();
        if size as u64 > MAX_ENTRY_BYTES {
            return Err(Failed::Damaged { at, why: format!("a batch of {size} bytes") });
        }
        (&mut file).take((size - bytes.len().min(size)) as u64).read_to_end(&mut bytes)?;
        if let Some(expected) = next_offset
            && header.base_offset != expected
        {
            let why = format!("offset {} follows, {expected} was expected", header.base_offset);
            return Err(Failed::Damaged { at, why });
        }
        print_batch(at, &bytes, options, out)?;
        next_offset = Some(header.next_offset());
        at += size as u64;
    }
}

fn print_batch(at: u64, bytes: &[u8], options: Options, out: &mut impl Write) -> Result<(), Failed> {
    let damaged = |error: proto::records::BatchError| Failed::Damaged { at, why: error.to_string() };
    let batch = BatchRef::first(bytes).map_err(damaged)?;
    let header = &batch.header;
    if batch.compute_crc() != header.crc {
        return Err(Failed::Damaged {
            at,
            why: format!("the CRC of the batch at offset {} is wrong", header.base_offset),
        });
    }
    let codec = header.codec().map_err(damaged)?.name();
    let (base, last) = (header.base_offset, header.last_offset());
    let marker = control_record(&batch).map_err(damaged)?;
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
        for record in &Records::new(&batch, MAX_UNCOMPRESSED_BYTES).map_err(damaged)? {
            let record = record.map_err(damaged)?;
            let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            let row = json!({"offset": record.offset, "timestamp": record.timestamp, "key": text(record.key),
                "value": text(record.value), "headers": record.headers.len()});
            writeln!(out, "    {row}")?;
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
mod tests {
    use super::*;
    use proto::records::BatchBuilder;

    const PLAIN: Options = Options { records: true, json: false };

    fn batch(base: i64) -> Vec<u8> {
        let mut builder = BatchBuilder::new().base_offset(base);
        builder.append(1, Some(b"k"), Some(b"v"), &[]);
        builder.append(2, None, None, &[]);
        builder.build().to_vec()
    }

    fn dumped(bytes: &[u8]) -> (String, Result<(), String>) {
        let mut out = Vec::new();
        let outcome = dump(&mut &bytes[..], PLAIN, &mut out).map_err(|failed| match failed {
            Failed::Io(error) => error.to_string(),
            Failed::Damaged { at, why } => format!("{at}: {why}"),
        });
        (String::from_utf8(out).expect("text"), outcome)
    }

    #[test]
    fn a_segment_is_printed_batch_by_batch() {
        let (text, outcome) = dumped(&[batch(5), batch(7)].concat());
        assert_eq!(outcome, Ok(()));
        assert!(text.contains("offsets 5..=6, 2 records") && text.contains("offsets 7..=8"), "{text}");
        assert!(text.contains(r#""key":"k""#), "{text}");
    }

    #[test]
    fn damage_is_named_with_its_place() {
        let good = batch(5);
        let mut bad = batch(7);
        *bad.last_mut().expect("not empty") ^= 1;
        let (text, outcome) = dumped(&[good.clone(), bad].concat());
        assert!(text.contains("offsets 5..=6"));
        assert!(outcome.expect_err("damaged").starts_with(&format!("{}: the CRC", good.len())));
        let (_, gap) = dumped(&[good, batch(9)].concat());
        assert!(gap.expect_err("a gap").contains("7 was expected"));
    }
}
