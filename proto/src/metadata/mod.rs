//! What the quorum knows: the records that change it and the image they add up to.
//!
//! Pure: no clock, no randomness, no I/O. Whoever applies the same records in the same order holds
//! the same image. [`Image::apply`] is total: a record that contradicts the image (which `decide`
//! never writes) changes nothing but the offset, the same way everywhere.

mod apply;
mod batch;
pub mod codec;
mod encode;
mod image;
mod record;
mod snapshot;
pub mod tier;

pub use batch::{Batch, BatchRejected};
pub use codec::{DecodeError, Durable};
pub use encode::{FEATURE, NEWEST_LEVEL};
pub use image::{DeletedTopic, Image, TierChange, Topic, TopicChange};
pub use record::{
    Broker, ConfigKind, ConfigResource, Duty, Endpoint, FeatureRange, MetadataRecord, PartitionState, Recovery,
    SecurityProtocol, Share, host_and_port,
};
pub use snapshot::{SNAPSHOT_CHUNK_BYTES, SnapshotError, SnapshotReader, write_snapshot};
pub use tier::{ObjectFormat, ObjectKey, ObjectRef, RootRef, TailEntry, TierPoint, TierPointer};

#[cfg(test)]
mod tests;
