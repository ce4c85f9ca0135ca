//! One client connection: requests are started in the order they came, answers leave in that same order.
//!
//! The reader half starts a request and hands what it will become to the writer half. A produce request
//! is started by appending and finished by its acknowledgement, so a client that pipelines fills the next journal
//! group while the last one syncs. Everything else finishes before the next frame is read, as in Kafka.

use super::budget::Grant;
use super::frame::{Frame, FrameBudget, FrameError, FrameReader};
use bytes::{Buf, Bytes};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};

/// Requests of one connection whose answer is still outstanding; more wait in the socket.
const MAX_IN_FLIGHT: usize = 256;
/// The kernel takes at most this many slices in one call (IOV_MAX is 1,024; more do not pay).
const MAX_SLICES: usize = 64;
/// How long a client may take nothing of an answer while others wait for memory.
const STALL_CONTENDED: Duration = Duration::from_secs(5);
/// How often an answer that is not taken is looked at.
const TICK: Duration = Duration::from_millis(100);
/// While more than this of finished answers is not sent, no further request is taken up. What a grant covers does not count.
const MAX_UNSENT_BYTES: usize = 256 << 10;
/// Answers are gathered up to this; a larger one, of records as a rule, is not held up for others.
const GATHER_BYTES: usize = 16 << 10;

/// The bytes of one answer, length prefix included.
#[derive(Debug, Default)]
pub struct Answer {
    pub chunks: VecDeque<Bytes>,
    /// Memory that `chunks` pin; freed when they are written.
    pub grants: Vec<Grant>,
}

/// What a request has become once it was started.
pub enum Started {
    /// The answer is complete.
    Done(Answer),
    /// The answer follows, of about that many bytes; later requests may be started before.
    Pending { answer: BoxFuture<'static, Option<Answer>>, bytes: usize },
    /// What it becomes depends on others. No later request is started before, and it is dropped if the client leaves.
    Waiting(BoxFuture<'static, Started>),
    /// The client asked for no answer (`acks=0`).
    Silent,
    /// The request cannot be answered at all: the connection ends, with the reason for the log.
    Close(String),
}

/// Starts requests. One instance serves one connection.
pub trait Service: Send {
    /// Starts the request in `frame`; called in order, never concurrently.
    fn start(&mut self, frame: Frame) -> impl Future<Output = Started> + Send;
}

/// Limits of a connection.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `socket.request.max.bytes`.
    pub max_frame_bytes: usize,
    /// `connections.max.idle.ms`.
    pub idle: Duration,
    /// The budget that request frames are admitted against.
    pub requests: FrameBudget,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("closed by the client")]
    ByClient,
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("writing failed: {0}")]
    Write(io::Error),
}

/// Serves one connection until either side ends it.
pub async fn serve<R, W, S>(read: R, write: W, mut service: S, limits: Limits) -> Ended
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
    S: Service,
{
    let (answers, queue) = mpsc::channel(MAX_IN_FLIGHT);
    let unsent = &Unsent::default();
    let reader = async move {
        let mut frames = FrameReader::new(read, limits.requests, limits.max_frame_bytes, limits.idle);
        loop {
            unsent.is_little().await;
            let frame = match frames.next().await {
                Err(error) => return error.into(),
                Ok(None) => return Ended::ByClient,
                Ok(Some(frame)) => frame,
            };
            let mut started = service.start(frame).await;
            while let Started::Waiting(waiting) = started {
                started = tokio::select! {
                   biased;
                    started = waiting => started,
                    left = frames.left() => return left.into(),
                };
            }
            match started {
                Started::Silent => {}
                Started::Close(reason) => return Ended::Refused(reason),
                started => {
                    let owed = Owed { bytes: started.own_bytes(), started };
                    unsent.add(owed.bytes);
                    if answers.send(owed).await.is_err() {
                        return Ended::ByClient;
                    }
                }
            }
        }
    };
    let writer = write_answers(write, queue, unsent, limits.idle);
    tokio::pin!(reader, writer);
    // When reading ends, answers of requests that were started are still owed.
    tokio::select! {
        biased;
        ended = &mut reader => match writer.await {
            Ok(()) => ended,
            Err(error) => Ended::Write(error),
        },
        result = &mut writer => match result {
            Ok(()) => Ended::ByClient,
            Err(error) => Ended::Write(error),
        },
    }
}

