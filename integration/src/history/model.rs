//! A history: what each client did and heard, in the order in which it became known to whoever wrote it down.
//!
//! Every value that is sent is a number that is sent nowhere else, though its client may send it again. A send without an answer has
//! no second entry: it may be in the log, or not.

use proto::ids::Offset;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, BufRead, Write};

/// A partition, as clients name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Name of the topic.
    pub topic: String,
    /// Number of the partition.
    pub partition: i32,
}

impl Place {
    /// Partition `partition` of `topic`.
    pub fn new(topic: impl Into<String>, partition: i32) -> Place {
        Place { topic: topic.into(), partition }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// What a producer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acks {
    /// All in-sync replicas: what is acknowledged stays.
    All,
    /// The leader: what is acknowledged goes if the leader does.
    Leader,
    /// Nobody.
    None,
}

/// How far a transaction has come, as its producer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The producer is about to ask for the commit.
    Committing,
    /// The commit was acknowledged.
    Committed,
    /// The abort was acknowledged, or nobody will ever ask for the commit.
    Aborted,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Event {
    /// A value is about to be sent, for the first time.
    Send {
        /// Where to.
        #[serde(flatten)]
        place: Place,
        /// Which.
        value: u64,
        /// What the producer waits for.
        acks: Acks,
        /// Whether the broker recognizes a retry of it.
        #[serde(default)]
        idempotent: bool,
        /// The transaction it belongs to, a number of no other transaction.
        #[serde(default)]
        transaction: Option<u64>,
    },
    /// A value was acknowledged.
    Acked {
        /// Where it is.
        #[serde(flatten)]
        place: Place,
        /// Which.
        value: u64,
        /// At which offset; negative if the broker did not say.
        offset: Offset,
    },
    /// A value was refused for good: it is nowhere, and its client does not send it again.
    Refused {
        /// Where it is not.
        #[serde(flatten)]
        place: Place,
        /// Which.
        value: u64,
    },
    /// A consumer was given records of one partition.
    Poll {
        /// Of which.
        #[serde(flatten)]
        place: Place,
        /// Offset and value of each, in the order given.
        records: Vec<(Offset, u64)>,
        /// Whether it reads only what is committed.
        #[serde(default)]
        committed: bool,
    },
    /// A consumer's next poll may be anywhere: a rebalance, a seek, a restart.
    Assigned {},
    /// A transaction has come further.
    Transaction {
        /// Which.
        transaction: u64,
        /// How far.
        phase: Phase,
    },
    /// Records below `to` may be gone from now on: somebody asked for their deletion, or retention may have come.
    Deleting {
        /// Where.
        #[serde(flatten)]
        place: Place,
        /// The first offset that must stay.
        to: Offset,
    },
    /// This client has read the partition from its start to its end, when everything was still again.
    End {
        /// Which.
        #[serde(flatten)]
        place: Place,
        /// First offset behind what can be read.
        end: Offset,
    },
}

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was written down, in microseconds since whenever. For people; the checker goes by the order of entries.
    #[serde(default)]
    pub at_us: u64,
    /// Whose it is. A client that starts anew under another producer id or consumer is another client.
    pub client: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// A history in the making.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    entries: Vec<Entry>,
}

impl History {
    /// An empty one.
    pub fn new() -> History {
        History::default()
    }

    /// Writes down the next thing.
    pub fn add(&mut self, at_us: u64, client: &str, event: Event) {
        self.entries.push(Entry { at_us, client: client.to_owned(), event });
    }

    /// All of it, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Reads JSON lines; empty ones are passed over.
    ///
    /// # Errors
    /// If the source fails, or a line is no entry: its number is said.
    pub fn read(from: impl BufRead) -> io::Result<History> {
        let mut entries = Vec::new();
        for (number, line) in from.lines().enumerate() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let entry = serde_json::from_str(&line);
            entries.push(entry.map_err(|error| io::Error::other(format!("line {}: {error}", number + 1)))?);
        }
        Ok(History { entries })
    }

    /// Writes JSON lines.
    ///
    /// # Errors
    /// If the target fails.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        for entry in &self.entries {
            serde_json::to_writer(&mut to, entry)?;
            to.write_all(b"\n")?;
        }
        Ok(())
    }
}
