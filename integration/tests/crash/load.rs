//! Load that goes on until the broker is gone: producers, a group that commits offsets, and somebody who administers.
//!
//! Each keeps across cuts what a real client would keep, and puts down what it was promised.

use super::plan::TopicPlan;
use bytes::Bytes;
use integration::calls::{ACKS_ALL, CallError, EARLIEST, LATEST, PRODUCE_BY_NAME, produce_request, produced};
use integration::client::{Client, ClientError};
use integration::dice::Dice;
use integration::history::ledger::{BatchId, Ledger};
use proto::errors::ErrorCode;
use proto::messages::join_group_request::JoinGroupRequestProtocol;
use proto::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use proto::messages::sync_group_request::SyncGroupRequestAssignment;
use proto::messages::{JoinGroupRequest, OffsetCommitRequest, ProduceRequest, SyncGroupRequest};
use proto::records::{BatchBuilder, Codec};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Kafka's own bound for idempotent producers: a broker remembers the last five batches.
const IN_FLIGHT: usize = 5;
/// The group whose offsets are committed.
pub(crate) const GROUP: &str = "crash-group";
/// The topic whose offsets it commits.
pub(crate) const COMMITTED: &str = "idempotent";

/// A ledger and whom it is shared with: the producer writes it, the check reads it.
pub(crate) type Shared = Arc<Mutex<Ledger>>;

/// Gives batches their numbers: times that no two batches share.
#[derive(Debug)]
pub(crate) struct Numbers(AtomicI64);

impl Numbers {
    /// Numbers from `now_ms` on.
    pub(crate) fn from(now_ms: i64) -> Numbers {
        Numbers(AtomicI64::new(now_ms))
    }

    fn next(&self) -> BatchId {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// How a producer ended its round.
pub(crate) type Ended = Result<(), String>;

/// What ends a client's round: silence is what a killed broker leaves; anything else is news.
fn gone(error: CallError, ending: bool) -> Ended {
    match error {
        CallError::Client(ClientError::Closed(_)) => Ok(()),
        CallError::Refused { code, .. } if ending && code.is_retriable() => Ok(()),
        other => Err(other.to_string()),
    }
}

/// A producer of one partition. An idempotent one sends again what was not answered.
pub(crate) struct Producer {
    pub(crate) number: usize,
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) idempotent: bool,
    pub(crate) ledger: Shared,
    pub(crate) numbers: Arc<Numbers>,
    pub(crate) dice: Dice,
    identity: Option<Identity>,
    /// Sent and not answered, oldest first.
    open: VecDeque<(BatchId, Bytes)>,
}

struct Identity {
    id: i64,
    epoch: i16,
    next_sequence: i32,
}

impl Producer {
    pub(crate) fn new(
        number: usize,
        plan: &TopicPlan,
        partition: i32,
        ledger: Shared,
        numbers: Arc<Numbers>,
        dice: Dice,
    ) -> Self {
        Producer {
            number,
            topic: plan.name.to_owned(),
            partition,
            idempotent: plan.idempotent,
            ledger,
            numbers,
            dice,
            identity: None,
            open: VecDeque::new(),
        }
    }

    /// Produces until the connection ends. Every `ids` seen is a producer id that nobody else may get.
    pub(crate) async fn run(&mut self, to: SocketAddr, ids: &Mutex<BTreeSet<i64>>, ending: bool) -> Ended {
        match self.produce(to, ids).await {
            Ok(()) => Ok(()),
            Err(Stop::Call(error)) => gone(error, ending),
            Err(Stop::Wrong(why)) => Err(why),
        }
        .map_err(|why| format!("producer {} of {}-{}: {why}", self.number, self.topic, self.partition))
    }

    async fn produce(&mut self, to: SocketAddr, ids: &Mutex<BTreeSet<i64>>) -> Result<(), Stop> {
        let mut client = Client::connect(to).await.map_err(CallError::from)?;
        if self.idempotent {
            self.identify(&mut client, ids).await?;
        } else {
            self.open.clear();
        }
        let again: Vec<Bytes> = self.open.iter().map(|(_, bytes)| bytes.clone()).collect();
        for batch in again {
            self.send(&mut client, batch).await?;
        }
        loop {
            while self.open.len() < IN_FLIGHT {
                let (id, batch) = self.batch();
                self.lock().sending(id, self.number, &batch, self.idempotent);
                self.open.push_back((id, batch.clone()));
                self.send(&mut client, batch).await?;
            }
            let answer = client.receive::<ProduceRequest>().await.map_err(CallError::from)?;
            let offset = produced(answer)?;
            let (id, _) = self.open.pop_front().expect("one answer for each batch sent");
            self.lock().acknowledged(id, offset).map_err(Stop::Wrong)?;
            tokio::time::sleep(Duration::from_micros(self.dice.below(8_000))).await;
        }
    }

