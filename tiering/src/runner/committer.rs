//! Puts commits of many partitions into one request to the quorum.

use std::sync::Arc;

use proto::metadata::TierPointer;
use tokio::sync::{mpsc, oneshot};

use crate::ports::{Commit, CommitError, Pointers};

/// Commits that may wait at once; more wait outside.
const QUEUE: usize = 1024;
/// Most commits in one request.
const BATCH: usize = 256;

type Answer = Result<TierPointer, CommitError>;

/// Cheap clone.
#[derive(Debug, Clone)]
pub(super) struct Committer(mpsc::Sender<(Commit, oneshot::Sender<Answer>)>);

impl Committer {
    /// The handle, and the task to be run beside it; it ends when the last handle is gone.
    pub(super) fn new(pointers: Arc<dyn Pointers>) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), run(pointers, receiver))
    }

    /// Commits one change, together with whatever else is waiting.
    pub(super) async fn commit(&self, commit: Commit) -> Answer {
        let (answer, answered) = oneshot::channel();
        let unknown = |_| CommitError::Unknown("tiering is stopping".to_owned());
        if self.0.send((commit, answer)).await.is_err() {
            return Err(CommitError::Unknown("tiering is stopping".to_owned()));
        }
        answered.await.map_err(unknown)?
    }
}

async fn run(pointers: Arc<dyn Pointers>, mut queue: mpsc::Receiver<(Commit, oneshot::Sender<Answer>)>) {
    let mut waiting = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut waiting, BATCH).await > 0 {
        let (commits, answers): (Vec<_>, Vec<_>) = waiting.drain(..).unzip();
        let mut results = pointers.commit(commits).await.into_iter();
        for answer in answers {
            let result = results.next().unwrap_or_else(|| Err(CommitError::Unknown("no answer".to_owned())));
            // Whoever asked may be gone: its partition reads the pointer before it goes on.
            let _ = answer.send(result);
        }
    }
}
