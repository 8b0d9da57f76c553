//! Stories of values that are loaded: leases, fills, soft deadlines, negative entries, tags.

use scatterhoard_ring::SlotRange;
use scatterhoard_store::{
    Content, DeadlineForm, Expiry, Lookup, OpError, Policy, Read, Reply, SetAnswer, Store,
    TAGS_COUNT_MAX, Terms, Token, UnixMillis, Wants, When, WhenExpire, Write,
};

use crate::partition::{Partition, SEED, VALUE_BYTES_MAX, set, slots_around};

const KEY: &[u8] = b"k";

pub(crate) fn terms(millis: Option<u64>, soft_millis: Option<u64>, tags: Vec<&[u8]>) -> Terms<'_> {
    Terms { expiry: millis.map_or(Expiry::Clear, Expiry::After), soft_millis, tags }
}

fn bulk(text: &str) -> Reply<'static> {
    Reply::Bulk(text.as_bytes().to_vec().into())
}

fn tuple<const N: usize>(parts: [Reply<'static>; N]) -> Reply<'static> {
    Reply::Tuple(parts.into())
}

fn partition() -> Partition {
    Partition::of(slots_around(KEY))
}

fn lease(p: &mut Partition, token: u64) -> Reply<'static> {
    p.write(Write::Lease { key: KEY, token: Token(token), millis: 1000, wants: Wants::Lease })
}

fn fill(p: &mut Partition, token: u64, value: &'static str, tags: Vec<&'static [u8]>) -> bool {
    let content = Content::Value(value.as_bytes());
    let terms = terms(None, None, tags);
    p.write(Write::Fill { key: KEY, token: Token(token), content, terms }) == Reply::Int(1)
}

fn set_with(p: &mut Partition, value: &'static str, terms: Terms<'static>) {
    let content = Content::Value(value.as_bytes());
    let when = When::Always;
    assert_eq!(
        p.write(Write::SetWith { key: KEY, content, terms, when, answer: SetAnswer::Done }),
        Reply::Ok
    );
}

fn look(p: &Partition, wants: Wants) -> Reply<'static> {
    p.read(KEY, Read::Lookup { key: KEY, wants }).into_owned()
}

#[test]
fn one_loads_and_the_others_wait_until_it_fills() {
    let mut p = partition();
    assert_eq!(look(&p, Wants::Lease), tuple([bulk("miss")]));
    assert_eq!(lease(&mut p, 7), tuple([bulk("load"), bulk("7"), Reply::Int(1000)]));
    p.wait(400);
    assert_eq!(lease(&mut p, 8), tuple([bulk("wait"), Reply::Int(600)]));
    assert_eq!(look(&p, Wants::Look), tuple([bulk("wait"), Reply::Int(600)]));
    assert!(!fill(&mut p, 8, "wrong", vec![]));
    assert!(fill(&mut p, 7, "v", vec![]));
    let value = tuple([bulk("value"), bulk("v"), Reply::Int(-1), Reply::Int(-1)]);
    assert_eq!(look(&p, Wants::Lease), value);
    assert_eq!(lease(&mut p, 9), value, "whoever comes late is not told to load");
    assert!(!fill(&mut p, 7, "again", vec![]), "a token fills once");
    assert_eq!(p.get(KEY), Some(b"v".to_vec()));
}

#[test]
fn a_lease_ends_by_itself_and_so_does_its_token() {
    let mut p = partition();
    lease(&mut p, 7);
    assert!(p.store.bytes() > 0, "a lease is paid for");
    assert_eq!(p.store.keys_count(), 0);
    p.wait(1000);
    assert_eq!(look(&p, Wants::Look), tuple([bulk("miss")]));
    assert!(p.store.due(p.now));
    assert!(!fill(&mut p, 7, "late", vec![]));
    lease(&mut p, 8);
    assert!(!fill(&mut p, 7, "late", vec![]));
    assert!(fill(&mut p, 8, "v", vec![]));
    p.write(Write::Delete { keys: vec![KEY] });
    lease(&mut p, 9);
    p.wait(1000);
    p.stamp();
    p.store.sweep(10);
    assert_eq!(p.store.tally(), Store::new(slots_around(KEY), 0, 0).tally(), "nothing is left");
}

