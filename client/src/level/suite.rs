//! What every [`ClusterLevel`] has to do, as tests that anyone can run against their own (feature `suite`).
//!
//! Each story needs a [`Pair`]: two handles of one store, as two processes would have them. Stories use keys of their
//! own, so they can run one after the other on the same store, which should be empty. None asserts that something is
//! fast; what has to come to pass is waited for, and [`PATIENCE`] is given up after.
//!
//! ```no_run
//! use std::sync::Arc;
//! use scatterhoard_client::level::{LevelConfig, RedisLevel, suite};
//!
//! # async fn example() -> Result<(), scatterhoard_client::Error> {
//! let config = LevelConfig::new(["127.0.0.1:6379"]);
//! let pair = suite::Pair {
//!     ours: Arc::new(RedisLevel::connect(config.clone()).await?),
//!     theirs: Arc::new(RedisLevel::connect(config.clone()).await?),
//!     bound: config.bound,
//! };
//! suite::all(&pair).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Panics
//! All of it panics if the level does not do as it should; that is how tests fail.
#![expect(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "these are tests, and panic if they fail"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    Ask, Change, ClusterLevel, Content, Entry, Found, Lease, Look, Mark, Stored, Token, When,
};
use crate::Clock;

/// How long is waited for what has to come to pass.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Longer than any story takes.
const LONG: Duration = Duration::from_secs(60);

/// Two handles of one store.
#[derive(Clone)]
pub struct Pair {
    /// The one whose copies are judged.
    pub ours: Arc<dyn ClusterLevel>,
    /// The one that stands for all other processes.
    pub theirs: Arc<dyn ClusterLevel>,
    /// How old a copy may be that ours lets through.
    pub bound: Duration,
}

/// One story.
pub struct Story {
    /// What it tells.
    pub name: &'static str,
    /// Tells it.
    pub tell: fn(&Pair) -> BoxFuture<'_, ()>,
}

/// Tells all stories.
pub async fn all(pair: &Pair) {
    for Story { name, tell } in stories() {
        println!("{name}");
        tell(pair).await;
    }
}

macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        /// All stories, for those who want to run them one by one.
        #[must_use]
        pub fn stories() -> Vec<Story> {
            vec![$(Story { name: stringify!($story), tell: |pair| $story(pair).boxed() }),*]
        }
    };
}

stories![
    one_caller_loads_and_the_others_wait,
    a_lease_that_was_given_back_goes_to_the_next,
    a_lease_ends_by_itself,
    every_change_voids_a_token,
    an_entry_is_gone_when_its_time_is_over,
    past_the_soft_deadline_one_caller_loads_and_all_have_the_value,
    what_the_source_does_not_have_is_no_value,
    tags_make_stale_what_was_written_before,
    a_late_loader_does_not_bring_back_what_a_tag_made_stale,
    conditions_hold_or_nothing_is_done,
    many_keys_come_in_their_order,
    any_bytes_are_a_key_and_a_value,
    who_waits_is_woken_by_the_fill,
    who_waits_is_woken_by_the_release,
    who_waits_does_not_wait_longer_than_it_wants,
    a_copy_ends_when_somebody_else_writes,
    a_copy_ends_when_we_write,
    a_copy_ends_with_its_time,
    a_copy_ends_with_its_tags,
    copies_of_many_keys_end_as_those_of_one,
    a_load_that_was_overtaken_is_not_kept,
    callers_that_come_at_once_load_once,
    changes_are_told,
];

/// A value without any terms.
#[must_use]
pub fn plain(value: &str) -> Entry {
    let content = Content::Value(Bytes::copy_from_slice(value.as_bytes()));
    Entry { content, soft: None, hard: None, tags: Vec::new() }
}

/// A value with these tags.
#[must_use]
pub fn tagged(value: &str, tags: &[&str]) -> Entry {
    let tags = tags.iter().map(|tag| Bytes::copy_from_slice(tag.as_bytes())).collect();
    Entry { tags, ..plain(value) }
}

/// Looks, with a lease if there is nothing.
pub async fn look(level: &dyn ClusterLevel, key: &str) -> Look {
    let ask = Ask::Lease { lasts: LONG, stale: false };
    level.look(key.as_bytes(), ask).await.unwrap()
}

