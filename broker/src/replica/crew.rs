//! Which fetcher follows which partition: one of `num.replica.fetchers` for each leader, always the same for a partition.
//!
//! A partition that changes fetchers is followed by the new one only when the old one touches it no more.

use super::task::{Ground, Task};
use super::{Following, Left, Status};
use parking_lot::Mutex;
use proto::ids::{Millis, NodeId, TopicPartition};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::{Notify, oneshot};
use tokio_util::task::TaskTracker;

/// What a fetcher is told about a partition. A later order replaces an earlier one that it has not taken yet.
pub(super) enum Order {
    /// Follow it, once another fetcher has left it alone.
    Follow { following: Following, after: Option<oneshot::Receiver<()>> },
    /// Leave it alone, and say when that is so.
    Leave(Vec<oneshot::Sender<()>>),
}

/// All that a fetcher has to take.
#[derive(Default)]
pub(super) struct Orders {
    pub of_partitions: BTreeMap<TopicPartition, Order>,
    /// Who wants to know how it goes.
    pub asked: Vec<oneshot::Sender<Vec<Status>>>,
}

/// Orders for one fetcher: no more than it has partitions.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<(Orders, bool)>,
    filled: Notify,
}

impl Inbox {
    fn put(&self, tp: TopicPartition, order: Order) {
        let mut state = self.state.lock();
        let orders = &mut state.0.of_partitions;
        let order = match (orders.remove(&tp), order) {
            (Some(Order::Leave(mut waiting)), Order::Leave(more)) => {
                waiting.extend(more);
                Order::Leave(waiting)
            }
            // It has not been left alone yet.
            (Some(Order::Follow { after: Some(left), .. }), Order::Follow { following, after: None }) => {
                Order::Follow { following, after: Some(left) }
            }
            (_, order) => order,
        };
        orders.insert(tp, order);
        drop(state);
        self.filled.notify_one();
    }

    fn ask(&self, answer: oneshot::Sender<Vec<Status>>) {
        self.state.lock().0.asked.push(answer);
        self.filled.notify_one();
    }

    /// No order comes after this.
    fn close(&self) {
        self.state.lock().1 = true;
        self.filled.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        let state = self.state.lock();
        state.1 && state.0.of_partitions.is_empty()
    }

    /// Returns when there may be orders.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    pub(super) fn take(&self) -> Orders {
        std::mem::take(&mut self.state.lock().0)
    }
}

/// A leader, and which of its fetchers.
type Place = (NodeId, usize);

struct Fetcher {
    inbox: Arc<Inbox>,
    partitions: usize,
}

/// All fetchers of a broker.
pub(super) struct Crew {
    ground: Arc<Ground>,
    tasks: TaskTracker,
    /// `num.replica.fetchers`.
    width: usize,
    longest_pause_ms: Millis,
    fetchers: BTreeMap<Place, Fetcher>,
    places: BTreeMap<TopicPartition, (Place, Following)>,
}

impl Crew {
    pub(super) fn new(ground: Arc<Ground>, tasks: TaskTracker, width: usize, longest_pause_ms: Millis) -> Crew {
        Crew {
            ground,
            tasks,
            width: width.max(1),
            longest_pause_ms,
            fetchers: BTreeMap::new(),
            places: BTreeMap::new(),
        }
    }

    pub(super) fn assign(&mut self, all: Vec<Following>) {
        for following in all {
            let tp = following.tp;
            let place = (following.leader, slot(tp, self.width));
            let before = self.places.insert(tp, (place, following.clone())).map(|(place, _)| place);
            let after = match before {
                Some(before) if before != place => Some(self.leave(tp, before)),
                Some(_) | None => None,
            };
            let moved = before != Some(place);
            let fetcher = self.fetcher(place);
            fetcher.partitions += usize::from(moved);
            fetcher.inbox.put(tp, Order::Follow { following, after });
        }
    }

