//! The follower's side of incremental fetch sessions (KIP-227): which partitions a request must name, given what the leader remembers.
//!
//! Pure. A partition is named when what is wanted of it changed since it was named last, or when the leader's session ended and all
//! have to be named again. One that must not be sent for the time being is *forgotten*: the leader would send its old offset again.

use proto::errors::ErrorCode;
use proto::ids::{DirectoryId, LeaderEpoch, Offset, TopicPartition};
use std::collections::{BTreeMap, BTreeSet};

/// Epoch of a request that starts a session.
const INITIAL_EPOCH: i32 = 0;

/// What a follower wants of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// The first offset that is not durable here, which is the log's end, too.
    pub offset: Offset,
    /// The leader epoch under which it follows.
    pub epoch: LeaderEpoch,
    /// Epoch of the last batch here, -1 if there is none.
    pub last_epoch: LeaderEpoch,
    /// First offset that may be read here.
    pub log_start: Offset,
    /// The high watermark as known here.
    pub high_watermark: Offset,
    /// The directory in which the replica lies.
    pub directory: DirectoryId,
}

/// One request, as far as sessions care.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ask {
    /// 0 without a session.
    pub session_id: i32,
    /// 0 starts one, in place of `session_id` if that is given.
    pub session_epoch: i32,
    /// What the leader does not remember.
    pub partitions: Vec<(TopicPartition, Want)>,
    /// What the leader must not send any more.
    pub forgotten: Vec<TopicPartition>,
}

/// What is wanted of one leader, and what it remembers of that.
#[derive(Debug, Default)]
pub struct Session {
    id: i32,
    /// Of the next request.
    epoch: i32,
    wanted: BTreeMap<TopicPartition, Want>,
    /// What the leader was told last, by a request that may not be answered yet.
    told: BTreeMap<TopicPartition, Want>,
    /// Where `wanted` and `told` may differ.
    changed: BTreeSet<TopicPartition>,
}

impl Session {
    /// Wants this of `tp` from the next request on.
    pub fn want(&mut self, tp: TopicPartition, want: Want) {
        self.wanted.insert(tp, want);
        self.changed.insert(tp);
    }

    /// Wants nothing of `tp` from the next request on.
    pub fn forget(&mut self, tp: TopicPartition) {
        if self.wanted.remove(&tp).is_some() {
            self.changed.insert(tp);
        }
    }

    /// Whether anything is wanted.
    pub fn is_idle(&self) -> bool {
        self.wanted.is_empty()
    }

    /// The next request. Its answer, or its failure, must come in before the one after it.
    pub fn ask(&mut self) -> Ask {
        let (session_id, session_epoch) = (self.id, self.epoch);
        if session_epoch == INITIAL_EPOCH {
            self.changed.clear();
            self.told = self.wanted.clone();
            let partitions = self.wanted.iter().map(|(tp, want)| (*tp, *want)).collect();
            return Ask { session_id, session_epoch, partitions, forgotten: Vec::new() };
        }
        let mut ask = Ask { session_id, session_epoch, ..Ask::default() };
        for tp in std::mem::take(&mut self.changed) {
            match self.wanted.get(&tp) {
                Some(want) if self.told.get(&tp) != Some(want) => {
                    self.told.insert(tp, *want);
                    ask.partitions.push((tp, *want));
                }
                Some(_) => {}
                None => {
                    if self.told.remove(&tp).is_some() {
                        ask.forgotten.push(tp);
                    }
                }
            }
        }
        ask
    }

    /// The leader answered with this code and session id.
    ///
    /// # Errors
    /// The code, unless it is none. The next request starts a session anew then.
    pub fn answered(&mut self, code: ErrorCode, session_id: i32) -> Result<(), ErrorCode> {
        match code {
            ErrorCode::None => {
                // The leader may have no room for a session: each request is a full one then.
                self.epoch = match (session_id, self.epoch) {
                    (0, _) => INITIAL_EPOCH,
                    (_, i32::MAX) => 1,
                    (_, epoch) => epoch + 1,
                };
                self.id = session_id;
                Ok(())
            }
            ErrorCode::FetchSessionIdNotFound => {
                (self.id, self.epoch) = (0, INITIAL_EPOCH);
                Err(code)
            }
            code => {
                self.lost();
                Err(code)
            }
        }
    }

