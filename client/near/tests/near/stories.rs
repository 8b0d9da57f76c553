//! One thing that can happen to a copy, each.

use std::sync::Arc;
use std::time::Duration;

use scatterhoard_near::{
    Bulletin, Cells, Feed, Follower, Inbox, Interests, KeyHash, Limits, Mark, Moment, News,
    Position, ReaderId, Refused, Registered, Stamp, StreamId, Taken,
};
use scatterhoard_ring::{Generation, Slot, SlotRange};

const BOUND: Duration = Duration::from_millis(200);
const READER: ReaderId = ReaderId::new(7);
const OTHER: ReaderId = ReaderId::new(8);

fn at(millis: u64) -> Moment {
    Moment::default().after(Duration::from_millis(millis))
}

fn hash(key: &str) -> KeyHash {
    KeyHash::of(key.as_bytes(), 1)
}

fn slot(key: &str) -> Slot {
    Slot::of(key.as_bytes())
}

fn term(term: u64) -> Stamp {
    Stamp { generation: Generation::new(1), term }
}

fn feed() -> Arc<Feed> {
    Arc::new(Feed::new(SlotRange::ALL, Arc::new(Cells::new(12))))
}

/// A copy whose load begins and ends now.
fn copy(feed: &Feed, key: &str, now: Moment) -> Mark {
    let load = feed.begin(slot(key), hash(key), now).expect("the feed has all slots");
    feed.keep(load, None).expect("nothing happens in between")
}

/// A follower with an answered probe that was sent at `now`.
fn proven(feed: &Arc<Feed>, now: Moment) -> Follower {
    let mut follower = Follower::new(feed.clone(), BOUND);
    let probe = follower.probe_sent(now);
    follower.probe_answered(probe, term(1), Position::new(10));
    follower.reached(term(1), Position::new(10));
    follower
}

fn leader(limits: Limits) -> Interests<KeyHash> {
    let mut leader = Interests::new(limits, 100);
    leader.lead(term(1), Position::new(1));
    leader
}

fn roomy() -> Limits {
    Limits { readers_max: 2, keys_max: 100, queue_max: 100 }
}

fn keys(news: &News<KeyHash>) -> Vec<KeyHash> {
    match news {
        News::Changed { keys, slots } if slots.is_empty() => keys.clone(),
        News::Changed { .. } | News::Everything => panic!("more than keys changed: {news:?}"),
    }
}

#[test]
fn a_copy_is_served_until_the_bound_after_the_probe_was_sent() {
    let feed = feed();
    let _follower = proven(&feed, at(1000));
    let copy = copy(&feed, "k", at(1010));
    assert!(feed.may_serve(&copy, at(1199)));
    assert!(!feed.may_serve(&copy, at(1200)));
    assert!(!feed.is_dead(&copy, at(1200)), "the next proof makes it good again");
}

#[test]
fn nothing_is_served_without_proof() {
    let feed = feed();
    let follower = Follower::new(feed.clone(), BOUND);
    let _unanswered = follower.probe_sent(at(0));
    assert!(!feed.may_serve(&copy(&feed, "k", at(0)), at(0)));
}

#[test]
fn a_probe_proves_nothing_before_the_stream_is_there() {
    let feed = feed();
    let mut follower = proven(&feed, at(0));
    let copy = copy(&feed, "k", at(1));
    let probe = follower.probe_sent(at(150));
    follower.probe_answered(probe, term(1), Position::new(12));
    follower.reached(term(1), Position::new(11));
    assert!(!feed.may_serve(&copy, at(250)));
    follower.reached(term(1), Position::new(12));
    assert!(feed.may_serve(&copy, at(250)));
}

#[test]
fn a_stream_that_is_always_a_little_late_still_proves_something() {
    let feed = feed();
    let mut follower = proven(&feed, at(0));
    let copy = copy(&feed, "k", at(1));
    for step in 1..50 {
        let probe = follower.probe_sent(at(step * 100));
        follower.probe_answered(probe, term(1), Position::new(10 + step * 10));
        follower.reached(term(1), Position::new(10 + step * 10 - 1));
        assert!(step < 3 || feed.may_serve(&copy, at(step * 100 - 50)), "{step}");
    }
}

