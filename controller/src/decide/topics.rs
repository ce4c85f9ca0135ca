//! Topics: created, grown, deleted.

use std::collections::BTreeMap;

use proto::ids::{NodeId, TopicId, TopicPartition};
use proto::metadata::{ConfigResource, Image, MetadataRecord, Topic};

use super::names::check_topic_name;
use super::placement::{Ring, check_manual, new_partition};
use super::policy::MIN_IN_SYNC;
use super::{Draft, MAX_PARTITIONS, MAX_PARTITIONS_PER_COMMAND};
use crate::command::{
    CreatePartitions, CreateTopics, CreatedTopic, DeleteTopics, Mode, NewPartitions, NewTopic, Outcome, Refusal,
    Shortage, TopicSelector,
};

pub(super) fn create(draft: &mut Draft<'_>, create: &CreateTopics) -> Result<Outcome, Refusal> {
    let asked: usize = create.topics.iter().map(|topic| partitions_asked(create, topic)).sum();
    check_room(&draft.image, asked)?;

    let ring = Ring::new(&draft.image);
    let times = occurrences(create.topics.iter().map(|topic| topic.name.as_str()));
    let kept = draft.records.len();
    let image = draft.image.clone();
    let answers = create
        .topics
        .iter()
        .map(|topic| {
            if times.get(topic.name.as_str()).is_some_and(|times| *times > 1) {
                return Err(Refusal::InvalidRequest("Duplicate topic name.".to_owned()));
            }
            create_one(draft, &ring, create, topic)
        })
        .collect();
    if create.mode == Mode::Validate {
        draft.records.truncate(kept);
        draft.image = image;
    }
    Ok(Outcome::CreateTopics(answers))
}

fn partitions_asked(create: &CreateTopics, topic: &NewTopic) -> usize {
    if !topic.assignments.is_empty() {
        return topic.assignments.len();
    }
    let count = if topic.partitions == -1 { create.default_partitions } else { topic.partitions };
    usize::try_from(count).unwrap_or(0)
}

/// Refuses what would make the image, or one raft entry, too large.
fn check_room(image: &Image, more: usize) -> Result<(), Refusal> {
    if more > MAX_PARTITIONS_PER_COMMAND {
        return Err(Refusal::TooMany(format!(
            "Excessively large number of partitions per request: {more}, at most {MAX_PARTITIONS_PER_COMMAND} are allowed"
        )));
    }
    if image.partition_count() + more as u64 > MAX_PARTITIONS {
        return Err(Refusal::TooMany(format!(
            "The cluster has {} partitions, {more} more would be over its limit of {MAX_PARTITIONS}",
            image.partition_count()
        )));
    }
    Ok(())
}

fn occurrences<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut times = BTreeMap::new();
    for name in names {
        *times.entry(name).or_insert(0) += 1;
    }
    times
}

fn create_one(
    draft: &mut Draft<'_>,
    ring: &Ring,
    create: &CreateTopics,
    topic: &NewTopic,
) -> Result<CreatedTopic, Refusal> {
    check_topic_name(&topic.name).map_err(Refusal::InvalidTopicName)?;
    if let Some(existing) = draft.image.topic_named(&topic.name) {
        // Asked a second time after an unknown outcome: it was done.
        if existing.id == topic.id {
            return Ok(created(existing));
        }
        return Err(Refusal::TopicExists(topic.name.clone()));
    }
    if let Some(existing) = draft.image.topic_colliding_with(&topic.name) {
        return Err(Refusal::TopicCollides { name: topic.name.clone(), existing: existing.name.to_string() });
    }
    if topic.id.is_zero() || draft.image.topic(topic.id).is_some() {
        return Err(Refusal::InvalidRequest("The topic id is not a new one.".to_owned()));
    }
    let replicas =
        if topic.assignments.is_empty() { placed(draft, ring, create, topic)? } else { assigned(&draft.image, topic)? };

    check_min_in_sync(topic, &replicas)?;

    draft.push(MetadataRecord::TopicCreated { id: topic.id, name: topic.name.clone(), created_at: draft.now });
    let resource = ConfigResource::topic(&topic.name);
    for (key, value) in &topic.configs {
        draft.push(MetadataRecord::ConfigSet {
            resource: resource.clone(),
            key: key.clone(),
            value: Some(value.clone()),
        });
    }
    push_partitions(draft, topic.id, 0, replicas);
    let topic = draft.image.topic(topic.id).expect("its record was just applied");
    Ok(created(topic))
}

