//! A connection that a peer opened: its requests go to the service, in order, and replies come back
//! whenever they are ready. When too many requests are unanswered, it is not read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::connection::End;
use crate::frame::{Encoder, Message, Shape};
use crate::{Caller, Limits, ReplyTo, Service};

/// What a reply needs to know of the connection that it goes to.
pub(crate) struct Inbound {
    /// Replies that are larger than this are not sent: the caller would close the connection.
    sent_bytes_max: usize,
    requests_count_max: usize,
    /// Bytes of unanswered requests, and of replies not yet written, beyond which it is not read.
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Message>,
    queue_bytes: usize,
    requests_count: usize,
    requests_bytes: usize,
    /// It was not read, and can be again.
    resumed: bool,
    closed: bool,
    waker: Option<Waker>,
}

/// One end of a connection that a peer opened.
pub(crate) struct Serving {
    caller: Caller,
    inbound: Arc<Inbound>,
    service: Arc<dyn Service>,
}

impl Inbound {
    pub(crate) fn new(limits: &Limits, sent_bytes_max: usize) -> Self {
        Self {
            sent_bytes_max,
            requests_count_max: limits.requests_count_max,
            bytes_max: 2 * limits.message_bytes_max,
            state: Mutex::default(),
        }
    }

    /// Queues the reply to a request of this size; `None` if it wanted none.
    pub(crate) fn reply(&self, request: Option<u64>, size: usize, body: Bytes) {
        let shape = if body.len() > self.sent_bytes_max { Shape::Lost } else { Shape::Reply };
        let body = if shape == Shape::Reply { body } else { Bytes::new() };
        self.answer(request, size, shape, body);
    }

    /// Queues a refusal.
    pub(crate) fn refuse(&self, request: Option<u64>, size: usize, reason: &str) {
        let end = reason.floor_char_boundary(512);
        let body = Bytes::copy_from_slice(&reason.as_bytes()[..end]);
        self.answer(request, size, Shape::Refusal, body);
    }

    /// Says that there will be no reply.
    pub(crate) fn give_up(&self, request: Option<u64>, size: usize) {
        self.answer(request, size, Shape::Lost, Bytes::new());
    }

    fn answer(&self, request: Option<u64>, size: usize, shape: Shape, body: Bytes) {
        let mut state = self.state.lock();
        let was_full = self.is_full(&state);
        state.requests_count -= 1;
        state.requests_bytes -= size;
        if state.closed {
            return;
        }
        if let Some(request) = request {
            let message = Message { shape, kind: 0, request, body };
            state.queue_bytes += message.cost();
            state.queue.push_back(message);
        }
        state.resumed |= was_full && !self.is_full(&state);
        if (request.is_some() || state.resumed)
            && let Some(waker) = state.waker.take()
        {
            drop(state);
            waker.wake();
        }
    }

    fn is_full(&self, state: &State) -> bool {
        state.requests_count >= self.requests_count_max
            || state.requests_bytes > self.bytes_max
            || state.queue_bytes > self.bytes_max
    }
}

impl Serving {
    pub(crate) fn new(caller: Caller, inbound: Inbound, service: Arc<dyn Service>) -> Self {
        Self { caller, inbound: Arc::new(inbound), service }
    }

    /// The connection has ended: replies that are still to come go nowhere.
    pub(crate) fn ended(&self) {
        {
            let mut state = self.inbound.state.lock();
            state.closed = true;
            state.queue.clear();
            state.waker = None;
        }
        self.service.closed(self.caller.connection);
    }
}

impl End for Serving {
    fn take_queued(&self, encoder: &mut Encoder) {
        let mut state = self.inbound.state.lock();
        state.queue.drain(..).for_each(|message| encoder.put(message));
    }

    fn poll_changed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.inbound.state.lock();
        if std::mem::take(&mut state.resumed) || !state.queue.is_empty() {
            return Poll::Ready(());
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn done_with(&self, cost: usize) {
        if cost > 0 {
            let mut state = self.inbound.state.lock();
            let was_full = self.inbound.is_full(&state);
            // Pings and pongs cost something, but were never queued here.
            state.queue_bytes = state.queue_bytes.saturating_sub(cost);
            state.resumed |= was_full && !self.inbound.is_full(&state);
        }
    }

    fn may_read(&self) -> bool {
        !self.inbound.is_full(&self.inbound.state.lock())
    }

    fn arrived(&self, message: Message) -> bool {
        let Message { shape, kind, request, body } = message;
        if shape != Shape::Call && shape != Shape::Send {
            return false;
        }
        {
            let mut state = self.inbound.state.lock();
            state.requests_count += 1;
            state.requests_bytes += body.len();
        }
        let inbound = Arc::clone(&self.inbound);
        let reply = ReplyTo::wire(inbound, request, shape == Shape::Send, body.len());
        self.service.handle(self.caller, kind, body, reply);
        true
    }
}
