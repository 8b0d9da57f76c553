//! What a node counts: for `INFO`, `SLOWLOG`, `LATENCY` and metrics.
//!
//! Sessions say once per batch of commands what they did; only hits and misses are counted for each
//! read, in counters that threads do not share. Nothing here locks on the way of a command.

mod commands;
mod keyspace;
mod slow_log;
mod spikes;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use scatterhoard_command::CommandSpec;
use scatterhoard_store::Reply;
use tokio::time::Instant;

use commands::Commands;
pub(crate) use commands::{CommandCount, bucket_usec_max};
use keyspace::Keyspace;
pub(crate) use slow_log::{SlowCommand, SlowLog};
pub(crate) use spikes::Spikes;

/// How many samples a rate is taken over.
const SAMPLES_COUNT: usize = 8;

/// What a node counts.
pub(crate) struct Stats {
    commands: Commands,
    keyspace: Keyspace,
    errors: [AtomicU64; ErrorCode::ALL.len()],
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    evicted: AtomicU64,
    expired: AtomicU64,
    leases_lost: AtomicU64,
    reads_confirmed: AtomicU64,
    snapshots: AtomicU64,
    samples: Mutex<Samples>,
    pub(crate) slow_log: SlowLog,
    pub(crate) spikes: Spikes,
}

/// The first word of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorCode {
    Err,
    Moved,
    ClusterDown,
    CrossSlot,
    TryAgain,
    NoReplicas,
    OutOfMemory,
    InDoubt,
    NoAuth,
    WrongPass,
    NoProto,
    WrongType,
}

/// What is counted up over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    commands: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// How much happens a second, over the last samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    pub(crate) commands: f64,
    pub(crate) bytes_in: f64,
    pub(crate) bytes_out: f64,
}

#[derive(Default)]
struct Samples {
    /// The oldest first.
    taken: std::collections::VecDeque<(Instant, Totals)>,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            commands: Commands::new(),
            keyspace: Keyspace::default(),
            errors: Default::default(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            leases_lost: AtomicU64::new(0),
            reads_confirmed: AtomicU64::new(0),
            snapshots: AtomicU64::new(0),
            samples: Mutex::default(),
            slow_log: SlowLog::default(),
            spikes: Spikes::default(),
        }
    }
}

impl Stats {
    /// The number of a command or subcommand: small, and the same as long as the process lives.
    pub(crate) fn number(&self, spec: &'static CommandSpec) -> u16 {
        self.commands.number(spec)
    }