#[test]
fn who_gives_up_lets_the_next_load_at_once() {
    let mut p = partition();
    lease(&mut p, 7);
    assert_eq!(p.write(Write::Release { key: KEY, token: Token(8) }), Reply::Int(0));
    assert_eq!(p.write(Write::Release { key: KEY, token: Token(7) }), Reply::Int(1));
    assert_eq!(p.write(Write::Release { key: KEY, token: Token(7) }), Reply::Int(0));
    assert_eq!(lease(&mut p, 8), tuple([bulk("load"), bulk("8"), Reply::Int(1000)]));
}

#[test]
fn every_write_and_delete_of_the_key_voids_the_token() {
    let other: &[u8] = b"{k}other";
    let (expiry, when) = (Expiry::After(9), When::Always);
    let long_ago = Expiry::At(UnixMillis::new(1));
    let answer = SetAnswer::Done;
    let (content, terms_of_lay) = (Content::Negative, terms(Some(9), None, vec![]));
    let lay = Write::SetWith { key: KEY, content, terms: terms_of_lay, when, answer };
    let voiding: Vec<(Option<&str>, Write<'_>)> = vec![
        (None, set(KEY, b"w")),
        (None, Write::Set { key: KEY, value: b"w", expiry: long_ago, when, answer }),
        (None, Write::SetMany { pairs: vec![(other, b"w"), (KEY, b"w")] }),
        (None, Write::SetManyIfAbsent { pairs: vec![(KEY, b"w")] }),
        (None, Write::GetDelete { key: KEY }),
        (None, Write::Add { key: KEY, delta: 1 }),
        (None, Write::AddFloat { key: KEY, delta: 1.0 }),
        (None, Write::Append { key: KEY, value: b"w" }),
        (None, Write::SetRange { key: KEY, offset: 1, value: b"w" }),
        (None, Write::Delete { keys: vec![other, KEY] }),
        (None, Write::Evict { keys: vec![KEY] }),
        (None, Write::Rename { from: other, to: KEY, only_if_absent: false }),
        (None, Write::Copy { from: other, to: KEY, replace: false }),
        (
            None,
            Write::AddToFilter {
                key: KEY,
                items: vec![b"i"],
                form: scatterhoard_store::FilterForm::One,
            },
        ),
        (None, lay),
        (Some("5"), Write::GetExpire { key: KEY, expiry }),
        (Some("5"), Write::Expire { key: KEY, expiry, when: WhenExpire::Always }),
        (Some("5"), Write::Rename { from: KEY, to: other, only_if_absent: false }),
        (Some("5"), Write::Append { key: KEY, value: b"w" }),
        (Some("5"), Write::Delete { keys: vec![KEY] }),
    ];
    for (before, write) in voiding {
        let mut p = partition();
        p.set(other, b"o");
        if let Some(value) = before {
            set_with(&mut p, value, terms(None, Some(0), vec![]));
        }
        let given = lease(&mut p, 7);
        assert_eq!(given, tuple([bulk("load"), bulk("7"), Reply::Int(1000)]), "{write:?}");
        p.write(write.clone());
        assert!(!fill(&mut p, 7, "old", vec![]), "{write:?}");
        assert_eq!(p.store.tally(), p.store.recount());
    }
}

#[test]
fn what_changes_nothing_voids_nothing() {
    let (expiry, when) = (Expiry::After(9), WhenExpire::Always);
    let harmless = [
        Write::Expire { key: KEY, expiry, when },
        Write::Persist { key: KEY },
        Write::GetExpire { key: KEY, expiry },
        Write::Set {
            key: KEY,
            value: b"w",
            expiry: Expiry::Clear,
            when: When::Present,
            answer: SetAnswer::Done,
        },
        Write::Rename { from: KEY, to: b"{k}other", only_if_absent: false },
        Write::Delete { keys: vec![b"{k}other"] },
    ];
    for write in harmless {
        let mut p = partition();
        lease(&mut p, 7);
        p.write(write.clone());
        assert!(fill(&mut p, 7, "v", vec![]), "{write:?}");
    }
}

