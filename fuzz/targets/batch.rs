//! Record batches, compressed or not. The first byte says whether length and CRC are made right first, so that what is
//! behind them is reached, and whether accepted records are rewritten, with which codec: that takes far longer than reading.
#![no_main]

mod shared;

use libfuzzer_sys::fuzz_target;
use proto::records::{
    BatchBuilder, BatchError, BatchRef, Codec, Header, LENGTH_PREFIX, Limits, batches, check, control_record,
    find_timestamp, for_each_record, max_timestamp_and_offset, recompress, validate,
};

const MEND: u8 = 1;
const REWRITE: u8 = 2;
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
const LIMITS: Limits = Limits {
    max_batch_bytes: 8 << 20,
    max_uncompressed_bytes: 2 << 20,
    timestamps: Some((i64::MIN, i64::MAX)),
    needs_key: false,
    zstd: true,
};

fuzz_target!(
    init: shared::plant(seeds()),
    |data: &[u8]| {
        let [mode, bytes @ ..] = data else { return };
        let mut bytes = bytes.to_vec();
        if mode & MEND != 0 {
            mend(&mut bytes);
        }
        let mut walked = 0;
        for batch in batches(&bytes) {
            let Ok(batch) = batch else { break };
            walked += batch.bytes.len();
            // Whatever it says, it is read or refused, within its limits.
            let _ = records(&batch);
            let _ = find_timestamp(&batch, 1_000, LIMITS.max_uncompressed_bytes);
            let _ = max_timestamp_and_offset(&batch, LIMITS.max_uncompressed_bytes);
            let _ = control_record(&batch);
        }
        assert!(walked <= bytes.len());
        if let Ok(info) = validate(&bytes, &LIMITS) {
            assert_eq!(check(&bytes).map(|checked| checked.record_count), Ok(info.record_count));
            let to = (mode & REWRITE != 0).then(|| CODECS[usize::from(mode >> 2) % CODECS.len()]);
            accepted(&bytes, to);
        }
    }
);

type Owned = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, usize);

fn records(batch: &BatchRef<'_>) -> Result<Vec<Owned>, BatchError> {
    let mut records = Vec::new();
    for_each_record(batch, LIMITS.max_uncompressed_bytes, |record| {
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        records.push((record.offset, record.timestamp, owned(record.key), owned(record.value), record.headers.count()));
    })?;
    Ok(records)
}

/// A batch that a broker appends is one that every consumer can read, also when the topic asks for another codec.
fn accepted(bytes: &[u8], to: Option<Codec>) {
    let batch = BatchRef::first(bytes).expect("it was accepted");
    let found = records(&batch).expect("it was accepted");
    assert_eq!(found.len(), batch.header.record_count as usize);
    for (record, offset) in found.iter().zip(batch.header.base_offset..) {
        assert_eq!(record.0, offset);
    }
    let Some(to) = to else { return };
    let again = recompress(&batch, to.into(), &LIMITS).expect("it is far below the limit");
    validate(&again, &LIMITS).expect("as good as before");
    assert_eq!(records(&BatchRef::first(&again).expect("a batch")), Ok(found));
}

/// Makes length, magic and CRC right.
fn mend(bytes: &mut [u8]) {
    const AT_LENGTH: usize = 8;
    const AT_MAGIC: usize = 16;
    const AT_CRC: usize = 17;
    const AT_ATTRIBUTES: usize = 21;
    let Ok(length) = i32::try_from(bytes.len().saturating_sub(LENGTH_PREFIX)) else { return };
    if bytes.len() <= AT_ATTRIBUTES {
        return;
    }
    bytes[AT_LENGTH..AT_LENGTH + 4].copy_from_slice(&length.to_be_bytes());
    bytes[AT_MAGIC] = 2;
    let crc = crc32c::crc32c(&bytes[AT_ATTRIBUTES..]);
    bytes[AT_CRC..AT_CRC + 4].copy_from_slice(&crc.to_be_bytes());
}

/// Batches of few and of many records with every codec, each with and without mending.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let value = shared::filling(300);
    for (number, codec) in CODECS.into_iter().enumerate() {
        for count in [1, 3, 40] {
            let mut builder = BatchBuilder::new().codec(codec).producer(7, 1, 0);
            for index in 0..count {
                let headers = [Header { key: b"h", value: Some(b"v") }, Header { key: b"", value: None }];
                let key = (index % 2 == 0).then_some(&b"key"[..]);
                builder.append(1_000 + index, key, Some(&value[..(index as usize * 7) % 300]), &headers);
            }
            let batch = builder.build();
            for mode in [0, MEND, MEND | REWRITE] {
                let mut seed = vec![(number as u8) << 2 | mode];
                seed.extend_from_slice(&batch);
                seeds.push(seed);
            }
        }
    }
    let marker = BatchBuilder::end_transaction(7, 1, true, 3, 1_000);
    seeds.push([&[0], &marker[..]].concat());
    seeds
}
