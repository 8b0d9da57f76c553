//! Who is connected: every client of either Redis port, for `CLIENT LIST`, `KILL` and `PAUSE`, and the
//! limit on how many there may be.
//!
//! A session writes what it did to its [`Client`] once per batch of commands, in relaxed atomics; the
//! lock of the registry is taken when clients come and go, and by those who look at all of them.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use scatterhoard_command::{Command, Load, PauseScope, SessionCommand, Span};
use scatterhoard_resp::Protocol;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::session::{BufferBudget, Door};
use crate::stats::Stats;
use crate::tracking::{Mode, Outbox, Tracker};

/// There are as many clients as there may be. Nobody was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("max number of clients reached")]
pub(crate) struct TooMany;

/// The clients that are connected, over both doors.
pub(crate) struct Clients {
    /// Ends every connection.
    shutdown: CancellationToken,
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
    count_max: AtomicUsize,
    /// The id of the last one; the first is 1. Ids are never used twice.
    last_id: AtomicU64,
    rejected: AtomicU64,
    pause: watch::Sender<Option<Pause>>,
    /// Whether there is a pause, without a lock.
    paused: AtomicBool,
    /// What their requests and replies take.
    pub(crate) buffers: Arc<BufferBudget>,
}

/// What waits, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pause {
    scope: PauseScope,
    until: Instant,
}

/// One client, as others see it.
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) addr: SocketAddr,
    /// Our end.
    pub(crate) local: SocketAddr,
    pub(crate) door: Door,
    pub(crate) connected: Instant,
    /// Cancelled: the session ends at once.
    pub(crate) killed: CancellationToken,
    details: Mutex<Details>,
    /// The number of the last command, as [`Stats::number`] gives it; [`NO_COMMAND`] before the first.
    last_command: AtomicU16,
    /// Milliseconds after `connected` at which it last sent something.
    last_active_ms: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    commands_count: AtomicU64,
    protocol: AtomicU8,
    no_evict: AtomicBool,
    /// What it is to be told besides its replies.
    pub(crate) outbox: Arc<Outbox>,
    /// What it tracks, if it does.
    tracker: Mutex<Option<Arc<Tracker>>>,
}

/// What a client told about itself. Valid as names are, so that lines stay lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Details {
    pub(crate) name: String,
    pub(crate) library: String,
    pub(crate) library_version: String,
}

/// What a session did since it last said so.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Batch {
    /// The number of the last command in it.
    pub(crate) last_command: Option<u16>,
    pub(crate) commands_count: u64,
    pub(crate) bytes_out: u64,
}

const NO_COMMAND: u16 = u16::MAX;

impl Clients {
    /// Nobody yet, and at most so many.
    pub(crate) fn new(count_max: usize, shutdown: CancellationToken) -> Self {
        Self {
            shutdown,
            connected: Mutex::default(),
            count_max: AtomicUsize::new(count_max),
            last_id: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            pause: watch::Sender::new(None),
            paused: AtomicBool::new(false),
            buffers: Arc::default(),
        }
    }

    /// Adds a client. `local` is our end of its connection.
    ///
    /// # Errors
    /// There are too many. Nobody was added.
    pub(crate) fn admit(
        &self,
        addr: SocketAddr,
        local: SocketAddr,
        door: Door,
    ) -> Result<Arc<Client>, TooMany> {
        let mut connected = self.connected.lock();
        if connected.len() >= self.count_max() {
            self.rejected.fetch_add(1, Ordering::Relaxed);
            return Err(TooMany);
        }
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Arc::new(Client {
            id,
            addr,
            local,
            door,
            connected: Instant::now(),
            killed: self.shutdown.child_token(),
            details: Mutex::default(),
            last_command: AtomicU16::new(NO_COMMAND),
            last_active_ms: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            commands_count: AtomicU64::new(0),
            protocol: AtomicU8::new(2),
            no_evict: AtomicBool::new(false),
            outbox: Arc::default(),
            tracker: Mutex::default(),
        });
        connected.insert(id, Arc::clone(&client));
        Ok(client)
    }

