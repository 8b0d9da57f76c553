//! One client connection: bytes in, commands, bytes out, in order.

mod buffer;
mod control;
mod refusal;
mod size;
mod slow;
mod stage;
mod waiting;

use std::future::poll_fn;
use std::io::ErrorKind;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use scatterhoard_cluster::BoxStream;
use scatterhoard_command::{
    Command, CommandError, CrossSlot, Load, resolve, slot_of_read, slot_of_write,
};
use scatterhoard_resp::{Args, Decoded, Decoder, Encoder, Limits, Standing};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tracing::warn;

use crate::clients::Client;
use crate::core::Core;
pub(crate) use buffer::BufferBudget;
use buffer::Share;
use control::Control;
pub(crate) use control::REDIS_VERSION;
pub(crate) use refusal::{Refusal, put_refusal};
pub(crate) use size::ANSWERS_BYTES_MAX;
pub(crate) use stage::{Door, Outcome, Planned, Stage};

/// Bytes read at once. Pipelines of small commands fill it; larger values grow the buffer in steps.
const READ_BYTES: usize = 16 * 1024;

/// The most by which a buffer grows before the bytes are there, whatever a client announces.
const READ_BYTES_MAX: usize = 1 << 20;

/// A buffer larger than this is given back once it is empty.
const IDLE_BYTES_MAX: usize = 64 * 1024;

/// How long a client that does not read its replies is waited for.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);

/// How much larger than a value a request may be.
const REQUEST_EXTRA_BYTES: usize = 8 << 20;

/// How a connection goes on after what was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Go,
    Close,
}

/// Serves a client until it leaves, breaks the protocol, or is killed.
pub(crate) async fn serve(core: Arc<Core>, client: Arc<Client>, stream: BoxStream, door: Door) {
    let mut session = Session {
        control: Control::new(Arc::clone(&core), Arc::clone(&client), door),
        stage: Stage::new(&core, door),
        out: Vec::new(),
        share: Share::new(&core.clients.buffers),
        input_bytes: 0,
        stream,
    };
    let killed = client.killed.clone();
    tokio::select! {
        biased;
        () = killed.cancelled() => {}
        () = session.run() => {}
    }
    session.control.hang_up();
    core.clients.remove(client.id);
}

struct Session {
    control: Control,
    stage: Stage,
    out: Vec<u8>,
    /// What this client's requests and replies take of the memory for all clients'.
    share: Share,
    /// What the buffer of its requests takes.
    input_bytes: usize,
    stream: BoxStream,
}

impl Session {
    async fn run(&mut self) {
        let mut decoder = Decoder::new(self.control.limits());
        let mut buffer: Vec<u8> = Vec::new();
        let client = Arc::clone(self.control.client());
        loop {
            let (consumed, needed, next) = self.take(&mut decoder, &buffer).await;
            buffer.drain(..consumed);
            if self.flush().await.is_err() || next == Next::Close {
                let _gone = self.stream.shutdown().await;
                return;
            }
            if buffer.is_empty() && buffer.capacity() > IDLE_BYTES_MAX {
                buffer = Vec::new();
            }
            // A little at first, and no more than has come already: announcing costs a client nothing,
            // so it must cost us nothing.
            let more = needed.clamp(READ_BYTES, READ_BYTES_MAX.max(buffer.len()));
            if !self.make_room(&mut buffer, more).await {
                return;
            }
            loop {
                let read = tokio::select! {
                    biased;
                    read = self.stream.read_buf(&mut buffer) => read,
                    () = client.outbox.filled() => {
                        if self.flush().await.is_err() {
                            return;
                        }
                        continue;
                    }
                };
                match read {
                    Ok(0) | Err(_) => return,
                    Ok(count) => self.control.read(count),
                }
                break;
            }
        }
    }

    /// Lets the buffer take so many bytes more. If all clients together have too many, this one is told
    /// so, and is to be closed.
    async fn make_room(&mut self, buffer: &mut Vec<u8>, more: usize) -> bool {
        let capacity = buffer::grown(buffer.capacity(), buffer.len(), more);
        self.input_bytes = capacity;
        if let Err(error) = self.share.cover(self.held_bytes()) {
            self.put_fatal(&error);
            if self.flush().await.is_ok() {
                let _gone = self.stream.shutdown().await;
            }
            return false;
        }
        buffer.reserve_exact(capacity - buffer.len());
        true
    }

