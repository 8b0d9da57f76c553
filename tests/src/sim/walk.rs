//! A random walk: clients ask for a few keys while machines and links fail at random, then everything is
//! mended, and the history is handed out to be judged.
//!
//! Faults stay within what the product promises to survive: the next machine loses its memory only once
//! the cluster is fully replicated again. Links fail without such regard.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::client::{Client, Port};
use super::cluster::Cluster;
use super::node::Life;
use scatterhoard_check::history::{Action, Operation};

/// Clients that ask all the time.
const CLIENTS_COUNT: usize = 4;

/// The first machine for them; those before are the watcher's and the story's.
const CLIENTS_FIRST: usize = 2;

/// Keys that they ask for: few, so that they meet.
const KEYS: [&str; 5] = ["apple", "pear", "plum", "{fig}1", "{fig}2"];

/// A key that is only counted up, and one that is only added to: nothing hides what was lost or done twice.
const COUNTED: &str = "count";
const ADDED_TO: &str = "log";

/// Faults in one walk.
const FAULTS_COUNT: usize = 7;

/// What a walk has seen.
pub struct Walked {
    /// What the clients asked and were told.
    pub history: Vec<Operation>,
    /// What was done to the cluster.
    pub events: Vec<String>,
    /// How much simulated time it took.
    pub elapsed: Duration,
}

/// What is done to the cluster.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Crash,
    Kill,
    Leave,
    Isolate,
    Split,
    CutOneWay,
    Hold,
    SlowDown,
    Lose,
    CrashLoop,
    ClockJump,
    Join,
    CoreDies,
}

const FAULTS: [Fault; 16] = [
    Fault::Crash,
    Fault::Crash,
    Fault::Kill,
    Fault::Leave,
    Fault::Isolate,
    Fault::Isolate,
    Fault::Split,
    Fault::CutOneWay,
    Fault::CutOneWay,
    Fault::Hold,
    Fault::SlowDown,
    Fault::Lose,
    Fault::CrashLoop,
    Fault::ClockJump,
    Fault::Join,
    Fault::CoreDies,
];

/// Cores that die in one walk: the third on one node would not be replaced before the walk gives up.
const DEATHS_COUNT_MAX: u64 = 2;

/// Machines that a walk may end with.
const NODES_COUNT_MAX: usize = 5;

/// Walks.
///
/// # Panics
/// If the cluster does not find back to a settled state once everything is mended, or if a node or a
/// client panics.
#[must_use]
pub fn walk(seed: u64) -> Walked {
    let mut rng = StdRng::seed_from_u64(seed);
    let count = rng.random_range(3..=NODES_COUNT_MAX);
    let mut cluster = Cluster::of(count).clients(CLIENTS_COUNT).seed(seed);
    let over = Rc::new(Cell::new(false));
    let mut running = Vec::new();
    for number in CLIENTS_FIRST..CLIENTS_FIRST + CLIENTS_COUNT {
        let port = if number % 2 == 0 { Port::Cluster } else { Port::AnyKey };
        let client = cluster.client(number, port);
        let rng = StdRng::seed_from_u64(rng.random());
        running.push(cluster.spawn(number, torment(client, rng, Rc::clone(&over))));
    }
    for _ in 0..FAULTS_COUNT {
        let fault = FAULTS[rng.random_range(0..FAULTS.len())];
        inflict(&mut cluster, fault, &mut rng);
        raise_the_dead(&mut cluster, &mut rng);
        pause(&mut cluster, &mut rng, 3000);
    }
    cluster.heal();
    cluster.until("all processes run", |cluster| {
        let ended = (1..=cluster.nodes_count()).find(|&node| has_ended(&cluster.life(node)));
        if let Some(node) = ended {
            cluster.restart(node);
        }
        ended.is_none() && cluster.is_settled()
    });
    assert!(cluster.deaths_count() <= cluster.killed_count(), "no core dies by itself");
    over.set(true);
    for client in &running {
        cluster.finish(client);
    }
    for key in KEYS.into_iter().chain([COUNTED, ADDED_TO]) {
        // Not at the first attempt: turmoil's TCP sends nothing again, so a connection that lost a segment
        // before everything was mended is noticed, and opened anew, only after some seconds.
        cluster.until("the last word on every key is had", |cluster| {
            cluster.ask(Action::get(key)).is_acked()
        });
    }
    Walked {
        history: cluster.history(),
        events: cluster.events().to_vec(),
        elapsed: cluster.elapsed(),
    }
}

/// The core of a replica dies. It is replaced while other things happen.
fn kill_a_core(cluster: &mut Cluster, rng: &mut StdRng) {
    let key = KEYS[rng.random_range(0..KEYS.len())];
    let holders: Vec<_> = cluster.voters_of(key).into_iter().map(|(node, _)| node).collect();
    cluster.kill_core(holders[rng.random_range(0..holders.len())], key);
    pause(cluster, rng, 9000);
}

