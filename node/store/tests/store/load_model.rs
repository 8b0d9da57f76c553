//! Random histories of loads against a model that forgets eagerly what the store forgets when it is read.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use scatterhoard_ring::Slot;
use scatterhoard_store::{
    Content, Expiry, Lookup, Reply, SetAnswer, Store, Token, Wants, When, WhenExpire, Write,
};

use crate::loads::terms;
use crate::partition::{Partition, SEED, VALUE_BYTES_MAX, contents, set, slots_around};

const KEYS_COUNT: u8 = 6;
const TAGS: [&[u8]; 3] = [b"a", b"b", b"c"];

#[derive(Clone, Debug)]
enum Event {
    Set(u8),
    SetWith(u8, Given, When<'static>),
    Append(u8),
    Delete(u8),
    Expire(u8, u64),
    Persist(u8),
    Rename(u8, u8),
    Copy(u8, u8),
    Lease(u8, u64, Wants),
    /// By one of all leases that were ever given, counted from the last.
    Fill(usize, Given),
    Release(usize),
    InvalidateTag(usize),
    InvalidatePrefix(u8),
    Flush,
    Wait(u64),
    Sweep(usize),
    /// Goes on with a store that replayed the log.
    Replay,
    /// Takes a piece of a snapshot, or begins one; goes on with it once it is whole.
    Receive,
}

#[derive(Clone, Debug)]
struct Given {
    /// Nothing: the entry is negative.
    value: Option<Vec<u8>>,
    millis: Option<u64>,
    soft_millis: Option<u64>,
    tags: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
struct Held {
    value: Option<Vec<u8>>,
    deadline: Option<u64>,
    soft: Option<u64>,
    tags: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
struct Lease {
    token: u64,
    until: u64,
    outdated: BTreeSet<usize>,
}

#[derive(Default)]
struct Model {
    held: BTreeMap<u8, Held>,
    leases: BTreeMap<u8, Lease>,
    given: Vec<(u8, u64)>,
}

impl Model {
    fn forget(&mut self, now: u64) {
        self.held.retain(|_, it| it.deadline.is_none_or(|deadline| deadline > now));
        self.leases.retain(|_, it| it.until > now);
    }

    fn value(&self, key: u8) -> Option<&Held> {
        self.held.get(&key).filter(|it| it.value.is_some())
    }

    fn put(&mut self, key: u8, held: Held) {
        self.leases.remove(&key);
        self.held.insert(key, held);
    }

    fn put_given(&mut self, key: u8, given: Given, now: u64) {
        let after = |millis: u64| now + millis;
        let (deadline, soft) = (given.millis.map(after), given.soft_millis.map(after));
        self.put(key, Held { value: given.value, deadline, soft, tags: given.tags });
    }

    fn remove(&mut self, key: u8) {
        self.leases.remove(&key);
        self.held.remove(&key);
    }

    fn lookup(&self, key: u8, now: u64) -> Lookup<'_> {
        let loading_ms = self.leases.get(&key).map(|lease| lease.until - now);
        let Some(held) = self.held.get(&key) else {
            return loading_ms.map_or(Lookup::Missing, |left_ms| Lookup::Loading { left_ms });
        };
        let left = |until: u64| until.saturating_sub(now);
        let (lives_ms, soft_ms) = (held.deadline.map(left), held.soft.map(left));
        match (&held.value, soft_ms) {
            (None, _) => Lookup::Negative { lives_ms },
            (Some(value), Some(0)) => Lookup::Stale { value, lives_ms, loading_ms },
            (Some(value), _) => {
                let fresh_ms = soft_ms.into_iter().chain(lives_ms).min();
                Lookup::Value { value, fresh_ms, lives_ms }
            }
        }
    }

    fn rename(&mut self, from: u8, to: u8) {
        if from != to
            && let Some(held) = self.value(from).cloned()
        {
            self.remove(from);
            self.put(to, held);
        }
    }

    /// Changes a value, if there is one.
    fn change(&mut self, key: u8, change: impl FnOnce(&mut Held)) {
        if let Some(mut held) = self.value(key).cloned() {
            change(&mut held);
            self.put(key, held);
        }
    }

    fn is_live(&self, key: u8, token: u64) -> bool {
        self.leases.get(&key).is_some_and(|lease| lease.token == token)
    }

