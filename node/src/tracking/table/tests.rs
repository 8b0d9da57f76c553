//! The table by itself: what it keeps, what it forgets, and whom it tells.

use std::sync::atomic::AtomicBool;

use scatterhoard_resp::Protocol;

use super::super::{Choice, Outbox, Redirect};
use super::*;

const HERE: ReplicaId = ReplicaId::new(1);
const THERE: ReplicaId = ReplicaId::new(2);
const NO_LIMIT: usize = usize::MAX;

/// A table whose node leads two replicas.
fn table() -> Table {
    let mut table = Table::default();
    table.begin_to_lead(HERE);
    table.begin_to_lead(THERE);
    table
}

fn reads() -> Mode {
    Mode::Reads(Choice::All)
}

fn broadcast(prefixes: &[&str]) -> Mode {
    Mode::Broadcast(prefixes.iter().map(|prefix| prefix.as_bytes().into()).collect())
}

fn outbox() -> Arc<Outbox> {
    let outbox = Outbox::default();
    outbox.speaks(Protocol::Resp3);
    Arc::new(outbox)
}

fn add(table: &mut Table, mode: Mode) -> Arc<Tracker> {
    let (broken, own) = (AtomicBool::new(false), outbox());
    let id = table.next_id();
    let tracker = Arc::new(Tracker { id, mode, no_loop: true, redirect: None, broken, own });
    table.put(Arc::clone(&tracker));
    tracker
}

/// What a client is told, in words: keys, or `all`.
fn heard(outbox: &Outbox) -> String {
    let mut out = Vec::new();
    outbox.drain(Protocol::Resp3, &mut out);
    let told = String::from_utf8(out).unwrap();
    let words = told.split("\r\n").filter(|word| !word.starts_with(['>', '$', '*']));
    words
        .collect::<Vec<_>>()
        .join(" ")
        .replace("invalidate", "")
        .replace('_', "all")
        .trim()
        .to_owned()
}

#[test]
fn who_has_read_a_key_hears_once_that_it_changed() {
    let mut table = table();
    let (one, two) = (add(&mut table, reads()), add(&mut table, reads()));
    table.register((HERE, one.id), b"a", None, &[]);
    table.register((HERE, two.id), b"a", None, &[]);
    table.register((HERE, two.id), b"b", None, &[]);
    assert_eq!((table.tally().keys_count, table.tally().items_count), (2, 3));
    table.change(HERE, b"a", None);
    table.change(HERE, b"a", None);
    assert_eq!((heard(&one.own), heard(&two.own)), ("a".to_owned(), "a".to_owned()));
    assert_eq!((table.tally().keys_count, table.tally().items_count), (1, 1));
    table.change(HERE, b"b", Some(two.id));
    assert_eq!(heard(&two.own), "", "it does not want to hear of what it did itself");
    assert_eq!(table.tally().bytes, 0);
}

#[test]
fn prefixes_choose_what_is_broadcast() {
    let mut table = table();
    let users = add(&mut table, broadcast(&["user:", "u2:"]));
    let all = add(&mut table, broadcast(&[""]));
    for key in ["user:1", "use", "u2:x", "other"] {
        table.change(HERE, key.as_bytes(), None);
    }
    assert_eq!(heard(&users.own), "u2:x user:1");
    assert_eq!(heard(&all.own), "other u2:x use user:1");
    assert_eq!(table.tally().prefixes_count, 3);
    table.change(HERE, b"user:1", Some(users.id));
    assert_eq!((heard(&users.own), heard(&all.own)), (String::new(), "user:1".to_owned()));
    table.remove(users.id);
    assert_eq!(table.tally().prefixes_count, 1);
}

