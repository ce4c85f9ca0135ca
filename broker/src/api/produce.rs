//! Produce: check, place, acknowledge.
//!
//! A request is *started* when its batches are placed in the journal's open group, in the order requests came in; it is
//! *finished* when the journal and the in-sync replicas have them. The connection reads on in between.

use super::errors::{ack_code, append_code};
use super::partitions::{held, topic_named, topic_with_id};
use super::services::Services;
use super::{Context, answer, encode, pending};
use crate::config::internal::is_internal;
use crate::config::topic::TopicConfig;
use crate::net::budget::Grant;
use crate::net::connection::Started;
use crate::net::frame::FrameGrant;
use crate::partition::types::{AckFuture, Acks, Append, Origin};
use crate::telemetry::SPANS;
use bytes::{Bytes, BytesMut};
use proto::errors::ErrorCode;
use proto::ids::{Millis, NodeId};
use proto::messages::produce_request::{PartitionProduceData, TopicProduceData};
use proto::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use proto::messages::{ApiKey, ProduceRequest, ProduceResponse};
use proto::metadata::{Image, Topic};
use proto::records::{
    BatchError, BatchInfo, BatchRef, Codec, Limits, TimestampType, recompress, refused_records, set_log_append_time,
    set_max_timestamp, validate_produce,
};
use proto::wire::{Decoder, WireError};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Instrument;
use uuid::Uuid;

/// From this version on topics are named by id (KIP-516).
const BY_ID: i16 = 13;
/// From this version on zstd may be sent (KIP-110).
const ZSTD: i16 = 7;
/// From this version on an answer names the leader a misdirected client should ask (KIP-951).
const NAMES_LEADER: i16 = 10;

/// Records of one batch that an answer names; of more, the first. Fewer of a small batch, which may hold as many, compressed: an answer
/// is to stay within a few times its request.
const MAX_RECORD_ERRORS: usize = 1000;
/// Bytes of a batch for each record that is named.
const BYTES_PER_ERROR: usize = 16;
/// Batches that are smaller than this, compressed and not, are decompressed where they are.
const INLINE_BYTES: usize = 256 << 10;

/// A batch that is converted to no more than this takes no memory of a budget.
const SMALL_CONVERSION_BYTES: usize = 64 << 10;
/// What the answer for one partition takes while it is owed, about.
const PARTITION_ANSWER_BYTES: usize = 256;

/// An answer whose acknowledgements may be outstanding.
struct Owed {
    response: ProduceResponse,
    /// Topic and partition of the response, and what its acknowledgement waits for.
    acks: Vec<(usize, usize, AckFuture)>,
}

/// Starts the request; the answer follows when it is acknowledged.
pub(super) async fn start(
    context: &Context<'_>,
    id: i32,
    body: &mut Decoder,
    grant: FrameGrant,
) -> Result<Started, WireError> {
    let began = Instant::now();
    let version = context.caller.version;
    let request = ProduceRequest::decode(body, version)?;
    let acks = match request.acks {
        0 => Some(Acks::None),
        1 => Some(Acks::Leader),
        -1 => Some(Acks::All),
        _ => None,
    };
    // It bounds the wait for replicas: a leader alone acknowledges what it has, whenever it has it.
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let timeout = (acks == Some(Acks::All)).then_some(timeout);
    let owed = place(context, request, acks).await;
    // The batches lie in the journal's group buffer by now.
    drop(grant);
    if acks == Some(Acks::None) {
        let failed = owed.response.responses.iter().flat_map(|topic| &topic.partition_responses);
        let failed: Vec<_> = failed.filter(|partition| partition.error_code != 0).collect();
        // Without an answer, only a closed connection tells the client that something went wrong, as in Kafka.
        return Ok(match failed.first() {
            None => Started::Silent,
            Some(first) => {
                let name = ErrorCode::from_code(first.error_code).map_or("an error", ErrorCode::name);
                Started::Close(format!("a produce request with acks=0 failed: {name}"))
            }
        });
    }
    let named: usize = owed.response.responses.iter().map(|topic| topic.partition_responses.len()).sum();
    let services = Arc::clone(context.services);
    let listener = context.caller.listener.clone();
    let finish = async move {
        let waits = tracing::info_span!(target: SPANS, "journal and acknowledge", partitions = owed.acks.len());
        let mut response = acknowledge(owed, timeout).instrument(waits).await;
        if version >= NAMES_LEADER {
            // Who leads now: what waited for replicas may have failed because that changed.
            name_leaders(&services.controller.image(), &listener, version, &mut response);
        }
        services.metrics.produce_latency.observe(began.elapsed().as_secs_f64());
        let chunks = encode(ApiKey::Produce, version, id, |e| response.encode(e, version));
        match chunks {
            Ok(chunks) => Some(answer(chunks, Vec::new())),
            Err(error) => {
                tracing::error!(%error, "a produce answer could not be encoded");
                None
            }
        }
    };
    Ok(pending(finish.instrument(tracing::Span::current()), named * PARTITION_ANSWER_BYTES))
}

