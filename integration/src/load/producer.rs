//! A producer of one partition.

use super::{Book, Contacts, within};
use crate::calls::{PRODUCE_BY_NAME, produce_request, produced};
use crate::dice::Dice;
use crate::history::{Acks, Event, Place};
use bytes::Bytes;
use proto::errors::ErrorCode;
use proto::messages::ProduceRequest;
use proto::records::{BatchBuilder, Codec};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Kafka's own bound for idempotent producers: a broker remembers the last five batches.
const IN_FLIGHT: usize = 5;
/// How long a broker may take over a request, in milliseconds.
const TIMEOUT_MS: i32 = 1_500;

/// What a producer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Sends what was not answered again, until it is; waits for all replicas.
    Idempotent,
    /// Waits for these, and never sends twice.
    Plain(Acks),
}

/// A producer of one partition.
pub struct Producer {
    name: String,
    place: Place,
    kind: Kind,
    book: Book,
    contacts: Contacts,
    dice: Dice,
    identity: Option<Identity>,
    /// Sent and not answered, oldest first.
    open: VecDeque<Batch>,
    /// How many are sent before the first answer is waited for.
    depth: usize,
}

struct Identity {
    id: i64,
    epoch: i16,
    next_sequence: i32,
}

struct Batch {
    values: Vec<u64>,
    bytes: Bytes,
}

/// Why a round ended before its time.
enum Stop {
    /// Look for the leader and try again.
    Again,
    /// An answer that the first batch without one must not get.
    Wrong(ErrorCode),
}

impl Producer {
    /// A producer called `name`.
    pub fn new(name: String, place: Place, kind: Kind, book: Book, contacts: Contacts, dice: Dice) -> Producer {
        Producer { name, place, kind, book, contacts, dice, identity: None, open: VecDeque::new(), depth: 1 }
    }

    /// Produces until `stop` says so, and then until all is answered, or `patience` is over.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>, patience: Duration) {
        let mut deadline = None;
        loop {
            if *stop.borrow_and_update() {
                let until = *deadline.get_or_insert_with(|| Instant::now() + patience);
                if self.open.is_empty() {
                    return;
                }
                if Instant::now() >= until {
                    let (name, open) = (&self.name, self.open.len());
                    return self.book.wrong(format!("{name} still has {open} batches without an answer"));
                }
            }
            match self.round(deadline.is_none()).await {
                Ok(()) => sleep(Duration::from_millis(5 + self.dice.below(60))).await,
                Err(Stop::Again) => {
                    self.depth = 1;
                    sleep(Duration::from_millis(20 + self.dice.below(80))).await;
                    self.contacts.refresh().await;
                }
                Err(Stop::Wrong(code)) => {
                    let (name, place) = (&self.name, &self.place);
                    return self.book.wrong(format!("{name} of {place} was told {}", code.name()));
                }
            }
        }
    }

    /// Sends what is open and, if more is wanted, something new, and takes the answers.
    async fn round(&mut self, more: bool) -> Result<(), Stop> {
        if self.kind != Kind::Idempotent {
            // Nobody will ever know.
            self.open.clear();
        } else if self.identity.is_none() {
            self.identify().await?;
        }
        let leader = self.contacts.leader(&self.place.topic, self.place.partition).ok_or(Stop::Again)?;
        while more && self.open.len() < self.depth {
            let batch = self.batch();
            self.open.push_back(batch);
        }
        let ended = self.exchange(&leader).await;
        match ended {
            // As a client does that knows the next batches will be in order now.
            Ok(()) => self.depth = 1 + usize::try_from(self.dice.below(IN_FLIGHT as u64)).unwrap_or(0),
            Err(_) => self.contacts.hang_up(&leader),
        }
        ended
    }

    async fn exchange(&mut self, leader: &str) -> Result<(), Stop> {
        let acks = match self.kind {
            Kind::Idempotent | Kind::Plain(Acks::All) => -1,
            Kind::Plain(Acks::Leader) => 1,
            Kind::Plain(Acks::None) => 0,
        };
        let count = self.open.len().min(self.depth);
        let client = self.contacts.to(leader).await.map_err(|_| Stop::Again)?;
        for batch in self.open.iter().take(count) {
            let mut request = produce_request(&self.place.topic, self.place.partition, acks, batch.bytes.clone());
            request.timeout_ms = TIMEOUT_MS;
            client.send(&request, PRODUCE_BY_NAME).await.map_err(|_| Stop::Again)?;
        }
        for _ in 0..count {
            if acks == 0 {
                self.open.pop_front();
                continue;
            }
            let answer = within(async { Ok(client.receive::<ProduceRequest>().await?) }).await;
            let offset = match answer.and_then(produced) {
                Ok(offset) => offset,
                Err(error) => {
                    return Err(match error.code() {
                        // It is there; where, nobody knows any more.
                        Some(ErrorCode::DuplicateSequenceNumber) => {
                            self.acknowledged(-1);
                            Stop::Again
                        }
                        Some(code) if self.kind == Kind::Idempotent && is_wrong(code) => Stop::Wrong(code),
                        _ => Stop::Again,
                    });
                }
            };
            let Some(batch) = self.open.pop_front() else { return Err(Stop::Again) };
            for (value, offset) in batch.values.iter().zip(offset..) {
                let (place, value) = (self.place.clone(), *value);
                self.book.add(&self.name, Event::Acked { place, value, offset });
            }
        }
        Ok(())
    }

    fn acknowledged(&mut self, offset: i64) {
        for value in self.open.pop_front().into_iter().flat_map(|batch| batch.values) {
            self.book.add(&self.name, Event::Acked { place: self.place.clone(), value, offset });
        }
    }

    async fn identify(&mut self) -> Result<(), Stop> {
        let address = self.contacts.anybody();
        let client = self.contacts.to(&address).await.map_err(|_| Stop::Again)?;
        match within(client.producer_id()).await {
            Ok((id, epoch)) => {
                self.identity = Some(Identity { id, epoch, next_sequence: 0 });
                Ok(())
            }
            Err(_) => {
                self.contacts.hang_up(&address);
                Err(Stop::Again)
            }
        }
    }

    fn batch(&mut self) -> Batch {
        let count = 1 + self.dice.below(6);
        let codec = if self.dice.one_in(3) { Codec::Lz4 } else { Codec::None };
        let mut batch = BatchBuilder::new().codec(codec);
        if let Some(identity) = &mut self.identity {
            batch = batch.producer(identity.id, identity.epoch, identity.next_sequence);
            identity.next_sequence += i32::try_from(count).unwrap_or(0);
        }
        let mut values = Vec::new();
        for _ in 0..count {
            let value = self.book.value();
            let padding = usize::try_from(self.dice.below(400)).unwrap_or(0);
            let bytes: Vec<u8> = value.to_be_bytes().into_iter().chain(std::iter::repeat_n(7, padding)).collect();
            batch.append(0, None, Some(&bytes), &[]);
            let (acks, idempotent) = match self.kind {
                Kind::Idempotent => (Acks::All, true),
                Kind::Plain(acks) => (acks, false),
            };
            let place = self.place.clone();
            self.book.add(&self.name, Event::Send { place, value, acks, idempotent, transaction: None });
            values.push(value);
        }
        Batch { values, bytes: batch.build() }
    }
}

/// What the oldest batch without an answer of an idempotent producer is never told, whatever happens to brokers.
fn is_wrong(code: ErrorCode) -> bool {
    !code.is_retriable() || code == ErrorCode::OutOfOrderSequenceNumber
}
