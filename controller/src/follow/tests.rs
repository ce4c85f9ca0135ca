//! The ring and the replica as pure parts, and a follower of a quorum that loses members.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proto::ids::NodeId;
use proto::metadata::{Batch, Image, MetadataRecord, write_snapshot};
use tokio::time::Instant;

use super::client::{FollowConfig, Follower};
use super::feed::{Next, Ring};
use super::{FollowError, Followed, Replica};
use crate::tests::world::{World, shows, write};
use crate::{ControllerHandle, Wire};

fn batch(base_offset: u64, records: u64) -> Batch {
    let record = |at| MetadataRecord::FeatureSet { name: format!("f{at}"), level: 1 };
    Batch { term: 1, base_offset, records: (base_offset..base_offset + records).map(record).collect() }
}

fn said(batch: &Batch) -> Followed {
    Followed::Batch(batch.to_bytes().into())
}

fn snapshot(image: &Image) -> Vec<Followed> {
    let mut pieces = Vec::new();
    write_snapshot(image, |chunk| {
        pieces.push(Followed::Chunk(chunk.into()));
        Ok::<_, ()>(())
    })
    .expect("the sink takes all");
    pieces.push(Followed::Whole);
    pieces
}

#[test]
fn a_ring_knows_what_it_keeps() {
    let mut ring = Ring::at(10);
    let bytes = |of: u8| Bytes::from(vec![of; 10]);
    assert_eq!(ring.after(10), Next::Nothing);
    assert_eq!(ring.after(9), Next::Snapshot);
    assert_eq!(ring.after(11), Next::Ahead);
    ring.push(10, 13, bytes(1), 25);
    ring.push(13, 14, bytes(2), 25);
    assert_eq!(ring.after(10), Next::Batch { end: 13, bytes: bytes(1) });
    assert_eq!(ring.after(13), Next::Batch { end: 14, bytes: bytes(2) });
    assert_eq!(ring.after(12), Next::Snapshot);
    assert_eq!(ring.after(14), Next::Nothing);
    ring.push(14, 20, bytes(3), 25);
    assert_eq!(ring.after(10), Next::Snapshot);
    assert_eq!(ring.after(13), Next::Batch { end: 14, bytes: bytes(2) });
    // A batch that is longer than all is kept, too.
    ring.push(20, 21, Bytes::from(vec![4; 100]), 25);
    assert_eq!(ring.after(14), Next::Snapshot);
    assert!(matches!(ring.after(20), Next::Batch { end: 21, .. }));
}

#[test]
fn a_replica_takes_no_batch_twice_and_none_that_leaves_a_gap() {
    let mut replica = Replica::default();
    assert_eq!(replica.take(&said(&batch(0, 3))), Ok(true));
    assert_eq!(replica.take(&said(&batch(0, 3))), Ok(false));
    assert_eq!(replica.take(&said(&batch(5, 1))), Err(FollowError::Gap { found: 5, at: 3 }));
    assert_eq!(replica.image().offset(), 3);
    // An older snapshot changes nothing, half a snapshot neither.
    for piece in snapshot(&Image::default()) {
        assert_eq!(replica.take(&piece), Ok(false));
    }
    assert_eq!(replica.image().offset(), 3);
}

proptest! {
    /// However what is said is cut off and begun again, the image is that of the records up to its offset.
    #[test]
    fn any_way_of_following_gives_the_same_image(steps in proptest::collection::vec((1u64..5, 0usize..6), 1..20)) {
        let mut image = Image::default();
        let mut replica = Replica::default();
        for (records, cut) in steps {
            let batch = batch(image.offset(), records);
            for record in &batch.records {
                image.apply(record);
            }
            match cut {
                0 => prop_assert_eq!(replica.image().offset() <= image.offset(), true),
                1 | 2 => {
                    // Cut off inside of a snapshot.
                    for piece in snapshot(&image).iter().take(cut) {
                        prop_assert!(replica.take(piece).is_ok());
                    }
                    replica.begin_again();
                }
                3 => {
                    for piece in snapshot(&image) {
                        prop_assert!(replica.take(&piece).is_ok());
                    }
                    prop_assert_eq!(replica.image(), &image);
                }
                _ => {
                    let taken = replica.take(&said(&batch));
                    prop_assert_eq!(taken.is_ok(), replica.image() == &image);
                }
            }
        }
    }
}

fn follow(world: &World, id: i32) -> (Follower, ControllerHandle) {
    let config =
        FollowConfig { node_id: NodeId(id), cluster_id: None, bootstrap: world.voters.values().cloned().collect() };
    Follower::start(config, &world.machine(&format!("host-{id}")))
}

async fn follows_and_commands(wire: Wire) {
    let mut world = World::started(3, wire, 7).await;
    world.write(NodeId(0), "before").await.expect("one leads");
    let (follower, handle) = follow(&world, 10);
    // Written through the follower, seen there when it is answered.
    write(&handle, "through", Duration::from_secs(10)).await.expect("one leads");
    assert!(shows(&handle.image(), "before") && shows(&handle.image(), "through"));
    let leader = world.leader(&world.ids()).await;
    world.kill(leader).await;
    let killed = Instant::now();
    write(&handle, "after", Duration::from_secs(10)).await.expect("two of three are enough");
    assert!(killed.elapsed() < Duration::from_secs(3), "written after {:?}", killed.elapsed());
    assert!(shows(&handle.image(), "after"));
    let image = handle.read_linearizable().await.expect("one leads");
    assert_eq!(*image, *world.agreed().await);
    follower.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_member_follows_and_commands_over_frames() {
    follows_and_commands(Wire::Frames).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_member_follows_and_commands_over_grpc() {
    follows_and_commands(Wire::Grpc).await;
}