    /// Forgets a client whose session has ended.
    pub(crate) fn remove(&self, id: u64) {
        self.connected.lock().remove(&id);
    }

    /// Everyone, in the order of their ids.
    pub(crate) fn all(&self) -> Vec<Arc<Client>> {
        self.connected.lock().values().cloned().collect()
    }

    pub(crate) fn with_id(&self, id: u64) -> Option<Arc<Client>> {
        self.connected.lock().get(&id).cloned()
    }

    pub(crate) fn count(&self) -> usize {
        self.connected.lock().len()
    }

    /// How many there may be.
    pub(crate) fn count_max(&self) -> usize {
        self.count_max.load(Ordering::Relaxed)
    }

    /// Changes how many there may be. Those who are here may stay.
    pub(crate) fn set_count_max(&self, count_max: usize) {
        self.count_max.store(count_max, Ordering::Relaxed);
    }

    /// How many ever came.
    pub(crate) fn admitted_count(&self) -> u64 {
        self.last_id.load(Ordering::Relaxed)
    }

    /// How many were turned away.
    pub(crate) fn rejected_count(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Holds up commands until then. As in Redis, a pause under way never gets shorter or milder.
    pub(crate) fn pause(&self, scope: PauseScope, until: Instant) {
        self.pause.send_modify(|pause| {
            let now = Instant::now();
            let held = pause.filter(|held| held.until > now);
            let scope = match held {
                Some(Pause { scope: PauseScope::All, .. }) => PauseScope::All,
                Some(_) | None => scope,
            };
            let until = held.map_or(until, |held| held.until.max(until));
            *pause = Some(Pause { scope, until });
            self.paused.store(true, Ordering::Relaxed);
        });
    }

    /// Ends the pause.
    pub(crate) fn unpause(&self) {
        self.pause.send_modify(|pause| {
            *pause = None;
            self.paused.store(false, Ordering::Relaxed);
        });
    }

    /// Whether this command has to wait now. One load if nothing is paused.
    pub(crate) fn must_pause(&self, command: &Command<'_>) -> bool {
        self.paused.load(Ordering::Relaxed)
            && self.pause.borrow().is_some_and(|pause| pause.holds_up(command))
    }

    /// Waits as long as this command has to.
    pub(crate) async fn wait_for_pause(&self, command: &Command<'_>) {
        let mut changes = self.pause.subscribe();
        loop {
            let pause = *changes.borrow_and_update();
            let Some(pause) = pause.filter(|pause| pause.holds_up(command)) else { return };
            let changed = tokio::time::timeout_at(pause.until, changes.changed()).await;
            if changed.is_err() {
                self.end_pause(pause);
                return;
            }
        }
    }

    /// A pause has run out, unless it was made longer meanwhile.
    fn end_pause(&self, over: Pause) {
        self.pause.send_if_modified(|pause| {
            let ends = *pause == Some(over);
            if ends {
                *pause = None;
                self.paused.store(false, Ordering::Relaxed);
            }
            ends
        });
    }
}

impl Pause {
    fn holds_up(&self, command: &Command<'_>) -> bool {
        if Instant::now() >= self.until {
            return false;
        }
        let writes = match command {
            Command::Write(_)
            | Command::Load(Load::Get { .. })
            | Command::Span(Span::Flush(_) | Span::Invalidate(_)) => true,
            Command::Read(_)
            | Command::Load(Load::Wait { .. })
            | Command::Span(Span::Count | Span::Keys { .. } | Span::Scan(_) | Span::RandomKey)
            | Command::Session(_)
            | Command::Server(_) => false,
        };
        match self.scope {
            PauseScope::Writes => writes,
            // Redis holds up UNPAUSE too, so that nothing but time ends the pause.
            PauseScope::All => !matches!(command, Command::Session(SessionCommand::Client(client))
                if *client == scatterhoard_command::ClientCommand::Unpause),
        }
    }
}

impl Client {
    /// Notes that bytes have come.
    pub(crate) fn has_sent(&self, bytes: usize, now: Instant) {
        let active = now.saturating_duration_since(self.connected).as_millis();
        let active = u64::try_from(active).unwrap_or(u64::MAX);
        self.last_active_ms.store(active, Ordering::Relaxed);
        add(&self.bytes_in, bytes as u64);
    }

