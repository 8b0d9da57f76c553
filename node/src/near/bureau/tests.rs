//! One replica and its readers. What readers make of what they are told is tested with the rules.

use std::borrow::Cow;

use scatterhoard_near::News;
use scatterhoard_ring::SlotRange;
use scatterhoard_store::{
    Expiry, SetAnswer, Step, UnixMillis, When, Write, encode_flush, encode_header, encode_step,
};

use super::*;

const READER: ReaderId = ReaderId::new(7);
const TERM: u64 = 3;

fn bureau() -> (Arc<Bells>, Bureau) {
    let bells = Arc::<Bells>::default();
    let of = (1, ReplicaId::new(2));
    let bureau = Bureau::opened(Arc::clone(&bells), of, Generation::new(1), 9);
    (bells, bureau)
}

fn now() -> Instant {
    Instant::now()
}

fn slot() -> Slot {
    Slot::of(b"k")
}

/// An entry that sets `k`.
fn entry() -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_header(&mut bytes, UnixMillis::new(1));
    let write = Write::Set {
        key: b"k",
        value: b"v",
        expiry: Expiry::Clear,
        when: When::Absent,
        answer: SetAnswer::Done,
    };
    encode_step(&mut bytes, &Step { slot: slot(), write });
    bytes
}

fn begin(bureau: &Bureau) -> StreamId {
    bureau.answer(READER, (None, 0), (TERM, now())).expect("it leads").stream
}

fn news(bureau: &Bureau, stream: StreamId, taken: u64) -> News<KeyHash> {
    bureau.answer(READER, (Some(stream), taken), (TERM, now())).expect("it goes on").news
}

fn nothing() -> News<KeyHash> {
    News::Changed { keys: Vec::new(), slots: Vec::new() }
}

#[tokio::test]
async fn a_reader_is_told_of_what_it_has_registered_and_woken_for_it() {
    let (bells, bureau) = bureau();
    assert!(!bureau.is_on(), "nobody reads");
    bureau.begin_to_lead(TERM);
    let stream = begin(&bureau);
    assert!(bureau.is_on() && !bureau.has_news(READER));
    bureau.register(READER, slot(), b"k");
    let bell = bells.of(READER);
    let mut rung = std::pin::pin!(bell.notified());
    rung.as_mut().enable();
    bureau.applied(1, &entry(), &[Reply::Nil]);
    assert!(!bureau.has_news(READER), "it was not set, for it was there");
    bureau.applied(2, &entry(), &[Reply::Ok]);
    rung.await;
    assert!(bureau.has_news(READER));
    let keys = vec![KeyHash::of(b"k", 9)];
    assert_eq!(news(&bureau, stream, 1), News::Changed { keys, slots: Vec::new() });
    bureau.applied(3, &entry(), &[Reply::Ok]);
    assert_eq!(news(&bureau, stream, 2), nothing(), "once for each time that it is read");
}

#[tokio::test]
async fn whatever_changes_many_keys_changes_everything() {
    let (_, bureau) = bureau();
    bureau.begin_to_lead(TERM);
    let stream = begin(&bureau);
    let mut flush = Vec::new();
    encode_header(&mut flush, UnixMillis::new(1));
    encode_flush(&mut flush, SlotRange::ALL);
    bureau.applied(1, &flush, &[Reply::Ok]);
    assert_eq!(news(&bureau, stream, 1), News::Everything);
    bureau.everything_changed();
    assert_eq!(news(&bureau, stream, 2), News::Everything, "another state was installed");
    let value = Reply::Bulk(Cow::Borrowed(b"v"));
    bureau.applied(2, b"no entry", &[value]);
    assert_eq!(news(&bureau, stream, 3), nothing());
}

#[tokio::test]
async fn streams_end_with_the_leadership_and_with_another_lease() {
    let (_, bureau) = bureau();
    let ask = |asked, term| bureau.answer(READER, (asked, 0), (term, now()));
    assert_eq!(ask(None, TERM), Err(Refused::NotLeading), "it does not lead yet");
    bureau.begin_to_lead(TERM);
    assert_eq!(ask(None, TERM + 1), Err(Refused::NotLeading), "that is another lease");
    let first = begin(&bureau);
    bureau.end_to_lead();
    assert!(!bureau.is_on() && bureau.has_news(READER), "who waits hears that it is over");
    assert_eq!(ask(Some(first), TERM), Err(Refused::NotLeading));
    bureau.begin_to_lead(TERM);
    assert_eq!(ask(Some(first), TERM), Err(Refused::NoStream));
    assert_ne!(begin(&bureau), first, "no stream comes again");
}

#[tokio::test]
async fn who_has_gone_is_forgotten() {
    let (bells, bureau) = bureau();
    bureau.begin_to_lead(TERM);
    let stream = begin(&bureau);
    bureau.tidy(now());
    assert!(bureau.is_on());
    bureau.tidy(now() + READER_PATIENCE);
    assert!(!bureau.is_on());
    let asked = bureau.answer(READER, (Some(stream), 1), (TERM, now()));
    assert_eq!(asked, Err(Refused::NoStream));
    drop(bells.of(READER));
    let _another = bells.of(ReaderId::new(8));
    assert_eq!(bells.0.lock().len(), 1, "there is a bell for who waits alone");
}
