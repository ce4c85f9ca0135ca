//! An object of the bucket: its batches, and the footer against them.

use super::{Failed, Offsets, Options, damaged, read_up_to, segment};
use bytes::Bytes;
use serde_json::json;
use std::io::{self, Read, Seek, SeekFrom, Write};
use tiering::format::{Footer, MAGIC, TRAILER_BYTES, Trailer};

/// Whether `file` ends as an object does.
pub(super) fn ends(file: &mut (impl Read + Seek)) -> io::Result<bool> {
    let len = file.seek(SeekFrom::End(0))?;
    let Some(at) = len.checked_sub(TRAILER_BYTES as u64) else { return Ok(false) };
    file.seek(SeekFrom::Start(at))?;
    Ok(read_up_to(file, TRAILER_BYTES)?.ends_with(&MAGIC))
}

/// Prints the batches of an object that [`ends`] as one, and verifies its footer, each checksum in it included.
pub(super) fn dump(file: &mut (impl Read + Seek), options: Options, out: &mut impl Write) -> Result<(), Failed> {
    let len = file.seek(SeekFrom::End(0))?;
    let trailer_at = len.saturating_sub(TRAILER_BYTES as u64);
    file.seek(SeekFrom::Start(trailer_at))?;
    let trailer = Trailer::decode(&read_up_to(file, TRAILER_BYTES)?).map_err(|error| damaged(trailer_at, error))?;
    let data = trailer.data_length;
    if data > trailer_at {
        return Err(damaged(trailer_at, format!("it speaks of {data} bytes of records, and {trailer_at} are there")));
    }
    file.seek(SeekFrom::Start(data))?;
    let mut footer = Vec::new();
    file.read_to_end(&mut footer)?;
    let footer = Footer::decode(&Bytes::from(footer)).map_err(|error| damaged(data, error))?;
    let (base, end) = (footer.base, footer.end);
    let chunks = footer.checksums.crcs.len();
    if options.json {
        let row = json!({"object": {"base_offset": base, "end_offset": end, "bytes": data, "checksums": chunks,
            "epochs": footer.epochs.entries, "aborted": footer.aborted.len()}});
        writeln!(out, "{row}")?;
    } else {
        writeln!(out, "object of offsets {base}..={}: {data} bytes of records under {chunks} checksums", end - 1)?;
    }
    file.rewind()?;
    // The first batch may hold records from before the range, which DeleteRecords cut off.
    let found = segment(&mut (&mut *file).take(data), Offsets::Rising, options, out)?;
    let Some(last_end) = found else { return Err(damaged(0, "no batch")) };
    if last_end != end {
        return Err(damaged(
            data,
            format!("the footer says that offsets end before {end}, the batches before {last_end}"),
        ));
    }
    verify(file, &footer)?;
    if options.json {
        writeln!(out, "{}", json!({"end": len, "why": "the footer was verified"}))?;
    } else {
        writeln!(out, "end at byte {len}: the footer from byte {data} on was verified")?;
    }
    Ok(())
}

/// Holds the data against the footer's checksums, and its index against the batches.
fn verify(file: &mut (impl Read + Seek), footer: &Footer) -> Result<(), Failed> {
    file.rewind()?;
    let chunk = u64::from(footer.checksums.chunk_bytes);
    let mut at = 0;
    while at < footer.data_length {
        let mut bytes = Vec::new();
        (&mut *file).take(chunk.min(footer.data_length - at)).read_to_end(&mut bytes)?;
        footer.checksums.verify(at, &bytes, footer.data_length).map_err(|error| damaged(at, error))?;
        at += chunk;
    }
    for entry in &footer.offset_index.entries {
        file.seek(SeekFrom::Start(entry.position))?;
        let start = read_up_to(file, proto::records::HEADER_LEN)?;
        let sound = proto::records::BatchHeader::parse(&start)
            .is_ok_and(|header| (header.base_offset..header.next_offset()).contains(&entry.offset));
        if !sound {
            let why = format!("the offset index says that offset {} is here", entry.offset);
            return Err(damaged(entry.position, why));
        }
    }
    Ok(())
}