/// The value that is there, if there is one. Gives and takes no lease.
pub async fn value(level: &dyn ClusterLevel, key: &str) -> Option<Bytes> {
    match level.look(key.as_bytes(), Ask::Peek).await.unwrap().found {
        Found::Value(stored) => Some(stored.bytes),
        Found::Absent | Found::Negative { .. } => None,
        other => panic!("{key}: {other:?} for a look"),
    }
}

/// Sets a key, in any case.
pub async fn set(level: &dyn ClusterLevel, key: &str, entry: &Entry) {
    assert!(level.set(key.as_bytes(), entry, &When::Always).await.unwrap());
}

/// A lease of a key that is not there.
pub async fn lease(level: &dyn ClusterLevel, key: &str) -> Lease {
    match look(level, key).await.found {
        Found::Load(lease) => lease,
        other => panic!("{key}: {other:?} instead of a lease"),
    }
}

/// A mark of what is there, once one is given: a level may first have to find out whom to follow.
pub async fn mark(level: &dyn ClusterLevel, key: &str) -> Mark {
    let begun = Instant::now();
    loop {
        let look = level.look(key.as_bytes(), Ask::Peek).await.unwrap();
        assert!(!matches!(look.found, Found::Absent), "{key} is not there");
        if let Some(mark) = look.mark {
            return mark;
        }
        assert!(begun.elapsed() < PATIENCE, "{key}: no copy of it may be kept");
        sleep(Duration::from_millis(5)).await;
    }
}

/// A mark with which a copy is served now.
pub async fn served_mark(level: &dyn ClusterLevel, key: &str) -> Mark {
    let begun = Instant::now();
    let mut kept = mark(level, key).await;
    while !level.may_serve(&kept, Clock::new().now()) {
        assert!(begun.elapsed() < PATIENCE, "{key}: no copy of it is ever served");
        if level.is_dead(&kept, Clock::new().now()) {
            kept = mark(level, key).await;
        }
        sleep(Duration::from_millis(5)).await;
    }
    kept
}

/// Makes sure that a copy is served no longer than the bound after what was acknowledged by now.
pub async fn ends_within_the_bound(pair: &Pair, mark: &Mark) {
    sleep_until(Instant::now() + pair.bound).await;
    assert!(!pair.ours.may_serve(mark, Clock::new().now()), "a copy is older than the bound");
}

async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "it never came to pass that {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn fill(level: &dyn ClusterLevel, key: &str, token: Token, entry: &Entry) -> bool {
    level.fill(key.as_bytes(), token, entry).await.unwrap()
}

/// A lease goes to one caller at a time, and what it brings is there for all.
pub async fn one_caller_loads_and_the_others_wait(pair: &Pair) {
    let Pair { ours, theirs, .. } = pair;
    assert_eq!(value(&**ours, "one:k").await, None);
    let lease = lease(&**ours, "one:k").await;
    assert!(lease.lasts <= LONG);
    match look(&**theirs, "one:k").await.found {
        Found::Wait { at_most } => assert!(at_most <= LONG + Duration::from_millis(1)),
        other => panic!("{other:?} while another loads"),
    }
    assert_eq!(value(&**theirs, "one:k").await, None, "a look asks for nothing");
    assert!(!fill(&**ours, "one:k", Token(lease.token.0 ^ 1), &plain("x")).await, "a wrong token");
    assert!(fill(&**ours, "one:k", lease.token, &plain("v")).await);
    let found = look(&**theirs, "one:k").await.found;
    let Found::Value(Stored { bytes, lives_for, refresh, .. }) = found else { panic!("{found:?}") };
    assert_eq!((&*bytes, lives_for, refresh), (&b"v"[..], None, None));
    assert!(!fill(&**ours, "one:k", lease.token, &plain("w")).await, "a token fills once");
    assert_eq!(value(&**ours, "one:k").await.as_deref(), Some(&b"v"[..]));
}

