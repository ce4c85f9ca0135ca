//! Kafka's APIs: one file each decodes, calls a handle, encodes.
//!
//! Which APIs and versions Firn speaks stands in one table below; dispatch and ApiVersions both come from it. Versions
//! differ at the codec, not in the logic.

pub mod fetch;
pub mod init_producer_id;
pub mod services;

mod api_versions;
mod cluster;
mod configs;
mod delete_records;
mod describe_producers;
mod elections;
mod errors;
mod features;
mod find_coordinator;
mod groups;
mod heartbeat;
mod join_group;
mod leave_group;
mod list_offsets;
mod log_dirs;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
pub(crate) mod partitions;
mod produce;
mod quorum;
mod reassignments;
mod sync_group;
mod topics;

use crate::metrics::ApiLabel;
use crate::net::budget::Grant;
use crate::net::connection::{Answer, Service, Started};
use crate::net::frame::{Frame, FrameGrant};
use crate::net::server::Accept;
use futures::FutureExt;
use parking_lot::Mutex;
use proto::messages::*;
use proto::wire::{Chunks, Decoder, Encoder, RequestHeader, ResponseHeader, VersionRange, WireError};
use services::Services;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tracing::Instrument;

/// Who asks, and how.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The version of the request.
    pub version: i16,
    /// What the client calls itself.
    pub client_id: Option<String>,
    /// Where it connects from.
    pub peer: SocketAddr,
    /// Name of the listener it came through: it is told the addresses of brokers that belong to that one.
    pub listener: Arc<str>,
}

/// What a handler works with.
pub struct Context<'a> {
    pub services: &'a Arc<Services>,
    pub caller: Caller,
    /// Memory that a large request takes once it is decoded.
    pub memory: Option<Grant>,
    held: Mutex<Vec<Grant>>,
}

impl Context<'_> {
    /// Memory that the answer pins: it is given back when the answer was sent.
    pub fn hold_until_sent(&self, grants: Vec<Grant>) {
        *self.held.lock() = grants;
    }

    /// Takes memory for an answer that may become large, before it is made: an estimate from above. To be called once.
    pub async fn admit_answer(&self, bytes: usize) {
        if bytes > SMALL_ANSWER_BYTES {
            let grant = self.services.fetch_memory.admit(bytes).await;
            self.held.lock().push(grant);
        }
    }
}

/// Answers up to this size take no memory of a budget; a connection has a few of them at most.
const SMALL_ANSWER_BYTES: usize = 64 << 10;
/// Frames up to this size take no memory of a budget for what they are decoded to.
const SMALL_FRAME_BYTES: usize = 64 << 10;

/// Lists what Firn speaks: API, lowest and highest version, handler.
macro_rules! apis {
    ($($key:ident($request:ty) $min:literal ..= $max:literal => $handler:path;)*) => {
        /// What Firn speaks, in the order of API keys. Produce is dispatched by hand, for it is pipelined.
        pub const SPOKEN: &[(ApiKey, VersionRange)] = &[
            (ApiKey::Produce, VersionRange::new(3, 13)),
            $((ApiKey::$key, VersionRange::new($min, $max)),)*
        ];

        /// Decodes, calls the handler, encodes. The frame is given back as soon as it is decoded: what waits holds none.
        async fn dispatch(context: &mut Context<'_>, key: ApiKey, id: i32, frame: Decoding) -> Result<Chunks, WireError> {
            let version = context.caller.version;
            let Decoding { mut body, grant } = frame;
            match key {
                $(ApiKey::$key => {
                    let request = <$request>::decode(&mut body, version)?;
                    if let Some(memory) = &mut context.memory {
                        memory.shrink_to(body.booked_bytes());
                    }
                    drop((body, grant));
                    let response = Box::pin($handler(context, request)).await;
                    encode(key, version, id, |e| response.encode(e, version))
                })*
                _ => Err(WireError::UnknownApiKey(key.code())),
            }
        }
    };
}

