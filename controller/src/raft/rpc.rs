//! Raft's questions and answers as bodies of calls.

use openraft::SnapshotSegmentId;
use openraft::error::SnapshotMismatch;
use proto::metadata::{DecodeError, Durable};

use super::encoding::{
    put_bare_vote, put_entry, put_maybe_log_id, put_snapshot_meta, take_bare_vote, take_entry, take_maybe_log_id,
    take_snapshot_meta,
};
use super::{AppendRequest, AppendResponse, InstallRequest, Vote, VoteRequest, VoteResponse};

const SUCCESS: u64 = 0;
const PARTIAL: u64 = 1;
const CONFLICT: u64 = 2;
const HIGHER: u64 = 3;

/// What became of a chunk of a snapshot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Installed {
    /// Taken; the receiver's vote.
    Taken(Vote),
    /// Another one was expected.
    Mismatch(SnapshotMismatch),
}

/// Something with an encoding of its own inside a longer body.
fn put_framed(bytes: &[u8], out: &mut Vec<u8>) {
    (bytes.len() as u64).put(out);
    out.extend_from_slice(bytes);
}

fn take_framed<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let length = usize::try_from(u64::take(input)?).map_err(|_| DecodeError::OutOfRange)?;
    let (head, rest) = input.split_at_checked(length).ok_or(DecodeError::Truncated)?;
    *input = rest;
    Ok(head)
}

/// Takes a value that is all of `bytes`.
fn all<T>(mut bytes: &[u8], take: impl FnOnce(&mut &[u8]) -> Result<T, DecodeError>) -> Result<T, DecodeError> {
    let value = take(&mut bytes)?;
    if bytes.is_empty() { Ok(value) } else { Err(DecodeError::LeftOver { number: 0, left: bytes.len() }) }
}

pub(super) fn put_append(request: &AppendRequest) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    put_bare_vote(&request.vote, &mut out);
    put_maybe_log_id(request.prev_log_id.as_ref(), &mut out);
    put_maybe_log_id(request.leader_commit.as_ref(), &mut out);
    (request.entries.len() as u64).put(&mut out);
    for entry in &request.entries {
        put_framed(&put_entry(entry), &mut out);
    }
    out
}

pub(super) fn take_append(bytes: &[u8]) -> Result<AppendRequest, DecodeError> {
    all(bytes, |input| {
        let vote = take_bare_vote(input)?;
        let prev_log_id = take_maybe_log_id(input)?;
        let leader_commit = take_maybe_log_id(input)?;
        let mut entries = Vec::new();
        for _ in 0..u64::take(input)? {
            entries.push(take_entry(take_framed(input)?)?);
        }
        Ok(AppendRequest { vote, prev_log_id, entries, leader_commit })
    })
}

pub(super) fn put_append_response(response: &AppendResponse) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    match response {
        AppendResponse::Success => SUCCESS.put(&mut out),
        AppendResponse::PartialSuccess(matching) => {
            PARTIAL.put(&mut out);
            put_maybe_log_id(matching.as_ref(), &mut out);
        }
        AppendResponse::Conflict => CONFLICT.put(&mut out),
        AppendResponse::HigherVote(vote) => {
            HIGHER.put(&mut out);
            put_bare_vote(vote, &mut out);
        }
    }
    out
}

pub(super) fn take_append_response(bytes: &[u8]) -> Result<AppendResponse, DecodeError> {
    all(bytes, |input| {
        Ok(match u64::take(input)? {
            SUCCESS => AppendResponse::Success,
            PARTIAL => AppendResponse::PartialSuccess(take_maybe_log_id(input)?),
            CONFLICT => AppendResponse::Conflict,
            HIGHER => AppendResponse::HigherVote(take_bare_vote(input)?),
            number => return Err(DecodeError::UnknownVariant { what: "answer to raft entries", number }),
        })
    })
}

pub(super) fn put_vote_request(request: &VoteRequest) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    put_bare_vote(&request.vote, &mut out);
    put_maybe_log_id(request.last_log_id.as_ref(), &mut out);
    out
}

pub(super) fn take_vote_request(bytes: &[u8]) -> Result<VoteRequest, DecodeError> {
    all(bytes, |input| Ok(VoteRequest { vote: take_bare_vote(input)?, last_log_id: take_maybe_log_id(input)? }))
}

pub(super) fn put_vote_response(response: &VoteResponse) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    put_bare_vote(&response.vote, &mut out);
    response.vote_granted.put(&mut out);
    put_maybe_log_id(response.last_log_id.as_ref(), &mut out);
    out
}

pub(super) fn take_vote_response(bytes: &[u8]) -> Result<VoteResponse, DecodeError> {
    all(bytes, |input| {
        let vote = take_bare_vote(input)?;
        let vote_granted = bool::take(input)?;
        Ok(VoteResponse { vote, vote_granted, last_log_id: take_maybe_log_id(input)? })
    })
}

