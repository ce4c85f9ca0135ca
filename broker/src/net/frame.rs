//! Frames of the Kafka protocol: a 4-byte big-endian length, then as many bytes.
//!
//! The length is checked and its bytes are admitted against the budget *before* the body is read, so that a
//! lying prefix costs nothing and many large requests wait instead of filling the memory. What fits into the read-ahead
//! buffer of its connection is paid for by the connection: heartbeats never queue behind produce requests.
//!
//! A peer that stops in the middle of a frame is let go, and soon if others wait for the memory it was granted. Frames that are much
//! larger than a usual batch share half of the budget, so that a few of them, sent or only announced, leave room for the rest.

use super::budget::{Budget, Grant};
use bytes::{BufMut, Bytes, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout, timeout_at};

/// Small requests are read together into a buffer of this size; larger frames get their exact size.
const READ_AHEAD_BYTES: usize = 16 * 1024;
/// A read buffer that a large frame has grown beyond this is given back once the frame is done.
const KEEP_BYTES: usize = 2 * 1024 * 1024;
/// A frame above this is large.
const LARGE_BYTES: usize = 4 * 1024 * 1024;
/// How long nothing may come in the middle of a frame.
const STALL: Duration = Duration::from_secs(30);
/// The same while others wait for memory. The peer had time to fill the socket before.
const STALL_CONTENDED: Duration = Duration::from_secs(2);
/// A frame for whose memory others wait is there by then, or its sender has given it up (`request.timeout.ms` is 30 s).
const FRAME_CONTENDED: Duration = Duration::from_secs(30);
/// How often a frame that does not come is looked at.
const TICK: Duration = Duration::from_millis(500);

/// One request as it came in, with the memory it holds.
#[derive(Debug)]
pub struct Frame {
    /// The bytes after the length prefix.
    pub body: Bytes,
    /// The share of the request budget, held until the frame's bytes are freed.
    pub grant: FrameGrant,
}

/// Memory of one frame. Empty if the frame was read into the buffer of its connection.
#[derive(Debug, Default)]
pub struct FrameGrant {
    bytes: Option<Grant>,
    /// Its share of what large frames may take of the budget.
    large: Option<Grant>,
}

impl FrameGrant {
    /// Bytes held of the budget.
    pub fn bytes(&self) -> usize {
        self.bytes.as_ref().map_or(0, Grant::bytes)
    }

    fn is_contended(&self) -> bool {
        self.bytes.iter().chain(&self.large).any(Grant::is_contended)
    }
}

/// What all connections together may hold in frames.
#[derive(Clone, Debug)]
pub struct FrameBudget {
    all: Budget,
    large: Budget,
}

impl FrameBudget {
    /// `total_bytes` for all frames, half of it for large ones.
    pub fn new(total_bytes: usize) -> FrameBudget {
        FrameBudget { all: Budget::new(total_bytes), large: Budget::new(total_bytes / 2) }
    }

    /// The whole of it.
    pub fn all(&self) -> &Budget {
        &self.all
    }

    async fn admit(&self, bytes: usize) -> FrameGrant {
        // Always in this order: who waits for the second holds only a share of large frames.
        let large = if bytes > LARGE_BYTES { Some(self.large.admit(bytes).await) } else { None };
        FrameGrant { bytes: Some(self.all.admit(bytes).await), large }
    }
}

/// Why a connection cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length prefix is negative or above `socket.request.max.bytes`.
    #[error("a frame of {length} bytes was announced; socket.request.max.bytes allows {max}")]
    Length { length: i32, max: usize },
    /// Nothing came for longer than `connections.max.idle.ms`.
    #[error("idle for longer than connections.max.idle.ms")]
    Idle,
    /// The rest of a frame did not come.
    #[error("only {received} of {length} bytes of a frame came, the last {} s ago", after.as_secs())]
    Stalled { received: usize, length: usize, after: Duration },
    /// The peer went away in the middle of a frame.
    #[error("the connection ended in the middle of a frame")]
    Truncated,
    /// The peer went away while its request waited.
    #[error("the client left while its request waited")]
    Left,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads frames from one connection.
pub struct FrameReader<R> {
    from: R,
    buffer: BytesMut,
    budget: FrameBudget,
    max_frame_bytes: usize,
    idle: Duration,
    /// When the last bytes came.
    moved: Instant,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// `max_frame_bytes` is `socket.request.max.bytes`, `idle` is `connections.max.idle.ms`.
    pub fn new(from: R, budget: FrameBudget, max_frame_bytes: usize, idle: Duration) -> Self {
        FrameReader { from, buffer: BytesMut::new(), budget, max_frame_bytes, idle, moved: Instant::now() }
    }

