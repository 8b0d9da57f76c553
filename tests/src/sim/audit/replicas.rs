//! At rest all replicas of a partition hold the same values, and each counts right what they take.
//!
//! Replicas may disagree about absence as long as an expired key is not swept, and never about a value (the
//! design's section 1). A count that drifts from a recount makes one replica evict what another keeps.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use scatterhoard_replication::probe::{Event, Founded};
use scatterhoard_ring::ReplicaId;
use scatterhoard_store::{DeadlineForm, Read, Reply, Store, UnixMillis};

use super::{Whose, name};

/// The stores of all replicas that are open.
#[derive(Default)]
pub(super) struct Replicas {
    stores: HashMap<(Founded, ReplicaId), (Whose, Weak<dyn Any + Send + Sync>)>,
}

type Replica = (ReplicaId, Whose, Arc<Mutex<Store>>);
type Contents = BTreeMap<Vec<u8>, (Vec<u8>, i64)>;

impl Replicas {
    pub(super) fn saw(&mut self, whose: Whose, event: &Event<'_>) {
        match event {
            Event::Holds { of, replica, state } => {
                self.stores.insert((*of, *replica), (whose, Arc::downgrade(state)));
            }
            Event::Dropped { of, replica } => {
                self.stores.remove(&(*of, *replica));
            }
            _ => {}
        }
    }

    pub(super) fn compare(&self, is_live: impl Fn(Whose) -> bool) -> Result<(), String> {
        let mut stores: BTreeMap<Founded, Vec<Replica>> = BTreeMap::new();
        for (&(of, replica), (whose, state)) in &self.stores {
            let store = state.upgrade().and_then(|it| it.downcast::<Mutex<Store>>().ok());
            if let Some(store) = store.filter(|_| is_live(*whose)) {
                stores.entry(of).or_default().push((replica, *whose, store));
            }
        }
        for (of, mut replicas) in stores {
            replicas.sort_by_key(|(replica, whose, _)| (*whose, *replica));
            let now = replicas.iter().map(|(_, _, store)| store.lock().stamp()).max();
            let mut first: Option<(Whose, Contents)> = None;
            for (_, whose, store) in &replicas {
                let store = store.lock();
                if store.tally() != store.recount() {
                    let (counted, is) = (store.tally(), store.recount());
                    return Err(format!("{}: {whose} counts {counted:?}, not {is:?}", name(of)));
                }
                let held = contents(&store, now.unwrap_or(store.stamp()));
                match &first {
                    None => first = Some((*whose, held)),
                    Some((_, expected)) if *expected == held => {}
                    Some((other, expected)) => {
                        let key = differing(expected, &held);
                        return Err(format!("{}: {other} and {whose} differ in {key}", name(of)));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Every key that has not expired, with its value and its deadline.
fn contents(store: &Store, now: UnixMillis) -> Contents {
    let keys = store.keys(&|_| true, now, usize::MAX);
    let entry = |key: &[u8]| {
        let slot = scatterhoard_ring::Slot::of(key);
        let value = match store.read(slot, &Read::Get { key }, now) {
            Reply::Bulk(value) => value.into_owned(),
            other => format!("{other:?}").into_bytes(),
        };
        let form = DeadlineForm::AtMilli;
        let deadline = match store.read(slot, &Read::Deadline { key, form }, now) {
            Reply::Int(at) => at,
            other => unreachable!("a deadline is a number, not {other:?}"),
        };
        (key.to_vec(), (value, deadline))
    };
    keys.into_iter().map(entry).collect()
}

fn differing(one: &Contents, other: &Contents) -> String {
    let keys = one.keys().chain(other.keys());
    let mut differing = keys.filter(|&key| one.get(key) != other.get(key));
    let Some(key) = differing.next() else { return "nothing".to_owned() };
    let told = |held: &Contents| match held.get(key) {
        Some((value, deadline)) => format!("{:.60} until {deadline}", value.escape_ascii()),
        None => "nothing".to_owned(),
    };
    format!("{}: {} and {}", key.escape_ascii(), told(one), told(other))
}
