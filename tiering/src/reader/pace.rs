//! How far ahead of a consumer to download: its speed times the store's first-byte latency.

use std::collections::VecDeque;
use std::time::Duration;

/// Bounds of one stream's window and GETs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSettings {
    /// The very first GET of a stream: small, so that the first record is not kept waiting.
    pub first_get: u64,
    /// Window of a stream that has been read once.
    pub first_window: u64,
    /// Least window of a stream that has proved to be read in sequence.
    pub steady_window: u64,
    /// Greatest window.
    pub max_window: u64,
    /// Least size of a GET that runs ahead.
    pub min_get: u64,
    /// Greatest size of a GET.
    pub max_get: u64,
}

impl Default for WindowSettings {
    fn default() -> Self {
        Self {
            first_get: 256 << 10,
            first_window: 1 << 20,
            steady_window: 8 << 20,
            max_window: 96 << 20,
            min_get: 2 << 20,
            max_get: 4 << 20,
        }
    }
}

/// What a GET costs beside the first-byte latency until its bytes are of use: the window has to
/// cover that too.
const TRANSFER: Duration = Duration::from_millis(5);
/// Shortest time between two reads that is believed.
const LEAST_PAUSE: Duration = Duration::from_millis(1);
/// First-byte latencies remembered. The least of them counts: the others wait in our own queue, and
/// a window that grows with them would only lengthen it.
const LATENCIES: usize = 8;
/// Bytes read in sequence after which the steady window is granted.
const PROVED: u64 = 2 << 20;

/// Observes one consumer and the store, answers with a window.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    latencies: VecDeque<Duration>,
    /// Bytes per second the consumer takes when data is at hand.
    demand: u64,
    /// Bytes served in sequence.
    served: u64,
    last: Option<(Duration, u64)>,
}

impl Pace {
    /// `latency`: what the store showed to others, if known.
    pub(super) fn new(latency: Option<Duration>) -> Self {
        Self { latencies: latency.into_iter().collect(), demand: 0, served: 0, last: None }
    }

    /// The first byte of a GET came after `latency`.
    pub(super) fn first_byte(&mut self, latency: Duration) {
        if self.latencies.len() == LATENCIES {
            self.latencies.pop_front();
        }
        self.latencies.push_back(latency);
    }

    /// The consumer came back for more.
    pub(super) fn asked(&mut self, now: Duration) {
        let Some((at, bytes)) = self.last.take() else {
            return;
        };
        let pause = now.saturating_sub(at).max(LEAST_PAUSE);
        let speed = rate(bytes, pause);
        self.demand = speed.max((self.demand / 4) * 3 + speed / 4);
    }

    /// The consumer was given `bytes`.
    pub(super) fn served(&mut self, now: Duration, bytes: u64) {
        self.served += bytes;
        self.last = Some((now, bytes));
    }

    /// Whether anything was served yet.
    pub(super) fn is_proven(&self) -> bool {
        self.served > 0
    }

    /// Bytes to have ahead of the consumer, downloaded or on their way.
    pub(super) fn window(&self, settings: &WindowSettings) -> u64 {
        if self.served == 0 {
            return settings.first_window;
        }
        let latency = self.latencies.iter().min().copied().unwrap_or_default();
        // Twice that: while as much is waited for, as much shares the bandwidth on its way in.
        let wanted = during(self.demand, latency + TRANSFER).saturating_mul(2);
        let floor = if self.served >= PROVED { settings.steady_window } else { settings.first_window * 2 };
        // Trust grows with what was read; the longer a round trip, the dearer is one spent on
        // growing, the cheaper (in comparison) bytes that nobody comes to read.
        let trust = 8 + u64::try_from(latency.as_millis()).unwrap_or(u64::MAX) * 4 / 5;
        let ceiling = settings.max_window.min(self.served.saturating_mul(trust)).max(settings.first_window);
        wanted.max(floor).min(ceiling)
    }
}

fn rate(bytes: u64, time: Duration) -> u64 {
    let micros = time.as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

fn during(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_micros() / 1_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn nobody_is_trusted_at_first() {
        let pace = Pace::new(Some(ms(100)));
        assert_eq!(pace.window(&WindowSettings::default()), MIB);
    }

    #[test]
    fn the_window_is_speed_times_latency() {
        let mut pace = Pace::new(None);
        pace.first_byte(ms(100));
        pace.first_byte(ms(300));
        pace.served(ms(100), MIB);
        pace.asked(ms(110));
        // 1 MiB in 10 ms, for 105 ms, twice.
        let window = pace.window(&WindowSettings::default());
        assert_eq!(window / 1024, 21_504);
    }

    #[test]
    fn a_slow_consumer_gets_the_steady_window_only() {
        let mut pace = Pace::new(Some(ms(5)));
        for second in 0..4 {
            pace.asked(ms(1000 * second));
            pace.served(ms(1000 * second), MIB);
        }
        pace.asked(ms(4000));
        assert_eq!(pace.window(&WindowSettings::default()), 8 * MIB);
    }

    #[test]
    fn growth_is_bounded_by_what_was_read() {
        let mut pace = Pace::new(Some(ms(0)));
        pace.served(ms(0), 256 << 10);
        pace.asked(ms(0));
        assert_eq!(pace.window(&WindowSettings::default()), 2 * MIB);
    }

    #[test]
    fn a_slower_consumer_shrinks_the_window_again() {
        let settings = WindowSettings::default();
        let mut pace = Pace::new(Some(ms(100)));
        let mut now = ms(0);
        pace.served(now, 8 * MIB);
        pace.asked(now + ms(1));
        assert_eq!(pace.window(&settings), settings.max_window);
        for _ in 0..40 {
            now += ms(1000);
            pace.served(now, MIB);
            now += ms(1000);
            pace.asked(now);
        }
        assert_eq!(pace.window(&settings), settings.steady_window);
    }
}
