use proptest::prelude::*;
use proto::ids::{TopicId, TopicPartition};
use proto::metadata::{ObjectFormat, RootRef, TierPoint, TierPointer};

use super::invariants::check_entries;
use super::*;
use crate::fixtures::{entries, entry, partition};

fn leaf_of(entries: Vec<Entry>) -> (bytes::Bytes, LeafRef) {
    Leaf { entries }.encode(partition(0), Uuid::from_u128(99), 3).unwrap()
}

/// A root with two leaves of three entries and four entries of its own: `[0, 100)` in tens.
fn tree() -> Manifest {
    let mut manifest = Manifest::default().apply(&Change::Append(entries(0, 10, 10))).unwrap();
    for _ in 0..2 {
        let (_, leaf) = leaf_of(manifest.full_leaf(3).unwrap().entries);
        manifest = manifest.apply(&Change::Spill { leaf }).unwrap();
    }
    manifest
}

fn pointer(tier_start: Offset, tail: Vec<Entry>, bytes: u64) -> TierPointer {
    let tier_end = tail.last().map_or(100, |entry| entry.end);
    let root = RootRef { uuid: Uuid::from_u128(1), generation: 7, leader_epoch: 3, size: 1, crc: 0 };
    TierPointer {
        generation: 8,
        root: Some(root),
        log_start: tier_start,
        tier_start,
        tier_end,
        tail,
        bytes,
        ..TierPointer::default()
    }
}

fn golden(name: &str, written: &[u8]) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("FIRN_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, written).unwrap();
    }
    assert_eq!(std::fs::read(path).unwrap(), written, "the format changed: that needs a new version");
}

#[test]
fn golden_bytes_of_version_1() {
    golden("root-v1.firn", &tree().encode(partition(0)));
    golden("leaf-v1.firn", &leaf_of(entries(0, 3, 10)).0);
}

#[test]
fn roots_and_leaves_decode_to_what_was_encoded() {
    let manifest = tree();
    let bytes = manifest.encode(partition(0));
    assert_eq!(Manifest::decode(&bytes, partition(0)).unwrap(), manifest);
    assert!(Manifest::decode(&bytes, partition(1)).is_err(), "another partition's root");
    let (bytes, reference) = leaf_of(entries(0, 3, 10));
    assert_eq!(Leaf::decode(&bytes, partition(0), &reference).unwrap().entries, entries(0, 3, 10));
    let other = LeafRef { base: 10, ..reference };
    assert!(Leaf::decode(&bytes, partition(0), &other).is_err(), "not the leaf that the root means");
}

#[test]
fn a_shared_object_keeps_its_owner() {
    let mut shared = entry(40, 50);
    shared.object.key.owner = partition(9);
    shared.object.key.base_offset = 17;
    shared.object.start = 4096;
    shared.footer_position = 4096 + shared.object.length;
    let manifest = Manifest { leaves: Vec::new(), entries: vec![shared] };
    assert_eq!(Manifest::decode(&manifest.encode(partition(0)), partition(0)).unwrap(), manifest);
}

#[test]
fn lookups_by_offset_timestamp_and_epoch() {
    let root = tree();
    let mut tail = entries(100, 2, 10);
    tail[1].epochs = vec![(3, 5), (6, 115)];
    let pointer = pointer(40, tail, 0);
    let view = View::new(&pointer, Some(&root));
    assert_eq!(view.by_offset(39), Found::Nowhere, "expired");
    assert_eq!(view.by_offset(40), Found::Leaf(&root.leaves[1]));
    assert_eq!(view.by_offset(65), Found::Entry(&root.entries[0]));
    assert_eq!(view.by_offset(119), Found::Entry(&pointer.tail[1]));
    assert_eq!(view.by_offset(120), Found::Nowhere);
    assert_eq!(view.by_timestamp(0), Found::Leaf(&root.leaves[1]));
    assert_eq!(view.by_timestamp(1_000_061), Found::Entry(&root.entries[0]));
    assert_eq!(view.by_timestamp_after(0, 60), Found::Entry(&root.entries[0]));
    assert_eq!(view.by_timestamp(1_000_121), Found::Nowhere);
    assert_eq!(view.by_epoch_above(2), Found::Leaf(&root.leaves[1]));
    assert_eq!(view.by_epoch_above(3), Found::Entry(&pointer.tail[1]));
    assert_eq!(view.by_epoch_above(6), Found::Nowhere);
    assert_eq!(view.count(), 3 + 4 + 2);
    let leaf = entries(30, 3, 10);
    assert_eq!(by_offset(&leaf, 59).unwrap().base, 50);
    assert_eq!(by_offset(&leaf, 60), None);
    assert_eq!(by_timestamp(&leaf, 1_000_041, 0).unwrap().base, 40);
    assert_eq!(by_epoch_above(&leaf, 3), None);
}

