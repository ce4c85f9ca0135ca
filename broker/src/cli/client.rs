//! A small Kafka client for the command line: one connection per broker, requests pipelined by hand where it pays.

use crate::net::wire_client::{self, CallError, Sent};
use proto::errors::ErrorCode;
use proto::host::{Network, ReadHalf, TcpNetwork, WriteHalf};
use proto::messages::api_table::Request;
use proto::messages::metadata_request::MetadataRequestTopic;
use proto::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};
use proto::messages::{MetadataRequest, MetadataResponse};
use proto::metadata::host_and_port;
use proto::wire::WireError;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// How long a broker may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a broker may take to answer.
const ANSWER: Duration = Duration::from_secs(70);
/// What an answer may measure: the largest fetch, with room.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// How long a partition may be without a leader, or refuse for another reason that passes, before that is an error.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);
/// What this client calls itself.
const NAME: &str = "firn";

/// Why a call failed, in one line for a person.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no broker answers at {0}: is Firn running there? (firn dev starts one; --bootstrap names another)")]
    Unreachable(String),
    #[error("the connection to {0} broke: {1}")]
    Broken(String, std::io::Error),
    #[error("{0} did not answer within {1} s")]
    Silent(String, u64),
    #[error("{address} does not speak {api}")]
    NotSpoken { address: String, api: &'static str },
    #[error("an answer of {0} cannot be read: {1}")]
    Garbled(String, WireError),
    #[error("{what}: {}", reason(*code, message.as_deref()))]
    Refused { what: String, code: ErrorCode, message: Option<String> },
    #[error("standard output: {0}")]
    Output(std::io::Error),
    #[error("{0}")]
    Other(String),
}

/// What the broker said, or else what its code means.
fn reason(code: ErrorCode, message: Option<&str>) -> String {
    let means = match code {
        ErrorCode::UnknownTopicOrPartition => {
            Some("there is no such topic or partition (firn topic list shows those there are)")
        }
        ErrorCode::UnknownTopicId => Some("the topic was deleted"),
        ErrorCode::LeaderNotAvailable | ErrorCode::NotLeaderOrFollower => {
            Some("nobody leads the partition at the moment")
        }
        ErrorCode::NotEnoughReplicas | ErrorCode::NotEnoughReplicasAfterAppend => {
            Some("fewer replicas are in sync than min.insync.replicas asks for (firn cluster status)")
        }
        ErrorCode::RequestTimedOut => Some("it took too long, and may yet happen"),
        ErrorCode::InvalidTopicException => Some("no topic can be called that"),
        _ => None,
    };
    match message.or(means) {
        Some(text) => format!("{text} ({})", code.name()),
        None => code.name().to_owned(),
    }
}

/// `Ok` if `code` says so.
pub fn check(what: &str, code: i16, message: Option<&str>) -> Result<(), ClientError> {
    match ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError) {
        ErrorCode::None => Ok(()),
        code => Err(ClientError::Refused {
            what: what.to_owned(),
            code,
            message: message.map(str::to_owned).filter(|text| !text.is_empty()),
        }),
    }
}

/// A connection to one broker.
pub struct Connection {
    sending: Sending,
    receiving: Receiving,
    outstanding: VecDeque<Sent>,
}

/// The half of a connection that requests leave by.
pub struct Sending {
    address: Arc<str>,
    sender: wire_client::Sender<WriteHalf>,
}

/// The half of a connection that answers come by, in the order of the requests.
pub struct Receiving {
    address: Arc<str>,
    receiver: wire_client::Receiver<ReadHalf>,
}

impl Connection {
    /// Connects and asks what the broker speaks.
    pub async fn open(address: &str) -> Result<Connection, ClientError> {
        let stream = tokio::time::timeout(CONNECT, TcpNetwork.connect(address)).await;
        let stream = match stream {
            Ok(Ok(stream)) => stream,
            Ok(Err(_)) | Err(_) => return Err(ClientError::Unreachable(address.to_owned())),
        };
        stream.set_nodelay(true).map_err(|error| ClientError::Broken(address.to_owned(), error))?;
        let greeted = wire_client::greet(stream.split(), NAME, MAX_ANSWER_BYTES, ANSWER).await;
        let (sender, receiver) = greeted.map_err(|error| failed(address, error))?;
        let address: Arc<str> = address.into();
        Ok(Connection {
            sending: Sending { address: Arc::clone(&address), sender },
            receiving: Receiving { address, receiver },
            outstanding: VecDeque::new(),
        })
    }

