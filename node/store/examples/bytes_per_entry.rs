//! What an entry takes and what an operation costs: a million keys of 16 bytes over all slots.
//! `cargo run --release -p scatterhoard-store --example bytes_per_entry`
#![allow(clippy::disallowed_methods, reason = "it measures")]

use std::time::Instant;

use scatterhoard_ring::{Slot, SlotRange};
use scatterhoard_store::{
    Expiry, Read, Reply, SetAnswer, Step, Store, UnixMillis, When, Write, encode_header,
    encode_step,
};

/// The allocator of a node.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const KEYS_COUNT: u64 = 1_000_000;
const STEPS_PER_ENTRY: usize = 100;
const ROUNDS: usize = 5;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    if let [_, value_bytes, ttl_millis] = &arguments[..] {
        let value_bytes = value_bytes.parse().expect("a size in bytes");
        measure(value_bytes, ttl_millis.parse().expect("a time in milliseconds, or 0"));
        return;
    }
    println!("value B  ttl ms   counted B   RSS B  SET ns  GET ns");
    // A process for each, so that none lives in what another has left.
    for (value_bytes, ttl_millis) in [(32, 0), (100, 0), (32, 3_600_000), (100, 3_600_000)] {
        let myself = std::env::current_exe().expect("a running program has a file");
        let arguments = [value_bytes.to_string(), ttl_millis.to_string()];
        let status = std::process::Command::new(myself).args(arguments).status();
        assert!(status.expect("it starts").success());
    }
}

fn measure(value_bytes: usize, ttl_millis: u64) {
    let expiry = if ttl_millis == 0 { Expiry::Clear } else { Expiry::After(ttl_millis) };
    let now = UnixMillis::new(1_700_000_000_000);
    let value = vec![7; value_bytes];
    let entries = entries(&value, expiry, now);
    let rss_before = resident_bytes();
    let mut store = Store::new(SlotRange::ALL, 7, 64 << 20);
    for (index, entry) in entries.iter().enumerate() {
        store.apply(index as u64 + 1, entry, None).expect("we wrote it");
    }
    let per_entry = |bytes: u64| bytes as f64 / KEYS_COUNT as f64;
    let (counted, rss) =
        (per_entry(store.bytes()), per_entry(resident_bytes().saturating_sub(rss_before)));

    // The best of several rounds, with keys that are there: the usual SET and GET of a cache.
    let keys: Vec<_> = (0..KEYS_COUNT).map(key).map(|key| (Slot::of(&key), key)).collect();
    let (mut set_ns, mut get_ns) = (u128::MAX, u128::MAX);
    let mut replies = Vec::new();
    for round in 1..=ROUNDS {
        let start = Instant::now();
        for (at, entry) in entries.iter().enumerate() {
            replies.clear();
            let index = (at + round * entries.len()) as u64 + 1;
            store.apply(index, entry, Some(&mut replies)).expect("we wrote it");
        }
        set_ns = set_ns.min(start.elapsed().as_nanos() / u128::from(KEYS_COUNT));

        let start = Instant::now();
        let found = keys.iter().filter(|(slot, key)| {
            matches!(store.read(*slot, &Read::Get { key }, now), Reply::Bulk(_))
        });
        assert_eq!(found.count() as u64, KEYS_COUNT);
        get_ns = get_ns.min(start.elapsed().as_nanos() / u128::from(KEYS_COUNT));
    }
    println!("{value_bytes:>7} {ttl_millis:>7} {counted:>11.1} {rss:>7.1} {set_ns:>7} {get_ns:>7}");
}

/// Keys in an order that has nothing to do with where they lie.
fn key(number: u64) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let digits = (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 1_000_000_000_000).to_string();
    key[16 - digits.len()..].copy_from_slice(digits.as_bytes());
    key
}

fn entries(value: &[u8], expiry: Expiry, now: UnixMillis) -> Vec<Vec<u8>> {
    let keys: Vec<_> = (0..KEYS_COUNT).map(key).collect();
    let entry = |keys: &[[u8; 16]]| {
        let mut entry = Vec::new();
        encode_header(&mut entry, now);
        for key in keys {
            let (when, answer) = (When::Always, SetAnswer::Done);
            let write = Write::Set { key, value, expiry, when, answer };
            encode_step(&mut entry, &Step { slot: Slot::of(key), write });
        }
        entry
    };
    keys.chunks(STEPS_PER_ENTRY).map(entry).collect()
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}