    fn invalidate(&mut self, tag: usize) {
        self.held.retain(|_, it| !it.tags.contains(&tag));
        self.leases.values_mut().for_each(|it| {
            it.outdated.insert(tag);
        });
    }
}

fn key(number: u8) -> Vec<u8> {
    format!("{{k}}{number}").into_bytes()
}

/// The partition, the model, and a replica that is sent a snapshot.
struct World {
    p: Partition,
    model: Model,
    receiver: Option<(Store, u64, usize)>,
    tokens: u64,
}

impl World {
    #[expect(clippy::too_many_lines, reason = "one short arm for each kind")]
    fn happen(&mut self, event: Event) {
        let now = self.p.now.millis();
        self.model.forget(now);
        match event {
            Event::Set(k) => {
                self.p.write(set(&key(k), b"plain"));
                let plain = Held {
                    value: Some(b"plain".to_vec()),
                    deadline: None,
                    soft: None,
                    tags: BTreeSet::new(),
                };
                self.model.put(k, plain);
            }
            Event::SetWith(k, given, when) => self.set_with(k, given, when, now),
            Event::Append(k) => {
                self.p.write(Write::Append { key: &key(k), value: b"+" });
                let mut held = self.model.value(k).cloned().unwrap_or(Held {
                    value: Some(Vec::new()),
                    deadline: None,
                    soft: None,
                    tags: BTreeSet::new(),
                });
                held.value.as_mut().expect("a value").push(b'+');
                self.model.put(k, held);
            }
            Event::Delete(k) => {
                self.p.write(Write::Delete { keys: vec![&key(k)] });
                self.model.remove(k);
            }
            Event::Expire(k, millis) => {
                let (expiry, when) = (Expiry::After(millis), WhenExpire::Always);
                self.p.write(Write::Expire { key: &key(k), expiry, when });
                self.model.change(k, |held| held.deadline = Some(now + millis));
            }
            Event::Persist(k) => {
                self.p.write(Write::Persist { key: &key(k) });
                if self.model.value(k).is_some_and(|held| held.deadline.is_some()) {
                    self.model.change(k, |held| held.deadline = None);
                }
            }
            Event::Rename(k, l) => {
                let (from, to) = (key(k), key(l));
                self.p.write(Write::Rename { from: &from, to: &to, only_if_absent: false });
                self.model.rename(k, l);
            }
            Event::Copy(k, l) => {
                let (from, to) = (key(k), key(l));
                self.p.write(Write::Copy { from: &from, to: &to, replace: true });
                if k != l
                    && let Some(held) = self.model.value(k).cloned()
                {
                    self.model.put(l, held);
                }
            }
            Event::Lease(k, millis, wants) => self.lease(k, millis, wants, now),
            Event::Fill(back, given) => self.fill(back, given, now),
            Event::Release(back) => {
                if let Some((k, token)) = self.given(back) {
                    let release = Write::Release { key: &key(k), token: Token(token) };
                    let was_live = self.model.is_live(k, token);
                    assert_eq!(self.p.write(release), Reply::Int(was_live.into()));
                    if was_live {
                        self.model.leases.remove(&k);
                    }
                }
            }
            Event::InvalidateTag(tag) => {
                self.p.invalidate_tag(TAGS[tag]);
                self.model.invalidate(tag);
            }
            Event::InvalidatePrefix(k) => {
                let there = self.model.value(k).is_some();
                let removed = self.p.invalidate_prefix(&key(k));
                assert_eq!(removed, [Reply::Int(there.into())]);
                self.model.remove(k);
            }
            Event::Flush => {
                self.p.flush(self.p.store.slots());
                self.model = Model { given: self.model.given.clone(), ..Model::default() };
            }
            Event::Wait(millis) => self.p.wait(millis),
            Event::Sweep(budget) => {
                self.p.store.sweep(budget);
            }
            Event::Replay => self.replay(),
            Event::Receive => self.receive(),
        }
    }

    fn set_with(&mut self, k: u8, given: Given, when: When<'_>, now: u64) {
        let (content, tags) = (content_of(&given), tags_of(&given));
        let terms = terms(given.millis, given.soft_millis, tags);
        let may = match when {
            When::Always => true,
            When::Absent => self.model.value(k).is_none(),
            When::Present => self.model.value(k).is_some(),
            When::Equal(value) => {
                self.model.value(k).is_some_and(|it| it.value.as_deref() == Some(value))
            }
        };
        let reply = self.p.write(Write::SetWith {
            key: &key(k),
            content,
            terms,
            when,
            answer: SetAnswer::Done,
        });
        assert_eq!(reply, if may { Reply::Ok } else { Reply::Nil });
        if may {
            self.model.put_given(k, given, now);
        }
    }

    fn lease(&mut self, k: u8, millis: u64, wants: Wants, now: u64) {
        self.tokens += 1;
        let token = Token(self.tokens);
        let reply = self.p.write(Write::Lease { key: &key(k), token, millis, wants });
        let expected = self.model.lookup(k, now).answer(wants).map(Reply::into_owned);
        match expected {
            Some(expected) => assert_eq!(reply, expected),
            None => {
                let Reply::Tuple(parts) = &reply else { panic!("{reply:?} gives no lease") };
                let told = Reply::Bulk(token.0.to_string().into_bytes().into());
                assert!(parts.contains(&told), "{parts:?}");
                assert!(!self.model.leases.contains_key(&k), "one live token for each key");
                let lease =
                    Lease { token: token.0, until: now + millis, outdated: BTreeSet::new() };
                self.model.leases.insert(k, lease);
                self.model.given.push((k, token.0));
            }
        }
    }

