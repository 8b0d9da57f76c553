//! One thing that can happen to connections, each.

use super::*;

const BOUND: Duration = Duration::from_millis(200);

fn at(millis: u64) -> Moment {
    Moment::default().after(Duration::from_millis(millis))
}

fn node(name: &str) -> Address {
    Address::new(&format!("{name}:7001"))
}

fn leads(term: u64) -> Leads {
    let stamp = Stamp { generation: Generation::new(1), term };
    Leads { slots: SlotRange::ALL, stamp, position: Position::new(5) }
}

/// Loads a key over a connection.
fn load(watch: &Watch, line: LineId, millis: u64) -> Option<Mark> {
    watch.keep(&watch.begin(b"k", at(millis))?, line, None)
}

/// A Redis server that is followed, and has just proven that it is there.
fn server(watch: &Watch, name: &str, millis: u64) -> LineId {
    let line = LineId::next();
    watch.opened_to_server(&node(name), line);
    let asked = watch.ask(at(millis));
    watch.server_answered(&asked, line);
    line
}

fn load_from(watch: &Watch, name: &str, line: LineId, millis: u64) -> Option<Mark> {
    watch.keep(&watch.begin_at(&node(name), b"k", at(millis))?, line, None)
}

#[test]
fn a_copy_is_served_for_the_bound_after_a_probe_was_sent() {
    let watch = Watch::new(BOUND);
    let line = server(&watch, "a", 0);
    let mark = load_from(&watch, "a", line, 1).unwrap();
    assert!(watch.may_serve(&mark, at(199)));
    assert!(!watch.may_serve(&mark, at(200)));
    let asked = watch.ask(at(150));
    watch.server_answered(&asked, line);
    assert!(watch.may_serve(&mark, at(349)));
    watch.key_changed(Bytes::from_static(b"k"));
    assert!(!watch.may_serve(&mark, at(201)));
    assert!(watch.is_dead(&mark, at(201)));
}

#[test]
fn what_came_over_another_connection_is_not_kept() {
    let watch = Watch::new(BOUND);
    let line = server(&watch, "a", 0);
    let begun = watch.begin_at(&node("a"), b"k", at(1)).unwrap();
    assert!(watch.keep(&begun, LineId::next(), None).is_none());
    assert!(watch.keep(&begun, line, None).is_some());
    assert!(watch.begin_at(&node("b"), b"k", at(1)).is_none(), "there is no connection to it");
}

#[test]
fn a_lost_connection_ends_what_was_loaded_over_it() {
    let watch = Watch::new(BOUND);
    let mut changes = watch.changes();
    let first = server(&watch, "a", 0);
    let mark = load_from(&watch, "a", first, 1).unwrap();
    let begun = watch.begin_at(&node("a"), b"k", at(2)).unwrap();
    watch.lost(first);
    assert!(watch.is_dead(&mark, at(3)));
    assert!(watch.keep(&begun, first, None).is_none());
    assert!(watch.begin_at(&node("a"), b"k", at(3)).is_none());
    let second = server(&watch, "a", 4);
    let mark = load_from(&watch, "a", second, 5).unwrap();
    watch.lost(first);
    assert!(watch.may_serve(&mark, at(6)), "that one was lost before");
    assert_eq!(changes.try_recv(), Ok(Change::Everything));
}

#[test]
fn an_answer_over_a_connection_that_is_lost_proves_nothing() {
    let watch = Watch::new(BOUND);
    let first = server(&watch, "a", 0);
    let asked = watch.ask(at(300));
    let second = LineId::next();
    watch.opened_to_server(&node("a"), second);
    let mark = load_from(&watch, "a", second, 301).unwrap();
    watch.server_answered(&asked, first);
    watch.server_answered(&asked, second);
    assert!(!watch.may_serve(&mark, at(302)), "it was asked before the new connection was there");
    let asked = watch.ask(at(303));
    watch.server_answered(&asked, second);
    assert!(watch.may_serve(&mark, at(304)));
}

