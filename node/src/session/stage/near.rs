//! Reads of keys that another node leads, for clients that take copies: answered from those, or loaded.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use scatterhoard_command::encode_reply;
use scatterhoard_resp::{Args, Encoder, Protocol};
use scatterhoard_ring::{NodeId, PartitionId, Slot};
use scatterhoard_store::{Read, Reply};

use super::elsewhere::goes_to;
use super::{Effect, Kind, Outcome, Planned, Stage};
use crate::near::{self, Held, Wanted};
use crate::route::Route;
use crate::session::size::{reply_bytes, reply_bytes_max};

/// Keys that a stage looks for at a time: for more, their leaders are asked as ever.
pub(super) const SOUGHT_COUNT_MAX: usize = 4096;

/// How a read is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `GET`
    One,
    /// `MGET`
    Many,
}

/// Keys of one command, which lie in one slot, and what is known of each.
pub(super) struct Sought {
    partition: PartitionId,
    slot: Slot,
    node: NodeId,
    form: Form,
    keys: Vec<Bytes>,
    held: Vec<Option<Arc<Held>>>,
}

impl Sought {
    fn bytes(&self) -> usize {
        self.held.iter().flatten().map(|held| held.bytes()).sum()
    }
}

impl Stage {
    /// Answers a read from copies, or notes what has to be loaded for it. `None` if it has to be forwarded as
    /// a whole: since no copies are kept of what it asks for, or nobody is known to lead it.
    ///
    /// Nothing in this stage may have been written in its partition: that write could be answered before.
    pub(super) fn add_near(
        &mut self,
        partition: PartitionId,
        slot: Slot,
        read: &Read<'_>,
        request: Range<usize>,
    ) -> Option<Planned> {
        let (form, keys) = match read {
            Read::Get { key } => (Form::One, std::slice::from_ref(key)),
            Read::GetMany { keys } if keys.len() <= SOUGHT_COUNT_MAX => (Form::Many, &keys[..]),
            _ => return None,
        };
        let look = |key: &&[u8]| self.core.near.look(key, self.now);
        let held: Vec<_> = keys.iter().map(look).collect();
        if held.iter().flatten().any(|held| **held == Held::Unfit) {
            return None;
        }
        if held.iter().all(Option::is_some) {
            let reply = reply_of(&held, form)?;
            if reply_bytes(&reply) > reply_bytes_max(&self.core, self.door) {
                return None;
            }
            self.put_ready(request, |out| encode_reply(out, &reply));
            return Some(Planned::Done);
        }
        let Route::Elsewhere { node, .. } = self.core.route(slot) else { return None };
        if !goes_to(&mut self.away, partition, node) {
            return Some(Planned::AfterThis);
        }
        let keys = keys.iter().map(|key| Bytes::copy_from_slice(key)).collect::<Vec<_>>();
        self.writes_bytes += keys.iter().map(Bytes::len).sum::<usize>();
        self.sought_count += keys.len();
        self.sought.push(Some(Sought { partition, slot, node, form, keys, held }));
        self.push(request, Kind::Near { sought: self.sought.len() - 1 });
        Some(Planned::Done)
    }

    /// A write of this partition goes to this node: what was to be loaded for reads before it goes there
    /// with it, so that they do not see it.
    pub(super) fn send_sought(&mut self, partition: PartitionId, node: NodeId) {
        for part in 0..self.parts.len() {
            let Kind::Near { sought: place } = self.parts[part].kind else { continue };
            let of_it = self.sought[place].take_if(|sought| sought.partition == partition);
            let Some(sought) = of_it else { continue };
            let name: &[u8] = match sought.form {
                Form::One => b"GET",
                Form::Many => b"MGET",
            };
            let keys = sought.keys.iter().map(|key| &key[..]);
            let words: Vec<_> = std::iter::once(name).chain(keys).collect();
            let (unit, at) = self.send_to(node, Args::from(&words), Effect::Reads);
            self.parts[part].kind = Kind::Remote { unit, at, effect: Effect::Reads };
        }
    }

    /// Loads what is missing, and waits for it. Answers how many bytes of values are held for it.
    pub(super) async fn load_sought(
        core: &Arc<crate::core::Core>,
        sought: &mut [Option<Sought>],
    ) -> usize {
        let (mut places, mut wanted) = (Vec::new(), Vec::new());
        for (place, sought) in sought.iter().enumerate() {
            let Some(Sought { slot, node, keys, held, .. }) = sought else { continue };
            for (at, key) in keys.iter().enumerate().filter(|&(at, _)| held[at].is_none()) {
                places.push((place, at));
                wanted.push(Wanted { key: key.clone(), slot: *slot, node: *node });
            }
        }
        if wanted.is_empty() {
            return 0;
        }
        for ((place, at), loading) in places.into_iter().zip(near::load(core, &wanted)) {
            if let (Some(loading), Some(sought)) = (loading, &mut sought[place]) {
                sought.held[at] = loading.landed().await;
            }
        }
        sought.iter().flatten().map(Sought::bytes).sum()
    }

    /// Appends the reply to a read for which everything was there or was loaded.
    pub(super) fn put_sought(
        &self,
        sought: Option<&Sought>,
        protocol: Protocol,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let reply = sought.and_then(|sought| reply_of(&sought.held, sought.form));
        match reply {
            Some(reply) if reply_bytes(&reply) <= reply_bytes_max(&self.core, self.door) => {
                encode_reply(&mut Encoder::new(out, protocol), &reply);
                Outcome::Done
            }
            Some(_) | None => Outcome::NotDone,
        }
    }
}

/// What is answered; `None` if something is not known, or no copies are kept of it.
fn reply_of(held: &[Option<Arc<Held>>], form: Form) -> Option<Reply<'_>> {
    let mut replies = held.iter().map(|held| value_of(held.as_deref()?));
    match form {
        Form::One => replies.next()?,
        Form::Many => replies.collect::<Option<_>>().map(Reply::Array),
    }
}

/// What is answered for one key, as [`reply_of`].
pub(in crate::session) fn value_of(held: &Held) -> Option<Reply<'_>> {
    match held {
        Held::Value(value) => Some(Reply::Bulk(Cow::Borrowed(value))),
        Held::Absent => Some(Reply::Nil),
        Held::Unfit => None,
    }
}
