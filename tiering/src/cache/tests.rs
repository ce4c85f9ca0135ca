use super::*;

fn key(index: u32) -> ChunkKey {
    ChunkKey { object: Uuid::from_u128(7), start: 0, index }
}

fn piece(at: u64, length: usize, fill: u8, checked: bool) -> Piece {
    Piece { at, bytes: Bytes::from(vec![fill; length]), checked }
}

fn shape(chunk: &Chunk) -> Vec<(u64, u64, u8, bool)> {
    let of = |piece: &Piece| (piece.at, piece.end(), piece.bytes[0], piece.checked);
    chunk.pieces().iter().map(of).collect()
}

#[test]
fn pieces_merge_without_overlap() {
    let chunk =
        Chunk::default().with(piece(10, 10, 1, false)).with(piece(30, 10, 2, false)).with(piece(5, 50, 3, false));
    let expected =
        vec![(5, 10, 3, false), (10, 20, 1, false), (20, 30, 3, false), (30, 40, 2, false), (40, 55, 3, false)];
    assert_eq!(shape(&chunk), expected);
    assert_eq!(chunk.weight(), 50);
}

#[test]
fn checked_bytes_replace_unchecked_ones() {
    let chunk = Chunk::default().with(piece(0, 40, 1, false)).with(piece(10, 10, 2, true));
    let expected = vec![(0, 10, 1, false), (10, 20, 2, true), (20, 40, 1, false)];
    assert_eq!(shape(&chunk), expected);
    let again = chunk.with(piece(0, 40, 3, false));
    assert_eq!(shape(&again), expected, "unchecked bytes replace nothing");
}

/// What every cache has to do.
fn conformance(make: impl Fn(u64) -> Box<dyn ChunkCache>) {
    let cache = make(4000);
    assert_eq!(cache.get(&key(0)), None);
    assert_eq!(cache.weight(), 0);

    cache.add(key(0), piece(0, 500, 1, true));
    cache.add(key(0), piece(500, 500, 1, true));
    assert_eq!(cache.get(&key(0)).map(|chunk| chunk.weight()), Some(1000));
    assert_eq!(cache.weight(), 1000);

    for index in 1..4 {
        cache.add(key(index), piece(0, 1000, 1, true));
    }
    assert_eq!(cache.weight(), 4000);
    assert!(cache.get(&key(0)).is_some(), "the oldest is used again");
    cache.weight();
    cache.add(key(4), piece(0, 1000, 1, true));
    assert_eq!(cache.weight(), 4000);
    assert_eq!(cache.get(&key(1)), None, "least recently used");
    assert!(cache.get(&key(0)).is_some());
    assert!(cache.get(&key(4)).is_some());

    cache.remove(&key(4));
    assert_eq!(cache.get(&key(4)), None);
    assert_eq!(cache.weight(), 3000);
}

#[test]
fn lru_conforms() {
    conformance(|capacity| Box::new(LruChunks::new(capacity)));
}

#[test]
fn moka_conforms() {
    conformance(|capacity| Box::new(MokaChunks::new(capacity)));
}
