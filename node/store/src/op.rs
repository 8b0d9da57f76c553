//! What can be asked of a store, in the store's own words: no protocol, no command names.

use std::borrow::Cow;

use scatterhoard_ring::Slot;

use crate::UnixMillis;

/// A change to one slot. It is logged, replicated, and applied by every replica.
///
/// All keys of one write lie in one slot; whoever builds it has checked that.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each field is named after the argument that it is")]
pub enum Write<'a> {
    /// `SET` and its relatives.
    Set { key: &'a [u8], value: &'a [u8], expiry: Expiry, when: When, answer: SetAnswer },
    /// `MSET`: sets all, clears their deadlines, answers `Ok`.
    SetMany { pairs: Vec<(&'a [u8], &'a [u8])> },
    /// `MSETNX`: sets all if none exists. Answers `Int(1)`, else `Int(0)`.
    SetManyIfAbsent { pairs: Vec<(&'a [u8], &'a [u8])> },
    /// `GETEX` with an option: answers the value or `Nil`.
    GetExpire { key: &'a [u8], expiry: Expiry },
    /// `GETDEL`: answers the value or `Nil`.
    GetDelete { key: &'a [u8] },
    /// `INCR`, `DECRBY` …: answers the new value. Keeps the deadline.
    Add { key: &'a [u8], delta: i64 },
    /// `INCRBYFLOAT`: answers the new value as a bulk string. Keeps the deadline.
    AddFloat { key: &'a [u8], delta: f64 },
    /// `APPEND`: answers the new length. Keeps the deadline.
    Append { key: &'a [u8], value: &'a [u8] },
    /// `SETRANGE`: answers the new length. Keeps the deadline.
    SetRange { key: &'a [u8], offset: u32, value: &'a [u8] },
    /// `DEL`, `UNLINK`: answers how many existed.
    Delete { keys: Vec<&'a [u8]> },
    /// `EXPIRE` and its relatives: answers `Int(1)` if the deadline was set, else `Int(0)`. A deadline
    /// that has passed deletes.
    Expire { key: &'a [u8], expiry: Expiry, when: WhenExpire },
    /// `PERSIST`: answers `Int(1)` if a deadline was removed, else `Int(0)`.
    Persist { key: &'a [u8] },
    /// `RENAME` (answers `Ok`) and `RENAMENX` (answers `Int`).
    Rename { from: &'a [u8], to: &'a [u8], only_if_absent: bool },
    /// `COPY`: answers `Int(1)` if copied, else `Int(0)`.
    Copy { from: &'a [u8], to: &'a [u8], replace: bool },
    /// Eviction, decided by the leader: answers how many existed.
    Evict { keys: Vec<&'a [u8]> },
}

/// What a write does to a key's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// The key has no deadline afterwards.
    Clear,
    /// The deadline stays as it is (`KEEPTTL`).
    Keep,
    /// The key is gone from this time on.
    At(UnixMillis),
    /// The key is gone so many milliseconds after the stamp of the entry that carries the write.
    After(u64),
}

/// When a set happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Whatever is there.
    Always,
    /// Only where nothing is there (`NX`).
    Absent,
    /// Only where something is there (`XX`).
    Present,
}

/// When a deadline is set. Redis, `EXPIRE`: no deadline counts as later than any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenExpire {
    /// Whatever deadline there is.
    Always,
    /// Only where there is none (`NX`).
    Absent,
    /// Only where there is one (`XX`).
    Present,
    /// Only if the new one is later (`GT`).
    Later,
    /// Only if the new one is earlier (`LT`).
    Earlier,
    /// Only where there is one, and only if the new one is earlier (`XX LT`).
    PresentEarlier,
}

/// What a [`Write::Set`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetAnswer {
    /// `Ok` if set, else `Nil`: `SET`, `SETEX`.
    Done,
    /// The value before, or `Nil`: `SET … GET`, `GETSET`.
    Before,
    /// `Int(1)` if set, else `Int(0)`: `SETNX`.
    Count,
}

/// A question to one slot. It is answered by the leader and leaves no trace but recency.
///
/// All keys of one read lie in one slot; whoever builds it has checked that.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each field is named after the argument that it is")]
pub enum Read<'a> {
    /// The value, or `Nil`.
    Get { key: &'a [u8] },
    /// An array of values and `Nil`s, in the order asked.
    GetMany { keys: Vec<&'a [u8]> },
    /// The length of the value, 0 if there is none.
    Length { key: &'a [u8] },
    /// A part of the value; negative positions count from the end. Redis, `GETRANGE`.
    GetRange { key: &'a [u8], first: i64, last: i64 },
    /// How many of these exist; a key named twice counts twice.
    Exists { keys: Vec<&'a [u8]> },
    /// As `Exists`, and marks them as used.
    Touch { keys: Vec<&'a [u8]> },
    /// `Status("string")`, or `Status("none")`.
    Type { key: &'a [u8] },
    /// The deadline, in one of four forms; `Int(-2)` without the key, `Int(-1)` without a deadline.
    Deadline { key: &'a [u8], form: DeadlineForm },
    /// The encoding that Redis would name: `int`, `embstr` or `raw`. `Nil` without the key.
    Encoding { key: &'a [u8] },
    /// Seconds since the key was used. `Nil` without the key.
    IdleTime { key: &'a [u8] },
    /// The logarithmic counter of uses. `Nil` without the key.
    Frequency { key: &'a [u8] },
    /// `Int(1)`: values are not shared. `Nil` without the key.
    RefCount { key: &'a [u8] },
    /// Bytes that the key takes with its overhead. `Nil` without the key.
    MemoryUsage { key: &'a [u8] },
}

/// How a deadline is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadlineForm {
    /// Seconds from now, rounded to the nearest: `TTL`.
    SecondsLeft,
    /// Milliseconds from now: `PTTL`.
    MillisLeft,
    /// Unix time in seconds: `EXPIRETIME`.
    AtSecond,
    /// Unix time in milliseconds: `PEXPIRETIME`.
    AtMilli,
}

/// The answer to a write or a read.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply<'a> {
    /// Done.
    Ok,
    /// Nothing there, or not done because of a condition.
    Nil,
    /// A number.
    Int(i64),
    /// A value.
    Bulk(Cow<'a, [u8]>),
    /// A word from a closed set, without CR or LF.
    Status(&'static str),
    /// Several answers.
    Array(Vec<Reply<'a>>),
    /// Refused; nothing was changed.
    Error(OpError),
}

/// Why a store refused an operation. The texts are those of Redis 7.0, with their code word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// The value is not a 64-bit integer.
    #[error("ERR value is not an integer or out of range")]
    NotAnInteger,
    /// The sum would not fit.
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    /// The value is not a number.
    #[error("ERR value is not a valid float")]
    NotAFloat,
    /// The sum would be infinite or not a number.
    #[error("ERR increment would produce NaN or Infinity")]
    NanOrInfinity,
    /// The value would be longer than the limit.
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    TooLong,
    /// There is no such key.
    #[error("ERR no such key")]
    NoSuchKey,
    /// The deadline does not fit into an `i64` of milliseconds.
    #[error("ERR invalid expire time in command")]
    BadExpire,
    /// The value has another type.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    /// A key was to be copied onto itself.
    #[error("ERR source and destination objects are the same")]
    SameKey,
    /// The slot came with a snapshot that had seen this write already: it was done, and what it
    /// answered is not known here.
    #[error("INDOUBT the write was applied before, and its answer is not known")]
    AnswerLost,
}

impl Reply<'_> {
    /// The same answer, owning what it holds.
    #[must_use]
    pub fn into_owned(self) -> Reply<'static> {
        match self {
            Reply::Ok => Reply::Ok,
            Reply::Nil => Reply::Nil,
            Reply::Int(number) => Reply::Int(number),
            Reply::Bulk(value) => Reply::Bulk(Cow::Owned(value.into_owned())),
            Reply::Status(word) => Reply::Status(word),
            Reply::Array(items) => Reply::Array(items.into_iter().map(Reply::into_owned).collect()),
            Reply::Error(error) => Reply::Error(error),
        }
    }
}

/// A write and the slot it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Step<'a> {
    /// The slot of every key in the write.
    pub slot: Slot,
    /// What to do there.
    pub write: Write<'a>,
}
