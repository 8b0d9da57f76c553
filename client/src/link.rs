//! One node: a connection that many requests share, opened anew when it is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo, RedisError};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use crate::listen::{LineId, Listener, heard};
use crate::topology::Address;
use crate::{Config, Value};

/// How long it takes until a node is tried again that could not be reached; doubled each time.
const AGAIN_MIN: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_secs(2);

/// How long a connection may answer nothing, while something is waited for, until another is opened. A host that lost
/// its power, or a network that loses everything, does not say so.
const SILENT: Duration = Duration::from_secs(1);

/// Requests that wait in line for a connection's turn to write. More only wait in their own tasks.
const QUEUE_COUNT_MAX: usize = 1024;

/// What became of a request.
pub(crate) enum Sent<T> {
    /// It was answered, over this connection.
    Answered(T, LineId),
    /// It never left this process.
    Unsent(String),
    /// It may have arrived.
    Lost(String),
}

/// The way to one node.
pub(crate) struct Link {
    address: Address,
    config: Arc<Config>,
    listener: Option<Arc<dyn Listener>>,
    live: RwLock<Option<Live>>,
    /// Whoever holds it opens a connection; others wait for that.
    opening: Mutex<Attempts>,
}

#[derive(Default)]
struct Attempts {
    failed_count: u32,
    /// Not before this: it has just failed.
    again: Option<Instant>,
}

#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    line: LineId,
    opened: Instant,
    lost: Arc<AtomicBool>,
    answered_count: Arc<AtomicU64>,
}

/// When a request begins, and by when it has to be done. On the path of every request: the clock is looked at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) begins: Instant,
    pub(crate) by: Instant,
}

impl Span {
    /// From now on.
    pub(crate) fn until(by: Instant) -> Self {
        Self { begins: Instant::now(), by }
    }

    /// From now on, for so long.
    pub(crate) fn lasting(time: Duration) -> Self {
        let begins = Instant::now();
        Self { begins, by: begins + time }
    }

    /// At most for so long.
    pub(crate) fn within(self, time: Duration) -> Self {
        Self { by: self.by.min(self.begins + time), ..self }
    }
}

/// A request is about to be sent.
struct Asked {
    at: Instant,
    /// What the connection had answered before.
    answered_count: u64,
}

impl Link {
    pub(crate) fn new(
        address: Address,
        config: Arc<Config>,
        listener: Option<Arc<dyn Listener>>,
    ) -> Self {
        Self { address, config, listener, live: RwLock::default(), opening: Mutex::default() }
    }

    /// Gives a connection up that answers nothing any more. The next request opens another.
    pub(crate) fn give_up(&self, line: LineId) {
        if let Some(live) = self.live.read().as_ref().filter(|live| live.line == line) {
            self.lose(live);
        }
    }

    /// Sends one command.
    pub(crate) async fn send(&self, command: &redis::Cmd, span: Span) -> Sent<Value> {
        let mut live = match self.live(span.by).await {
            Ok(live) => live,
            Err(reason) => return Sent::Unsent(reason),
        };
        let asked = live.asked(span);
        let answered = timeout_at(span.by, live.connection.send_packed_command(command)).await;
        self.became(&live, &asked, answered, Value::of)
    }

    /// Sends several commands at once; each has its answer.
    pub(crate) async fn send_all(
        &self,
        commands: &redis::Pipeline,
        span: Span,
    ) -> Sent<Vec<Value>> {
        let mut live = match self.live(span.by).await {
            Ok(live) => live,
            Err(reason) => return Sent::Unsent(reason),
        };
        let asked = live.asked(span);
        let sent = live.connection.send_packed_commands(commands, 0, commands.len());
        let answered = timeout_at(span.by, sent).await;
        self.became(&live, &asked, answered, |values| values.into_iter().map(Value::of).collect())
    }

    fn became<A, B: FromError>(
        &self,
        live: &Live,
        asked: &Asked,
        answered: Result<Result<A, RedisError>, tokio::time::error::Elapsed>,
        of: impl FnOnce(A) -> B,
    ) -> Sent<B> {
        if answered.is_ok() {
            live.answered_count.fetch_add(1, Ordering::Relaxed);
        }
        match answered {
            Ok(Ok(answer)) => Sent::Answered(of(answer), live.line),
            Ok(Err(error)) => match error.code().and_then(|code| B::error(code, &error)) {
                Some(answer) => Sent::Answered(answer, live.line),
                None => {
                    self.lose(live);
                    Sent::Lost(format!("{:?}: {error}", self.address))
                }
            },
            Err(_) => {
                if live.is_silent_since(asked) {
                    self.lose(live);
                }
                Sent::Lost(format!("{:?}: no reply in time", self.address))
            }
        }
    }

    fn lose(&self, live: &Live) {
        live.lost.store(true, Ordering::Release);
        if let Some(listener) = &self.listener {
            listener.lost(live.line);
        }
    }

