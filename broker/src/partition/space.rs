//! Who may still grow on a disk that fills up. Pure.
//!
//! Between plenty and nothing left, the partitions that hold the most bytes which no trim can free are refused
//! first; at the reserve everybody is. Reads and trimming go on.

use proto::ids::TopicPartition;

/// What is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing.
    None,
    /// These, largest first.
    Some(Vec<TopicPartition>),
    /// Everything.
    All,
}

/// Decides. `free` is what the file system says, `reserved` what must stay free (the journal's growth and the
/// reserve): from twice that on downwards, a growing share of the untrimmable bytes is refused. All in bytes.
pub fn refused(free: u64, reserved: u64, partitions: &[(TopicPartition, u64)]) -> Refusal {
    if free <= reserved {
        return Refusal::All;
    }
    let above = free - reserved;
    if above >= reserved {
        return Refusal::None;
    }
    let total: u128 = partitions.iter().map(|(_, bytes)| u128::from(*bytes)).sum();
    let share = total * u128::from(reserved - above) / u128::from(reserved.max(1));
    let mut largest: Vec<_> = partitions.iter().filter(|(_, bytes)| *bytes > 0).copied().collect();
    largest.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut refused = Vec::new();
    let mut sum = 0u128;
    for (tp, bytes) in largest {
        if sum >= share {
            break;
        }
        sum += u128::from(bytes);
        refused.push(tp);
    }
    if refused.is_empty() { Refusal::None } else { Refusal::Some(refused) }
}

#[cfg(test)]
mod tests {
    use proto::ids::TopicId;

    use super::*;

    fn tp(partition: i32) -> TopicPartition {
        TopicPartition::new(TopicId::ZERO, partition)
    }

    #[test]
    fn the_largest_go_first_and_all_at_the_reserve() {
        let partitions = [(tp(0), 10), (tp(1), 70), (tp(2), 20), (tp(3), 0)];
        assert_eq!(refused(200, 100, &partitions), Refusal::None);
        assert_eq!(refused(199, 100, &partitions), Refusal::Some(vec![tp(1)]));
        assert_eq!(refused(130, 100, &partitions), Refusal::Some(vec![tp(1)]));
        assert_eq!(refused(129, 100, &partitions), Refusal::Some(vec![tp(1), tp(2)]));
        assert_eq!(refused(105, 100, &partitions), Refusal::Some(vec![tp(1), tp(2), tp(0)]));
        assert_eq!(refused(100, 100, &partitions), Refusal::All);
        assert_eq!(refused(0, 0, &[]), Refusal::All);
        assert_eq!(refused(150, 100, &[]), Refusal::None);
    }
}
