//! One round of one partition: settle what is in doubt, expire, upload, sweep.

use proto::ids::Millis;

use super::context::Context;
use super::error::RoundError;
use super::lane::Lane;
use super::settle::Step;
use crate::plan::{self, Urgency};
use crate::ports::{LocalState, PointerError};

/// What a round came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Something changed: look again at once.
    Moved,
    /// Nothing is to do now.
    Idle,
    /// The partition is no more.
    Gone,
    /// Try again after a wait.
    Failed(RoundError),
}

impl Context {
    /// Whether a round would do anything now.
    pub(super) fn due(&self, lane: &Lane, local: Option<&LocalState>, now: Millis) -> bool {
        // What lies further ahead than any wait was planned by a clock that was set back since.
        let longest = self.config.backoff.cap.as_millis() as Millis;
        if lane.not_before > now && lane.not_before <= now.saturating_add(longest) {
            return false;
        }
        // By a clock that is off nothing is deleted: a round for that would find nothing to do, again and again.
        let is_sound = self.pointers.clock_is_sound();
        if is_sound && lane.doomed.iter().any(|doomed| doomed.due <= now) {
            return true;
        }
        let Some(local) = local.filter(|local| local.is_leader) else { return lane.in_doubt.is_some() };
        lane.in_doubt.is_some()
            || lane.epoch != Some(local.leader_epoch)
            || self.expiry_due(lane, local, now)
            || plan::upload(local, &lane.pointer, now, lane.urgency()).is_some()
            || (is_sound && lane.sweep_due <= now)
    }

    /// Runs a round. It may be dropped at any await: what it did so far is found again.
    pub(super) async fn round(&self, lane: &mut Lane) -> Outcome {
        let ended = Box::pin(self.steps(lane)).await;
        self.troubles.lock().remove(&lane.tp);
        match ended {
            Ok(outcome) => {
                lane.failures = 0;
                lane.last_error = None;
                outcome
            }
            Err(RoundError::Pointer(PointerError::Gone)) => Outcome::Gone,
            Err(error) => {
                lane.failures += 1;
                lane.last_error = Some(error.to_string());
                let wait = self.config.backoff.wait(lane.failures, &*self.entropy);
                lane.not_before = self.clock.now_ms() + wait.as_millis() as Millis;
                Outcome::Failed(error)
            }
        }
    }

    async fn steps(&self, lane: &mut Lane) -> Result<Outcome, RoundError> {
        let now = self.clock.now_ms();
        let local = self.locals.state(lane.tp).filter(|local| local.is_leader);
        let elected = local.as_ref().is_some_and(|local| lane.epoch != Some(local.leader_epoch));
        if let (true, Some(local)) = (elected, &local) {
            // POINTED, FENCED: nothing is planned on a pointer read before the election.
            lane.epoch = Some(local.leader_epoch);
            match self.pointers.read_fresh(lane.tp).await {
                Ok(pointer) => lane.learn(pointer),
                Err(error) => {
                    lane.epoch = None;
                    return Err(error.into());
                }
            }
            lane.sweep_due = now;
        }
        self.resolve(lane).await?;
        let Some(local) = local.filter(|_| lane.epoch.is_some()) else {
            self.delete_doomed(lane, now).await;
            return Ok(Outcome::Idle);
        };
        if let Some(pointer) = self.pointers.current(lane.tp) {
            lane.learn(pointer);
        }
        if self.expiry_due(lane, &local, now) && self.expire(lane, &local, now).await? {
            return Ok(Outcome::Moved);
        }
        // Before uploads: what they wait for may be the room that this makes.
        self.delete_doomed(lane, now).await;
        if let Some(range) = plan::upload(&local, &lane.pointer, now, lane.urgency()) {
            let entries = self.upload(lane, &local, range).await?;
            self.settle(lane, &local, Step::Append(entries)).await?;
            return Ok(Outcome::Moved);
        }
        if lane.sweep_due <= now && self.pointers.clock_is_sound() {
            self.sweep(lane, &local, now).await;
        }
        Ok(Outcome::Idle)
    }
}

impl Lane {
    pub(super) fn urgency(&self) -> Urgency {
        match self.flush_to {
            Some(target) if self.pointer.tier_end < target => Urgency::Now,
            _ => Urgency::WhenDue,
        }
    }
}
