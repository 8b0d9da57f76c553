//! Leases for loading, tags, filters, and those who track keys, in simulated time, while nodes end and are cut off.

use std::time::Duration;

use scatterhoard_tests::sim::{Cluster, Port, Talk};

const SECOND: Duration = Duration::from_secs(1);

/// Longer than a lease for reading lasts, and than it takes to look after those who track.
const DOUBT: Duration = Duration::from_secs(2);

/// The second word of an answer in brackets: a token.
fn token(answer: &str) -> String {
    let words: Vec<_> = answer.trim_matches(['[', ']']).split(' ').collect();
    assert_eq!(words[0], "load", "{answer}");
    words[1].to_owned()
}

/// A connection for any key to a node that does not end.
fn bystander(cluster: &mut Cluster, ends: usize) -> Talk {
    cluster.talk(1 + ends % 3, Port::AnyKey)
}

#[test]
fn a_lease_outlives_the_leader_that_gave_it() {
    let mut cluster = Cluster::of(3).seed(400);
    let leader = cluster.leader_of("k");
    let talk = bystander(&mut cluster, leader);
    let token = token(&cluster.say(&talk, "HOARD.GET k LEASE 60000"));
    cluster.crash(leader);
    assert_ne!(cluster.leader_of("k"), leader);
    let told = cluster.say(&talk, "HOARD.GET k LEASE 60000");
    assert!(told.starts_with("[wait "), "nobody else loads: {told}");
    assert_eq!(cluster.say(&talk, &format!("HOARD.FILL k {token} v PX 60000")), "1");
    assert_eq!(cluster.say(&talk, "GET k"), "v");
    assert_eq!(cluster.say(&talk, &format!("HOARD.FILL k {token} w")), "0", "it fills once");
}

#[test]
fn who_loaded_too_long_does_not_bring_the_old_value_back() {
    let mut cluster = Cluster::of(3).seed(401);
    let leader = cluster.leader_of("k");
    let talk = bystander(&mut cluster, leader);
    let old = token(&cluster.say(&talk, "HOARD.GET k LEASE 60000"));
    // Whoever changes the source deletes the key, although nothing is there yet.
    assert_eq!(cluster.say(&talk, "DEL k"), "0");
    cluster.crash(leader);
    assert_ne!(cluster.leader_of("k"), leader);
    assert_eq!(cluster.say(&talk, &format!("HOARD.FILL k {old} old")), "0");
    let new = token(&cluster.say(&talk, "HOARD.GET k LEASE 60000"));
    assert_eq!(cluster.say(&talk, &format!("HOARD.FILL k {old} old")), "0");
    assert_eq!(cluster.say(&talk, &format!("HOARD.FILL k {new} new")), "1");
    assert_eq!(cluster.say(&talk, "GET k"), "new");
}

#[test]
fn when_a_loader_dies_another_one_loads_after_its_lease() {
    let mut cluster = Cluster::of(3).seed(402);
    let leader = cluster.leader_of("k");
    let far = bystander(&mut cluster, leader);
    let near = cluster.talk(leader, Port::Cluster);
    let dead = token(&cluster.say(&far, "HOARD.GET k LEASE 3000"));
    let begun = cluster.elapsed();
    let waits = [(&near, "k"), (&far, "k")]
        .map(|(talk, key)| cluster.spawn_say(talk, &format!("HOARD.WAIT {key} 60000")));
    for wait in waits {
        assert_eq!(cluster.finish(&wait), "[miss]");
    }
    let waited = cluster.elapsed() - begun;
    assert!(waited > 2 * SECOND && waited < 4 * SECOND, "a lease of 3 s held them for {waited:?}");
    let alive = token(&cluster.say(&near, "HOARD.GET k LEASE 3000"));
    assert_eq!(cluster.say(&far, &format!("HOARD.FILL k {dead} old")), "0");
    assert_eq!(cluster.say(&far, &format!("HOARD.FILL k {alive} v")), "1");
}

#[test]
fn who_waits_hears_of_the_value_and_of_a_load_that_failed() {
    let mut cluster = Cluster::of(3).seed(403);
    let leader = cluster.leader_of("k");
    let (near, far) = (cluster.talk(leader, Port::Cluster), bystander(&mut cluster, leader));
    let loader = cluster.talk(leader, Port::Cluster);
    for (what, expected) in [("RELEASE", "[miss]"), ("FILL", "[value v -1 -1]")] {
        let token = token(&cluster.say(&loader, "HOARD.GET k LEASE 600000"));
        let waits = [&near, &far].map(|talk| cluster.spawn_say(talk, "HOARD.WAIT k 60000"));
        cluster.wait(SECOND);
        assert!(waits.iter().all(|wait| !wait.is_done()), "they wait");
        let value = if what == "FILL" { " v" } else { "" };
        assert_eq!(cluster.say(&loader, &format!("HOARD.{what} k {token}{value}")), "1");
        for wait in waits {
            assert_eq!(cluster.finish(&wait), expected);
        }
    }
    let left = cluster.say(&near, "HOARD.WAIT nobody-loads 60000");
    assert!(left == "[miss]" || left.starts_with("-MOVED"), "{left}");
}