    /// What the leader remembers is not known any more: the next request starts a session in place of the last.
    pub fn lost(&mut self) {
        self.epoch = INITIAL_EPOCH;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::ids::{TopicId, Uuid};

    fn tp(partition: i32) -> TopicPartition {
        TopicPartition::new(TopicId(Uuid::from_u128(7)), partition)
    }

    fn want(offset: Offset) -> Want {
        let directory = DirectoryId(Uuid::from_u128(1));
        Want { offset, epoch: 3, last_epoch: 3, log_start: 0, high_watermark: 0, directory }
    }

    fn session(partitions: &[i32]) -> Session {
        let mut session = Session::default();
        for partition in partitions {
            session.want(tp(*partition), want(10));
        }
        session
    }

    #[test]
    fn a_session_names_all_once_and_then_only_what_changed() {
        let mut session = session(&[0, 1]);
        let all = vec![(tp(0), want(10)), (tp(1), want(10))];
        let full = Ask { partitions: all, ..Ask::default() };
        assert_eq!(session.ask(), full);
        session.answered(ErrorCode::None, 42).expect("no error");
        session.want(tp(1), want(11));
        // What is wanted already is not named again.
        session.want(tp(0), want(10));
        let next = Ask { session_id: 42, session_epoch: 1, partitions: vec![(tp(1), want(11))], forgotten: vec![] };
        assert_eq!(session.ask(), next);
        session.answered(ErrorCode::None, 42).expect("no error");
        assert_eq!(session.ask(), Ask { session_id: 42, session_epoch: 2, ..Ask::default() });
    }

    #[test]
    fn what_is_forgotten_is_named_again_when_it_comes_back() {
        let mut session = session(&[0, 1]);
        session.ask();
        session.answered(ErrorCode::None, 42).expect("no error");
        session.forget(tp(0));
        let ask = session.ask();
        assert_eq!((ask.partitions, ask.forgotten), (vec![], vec![tp(0)]));
        session.answered(ErrorCode::None, 42).expect("no error");
        session.want(tp(0), want(10));
        let ask = session.ask();
        assert_eq!((ask.partitions, ask.forgotten), (vec![(tp(0), want(10))], vec![]));
    }

    #[test]
    fn what_goes_and_comes_back_between_two_requests_is_not_forgotten() {
        let mut session = session(&[0]);
        session.ask();
        session.answered(ErrorCode::None, 42).expect("no error");
        session.forget(tp(0));
        session.want(tp(0), want(10));
        assert_eq!(session.ask(), Ask { session_id: 42, session_epoch: 1, ..Ask::default() });
    }

    #[test]
    fn a_lost_session_starts_again_in_its_own_place() {
        let mut session = session(&[0, 1]);
        session.ask();
        session.answered(ErrorCode::None, 42).expect("no error");
        session.forget(tp(0));
        session.ask();
        session.lost();
        let ask = Ask { session_id: 42, session_epoch: 0, partitions: vec![(tp(1), want(10))], forgotten: vec![] };
        assert_eq!(session.ask(), ask);
        session.answered(ErrorCode::FetchSessionIdNotFound, 0).expect_err("the leader knows none");
        assert_eq!(session.ask(), Ask { session_id: 0, ..ask });
    }

    #[test]
    fn without_a_session_each_request_names_all() {
        let mut session = session(&[0]);
        for _ in 0..2 {
            assert_eq!(session.ask().partitions.len(), 1);
            session.answered(ErrorCode::None, 0).expect("no error");
        }
    }

    #[test]
    fn epochs_wrap_to_one() {
        let mut session = Session { id: 42, epoch: i32::MAX, ..session(&[0]) };
        assert_eq!(session.ask().session_epoch, i32::MAX);
        session.answered(ErrorCode::None, 42).expect("no error");
        assert_eq!(session.ask().session_epoch, 1);
    }
}
