//! The seam between locks, ids and what they are kept in: keys that are read, and changed by compare-and-set.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::{Cluster, Command, Error, Value};

#[cfg(test)]
pub(crate) mod sim;

/// What [`crate::lock::Locks`] and [`crate::ids::Ids`] stand on: a key holds a value, which is read whole and replaced
/// only by who knows it.
///
/// **What an implementation promises.** Reads and swaps of one key are linearizable, as far as the store makes them so.
/// A swap that failed with [`Error::NotDone`] or [`Error::Refused`] has no effect, ever; one that failed with
/// [`Error::InDoubt`] has it at most once, at any time. A value that was set with a time to live stays for at least so
/// long, by a clock that runs no more than 10 % fast. No call hangs.
///
/// The time is asked for here too, so that a simulation can stop one process while others go on.
pub trait Register: Send + Sync + 'static {
    /// What a key has.
    ///
    /// # Errors
    /// See [`Error`].
    fn read<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>, Error>>;

    /// Replaces what a key has. `None`: it has something else than was expected, and nothing happened.
    ///
    /// # Errors
    /// See [`Error`].
    fn swap<'a>(
        &'a self,
        key: &'a [u8],
        swap: Swap<'a>,
    ) -> BoxFuture<'a, Result<Option<Version>, Error>>;

    /// The time by a monotonic clock.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Waits until that time has come.
    fn sleep_until(&self, until: Instant) -> BoxFuture<'_, ()> {
        tokio::time::sleep_until(until).boxed()
    }

    /// A number that is not guessed, and not met twice.
    fn random(&self) -> u64 {
        // Each of these has keys of its own, the first of a thread from the operating system.
        RandomState::new().hash_one(())
    }
}

/// One compare-and-set.
#[derive(Clone, Copy, Debug)]
pub struct Swap<'a> {
    /// What the key has to have; `None`: nothing.
    pub expected: Option<&'a [u8]>,
    /// What it is to have then.
    pub new: &'a [u8],
    /// For how long; `None`: until it is changed.
    pub lives: Option<Duration>,
}

/// Which write it was: greater than that of every earlier write of the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// Registers in a cluster of ours, or in any Redis or Valkey.
///
/// **Our cluster** has the commands for it (`HOARD.SET … IFEQ … VERSION`), and keeps what it acknowledged.
///
/// **Redis and Valkey** are spoken to in a script (`EVAL`), since not all of their versions compare, and none gives a
/// version: it is the server's time in µs, or one more than that of the value before, and is kept in front of the
/// value. They promise less: a failover may lose a write that was acknowledged, and with it a lock's holder or a
/// generator's range; versions grow as long as no server's clock goes back.
#[derive(Debug)]
pub struct ClusterRegister {
    cluster: Cluster,
    dialect: OnceLock<Dialect>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Hoard,
    Script,
}

/// Digits of the version in front of what a script stores. µs since 1970 have 16 until the year 2286, and Lua's
/// numbers are exact for all of them.
const VERSION_DIGITS: usize = 16;

/// KEYS: the register. ARGV: whether something is expected (1 or 0), what, the new value, for how many ms (0: for
/// ever).
const SWAP: &str = "\
local old = redis.call('GET', KEYS[1]) \
if (ARGV[1] == '1') ~= (old ~= false) then return false end \
if old and string.sub(old, 17) ~= ARGV[2] then return false end \
local time = redis.call('TIME') \
local version = time[1] * 1000000 + time[2] \
if old then version = math.max(version, tonumber(string.sub(old, 1, 16)) + 1) end \
local text = string.format('%016.0f', version) \
if ARGV[4] == '0' then redis.call('SET', KEYS[1], text .. ARGV[3]) \
else redis.call('SET', KEYS[1], text .. ARGV[3], 'PX', ARGV[4]) end \
return text";

impl ClusterRegister {
    /// Registers in this cluster.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, dialect: OnceLock::new() }
    }

    /// Finds out once what is spoken there.
    async fn dialect(&self, key: &[u8]) -> Result<Dialect, Error> {
        if let Some(&known) = self.dialect.get() {
            return Ok(known);
        }
        let found = match self.cluster.run(Command::read("HOARD.GET").key(key)).await {
            Ok(_) => Dialect::Hoard,
            Err(Error::Refused { text, .. }) if text.starts_with("unknown command") => {
                Dialect::Script
            }
            Err(error) => return Err(error),
        };
        Ok(*self.dialect.get_or_init(|| found))
    }

    async fn read_now(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let dialect = self.dialect(key).await?;
        let Some(value) = self.cluster.get(key).await? else { return Ok(None) };
        match dialect {
            Dialect::Hoard => Ok(Some(value)),
            Dialect::Script if value.len() >= VERSION_DIGITS => {
                Ok(Some(value.slice(VERSION_DIGITS..)))
            }
            Dialect::Script => Err(Value::Bytes(value).unexpected("a register")),
        }
    }

    async fn swap_now(&self, key: &[u8], swap: Swap<'_>) -> Result<Option<Version>, Error> {
        let command = match self.dialect(key).await? {
            Dialect::Hoard => hoard_swap(key, swap),
            Dialect::Script => script_swap(key, swap),
        };
        match self.cluster.run(command).await? {
            Value::Nil => Ok(None),
            Value::Integer(version) => Ok(u64::try_from(version).ok().map(Version)),
            Value::Bytes(digits) => match str::from_utf8(&digits).unwrap_or_default().parse() {
                Ok(version) => Ok(Some(Version(version))),
                Err(_) => Err(Value::Bytes(digits).unexpected("a version")),
            },
            other => Err(other.unexpected("a version")),
        }
    }
}

impl Register for ClusterRegister {
    fn read<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>, Error>> {
        self.read_now(key).boxed()
    }

    fn swap<'a>(
        &'a self,
        key: &'a [u8],
        swap: Swap<'a>,
    ) -> BoxFuture<'a, Result<Option<Version>, Error>> {
        self.swap_now(key, swap).boxed()
    }
}

fn hoard_swap(key: &[u8], swap: Swap<'_>) -> Command {
    let command = Command::write("HOARD.SET").key(key).arg(swap.new);
    let command = match swap.expected {
        Some(expected) => command.arg("IFEQ").arg(expected),
        None => command.arg("NX"),
    };
    match swap.lives {
        Some(lives) => command.arg("PX").millis(lives),
        None => command,
    }
    .arg("VERSION")
}

fn script_swap(key: &[u8], swap: Swap<'_>) -> Command {
    let command = Command::write("EVAL").arg(SWAP).arg("1").key(key);
    let command = match swap.expected {
        Some(expected) => command.arg("1").arg(expected),
        None => command.arg("0").arg(""),
    };
    let command = command.arg(swap.new);
    match swap.lives {
        Some(lives) => command.millis(lives),
        None => command.arg("0"),
    }
}