#[test]
fn what_a_tag_made_stale_stays_so() {
    let mut cluster = Cluster::of(3).partitions(2).log_bytes_max(2000).seed(404);
    let leader = cluster.leader_of("k");
    let talk = bystander(&mut cluster, leader);
    for number in 0..20 {
        let tag = if number < 10 { "old" } else { "new" };
        let set = format!("HOARD.SET k{number} v TAGS 2 {tag} all");
        assert_eq!(cluster.say(&talk, &set), "OK");
    }
    assert_eq!(cluster.say(&talk, "HOARD.INVALIDATE TAG old"), "OK");
    assert_eq!(cluster.say(&talk, "HOARD.SET k3 again TAGS 1 old"), "OK");
    // Logs are so short that whoever starts again begins with a snapshot.
    cluster.crash(leader);
    for number in 0..40 {
        // In doubt is what was on its way to the leader that ended: it is set again.
        let set = format!("SET filler{number} {number:0>200}");
        cluster.until("it is set", |cluster| cluster.say(&talk, &set) == "OK");
    }
    cluster.restart(leader);
    cluster.settle();
    let other = 1 + leader % 3;
    let talk = bystander(&mut cluster, other);
    cluster.crash(other);
    let check = |cluster: &mut Cluster, key: &str, expected: &str| {
        assert_eq!(cluster.say(&talk, &format!("GET {key}")), expected, "{key}");
    };
    check(&mut cluster, "k0", "nil");
    check(&mut cluster, "k3", "again");
    check(&mut cluster, "k9", "nil");
    check(&mut cluster, "k10", "v");
    assert_eq!(cluster.say(&talk, "HOARD.INVALIDATE TAG all nobody-has-this"), "OK");
    check(&mut cluster, "k10", "nil");
    check(&mut cluster, "k3", "again");
}

#[test]
fn a_filter_forgets_nothing() {
    let mut cluster = Cluster::of(3).seed(405);
    let first = cluster.leader_of("f");
    let talk = bystander(&mut cluster, first);
    assert_eq!(cluster.say(&talk, "BF.RESERVE f 0.01 50"), "OK");
    for number in 0..100 {
        // An answer of 0 says that it was taken for one that was there.
        let added = cluster.say(&talk, &format!("BF.ADD f item{number}"));
        assert!(added == "true" || added == "false", "{added}");
    }
    cluster.crash(first);
    assert_ne!(cluster.leader_of("f"), first);
    for number in 0..100 {
        let there = cluster.say(&talk, &format!("BF.EXISTS f item{number}"));
        assert_eq!(there, "true", "item{number}");
    }
}

#[test]
fn who_tracks_keys_of_a_leader_that_is_cut_off_is_told_to_forget_them() {
    let mut cluster = Cluster::of(3).seed(406);
    cluster.set("k", "old").acked();
    let leader = cluster.leader_of("k");
    let talk = cluster.talk(leader, Port::Cluster);
    assert_eq!(cluster.say(&talk, "CLIENT TRACKING ON"), "OK");
    assert_eq!(cluster.say(&talk, "GET k"), "old");
    let led = cluster.say(&talk, "HOARD.PROBE");
    assert_ne!(led, "[]", "it leads, and can prove it");
    assert_eq!(cluster.hear(&talk, SECOND), None);

    cluster.isolate(leader);
    assert_eq!(cluster.hear(&talk, DOUBT), Some("[invalidate nil]".to_owned()));
    assert_eq!(cluster.say(&talk, "HOARD.PROBE"), "[]", "it cannot prove anything any more");
    // What others write now is not told here; nothing is held here that it could make old.
    cluster.until("others go on", |cluster| cluster.set("k", "new").is_acked());
    cluster.heal();
    cluster.settle();
    assert_eq!(cluster.get("k"), Some("new".to_owned()));
}

#[test]
fn who_tracks_keys_hears_of_it_when_somebody_else_leads() {
    let mut cluster = Cluster::of(3).seed(407);
    cluster.set("k", "old").acked();
    let leader = cluster.leader_of("k");
    let talk = cluster.talk(leader, Port::Cluster);
    assert_eq!(cluster.say(&talk, "CLIENT TRACKING ON"), "OK");
    assert_eq!(cluster.say(&talk, "GET k"), "old");
    assert!(cluster.drain(leader, leader), "it hands over what it leads");
    cluster.until("another one leads", |cluster| cluster.leader_of("k") != leader);
    assert_eq!(cluster.hear(&talk, DOUBT), Some("[invalidate nil]".to_owned()));
}

