//! Who is chosen to go.

use scatterhoard_store::{Policy, Reply, UnknownPolicy, Victim, Write};

use crate::partition::Partition;

/// Evenly spread numbers, the same in each run.
fn rolls() -> impl FnMut() -> u64 {
    let mut state = 1_u64;
    move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ state >> 29
    }
}

fn victims(p: &Partition, policy: Policy, bytes: u64) -> Vec<Victim> {
    p.store.victims(policy, bytes, &mut rolls(), p.now)
}

/// The share of victims whose key begins so, in percent.
fn share(victims: &[Victim], start: &[u8]) -> usize {
    assert!(!victims.is_empty());
    victims.iter().filter(|victim| victim.key.starts_with(start)).count() * 100 / victims.len()
}

/// 1000 old keys, then 1000 young ones that were read often; every fourth has a deadline.
fn partition() -> Partition {
    let mut p = Partition::new();
    for (age, wait) in [("old", 60_000), ("young", 0)] {
        for number in 0..1000_u64 {
            let key = format!("{age}{number}");
            match number % 4 {
                0 => p.set_until(key.as_bytes(), &[7; 50], 1_000_000 + number * 1000),
                _ => p.set(key.as_bytes(), &[7; 50]),
            };
            for _ in 0..if age == "young" { 60 } else { 0 } {
                p.wait(1);
                p.get(key.as_bytes());
            }
        }
        p.wait(wait);
    }
    p
}

#[test]
fn policies_have_the_names_of_redis() {
    for policy in Policy::ALL {
        assert_eq!(policy.to_string().parse(), Ok(policy));
    }
    assert_eq!("ALLKEYS-LRU".parse(), Ok(Policy::AllKeysLru));
    assert_eq!("lru".parse::<Policy>(), Err(UnknownPolicy));
}

#[test]
fn each_policy_prefers_whom_it_should() {
    let p = partition();
    assert_eq!(victims(&p, Policy::NoEviction, 10_000), []);
    for policy in [Policy::AllKeysLru, Policy::AllKeysLfu] {
        assert!(share(&victims(&p, policy, 10_000), b"old") > 95, "{policy}");
    }
    for policy in [Policy::VolatileLru, Policy::VolatileLfu] {
        assert!(share(&victims(&p, policy, 5000), b"old") > 90, "{policy}");
    }
    assert!((35..65).contains(&share(&victims(&p, Policy::AllKeysRandom, 20_000), b"old")));
    let early = victims(&p, Policy::VolatileTtl, 3000);
    let has_early = |victim: &&Victim| {
        let text = String::from_utf8_lossy(&victim.key).into_owned();
        text.trim_start_matches(char::is_alphabetic).parse::<u32>().unwrap() < 500
    };
    assert!(early.iter().filter(has_early).count() * 100 > early.len() * 90);
}

#[test]
fn victims_are_as_many_as_needed_and_none_comes_twice() {
    let mut p = partition();
    for policy in Policy::ALL.into_iter().skip(1) {
        let chosen = victims(&p, policy, 10_000);
        let mut keys: Vec<_> = chosen.iter().map(|victim| &victim.key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), chosen.len(), "{policy}");
        assert_eq!(chosen.len(), 10_000_usize.div_ceil(80), "{policy}");
    }
    // More than there is: nearly all that may go.
    let volatile = victims(&p, Policy::VolatileRandom, u64::MAX);
    assert!((450..=500).contains(&volatile.len()), "{}", volatile.len());
    for victim in &volatile {
        assert_eq!(p.write(Write::Evict { keys: vec![&victim.key] }), Reply::Int(1));
    }
    assert_eq!(p.store.expires_count(), 500 - volatile.len());
    assert_eq!(victims(&Partition::new(), Policy::AllKeysLru, 1), []);
}

#[test]
fn a_crowded_slot_gives_most_victims() {
    let mut p = Partition::new();
    for number in 0..2000 {
        p.set(format!("{{tag}}{number}").as_bytes(), b"v");
        if number % 20 == 0 {
            p.set(format!("k{number}").as_bytes(), b"v");
        }
    }
    assert!(share(&victims(&p, Policy::AllKeysRandom, 10_000), b"{tag}") > 85);
}
