//! How raft's own data lies in redb: entries, votes and the description of the snapshot, in the same
//! encoding as the metadata records, each behind a version.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{CommittedLeaderId, EntryPayload};
use proto::ids::DirectoryId;
use proto::metadata::{Batch, DecodeError, Durable};

use super::{Entry, LogId, Membership, SnapshotMeta, StoredMembership, Vote, Voter};

/// What everything was written in before voters were known by their disks, and what needs no more still is.
const VERSION: u64 = 0;
/// Memberships name the disks of their nodes.
const WITH_DISKS: u64 = 1;

const BLANK: u64 = 0;
const BATCH: u64 = 1;
const MEMBERSHIP: u64 = 2;

/// Encodes an entry of the log.
pub(super) fn put_entry(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let version = match &entry.payload {
        EntryPayload::Membership(membership) => version_of(membership),
        EntryPayload::Blank | EntryPayload::Normal(_) => VERSION,
    };
    version.put(&mut out);
    put_log_id(&entry.log_id, &mut out);
    match &entry.payload {
        EntryPayload::Blank => BLANK.put(&mut out),
        EntryPayload::Normal(batch) => {
            BATCH.put(&mut out);
            batch.put(&mut out);
        }
        EntryPayload::Membership(membership) => {
            MEMBERSHIP.put(&mut out);
            put_membership(membership, version, &mut out);
        }
    }
    out
}

/// The inverse of [`put_entry`].
pub(super) fn take_entry(bytes: &[u8]) -> Result<Entry, DecodeError> {
    whole(bytes, |input, version| {
        let log_id = take_log_id(input)?;
        let payload = match u64::take(input)? {
            BLANK => EntryPayload::Blank,
            BATCH => EntryPayload::Normal(Batch::take(input)?),
            MEMBERSHIP => EntryPayload::Membership(take_membership(input, version)?),
            number => {
                return Err(DecodeError::UnknownVariant { what: "raft entry", number });
            }
        };
        Ok(Entry { log_id, payload })
    })
}

/// Encodes a vote.
pub(super) fn put_vote(vote: &Vote) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    VERSION.put(&mut out);
    put_bare_vote(vote, &mut out);
    out
}

/// The inverse of [`put_vote`].
pub(super) fn take_vote(bytes: &[u8]) -> Result<Vote, DecodeError> {
    whole(bytes, |input, _| take_bare_vote(input))
}

/// Encodes a vote inside something that has a version.
pub(super) fn put_bare_vote(vote: &Vote, out: &mut Vec<u8>) {
    vote.leader_id.term.put(out);
    vote.leader_id.node_id.put(out);
    vote.committed.put(out);
}

/// The inverse of [`put_bare_vote`].
pub(super) fn take_bare_vote(input: &mut &[u8]) -> Result<Vote, DecodeError> {
    let mut vote = Vote::new(u64::take(input)?, u64::take(input)?);
    vote.committed = bool::take(input)?;
    Ok(vote)
}

/// Encodes a log id that may be missing.
pub(super) fn put_log_id_alone(log_id: &LogId) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    VERSION.put(&mut out);
    put_log_id(log_id, &mut out);
    out
}

/// The inverse of [`put_log_id_alone`].
pub(super) fn take_log_id_alone(bytes: &[u8]) -> Result<LogId, DecodeError> {
    whole(bytes, |input, _| take_log_id(input))
}

/// Encodes what a snapshot covers.
pub(super) fn put_snapshot_meta(meta: &SnapshotMeta) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    let version = version_of(meta.last_membership.membership());
    version.put(&mut out);
    put_maybe_log_id(meta.last_log_id.as_ref(), &mut out);
    put_maybe_log_id(meta.last_membership.log_id().as_ref(), &mut out);
    put_membership(meta.last_membership.membership(), version, &mut out);
    meta.snapshot_id.put(&mut out);
    out
}

/// The inverse of [`put_snapshot_meta`].
pub(super) fn take_snapshot_meta(bytes: &[u8]) -> Result<SnapshotMeta, DecodeError> {
    whole(bytes, |input, version| {
        let last_log_id = take_maybe_log_id(input)?;
        let last_membership = StoredMembership::new(take_maybe_log_id(input)?, take_membership(input, version)?);
        Ok(SnapshotMeta { last_log_id, last_membership, snapshot_id: String::take(input)? })
    })
}

/// Takes a version, then what `take` takes of it, and nothing may be left.
fn whole<T>(mut bytes: &[u8], take: impl FnOnce(&mut &[u8], u64) -> Result<T, DecodeError>) -> Result<T, DecodeError> {
    let version = u64::take(&mut bytes)?;
    if version > WITH_DISKS {
        return Err(DecodeError::UnknownVersion { number: 0, version });
    }
    let value = take(&mut bytes, version)?;
    if bytes.is_empty() { Ok(value) } else { Err(DecodeError::LeftOver { number: 0, left: bytes.len() }) }
}

/// Encodes a log id inside something that has a version.
pub(super) fn put_log_id(log_id: &LogId, out: &mut Vec<u8>) {
    log_id.leader_id.term.put(out);
    log_id.leader_id.node_id.put(out);
    log_id.index.put(out);
}

/// The inverse of [`put_log_id`].
pub(super) fn take_log_id(input: &mut &[u8]) -> Result<LogId, DecodeError> {
    let leader = CommittedLeaderId::new(u64::take(input)?, u64::take(input)?);
    Ok(LogId::new(leader, u64::take(input)?))
}