/// Whoever fails to load lets the next one try at once.
pub async fn a_lease_that_was_given_back_goes_to_the_next(pair: &Pair) {
    let Pair { ours, theirs, .. } = pair;
    let first = lease(&**ours, "back:k").await;
    assert!(!theirs.release(b"back:k", Token(first.token.0 ^ 1)).await.unwrap());
    assert!(ours.release(b"back:k", first.token).await.unwrap());
    assert!(!ours.release(b"back:k", first.token).await.unwrap(), "it was given back already");
    let second = lease(&**theirs, "back:k").await;
    assert!(!fill(&**ours, "back:k", first.token, &plain("late")).await);
    assert!(fill(&**theirs, "back:k", second.token, &plain("v")).await);
}

/// A loader that died holds nobody up for longer than its lease.
pub async fn a_lease_ends_by_itself(pair: &Pair) {
    let Pair { ours, theirs, .. } = pair;
    let ask = Ask::Lease { lasts: Duration::from_millis(50), stale: false };
    let Found::Load(lost) = ours.look(b"ends:k", ask).await.unwrap().found else { panic!() };
    let next = parking_lot::Mutex::new(None);
    eventually("the next caller loads", || async {
        let found = theirs.look(b"ends:k", Ask::Lease { lasts: LONG, stale: false }).await;
        match found.unwrap().found {
            Found::Load(lease) => *next.lock() = Some(lease),
            Found::Wait { .. } => {}
            other => panic!("{other:?}"),
        }
        next.lock().is_some()
    })
    .await;
    assert!(!fill(&**ours, "ends:k", lost.token, &plain("late")).await);
    let next = next.into_inner().unwrap();
    assert!(fill(&**theirs, "ends:k", next.token, &plain("v")).await);
}

/// Whoever changes the source and then the key can be sure that no load from before brings the old value back.
pub async fn every_change_voids_a_token(pair: &Pair) {
    let Pair { ours, theirs, .. } = pair;
    let token = lease(&**ours, "void:set").await.token;
    set(&**theirs, "void:set", &plain("new")).await;
    assert!(!fill(&**ours, "void:set", token, &plain("old")).await);
    assert_eq!(value(&**ours, "void:set").await.as_deref(), Some(&b"new"[..]));
    let token = lease(&**ours, "void:absent").await.token;
    assert!(theirs.set(b"void:absent", &plain("new"), &When::Absent).await.unwrap());
    assert!(!fill(&**ours, "void:absent", token, &plain("old")).await);
    let token = lease(&**ours, "void:many").await.token;
    let many = [(Bytes::from_static(b"void:many"), plain("new"))];
    assert!(theirs.set_many(&many).await.into_iter().all(|outcome| outcome.is_ok()));
    assert!(!fill(&**ours, "void:many", token, &plain("old")).await);
    let token = lease(&**ours, "void:remove").await.token;
    assert!(!theirs.remove(b"void:remove").await.unwrap(), "it is not there");
    assert!(!fill(&**ours, "void:remove", token, &plain("old")).await);
    assert_eq!(value(&**ours, "void:remove").await, None);
    let token = lease(&**ours, "void:both").await.token;
    set(&**theirs, "void:both", &plain("new")).await;
    assert!(theirs.remove(b"void:both").await.unwrap());
    assert!(!fill(&**ours, "void:both", token, &plain("old")).await);
    assert_eq!(value(&**ours, "void:both").await, None);
}

/// Milliseconds count, and what is gone may be loaded.
pub async fn an_entry_is_gone_when_its_time_is_over(pair: &Pair) {
    let Pair { ours, theirs, .. } = pair;
    let hard = Duration::from_millis(120);
    set(&**ours, "time:k", &Entry { hard: Some(hard), ..plain("v") }).await;
    if let Found::Value(stored) = look(&**theirs, "time:k").await.found {
        assert!(stored.lives_for.is_some_and(|left| left <= hard), "{stored:?}");
    }
    eventually("it is gone", || async { value(&**theirs, "time:k").await.is_none() }).await;
    let token = lease(&**theirs, "time:k").await.token;
    assert!(fill(&**theirs, "time:k", token, &plain("v")).await);
}

