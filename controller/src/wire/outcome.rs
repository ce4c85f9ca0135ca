//! Outcomes of commands, and why there is none, in bytes.

use std::sync::Arc;

use proto::durable_struct;
use proto::metadata::{DecodeError, Durable, TierPointer};

use super::calls::Hint;
use super::durable_union;
use crate::command::{CreatedTopic, Outcome, ProducerIdBlock, Refusal, TierRefusal};

/// What the leader says of a command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// It was carried out.
    Done {
        /// Metadata offset of an image that shows it.
        offset: u64,
        /// Its outcome.
        outcome: Outcome,
    },
    /// It was refused as a whole.
    Refused(Refusal),
    /// The one asked does not lead the quorum.
    NotLeader(Option<Hint>),
    /// It may have been carried out.
    Unknown,
    /// The disk of the leader's metadata is full.
    NoSpace,
    /// The leader is about to end.
    Ended,
}

durable_union!(
    Answer {
        1 = Done { offset, outcome },
        2 = Refused(refusal),
        3 = NotLeader(leader),
        4 = Unknown,
        5 = NoSpace,
        6 = Ended,
    }
    Refusal {
        1 = InvalidTopicName(why),
        2 = TopicExists(name),
        3 = TopicCollides { name, existing },
        4 = UnknownTopic,
        5 = UnknownTopicId,
        6 = InvalidPartitions(why),
        7 = InvalidReplicationFactor(why),
        8 = InvalidReplicaAssignment(why),
        9 = InvalidRequest(why),
        10 = InvalidConfig(why),
        11 = TooMany(why),
        12 = BrokerNotRegistered(id),
        13 = StaleBrokerEpoch { asked, current },
        14 = FencedLeaderEpoch { asked, current },
        15 = InvalidUpdateVersion,
        16 = IneligibleReplica(id),
        17 = ElectionNotNeeded,
        18 = PreferredLeaderNotAvailable,
        19 = EligibleLeadersNotAvailable,
        20 = DuplicateBroker { id, address },
        21 = UnsupportedVersion(why),
        22 = FeatureUpdateFailed(why),
        23 = NoReassignmentInProgress,
        24 = UnknownLeaderEpoch { asked, current },
        25 = StaleDuty { asked, current },
        26 = VoterBound { id, known },
    }
);

durable_struct!(
    CreatedTopic { id, name, partitions, replication_factor }
    ProducerIdBlock { first, count }
);

impl Durable for TierRefusal {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Stale(pointer) => {
                1u64.put(out);
                pointer.is_some().put(out);
                if let Some(pointer) = pointer {
                    pointer.put(out);
                }
            }
            Self::Fenced { asked, current } => {
                2u64.put(out);
                asked.put(out);
                current.put(out);
            }
            Self::Gone => 3u64.put(out),
            Self::Invalid(_) => 4u64.put(out),
        }
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(match u64::take(input)? {
            1 => Self::Stale(<Option<TierPointer> as Durable>::take(input)?.map(Arc::new)),
            2 => Self::Fenced { asked: Durable::take(input)?, current: Durable::take(input)? },
            3 => Self::Gone,
            // A defect of the committer: which one, the log of the controller says.
            4 => Self::Invalid("it breaks an invariant that the controller names in its log"),
            number => return Err(DecodeError::UnknownVariant { what: "refusal of a tier pointer", number }),
        })
    }
}

