//! The one map from what may fail inside to Kafka's error codes. No wildcard: a new failure does not compile until its
//! code is chosen here. (What is wrong with a batch has its own: `BatchError::code`.)

use crate::partition::types::{AckError, AppendError, ReadError};
use controller::{Refusal, SubmitError};
use proto::errors::ErrorCode;
use std::time::Duration;

/// The longest that a change may take (`controller.socket.timeout.ms`).
const LONGEST: Duration = Duration::from_secs(30);

/// Why a batch was not appended.
pub(super) fn append_code(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::NotLeader => ErrorCode::NotLeaderOrFollower,
        AppendError::FencedLeaderEpoch { .. } => ErrorCode::FencedLeaderEpoch,
        AppendError::UnknownLeaderEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
        AppendError::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
        AppendError::Offline | AppendError::DiskFull => ErrorCode::KafkaStorageError,
        AppendError::Deleted => ErrorCode::UnknownTopicOrPartition,
        AppendError::InvalidProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
        AppendError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        AppendError::InvalidTxnState { .. } => ErrorCode::InvalidTxnState,
        AppendError::CoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
        AppendError::OutOfOrderOffset { .. } | AppendError::Mismatch => ErrorCode::UnknownServerError,
        AppendError::Corrupt(error) => error.code(),
    }
}

/// Why an appended batch is not acknowledged.
pub(super) fn ack_code(error: AckError) -> ErrorCode {
    match error {
        AckError::Offline => ErrorCode::KafkaStorageError,
        AckError::NotLeader => ErrorCode::NotLeaderOrFollower,
        AckError::Deleted => ErrorCode::UnknownTopicOrPartition,
    }
}

/// Why nothing can be read.
pub(super) fn read_code(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::NotLeader => ErrorCode::NotLeaderOrFollower,
        ReadError::FencedLeaderEpoch { .. } => ErrorCode::FencedLeaderEpoch,
        ReadError::UnknownLeaderEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
        ReadError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::OffsetNotAvailable => ErrorCode::OffsetNotAvailable,
        ReadError::Offline | ReadError::Busy | ReadError::Corrupt(_) => ErrorCode::KafkaStorageError,
        ReadError::Deleted => ErrorCode::UnknownTopicOrPartition,
    }
}

/// Why the controller refused.
pub(super) fn refusal_code(refusal: &Refusal) -> ErrorCode {
    match refusal {
        Refusal::InvalidTopicName(_) | Refusal::TopicCollides { .. } => ErrorCode::InvalidTopicException,
        Refusal::TopicExists(_) => ErrorCode::TopicAlreadyExists,
        Refusal::UnknownTopic => ErrorCode::UnknownTopicOrPartition,
        Refusal::UnknownTopicId => ErrorCode::UnknownTopicId,
        Refusal::InvalidPartitions(_) => ErrorCode::InvalidPartitions,
        Refusal::InvalidReplicationFactor(_) => ErrorCode::InvalidReplicationFactor,
        Refusal::InvalidReplicaAssignment(_) => ErrorCode::InvalidReplicaAssignment,
        Refusal::InvalidRequest(_) => ErrorCode::InvalidRequest,
        Refusal::InvalidConfig(_) => ErrorCode::InvalidConfig,
        Refusal::TooMany(_) => ErrorCode::PolicyViolation,
        Refusal::BrokerNotRegistered(_) => ErrorCode::BrokerIdNotRegistered,
        Refusal::StaleBrokerEpoch { .. } => ErrorCode::StaleBrokerEpoch,
        Refusal::FencedLeaderEpoch { .. } => ErrorCode::FencedLeaderEpoch,
        Refusal::InvalidUpdateVersion => ErrorCode::InvalidUpdateVersion,
        Refusal::IneligibleReplica(_) => ErrorCode::IneligibleReplica,
        Refusal::ElectionNotNeeded => ErrorCode::ElectionNotNeeded,
        Refusal::PreferredLeaderNotAvailable => ErrorCode::PreferredLeaderNotAvailable,
        Refusal::EligibleLeadersNotAvailable => ErrorCode::EligibleLeadersNotAvailable,
        Refusal::DuplicateBroker { .. } => ErrorCode::DuplicateBrokerRegistration,
        Refusal::UnsupportedVersion(_) => ErrorCode::UnsupportedVersion,
        Refusal::FeatureUpdateFailed(_) => ErrorCode::FeatureUpdateFailed,
        Refusal::NoReassignmentInProgress => ErrorCode::NoReassignmentInProgress,
        Refusal::UnknownLeaderEpoch { .. } => ErrorCode::NotController,
        Refusal::StaleDuty { .. } => ErrorCode::InvalidRequest,
        Refusal::VoterBound { .. } => ErrorCode::DuplicateVoter,
    }
}

/// How long a change may take whose client says in how many milliseconds it is to be done: not longer than any other, and as long as
/// any other where that is no time.
pub(super) fn patience(timeout_ms: i32) -> Duration {
    let asked = u64::try_from(timeout_ms).ok().filter(|ms| *ms > 0);
    asked.map_or(LONGEST, Duration::from_millis).min(LONGEST)
}

/// The code for a change that was to be done within a time: that no leader of the quorum was found in it means that it is over.
pub(super) fn late_code(error: &SubmitError) -> ErrorCode {
    match error {
        SubmitError::NotLeader { .. } => ErrorCode::RequestTimedOut,
        SubmitError::Refused(_) | SubmitError::Unknown | SubmitError::NoSpace | SubmitError::Ended => {
            submit_code(error)
        }
    }
}

/// Why a command has no outcome. Unknown ends as a time-out: the client asks again, and commands may be repeated.
pub(super) fn submit_code(error: &SubmitError) -> ErrorCode {
    match error {
        SubmitError::Refused(refusal) => refusal_code(refusal),
        SubmitError::NotLeader { .. } => ErrorCode::NotController,
        SubmitError::Unknown => ErrorCode::RequestTimedOut,
        SubmitError::NoSpace => ErrorCode::KafkaStorageError,
        SubmitError::Ended => ErrorCode::NotController,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_waits_for_is_bounded_by_what_it_says() {
        let ms = Duration::from_millis;
        assert_eq!([250, 30_000, i32::MAX, 0, -1].map(patience), [ms(250), LONGEST, LONGEST, LONGEST, LONGEST]);
        assert_eq!(late_code(&SubmitError::NotLeader { leader: None }), ErrorCode::RequestTimedOut);
        assert_eq!(late_code(&SubmitError::Refused(Refusal::ElectionNotNeeded)), ErrorCode::ElectionNotNeeded);
    }
}
