//! What the rest of Firn holds of the controller: a cheap clone that submits commands and reads
//! images.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use proto::ids::{DirectoryId, NodeId, TopicId, TopicPartition};
use proto::metadata::{Image, NEWEST_LEVEL, Share, TierPointer};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::balance::Loads;
use crate::command::{
    AlterConfigs, AlterPartitions, AlterReassignments, AssignDirectories, Command, CreatePartitions, CreateTopics,
    CreatedTopic, DeleteRecords, DeleteTopics, ElectLeaders, FormCluster, Outcome, ProducerIdBlock, Refusal,
    RegisterBroker, SetBrokerState, TierCommit, TierRefusal, UpdateFeatures,
};
use crate::decide::Understanding;
use crate::links::SessionLink;
use crate::node::StartError;
use crate::peers::Peers;
use crate::raft::Quorum;
use crate::router::{Router, SUBMIT_WITHIN};
use crate::task::Queued;
use crate::view::{QuorumView, VoterChange, VoterError};
use crate::wire::calls::{Kind, Levels};
use crate::wire::encode;

/// Why a command has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// It was refused as a whole. Definite: nothing changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Another node leads the quorum. Definite: nothing changed.
    #[error("this controller does not lead the quorum (leader: {leader:?})")]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
    /// It may have been carried out, or be carried out yet. Read the image linearizably, or submit
    /// the same command again.
    #[error("the outcome of the command is unknown")]
    Unknown,
    /// The disk of the quorum's store is full, and the command would make it grow. Definite: nothing changed. It may
    /// succeed once there is room.
    #[error("the disk of the metadata is full")]
    NoSpace,
    /// The controller has ended. Definite: nothing changed.
    #[error("the controller has ended")]
    Ended,
}

/// A cheap clone that stands for the controller: whichever member of the quorum leads, in this process or in another.
#[derive(Debug, Clone)]
pub struct ControllerHandle {
    pub(crate) router: Arc<Router>,
    pub(crate) images: watch::Receiver<Arc<Image>>,
}

/// The queue of the member in this process.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    pub(crate) queue: mpsc::Sender<Queued>,
    pub(crate) budget: Arc<Semaphore>,
    pub(crate) quorum: Quorum,
    /// The way to the other members. None in a quorum of one that has no control listener.
    pub(crate) peers: Option<Peers>,
    /// What the voters understand, as they said when that mattered last.
    pub(crate) understanding: Arc<Mutex<Understanding>>,
}

/// How long a voter may take to say what it understands.
const HELLO_WITHIN: Duration = Duration::from_millis(500);
/// How long the successor of a leader that ends has to say that it was told.
const CAMPAIGN_WITHIN: Duration = Duration::from_millis(500);
/// How long it may take until the one that handed over leads no more.
const YIELD_WITHIN: Duration = Duration::from_secs(3);

/// Bytes that queued commands may take together.
pub(crate) const QUEUE_BYTES: usize = 32 << 20;
/// How many commands may be queued.
pub(crate) const QUEUE_COMMANDS: usize = 4096;

impl Local {
    /// Has a command carried out if this member leads. Returns after it was applied here. Waits while the queue is full.
    pub(crate) async fn submit(&self, command: Command) -> Result<Outcome, SubmitError> {
        self.learn_levels(&command).await;
        let bytes = command.weight().clamp(1, QUEUE_BYTES) as u32;
        let permit = Arc::clone(&self.budget).acquire_many_owned(bytes).await.map_err(|_| SubmitError::Ended)?;
        let (answer, answered) = oneshot::channel();
        self.queue.send(Queued { command, answer, permit }).await.map_err(|_| SubmitError::Ended)?;
        // The task answers whatever it takes; if it is gone, so may be our command with it.
        answered.await.unwrap_or(Err(SubmitError::Unknown))
    }

