//! Beats of brokers and their answers, in bytes.

use proto::{durable_enum, durable_struct};

use crate::balance::{Disk, Load, PartitionLoad};
use crate::session::{Beat, BeatReply, Want};

durable_enum!(Want { Serve = 1, StayFenced = 2, ShutDown = 3, Stopped = 4 });

durable_struct!(
    Beat { id, epoch, applied, want, directories, load, wall }
    BeatReply { fenced, may_stop, caught_up, leader_wall, stale }
    Load { disk, partitions }
    Disk { used, total }
    PartitionLoad { bytes_in, bytes_out, hot }
);
