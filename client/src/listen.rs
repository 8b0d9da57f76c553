//! Who listens on connections: to what servers say unasked, and to what becomes of the connections.
//!
//! A connection of a [`Listener`] has `CLIENT TRACKING ON` before anything else is asked over it, so the server tells
//! of the next change of every key that is read over it. What it tells is heard in the order in which it was said,
//! and *before* every reply that was sent after it is handed to whoever waits for that reply: `redis-rs` calls its
//! push sender from the task that reads the connection, between one reply and the next
//! (`PipelineSink::send_result`, 1.8.1).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::topology::Address;

/// One connection, of all that this process ever opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LineId(u64);

impl LineId {
    /// One that was never given out.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Its number; a later one has a larger.
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// Hears what is said on the connections of one [`crate::Cluster`]. Nothing here may wait: connections are read by who
/// calls it.
pub(crate) trait Listener: Send + Sync + 'static {
    /// A connection was opened, and tracks: nothing was asked over it yet.
    fn opened(&self, node: &Address, line: LineId);

    /// A connection is lost; told once or more. Nothing is asked over it any more.
    fn lost(&self, line: LineId);

    /// This key changed.
    fn key_changed(&self, key: Bytes);

    /// Any key may have changed.
    fn everything_changed(&self);
}

/// What `redis-rs` is to call for each push on a connection.
pub(crate) fn heard(
    listener: Arc<dyn Listener>,
) -> impl Fn(redis::PushInfo) -> Result<(), redis::aio::SendError> + Send + Sync + 'static {
    move |push| {
        if push.kind == redis::PushKind::Invalidate {
            hear(&*listener, push.data);
        }
        Ok(())
    }
}

/// `invalidate` has an array of keys, or nil: everything. What is neither is taken for everything.
fn hear(listener: &dyn Listener, data: Vec<redis::Value>) {
    let mut told = false;
    for part in data {
        let redis::Value::Array(keys) = part else { return listener.everything_changed() };
        for key in keys {
            match key {
                redis::Value::BulkString(key) => listener.key_changed(key.into()),
                redis::Value::SimpleString(key) => listener.key_changed(key.into()),
                _ => return listener.everything_changed(),
            }
        }
        told = true;
    }
    if !told {
        listener.everything_changed();
    }
}
