//! `MGET` of keys in several slots, for clients that take copies of what other nodes lead.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use scatterhoard_command::{Split, split_read};
use scatterhoard_ring::Slot;
use scatterhoard_store::{Read, Reply};
use tokio::time::Instant;

use super::{Op, Patience, Served, merged};
use crate::forward;
use crate::near::{self, Held, Wanted};
use crate::route::Route;
use crate::session::refusal::Refusal;
use crate::session::size::reply_bytes;
use crate::session::stage::{Effect, value_of};

impl Patience {
    /// Serves each key from a copy if it may, and loads what is missing; the rest is asked of the leaders.
    pub(super) async fn serve_near(&self, keys: &[&[u8]]) -> Served {
        let held = self.copies_of(keys).await;
        let replies: Vec<_> = held.iter().map(|held| value_of(held.as_deref()?)).collect();
        if !self.has_room(replies.iter().flatten().map(reply_bytes).sum()) {
            return Served::Refused(Refusal::ReplyTooBig);
        }
        let missing: Vec<_> = keys.iter().zip(&replies).filter(|(_, it)| it.is_none()).collect();
        let missing: Vec<_> = missing.into_iter().map(|(&key, _)| key).collect();
        let mut rest = match self.serve_rest(missing).await {
            Ok(rest) => rest.into_iter(),
            Err(served) => return served,
        };
        let all = replies.into_iter().map(|reply| reply.or_else(|| rest.next()));
        match all.map(|reply| reply.map(Reply::into_owned)).collect() {
            Some(all) => self.held(Served::Reply(Reply::Array(all))),
            None => Served::Refused(Refusal::ClusterDown),
        }
    }

    /// What each key holds, where that is known here or can be loaded.
    async fn copies_of(&self, keys: &[&[u8]]) -> Vec<Option<Arc<Held>>> {
        let (now, hosted) = (Instant::now(), self.core.hosting.now());
        let (mut places, mut wanted) = (Vec::new(), Vec::new());
        let mut held = Vec::with_capacity(keys.len());
        for (at, key) in keys.iter().enumerate() {
            let slot = Slot::of(key);
            let is_ours = hosted.at(slot).is_some_and(|partition| partition.leads());
            held.push(if is_ours { None } else { self.core.near.look(key, now) });
            if is_ours || held[at].is_some() {
                continue;
            }
            if let Route::Elsewhere { node, .. } = self.core.route(slot) {
                places.push(at);
                wanted.push(Wanted { key: Bytes::copy_from_slice(key), slot, node });
            }
        }
        if !wanted.is_empty() {
            for (at, loading) in places.into_iter().zip(near::load(&self.core, &wanted)) {
                if let Some(loading) = loading {
                    held[at] = loading.landed().await;
                }
            }
        }
        held
    }

    /// What the leaders answer for these keys.
    async fn serve_rest(&self, keys: Vec<&[u8]>) -> Result<Vec<Reply<'static>>, Served> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let served = match split_read(Read::GetMany { keys }) {
            Split::Whole { slot, op } => self.serve_one(slot, &Op::Read(op), None).await,
            Split::Parts { parts, merge } => {
                let parts: Vec<_> =
                    parts.into_iter().map(|(slot, read)| (slot, Op::Read(read))).collect();
                let served = parts.iter().map(|(slot, op)| self.serve_one(*slot, op, None));
                merged(join_all(served).await, Effect::Reads, merge)
            }
        };
        match served {
            Served::Reply(Reply::Array(items)) => Ok(items),
            Served::Encoded(bytes) => match forward::reply_of(&bytes) {
                Some(Reply::Array(items)) => Ok(items),
                _ => Err(Served::Encoded(bytes)),
            },
            served @ (Served::Reply(_) | Served::Refused(_)) => Err(served),
        }
    }
}
