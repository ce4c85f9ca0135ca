//! Cutting whole batches out of pieces.

use bytes::Bytes;
use proto::records::BatchBuilder;

use crate::cache::Piece;
use crate::reader::walk::{self, Ask, Stop, Taken};

/// Batches at offsets 0.., two records each, with values of these lengths.
fn batches(values: &[usize]) -> Vec<Bytes> {
    let build = |(index, length): (usize, &usize)| {
        let mut builder = BatchBuilder::new().base_offset(2 * index as i64).leader_epoch(1);
        builder.append(1000 + index as i64, None, Some(b"first"), &[]);
        builder.append(1000 + index as i64, None, Some(&vec![b'v'; *length]), &[]);
        builder.build()
    };
    values.iter().enumerate().map(build).collect()
}

fn pieces(data: &Bytes, cuts: &[usize], checked: bool) -> Vec<Piece> {
    let mut from = 0;
    let ends = cuts.iter().copied().chain([data.len()]);
    ends.map(|to| {
        let piece = Piece { at: from as u64, bytes: data.slice(from..to), checked };
        from = to;
        piece
    })
    .collect()
}

fn ask(data: &Bytes, from: i64, max_bytes: u64, min_one: bool) -> Ask {
    Ask { from, max_bytes, min_one, left: data.len() as u64, end: 100 }
}

fn all(taken: &Taken) -> Vec<u8> {
    taken.chunks.concat()
}

#[test]
fn every_cut_gives_the_same_batches() {
    let parts = batches(&[10, 300, 5]);
    let data = Bytes::from(parts.concat());
    for cut in 1..data.len() {
        let taken = walk::take(&pieces(&data, &[cut], false), &ask(&data, 3, 1 << 20, true)).unwrap();
        assert_eq!(all(&taken), [&parts[1][..], &parts[2][..]].concat(), "cut at {cut}");
        assert_eq!((taken.base, taken.next), (Some(2), Some(6)));
        assert_eq!((taken.skipped, taken.stop), (parts[0].len() as u64, Stop::End));
        let slices = if cut > parts[0].len() { 2 } else { 1 };
        assert_eq!(taken.chunks.len(), slices, "no copy, no needless slices; cut at {cut}");
    }
}

#[test]
fn what_is_not_all_there_is_needed() {
    let parts = batches(&[10, 300]);
    let data = Bytes::from(parts.concat());
    for length in 0..data.len() {
        let here = data.slice(..length);
        let taken = walk::take(&pieces(&here, &[], true), &ask(&data, 0, 1 << 20, true)).unwrap();
        let first = parts[0].len();
        let (bytes, need) = match length {
            _ if length < 61 => (0, 61),
            _ if length < first => (0, first),
            _ if length < first + 61 => (first, first + 61),
            _ => (first, data.len()),
        };
        assert_eq!((taken.bytes, taken.stop), (bytes as u64, Stop::Need(need as u64)), "{length}");
    }
}

#[test]
fn limits_are_those_of_kip_74() {
    let parts = batches(&[100, 100, 100]);
    let data = Bytes::from(parts.concat());
    let one = parts[0].len() as u64;
    let take = |max, min_one| {
        let taken = walk::take(&pieces(&data, &[], true), &ask(&data, 0, max, min_one)).unwrap();
        (taken.bytes, taken.next, taken.stop)
    };
    assert_eq!(take(0, false), (0, None, Stop::Full));
    assert_eq!(take(0, true), (one, Some(2), Stop::Full));
    assert_eq!(take(one - 1, true), (one, Some(2), Stop::Full));
    assert_eq!(take(2 * one, true), (2 * one, Some(4), Stop::Full));
    assert_eq!(take(2 * one - 1, false), (one, Some(2), Stop::Full));
    assert_eq!(take(3 * one, false), (3 * one, Some(6), Stop::End));
}

#[test]
fn unchecked_bytes_are_held_against_each_batch_s_own_crc() {
    let parts = batches(&[100, 100]);
    let mut data = parts.concat();
    let last = data.len() - 1;
    data[last] ^= 1;
    let data = Bytes::from(data);
    let take = |checked, from| walk::take(&pieces(&data, &[70, 150], checked), &ask(&data, from, 1 << 20, true));
    let sound = take(false, 0).unwrap();
    assert_eq!((all(&sound), sound.next), (parts[0].to_vec(), Some(2)), "what comes before is served");
    let broken = take(false, 2).unwrap_err();
    assert_eq!((broken.position, broken.length), (parts[0].len() as u64, parts[1].len() as u64));
    let checked = take(true, 0).unwrap();
    assert_eq!(all(&checked), data, "compared with the footer's on the way in");
}

#[test]
fn what_is_no_batch_is_refused() {
    let parts = batches(&[10, 10]);
    let spoil = |at: usize, value: u8| {
        let mut data = parts.concat();
        data[at] = value;
        let data = Bytes::from(data);
        // Only what lies in the second batch is asked for: the first is passed over, the fault comes first.
        walk::take(&pieces(&data, &[], true), &ask(&data, 2, 1 << 20, true)).unwrap_err().reason
    };
    assert_eq!(spoil(16, 1), "no batch");
    assert_eq!(spoil(8, 0x7f), "a batch that reaches beyond its range");
    assert_eq!(spoil(8, 0xff), "no batch");
    assert_eq!(spoil(23, 0x80), "offsets out of order");
    assert_eq!(spoil(parts[0].len(), 0x80), "offsets out of order");
    assert_eq!(spoil(parts[0].len() + 7, 1), "offsets out of order");
    assert_eq!(spoil(6, 1), "a batch that reaches beyond its range");
}