    /// The connection, opened if need be.
    ///
    /// # Errors
    /// There is none, and why. Nothing was sent.
    async fn live(&self, by: Instant) -> Result<Live, String> {
        let there = || self.live.read().clone().filter(|live| !live.lost.load(Ordering::Acquire));
        if let Some(live) = there() {
            return Ok(live);
        }
        let opening = timeout_at(by, self.opening.lock()).await;
        let mut attempts = opening.map_err(|_| format!("{:?}: no time left", self.address))?;
        if let Some(live) = there() {
            return Ok(live);
        }
        if attempts.again.is_some_and(|again| Instant::now() < again) {
            return Err(format!("{:?}: could not be reached a moment ago", self.address));
        }
        let patience =
            self.config.connect_patience.min(by.saturating_duration_since(Instant::now()));
        let opened = match timeout(patience, self.open()).await {
            Ok(opened) => opened,
            Err(_) => Err("no connection in time".to_owned()),
        };
        match opened {
            Ok(live) => {
                *attempts = Attempts::default();
                *self.live.write() = Some(live.clone());
                Ok(live)
            }
            Err(reason) => {
                let pause = AGAIN_MIN * 2_u32.saturating_pow(attempts.failed_count.min(8));
                attempts.failed_count += 1;
                attempts.again = Some(Instant::now() + pause.min(AGAIN_MAX));
                debug!(address = ?self.address, reason, "a node could not be reached");
                Err(format!("{:?}: {reason}", self.address))
            }
        }
    }

    async fn open(&self) -> Result<Live, String> {
        let stream = self.config.connector.connect(self.address.as_str()).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let mut info = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("scatterhoard-client", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &self.config.user {
            info = info.set_username(user);
        }
        if let Some(password) = &self.config.password {
            info = info.set_password(password);
        }
        // The deadlines are ours.
        let mut settings = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None)
            .set_pipeline_buffer_size(QUEUE_COUNT_MAX);
        let line = LineId::next();
        if let Some(listener) = &self.listener {
            settings = settings.set_push_sender(heard(Arc::clone(listener)));
        }
        let opened = MultiplexedConnection::new_with_config(&info, stream, settings).await;
        let (connection, driver) = opened.map_err(|error| error.to_string())?;
        let mut live = Live {
            connection,
            line,
            opened: Instant::now(),
            lost: Arc::default(),
            answered_count: Arc::default(),
        };
        let (is_lost, listener) = (Arc::clone(&live.lost), self.listener.clone());
        // Ends with its connection, or when nobody has a handle to it any more.
        tokio::spawn(async move {
            driver.await;
            is_lost.store(true, Ordering::Release);
            if let Some(listener) = listener {
                listener.lost(line);
            }
        });
        self.begin_to_listen(&mut live).await?;
        Ok(live)
    }

    /// Lets the server track what is read over a connection that nobody else knows of yet.
    ///
    /// # Errors
    /// The connection is lost. That the server does not track is none: it serves all the same.
    async fn begin_to_listen(&self, live: &mut Live) -> Result<(), String> {
        let Some(listener) = &self.listener else { return Ok(()) };
        let mut track = redis::cmd("CLIENT");
        track.arg("TRACKING").arg("ON");
        let refused = match live.connection.send_packed_command(&track).await {
            Ok(redis::Value::ServerError(error)) => Some(error.code().to_owned()),
            Ok(_) => None,
            Err(error) => Some(error.code().ok_or_else(|| error.to_string())?.to_owned()),
        };
        if let Some(code) = refused {
            warn!(address = ?self.address, code, "a server does not track what is read: no copies are kept");
            return Ok(());
        }
        listener.opened(&self.address, live.line);
        // Whichever of the two comes last is heard: the loss, or that it was opened.
        if live.lost.load(Ordering::Acquire) {
            listener.lost(live.line);
        }
        Ok(())
    }
}

impl Live {
    fn asked(&self, span: Span) -> Asked {
        // It may have been waited for.
        let at = span.begins.max(self.opened);
        Asked { at, answered_count: self.answered_count.load(Ordering::Relaxed) }
    }

    /// Whether it has answered nothing at all since then, for long.
    fn is_silent_since(&self, asked: &Asked) -> bool {
        asked.at.elapsed() >= SILENT
            && self.answered_count.load(Ordering::Relaxed) == asked.answered_count
    }
}

/// What takes an error of the server's in the place of an answer.
trait FromError: Sized {
    fn error(code: &str, error: &RedisError) -> Option<Self>;
}

impl FromError for Value {
    fn error(code: &str, error: &RedisError) -> Option<Self> {
        Some(Self::Error(code.to_owned(), error.detail().unwrap_or_default().to_owned()))
    }
}

impl FromError for Vec<Value> {
    fn error(_: &str, _: &RedisError) -> Option<Self> {
        None
    }
}
