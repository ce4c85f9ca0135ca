//! Consuming: from the first record, as fast as it goes, over one connection to each leader.
//!
//! Batches are walked by their headers and not opened, as a consumer would do on a thread of its own.

use super::report::{Moved, Progress};
use crate::cli::client::{Client, ClientError, Connection, TopicView, check};
use crate::cli::topic::list_offset;
use futures::future::try_join_all;
use proto::messages::fetch_request::{FetchPartition, FetchTopic};
use proto::messages::{FetchRequest, FetchResponse};
use proto::records::{BatchError, batches};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// What a Java consumer asks for per partition, and at most in one answer.
const PARTITION_BYTES: i32 = 1 << 20;
const MAX_BYTES: i32 = 50 << 20;
const WAIT_MS: i32 = 500;
/// The end of what may be read, in ListOffsets.
const LATEST: i64 = -1;

/// What a run read.
pub(super) struct Consumed {
    pub(super) moved: Moved,
    /// From the first request to the first answer with a record in it.
    pub(super) first: Duration,
}

/// Where a partition is read.
struct Position {
    next: i64,
    end: i64,
}

struct Reading<'a> {
    topic: &'a TopicView,
    began: Instant,
    longest: Duration,
    records: Cell<u64>,
    /// Records there are to read.
    total: u64,
    record_bytes: u64,
    first: Cell<Option<Duration>>,
    progress: &'a Progress,
}

/// Reads each partition from its first offset to its end as of now, or to `until`.
pub(super) async fn run(
    client: &mut Client,
    topic: &TopicView,
    until: Option<i64>,
    longest: Duration,
    record_bytes: usize,
    progress: &Progress,
) -> Result<Consumed, ClientError> {
    let mut by_leader: BTreeMap<i32, BTreeMap<i32, Position>> = BTreeMap::new();
    let mut total = 0;
    for (partition, leader) in &topic.partitions {
        let end = match until {
            Some(end) => end,
            None => list_offset(client, &topic.name, *partition, *leader, LATEST).await?,
        };
        total += end.unsigned_abs();
        by_leader.entry(*leader).or_default().insert(*partition, Position { next: 0, end });
    }
    let mut connections = Vec::new();
    for (leader, positions) in by_leader {
        connections.push((client.own(leader).await?, positions));
    }
    let reading = Reading {
        topic,
        began: Instant::now(),
        longest,
        records: Cell::new(0),
        total,
        record_bytes: record_bytes as u64,
        first: Cell::new(None),
        progress,
    };
    try_join_all(connections.into_iter().map(|(connection, positions)| reading.drive(connection, positions))).await?;
    let first = reading.first.get().ok_or_else(|| ClientError::Other(format!("no record of {} came", topic.name)))?;
    let moved = Moved { bytes: reading.records.get() * reading.record_bytes, took: reading.began.elapsed() };
    Ok(Consumed { moved, first })
}

impl Reading<'_> {
    async fn drive(
        &self,
        mut connection: Connection,
        mut positions: BTreeMap<i32, Position>,
    ) -> Result<(), ClientError> {
        // Whoever had records goes last, as in a fetch session, so that no partition starves.
        let mut order: Vec<i32> = positions.keys().copied().collect();
        while !order.is_empty() && self.began.elapsed() < self.longest {
            let answer = connection.call(&self.request(&positions, &order)).await?;
            check("fetching", answer.error_code, None)?;
            self.take(answer, &mut positions)?;
            order.retain(|partition| positions.get(partition).is_some_and(|at| at.next < at.end));
            let turn = usize::from(order.len() > 1);
            order.rotate_left(turn);
        }
        Ok(())
    }

    fn request(&self, positions: &BTreeMap<i32, Position>, order: &[i32]) -> FetchRequest {
        let partitions = order.iter().filter_map(|partition| {
            let position = positions.get(partition)?;
            Some(FetchPartition {
                partition: *partition,
                fetch_offset: position.next,
                partition_max_bytes: PARTITION_BYTES,
                ..Default::default()
            })
        });
        let topic =
            FetchTopic { topic: self.topic.name.clone(), topic_id: self.topic.id, partitions: partitions.collect() };
        FetchRequest {
            max_wait_ms: WAIT_MS,
            min_bytes: 1,
            max_bytes: MAX_BYTES,
            session_epoch: -1,
            topics: vec![topic],
            ..Default::default()
        }
    }

    fn take(&self, answer: FetchResponse, positions: &mut BTreeMap<i32, Position>) -> Result<(), ClientError> {
        for partition in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            let index = partition.partition_index;
            check(&format!("fetching {}-{index}", self.topic.name), partition.error_code, None)?;
            let Some(position) = positions.get_mut(&index) else { continue };
            let bytes = partition.records.unwrap_or_default().to_bytes();
            for batch in batches(&bytes) {
                let header = match batch {
                    Ok(batch) => batch.header,
                    // An answer may end in the middle of a batch; the next one brings it whole.
                    Err(BatchError::Truncated { .. }) => break,
                    Err(error) => {
                        let at = position.next;
                        return Err(ClientError::Other(format!("{}-{index} at {at}: {error}", self.topic.name)));
                    }
                };
                self.first.set(self.first.get().or_else(|| Some(self.began.elapsed())));
                self.records.set(self.records.get() + u64::from(header.record_count.unsigned_abs()));
                position.next = position.next.max(header.next_offset());
            }
        }
        self.progress.at(self.records.get() * self.record_bytes, self.total * self.record_bytes);
        Ok(())
    }
}
