//! A broker to mistreat, and a witness that behaves: what it was promised must hold whatever the others do.

use bytes::Bytes;
use integration::calls::{ACKS_ALL, CallError, LATEST, PRODUCE_BY_NAME, produce_request, produced};
use integration::client::Client;
use integration::process::{Firn, Running};
use proto::errors::ErrorCode;
use proto::host::{Clock, Entropy, SystemClock, SystemEntropy};
use proto::ids::Offset;
use proto::records::BatchBuilder;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

pub(crate) const FIRN: &str = env!("CARGO_BIN_EXE_firn-under-test");
const ELSEWHERE: &str = "FIRN_TEST_BOOTSTRAP";

/// A process of our own, or one that was started by somebody else.
pub(crate) struct Stand {
    address: SocketAddr,
    ours: Option<(Running, TempDir)>,
}

impl Stand {
    /// A fresh `firn dev`, unless another broker is to be asked.
    pub(crate) async fn any() -> Stand {
        match std::env::var(ELSEWHERE).ok().and_then(|address| address.parse().ok()) {
            Some(address) => Stand { address, ours: None },
            None => Stand::firn(|firn| firn).await,
        }
    }

    /// A fresh `firn dev` with settings of its own.
    pub(crate) async fn firn(adapt: impl FnOnce(Firn) -> Firn) -> Stand {
        let home = home();
        let running = adapt(dev(&home.path().join("data"))).start().await.expect("a broker");
        Stand { address: running.kafka(), ours: Some((running, home)) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it is Firn that is asked.
    pub(crate) fn is_ours(&self) -> bool {
        self.ours.is_some()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await.expect("a connection")
    }

    /// Asks our own process to end; how it did.
    pub(crate) async fn terminate(self, within: Duration) -> (ExitStatus, Duration) {
        let (running, _home) = self.ours.expect("our own process");
        running.terminate(within).await.expect("it ends in time")
    }

    pub(crate) fn running(&mut self) -> Option<&mut Running> {
        self.ours.as_mut().map(|(running, _)| running)
    }
}

/// A directory for the data of one test.
pub(crate) fn home() -> TempDir {
    tempfile::Builder::new().prefix("firn-bad-input-").tempdir().expect("a directory")
}

/// `firn dev` that starts fast and leaves little behind.
pub(crate) fn dev(data: &Path) -> Firn {
    Firn::dev(FIRN, data).set("firn.journal.file.bytes", 1 << 20).set("offsets.topic.num.partitions", 1)
}

/// Nothing that is waited for takes longer.
const DEADLINE: Duration = Duration::from_secs(30);

/// Asks until the answer is there.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "still waiting for {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A name that no other test, and no earlier run, uses.
pub(crate) fn unique(prefix: &str) -> String {
    format!("{prefix}-{:08x}", SystemEntropy.next_u64() >> 32)
}

/// Creates a topic and waits until it is led: another broker may answer before that.
pub(crate) async fn make(client: &mut Client, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
    client.create_topic(topic, partitions, configs).await.expect("a topic");
    for partition in 0..partitions {
        loop {
            match client.offset(topic, partition, LATEST).await {
                Err(error) if error.code().is_some_and(ErrorCode::is_retriable) => {}
                found => {
                    found.expect("an offset");
                    break;
                }
            }
        }
    }
}

/// One batch of one record that holds `value`.
pub(crate) fn batch(value: &[u8]) -> Bytes {
    let mut batch = BatchBuilder::new();
    batch.append(SystemClock.now_ms(), None, Some(value), &[]);
    batch.build()
}

/// The code that an answer carries; `None` if there was no answer.
pub(crate) fn code<T>(answer: Result<T, CallError>) -> Option<ErrorCode> {
    match answer {
        Ok(_) => Some(ErrorCode::None),
        Err(error) => error.code(),
    }
}

/// Expectations that are all looked at before any of them fails the test.
#[derive(Default)]
pub(crate) struct Table(Vec<String>);

impl Table {
    pub(crate) fn expect(&mut self, case: &str, expected: ErrorCode, got: Option<ErrorCode>) {
        if got != Some(expected) {
            self.0.push(format!("{case}: expected {expected:?}, got {got:?}"));
        }
    }

    pub(crate) fn check(self) {
        assert!(self.0.is_empty(), "\n{}", self.0.join("\n"));
    }
}

/// A client that was there before the mischief: its connection, its records and its process must survive it.
pub(crate) struct Witness {
    client: Client,
    pub(crate) topic: String,
    /// What it produced and was promised: the value of each offset.
    kept: Vec<Vec<u8>>,
    /// Others may have written from here on.
    limit: Option<Offset>,
}

impl Witness {
    /// Creates a topic with some records.
    pub(crate) async fn at(address: SocketAddr, configs: &[(&str, &str)]) -> Witness {
        let mut client = Client::connect(address).await.expect("a connection");
        let topic = unique("witness");
        make(&mut client, &topic, 1, configs).await;
        let mut witness = Witness { client, topic, kept: Vec::new(), limit: None };
        for _ in 0..3 {
            witness.produce(100).await.expect("an acknowledgement");
        }
        witness
    }

    pub(crate) fn address_moved(&mut self, client: Client) {
        self.client = client;
    }

    /// Produces one record of about `bytes` bytes, unlike any other.
    pub(crate) async fn produce(&mut self, bytes: usize) -> Result<Offset, CallError> {
        let value = SystemEntropy.next_u64().to_le_bytes().repeat(bytes.div_ceil(8));
        let mut request = produce_request(&self.topic, 0, ACKS_ALL, batch(&value));
        request.timeout_ms = 5_000;
        let answer = self.client.call_in(&request, PRODUCE_BY_NAME).await.map_err(CallError::from)?;
        let offset = produced(answer)?;
        assert_eq!(offset, self.kept.len() as Offset, "offsets are dense");
        self.kept.push(value);
        Ok(offset)
    }

    /// Reads record `offset` and compares it.
    pub(crate) async fn read(&mut self, offset: Offset) -> Result<Offset, CallError> {
        let fetched = self.client.fetch(&self.topic, 0, offset, 1 << 20).await?;
        let mut next = offset;
        for batch in proto::records::batches(&fetched.records) {
            let batch = batch.expect("a whole batch");
            assert_eq!(batch.header.base_offset, next, "dense");
            if self.limit == Some(next) {
                break;
            }
            let kept = self.kept.get(usize::try_from(next).expect("an offset")).expect("nobody else writes here");
            let sent = super::stand::batch(kept);
            // The record's timestamp lies in the header only: what follows it is the same.
            assert_eq!(&batch.bytes[61..], &sent[61..], "record {next} came back as it was sent");
            next = batch.header.last_offset() + 1;
        }
        Ok(next)
    }

    /// Reads what was acknowledged of a log that ends at `end`, which may be further on by what was refused too late.
    pub(crate) async fn read_acknowledged(&mut self, end: Offset) {
        assert!(
            end >= self.kept.len() as Offset,
            "the log ends at {end}, {} records were acknowledged",
            self.kept.len()
        );
        self.limit = Some(self.kept.len() as Offset);
        self.read_all().await.expect("everything that was acknowledged");
    }

    /// Reads everything.
    pub(crate) async fn read_all(&mut self) -> Result<(), CallError> {
        let mut next = 0;
        while next < self.kept.len() as Offset {
            let after = self.read(next).await?;
            assert!(after > next, "record {next} is there");
            next = after;
        }
        Ok(())
    }

    /// Its connection still serves, old records are there and new ones are taken.
    pub(crate) async fn is_well(&mut self) {
        self.produce(100).await.expect("an acknowledgement on the connection from before");
        self.read_all().await.expect("everything that was acknowledged");
    }
}
