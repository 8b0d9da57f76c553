//! Commands about a connection.

use scatterhoard_resp::Protocol;

use crate::{ClientCommand, CommandError};

/// About the connection that it came on, or about other connections.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionCommand<'a> {
    /// `PING [message]`: `+PONG`, or the message as a bulk string.
    Ping {
        /// What to send back.
        message: Option<&'a [u8]>,
    },
    /// `ECHO message`
    Echo {
        /// What to send back.
        message: &'a [u8],
    },
    /// `HELLO`: answers the properties of the server.
    Hello(Hello<'a>),
    /// `AUTH [user] password`
    Auth(Credentials<'a>),
    /// `SELECT index`. There is one database, 0; for others there are
    /// [`CommandError::SelectInCluster`](crate::CommandError::SelectInCluster) and
    /// [`CommandError::DatabaseOutOfRange`](crate::CommandError::DatabaseOutOfRange).
    Select {
        /// Any `i32`.
        database: i32,
    },
    /// `QUIT`: `+OK`, then the connection closes.
    Quit,
    /// `RESET`: `+RESET`; the connection is as when it was new, and speaks RESP2.
    Reset,
    /// `READONLY`: `+OK`.
    ReadOnly,
    /// `READWRITE`: `+OK`.
    ReadWrite,
    /// `ASKING`: `+OK`.
    Asking,
    /// `HOARD.PROBE`: what this node leads, and under which term. It is answered behind the invalidations, on
    /// this connection, of all that was written before.
    Probe,
    /// `WAIT replicas milliseconds`: how many replicas have this connection's writes.
    Wait {
        /// Replicas asked for. Redis accepts negative numbers, which are reached at once.
        replicas: i64,
        /// Milliseconds: `[0, 2^63)`. 0 waits without end.
        timeout_ms: u64,
    },
    /// `SUBSCRIBE channel …`: which there are is for the caller to say.
    Subscribe {
        /// At least one.
        channels: Vec<&'a [u8]>,
    },
    /// `UNSUBSCRIBE [channel …]`
    Unsubscribe {
        /// None: all.
        channels: Vec<&'a [u8]>,
    },
    /// `CLIENT …`
    Client(ClientCommand<'a>),
}

/// `HELLO [version [AUTH user password] [SETNAME name]]`. Options are applied in the order of the
/// fields, and all or none of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The protocol from now on. `None`: as it is.
    pub version: Option<Protocol>,
    /// Who asks.
    pub credentials: Option<Credentials<'a>>,
    /// The connection's new name, which is valid; empty takes the name away.
    pub name: Option<&'a [u8]>,
    /// What is wrong behind the credentials. Redis reads option by option, so whoever is not let in hears that
    /// instead.
    pub flaw: Option<CommandError>,
}

/// What a client proves itself with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// `None`: not said, which means `default`.
    pub user: Option<&'a [u8]>,
    /// In the clear.
    pub password: &'a [u8],
}

/// Leaves the password out.
impl std::fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}
