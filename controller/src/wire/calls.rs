//! The calls of the control protocol and the bodies that are not raft's or a command's.

use proto::ids::{DirectoryId, NodeId};
use proto::metadata::NEWEST_LEVEL;

use super::{decode, durable_union};

/// Versions of the control protocol this Firn speaks: oldest, newest.
pub(crate) const VERSIONS: (u32, u32) = (1, 1);

/// What the body of an envelope is. The numbers are stable. An answer has the kind of its question, or [`Kind::Refused`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Who are you? The envelope of the answer says it, and the body which metadata it understands: see [`Levels`].
    Hello = 1,
    /// Raft's entries and heartbeats.
    Append = 2,
    /// Raft's request for a vote.
    Vote = 3,
    /// A chunk of a snapshot of raft's.
    Install = 4,
    /// Would you vote for me? See [`Canvass`].
    Canvass = 5,
    /// Stand for election now: the leader hands over.
    Campaign = 6,
    /// A command for the leader.
    Submit = 7,
    /// Where the log stands that a linearizable read has to show.
    ReadIndex = 8,
    /// Who is in the quorum.
    Members = 9,
    /// A conversation: the metadata from an offset on.
    Follow = 10,
    /// A conversation: beats of a broker and their answers.
    Session = 11,
    /// A change of the voters, for the leader.
    ChangeVoters = 12,
    /// The quorum as the one asked sees it.
    Describe = 13,
    /// What brokers carry, as the leader knows it.
    Loads = 14,
    /// The answer to what is not done. See [`Refused`].
    Refused = 255,
}

impl Kind {
    /// The kind with that number.
    pub(crate) fn of(number: u32) -> Option<Self> {
        const ALL: [Kind; 15] = [
            Kind::Hello,
            Kind::Append,
            Kind::Vote,
            Kind::Install,
            Kind::Canvass,
            Kind::Campaign,
            Kind::Submit,
            Kind::ReadIndex,
            Kind::Members,
            Kind::Follow,
            Kind::Session,
            Kind::ChangeVoters,
            Kind::Describe,
            Kind::Loads,
            Kind::Refused,
        ];
        ALL.into_iter().find(|kind| *kind as u32 == number)
    }
}

/// Where a log ends: term and node of the leader that wrote the last entry, and its index.
pub(crate) type LogEnd = Option<(u64, (u64, u64))>;

/// Asks whether an election would find a vote (a pre-vote: nothing is promised).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Canvass {
    /// Where the candidate's log ends.
    pub(crate) last: LogEnd,
}

/// A node of the quorum as it is told to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hint {
    /// Its id.
    pub(crate) id: NodeId,
    /// `host:port` of its control listener.
    pub(crate) address: String,
}

/// The answer to [`Kind::Members`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Members {
    /// Who leads, if the one asked knows.
    pub(crate) leader: Option<NodeId>,
    /// The voters.
    pub(crate) voters: Vec<Hint>,
}

/// Levels of the feature `firn.metadata` that a node understands: the body of [`Kind::Hello`], asked and answered. Older nodes
/// send an empty one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Levels {
    /// The lowest.
    pub(crate) oldest: i16,
    /// The highest.
    pub(crate) newest: i16,
}

impl Levels {
    /// Those that this Firn understands.
    pub(crate) const OWN: Self = Self { oldest: 0, newest: NEWEST_LEVEL };
    /// Those of a Firn that does not say.
    pub(crate) const UNSAID: Self = Self { oldest: 0, newest: 1 };

    /// What the body of a greeting says.
    pub(crate) fn of(body: &[u8]) -> Self {
        decode(body).unwrap_or(Self::UNSAID)
    }

    /// Whether `level` is among them.
    pub(crate) const fn contain(self, level: i16) -> bool {
        self.oldest <= level && level <= self.newest
    }
}

proto::durable_struct!(
    Levels { oldest, newest }
    Canvass { last }
    Hint { id, address }
    Members { leader, voters }
);

/// Why a call was not carried out. Definite: nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The caller belongs to another cluster.
    #[error("it belongs to cluster {theirs}")]
    Cluster {
        /// Id of the cluster of the one called.
        theirs: String,
    },
    /// The caller has the id of a voter, but not its disk.
    #[error(
        "node {id} is known with another metadata directory ({known}): either two nodes have this id, or this one has \
         lost its disk; then remove the voter and add it again"
    )]
    Disk {
        /// Id of the caller.
        id: NodeId,
        /// The directory it is known with.
        known: DirectoryId,
    },
    /// No version of the protocol is spoken by both.
    #[error("it speaks versions {oldest} to {newest} of the control protocol")]
    Version {
        /// Oldest version the one called speaks.
        oldest: u32,
        /// Newest version the one called speaks.
        newest: u32,
    },
    /// The caller does not understand the metadata of this cluster.
    #[error(
        "the cluster is at level {level} of firn.metadata, and this node understands levels {oldest} to {newest}: install a Firn \
         that understands it"
    )]
    Level {
        /// Where the cluster is.
        level: i16,
        /// Lowest level that the caller understands.
        oldest: i16,
        /// Highest level that the caller understands.
        newest: i16,
    },
    /// Only the leader does it.
    #[error("it does not lead the quorum")]
    NotLeader(Option<Hint>),
    /// The body cannot be read.
    #[error("it cannot read the call: {0}")]
    Malformed(String),
    /// The one called cannot do it now, or does not know how.
    #[error("{0}")]
    Cannot(String),
}

durable_union!(Refused {
    1 = Cluster { theirs },
    2 = Disk { id, known },
    3 = Version { oldest, newest },
    4 = NotLeader(hint),
    5 = Malformed(why),
    6 = Cannot(why),
    7 = Level { level, oldest, newest },
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{decode, encode};

    #[test]
    fn kinds_have_their_numbers() {
        for number in (1..=14).chain([255]) {
            assert_eq!(Kind::of(number).map(|kind| kind as u32), Some(number));
        }
        assert_eq!(Kind::of(0), None);
    }

    #[test]
    fn calls_keep_their_bytes() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let hint = Hint { id: NodeId(2), address: "b:1".into() };
        assert_eq!(hex(&encode(&Canvass { last: Some((3, (1, 300))) })), "010301ac02");
        assert_eq!(hex(&encode(&Members { leader: Some(NodeId(2)), voters: vec![hint.clone()] })), "0104010403623a31");
        assert_eq!(hex(&encode(&Refused::NotLeader(Some(hint)))), "04010403623a31");
        assert_eq!(hex(&encode(&Refused::Version { oldest: 1, newest: 2 })), "030102");
    }

    #[test]
    fn refusals_survive_the_way() {
        let all = [
            Refused::Cluster { theirs: "c".into() },
            Refused::Disk { id: NodeId(1), known: DirectoryId::UNASSIGNED },
            Refused::Version { oldest: 1, newest: 3 },
            Refused::NotLeader(None),
            Refused::Malformed("x".into()),
            Refused::Cannot("y".into()),
            Refused::Level { level: 3, oldest: 0, newest: 1 },
        ];
        for refused in all {
            assert_eq!(decode(&encode(&refused)), Ok(refused));
        }
        assert!(decode::<Refused>(&[9]).is_err());
    }
}
