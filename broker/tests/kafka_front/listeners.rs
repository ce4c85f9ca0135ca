//! Several listeners: whoever comes through one is told the addresses that belong to it. HTTP listeners, from a node's start to its end.

use crate::client::{Client, code};
use crate::world::{World, batch};
use broker::config::server::{ServerConfig, Sources};
use broker::node::{Host, Node};
use proto::errors::ErrorCode;
use proto::host::Spawner;
use proto::messages::{DescribeClusterRequest, FindCoordinatorRequest, MetadataRequest};
use std::net::SocketAddr;
use std::pin::pin;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_listener_tells_its_own_address() {
    let settings = [
        ("listeners", "INSIDE://127.0.0.1:0,OUTSIDE://127.0.0.1:0"),
        ("listener.security.protocol.map", "INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT"),
        ("advertised.listeners", "OUTSIDE://broker.example.org:443,INSIDE://127.0.0.1:0"),
        ("firn.http.listeners", "127.0.0.1:0,127.0.0.1:0"),
    ];
    let Some(world) = World::firn(&settings).await else { return };
    let topic = world.topic(1, &[]).await;
    let bound = world.node().kafka_addresses().to_vec();
    let names: Vec<&str> = bound.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["INSIDE", "OUTSIDE"]);
    let inside = ("127.0.0.1".to_owned(), i32::from(bound[0].1.port()));
    let outside = ("broker.example.org".to_owned(), 443);
    for ((_, address), told) in bound.iter().zip([inside, outside]) {
        let mut client = Client::connect(*address).await;
        client.produced(&topic, 0, batch(&[b"served on each"])).await;
        let metadata = client.call(12, &MetadataRequest::default()).await;
        let brokers: Vec<_> = metadata.brokers.iter().map(|broker| (broker.host.clone(), broker.port)).collect();
        assert_eq!(brokers, std::slice::from_ref(&told));
        let cluster = client.call(1, &DescribeClusterRequest { endpoint_type: 1, ..Default::default() }).await;
        assert_eq!((cluster.brokers[0].host.clone(), cluster.brokers[0].port), told);
        let request = FindCoordinatorRequest { coordinator_keys: vec!["group".to_owned()], ..Default::default() };
        let found = client.call(4, &request).await.coordinators.remove(0);
        assert_eq!((code(found.error_code), (found.host, found.port)), (ErrorCode::None, told));
    }
    assert_eq!(world.node().http_addresses().len(), 2);
    for address in world.node().http_addresses() {
        TcpStream::connect(address).await.expect("each is served");
    }
}

/// The most connections there may be are those of all listeners together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_share_what_connections_there_may_be() {
    let settings = [
        ("listeners", "INSIDE://127.0.0.1:0,OUTSIDE://127.0.0.1:0"),
        ("listener.security.protocol.map", "INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT"),
        ("max.connections.per.ip", "1"),
    ];
    let Some(world) = World::firn(&settings).await else { return };
    let bound = world.node().kafka_addresses().to_vec();
    let mut first = Client::connect(bound[0].1).await;
    first.call(12, &MetadataRequest::default()).await;
    let mut second = Client::connect(bound[1].1).await;
    // Its address has as many as it may.
    second.expect_closed().await;
    first.call(12, &MetadataRequest::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_http_listener_is_one_too_few_for_metrics_only() {
    let Some(world) = World::firn(&[("firn.http.listeners", "")]).await else { return };
    assert!(world.node().http_addresses().is_empty());
    let topic = world.topic(1, &[]).await;
    world.client().await.produced(&topic, 0, batch(&[b"served"])).await;
}

/// Status and body.
async fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.expect("the HTTP side listens");
    let ask = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    (head.split(' ').nth(1).unwrap_or_default().to_owned(), body.to_owned())
}

fn said(status: &str, body: &str) -> (String, String) {
    (status.to_owned(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_recovers_is_alive_but_not_ready() {
    let data = tempfile::tempdir().expect("a directory");
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    let presets = [
        ("listeners", "PLAINTEXT://127.0.0.1:0".to_owned()),
        ("firn.http.listeners", free.to_string()),
        ("log.dirs", data.path().display().to_string()),
        ("firn.object.store", "memory:".to_owned()),
        ("firn.journal.file.bytes", "1048576".to_owned()),
        ("firn.journal.bytes", "33554432".to_owned()),
    ];
    let presets = presets.map(|(name, value)| (name.to_owned(), value)).into();
    let config = ServerConfig::load(&Sources { presets, ..Sources::default() }).expect("valid");
    let mut start = pin!(Node::start(config, Host::system(Spawner::single(tokio::runtime::Handle::current()))));
    // It waits for its disk, and gets no further while nobody polls it.
    assert!(futures::poll!(start.as_mut()).is_pending());
    assert_eq!(get(free, "/readyz").await, said("503", "recovering\n"));
    assert_eq!(get(free, "/healthz").await, said("200", "ok\n"));
    assert_eq!(get(free, "/v1/tier").await.0, "503");
    let node = start.await.expect("the node starts");
    assert_eq!(get(free, "/readyz").await, said("200", "ok\n"));
    node.shutdown().await;
    assert!(TcpStream::connect(free).await.is_err());
}
