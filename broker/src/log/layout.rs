//! How a partition's local log is cut into segments: decided when a batch is appended, carried out by the
//! writer later. Pure: positions, sizes and times only.

use std::collections::VecDeque;

use proto::ids::{Millis, Offset};

use super::batch::BatchMeta;
use super::config::LogConfig;
use super::index::{IndexEntry, MAX_ENTRIES, SegmentSummary, SparseIndex};

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentMeta {
    /// First offset, inclusive; the file's name.
    pub base: Offset,
    /// End, exclusive.
    pub end: Offset,
    /// Bytes of batches in it.
    pub bytes: u64,
    /// Bytes appended to the log before it, since the log was opened: comparable across segments.
    pub log_position: u64,
    /// Greatest timestamp in it, -1 if none.
    pub max_timestamp: Millis,
    /// Base offset of the batch that has it.
    pub max_timestamp_offset: Offset,
    /// Greatest timestamp of its first batch, which `segment.ms` counts from.
    pub first_timestamp: Option<Millis>,
    /// When its first batch was appended, by this broker's clock.
    pub created_ms: Millis,
    /// When its last batch was appended, by this broker's clock.
    pub last_append_ms: Millis,
    /// Where some of its batches are.
    pub index: SparseIndex,
}

impl SegmentMeta {
    fn new(base: Offset, log_position: u64, now_ms: Millis, config: &LogConfig) -> Self {
        let interval = config.index_interval_bytes.max(config.segment_bytes / (MAX_ENTRIES as u64 / 2));
        Self {
            base,
            end: base,
            bytes: 0,
            log_position,
            max_timestamp: -1,
            max_timestamp_offset: base,
            first_timestamp: None,
            created_ms: now_ms,
            last_append_ms: now_ms,
            index: SparseIndex::new(interval),
        }
    }

    /// Whether nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The time that retention by age goes by: the greatest timestamp, or when it was last appended to if
    /// records carry none.
    pub const fn age_from(&self) -> Millis {
        if self.max_timestamp >= 0 { self.max_timestamp } else { self.last_append_ms }
    }

    /// What is kept beside the file.
    pub fn summary(&self) -> SegmentSummary {
        SegmentSummary {
            base: self.base,
            end: self.end,
            bytes: self.bytes,
            max_timestamp: self.max_timestamp,
            max_timestamp_offset: self.max_timestamp_offset,
            last_append_ms: self.last_append_ms,
            index: self.index.clone(),
        }
    }

    fn of_summary(summary: SegmentSummary, log_position: u64) -> Self {
        Self {
            base: summary.base,
            end: summary.end,
            bytes: summary.bytes,
            log_position,
            max_timestamp: summary.max_timestamp,
            max_timestamp_offset: summary.max_timestamp_offset,
            first_timestamp: (summary.max_timestamp >= 0).then_some(summary.max_timestamp),
            created_ms: summary.last_append_ms,
            last_append_ms: summary.last_append_ms,
            index: summary.index,
        }
    }

    fn append(&mut self, batch: &BatchMeta, base: Offset, now_ms: Millis) {
        if self.is_empty() {
            self.created_ms = now_ms;
            self.first_timestamp = (batch.max_timestamp >= 0).then_some(batch.max_timestamp);
        }
        if batch.max_timestamp > self.max_timestamp {
            self.max_timestamp = batch.max_timestamp;
            self.max_timestamp_offset = base;
        }
        self.index.offer(IndexEntry { offset: base, position: self.bytes, timestamp: self.max_timestamp });
        self.bytes += u64::from(batch.size);
        self.end = batch.end_at(base);
        self.last_append_ms = now_ms;
    }

    /// Kafka's rule: too big, too old by the records' own time (else by the clock), or offsets that a
    /// 32 bit delta cannot express.
    fn is_full(&self, batch: &BatchMeta, config: &LogConfig, now_ms: Millis) -> bool {
        if self.is_empty() {
            return false;
        }
        let waited = match self.first_timestamp {
            Some(first) if batch.max_timestamp >= 0 => batch.max_timestamp.saturating_sub(first),
            _ => now_ms.saturating_sub(self.created_ms),
        };
        self.bytes + u64::from(batch.size) > config.segment_bytes
            || waited > config.segment_ms
            || batch.end_at(self.end) - self.base > i64::from(i32::MAX)
    }
}

