//! A cluster level of which little is asked but whether copies may be served.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;
use scatterhoard_client::level::{
    Ask, Change, ClusterLevel, Content, Entry, Found, Look, Mark, Moment, Stored, Token, When,
};
use scatterhoard_client::{Clock, Error};
use scatterhoard_near::{Cells, Feed, Follower, KeyHash, Position, Stamp};
use scatterhoard_ring::{Slot, SlotRange};
use tokio::sync::broadcast;

/// Judges by the feed of one partition, as a real one does. Has what was set, for ever.
pub(crate) struct Judge {
    entries: Mutex<HashMap<Bytes, Bytes>>,
    feed: Arc<Feed>,
    follower: Mutex<Follower>,
    changes: broadcast::Sender<Change>,
}

impl Judge {
    /// Copies may be served for so long after a proof, of which there is none yet.
    pub(crate) fn bound(bound: Duration) -> Arc<Self> {
        let feed = Arc::new(Feed::new(SlotRange::ALL, Arc::new(Cells::new(16))));
        let mut follower = Follower::new(Arc::clone(&feed), bound);
        follower.reached(Stamp::default(), Position::default());
        let (follower, changes) = (Mutex::new(follower), broadcast::Sender::new(1));
        Arc::new(Self { entries: Mutex::default(), feed, follower, changes })
    }

    /// A probe was answered at once.
    pub(crate) fn prove(&self) {
        let mut follower = self.follower.lock();
        let probe = follower.probe_sent(Clock::new().now());
        follower.probe_answered(probe, Stamp::default(), Position::default());
    }

    /// What lies beside a copy that was loaded just now.
    pub(crate) fn mark(&self, key: impl AsRef<[u8]>, lives_for: Option<Duration>) -> Mark {
        let (slot, hash) = (Slot::of(key.as_ref()), KeyHash::of(key.as_ref(), 0));
        let ticket = self.feed.begin(slot, hash, Clock::new().now());
        self.feed
            .keep(ticket.expect("all slots are its own"), lives_for)
            .expect("nothing changed in between")
    }

    #[allow(dead_code, reason = "only some of those who share this file invalidate")]
    pub(crate) fn invalidate(&self, key: &str) {
        self.feed.invalidated(KeyHash::of(key.as_bytes(), 0));
    }

    fn look_at(&self, key: &Bytes) -> Look {
        match self.entries.lock().get(key) {
            Some(bytes) => {
                let bytes = bytes.clone();
                let stored = Stored { bytes, fresh_for: None, lives_for: None, refresh: None };
                Look { found: Found::Value(stored), mark: Some(self.mark(key, None)) }
            }
            None => Look { found: Found::Absent, mark: None },
        }
    }
}

fn not_asked<T>() -> Result<T, Error> {
    Err(Error::NotDone("this level only judges copies".to_owned()))
}

fn later<T: Send + 'static>(answer: T) -> BoxFuture<'static, T> {
    Box::pin(ready(answer))
}

impl ClusterLevel for Judge {
    fn look<'a>(&'a self, key: &'a [u8], _: Ask) -> BoxFuture<'a, Result<Look, Error>> {
        later(Ok(self.look_at(&Bytes::copy_from_slice(key))))
    }

    fn look_many<'a>(
        &'a self,
        keys: &'a [Bytes],
        _: Ask,
    ) -> BoxFuture<'a, Vec<Result<Look, Error>>> {
        later(keys.iter().map(|key| Ok(self.look_at(key))).collect())
    }

    fn wait<'a>(&'a self, _: &'a [u8], _: Duration) -> BoxFuture<'a, Result<(), Error>> {
        later(not_asked())
    }

    fn fill<'a>(
        &'a self,
        _: &'a [u8],
        _: Token,
        _: &'a Entry,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        later(not_asked())
    }

    fn release<'a>(&'a self, _: &'a [u8], _: Token) -> BoxFuture<'a, Result<bool, Error>> {
        later(not_asked())
    }

    fn set<'a>(
        &'a self,
        key: &'a [u8],
        entry: &'a Entry,
        _: &'a When,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        if let Content::Value(bytes) = &entry.content {
            self.entries.lock().insert(Bytes::copy_from_slice(key), bytes.clone());
        }
        later(Ok(true))
    }

    fn set_many<'a>(
        &'a self,
        entries: &'a [(Bytes, Entry)],
    ) -> BoxFuture<'a, Vec<Result<(), Error>>> {
        later(entries.iter().map(|_| not_asked()).collect())
    }

    fn remove<'a>(&'a self, _: &'a [u8]) -> BoxFuture<'a, Result<bool, Error>> {
        later(not_asked())
    }

    fn invalidate_tags<'a>(&'a self, _: &'a [Bytes]) -> BoxFuture<'a, Result<(), Error>> {
        later(not_asked())
    }

    fn may_serve(&self, mark: &Mark, now: Moment) -> bool {
        self.feed.may_serve(mark, now)
    }

    fn is_dead(&self, mark: &Mark, now: Moment) -> bool {
        self.feed.is_dead(mark, now)
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }
}
