//! What a peer may make us hold. Every limit is on bytes or counts that the peer announces or sends.

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What one request may be.
///
/// For a command that is not complete, a caller never has to keep more bytes than `request_bytes_max` and
/// `inline_bytes_max` together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one argument. Redis, `proto-max-bulk-len`.
    pub bulk_bytes_max: usize,
    /// Arguments of one command, its name included. Inline commands are bounded by their line alone.
    pub args_count_max: usize,
    /// Bytes of one inline command, and of one header line, without the line feed. Below 32 it counts as
    /// that.
    pub inline_bytes_max: usize,
    /// Bytes of one command as sent, headers included. Above 4 GiB − 1 it counts as that, and below a line
    /// as a line.
    pub request_bytes_max: usize,
    /// Whether the stricter limits for strangers apply as well: [`Standing::Unauthenticated`].
    pub standing: Standing,
}

impl Limits {
    /// Redis's limits (of version 6 for the count: 7 lets it go to 2³¹ − 1), except that a value may have
    /// 64 MiB and a command two of those.
    pub const DEFAULT: Self = Self {
        bulk_bytes_max: 64 * MIB,
        args_count_max: 1_048_576,
        inline_bytes_max: 64 * KIB,
        request_bytes_max: 128 * MIB,
        standing: Standing::Authenticated,
    };

    /// The default for clients that have to authenticate first: at most 10 arguments of 16 KiB, as Redis.
    pub const UNAUTHENTICATED: Self = Self { standing: Standing::Unauthenticated, ..Self::DEFAULT };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What we know of who sends the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A client that may run commands.
    Authenticated,
    /// A client that still has to authenticate. What it needs for that is small.
    Unauthenticated,
}

impl Standing {
    /// Arguments of a command of a client that has not authenticated. Redis 7, `processMultibulkBuffer`.
    pub const UNAUTHENTICATED_ARGS_COUNT_MAX: usize = 10;
    /// Bytes of an argument of a client that has not authenticated. Redis 7, `processMultibulkBuffer`.
    pub const UNAUTHENTICATED_BULK_BYTES_MAX: usize = 16 * KIB;
}

/// What one reply may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Bytes of one bulk or verbatim string.
    pub bulk_bytes_max: usize,
    /// Values within the aggregates of one reply, at all depths together. Each takes up to 40 bytes of
    /// memory next to its own.
    pub values_count_max: usize,
    /// Bytes of one line: a header, a status, an error, a number.
    pub line_bytes_max: usize,
    /// Bytes of one reply as sent, headers included.
    pub reply_bytes_max: usize,
}

impl ReplyLimits {
    /// Aggregates within aggregates. The deepest reply of Redis (`COMMAND`) has fewer than 10, and what
    /// reads the values may recurse.
    pub const NESTING_MAX: usize = 32;

    /// As for requests, and room for the reply to a command over some million keys.
    pub const DEFAULT: Self = Self {
        bulk_bytes_max: 64 * MIB,
        values_count_max: 4 * 1_048_576,
        line_bytes_max: 64 * KIB,
        reply_bytes_max: 256 * MIB,
    };
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