/// One fault from its beginning to its end; some outlast this.
fn inflict(cluster: &mut Cluster, fault: Fault, rng: &mut StdRng) {
    let node = rng.random_range(1..=cluster.nodes_count());
    match fault {
        Fault::Crash
        | Fault::Kill
        | Fault::CrashLoop
        | Fault::Leave
        | Fault::Join
        | Fault::CoreDies
            if !cluster.is_settled() =>
        {
            // One more replica lost now may be one too many.
        }
        Fault::Crash => {
            cluster.crash(node);
            pause(cluster, rng, 9000);
            cluster.restart(node);
        }
        Fault::CrashLoop => {
            for _ in 0..3 {
                cluster.crash(node);
                pause(cluster, rng, 500);
                cluster.restart(node);
                pause(cluster, rng, 1000);
            }
        }
        Fault::Kill => {
            cluster.kill(node);
            pause(cluster, rng, 2000);
            cluster.restart(node);
        }
        Fault::Leave => {
            cluster.leave(node);
            cluster.until("it has left", |cluster| has_ended(&cluster.life(node)));
        }
        Fault::Join if cluster.nodes_count() < NODES_COUNT_MAX => {
            cluster.join();
        }
        Fault::CoreDies if cluster.killed_count() < DEATHS_COUNT_MAX => kill_a_core(cluster, rng),
        Fault::Join | Fault::CoreDies => {}
        Fault::Isolate
        | Fault::Split
        | Fault::CutOneWay
        | Fault::Hold
        | Fault::SlowDown
        | Fault::Lose
        | Fault::ClockJump => disturb(cluster, fault, node, rng),
    }
}

/// A fault that takes no process away.
fn disturb(cluster: &mut Cluster, fault: Fault, node: usize, rng: &mut StdRng) {
    let other = 1 + (node + rng.random_range(0..cluster.nodes_count() - 1)) % cluster.nodes_count();
    match fault {
        Fault::Isolate => {
            cluster.isolate(node);
            pause(cluster, rng, 8000);
            cluster.heal();
        }
        Fault::Split => {
            let (one, rest): (Vec<_>, Vec<_>) =
                (1..=cluster.nodes_count()).partition(|_| rng.random());
            cluster.split(&one, &rest);
            pause(cluster, rng, 4000);
            cluster.heal();
        }
        Fault::CutOneWay => {
            cluster.cut(node, other);
            pause(cluster, rng, 8000);
            if rng.random() {
                cluster.heal();
            }
        }
        Fault::Hold => {
            cluster.hold(node);
            pause(cluster, rng, 3000);
            cluster.heal();
        }
        Fault::SlowDown => {
            cluster.slow_down(node, Duration::from_millis(rng.random_range(20..400)));
            pause(cluster, rng, 5000);
            cluster.heal();
        }
        Fault::Lose => {
            cluster.lose(rng.random_range(0.0..0.05));
            pause(cluster, rng, 5000);
            cluster.heal();
        }
        Fault::ClockJump => {
            let by = Duration::from_secs(rng.random_range(1..7200));
            cluster.note(format!("the clock of n{node} jumps by {by:?}"));
            cluster.clock(node).jump(by, rng.random());
        }
        Fault::Crash
        | Fault::CrashLoop
        | Fault::Kill
        | Fault::Leave
        | Fault::Join
        | Fault::CoreDies => {
            unreachable!("these take a replica away, or bring one")
        }
    }
}

/// Processes that the cluster has ended are started again, as a supervisor would.
fn raise_the_dead(cluster: &mut Cluster, rng: &mut StdRng) {
    for node in 1..=cluster.nodes_count() {
        if has_ended(&cluster.life(node)) {
            pause(cluster, rng, 1000);
            cluster.restart(node);
        }
    }
}

fn has_ended(life: &Life) -> bool {
    match life {
        Life::None | Life::Entering | Life::Member => false,
        Life::Refused(_) | Life::Dismissed | Life::Left => true,
    }
}

fn pause(cluster: &mut Cluster, rng: &mut StdRng, ms_max: u64) {
    cluster.wait(Duration::from_millis(rng.random_range(1..ms_max)));
}

/// Asks until it is over.
async fn torment(mut client: Client, mut rng: StdRng, over: Rc<Cell<bool>>) {
    let mut count = 0_u32;
    while !over.get() {
        count += 1;
        client.prefer(rng.random_range(0..NODES_COUNT_MAX));
        let _told = client.ask(action(&mut rng, count)).await;
        let pause = Duration::from_millis(rng.random_range(5..150));
        tokio::time::sleep(pause).await;
    }
}

fn action(rng: &mut StdRng, count: u32) -> Action {
    let key = KEYS[rng.random_range(0..KEYS.len())];
    // Values differ, so that a read tells which write it saw.
    let value = format!("{}-{count}", rng.random::<u16>());
    match rng.random_range(0..24) {
        0..7 => Action::get(key),
        7..11 => Action::set(key, value),
        11 => Action::swap(key, value),
        12 => Action::append(key, value),
        13 => Action::set_if_absent(key, value),
        14 => Action::delete(key),
        15 => Action::get_many(["{fig}1", "{fig}2"]),
        16 => Action::set_many([("{fig}1", value.clone()), ("{fig}2", value)]),
        17..19 => Action::incr(COUNTED, 1),
        19..21 => Action::append(ADDED_TO, value + ","),
        21 => Action::get(COUNTED),
        _ => Action::get(ADDED_TO),
    }
}
