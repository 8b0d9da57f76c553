//! Random histories against a model of a few lines.

use std::collections::BTreeMap;

use proptest::prelude::*;
use scatterhoard_store::{Expiry, Reply, SetAnswer, Store, UnixMillis, When, WhenExpire, Write};

use crate::partition::{Partition, SEED, VALUE_BYTES_MAX, contents, slots_around};

/// Something that happens to a partition.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Write(Change),
    Wait(u64),
    Stamp,
    Sweep(usize),
}

/// A write by the numbers of its keys.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Set(u8, Vec<u8>, Expiry, When<'static>),
    SetPair(u8, u8, Vec<u8>),
    SetPairIfAbsent(u8, u8, Vec<u8>),
    Take(u8),
    Add(u8, i64),
    Append(u8, Vec<u8>),
    SetRange(u8, u32, Vec<u8>),
    Delete(u8, u8),
    Expire(u8, u64, WhenExpire),
    Persist(u8),
    Rename(u8, u8, bool),
    Copy(u8, u8, bool),
}

impl Change {
    /// The write, with the keys that have these numbers.
    pub(crate) fn with<'a>(&'a self, keys: &'a [Vec<u8>]) -> Write<'a> {
        let key = |number: &u8| &keys[usize::from(*number) % keys.len()][..];
        match self {
            Self::Set(k, value, expiry, when) => {
                let (expiry, when, answer) = (*expiry, *when, SetAnswer::Before);
                Write::Set { key: key(k), value, expiry, when, answer }
            }
            Self::SetPair(k, l, value) => {
                Write::SetMany { pairs: vec![(key(k), value), (key(l), b"second")] }
            }
            Self::SetPairIfAbsent(k, l, value) => {
                Write::SetManyIfAbsent { pairs: vec![(key(k), value), (key(l), b"second")] }
            }
            Self::Take(k) => Write::GetDelete { key: key(k) },
            Self::Add(k, delta) => Write::Add { key: key(k), delta: *delta },
            Self::Append(k, value) => Write::Append { key: key(k), value },
            Self::SetRange(k, offset, value) => {
                Write::SetRange { key: key(k), offset: *offset, value }
            }
            Self::Delete(k, l) => Write::Delete { keys: vec![key(k), key(l)] },
            Self::Expire(k, millis, when) => {
                Write::Expire { key: key(k), expiry: Expiry::After(*millis), when: *when }
            }
            Self::Persist(k) => Write::Persist { key: key(k) },
            Self::Rename(k, l, only_if_absent) => {
                Write::Rename { from: key(k), to: key(l), only_if_absent: *only_if_absent }
            }
            Self::Copy(k, l, replace) => {
                Write::Copy { from: key(k), to: key(l), replace: *replace }
            }
        }
    }
}

/// A value that keys often have, so that it is there when it is compared with.
const OFTEN: &[u8] = b"7";

pub(crate) fn changes(keys: u8, value_bytes: usize) -> impl Strategy<Value = Change> {
    let key = || 0..keys;
    let value = move || {
        prop_oneof![
            Just(OFTEN.to_vec()),
            (-9..99_i64).prop_map(|number| number.to_string().into_bytes()),
            (any::<u8>(), 0..value_bytes).prop_map(|(byte, length)| vec![byte; length]),
        ]
    };
    let expiry = prop_oneof![
        3 => Just(Expiry::Clear),
        1 => Just(Expiry::Keep),
        1 => (0..3000_u64).prop_map(Expiry::After),
        1 => (0..2000_u64).prop_map(|m| Expiry::At(UnixMillis::new(1_700_000_000_000 + m))),
    ];
    let when = prop_oneof![
        3 => Just(When::Always),
        1 => Just(When::Absent),
        1 => Just(When::Present),
        1 => Just(When::Equal(OFTEN)),
    ];
    let when_expire = prop_oneof![
        Just(WhenExpire::Always),
        Just(WhenExpire::Absent),
        Just(WhenExpire::Present),
        Just(WhenExpire::Later),
        Just(WhenExpire::Earlier),
        Just(WhenExpire::PresentEarlier),
    ];
    prop_oneof![
        6 => (key(), value(), expiry, when).prop_map(|(k, v, e, w)| Change::Set(k, v, e, w)),
        1 => (key(), key(), value()).prop_map(|(k, l, v)| Change::SetPair(k, l, v)),
        1 => (key(), key(), value()).prop_map(|(k, l, v)| Change::SetPairIfAbsent(k, l, v)),
        1 => key().prop_map(Change::Take),
        2 => (key(), -5..5_i64).prop_map(|(k, d)| Change::Add(k, d)),
        2 => (key(), value()).prop_map(|(k, v)| Change::Append(k, v)),
        2 => (key(), 0..300_u32, value()).prop_map(|(k, o, v)| Change::SetRange(k, o, v)),
        2 => (key(), key()).prop_map(|(k, l)| Change::Delete(k, l)),
        2 => (key(), 0..3000_u64, when_expire).prop_map(|(k, m, w)| Change::Expire(k, m, w)),
        1 => key().prop_map(Change::Persist),
        2 => (key(), key(), any::<bool>()).prop_map(|(k, l, o)| Change::Rename(k, l, o)),
        2 => (key(), key(), any::<bool>()).prop_map(|(k, l, r)| Change::Copy(k, l, r)),
    ]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        12 => changes(8, 200).prop_map(Event::Write),
        2 => (0..1500_u64).prop_map(Event::Wait),
        1 => Just(Event::Stamp),
        1 => (0..5_usize).prop_map(Event::Sweep),
    ];
    proptest::collection::vec(event, 1..80)
}