async fn place(context: &Context<'_>, request: ProduceRequest, acks: Option<Acks>) -> Owed {
    let services = context.services;
    let version = context.caller.version;
    let image = services.controller.image();
    let mut owed = Owed { response: ProduceResponse::default(), acks: Vec::new() };
    for (topic_at, asked) in request.topic_data.into_iter().enumerate() {
        let TopicProduceData { name, topic_id, partition_data } = asked;
        let found = topic_of(&image, version, &name, topic_id);
        let mut partition_responses = Vec::with_capacity(partition_data.len());
        for (partition_at, data) in partition_data.into_iter().enumerate() {
            let index = data.index;
            let placed = match (acks, &found) {
                (None, _) => Err(ErrorCode::InvalidRequiredAcks.into()),
                (Some(_), Err(code)) => Err((*code).into()),
                (Some(acks), Ok(topic)) => place_one(context, topic, data, acks).await,
            };
            partition_responses.push(match placed {
                Ok((response, ack)) => {
                    owed.acks.push((topic_at, partition_at, ack));
                    response
                }
                Err(failure) => failure.response(index),
            });
        }
        owed.response.responses.push(TopicProduceResponse { name, topic_id, partition_responses });
    }
    owed
}

/// Why one partition's batch was not taken.
struct Failure {
    code: ErrorCode,
    message: Option<String>,
    records: Vec<BatchIndexAndErrorMessage>,
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Failure {
        Failure { code, message: None, records: Vec::new() }
    }
}

impl Failure {
    fn because(code: ErrorCode, why: impl ToString) -> Failure {
        Failure { code, message: Some(why.to_string()), records: Vec::new() }
    }

    /// What is wrong with a batch. Records that the topic refuses are named, so that the producer can tell which of them it
    /// has to mend and which only shared their batch (KIP-467).
    fn of_batch(error: BatchError, batch: &[u8], limits: &Limits) -> Failure {
        let refused = match error {
            BatchError::Timestamp { .. } | BatchError::NoKey(_) => {
                refused_records(batch, limits, (batch.len() / BYTES_PER_ERROR).min(MAX_RECORD_ERRORS))
            }
            _ => vec![error.clone()],
        };
        let timestamp = refused.iter().find(|one| matches!(one, BatchError::Timestamp { .. }));
        let named = refused.iter().filter_map(|one| {
            Some(BatchIndexAndErrorMessage {
                batch_index: i32::try_from(one.record_index()?).unwrap_or(i32::MAX),
                batch_index_error_message: Some(one.to_string()),
            })
        });
        Failure {
            code: timestamp.unwrap_or(&error).code(),
            message: Some(timestamp.unwrap_or(&error).to_string()),
            records: named.collect(),
        }
    }

    fn response(self, index: i32) -> PartitionProduceResponse {
        PartitionProduceResponse {
            index,
            error_code: self.code.code(),
            base_offset: -1,
            record_errors: self.records,
            error_message: self.message,
            ..Default::default()
        }
    }
}

async fn place_one(
    context: &Context<'_>,
    topic: &Topic,
    data: PartitionProduceData,
    acks: Acks,
) -> Result<(PartitionProduceResponse, AckFuture), Failure> {
    let services = context.services;
    if is_internal(&topic.name) {
        let why = format!("{} is written by the broker only", topic.name);
        return Err(Failure::because(ErrorCode::InvalidTopicException, why));
    }
    let partition = held(services, topic, data.index)?;
    let now = services.clock.now_ms();
    let config = services.topic_config(topic.id);
    let records = data.records.unwrap_or_default();
    let limits = limits(&config, now, context.caller.version);
    // The grant is held until the log has its copy.
    let ((batch, info, stamped), _converted) = check(services, records, &config, limits, now).await?;
    if info.transactional {
        let why = "this broker coordinates no transactions";
        return Err(Failure::because(ErrorCode::TransactionalIdAuthorizationFailed, why));
    }
    services.metrics.produced_bytes.inc_by(batch.len() as u64);
    services.metrics.produced_batches.inc();
    let room = partition.admit(batch.len()).await.map_err(|_| ErrorCode::KafkaStorageError)?;
    let append = Append {
        leader_epoch: None,
        batches: batch,
        info: &[info],
        origin: Origin::Client,
        acks,
        now_ms: now,
        log_append_time: stamped,
    };
    let appended = partition.append(append).map_err(|error| Failure::because(append_code(&error), error))?;
    drop(room);
    let response = PartitionProduceResponse {
        index: data.index,
        base_offset: appended.base_offset,
        log_append_time_ms: appended.log_append_time.unwrap_or(-1),
        log_start_offset: appended.log_start,
        ..Default::default()
    };
    Ok((response, appended.acked))
}