/// Each row: what is done to a sound pointer and root, and the invariant that must be named.
#[test]
fn every_planted_violation_is_named() {
    type Plant = fn(&mut TierPointer, &mut Manifest);
    let rows: [(Invariant, Plant); 14] = [
        (Invariant::Contiguous, |_, root| root.entries[1] = entry(71, 80)),
        (Invariant::Contiguous, |_, root| drop(root.entries.remove(1))),
        (Invariant::Contiguous, |_, root| root.leaves.truncate(1)),
        (Invariant::Points, |_, root| root.entries[0].points[0].offset = 5),
        (Invariant::Points, |_, root| {
            let point = root.entries[0].points[0];
            root.entries[0].points = vec![point; 2];
        }),
        (Invariant::Epochs, |_, root| root.entries[0].epochs.clear()),
        (Invariant::Epochs, |_, root| root.entries[2].epochs = vec![(2, 5)]),
        (Invariant::Slice, |_, root| root.entries[0].footer_position = 3),
        (Invariant::LeafBounds, |_, root| root.leaves[0].entries = 0),
        (Invariant::Covered, |pointer, _| pointer.tier_end += 1),
        (Invariant::Covered, |pointer, _| drop(pointer.tail.remove(0))),
        (Invariant::TailBounded, |pointer, _| pointer.tail = entries(100, 17, 10)),
        (Invariant::Bytes, |pointer, _| pointer.bytes += 10_000_000),
        (Invariant::Readable, |pointer, _| pointer.log_start = pointer.tier_start - 1),
    ];
    let sound = (pointer(40, entries(100, 2, 10), 8000), tree());
    assert_eq!(check_pointer(&sound.0, Some(&sound.1)), Ok(()));
    for (row, (invariant, plant)) in rows.into_iter().enumerate() {
        let (mut pointer, mut root) = sound.clone();
        plant(&mut pointer, &mut root);
        let violation = check_pointer(&pointer, Some(&root)).expect_err("planted");
        assert_eq!(violation.invariant, invariant, "row {row}: {violation}");
    }
}

#[test]
fn commits_only_go_forward() {
    let old = pointer(40, entries(100, 1, 10), 7000);
    let good = TierPointer { generation: 9, ..old.clone() };
    assert_eq!(check_commit(&old, &good, Some(&tree())), Ok(()));
    for bad in [
        TierPointer { generation: 8, ..good.clone() },
        TierPointer { generation: 10, ..good.clone() },
        TierPointer { log_start: 30, ..good.clone() },
        TierPointer { tier_start: 30, ..good.clone() },
        TierPointer { tier_end: 100, ..good.clone() },
    ] {
        assert_eq!(check_commit(&old, &bad, Some(&tree())).unwrap_err().invariant, Invariant::Forward);
    }
}

#[test]
fn changes_that_would_break_it_are_refused() {
    let manifest = tree();
    let gap = manifest.apply(&Change::Append(entries(110, 1, 10))).unwrap_err();
    assert_eq!(gap.invariant, Invariant::Contiguous);
    let (_, wrong) = leaf_of(entries(60, 2, 5));
    let lie = manifest.apply(&Change::Spill { leaf: wrong }).unwrap_err();
    assert_eq!(lie.invariant, Invariant::LeafBounds);
    assert!(manifest.full_leaf(4).is_none(), "a leaf spills only when something stays in the root");
}

