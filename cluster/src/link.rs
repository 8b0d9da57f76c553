//! The way to one peer on one lane: what is queued for it, which calls wait, and whether it is connected.
//! Connects when there is something to send; what was queued when an attempt fails is not sent later.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::connection::{End, Pulse, Sizes, drive};
use crate::frame::{Encoder, Message, Shape};
use crate::handshake::{self, Greeting, HandshakeError, Wish};
use crate::pending::{Answer, Pending};
use crate::shared::{Shared, Way};
use crate::{BoxStream, CallError, Lane};

/// Calls of one link that may wait for replies. More is a caller that does not look at its replies.
const CALLS_COUNT_MAX: usize = 65_536;

/// The way to one peer on one lane.
pub(crate) struct Link {
    way: Way,
    queue_bytes_max: usize,
    message_bytes_max: usize,
    state: Mutex<State>,
    closed: CancellationToken,
}

#[derive(Default)]
struct State {
    phase: Phase,
    queue: VecDeque<Message>,
    queue_bytes: usize,
    /// What the other end takes; known once connected.
    sent_bytes_max: usize,
    pending: Pending,
    waker: Option<Waker>,
}

#[derive(Default)]
enum Phase {
    /// Never tried, or the last connection was good.
    #[default]
    Idle,
    /// The last attempt failed.
    Failed { why: CallError, retry_at: Instant, failures: u32 },
    /// A task of this link runs.
    Running { failures: u32 },
}

/// A call under way. Dropped, the call is forgotten: not sent if it has not been, not awaited if it has.
pub(crate) struct Ticket {
    link: Arc<Link>,
    request: u64,
    answer: oneshot::Receiver<Answer>,
}

impl Link {
    pub(crate) fn new(way: Way, shared: &Shared) -> Self {
        let limits = &shared.limits;
        let queue_bytes_max = match way.lane {
            Lane::Control => limits.control_queue_bytes_max,
            Lane::Bulk => limits.bulk_queue_bytes_max,
        };
        Self {
            way,
            queue_bytes_max,
            message_bytes_max: limits.message_bytes_max,
            state: Mutex::default(),
            closed: shared.shutdown.child_token(),
        }
    }

    /// Queues a call.
    pub(crate) fn call(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        kind: u8,
        body: Bytes,
    ) -> Result<Ticket, CallError> {
        let (sender, answer) = oneshot::channel();
        let mut state = self.state.lock();
        let starts = self.admit(&mut state, &body)?;
        if state.pending.count() >= CALLS_COUNT_MAX {
            return Err(CallError::Unsent("too many calls under way".to_owned()));
        }
        let request = state.pending.enter(sender);
        let message = Message { shape: Shape::Call, kind, request, body };
        self.enqueue(state, message, starts, shared);
        Ok(Ticket { link: Arc::clone(self), request, answer })
    }

    /// Queues a one-way message.
    pub(crate) fn send(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        kind: u8,
        body: Bytes,
    ) -> Result<(), CallError> {
        let request = shared.next_one_way();
        let mut state = self.state.lock();
        let starts = self.admit(&mut state, &body)?;
        let message = Message { shape: Shape::Send, kind, request, body };
        self.enqueue(state, message, starts, shared);
        Ok(())
    }