/// What the topic allows of a batch that was sent in `version`.
fn limits(config: &TopicConfig, now: Millis, version: i16) -> Limits {
    let create_time = config.timestamp_type == TimestampType::CreateTime;
    Limits {
        max_batch_bytes: config.max_message_bytes,
        timestamps: create_time
            .then(|| Limits::timestamp_range(now, config.timestamp_before_max_ms, config.timestamp_after_max_ms)),
        needs_key: config.cleanup.compact,
        zstd: version >= ZSTD,
        ..Limits::default()
    }
}

/// What the batch takes once more when the topic asks for another codec, from above; 0 if that is next to nothing. The frame's own
/// memory covers what was sent only.
fn conversion_bytes(records: &[u8], config: &TopicConfig, limits: &Limits) -> usize {
    let Some(wanted) = config.compression else { return 0 };
    let codec = BatchRef::first(records).ok().and_then(|batch| batch.header.codec().ok());
    let most = match codec {
        // What does not shrink grows by a few bytes only.
        Some(Codec::None) if wanted.codec != Codec::None => records.len() + records.len() / 8,
        // A few bytes may stand for many.
        Some(codec) if codec != wanted.codec => limits.max_uncompressed_bytes,
        Some(_) | None => 0,
    };
    let bytes = most.min(limits.max_batch_bytes);
    if bytes > SMALL_CONVERSION_BYTES { bytes } else { 0 }
}

/// [`prepare`], where decompressing much keeps nobody else waiting.
async fn check(
    services: &Services,
    records: Bytes,
    config: &Arc<TopicConfig>,
    limits: Limits,
    now: Millis,
) -> Result<(Prepared, Option<Grant>), Failure> {
    let compressed = BatchRef::first(&records).is_ok_and(|batch| batch.header.codec() != Ok(Codec::None));
    let converted = config.compression.is_some_and(|wanted| wanted.codec != Codec::None);
    if records.len() < INLINE_BYTES || !(compressed || converted) {
        // A small batch may still turn out to be large: then this was in vain, but it was not long.
        let small = Limits { max_uncompressed_bytes: INLINE_BYTES.min(limits.max_uncompressed_bytes), ..limits };
        let grant = admit_conversion(services, &records, config, &small).await;
        match prepare(records.clone(), config, &small, now) {
            Err(BatchError::Bomb(_)) => {}
            checked => {
                let prepared = checked.map_err(|error| Failure::of_batch(error, &records, &small))?;
                return Ok((prepared, grant));
            }
        }
    }
    let grant = admit_conversion(services, &records, config, &limits).await;
    let config = Arc::clone(config);
    let checked = services.spawner.spawn_blocking(move || {
        prepare(records.clone(), &config, &limits, now).map_err(|error| Failure::of_batch(error, &records, &limits))
    });
    let prepared = checked.await.unwrap_or_else(|_| Err(ErrorCode::UnknownServerError.into()))?;
    Ok((prepared, grant))
}

async fn admit_conversion(services: &Services, records: &[u8], config: &TopicConfig, limits: &Limits) -> Option<Grant> {
    let bytes = conversion_bytes(records, config, limits);
    if bytes == 0 { None } else { Some(services.fetch_memory.admit(bytes).await) }
}

/// A batch in the form the topic asks for, what the log needs to know of it, and the time it was stamped with.
type Prepared = (Bytes, BatchInfo, Option<Millis>);

/// Checks a client's batch and brings it into the form the topic asks for. The bytes are touched only where the topic or a wrong
/// header asks for it; offsets and epochs are set by the log in its own copy.
fn prepare(records: Bytes, config: &TopicConfig, limits: &Limits, now: Millis) -> Result<Prepared, BatchError> {
    let append_time = config.timestamp_type == TimestampType::LogAppendTime;
    let mut info = validate_produce(&records, limits)?;
    let mut batch = records;
    if let Some(wanted) = config.compression
        && wanted.codec != info.codec
    {
        batch = recompress(&BatchRef::first(&batch)?, wanted, limits)?;
        info.size = batch.len();
        info.codec = wanted.codec;
    }
    if append_time || info.fix_max_timestamp {
        let mut patched = BytesMut::from(&batch[..]);
        if append_time {
            set_log_append_time(&mut patched, now)?;
            info.max_timestamp = now;
        } else {
            set_max_timestamp(&mut patched, info.max_timestamp)?;
        }
        batch = patched.freeze();
    }
    Ok((batch, info, append_time.then_some(now)))
}