fn keys() -> Vec<Vec<u8>> {
    (0..8).map(|number| format!("{{t}}{number}").into_bytes()).collect()
}

/// What should be there: value and deadline of each key.
#[derive(Default)]
struct Model(BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>);

impl Model {
    fn forget(&mut self, now: u64) {
        self.0.retain(|_, (_, deadline)| deadline.is_none_or(|deadline| deadline > now));
    }

    fn deadline(&self, key: &[u8]) -> Option<u64> {
        self.0.get(key).and_then(|(_, deadline)| *deadline)
    }

    fn apply(&mut self, write: &Write<'_>, now: u64) {
        self.forget(now);
        match write {
            Write::Set { .. } | Write::SetMany { .. } | Write::SetManyIfAbsent { .. } => {
                self.set(write, now);
            }
            Write::Add { .. } | Write::Append { .. } | Write::SetRange { .. } => self.edit(write),
            Write::Expire { .. } | Write::Persist { .. } => self.expire(write, now),
            Write::GetDelete { key } => {
                self.0.remove(*key);
            }
            Write::Delete { keys } => self.0.retain(|key, _| !keys.contains(&&key[..])),
            Write::Rename { from, to, only_if_absent } => {
                let may = from != to && !(*only_if_absent && self.0.contains_key(*to));
                if let Some(entry) = may.then(|| self.0.remove(*from)).flatten() {
                    self.0.insert(to.to_vec(), entry);
                }
            }
            Write::Copy { from, to, replace } => {
                let may = *replace || !self.0.contains_key(*to);
                if let Some(entry) = self.0.get(*from).filter(|_| may).cloned() {
                    self.0.insert(to.to_vec(), entry);
                }
            }
            Write::GetExpire { .. }
            | Write::AddFloat { .. }
            | Write::Evict { .. }
            | Write::SetWith { .. }
            | Write::Lease { .. }
            | Write::Fill { .. }
            | Write::Release { .. }
            | Write::ReserveFilter { .. }
            | Write::AddToFilter { .. } => {
                unreachable!("not among the random changes")
            }
        }
        self.forget(now);
    }

    fn set(&mut self, write: &Write<'_>, now: u64) {
        match write {
            Write::Set { key, value, expiry, when, .. } => {
                let deadline = match expiry {
                    Expiry::Clear => None,
                    Expiry::Keep => self.deadline(key),
                    Expiry::At(time) => Some(time.millis()),
                    Expiry::After(millis) => Some(now + millis),
                };
                let may = match when {
                    When::Always => true,
                    When::Absent => !self.0.contains_key(*key),
                    When::Present => self.0.contains_key(*key),
                    When::Equal(value) => self.0.get(*key).is_some_and(|(held, _)| held == value),
                };
                if may {
                    self.0.insert(key.to_vec(), (value.to_vec(), deadline));
                }
            }
            Write::SetManyIfAbsent { pairs }
                if pairs.iter().any(|(key, _)| self.0.contains_key(*key)) => {}
            Write::SetMany { pairs } | Write::SetManyIfAbsent { pairs } => {
                for (key, value) in pairs {
                    self.0.insert(key.to_vec(), (value.to_vec(), None));
                }
            }
            other => unreachable!("{other:?} does not set"),
        }
    }