/// Where a batch goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Base offset of the segment.
    pub segment: Offset,
    /// First byte in the segment.
    pub position: u64,
    /// Whether the segment begins with this batch.
    pub rolled: bool,
}

/// A log's segments, ascending and without gap; the last one is appended to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    segments: VecDeque<SegmentMeta>,
}

impl Layout {
    /// A log that begins, and ends, at `start`.
    pub fn new(start: Offset, now_ms: Millis, config: &LogConfig) -> Self {
        Self { segments: VecDeque::from([SegmentMeta::new(start, 0, now_ms, config)]) }
    }

    /// A log of segments found on disk; `None` unless they ascend without gap.
    pub fn of_summaries(summaries: Vec<SegmentSummary>) -> Option<Self> {
        let mut segments: VecDeque<SegmentMeta> = VecDeque::with_capacity(summaries.len());
        let mut log_position = 0;
        for summary in summaries {
            if segments.back().is_some_and(|last| last.end != summary.base) {
                return None;
            }
            let segment = SegmentMeta::of_summary(summary, log_position);
            log_position += segment.bytes;
            segments.push_back(segment);
        }
        (!segments.is_empty()).then_some(Self { segments })
    }

    /// All segments, oldest first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &SegmentMeta> + ExactSizeIterator {
        self.segments.iter()
    }

    /// Whether nothing was ever appended to it.
    pub fn is_blank(&self) -> bool {
        self.segments.len() == 1 && self.active().is_empty() && self.active().base == 0
    }

    /// The segment that is appended to.
    pub fn active(&self) -> &SegmentMeta {
        self.segments.back().expect("a layout always has a segment")
    }

    fn active_mut(&mut self) -> &mut SegmentMeta {
        self.segments.back_mut().expect("a layout always has a segment")
    }

    /// End of the log, exclusive.
    pub fn end(&self) -> Offset {
        self.active().end
    }

    /// First offset of the oldest segment.
    pub fn first_base(&self) -> Offset {
        self.segments.front().map_or(0, |segment| segment.base)
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.end_position() - self.segments.front().map_or(0, |segment| segment.log_position)
    }

    /// The log position where the next batch goes.
    pub fn end_position(&self) -> u64 {
        self.active().log_position + self.active().bytes
    }

    /// Where the next batch would go.
    pub fn next_place(&self, batch: &BatchMeta, config: &LogConfig, now_ms: Millis) -> Place {
        let active = self.active();
        if active.is_full(batch, config, now_ms) {
            Place { segment: active.end, position: 0, rolled: true }
        } else {
            Place { segment: active.base, position: active.bytes, rolled: false }
        }
    }

    /// Appends a batch with base offset `base`, not below the end, at `place`, which
    /// [`Layout::next_place`] just gave.
    pub fn append(&mut self, batch: &BatchMeta, base: Offset, place: Place, config: &LogConfig, now_ms: Millis) {
        if place.rolled {
            self.roll(config, now_ms);
        }
        self.active_mut().append(batch, base, now_ms);
    }

    /// Ends the active segment, unless it is empty; answers whether a new one begins.
    pub fn roll(&mut self, config: &LogConfig, now_ms: Millis) -> bool {
        if self.active().is_empty() {
            return false;
        }
        let (base, log_position) = (self.end(), self.end_position());
        self.active_mut().index.shrink();
        self.segments.push_back(SegmentMeta::new(base, log_position, now_ms, config));
        true
    }

    /// The segment that holds `offset`, if one does; the active one for the log end.
    pub fn find(&self, offset: Offset) -> Option<&SegmentMeta> {
        let next = self.segments.partition_point(|segment| segment.base <= offset);
        let segment = self.segments.get(next.checked_sub(1)?)?;
        (offset <= segment.end).then_some(segment)
    }

    /// Segments from the one that holds `offset` on.
    pub fn from(&self, offset: Offset) -> impl Iterator<Item = &SegmentMeta> {
        let next = self.segments.partition_point(|segment| segment.base <= offset);
        self.segments.iter().skip(next.saturating_sub(1))
    }

    /// Drops segments that end at or below `start`, the active one excepted; answers their bases.
    pub fn trim_head(&mut self, start: Offset) -> Vec<Offset> {
        let mut dropped = Vec::new();
        while self.segments.len() > 1 && self.segments.front().is_some_and(|segment| segment.end <= start) {
            dropped.extend(self.segments.pop_front().map(|segment| segment.base));
        }
        dropped
    }

    /// Cuts the log to end at `end`, which lies at byte `position` of segment `segment`.
    pub fn truncate(&mut self, end: Offset, segment: Offset, position: u64) {
        while self.segments.len() > 1 && self.active().base > segment {
            self.segments.pop_back();
        }
        let active = self.active_mut();
        if active.base == segment {
            active.index.truncate(end);
            active.end = end;
            active.bytes = position;
            let indexed = active.index.entries().last().map_or(-1, |entry| entry.timestamp);
            // A bound that the index knows; exact enough for rolling and retention.
            active.max_timestamp = active.max_timestamp.min(indexed);
            active.max_timestamp_offset = active.max_timestamp_offset.min(end.max(active.base));
        }
    }

    /// How far the head may be trimmed: whole segments, oldest first, that end at or below `limit` and of
    /// which each is older than `max_age_ms` or above `max_bytes` for the whole, or ends at or below
    /// `log_start`. `None` if nothing can go. The active segment goes as well if it is not empty and all
    /// before it go; the caller rolls it then.
    pub fn trim_target(&self, now_ms: Millis, rule: &TrimRule) -> Option<Offset> {
        let mut left = self.bytes();
        let mut target = None;
        for segment in self.segments.iter().take_while(|segment| !segment.is_empty() && segment.end <= rule.limit) {
            let old = rule.max_age_ms.is_some_and(|age| now_ms.saturating_sub(segment.age_from()) > age);
            // As Kafka: a segment goes only if what stays is still at least the limit.
            let much = rule.max_bytes.is_some_and(|max| left.saturating_sub(segment.bytes) >= max);
            if !(old || much || segment.end <= rule.log_start) {
                break;
            }
            left = left.saturating_sub(segment.bytes);
            target = Some(segment.end);
        }
        target
    }

    /// Greatest timestamp below `until` and the base offset of its batch, as far as that is known without reading: of the
    /// segment whose newest batch lies at or above `until`, nothing is.
    pub fn max_timestamp(&self, until: Offset) -> Option<(Millis, Offset)> {
        self.segments
            .iter()
            .filter(|segment| segment.max_timestamp >= 0 && segment.max_timestamp_offset < until)
            .map(|segment| (segment.max_timestamp, segment.max_timestamp_offset))
            .reduce(|best, next| if next.0 > best.0 { next } else { best })
    }

    /// The segment of whose batches below `until` the greatest timestamp is not known, for a greater one follows. There is
    /// at most one.
    pub fn newest_hidden(&self, until: Offset) -> Option<&SegmentMeta> {
        self.segments
            .iter()
            .find(|segment| segment.base < until && segment.max_timestamp >= 0 && segment.max_timestamp_offset >= until)
    }
}

/// What may be trimmed from the head of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrimRule {
    /// Nothing at or above it goes: the committed tier end, or the high watermark of a log that is not tiered.
    pub limit: Offset,
    /// What lies below this goes in any case (as far as `limit` allows).
    pub log_start: Offset,
    /// Segments older than this go, in milliseconds.
    pub max_age_ms: Option<Millis>,
    /// Segments go while the rest is at least this, in bytes.
    pub max_bytes: Option<u64>,
}

#[cfg(test)]
#[path = "layout/tests.rs"]
mod tests;
