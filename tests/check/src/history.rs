//! What clients asked of a cluster, when, and what came of it.
//!
//! A history is recorded while a cluster is tormented, and judged afterwards by [`crate::linear`]. Nothing
//! here reads a clock: all times are given by the recorder's user, in nanoseconds or in logical ticks, but
//! on one clock for a whole history.

mod format;
mod summary;

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

pub use format::{FormatError, read_lines, write_line, write_lines};
pub use summary::{
    LostWrite, LostWrites, Outage, Summary, longest_outages, lost_writes, summarize,
};

/// One request of one client, with what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked. Only told to people; a client may have several operations under way.
    pub client: u32,
    /// What was asked.
    pub action: Action,
    /// When the request was about to be sent.
    pub invoked: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered, and took effect exactly once between its invocation and `at`.
    Done {
        /// What was answered.
        answer: Answer,
        /// When the answer had been read.
        at: u64,
    },
    /// It was answered as not done: it never takes effect.
    Refused {
        /// When the answer had been read.
        at: u64,
    },
    /// In doubt: it takes effect once, at any time after its invocation, or never.
    Unknown,
}

/// What is asked of one key, or at once of several keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// `GET`: answers [`Answer::Value`].
    Get {
        /// The key.
        key: Bytes,
    },
    /// `MGET`: answers [`Answer::Values`], all from one moment.
    GetMany {
        /// The keys, in the order of the answer.
        keys: Vec<Bytes>,
    },
    /// `SET`: answers [`Answer::Done`] with [`When::Always`], else [`Answer::Bool`]. Without `ttl` the key
    /// has no deadline afterwards.
    Set {
        /// The key.
        key: Bytes,
        /// Its value afterwards.
        value: Bytes,
        /// On which condition.
        when: When,
        /// How long the key lives, in the unit of the history's times.
        ttl: Option<u64>,
    },
    /// `MSET`: answers [`Answer::Done`], sets all at one moment, clears their deadlines.
    SetMany {
        /// Keys and values. Of a key named twice the last counts.
        pairs: Vec<(Bytes, Bytes)>,
    },
    /// `SET … GET`: answers the value before as [`Answer::Value`], clears the deadline.
    Swap {
        /// The key.
        key: Bytes,
        /// Its value afterwards.
        value: Bytes,
    },
    /// `INCRBY`: answers the new value as [`Answer::Number`], or [`Answer::Failed`]. Keeps the deadline.
    Incr {
        /// The key; one that is absent counts as 0.
        key: Bytes,
        /// What is added.
        by: i64,
    },
    /// `APPEND`: answers the new length in bytes as [`Answer::Number`]. Keeps the deadline.
    Append {
        /// The key; one that is absent counts as empty.
        key: Bytes,
        /// What is appended.
        value: Bytes,
    },
    /// `DEL`: answers whether the key was there as [`Answer::Bool`].
    Delete {
        /// The key.
        key: Bytes,
    },
    /// `GETDEL`: answers the value before as [`Answer::Value`].
    GetDelete {
        /// The key.
        key: Bytes,
    },
}

/// On which condition a set happens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum When {
    /// Whatever is there.
    Always,
    /// Only where nothing is there (`NX`).
    Absent,
    /// Only where something is there (`XX`).
    Present,
    /// Only where exactly this value is there (`IFEQ`): compare and set.
    Equal(Bytes),
}

/// The answer to an action. An answer of a kind that the action does not have is a violation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Done, nothing to say.
    Done,
    /// Whether it was set, or was there.
    Bool(bool),
    /// A value, or that nothing was there.
    Value(Option<Bytes>),
    /// Several of these.
    Values(Vec<Option<Bytes>>),
    /// A number or a length.
    Number(i64),
    /// Not possible with what was there (not an integer, overflow); nothing was changed.
    Failed,
}

impl Operation {
    /// When the answer had been read, if there was one.
    #[must_use]
    pub const fn completed(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Done { at, .. } | Outcome::Refused { at } => Some(at),
            Outcome::Unknown => None,
        }
    }
}

impl Action {
    /// `GET key`.
    pub fn get(key: impl Into<Bytes>) -> Self {
        Self::Get { key: key.into() }
    }

    /// `MGET key…`.
    pub fn get_many<K: Into<Bytes>>(keys: impl IntoIterator<Item = K>) -> Self {
        Self::GetMany { keys: keys.into_iter().map(Into::into).collect() }
    }

    /// `SET key value`.
    pub fn set(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::set_when(key, value, When::Always)
    }

