//! Names that may have been meant.

/// The name closest to `name`, if it is close enough to be a slip: a few letters off, or the same words in
/// another spelling (`_` or `-` for `.`, capitals).
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// More than any name has, and little enough to compare with all.
    const LONGEST: usize = 128;
    let plain: String = name.trim().to_ascii_lowercase().replace(['_', '-', ' '], ".");
    if plain.is_empty() || plain.len() > LONGEST {
        return None;
    }
    let slips = (plain.len() / 6).clamp(1, 4);
    known
        .map(|candidate| (distance(plain.as_bytes(), candidate.as_bytes()), candidate))
        .filter(|(distance, _)| *distance <= slips)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, drop, change or swap with their neighbour to get from `a` to `b`.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *y && *x == b[j - 1] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}