    /// Ends the connection, and all calls.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Whether it has been of no use for a while.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        match self.state.lock().phase {
            Phase::Idle => true,
            Phase::Failed { retry_at, .. } => retry_at < now,
            Phase::Running { .. } => false,
        }
    }

    /// Whether a message may be queued, and if so, whether a task must be started for it.
    fn admit(&self, state: &mut State, body: &Bytes) -> Result<bool, CallError> {
        if body.len() > self.message_bytes_max {
            let (bytes, most) = (body.len(), self.message_bytes_max);
            return Err(CallError::Unsent(format!("a message of {bytes} bytes, at most {most}")));
        }
        if self.closed.is_cancelled() {
            return Err(CallError::Unsent("the connection was closed".to_owned()));
        }
        if state.queue_bytes + body.len() > self.queue_bytes_max {
            return Err(CallError::Unsent("too much waits to be sent".to_owned()));
        }
        match &state.phase {
            Phase::Running { .. } => Ok(false),
            Phase::Failed { why, retry_at, .. } if Instant::now() < *retry_at => Err(why.clone()),
            Phase::Idle | Phase::Failed { .. } => Ok(true),
        }
    }

    fn enqueue(
        self: &Arc<Self>,
        mut state: parking_lot::MutexGuard<'_, State>,
        message: Message,
        starts: bool,
        shared: &Arc<Shared>,
    ) {
        state.queue_bytes += message.cost();
        state.queue.push_back(message);
        if starts {
            let failures = match state.phase {
                Phase::Failed { failures, .. } => failures,
                Phase::Idle | Phase::Running { .. } => 0,
            };
            state.phase = Phase::Running { failures };
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        if starts {
            shared.spawn(Arc::clone(self).run(Arc::clone(shared)));
        }
    }

    /// One connection, from the attempt to its end.
    async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        let connected = tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(CallError::Unsent("closed".to_owned())),
            connected = self.connect(&shared) => connected,
        };
        let (stream, theirs) = match connected {
            Ok(connected) => connected,
            Err(why) => return self.failed(why, &shared),
        };
        let since = Instant::now();
        let sizes = Sizes {
            taken_bytes_max: self.message_bytes_max,
            sent_bytes_max: self
                .message_bytes_max
                .min(usize::try_from(theirs.message_bytes_max).unwrap_or(usize::MAX)),
        };
        self.state.lock().sent_bytes_max = sizes.sent_bytes_max;
        let pulse = Arc::new(Pulse::new(self.closed.child_token()));
        let number = shared.connected(theirs.node, theirs.cluster, Arc::clone(&pulse));
        debug!(node = %theirs.node, addr = %self.way.addr, lane = ?self.way.lane, "peer connected");
        let ended = drive(stream, &*self, &pulse, sizes).await;
        shared.disconnected(number);
        shared.ended(theirs.node, self.way.addr, self.way.lane, &ended);
        let lasted = since.elapsed() >= shared.limits.backoff_max;
        self.lost(&CallError::Unsent(format!("the connection ended: {ended}")), lasted, &shared);
    }

    async fn connect(&self, shared: &Shared) -> Result<(BoxStream, Greeting), CallError> {
        let unsent = |what: &str| CallError::Unsent(format!("{}: {what}", self.way.addr));
        let limits = &shared.limits;
        let tried = timeout(limits.connect_timeout, shared.net.connect(self.way.addr)).await;
        let tried = tried.map_err(|_| unsent("connecting took too long"))?;
        shared.tried(self.way.addr, &tried);
        let mut stream = tried.map_err(|error| unsent(&error.to_string()))?;
        let ours = shared.greeting();
        let wish = Wish { node: self.way.node, lane: self.way.lane };
        let shaken = handshake::call(&mut stream, &ours, wish, shared.secret.as_ref());
        match timeout(limits.handshake_timeout, shaken).await {
            Err(_) => Err(unsent("the handshake took too long")),
            Ok(Err(HandshakeError::Io(error))) => Err(unsent(&error.to_string())),
            Ok(Err(HandshakeError::Refused(reason) | HandshakeError::Refusing(reason))) => {
                if let Some(held_back) = shared.muffle.admits() {
                    warn!(addr = %self.way.addr, reason, held_back, "peer refused");
                }
                Err(CallError::Refused(reason))
            }
            Ok(Ok(theirs)) => Ok((stream, theirs)),
        }
    }

    /// The attempt has failed: so do the calls that waited for it, and for a while those that come.
    fn failed(&self, why: CallError, shared: &Shared) {
        let mut state = self.state.lock();
        let failures = match state.phase {
            Phase::Running { failures } => failures,
            Phase::Idle | Phase::Failed { .. } => 0,
        };
        let pause = shared.limits.backoff_min * 2_u32.saturating_pow(failures);
        let retry_at = Instant::now() + pause.min(shared.limits.backoff_max);
        state.clear(&why);
        state.phase = Phase::Failed { why, retry_at, failures: failures.saturating_add(1).min(16) };
    }

    /// The connection has ended. One that broke soon is not tried again at once.
    fn lost(&self, why: &CallError, lasted: bool, shared: &Shared) {
        let mut state = self.state.lock();
        state.clear(why);
        let retry_at = Instant::now() + shared.limits.backoff_min;
        state.phase = if lasted {
            Phase::Idle
        } else {
            Phase::Failed { why: why.clone(), retry_at, failures: 0 }
        };
    }

    fn forget(&self, request: u64) -> Option<bool> {
        self.state.lock().pending.forget(request)
    }
}

impl State {
    fn clear(&mut self, unsent: &CallError) {
        self.queue.clear();
        self.queue_bytes = 0;
        self.pending.fail(unsent);
        self.waker = None;
    }
}

impl End for Link {
    fn take_queued(&self, encoder: &mut Encoder) {
        let mut state = self.state.lock();
        let state = &mut *state;
        while let Some(message) = state.queue.pop_front() {
            if message.body.len() > state.sent_bytes_max {
                let most = state.sent_bytes_max;
                let error = CallError::Refused(format!("the peer takes at most {most} bytes"));
                state.pending.answer(message.request, Err(error));
                state.queue_bytes -= message.cost();
                continue;
            }
            let wanted = message.shape == Shape::Send || state.pending.mark_sent(message.request);
            if wanted {
                encoder.put(message);
            } else {
                state.queue_bytes -= message.cost();
            }
        }
    }

    fn poll_changed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if !state.queue.is_empty() {
            return Poll::Ready(());
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn done_with(&self, cost: usize) {
        if cost > 0 {
            let mut state = self.state.lock();
            // Pings and pongs cost something, but were never queued here.
            state.queue_bytes = state.queue_bytes.saturating_sub(cost);
        }
    }

    fn may_read(&self) -> bool {
        true
    }

    fn arrived(&self, message: Message) -> bool {
        let answer = match message.shape {
            Shape::Reply => Ok(message.body),
            Shape::Refusal => {
                Err(CallError::Refused(String::from_utf8_lossy(&message.body).into_owned()))
            }
            Shape::Lost => Err(CallError::Lost),
            Shape::Call | Shape::Send | Shape::Ping | Shape::Pong => return false,
        };
        self.state.lock().pending.answer(message.request, answer);
        true
    }
}

impl Ticket {
    /// The reply, if it comes in time.
    pub(crate) async fn reply(mut self, deadline: Instant) -> Answer {
        tokio::select! {
            biased;
            answer = &mut self.answer => answer.unwrap_or(Err(CallError::Lost)),
            () = tokio::time::sleep_until(deadline) => match self.link.forget(self.request) {
                Some(sent) => Err(CallError::Deadline { sent }),
                // It ended in this very moment.
                None => self.answer.try_recv().unwrap_or(Err(CallError::Lost)),
            },
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.link.forget(self.request);
    }
}
