//! Somebody who has the older half of a partition's records deleted, again and again, and looks at the end whether they came back.

use super::{Book, Contacts, within};
use crate::calls::{CallError, EARLIEST, LATEST};
use crate::dice::Dice;
use crate::history::{Event, Place};
use proto::ids::Offset;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Fewer records than this are left alone.
const LEAST: Offset = 20;

/// Deletes records of one partition.
pub struct Deleter {
    name: String,
    place: Place,
    book: Book,
    contacts: Contacts,
    dice: Dice,
    /// Where the log was said to start.
    start: Offset,
}

impl Deleter {
    /// Deletes records of `place`, which nobody else may do.
    pub fn new(name: String, place: Place, book: Book, contacts: Contacts, dice: Dice) -> Deleter {
        Deleter { name, place, book, contacts, dice, start: 0 }
    }

    /// Deletes until `stop` says so, and then asks where the log starts, for at most `patience`.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>, patience: Duration) {
        while !*stop.borrow_and_update() {
            sleep(Duration::from_millis(800 + self.dice.below(1_500))).await;
            if self.delete().await.is_err() {
                self.contacts.refresh().await;
            }
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            match self.ask(EARLIEST).await {
                Ok(start) if start < self.start => {
                    let (place, was) = (&self.place, self.start);
                    return self.book.wrong(format!("{place} starts at {start}, and was said to start at {was}"));
                }
                Ok(_) => return,
                Err(_) => self.contacts.refresh().await,
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn delete(&mut self) -> Result<(), CallError> {
        let (start, end) = (self.ask(EARLIEST).await?, self.ask(LATEST).await?);
        if end - start < LEAST {
            return Ok(());
        }
        let to = start + (end - start) / 2;
        self.book.add(&self.name, Event::Deleting { place: self.place.clone(), to });
        let leader = self.leader()?;
        let client = self.contacts.to(&leader).await?;
        match within(client.delete_records(&self.place.topic, self.place.partition, to)).await {
            Ok(low) => self.start = self.start.max(low),
            Err(error) => {
                self.contacts.hang_up(&leader);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn ask(&mut self, which: i64) -> Result<Offset, CallError> {
        let leader = self.leader()?;
        let client = self.contacts.to(&leader).await?;
        let answer = within(client.offset(&self.place.topic, self.place.partition, which)).await;
        if answer.is_err() {
            self.contacts.hang_up(&leader);
        }
        answer
    }

    fn leader(&self) -> Result<String, CallError> {
        let leader = self.contacts.leader(&self.place.topic, self.place.partition);
        leader.ok_or_else(|| CallError::Missing("a leader".to_owned()))
    }
}
