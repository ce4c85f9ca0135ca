//! Somebody who commits one offset after the other for a group without members, and looks at the end whether the last one is there.

use super::{Book, Contacts, within};
use crate::calls::CallError;
use crate::dice::Dice;
use crate::history::Place;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Commits ascending numbers as offsets of one partition.
pub struct Committer {
    group: String,
    place: Place,
    book: Book,
    contacts: Contacts,
    dice: Dice,
    coordinator: Option<String>,
    /// The number sent last, and the one acknowledged last.
    sent: i64,
    acknowledged: i64,
}

impl Committer {
    /// Commits offsets of `place` for `group`, which nobody else may do.
    pub fn new(group: String, place: Place, book: Book, contacts: Contacts, dice: Dice) -> Committer {
        Committer { group, place, book, contacts, dice, coordinator: None, sent: 0, acknowledged: 0 }
    }

    /// Commits until `stop` says so, and then asks what is committed, for at most `patience`.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>, patience: Duration) {
        while !*stop.borrow_and_update() {
            self.sent += 1;
            match self.commit().await {
                Ok(()) => self.acknowledged = self.sent,
                Err(_) => self.lose_coordinator(),
            }
            sleep(Duration::from_millis(20 + self.dice.below(80))).await;
        }
        let deadline = Instant::now() + patience;
        loop {
            match self.committed().await {
                // Nothing was acknowledged and nothing is there: -1.
                Ok(-1) if self.acknowledged == 0 => return,
                Ok(there) if (self.acknowledged..=self.sent).contains(&there) => return,
                Ok(there) => {
                    let (group, least, most) = (&self.group, self.acknowledged, self.sent);
                    return self.book.wrong(format!("{there} is committed for {group}, not one of {least}..={most}"));
                }
                Err(error) if Instant::now() > deadline => {
                    return self.book.wrong(format!("what {} has committed is not to be had: {error}", self.group));
                }
                Err(_) => self.lose_coordinator(),
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn lose_coordinator(&mut self) {
        if let Some(address) = self.coordinator.take() {
            self.contacts.hang_up(&address);
        }
    }

    async fn coordinator(&mut self) -> Result<String, CallError> {
        if let Some(address) = &self.coordinator {
            return Ok(address.clone());
        }
        let anybody = self.contacts.anybody();
        let found = match self.contacts.to(&anybody).await {
            Ok(client) => within(client.coordinator(&self.group)).await,
            Err(error) => Err(error),
        };
        if matches!(found, Err(CallError::Client(_))) {
            self.contacts.hang_up(&anybody);
        }
        let address = found?;
        self.coordinator = Some(address.clone());
        Ok(address)
    }

    async fn commit(&mut self) -> Result<(), CallError> {
        let address = self.coordinator().await?;
        let (group, place, offset) = (self.group.clone(), self.place.clone(), self.sent);
        let client = self.contacts.to(&address).await?;
        within(client.commit_offset(&group, &place.topic, place.partition, offset)).await
    }

    /// The offset that is committed; -1 if there is none.
    async fn committed(&mut self) -> Result<i64, CallError> {
        let address = self.coordinator().await?;
        let (group, place) = (self.group.clone(), self.place.clone());
        let client = self.contacts.to(&address).await?;
        within(client.committed_offset(&group, &place.topic, place.partition)).await
    }
}
