//! What all streams together may hold in memory, and how it is shared.

use std::collections::VecDeque;

/// Bytes shared between streams. Each may run ahead up to its fair share, or more
/// while there is plenty; a stream whose consumer
/// waits may take what it needs as long as there is anything.
#[derive(Debug)]
pub(super) struct Budget<S> {
    total: u64,
    held: u64,
    streams: u64,
    /// Streams that wait for room, first come first served.
    hungry: VecDeque<S>,
}

impl<S> Budget<S> {
    pub(super) fn new(total: u64) -> Self {
        Self { total, held: 0, streams: 0, hungry: VecDeque::new() }
    }

    pub(super) fn held(&self) -> u64 {
        self.held
    }

    pub(super) fn stream_opened(&mut self) {
        self.streams += 1;
    }

    /// A stream that held `held` bytes is gone.
    pub(super) fn stream_closed(&mut self, held: u64) {
        self.streams -= 1;
        self.held -= held;
    }

    /// What each stream may hold if all want much.
    pub(super) fn share(&self) -> u64 {
        self.total / self.streams.max(1)
    }

    /// How much more a stream that holds `held` bytes may take to run ahead.
    pub(super) fn room_ahead(&self, held: u64) -> u64 {
        // An eighth stays free for those who wait.
        let free = (self.total - self.total / 8).saturating_sub(self.held);
        let share = self.share();
        // As long as half is free nobody has to keep to its share.
        let spare = (self.total / 2).saturating_sub(self.held);
        share.saturating_sub(held).max(spare).min(free)
    }

    /// How much more a stream may take whose consumer waits for `needed` bytes that are not on their way.
    pub(super) fn room_now(&self, held: u64, needed: u64) -> u64 {
        let free = self.total.saturating_sub(self.held);
        self.room_ahead(held).max(needed.min(free))
    }

    /// A stream now holds `after` bytes instead of `before`.
    pub(super) fn moved(&mut self, before: u64, after: u64) {
        self.held = self.held + after - before;
    }

    /// Remembers that a stream waits for room.
    pub(super) fn wait(&mut self, stream: S) {
        self.hungry.push_back(stream);
    }

    /// Those who waited for room, if there is any; they ask again if it is not enough.
    pub(super) fn take_hungry(&mut self) -> VecDeque<S> {
        if self.held < self.total { std::mem::take(&mut self.hungry) } else { VecDeque::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_share_fairly_and_those_who_wait_come_first() {
        let mut budget: Budget<u32> = Budget::new(800);
        budget.stream_opened();
        assert_eq!(budget.room_ahead(0), 700);
        budget.stream_opened();
        assert_eq!(budget.room_ahead(0), 400);
        budget.moved(0, 400);
        assert_eq!(budget.room_ahead(400), 0, "has its share, and half is taken");
        assert_eq!(budget.room_now(400, 100), 100, "but somebody waits");
        budget.moved(0, 300);
        assert_eq!(budget.room_ahead(300), 0, "the last eighth");
        assert_eq!(budget.room_now(300, 500), 100, "all there is");
        budget.moved(0, 100);
        budget.wait(1);
        budget.wait(2);
        assert!(budget.take_hungry().is_empty());
        budget.moved(400, 100);
        assert_eq!(budget.take_hungry(), [1, 2]);
        budget.stream_closed(300);
        assert_eq!(budget.held(), 200);
    }
}