#[test]
fn late_answers_shorten_nothing() {
    let feed = feed();
    let mut follower = proven(&feed, at(0));
    let copy = copy(&feed, "k", at(1));
    let (early, late) = (follower.probe_sent(at(100)), follower.probe_sent(at(150)));
    follower.probe_answered(late, term(1), Position::new(10));
    follower.probe_answered(early, term(1), Position::new(10));
    assert!(feed.may_serve(&copy, at(349)));
    assert!(!feed.may_serve(&copy, at(350)));
}

#[test]
fn an_answer_from_before_a_reset_is_not_heard() {
    let feed = feed();
    let mut follower = proven(&feed, at(0));
    let probe = follower.probe_sent(at(150));
    follower.reset();
    let copy = copy(&feed, "k", at(160));
    follower.probe_answered(probe, term(1), Position::new(10));
    follower.reached(term(2), Position::new(10));
    assert_eq!(follower.stamp(), Some(term(2)));
    assert!(!feed.may_serve(&copy, at(200)));
}

#[test]
fn a_new_leader_ends_all_copies_and_loads() {
    let feed = feed();
    let mut follower = proven(&feed, at(0));
    let copy = copy(&feed, "k", at(1));
    let load = feed.begin(slot("l"), hash("l"), at(2)).unwrap();
    let probe = follower.probe_sent(at(3));
    follower.probe_answered(probe, term(2), Position::new(0));
    assert!(feed.is_dead(&copy, at(4)));
    assert!(feed.keep(load, None).is_none());
}

#[test]
fn a_load_that_an_invalidation_overtakes_is_not_kept() {
    let feed = feed();
    let load = feed.begin(slot("k"), hash("k"), at(0)).unwrap();
    feed.invalidated(hash("k"));
    assert!(feed.keep(load, None).is_none());
    let of_the_slot = feed.begin(slot("k"), hash("k"), at(0)).unwrap();
    feed.slot_invalidated(slot("k"));
    assert!(feed.keep(of_the_slot, None).is_none());
    let of_another = feed.begin(slot("k"), hash("k"), at(0)).unwrap();
    feed.invalidated(hash("another"));
    feed.slot_invalidated(slot("another"));
    assert!(feed.keep(of_another, None).is_some());
}

#[test]
fn a_copy_stored_after_its_invalidation_came_is_dead_where_it_lies() {
    let feed = feed();
    let _follower = proven(&feed, at(0));
    let load = feed.begin(slot("k"), hash("k"), at(1)).unwrap();
    let mark = feed.keep(load, None).unwrap();
    feed.invalidated(hash("k"));
    // Only now the caller comes to store it, beside this mark.
    assert!(!feed.may_serve(&mark, at(2)));
}

#[test]
fn a_copy_lives_as_long_as_was_left_when_it_was_asked_for() {
    let feed = feed();
    let _follower = proven(&feed, at(100));
    let load = feed.begin(slot("k"), hash("k"), at(100)).unwrap();
    let mark = feed.keep(load, Some(Duration::from_millis(30))).unwrap();
    assert_eq!(mark.expires(), at(130));
    assert!(feed.may_serve(&mark, at(129)));
    assert!(!feed.may_serve(&mark, at(130)));
    assert_eq!(load.deadline(Duration::MAX), Moment::NEVER);
}

#[test]
fn a_slot_of_another_partition_is_none_of_its_business() {
    let feed = Feed::new(SlotRange::new(100, 200).unwrap(), Arc::new(Cells::new(4)));
    for number in [99, 200, 0, 16_383] {
        let slot = Slot::new(number).unwrap();
        assert!(feed.begin(slot, hash("k"), at(0)).is_none(), "{slot}");
        feed.slot_invalidated(slot);
    }
    assert!(feed.begin(Slot::new(100).unwrap(), hash("k"), at(0)).is_some());
    assert!(feed.begin(Slot::new(199).unwrap(), hash("k"), at(0)).is_some());
}