    /// The full name of the command with this number.
    pub(crate) fn name_of(&self, number: u16) -> &'static str {
        self.commands.name_of(number)
    }

    /// Counts calls of one command, each of which took about `each`.
    pub(crate) fn called(&self, number: u16, count: u64, each: Duration) {
        self.commands.called(number, count, each);
    }

    /// Counts what a read found: a `Nil` is a miss, anything else a hit.
    pub(crate) fn saw(&self, reply: &Reply<'_>) {
        match reply {
            Reply::Nil => self.keyspace.count(0, 1),
            Reply::Array(items) => {
                let misses = items.iter().filter(|item| **item == Reply::Nil).count();
                self.keyspace.count((items.len() - misses) as u64, misses as u64);
            }
            Reply::Ok
            | Reply::Int(_)
            | Reply::Bulk(_)
            | Reply::Status(_)
            | Reply::Error(_)
            | Reply::Tuple(_)
            | Reply::Map(_)
            | Reply::Bool(_) => self.keyspace.count(1, 0),
        }
    }

    pub(crate) fn read(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn wrote(&self, bytes: u64) {
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts an error that a client is sent.
    pub(crate) fn erred(&self, code: ErrorCode) {
        self.errors[code as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an encoded reply to a client if it is an error.
    pub(crate) fn replied(&self, reply: &[u8]) {
        if let Some(text) = reply.strip_prefix(b"-") {
            let word = text.split(|&byte| byte == b' ').next().unwrap_or_default();
            self.erred(std::str::from_utf8(word).map_or(ErrorCode::Err, ErrorCode::of));
        }
    }

    /// Counts keys that were evicted.
    pub(crate) fn evicted(&self, keys: u64) {
        self.evicted.fetch_add(keys, Ordering::Relaxed);
    }

    /// Counts keys that were forgotten after they had expired.
    pub(crate) fn expired(&self, keys: u64) {
        self.expired.fetch_add(keys, Ordering::Relaxed);
    }

    /// Counts a lease that ended between a read and its answer.
    pub(crate) fn lost_lease(&self) {
        self.leases_lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a read that a quorum confirmed, because there was no lease to read under.
    pub(crate) fn confirmed_read(&self) {
        self.reads_confirmed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a snapshot that a replica took over from another.
    pub(crate) fn installed_snapshot(&self) {
        self.snapshots.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a sample, from which rates follow.
    pub(crate) fn sample(&self) {
        let totals = self.totals();
        let mut samples = self.samples.lock();
        if samples.taken.len() == SAMPLES_COUNT {
            samples.taken.pop_front();
        }
        samples.taken.push_back((Instant::now(), totals));
    }

    /// How much happens a second. Zero until there are two samples.
    pub(crate) fn rates(&self) -> Rates {
        let samples = self.samples.lock();
        let (Some((since, before)), Some((until, after))) =
            (samples.taken.front(), samples.taken.back())
        else {
            return Rates::default();
        };
        let secs = until.saturating_duration_since(*since).as_secs_f64();
        // Counters may have been reset in between.
        let rate = |before: u64, after: u64| match secs {
            0.0 => 0.0,
            secs => after.saturating_sub(before) as f64 / secs,
        };
        Rates {
            commands: rate(before.commands, after.commands),
            bytes_in: rate(before.bytes_in, after.bytes_in),
            bytes_out: rate(before.bytes_out, after.bytes_out),
        }
    }

    /// Commands that were served.
    pub(crate) fn commands_count(&self) -> u64 {
        self.commands.calls()
    }

    /// Every command that was called, with how often and how long it took.
    pub(crate) fn commands(&self) -> Vec<CommandCount> {
        self.commands.called_ones()
    }

    pub(crate) fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }

    pub(crate) fn hits(&self) -> u64 {
        self.keyspace.hits()
    }

    pub(crate) fn misses(&self) -> u64 {
        self.keyspace.misses()
    }

    pub(crate) fn evicted_count(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    pub(crate) fn expired_count(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    pub(crate) fn leases_lost_count(&self) -> u64 {
        self.leases_lost.load(Ordering::Relaxed)
    }

    pub(crate) fn reads_confirmed_count(&self) -> u64 {
        self.reads_confirmed.load(Ordering::Relaxed)
    }

    pub(crate) fn snapshots_count(&self) -> u64 {
        self.snapshots.load(Ordering::Relaxed)
    }

    /// How often each error was sent, those that never were left out.
    pub(crate) fn errors(&self) -> impl Iterator<Item = (ErrorCode, u64)> {
        let count = |code: ErrorCode| self.errors[code as usize].load(Ordering::Relaxed);
        let counts = ErrorCode::ALL.into_iter().map(move |code| (code, count(code)));
        counts.filter(|&(_, count)| count > 0)
    }

    /// Starts all counting anew: `CONFIG RESETSTAT`.
    pub(crate) fn reset(&self) {
        self.commands.reset();
        self.keyspace.reset();
        let all = [
            &self.bytes_in,
            &self.bytes_out,
            &self.evicted,
            &self.expired,
            &self.leases_lost,
            &self.reads_confirmed,
            &self.snapshots,
        ];
        for counter in all.into_iter().chain(&self.errors) {
            counter.store(0, Ordering::Relaxed);
        }
    }

    fn totals(&self) -> Totals {
        Totals {
            commands: self.commands_count(),
            bytes_in: self.bytes_in(),
            bytes_out: self.bytes_out(),
        }
    }
}

impl ErrorCode {
    pub(crate) const ALL: [Self; 12] = [
        Self::Err,
        Self::Moved,
        Self::ClusterDown,
        Self::CrossSlot,
        Self::TryAgain,
        Self::NoReplicas,
        Self::OutOfMemory,
        Self::InDoubt,
        Self::NoAuth,
        Self::WrongPass,
        Self::NoProto,
        Self::WrongType,
    ];

    /// As clients see it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Err => "ERR",
            Self::Moved => "MOVED",
            Self::ClusterDown => "CLUSTERDOWN",
            Self::CrossSlot => "CROSSSLOT",
            Self::TryAgain => "TRYAGAIN",
            Self::NoReplicas => "NOREPLICAS",
            Self::OutOfMemory => "OOM",
            Self::InDoubt => "INDOUBT",
            Self::NoAuth => "NOAUTH",
            Self::WrongPass => "WRONGPASS",
            Self::NoProto => "NOPROTO",
            Self::WrongType => "WRONGTYPE",
        }
    }

    /// The code that an error's text starts with; `ERR` if it is none of ours.
    pub(crate) fn of(text: &str) -> Self {
        let word = text.split(' ').next().unwrap_or_default();
        Self::ALL.into_iter().find(|code| code.word() == word).unwrap_or(Self::Err)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use scatterhoard_command::commands;

    use super::*;

    #[test]
    fn a_nil_is_a_miss_and_anything_else_a_hit() {
        let stats = Stats::default();
        let value = || Reply::Bulk(Cow::Borrowed(&b"v"[..]));
        stats.saw(&value());
        stats.saw(&Reply::Nil);
        stats.saw(&Reply::Array(vec![value(), Reply::Nil, value()]));
        assert_eq!((stats.hits(), stats.misses()), (3, 2));
        stats.reset();
        assert_eq!((stats.hits(), stats.misses()), (0, 0));
    }

    #[test]
    fn what_a_leader_had_to_do_for_its_reads_is_counted() {
        let stats = Stats::default();
        stats.lost_lease();
        stats.confirmed_read();
        stats.confirmed_read();
        stats.installed_snapshot();
        let counts =
            || (stats.leases_lost_count(), stats.reads_confirmed_count(), stats.snapshots_count());
        assert_eq!(counts(), (1, 2, 1));
        stats.reset();
        assert_eq!(counts(), (0, 0, 0));
    }

    #[test]
    fn every_error_has_a_word_of_its_own() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::of(&format!("{} said", code.word())), code);
        }
        assert_eq!(ErrorCode::of("WHATEVER"), ErrorCode::Err);
    }

    #[test]
    fn a_reply_is_counted_if_it_is_an_error() {
        let stats = Stats::default();
        for code in ErrorCode::ALL {
            stats.replied(format!("-{} said so\r\n", code.word()).as_bytes());
        }
        for reply in ["+OK\r\n", ":-1\r\n", "$1\r\n-\r\n", ""] {
            stats.replied(reply.as_bytes());
        }
        let once: Vec<_> = ErrorCode::ALL.into_iter().map(|code| (code, 1)).collect();
        assert_eq!(stats.errors().collect::<Vec<_>>(), once);
    }

    #[tokio::test(start_paused = true)]
    async fn rates_are_taken_over_the_last_samples() {
        let stats = Stats::default();
        let get = stats.number(commands().find(|spec| spec.name == "get").unwrap());
        assert_eq!(stats.rates(), Rates::default());
        stats.sample();
        for _ in 0..4 {
            stats.called(get, 100, Duration::ZERO);
            stats.read(1000);
            tokio::time::advance(Duration::from_millis(500)).await;
            stats.sample();
        }
        let rates = stats.rates();
        assert_eq!((rates.commands, rates.bytes_in, rates.bytes_out), (200.0, 2000.0, 0.0));
    }
}