/// Encodes a log id that may be missing inside something that has a version.
pub(super) fn put_maybe_log_id(log_id: Option<&LogId>, out: &mut Vec<u8>) {
    log_id.is_some().put(out);
    if let Some(log_id) = log_id {
        put_log_id(log_id, out);
    }
}

/// The inverse of [`put_maybe_log_id`].
pub(super) fn take_maybe_log_id(input: &mut &[u8]) -> Result<Option<LogId>, DecodeError> {
    if bool::take(input)? { take_log_id(input).map(Some) } else { Ok(None) }
}

/// The version a membership is written in.
fn version_of(membership: &Membership) -> u64 {
    let named = |(_, node): (&u64, &Voter)| node.directory != DirectoryId::UNASSIGNED;
    if membership.nodes().any(named) { WITH_DISKS } else { VERSION }
}

fn put_membership(membership: &Membership, version: u64, out: &mut Vec<u8>) {
    let configs: Vec<Vec<u64>> =
        membership.get_joint_config().iter().map(|config| config.iter().copied().collect()).collect();
    let nodes: BTreeMap<u64, String> = membership.nodes().map(|(id, node)| (*id, node.address.clone())).collect();
    configs.put(out);
    nodes.put(out);
    if version >= WITH_DISKS {
        let disks: BTreeMap<u64, DirectoryId> = membership.nodes().map(|(id, node)| (*id, node.directory)).collect();
        disks.put(out);
    }
}

fn take_membership(input: &mut &[u8], version: u64) -> Result<Membership, DecodeError> {
    let configs: Vec<BTreeSet<u64>> = Vec::<Vec<u64>>::take(input)?.into_iter().map(BTreeSet::from_iter).collect();
    let addresses = BTreeMap::<u64, String>::take(input)?;
    let mut disks = if version >= WITH_DISKS { BTreeMap::<u64, DirectoryId>::take(input)? } else { BTreeMap::new() };
    let nodes: BTreeMap<u64, Voter> = addresses
        .into_iter()
        .map(|(id, address)| (id, Voter { address, directory: disks.remove(&id).unwrap_or(DirectoryId::UNASSIGNED) }))
        .collect();
    Ok(Membership::new(configs, nodes))
}

#[cfg(test)]
mod tests {
    use proto::ids::Uuid;
    use proto::metadata::MetadataRecord;

    use super::*;

    fn log_id() -> LogId {
        LogId::new(CommittedLeaderId::new(3, 1), 300)
    }

    fn membership() -> Membership {
        let configs = vec![BTreeSet::from([0, 1]), BTreeSet::from([1])];
        let node = |address: &str| Voter { address: address.to_owned(), directory: DirectoryId::UNASSIGNED };
        Membership::new(configs, BTreeMap::from([(0, node("a:9093")), (1, node("b:9093"))]))
    }

    fn golden(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn raft_data_keeps_its_bytes() {
        let records = vec![MetadataRecord::ProducerIdsAllocated { next: 1000 }];
        let batch = Batch { term: 3, base_offset: 7, records };
        let entries = [EntryPayload::Blank, EntryPayload::Normal(batch), EntryPayload::Membership(membership())]
            .map(|payload| Entry { log_id: log_id(), payload });
        let bytes: Vec<String> = entries.iter().map(|entry| golden(&put_entry(entry))).collect();
        assert_eq!(
            bytes,
            [
                "000301ac0200",
                "000301ac02010307010a0002d00f",
                "000301ac0202020200010101020006613a393039330106623a39303933",
            ]
        );
        for entry in entries {
            assert_eq!(take_entry(&put_entry(&entry)).map(|e| e.payload), Ok(entry.payload));
        }

        let vote = Vote::new_committed(3, 1);
        assert_eq!(golden(&put_vote(&vote)), "00030101");
        assert_eq!(take_vote(&put_vote(&vote)), Ok(vote));

        let meta = SnapshotMeta {
            last_log_id: Some(log_id()),
            last_membership: StoredMembership::new(None, membership()),
            snapshot_id: "s".to_owned(),
        };
        assert_eq!(
            golden(&put_snapshot_meta(&meta)),
            "00010301ac0200020200010101020006613a393039330106623a393039330173"
        );
        assert_eq!(take_snapshot_meta(&put_snapshot_meta(&meta)), Ok(meta));
    }
    #[test]
    fn memberships_with_disks_keep_their_bytes() {
        let node = |address: &str, disk| Voter { address: address.to_owned(), directory: DirectoryId(disk) };
        let nodes = BTreeMap::from([(0, node("a:1", Uuid::from_u128(7))), (1, node("b:1", Uuid::nil()))]);
        let membership = Membership::new(vec![BTreeSet::from([0, 1])], nodes);
        let entry = Entry { log_id: log_id(), payload: EntryPayload::Membership(membership.clone()) };
        let nil = "00".repeat(16);
        let seven = format!("{}07", "00".repeat(15));
        assert_eq!(golden(&put_entry(&entry)), format!("010301ac020201020001020003613a310103623a310200{seven}01{nil}"));
        assert_eq!(take_entry(&put_entry(&entry)).map(|e| e.payload), Ok(entry.payload));
        let meta = SnapshotMeta {
            last_log_id: None,
            last_membership: StoredMembership::new(None, membership),
            snapshot_id: String::new(),
        };
        assert_eq!(take_snapshot_meta(&put_snapshot_meta(&meta)), Ok(meta));
    }
}
