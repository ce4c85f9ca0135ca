//! A timer of the kernel's, for schedules finer than the runtime's millisecond, waited for on a thread of its own.
//!
//! That thread does nothing else, so how late it wakes is how long the machine kept it from running.

use crate::cli::client::ClientError;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Wakes at a fixed interval.
pub(super) struct Pace {
    beats: mpsc::Receiver<Result<Duration, Errno>>,
}

impl Pace {
    /// Needs a runtime, on whose blocking pool it waits until it is dropped.
    pub(super) fn every(interval: Duration) -> Result<Pace, ClientError> {
        let timer = timer(interval).map_err(failed)?;
        // One beat waits at most: who is slower than the timer is told of the latest.
        let (sender, beats) = mpsc::channel(1);
        tokio::task::spawn_blocking(move || beat(&timer, interval, &sender));
        Ok(Pace { beats })
    }

    /// Waits for the next beat; answers how much later than due it came.
    pub(super) async fn tick(&mut self) -> Result<Duration, ClientError> {
        match self.beats.recv().await {
            Some(late) => late.map_err(failed),
            None => Err(failed(Errno::CANCELED)),
        }
    }
}

fn timer(interval: Duration) -> Result<OwnedFd, Errno> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
    let seconds = i64::try_from(interval.as_secs()).map_err(|_| Errno::INVAL)?;
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(interval.subsec_nanos()) };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: time, it_value: time })?;
    Ok(timer)
}

fn beat(timer: &OwnedFd, interval: Duration, to: &mpsc::Sender<Result<Duration, Errno>>) {
    let mut last = Instant::now();
    let mut late = Duration::ZERO;
    loop {
        let beat = match rustix::io::read(timer, &mut [0; 8]) {
            Ok(_) => {
                let now = Instant::now();
                late = late.max(now.duration_since(last).saturating_sub(interval));
                last = now;
                Ok(late)
            }
            Err(Errno::INTR) => continue,
            Err(errno) => Err(errno),
        };
        match to.try_send(beat) {
            Ok(()) if beat.is_err() => return,
            Ok(()) => late = Duration::ZERO,
            Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Closed(_)) => return,
        }
    }
}

fn failed(errno: Errno) -> ClientError {
    ClientError::Other(format!("the timer failed: {errno}"))
}
