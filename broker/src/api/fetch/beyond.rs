//! Offsets beyond the end of a log, which only a leader may call out of range, and only while it leads.
//!
//! A broker that was cut off from the quorum does not know that others lead by now, and that their logs went on. A consumer that has read
//! there and comes back here, be it that it was told old metadata, would be sent to the beginning or the end of the log by its
//! `auto.offset.reset`, and read everything twice or miss some. Clients that say a leader epoch with their fetch (KIP-320) are told apart
//! by it; for the others the quorum is asked. That is rare, and nobody else waits for it.

use super::super::services::Services;
use super::engine::{Found, Target, failed};
use crate::partition::types::Offsets;
use proto::errors::ErrorCode;
use proto::ids::{NodeId, Offset};
use proto::metadata::Image;
use std::time::Duration;

/// The quorum answers within so long, or the client is told to ask again.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Makes sure of what is called out of range: the error stays where this broker leads for certain. Elsewhere the client is told to look for
/// the leader.
pub(super) async fn confirm(services: &Services, targets: &[Target], found: &mut [Found]) {
    let doubtful = |target: &Target, found: &Found| {
        found.error == ErrorCode::OffsetOutOfRange
            && target.partition.as_ref().is_ok_and(|partition| is_beyond(target.wanted.offset, &partition.offsets()))
    };
    if !targets.iter().zip(found.iter()).any(|(target, found)| doubtful(target, found)) {
        return;
    }
    let image = tokio::time::timeout(ANSWERS_WITHIN, services.controller.read_linearizable()).await;
    let image = image.ok().and_then(Result::ok);
    for (target, found) in targets.iter().zip(found) {
        if doubtful(target, found) && !image.as_ref().is_some_and(|image| has_all(image, services.node_id, target)) {
            // Whom the image named that the fetch began with is as old as the doubt.
            *found = Found { leader: None, ..failed(ErrorCode::NotLeaderOrFollower, target) };
        }
    }
}

/// Whether an offset lies beyond what is here. What lies before the start is gone whoever leads, as a start never goes back; what lies
/// between it and the local start is for the remote tier to say.
fn is_beyond(offset: Offset, log: &Offsets) -> bool {
    offset >= log.log_start && offset >= log.local_start
}

/// Whether the log here, which ends before the wanted offset or never had the epoch it was read in, is all there is: this broker leads,
/// as a newest image says.
fn has_all(image: &Image, node: NodeId, target: &Target) -> bool {
    let Ok(partition) = &target.partition else { return false };
    let here = partition.leadership();
    let state = image.partition(partition.tp());
    let never_was = target.wanted.last_fetched_epoch > here.epoch;
    here.leads
        && state.is_some_and(|state| state.leader == Some(node) && state.leader_epoch == here.epoch)
        && (never_was || target.wanted.offset > partition.offsets().log_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_would_be_local_can_be_beyond_the_end() {
        let log = Offsets {
            log_start: 10,
            local_start: 50,
            tier_end: 70,
            synced_end: 100,
            high_watermark: 90,
            last_stable: 90,
            log_end: 100,
        };
        let beyond = [9, 10, 49, 50, 101].map(|offset| is_beyond(offset, &log));
        assert_eq!(beyond, [false, false, false, true, true]);
    }
}