#[test]
fn flush_and_prefix_void_too() {
    let mut p = partition();
    lease(&mut p, 7);
    p.flush(slots_around(KEY));
    assert!(!fill(&mut p, 7, "old", vec![]));
    lease(&mut p, 8);
    p.set(b"{k}x", b"1");
    p.set(b"other{k}", b"1");
    assert_eq!(p.invalidate_prefix(b"{k"), [Reply::Int(1)]);
    assert!(p.get(b"{k}x").is_none() && p.get(b"other{k}").is_some());
    assert_eq!(p.invalidate_prefix(b"k"), [Reply::Int(0)]);
    assert!(!fill(&mut p, 8, "old", vec![]));
    assert_eq!(p.store.tally(), p.store.recount());
}

#[test]
fn past_the_soft_deadline_one_loads_and_the_rest_take_the_old_value() {
    let mut p = partition();
    set_with(&mut p, "old", terms(Some(5000), Some(1000), vec![]));
    let fresh = [bulk("value"), bulk("old"), Reply::Int(1000), Reply::Int(5000)];
    assert_eq!(look(&p, Wants::Look), tuple(fresh));
    p.wait(1000);
    let stale = |token| tuple([bulk("stale"), bulk("old"), token, Reply::Int(4000)]);
    assert_eq!(look(&p, Wants::Look), stale(Reply::Nil));
    assert_eq!(look(&p, Wants::LeaseOrStale), tuple([bulk("miss")]), "someone has to load");
    let wants = Wants::LeaseOrStale;
    let ask = |token| Write::Lease { key: KEY, token: Token(token), millis: 100, wants };
    assert_eq!(p.write(ask(7)), stale(bulk("7")));
    assert_eq!(p.write(ask(8)), stale(Reply::Nil));
    assert_eq!(look(&p, Wants::LeaseOrStale), stale(Reply::Nil));
    assert_eq!(look(&p, Wants::Lease), tuple([bulk("wait"), Reply::Int(100)]));
    assert_eq!(p.get(KEY), Some(b"old".to_vec()), "plain commands see it to its hard deadline");
    assert!(fill(&mut p, 7, "new", vec![]));
    assert_eq!(p.get(KEY), Some(b"new".to_vec()));
    set_with(&mut p, "old", terms(Some(50), Some(10), vec![]));
    p.wait(50);
    assert_eq!(look(&p, Wants::Look), tuple([bulk("miss")]), "never beyond the hard one");
}

#[test]
fn a_negative_entry_is_absent_to_all_but_who_asks_for_it() {
    let mut p = partition();
    lease(&mut p, 7);
    let content = Content::Negative;
    let terms = terms(Some(5000), None, vec![]);
    let filled = p.write(Write::Fill { key: KEY, token: Token(7), content, terms: terms.clone() });
    assert_eq!(filled, Reply::Int(1));
    let negative = tuple([bulk("negative"), Reply::Int(5000)]);
    assert_eq!(look(&p, Wants::LeaseOrStale), negative);
    assert_eq!(lease(&mut p, 8), negative);
    assert_eq!(p.get(KEY), None);
    assert_eq!(p.read(KEY, Read::Exists { keys: vec![KEY] }), Reply::Int(0));
    assert_eq!(p.read(KEY, Read::Type { key: KEY }), Reply::Status("none"));
    let form = DeadlineForm::MillisLeft;
    assert_eq!(p.read(KEY, Read::Deadline { key: KEY, form }), Reply::Int(-2));
    assert_eq!((p.store.keys_count(), p.store.expires_count()), (0, 0));
    assert!(p.store.keys(&|_| true, p.now, 9).is_empty());
    assert_eq!(p.store.random_key(1, p.now), None);
    let expire = Write::Expire { key: KEY, expiry: Expiry::Clear, when: WhenExpire::Always };
    assert_eq!(p.write(expire), Reply::Int(0));
    assert_eq!(look(&p, Wants::Look), negative, "what does nothing leaves it");
    assert_eq!(p.write(Write::Delete { keys: vec![KEY] }), Reply::Int(0));
    assert_eq!(look(&p, Wants::Look), tuple([bulk("miss")]));
    let lay = Write::SetWith {
        key: KEY,
        content,
        terms: terms.clone(),
        when: When::Always,
        answer: SetAnswer::Done,
    };
    p.write(lay.clone());
    assert_eq!(p.write(Write::Add { key: KEY, delta: 3 }), Reply::Int(3));
    assert_eq!(p.get(KEY), Some(b"3".to_vec()), "a plain write takes its place");
    p.write(lay);
    assert_eq!(p.store.tally(), p.store.recount());
    let mut roll = 0;
    let victims = p.store.victims(
        Policy::VolatileTtl,
        1,
        &mut || {
            roll += 1;
            roll
        },
        p.now,
    );
    assert_eq!(victims.len(), 1, "it may be evicted");
    p.wait(5000);
    p.stamp();
    assert!(p.store.sweep(9).is_done);
    assert_eq!(p.store.bytes(), 0);
}