    fn fill(&mut self, back: usize, given: Given, now: u64) {
        let Some((k, token)) = self.given(back) else { return };
        let is_live = self.model.is_live(k, token);
        let too_old = |lease: &Lease| !lease.outdated.is_disjoint(&given.tags);
        let may = is_live && !self.model.leases.get(&k).is_some_and(too_old);
        let (content, tags) = (content_of(&given), tags_of(&given));
        let terms = terms(given.millis, given.soft_millis, tags);
        let fill = Write::Fill { key: &key(k), token: Token(token), content, terms };
        assert_eq!(self.p.write(fill), Reply::Int(may.into()));
        if may {
            self.model.put_given(k, given, now);
        } else if is_live {
            self.model.leases.remove(&k);
        }
    }

    fn given(&self, back: usize) -> Option<(u8, u64)> {
        self.model.given.iter().rev().nth(back).copied()
    }

    fn replay(&mut self) {
        let mut store = Store::new(self.p.store.slots(), SEED, VALUE_BYTES_MAX);
        for (index, entry) in (1..).zip(&self.p.log) {
            store.apply(index, entry, None).expect("we wrote it");
        }
        self.p.store = store;
        self.receiver = None;
    }

    fn receive(&mut self) {
        let slots = self.p.store.slots();
        let (store, position, start) = self
            .receiver
            .get_or_insert_with(|| (Store::new(slots, SEED, VALUE_BYTES_MAX), 0, self.p.log.len()));
        let mut piece = Vec::new();
        let next = self.p.store.piece(*position, &mut piece);
        store.install_piece(&piece).expect("we wrote it");
        match next {
            Some(next) => *position = next,
            None => {
                for (index, entry) in self.p.log.iter().enumerate().skip(*start) {
                    store.apply(index as u64 + 1, entry, None).expect("we wrote it");
                }
                self.p.store = self.receiver.take().expect("it was there").0;
            }
        }
    }

    fn check(&mut self) {
        let now = self.p.now.millis();
        self.model.forget(now);
        for k in 0..KEYS_COUNT {
            let found = self.p.store.lookup(Slot::of(b"k"), &key(k), self.p.now);
            assert_eq!(found, self.model.lookup(k, now), "key {k}");
        }
        let shown = contents(&self.p.store, self.p.now).into_iter().map(|(key, _)| key);
        let expected = (0..KEYS_COUNT).filter(|&k| self.model.value(k).is_some()).map(key);
        assert_eq!(shown.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        assert_eq!(self.p.store.tally(), self.p.store.recount());
    }
}

fn content_of(given: &Given) -> Content<'_> {
    given.value.as_ref().map_or(Content::Negative, |value| Content::Value(value))
}

fn tags_of(given: &Given) -> Vec<&'static [u8]> {
    given.tags.iter().map(|&tag| TAGS[tag]).collect()
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let k = || 0..KEYS_COUNT;
    let millis = || 1..3000_u64;
    // Some so long that their slot is sent in several pieces.
    let value = prop_oneof![4 => Just(5_usize), 1 => Just(70_000)];
    let value = (any::<u8>(), value).prop_map(|(byte, length)| vec![byte; length]);
    let given = (
        proptest::option::weighted(0.8, value),
        proptest::option::of(millis()),
        proptest::option::of(0..2000_u64),
        proptest::collection::btree_set(0..TAGS.len(), 0..3),
    );
    let given = given.prop_map(|(value, millis, soft_millis, tags)| Given {
        value,
        millis,
        soft_millis,
        tags,
    });
    let given = given.boxed();
    let equal = Just(When::Equal(b"1"));
    let when = prop_oneof![Just(When::Always), Just(When::Absent), Just(When::Present), equal];
    let wants = prop_oneof![Just(Wants::Lease), Just(Wants::LeaseOrStale), Just(Wants::Look)];
    let event = prop_oneof![
        2 => k().prop_map(Event::Set),
        4 => (k(), given.clone(), when).prop_map(|(k, g, w)| Event::SetWith(k, g, w)),
        1 => k().prop_map(Event::Append),
        2 => k().prop_map(Event::Delete),
        1 => (k(), millis()).prop_map(|(k, m)| Event::Expire(k, m)),
        1 => k().prop_map(Event::Persist),
        1 => (k(), k()).prop_map(|(k, l)| Event::Rename(k, l)),
        1 => (k(), k()).prop_map(|(k, l)| Event::Copy(k, l)),
        9 => (k(), millis(), wants).prop_map(|(k, m, w)| Event::Lease(k, m, w)),
        6 => (0..4_usize, given).prop_map(|(back, g)| Event::Fill(back, g)),
        1 => (0..4_usize).prop_map(Event::Release),
        4 => (0..TAGS.len()).prop_map(Event::InvalidateTag),
        1 => k().prop_map(Event::InvalidatePrefix),
        1 => Just(Event::Flush),
        3 => (0..1000_u64).prop_map(Event::Wait),
        2 => (0..9_usize).prop_map(Event::Sweep),
        1 => Just(Event::Replay),
        4 => Just(Event::Receive),
    ];
    proptest::collection::vec(event, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_token_fills_once_and_only_if_nothing_happened_whoever_leads(events in events()) {
        let p = Partition::of(slots_around(b"k"));
        let mut world = World { p, model: Model::default(), receiver: None, tokens: 0 };
        for event in events {
            world.happen(event);
            world.check();
        }
    }
}