impl Started {
    /// Bytes that no grant covers.
    fn own_bytes(&self) -> usize {
        match self {
            Started::Done(answer) => {
                let granted: usize = answer.grants.iter().map(Grant::bytes).sum();
                answer.chunks.iter().map(Bytes::len).sum::<usize>().saturating_sub(granted)
            }
            Started::Pending { bytes, .. } => *bytes,
            Started::Waiting(_) | Started::Silent | Started::Close(_) => 0,
        }
    }
}

/// Bytes of answers that were not sent yet.
#[derive(Debug, Default)]
struct Unsent {
    bytes: AtomicUsize,
    less: Notify,
}

impl Unsent {
    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn sent(&self, bytes: usize) {
        if self.bytes.fetch_sub(bytes, Ordering::Relaxed) > MAX_UNSENT_BYTES {
            self.less.notify_one();
        }
    }

    /// Returns once the client took its answers.
    async fn is_little(&self) {
        while self.bytes.load(Ordering::Relaxed) > MAX_UNSENT_BYTES {
            self.less.notified().await;
        }
    }
}

/// An answer in the queue.
struct Owed {
    started: Started,
    /// See [`Started::own_bytes`].
    bytes: usize,
}

/// What is still to be answered, oldest first.
struct Answers {
    queue: mpsc::Receiver<Owed>,
    /// Taken out of the queue already, because an earlier answer is stuck, or because it was not ready.
    stuck: VecDeque<Owed>,
}

impl Answers {
    async fn next(&mut self) -> Option<Owed> {
        match self.stuck.pop_front() {
            Some(owed) => Some(owed),
            None => self.queue.recv().await,
        }
    }

    /// Adds what follows and is ready: one sync of the journal finishes many answers, and they leave in one call. Answers what
    /// [`Unsent`] counted of them.
    fn gather(&mut self, ready: &mut Answer) -> usize {
        let mut counted = 0;
        while ready.has_room() {
            let Some(Owed { started, bytes: own }) = self.stuck.pop_front().or_else(|| self.queue.try_recv().ok())
            else {
                break;
            };
            match started {
                Started::Done(answer) => ready.join(Some(answer)),
                Started::Pending { mut answer, bytes } => match (&mut answer).now_or_never() {
                    Some(answer) => ready.join(answer),
                    None => {
                        self.stuck.push_front(Owed { started: Started::Pending { answer, bytes }, bytes: own });
                        break;
                    }
                },
                Started::Waiting(_) | Started::Silent | Started::Close(_) => {}
            }
            counted += own;
        }
        counted
    }

    /// Frees what the answers in the queue share with others; see [`detach`].
    fn detach(&mut self) {
        while self.stuck.len() < MAX_IN_FLIGHT
            && let Ok(mut owed) = self.queue.try_recv()
        {
            if let Started::Done(answer) = &mut owed.started {
                detach(&mut answer.chunks);
            }
            self.stuck.push_back(owed);
        }
    }
}

/// Copies what is left of an answer. Records are sent out of the tail cache, and the smallest piece of a block keeps all of it: a client
/// that does not read may keep what it was granted, but not the memory of everybody's newest records.
fn detach(chunks: &mut VecDeque<Bytes>) {
    for chunk in chunks {
        *chunk = Bytes::copy_from_slice(chunk);
    }
}

async fn write_answers<W: AsyncWrite + Unpin>(
    mut write: W,
    queue: mpsc::Receiver<Owed>,
    unsent: &Unsent,
    stall: Duration,
) -> io::Result<()> {
    let mut answers = Answers { queue, stuck: VecDeque::new() };
    while let Some(Owed { started, bytes }) = answers.next().await {
        let mut ready = Answer::default();
        ready.join(match started {
            Started::Done(answer) => Some(answer),
            Started::Pending { answer, .. } => answer.await,
            Started::Waiting(_) | Started::Silent | Started::Close(_) => None,
        });
        let counted = bytes + answers.gather(&mut ready);
        write_answer(&mut write, ready, &mut answers, stall).await?;
        unsent.sent(counted);
    }
    write.shutdown().await
}