/// Refuses a topic that says itself that it needs more replicas in sync than it has. (A cluster-wide setting is clamped.)
fn check_min_in_sync(topic: &NewTopic, replicas: &[Vec<NodeId>]) -> Result<(), Refusal> {
    let factor = replicas.iter().map(Vec::len).min().unwrap_or(0);
    let says_factor = topic.replication_factor != -1 || !topic.assignments.is_empty();
    let required = topic.configs.get(MIN_IN_SYNC).and_then(|value| value.trim().parse().ok());
    match required {
        Some(required) if says_factor && topic.shortage == Shortage::Refuse => more_than_replicas(required, factor),
        Some(_) | None => Ok(()),
    }
}

/// Refuses `required` replicas in sync of `factor`.
pub(super) fn more_than_replicas(required: usize, factor: usize) -> Result<(), Refusal> {
    if required <= factor {
        return Ok(());
    }
    Err(Refusal::InvalidConfig(format!(
        "{MIN_IN_SYNC} is {required}, but there are only {factor} replica(s): records could never be acknowledged with acks=all"
    )))
}

fn created(topic: &Topic) -> CreatedTopic {
    CreatedTopic {
        id: topic.id,
        name: topic.name.to_string(),
        partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
        replication_factor: topic
            .partitions
            .first()
            .map_or(0, |state| i16::try_from(state.replicas.len()).unwrap_or(i16::MAX)),
    }
}

/// Replicas of a topic that leaves them to the controller.
fn placed(
    draft: &Draft<'_>,
    ring: &Ring,
    create: &CreateTopics,
    topic: &NewTopic,
) -> Result<Vec<Vec<NodeId>>, Refusal> {
    let partitions = match topic.partitions {
        -1 => create.default_partitions,
        count => count,
    };
    let Some(partitions) = usize::try_from(partitions).ok().filter(|count| *count > 0) else {
        return Err(Refusal::InvalidPartitions(
            "Number of partitions was set to an invalid non-positive value.".to_owned(),
        ));
    };
    let factor = match topic.replication_factor {
        -1 => create.default_replication_factor,
        factor => factor,
    };
    let Some(factor) = usize::try_from(factor).ok().filter(|factor| *factor > 0) else {
        return Err(Refusal::InvalidReplicationFactor(
            "Replication factor must be larger than 0, or -1 for the default.".to_owned(),
        ));
    };
    let factor = match topic.shortage {
        Shortage::Refuse => factor,
        Shortage::Shrink => factor.min(ring.len()).max(1),
    };
    ring.check(factor)?;
    let start = draft.image.partition_count() as usize;
    Ok((start..start + partitions).map(|number| ring.replicas(number, factor)).collect())
}

/// Replicas of a topic that says them itself.
fn assigned(image: &Image, topic: &NewTopic) -> Result<Vec<Vec<NodeId>>, Refusal> {
    if topic.replication_factor != -1 {
        return Err(Refusal::InvalidRequest(
            "A manual partition assignment was specified, but replication factor was not set to -1.".to_owned(),
        ));
    }
    if topic.partitions != -1 {
        return Err(Refusal::InvalidRequest(
            "A manual partition assignment was specified, but numPartitions was not set to -1.".to_owned(),
        ));
    }
    let contiguous = topic.assignments.keys().copied().eq((0..).take(topic.assignments.len()));
    if !contiguous {
        return Err(Refusal::InvalidReplicaAssignment(
            "Partitions should be a consecutive 0-based integer sequence.".to_owned(),
        ));
    }
    let replicas: Vec<_> = topic.assignments.values().cloned().collect();
    check_all_manual(image, &replicas, replicas.first().map_or(0, Vec::len))?;
    Ok(replicas)
}

