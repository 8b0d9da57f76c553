//! `CLIENT …`: commands about connections.

/// About this connection or others.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientCommand<'a> {
    /// `CLIENT ID`: this connection's id.
    Id,
    /// `CLIENT INFO`: this connection's line.
    Info,
    /// `CLIENT LIST`: a line for each connection that is meant.
    List(ClientFilter),
    /// `CLIENT KILL address`, the old form: `+OK`, or [`CommandError::NoSuchClient`](crate::CommandError::NoSuchClient).
    KillAddress {
        /// `host:port`
        address: &'a [u8],
    },
    /// `CLIENT KILL filter…`: how many were closed. A connection is meant if it matches all filters.
    Kill {
        /// At least one.
        filters: Vec<ClientMatch<'a>>,
        /// Whether the connection that asks stays open: `SKIPME`, true if not said.
        skip_me: bool,
    },
    /// `CLIENT SETNAME name`
    SetName {
        /// Valid; empty takes the name away.
        name: &'a [u8],
    },
    /// `CLIENT GETNAME`: the name, or `Nil`.
    GetName,
    /// `CLIENT SETINFO attribute value`
    SetInfo {
        /// What is told.
        attribute: ClientAttribute,
        /// Valid as a name is.
        value: &'a [u8],
    },
    /// `CLIENT NO-EVICT on|off`: whether memory pressure may close the connection.
    NoEvict {
        /// `on`
        on: bool,
    },
    /// `CLIENT NO-TOUCH on|off`: whether reads leave the recency of keys alone.
    NoTouch {
        /// `on`
        on: bool,
    },
    /// `CLIENT NEAR on|off`: whether copies of keys that other nodes lead will do for its reads.
    Near {
        /// `on`
        on: bool,
    },
    /// `CLIENT REPLY`
    Reply(ReplyMode),
    /// `CLIENT PAUSE milliseconds [WRITE|ALL]`
    Pause {
        /// From now on: `[0, 2^63)`.
        timeout_ms: u64,
        /// What waits.
        scope: PauseScope,
    },
    /// `CLIENT UNPAUSE`
    Unpause,
    /// `CLIENT TRACKING ON`: from now on this connection hears of keys that change.
    TrackingOn(Tracking<'a>),
    /// `CLIENT TRACKING OFF`
    TrackingOff,
    /// `CLIENT CACHING YES|NO`: about the keys of the next command alone.
    Caching {
        /// `YES`; `None`: neither. As Redis, that is looked at only where the command makes sense.
        yes: Option<bool>,
    },
    /// `CLIENT TRACKINGINFO`
    TrackingInfo,
    /// `CLIENT GETREDIR`: which connection hears it instead; 0 if this one does, -1 if nothing is tracked.
    GetRedirect,
}

/// `[REDIRECT id] [PREFIX prefix …] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]`, as it was said. What excludes what
/// depends on the connection's state too, so that is for the caller to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracking<'a> {
    /// The id of the connection that hears it instead.
    pub redirect: Option<i64>,
    /// `BCAST`: all keys with one of the prefixes, read or not.
    pub broadcast: bool,
    /// What the keys of `BCAST` begin with; none means all keys.
    pub prefixes: Vec<&'a [u8]>,
    /// `OPTIN`: only keys read after `CLIENT CACHING YES`.
    pub opt_in: bool,
    /// `OPTOUT`: not the keys read after `CLIENT CACHING NO`.
    pub opt_out: bool,
    /// `NOLOOP`: not what this connection changes itself.
    pub no_loop: bool,
}

/// Which connections `CLIENT LIST` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFilter {
    /// All.
    All,
    /// Those of a kind.
    Kind(ClientKind),
    /// Those with these ids; others are left out without a word.
    Ids(Vec<u64>),
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// Commands.
    Normal,
    /// The link to a leader, in Redis.
    Master,
    /// The link to a replica, in Redis. Also called `slave`.
    Replica,
    /// Subscriptions.
    PubSub,
}

/// What a connection to be closed has to match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientMatch<'a> {
    /// `ID`
    Id(u64),
    /// `ADDR host:port`: the client's end.
    Address(&'a [u8]),
    /// `LADDR host:port`: our end.
    LocalAddress(&'a [u8]),
    /// `TYPE`
    Kind(ClientKind),
    /// `USER`. Which users there are is for the caller to know; Redis answers
    /// [`CommandError::NoSuchUser`](crate::CommandError::NoSuchUser).
    User(&'a [u8]),
}

/// What a client tells about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAttribute {
    /// `LIB-NAME`
    LibraryName,
    /// `LIB-VER`
    LibraryVersion,
}

/// Which replies a connection gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyMode {
    /// All, and `+OK` to this.
    On,
    /// None, not even to this.
    Off,
    /// Not this, nor the next.
    Skip,
}

/// Which commands a pause holds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseScope {
    /// Writes only.
    Writes,
    /// All.
    All,
}
