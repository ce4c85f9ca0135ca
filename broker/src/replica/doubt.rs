//! Leaders of which it is not known whether they are still there: the connection over which partitions here follow one broke, and it has
//! not answered since. Nothing is decided by it (only the image says who leads); it is a reason not to send clients there.

use proto::ids::NodeId;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// For how long a doubt counts: by then the quorum has decided, or does not agree. As long as a silent broker has by default.
pub const COUNTS_FOR: Duration = Duration::from_secs(3);

/// Who is doubted since when.
pub type Doubted = BTreeMap<NodeId, Instant>;

/// The leaders in doubt.
#[derive(Debug, Default)]
pub(super) struct Doubts(watch::Sender<Doubted>);

impl Doubts {
    /// The connection to a leader broke.
    pub(super) fn broke(&self, leader: NodeId) {
        self.0.send_if_modified(|doubted| {
            let now = Instant::now();
            let is_new = !doubted.contains_key(&leader);
            doubted.entry(leader).or_insert(now);
            is_new
        });
    }

    /// A leader answered.
    pub(super) fn answered(&self, leader: NodeId) {
        // Most answers come from leaders that nobody doubts.
        if self.0.borrow().contains_key(&leader) {
            self.0.send_if_modified(|doubted| doubted.remove(&leader).is_some());
        }
    }

    /// What there is now, and when it changes.
    pub(super) fn watch(&self) -> watch::Receiver<Doubted> {
        self.0.subscribe()
    }
}

/// When the last doubt about any of the leaders ends that `leads` says yes to, if there is one now.
pub fn in_doubt_until(doubted: &Doubted, now: Instant, leads: impl Fn(&[NodeId]) -> bool) -> Option<Instant> {
    let fresh = doubted.iter().filter(|(_, since)| now < **since + COUNTS_FOR);
    let (nodes, ends): (Vec<NodeId>, Vec<Instant>) = fresh.map(|(node, since)| (*node, *since + COUNTS_FOR)).unzip();
    let last = ends.into_iter().max()?;
    leads(&nodes).then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_doubt_lasts_until_an_answer_comes_or_enough_time_has_passed() {
        let doubts = Doubts::default();
        let watch = doubts.watch();
        let until =
            |leads: i32| in_doubt_until(&watch.borrow(), Instant::now(), |nodes| nodes.contains(&NodeId(leads)));
        let begun = Instant::now();
        doubts.broke(NodeId(1));
        assert_eq!((until(1), until(2)), (Some(begun + COUNTS_FOR), None));
        // It goes on failing: the doubt is as old as it was.
        tokio::time::advance(COUNTS_FOR / 2).await;
        doubts.broke(NodeId(1));
        doubts.answered(NodeId(2));
        assert_eq!(until(1), Some(begun + COUNTS_FOR));
        tokio::time::advance(COUNTS_FOR / 2).await;
        assert_eq!(until(1), None);
        doubts.answered(NodeId(1));
        doubts.broke(NodeId(1));
        assert_eq!(until(1), Some(begun + COUNTS_FOR * 2));
        doubts.answered(NodeId(1));
        assert_eq!(until(1), None);
    }
}
