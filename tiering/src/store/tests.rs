use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use proto::host::SeededEntropy;
use proto::metadata::{ObjectFormat, RootRef};
use uuid::Uuid;

use super::faulty::{Faults, FaultyStore, NoFuse};
use super::*;
use crate::fixtures::{entry, partition};

#[derive(Default)]
struct Seen(Mutex<Vec<(RequestKind, &'static str, u64)>>);

impl StoreMetrics for Seen {
    fn request(&self, kind: RequestKind, outcome: &'static str, bytes: u64, _: Duration) {
        self.0.lock().push((kind, outcome, bytes));
    }
}

fn over(inner: Arc<dyn ObjectStore>) -> Store {
    Store::new(inner, Layout::new("pre/fix/", "cluster"), Timeouts::default(), Arc::new(NoMetrics))
}

fn faulty(faults: Faults) -> (Store, FaultyStore) {
    let inner = FaultyStore::new(Arc::new(SeededEntropy::new(1)), Arc::new(NoFuse), Duration::ZERO);
    inner.set_faults(faults);
    (over(Arc::new(inner.clone())), inner)
}

fn key(store: &Store) -> Key {
    store.layout().data(&entry(10, 20))
}

fn body(bytes: usize) -> Vec<Bytes> {
    vec![Bytes::from(vec![7; bytes / 2]), Bytes::from((0..bytes - bytes / 2).map(|at| at as u8).collect::<Vec<_>>())]
}

/// What every store must do, whichever client is below.
async fn conformance(store: Store) {
    let key = key(&store);
    let chunks = body(1000);
    assert_eq!(store.create(&key, &chunks).await, Ok(Created::Now));
    assert_eq!(store.create(&key, &chunks).await, Ok(Created::Before), "one's own object is a success");
    let other = store.create(&key, &body(999)).await.unwrap_err();
    assert_eq!(other.kind(), Some(Definite::AlreadyExists), "another object of that name is not: {other}");
    let whole: Bytes = chunks.concat().into();
    assert_eq!(store.get_whole(&key, 1000).await.unwrap(), whole);
    assert_eq!(store.get_range(&key, 400..600).await.unwrap(), whole.slice(400..600));
    assert_eq!(store.get_from(&key, 900, 100).await.unwrap(), (whole.slice(900..), 1000));
    assert_eq!(store.get_last(&key, 10).await.unwrap(), (whole.slice(990..), 1000));
    assert!(store.get_range(&key, 900..1100).await.is_err(), "beyond the end");
    assert_eq!(store.get_from(&key, 0, 999).await.unwrap_err().kind(), Some(Definite::Unsupported));
    let second = store.layout().data(&entry(20, 30));
    store.create(&second, &body(10)).await.unwrap();
    let mut lister = store.list(&store.layout().partition(partition(0)));
    let mut listed = Vec::new();
    loop {
        let page = lister.next_page(1).await.unwrap();
        if page.is_empty() {
            break;
        }
        listed.extend(page.into_iter().map(|listed| (listed.key, listed.size)));
    }
    listed.sort();
    assert_eq!(listed, vec![(key.clone(), 1000), (second, 10)]);
    store.delete(&key).await.unwrap();
    store.delete(&key).await.unwrap();
    assert!(store.get_whole(&key, 1000).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn in_memory_conforms() {
    conformance(over(Arc::new(InMemory::new()))).await;
}

#[tokio::test]
async fn the_local_directory_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let url = url::Url::from_file_path(dir.path().join("made/on/demand")).unwrap();
    let location = Location::parse(url.as_str()).unwrap();
    conformance(over(location.open([], Timeouts::default()).unwrap())).await;
}

#[tokio::test(start_paused = true)]
async fn the_faulty_store_without_faults_conforms() {
    conformance(faulty(Faults::default()).0).await;
}

#[tokio::test(start_paused = true)]
async fn outcomes_are_told_apart() {
    let chunks = body(100);
    let (store, inner) = faulty(Faults { throttle: 1000, ..Faults::default() });
    let refused = store.create(&key(&store), &chunks).await.unwrap_err();
    assert_eq!(refused.kind(), Some(Definite::Throttled));
    inner.set_faults(Faults { hang: 1000, ..Faults::default() });
    let hung = store.create(&key(&store), &chunks).await.unwrap_err();
    assert!(matches!(hung, StoreError::Unknown { .. }), "{hung}");
    assert!(inner.objects().is_empty());
    inner.set_faults(Faults { lost_answer: 1000, ..Faults::default() });
    let lost = store.create(&key(&store), &chunks).await.unwrap_err();
    assert!(matches!(lost, StoreError::Unknown { .. }), "{lost}");
    inner.set_faults(Faults::default());
    assert_eq!(store.create(&key(&store), &chunks).await, Ok(Created::Before), "it had been applied");
    inner.set_faults(Faults { truncate: 1000, ..Faults::default() });
    let cut = store.get_whole(&key(&store), 100).await.unwrap_err();
    assert_eq!(cut.kind(), Some(Definite::Truncated));
}

#[tokio::test(start_paused = true)]
async fn large_objects_go_in_parts_and_are_found_after_a_lost_answer() {
    let (store, inner) = faulty(Faults::default());
    let chunks = vec![Bytes::from(vec![5; 40 << 20]), Bytes::from(vec![6; 30 << 20]), Bytes::from_static(b"end")];
    inner.set_faults(Faults { lost_answer: 1000, ..Faults::default() });
    assert!(store.create(&key(&store), &chunks).await.is_err());
    inner.set_faults(Faults::default());
    assert_eq!(store.create(&key(&store), &chunks).await, Ok(Created::Before));
    assert_eq!(inner.objects().values().next().unwrap(), &chunks.concat());
    assert_eq!(inner.counts().puts, 1);
}

#[tokio::test]
async fn requests_are_reported() {
    let seen = Arc::new(Seen::default());
    let inner = Arc::new(InMemory::new());
    let store = Store::new(inner, Layout::new("", "c"), Timeouts::default(), seen.clone());
    let key = key(&store);
    store.create(&key, &body(100)).await.unwrap();
    store.get_range(&key, 0..30).await.unwrap();
    store.delete(&key).await.unwrap();
    let _ = store.get_range(&key, 0..30).await;
    assert_eq!(
        *seen.0.lock(),
        vec![
            (RequestKind::Put, "ok", 100),
            (RequestKind::Get, "ok", 30),
            (RequestKind::Delete, "ok", 0),
            (RequestKind::Get, "not_found", 0),
        ]
    );
}

#[test]
fn names_say_what_they_name_and_parse_back() {
    let layout = Layout::new("/pre/fix/", "cluster");
    let root = RootRef { uuid: Uuid::from_u128(5), generation: 42, leader_epoch: 7, size: 0, crc: 0 };
    let tp = partition(3);
    let data = layout.object(&entry(10, 20).object.key, ObjectFormat::Segment);
    let name = data.to_string();
    assert!(name.starts_with("pre/fix/cluster/") && name.contains(&format!("/{}/0/", tp.topic)), "{name}");
    assert!(name.ends_with("/00000000000000000010-3-a0000000-0000-4000-8000-00000000000a.seg"), "{name}");
    let parsed = Layout::parse(&data).unwrap();
    assert_eq!((parsed.kind, parsed.number, parsed.leader_epoch), (NamedKind::Data, 10, 3));
    let parsed = Layout::parse(&layout.root(tp, &root)).unwrap();
    assert_eq!(parsed, NamedObject { kind: NamedKind::Root, number: 42, leader_epoch: 7, uuid: root.uuid });
    let leaf = layout.leaf_named(tp, 30, 7, root.uuid);
    let parsed = Layout::parse(&leaf).unwrap();
    assert_eq!(parsed, NamedObject { kind: NamedKind::Leaf, number: 30, leader_epoch: 7, uuid: root.uuid });
    assert!(leaf.path().prefix_matches(layout.partition(tp).path()));
    assert_eq!(Layout::parse(&Key::from_path("a/readme.txt".into())), None);
    assert_eq!(Layout::parse(&Key::from_path("a/1-2-not-a-uuid.seg".into())), None);
}

#[test]
fn locations_are_parsed_with_one_clear_line() {
    assert_eq!(Location::parse("memory:"), Ok(Location::Memory));
    assert_eq!(Location::parse("file:///var/firn"), Ok(Location::Directory("/var/firn".into())));
    let s3 = Location::S3 { bucket: "b".into(), prefix: "some/prefix".into() };
    assert_eq!(Location::parse("s3://b/some/prefix/"), Ok(s3));
    for wrong in ["", "bucket", "ftp://x/y", "s3:///prefix"] {
        let line = Location::parse(wrong).unwrap_err().to_string();
        assert!(line.contains("s3://bucket/prefix") && !line.contains('\n'), "{line}");
    }
    let env = [("AWS_ENDPOINT_URL".to_owned(), "http://127.0.0.1:9".to_owned())];
    assert!(Location::parse("s3://b/p").unwrap().open(env, Timeouts::default()).is_ok());
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_a_refusal() {
    let env = [
        // A port that was free a moment ago and that nobody listens on.
        (
            "AWS_ENDPOINT_URL",
            format!("http://{}", std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()),
        ),
        ("AWS_ACCESS_KEY_ID", "a".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "b".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value));
    let store = over(Location::parse("s3://b/p").unwrap().open(env, Timeouts::default()).unwrap());
    let error = store.create(&key(&store), &body(10)).await.unwrap_err();
    assert_eq!(error.kind(), Some(Definite::Unreachable), "{error}");
}