    /// The next frame, or `None` when the peer closed between two frames.
    pub async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let began = match timeout(self.idle, self.fill(1)).await {
            Ok(began) => began?,
            Err(_) => return Err(FrameError::Idle),
        };
        if !began {
            return Ok(None);
        }
        self.fill_in_time(4, 4, &FrameGrant::default()).await?;
        let length = i32::from_be_bytes([self.buffer[0], self.buffer[1], self.buffer[2], self.buffer[3]]);
        let size = usize::try_from(length)
            .ok()
            .filter(|size| *size <= self.max_frame_bytes)
            .ok_or(FrameError::Length { length, max: self.max_frame_bytes })?;
        let whole = 4 + size;
        // Nobody is granted memory on the strength of a length alone.
        self.fill_in_time(whole.min(READ_AHEAD_BYTES), whole, &FrameGrant::default()).await?;
        let mut grant = FrameGrant::default();
        if whole > READ_AHEAD_BYTES {
            grant = self.budget.admit(size).await;
            self.fill_in_time(whole, whole, &grant).await?;
        }
        let mut body = self.buffer.split_to(whole);
        if size > KEEP_BYTES {
            // What was read ahead moves to a buffer of its own, or it would pin the large one.
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        Ok(Some(Frame { body: body.split_off(4).freeze(), grant }))
    }

    /// Looks after the peer while its request waits: returns when it is gone, or has been silent for too long. What it sends
    /// meanwhile is read ahead as far as that goes. May be given up and called again.
    pub async fn left(&mut self) -> FrameError {
        while self.buffer.len() < READ_AHEAD_BYTES {
            let room = READ_AHEAD_BYTES - self.buffer.len();
            self.buffer.reserve(room);
            let mut into = (&mut self.buffer).limit(room);
            // Each byte that comes begins the wait anew.
            match timeout_at(self.moved + self.idle, self.from.read_buf(&mut into)).await {
                Ok(Ok(0)) => return FrameError::Left,
                Ok(Ok(_)) => self.moved = Instant::now(),
                Ok(Err(error)) => return error.into(),
                Err(_) => return FrameError::Idle,
            }
        }
        tokio::time::sleep_until(self.moved + self.idle).await;
        FrameError::Idle
    }