#[test]
fn a_slot_that_moves_to_another_server_takes_no_copies_with_it() {
    let watch = Watch::new(BOUND);
    let (first, second) = (server(&watch, "a", 0), server(&watch, "b", 0));
    let old = load_from(&watch, "a", first, 1).unwrap();
    let begun = watch.begin_at(&node("a"), b"k", at(2)).unwrap();
    let new = load_from(&watch, "b", second, 3).unwrap();
    assert!(watch.is_dead(&old, at(4)));
    assert!(watch.keep(&begun, first, None).is_none());
    assert!(watch.may_serve(&new, at(4)));
}

#[test]
fn a_partition_is_followed_over_the_connection_to_who_leads_it() {
    let watch = Watch::new(BOUND);
    assert!(watch.begin(b"k", at(0)).is_none(), "nobody leads yet");
    let line = LineId::next();
    watch.opened(&node("a"), line);
    watch.node_answered(&watch.ask(at(0)), line, &[leads(1)]);
    let mark = load(&watch, line, 1).unwrap();
    assert!(!watch.may_serve(&mark, at(2)), "it was asked before it was followed");
    watch.node_answered(&watch.ask(at(3)), line, &[leads(1)]);
    assert!(watch.may_serve(&mark, at(4)));
    watch.node_answered(&watch.ask(at(5)), line, &[]);
    assert!(watch.is_dead(&mark, at(6)), "it leads no more");
    assert!(watch.begin(b"k", at(6)).is_none());
}

#[test]
fn a_newer_leader_takes_over_and_an_older_does_not() {
    let watch = Watch::new(BOUND);
    let (first, second) = (LineId::next(), LineId::next());
    watch.opened(&node("a"), first);
    watch.opened(&node("b"), second);
    watch.node_answered(&watch.ask(at(0)), first, &[leads(1)]);
    let old = load(&watch, first, 1).unwrap();
    let late = watch.ask(at(2));
    watch.node_answered(&watch.ask(at(3)), second, &[leads(2)]);
    assert!(watch.is_dead(&old, at(4)));
    watch.node_answered(&watch.ask(at(4)), second, &[leads(2)]);
    let new = load(&watch, second, 5).unwrap();
    watch.node_answered(&late, first, &[leads(1)]);
    assert!(watch.may_serve(&new, at(6)));
    assert!(load(&watch, first, 7).is_none());
}

#[test]
fn the_same_leader_in_another_term_is_another() {
    let watch = Watch::new(BOUND);
    let line = LineId::next();
    watch.opened(&node("a"), line);
    watch.node_answered(&watch.ask(at(0)), line, &[leads(1)]);
    let mark = load(&watch, line, 1).unwrap();
    watch.node_answered(&watch.ask(at(2)), line, &[leads(2)]);
    assert!(watch.is_dead(&mark, at(3)));
    let mark = load(&watch, line, 4).unwrap();
    assert!(watch.may_serve(&mark, at(5)));
}

#[test]
fn an_answer_of_a_connection_that_is_not_there_is_not_followed() {
    let watch = Watch::new(BOUND);
    let line = LineId::next();
    watch.opened(&node("a"), line);
    let asked = watch.ask(at(0));
    watch.lost(line);
    watch.node_answered(&asked, line, &[leads(1)]);
    assert!(watch.begin(b"k", at(1)).is_none());
}

#[test]
fn our_own_writes_end_loads_that_begin_before_they_are_done() {
    let watch = Watch::new(BOUND);
    let line = server(&watch, "a", 0);
    let kept = load_from(&watch, "a", line, 1).unwrap();
    let changing = watch.changing(b"k");
    assert!(watch.is_dead(&kept, at(2)));
    let during = load_from(&watch, "a", line, 3).unwrap();
    drop(changing);
    assert!(watch.is_dead(&during, at(4)));
    let after = load_from(&watch, "a", line, 5).unwrap();
    assert!(watch.may_serve(&after, at(6)));
}
