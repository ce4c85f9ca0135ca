//! The queue in front of the quorum: one proposal in flight, whatever queued up meanwhile goes into
//! the next. `decide` runs over the commands in order, each on the applied image plus what the ones
//! before it decided; clients are answered after the whole batch was applied.

use std::sync::Arc;

use parking_lot::Mutex;
use proto::host::{Clock, Spawner};
use proto::metadata::{Batch, Image};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use crate::command::{Command, Outcome, Refusal};
use crate::decide::{Policy, Understanding, decide};
use crate::handle::SubmitError;
use crate::raft::{Level, ProposeError, Quorum, Slack};

/// A command that waits, and who waits for it.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) command: Command,
    pub(crate) answer: oneshot::Sender<Result<Outcome, SubmitError>>,
    /// Its share of the queue's bytes, given back with the answer.
    #[allow(dead_code, reason = "held for what its drop does")]
    pub(crate) permit: OwnedSemaphorePermit,
}

/// How many commands go into one proposal at most.
const BATCH_COMMANDS: usize = 512;

/// Owns the receiving end of the queue.
pub(crate) struct Task {
    pub(crate) quorum: Quorum,
    pub(crate) images: watch::Receiver<Arc<Image>>,
    pub(crate) queue: mpsc::Receiver<Queued>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) slack: Arc<Slack>,
    pub(crate) spawner: Spawner,
    pub(crate) policy: Policy,
    pub(crate) understanding: Arc<Mutex<Understanding>>,
}

impl Task {
    /// Runs until all handles are gone or the queue is closed.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::new();
        while self.queue.recv_many(&mut batch, BATCH_COMMANDS).await > 0 {
            let queued = self.admit(std::mem::take(&mut batch)).await;
            if queued.is_empty() {
                continue;
            }
            match self.carry_out(&queued).await {
                Ok(answers) => {
                    for (queued, answer) in queued.into_iter().zip(answers) {
                        // A caller that went away does not want to know.
                        let _ = queued.answer.send(answer.map_err(SubmitError::Refused));
                    }
                }
                Err(error) => {
                    for queued in queued {
                        let _ = queued.answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Refuses what there is no room for on the disk of the quorum's store.
    async fn admit(&self, queued: Vec<Queued>) -> Vec<Queued> {
        if self.slack.level() == Level::Whole {
            return queued;
        }
        let slack = Arc::clone(&self.slack);
        let level = self.spawner.spawn_blocking(move || slack.refill()).await.unwrap_or(Level::Low);
        let mut admitted = Vec::new();
        for queued in queued {
            if queued.command.needs() <= level {
                admitted.push(queued);
            } else {
                let _ = queued.answer.send(Err(SubmitError::NoSpace));
            }
        }
        admitted
    }

    /// Decides and proposes until the proposal met the state it was decided on.
    async fn carry_out(&self, queued: &[Queued]) -> Result<Vec<Result<Outcome, Refusal>>, SubmitError> {
        loop {
            let Some(term) = self.quorum.term_if_leader() else {
                return Err(SubmitError::NotLeader { leader: self.quorum.leader() });
            };
            let (batch, answers) = self.decide_all(term, queued);
            if batch.records.is_empty() {
                // The answer rests on the image alone: make sure that it was the current one.
                self.quorum.ensure_linearizable().await?;
                if self.images.borrow().offset() == batch.base_offset {
                    return Ok(answers);
                }
                continue;
            }
            match self.quorum.propose(batch).await {
                Ok(()) => return Ok(answers),
                // Another state than we saw: wait until we see it, then decide again.
                Err(ProposeError::Rejected) => self.quorum.ensure_linearizable().await?,
                Err(ProposeError::Unknown) => return Err(SubmitError::Unknown),
            }
        }
    }

    fn decide_all(&self, term: u64, queued: &[Queued]) -> (Batch, Vec<Result<Outcome, Refusal>>) {
        let now = self.clock.now_ms();
        let policy = Policy { controllers: self.understanding.lock().clone(), ..self.policy.clone() };
        let mut image = Image::clone(&self.images.borrow());
        let mut batch = Batch { term, base_offset: image.offset(), records: Vec::new() };
        let answers = queued
            .iter()
            .map(|queued| {
                let decision = decide(&image, &queued.command, now, &policy)?;
                for record in &decision.records {
                    image.apply(record);
                }
                batch.records.extend(decision.records);
                Ok(decision.outcome)
            })
            .collect();
        (batch, answers)
    }
}
