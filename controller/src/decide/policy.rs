//! Settings that decisions depend on: those of a topic, else those of all brokers, else what the deciding controller
//! was started with.

use std::collections::{BTreeMap, BTreeSet};

use proto::ids::NodeId;
use proto::metadata::{ConfigResource, FEATURE, Image, NEWEST_LEVEL};

/// Name of the setting that says how many replicas have to be in sync.
pub(super) const MIN_IN_SYNC: &str = "min.insync.replicas";
const FLUSH: &str = "firn.flush";

/// What holds where neither a topic nor the cluster says otherwise. A plain input of [`super::decide`].
///
/// Leaders promise, and the controller elects, by the same [`Policy::for_all`], or a replica would be elected that lacks what was
/// acknowledged: those go into the metadata as soon as there is a second broker, and what a node was started with counts no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `min.insync.replicas`.
    pub min_insync_replicas: usize,
    /// `unclean.leader.election.enable`.
    pub unclean_leader_election: bool,
    /// `firn.flush`.
    pub flush: Flush,
    /// Of the partitions a broker is preferred for, how many others may lead
    /// before it gets them back.
    pub leader_imbalance_percent: usize,
    /// What the controllers understand, as far as the deciding one was told.
    pub controllers: Understanding,
}

/// Which levels of the feature `firn.metadata` the controllers understand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Understanding {
    /// Controllers that understand less than the deciding one, and the highest level that each understands.
    pub older: BTreeMap<NodeId, i16>,
    /// Controllers that did not say.
    pub silent: BTreeSet<NodeId>,
}

impl Understanding {
    /// The highest level that all understand who said so.
    pub(super) fn newest(&self) -> i16 {
        self.older.values().copied().min().unwrap_or(NEWEST_LEVEL).min(NEWEST_LEVEL)
    }

    /// Why the level may not become `level`, if it may not.
    pub(super) fn objection(&self, level: i16) -> Option<String> {
        if let Some((id, newest)) = self.older.iter().find(|(_, newest)| **newest < level) {
            return Some(format!("Controller {id} understands levels of {FEATURE} up to {newest} only."));
        }
        let silent = self.silent.first()?;
        Some(format!(
            "Controller {silent} does not say which levels of {FEATURE} it understands: start it, or take its vote."
        ))
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            min_insync_replicas: 1,
            unclean_leader_election: false,
            flush: Flush::Fsync,
            leader_imbalance_percent: 0,
            controllers: Understanding::default(),
        }
    }
}

/// When a record is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Once it is on disk.
    Fsync,
    /// Once the operating system has it: a machine that goes down may lose it.
    Os,
}

impl Policy {
    /// How many replicas of a partition of `topic` have to be in sync, before what is asked for is clamped to the number of
    /// its replicas. At least 1.
    pub(super) fn min_in_sync(&self, image: &Image, topic: &str) -> usize {
        let set = value(image, topic, MIN_IN_SYNC).and_then(|value| value.trim().parse().ok());
        set.unwrap_or(self.min_insync_replicas).max(1)
    }

    /// Whether a replica of `topic` that may lack records may lead it when there is no other.
    pub(super) fn unclean(&self, image: &Image, topic: &str) -> bool {
        let set = value(image, topic, "unclean.leader.election.enable").and_then(boolean);
        set.unwrap_or(self.unclean_leader_election)
    }

    /// The settings that must be one for all brokers.
    pub(super) fn for_all(&self) -> [(&'static str, String); 2] {
        let flush = match self.flush {
            Flush::Fsync => "fsync",
            Flush::Os => "os",
        };
        [(MIN_IN_SYNC, self.min_insync_replicas.to_string()), (FLUSH, flush.to_owned())]
    }

    /// When records of `topic` are acknowledged.
    pub(super) fn flush(&self, image: &Image, topic: &str) -> Flush {
        match value(image, topic, FLUSH) {
            Some("os") => Flush::Os,
            Some(_) => Flush::Fsync,
            None => self.flush,
        }
    }
}

fn value<'a>(image: &'a Image, topic: &str, key: &str) -> Option<&'a str> {
    let of = |resource: &ConfigResource| image.configs(resource)?.get(key).map(String::as_str);
    of(&ConfigResource::topic(topic)).or_else(|| of(&ConfigResource::all_brokers()))
}

fn boolean(text: &str) -> Option<bool> {
    match text.trim() {
        text if text.eq_ignore_ascii_case("true") => Some(true),
        text if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}
