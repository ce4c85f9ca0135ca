//! The footer of an object in the store. With an odd first byte all checksums are made right first, so that what is behind
//! them is reached.
#![no_main]

mod shared;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use proto::records::BatchBuilder;
use tiering::format::{
    AbortedTxn, Directory, EpochHistory, Footer, MAGIC, ObjectBuilder, TRAILER_BYTES, Trailer, VERSION,
};

fuzz_target!(
    init: shared::plant(seeds()),
    |data: &[u8]| {
        let [mode, bytes @ ..] = data else { return };
        let _ = (Directory::decode(bytes), Trailer::decode(bytes));
        let mut bytes = bytes.to_vec();
        if mode & 1 != 0 {
            mend(&mut bytes);
        }
        let Ok(footer) = Footer::decode(&Bytes::from(bytes)) else { return };
        assert_eq!(Footer::decode(&footer.encode()), Ok(footer.clone()), "what was read is written and read again");
        for offset in [i64::MIN, footer.base - 1, footer.base, footer.end - 1, footer.end, i64::MAX] {
            let _ = footer.offset_index.floor(offset);
            let _ = footer.time_index.search_from(offset);
            let _ = footer.time_index.reached_at(offset);
            let _ = footer.epochs.clipped(footer.base, offset);
        }
        for position in [0, 1, footer.data_length / 2, footer.data_length, u64::MAX] {
            let _ = footer.offset_index.ceiling_position(position);
            let _ = footer.checksums.verify(position, b"some bytes", footer.data_length);
        }
    }
);

/// Makes magic, version and the checksums of trailer, directory and sections right, wherever the trailer says they lie.
fn mend(bytes: &mut [u8]) {
    let Some(trailer_at) = bytes.len().checked_sub(TRAILER_BYTES) else { return };
    let (sections, trailer) = bytes.split_at_mut(trailer_at);
    let number = |at: usize| u64::from_be_bytes(trailer[at..at + 8].try_into().expect("eight bytes"));
    // As `Trailer` documents it.
    let (base, end, data_length) = (number(4), number(12), number(20));
    let from = (number(28) as usize).min(trailer_at);
    let (before, encoded) = sections.split_at_mut(from);
    if let Ok(mut directory) = Directory::decode(encoded) {
        for entry in &mut directory.entries {
            let range = entry.position as usize..(entry.position as usize).saturating_add(entry.length as usize);
            entry.crc = before.get(range).map_or(0, crc32c::crc32c);
        }
        let mut again = Vec::new();
        directory.encode(&mut again);
        if again.len() == encoded.len() {
            encoded.copy_from_slice(&again);
        }
    }
    let mended = Trailer {
        base: base as i64,
        end: end as i64,
        data_length,
        directory_position: from as u64,
        directory_length: encoded.len() as u32,
        directory_crc: crc32c::crc32c(encoded),
    };
    let mut out = Vec::new();
    mended.encode(&mut out);
    assert!(out.ends_with(&MAGIC) && out.starts_with(&VERSION.to_be_bytes()));
    trailer.copy_from_slice(&out);
}

/// Footers of small and larger objects, each with and without mending.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (count, bytes) in [(1, 10), (5, 100), (60, 3_000)] {
        let mut builder = ObjectBuilder::new(100);
        for index in 0..count {
            let mut batch = BatchBuilder::new().base_offset(100 + index * 2).leader_epoch(3);
            batch.append(1_000 + index, None, Some(&shared::filling(bytes)), &[]);
            batch.append(1_000 + index, Some(b"key"), None, &[]);
            builder.push(&batch.build(), i64::MAX, u64::MAX).expect("contiguous batches");
        }
        let epochs = EpochHistory { entries: vec![(1, 0), (3, 90)] };
        let aborted = vec![AbortedTxn { first_offset: 101, last_offset: 101, producer_id: 7 }];
        let sealed = builder.seal(epochs, aborted, Bytes::from_static(b"producers")).expect("a whole object");
        let footer = sealed.footer.encode();
        seeds.extend([0, 1].map(|mode| [&[mode], &footer[..]].concat()));
    }
    seeds
}
