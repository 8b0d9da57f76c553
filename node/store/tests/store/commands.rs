//! Each write and read against what redis-server 7.0.15 answers.

use std::borrow::Cow;

use scatterhoard_store::{
    DeadlineForm, Expiry, OpError, Read, Reply, SetAnswer, UnixMillis, When, WhenExpire, Write,
    version,
};

use crate::partition::{Partition, VALUE_BYTES_MAX};

const K: &[u8] = b"{t}k";
const OTHER: &[u8] = b"{t}other";

fn bulk(value: &str) -> Reply<'_> {
    Reply::Bulk(Cow::Borrowed(value.as_bytes()))
}

fn set<'a>(value: &'a str, expiry: Expiry, when: When<'a>, answer: SetAnswer) -> Write<'a> {
    Write::Set { key: K, value: value.as_bytes(), expiry, when, answer }
}

fn ttl(partition: &Partition, key: &[u8]) -> Reply<'static> {
    let form = DeadlineForm::MillisLeft;
    partition.read(key, Read::Deadline { key, form }).into_owned()
}

fn encoding(partition: &Partition) -> Reply<'_> {
    partition.read(K, Read::Encoding { key: K })
}

#[test]
fn set_heeds_its_conditions_and_answers_as_asked() {
    use SetAnswer::{Before, Count, Done};
    let mut p = Partition::new();
    // (value, when, answer) -> reply, value afterwards
    for (value, when, answer, reply, after) in [
        ("a", When::Present, Done, Reply::Nil, None),
        ("a", When::Present, Count, Reply::Int(0), None),
        ("a", When::Absent, Before, Reply::Nil, Some("a")),
        ("b", When::Absent, Done, Reply::Nil, Some("a")),
        ("b", When::Absent, Before, bulk("a"), Some("a")),
        ("b", When::Absent, Count, Reply::Int(0), Some("a")),
        ("b", When::Present, Before, bulk("a"), Some("b")),
        ("c", When::Always, Done, Reply::Ok, Some("c")),
        ("d", When::Always, Count, Reply::Int(1), Some("d")),
        ("", When::Always, Before, bulk("d"), Some("")),
    ] {
        assert_eq!(p.write(set(value, Expiry::Clear, when, answer)), reply, "{value} {when:?}");
        assert_eq!(p.get(K).as_deref(), after.map(str::as_bytes), "{value} {when:?}");
    }
}

#[test]
fn set_clears_keeps_or_sets_the_deadline() {
    let mut p = Partition::new();
    let far = p.now.plus(70_000);
    let expired = UnixMillis::new(5);
    for (expiry, left) in [
        (Expiry::After(9000), 9000),
        (Expiry::Keep, 9000),
        (Expiry::At(far), 70_000),
        (Expiry::Clear, -1),
        (Expiry::Keep, -1),
        (Expiry::At(expired), -2),
        (Expiry::Keep, -1),
    ] {
        assert_eq!(p.write(set("v", expiry, When::Always, SetAnswer::Done)), Reply::Ok);
        assert_eq!(ttl(&p, K), Reply::Int(left), "{expiry:?}");
    }
    let endless = set("w", Expiry::After(i64::MAX as u64), When::Always, SetAnswer::Done);
    assert_eq!(p.write(endless), Reply::Error(OpError::BadExpire));
    assert_eq!(p.get(K), Some(b"v".to_vec()));
}

#[test]
fn several_are_set_at_once_or_not_at_all() {
    let mut p = Partition::new();
    let pairs = || vec![(K, &b"1"[..]), (OTHER, b"2"), (K, b"3")];
    assert_eq!(p.write(Write::SetManyIfAbsent { pairs: pairs() }), Reply::Int(1));
    assert_eq!(p.get(K), Some(b"3".to_vec()));
    let pairs_new = vec![(&b"{t}new"[..], &b"1"[..]), (OTHER, b"9")];
    assert_eq!(p.write(Write::SetManyIfAbsent { pairs: pairs_new }), Reply::Int(0));
    assert_eq!(p.get(b"{t}new"), None);
    p.set_until(K, b"x", 1000);
    assert_eq!(p.write(Write::SetMany { pairs: pairs() }), Reply::Ok);
    assert_eq!(ttl(&p, K), Reply::Int(-1));
    let keys = vec![K, b"{t}none", OTHER];
    let values = Reply::Array(vec![bulk("3"), Reply::Nil, bulk("2")]);
    assert_eq!(p.read(K, Read::GetMany { keys }), values);
}