/// Entries with anything in them that the invariants allow, contiguous from anywhere.
fn any_entries() -> impl Strategy<Value = Vec<Entry>> {
    let one = (
        (1i64..1 << 40, any::<i64>(), any::<bool>(), any::<bool>()),
        (any::<bool>(), any::<u128>(), 0u64..1 << 50, 1u64..1 << 50, 0u64..1 << 20),
        (0i32..1000, proptest::collection::btree_set(0i64..1 << 40, 0..33), any::<i64>(), any::<[u8; 16]>()),
    );
    (0i64..1 << 61, proptest::collection::vec(one, 1..12)).prop_map(|(from, shapes)| {
        let (mut base, mut epoch) = (from, 0);
        let build = |(times, object, rest): (_, _, _)| {
            let (length, max_timestamp, has_aborted, parquet): (i64, i64, bool, bool) = times;
            let (shared, uuid, start, bytes, beyond): (bool, u128, u64, u64, u64) = object;
            let (step, offsets, timestamp, topic): (i32, std::collections::BTreeSet<i64>, i64, [u8; 16]) = rest;
            let mut entry = entry(base, base + length);
            epoch += step;
            entry.max_timestamp = max_timestamp;
            entry.has_aborted = has_aborted;
            entry.format = if parquet { ObjectFormat::Parquet } else { ObjectFormat::Segment };
            entry.object.key.uuid = Uuid::from_u128(uuid);
            entry.object.key.leader_epoch = epoch;
            entry.object.length = bytes;
            if shared {
                entry.object.key.owner = TopicPartition::new(TopicId(Uuid::from_bytes(topic)), step);
                entry.object.key.base_offset = base / 2;
                entry.object.start = start;
            }
            entry.footer_position = entry.object.start + bytes + beyond;
            entry.epochs = vec![(epoch, base), (epoch + 1, base + length)];
            entry.epochs.truncate(if length > 1 { 2 } else { 1 });
            if let Some((_, start)) = entry.epochs.get_mut(1) {
                *start = base + length / 2;
                epoch += 1;
            }
            let inside = offsets.into_iter().filter(|offset| *offset < length && (*offset as u64) < bytes);
            let points = inside.enumerate().map(|(index, offset)| TierPoint {
                offset: base + offset,
                timestamp: timestamp.saturating_add(index as i64),
                position: offset as u64,
            });
            entry.points = points.collect();
            base += length;
            entry
        };
        shapes.into_iter().map(build).collect()
    })
}