async fn acknowledge(owed: Owed, timeout: Option<Duration>) -> ProduceResponse {
    let Owed { mut response, acks } = owed;
    let deadline = timeout.map(|timeout| tokio::time::Instant::now() + timeout);
    for (topic_at, partition_at, ack) in acks {
        let acked = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, ack).await,
            None => Ok(ack.await),
        };
        let code = match acked {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => ack_code(error),
            Err(_) => ErrorCode::RequestTimedOut,
        };
        let partition = response
            .responses
            .get_mut(topic_at)
            .and_then(|topic| topic.partition_responses.get_mut(partition_at))
            .expect("acknowledgements are kept with the place of their response");
        partition.error_code = code.code();
        partition.base_offset = -1;
    }
    response
}

/// Tells a misdirected producer whom to ask instead.
fn name_leaders(image: &Image, listener: &str, version: i16, response: &mut ProduceResponse) {
    let ProduceResponse { responses, node_endpoints, .. } = response;
    let lost = [ErrorCode::NotLeaderOrFollower.code(), ErrorCode::FencedLeaderEpoch.code()];
    for topic in responses {
        let mut failed = topic.partition_responses.iter_mut().filter(|said| lost.contains(&said.error_code)).peekable();
        if failed.peek().is_none() {
            continue;
        }
        let found = topic_of(image, version, &topic.name, topic.topic_id);
        for partition in failed {
            let Some(state) = found.ok().and_then(|topic| topic.partition(partition.index)) else { continue };
            let Some(leader) = state.leader else { continue };
            partition.current_leader = LeaderIdAndEpoch { leader_id: leader.0, leader_epoch: state.leader_epoch };
            name_endpoint(image, listener, leader, node_endpoints);
        }
    }
}

fn name_endpoint(image: &Image, listener: &str, leader: NodeId, endpoints: &mut Vec<NodeEndpoint>) {
    let Some(broker) = image.broker(leader) else { return };
    let Some(endpoint) = broker.endpoint(listener) else { return };
    if endpoints.iter().all(|known| known.node_id != leader.0) {
        endpoints.push(NodeEndpoint {
            node_id: leader.0,
            host: endpoint.host.clone(),
            port: i32::from(endpoint.port),
            rack: broker.rack.clone(),
        });
    }
}

/// A topic as the request names it.
fn topic_of<'a>(image: &'a Image, version: i16, name: &str, id: Uuid) -> Result<&'a Arc<Topic>, ErrorCode> {
    if version >= BY_ID { topic_with_id(image, id) } else { topic_named(image, name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::records::{BatchBuilder, Compression};

    fn batch(codec: Codec, bytes: usize) -> Bytes {
        let mut batch = BatchBuilder::new().codec(codec);
        batch.append(0, None, Some(&vec![7; bytes]), &[]);
        batch.build()
    }

    #[test]
    fn memory_is_taken_for_what_a_batch_is_converted_to() {
        let limits = Limits { max_batch_bytes: 1 << 20, ..Limits::default() };
        let topic = |compression: Option<Codec>| TopicConfig {
            compression: compression.map(Compression::from),
            ..crate::config::BrokerConfig::default().topic_defaults
        };
        for (sent, bytes, wanted, expected) in [
            (Codec::None, 500_000, None, 0..=0),
            (Codec::None, 500_000, Some(Codec::None), 0..=0),
            (Codec::Zstd, 500_000, Some(Codec::Zstd), 0..=0),
            (Codec::None, 10_000, Some(Codec::Zstd), 0..=0),
            (Codec::None, 500_000, Some(Codec::Zstd), 500_000..=1 << 20),
            // A few bytes that stand for many.
            (Codec::Zstd, 900_000, Some(Codec::None), 900_000..=1 << 20),
            (Codec::Gzip, 900_000, Some(Codec::Lz4), 900_000..=1 << 20),
        ] {
            let found = conversion_bytes(&batch(sent, bytes), &topic(wanted), &limits);
            assert!(expected.contains(&found), "{sent:?} to {wanted:?}: {found}");
        }
        assert_eq!(conversion_bytes(b"garbage", &topic(Some(Codec::Zstd)), &limits), 0);
    }
}
