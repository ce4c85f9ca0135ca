//! A consumer of all partitions, without a group, and the reader that looks at everything when all is still.

use super::{Book, Contacts, within};
use crate::calls::{CallError, EARLIEST, FETCH_BY_NAME, LATEST, fetch_request};
use crate::client::ClientError;
use crate::dice::Dice;
use crate::history::{Event, Place};
use proto::errors::ErrorCode;
use proto::ids::Offset;
use proto::messages::FetchRequest;
use proto::records::{batches, check, for_each_record};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

const FETCH_BYTES: i32 = 1 << 20;
const MAX_BATCH_BYTES: usize = 4 << 20;

/// A consumer that reads partition after partition from where it stands.
pub struct Consumer {
    name: String,
    book: Book,
    contacts: Contacts,
    dice: Dice,
    positions: Vec<(Place, Offset)>,
}

impl Consumer {
    /// A consumer called `name` of `places`, from their beginning.
    pub fn new(name: String, places: &[Place], book: Book, contacts: Contacts, dice: Dice) -> Consumer {
        let positions = places.iter().map(|place| (place.clone(), 0)).collect();
        Consumer { name, book, contacts, dice, positions }
    }

    /// Reads until `stop` says so. Now and then it forgets where it stood and begins anew.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow_and_update() {
            if self.dice.one_in(200) {
                self.positions.iter_mut().for_each(|(_, position)| *position = 0);
                self.book.add(&self.name, Event::Assigned {});
            }
            let mut again = false;
            for index in 0..self.positions.len() {
                let (place, position) = self.positions[index].clone();
                match poll(&mut self.contacts, &place, position).await {
                    Ok(records) => {
                        if let Some((last, _)) = records.last() {
                            self.positions[index].1 = last + 1;
                            self.book.add(&self.name, Event::Poll { place, records, committed: true });
                        }
                    }
                    Err(error) => {
                        again = true;
                        // What nobody deleted is there.
                        let gone = error.code() == Some(ErrorCode::OffsetOutOfRange);
                        let deletable = self.book.deletable(&place);
                        if gone && position < deletable {
                            self.positions[index].1 = deletable;
                            self.book.add(&self.name, Event::Assigned {});
                        } else if gone || matches!(error, CallError::Client(ClientError::Garbled(_))) {
                            self.book.wrong(format!("{} at {place}@{position}: {error}", self.name));
                        }
                    }
                }
            }
            if again {
                self.contacts.refresh().await;
            }
            sleep(Duration::from_millis(20 + self.dice.below(100))).await;
        }
    }
}

/// Offset and value of the records of one fetch. Waits a little for the first.
async fn poll(contacts: &mut Contacts, place: &Place, from: Offset) -> Result<Vec<(Offset, u64)>, CallError> {
    let leader = contacts.leader(&place.topic, place.partition);
    let leader = leader.ok_or_else(|| CallError::Missing("a leader".to_owned()))?;
    let mut request = fetch_request(&place.topic, place.partition, from, FETCH_BYTES);
    request.max_wait_ms = 50;
    let client = contacts.to(&leader).await?;
    let answer = within(async { Ok(client.call_in::<FetchRequest>(&request, FETCH_BY_NAME).await?) }).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            contacts.hang_up(&leader);
            return Err(error);
        }
    };
    let partition = answer.responses.into_iter().next().and_then(|topic| topic.partitions.into_iter().next());
    let partition = partition.ok_or_else(|| CallError::Missing(place.to_string()))?;
    match ErrorCode::from_code(partition.error_code) {
        Some(ErrorCode::None) => {}
        code => {
            let code = code.unwrap_or(ErrorCode::UnknownServerError);
            return Err(CallError::Refused { code, message: place.to_string() });
        }
    }
    let bytes = partition.records.unwrap_or_default().to_bytes();
    let mut records = Vec::new();
    for batch in batches(&bytes) {
        let garbled = |error| CallError::Client(ClientError::Garbled(format!("{place} from {from} on: {error}")));
        let batch = batch.map_err(garbled)?;
        check(batch.bytes).map_err(garbled)?;
        let visit = |record: proto::records::Record<'_>| {
            let value = record.value.and_then(|value| value.first_chunk::<8>()).map(|value| u64::from_be_bytes(*value));
            if record.offset >= from {
                records.push((record.offset, value.unwrap_or(0)));
            }
        };
        for_each_record(&batch, MAX_BATCH_BYTES, visit).map_err(garbled)?;
    }
    Ok(records)
}

/// Reads every partition from its start to its end and writes it down as the log of the run.
///
/// # Errors
/// If a partition cannot be read within `patience`.
pub async fn read_everything(
    book: &Book,
    mut contacts: Contacts,
    places: &[Place],
    patience: Duration,
) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    for place in places {
        let mut position = None;
        let mut why = String::new();
        loop {
            if Instant::now() >= deadline {
                return Err(format!("{place} cannot be read to its end: at {position:?}, {why}"));
            }
            match step(book, &mut contacts, place, &mut position).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    why = error.to_string();
                    sleep(Duration::from_millis(100)).await;
                    contacts.refresh().await;
                }
            }
        }
    }
    Ok(())
}

/// Reads on; true at the end.
async fn step(
    book: &Book,
    contacts: &mut Contacts,
    place: &Place,
    position: &mut Option<Offset>,
) -> Result<bool, CallError> {
    const READER: &str = "reader";
    let leader = contacts.leader(&place.topic, place.partition);
    let leader = leader.ok_or_else(|| CallError::Missing("a leader".to_owned()))?;
    let client = contacts.to(&leader).await?;
    let end = within(client.offset(&place.topic, place.partition, LATEST)).await?;
    let from = match *position {
        Some(position) => position,
        None => within(client.offset(&place.topic, place.partition, EARLIEST)).await?,
    };
    *position = Some(from);
    if from >= end {
        book.add(READER, Event::End { place: place.clone(), end });
        return Ok(true);
    }
    let records = poll(contacts, place, from).await?;
    if let Some((last, _)) = records.last() {
        *position = Some(last + 1);
        book.add(READER, Event::Poll { place: place.clone(), records, committed: true });
    }
    Ok(false)
}