#[test]
fn a_tag_makes_stale_whatever_was_written_before_with_it() {
    let mut p = partition();
    set_with(&mut p, "v", terms(None, None, vec![b"a", b"b"]));
    p.set(b"{k}plain", b"v");
    p.invalidate_tag(b"c");
    assert!(p.get(KEY).is_some());
    p.invalidate_tag(b"b");
    assert_eq!(p.get(KEY), None);
    assert_eq!(look(&p, Wants::Look), tuple([bulk("miss")]));
    assert_eq!(p.write(Write::Append { key: KEY, value: b"new" }), Reply::Int(3));
    set_with(&mut p, "w", terms(None, None, vec![b"b"]));
    assert_eq!(p.get(KEY), Some(b"w".to_vec()), "what is written after it is not");
    p.write(Write::Rename { from: KEY, to: b"{k}moved", only_if_absent: false });
    p.write(Write::Copy { from: b"{k}moved", to: KEY, replace: false });
    p.write(Write::Add { key: b"{k}count", delta: 1 });
    p.invalidate_tag(b"b");
    assert!(p.get(KEY).is_none() && p.get(b"{k}moved").is_none(), "tags go with the value");
    assert!(p.get(b"{k}plain").is_some());
    assert_eq!(p.store.keys_count(), 4, "until a sweep");
    let swept = p.store.sweep(100);
    assert_eq!((swept.keys_count, swept.is_done), (2, true));
    assert_eq!(p.store.tally(), p.store.recount());
    let copy = p.store.tally();
    p.invalidate_tag(b"b");
    assert_eq!(p.store.tally(), copy, "a tag that no entry carries is not remembered");
}

#[test]
fn what_was_loaded_before_a_tag_was_invalidated_is_not_filled_with_it() {
    let mut p = partition();
    lease(&mut p, 7);
    p.invalidate_tag(b"t");
    assert!(!fill(&mut p, 7, "old", vec![b"s", b"t"]));
    lease(&mut p, 8);
    assert!(fill(&mut p, 8, "new", vec![b"t"]), "this lease came after");
    p.write(Write::Delete { keys: vec![KEY] });
    lease(&mut p, 9);
    p.invalidate_tag(b"t");
    assert!(fill(&mut p, 9, "other", vec![b"s"]), "the tag of another value");
}

#[test]
fn many_tags_at_once_cost_no_more_than_is_bounded() {
    let mut p = partition();
    let tags: Vec<_> = (0..2000).map(|number| format!("tag{number}").into_bytes()).collect();
    for tag in &tags {
        set_with(&mut p, "v", terms(None, None, vec![b"kept"]));
        let key = [b"{k}".as_slice(), tag].concat();
        let (content, terms) = (Content::Value(b"v"), terms(None, None, vec![tag]));
        p.write(Write::SetWith {
            key: &key,
            content,
            terms,
            when: When::Always,
            answer: SetAnswer::Done,
        });
        p.write(Write::Delete { keys: vec![&key] });
    }
    let before = p.store.bytes();
    lease(&mut p, 7);
    for tag in &tags {
        p.invalidate_tag(tag);
        assert_eq!(p.store.tally(), p.store.recount());
    }
    assert!(p.store.bytes() - before < 64 << 10, "{}", p.store.bytes() - before);
    assert!(p.get(KEY).is_some());
    let copy = replayed(&p);
    assert_eq!(copy.lookup(scatterhoard_ring::Slot::of(KEY), KEY, p.now), p.lookup(KEY));
}

impl Partition {
    pub(crate) fn lookup(&self, key: &[u8]) -> Lookup<'_> {
        self.store.lookup(scatterhoard_ring::Slot::of(key), key, self.now)
    }
}