impl Answer {
    /// Puts `other` behind this one, to leave with it.
    fn join(&mut self, other: Option<Answer>) {
        let Some(Answer { chunks, grants }) = other else { return };
        self.chunks.extend(chunks);
        self.grants.extend(grants);
    }

    fn has_room(&self) -> bool {
        self.chunks.len() < MAX_SLICES && self.chunks.iter().map(Bytes::len).sum::<usize>() < GATHER_BYTES
    }
}

/// Writes all of `chunks`, many with each call, and waits for the peer as long as it takes.
pub(crate) async fn write_all<W: AsyncWrite + Unpin>(write: &mut W, mut chunks: VecDeque<Bytes>) -> io::Result<()> {
    while !chunks.is_empty() {
        write_some(write, &mut chunks).await?;
    }
    Ok(())
}

/// Writes one answer. A client that takes nothing for `stall` is let go, much sooner when others wait for the memory of the answer.
async fn write_answer<W: AsyncWrite + Unpin>(
    write: &mut W,
    answer: Answer,
    behind: &mut Answers,
    stall: Duration,
) -> io::Result<()> {
    let Answer { mut chunks, grants } = answer;
    let mut moved = Instant::now();
    let mut detached = false;
    while !chunks.is_empty() {
        // A write that is given up has written nothing.
        if let Ok(written) = timeout(TICK.min(stall), write_some(write, &mut chunks)).await {
            written?;
            moved = Instant::now();
            continue;
        }
        if !detached {
            detach(&mut chunks);
            detached = true;
        }
        behind.detach();
        let contended = grants.iter().any(Grant::is_contended);
        if moved.elapsed() >= if contended { STALL_CONTENDED.min(stall) } else { stall } {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answers"));
        }
    }
    Ok(())
}