#[test]
fn what_was_read_under_a_leadership_that_is_over_is_forgotten() {
    let mut table = table();
    let (reader, elsewhere) = (add(&mut table, reads()), add(&mut table, reads()));
    let broadcasts = add(&mut table, broadcast(&["x"]));
    let lease = |has_lease| Seen { has_lease, time: 0 };
    table.register((HERE, reader.id), b"a", None, &[]);
    table.register((THERE, elsewhere.id), b"b", None, &[]);
    let told = |table: &mut Table, here: Option<Seen>| {
        let eras = table.eras();
        let seen = here.map(|seen| (HERE, seen)).into_iter().chain([(THERE, lease(true))]);
        table.look(&eras, &seen.collect());
        [&reader, &elsewhere, &broadcasts].map(|it| heard(&it.own)).join(",")
    };
    assert_eq!(told(&mut table, Some(lease(true))), ",,");
    assert_eq!(told(&mut table, Some(lease(false))), "all,,all");
    table.register((HERE, reader.id), b"a", None, &[]);
    assert_eq!(told(&mut table, None), "all,,all");
    table.register((HERE, reader.id), b"late", None, &[]);
    assert_eq!(heard(&reader.own), "all", "nobody would tell of changes any more");
    assert_eq!(table.tally().keys_count, 1);
}

#[test]
fn a_new_term_ends_what_the_one_before_had_and_outlives_an_older_look() {
    let mut table = table();
    let reader = add(&mut table, reads());
    table.register((HERE, reader.id), b"a", None, &[]);
    let eras = table.eras();
    table.begin_to_lead(HERE);
    assert_eq!(heard(&reader.own), "all");
    table.register((HERE, reader.id), b"a", None, &[]);
    table.look(&eras, &BTreeMap::new());
    assert!(table.leads(HERE) && !table.leads(THERE));
    table.change(HERE, b"a", None);
    assert_eq!(heard(&reader.own), "a");
}

#[test]
fn a_key_that_expires_is_told_by_its_earliest_deadline() {
    let mut table = table();
    let (one, two) = (add(&mut table, reads()), add(&mut table, reads()));
    table.register((HERE, one.id), b"a", Some(100), &[]);
    table.register((HERE, two.id), b"a", None, &[]);
    let look = |table: &mut Table, time| {
        let eras = table.eras();
        let seen = [HERE, THERE].map(|replica| (replica, Seen { has_lease: true, time }));
        table.look(&eras, &seen.into());
    };
    look(&mut table, 99);
    assert_eq!((heard(&one.own), heard(&two.own)), (String::new(), String::new()));
    look(&mut table, 100);
    assert_eq!((heard(&one.own), heard(&two.own)), ("a".to_owned(), "a".to_owned()));
}

#[test]
fn long_keys_fill_a_table_too() {
    let mut table = table();
    let reader = add(&mut table, reads());
    for number in 0..100 {
        table.make_room(10);
        table.register((HERE, reader.id), &[number; 500], None, &[]);
        assert!(table.tally().keys_count <= 1 + 10 * BYTES_PER_KEY / 500);
    }
}

#[test]
fn a_full_table_tells_of_some_key_to_make_room() {
    let mut table = table();
    let reader = add(&mut table, reads());
    for number in 0..100 {
        table.make_room(10);
        table.register((HERE, reader.id), format!("{number:03}").as_bytes(), None, &[]);
        assert!(table.tally().keys_count <= 10);
    }
    let told = heard(&reader.own).split(' ').count();
    assert_eq!(told, 90, "whatever is not known any more was told");

    let others: Vec<_> = (0..200).map(|_| add(&mut table, reads())).collect();
    for other in &others {
        table.make_room(10);
        table.register((HERE, other.id), b"hot", None, &[]);
        assert!(table.tally().items_count <= 10 * ITEMS_PER_KEY);
    }
}

