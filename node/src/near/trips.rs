//! Loads on their way: one call for what is missing at a time, and one for each key, whoever asks for it.
//!
//! Who joins a load that is under way is given what was read after it was sent. So it may be joined for as
//! long as a copy may be old, and not once its key was written through this node or is known to have changed:
//! then the next load sees more.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use scatterhoard_cluster::{Lane, Target};
use scatterhoard_near::{KeyHash, Moment, Ticket};
use scatterhoard_ring::{NodeId, Slot, Table};
use tokio::sync::watch;
use tokio::time::Instant;

use super::copies::{Copy, Held};
use super::correspondent::{self, Followed};
use super::message::{self, Loaded};
use super::{Near, Shelf};
use crate::core::Core;
use crate::kind::Kind;

/// How long a load may take before whoever waits for it asks the leader without keeping a copy.
const LOAD_PATIENCE: Duration = Duration::from_millis(500);

/// Keys under way at a time; beyond it they are not loaded. Each takes its bytes and some hundred more.
const KEYS_COUNT_MAX: usize = 65_536;

/// A key that is wanted, and who leads it.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) key: Bytes,
    pub(crate) slot: Slot,
    pub(crate) node: NodeId,
}

/// One key of a load under way.
pub(crate) struct Loading {
    landed: watch::Receiver<Option<Cargo>>,
    at: usize,
}

/// What came for the keys of one load, in their order.
type Cargo = Arc<[Option<Arc<Held>>]>;

/// Which keys are under way.
#[derive(Default)]
pub(super) struct Trips(Mutex<HashMap<Bytes, Berth>>);

/// A key's place in a load.
#[derive(Clone)]
struct Berth {
    sent: Moment,
    ticket: Ticket,
    followed: Arc<Followed>,
    landed: watch::Receiver<Option<Cargo>>,
    at: usize,
}

/// A load about to be sent.
struct Trip {
    node: NodeId,
    keys: Vec<Bytes>,
    berths: Vec<Berth>,
    landing: watch::Sender<Option<Cargo>>,
}

impl Loading {
    /// What the key held at a moment after the load was sent. `None`: it is not known.
    pub(crate) async fn landed(mut self) -> Option<Arc<Held>> {
        let cargo = self.landed.wait_for(Option::is_some).await.ok()?;
        cargo.as_ref()?[self.at].clone()
    }
}

/// Loads what is wanted, or joins who does already. `None` for what cannot be loaded now.
pub(crate) fn load(core: &Arc<Core>, wanted: &[Wanted]) -> Vec<Option<Loading>> {
    let Some(table) = core.tables.newest() else { return wanted.iter().map(|_| None).collect() };
    let near = &core.near;
    near.counts.misses.fetch_add(wanted.len() as u64, Ordering::Relaxed);
    let shelf = near.shelf(&table);
    // Before anything is sent.
    let now = near.moment(Instant::now());
    let mut trips = Vec::new();
    let mut under_way = shelf.trips.0.lock();
    let loadings = wanted.iter().map(|wanted| {
        let known = under_way.get(&wanted.key).filter(|berth| berth.may_be_joined(near, now));
        if let Some(berth) = known {
            near.counts.joined.fetch_add(1, Ordering::Relaxed);
            return Some(berth.loading());
        }
        if under_way.len() >= KEYS_COUNT_MAX {
            return None;
        }
        let followed = correspondent::follow(core, shelf, &table, (wanted.slot, wanted.node), now)?;
        let berth = board(&mut trips, wanted, followed, shelf.hash_seed, now)?;
        under_way.insert(wanted.key.clone(), berth.clone());
        Some(berth.loading())
    });
    let loadings = loadings.collect();
    drop(under_way);
    for trip in trips {
        near.counts.calls.fetch_add(1, Ordering::Relaxed);
        depart(core, shelf, &table, trip);
    }
    loadings
}