/// Stale while one caller refreshes.
pub async fn past_the_soft_deadline_one_caller_loads_and_all_have_the_value(pair: &Pair) {
    let Pair { ours, theirs, .. } = pair;
    let (soft, hard) = (Some(Duration::from_millis(30)), Some(LONG));
    set(&**ours, "soft:k", &Entry { soft, hard, ..plain("v1") }).await;
    let stale = Ask::Lease { lasts: LONG, stale: true };
    let refresh = parking_lot::Mutex::new(None);
    eventually("a caller is asked to load", || async {
        let found = ours.look(b"soft:k", stale).await.unwrap().found;
        let Found::Value(stored) = found else { panic!("{found:?}") };
        assert_eq!(&*stored.bytes, b"v1");
        assert!(stored.lives_for.is_some_and(|left| left <= LONG));
        *refresh.lock() = stored.refresh;
        stored.refresh.is_some()
    })
    .await;
    let refresh = refresh.into_inner().unwrap();
    let found = theirs.look(b"soft:k", stale).await.unwrap().found;
    let Found::Value(stored) = found else { panic!("{found:?}") };
    assert_eq!((&*stored.bytes, stored.fresh_for), (&b"v1"[..], Some(Duration::ZERO)));
    assert_eq!(stored.refresh, None, "another loads it");
    assert_eq!(value(&**theirs, "soft:k").await.as_deref(), Some(&b"v1"[..]));
    assert!(matches!(look(&**theirs, "soft:k").await.found, Found::Wait { .. }));
    let fresh = Entry { soft: Some(LONG), hard: None, ..plain("v2") };
    assert!(fill(&**ours, "soft:k", refresh.token, &fresh).await);
    let found = theirs.look(b"soft:k", stale).await.unwrap().found;
    let Found::Value(stored) = found else { panic!("{found:?}") };
    assert_eq!((&*stored.bytes, stored.lives_for), (&b"v2"[..], None));
    assert!(stored.fresh_for.is_some_and(|left| !left.is_zero() && left <= LONG));
    assert_eq!(stored.refresh, None);
}

/// A negative entry counts as an answer of the source, and to conditions as nothing.
pub async fn what_the_source_does_not_have_is_no_value(pair: &Pair) {
    let Pair { ours, theirs, .. } = pair;
    let nothing = Entry { content: Content::Negative, hard: Some(LONG), ..plain("") };
    let token = lease(&**ours, "neg:k").await.token;
    assert!(fill(&**ours, "neg:k", token, &nothing).await);
    match look(&**theirs, "neg:k").await.found {
        Found::Negative { lives_for } => assert!(lives_for.is_some_and(|left| left <= LONG)),
        other => panic!("{other:?}"),
    }
    assert!(!theirs.set(b"neg:k", &plain("v"), &When::Present).await.unwrap());
    assert!(!theirs.set(b"neg:k", &plain("v"), &When::Equal(Bytes::new())).await.unwrap());
    assert!(theirs.set(b"neg:k", &plain("v"), &When::Absent).await.unwrap());
    assert_eq!(value(&**ours, "neg:k").await.as_deref(), Some(&b"v"[..]));
    set(&**ours, "neg:k", &nothing).await;
    assert!(!ours.remove(b"neg:k").await.unwrap(), "there was no value");
    assert_eq!(ours.look(b"neg:k", Ask::Peek).await.unwrap().found, Found::Absent);
}