    async fn send(&self, client: &mut Client, batch: Bytes) -> Result<(), Stop> {
        let request = produce_request(&self.topic, self.partition, ACKS_ALL, batch);
        Ok(client.send(&request, PRODUCE_BY_NAME).await.map_err(CallError::from)?)
    }

    /// Takes a new producer id now and then, once nothing is open under the old one.
    async fn identify(&mut self, client: &mut Client, ids: &Mutex<BTreeSet<i64>>) -> Result<(), Stop> {
        if self.identity.is_some() && !(self.open.is_empty() && self.dice.one_in(4)) {
            return Ok(());
        }
        let (id, epoch) = client.producer_id().await?;
        if !ids.lock().expect("no panic under this lock").insert(id) {
            return Err(Stop::Wrong(format!("producer id {id} was given out twice")));
        }
        self.identity = Some(Identity { id, epoch, next_sequence: 0 });
        Ok(())
    }

    fn batch(&mut self) -> (BatchId, Bytes) {
        let id = self.numbers.next();
        let records = 1 + self.dice.below(12);
        let codecs = [Codec::None, Codec::None, Codec::Lz4, Codec::Zstd, Codec::Snappy, Codec::Gzip];
        let mut batch = BatchBuilder::new().codec(self.dice.pick(&codecs));
        if let Some(identity) = &mut self.identity {
            batch = batch.producer(identity.id, identity.epoch, identity.next_sequence);
            identity.next_sequence += i32::try_from(records).expect("few records");
        }
        for record in 0..records {
            let key = format!("{}-{id}-{record}", self.number);
            let value: Vec<u8> = (0..self.dice.below(900)).flat_map(|_| self.dice.throw().to_le_bytes()).collect();
            batch.append(id, Some(key.as_bytes()), Some(&value), &[]);
        }
        (id, batch.build())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no panic under this lock")
    }
}

enum Stop {
    Call(CallError),
    Wrong(String),
}

impl From<CallError> for Stop {
    fn from(error: CallError) -> Stop {
        Stop::Call(error)
    }
}

/// A member of a group that commits one number after the other.
#[derive(Debug, Default)]
pub(crate) struct Committer {
    member: Option<(String, i32)>,
    /// The number last sent, and the one last acknowledged.
    pub(crate) sent: i64,
    pub(crate) acknowledged: i64,
}

impl Committer {
    /// Commits until the connection ends.
    pub(crate) async fn run(&mut self, to: SocketAddr, ending: bool) -> Ended {
        match self.commit(to).await {
            Ok(()) => Ok(()),
            Err(error) => gone(error, ending).map_err(|why| format!("committing: {why}")),
        }
    }

