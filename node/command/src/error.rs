//! Why a request means nothing.

use crate::HelpTopic;

/// Why a request means nothing. Nothing was done.
///
/// The text, code word first, is what the client gets; it never holds CR or LF. Texts are those of
/// Redis 7.0.15 unless said otherwise, since clients and test suites compare them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is no such command here.
    #[error("ERR unknown command '{name}', with args beginning with: {args}")]
    UnknownCommand {
        /// Printable, at most 128 characters.
        name: String,
        /// Printable, each in quotes, about 128 characters in all.
        args: String,
    },
    /// There is no such subcommand here.
    #[error("ERR unknown subcommand '{name}'. Try {topic} HELP.")]
    UnknownSubcommand {
        /// Printable, at most 128 characters.
        name: String,
        /// Where subcommands are listed.
        topic: HelpTopic,
    },
    /// The subcommand exists, not with so many arguments.
    #[error("ERR unknown subcommand or wrong number of arguments for '{name}'. Try {topic} HELP.")]
    SubcommandArity {
        /// Printable, at most 128 characters.
        name: String,
        /// Where subcommands are listed.
        topic: HelpTopic,
    },
    /// Redis has it, and it does not fit here. The text is ours and names the way.
    #[error("ERR {0}")]
    NotHere(&'static str),
    /// The client has not proven who it is. For the caller to give.
    #[error("NOAUTH Authentication required.")]
    NoAuth,
    /// Fewer or more arguments than the command takes.
    #[error("ERR wrong number of arguments for '{0}' command")]
    WrongArity(&'static str),
    /// An option that is unknown, incomplete, or excludes another.
    #[error("ERR syntax error")]
    Syntax,
    /// Not an `i64` in plain decimal.
    #[error("ERR value is not an integer or out of range")]
    NotAnInteger,
    /// Not an `i32` in plain decimal, but an `i64`.
    #[error("ERR value is out of range, value must between -2147483648 and 2147483647")]
    NotAnInt32,
    /// Not a number.
    #[error("ERR value is not a valid float")]
    NotAFloat,
    /// A deadline that is not after the epoch, or too far away for an `i64` of milliseconds.
    #[error("ERR invalid expire time in '{0}' command")]
    BadExpire(&'static str),
    /// Conditions of `EXPIRE`.
    #[error("ERR NX and XX, GT or LT options at the same time are not compatible")]
    ExpireNxWithOthers,
    /// Conditions of `EXPIRE`.
    #[error("ERR GT and LT options at the same time are not compatible")]
    ExpireGtWithLt,
    /// Conditions of `EXPIRE`. Holds the option, printable.
    #[error("ERR Unsupported option {0}")]
    ExpireOption(String),
    /// `DECRBY` with the least `i64`.
    #[error("ERR decrement would overflow")]
    DecrementOverflow,
    /// `SETRANGE` before the start.
    #[error("ERR offset is out of range")]
    OffsetOutOfRange,
    /// The value would be longer than any limit.
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    TooLong,
    /// `COPY` onto itself.
    #[error("ERR source and destination objects are the same")]
    SameObject,
    /// A database that there is not.
    #[error("ERR DB index is out of range")]
    DatabaseOutOfRange,
    /// `SELECT` of another database than 0 on a port in cluster mode.
    #[error("ERR SELECT is not allowed in cluster mode")]
    SelectInCluster,
    /// `SCAN` with something that no scan gave.
    #[error("ERR invalid cursor")]
    BadCursor,
    /// A timeout that is not an `i64`.
    #[error("ERR timeout is not an integer or out of range")]
    TimeoutNotAnInteger,
    /// A timeout below zero.
    #[error("ERR timeout is negative")]
    TimeoutNegative,
    /// `HELLO` with a version that is not a number.
    #[error("ERR Protocol version is not an integer or out of range")]
    ProtocolNotAnInteger,
    /// `HELLO` with a version that we do not speak.
    #[error("NOPROTO unsupported protocol version")]
    ProtocolUnsupported,
    /// `HELLO` with an option that is unknown or incomplete. Holds it, printable.
    #[error("ERR Syntax error in HELLO option '{0}'")]
    HelloOption(String),
    /// A name with spaces, or with bytes outside of printable ASCII.
    #[error("ERR Client names cannot contain spaces, newlines or special characters.")]
    ClientName,
    /// As `ClientName`, for `CLIENT SETINFO`. Text of Redis 7.2.
    #[error("ERR {0} cannot contain spaces, newlines or special characters.")]
    ClientAttributeValue(&'static str),
    /// `CLIENT SETINFO` of something else. Text of Redis 7.2. Holds it, printable.
    #[error("ERR Unrecognized option '{0}'")]
    ClientAttribute(String),
    /// `CLIENT LIST ID` with something that is not an id.
    #[error("ERR Invalid client ID")]
    ClientId,
    /// `CLIENT KILL ID` with something that is not an id.
    #[error("ERR client-id should be greater than 0")]
    ClientIdNotPositive,
    /// A kind of client that there is not. Holds it, printable.
    #[error("ERR Unknown client type '{0}'")]
    ClientKind(String),
    /// `CLIENT KILL address`: no connection has it. For the caller to give.
    #[error("ERR No such client")]
    NoSuchClient,
    /// `CLIENT KILL USER`. For the caller to give. Holds the name, printable.
    #[error("ERR No such user '{0}'")]
    NoSuchUser(String),
    /// `CLIENT PAUSE` of something else.
    #[error("ERR CLIENT PAUSE mode must be WRITE or ALL")]
    PauseScope,
    /// `CLIENT TRACKING` with two connections to redirect to.
    #[error("ERR A client can only redirect to a single other client")]
    TrackingRedirectTwice,
    /// A connection in RESP2 that has subscribed says nothing else. For the caller to give. Holds the
    /// command's full name.
    #[error(
        "ERR Can't execute '{0}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
         allowed in this context"
    )]
    Subscribed(&'static str),
    /// `CONFIG SET` names a setting twice. Holds it, printable.
    #[error("ERR CONFIG SET failed (possibly related to argument '{0}') - duplicate parameter")]
    ConfigTwice(String),
    /// `SLOWLOG GET` with something that is not a count.
    #[error("ERR count should be greater than or equal to -1")]
    SlowLogCount,
    /// A number that is no slot.
    #[error("ERR Invalid slot")]
    BadSlot,
    /// A number that is no slot, or a negative count.
    #[error("ERR Invalid slot or number of keys")]
    BadSlotOrCount,
    /// A port that is not a number. Holds it, printable.
    #[error("ERR Invalid TCP base port specified: {0}")]
    BadPort(String),
    /// A port for peers that is not a number. Holds it, printable.
    #[error("ERR Invalid TCP bus port specified: {0}")]
    BadPeerPort(String),
    /// An address that cannot be one. Holds it, printable.
    #[error("ERR Invalid node address specified: {0}")]
    BadAddress(String),
    /// No node has this id. For the caller to give. Holds it, printable.
    #[error("ERR Unknown node {0}")]
    UnknownNode(String),
    /// A lease that ends at once, or lasts too long.
    #[error("ERR lease is out of range, it must be between 1 and 600000 milliseconds")]
    LeaseOutOfRange,
    /// What no lease gave out.
    #[error("ERR invalid token")]
    BadToken,
    /// More tags than a value may carry, or none.
    #[error("ERR number of tags is out of range, it must be between 1 and 32")]
    TagsCount,
    /// What `BF.RESERVE` and `BF.INFO` do not take. Texts of RedisBloom in Redis 8.
    #[error("{0}")]
    Filter(&'static str),
    /// `COMMAND GETKEYS` of what is no command.
    #[error("ERR Invalid command specified")]
    GetKeysUnknown,
    /// `COMMAND GETKEYS` of a command that takes no keys.
    #[error("ERR The command has no key arguments")]
    GetKeysNone,
    /// `COMMAND GETKEYS` of a command with too few or too many arguments.
    #[error("ERR Invalid number of arguments specified for command")]
    GetKeysArity,
}

impl CommandError {
    /// No node has this id.
    #[must_use]
    pub fn unknown_node(id: &[u8]) -> Self {
        Self::UnknownNode(printable(id, ECHO_CHARS_MAX))
    }

    /// There is no such user.
    #[must_use]
    pub fn no_such_user(name: &[u8]) -> Self {
        Self::NoSuchUser(printable(name, ECHO_CHARS_MAX))
    }

    pub(crate) fn unknown_command<'a>(mut words: impl Iterator<Item = &'a [u8]>) -> Self {
        let name = printable(words.next().unwrap_or_default(), ECHO_CHARS_MAX);
        let mut args = String::new();
        for word in words {
            let Some(room) = ECHO_CHARS_MAX.checked_sub(args.len()).filter(|&room| room > 0) else {
                break;
            };
            args.push('\'');
            args.push_str(&printable(word, room));
            args.push_str("' ");
        }
        Self::UnknownCommand { name, args }
    }
}

/// How much of a client's words an error repeats, in bytes. Redis, `unknown command '%.128s'`.
pub(crate) const ECHO_CHARS_MAX: usize = 128;

/// The first bytes of a word as text: what is not UTF-8 becomes the replacement character. Line ends are left to
/// [`crate::encode_error`].
pub(crate) fn printable(word: &[u8], bytes_max: usize) -> String {
    let word = &word[..word.len().min(bytes_max)];
    String::from_utf8_lossy(word).into_owned()
}
