//! A registered broker's life in its cluster: it says again and again that it lives, and hears what the leader of the
//! quorum makes of it.
//!
//! A node that is its own quorum has nobody to tell; it only says which data directories are left when one fails.

use super::load::Meter;
use crate::api::services::Services;
use controller::command::{BrokerState, SetBrokerState};
use controller::session::{Beat, BeatReply, Want};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// After this, a failed data directory is reported again if the controller could not be told.
const REPORT_AGAIN: Duration = Duration::from_secs(1);
/// Pause before a leader is looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A broker that waits to be let in says so after this, the next time after twice as long, and so on.
const TELL_FIRST: Duration = Duration::from_secs(5);
/// So often at least.
const TELL_AT_LEAST: Duration = Duration::from_secs(300);
/// Clocks that differ by more are worth a warning (five minutes): retention and sweeping go by them.
const CLOCKS_APART_MS: i64 = 5 * 60 * 1000;

/// What the leader of the quorum makes of this broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// It does not serve, or must not.
    pub(super) fenced: bool,
    /// It leads nothing that another could lead.
    pub(super) may_stop: bool,
    /// Another process took its place, or it was taken out of the cluster: it has no business here any more.
    pub(super) replaced: bool,
    /// What it said it wants when this was said.
    pub(super) want: Want,
    /// Whether a leader of the quorum has said so: none was heard otherwise.
    heard: bool,
    /// Whether it knows what it has to know before it may serve.
    caught_up: bool,
}

impl Standing {
    /// Before anything was heard.
    const UNKNOWN: Standing =
        Standing { fenced: true, may_stop: false, replaced: false, want: Want::Serve, heard: false, caught_up: false };

    /// What a broker that may not serve yet waits for, and what to do about it.
    const fn lack(&self) -> &'static str {
        match (self.heard, self.caught_up) {
            (false, _) => {
                "no leader of the metadata quorum hears this broker: see whether most controllers run and can be reached \
                 from here (firn cluster status at another broker, or their logs)"
            }
            (true, false) => {
                "the metadata do not come, or are slow to be applied: see whether the controllers can be reached from here, \
                 and whether the disks of this broker are slow"
            }
            (true, true) => {
                "the quorum does not agree on it: see whether most controllers run and reach each other, and \
                 whether their disks are full"
            }
        }
    }
}

/// What a broker wants, and what it is granted.
#[derive(Debug, Clone)]
pub(super) struct Life {
    want: watch::Sender<Want>,
    standing: watch::Sender<Standing>,
    /// Whether the clock of this machine agrees with that of the quorum's leader, as far as is known.
    clock: Arc<AtomicBool>,
}