    /// Serves every whole command in the buffer. Answers with how many bytes were used, and how many
    /// more are needed at least.
    async fn take(&mut self, decoder: &mut Decoder, buffer: &[u8]) -> (usize, usize, Next) {
        let mut at = 0;
        // About what was read before, so a client need not drop for it what it is about to read.
        self.put_pushes();
        self.stage.begin(self.control.protocol());
        loop {
            decoder.set_limits(self.control.limits());
            let request = match decoder.decode(&buffer[at..]) {
                Ok(Decoded::Request(request)) => request,
                Ok(Decoded::Incomplete { bytes_consumed, bytes_needed }) => {
                    self.finish(buffer).await;
                    return (at + bytes_consumed, bytes_needed, Next::Go);
                }
                Err(error) => {
                    self.finish(buffer).await;
                    self.put_fatal(&error);
                    return (buffer.len(), READ_BYTES, Next::Close);
                }
            };
            let range = at..at + request.bytes_consumed();
            at = range.end;
            if self.serve(request.args(), range, buffer).await == Next::Close {
                self.finish(buffer).await;
                return (at, READ_BYTES, Next::Close);
            }
            if self.stage.is_full() {
                self.finish(buffer).await;
                if self.flush().await.is_err() {
                    return (at, READ_BYTES, Next::Close);
                }
                self.stage.begin(self.control.protocol());
            }
        }
    }

    /// Writes the error that the connection ends with.
    fn put_fatal(&mut self, error: &dyn std::fmt::Display) {
        let before = self.out.len();
        Encoder::new(&mut self.out, self.control.protocol()).error("ERR", error);
        self.control.replied(&self.out[before..]);
    }

    async fn serve(&mut self, args: Args<'_>, range: Range<usize>, buffer: &[u8]) -> Next {
        if !self.control.take_mute() {
            return self.serve_one(args, range, buffer).await;
        }
        // The command after CLIENT REPLY SKIP, which was served alone: so is this one, and what it
        // replies can be told from the rest.
        let next = self.serve_one(args, range, buffer).await;
        self.finish(buffer).await;
        self.stage.begin(self.control.protocol());
        self.control.end_mute();
        next
    }

    async fn serve_one(&mut self, args: Args<'_>, range: Range<usize>, buffer: &[u8]) -> Next {
        let parsed = self.parse(args);
        let command = match parsed {
            Ok(command) => command,
            Err(error) => {
                self.stage.put_error(range, &error);
                return Next::Go;
            }
        };
        if self.control.must_pause(&command) {
            self.finish(buffer).await;
            if self.flush().await.is_err() {
                return Next::Close;
            }
            self.control.pause(&command).await;
            self.stage.begin(self.control.protocol());
        }
        self.stage.ask_for(self.control.asks(&command));
        if let Planned::Done = self.stage.add(args, &command, range.clone()) {
            return Next::Go;
        }
        // What must not run beside others: it waits for what is before it, and what is after for it.
        self.finish(buffer).await;
        if matches!(command, Command::Load(Load::Wait { .. })) && self.flush().await.is_err() {
            // Whoever has sent others before it does not wait for their replies.
            return Next::Close;
        }
        let before = self.out.len();
        let next = self.serve_alone(args, command, range, buffer).await;
        self.drop_muted(before);
        self.stage.begin(self.control.protocol());
        next
    }

    async fn serve_alone(
        &mut self,
        args: Args<'_>,
        command: Command<'_>,
        range: Range<usize>,
        buffer: &[u8],
    ) -> Next {
        self.stage.begin(self.control.protocol());
        let before = self.out.len();
        match command {
            Command::Read(read) if slot_of_read(&read) == Err(CrossSlot) => {
                let patience = self.control.patience().of(self.stage.asker());
                let _served = patience.serve_read(args, read, &mut self.out).await;
                self.control.replied(&self.out[before..]);
                Next::Go
            }
            Command::Write(write) if slot_of_write(&write) == Err(CrossSlot) => {
                let patience = self.control.patience();
                let _served = patience.serve_write(args, write, &mut self.out).await;
                self.control.replied(&self.out[before..]);
                Next::Go
            }
            Command::Load(Load::Wait { key, timeout_ms }) => {
                let asker = self.stage.asker();
                let waits = waiting::Wait { key, timeout: Duration::from_millis(timeout_ms) };
                let patience = || self.control.patience().of(asker);
                waits.serve(self.control.core(), patience, &mut self.out).await;
                self.control.replied(&self.out[before..]);
                Next::Go
            }
            command @ (Command::Read(_) | Command::Write(_) | Command::Load(_)) => {
                let planned = self.stage.add(args, &command, range);
                debug_assert!(matches!(planned, Planned::Done), "nothing is left to wait for");
                self.finish(buffer).await;
                Next::Go
            }
            Command::Span(span) => {
                self.control.span(span, &mut self.out).await;
                Next::Go
            }
            Command::Session(command) => self.control.session(command, &mut self.out).await,
            Command::Server(command) => {
                self.control.server(command, &mut self.out).await;
                Next::Go
            }
        }
    }

