//! What a connection is: who is behind it, what it speaks, which replies it wants; and the commands that
//! are not about one slot.
//!
//! Commands on keys touch only [`Control::allows`], [`Control::counts`] and the mute: neither a lock, nor
//! an allocation, nor the clock. A batch of commands is timed as a whole, and the time shared out evenly
//! among them; only commands that are served alone and may be long have their own.

mod client;
mod cluster;
mod config;
mod connection;
mod delays;
mod server;
#[cfg(test)]
mod tests;
mod tracking;

use std::sync::Arc;
use std::time::Duration;

use scatterhoard_command::{
    Command, CommandError, CommandSpec, ServerCommand, SessionCommand, Span, encode_error,
};
use scatterhoard_resp::{Encoder, Limits, Protocol, Standing};
use tokio::time::Instant;

pub(crate) use connection::REDIS_VERSION;

use super::stage::Door;
use super::{Next, slow};
use crate::clients::{Batch, Client};
use crate::clock::WallClock as _;
use crate::core::Core;
use crate::span;
use crate::stats::{ErrorCode, SlowCommand};
use crate::tracking::Tracker;

/// Commands of one batch that are told apart in counting; more are counted before the batch is done.
const RUNS_COUNT_MAX: usize = 16;

/// One connection's state, and the commands about it, the node and the cluster.
pub(super) struct Control {
    core: Arc<Core>,
    client: Arc<Client>,
    door: Door,
    protocol: Protocol,
    /// Bytes that a value may have, as of the batch at hand.
    value_bytes_max: usize,
    authenticated: bool,
    mute: Mute,
    /// What the client tracks, if it does.
    tracker: Option<Arc<Tracker>>,
    /// `CLIENT CACHING` was said, about the command that comes.
    caching: bool,
    /// Copies of what other nodes lead will do for it.
    near: bool,
    /// It has subscribed.
    subscribed: bool,
    /// When the batch at hand was read, or its last part answered.
    began: Instant,
    /// Commands of the batch at hand, by their number, in the order of the first of each.
    runs: Vec<Run>,
    last: Option<(&'static CommandSpec, usize)>,
}

/// Calls of one command in one batch.
#[derive(Clone, Copy)]
struct Run {
    number: u16,
    count: u64,
}

/// Which replies a client does not want: `CLIENT REPLY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mute {
    /// It wants all.
    None,
    /// Not the one to the next command.
    Next,
    /// Not the one to the command at hand.
    This,
    /// It wants none.
    All,
}

impl Control {
    pub(super) fn new(core: Arc<Core>, client: Arc<Client>, door: Door) -> Self {
        let authenticated = !core.settings.has_password();
        let value_bytes_max = core.value_bytes_max();
        let near = client::takes_copies(&core, door);
        Self {
            core,
            client,
            door,
            protocol: Protocol::Resp2,
            value_bytes_max,
            authenticated,
            mute: Mute::None,
            tracker: None,
            caching: false,
            near,
            subscribed: false,
            began: Instant::now(),
            runs: Vec::with_capacity(RUNS_COUNT_MAX),
            last: None,
        }
    }

    /// What the client may send: more once it has authenticated.
    pub(super) fn limits(&self) -> Limits {
        let standing =
            if self.is_trusted() { Standing::Authenticated } else { Standing::Unauthenticated };
        super::limits(self.value_bytes_max, standing)
    }

    /// What the client speaks.
    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Bytes have come: a batch begins.
    pub(super) fn read(&mut self, bytes: usize) {
        self.began = Instant::now();
        self.value_bytes_max = self.core.value_bytes_max();
        self.client.has_sent(bytes, self.began);
        self.core.stats.read(bytes as u64);
    }

    /// Commands were served, and their replies take so many bytes: counts and times them.
    pub(super) fn wrote(&mut self, bytes: usize) {
        if self.runs.is_empty() && bytes == 0 {
            return;
        }
        let now = Instant::now();
        let took = now.saturating_duration_since(self.began);
        self.began = now;
        self.core.stats.wrote(bytes as u64);
        let batch = self.settle(took);
        self.client.has_done(Batch { bytes_out: bytes as u64, ..batch });
    }

    /// Whether the client may use this command.
    pub(super) fn allows(&self, spec: &'static CommandSpec) -> Result<(), CommandError> {
        if self.subscribed && self.protocol == Protocol::Resp2 && !spec.is_allowed_when_subscribed()
        {
            return Err(CommandError::Subscribed(spec.name));
        }
        if self.authenticated || spec.is_allowed_before_auth() || self.is_trusted() {
            Ok(())
        } else {
            Err(CommandError::NoAuth)
        }
    }

    /// Counts a call.
    pub(super) fn counts(&mut self, spec: &'static CommandSpec) {
        if let Some((last, at)) = self.last
            && std::ptr::eq(last, spec)
        {
            self.runs[at].count += 1;
            return;
        }
        let number = self.core.stats.number(spec);
        let at = self.runs.iter().position(|run| run.number == number).unwrap_or_else(|| {
            if self.runs.len() == RUNS_COUNT_MAX {
                self.count_early();
            }
            self.runs.push(Run { number, count: 0 });
            self.runs.len() - 1
        });
        self.runs[at].count += 1;
        self.last = Some((spec, at));
    }