impl Life {
    /// A broker that wants to serve.
    pub(super) fn new() -> Life {
        Life {
            want: watch::Sender::new(Want::Serve),
            standing: watch::Sender::new(Standing::UNKNOWN),
            clock: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Whether the clock of this machine agrees with that of the quorum's leader, from now on.
    pub(super) fn clock(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.clock)
    }

    /// Waits until the quorum's leader lets the broker serve. `tell` is told after a while, and then more and more rarely, for how
    /// long that has lasted and what is lacking.
    pub(super) async fn granted(&self, mut tell: impl FnMut(Duration, &'static str)) {
        let (begun, mut pause) = (Instant::now(), TELL_FIRST);
        loop {
            let granted = self.until(|standing| !standing.fenced || standing.replaced);
            if tokio::time::timeout(pause, granted).await.is_ok() {
                return;
            }
            tell(begun.elapsed(), self.standing.borrow().lack());
            pause = (pause * 2).min(TELL_AT_LEAST);
        }
    }

    /// Whether the broker has no business here any more.
    pub(super) fn is_replaced(&self) -> bool {
        self.standing.borrow().replaced
    }

    /// Resolves when the broker has no business here any more.
    pub(super) async fn replaced(&self) {
        self.until(|standing| standing.replaced).await;
    }

    /// Asks for others to lead what this broker leads, and waits until they do, `within` at most. Answers whether they do.
    pub(super) async fn hand_over(&self, within: Duration) -> bool {
        self.want.send_replace(Want::ShutDown);
        let may_stop = self.until(|standing| standing.may_stop && standing.want == Want::ShutDown);
        tokio::time::timeout(within, may_stop).await.is_ok()
    }

    /// Says that the broker has stopped, and waits, `within` at most, until that was heard.
    pub(super) async fn stopped(&self, within: Duration) {
        self.want.send_replace(Want::Stopped);
        let heard = self.until(|standing| standing.want == Want::Stopped);
        let _ = tokio::time::timeout(within, heard).await;
    }

    async fn until(&self, is_so: impl FnMut(&Standing) -> bool) {
        // The sender is held here: it does not end.
        let _ = self.standing.subscribe().wait_for(is_so).await;
    }

    /// Beats every `interval` until `stop` is cancelled, over one link after the other.
    pub(super) async fn beat(self, services: Arc<Services>, interval: Duration, stop: CancellationToken) {
        let beating = async {
            let mut meter = Meter::default();
            loop {
                self.beat_to_one(&services, &mut meter, interval).await;
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = beating => {}
        }
    }

    /// Beats to one leader, until it leads no more.
    async fn beat_to_one(&self, services: &Services, meter: &mut Meter, interval: Duration) {
        let mut link = match services.controller.session(interval).await {
            Ok(link) => link,
            Err(error) => {
                tracing::debug!(%error, "no leader of the quorum to report to");
                return;
            }
        };
        let mut failures = services.partitions.directory_failures();
        let mut wants = self.want.subscribe();
        let mut applied = services.applied.clone();
        // A new leader knows nothing of them.
        let mut told = None;
        meter.forget_told();
        loop {
            failures.mark_unchanged();
            let online = services.partitions.online_directories();
            let want = *wants.borrow_and_update();
            let beat = Beat {
                id: services.node_id,
                epoch: services.broker_epoch,
                applied: *applied.borrow_and_update(),
                want,
                directories: (told.as_ref() != Some(&online)).then(|| online.clone()),
                load: meter.tell(services),
                wall: services.clock.now_ms(),
            };
            // One that was stopped or cut off says nothing; by then there may be another leader.
            let Ok(Some(reply)) = tokio::time::timeout(interval * 2, link.beat(&beat)).await else { return };
            told = Some(online);
            self.heard(services, want, reply);
            let behind = reply.fenced && want == Want::Serve;
            tokio::select! {
                biased;
                _ = wants.changed() => {}
                _ = failures.changed() => {}
                // What it waits for: to be let in as soon as it knows enough.
                _ = applied.changed(), if behind => {}
                () = link.ended() => return,
                () = tokio::time::sleep(if behind { interval.min(LOOK_AGAIN) } else { interval }) => {}
            }
        }
    }

    fn heard(&self, services: &Services, want: Want, reply: BeatReply) {
        let BeatReply { fenced, may_stop, stale, leader_wall, caught_up } = reply;
        let apart = services.clock.now_ms().saturating_sub(leader_wall);
        let is_sound = apart.abs() <= CLOCKS_APART_MS;
        if self.clock.swap(is_sound, Ordering::Relaxed) && !is_sound {
            tracing::warn!(
                seconds = apart / 1000,
                "the clock of this machine differs from that of the quorum's leader: retention and sweeping pause"
            );
        }
        let standing = Standing { fenced, may_stop, replaced: stale, want, heard: true, caught_up };
        self.standing.send_if_modified(|before| std::mem::replace(before, standing) != standing);
    }
}

/// Tells the controller which data directories are left when one fails: nobody leads what lies in it (KIP-858).
pub(super) async fn report_directories(services: Arc<Services>, stop: CancellationToken) {
    let mut failures = services.partitions.directory_failures();
    loop {
        failures.mark_unchanged();
        let online = services.partitions.online_directories();
        let image = services.controller.image();
        let mut told = image.broker(services.node_id).is_some_and(|broker| broker.directories == online);
        if !told {
            let state = SetBrokerState {
                id: services.node_id,
                broker_epoch: services.broker_epoch,
                state: BrokerState::Active,
                directories: Some(online),
            };
            let outcome = services.controller.set_broker_state(state).await;
            told = outcome.is_ok();
            if let Err(error) = outcome {
                tracing::error!(%error, "the controller does not know of a failed data directory yet");
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(REPORT_AGAIN), if !told => {}
            changed = failures.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_to_be_let_in_says_what_for_and_more_and_more_rarely() {
        let life = Life::new();
        let mut told = Vec::new();
        let waiting = life.granted(|after, lack| told.push((after.as_secs(), lack)));
        let quorum = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            life.standing.send_replace(Standing { heard: true, ..Standing::UNKNOWN });
            tokio::time::sleep(Duration::from_secs(2000)).await;
            life.standing.send_replace(Standing { fenced: false, ..Standing::UNKNOWN });
        };
        tokio::join!(waiting, quorum);
        let after: Vec<u64> = told.iter().map(|(after, _)| *after).collect();
        assert_eq!(after, [5, 15, 35, 75, 155, 315, 615, 915, 1215, 1515, 1815]);
        assert!(told[1].1.starts_with("no leader of the metadata quorum"), "{told:?}");
        assert!(told[2].1.starts_with("the metadata do not come"), "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_let_in_at_once_says_nothing() {
        let life = Life::new();
        life.standing.send_replace(Standing { fenced: false, ..Standing::UNKNOWN });
        life.granted(|_, lack| panic!("{lack}")).await;
    }
}