/// One step, however many entries there are.
pub async fn tags_make_stale_what_was_written_before(pair: &Pair) {
    let Pair { ours, theirs, .. } = pair;
    set(&**ours, "tags:1", &tagged("1", &["tags:a"])).await;
    set(&**ours, "tags:2", &tagged("2", &["tags:a", "tags:b"])).await;
    set(&**ours, "tags:3", &tagged("3", &["tags:c"])).await;
    for key in ["tags:1", "tags:2", "tags:3"] {
        assert!(value(&**theirs, key).await.is_some(), "{key}");
    }
    theirs.invalidate_tags(&[Bytes::from_static(b"tags:a")]).await.unwrap();
    for level in [ours, theirs] {
        assert_eq!(value(&**level, "tags:1").await, None);
        assert_eq!(value(&**level, "tags:2").await, None);
        assert!(value(&**level, "tags:3").await.is_some());
    }
    assert!(!theirs.set(b"tags:1", &plain("x"), &When::Present).await.unwrap());
    assert!(theirs.set(b"tags:1", &tagged("new", &["tags:a"]), &When::Absent).await.unwrap());
    assert!(value(&**ours, "tags:1").await.is_some(), "it was written after");
    assert!(!ours.remove(b"tags:2").await.unwrap(), "it was stale");
    let token = lease(&**ours, "tags:2").await.token;
    assert!(fill(&**ours, "tags:2", token, &tagged("new", &["tags:a", "tags:b"])).await);
    let many = [Bytes::from_static(b"tags:b"), Bytes::from_static(b"tags:c")];
    ours.invalidate_tags(&many).await.unwrap();
    assert_eq!(value(&**theirs, "tags:2").await, None);
    assert_eq!(value(&**theirs, "tags:3").await, None);
    assert!(value(&**theirs, "tags:1").await.is_some());
}

/// What was read before a tag was invalidated is not served after.
pub async fn a_late_loader_does_not_bring_back_what_a_tag_made_stale(pair: &Pair) {
    let Pair { ours, theirs, .. } = pair;
    let token = lease(&**ours, "late:1").await.token;
    theirs.invalidate_tags(&[Bytes::from_static(b"late:t")]).await.unwrap();
    fill(&**ours, "late:1", token, &tagged("old", &["late:t"])).await;
    assert_eq!(value(&**theirs, "late:1").await, None);
    set(&**ours, "late:2", &tagged("v", &["late:t"])).await;
    theirs.invalidate_tags(&[Bytes::from_static(b"late:t")]).await.unwrap();
    let token = lease(&**ours, "late:2").await.token;
    theirs.invalidate_tags(&[Bytes::from_static(b"late:t")]).await.unwrap();
    fill(&**ours, "late:2", token, &tagged("old", &["late:t"])).await;
    assert_eq!(value(&**theirs, "late:2").await, None);
}

/// Compare and set, and its like.
pub async fn conditions_hold_or_nothing_is_done(pair: &Pair) {
    let Pair { ours, theirs, .. } = pair;
    let equal = |value: &'static str| When::Equal(Bytes::from_static(value.as_bytes()));
    assert!(!ours.set(b"if:k", &plain("1"), &When::Present).await.unwrap());
    assert!(!ours.set(b"if:k", &plain("1"), &equal("")).await.unwrap());
    assert!(ours.set(b"if:k", &plain("1"), &When::Absent).await.unwrap());
    assert!(!theirs.set(b"if:k", &plain("2"), &When::Absent).await.unwrap());
    assert!(!theirs.set(b"if:k", &plain("2"), &equal("0")).await.unwrap());
    assert_eq!(value(&**ours, "if:k").await.as_deref(), Some(&b"1"[..]));
    // With terms the value compares the same.
    let terms = Entry { soft: Some(LONG), hard: Some(LONG * 2), ..tagged("2", &["if:t"]) };
    assert!(theirs.set(b"if:k", &terms, &equal("1")).await.unwrap());
    assert!(ours.set(b"if:k", &plain("3"), &equal("2")).await.unwrap());
    assert!(ours.set(b"if:k", &plain("4"), &When::Present).await.unwrap());
    assert_eq!(value(&**theirs, "if:k").await.as_deref(), Some(&b"4"[..]));
}

/// Outcomes are in the order of the keys.
pub async fn many_keys_come_in_their_order(pair: &Pair) {
    let Pair { ours, theirs, .. } = pair;
    let key = |number: usize| Bytes::from(format!("many:{number}"));
    let entries: Vec<_> =
        (0..60).filter(|n| n % 3 != 0).map(|n| (key(n), plain(&n.to_string()))).collect();
    assert!(ours.set_many(&entries).await.into_iter().all(|outcome| outcome.is_ok()));
    let keys: Vec<_> = (0..60).map(key).collect();
    let ask = Ask::Lease { lasts: LONG, stale: false };
    let looks = theirs.look_many(&keys, ask).await;
    assert_eq!(looks.len(), keys.len());
    for (number, look) in looks.into_iter().enumerate() {
        match look.unwrap().found {
            Found::Value(stored) => assert_eq!(stored.bytes, number.to_string().as_bytes()),
            Found::Load(lease) => {
                assert_eq!(number % 3, 0);
                let filled = theirs.fill(&keys[number], lease.token, &plain("f")).await;
                assert!(filled.unwrap(), "{number}: each lease is of its key");
            }
            other => panic!("{number}: {other:?}"),
        }
    }
    assert!(theirs.look_many(&[], ask).await.is_empty());
    assert!(theirs.set_many(&[]).await.is_empty());
}

