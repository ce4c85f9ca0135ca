//! What goes wrong, when: scripts first, then a draw.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, Uri};
use parking_lot::Mutex;
use proto::host::Entropy;

/// Kinds of requests, as a client means them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Storing a whole object.
    Put,
    /// One part of an upload in parts.
    PutPart,
    /// Beginning, completing or giving up an upload in parts.
    Multipart,
    /// Reading an object or part of it.
    Get,
    /// Deleting one or many objects.
    Delete,
    /// Listing objects.
    List,
    /// Everything about the bucket itself.
    Bucket,
}

impl Operation {
    /// What a request line asks for; requests address the bucket by path.
    pub(super) fn of(method: &Method, uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        let asks = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
        let on_object = uri.path().trim_start_matches('/').split_once('/').is_some_and(|(_, key)| !key.is_empty());
        match (method.as_str(), on_object) {
            ("PUT", true) if asks("partNumber") => Self::PutPart,
            ("PUT", true) => Self::Put,
            ("POST" | "DELETE", true) if asks("uploads") || asks("uploadId") => Self::Multipart,
            ("DELETE", true) => Self::Delete,
            ("POST", false) if asks("delete") => Self::Delete,
            ("GET" | "HEAD", true) => Self::Get,
            ("GET", false) if asks("list-type") => Self::List,
            _ => Self::Bucket,
        }
    }
}

/// One thing that goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// 503 Slow Down; nothing is applied.
    Refuse,
    /// 500 Internal Error; nothing is applied.
    Fail,
    /// The connection ends without an answer; nothing is applied.
    Close,
    /// No answer ever; nothing is applied.
    Hang,
    /// The answer's body ends in the middle, and the connection with it.
    Truncate,
    /// The answer's body stops in the middle, and nothing more ever comes.
    Stall,
    /// The request is applied and the connection ends without an answer.
    LoseAnswer,
    /// The connection ends without an answer and the request is applied a little later.
    Late,
    /// The request is applied and answered after so long.
    Slow(Duration),
}

/// How often what goes wrong, in 1/1000 of requests. All 0 by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// [`Fault::Refuse`], any request.
    pub refuse: u64,
    /// [`Fault::Fail`], any request.
    pub fail: u64,
    /// [`Fault::Close`], any request.
    pub close: u64,
    /// [`Fault::Hang`], any request.
    pub hang: u64,
    /// [`Fault::Truncate`], reads.
    pub truncate: u64,
    /// [`Fault::Stall`], reads.
    pub stall: u64,
    /// [`Fault::LoseAnswer`], any request.
    pub lose_answer: u64,
    /// [`Fault::Late`], writes and deletions.
    pub late: u64,
    /// [`Fault::Slow`] by 20 to 100 ms, any request.
    pub slow: u64,
}

impl Faults {
    /// Everything is refused: the store is down.
    pub const DOWN: Self = Self { refuse: 1000, ..Self::NONE };
    /// Nothing answers: requests hang.
    pub const DEAD: Self = Self { hang: 1000, ..Self::NONE };
    /// All is well.
    pub const NONE: Self =
        Self { refuse: 0, fail: 0, close: 0, hang: 0, truncate: 0, stall: 0, lose_answer: 0, late: 0, slow: 0 };
    /// A bit of everything.
    pub const STORM: Self = Self {
        refuse: 40,
        fail: 30,
        close: 30,
        hang: 10,
        truncate: 60,
        stall: 20,
        lose_answer: 60,
        late: 40,
        slow: 100,
    };
}

/// Decides about each request that arrives.
pub(super) struct Plan {
    entropy: Arc<dyn Entropy>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    faults: Faults,
    scripts: BTreeMap<Operation, VecDeque<Fault>>,
    requests: BTreeMap<Operation, u64>,
    happened: BTreeMap<Fault, u64>,
}

impl Plan {
    pub(super) fn new(entropy: Arc<dyn Entropy>) -> Self {
        Self { entropy, state: Mutex::default() }
    }

