//! Which broker configs give a config its default, nearest first, and in which unit.

/// A broker config whose value, times `factor`, stands in for another config's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synonym {
    /// The broker config.
    pub name: &'static str,
    /// What one of its units is in units of the other config, such as 3,600,000 for hours to ms.
    pub factor: i64,
}

const fn same(name: &'static str) -> Synonym {
    Synonym { name, factor: 1 }
}

const fn times(name: &'static str, factor: i64) -> Synonym {
    Synonym { name, factor }
}

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

const RETENTION: &[Synonym] =
    &[same("log.retention.ms"), times("log.retention.minutes", MINUTE), times("log.retention.hours", HOUR)];
const ROLL: &[Synonym] = &[same("log.roll.ms"), times("log.roll.hours", HOUR)];
const JITTER: &[Synonym] = &[same("log.roll.jitter.ms"), times("log.roll.jitter.hours", HOUR)];
const FLUSH_MS: &[Synonym] = &[same("log.flush.interval.ms"), same("log.flush.scheduler.interval.ms")];
const DIRS: &[Synonym] = &[same("log.dirs"), same("log.dir")];
const NODE: &[Synonym] = &[same("node.id"), same("broker.id")];

/// The broker configs that give the topic config `name` its default; none for one that has only the table's.
pub fn of_topic(name: &str) -> &'static [Synonym] {
    macro_rules! one {
        ($broker:literal) => {{
            const ONE: &[Synonym] = &[same($broker)];
            ONE
        }};
    }
    match name {
        "cleanup.policy" => one!("log.cleanup.policy"),
        "compression.gzip.level" => one!("compression.gzip.level"),
        "compression.lz4.level" => one!("compression.lz4.level"),
        "compression.type" => one!("compression.type"),
        "compression.zstd.level" => one!("compression.zstd.level"),
        "delete.retention.ms" => one!("log.cleaner.delete.retention.ms"),
        "file.delete.delay.ms" => one!("log.segment.delete.delay.ms"),
        "firn.flush" => one!("firn.flush"),
        "firn.tier.max.lag.ms" => one!("firn.tier.max.lag.ms"),
        "flush.messages" => one!("log.flush.interval.messages"),
        "flush.ms" => FLUSH_MS,
        "index.interval.bytes" => one!("log.index.interval.bytes"),
        "local.retention.bytes" => one!("log.local.retention.bytes"),
        "local.retention.ms" => one!("log.local.retention.ms"),
        "max.compaction.lag.ms" => one!("log.cleaner.max.compaction.lag.ms"),
        "max.message.bytes" => one!("message.max.bytes"),
        "message.timestamp.after.max.ms" => one!("log.message.timestamp.after.max.ms"),
        "message.timestamp.before.max.ms" => one!("log.message.timestamp.before.max.ms"),
        "message.timestamp.type" => one!("log.message.timestamp.type"),
        "min.cleanable.dirty.ratio" => one!("log.cleaner.min.cleanable.ratio"),
        "min.compaction.lag.ms" => one!("log.cleaner.min.compaction.lag.ms"),
        "min.insync.replicas" => one!("min.insync.replicas"),
        "preallocate" => one!("log.preallocate"),
        "retention.bytes" => one!("log.retention.bytes"),
        "retention.ms" => RETENTION,
        "segment.bytes" => one!("log.segment.bytes"),
        "segment.index.bytes" => one!("log.index.size.max.bytes"),
        "segment.jitter.ms" => JITTER,
        "segment.ms" => ROLL,
        "unclean.leader.election.enable" => one!("unclean.leader.election.enable"),
        _ => &[],
    }
}

/// The broker configs that stand behind the broker config `name`, itself first; only itself for most.
pub fn of_broker(name: &str) -> Option<&'static [Synonym]> {
    let chains = [RETENTION, ROLL, JITTER, FLUSH_MS, DIRS, NODE];
    chains.into_iter().find_map(|chain| {
        let at = chain.iter().position(|synonym| synonym.name == name)?;
        chain.get(at..)
    })
}