proptest! {
    #[test]
    fn any_entries_survive_a_root_and_a_leaf(entries in any_entries(), partition_index in any::<i32>(), spilled in 0usize..11) {
        let owner = partition(partition_index);
        prop_assert_eq!(check_entries(&entries), Ok(()), "the generator's own");
        let leaf = Leaf { entries: entries.clone() };
        let (bytes, reference) = leaf.encode(owner, Uuid::from_u128(7), 9).unwrap();
        prop_assert_eq!(Leaf::decode(&bytes, owner, &reference).unwrap(), leaf);
        let mut manifest = Manifest { leaves: Vec::new(), entries };
        if let Some(leaf) = manifest.full_leaf(spilled.max(1)) {
            let (_, reference) = leaf.encode(owner, Uuid::from_u128(8), 9).unwrap();
            manifest = manifest.apply(&Change::Spill { leaf: reference }).unwrap();
        }
        let bytes = manifest.encode(owner);
        prop_assert_eq!(Manifest::decode(&bytes, owner).unwrap(), manifest.clone());
        let root = RootRef { uuid: Uuid::from_u128(1), generation: 1, leader_epoch: 9, size: bytes.len() as u64, crc: crc32c::crc32c(&bytes) };
        prop_assert_eq!(Manifest::decode_referenced(&bytes, owner, &root).unwrap(), manifest);
        for other in [RootRef { crc: root.crc ^ 1, ..root }, RootRef { size: root.size + 1, ..root }] {
            prop_assert!(Manifest::decode_referenced(&bytes, owner, &other).is_err());
        }
    }

    /// Any history of appends, expiries and spills keeps every invariant, survives a round trip, and
    /// finds each live offset where it was put.
    #[test]
    fn histories_keep_every_invariant(steps in proptest::collection::vec((0u8..3, 1i64..6, 1i64..9), 1..60), leaf_entries in 1usize..6) {
        let mut manifest = Manifest::default();
        let mut leaves = std::collections::BTreeMap::new();
        let mut model: Vec<Entry> = Vec::new();
        let (mut start, mut end) = (0i64, 0i64);
        for (index, (kind, count, length)) in steps.into_iter().enumerate() {
            match kind {
                0 => {
                    let more = entries(end, count, length);
                    end += count * length;
                    model.extend(more.clone());
                    manifest = manifest.apply(&Change::Append(more)).unwrap();
                }
                1 => {
                    let dropped = model.len().min(count as usize);
                    if let Some(last) = model.drain(..dropped).next_back() {
                        start = last.end;
                    }
                    manifest = manifest.apply(&Change::Expire { tier_start: start }).unwrap();
                }
                _ => if let Some(leaf) = manifest.full_leaf(leaf_entries) {
                    let uuid = Uuid::from_u128(index as u128);
                    let (bytes, reference) = leaf.encode(partition(0), uuid, 3).unwrap();
                    leaves.insert(uuid, bytes);
                    manifest = manifest.apply(&Change::Spill { leaf: reference }).unwrap();
                }
            }
            prop_assert_eq!(Manifest::decode(&manifest.encode(partition(0)), partition(0)).unwrap(), manifest.clone());
            let pointer = TierPointer { log_start: start, tier_start: start, tier_end: end,
                bytes: model.iter().map(|entry| entry.object.length).sum(), ..TierPointer::default() };
            prop_assert_eq!(check_pointer(&pointer, Some(&manifest)), Ok(()));
            let view = View::new(&pointer, Some(&manifest));
            for expected in &model {
                let found = match view.by_offset(expected.base) {
                    Found::Entry(entry) => entry.clone(),
                    Found::Leaf(reference) => {
                        let leaf = Leaf::decode(&leaves[&reference.uuid], partition(0), reference).unwrap();
                        by_offset(&leaf.entries, expected.base).unwrap().clone()
                    }
                    Found::Nowhere => panic!("offset {} is lost", expected.base),
                };
                prop_assert_eq!(&found, expected);
            }
        }
    }

    #[test]
    fn one_flipped_bit_is_always_seen(at in any::<proptest::sample::Index>(), bit in 0u8..8) {
        let mut bytes = tree().encode(partition(0)).to_vec();
        let index = at.index(bytes.len());
        bytes[index] ^= 1 << bit;
        prop_assert!(Manifest::decode(&bytes, partition(0)).is_err());
        let mut bytes = leaf_of(entries(0, 3, 10)).0.to_vec();
        let index = at.index(bytes.len());
        bytes[index] ^= 1 << bit;
        prop_assert!(Leaf::decode_unreferenced(&bytes, partition(0)).is_err());
    }

    /// Behind a right checksum, too, only sound manifests come out.
    #[test]
    fn bodies_decode_or_fail_on_any_bytes(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        for magic in [*b"FIRNROOT", *b"FIRNLEAF"] {
            let envelope = envelope::Envelope { what: "test", magic, version: 1 };
            let bytes = envelope.seal(partition(0), |out| out.extend_from_slice(&body));
            if let Ok(manifest) = Manifest::decode(&bytes, partition(0)) {
                prop_assert_eq!(manifest.check(), Ok(()));
            }
            if let Ok(leaf) = Leaf::decode_unreferenced(&bytes, partition(0)) {
                prop_assert!(check_entries(&leaf.entries).is_ok());
            }
        }
    }
}
