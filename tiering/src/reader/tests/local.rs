//! A tier in a local directory, read in blocks of the file.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use proto::ids::{TopicId, TopicPartition, Uuid};
use proto::metadata::{ObjectFormat, ObjectKey};

use crate::reader::{Name, RangeSource, SourceError, Span, StoreSource};
use crate::store::{Layout, Location, NoMetrics, Store, Timeouts};

#[tokio::test]
async fn ranges_of_a_file_come_in_whole_chunks() {
    let directory = tempfile::tempdir().unwrap();
    let location = Location::Directory(directory.path().to_path_buf());
    let client = location.open(Vec::new(), Timeouts::default()).unwrap();
    let store = Store::new(client, Layout::new("", "cluster"), Timeouts::default(), Arc::new(NoMetrics));
    let owner = TopicPartition::new(TopicId(Uuid::from_u128(1)), 0);
    let key = ObjectKey { owner, base_offset: 0, leader_epoch: 0, uuid: Uuid::from_u128(2) };
    let name = Name::Data(key, ObjectFormat::Segment);
    let data: Bytes = (0..3_000_000u32).map(|at| (at / 251) as u8).collect::<Vec<_>>().into();
    store.create(&store.layout().object(&key, ObjectFormat::Segment), std::slice::from_ref(&data)).await.unwrap();

    let source = StoreSource::new(store);
    let read = async |span| source.get(&name, span).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
    let parts = read(Span::Range(1_000_000..2_500_000)).await;
    let lengths: Vec<_> = parts.iter().map(Bytes::len).collect();
    assert_eq!(lengths, [48_576, 1 << 20, 2_500_000 - (2 << 20)], "cut where chunks are");
    assert_eq!(parts.concat(), data[1_000_000..2_500_000]);
    assert_eq!(read(Span::From(2_999_000)).await.concat(), data[2_999_000..]);
    assert_eq!(read(Span::All).await.concat(), data);

    let mut beyond = source.get(&name, Span::Range(2_999_999..3_000_005)).await.unwrap();
    assert_eq!(beyond.next().await, Some(Ok(data.slice(2_999_999..))), "a range is cut at the object's end");
    assert_eq!(beyond.next().await, None);
    let other = ObjectKey { uuid: Uuid::from_u128(3), ..key };
    let missing = source.get(&Name::Data(other, ObjectFormat::Segment), Span::All).await;
    assert_eq!(missing.err(), Some(SourceError::NotFound));
}