    /// Asks the voters which metadata they understand, if `command` may change what is written. Brokers say so when they register;
    /// a controller need not be one.
    async fn learn_levels(&self, command: &Command) {
        let Some(peers) = &self.peers else { return };
        let matters = match command {
            Command::UpdateFeatures(_) => true,
            Command::RegisterBroker(_) => peers.identity.images.borrow().level() < NEWEST_LEVEL,
            _ => false,
        };
        if !matters || self.quorum.term_if_leader().is_none() {
            return;
        }
        let view = self.quorum.view();
        let others = view.voters.into_iter().chain(view.observers).filter(|other| other.id != peers.identity.id);
        let asked = others.map(|other| async move {
            let hello = (Kind::Hello, encode(&Levels::OWN));
            (other.id, peers.ask(&other.address, Some(other.id), hello, HELLO_WITHIN).await)
        });
        let mut learned = Understanding::default();
        for (id, answer) in futures::future::join_all(asked).await {
            match answer.map(|answer| Levels::of(&answer.body)) {
                Ok(levels) if levels.newest < NEWEST_LEVEL => _ = learned.older.insert(id, levels.newest),
                Ok(_) => {}
                Err(_) => _ = learned.silent.insert(id),
            }
        }
        *self.understanding.lock() = learned;
    }

    /// Changes the voters if this member leads. Which disk a new one has is looked at anew, and that of one that was removed
    /// is forgotten.
    pub(crate) async fn change_voters(&self, change: VoterChange) -> Result<(), VoterError> {
        let unbind = |id| self.submit(Command::BindVoter { id, directory: DirectoryId::UNASSIGNED });
        match change {
            VoterChange::Add { id, .. } => {
                if self.quorum.voters().iter().any(|(voter, _)| *voter == id) {
                    return Err(VoterError::Duplicate);
                }
                // It fails where nothing can be bound at all, and then nothing was.
                let _ = unbind(id).await;
                self.quorum.change_voters(change).await
            }
            VoterChange::Remove { id, directory } if self.is_leader(id) => {
                self.quorum.removable(id, directory)?;
                // Whoever leads next removes it: nobody has to miss a leader that is gone with its own removal.
                self.hand_over().await;
                let _ = tokio::time::timeout(YIELD_WITHIN, self.quorum.leads_no_more()).await;
                Err(VoterError::NoLeader)
            }
            VoterChange::Remove { id, .. } => {
                self.quorum.change_voters(change).await?;
                let _ = unbind(id).await;
                Ok(())
            }
            VoterChange::Move { .. } => self.quorum.change_voters(change).await,
        }
    }

    fn is_leader(&self, id: NodeId) -> bool {
        let own = self.peers.as_ref().map(|peers| peers.identity.id);
        own == Some(id) && self.quorum.term_if_leader().is_some()
    }

    /// Hands the lead of the quorum over to another member, if this one has it and there is another.
    pub(crate) async fn hand_over(&self) {
        let Some(peers) = &self.peers else {
            return;
        };
        let call = |id, address: String| async move {
            let campaign = peers.ask(&address, Some(id), (Kind::Campaign, Bytes::new()), CAMPAIGN_WITHIN);
            if let Err(error) = campaign.await {
                tracing::debug!(%error, successor = %id, "the quorum elects by itself");
            }
        };
        self.quorum.hand_over(call).await;
    }
}

/// Submits a command and takes the outcome of its name.
macro_rules! answer {
    ($handle:expr, $command:expr, $outcome:ident) => {
        answer!($handle, $command, SUBMIT_WITHIN, $outcome)
    };
    ($handle:expr, $command:expr, $within:expr, $outcome:ident) => {
        match $handle.submit_within($command, $within).await? {
            Outcome::$outcome(answer) => Ok(answer),
            other => unreachable!("decide answers each command with the outcome of its name, not with {other:?}"),
        }
    };
}

impl ControllerHandle {
    /// Has a command carried out. Returns after it was applied here, so that [`Self::image`] shows
    /// it. Waits while the queue is full, and for as long as [`SUBMIT_WITHIN`] for a leader.
    pub async fn submit(&self, command: Command) -> Result<Outcome, SubmitError> {
        self.submit_within(command, SUBMIT_WITHIN).await
    }