#[test]
fn a_value_is_taken_or_its_deadline_changed_as_it_is_read() {
    let mut p = Partition::new();
    assert_eq!(p.write(Write::GetExpire { key: K, expiry: Expiry::After(5) }), Reply::Nil);
    assert_eq!(p.write(Write::GetDelete { key: K }), Reply::Nil);
    p.set(K, b"v");
    for (expiry, left) in [(Expiry::After(500), 500), (Expiry::Clear, -1)] {
        assert_eq!(p.write(Write::GetExpire { key: K, expiry }), bulk("v"));
        assert_eq!(ttl(&p, K), Reply::Int(left));
    }
    let expired = Expiry::At(UnixMillis::new(1));
    assert_eq!(p.write(Write::GetExpire { key: K, expiry: expired }), bulk("v"));
    assert_eq!(p.get(K), None);
    p.set(K, b"w");
    assert_eq!(p.write(Write::GetDelete { key: K }), bulk("w"));
    assert_eq!(p.store.keys_count(), 0);
}

#[test]
fn integers_are_added_within_64_bits() {
    let mut p = Partition::new();
    assert_eq!(p.write(Write::Add { key: K, delta: 1 }), Reply::Int(1));
    p.write(Write::Expire { key: K, expiry: Expiry::After(900), when: WhenExpire::Always });
    assert_eq!(p.write(Write::Add { key: K, delta: -43 }), Reply::Int(-42));
    assert_eq!(p.get(K), Some(b"-42".to_vec()));
    assert_eq!(ttl(&p, K), Reply::Int(900));
    for (value, delta, reply) in [
        ("9223372036854775807", 1, Reply::Error(OpError::Overflow)),
        ("-9223372036854775808", -1, Reply::Error(OpError::Overflow)),
        ("-9223372036854775808", i64::MAX, Reply::Int(-1)),
        ("", 1, Reply::Error(OpError::NotAnInteger)),
        ("1.0", 1, Reply::Error(OpError::NotAnInteger)),
        (" 1", 1, Reply::Error(OpError::NotAnInteger)),
    ] {
        p.set(K, value.as_bytes());
        assert_eq!(p.write(Write::Add { key: K, delta }), reply, "{value:?}");
    }
}

#[test]
fn floats_are_added() {
    let mut p = Partition::new();
    assert_eq!(p.write(Write::AddFloat { key: K, delta: 10.5 }), bulk("10.5"));
    p.write(Write::Expire { key: K, expiry: Expiry::After(900), when: WhenExpire::Always });
    assert_eq!(p.write(Write::AddFloat { key: K, delta: 0.1 }), bulk("10.6"));
    assert_eq!(ttl(&p, K), Reply::Int(900));
    p.set(K, b"5.0e3");
    assert_eq!(p.write(Write::AddFloat { key: K, delta: 200.0 }), bulk("5200"));
    p.set(K, b"x");
    let refused = Reply::Error(OpError::NotAFloat);
    assert_eq!(p.write(Write::AddFloat { key: K, delta: 1.0 }), refused);
}

