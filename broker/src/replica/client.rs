//! The connection to another broker, and what a fetch over it says and is answered.

use super::core::{Answer, PartitionAnswer, Said};
use super::session::Ask;
use crate::log::epochs::EpochEnd;
use crate::net::budget::{Budget, Grant};
use crate::net::wire_client::{CallError, Receiver, Sender, greet};
use bytes::Bytes;
use proto::errors::ErrorCode;
use proto::host::{Network, ReadHalf, WriteHalf};
use proto::ids::{NodeId, Offset, TopicId, TopicPartition};
use proto::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use proto::messages::fetch_response::PartitionData;
use proto::messages::{FetchRequest, FetchResponse};
use std::time::Duration;

/// What an answer may measure: whatever the limits of a fetch are, a first batch always comes.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// How a follower asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchSettings {
    /// `replica.fetch.wait.max.ms`.
    pub wait_ms: i32,
    /// `replica.fetch.min.bytes`.
    pub min_bytes: i32,
    /// `replica.fetch.max.bytes`: of one partition.
    pub partition_bytes: i32,
    /// `replica.fetch.response.max.bytes`: of all together.
    pub response_bytes: i32,
    /// `replica.socket.timeout.ms`: a leader that takes longer to accept a connection, or to answer, is given up.
    pub timeout: Duration,
}

/// A connection to another broker.
#[derive(Debug)]
pub(super) struct Connection {
    sender: Sender<WriteHalf>,
    receiver: Receiver<ReadHalf>,
}

impl Connection {
    /// Connects to `address` (`host:port`) and asks what is spoken there.
    pub(super) async fn open(
        network: &dyn Network,
        address: &str,
        client_id: &str,
        within: Duration,
    ) -> Result<Connection, CallError> {
        let stream = tokio::time::timeout(within, network.connect(address)).await;
        let stream = stream.map_err(|_| CallError::Silent(within))??;
        stream.set_nodelay(true)?;
        let (sender, receiver) = greet(stream.split(), client_id, MAX_ANSWER_BYTES, within).await?;
        Ok(Connection { sender, receiver })
    }

    /// Sends a fetch and takes its answer, whose memory is taken of `memory`.
    pub(super) async fn fetch(
        &mut self,
        request: &FetchRequest,
        within: Duration,
        memory: &Budget,
    ) -> Result<(FetchResponse, Option<Grant>), CallError> {
        let sent = self.sender.send(request).await?;
        self.receiver.receive_under::<FetchRequest>(sent, within, memory).await
    }
}

/// What `ask` says on the wire, of the incarnation `broker_epoch` of broker `node`.
pub(super) fn request(ask: Ask, node: NodeId, broker_epoch: i64, settings: &FetchSettings) -> FetchRequest {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for (tp, want) in ask.partitions {
        let partition = FetchPartition {
            partition: tp.partition,
            current_leader_epoch: want.epoch,
            fetch_offset: want.offset,
            last_fetched_epoch: want.last_epoch,
            log_start_offset: want.log_start,
            partition_max_bytes: settings.partition_bytes,
            replica_directory_id: want.directory.0,
            high_watermark: want.high_watermark,
        };
        match topics.last_mut().filter(|topic| topic.topic_id == tp.topic.0) {
            Some(topic) => topic.partitions.push(partition),
            None => {
                topics.push(FetchTopic { topic_id: tp.topic.0, partitions: vec![partition], ..FetchTopic::default() })
            }
        }
    }
    let mut forgotten: Vec<ForgottenTopic> = Vec::new();
    for tp in ask.forgotten {
        match forgotten.last_mut().filter(|topic| topic.topic_id == tp.topic.0) {
            Some(topic) => topic.partitions.push(tp.partition),
            None => forgotten.push(ForgottenTopic {
                topic_id: tp.topic.0,
                partitions: vec![tp.partition],
                ..ForgottenTopic::default()
            }),
        }
    }
    FetchRequest {
        replica_state: ReplicaState { replica_id: node.0, replica_epoch: broker_epoch },
        max_wait_ms: settings.wait_ms,
        min_bytes: settings.min_bytes,
        max_bytes: settings.response_bytes,
        session_id: ask.session_id,
        session_epoch: ask.session_epoch,
        topics,
        forgotten_topics_data: forgotten,
        ..FetchRequest::default()
    }
}

/// What `response` says to a follower.
pub(super) fn answer(response: FetchResponse) -> Answer {
    let partitions = response.responses.into_iter().flat_map(|topic| {
        let id = TopicId(topic.topic_id);
        topic.partitions.into_iter().map(move |data| partition_answer(id, data))
    });
    Answer { error: code(response.error_code), session_id: response.session_id, partitions: partitions.collect() }
}

