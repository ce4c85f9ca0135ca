//! What is run and how it is cut, all of it drawn from a seed.

use integration::dice::Dice;
use std::time::Duration;

/// A topic under load; each partition has one producer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TopicPlan {
    pub(crate) name: &'static str,
    pub(crate) partitions: i32,
    pub(crate) idempotent: bool,
    pub(crate) configs: &'static [(&'static str, &'static str)],
}

/// Small segments of which hardly any stay on local disk.
const SMALL: [(&str, &str); 4] = [
    ("segment.bytes", "1048576"),
    ("local.retention.bytes", "1048576"),
    ("firn.tier.max.lag.ms", "1000"),
    ("retention.ms", "-1"),
];

/// The topics of a run.
pub(crate) const TOPICS: [TopicPlan; 3] = [
    TopicPlan { name: "idempotent", partitions: 2, idempotent: true, configs: &SMALL },
    TopicPlan { name: "plain", partitions: 2, idempotent: false, configs: &SMALL },
    TopicPlan {
        name: "page-cache",
        partitions: 1,
        idempotent: true,
        configs: &[SMALL[0], SMALL[1], SMALL[2], SMALL[3], ("firn.flush", "os")],
    },
];

/// When a process is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    /// So long after the load began.
    Running(Duration),
    /// So long after something new lies in the bucket: before or after the pointer's commit.
    Uploading(Duration),
    /// So long after a local file went: in the middle of trimming.
    Trimming(Duration),
    /// So long after it was started again: in recovery.
    Starting(Duration),
    /// Not cut but asked to end (SIGTERM), so long after the load began.
    Asked(Duration),
}

impl Moment {
    pub(crate) fn draw(dice: &mut Dice) -> Moment {
        let mut us = |below: u64| Duration::from_micros(dice.throw() % below);
        let (long, short, start) = (us(900_000), us(20_000), us(250_000));
        match dice.below(100) {
            0..40 => Moment::Running(long),
            40..65 => Moment::Uploading(short),
            65..80 => Moment::Trimming(short),
            80..92 => Moment::Starting(start),
            _ => Moment::Asked(long),
        }
    }
}