apis! {
    Fetch(FetchRequest) 4..=18 => fetch::handle;
    ListOffsets(ListOffsetsRequest) 1..=10 => list_offsets::handle;
    Metadata(MetadataRequest) 0..=13 => metadata::handle;
    OffsetCommit(OffsetCommitRequest) 2..=10 => offset_commit::handle;
    OffsetFetch(OffsetFetchRequest) 1..=10 => offset_fetch::handle;
    FindCoordinator(FindCoordinatorRequest) 0..=6 => find_coordinator::handle;
    JoinGroup(JoinGroupRequest) 0..=9 => join_group::handle;
    Heartbeat(HeartbeatRequest) 0..=4 => heartbeat::handle;
    LeaveGroup(LeaveGroupRequest) 0..=5 => leave_group::handle;
    SyncGroup(SyncGroupRequest) 0..=5 => sync_group::handle;
    DescribeGroups(DescribeGroupsRequest) 0..=6 => groups::describe;
    ListGroups(ListGroupsRequest) 0..=5 => groups::list;
    ApiVersions(ApiVersionsRequest) 0..=4 => api_versions::handle;
    CreateTopics(CreateTopicsRequest) 2..=7 => topics::create;
    DeleteTopics(DeleteTopicsRequest) 1..=6 => topics::delete;
    DeleteRecords(DeleteRecordsRequest) 0..=2 => delete_records::handle;
    InitProducerId(InitProducerIdRequest) 0..=5 => init_producer_id::handle;
    OffsetForLeaderEpoch(OffsetForLeaderEpochRequest) 2..=4 => offset_for_leader_epoch::handle;
    DescribeConfigs(DescribeConfigsRequest) 1..=4 => configs::describe;
    AlterConfigs(AlterConfigsRequest) 0..=2 => configs::alter;
    AlterReplicaLogDirs(AlterReplicaLogDirsRequest) 1..=2 => log_dirs::alter;
    DescribeLogDirs(DescribeLogDirsRequest) 1..=5 => log_dirs::handle;
    CreatePartitions(CreatePartitionsRequest) 0..=3 => topics::create_partitions;
    DeleteGroups(DeleteGroupsRequest) 0..=2 => groups::delete;
    ElectLeaders(ElectLeadersRequest) 0..=2 => elections::elect;
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest) 0..=1 => configs::incremental_alter;
    AlterPartitionReassignments(AlterPartitionReassignmentsRequest) 0..=1 => reassignments::alter;
    ListPartitionReassignments(ListPartitionReassignmentsRequest) 0..=0 => reassignments::list;
    OffsetDelete(OffsetDeleteRequest) 0..=0 => offset_delete::handle;
    DescribeQuorum(DescribeQuorumRequest) 0..=2 => quorum::describe;
    UpdateFeatures(UpdateFeaturesRequest) 0..=2 => features::update;
    DescribeProducers(DescribeProducersRequest) 0..=0 => describe_producers::handle;
    DescribeCluster(DescribeClusterRequest) 0..=2 => cluster::describe;
    UnregisterBroker(UnregisterBrokerRequest) 0..=0 => features::unregister;
    DescribeTopicPartitions(DescribeTopicPartitionsRequest) 0..=0 => metadata::describe_topic_partitions;
    AddRaftVoter(AddRaftVoterRequest) 0..=1 => quorum::add_voter;
    RemoveRaftVoter(RemoveRaftVoterRequest) 0..=0 => quorum::remove_voter;
}

/// A frame while it is read.
struct Decoding {
    body: Decoder,
    grant: FrameGrant,
}

/// Whether requests of this kind wait for what others do, clients or brokers. One whose client left is given up.
const fn waits(key: ApiKey) -> bool {
    matches!(key, ApiKey::Fetch | ApiKey::JoinGroup | ApiKey::SyncGroup | ApiKey::Metadata)
}

/// The versions of `key` that Firn speaks.
pub fn spoken(key: ApiKey) -> Option<VersionRange> {
    SPOKEN.iter().find(|(spoken, _)| *spoken == key).map(|(_, versions)| *versions)
}

/// What ApiVersions says of an API that is spoken in these versions.
///
/// Produce is said to begin at 0, as Kafka does (KAFKA-18659), though 3 is the first that is served: librdkafka before 2.3
/// takes a broker without version 0 for one that knows no compression, and sends everything uncompressed.
pub fn advertised(key: ApiKey, versions: VersionRange) -> VersionRange {
    if key == ApiKey::Produce { VersionRange::new(0, versions.max) } else { versions }
}

/// Writes a whole answer: length, header, body.
fn encode(
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    body: impl FnOnce(&mut Encoder) -> Result<(), WireError>,
) -> Result<Chunks, WireError> {
    let mut encoder = Encoder::frame();
    ResponseHeader { correlation_id }.encode(&mut encoder, key, version);
    body(&mut encoder)?;
    encoder.finish()
}

fn answer(chunks: Chunks, grants: Vec<Grant>) -> Answer {
    Answer { chunks: chunks.into_parts().into(), grants }
}

/// Serves the connections of one listener.
pub struct Listener {
    services: Arc<Services>,
    name: Arc<str>,
}

impl Listener {
    /// The listener called `name`, whose requests are answered by `services`.
    pub fn new(services: Arc<Services>, name: &str) -> Listener {
        Listener { services, name: name.into() }
    }
}

impl Accept for Listener {
    type Service = Connection;

    fn accept(&self, peer: SocketAddr, _local: SocketAddr) -> Connection {
        self.services.metrics.connections_total.inc();
        self.services.metrics.gauges.connections_open.inc();
        Connection { services: Arc::clone(&self.services), peer, listener: Arc::clone(&self.name) }
    }