    fn parse<'a>(&mut self, args: Args<'a>) -> Result<Command<'a>, CommandError> {
        let spec = resolve(args)?;
        self.control.allows(spec)?;
        self.control.counts(spec);
        spec.parse(args, self.stage.wall())
    }

    /// What its buffers take.
    fn held_bytes(&self) -> usize {
        self.input_bytes + self.out.capacity() + self.stage.held_bytes()
    }

    async fn finish(&mut self, buffer: &[u8]) {
        if !self.stage.is_empty() {
            if self.stage.waits() && self.share.cover(self.held_bytes()).is_err() {
                let client = self.control.client();
                warn!(client = %client.addr, "client closed: there is no memory for its replies");
                // Takes effect as soon as the stage does wait.
                client.killed.cancel();
            }
            let before = self.out.len();
            self.stage.finish(buffer, &mut self.out, |_, _| {}).await;
            self.drop_muted(before);
        }
    }

    /// Drops the replies from there on, if the client does not want them.
    fn drop_muted(&mut self, before: usize) {
        if self.control.mutes() {
            self.out.truncate(before);
        }
    }

    /// Pushes go behind the replies to all that was read before: a client that was told to forget a key
    /// first, and got its old value after, would keep that for ever.
    fn put_pushes(&mut self) {
        debug_assert!(self.stage.is_empty(), "what was read is in the replies");
        self.control.client().outbox.drain(self.control.protocol(), &mut self.out);
    }

    /// Sends the replies, and what the client is to be told besides.
    async fn flush(&mut self) -> std::io::Result<()> {
        self.put_pushes();
        self.control.wrote(self.out.len());
        if self.out.is_empty() {
            return Ok(());
        }
        let mut written = 0;
        let at_once = poll_fn(|cx| {
            Poll::Ready(poll_write_all(cx, &mut self.stream, &self.out, &mut written))
        });
        let done = match at_once.await {
            Poll::Ready(done) => done,
            Poll::Pending => self.flush_slowly(written).await,
        };
        self.out.clear();
        if self.out.capacity() > IDLE_BYTES_MAX {
            self.out = Vec::new();
        }
        done
    }

    /// Sends what the client has not read yet.
    async fn flush_slowly(&mut self, mut written: usize) -> std::io::Result<()> {
        let held = self.held_bytes();
        let client = self.control.client();
        let Ok(stall) = self.share.stall(client, held, std::mem::take(&mut self.out)) else {
            warn!(client = %client.addr, "client closed: there is no memory for its replies");
            return Err(ErrorKind::OutOfMemory.into());
        };
        let writing = poll_fn(|cx| {
            let polled =
                stall.with_replies(|out| poll_write_all(cx, &mut self.stream, out, &mut written));
            polled.unwrap_or(Poll::Ready(Err(ErrorKind::OutOfMemory.into())))
        });
        let done = tokio::time::timeout(WRITE_PATIENCE, writing).await;
        done.unwrap_or(Err(ErrorKind::TimedOut.into()))
    }
}

/// Writes what is left of `out` after the bytes that were `written` before.
fn poll_write_all(
    cx: &mut Context<'_>,
    stream: &mut BoxStream,
    out: &[u8],
    written: &mut usize,
) -> Poll<std::io::Result<()>> {
    while *written < out.len() {
        match ready!(Pin::new(&mut *stream).poll_write(cx, &out[*written..]))? {
            0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
            count => *written += count,
        }
    }
    Poll::Ready(Ok(()))
}

/// What a client may send: more once it has authenticated.
fn limits(value_bytes_max: usize, standing: Standing) -> Limits {
    // Peers take messages 16 MiB larger than a value. What a client sends has to fit in one, with a
    // stage's worth of other commands before it, whether it is forwarded or replicated.
    let request_bytes_max = value_bytes_max.saturating_add(REQUEST_EXTRA_BYTES);
    Limits { bulk_bytes_max: value_bytes_max, request_bytes_max, standing, ..Limits::DEFAULT }
}

#[cfg(test)]
mod tests;