    /// Reads until `wanted` bytes of a frame of `whole` bytes are there, or the peer shows that they will not come.
    async fn fill_in_time(&mut self, wanted: usize, whole: usize, grant: &FrameGrant) -> Result<(), FrameError> {
        if self.buffer.len() >= wanted {
            return Ok(());
        }
        let began = Instant::now();
        loop {
            match timeout(TICK, self.fill(wanted)).await {
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) => return Err(FrameError::Truncated),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {}
            }
            let contended = grant.is_contended();
            // Waiting for memory counts: a peer that has more to send has filled the socket meanwhile.
            let quiet = self.moved.elapsed();
            let patience = if contended { STALL_CONTENDED } else { STALL };
            if quiet >= patience || (contended && began.elapsed() >= FRAME_CONTENDED) {
                return Err(FrameError::Stalled { received: self.buffer.len(), length: whole, after: quiet });
            }
        }
    }

    /// Reads until `wanted` bytes are there; `false` at the end of the stream. May be given up and called again.
    async fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        while self.buffer.len() < wanted {
            let missing = wanted - self.buffer.len();
            self.buffer.reserve(missing.max(READ_AHEAD_BYTES));
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Ok(false);
            }
            self.moved = Instant::now();
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    const IDLE: Duration = Duration::from_secs(600);
    /// Budget of the tests, and the largest frame they allow.
    const TOTAL: usize = 1 << 20;

    fn reader(bytes: &'static [u8]) -> FrameReader<&'static [u8]> {
        FrameReader::new(bytes, FrameBudget::new(TOTAL), 64, IDLE)
    }

    /// A peer that announced a frame of `size` bytes and sent some of it.
    async fn begun(budget: &FrameBudget, size: usize, sent: usize) -> (DuplexStream, FrameReader<DuplexStream>) {
        let (mut peer, ours) = duplex(TOTAL);
        peer.write_i32(i32::try_from(size).expect("small")).await.expect("written");
        peer.write_all(&vec![7; sent]).await.expect("written");
        (peer, FrameReader::new(ours, budget.clone(), TOTAL, IDLE))
    }

    #[tokio::test]
    async fn pipelined_frames_come_out_one_by_one() {
        let mut reader = reader(b"\0\0\0\x03abc\0\0\0\0\0\0\0\x01z");
        for expected in [&b"abc"[..], b"", b"z"] {
            let frame = reader.next().await.expect("readable").expect("a frame");
            assert_eq!(frame.body, expected);
            assert_eq!(frame.grant.bytes(), 0, "small frames lie in their connection's buffer");
        }
        assert!(reader.next().await.expect("a clean end").is_none());
    }

    #[tokio::test]
    async fn a_lying_length_costs_no_memory() {
        for prefix in [&b"\x7f\xff\xff\xff"[..], b"\xff\xff\xff\xff", b"\0\0\0\x41"] {
            let budget = FrameBudget::new(1024);
            let mut reader = FrameReader::new(prefix, budget.clone(), 64, IDLE);
            assert!(matches!(reader.next().await, Err(FrameError::Length { max: 64, .. })));
            assert_eq!(budget.all().used_bytes(), 0);
        }
    }

    #[tokio::test]
    async fn a_cut_frame_is_told_from_a_clean_end() {
        assert!(matches!(reader(b"\0\0").next().await, Err(FrameError::Truncated)));
        assert!(matches!(reader(b"\0\0\0\x09abc").next().await, Err(FrameError::Truncated)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_is_idle_one_that_stops_has_stalled() {
        let (_peer, ours) = duplex(64);
        let mut silent = FrameReader::new(ours, FrameBudget::new(TOTAL), 64, IDLE);
        let began = Instant::now();
        assert!(matches!(silent.next().await, Err(FrameError::Idle)));
        assert!(began.elapsed() >= IDLE);

        for (size, sent) in [(1000, 10), (500_000, READ_AHEAD_BYTES), (500_000, 400_000)] {
            let (_peer, mut reader) = begun(&FrameBudget::new(TOTAL), size, sent).await;
            let began = Instant::now();
            assert!(matches!(reader.next().await, Err(FrameError::Stalled { .. })));
            assert!(began.elapsed() >= STALL && began.elapsed() < IDLE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_goes_on_sending_while_its_request_waits_is_not_idle() {
        let (mut peer, ours) = duplex(TOTAL);
        let mut reader = FrameReader::new(ours, FrameBudget::new(TOTAL), TOTAL, IDLE);
        let mut left = pin!(reader.left());
        for _ in 0..3 {
            assert!(timeout(IDLE / 2, &mut left).await.is_err());
            peer.write_all(b"more").await.expect("written");
        }
        let last = Instant::now();
        assert!(matches!(left.await, FrameError::Idle));
        assert_eq!(last.elapsed(), IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn an_announcement_holds_no_memory_until_its_first_bytes_are_there() {
        let budget = FrameBudget::new(TOTAL);
        let (_peer, mut reader) = begun(&budget, TOTAL, READ_AHEAD_BYTES / 2).await;
        let mut next = pin!(reader.next());
        let _ = timeout(TICK, &mut next).await;
        assert_eq!(budget.all().used_bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_frame_is_let_go_soon_when_others_wait_for_its_memory() {
        let budget = FrameBudget::new(TOTAL);
        let (_peer, mut stalled) = begun(&budget, TOTAL, READ_AHEAD_BYTES).await;
        let (_other, mut waiting) = begun(&budget, 500_000, 500_000).await;
        let began = Instant::now();
        let (first, second) = tokio::join!(stalled.next(), waiting.next());
        assert!(matches!(first, Err(FrameError::Stalled { .. })));
        assert_eq!(second.expect("readable").expect("a frame").body.len(), 500_000);
        assert!(began.elapsed() < STALL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_drips_is_let_go_when_others_wait_and_kept_when_not() {
        for contended in [true, false] {
            let budget = FrameBudget::new(TOTAL);
            let (mut peer, mut dripping) = begun(&budget, TOTAL, READ_AHEAD_BYTES).await;
            let drip = async {
                for _ in 0..120 {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    let _ = peer.write_all(b"x").await;
                }
            };
            let (_other, mut waiting) = begun(&budget, 500_000, 500_000).await;
            let others: std::pin::Pin<Box<dyn Future<Output = _>>> =
                if contended { Box::pin(waiting.next()) } else { Box::pin(std::future::pending()) };
            let mut next = pin!(dripping.next());
            tokio::select! {
                biased;
                ended = &mut next => assert!(contended && matches!(ended, Err(FrameError::Stalled { .. }))),
                () = drip => assert!(!contended),
                _ = others => panic!("there is no memory for another frame"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn large_frames_leave_half_of_the_budget_to_others() {
        let budget = FrameBudget::new(4 * LARGE_BYTES);
        let first = budget.admit(2 * LARGE_BYTES).await;
        assert!(timeout(TICK, budget.admit(LARGE_BYTES + 1)).await.is_err());
        let others = timeout(TICK, budget.admit(LARGE_BYTES)).await.expect("half is free");
        drop((first, others));
    }
}
