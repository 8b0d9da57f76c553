//! What callers and services see of a message: where it goes, from whom it comes, how it is answered and
//! what a failure did to the world.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use scatterhoard_ring::NodeId;
use tokio::sync::oneshot;

use crate::inbound::Inbound;

/// Which of the two connections to a peer a message takes. Messages of one lane do not wait for those of
/// the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Votes, heartbeats, probes, small appends.
    Control,
    /// Snapshots and everything large.
    Bulk,
}

/// To whom a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Who must be there. Zero: whoever is.
    pub node: NodeId,
    /// Its peer address.
    pub addr: SocketAddr,
}

/// From whom a message comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who it says it is; with a secret, a holder of the secret vouches for it.
    pub node: NodeId,
    /// The caller's end of the connection. Not its peer address.
    pub addr: SocketAddr,
    /// Which lane the message came on.
    pub lane: Lane,
    /// Names the connection within this process; never used again.
    pub connection: u64,
}

/// Why a call has no reply, by what that says about its effect.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CallError {
    /// Nothing left this process. No effect.
    #[error("not sent: {0}")]
    Unsent(String),
    /// The connection broke, or the peer gave up without an answer. The request may have arrived; its
    /// outcome is unknown.
    #[error("no answer")]
    Lost,
    /// The deadline passed. `sent` tells whether the request may have arrived; if it is false, nothing
    /// left this process and nothing will.
    #[error("no answer before the deadline{}", if *.sent { "" } else { ", and not sent" })]
    Deadline {
        /// Whether the request may have arrived.
        sent: bool,
    },
    /// The peer refused before it handled anything: another cluster, another node, busy. No effect.
    #[error("refused: {0}")]
    Refused(String),
}

/// Handles what peers send.
pub trait Service: Send + Sync + 'static {
    /// Takes one message. Called in the order of arrival, by the task that reads the connection: must
    /// not block. Replies through `reply`, now or later.
    ///
    /// Messages of one lane arrive in the order in which they were sent, except that one which is larger
    /// than a fragment (256 KiB) may be overtaken by smaller ones sent after it.
    fn handle(&self, caller: Caller, kind: u8, body: Bytes, reply: ReplyTo);

    /// A connection has ended; nothing more comes from it.
    fn closed(&self, connection: u64) {
        let _ = connection;
    }
}

/// The way back to a caller.
///
/// Dropped without an answer, the caller gets [`CallError::Lost`]: who drops it may have done something.
/// One-way messages have nobody to answer; replying to them does nothing.
pub struct ReplyTo(Option<Back>);

enum Back {
    Wire { connection: Arc<Inbound>, request: u64, one_way: bool, size: usize },
    Local(oneshot::Sender<Result<Bytes, CallError>>),
}

impl ReplyTo {
    pub(crate) fn wire(connection: Arc<Inbound>, request: u64, one_way: bool, size: usize) -> Self {
        Self(Some(Back::Wire { connection, request, one_way, size }))
    }

    /// A way back to this process: for messages that a node sends to itself, and for tests of services.
    #[must_use]
    pub fn local() -> (Self, oneshot::Receiver<Result<Bytes, CallError>>) {
        let (answer, answered) = oneshot::channel();
        (Self(Some(Back::Local(answer))), answered)
    }

    /// Answers.
    pub fn send(mut self, body: Bytes) {
        match self.0.take() {
            None => {}
            Some(Back::Wire { connection, request, one_way, size }) => {
                connection.reply((!one_way).then_some(request), size, body);
            }
            Some(Back::Local(answer)) => drop(answer.send(Ok(body))),
        }
    }

    /// Refuses: nothing was done, and the caller gets [`CallError::Refused`].
    pub fn refuse(mut self, reason: &str) {
        match self.0.take() {
            None => {}
            Some(Back::Wire { connection, request, one_way, size }) => {
                connection.refuse((!one_way).then_some(request), size, reason);
            }
            Some(Back::Local(answer)) => {
                drop(answer.send(Err(CallError::Refused(reason.to_owned()))));
            }
        }
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        match self.0.take() {
            None => {}
            Some(Back::Wire { connection, request, one_way, size }) => {
                connection.give_up((!one_way).then_some(request), size);
            }
            Some(Back::Local(answer)) => drop(answer.send(Err(CallError::Lost))),
        }
    }
}

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("ReplyTo(answered)"),
            Some(Back::Wire { request, one_way, .. }) => {
                write!(f, "ReplyTo(request {request}, one way: {one_way})")
            }
            Some(Back::Local(_)) => f.write_str("ReplyTo(local)"),
        }
    }
}