    /// [`Self::submit`] that gives up after `within`: with [`SubmitError::NotLeader`] if no leader was found, with
    /// [`SubmitError::Unknown`] if one was asked and has not answered. The only member of a quorum answers however long it
    /// takes.
    pub async fn submit_within(&self, command: Command, within: Duration) -> Result<Outcome, SubmitError> {
        self.router.submit(command, within).await
    }

    /// Returns when [`Self::image`] shows metadata offset `offset`: the one of the next record is at least that.
    pub async fn caught_up(&self, offset: u64) {
        self.router.caught_up(offset).await;
    }

    /// The newest image applied here.
    pub fn image(&self) -> Arc<Image> {
        Arc::clone(&self.images.borrow())
    }

    /// Follows the image. Intermediate ones may be skipped.
    pub fn watch(&self) -> watch::Receiver<Arc<Image>> {
        self.images.clone()
    }

    /// An image that shows everything that was answered to anyone before this call.
    pub async fn read_linearizable(&self) -> Result<Arc<Image>, SubmitError> {
        self.router.read_linearizable(SUBMIT_WITHIN).await?;
        Ok(self.image())
    }

    /// Greets all controllers that are known. Fails with one line if one of them says that this node does not belong to
    /// it: another cluster, another disk than the one its id is known with, another version. Who does not answer within
    /// `within` does not count.
    pub async fn introduce(&self, within: Duration) -> Result<(), StartError> {
        self.router.introduce(within).await.map_err(StartError)
    }

    /// Opens a link to the leader of the quorum, over which this broker is to say that it lives. To be opened anew when it
    /// has ended. There is none in a quorum of one without a control listener.
    pub async fn session(&self, within: Duration) -> Result<SessionLink, SubmitError> {
        self.router.session(within).await
    }

    /// The quorum as the member in this process sees it; nothing without one.
    pub fn quorum(&self) -> QuorumView {
        self.router.local.as_ref().map(|local| local.quorum.view()).unwrap_or_default()
    }

    /// The quorum as its leader sees it. If there is none within `within`, as the member in this process does.
    pub async fn describe_quorum(&self, within: Duration) -> QuorumView {
        self.router.describe(within).await
    }

    /// What brokers carry, as far as they have told the leader of the quorum. None if it cannot be asked within `within`, or
    /// nobody has to tell: in a quorum of one without a control listener.
    pub async fn loads(&self, within: Duration) -> Option<Loads> {
        self.router.loads(within).await
    }

    /// Changes the voters of the quorum. One change at a time; it may take as long as a new voter takes to catch up.
    pub async fn change_voters(&self, change: VoterChange, within: Duration) -> Result<(), VoterError> {
        self.router.change_voters(change, within).await
    }

    /// See [`Command::FormCluster`]. Returns the cluster's id.
    pub async fn form_cluster(&self, form: FormCluster) -> Result<String, SubmitError> {
        answer!(self, Command::FormCluster(form), FormCluster)
    }

    /// See [`Command::RegisterBroker`]. Returns the broker's epoch.
    pub async fn register_broker(&self, broker: RegisterBroker) -> Result<i64, SubmitError> {
        answer!(self, Command::RegisterBroker(broker), RegisterBroker)
    }

    /// See [`Command::SetBrokerState`].
    pub async fn set_broker_state(&self, state: SetBrokerState) -> Result<(), SubmitError> {
        self.submit(Command::SetBrokerState(state)).await.map(drop)
    }

    /// See [`Command::CreateTopics`]. Answers in the order asked.
    pub async fn create_topics(&self, create: CreateTopics) -> Result<Vec<Result<CreatedTopic, Refusal>>, SubmitError> {
        answer!(self, Command::CreateTopics(create), CreateTopics)
    }

    /// See [`Command::DeleteTopics`]. Answers in the order asked.
    pub async fn delete_topics(
        &self,
        delete: DeleteTopics,
    ) -> Result<Vec<Result<(TopicId, String), Refusal>>, SubmitError> {
        answer!(self, Command::DeleteTopics(delete), DeleteTopics)
    }

    /// See [`Command::CreatePartitions`]. Answers in the order asked.
    pub async fn create_partitions(&self, create: CreatePartitions) -> Result<Vec<Result<(), Refusal>>, SubmitError> {
        answer!(self, Command::CreatePartitions(create), CreatePartitions)
    }