/// Writes what the peer takes now.
async fn write_some<W: AsyncWrite + Unpin>(write: &mut W, chunks: &mut VecDeque<Bytes>) -> io::Result<()> {
    let slices: Vec<IoSlice<'_>> = chunks.iter().take(MAX_SLICES).map(|chunk| IoSlice::new(chunk)).collect();
    let mut written = write.write_vectored(&slices).await?;
    if written == 0 && slices.iter().any(|slice| !slice.is_empty()) {
        return Err(io::ErrorKind::WriteZero.into());
    }
    while let Some(first) = chunks.front_mut() {
        if written < first.len() {
            first.advance(written);
            break;
        }
        written -= first.len();
        chunks.pop_front();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::*;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll};
    use tokio::io::{AsyncReadExt, duplex};
    use tokio::sync::oneshot;

    /// Answers a frame with its own bytes; one that starts with `w` only after a signal.
    struct Echo {
        signals: VecDeque<oneshot::Receiver<()>>,
    }

    impl Service for Echo {
        async fn start(&mut self, frame: Frame) -> Started {
            let chunks = VecDeque::from([frame.body.slice(..1), frame.body.slice(1..)]);
            match frame.body.first() {
                Some(b'w') => {
                    let signal = self.signals.pop_front().expect("a signal for each waiting request");
                    let answer = signal.map(|_| Some(Answer { chunks, grants: Vec::new() })).boxed();
                    Started::Pending { answer, bytes: 0 }
                }
                Some(b'p') => Started::Waiting(std::future::pending().boxed()),
                Some(b's') => Started::Silent,
                Some(b'c') => Started::Close("asked to".into()),
                _ => Started::Done(Answer { chunks, grants: Vec::new() }),
            }
        }
    }

    fn limits() -> Limits {
        Limits { max_frame_bytes: 100, idle: Duration::from_secs(60), requests: FrameBudget::new(100) }
    }

    #[tokio::test]
    async fn answers_keep_the_order_of_requests_though_later_ones_finish_first() {
        let (mut client, server) = duplex(1024);
        let (signal, waits) = oneshot::channel();
        let (read, write) = tokio::io::split(server);
        let service = Echo { signals: VecDeque::from([waits]) };
        let task = tokio::spawn(serve(read, write, service, limits()));
        client.write_all(b"\0\0\0\x02w1\0\0\0\x02s2\0\0\0\x02n3\0\0\0\x02n4").await.expect("written");
        signal.send(()).expect("the request is waiting");
        let mut answer = [0; 6];
        client.read_exact(&mut answer).await.expect("answers");
        assert_eq!(&answer, b"w1n3n4");
        drop(client);
        assert!(matches!(task.await.expect("no panic"), Ended::ByClient));
    }

    #[tokio::test]
    async fn what_was_started_is_answered_before_a_refused_frame_ends_the_connection() {
        let (mut client, server) = duplex(1024);
        let (read, write) = tokio::io::split(server);
        let task = tokio::spawn(serve(read, write, Echo { signals: VecDeque::new() }, limits()));
        client.write_all(b"\0\0\0\x02n1\0\0\0\x01c").await.expect("written");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("the answer, then the end");
        assert_eq!(answer, b"n1");
        assert!(matches!(task.await.expect("no panic"), Ended::Refused(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_let_go() {
        let (_client, server) = duplex(1024);
        let (read, write) = tokio::io::split(server);
        let ended = serve(read, write, Echo { signals: VecDeque::new() }, limits()).await;
        assert!(matches!(ended, Ended::Frame(FrameError::Idle)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_waits_ends_with_its_client() {
        for leaves in [true, false] {
            let (mut client, server) = duplex(1024);
            let (read, write) = tokio::io::split(server);
            client.write_all(b"\0\0\0\x01p\0\0\0\x01n").await.expect("written");
            let mut kept = Some(client);
            if leaves {
                kept = None;
            }
            let ended = serve(read, write, Echo { signals: VecDeque::new() }, limits()).await;
            // Who says nothing for too long is gone, too.
            let expected = if leaves { FrameError::Left.to_string() } else { FrameError::Idle.to_string() };
            assert_eq!(ended.to_string(), expected);
            drop(kept);
        }
    }

    /// Counts what it was asked; answers everything with 10,000 bytes, of which a grant covers some.
    struct Wordy {
        asked: Arc<AtomicUsize>,
        memory: Budget,
    }

    impl Service for Wordy {
        async fn start(&mut self, frame: Frame) -> Started {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let mut grants = Vec::new();
            if frame.body == "g" {
                grants.push(self.memory.admit(10_000).await);
            }
            Started::Done(Answer { chunks: VecDeque::from([Bytes::from(vec![0; 10_000])]), grants })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_its_answers_is_not_asked_for_more() {
        for (frame, expected) in [(&b"\0\0\0\x01x"[..], MAX_UNSENT_BYTES / 10_000 + 1), (b"\0\0\0\x01g", 100)] {
            let (mut client, server) = duplex(1024);
            let (read, write) = tokio::io::split(server);
            let asked = Arc::new(AtomicUsize::new(0));
            let service = Wordy { asked: Arc::clone(&asked), memory: Budget::new(10_000_000) };
            let task = tokio::spawn(serve(read, write, service, limits()));
            client.write_all(&frame.repeat(100)).await.expect("written");
            tokio::time::sleep(TICK * 3).await;
            assert_eq!(asked.load(Ordering::Relaxed), expected);
            // Once it reads, all is answered.
            let mut answers = vec![1; 1_000_000];
            client.read_exact(&mut answers).await.expect("the answers are whole");
            drop(client);
            assert!(matches!(task.await.expect("no panic"), Ended::ByClient));
        }
    }

    /// Answers everything with more than a socket takes, out of a budget.
    struct Flood {
        memory: Budget,
    }

    impl Service for Flood {
        async fn start(&mut self, _: Frame) -> Started {
            let grants = vec![self.memory.admit(1000).await];
            Started::Done(Answer { chunks: VecDeque::from([Bytes::from(vec![0; 1000])]), grants })
        }
    }

    /// Memory that knows whether it is still there.
    struct Block(Vec<u8>, #[expect(dead_code, reason = "it is held, and counted")] Arc<()>);

    impl AsRef<[u8]> for Block {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    /// Answers everything with a part of a block of its own.
    struct Slices {
        blocks: Arc<()>,
    }

    impl Service for Slices {
        async fn start(&mut self, _: Frame) -> Started {
            let block = Bytes::from_owner(Block(vec![7; 4000], Arc::clone(&self.blocks)));
            Started::Done(Answer { chunks: VecDeque::from([block.slice(..1000)]), grants: Vec::new() })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_are_stuck_let_go_of_what_they_are_part_of() {
        let blocks = Arc::new(());
        let (mut client, server) = duplex(100);
        let (read, write) = tokio::io::split(server);
        client.write_all(&b"\0\0\0\x01x".repeat(5)).await.expect("written");
        let task = tokio::spawn(serve(read, write, Slices { blocks: Arc::clone(&blocks) }, limits()));
        tokio::time::sleep(TICK * 3).await;
        // Ours and the service's; none of the five answers holds its block.
        assert_eq!(Arc::strong_count(&blocks), 2);
        let mut answers = vec![0; 5000];
        client.read_exact(&mut answers).await.expect("the answers are whole");
        assert!(answers.iter().all(|byte| *byte == 7));
        drop(client);
        task.await.expect("no panic");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_let_go_sooner_when_others_wait_for_the_memory() {
        for contended in [true, false] {
            let memory = Budget::new(1000);
            let (mut client, server) = duplex(100);
            let (read, write) = tokio::io::split(server);
            client.write_all(b"\0\0\0\x01x").await.expect("written");
            let began = Instant::now();
            let serving = serve(read, write, Flood { memory: memory.clone() }, limits());
            let waiting = async {
                tokio::time::sleep(TICK).await;
                if contended {
                    drop(memory.admit(1).await)
                } else {
                    std::future::pending::<()>().await
                }
                std::future::pending::<()>().await
            };
            tokio::select! {
                biased;
                ended = serving => assert!(matches!(ended, Ended::Write(_))),
                () = waiting => {}
            }
            assert_eq!(began.elapsed() < limits().idle, contended);
        }
    }

    /// Notes what each call of the writer wrote.
    #[derive(Default)]
    struct Calls(Vec<Vec<u8>>);

    impl AsyncWrite for Calls {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.get_mut().0.push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let written = bytes.len();
            self.get_mut().0.push(bytes);
            Poll::Ready(Ok(written))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn answers_that_are_ready_together_leave_together() {
        let answer = |bytes: &'static [u8]| Answer { chunks: VecDeque::from([Bytes::from(bytes)]), grants: vec![] };
        let (late, waits) = oneshot::channel();
        let (answers, queue) = mpsc::channel(8);
        let pending = |answer| Started::Pending { answer, bytes: 0 };
        let large = Bytes::from(vec![b'L'; GATHER_BYTES]);
        for started in [
            Started::Done(answer(b"1")),
            pending(std::future::ready(Some(answer(b"2"))).boxed()),
            Started::Done(answer(b"3")),
            pending(waits.map(move |_| Some(answer(b"4"))).boxed()),
            Started::Done(Answer { chunks: VecDeque::from([large.clone()]), grants: vec![] }),
            Started::Done(answer(b"6")),
        ] {
            answers.send(Owed { started, bytes: 0 }).await.expect("room in the queue");
        }
        drop(answers);
        let mut calls = Calls::default();
        let unsent = Unsent::default();
        let mut writing = write_answers(&mut calls, queue, &unsent, Duration::from_secs(60)).boxed();
        assert!((&mut writing).now_or_never().is_none(), "the fourth is not ready");
        late.send(()).expect("it is waited for");
        writing.await.expect("written");
        assert_eq!(calls.0, [b"123".to_vec(), [b"4", &large[..]].concat(), b"6".to_vec()]);
    }
}
