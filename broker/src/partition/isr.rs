//! Proposals of who is in sync, on their way from partitions to the controller.
//!
//! Each partition has at most one under way. One task sends all that wait in one command, one command at a time; answers
//! go back to the partitions, which wait for the image to make them true.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::command::{AlterPartitions, IsrChange};
use controller::{ControllerHandle, Refusal, SubmitError};
use parking_lot::Mutex;
use proto::ids::{Millis, NodeId, TopicPartition};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::core::{IsrProposal, IsrRefused};
use super::handle::PartitionHandle;

/// How long the first proposal waits for others: fencing a broker concerns many partitions at once.
const LINGER: Duration = Duration::from_millis(5);
/// Partitions in one command at most.
const MAX_CHANGES: usize = 1_000;
/// Pause before what has no known outcome is asked again; doubled from the first to the last.
const ASK_AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// Who decides which replicas are in sync: the controller.
#[async_trait]
pub trait IsrAuthority: Send + Sync + 'static {
    /// Asks for these changes; one answer for each, in order.
    async fn alter(&self, changes: &[(TopicPartition, IsrProposal)]) -> Vec<Result<(), IsrRefused>>;
}

/// The controller, asked by this broker.
#[derive(Debug, Clone)]
pub struct AskController {
    /// The controller.
    pub controller: ControllerHandle,
    /// This broker.
    pub broker: NodeId,
    /// Epoch of its registration.
    pub broker_epoch: i64,
}

#[async_trait]
impl IsrAuthority for AskController {
    async fn alter(&self, changes: &[(TopicPartition, IsrProposal)]) -> Vec<Result<(), IsrRefused>> {
        let change = |(tp, proposal): &(TopicPartition, IsrProposal)| IsrChange {
            tp: *tp,
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch,
            isr: proposal.isr.clone(),
            recovered: proposal.recovered,
        };
        let command = AlterPartitions {
            broker: self.broker,
            broker_epoch: self.broker_epoch,
            partitions: changes.iter().map(change).collect(),
        };
        let outcome = self.controller.alter_partitions(command).await;
        let refused = match outcome {
            Ok(outcomes) => {
                let told = |(outcome, (tp, proposal)): (Result<(), Refusal>, &(_, IsrProposal))| {
                    outcome.map_err(|refusal| {
                        tracing::info!(%tp, ?proposal, %refusal, "in-sync replicas were not changed");
                        // Terms and versions are compared before anything else.
                        let outdated =
                            matches!(refusal, Refusal::FencedLeaderEpoch { .. } | Refusal::InvalidUpdateVersion);
                        if outdated { IsrRefused::Outdated } else { IsrRefused::Ineligible }
                    })
                };
                return outcomes.into_iter().zip(changes).map(told).collect();
            }
            // This registration is over: others lead, or will.
            Err(SubmitError::Refused(refusal)) => {
                tracing::warn!(%refusal, "in-sync replicas cannot be changed");
                IsrRefused::Outdated
            }
            Err(SubmitError::NotLeader { .. } | SubmitError::Unknown | SubmitError::NoSpace | SubmitError::Ended) => {
                IsrRefused::Unknown
            }
        };
        vec![Err(refused); changes.len()]
    }
}

/// What waits to be sent: at most one proposal of each partition.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: Mutex<BTreeMap<TopicPartition, IsrProposal>>,
    work: Notify,
    since: Instant,
}

impl Outbox {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::default(), work: Notify::new(), since: Instant::now() })
    }

    /// Milliseconds since it was made. This clock never steps: who lags must not be judged by one that does.
    pub(super) fn uptime_ms(&self) -> Millis {
        Millis::try_from(self.since.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    /// Puts a proposal in; it takes the place of an older one.
    pub(super) fn put(&self, tp: TopicPartition, proposal: IsrProposal) {
        self.waiting.lock().insert(tp, proposal);
        self.work.notify_one();
    }

    fn take(&self) -> Vec<(TopicPartition, IsrProposal)> {
        let mut waiting = self.waiting.lock();
        let mut taken = Vec::new();
        while taken.len() < MAX_CHANGES
            && let Some(first) = waiting.pop_first()
        {
            taken.push(first);
        }
        taken
    }

    fn is_empty(&self) -> bool {
        self.waiting.lock().is_empty()
    }
}

/// Sends proposals for as long as it is let; `find` finds a partition.
pub(super) async fn run(
    outbox: Arc<Outbox>,
    find: impl Fn(TopicPartition) -> Option<PartitionHandle>,
    authority: Arc<dyn IsrAuthority>,
) {
    let [first_pause, longest] = ASK_AGAIN;
    let mut pause = first_pause;
    loop {
        while outbox.is_empty() {
            outbox.work.notified().await;
        }
        tokio::time::sleep(LINGER).await;
        let changes = outbox.take();
        let answers = authority.alter(&changes).await;
        let mut unknown = false;
        // Whoever got no answer knows nothing.
        let answers = answers.into_iter().chain(std::iter::repeat(Err(IsrRefused::Unknown)));
        for ((tp, proposal), outcome) in changes.into_iter().zip(answers) {
            unknown |= outcome == Err(IsrRefused::Unknown);
            if let Some(partition) = find(tp) {
                partition.isr_answered(proposal.partition_epoch, outcome);
            }
        }
        if unknown {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        } else {
            pause = first_pause;
        }
    }
}
