//! Which listed objects are leftovers.

use std::collections::BTreeMap;

use proto::ids::LeaderEpoch;
use uuid::Uuid;

use crate::store::{Key, Layout, Listed};

/// Objects that a leader under `epoch` may delete if nothing refers to them: those that an older leader
/// wrote. Only that leader could have made them referenced, and it is fenced; its own objects a leader
/// knows without looking.
pub fn suspects(listed: Vec<Listed>, epoch: LeaderEpoch) -> BTreeMap<Uuid, Key> {
    listed
        .into_iter()
        .filter_map(|object| {
            let named = Layout::parse(&object.key)?;
            (named.leader_epoch < epoch).then_some((named.uuid, object.key))
        })
        .collect()
}