#[test]
fn a_value_grows_at_its_end_or_anywhere() {
    let mut p = Partition::new();
    assert_eq!(p.write(Write::SetRange { key: K, offset: 5, value: b"" }), Reply::Int(0));
    assert_eq!(p.store.keys_count(), 0);
    assert_eq!(p.write(Write::SetRange { key: K, offset: 3, value: b"xy" }), Reply::Int(5));
    assert_eq!(p.get(K), Some(b"\0\0\0xy".to_vec()));
    assert_eq!(p.write(Write::SetRange { key: K, offset: 0, value: b"ab" }), Reply::Int(5));
    assert_eq!(p.write(Write::SetRange { key: K, offset: 99, value: b"" }), Reply::Int(5));
    assert_eq!(p.write(Write::Append { key: K, value: b"!" }), Reply::Int(6));
    assert_eq!(p.get(K), Some(b"ab\0xy!".to_vec()));
    assert_eq!(p.write(Write::Append { key: OTHER, value: b"new" }), Reply::Int(3));
    let too_long = Reply::Error(OpError::TooLong);
    let offset = VALUE_BYTES_MAX as u32;
    assert_eq!(p.write(Write::SetRange { key: K, offset, value: b"x" }), too_long);
    let offset = u32::MAX;
    assert_eq!(p.write(Write::SetRange { key: b"{t}n", offset, value: b"x" }), too_long);
    let long = vec![0; VALUE_BYTES_MAX];
    assert_eq!(p.write(Write::Append { key: K, value: &long }), too_long);
    assert_eq!(p.get(K), Some(b"ab\0xy!".to_vec()));
}

#[test]
fn a_range_is_cut_to_what_is_there() {
    let mut p = Partition::new();
    assert_eq!(p.read(K, Read::GetRange { key: K, first: 0, last: -1 }), bulk(""));
    p.set(K, b"This is a string");
    for (first, last, part) in [
        (0, 3, "This"),
        (-3, -1, "ing"),
        (0, -1, "This is a string"),
        (10, 100, "string"),
        (5, 3, ""),
        (-1, -5, ""),
        (-100, 3, "This"),
        (-100, -100, "T"),
        (0, -100, "T"),
        (100, 200, ""),
        (i64::MIN, i64::MAX, "This is a string"),
        (i64::MAX, i64::MAX, ""),
    ] {
        let reply = p.read(K, Read::GetRange { key: K, first, last });
        assert_eq!(reply, bulk(part), "{first} {last}");
    }
    assert_eq!(p.read(K, Read::Length { key: K }), Reply::Int(16));
    assert_eq!(p.read(OTHER, Read::Length { key: OTHER }), Reply::Int(0));
}

#[test]
fn keys_are_counted_as_often_as_they_are_named_and_deleted_once() {
    let mut p = Partition::new();
    p.set(K, b"v");
    p.set(OTHER, b"v");
    let keys = || vec![K, K, b"{t}none", OTHER];
    assert_eq!(p.read(K, Read::Exists { keys: keys() }), Reply::Int(3));
    assert_eq!(p.read(K, Read::Touch { keys: keys() }), Reply::Int(3));
    assert_eq!(p.write(Write::Delete { keys: keys() }), Reply::Int(2));
    assert_eq!(p.write(Write::Evict { keys: keys() }), Reply::Int(0));
    assert_eq!(p.read(K, Read::Type { key: K }), Reply::Status("none"));
}

#[test]
fn expire_heeds_its_conditions() {
    use WhenExpire::{Absent, Always, Earlier, Later, Present, PresentEarlier};
    let mut p = Partition::new();
    let expire = |millis, when| Write::Expire { key: K, expiry: Expiry::After(millis), when };
    assert_eq!(p.write(expire(100, Always)), Reply::Int(0));
    p.set(K, b"v");
    for (millis, when, done, left) in [
        (100, Present, 0, -1),
        (100, Later, 0, -1),
        (100, PresentEarlier, 0, -1),
        (100, Earlier, 1, 100),
        (200, Absent, 0, 100),
        (200, Earlier, 0, 100),
        (100, Earlier, 0, 100),
        (100, Later, 0, 100),
        (200, Later, 1, 200),
        (200, PresentEarlier, 0, 200),
        (150, PresentEarlier, 1, 150),
        (300, Present, 1, 300),
        (400, Always, 1, 400),
    ] {
        assert_eq!(p.write(expire(millis, when)), Reply::Int(done), "{millis} {when:?}");
        assert_eq!(ttl(&p, K), Reply::Int(left), "{millis} {when:?}");
    }
    assert_eq!(p.write(Write::Persist { key: K }), Reply::Int(1));
    assert_eq!(p.write(Write::Persist { key: K }), Reply::Int(0));
    assert_eq!(p.write(expire(5, Absent)), Reply::Int(1));
    assert_eq!(p.write(expire(u64::MAX, Always)), Reply::Error(OpError::BadExpire));
    assert_eq!(p.write(expire(0, Later)), Reply::Int(0));
    assert_eq!(p.write(expire(0, Always)), Reply::Int(1));
    assert_eq!(p.get(K), None);
    assert_eq!(p.write(Write::Persist { key: K }), Reply::Int(0));
}