/// Nothing has a meaning that it was not given.
pub async fn any_bytes_are_a_key_and_a_value(pair: &Pair) {
    let Pair { ours, theirs, .. } = pair;
    let values = [&b""[..], b"\0\xff\r\n", b"*", b"-1", b"\x9aHOARD", &[0x80; 300]];
    for key in [&b"any:{}x"[..], b"any:}{", b"any:{a}{b}", b"any:\0\r\n", b"any:{", b"a}any"] {
        for value in values {
            let ask = Ask::Lease { lasts: LONG, stale: false };
            let Found::Load(lease) = ours.look(key, ask).await.unwrap().found else { panic!() };
            let content = Content::Value(Bytes::copy_from_slice(value));
            let entry = Entry { content, ..plain("") };
            assert!(ours.fill(key, lease.token, &entry).await.unwrap());
            let found = theirs.look(key, ask).await.unwrap().found;
            let Found::Value(stored) = found else { panic!("{found:?}") };
            assert_eq!(stored.bytes, value);
            assert!(theirs.remove(key).await.unwrap());
        }
    }
}

/// Who waits need not wait until the lease is over.
pub async fn who_waits_is_woken_by_the_fill(pair: &Pair) {
    let token = lease(&*pair.ours, "wait:fill").await.token;
    let theirs = Arc::clone(&pair.theirs);
    let waiting = tokio::spawn(async move { theirs.wait(b"wait:fill", LONG).await });
    tokio::task::yield_now().await;
    assert!(fill(&*pair.ours, "wait:fill", token, &plain("v")).await);
    timeout(PATIENCE, waiting).await.expect("it is woken").unwrap().unwrap();
    assert!(value(&*pair.theirs, "wait:fill").await.is_some());
    timeout(PATIENCE, pair.theirs.wait(b"wait:nobody", LONG)).await.unwrap().unwrap();
}

/// Nor if nothing was loaded.
pub async fn who_waits_is_woken_by_the_release(pair: &Pair) {
    let token = lease(&*pair.ours, "wait:back").await.token;
    let theirs = Arc::clone(&pair.theirs);
    let waiting = tokio::spawn(async move { theirs.wait(b"wait:back", LONG).await });
    tokio::task::yield_now().await;
    assert!(pair.ours.release(b"wait:back", token).await.unwrap());
    timeout(PATIENCE, waiting).await.expect("it is woken").unwrap().unwrap();
}

/// The load goes on, and who waits does not.
pub async fn who_waits_does_not_wait_longer_than_it_wants(pair: &Pair) {
    let token = lease(&*pair.ours, "wait:over").await.token;
    let waited = pair.theirs.wait(b"wait:over", Duration::from_millis(30));
    timeout(PATIENCE, waited).await.expect("its time is over").unwrap();
    assert!(matches!(look(&*pair.theirs, "wait:over").await.found, Found::Wait { .. }));
    assert!(pair.ours.release(b"wait:over", token).await.unwrap());
}

/// Whatever they do: no copy is older than the bound, and once it ended it stays so.
pub async fn a_copy_ends_when_somebody_else_writes(pair: &Pair) {
    let Pair { ours, theirs, .. } = pair;
    for round in 0..3 {
        let key = format!("copy:{round}");
        set(&**theirs, &key, &plain("v")).await;
        let mark = served_mark(&**ours, &key).await;
        match round {
            0 => set(&**theirs, &key, &plain("w")).await,
            1 => assert!(theirs.remove(key.as_bytes()).await.unwrap()),
            _ => {
                let condition = When::Equal(Bytes::from_static(b"v"));
                assert!(theirs.set(key.as_bytes(), &plain("w"), &condition).await.unwrap());
            }
        }
        ends_within_the_bound(pair, &mark).await;
        eventually("it is known to be dead", || async { ours.is_dead(&mark, Clock::new().now()) })
            .await;
        assert!(!ours.may_serve(&mark, Clock::new().now()));
    }
}