fn partition_answer(topic: TopicId, data: PartitionData) -> PartitionAnswer {
    let diverging = data.diverging_epoch;
    let known = |offset: Offset| offset.max(-1);
    PartitionAnswer {
        tp: TopicPartition { topic, partition: data.partition_index },
        error: code(data.error_code),
        said: Said { high_watermark: known(data.high_watermark), log_start: known(data.log_start_offset) },
        diverging: (diverging.end_offset >= 0)
            .then_some(EpochEnd { epoch: diverging.epoch, end: diverging.end_offset }),
        records: data.records.map_or_else(Bytes::new, |records| records.to_bytes()),
    }
}

fn code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}

#[cfg(test)]
mod tests {
    use super::super::session::Want;
    use super::*;
    use proto::ids::{DirectoryId, Uuid};
    use proto::messages::fetch_response::{EpochEndOffset, FetchableTopicResponse};
    use proto::wire::{Decoder, Encoder};

    const SETTINGS: FetchSettings = FetchSettings {
        wait_ms: 500,
        min_bytes: 1,
        partition_bytes: 1 << 20,
        response_bytes: 10 << 20,
        timeout: Duration::from_secs(30),
    };

    fn tp(topic: u128, partition: i32) -> TopicPartition {
        TopicPartition::new(TopicId(Uuid::from_u128(topic)), partition)
    }

    fn want(offset: Offset) -> Want {
        let directory = DirectoryId(Uuid::from_u128(9));
        Want { offset, epoch: 4, last_epoch: 3, log_start: 2, high_watermark: 6, directory }
    }

    #[test]
    fn a_request_says_who_asks_and_all_that_is_wanted() {
        let partitions = vec![(tp(1, 0), want(10)), (tp(1, 2), want(20)), (tp(2, 0), want(30))];
        let ask = Ask { session_id: 42, session_epoch: 7, partitions, forgotten: vec![tp(1, 1), tp(3, 0)] };
        let request = request(ask, NodeId(5), 99, &SETTINGS);
        let mut encoder = Encoder::new();
        request.encode(&mut encoder, 18).expect("the newest version says it all");
        let read = FetchRequest::decode(&mut Decoder::new(encoder.into_bytes().expect("small")), 18).expect("readable");
        assert_eq!(read, request);
        assert_eq!((read.replica_state.replica_id, read.replica_state.replica_epoch), (5, 99));
        assert_eq!((read.session_id, read.session_epoch, read.max_wait_ms), (42, 7, 500));
        let named = |topic: &FetchTopic| topic.partitions.iter().map(|one| (one.partition, one.fetch_offset)).collect();
        let named: Vec<Vec<_>> = read.topics.iter().map(named).collect();
        assert_eq!(named, [vec![(0, 10), (2, 20)], vec![(0, 30)]]);
        let one = &read.topics[0].partitions[0];
        assert_eq!((one.current_leader_epoch, one.last_fetched_epoch), (4, 3));
        assert_eq!((one.log_start_offset, one.high_watermark), (2, 6));
        assert_eq!(one.replica_directory_id, Uuid::from_u128(9));
        assert_eq!(read.forgotten_topics_data.len(), 2);
    }

    #[test]
    fn an_answer_is_read_with_what_it_leaves_out() {
        let plain = PartitionData { partition_index: 1, high_watermark: 9, log_start_offset: 3, ..Default::default() };
        let parted = PartitionData {
            partition_index: 2,
            diverging_epoch: EpochEndOffset { epoch: 2, end_offset: 7 },
            ..Default::default()
        };
        let odd = PartitionData { error_code: 31_000, ..Default::default() };
        let topic = FetchableTopicResponse {
            topic_id: Uuid::from_u128(1),
            partitions: vec![plain, parted, odd],
            ..Default::default()
        };
        let read = answer(FetchResponse { session_id: 42, responses: vec![topic], ..Default::default() });
        assert_eq!((read.error, read.session_id), (ErrorCode::None, 42));
        let [plain, parted, odd] = &read.partitions[..] else { panic!("{read:?}") };
        assert_eq!((plain.tp, plain.said), (tp(1, 1), Said { high_watermark: 9, log_start: 3 }));
        assert_eq!((plain.diverging, plain.records.len()), (None, 0));
        assert_eq!(parted.diverging, Some(EpochEnd { epoch: 2, end: 7 }));
        assert_eq!(odd.error, ErrorCode::UnknownServerError);
    }
}
