use super::*;

fn config() -> LogConfig {
    LogConfig { segment_bytes: 1000, segment_ms: 100, index_interval_bytes: 1, ..LogConfig::default() }
}

fn batch(size: u32, records: i32, max_timestamp: Millis) -> BatchMeta {
    BatchMeta {
        size,
        base_offset: 0,
        last_offset_delta: records - 1,
        max_timestamp,
        leader_epoch: 0,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        transactional: false,
        control: None,
    }
}

fn append(layout: &mut Layout, batch: &BatchMeta, now_ms: Millis) -> Place {
    let place = layout.next_place(batch, &config(), now_ms);
    let base = layout.end();
    layout.append(batch, base, place, &config(), now_ms);
    place
}

const fn at(segment: Offset, position: u64, rolled: bool) -> Place {
    Place { segment, position, rolled }
}

/// Segments [0, 10) of 900 bytes at time 10, [10, 30) of 600 at 200, [30, 31) of 2000 at 250.
fn three() -> Layout {
    let mut layout = Layout::new(0, 0, &config());
    append(&mut layout, &batch(900, 10, 10), 0);
    append(&mut layout, &batch(300, 10, 200), 0);
    append(&mut layout, &batch(300, 10, 150), 0);
    append(&mut layout, &batch(2000, 1, 250), 0);
    layout
}

#[test]
fn segments_roll_by_size() {
    let mut layout = Layout::new(0, 0, &config());
    assert_eq!(append(&mut layout, &batch(600, 10, 1), 0), at(0, 0, false));
    assert_eq!(append(&mut layout, &batch(400, 10, 1), 0), at(0, 600, false));
    assert_eq!(append(&mut layout, &batch(1, 1, 1), 0), at(20, 0, true));
    assert_eq!(append(&mut layout, &batch(5000, 1, 1), 0), at(21, 0, true), "one batch alone may be larger");
    assert_eq!(append(&mut layout, &batch(1, 1, 1), 0), at(22, 0, true));
    assert_eq!(layout.bytes(), 6002);
}

#[test]
fn segments_roll_by_the_time_of_records_else_of_the_clock() {
    let mut layout = Layout::new(0, 0, &config());
    append(&mut layout, &batch(1, 1, 1000), 0);
    assert!(!append(&mut layout, &batch(1, 1, 1100), 5000).rolled, "the clock does not count");
    assert!(append(&mut layout, &batch(1, 1, 1101), 0).rolled);
    let mut layout = Layout::new(0, 0, &config());
    append(&mut layout, &batch(1, 1, -1), 0);
    assert!(!append(&mut layout, &batch(1, 1, -1), 100).rolled);
    assert!(append(&mut layout, &batch(1, 1, -1), 101).rolled);
}

#[test]
fn offsets_beyond_a_32_bit_delta_begin_a_segment() {
    let mut layout = Layout::new(0, 0, &config());
    append(&mut layout, &batch(1, i32::MAX - 1, 1), 0);
    assert!(!append(&mut layout, &batch(1, 1, 1), 0).rolled);
    assert!(append(&mut layout, &batch(1, 1, 1), 0).rolled);
}

#[test]
fn the_head_is_trimmed_by_whole_segments() {
    let layout = three();
    let rule = TrimRule { limit: 31, log_start: 0, max_age_ms: None, max_bytes: None };
    let target = |rule: TrimRule| layout.trim_target(1000, &rule);
    assert_eq!(target(rule), None);
    assert_eq!(target(TrimRule { log_start: 29, ..rule }), Some(10));
    assert_eq!(target(TrimRule { log_start: 30, ..rule }), Some(30));
    assert_eq!(target(TrimRule { max_age_ms: Some(800), ..rule }), Some(10), "age 990, 800 and 750");
    assert_eq!(target(TrimRule { max_age_ms: Some(0), ..rule }), Some(31));
    assert_eq!(target(TrimRule { max_age_ms: Some(0), limit: 30, ..rule }), Some(30));
    assert_eq!(target(TrimRule { max_bytes: Some(2600), ..rule }), Some(10), "3500 bytes in all");
    assert_eq!(target(TrimRule { max_bytes: Some(2601), ..rule }), None, "what stays is never below the limit");
    assert_eq!(target(TrimRule { max_bytes: Some(0), limit: 29, ..rule }), Some(10));
    let mut layout = layout;
    assert_eq!(layout.trim_head(30), vec![0, 10]);
    assert_eq!((layout.first_base(), layout.bytes(), layout.end_position()), (30, 2000, 3500));
}

#[test]
fn the_tail_is_cut_and_goes_on() {
    let mut layout = three();
    layout.truncate(20, 10, 300);
    assert_eq!((layout.end(), layout.bytes()), (20, 1200));
    assert_eq!(layout.active().index.entries().len(), 1);
    assert_eq!(append(&mut layout, &batch(100, 5, 260), 0), at(10, 300, false));
    layout.truncate(0, 0, 0);
    assert_eq!((layout.end(), layout.bytes(), layout.max_timestamp(Offset::MAX)), (0, 0, None));
}

#[test]
fn segments_are_found_by_offset() {
    let layout = three();
    let base = |offset| layout.find(offset).map(|segment| segment.base);
    assert_eq!([0, 9, 10, 30, 31].map(base), [Some(0), Some(0), Some(10), Some(30), Some(30)]);
    assert_eq!(base(32), None);
    assert_eq!(layout.from(15).map(|segment| segment.base).collect::<Vec<_>>(), [10, 30]);
    assert_eq!(layout.max_timestamp(Offset::MAX), Some((250, 30)));
}

#[test]
fn a_layout_comes_back_from_its_summaries() {
    let layout = three();
    let summaries: Vec<_> = layout.segments().map(SegmentMeta::summary).collect();
    let again = Layout::of_summaries(summaries.clone()).expect("no gap");
    assert_eq!((again.end(), again.bytes(), again.end_position()), (31, 3500, 3500));
    let gap = vec![summaries[0].clone(), summaries[2].clone()];
    assert_eq!(Layout::of_summaries(gap), None);
}