#[test]
fn what_was_pushed_precedes_the_proof() {
    let mut cluster = Cluster::of(3).seed(408);
    let leader = cluster.leader_of("k");
    let (talk, writer) = (cluster.talk(leader, Port::Cluster), cluster.talk(leader, Port::Cluster));
    assert_eq!(cluster.say(&talk, "CLIENT TRACKING ON"), "OK");
    for round in 0..20 {
        cluster.say(&talk, "GET k");
        assert_eq!(cluster.say(&writer, &format!("HOARD.SET k {round} TAGS 1 t")), "OK");
        assert_ne!(cluster.say(&talk, "HOARD.PROBE"), "[]");
        // It came before the reply to the probe, so it is there already.
        assert_eq!(cluster.hear(&talk, Duration::ZERO), Some("[invalidate [k]]".to_owned()));
        cluster.say(&talk, "GET k");
        assert_eq!(cluster.say(&writer, "HOARD.INVALIDATE TAG t"), "OK");
        assert_ne!(cluster.say(&talk, "HOARD.PROBE"), "[]");
        assert_eq!(cluster.hear(&talk, Duration::ZERO), Some("[invalidate [k]]".to_owned()));
    }
}

#[test]
fn who_holds_that_there_is_nothing_hears_of_a_delete() {
    let mut cluster = Cluster::of(3).seed(409);
    let leader = cluster.leader_of("k");
    let (talk, writer) = (cluster.talk(leader, Port::Cluster), cluster.talk(leader, Port::Cluster));
    assert_eq!(cluster.say(&talk, "CLIENT TRACKING ON"), "OK");
    for (delete, answer) in [("DEL k", "0"), ("UNLINK k", "0"), ("GETDEL k", "nil")] {
        assert_eq!(cluster.say(&writer, "HOARD.SET k  NEGATIVE"), "OK");
        assert_eq!(cluster.say(&talk, "HOARD.GET k"), "[negative -1]");
        assert_eq!(cluster.say(&writer, delete), answer, "there is no value");
        assert_ne!(cluster.say(&talk, "HOARD.PROBE"), "[]");
        let told = cluster.hear(&talk, Duration::ZERO);
        assert_eq!(told, Some("[invalidate [k]]".to_owned()), "{delete}");
        assert_eq!(cluster.say(&talk, "HOARD.GET k"), "[miss]");
    }
}

#[test]
fn who_waits_for_a_load_hears_of_a_delete_that_ends_it() {
    let mut cluster = Cluster::of(3).seed(410);
    let leader = cluster.leader_of("k");
    let loader = bystander(&mut cluster, leader);
    assert!(cluster.say(&loader, "HOARD.GET k LEASE 10000").starts_with("[load "));
    let (talk, writer) = (cluster.talk(leader, Port::Cluster), cluster.talk(leader, Port::Cluster));
    assert_eq!(cluster.say(&talk, "CLIENT TRACKING ON"), "OK");
    assert!(cluster.say(&talk, "HOARD.GET k LEASE 10000").starts_with("[wait "));
    let waits = bystander(&mut cluster, leader);
    let waited = cluster.spawn_say(&waits, "HOARD.WAIT k 60000");
    cluster.wait(SECOND);
    assert_eq!(cluster.say(&writer, "DEL k"), "0");
    assert_eq!(cluster.hear(&talk, SECOND), Some("[invalidate [k]]".to_owned()));
    cluster.wait(SECOND);
    assert!(waited.is_done(), "it waits for nobody");
}

#[test]
fn who_writes_and_asks_for_a_lease_at_once_hears_of_what_others_write() {
    let mut cluster = Cluster::of(3).seed(411);
    let leader = cluster.leader_of("k");
    let (talk, writer) = (cluster.talk(leader, Port::Cluster), cluster.talk(leader, Port::Cluster));
    assert_eq!(cluster.say(&talk, "CLIENT TRACKING ON NOLOOP"), "OK");
    let said = cluster.say(&talk, "SET k mine\nHOARD.GET k LEASE 5000");
    assert_eq!(said, "OK\n[value mine -1 -1]");
    assert_eq!(cluster.say(&writer, "SET k theirs"), "OK");
    assert_eq!(cluster.hear(&talk, SECOND), Some("[invalidate [k]]".to_owned()));
}

#[test]
fn a_fill_that_is_refused_for_its_tags_ends_the_wait() {
    let mut cluster = Cluster::of(3).seed(412);
    let leader = cluster.leader_of("k");
    let (talk, loader) = (cluster.talk(leader, Port::Cluster), cluster.talk(leader, Port::Cluster));
    let token = token(&cluster.say(&loader, "HOARD.GET k LEASE 60000"));
    assert_eq!(cluster.say(&talk, "CLIENT TRACKING ON"), "OK");
    assert!(cluster.say(&talk, "HOARD.GET k LEASE 60000").starts_with("[wait "));
    assert_eq!(cluster.say(&loader, "HOARD.INVALIDATE TAG t"), "OK");
    assert_eq!(cluster.say(&loader, &format!("HOARD.FILL k {token} v TAGS 1 t")), "0");
    assert_eq!(cluster.hear(&talk, SECOND), Some("[invalidate [k]]".to_owned()));
    assert_eq!(cluster.say(&talk, "HOARD.GET k"), "[miss]");
}