/// At once, and not within the bound.
pub async fn a_copy_ends_when_we_write(pair: &Pair) {
    let ours = &*pair.ours;
    let ended = |mark: Mark| {
        assert!(!ours.may_serve(&mark, Clock::new().now()), "our own write is not seen");
    };
    set(ours, "own:{k}", &tagged("v", &["{k}own"])).await;
    let mark = served_mark(ours, "own:{k}").await;
    set(ours, "own:{k}", &tagged("w", &["{k}own"])).await;
    ended(mark);
    let mark = served_mark(ours, "own:{k}").await;
    let many = [(Bytes::from_static(b"own:{k}"), tagged("x", &["{k}own"]))];
    assert!(ours.set_many(&many).await.into_iter().all(|outcome| outcome.is_ok()));
    ended(mark);
    let mark = served_mark(ours, "own:{k}").await;
    ours.invalidate_tags(&[Bytes::from_static(b"{k}own")]).await.unwrap();
    ended(mark);
    let (soft, hard) = (Some(Duration::from_millis(1)), Some(LONG));
    set(ours, "own:{k}", &Entry { soft, hard, ..plain("y") }).await;
    let mark = served_mark(ours, "own:{k}").await;
    let refresh = parking_lot::Mutex::new(None);
    eventually("it is past its soft deadline", || async {
        let ask = Ask::Lease { lasts: LONG, stale: true };
        if let Found::Value(stored) = ours.look(b"own:{k}", ask).await.unwrap().found {
            *refresh.lock() = stored.refresh;
        }
        refresh.lock().is_some()
    })
    .await;
    let token = refresh.into_inner().unwrap().token;
    assert!(fill(ours, "own:{k}", token, &plain("z")).await);
    ended(mark);
    let mark = served_mark(ours, "own:{k}").await;
    assert!(ours.remove(b"own:{k}").await.unwrap());
    ended(mark);
}

/// Counted from before it was asked for, so never late.
pub async fn a_copy_ends_with_its_time(pair: &Pair) {
    let hard = Some(Duration::from_millis(400));
    set(&*pair.theirs, "copy:time", &Entry { hard, ..plain("v") }).await;
    let set_at = Instant::now();
    let look = pair.ours.look(b"copy:time", Ask::Peek).await.unwrap();
    if let Some(mark) = look.mark {
        sleep_until(set_at + Duration::from_millis(400)).await;
        assert!(!pair.ours.may_serve(&mark, Clock::new().now()));
        assert!(pair.ours.is_dead(&mark, Clock::new().now()));
    }
}

/// Although nobody wrote the entry itself.
pub async fn a_copy_ends_with_its_tags(pair: &Pair) {
    let Pair { ours, theirs, .. } = pair;
    // All in one slot: a level may keep no copies of entries whose tags lie elsewhere.
    set(&**theirs, "{copy:tag}", &tagged("v", &["{copy:tag}"])).await;
    set(&**theirs, "{copy:tag}2", &tagged("v", &["{copy:tag}2"])).await;
    let mark = served_mark(&**ours, "{copy:tag}").await;
    theirs.invalidate_tags(&[Bytes::from_static(b"{copy:tag}")]).await.unwrap();
    ends_within_the_bound(pair, &mark).await;
    assert_eq!(value(&**ours, "{copy:tag}").await, None);
    assert!(value(&**ours, "{copy:tag}2").await.is_some());
}

