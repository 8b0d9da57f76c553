//! Random histories, in which nothing that is served may be older than the bound.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use scatterhoard_near::Limits;

use crate::model::{Event, KEYS, NODES, World};

/// A world's limits, and what happens in it.
type History = (Limits, u32, Vec<Event>);

fn event() -> impl Strategy<Value = Event> {
    let (key, node, which) = (0..KEYS.len(), 0..NODES, any::<usize>());
    prop_oneof![
        8 => prop_oneof![4 => 0_u64..15, 1 => 15_u64..150].prop_map(Event::Wait),
        8 => (key.clone(), option::weighted(0.3, 1_u64..200))
            .prop_map(|(key, ttl_ms)| Event::Write { key, ttl_ms }),
        1 => Just(Event::Flush),
        40 => Just(Event::Round),
        40 => key.clone().prop_map(Event::Fetch),
        2 => Just(Event::Ask),
        10 => key.clone().prop_map(Event::Load),
        // What came first goes first, more often than not: else hardly any answer would be of use.
        24 => Just(Event::Deliver(0)),
        8 => which.prop_map(Event::Deliver),
        3 => which.prop_map(Event::Lose),
        2 => which.prop_map(Event::Repeat),
        14 => which.prop_map(Event::Answer),
        14 => which.prop_map(Event::Read),
        12 => which.prop_map(Event::Store),
        24 => key.prop_map(Event::Find),
        24 => which.prop_map(Event::Serve),
        1 => Just(Event::LeaseLost),
        4 => Just(Event::LeaseRegained),
        1 => node.clone().prop_map(Event::Elected),
        1 => node.clone().prop_map(Event::Founded),
        1 => node.prop_map(Event::Follow),
        1 => Just(Event::GiveUp),
    ]
}

fn history() -> impl Strategy<Value = History> {
    let limits = (0_usize..6, 1_usize..5).prop_map(|(keys_max, queue_max)| Limits {
        readers_max: 1,
        keys_max,
        queue_max,
    });
    (limits, 1_u32..12, vec(event(), 0..300))
}

fn run((limits, cell_bits, events): &History) -> World {
    let mut world = World::new(*limits, *cell_bits);
    events.iter().for_each(|event| world.happen(event));
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_served_is_older_than_the_bound(history in history()) {
        run(&history);
    }

    #[test]
    fn with_nothing_in_the_way_all_is_served_and_nothing_is_old(history in history()) {
        run(&history).heal();
    }
}

#[test]
fn random_histories_serve_and_refuse() {
    let mut runner = TestRunner::deterministic();
    let (mut served, mut refused) = (0, 0);
    for _ in 0..300 {
        let world = run(&history().new_tree(&mut runner).unwrap().current());
        served += world.served_count;
        refused += world.refused_count;
    }
    assert!(served > 300, "only {served} copies were served, and {refused} refused");
    assert!(refused > 300, "only {refused} copies were refused, and {served} served");
}