#[test]
fn a_deadline_is_told_in_four_forms() {
    use DeadlineForm::{AtMilli, AtSecond, MillisLeft, SecondsLeft};
    let mut p = Partition::new();
    let deadline = |p: &Partition, form| p.read(K, Read::Deadline { key: K, form }).into_owned();
    for form in [SecondsLeft, MillisLeft, AtSecond, AtMilli] {
        assert_eq!(deadline(&p, form), Reply::Int(-2));
    }
    p.set(K, b"v");
    for form in [SecondsLeft, MillisLeft, AtSecond, AtMilli] {
        assert_eq!(deadline(&p, form), Reply::Int(-1));
    }
    for (millis, secs) in [(499, 0), (500, 1), (1499, 1), (1500, 2)] {
        p.set_until(K, b"v", millis);
        assert_eq!(deadline(&p, SecondsLeft), Reply::Int(secs), "{millis}");
        assert_eq!(deadline(&p, MillisLeft), Reply::Int(millis as i64));
        assert_eq!(deadline(&p, AtSecond), Reply::Int(1_700_000_000 + secs));
        assert_eq!(deadline(&p, AtMilli), Reply::Int(1_700_000_000_000 + millis as i64));
    }
}

#[test]
fn a_key_gets_another_name() {
    let mut p = Partition::new();
    let rename = |from, to, only_if_absent| Write::Rename { from, to, only_if_absent };
    let no_such_key = Reply::Error(OpError::NoSuchKey);
    assert_eq!(p.write(rename(K, OTHER, false)), no_such_key);
    assert_eq!(p.write(rename(K, K, true)), no_such_key);
    p.set_until(K, b"v", 700);
    assert_eq!(p.write(rename(K, K, false)), Reply::Ok);
    assert_eq!(p.write(rename(K, K, true)), Reply::Int(0));
    p.set(OTHER, b"old");
    assert_eq!(p.write(rename(K, OTHER, true)), Reply::Int(0));
    assert_eq!(p.write(rename(K, OTHER, false)), Reply::Ok);
    assert_eq!((p.get(K), p.get(OTHER)), (None, Some(b"v".to_vec())));
    assert_eq!(ttl(&p, OTHER), Reply::Int(700));
    assert_eq!(p.write(rename(OTHER, K, true)), Reply::Int(1));
    assert_eq!(p.store.keys_count(), 1);
}

#[test]
fn a_key_is_copied_with_its_deadline() {
    let mut p = Partition::new();
    let copy = |from, to, replace| Write::Copy { from, to, replace };
    assert_eq!(p.write(copy(K, K, false)), Reply::Error(OpError::SameKey));
    assert_eq!(p.write(copy(K, OTHER, false)), Reply::Int(0));
    p.set_until(K, b"v", 700);
    assert_eq!(p.write(copy(K, OTHER, false)), Reply::Int(1));
    assert_eq!(ttl(&p, OTHER), Reply::Int(700));
    p.set(K, b"w");
    assert_eq!(p.write(copy(K, OTHER, false)), Reply::Int(0));
    assert_eq!(p.write(copy(K, OTHER, true)), Reply::Int(1));
    assert_eq!(p.get(OTHER), Some(b"w".to_vec()));
    assert_eq!(ttl(&p, OTHER), Reply::Int(-1));
}