/// Puts a key into a load to its node.
fn board(
    trips: &mut Vec<Trip>,
    wanted: &Wanted,
    followed: Arc<Followed>,
    hash_seed: u64,
    now: Moment,
) -> Option<Berth> {
    let Wanted { key, slot, node } = wanted;
    let ticket = followed.feed.begin(*slot, KeyHash::of(key, hash_seed), now)?;
    let has_room = |trip: &Trip| trip.node == *node && trip.keys.len() < message::KEYS_COUNT_MAX;
    let trip = match trips.iter().position(has_room) {
        Some(trip) => &mut trips[trip],
        None => {
            let (landing, _) = watch::channel(None);
            trips.push(Trip { node: *node, keys: Vec::new(), berths: Vec::new(), landing });
            trips.last_mut().expect("it was just put there")
        }
    };
    let (landed, at) = (trip.landing.subscribe(), trip.keys.len());
    let berth = Berth { sent: now, ticket, followed, landed, at };
    trip.keys.push(key.clone());
    trip.berths.push(berth.clone());
    Some(berth)
}

/// Sends a load, and takes what comes in a task of its own: who waits for it may leave, and others wait too.
fn depart(core: &Arc<Core>, shelf: &Arc<Shelf>, table: &Table, trip: Trip) {
    let member = table.members.get(&trip.node);
    let call = member.map(|member| {
        let to = Target { node: trip.node, addr: member.endpoints.peer };
        let body = message::encode_load(shelf.copies.value_bytes_max(), &trip.keys);
        let by = Instant::now() + LOAD_PATIENCE;
        core.peers.call(to, Lane::Bulk, Kind::Load.number(), body, by)
    });
    let shelf = Arc::clone(shelf);
    core.tasks.spawn(async move {
        let answer = match call {
            Some(call) => call.await.ok(),
            None => None,
        };
        shelf.arrive(trip, answer);
    });
}

impl Shelf {
    fn arrive(&self, trip: Trip, answer: Option<Bytes>) {
        let count = trip.keys.len();
        let loaded = answer.and_then(|answer| message::decode_loaded(answer, count));
        let loaded = loaded.unwrap_or_else(|| vec![Loaded::NotHere; count]);
        let landed = trip.keys.iter().zip(&trip.berths).zip(loaded);
        let cargo = landed.map(|((key, berth), loaded)| self.take(key, berth, loaded)).collect();
        let mut under_way = self.trips.0.lock();
        for key in &trip.keys {
            let is_ours = |berth: &Berth| berth.landed.same_channel(&trip.berths[0].landed);
            if under_way.get(key).is_some_and(is_ours) {
                under_way.remove(key);
            }
        }
        drop(under_way);
        trip.landing.send_replace(Some(cargo));
    }

    /// Keeps a copy of what came, unless it may be old already; who waits for it may have it in any case.
    fn take(&self, key: &Bytes, berth: &Berth, loaded: Loaded) -> Option<Arc<Held>> {
        let (held, lives_for) = match loaded {
            Loaded::NotHere => return None,
            Loaded::Absent => (Held::Absent, None),
            Loaded::Unfit => (Held::Unfit, None),
            Loaded::Value { lives_for, value } => (Held::Value(value.as_ref().into()), lives_for),
        };
        let held = Arc::new(held);
        if let Some(mark) = berth.followed.feed.keep(berth.ticket, lives_for) {
            let followed = Arc::clone(&berth.followed);
            self.copies.put(key.clone(), Copy { held: Arc::clone(&held), mark, followed });
        }
        Some(held)
    }
}

impl Berth {
    fn may_be_joined(&self, near: &Near, now: Moment) -> bool {
        now <= self.sent.after(near.bound) && self.followed.feed.keep(self.ticket, None).is_some()
    }

    fn loading(&self) -> Loading {
        Loading { landed: self.landed.clone(), at: self.at }
    }
}