    /// Sends a request and waits for its answer. Answers to earlier ones must have been received.
    pub async fn call<R: Request>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        self.send(request).await?;
        self.receive::<R>().await
    }

    /// Sends a request without waiting for its answer.
    pub async fn send<R: Request>(&mut self, request: &R) -> Result<(), ClientError> {
        let sent = self.sending.send(request).await?;
        self.outstanding.push_back(sent);
        Ok(())
    }

    /// The answer to the oldest request that has none yet, which must have been an `R`.
    pub async fn receive<R: Request>(&mut self) -> Result<R::Response, ClientError> {
        let sent =
            self.outstanding.pop_front().ok_or_else(|| ClientError::Other("no request is outstanding".to_owned()))?;
        self.receiving.receive::<R>(sent).await
    }

    /// Takes the halves apart, for who sends while answers come in. No answer may be outstanding.
    pub fn split(self) -> (Sending, Receiving) {
        debug_assert!(self.outstanding.is_empty(), "their answers would be taken for others");
        (self.sending, self.receiving)
    }
}

impl Sending {
    /// Sends a request; [`Receiving::receive`] takes the answers in the same order.
    pub async fn send<R: Request>(&mut self, request: &R) -> Result<Sent, ClientError> {
        self.sender.send(request).await.map_err(|error| failed(&self.address, error))
    }
}

impl Receiving {
    /// The answer to `sent`, the oldest request that has none yet, which must have been an `R`.
    pub async fn receive<R: Request>(&mut self, sent: Sent) -> Result<R::Response, ClientError> {
        self.receiver.receive::<R>(sent, ANSWER).await.map_err(|error| failed(&self.address, error))
    }
}

/// What a person is told of a call to `address` that failed.
fn failed(address: &str, error: CallError) -> ClientError {
    let address = address.to_owned();
    match error {
        CallError::Broken(error) => ClientError::Broken(address, error),
        CallError::Silent(within) => ClientError::Silent(address, within.as_secs()),
        CallError::NotSpoken(api) => ClientError::NotSpoken { address, api },
        CallError::Garbled(error) => ClientError::Garbled(address, error),
        CallError::Mismatched => ClientError::Other(format!("{address} answered another request than the one asked")),
        CallError::Refused(code) => {
            ClientError::Refused { what: "asking what the broker speaks".to_owned(), code, message: None }
        }
    }
}

/// A topic as clients see it.
#[derive(Clone, Debug)]
pub struct TopicView {
    pub name: String,
    pub id: Uuid,
    pub internal: bool,
    /// Partition index and its leader's node id.
    pub partitions: Vec<(i32, i32)>,
    /// By partition index: where it has replicas, the preferred leader first, and which of them are in sync.
    pub replicas: BTreeMap<i32, Replicas>,
}

/// The replicas of a partition, by node id.
#[derive(Clone, Debug, Default)]
pub struct Replicas {
    pub all: Vec<i32>,
    pub in_sync: Vec<i32>,
}

/// All brokers of a cluster.
pub struct Client {
    first: Connection,
    /// Where one was found first, host:port separated by commas.
    bootstrap: String,
    addresses: HashMap<i32, String>,
    connections: HashMap<i32, Connection>,
}

impl Client {
    /// Connects to the first of `bootstrap` (host:port, separated by commas) that answers.
    pub async fn connect(bootstrap: &str) -> Result<Client, ClientError> {
        let addresses = bootstrap.split(',').map(str::trim).filter(|address| !address.is_empty());
        let first = any_of(bootstrap, addresses).await?;
        let bootstrap = bootstrap.to_owned();
        Ok(Client { first, bootstrap, addresses: HashMap::new(), connections: HashMap::new() })
    }

    /// Whether the cluster has more than one broker, as far as is known.
    pub fn knows_others(&self) -> bool {
        self.addresses.len() > 1
    }

    /// Lets go of the connections to the brokers that lead; they are opened again when they are asked for.
    pub fn hang_up(&mut self) {
        self.connections.clear();
    }

