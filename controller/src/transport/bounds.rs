//! What strangers and friends may take of a control listener together: connections, and bytes of what is being said to it. Nothing
//! waits for room, as two halves of long messages could wait for each other: what does not fit is refused, and that is said.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};

use super::MAX_ENVELOPE_BYTES;

/// How much a control listener takes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at a time. Each node of a cluster has one, or two while one of them is given up.
    pub(super) connections: usize,
    /// Bytes that questions may take on all connections, from their first byte until they are answered.
    pub(super) bytes: usize,
    /// The part of them that one connection may take.
    pub(super) bytes_per_connection: usize,
    /// How long a connection may take to say its first word.
    pub(super) first_word: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            bytes: 3 * MAX_ENVELOPE_BYTES,
            bytes_per_connection: MAX_ENVELOPE_BYTES + (8 << 20),
            first_word: Duration::from_secs(5),
        }
    }
}

/// What a question takes beside its body: its headers, its task.
const QUESTION_BYTES: usize = 4 << 10;
/// Bytes before each message of gRPC: a flag and the length.
const PREFIX: usize = 5;

/// Bytes that may be taken, of a connection or of all.
#[derive(Debug)]
pub(super) struct Budget {
    taken: AtomicUsize,
    most: usize,
    above: Option<Arc<Budget>>,
}

impl Budget {
    pub(super) const fn new(most: usize, above: Option<Arc<Budget>>) -> Self {
        Self { taken: AtomicUsize::new(0), most, above }
    }

    /// Takes all of `bytes`, or nothing.
    fn take(&self, bytes: usize) -> bool {
        let within = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= self.most);
        if self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_err() {
            return false;
        }
        let taken = self.above.as_ref().is_none_or(|above| above.take(bytes));
        if !taken {
            self.taken.fetch_sub(bytes, Ordering::Relaxed);
        }
        taken
    }

    fn give(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(above) = &self.above {
            above.give(bytes);
        }
    }
}

/// What one question has taken; given back when it is dropped.
#[derive(Debug)]
struct Held {
    budget: Arc<Budget>,
    bytes: AtomicUsize,
}

impl Held {
    fn take(&self, bytes: usize) -> bool {
        let taken = self.budget.take(bytes);
        if taken {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        taken
    }

    fn give(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.give(bytes);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.give(*self.bytes.get_mut());
    }
}

/// What is answered to a question for which there is no room.
pub(super) const NO_ROOM: &str = "the control listener has too much under way and takes no more now; try again later";

fn no_room() -> Status {
    Status::resource_exhausted(NO_ROOM)
}

/// Where in a stream of messages one is.
#[derive(Debug, Default)]
struct Framing {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that have come.
    known: usize,
    /// Bytes of the message that have not.
    left: usize,
    /// Bytes of the message so far, with its prefix.
    begun: usize,
}

impl Framing {
    /// Goes through `data`: bytes of the messages that end in it, from their beginnings.
    fn advance(&mut self, mut data: &[u8]) -> usize {
        let mut ended = 0;
        while !data.is_empty() {
            let taken = if self.known < PREFIX {
                let taken = data.len().min(PREFIX - self.known);
                for (place, byte) in self.prefix.iter_mut().skip(self.known).zip(&data[..taken]) {
                    *place = *byte;
                }
                self.known += taken;
                let [_, a, b, c, d] = self.prefix;
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                taken
            } else {
                let taken = data.len().min(self.left);
                self.left -= taken;
                taken
            };
            self.begun += taken;
            data = &data[taken..];
            if self.known == PREFIX && self.left == 0 {
                ended += self.begun;
                *self = Self::default();
            }
        }
        ended
    }
}

/// A body whose bytes are counted as they come: a lying length takes nothing.
struct Counted {
    body: Body,
    held: Arc<Held>,
    framing: Framing,
    /// Bytes of messages of a conversation that have been heard when the next one comes.
    heard: usize,
    /// A conversation goes on and on: what was heard of it is given back.
    is_conversation: bool,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Poll::Ready(next) = Pin::new(&mut this.body).poll_frame(cx) else { return Poll::Pending };
        if let Some(Ok(frame)) = &next
            && let Some(data) = frame.data_ref()
        {
            this.held.give(std::mem::take(&mut this.heard));
            if !this.held.take(data.len()) {
                return Poll::Ready(Some(Err(no_room())));
            }
            let ended = this.framing.advance(data);
            if this.is_conversation {
                this.heard = ended;
            }
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// A service each of whose questions is counted against the budget of its connection.
#[derive(Debug, Clone)]
pub(super) struct Bounded<S> {
    pub(super) inner: S,
    /// Path of the call that opens a conversation.
    pub(super) conversations: &'static str,
}

impl<S> Service<http::Request<Body>> for Bounded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Send,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Some(budget) = request.extensions().get::<Arc<Budget>>().cloned() else {
            return self.inner.call(request).boxed();
        };
        let held = Arc::new(Held { budget, bytes: AtomicUsize::new(0) });
        if !held.take(QUESTION_BYTES) {
            return std::future::ready(Ok(no_room().into_http())).boxed();
        }
        let is_conversation = request.uri().path() == self.conversations;
        let counted = Arc::clone(&held);
        let request = request.map(|body| {
            Body::new(Counted { body, held: counted, framing: Framing::default(), heard: 0, is_conversation })
        });
        let answering = self.inner.call(request);
        async move {
            let answer = answering.await;
            // A question is decoded, and carried out, until here.
            drop(held);
            answer
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_takes_its_part_and_gives_it_back() {
        let all = Arc::new(Budget::new(100, None));
        let [one, two] = [(); 2].map(|()| Arc::new(Budget::new(60, Some(Arc::clone(&all)))));
        let held = |budget: &Arc<Budget>| Held { budget: Arc::clone(budget), bytes: AtomicUsize::new(0) };
        let (first, second) = (held(&one), held(&two));
        assert!(first.take(60) && !first.take(1));
        assert!(!second.take(41) && second.take(40));
        first.give(10);
        assert!(second.take(10));
        drop((first, second));
        assert_eq!([&all, &one, &two].map(|budget| budget.taken.load(Ordering::Relaxed)), [0; 3]);
    }

    #[test]
    fn messages_are_found_wherever_they_are_cut() {
        let mut bytes = Vec::new();
        for length in [0_u32, 3, 300] {
            bytes.push(0);
            bytes.extend(length.to_be_bytes());
            bytes.extend(vec![7; length as usize]);
        }
        for step in 1..bytes.len() {
            let mut framing = Framing::default();
            let ended: usize = bytes.chunks(step).map(|data| framing.advance(data)).sum();
            assert_eq!((ended, framing.begun), (bytes.len(), 0), "{step}");
        }
    }
}