fn check_all_manual(image: &Image, replicas: &[Vec<NodeId>], factor: usize) -> Result<(), Refusal> {
    for replicas in replicas {
        check_manual(image, replicas)?;
        if replicas.len() != factor {
            return Err(Refusal::InvalidReplicaAssignment(format!(
                "The manual partition assignment includes a partition with {} replica(s), but others have {factor}.",
                replicas.len()
            )));
        }
    }
    Ok(())
}

fn push_partitions(draft: &mut Draft<'_>, topic: TopicId, first: usize, replicas: Vec<Vec<NodeId>>) {
    for (index, replicas) in (first..).zip(replicas) {
        let partition = i32::try_from(index).expect("bounded by the partitions of a cluster");
        let number = draft.image.partition_count() as usize;
        let state = new_partition(&draft.image, replicas, number);
        let tp = TopicPartition::new(topic, partition);
        draft.push(MetadataRecord::PartitionSet { tp, state });
    }
}

pub(super) fn delete(draft: &mut Draft<'_>, delete: &DeleteTopics) -> Outcome {
    let answers = delete
        .topics
        .iter()
        .map(|selector| {
            let (topic, unknown) = match selector {
                TopicSelector::Id(id) => (draft.image.topic(*id), Refusal::UnknownTopicId),
                TopicSelector::Name(name) => (draft.image.topic_named(name), Refusal::UnknownTopic),
            };
            let topic = topic.ok_or(unknown)?;
            let (id, name) = (topic.id, topic.name.to_string());
            draft.push(MetadataRecord::TopicDeleted { id, deleted_at: draft.now });
            Ok((id, name))
        })
        .collect();
    Outcome::DeleteTopics(answers)
}

pub(super) fn create_partitions(draft: &mut Draft<'_>, create: &CreatePartitions) -> Result<Outcome, Refusal> {
    let asked = create
        .topics
        .iter()
        .map(|topic| {
            let has = draft.image.topic_named(&topic.name).map_or(0, |t| t.partitions.len());
            usize::try_from(topic.count).unwrap_or(0).saturating_sub(has)
        })
        .fold(0usize, usize::saturating_add);
    check_room(&draft.image, asked)?;

    let ring = Ring::new(&draft.image);
    let times = occurrences(create.topics.iter().map(|topic| topic.name.as_str()));
    let kept = draft.records.len();
    let image = draft.image.clone();
    let answers = create
        .topics
        .iter()
        .map(|topic| {
            if times.get(topic.name.as_str()).is_some_and(|times| *times > 1) {
                return Err(Refusal::InvalidRequest("Duplicate topic name.".to_owned()));
            }
            grow(draft, &ring, topic)
        })
        .collect();
    if create.mode == Mode::Validate {
        draft.records.truncate(kept);
        draft.image = image;
    }
    Ok(Outcome::CreatePartitions(answers))
}

fn grow(draft: &mut Draft<'_>, ring: &Ring, more: &NewPartitions) -> Result<(), Refusal> {
    let topic = draft.image.topic_named(&more.name).ok_or(Refusal::UnknownTopic)?;
    let id = topic.id;
    let has = topic.partitions.len();
    let factor = topic.partitions.first().map_or(1, |state| state.replicas.len() - state.removing.len());
    let count = usize::try_from(more.count).unwrap_or(0);
    if count == has {
        return Err(Refusal::InvalidPartitions(format!("Topic already has {has} partition(s).")));
    }
    if count < has {
        return Err(Refusal::InvalidPartitions(format!(
            "The topic {} currently has {has} partition(s); {} would not be an increase.",
            more.name, more.count
        )));
    }
    let added = count - has;
    let replicas = match &more.assignments {
        Some(assignments) => {
            if assignments.len() != added {
                return Err(Refusal::InvalidReplicaAssignment(format!(
                    "Attempted to add {added} additional partition(s), but {} assignment(s) were specified.",
                    assignments.len()
                )));
            }
            check_all_manual(&draft.image, assignments, factor)?;
            assignments.clone()
        }
        None => {
            ring.check(factor)?;
            let start = draft.image.partition_count() as usize;
            (start..start + added).map(|number| ring.replicas(number, factor)).collect()
        }
    };
    push_partitions(draft, id, has, replicas);
    Ok(())
}