    fn ended(&self) {
        self.services.metrics.gauges.connections_open.dec();
    }

    fn most_connections(&self) -> usize {
        self.services.config.load().net.max_connections
    }

    fn most_connections_of(&self, address: IpAddr) -> usize {
        let config = self.services.config.load();
        let overrides = &config.net.max_connections_per_ip_overrides;
        let own = overrides.iter().find(|(of, _)| *of == address).map(|(_, most)| *most);
        own.unwrap_or(config.net.max_connections_per_ip)
    }
}

/// The requests of one client connection.
pub struct Connection {
    services: Arc<Services>,
    peer: SocketAddr,
    listener: Arc<str>,
}

impl Service for Connection {
    async fn start(&mut self, frame: Frame) -> Started {
        match self.try_start(frame).await {
            Ok(started) => started,
            Err(error) => Started::Close(error.to_string()),
        }
    }
}

impl Connection {
    async fn try_start(&mut self, frame: Frame) -> Result<Started, WireError> {
        let Frame { body, grant } = frame;
        let size = body.len();
        let mut body = Decoder::new(body);
        let header = RequestHeader::decode(&mut body)?;
        let key = ApiKey::from_code(header.api_key).ok_or(WireError::UnknownApiKey(header.api_key))?;
        let unknown = WireError::UnsupportedVersion { message: key.name(), version: header.api_version };
        let versions = spoken(key).ok_or(unknown)?;
        if !versions.contains(header.api_version) {
            return self.unspoken_version(key, &header);
        }
        self.services.metrics.requests.get_or_create(&ApiLabel { api: key.name() }).inc();
        let caller = Caller {
            version: header.api_version,
            client_id: header.client_id,
            peer: self.peer,
            listener: Arc::clone(&self.listener),
        };
        let span = tracing::info_span!(target: crate::telemetry::SPANS, "request", api = key.name());
        if key == ApiKey::Produce {
            // Its arrays are never larger than the batches in them.
            body.limit_to(size.saturating_add(SMALL_FRAME_BYTES));
            let context = Context { services: &self.services, caller, memory: None, held: Mutex::default() };
            return produce::start(&context, header.correlation_id, &mut body, grant).instrument(span).await;
        }
        let request = Request { key, id: header.correlation_id, caller, size, frame: Decoding { body, grant } };
        let answering = answer_to(Arc::clone(&self.services), request).instrument(span);
        Ok(if waits(key) { Started::Waiting(answering.boxed()) } else { answering.await })
    }

    /// A client too new for us learns from version 0 of ApiVersions what we speak (KIP-511); any other API ends the
    /// connection, as in Kafka.
    fn unspoken_version(&self, key: ApiKey, header: &RequestHeader) -> Result<Started, WireError> {
        if key != ApiKey::ApiVersions {
            return Err(WireError::UnsupportedVersion { message: key.name(), version: header.api_version });
        }
        let response = api_versions::unsupported();
        let chunks = encode(key, 0, header.correlation_id, |e| response.encode(e, 0))?;
        Ok(Started::Done(answer(chunks, Vec::new())))
    }
}

/// A request that is to be answered before the next one is read.
struct Request {
    key: ApiKey,
    id: i32,
    caller: Caller,
    /// Bytes of its frame.
    size: usize,
    frame: Decoding,
}

async fn answer_to(services: Arc<Services>, request: Request) -> Started {
    let Request { key, id, caller, size, mut frame } = request;
    let mut context = Context { services: &services, caller, memory: None, held: Mutex::default() };
    if size > SMALL_FRAME_BYTES {
        // What it is decoded to may take many times its size. Each of frames, decoded requests and answers has a budget of its own:
        // they are taken in this order, and nobody waits for one while others wait for him.
        let memory = &services.decoded_memory;
        let memory = memory.admit(Decoder::usual_limit(size).min(memory.total_bytes())).await;
        frame.body.limit_to(memory.bytes());
        context.memory = Some(memory);
    }
    let chunks = match dispatch(&mut context, key, id, frame).await {
        Ok(chunks) => chunks,
        Err(error) => return Started::Close(error.to_string()),
    };
    let Context { memory, held, .. } = context;
    drop(memory);
    let mut grants = held.into_inner();
    if key != ApiKey::Fetch {
        // What was taken for the answer was an estimate.
        if let Some(grant) = grants.first_mut() {
            grant.shrink_to(chunks.len());
        } else if chunks.len() > SMALL_ANSWER_BYTES {
            grants.push(services.fetch_memory.admit(chunks.len()).await);
        }
    }
    Started::Done(answer(chunks, grants))
}

/// A pending answer of about `bytes` bytes, boxed for the connection's queue.
fn pending(future: impl Future<Output = Option<Answer>> + Send + 'static, bytes: usize) -> Started {
    Started::Pending { answer: future.boxed(), bytes }
}
