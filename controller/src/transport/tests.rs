//! What every transport does, in memory and over TCP.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use proto::host::{Network, TcpNetwork};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::bounds::Limits;
use super::grpc::serve_within;
use super::{Channel, Envelope, Serve, Transport, TransportError, Wire, probe};
use crate::session::Evidence;
use crate::tests::network::Net;

fn envelope(body: impl Into<Bytes>) -> Envelope {
    let directory = Bytes::from_static(&[7; 16]);
    Envelope { cluster: "c".to_owned(), from: -1, directory, version: 3, kind: 9, body: body.into() }
}

/// Answers with what it was asked; `hang` is never answered. Tells when a conversation has ended.
struct Echo {
    ended: mpsc::Sender<()>,
}

#[async_trait]
impl Serve for Echo {
    async fn answer(&self, question: Envelope) -> Envelope {
        if question.body.starts_with(b"hang") {
            std::future::pending::<()>().await;
        }
        question
    }

    async fn converse(&self, first: Envelope, mut channel: Channel) {
        /// Told however the conversation ends.
        struct Told(mpsc::Sender<()>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.try_send(());
            }
        }
        let _told = Told(self.ended.clone());
        if channel.to.send(first).await.is_err() {
            return;
        }
        while let Some(next) = channel.from.next().await {
            if &next.body[..] == b"bye" || channel.to.send(next).await.is_err() {
                return;
            }
        }
    }
}

struct Running {
    transport: Arc<dyn Transport>,
    network: Arc<dyn Network>,
    address: String,
    stop: CancellationToken,
    ended: mpsc::Receiver<()>,
}

async fn start(wire: Wire, (client, server): (Arc<dyn Network>, Arc<dyn Network>), listen: &str) -> Running {
    let listener = server.listen(listen).await.expect("the port is free");
    let address = match listen.ends_with(":0") {
        true => listener.local_addr().expect("it listens").to_string(),
        false => listen.to_owned(),
    };
    let (sender, ended) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let serving = wire.serve(listener, Arc::new(Echo { ended: sender }), stop.clone());
    tokio::spawn(async move { serving.await.expect("it serves until it is stopped") });
    Running { transport: wire.transport(Arc::clone(&client)), network: client, address, stop, ended }
}

async fn conforms(mut running: Running) {
    let (transport, address) = (&Arc::clone(&running.transport), &running.address.clone());
    // Questions, small and large, one after the other and many at once.
    for body in [Bytes::new(), Bytes::from_static(b"x"), Bytes::from(vec![5; 3 << 20])] {
        assert_eq!(transport.ask(address, envelope(body.clone())).await, Ok(envelope(body)));
    }
    let many = (0..50u8).map(|number| {
        let question = envelope(vec![number]);
        async move { assert_eq!(transport.ask(address, question.clone()).await, Ok(question)) }
    });
    futures::future::join_all(many).await;

    // A question that was given up is not in the way of the next.
    let hanging = transport.ask(address, envelope("hang"));
    assert!(tokio::time::timeout(Duration::from_millis(50), hanging).await.is_err());
    assert!(transport.ask(address, envelope("next")).await.is_ok());

    // A conversation, ended by either side.
    let mut channel = transport.open(address, envelope("first")).await.expect("it listens");
    for word in ["second", "third"] {
        channel.to.send(envelope(word)).await.expect("it is open");
    }
    for word in ["first", "second", "third"] {
        assert_eq!(channel.from.next().await, Some(envelope(word)));
    }
    channel.to.send(envelope("bye")).await.expect("it is open");
    assert_eq!(channel.from.next().await, None);
    running.ended.recv().await.expect("the server saw its end");
    drop(channel);
    let channel = transport.open(address, envelope("first")).await.expect("it listens");
    drop(channel);
    running.ended.recv().await.expect("the server saw its end");

    // When the server stops, conversations end, and nobody is reached any more.
    let mut channel = transport.open(address, envelope("first")).await.expect("it listens");
    assert_eq!(channel.from.next().await, Some(envelope("first")));
    assert_eq!(probe(running.network.as_ref(), address, Duration::from_secs(1)).await, Evidence::Alive);
    running.stop.cancel();
    while channel.from.next().await.is_some() {}
    running.ended.recv().await.expect("the server saw its end");
    let refused = async {
        // What was kept of connections may break first: that may have been heard.
        loop {
            match transport.ask(address, envelope("late")).await {
                Ok(answer) => panic!("a stopped server answered {answer:?}"),
                Err(TransportError::Unknown(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(TransportError::Unreachable(why)) => return why,
            }
        }
    };
    let why = tokio::time::timeout(Duration::from_secs(30), refused).await.expect("it is refused sooner or later");
    assert!(why.contains(address.as_str()), "{why}");
    assert_eq!(probe(running.network.as_ref(), address, Duration::from_secs(1)).await, Evidence::Refused);
}

fn tcp() -> (Arc<dyn Network>, Arc<dyn Network>) {
    (Arc::new(TcpNetwork), Arc::new(TcpNetwork))
}

fn memory() -> (Arc<dyn Network>, Arc<dyn Network>) {
    let net = Net::default();
    (Arc::new(net.host("a")), Arc::new(net.host("b")))
}

#[tokio::test]
async fn grpc_over_tcp() {
    conforms(start(Wire::Grpc, tcp(), "127.0.0.1:0").await).await;
}

#[tokio::test]
async fn frames_over_tcp() {
    conforms(start(Wire::Frames, tcp(), "127.0.0.1:0").await).await;
}

#[tokio::test(start_paused = true)]
async fn grpc_in_memory() {
    conforms(start(Wire::Grpc, memory(), "b:1").await).await;
}

#[tokio::test(start_paused = true)]
async fn frames_in_memory() {
    conforms(start(Wire::Frames, memory(), "b:1").await).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_answer_proves_nothing() {
    let net = Net::default();
    let _listener = net.host("b").listen("b:1").await.expect("the port is free");
    net.cut("a", "b");
    let evidence = probe(&net.host("a"), "b:1", Duration::from_millis(30)).await;
    assert_eq!(evidence, Evidence::Silent);
}

/// What a stranger sends ends its connection, and nothing else.
#[tokio::test]
async fn garbage_ends_its_connection_only() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for wire in [Wire::Grpc, Wire::Frames] {
        let running = start(wire, tcp(), "127.0.0.1:0").await;
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0xff, 0xff, 0xff, 0xff], &[9; 100]] {
            let mut stream = running.network.connect(&running.address).await.expect("it listens");
            stream.write_all(garbage).await.expect("it is open");
            let mut answer = Vec::new();
            let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        }
        assert!(running.transport.ask(&running.address, envelope("x")).await.is_ok(), "{wire:?}");
        running.stop.cancel();
    }
}

