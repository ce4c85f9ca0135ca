//! Which listed objects are leftovers.

use std::collections::BTreeMap;

use proto::ids::LeaderEpoch;
use uuid::Uuid;

use crate::store::{Key, Layout, Listed, NamedKind, NamedObject};

/// An object that may be a leftover, until the manifests were asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Its name.
    pub key: Key,
    /// What the name says.
    pub named: NamedObject,
}

/// Objects that a leader under `epoch` may delete if nothing refers to them: those that an older leader
/// wrote. Only that leader could have made them referenced, and it is fenced; its own objects a leader
/// knows without looking.
pub fn suspects(listed: Vec<Listed>, epoch: LeaderEpoch) -> BTreeMap<Uuid, Suspect> {
    listed
        .into_iter()
        .filter_map(|object| {
            let named = Layout::parse(&object.key)?;
            let suspect = Suspect { key: object.key, named };
            (named.leader_epoch < epoch).then_some((named.uuid, suspect))
        })
        .collect()
}

/// Smallest and greatest first offset among the data objects; None if there is none.
pub fn offset_span(suspects: &BTreeMap<Uuid, Suspect>) -> Option<(i64, i64)> {
    let offsets = || {
        suspects.values().filter(|suspect| suspect.named.kind == NamedKind::Data).map(|suspect| suspect.named.number)
    };
    Some((offsets().min()?, offsets().max()?))
}
