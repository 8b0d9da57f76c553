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
    Set { key: &'a [u8], value: &'a [u8], expiry: Expiry, when: When<'a>, answer: SetAnswer },
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
    /// `HOARD.SET`.
    SetWith {
        key: &'a [u8],
        content: Content<'a>,
        terms: Terms<'a>,
        when: When<'a>,
        answer: SetAnswer,
    },
    /// The second half of `HOARD.GET … LEASE`, after a read that found nothing to answer with: answers as
    /// [`crate::Lookup::answer`], and where that has nothing, the caller is the one to load, for so many
    /// milliseconds: `["load", token, millis]`, or with what is there
    /// `["stale", value, token, lives-for-ms]`. `token` is drawn by the proposer, at random.
    Lease { key: &'a [u8], token: Token, millis: u64, wants: Wants },
    /// `HOARD.FILL`: sets if the token is live, and then voids it. Answers `Int(1)`, else `Int(0)`.
    Fill { key: &'a [u8], token: Token, content: Content<'a>, terms: Terms<'a> },
    /// `HOARD.RELEASE`: voids the token. Answers `Int(1)` if it was live, else `Int(0)`.
    Release { key: &'a [u8], token: Token },
    /// `BF.RESERVE`: makes an empty filter. Answers `Ok`.
    ReserveFilter { key: &'a [u8], layout: FilterLayout },
    /// `BF.ADD` and `BF.MADD`: answers, as one or as a tuple, whether each was new. Makes a filter of
    /// [`FilterLayout::DEFAULT`] where nothing is.
    AddToFilter { key: &'a [u8], items: Vec<&'a [u8]>, form: FilterForm },
}

/// How many tags a value may carry.
pub const TAGS_COUNT_MAX: usize = 32;

/// What is set under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// A value.
    Value(&'a [u8]),
    /// The source says that there is nothing. Plain commands do not see it.
    Negative,
}

/// What goes with a value that is set by `HOARD.SET` or `HOARD.FILL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms<'a> {
    /// Its deadline.
    pub expiry: Expiry,
    /// So many milliseconds after the stamp it is to be loaded anew, though it may still be given.
    pub soft_millis: Option<u64>,
    /// What it can be invalidated by; at most [`TAGS_COUNT_MAX`].
    pub tags: Vec<&'a [u8]>,
}

/// The right to fill one key, once. Drawn at random, so that no two are ever the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(pub u64);

/// What a caller of `HOARD.GET` does with a miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// It only looks.
    Look,
    /// It only looks, and wants to know first whether someone loads.
    Wait,
    /// It loads, if nobody does; it waits otherwise, also past the soft deadline.
    Lease,
    /// As `Lease`, but past the soft deadline it takes the old value rather than wait.
    LeaseOrStale,
}

/// How a Bloom filter is laid out. RedisBloom, `BF.RESERVE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterLayout {
    /// How many items the first layer takes: `[1, 2^30]`.
    pub capacity: u32,
    /// One in 2^this items that were not added is said to be there, at most, over all layers: `[1, 40]`.
    pub error_bits: u8,
    /// Each further layer takes so many times what the one before takes; 0: there is no further one.
    pub expansion: u16,
}

/// How many items a command on a filter names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterForm {
    /// One, and one answer.
    One,
    /// Several, and as many answers.
    Many,
}

/// What `BF.INFO` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterField {
    /// How many items all layers take.
    Capacity,
    /// Bytes.
    Size,
    /// How many layers.
    Filters,
    /// How many items were added.
    Items,
    /// By how much the next layer is larger; `Nil` if there is none.
    Expansion,
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
pub enum When<'a> {
    /// Whatever is there.
    Always,
    /// Only where nothing is there (`NX`).
    Absent,
    /// Only where something is there (`XX`).
    Present,
    /// Only where exactly this value is there (`IFEQ`). Redis 8.4 and Valkey 8.1, `SET`.
    Equal(&'a [u8]),
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
    /// `Int` with the write's version ([`crate::version`]) if set, else `Nil`: `HOARD.SET … VERSION`.
    Version,
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
    /// `Status("string")`, `Status("MBbloom--")`, or `Status("none")`.
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
    /// `HOARD.GET`: what [`crate::Lookup::answer`] says, or the tuple `["miss"]`.
    Lookup { key: &'a [u8], wants: Wants },
    /// `BF.EXISTS` and `BF.MEXISTS`: whether each item may have been added, as one or as a tuple. Without
    /// a filter under the key none was, whatever is there.
    InFilter { key: &'a [u8], items: Vec<&'a [u8]>, form: FilterForm },
    /// `BF.INFO`: all fields, or one.
    FilterInfo { key: &'a [u8], field: Option<FilterField> },
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
    /// One answer that has several parts.
    Tuple(Vec<Reply<'a>>),
    /// One answer that has parts with names.
    Map(Vec<(&'static str, Reply<'a>)>),
    /// Yes or no; a number in RESP2.
    Bool(bool),
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
    /// Loads of so many keys of one slot are under way that their leases are as long as they may be.
    #[error("ERR too many loads under way in this slot, try again later")]
    TooManyLoads,
    /// A filter was to be made where there is one. Text of RedisBloom.
    #[error("ERR item exists")]
    FilterExists,
    /// There is no filter. Text of RedisBloom.
    #[error("ERR not found")]
    NoFilter,
    /// The filter takes no more. Text of RedisBloom.
    #[error("ERR non scaling filter is full")]
    FilterFull,
    /// The filter would be longer than a value may be, or have more layers than it may have.
    #[error("ERR filter would be larger than a value may be (proto-max-bulk-len)")]
    FilterTooLarge,
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
            Reply::Tuple(items) => Reply::Tuple(items.into_iter().map(Reply::into_owned).collect()),
            Reply::Map(fields) => {
                let owned = fields.into_iter().map(|(name, it)| (name, it.into_owned()));
                Reply::Map(owned.collect())
            }
            Reply::Bool(truth) => Reply::Bool(truth),
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
