//! Where replicas and leaders should be: a plan of few moves that evens out what brokers carry.
//!
//! Pure: an image and what brokers tell of their load become a [`Plan`]. What must hold is never given up for balance:
//! replicas of a partition are on different brokers, in different racks where there are enough racks, and nothing goes to
//! a broker that is fenced, being drained, or short of disk. What should hold comes in this order: leaders, replicas,
//! bytes that come in, bytes on disk. Leaders change before replicas move, because that costs nothing.

mod load;
mod model;
mod plan;

#[cfg(test)]
pub(crate) mod tests;

pub use load::{Disk, Load, Loads, PartitionLoad};
pub use model::{FULL_PERCENT, Obstacle};
pub use plan::{Around, Goals, Limits, Move, Plan, Reason, Scope, Stuck, plan, plan_around};
