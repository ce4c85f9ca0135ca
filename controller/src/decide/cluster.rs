//! The cluster as a whole: its id, the levels of its features, its duties and the disks of its voters.

use proto::ids::{DirectoryId, NodeId};
use proto::metadata::{Duty, FEATURE, Image, MetadataRecord, NEWEST_LEVEL};

use super::Draft;
use super::policy::Understanding;
use crate::command::{
    Direction, FeatureUpdate, FinishDeletions, FormCluster, Mode, Outcome, PRODUCER_ID_BLOCK, ProducerIdBlock, Refusal,
    UpdateFeatures,
};

/// Feature that stock clients look at; its level says which of Kafka's records there could be, and is what it is.
const METADATA_VERSION: &str = "metadata.version";

pub(super) fn form(draft: &mut Draft<'_>, form: &FormCluster) -> Outcome {
    if let Some(cluster_id) = draft.image.cluster_id() {
        return Outcome::FormCluster(cluster_id.to_owned());
    }
    draft.push(MetadataRecord::ClusterFormed { cluster_id: form.cluster_id.clone() });
    for (name, level) in &form.features {
        if draft.image.feature(name) != *level {
            draft.push(MetadataRecord::FeatureSet { name: name.clone(), level: *level });
        }
    }
    Outcome::FormCluster(form.cluster_id.clone())
}

pub(super) fn allocate_producer_ids(draft: &mut Draft<'_>) -> Outcome {
    let first = draft.image.next_producer_id();
    // 2^63 ids at a thousand a time are never used up; a saturated counter would hand out no id twice
    // only because the block would be empty.
    let next = first.saturating_add(PRODUCER_ID_BLOCK);
    draft.push(MetadataRecord::ProducerIdsAllocated { next });
    Outcome::AllocateProducerIds(ProducerIdBlock { first, count: next - first })
}

/// All or none, as in Kafka since KIP-1022.
pub(super) fn update_features(draft: &mut Draft<'_>, update: &UpdateFeatures) -> Outcome {
    let check = |update| check_update(&draft.image, &draft.policy.controllers, update);
    let answers: Vec<_> = update.updates.iter().map(check).collect();
    if update.mode == Mode::Commit && answers.iter().all(Result::is_ok) {
        for FeatureUpdate { name, level, .. } in &update.updates {
            if draft.image.feature(name) != *level {
                draft.push(MetadataRecord::FeatureSet { name: name.clone(), level: *level });
            }
        }
    }
    Outcome::UpdateFeatures(answers)
}

fn check_update(image: &Image, controllers: &Understanding, update: &FeatureUpdate) -> Result<(), Refusal> {
    let FeatureUpdate { name, level, direction } = update;
    let current = image.feature(name);
    let refuse = |why: String| Err(Refusal::FeatureUpdateFailed(why));
    if *level == current {
        return Ok(());
    }
    if name == METADATA_VERSION {
        return refuse(format!("{METADATA_VERSION} is {current} in every cluster of this kind and does not change."));
    }
    if name != FEATURE {
        return refuse(format!("The controller does not support the feature {name}."));
    }
    if !(0..=NEWEST_LEVEL).contains(level) {
        return refuse(format!("The controller understands levels 0 to {NEWEST_LEVEL} of {FEATURE}, not {level}."));
    }
    match direction {
        Direction::Upgrade if *level < current => {
            return refuse(format!("Can't downgrade {FEATURE} from {current} to {level} without a downgrade type."));
        }
        Direction::SafeDowngrade | Direction::UnsafeDowngrade if *level > current => {
            return refuse(format!("Can't raise {FEATURE} from {current} to {level} with a downgrade type."));
        }
        Direction::Upgrade | Direction::SafeDowngrade | Direction::UnsafeDowngrade => {}
    }
    if let Some(why) = controllers.objection(*level).filter(|_| *level > current) {
        return refuse(why);
    }
    if let Some(broker) = image.brokers().find(|broker| !broker.supports(name, *level)) {
        return refuse(format!("Broker {} does not understand level {level} of {FEATURE}.", broker.id));
    }
    if *level < current && image.to_records().any(|record| record.level() > *level) {
        return refuse(format!("There are metadata records that level {level} of {FEATURE} cannot say."));
    }
    Ok(())
}

pub(super) fn assign_duties(draft: &mut Draft<'_>, duties: &[(Duty, NodeId)]) -> Result<Outcome, Refusal> {
    draft.needs_level(1)?;
    let mut epochs = Vec::new();
    for (duty, node) in duties {
        if draft.image.duty(*duty).is_none_or(|(has, _)| has != *node) {
            let epoch = draft.image.duty_epoch(*duty).saturating_add(1);
            draft.push(MetadataRecord::DutyAssigned { duty: *duty, node: Some(*node), epoch });
        }
        epochs.push(draft.image.duty_epoch(*duty));
    }
    Ok(Outcome::AssignDuties(epochs))
}

pub(super) fn finish_deletions(draft: &mut Draft<'_>, finish: &FinishDeletions) -> Result<Outcome, Refusal> {
    let (asked, current) = (finish.duty_epoch, draft.image.duty_epoch(Duty::Sweeper));
    if asked != current {
        return Err(Refusal::StaleDuty { asked, current });
    }
    for id in &finish.topics {
        if draft.image.pending_delete(*id).is_some() {
            draft.push(MetadataRecord::DeletionFinished { id: *id });
        }
    }
    Ok(Outcome::FinishDeletions)
}

pub(super) fn bind_voter(draft: &mut Draft<'_>, id: NodeId, directory: DirectoryId) -> Result<Outcome, Refusal> {
    let bound = draft.image.voter(id);
    match bound {
        Some(known) if known == directory => return Ok(Outcome::BindVoter),
        Some(known) if directory != DirectoryId::UNASSIGNED => return Err(Refusal::VoterBound { id, known }),
        None if directory == DirectoryId::UNASSIGNED => return Ok(Outcome::BindVoter),
        Some(_) | None => {}
    }
    draft.needs_level(1)?;
    draft.push(MetadataRecord::VoterBound { id, directory });
    Ok(Outcome::BindVoter)
}
