//! `decide`: a command, on an image, becomes records and an answer, or a refusal.
//!
//! Pure and deterministic. It changes nothing: what it returns is applied by `Image::apply` once the
//! quorum has agreed, here and everywhere. A command of many items decides each on the image as the
//! items before it leave it.

mod brokers;
mod configs;
mod names;
mod partitions;
mod placement;
mod tier;
mod topics;

#[cfg(test)]
mod tests;

use proto::ids::Millis;
use proto::metadata::{Image, MetadataRecord};

use crate::command::{Command, FormCluster, Outcome, PRODUCER_ID_BLOCK, ProducerIdBlock, Refusal};

pub use names::check_topic_name;

/// Partitions that one command may create.
pub const MAX_PARTITIONS_PER_COMMAND: usize = 10_000;
/// Partitions that a cluster may have: what the image takes in memory has a bound.
pub const MAX_PARTITIONS: u64 = 200_000;

/// What a command comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// To be applied in this order. May be empty.
    pub records: Vec<MetadataRecord>,
    /// The answer, true as soon as the records are applied.
    pub outcome: Outcome,
}

/// Decides `command` on `image` at the controller's time `now`.
pub fn decide(image: &Image, command: &Command, now: Millis) -> Result<Decision, Refusal> {
    let mut draft = Draft::new(image, now);
    let outcome = match command {
        Command::FormCluster(form) => form_cluster(&mut draft, form),
        Command::RegisterBroker(broker) => brokers::register(&mut draft, broker),
        Command::SetBrokerState(change) => brokers::set_state(&mut draft, change)?,
        Command::CreateTopics(create) => topics::create(&mut draft, create)?,
        Command::DeleteTopics(delete) => topics::delete(&mut draft, delete),
        Command::CreatePartitions(create) => topics::create_partitions(&mut draft, create)?,
        Command::AlterConfigs(alter) => configs::alter(&mut draft, alter),
        Command::AllocateProducerIds { broker, broker_epoch } => {
            brokers::check_epoch(&draft.image, *broker, *broker_epoch)?;
            allocate_producer_ids(&mut draft)
        }
        Command::CommitTier(commits) => tier::commit(&mut draft, commits),
        Command::DeleteRecords(deletes) => tier::delete_records(&mut draft, deletes),
        Command::AlterPartitions(alter) => partitions::alter(&mut draft, alter)?,
        Command::ElectLeaders(elect) => partitions::elect(&mut draft, elect),
        Command::FinishDeletions(topics) => {
            for id in topics {
                if draft.image.pending_delete(*id).is_some() {
                    draft.push(MetadataRecord::DeletionFinished { id: *id });
                }
            }
            Outcome::FinishDeletions
        }
    };
    Ok(Decision { records: draft.records, outcome })
}

/// Records decided so far, and the image as they leave it.
struct Draft {
    image: Image,
    records: Vec<MetadataRecord>,
    now: Millis,
}

impl Draft {
    fn new(image: &Image, now: Millis) -> Self {
        Self { image: image.clone(), records: Vec::new(), now }
    }

    /// Decides `record`, less what older members of the cluster could not read of it.
    fn push(&mut self, record: MetadataRecord) {
        let Some(record) = record.at_level(self.image.level()) else {
            debug_assert!(false, "a command that needs a record is refused where the record cannot be written");
            return;
        };
        self.image.apply(&record);
        self.records.push(record);
    }
}

fn form_cluster(draft: &mut Draft, form: &FormCluster) -> Outcome {
    if draft.image.cluster_id().is_none() {
        draft.push(MetadataRecord::ClusterFormed { cluster_id: form.cluster_id.clone() });
    }
    for (name, level) in &form.features {
        if draft.image.feature(name) != *level {
            draft.push(MetadataRecord::FeatureSet { name: name.clone(), level: *level });
        }
    }
    let cluster_id = draft.image.cluster_id().unwrap_or(&form.cluster_id).to_owned();
    Outcome::FormCluster(cluster_id)
}

fn allocate_producer_ids(draft: &mut Draft) -> Outcome {
    let first = draft.image.next_producer_id();
    // 2^63 ids at a thousand a time are never used up; a saturated counter would hand out no id twice
    // only because the block would be empty.
    let next = first.saturating_add(PRODUCER_ID_BLOCK);
    draft.push(MetadataRecord::ProducerIdsAllocated { next });
    Outcome::AllocateProducerIds(ProducerIdBlock { first, count: next - first })
}
