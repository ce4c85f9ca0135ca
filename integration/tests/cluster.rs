//! Clusters of real processes: nodes are killed, stopped, ended, cut off, run out of disk, replaced and added, under load from clients
//! that write down what they are told; the history is checked.
//!
//! `FIRN_TEST_ROUNDS` says how often what can be repeated is (2 unless set). `FIRN_TEST_NEEDS_NETNS` and `FIRN_TEST_NEEDS_MOUNT` make a
//! failure of a machine on which networks or small file systems cannot be made; without them such tests say that they were skipped. `FIRN_TEST_PREVIOUS` names the
//! binary of an earlier version, and `FIRN_TEST_NEEDS_PREVIOUS` forbids to go without it.

#[path = "cluster/commands.rs"]
mod commands;
#[path = "cluster/dev.rs"]
mod dev;
#[path = "cluster/disks.rs"]
mod disks;
#[path = "cluster/faults.rs"]
mod faults;
#[path = "cluster/grow.rs"]
mod grow;
#[path = "bad_input/mount.rs"]
mod mount;
#[path = "cluster/networks.rs"]
mod networks;
#[path = "cluster/reassign.rs"]
mod reassign;
#[path = "cluster/refusals.rs"]
mod refusals;
#[path = "cluster/skew.rs"]
mod skew;
#[path = "cluster/stand.rs"]
mod stand;
#[path = "cluster/upgrade.rs"]
mod upgrade;