    /// See [`Command::AlterConfigs`]. Answers in the order asked.
    pub async fn alter_configs(&self, alter: AlterConfigs) -> Result<Vec<Result<(), Refusal>>, SubmitError> {
        answer!(self, Command::AlterConfigs(alter), AlterConfigs)
    }

    /// See [`Command::AllocateProducerIds`].
    pub async fn allocate_producer_ids(
        &self,
        broker: NodeId,
        broker_epoch: i64,
    ) -> Result<ProducerIdBlock, SubmitError> {
        answer!(self, Command::AllocateProducerIds { broker, broker_epoch }, AllocateProducerIds)
    }

    /// See [`Command::CommitTier`]. Answers in the order asked.
    pub async fn commit_tier(
        &self,
        commits: Vec<TierCommit>,
    ) -> Result<Vec<Result<Arc<TierPointer>, TierRefusal>>, SubmitError> {
        answer!(self, Command::CommitTier(commits), CommitTier)
    }

    /// See [`Command::DeleteRecords`]. Answers in the order asked.
    pub async fn delete_records(
        &self,
        deletes: Vec<DeleteRecords>,
    ) -> Result<Vec<Result<Arc<TierPointer>, Refusal>>, SubmitError> {
        answer!(self, Command::DeleteRecords(deletes), DeleteRecords)
    }

    /// See [`Command::AlterPartitions`]. Answers in the order asked.
    pub async fn alter_partitions(&self, alter: AlterPartitions) -> Result<Vec<Result<(), Refusal>>, SubmitError> {
        answer!(self, Command::AlterPartitions(alter), AlterPartitions)
    }

    /// See [`Command::AlterReassignments`]. Answers in the order asked.
    pub async fn alter_reassignments(
        &self,
        alter: AlterReassignments,
    ) -> Result<Vec<Result<(), Refusal>>, SubmitError> {
        answer!(self, Command::AlterReassignments(alter), AlterReassignments)
    }

    /// [`Self::alter_reassignments`] that gives up after `within`, as [`Self::submit_within`].
    pub async fn alter_reassignments_within(
        &self,
        alter: AlterReassignments,
        within: Duration,
    ) -> Result<Vec<Result<(), Refusal>>, SubmitError> {
        answer!(self, Command::AlterReassignments(alter), within, AlterReassignments)
    }

    /// See [`Command::AssignDirectories`]. Answers in the order asked.
    pub async fn assign_directories(&self, assign: AssignDirectories) -> Result<Vec<Result<(), Refusal>>, SubmitError> {
        answer!(self, Command::AssignDirectories(assign), AssignDirectories)
    }

    /// See [`Command::UnregisterBroker`].
    pub async fn unregister_broker(&self, id: NodeId) -> Result<(), SubmitError> {
        self.submit(Command::UnregisterBroker(id)).await.map(drop)
    }

    /// See [`Command::SetShare`].
    pub async fn set_share(&self, id: NodeId, share: Share) -> Result<(), SubmitError> {
        self.submit(Command::SetShare { id, share }).await.map(drop)
    }

    /// See [`Command::UpdateFeatures`]. Answers in the order asked.
    pub async fn update_features(&self, update: UpdateFeatures) -> Result<Vec<Result<(), Refusal>>, SubmitError> {
        answer!(self, Command::UpdateFeatures(update), UpdateFeatures)
    }

    /// See [`Command::ElectLeaders`].
    pub async fn elect_leaders(
        &self,
        elect: ElectLeaders,
    ) -> Result<Vec<(TopicPartition, Result<(), Refusal>)>, SubmitError> {
        answer!(self, Command::ElectLeaders(elect), ElectLeaders)
    }

    /// [`Self::elect_leaders`] that gives up after `within`, as [`Self::submit_within`].
    pub async fn elect_leaders_within(
        &self,
        elect: ElectLeaders,
        within: Duration,
    ) -> Result<Vec<(TopicPartition, Result<(), Refusal>)>, SubmitError> {
        answer!(self, Command::ElectLeaders(elect), within, ElectLeaders)
    }
}