#[test]
fn a_slot_that_goes_to_another_feed_takes_no_copies_with_it() {
    let cells = Arc::new(Cells::new(4));
    let feed = || Arc::new(Feed::new(SlotRange::ALL, Arc::clone(&cells)));
    let (first, second) = (feed(), feed());
    let mut follower = Follower::new(Arc::clone(&second), Duration::from_millis(200));
    let mark = first.keep(first.begin(slot("k"), hash("k"), at(0)).unwrap(), None).unwrap();
    assert_eq!(mark.slot(), slot("k"));
    second.slot_invalidated(slot("k"));
    let probe = follower.probe_sent(at(1));
    follower.probe_answered(probe, Stamp::default(), Position::default());
    let newer = second.keep(second.begin(slot("k"), hash("k"), at(2)).unwrap(), None).unwrap();
    assert!(second.may_serve(&newer, at(3)));
    assert!(second.is_dead(&mark, at(3)), "it was loaded from another");
}

#[test]
fn a_change_is_told_once_to_those_who_read_the_key() {
    let mut leader = leader(roomy());
    let stream = leader.open(READER).unwrap();
    leader.open(OTHER).unwrap();
    assert_eq!(leader.register(READER, slot("k"), &hash("k")), Registered::Key);
    assert_eq!(leader.changed(slot("k"), &hash("k")), [READER]);
    assert_eq!(leader.changed(slot("k"), &hash("k")), [], "it is forgotten until it is read again");
    assert_eq!(leader.register(READER, slot("k"), &hash("k")), Registered::Key);
    assert_eq!(leader.changed(slot("k"), &hash("k")), [], "the reader has been woken already");
    leader.applied(Position::new(4));
    assert!(leader.has_news(READER));
    assert!(!leader.has_news(OTHER));
    let bulletin = leader.answer(READER, stream, 0).unwrap();
    assert_eq!((bulletin.number, bulletin.position), (1, Position::new(4)));
    assert_eq!(keys(&bulletin.news), [hash("k")], "the same key twice is once");
    assert_eq!(keys(&leader.answer(READER, stream, 1).unwrap().news), []);
}

#[test]
fn beyond_the_bound_interest_is_in_slots() {
    let mut leader = leader(Limits { keys_max: 1, ..roomy() });
    let stream = leader.open(READER).unwrap();
    assert_eq!(leader.register(READER, slot("{s}a"), &hash("{s}a")), Registered::Key);
    assert_eq!(leader.register(READER, slot("{s}b"), &hash("{s}b")), Registered::Slot);
    assert_eq!(leader.register(READER, slot("{s}a"), &hash("{s}a")), Registered::Slot);
    assert_eq!(leader.changed(slot("{s}c"), &hash("{s}c")), [READER]);
    assert_eq!(leader.changed(slot("{s}a"), &hash("{s}a")), []);
    let news = leader.answer(READER, stream, 0).unwrap().news;
    assert_eq!(news, News::Changed { keys: vec![], slots: vec![slot("{s}")] });
}

#[test]
fn a_queue_that_overflows_becomes_everything() {
    let mut leader = leader(Limits { queue_max: 2, ..roomy() });
    let stream = leader.open(READER).unwrap();
    for key in ["a", "b", "c", "d"] {
        leader.register(READER, slot(key), &hash(key));
    }
    for key in ["a", "b", "c"] {
        leader.changed(slot(key), &hash(key));
    }
    assert_eq!(leader.answer(READER, stream, 0).unwrap().news, News::Everything);
    leader.changed(slot("d"), &hash("d"));
    assert_eq!(keys(&leader.answer(READER, stream, 1).unwrap().news), [], "it was told of d, too");
}

#[test]
fn a_flush_is_told_to_everyone() {
    let mut leader = leader(roomy());
    let stream = leader.open(READER).unwrap();
    assert_eq!(leader.everything_changed(), [READER]);
    assert_eq!(leader.everything_changed(), []);
    assert_eq!(leader.answer(READER, stream, 0).unwrap().news, News::Everything);
}