    async fn commit(&mut self, to: SocketAddr) -> Result<(), CallError> {
        let mut client = Client::connect(to).await?;
        loop {
            let (member, generation) = match &self.member {
                Some(member) => member.clone(),
                None => self.join(&mut client).await?,
            };
            self.sent += 1;
            let partition = OffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: self.sent,
                committed_leader_epoch: -1,
                committed_metadata: Some(metadata(self.sent)),
            };
            let topic = OffsetCommitRequestTopic {
                name: COMMITTED.to_owned(),
                partitions: vec![partition],
                ..Default::default()
            };
            let request = OffsetCommitRequest {
                group_id: GROUP.to_owned(),
                generation_id_or_member_epoch: generation,
                member_id: member,
                topics: vec![topic],
                retention_time_ms: -1,
                ..Default::default()
            };
            let answer = client.call_in(&request, 9).await?;
            let code = answer.topics.first().and_then(|topic| topic.partitions.first()).map(|one| one.error_code);
            match code.and_then(ErrorCode::from_code) {
                Some(ErrorCode::None) => self.acknowledged = self.sent,
                // A session that ran out during a cut; its member joins again.
                Some(ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration | ErrorCode::RebalanceInProgress) => {
                    self.member = None;
                }
                // The group's partition is still being read after a start.
                Some(ErrorCode::CoordinatorLoadInProgress) => {}
                Some(code) => return Err(CallError::Refused { code, message: "commit".to_owned() }),
                None => return Err(CallError::Missing("the partition".to_owned())),
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    async fn join(&mut self, client: &mut Client) -> Result<(String, i32), CallError> {
        let mut member_id = String::new();
        self.find(client).await?;
        loop {
            let request = JoinGroupRequest {
                group_id: GROUP.to_owned(),
                session_timeout_ms: 30_000,
                rebalance_timeout_ms: 30_000,
                member_id: member_id.clone(),
                protocol_type: "consumer".to_owned(),
                protocols: vec![JoinGroupRequestProtocol { name: "range".to_owned(), metadata: Bytes::new() }],
                ..Default::default()
            };
            let joined = client.call(&request).await?;
            match ErrorCode::from_code(joined.error_code) {
                Some(ErrorCode::None) => {
                    let member = (joined.member_id, joined.generation_id);
                    self.sync(client, &member).await?;
                    self.member = Some(member.clone());
                    return Ok(member);
                }
                Some(ErrorCode::MemberIdRequired) => member_id = joined.member_id,
                Some(ErrorCode::UnknownMemberId) => member_id = String::new(),
                Some(ErrorCode::CoordinatorLoadInProgress) => {}
                Some(code) => return Err(CallError::Refused { code, message: "join".to_owned() }),
                None => return Err(CallError::Missing("a known error code".to_owned())),
            }
        }
    }

    /// Finds the coordinator, which is not there before somebody asked for it.
    async fn find(&self, client: &mut Client) -> Result<(), CallError> {
        loop {
            match client.find_coordinator(GROUP).await {
                Err(error) if error.code() == Some(ErrorCode::CoordinatorNotAvailable) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                done => return done,
            }
        }
    }

    async fn sync(&self, client: &mut Client, member: &(String, i32)) -> Result<(), CallError> {
        let assignment = SyncGroupRequestAssignment { member_id: member.0.clone(), assignment: Bytes::new() };
        let request = SyncGroupRequest {
            group_id: GROUP.to_owned(),
            generation_id: member.1,
            member_id: member.0.clone(),
            protocol_type: Some("consumer".to_owned()),
            protocol_name: Some("range".to_owned()),
            assignments: vec![assignment],
            ..Default::default()
        };
        let synced = client.call(&request).await?;
        match ErrorCode::from_code(synced.error_code) {
            Some(ErrorCode::None) => Ok(()),
            code => Err(CallError::Refused {
                code: code.unwrap_or(ErrorCode::UnknownServerError),
                message: "sync".to_owned(),
            }),
        }
    }
}

/// The metadata that goes with the committed offset `number`.
pub(crate) fn metadata(number: i64) -> String {
    format!("number {number}")
}

/// Creates and deletes topics, and deletes records of one partition.
#[derive(Debug)]
pub(crate) struct Administrator {
    pub(crate) trimmed: (String, i32),
    pub(crate) ledger: Shared,
    pub(crate) dice: Dice,
    /// Whether a topic must be there (`Some`), or may be (`None`: nobody answered).
    pub(crate) topics: BTreeMap<String, Option<bool>>,
    created: u64,
}

impl Administrator {
    pub(crate) fn new(trimmed: (String, i32), ledger: Shared, dice: Dice) -> Administrator {
        Administrator { trimmed, ledger, dice, topics: BTreeMap::new(), created: 0 }
    }

    /// Administers until the connection ends.
    pub(crate) async fn run(&mut self, to: SocketAddr, ending: bool) -> Ended {
        match self.administer(to).await {
            Ok(()) => Ok(()),
            Err(error) => gone(error, ending).map_err(|why| format!("administering: {why}")),
        }
    }

    async fn administer(&mut self, to: SocketAddr) -> Result<(), CallError> {
        let mut client = Client::connect(to).await?;
        loop {
            match self.dice.below(4) {
                0 => {
                    self.created += 1;
                    let name = format!("made-{}", self.created);
                    self.topics.insert(name.clone(), None);
                    let partitions = 1 + i32::try_from(self.dice.below(3)).expect("few partitions");
                    client.create_topic(&name, partitions, &[]).await?;
                    self.topics.insert(name, Some(true));
                }
                1 => {
                    let there = self.topics.iter().find(|(_, there)| **there == Some(true));
                    if let Some(name) = there.map(|(name, _)| name.clone()) {
                        self.topics.insert(name.clone(), None);
                        client.delete_topic(&name).await?;
                        self.topics.insert(name, Some(false));
                    }
                }
                _ => self.delete_records(&mut client).await?,
            }
            tokio::time::sleep(Duration::from_millis(20 + self.dice.below(60))).await;
        }
    }

    async fn delete_records(&mut self, client: &mut Client) -> Result<(), CallError> {
        let (topic, partition) = (self.trimmed.0.clone(), self.trimmed.1);
        let start = client.offset(&topic, partition, EARLIEST).await?;
        let end = client.offset(&topic, partition, LATEST).await?;
        // Most of the partition stays, so that there is something cold to read.
        let to = start + self.dice.below(u64::try_from(end - start).unwrap_or(0) / 8 + 1).cast_signed();
        self.ledger.lock().expect("no panic under this lock").deleting(to);
        let deleted = client.delete_records(&topic, partition, to).await?;
        self.ledger.lock().expect("no panic under this lock").deleted(deleted);
        Ok(())
    }
}