    pub(super) fn set(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    pub(super) fn script(&self, operation: Operation, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().scripts.entry(operation).or_default().extend(faults);
    }

    pub(super) fn scripted(&self) -> usize {
        self.state.lock().scripts.values().map(VecDeque::len).sum()
    }

    pub(super) fn requests(&self) -> BTreeMap<Operation, u64> {
        self.state.lock().requests.clone()
    }

    pub(super) fn happened(&self) -> BTreeMap<Fault, u64> {
        self.state.lock().happened.clone()
    }

    /// What happens to the next request of this kind.
    pub(super) fn next(&self, operation: Operation) -> Option<Fault> {
        let mut state = self.state.lock();
        *state.requests.entry(operation).or_default() += 1;
        let scripted = state.scripts.get_mut(&operation).and_then(VecDeque::pop_front);
        let fault = scripted.or_else(|| self.draw(state.faults, operation))?;
        *state.happened.entry(fault).or_default() += 1;
        Some(fault)
    }

    fn draw(&self, faults: Faults, operation: Operation) -> Option<Fault> {
        let writes = !matches!(operation, Operation::Get | Operation::List | Operation::Bucket);
        let slow = Fault::Slow(Duration::from_millis(20 + self.entropy.next_u64() % 80));
        let of_reads = |chance| if operation == Operation::Get { chance } else { 0 };
        let chances = [
            (faults.refuse, Fault::Refuse),
            (faults.fail, Fault::Fail),
            (faults.close, Fault::Close),
            (faults.hang, Fault::Hang),
            (of_reads(faults.truncate), Fault::Truncate),
            (of_reads(faults.stall), Fault::Stall),
            (faults.lose_answer, Fault::LoseAnswer),
            (if writes { faults.late } else { 0 }, Fault::Late),
            (faults.slow, slow),
        ];
        let mut drawn = self.entropy.next_u64() % 1000;
        for (chance, fault) in chances {
            if drawn < chance {
                return Some(fault);
            }
            drawn -= chance;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::host::SeededEntropy;

    fn plan() -> Plan {
        Plan::new(Arc::new(SeededEntropy::new(1)))
    }

    #[test]
    fn requests_are_told_apart() {
        let kind = |method: &str, uri: &str| Operation::of(&method.parse().unwrap(), &uri.parse().unwrap());
        assert_eq!(kind("PUT", "/firn/a/b.seg"), Operation::Put);
        assert_eq!(kind("PUT", "/firn/a/b.seg?partNumber=2&uploadId=x"), Operation::PutPart);
        assert_eq!(kind("POST", "/firn/a/b.seg?uploads="), Operation::Multipart);
        assert_eq!(kind("DELETE", "/firn/a/b.seg?uploadId=x"), Operation::Multipart);
        assert_eq!(kind("DELETE", "/firn/a/b.seg"), Operation::Delete);
        assert_eq!(kind("POST", "/firn?delete"), Operation::Delete);
        assert_eq!(kind("GET", "/firn/a/b.seg"), Operation::Get);
        assert_eq!(kind("GET", "/firn?list-type=2&prefix=a"), Operation::List);
        assert_eq!(kind("HEAD", "/firn"), Operation::Bucket);
        assert_eq!(kind("GET", "/firn/?versioning"), Operation::Bucket);
    }

    #[test]
    fn scripts_come_before_draws_and_count() {
        let plan = plan();
        plan.set(Faults::DOWN);
        plan.script(Operation::Put, [Fault::LoseAnswer, Fault::Hang]);
        assert_eq!(plan.next(Operation::Get), Some(Fault::Refuse));
        assert_eq!(plan.next(Operation::Put), Some(Fault::LoseAnswer));
        assert_eq!(plan.scripted(), 1);
        assert_eq!(plan.next(Operation::Put), Some(Fault::Hang));
        assert_eq!(plan.next(Operation::Put), Some(Fault::Refuse));
        assert_eq!(plan.requests(), BTreeMap::from([(Operation::Put, 3), (Operation::Get, 1)]));
        assert_eq!(plan.happened()[&Fault::Refuse], 2);
    }

    #[test]
    fn reads_are_never_late_and_writes_never_cut_short() {
        let plan = plan();
        plan.set(Faults { truncate: 500, late: 500, ..Faults::default() });
        for _ in 0..100 {
            assert_ne!(plan.next(Operation::Get), Some(Fault::Late));
            assert_ne!(plan.next(Operation::Put), Some(Fault::Truncate));
        }
    }
}
