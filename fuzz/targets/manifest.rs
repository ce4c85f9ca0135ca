//! Manifest roots and leaves. The first byte says which of the two, and whether magic, owner and checksum are made right
//! first, so that what is behind them is reached.
#![no_main]

mod shared;

use libfuzzer_sys::fuzz_target;
use proto::ids::{TopicId, TopicPartition, Uuid};
use proto::metadata::{ObjectFormat, ObjectKey, ObjectRef, TierPoint, TierPointer};
use tiering::manifest::{Change, Entry, Leaf, Manifest, View, check_pointer};

const LEAF: u8 = 1;
const MEND: u8 = 2;

fn owner() -> TopicPartition {
    TopicPartition::new(TopicId(Uuid::from_u128(0x5afe)), 3)
}

fuzz_target!(
    init: shared::plant(seeds()),
    |data: &[u8]| {
        let [mode, bytes @ ..] = data else { return };
        let mut bytes = bytes.to_vec();
        if mode & MEND != 0 {
            mend(&mut bytes, if mode & LEAF == 0 { b"FIRNROOT" } else { b"FIRNLEAF" });
        }
        if mode & LEAF == 0 { root(&bytes) } else { leaf(&bytes) }
    }
);

fn root(bytes: &[u8]) {
    let Ok(manifest) = Manifest::decode(bytes, owner()) else { return };
    assert_eq!(manifest.check(), Ok(()), "only sound manifests come out");
    assert_eq!(Manifest::decode(&manifest.encode(owner()), owner()).as_ref(), Ok(&manifest));
    let ends = (manifest.leaves.first().map(|leaf| leaf.base), manifest.entries.last().map(|entry| entry.end));
    let (tier_start, tier_end) = (ends.0.unwrap_or(0), ends.1.unwrap_or(0));
    let pointer = TierPointer { tier_start, tier_end, log_start: tier_start, ..TierPointer::default() };
    let _ = check_pointer(&pointer, Some(&manifest));
    let view = View::new(&pointer, Some(&manifest));
    for at in [i64::MIN, -1, 0, tier_start, tier_end, i64::MAX] {
        let _ = (view.by_offset(at), view.by_timestamp(at), view.by_timestamp_after(at, at));
        if let Ok(smaller) = manifest.apply(&Change::Expire { tier_start: at }) {
            assert_eq!(smaller.check(), Ok(()));
        }
    }
    let _ = (view.by_epoch_above(0), view.count(), manifest.full_leaf(2));
}

fn leaf(bytes: &[u8]) {
    let Ok(leaf) = Leaf::decode_unreferenced(bytes, owner()) else { return };
    if let Some((again, reference)) = leaf.encode(owner(), Uuid::from_u128(1), 2) {
        assert_eq!(Leaf::decode(&again, owner(), &reference), Ok(leaf));
    }
}

/// As the envelope of both is laid out: magic, version, flags, topic id, partition, body, CRC.
fn mend(bytes: &mut [u8], magic: &[u8; 8]) {
    let mut head = magic.to_vec();
    head.extend_from_slice(&[0, 1, 0, 0]);
    head.extend_from_slice(owner().topic.0.as_bytes());
    head.extend_from_slice(&owner().partition.to_be_bytes());
    if bytes.len() < head.len() + 4 {
        return;
    }
    bytes[..head.len()].copy_from_slice(&head);
    let crc_at = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..crc_at]);
    bytes[crc_at..].copy_from_slice(&crc.to_be_bytes());
}

fn entry(base: i64) -> Entry {
    let key = ObjectKey { owner: owner(), base_offset: base, leader_epoch: 3, uuid: Uuid::from_u128(base as u128 + 9) };
    Entry {
        base,
        end: base + 10,
        max_timestamp: 1_000 + base,
        object: ObjectRef { key, start: 0, length: 1_000 },
        footer_position: 1_000,
        epochs: vec![(base as i32 / 10, base), (base as i32 / 10 + 1, base + 5)],
        format: ObjectFormat::Segment,
        has_aborted: base % 20 == 0,
        points: (0..3)
            .map(|i| TierPoint { offset: base + i, timestamp: 1_000 + i, position: i as u64 * 100 })
            .collect(),
    }
}

/// Roots with and without leaves, and leaves, each with and without mending.
fn seeds() -> Vec<Vec<u8>> {
    let entries: Vec<Entry> = (0..8).map(|index| entry(index * 10)).collect();
    let mut manifest = Manifest::default().apply(&Change::Append(entries)).expect("contiguous entries");
    let flat = manifest.encode(owner());
    let full = manifest.full_leaf(4).expect("more than four entries");
    let (leaf, reference) = full.encode(owner(), Uuid::from_u128(99), 3).expect("it has entries");
    manifest = manifest.apply(&Change::Spill { leaf: reference }).expect("its own entries");
    let deep = manifest.encode(owner());
    let kinds = [(0, Manifest::default().encode(owner())), (0, flat), (0, deep), (LEAF, leaf)];
    let both = kinds.iter().flat_map(|(kind, bytes)| [*kind, kind | MEND].map(|mode| [&[mode], &bytes[..]].concat()));
    both.collect()
}