#[test]
fn who_has_no_stream_is_not_registered() {
    let mut leader = leader(Limits { readers_max: 1, ..roomy() });
    assert_eq!(leader.register(READER, slot("k"), &hash("k")), Registered::Nothing);
    leader.open(READER).unwrap();
    assert_eq!(leader.open(OTHER), None, "there are too many");
    leader.close(READER);
    assert!(leader.open(OTHER).is_some());
    leader.retire();
    assert_eq!(leader.open(READER), None, "it does not lead");
}

#[test]
fn a_question_to_a_stream_that_ended_is_refused() {
    let mut leader = leader(roomy());
    let old = leader.open(READER).unwrap();
    let new = leader.open(READER).unwrap();
    assert_eq!(leader.answer(READER, old, 0), Err(Refused::NoStream));
    assert!(leader.answer(READER, new, 0).is_ok());
    assert_eq!(leader.answer(READER, new, 0), Err(Refused::Behind { taken: 0, sent: 1 }));
    leader.lead(term(2), Position::new(0));
    assert_eq!(leader.answer(READER, new, 1), Err(Refused::NoStream));
    leader.retire();
    assert_eq!(leader.answer(READER, new, 1), Err(Refused::NotLeading));
}

fn bulletin(stream: u64, number: u64) -> Bulletin<KeyHash> {
    let news = News::Changed { keys: vec![], slots: vec![] };
    let (stream, position) = (StreamId::new(stream), Position::new(number));
    Bulletin { stream, number, stamp: term(1), position, news }
}

#[test]
fn answers_are_taken_in_their_order_or_not_at_all() {
    let feed = feed();
    let mut inbox = Inbox::new(feed.clone(), BOUND);
    let early = inbox.ask(at(0));
    assert_eq!((early.stream, early.taken), (None, 0));
    assert_eq!(inbox.take(early, &bulletin(5, 1)), Taken::Begun);
    let loaded = copy(&feed, "k", at(10));
    let question = inbox.ask(at(100));
    assert_eq!((question.stream, question.taken), (Some(StreamId::new(5)), 1));
    assert_eq!(inbox.take(question, &bulletin(5, 2)), Taken::News);
    assert!(feed.may_serve(&loaded, at(299)));
    let again = inbox.ask(at(200));
    assert_eq!(inbox.take(again, &bulletin(5, 2)), Taken::Repeated);
    assert!(!feed.may_serve(&loaded, at(300)), "an old answer proves nothing new");
    assert_eq!(inbox.take(early, &bulletin(5, 3)), Taken::Late);
    assert_eq!(inbox.take(again, &bulletin(5, 4)), Taken::Gap);
    assert!(feed.is_dead(&loaded, at(201)));
    assert_eq!(inbox.ask(at(202)).stream, None, "it wants a new stream");
}

#[test]
fn a_foreign_stream_ends_all_copies() {
    let feed = feed();
    let mut inbox = Inbox::new(feed.clone(), BOUND);
    inbox.take(inbox.ask(at(0)), &bulletin(5, 1));
    let loaded = copy(&feed, "k", at(10));
    assert_eq!(inbox.take(inbox.ask(at(20)), &bulletin(6, 2)), Taken::Foreign);
    assert!(feed.is_dead(&loaded, at(21)));
}

#[test]
fn a_stream_begins_with_its_first_bulletin_and_a_reset() {
    let feed = feed();
    let mut inbox = Inbox::new(feed.clone(), BOUND);
    let loaded = copy(&feed, "k", at(0));
    assert_eq!(inbox.take(inbox.ask(at(1)), &bulletin(5, 2)), Taken::Gap);
    assert_eq!(inbox.take(inbox.ask(at(2)), &bulletin(5, 1)), Taken::Begun);
    assert!(feed.is_dead(&loaded, at(3)), "nobody knows whether it was registered");
    assert!(feed.may_serve(&copy(&feed, "k", at(3)), at(201)));
}
