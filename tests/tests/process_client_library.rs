//! The client library with real processes: nodes are killed and paused while many tasks share one client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scatterhoard_check::history::{Action, Answer, Outcome, Recorder, lost_writes};
use scatterhoard_check::linear;
use scatterhoard_client::{Cluster as Client, Error};
use scatterhoard_tests::process::{Cluster, pause, runtime};
use tokio::time::Instant;

const TASKS_COUNT: u32 = 32;

const KEYS_COUNT: u32 = 40;

#[test]
fn what_many_tasks_do_through_one_client_is_linearizable_while_nodes_are_killed() {
    let seed = 20_261_121;
    let mut cluster = Cluster::of(3);
    let runtime = runtime();
    let seeds = cluster.addresses();
    // One address is enough to begin with; the node there will be killed, too.
    let client = runtime.block_on(Client::connect([&seeds[0]])).expect("the cluster is up");
    let recorder = Recorder::new();
    let over = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..TASKS_COUNT)
        .map(|number| {
            let (client, recorder, over) = (client.clone(), recorder.clone(), Arc::clone(&over));
            let mut rng = StdRng::seed_from_u64(seed + u64::from(number));
            runtime.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    ask(&client, &recorder, number, begun, action(&mut rng)).await;
                    tokio::time::sleep(Duration::from_millis(rng.random_range(0..20))).await;
                }
            })
        })
        .collect();
    let mut rng = StdRng::seed_from_u64(seed);
    for round in 0..6 {
        let node = rng.random_range(0..3);
        if round % 3 == 2 {
            cluster.pause(node);
            pause(Duration::from_millis(rng.random_range(500..3000)));
            cluster.resume(node);
        } else {
            cluster.kill(node);
            pause(Duration::from_millis(rng.random_range(100..2500)));
            cluster.start(node);
        }
        cluster.wait_ready();
    }
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        runtime.block_on(task).expect("no task panics");
    }
    for number in 0..KEYS_COUNT {
        runtime.block_on(ask(&client, &recorder, TASKS_COUNT, begun, Action::get(key(number))));
    }
    let history = recorder.history();
    let of = |is: fn(&Outcome) -> bool| history.iter().filter(|it| is(&it.outcome)).count();
    let done = of(|it| matches!(it, Outcome::Done { .. }));
    let (refused, unknown) =
        (of(|it| matches!(it, Outcome::Refused { .. })), of(|it| matches!(it, Outcome::Unknown)));
    println!("{done} done, {refused} not done, {unknown} in doubt");
    assert!(done > 2000, "too little was done to judge");
    let lost = lost_writes(&history);
    assert!(lost.lost.is_empty(), "acknowledged writes are gone: {:?}", lost.lost);
    let verdict = linear::check(&history);
    assert!(verdict.is_linearizable(), "{verdict}");
}

#[test]
fn many_keys_at_once_come_in_their_order_wherever_they_are() {
    let mut cluster = Cluster::of(3);
    let runtime = runtime();
    let seeds = cluster.addresses();
    let client = runtime.block_on(Client::connect(seeds)).expect("the cluster is up");
    let pairs: Vec<_> = (0..200).map(|number| (key(number), number.to_string())).collect();
    let keys: Vec<_> = pairs.iter().map(|(key, _)| key).collect();
    assert!(runtime.block_on(client.set_many(&pairs)).iter().all(Result::is_ok));
    let read = || {
        let values = runtime.block_on(client.get_many(&keys)).expect("all can be read");
        let text = |value: Option<bytes::Bytes>| {
            value.map(|value| String::from_utf8_lossy(&value).into_owned())
        };
        values.into_iter().map(text).collect::<Vec<_>>()
    };
    let written: Vec<_> = pairs.iter().map(|(_, value)| Some(value.clone())).collect();
    assert_eq!(read(), written);
    cluster.kill(1);
    assert_eq!(read(), written, "with a node less, and an old map");
}

fn key(number: u32) -> String {
    format!("key-{number}")
}

fn action(rng: &mut StdRng) -> Action {
    let key = key(rng.random_range(0..KEYS_COUNT));
    let value = rng.random::<u32>().to_string();
    match rng.random_range(0..10) {
        0..4 => Action::get(key),
        4..7 => Action::set(key, value),
        7 => Action::append(key, value),
        8 => Action::delete(key),
        _ => Action::incr(format!("{key}-count"), 1),
    }
}

/// Asks, and records what was asked and told.
async fn ask(client: &Client, recorder: &Recorder, number: u32, begun: Instant, action: Action) {
    let now = || u64::try_from(begun.elapsed().as_nanos()).expect("it takes some seconds");
    let pending = recorder.begin(number, action.clone(), now());
    let answer = match &action {
        Action::Get { key } => client.get(key).await.map(Answer::Value),
        Action::Set { key, value, .. } => client.set(key, value).await.map(|()| Answer::Done),
        Action::Append { key, value } => client.append(key, value).await.map(Answer::Number),
        Action::Delete { key } => client.delete(key).await.map(Answer::Bool),
        Action::Incr { key, by } => client.incr_by(key, *by).await.map(Answer::Number),
        other => panic!("{other:?} is not asked for"),
    };
    match answer {
        Ok(answer) => pending.done(answer, now()),
        Err(Error::NotDone(_) | Error::Refused { .. }) => pending.refused(now()),
        Err(Error::InDoubt(_)) => pending.unknown(),
        Err(other) => panic!("{action:?}: {other}"),
    }
}
