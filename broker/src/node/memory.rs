//! How the data directories share what `firn.tail.cache.bytes` allows for records in memory.
//!
//! A record's bytes lie in one buffer from the append on: first not durable, then not in a segment, then only kept for
//! readers. All of it counts, and each directory has its share: what is not durable takes what write-back leaves, and
//! the directory's writer keeps for readers only what the other two leave ([`crate::log::writer`]).

use crate::config::broker::FirnConfig;
use crate::journal;
use crate::log::dir::DirConfig;

/// Blocks of a directory that hold more than the records counted: those being filled, one for each kind of group, those
/// that are partly let go, and what a write or an answer still looks at. Unless there is room for them, every block would
/// be taken fresh from the system, and clearing it costs more than all else that is done for a record.
const LOOSE_BLOCKS: usize = 4;
/// Below this, appends would wait for each other's syncs.
const LEAST_UNSYNCED_BYTES: usize = 1 << 20;

/// The sizes of each of so many directories.
pub(super) fn shares(firn: &FirnConfig, directories: usize) -> (journal::Config, DirConfig) {
    let share = |bytes: usize| bytes / directories.max(1);
    let journal = journal::Config::default();
    let unsynced = firn.tail_cache_bytes.saturating_sub(firn.writeback_bytes).min(journal.max_unsynced_bytes);
    let journal = journal::Config {
        file_bytes: firn.journal_file_bytes,
        max_bytes: firn.journal_bytes,
        pooled_blocks: share(firn.tail_cache_bytes).div_ceil(journal.block_bytes).max(LOOSE_BLOCKS + 1),
        max_unsynced_bytes: share(unsynced).max(LEAST_UNSYNCED_BYTES),
        ..journal
    };
    let tail = share(firn.tail_cache_bytes);
    let loose = LOOSE_BLOCKS * journal.block_bytes;
    let dir = DirConfig {
        tail_bytes: tail.saturating_sub(loose).max(tail / 2),
        max_backlog_bytes: share(firn.writeback_bytes),
        backlog_target_bytes: share(firn.writeback_bytes) / 2,
        reserve_bytes: firn.disk_reserve_bytes,
        ..DirConfig::default()
    };
    (journal, dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::broker::BrokerConfig;

    #[test]
    fn however_many_directories_there_are_they_share_one_bound() {
        let firn = BrokerConfig::default().firn;
        for directories in [1, 2, 3, 8, 12] {
            let (journal, dir) = shares(&firn, directories);
            let each = journal.max_unsynced_bytes + dir.max_backlog_bytes;
            assert!(each * directories <= firn.tail_cache_bytes, "{directories}: {each} each");
            assert!(dir.tail_bytes * directories <= firn.tail_cache_bytes);
        }
        assert_eq!(shares(&firn, 1).0.max_unsynced_bytes, firn.tail_cache_bytes - firn.writeback_bytes);
    }
}