#[test]
fn who_leaves_is_freed_of_everywhere() {
    let mut table = table();
    let trackers: Vec<_> = (0..4).map(|_| add(&mut table, reads())).collect();
    for number in 0..10_000 {
        let replica = if number % 2 == 0 { HERE } else { THERE };
        for tracker in &trackers[number % 3..] {
            table.register((replica, tracker.id), number.to_string().as_bytes(), None, &[]);
        }
    }
    table.remove(trackers[0].id);
    assert!(table.tidy(NO_LIMIT), "there is more than is done at once");
    table.remove(trackers[3].id);
    while table.tidy(NO_LIMIT) {}
    let kept = table.led.values().flat_map(|led| led.held.keys.values());
    assert!(
        kept.flat_map(|it| &it.trackers).all(|id| [trackers[1].id, trackers[2].id].contains(id))
    );
    assert_eq!(table.tally().items_count, 20_000 - 3_333);
    table.remove(trackers[1].id);
    table.remove(trackers[2].id);
    assert_eq!(table.tally(), Tally::default());
    let mut parts_count = 0;
    while table.take_rubbish().is_some() {
        parts_count += 1;
    }
    assert!(parts_count > 2, "not all at once");
}

#[test]
fn tags_and_prefixes_are_told_as_the_keys_that_they_concern() {
    let mut table = table();
    let reader = add(&mut table, reads());
    let all = add(&mut table, broadcast(&[""]));
    let [one, other] = [b"one", b"two"].map(|name| Tag::of(name));
    table.register((HERE, reader.id), b"a", None, &[one]);
    table.register((HERE, reader.id), b"b", None, &[other, one]);
    table.register((HERE, reader.id), b"c", None, &[other]);
    table.register((HERE, reader.id), b"plain", None, &[]);
    table.register((THERE, reader.id), b"d", None, &[one]);
    assert_eq!(table.tally().keys_count, 5);

    table.change_tagged(HERE, one);
    assert_eq!((heard(&reader.own), heard(&all.own)), ("a b".to_owned(), "all".to_owned()));
    table.change_tagged(HERE, one);
    assert_eq!(heard(&reader.own), "", "each is told once");
    table.register((HERE, reader.id), b"b", None, &[]);
    table.change_tagged(HERE, other);
    assert_eq!(heard(&reader.own), "c", "what is read anew has the tags that it has then");

    table.register((HERE, reader.id), b"player", None, &[one]);
    table.change_prefixed(HERE, b"pla");
    assert_eq!(heard(&reader.own), "plain player");
    table.change_tagged(THERE, one);
    assert_eq!(heard(&reader.own), "d");
    table.change(HERE, b"b", None);
    assert_eq!(heard(&reader.own), "b");
    table.remove(all.id);
    assert_eq!(table.tally(), Tally { trackers_count: 1, ..Tally::default() });
}

#[test]
fn a_redirection_that_leads_nowhere_is_told() {
    let mut table = table();
    let target = outbox();
    let own = outbox();
    let redirect = Some(Redirect { client: 7, outbox: Arc::clone(&target) });
    let (id, broken) = (table.next_id(), AtomicBool::new(false));
    let tracker = Tracker { id, mode: reads(), no_loop: false, redirect, broken, own };
    let tracker = Arc::new(tracker);
    table.put(Arc::clone(&tracker));
    table.register((HERE, id), b"a", None, &[]);
    table.change(HERE, b"a", None);
    assert_eq!((heard(&target), heard(&tracker.own)), ("a".to_owned(), String::new()));
    target.close();
    table.register((HERE, id), b"a", None, &[]);
    table.change(HERE, b"a", None);
    assert_eq!(heard(&tracker.own), "tracking-redir-broken :7");
    assert!(tracker.is_broken());
}

#[test]
fn each_step_of_an_entry_has_its_writer() {
    let mut table = table();
    let (one, two) = (table.next_id(), table.next_id());
    let units = vec![(2, Some(one)), (1, None), (1, Some(two))];
    let entry = Bytes::from_static(b"entry");
    table.announce(HERE, UnderWay { entry, skipped: 1, units });
    assert!(table.take_announced(HERE, b"other").is_none());
    let under_way = table.take_announced(HERE, b"entry").unwrap();
    let writers: Vec<_> = (0..6).map(|step| under_way.writer_of(step)).collect();
    assert_eq!(writers, [None, Some(one), Some(one), None, Some(two), None]);
    assert!(table.take_announced(HERE, b"entry").is_none());
}