    /// Asks whichever broker is connected; another one if it is gone.
    pub async fn call<R: Request>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        match self.first.call(request).await {
            Err(ClientError::Broken(..) | ClientError::Silent(..)) if self.knows_others() => {
                let known = self.addresses.values().map(String::as_str);
                let addresses = self.bootstrap.split(',').map(str::trim).filter(|one| !one.is_empty()).chain(known);
                self.first = any_of(&self.bootstrap, addresses).await?;
                self.first.call(request).await
            }
            answer => answer,
        }
    }

    /// The connection to one broker, opened when first asked for.
    pub async fn node(&mut self, id: i32) -> Result<&mut Connection, ClientError> {
        if id < 0 {
            let what = "asking the leader of a partition".to_owned();
            let message = Some("it has none at the moment".to_owned());
            return Err(ClientError::Refused { what, code: ErrorCode::LeaderNotAvailable, message });
        }
        if !self.connections.contains_key(&id) {
            let address = self.addresses.get(&id).cloned().ok_or_else(|| {
                ClientError::Other(format!("broker {id} leads a partition, but the cluster does not list it"))
            })?;
            self.connections.insert(id, Connection::open(&address).await?);
        }
        self.connections.get_mut(&id).ok_or_else(|| ClientError::Other(format!("no connection to broker {id}")))
    }

    /// A new connection to one broker, for its taker alone.
    pub async fn own(&mut self, id: i32) -> Result<Connection, ClientError> {
        self.node(id).await?;
        self.connections.remove(&id).ok_or_else(|| ClientError::Other(format!("no connection to broker {id}")))
    }

    /// All topics, in order of their names.
    pub async fn topics(&mut self) -> Result<Vec<TopicView>, ClientError> {
        let answer = self.metadata(None).await?;
        answer.topics.into_iter().map(view).collect()
    }

    /// One topic.
    pub async fn topic(&mut self, name: &str) -> Result<TopicView, ClientError> {
        let answer = self.metadata(Some(name)).await?;
        let topic = answer.topics.into_iter().next();
        view(topic.ok_or_else(|| ClientError::Other(format!("the broker says nothing of topic {name}")))?)
    }

    async fn metadata(&mut self, topic: Option<&str>) -> Result<MetadataResponse, ClientError> {
        let topics = topic.map(|name| vec![MetadataRequestTopic { name: Some(name.to_owned()), ..Default::default() }]);
        let request = MetadataRequest { topics, allow_auto_topic_creation: false, ..Default::default() };
        let answer = self.call(&request).await?;
        self.addresses =
            answer.brokers.iter().map(|broker| (broker.node_id, host_and_port(&broker.host, broker.port))).collect();
        Ok(answer)
    }
}

/// How long nothing but errors came that may pass.
#[derive(Debug, Default)]
pub struct Patience {
    since: Option<Instant>,
}

impl Patience {
    /// Waits a moment after an error that may pass, and asks who leads the partitions then.
    ///
    /// # Errors
    /// `error`, if it does not pass, or has not for too long.
    pub async fn after(
        &mut self,
        error: ClientError,
        client: &mut Client,
        topic: &str,
    ) -> Result<TopicView, ClientError> {
        let mut error = error;
        loop {
            let passes = match &error {
                ClientError::Refused { code, .. } => code.is_retriable(),
                // One of several brokers is gone: another will lead what it led.
                ClientError::Unreachable(_) | ClientError::Broken(..) | ClientError::Silent(..) => {
                    client.knows_others()
                }
                _ => false,
            };
            let since = *self.since.get_or_insert_with(Instant::now);
            if !passes || since.elapsed() > PATIENCE {
                return Err(error);
            }
            sleep(PAUSE).await;
            client.hang_up();
            match client.topic(topic).await {
                Ok(view) => return Ok(view),
                Err(again) => error = again,
            }
        }
    }
}

/// A connection to the first of `addresses` that answers.
async fn any_of(bootstrap: &str, addresses: impl Iterator<Item = &str>) -> Result<Connection, ClientError> {
    let mut last = ClientError::Unreachable(bootstrap.to_owned());
    for address in addresses {
        match Connection::open(address).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn view(topic: MetadataResponseTopic) -> Result<TopicView, ClientError> {
    let name = topic.name.unwrap_or_default();
    check(&format!("topic {name}"), topic.error_code, None)?;
    let replicas = |partition: &MetadataResponsePartition| Replicas {
        all: partition.replica_nodes.clone(),
        in_sync: partition.isr_nodes.clone(),
    };
    let replicas = topic.partitions.iter().map(|partition| (partition.partition_index, replicas(partition))).collect();
    let mut partitions: Vec<_> =
        topic.partitions.iter().map(|partition| (partition.partition_index, partition.leader_id)).collect();
    partitions.sort_unstable();
    Ok(TopicView { name, id: topic.topic_id, internal: topic.is_internal, partitions, replicas })
}