pub(super) fn put_install(request: &InstallRequest) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + request.data.len());
    put_bare_vote(&request.vote, &mut out);
    put_framed(&put_snapshot_meta(&request.meta), &mut out);
    request.offset.put(&mut out);
    request.done.put(&mut out);
    crc32c::crc32c(&request.data).put(&mut out);
    put_framed(&request.data, &mut out);
    out
}

pub(super) fn take_install(bytes: &[u8]) -> Result<InstallRequest, DecodeError> {
    all(bytes, |input| {
        let vote = take_bare_vote(input)?;
        let meta = take_snapshot_meta(take_framed(input)?)?;
        let (offset, done) = (u64::take(input)?, bool::take(input)?);
        let sum = u32::take(input)?;
        let data = take_framed(input)?.to_vec();
        if crc32c::crc32c(&data) != sum {
            return Err(DecodeError::OutOfRange);
        }
        Ok(InstallRequest { vote, meta, offset, data, done })
    })
}

pub(super) fn put_installed(installed: &Installed) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    match installed {
        Installed::Taken(vote) => {
            true.put(&mut out);
            put_bare_vote(vote, &mut out);
        }
        Installed::Mismatch(mismatch) => {
            false.put(&mut out);
            for segment in [&mismatch.expect, &mismatch.got] {
                segment.id.put(&mut out);
                segment.offset.put(&mut out);
            }
        }
    }
    out
}

pub(super) fn take_installed(bytes: &[u8]) -> Result<Installed, DecodeError> {
    all(bytes, |input| {
        if bool::take(input)? {
            return Ok(Installed::Taken(take_bare_vote(input)?));
        }
        let mut segment = || Ok(SnapshotSegmentId { id: String::take(input)?, offset: u64::take(input)? });
        Ok(Installed::Mismatch(SnapshotMismatch { expect: segment()?, got: segment()? }))
    })
}

#[cfg(test)]
mod tests {
    use openraft::{CommittedLeaderId, EntryPayload};
    use proto::metadata::{Batch, MetadataRecord};

    use super::*;
    use crate::raft::{Entry, LogId, SnapshotMeta};

    fn log_id(index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(3, 1), index)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn questions_keep_their_bytes() {
        let records = vec![MetadataRecord::ProducerIdsAllocated { next: 1000 }];
        let batch = Batch { term: 3, base_offset: 7, records };
        let append = AppendRequest {
            vote: Vote::new_committed(3, 1),
            prev_log_id: Some(log_id(299)),
            entries: vec![Entry { log_id: log_id(300), payload: EntryPayload::Normal(batch) }],
            leader_commit: None,
        };
        let bytes = put_append(&append);
        assert_eq!(hex(&bytes), "030101010301ab0200010e000301ac02010307010a0002d00f");
        let back = take_append(&bytes).expect("it was just written");
        assert_eq!((back.vote, back.prev_log_id, back.entries), (append.vote, append.prev_log_id, append.entries));
        for cut in 0..bytes.len() {
            assert!(take_append(&bytes[..cut]).is_err());
        }

        let vote = VoteRequest { vote: Vote::new(4, 2), last_log_id: Some(log_id(1)) };
        assert_eq!(hex(&put_vote_request(&vote)), "04020001030101");
        assert_eq!(take_vote_request(&put_vote_request(&vote)), Ok(vote));

        let meta = SnapshotMeta { last_log_id: None, last_membership: Default::default(), snapshot_id: "s".to_owned() };
        let install = InstallRequest { vote: Vote::new(4, 2), meta, offset: 5, data: vec![1, 2], done: true };
        let bytes = put_install(&install);
        assert_eq!(take_install(&bytes), Ok(install));
        let mut damaged = bytes;
        *damaged.last_mut().expect("not empty") ^= 1;
        assert!(take_install(&damaged).is_err());
    }

    #[test]
    fn answers_survive_the_way() {
        let answers = [
            AppendResponse::Success,
            AppendResponse::PartialSuccess(Some(log_id(9))),
            AppendResponse::Conflict,
            AppendResponse::HigherVote(Vote::new(9, 9)),
        ];
        for answer in answers {
            assert_eq!(take_append_response(&put_append_response(&answer)), Ok(answer));
        }
        let answer = VoteResponse { vote: Vote::new(4, 2), vote_granted: true, last_log_id: None };
        assert_eq!(take_vote_response(&put_vote_response(&answer)), Ok(answer));
        let segment = |offset| SnapshotSegmentId { id: "s".to_owned(), offset };
        let mismatch = SnapshotMismatch { expect: segment(0), got: segment(5) };
        for answer in [Installed::Taken(Vote::new(4, 2)), Installed::Mismatch(mismatch)] {
            assert_eq!(take_installed(&put_installed(&answer)), Ok(answer));
        }
    }
}
