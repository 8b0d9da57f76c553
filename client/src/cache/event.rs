//! What happens to a cache's keys, for whoever wants to know.
//!
//! **What is told.** What this process does through a cache, and all clones of it, comes with its key and its
//! [`Kind`]. What others do comes as [`Event::Elsewhere`], if there is a cluster level that tells of it: the name of
//! a key that changed, not how, and only as far as the level knows, which for a server with tracking is what this
//! process has read. What this process changed may come back that way; `Elsewhere` says that something changed, not
//! that it was somebody else.
//!
//! Events are for looking at, not for keeping copies right: they come after the fact, and a listener that does not
//! keep up misses some, and is [told so](Event::Missed).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::Key;
use super::key::Prefix;
use crate::level::Change;
use crate::level::near::Evicted;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<K> {
    /// This process did it, or its near level.
    Here {
        /// What happened.
        kind: Kind,
        /// To which key.
        key: K,
        /// By which cache. Compare with [`crate::Cache::source_id`] to ignore one's own.
        source: SourceId,
    },
    /// A key changed, as the cluster level tells; its name, without the cache's prefix.
    Elsewhere {
        /// As [`Key::write`] writes it.
        name: Bytes,
    },
    /// Any key may have changed: the cluster level may have lost something.
    EverythingElsewhere,
    /// So many events were missed, since they were not taken in time.
    Missed(u64),
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It was set by a caller.
    Set,
    /// It was loaded, and stored.
    SetByLoad,
    /// It was loaded anew past its soft deadline, and stored.
    SetByRefresh,
    /// It was set, or loaded, together with others.
    SetByMany,
    /// It was removed or invalidated by a caller.
    Delete,
    /// Its copy was found to be over and dropped.
    Expire,
    /// Its copy was thrown away since the near level was full, as far as that one tells.
    Evict,
}

/// One cache of one process; clones share it. Others of this process have other ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceId(u64);

impl SourceId {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Where events go.
#[derive(Debug)]
pub(crate) struct Events<K> {
    pub(crate) source: SourceId,
    sender: broadcast::Sender<Event<K>>,
}

impl<K: Key> Events<K> {
    pub(crate) fn new(count_max: usize) -> Self {
        Self { source: SourceId::new(), sender: broadcast::Sender::new(count_max) }
    }

    /// Costs a look at a number if nobody listens.
    pub(crate) fn tell(&self, kind: Kind, key: impl FnOnce() -> K) {
        if self.sender.receiver_count() > 0 {
            let event = Event::Here { kind, key: key(), source: self.source };
            // Nobody listens any more.
            let _ = self.sender.send(event);
        }
    }

    /// What tells of evictions. It keeps no listener waiting for a cache that is gone.
    pub(crate) fn evictions(&self) -> Evicted<K> {
        let (sender, source) = (self.sender.downgrade(), self.source);
        Box::new(move |key| {
            if let Some(sender) = sender.upgrade() {
                Self { source, sender }.tell(Kind::Evict, || key.clone());
            }
        })
    }

    pub(crate) fn listen(
        &self,
        changes: Option<broadcast::Receiver<Change>>,
        prefix: Prefix,
    ) -> Listener<K> {
        Listener { events: self.sender.subscribe(), changes, prefix: Arc::new(prefix) }
    }
}

/// The events of one cache from the moment when it was made. See [`crate::Cache::events`].
#[derive(Debug)]
pub struct Listener<K> {
    events: broadcast::Receiver<Event<K>>,
    changes: Option<broadcast::Receiver<Change>>,
    prefix: Arc<Prefix>,
}

impl<K: Key> Listener<K> {
    /// The next event; `None` once the cache is gone. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Event<K>> {
        loop {
            let event = tokio::select! {
                biased;
                event = self.events.recv() => event,
                change = heard(&mut self.changes) => match self.told(change) {
                    Some(event) => Ok(event),
                    None => continue,
                },
            };
            return match event {
                Ok(event) => Some(event),
                Err(RecvError::Lagged(count)) => Some(Event::Missed(count)),
                Err(RecvError::Closed) => None,
            };
        }
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Event<K>> + Send {
        stream::unfold(self, |mut listener| async {
            let event = listener.next().await?;
            Some((event, listener))
        })
    }

    /// What a change means for this cache; `None` if nothing.
    fn told(&mut self, change: Result<Change, RecvError>) -> Option<Event<K>> {
        match change {
            Ok(Change::Key(name)) => self.prefix.strip(&name).map(|name| Event::Elsewhere { name }),
            Ok(Change::Everything) => Some(Event::EverythingElsewhere),
            Err(RecvError::Lagged(count)) => Some(Event::Missed(count)),
            Err(RecvError::Closed) => {
                self.changes = None;
                None
            }
        }
    }
}

/// What the cluster level tells; nothing, ever, if it does not.
async fn heard(changes: &mut Option<broadcast::Receiver<Change>>) -> Result<Change, RecvError> {
    match changes {
        Some(changes) => changes.recv().await,
        None => std::future::pending().await,
    }
}