    pub(super) fn leave_all(&mut self, all: impl IntoIterator<Item = TopicPartition>) -> Left {
        let mut left = Vec::new();
        for tp in all {
            if let Some((place, _)) = self.places.remove(&tp) {
                left.push(self.leave(tp, place));
            }
        }
        Left::new(left)
    }

    /// Deals the partitions out anew if that many fetchers are to share them.
    pub(super) fn widen(&mut self, width: usize) {
        let width = width.max(1);
        if std::mem::replace(&mut self.width, width) != width {
            let all = self.places.values().map(|(_, following)| following.clone()).collect();
            self.assign(all);
        }
    }

    /// Asks every fetcher how it goes.
    pub(super) fn ask(&self) -> Vec<oneshot::Receiver<Vec<Status>>> {
        let ask = |fetcher: &Fetcher| {
            let (answer, answered) = oneshot::channel();
            fetcher.inbox.ask(answer);
            answered
        };
        self.fetchers.values().map(ask).collect()
    }

    fn leave(&mut self, tp: TopicPartition, place: Place) -> oneshot::Receiver<()> {
        let (sender, left) = oneshot::channel();
        if let Some(fetcher) = self.fetchers.get_mut(&place) {
            fetcher.partitions -= 1;
            fetcher.inbox.put(tp, Order::Leave(vec![sender]));
            if fetcher.partitions == 0 {
                fetcher.inbox.close();
                self.fetchers.remove(&place);
            }
        }
        left
    }

    fn fetcher(&mut self, place: Place) -> &mut Fetcher {
        let Crew { ground, tasks, longest_pause_ms, fetchers, .. } = self;
        fetchers.entry(place).or_insert_with(|| {
            let inbox = Arc::new(Inbox::default());
            let task = Task::new(Arc::clone(ground), place.0, Arc::clone(&inbox), *longest_pause_ms);
            ground.spawner.spawn_hot(tasks.track_future(task.run()));
            Fetcher { inbox, partitions: 0 }
        })
    }

    /// Brokers that partitions here follow.
    pub(super) fn leaders(&self) -> BTreeSet<NodeId> {
        self.fetchers.keys().map(|(leader, _)| *leader).collect()
    }
}

/// Which fetcher of its leader follows a partition. Neighbours go to different ones.
fn slot(tp: TopicPartition, width: usize) -> usize {
    let topic = tp.topic.0.as_u128();
    let mixed = (topic ^ (topic >> 64)) as u64;
    let width = width.max(1) as u64;
    let slot = (mixed % width + u64::from(tp.partition.unsigned_abs()) % width) % width;
    usize::try_from(slot).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::ids::{TopicId, Uuid};

    #[test]
    fn partitions_of_a_topic_are_spread_evenly() {
        for topic in [0, 7, u128::MAX] {
            let mut of_slot = [0; 3];
            for partition in 0..30 {
                of_slot[slot(TopicPartition::new(TopicId(Uuid::from_u128(topic)), partition), 3)] += 1;
            }
            assert_eq!(of_slot, [10, 10, 10]);
        }
    }

    #[test]
    fn the_last_order_counts_and_nobody_waits_in_vain() {
        let tp = TopicPartition::new(TopicId(Uuid::from_u128(7)), 0);
        let inbox = Inbox::default();
        let ((first, mut one), (second, mut other)) = (oneshot::channel(), oneshot::channel());
        inbox.put(tp, Order::Leave(vec![first]));
        inbox.put(tp, Order::Leave(vec![second]));
        inbox.close();
        assert!(!inbox.is_closed(), "orders are taken first");
        for (_, order) in inbox.take().of_partitions {
            let Order::Leave(waiting) = order else { panic!("it was to be left") };
            for waiting in waiting {
                waiting.send(()).expect("somebody waits");
            }
        }
        assert!(one.try_recv().is_ok() && other.try_recv().is_ok());
        assert!(inbox.is_closed());
    }
}