    /// Counts a reply that was not made here, if it is an error.
    pub(super) fn replied(&self, reply: &[u8]) {
        self.core.stats.replied(reply);
    }

    /// Whom this is about.
    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// For commands that have to wait for leaders.
    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(super) fn patience(&self) -> slow::Patience {
        slow::Patience::new(&self.core, self.door, self.protocol)
    }

    /// Whether this command has to wait for the end of `CLIENT PAUSE`.
    pub(super) fn must_pause(&self, command: &Command<'_>) -> bool {
        self.core.clients.must_pause(command)
    }

    /// Waits for it.
    pub(super) async fn pause(&self, command: &Command<'_>) {
        self.core.clients.wait_for_pause(command).await;
    }

    /// Whether the reply to the command that begins now, and only that one, is not wanted. Then
    /// [`Self::end_mute`] must be called when its reply is known.
    pub(super) fn take_mute(&mut self) -> bool {
        let takes = self.mute == Mute::Next;
        if takes {
            self.mute = Mute::This;
        }
        takes
    }

    /// The command whose reply was not wanted is done.
    pub(super) fn end_mute(&mut self) {
        if self.mute == Mute::This {
            self.mute = Mute::None;
        }
    }

    /// Whether replies to what was served until now are not wanted. To be asked once a command is done:
    /// `CLIENT REPLY ON` wants its own.
    pub(super) fn mutes(&self) -> bool {
        match self.mute {
            Mute::None | Mute::Next => false,
            Mute::This | Mute::All => true,
        }
    }

    /// Serves a command over all keys.
    pub(super) async fn span(&mut self, span: Span<'_>, out: &mut Vec<u8>) {
        let began = Instant::now();
        span::serve_client(&self.core, self.door, &span, self.protocol, out).await;
        self.took_alone(began);
    }

    /// Serves a command about the connection, or about others.
    pub(super) async fn session(&mut self, command: SessionCommand<'_>, out: &mut Vec<u8>) -> Next {
        self.connection(command, out)
    }

    /// Serves a command about the node or the cluster.
    pub(super) async fn server(&mut self, command: ServerCommand<'_>, out: &mut Vec<u8>) {
        let began = Instant::now();
        self.about_node(command, out).await;
        self.took_alone(began);
    }

    fn is_trusted(&self) -> bool {
        self.authenticated || !self.core.settings.has_password()
    }

    fn refuse(&self, out: &mut Encoder<'_>, error: &CommandError) {
        self.core.stats.erred(ErrorCode::of(&error.to_string()));
        encode_error(out, error);
    }

    /// Counts what the batch at hand has had so far.
    fn settle(&mut self, took: Duration) -> Batch {
        self.last = None;
        let count: u64 = self.runs.iter().map(|run| run.count).sum();
        let last_command = self.runs.last().map(|run| run.number);
        if let Some(each) = u32::try_from(count).ok().and_then(|count| took.checked_div(count)) {
            for run in &self.runs {
                self.core.stats.called(run.number, run.count, each);
            }
            self.note_delay(took, each);
        }
        self.runs.clear();
        Batch { last_command, commands_count: count, bytes_out: 0 }
    }

    /// A batch with so many different commands is timed in parts.
    #[cold]
    fn count_early(&mut self) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.began);
        self.began = now;
        let batch = self.settle(took);
        self.client.has_done(batch);
    }

    /// The command at hand was served alone since then, so its time is known.
    fn took_alone(&mut self, began: Instant) {
        let now = Instant::now();
        let took = now.saturating_duration_since(began);
        let before = began.saturating_duration_since(self.began);
        // What came before it has the time before it. The command itself was counted last.
        let own = self.last.take().map(|(_, at)| self.runs[at].number);
        if let Some(run) = self.runs.iter_mut().find(|run| Some(run.number) == own) {
            run.count -= 1;
        }
        self.runs.retain(|run| run.count > 0);
        let batch = self.settle(before);
        self.client.has_done(batch);
        if let Some(number) = own {
            self.runs.push(Run { number, count: 1 });
            let batch = self.settle(took);
            self.client.has_done(batch);
        }
        self.began = now;
    }

    /// Keeps a batch that was slow: one whose commands took too long on average.
    fn note_delay(&self, took: Duration, each: Duration) {
        let settings = &self.core.settings;
        let (slow_usec, spike_ms) = (settings.slow_usec(), settings.spike_ms());
        if u64::try_from(slow_usec).is_ok_and(|usec| each >= Duration::from_micros(usec)) {
            let commands = self.runs.iter();
            let entry = SlowCommand {
                id: 0,
                at: self.core.wall.now(),
                took,
                commands: commands
                    .map(|run| (self.core.stats.name_of(run.number), run.count))
                    .collect(),
                addr: self.client.addr,
                client_name: self.client.details().name,
            };
            let count_max = usize::try_from(settings.slow_count_max()).unwrap_or(usize::MAX);
            self.core.stats.slow_log.add(entry, count_max);
        }
        if spike_ms > 0 && each >= Duration::from_millis(spike_ms) {
            let ms = u64::try_from(each.as_millis()).unwrap_or(u64::MAX);
            self.core.stats.spikes.add(self.core.wall.now(), ms);
        }
    }
}