/// Loads and writes at the same time: whatever is kept is what was written last.
pub async fn a_load_that_was_overtaken_is_not_kept(pair: &Pair) {
    let Pair { ours, theirs, .. } = pair;
    for round in 0..50_u32 {
        let (before, after) = (format!("{round}a"), format!("{round}b"));
        set(&**theirs, "race:k", &plain(&before)).await;
        let changed = plain(&after);
        let (look, written) = tokio::join!(
            ours.look(b"race:k", Ask::Peek),
            theirs.set(b"race:k", &changed, &When::Always)
        );
        assert!(written.unwrap());
        let look = look.unwrap();
        let Found::Value(stored) = look.found else { panic!("{round}: {:?}", look.found) };
        if let Some(mark) = look.mark.filter(|_| stored.bytes == before.as_bytes()) {
            ends_within_the_bound(pair, &mark).await;
        }
    }
}

/// They were loaded together, and each ends by itself.
pub async fn copies_of_many_keys_end_as_those_of_one(pair: &Pair) {
    let Pair { ours, theirs, .. } = pair;
    let keys: Vec<_> = (0..40).map(|number| Bytes::from(format!("marks:{number}"))).collect();
    let entries: Vec<_> = keys.iter().map(|key| (key.clone(), plain("v"))).collect();
    assert!(theirs.set_many(&entries).await.into_iter().all(|outcome| outcome.is_ok()));
    let kept = parking_lot::Mutex::new(Vec::new());
    eventually("copies of all are served", || async {
        let looks = ours.look_many(&keys, Ask::Peek).await;
        let marks = looks.into_iter().map(|look| look.unwrap().mark);
        let Some(marks) = marks.collect::<Option<Vec<_>>>() else { return false };
        let serves = |mark: &Mark| ours.may_serve(mark, Clock::new().now());
        let served = marks.iter().all(serves);
        *kept.lock() = marks;
        served
    })
    .await;
    let kept = kept.into_inner();
    let changed: Vec<_> = entries.iter().step_by(2).cloned().collect();
    assert!(theirs.set_many(&changed).await.into_iter().all(|outcome| outcome.is_ok()));
    sleep_until(Instant::now() + pair.bound).await;
    for (number, mark) in kept.iter().enumerate() {
        let served = ours.may_serve(mark, Clock::new().now());
        assert!(!served || number % 2 == 1, "{number}: a copy is older than the bound");
    }
    let changed: Vec<_> = entries.iter().skip(1).step_by(2).cloned().collect();
    assert!(ours.set_many(&changed).await.into_iter().all(|outcome| outcome.is_ok()));
    for (number, mark) in kept.iter().enumerate() {
        let served = ours.may_serve(mark, Clock::new().now());
        assert!(!served, "{number}: our own write is not seen");
    }
}

/// However many there are, in however many processes.
pub async fn callers_that_come_at_once_load_once(pair: &Pair) {
    let loads_count = AtomicU64::new(0);
    let call = async |level: &Arc<dyn ClusterLevel>| loop {
        match look(&**level, "cold:k").await.found {
            Found::Load(lease) => {
                loads_count.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                assert!(fill(&**level, "cold:k", lease.token, &plain("v")).await);
            }
            Found::Wait { at_most } => level.wait(b"cold:k", at_most).await.unwrap(),
            Found::Value(stored) => return assert_eq!(&*stored.bytes, b"v"),
            other => panic!("{other:?}"),
        }
    };
    let calls = (0..100).map(|number| call([&pair.ours, &pair.theirs][number % 2]));
    timeout(PATIENCE, join_all(calls)).await.expect("nobody waits for ever");
    assert_eq!(loads_count.into_inner(), 1);
}

/// Of keys that were looked at, or of everything.
pub async fn changes_are_told(pair: &Pair) {
    let mut changes = pair.ours.changes();
    set(&*pair.theirs, "told:k", &plain("v")).await;
    assert!(value(&*pair.ours, "told:k").await.is_some());
    set(&*pair.theirs, "told:k", &plain("w")).await;
    let told = async {
        loop {
            match changes.recv().await {
                Ok(Change::Key(key)) if key == "told:k" => return,
                Ok(Change::Everything) | Err(RecvError::Lagged(_)) => return,
                Ok(Change::Key(_)) => {}
                Err(RecvError::Closed) => panic!("nothing is told any more"),
            }
        }
    };
    timeout(PATIENCE, told).await.expect("it is told");
}