impl Durable for Outcome {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::FormCluster(id) => numbered(1, id, out),
            Self::RegisterBroker(epoch) => numbered(2, epoch, out),
            Self::SetBrokerState => 3u64.put(out),
            Self::CreateTopics(answers) => put_results(4, answers, CreatedTopic::put, out),
            Self::DeleteTopics(answers) => put_results(5, answers, Durable::put, out),
            Self::CreatePartitions(answers) => put_units(6, answers, out),
            Self::AlterConfigs(answers) => put_units(7, answers, out),
            Self::AllocateProducerIds(block) => numbered(8, block, out),
            Self::CommitTier(answers) => put_results(9, answers, |pointer, out| pointer.put(out), out),
            Self::DeleteRecords(answers) => put_results(10, answers, |pointer, out| pointer.put(out), out),
            Self::AlterPartitions(answers) => put_units(11, answers, out),
            Self::ElectLeaders(answers) => {
                let answers: Vec<_> = answers.iter().map(|(tp, answer)| (*tp, answer.clone().err())).collect();
                numbered(12, &answers, out);
            }
            Self::FinishDeletions => 13u64.put(out),
            Self::AlterReassignments(answers) => put_units(14, answers, out),
            Self::AssignDirectories(answers) => put_units(15, answers, out),
            Self::UnregisterBroker => 16u64.put(out),
            Self::SetShare => 17u64.put(out),
            Self::UpdateFeatures(answers) => put_units(18, answers, out),
            Self::BindVoter => 19u64.put(out),
            Self::AssignDuties(epochs) => numbered(20, epochs, out),
            Self::Sweep(elections) => numbered(21, elections, out),
        }
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let pointer = |input: &mut &[u8]| TierPointer::take(input).map(Arc::new);
        Ok(match u64::take(input)? {
            1 => Self::FormCluster(Durable::take(input)?),
            2 => Self::RegisterBroker(Durable::take(input)?),
            3 => Self::SetBrokerState,
            4 => Self::CreateTopics(take_results(input, CreatedTopic::take)?),
            5 => Self::DeleteTopics(take_results(input, Durable::take)?),
            6 => Self::CreatePartitions(take_units(input)?),
            7 => Self::AlterConfigs(take_units(input)?),
            8 => Self::AllocateProducerIds(Durable::take(input)?),
            9 => Self::CommitTier(take_results(input, pointer)?),
            10 => Self::DeleteRecords(take_results(input, pointer)?),
            11 => Self::AlterPartitions(take_units(input)?),
            12 => {
                let answers = Vec::<(_, Option<Refusal>)>::take(input)?;
                Self::ElectLeaders(answers.into_iter().map(|(tp, refusal)| (tp, unit(refusal))).collect())
            }
            13 => Self::FinishDeletions,
            14 => Self::AlterReassignments(take_units(input)?),
            15 => Self::AssignDirectories(take_units(input)?),
            16 => Self::UnregisterBroker,
            17 => Self::SetShare,
            18 => Self::UpdateFeatures(take_units(input)?),
            19 => Self::BindVoter,
            20 => Self::AssignDuties(Durable::take(input)?),
            21 => Self::Sweep(Durable::take(input)?),
            number => return Err(DecodeError::UnknownVariant { what: "outcome of a command", number }),
        })
    }
}

fn numbered(number: u64, value: &impl Durable, out: &mut Vec<u8>) {
    number.put(out);
    value.put(out);
}

fn put_results<T, R: Durable>(
    number: u64,
    answers: &[Result<T, R>],
    put: impl Fn(&T, &mut Vec<u8>),
    out: &mut Vec<u8>,
) {
    number.put(out);
    (answers.len() as u64).put(out);
    for answer in answers {
        answer.is_ok().put(out);
        match answer {
            Ok(value) => put(value, out),
            Err(refusal) => refusal.put(out),
        }
    }
}

fn take_results<T, R: Durable>(
    input: &mut &[u8],
    take: impl Fn(&mut &[u8]) -> Result<T, DecodeError>,
) -> Result<Vec<Result<T, R>>, DecodeError> {
    let mut answers = Vec::new();
    for _ in 0..u64::take(input)? {
        answers.push(if bool::take(input)? { Ok(take(input)?) } else { Err(R::take(input)?) });
    }
    Ok(answers)
}

/// Answers that say nothing if they are good.
fn put_units(number: u64, answers: &[Result<(), Refusal>], out: &mut Vec<u8>) {
    let refusals: Vec<Option<Refusal>> = answers.iter().map(|answer| answer.clone().err()).collect();
    numbered(number, &refusals, out);
}

fn take_units(input: &mut &[u8]) -> Result<Vec<Result<(), Refusal>>, DecodeError> {
    Ok(Vec::<Option<Refusal>>::take(input)?.into_iter().map(unit).collect())
}

fn unit(refusal: Option<Refusal>) -> Result<(), Refusal> {
    refusal.map_or(Ok(()), Err)
}
