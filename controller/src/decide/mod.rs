//! `decide`: a command, on an image, becomes records and an answer, or a refusal.
//!
//! Pure and deterministic. It changes nothing: what it returns is applied by `Image::apply` once the
//! quorum has agreed, here and everywhere. A command of many items decides each on the image as the
//! items before it leave it.

mod brokers;
mod change;
mod cluster;
mod configs;
mod names;
mod partitions;
mod placement;
mod policy;
mod reassign;
mod tier;
mod topics;

#[cfg(test)]
mod tests;

use proto::ids::Millis;
use proto::metadata::{FEATURE, FeatureRange, Image, MetadataRecord, NEWEST_LEVEL};

use crate::command::{Command, Outcome, Refusal};

pub(crate) use change::can_lead as can_take_over;
pub use names::check_topic_name;
pub use policy::{Flush, Policy, Understanding};

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

/// Features this Firn understands, as a broker tells when it registers.
pub fn supported_features() -> Vec<FeatureRange> {
    vec![FeatureRange { name: FEATURE.to_owned(), min: 0, max: NEWEST_LEVEL }]
}

/// Decides `command` on `image` at the controller's time `now`.
pub fn decide(image: &Image, command: &Command, now: Millis, policy: &Policy) -> Result<Decision, Refusal> {
    let mut draft = Draft { image: image.clone(), records: Vec::new(), now, policy };
    let outcome = match command {
        Command::FormCluster(form) => cluster::form(&mut draft, form),
        Command::RegisterBroker(broker) => brokers::register(&mut draft, broker)?,
        Command::SetBrokerState(change) => brokers::set_state(&mut draft, change)?,
        Command::UnregisterBroker(id) => brokers::unregister(&mut draft, *id)?,
        Command::SetShare { id, share } => brokers::set_share(&mut draft, *id, *share)?,
        Command::CreateTopics(create) => topics::create(&mut draft, create)?,
        Command::DeleteTopics(delete) => topics::delete(&mut draft, delete),
        Command::CreatePartitions(create) => topics::create_partitions(&mut draft, create)?,
        Command::AlterConfigs(alter) => configs::alter(&mut draft, alter),
        Command::AllocateProducerIds { broker, broker_epoch } => {
            brokers::check_epoch(&draft.image, *broker, *broker_epoch)?;
            cluster::allocate_producer_ids(&mut draft)
        }
        Command::CommitTier(commits) => tier::commit(&mut draft, commits),
        Command::DeleteRecords(deletes) => tier::delete_records(&mut draft, deletes),
        Command::AlterPartitions(alter) => partitions::alter(&mut draft, alter)?,
        Command::AssignDirectories(assign) => partitions::assign_directories(&mut draft, assign)?,
        Command::ElectLeaders(elect) => partitions::elect(&mut draft, elect),
        Command::Sweep(elections) => partitions::sweep(&mut draft, *elections),
        Command::AlterReassignments(alter) => reassign::alter(&mut draft, alter)?,
        Command::FinishDeletions(finish) => cluster::finish_deletions(&mut draft, finish)?,
        Command::UpdateFeatures(update) => cluster::update_features(&mut draft, update),
        Command::AssignDuties(duties) => cluster::assign_duties(&mut draft, duties)?,
        Command::BindVoter { id, directory } => cluster::bind_voter(&mut draft, *id, *directory)?,
    };
    Ok(Decision { records: draft.records, outcome })
}

/// Records decided so far, and the image as they leave it.
struct Draft<'a> {
    image: Image,
    records: Vec<MetadataRecord>,
    now: Millis,
    policy: &'a Policy,
}

impl Draft<'_> {
    /// Refuses what can only be said at `level` of the feature [`FEATURE`] or above.
    fn needs_level(&self, level: i16) -> Result<(), Refusal> {
        if self.image.level() >= level {
            return Ok(());
        }
        Err(Refusal::UnsupportedVersion(format!(
            "the cluster is at level {} of the feature {FEATURE}; this needs level {level}",
            self.image.level()
        )))
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