    fn edit(&mut self, write: &Write<'_>) {
        match write {
            Write::Add { key, delta } => {
                let entry = self.0.get(*key).cloned().unwrap_or((b"0".to_vec(), None));
                let text = String::from_utf8(entry.0).unwrap_or_default();
                if let Some(number) = text.parse::<i64>().ok().filter(|n| n.to_string() == text) {
                    let sum = (number + delta).to_string().into_bytes();
                    self.0.insert(key.to_vec(), (sum, entry.1));
                }
            }
            Write::Append { key, value } => {
                self.0.entry(key.to_vec()).or_default().0.extend_from_slice(value);
            }
            Write::SetRange { value: b"", .. } => {}
            Write::SetRange { key, offset, value } => {
                let (start, end) = (*offset as usize, *offset as usize + value.len());
                let bytes = &mut self.0.entry(key.to_vec()).or_default().0;
                bytes.resize(bytes.len().max(end), 0);
                bytes[start..end].copy_from_slice(value);
            }
            other => unreachable!("{other:?} does not edit"),
        }
    }

    fn expire(&mut self, write: &Write<'_>, now: u64) {
        match write {
            Write::Expire { key, expiry: Expiry::After(millis), when } => {
                let Some((_, deadline)) = self.0.get_mut(*key) else { return };
                let new = now + millis;
                let may = match when {
                    WhenExpire::Always => true,
                    WhenExpire::Absent => deadline.is_none(),
                    WhenExpire::Present => deadline.is_some(),
                    WhenExpire::Later => deadline.is_some_and(|old| new > old),
                    WhenExpire::Earlier => deadline.is_none_or(|old| new < old),
                    WhenExpire::PresentEarlier => deadline.is_some_and(|old| new < old),
                };
                if may {
                    *deadline = Some(new);
                }
            }
            Write::Persist { key } => {
                self.0.entry(key.to_vec()).and_modify(|entry| entry.1 = None);
            }
            other => unreachable!("{other:?} changes no deadline"),
        }
    }
}

fn same_as_model(partition: &Partition, model: &Model) {
    let found: Vec<_> = contents(&partition.store, partition.now)
        .into_iter()
        .map(|(key, told)| (key, told[0].clone(), told[1].clone()))
        .collect();
    let expected: Vec<_> = model
        .0
        .iter()
        .map(|(key, (value, deadline))| {
            let deadline = deadline.map_or(-1, |deadline| deadline as i64);
            (key.clone(), Reply::Bulk(value.clone().into()), Reply::Int(deadline))
        })
        .collect();
    assert_eq!(found, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_store_is_what_a_map_would_be(events in events()) {
        let (mut partition, mut model, keys) = (Partition::of(slots_around(b"t")), Model::default(), keys());
        for event in events {
            match event {
                Event::Write(change) => {
                    let write = change.with(&keys);
                    model.apply(&write, partition.now.millis());
                    partition.write(write);
                }
                Event::Wait(millis) => partition.wait(millis),
                Event::Stamp => partition.stamp(),
                Event::Sweep(budget) => { partition.store.sweep(budget); }
            }
            model.forget(partition.now.millis());
            same_as_model(&partition, &model);
            prop_assert_eq!(partition.store.tally(), partition.store.recount());
        }
    }

    #[test]
    fn replicas_agree_however_they_sweep_and_however_often_they_apply(events in events()) {
        let (mut leader, keys) = (Partition::of(slots_around(b"t")), keys());
        let mut follower = Store::new(slots_around(b"t"), SEED, VALUE_BYTES_MAX);
        for event in events {
            match event {
                Event::Write(change) => { leader.write(change.with(&keys)); }
                Event::Wait(millis) => leader.wait(millis),
                Event::Stamp => leader.stamp(),
                // Only the follower sweeps, and it applies its last entry a second time.
                Event::Sweep(budget) => {
                    follower.sweep(budget);
                    if let Some(entry) = leader.log.last() {
                        let before = contents(&follower, leader.now);
                        follower.apply(leader.log.len() as u64, entry, None).unwrap();
                        prop_assert_eq!(contents(&follower, leader.now), before);
                    }
                    continue;
                }
            }
            if let Some(entry) = leader.log.last() {
                follower.apply(leader.log.len() as u64, entry, None).unwrap();
            }
            prop_assert_eq!(contents(&follower, leader.now), contents(&leader.store, leader.now));
        }
    }
}