    /// `SET key value NX`.
    pub fn set_if_absent(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::set_when(key, value, When::Absent)
    }

    /// `SET key value XX`.
    pub fn set_if_present(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::set_when(key, value, When::Present)
    }

    /// `SET key value IFEQ expected`.
    pub fn compare_and_set(
        key: impl Into<Bytes>,
        expected: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Self {
        Self::set_when(key, value, When::Equal(expected.into()))
    }

    /// `SET key value` on a condition.
    pub fn set_when(key: impl Into<Bytes>, value: impl Into<Bytes>, when: When) -> Self {
        Self::Set { key: key.into(), value: value.into(), when, ttl: None }
    }

    /// `SET key value PX ttl`, with `ttl` in the unit of the history's times.
    pub fn set_for(key: impl Into<Bytes>, value: impl Into<Bytes>, ttl: u64) -> Self {
        Self::Set { key: key.into(), value: value.into(), when: When::Always, ttl: Some(ttl) }
    }

    /// `MSET key value…`.
    pub fn set_many<K: Into<Bytes>, V: Into<Bytes>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        Self::SetMany { pairs: pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect() }
    }

    /// `SET key value GET`.
    pub fn swap(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::Swap { key: key.into(), value: value.into() }
    }

    /// `INCRBY key by`.
    pub fn incr(key: impl Into<Bytes>, by: i64) -> Self {
        Self::Incr { key: key.into(), by }
    }

    /// `APPEND key value`.
    pub fn append(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::Append { key: key.into(), value: value.into() }
    }

    /// `DEL key`.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self::Delete { key: key.into() }
    }

    /// `GETDEL key`.
    pub fn get_delete(key: impl Into<Bytes>) -> Self {
        Self::GetDelete { key: key.into() }
    }

    /// The keys, in the order named.
    #[must_use]
    pub fn keys(&self) -> Vec<&Bytes> {
        match self {
            Self::Get { key }
            | Self::Set { key, .. }
            | Self::Swap { key, .. }
            | Self::Incr { key, .. }
            | Self::Append { key, .. }
            | Self::Delete { key }
            | Self::GetDelete { key } => vec![key],
            Self::GetMany { keys } => keys.iter().collect(),
            Self::SetMany { pairs } => pairs.iter().map(|(key, _)| key).collect(),
        }
    }

    /// Whether it never changes anything.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        match self {
            Self::Get { .. } | Self::GetMany { .. } => true,
            Self::Set { .. }
            | Self::SetMany { .. }
            | Self::Swap { .. }
            | Self::Incr { .. }
            | Self::Append { .. }
            | Self::Delete { .. }
            | Self::GetDelete { .. } => false,
        }
    }
}

impl Answer {
    /// A value that was there.
    pub fn value(value: impl Into<Bytes>) -> Self {
        Self::Value(Some(value.into()))
    }

    /// Nothing was there.
    #[must_use]
    pub const fn nil() -> Self {
        Self::Value(None)
    }
}

/// Collects a history from any number of clients. Cloning gives another handle to the same history.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    history: Arc<Mutex<Vec<Operation>>>,
}

impl Recorder {
    /// An empty history.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that a request is about to be sent. Until its token says otherwise it is in doubt, so that a
    /// client may be dropped or killed at any point.
    #[must_use = "the token takes the outcome; dropping it leaves the operation in doubt"]
    pub fn begin(&self, client: u32, action: Action, now: u64) -> Pending {
        let mut history = self.history.lock();
        let position = history.len();
        history.push(Operation { client, action, invoked: now, outcome: Outcome::Unknown });
        Pending { history: Arc::clone(&self.history), position }
    }

    /// What was recorded so far, in the order begun.
    #[must_use]
    pub fn history(&self) -> Vec<Operation> {
        self.history.lock().clone()
    }
}

/// An operation under way. Dropped, it stays in doubt.
#[derive(Debug)]
pub struct Pending {
    history: Arc<Mutex<Vec<Operation>>>,
    position: usize,
}

impl Pending {
    /// It was answered.
    pub fn done(self, answer: Answer, now: u64) {
        self.settle(Outcome::Done { answer, at: now });
    }

    /// It was answered as not done.
    pub fn refused(self, now: u64) {
        self.settle(Outcome::Refused { at: now });
    }

    /// It is in doubt, and stays so.
    pub fn unknown(self) {
        self.settle(Outcome::Unknown);
    }

    fn settle(self, outcome: Outcome) {
        self.history.lock()[self.position].outcome = outcome;
    }
}