/// Starts a server that takes little on, over TCP.
async fn start_small(limits: Limits) -> Running {
    let network: Arc<dyn Network> = Arc::new(TcpNetwork);
    let listener = network.listen("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it listens").to_string();
    let (sender, ended) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let serving = serve_within(listener, Arc::new(Echo { ended: sender }), stop.clone(), limits);
    tokio::spawn(async move { serving.await.expect("it serves until it is stopped") });
    let transport = Wire::Grpc.transport(Arc::clone(&network));
    Running { transport, network, address, stop, ended }
}

/// Waits until a question is answered.
async fn answers(running: &Running) {
    let answered = async {
        while running.transport.ask(&running.address, envelope("x")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), answered).await.expect("there is room again");
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_that_is_said() {
    let limits = Limits { bytes: 3 << 20, bytes_per_connection: 2 << 20, ..Limits::default() };
    let running = start_small(limits).await;
    let (transport, address) = (&running.transport, running.address.as_str());
    let long = |bytes: usize| envelope(vec![5; bytes]);
    assert!(transport.ask(address, long(1 << 20)).await.is_ok());
    // More than one connection may take, whatever others do.
    let refused = transport.ask(address, long(2 << 20)).await.expect_err("it does not fit");
    assert!(matches!(&refused, TransportError::Unreachable(why) if why.contains("too much under way")), "{refused:?}");
    // What two others have said and is not answered leaves too little.
    let others = [(); 2].map(|()| Wire::Grpc.transport(Arc::clone(&running.network)));
    let mut hanging = Vec::new();
    for other in others {
        let mut body = b"hang".to_vec();
        body.resize(1_400_000, 0);
        let address = address.to_owned();
        hanging.push(tokio::spawn(async move {
            // What it asks may find no room beside what is asked below: once it is in, it is never answered.
            while other.ask(&address, envelope(body.clone())).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }));
    }
    let full = async {
        while transport.ask(address, long(1 << 20)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), full).await.expect("both are under way once");
    assert!(transport.ask(address, envelope("small")).await.is_ok(), "what fits is answered");
    hanging.iter().for_each(tokio::task::JoinHandle::abort);
    let room = async {
        while transport.ask(address, long(1 << 20)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), room).await.expect("what was given up is given back");
    // A conversation may last: only what is being said counts.
    let mut channel = transport.open(address, envelope("first")).await.expect("it listens");
    assert_eq!(channel.from.next().await, Some(envelope("first")));
    for _ in 0..10 {
        channel.to.send(long(1 << 20)).await.expect("it is open");
        assert_eq!(channel.from.next().await, Some(long(1 << 20)));
    }
    running.stop.cancel();
}

#[tokio::test]
async fn strangers_do_not_keep_others_out() {
    let limits = Limits { connections: 4, first_word: Duration::from_millis(500), ..Limits::default() };
    let running = start_small(limits).await;
    let mut strangers = Vec::new();
    for _ in 0..4 {
        strangers.push(running.network.connect(&running.address).await.expect("it listens"));
    }
    // The next one is hung up on.
    let refused = running.transport.ask(&running.address, envelope("x")).await;
    assert!(refused.is_err(), "{refused:?}");
    // Who says nothing is hung up on, too.
    answers(&running).await;
    running.stop.cancel();
}