fn replayed(p: &Partition) -> Store {
    let mut copy = Store::new(p.store.slots(), SEED, VALUE_BYTES_MAX);
    for (index, entry) in (1..).zip(&p.log) {
        copy.apply(index, entry, None).expect("we wrote it");
    }
    copy
}

#[test]
fn leases_of_one_slot_are_bounded() {
    let mut p = partition();
    let keys: Vec<_> = (0..20_000).map(|number| format!("{{k}}{number:0100}")).collect();
    let ask = |key| {
        let (token, wants) = (Token(1), Wants::Lease);
        Write::Lease { key, token, millis: 1000, wants }
    };
    let refused = keys
        .iter()
        .position(|key| p.write(ask(key.as_bytes())) == Reply::Error(OpError::TooManyLoads));
    assert!((1000..10_000).contains(&refused.expect("there is a limit")));
    assert!(p.store.bytes() < 600 << 10);
    p.wait(1000);
    assert!(matches!(p.write(ask(keys[0].as_bytes())), Reply::Tuple(_)), "those have ended");
}

#[test]
fn a_new_log_keeps_values_and_what_their_tags_say() {
    let mut p = partition();
    for number in 0..50 {
        let key = format!("{{k}}{number}");
        let tag: &[u8] = if number % 2 == 0 { b"even" } else { b"odd" };
        let (content, terms) = (Content::Value(b"v"), terms(None, None, vec![tag]));
        p.write(Write::SetWith {
            key: key.as_bytes(),
            content,
            terms,
            when: When::Always,
            answer: SetAnswer::Done,
        });
    }
    p.invalidate_tag(b"even");
    lease(&mut p, 7);
    p.store.begin_log();
    p.log.clear();
    assert_eq!(p.store.keys_count(), 25);
    assert!(!fill(&mut p, 7, "old", vec![]));
    assert_eq!(p.store.tally(), p.store.recount());
    p.invalidate_tag(b"even");
    assert!(p.get(b"{k}1").is_some());
    p.invalidate_tag(b"odd");
    assert!(p.get(b"{k}1").is_none(), "index 3 of the new log is after all of the old one");
}

#[test]
fn a_value_carries_as_many_tags_as_it_may() {
    let mut p = partition();
    let names: Vec<Vec<u8>> = (0..TAGS_COUNT_MAX).map(|it| vec![it as u8]).collect();
    for name in &names {
        let tags = names.iter().map(|name| &name[..]).collect();
        let (content, terms) = (Content::Value(b"v"), terms(Some(9), Some(1), tags));
        p.write(Write::SetWith {
            key: KEY,
            content,
            terms,
            when: When::Always,
            answer: SetAnswer::Done,
        });
        assert!(p.get(KEY).is_some());
        p.invalidate_tag(name);
        assert!(p.get(KEY).is_none());
    }
}

#[test]
fn an_invalidated_tag_comes_over_with_a_slot_that_is_sent_in_parts_and_swept_meanwhile() {
    let mut p = Partition::of(SlotRange::ALL);
    let value = vec![b'v'; 40_000];
    for number in 0..30 {
        let key = format!("{{k}}{number}");
        let (content, terms) = (Content::Value(&value), terms(None, None, vec![b"t"]));
        p.write(Write::SetWith {
            key: key.as_bytes(),
            content,
            terms,
            when: When::Always,
            answer: SetAnswer::Done,
        });
    }
    p.set(b"{k}last", b"v");
    let mut receiver = Store::new(SlotRange::ALL, SEED, VALUE_BYTES_MAX);
    let (mut position, mut pieces) = (Some(0), 0);
    while let Some(at) = position {
        let mut piece = Vec::new();
        position = p.store.piece(at, &mut piece);
        receiver.install_piece(&piece).expect("we wrote it");
        pieces += 1;
        if pieces == 2 {
            p.invalidate_tag(b"t");
        }
        if pieces == 3 {
            p.store.sweep(usize::MAX);
        }
    }
    assert!(pieces > 3, "{pieces}");
    assert_eq!(receiver.keys(&|_| true, p.now, 99), [b"{k}last"]);
    assert_eq!(receiver.tally(), receiver.recount());
}
