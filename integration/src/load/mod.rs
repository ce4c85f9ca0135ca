//! Clients of a cluster, real or simulated, close to the wire: they write down what they do and hear, and behave as good clients do when
//! it goes wrong: look for the new leader, wait a little, try again.

mod committer;
mod consumer;
mod deleter;
mod producer;
mod reassigner;

pub use committer::Committer;
pub use consumer::{Consumer, read_everything};
pub use deleter::Deleter;
pub use producer::{Kind, Producer};
pub use reassigner::Reassigner;

use crate::calls::{CallError, Leaders};
use crate::client::{Client, ClientError};
use crate::history::{Event, History, Place};
use parking_lot::Mutex;
use proto::host::Network;
use proto::ids::Offset;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// A client gives up on an answer after so long, and on its connection with it.
const PATIENCE: Duration = Duration::from_secs(2);

/// What all clients of a run write into.
#[derive(Clone, Default)]
pub struct Book(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    history: History,
    /// When the first entry was written.
    began: Option<Instant>,
    next_value: u64,
    acknowledged: usize,
    /// Where records may be gone below.
    deletable: BTreeMap<Place, Offset>,
    wrong: Vec<String>,
}

impl Book {
    /// Writes down what `client` did or heard.
    pub fn add(&self, client: &str, event: Event) {
        let mut pages = self.0.lock();
        let at_us = pages.began.get_or_insert_with(Instant::now).elapsed().as_micros();
        pages.acknowledged += usize::from(matches!(event, Event::Acked { .. }));
        if let Event::Deleting { place, to } = &event {
            let deletable = pages.deletable.entry(place.clone()).or_default();
            *deletable = (*deletable).max(*to);
        }
        pages.history.add(u64::try_from(at_us).unwrap_or(u64::MAX), client, event);
    }

    /// A value that nobody else sends.
    pub fn value(&self) -> u64 {
        let mut pages = self.0.lock();
        pages.next_value += 1;
        pages.next_value
    }

    /// Records below may be gone: somebody asked for it.
    pub fn deletable(&self, place: &Place) -> Offset {
        self.0.lock().deletable.get(place).copied().unwrap_or(0)
    }

    /// How many acknowledgements were heard so far.
    pub fn acknowledged(&self) -> usize {
        self.0.lock().acknowledged
    }

    /// Writes down something that must not be and that the history does not show.
    pub fn wrong(&self, what: String) {
        tracing::error!(%what, "a client saw what must not be");
        self.0.lock().wrong.push(what);
    }

    /// The history so far, and what else was wrong.
    pub fn read(&self) -> (History, Vec<String>) {
        let pages = self.0.lock();
        (pages.history.clone(), pages.wrong.clone())
    }
}

/// A client's view of the cluster: who leads what, and open connections.
pub struct Contacts {
    network: Arc<dyn Network>,
    bootstrap: Vec<String>,
    topics: Vec<String>,
    leaders: Leaders,
    open: BTreeMap<String, Client>,
    /// Which of the known brokers is asked for metadata next.
    turn: usize,
}

impl Contacts {
    /// Knows the addresses in `bootstrap`, and cares for `topics`.
    pub fn new(network: Arc<dyn Network>, bootstrap: &[String], topics: &[&str]) -> Contacts {
        Contacts {
            network,
            bootstrap: bootstrap.to_vec(),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            leaders: Leaders::default(),
            open: BTreeMap::new(),
            turn: 0,
        }
    }

    /// Asks one broker after the other who leads, once around at most.
    pub async fn refresh(&mut self) {
        for _ in 0..self.bootstrap.len() {
            let address = self.bootstrap[self.turn % self.bootstrap.len()].clone();
            self.turn += 1;
            let topics = self.topics.clone();
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            let Ok(client) = self.to(&address).await else { continue };
            match within(client.leaders(&names)).await {
                Ok(leaders) => {
                    self.leaders = leaders;
                    return;
                }
                Err(_) => self.hang_up(&address),
            }
        }
    }

    /// Where the leader of a partition listens, as far as known.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<String> {
        self.leaders.address(topic, partition).map(str::to_owned)
    }

    /// The next bootstrap address, for requests that any broker answers.
    pub fn anybody(&mut self) -> String {
        self.turn += 1;
        self.bootstrap[self.turn % self.bootstrap.len()].clone()
    }

    /// The connection to a broker.
    ///
    /// # Errors
    /// If it does not come about.
    pub async fn to(&mut self, address: &str) -> Result<&mut Client, CallError> {
        if !self.open.contains_key(address) {
            let client = timeout(PATIENCE, Client::connect_over(self.network.as_ref(), address)).await;
            let client = client.map_err(|_| ClientError::Closed(io::ErrorKind::TimedOut.into()))??;
            self.open.insert(address.to_owned(), client);
        }
        self.open.get_mut(address).ok_or_else(|| CallError::Missing("the connection".to_owned()))
    }

    /// Ends the connection to a broker: what was asked and not answered stays so.
    pub fn hang_up(&mut self, address: &str) {
        self.open.remove(address);
    }
}

/// Waits for an answer as long as a client does.
///
/// # Errors
/// The call's, and silence.
pub async fn within<T>(call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    timeout(PATIENCE, call).await.unwrap_or(Err(CallError::Client(ClientError::Silent)))
}