    /// Notes what its session did.
    pub(crate) fn has_done(&self, batch: Batch) {
        if let Some(command) = batch.last_command {
            self.last_command.store(command, Ordering::Relaxed);
        }
        add(&self.commands_count, batch.commands_count);
        add(&self.bytes_out, batch.bytes_out);
    }

    /// Notes which protocol it speaks.
    pub(crate) fn speaks(&self, protocol: Protocol) {
        let version = match protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        };
        self.protocol.store(version, Ordering::Relaxed);
        self.outbox.speaks(protocol);
    }

    /// Notes what it tracks from now on.
    pub(crate) fn tracks(&self, tracker: Option<Arc<Tracker>>) {
        *self.tracker.lock() = tracker;
    }

    /// Whether it has subscribed to something.
    pub(crate) fn is_subscribed(&self) -> bool {
        self.outbox.is_subscribed()
    }

    pub(crate) fn set_no_evict(&self, on: bool) {
        self.no_evict.store(on, Ordering::Relaxed);
    }

    pub(crate) fn details(&self) -> Details {
        self.details.lock().clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Details)) {
        change(&mut self.details.lock());
    }

    /// How long ago it sent something.
    pub(crate) fn idle(&self, now: Instant) -> Duration {
        let active = Duration::from_millis(self.last_active_ms.load(Ordering::Relaxed));
        now.saturating_duration_since(self.connected).saturating_sub(active)
    }

    /// Its line in `CLIENT LIST`, without an end. Redis, `catClientInfoString`. What is not kept is 0;
    /// `fd` is -1, as Redis has it for connections without a descriptor.
    pub(crate) fn line(&self, stats: &Stats, now: Instant) -> String {
        let Details { name, library, library_version } = self.details();
        let command = match self.last_command.load(Ordering::Relaxed) {
            NO_COMMAND => "NULL",
            number => stats.name_of(number),
        };
        let age = now.saturating_duration_since(self.connected).as_secs();
        let tracker = self.tracker.lock().clone();
        let redirect = tracker.as_ref().map_or(-1, |tracker| tracker.redirected_to());
        let (flags, sub) = (self.flags(tracker.as_deref()), u8::from(self.is_subscribed()));
        let mut line = String::with_capacity(384);
        write!(
            line,
            "id={} addr={} laddr={} fd=-1 name={name} age={age} idle={} flags={flags} db=0 sub={sub} \
             psub=0 ssub=0 multi=-1 watch=0 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 \
             obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={command} user=default redir={redirect} resp={} \
             lib-name={library} lib-ver={library_version} tot-net-in={} tot-net-out={} tot-cmds={}",
            self.id,
            self.addr,
            self.local,
            self.idle(now).as_secs(),
            self.protocol.load(Ordering::Relaxed),
            self.bytes_in.load(Ordering::Relaxed),
            self.bytes_out.load(Ordering::Relaxed),
            self.commands_count.load(Ordering::Relaxed),
        )
        .expect("a String takes what is written");
        line
    }

    /// Letters, in the order of Redis; `N` if there is none.
    fn flags(&self, tracker: Option<&Tracker>) -> String {
        let broadcasts = |it: &Tracker| matches!(it.mode, Mode::Broadcast(_));
        let flags = [
            ('P', self.is_subscribed()),
            ('t', tracker.is_some()),
            ('R', tracker.is_some_and(Tracker::is_broken)),
            ('B', tracker.is_some_and(broadcasts)),
            ('e', self.no_evict.load(Ordering::Relaxed)),
        ];
        let set: String = flags.iter().filter(|(_, is)| *is).map(|(letter, _)| letter).collect();
        if set.is_empty() { "N".to_owned() } else { set }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({} from {})", self.id, self.addr)
    }
}

/// Adds to a counter that only one session writes: without the cost of a locked instruction.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}
