//! Somebody who moves partitions between brokers, again and again, and sometimes thinks better of it.

use super::{Contacts, within};
use crate::calls::CallError;
use crate::dice::Dice;
use crate::history::Place;
use proto::messages::AlterPartitionReassignmentsRequest;
use proto::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// How many brokers a partition is given.
const REPLICAS: usize = 3;
const TIMEOUT_MS: i32 = 2_000;

/// Moves partitions of some places.
pub struct Reassigner {
    places: Vec<Place>,
    brokers: Vec<i32>,
    contacts: Contacts,
    dice: Dice,
}

impl Reassigner {
    /// Moves `places` between `brokers`, of which there are more than a partition is given.
    pub fn new(places: Vec<Place>, brokers: Vec<i32>, contacts: Contacts, dice: Dice) -> Reassigner {
        Reassigner { places, brokers, contacts, dice }
    }

    /// Moves one after the other until `stop` says so.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow_and_update() {
            sleep(Duration::from_millis(500 + self.dice.below(2_500))).await;
            // Whoever is asked may be gone, or nobody may decide: the next attempt is another one.
            let _ = self.reassign().await;
        }
    }

    async fn reassign(&mut self) -> Result<(), CallError> {
        let place = self.places[self.dice.index(self.places.len())].clone();
        let mut left = self.brokers.clone();
        let mut replicas = Vec::new();
        while replicas.len() < REPLICAS && !left.is_empty() {
            replicas.push(left.swap_remove(self.dice.index(left.len())));
        }
        let replicas = (!self.dice.one_in(5)).then_some(replicas);
        let partition = ReassignablePartition { partition_index: place.partition, replicas };
        let topic = ReassignableTopic { name: place.topic, partitions: vec![partition] };
        let request = AlterPartitionReassignmentsRequest {
            timeout_ms: TIMEOUT_MS,
            topics: vec![topic],
            ..AlterPartitionReassignmentsRequest::default()
        };
        let address = self.contacts.anybody();
        let client = self.contacts.to(&address).await?;
        let answer = within(async { Ok(client.call_in(&request, 0).await?) }).await;
        if answer.is_err() {
            self.contacts.hang_up(&address);
        }
        answer.map(drop)
    }
}