#[test]
fn encodings_are_those_of_redis() {
    let mut p = Partition::new();
    assert_eq!(encoding(&p), Reply::Nil);
    let (short, long) = ("x".repeat(44), "x".repeat(45));
    for (value, name) in
        [("123", "int"), ("0123", "embstr"), ("", "embstr"), (&short, "embstr"), (&long, "raw")]
    {
        p.set(K, value.as_bytes());
        assert_eq!(encoding(&p), bulk(name), "{value}");
    }
    p.write(Write::Delete { keys: vec![K] });
    p.write(Write::Append { key: K, value: b"1" });
    assert_eq!(encoding(&p), bulk("int"));
    p.write(Write::Append { key: K, value: b"2" });
    assert_eq!(encoding(&p), bulk("raw"));
    p.write(Write::Add { key: K, delta: 1 });
    assert_eq!((p.get(K), encoding(&p)), (Some(b"13".to_vec()), bulk("int")));
}

#[test]
fn recency_is_noted_by_what_uses_the_value_only() {
    let mut p = Partition::new();
    assert_eq!(p.read(K, Read::IdleTime { key: K }), Reply::Nil);
    p.set(K, b"v");
    p.wait(7000);
    let idle = |p: &Partition| p.read(K, Read::IdleTime { key: K }).into_owned();
    let quiet = [
        Read::Exists { keys: vec![K] },
        Read::Type { key: K },
        Read::Deadline { key: K, form: DeadlineForm::AtMilli },
        Read::Encoding { key: K },
        Read::Frequency { key: K },
        Read::RefCount { key: K },
        Read::MemoryUsage { key: K },
    ];
    for read in quiet {
        let _ = p.read(K, read);
        assert_eq!(idle(&p), Reply::Int(7));
    }
    let loud = [
        Read::Get { key: K },
        Read::GetMany { keys: vec![K] },
        Read::Length { key: K },
        Read::GetRange { key: K, first: 0, last: 0 },
        Read::Touch { keys: vec![K] },
    ];
    for read in loud {
        let _ = p.read(K, read);
        assert_eq!(idle(&p), Reply::Int(0));
        p.wait(3000);
        assert_eq!(idle(&p), Reply::Int(3));
    }
    assert_eq!(p.read(K, Read::RefCount { key: K }), Reply::Int(1));
    let Reply::Int(bytes) = p.read(K, Read::MemoryUsage { key: K }) else {
        panic!("the key is there");
    };
    assert!((16..64).contains(&bytes), "{bytes}");
    for _ in 0..1000 {
        p.wait(1);
        p.get(K);
    }
    let Reply::Int(frequency) = p.read(K, Read::Frequency { key: K }) else {
        panic!("the key is there");
    };
    assert!((10..30).contains(&frequency), "{frequency}");
}

#[test]
fn what_is_compared_is_set_only_if_it_is_the_same() {
    let mut partition = Partition::new();
    let if_it_is = |held: &'static str| When::Equal(held.as_bytes());
    let swap = |when| set("new", Expiry::Clear, when, SetAnswer::Done);
    assert_eq!(partition.write(swap(if_it_is(""))), Reply::Nil, "nothing is no empty value");
    partition.write(set("7", Expiry::Clear, When::Always, SetAnswer::Done));
    assert_eq!(partition.write(swap(if_it_is("8"))), Reply::Nil);
    let before = set("new", Expiry::Clear, if_it_is("7"), SetAnswer::Before);
    assert_eq!(partition.write(before), bulk("7"));
    assert_eq!(partition.read(K, Read::Get { key: K }), bulk("new"));
}

#[test]
fn versions_grow_with_the_log_and_with_each_log_that_follows() {
    let mut partition = Partition::new();
    let mut versions = Vec::new();
    for _ in 0..3 {
        match partition.write(set("v", Expiry::Clear, When::Always, SetAnswer::Version)) {
            Reply::Int(version) => versions.push(version),
            other => panic!("{other:?} is no version"),
        }
    }
    versions.push(version(1, 1));
    versions.push(version(2, 0));
    versions.push(version((1 << 19) - 1, (1 << 44) - 1));
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    let refused = set("v", Expiry::Clear, When::Absent, SetAnswer::Version);
    assert_eq!(partition.write(refused), Reply::Nil);
}
