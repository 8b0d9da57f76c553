//! What a client is to be told besides its replies, until its session has sent it.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use scatterhoard_resp::{Encoder, Protocol};

/// The one channel, by which a client in RESP2 hears what others track. Redis, `TrackingChannelName`.
pub(crate) const CHANNEL: &[u8] = b"__redis__:invalidate";

/// What keys that wait for one client may take in bytes; about two thousand short ones. Beyond that it is
/// told to forget everything, which is a few bytes and as true.
const WAITING_BYTES_MAX: usize = 128 * 1024;

/// What a key takes beside its bytes.
const KEY_EXTRA_BYTES: usize = 32;

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// This key may be other than it was.
    Key(Arc<[u8]>),
    /// All keys may.
    All,
    /// Whoever should have heard in the client's place is gone.
    Broken {
        /// Its id.
        client: u64,
    },
}

/// Where pushes for one client wait.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    has_any: AtomicBool,
    /// The client speaks RESP3, where anything may be pushed.
    takes_pushes: AtomicBool,
    /// It has subscribed to [`CHANNEL`].
    subscribed: AtomicBool,
    /// Its session has ended.
    closed: AtomicBool,
    waiting: Mutex<Waiting>,
    session: AtomicWaker,
}

#[derive(Debug, Default)]
struct Waiting {
    all: bool,
    keys: BTreeSet<Arc<[u8]>>,
    keys_bytes: usize,
    broken: Option<u64>,
}

impl Outbox {
    /// What the client speaks from now on.
    pub(crate) fn speaks(&self, protocol: Protocol) {
        self.takes_pushes.store(protocol == Protocol::Resp3, Ordering::Relaxed);
    }

    pub(crate) fn set_subscribed(&self, subscribed: bool) {
        self.subscribed.store(subscribed, Ordering::Relaxed);
    }

    pub(crate) fn is_subscribed(&self) -> bool {
        self.subscribed.load(Ordering::Relaxed)
    }

    /// The session has ended: nobody hears any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// For what the client itself tracks. In RESP2 it could not tell a push from a reply, and hears
    /// nothing, as in Redis.
    pub(super) fn put_own(&self, note: &Note) {
        if self.takes_pushes.load(Ordering::Relaxed) {
            self.put(note);
        }
    }

    /// For what another client tracks. As in Redis nobody hears it if this one speaks RESP2 and has not
    /// subscribed.
    pub(super) fn put_redirected(&self, note: &Note) {
        if self.takes_pushes.load(Ordering::Relaxed) || self.is_subscribed() {
            self.put(note);
        }
    }

    fn put(&self, note: &Note) {
        {
            let mut waiting = self.waiting.lock();
            match note {
                Note::Key(key) => waiting.add(key),
                Note::All => waiting.add_all(),
                Note::Broken { client } => waiting.broken = Some(*client),
            }
            self.has_any.store(true, Ordering::Release);
        }
        self.session.wake();
    }

    /// Waits until there is something. For the client's own session alone.
    pub(crate) async fn filled(&self) {
        poll_fn(|cx| {
            self.session.register(cx.waker());
            if self.has_any.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Appends all pushes that wait. One load if there are none.
    pub(crate) fn drain(&self, protocol: Protocol, out: &mut Vec<u8>) {
        if !self.has_any.load(Ordering::Acquire) {
            return;
        }
        let waiting = {
            let mut waiting = self.waiting.lock();
            self.has_any.store(false, Ordering::Release);
            std::mem::take(&mut *waiting)
        };
        let mut out = Encoder::new(out, protocol);
        if (waiting.all || !waiting.keys.is_empty()) && self.put_head(protocol, &mut out) {
            if waiting.all {
                out.null();
            } else {
                out.array(waiting.keys.len());
                waiting.keys.iter().for_each(|key| out.bulk(key));
            }
        }
        if let (Some(client), Protocol::Resp3) = (waiting.broken, protocol) {
            out.push(2);
            out.bulk(b"tracking-redir-broken");
            out.integer(i64::try_from(client).unwrap_or(i64::MAX));
        }
    }

    /// What comes before the keys, if the client still hears of any.
    fn put_head(&self, protocol: Protocol, out: &mut Encoder<'_>) -> bool {
        match protocol {
            Protocol::Resp3 => {
                out.push(2);
                out.bulk(b"invalidate");
                true
            }
            Protocol::Resp2 if self.is_subscribed() => {
                out.push(3);
                out.bulk(b"message");
                out.bulk(CHANNEL);
                true
            }
            Protocol::Resp2 => false,
        }
    }
}

impl Waiting {
    fn add(&mut self, key: &Arc<[u8]>) {
        if self.all || !self.keys.insert(Arc::clone(key)) {
            return;
        }
        self.keys_bytes += key.len() + KEY_EXTRA_BYTES;
        if self.keys_bytes > WAITING_BYTES_MAX {
            self.add_all();
        }
    }

    fn add_all(&mut self) {
        self.all = true;
        self.keys = BTreeSet::new();
        self.keys_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: &str) -> Note {
        Note::Key(key.as_bytes().into())
    }

    fn drained(outbox: &Outbox, protocol: Protocol) -> String {
        let mut out = Vec::new();
        outbox.drain(protocol, &mut out);
        String::from_utf8(out).unwrap().replace("\r\n", " ")
    }

    #[test]
    fn keys_go_together_and_each_once() {
        let outbox = Outbox::default();
        outbox.put_own(&key("lost"));
        outbox.speaks(Protocol::Resp3);
        ["b", "a", "b"].iter().for_each(|name| outbox.put_own(&key(name)));
        assert_eq!(drained(&outbox, Protocol::Resp3), ">2 $10 invalidate *2 $1 a $1 b ");
        assert_eq!(drained(&outbox, Protocol::Resp3), "");
        outbox.put_own(&Note::Broken { client: 7 });
        outbox.put_own(&key("a"));
        assert_eq!(
            drained(&outbox, Protocol::Resp3),
            ">2 $10 invalidate *1 $1 a >2 $21 tracking-redir-broken :7 "
        );
    }

    #[test]
    fn in_resp2_only_who_has_subscribed_hears_of_others() {
        let outbox = Outbox::default();
        outbox.put_redirected(&key("a"));
        assert_eq!(drained(&outbox, Protocol::Resp2), "");
        outbox.set_subscribed(true);
        outbox.put_own(&key("a"));
        assert_eq!(drained(&outbox, Protocol::Resp2), "");
        outbox.put_redirected(&key("a"));
        assert_eq!(
            drained(&outbox, Protocol::Resp2),
            "*3 $7 message $20 __redis__:invalidate *1 $1 a "
        );
        outbox.put_redirected(&Note::All);
        assert_eq!(
            drained(&outbox, Protocol::Resp2),
            "*3 $7 message $20 __redis__:invalidate $-1 "
        );
    }

    #[test]
    fn who_lags_behind_too_far_is_told_to_forget_everything() {
        let outbox = Outbox::default();
        outbox.speaks(Protocol::Resp3);
        for number in 0..10_000 {
            outbox.put_own(&key(&format!("key:{number}")));
            let waiting = outbox.waiting.lock();
            let bytes: usize = waiting.keys.iter().map(|key| key.len() + KEY_EXTRA_BYTES).sum();
            assert!(bytes <= WAITING_BYTES_MAX, "{bytes}");
        }
        assert_eq!(drained(&outbox, Protocol::Resp3), ">2 $10 invalidate _ ");
        outbox.put_own(&key("later"));
        assert_eq!(drained(&outbox, Protocol::Resp3), ">2 $10 invalidate *1 $5 later ");
    }
}
