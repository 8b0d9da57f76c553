//! A random walk: clients ask for a few keys while machines, processes, links and clocks fail at random,
//! then everything is mended and must come to rest, and the history is handed out to be judged.
//!
//! Faults stay within what the product promises to survive: the next machine loses its memory only while
//! every voter of every group lives. Everything else fails without such regard, and at the same time.

mod plan;
mod torment;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use super::Counts;
use super::client::{Port, Told};
use super::cluster::Cluster;
use super::node::Life;
use plan::{FREQUENT, Fault, NODES_COUNT_MAX, Plan, duration};
use scatterhoard_check::history::{Action, Answer, Operation, Outcome};
use scatterhoard_check::linear::Rules;
use torment::{ADDED_TO, COUNTED, KEYS, Mood, Shared, look_on, torment};

/// Clients that ask all the time.
const CLIENTS_COUNT: usize = 4;

/// The first machine for them; those before are the watcher's and the story's.
const CLIENTS_FIRST: usize = 2;

/// The machine for those who only look on.
const ONLOOKERS: usize = CLIENTS_FIRST + CLIENTS_COUNT;

/// Cores that die in one walk: the third on one node would not be replaced before the walk gives up.
const DEATHS_COUNT_MAX: u64 = 2;

/// How long a connection may stand still that lost something: until its end notices that nothing is answered, and
/// a write that waits for it has given up.
const STANDSTILL_MAX: Duration = Duration::from_secs(6);

/// How far a deadline may be off, in nanoseconds: a new leader's clock starts 250 ms ahead, and members'
/// clocks are told right to as much.
const EXPIRY_TOLERANCE_NS: u64 = 1_500_000_000;

/// What a walk has seen.
pub struct Walked {
    /// What was asked and told, by those who only looked on, too.
    pub history: Vec<Operation>,
    /// How the history is to be judged.
    pub rules: Rules,
    /// What was done to the cluster.
    pub events: Vec<String>,
    /// What really happened, and how often.
    pub counts: Counts,
    /// How much simulated time it took.
    pub elapsed: Duration,
}

struct Walk {
    cluster: Cluster,
    rng: StdRng,
    plan: Plan,
    shared: Shared,
    /// When the last message was lost: everything was mended then.
    whole_since: Duration,
}

impl Walked {
    /// Whether at least a third of what clients asked for was done. Who only looked on does not count: most
    /// nodes had nothing to say to them.
    #[must_use]
    pub fn was_served(&self) -> bool {
        let asked = || self.history.iter().filter(|it| it.client as usize != ONLOOKERS);
        let done_count = asked().filter(|it| matches!(it.outcome, Outcome::Done { .. })).count();
        3 * done_count > asked().count()
    }
}

/// Walks.
///
/// # Panics
/// If an invariant breaks, if the cluster does not come to rest once everything is mended, or if a node or
/// a client panics.
#[must_use]
pub fn walk(seed: u64) -> Walked {
    let mut rng = StdRng::seed_from_u64(seed);
    let plan = Plan::draw(&mut rng);
    let cluster = plan.found(CLIENTS_COUNT + 1, seed, &mut rng);
    let shared = Shared::of(&plan);
    let mut walk = Walk { cluster, rng, plan, shared, whole_since: Duration::ZERO };
    let mut running = Vec::new();
    for number in CLIENTS_FIRST..CLIENTS_FIRST + CLIENTS_COUNT {
        let port = if number % 2 == 0 { Port::Cluster } else { Port::AnyKey };
        let client = walk.cluster.client(number, port);
        // Of those that know who leads what, every second one.
        let client = if number % 4 == 0 { client.tracking() } else { client };
        let rng = StdRng::seed_from_u64(walk.rng.random());
        running.push(walk.cluster.spawn(number, torment(client, rng, walk.shared.clone())));
    }
    for node in 1..=walk.cluster.nodes_count() {
        let client = walk.cluster.client_of(ONLOOKERS, node, Port::Cluster);
        let rng = StdRng::seed_from_u64(walk.rng.random());
        let looks = look_on(client, rng, walk.shared.clone());
        running.push(walk.cluster.spawn(ONLOOKERS, looks));
    }
    if let Some(point) = walk.plan.lurking {
        let seed = walk.rng.random();
        walk.cluster.lurk_at(point, seed);
    }
    for fault in walk.plan.faults.clone() {
        walk.inflict(fault);
        walk.raise_the_dead();
        walk.pause(2000);
    }
    walk.mend();
    walk.shared.mood.set(Mood::Over);
    for client in &running {
        walk.cluster.finish(client);
    }
    if walk.shared.pushes_count.get() > 0 {
        walk.cluster.count("walks in which clients were told of changes");
    }
    walk.rest()
}

impl Walk {
    /// Everything is mended, and comes to rest.
    fn mend(&mut self) {
        self.cluster.heal();
        self.whole_since = self.cluster.elapsed();
        self.cluster.stop_lurking();
        for node in 1..=self.cluster.nodes_count() {
            self.cluster.resume(node);
        }
        self.cluster.until("all processes run", |cluster| {
            let ended = (1..=cluster.nodes_count()).find(|&node| has_ended(&cluster.life(node)));
            if let Some(node) = ended {
                cluster.restart(node);
            }
            ended.is_none() && cluster.is_settled()
        });
        self.write_all("mended");
        let cluster = &mut self.cluster;
        let died_count = cluster.counts().of("Raft cores that died");
        assert!(died_count <= cluster.killed_count(), "no core dies by itself");
    }

    /// Every partition of a cluster that is whole takes writes, and is in doubt about none. Unless messages were
    /// lost just before: turmoil's TCP sends nothing again, so peers' connections may stand still unnoticed for a
    /// while.
    fn write_all(&mut self, value: &str) {
        let certain_from = self.whole_since + STANDSTILL_MAX;
        for key in KEYS {
            let key = format!("{{{key}}} {value}");
            self.cluster.until("every partition takes writes", |cluster| {
                let told = cluster.ask(Action::set(key.clone(), value.to_owned()));
                if let Told::InDoubt(reason) = &told {
                    let certain = cluster.elapsed() >= certain_from;
                    let doubted = reason.starts_with("INDOUBT") && certain;
                    assert!(!doubted, "the cluster is whole, and yet {reason}");
                }
                told.is_acked()
            });
        }
    }

    /// The last word on every key, and whether all agree on it.
    fn rest(mut self) -> Walked {
        let cluster = &mut self.cluster;
        for key in KEYS.into_iter().chain([COUNTED, ADDED_TO]) {
            // Not at the first attempt: turmoil's TCP sends nothing again, so a connection that lost a
            // segment before everything was mended is noticed, and opened anew, only after some seconds.
            let mut told = None;
            cluster.until("the last word on every key is had", |cluster| {
                let answer = cluster.ask(Action::get(key));
                told = answer.is_acked().then_some(answer);
                told.is_some()
            });
            if key == ADDED_TO
                && let Some(Answer::Value(Some(log))) = told.map(Told::acked)
                && let Err(reason) = torment::in_order(&String::from_utf8_lossy(&log))
            {
                panic!("the order of a pipeline was not kept: {reason}");
            }
        }
        for node in 1..=cluster.nodes_count() {
            cluster.until("every node answers for any key", |cluster| {
                cluster.ask_node(node, Port::AnyKey, Action::get(KEYS[0])).is_acked()
            });
        }
        cluster.settle();
        cluster.converge();
        let tolerance = EXPIRY_TOLERANCE_NS;
        Walked {
            history: cluster.history(),
            rules: Rules {
                expiry_early: tolerance,
                expiry_late: Some(tolerance),
                ..Rules::default()
            },
            events: cluster.events().to_vec(),
            counts: cluster.counts(),
            elapsed: cluster.elapsed(),
        }
    }

    /// One fault from its beginning to its end; some outlast this.
    fn inflict(&mut self, fault: Fault) {
        if fault.takes_memory() {
            // Replicas may be on their way, leaderships be handed over and links be cut: only what was lost
            // before must be there again.
            let spare = self.cluster.can_spare_one();
            let ready = match fault {
                Fault::Majority | Fault::CoreDies => spare && self.cluster.is_settled(),
                _ => spare,
            };
            if !ready {
                self.cluster.note(format!("one more may be one too many, so no {fault:?}"));
                return;
            }
            if !self.cluster.is_settled() {
                self.cluster.count("memory lost while groups change");
            }
            self.take_memory(fault);
        } else {
            self.disturb(fault);
        }
    }

    /// A fault that takes a replica away.
    fn take_memory(&mut self, fault: Fault) {
        let node = self.anyone();
        match fault {
            Fault::CoreDies if self.cluster.killed_count() >= DEATHS_COUNT_MAX => return,
            Fault::CoreDies => self.kill_a_core(),
            Fault::CrashLoop => {
                for _ in 0..3 {
                    self.cluster.crash(node);
                    self.pause(500);
                    self.cluster.restart(node);
                    self.pause(1000);
                }
            }
            Fault::Kill => {
                self.cluster.kill(node);
                self.pause(2000);
                self.cluster.restart(node);
            }
            Fault::LongAway => {
                self.cluster.crash(node);
                self.cluster.wait(Duration::from_secs(9));
                self.cluster.restart(node);
            }
            Fault::Majority => self.kill_a_majority(),
            Fault::RollingRestart => self.restart_all(),
            Fault::Leave => self.leave(node),
            Fault::Drain => {
                let other = self.other_than(node);
                if !self.cluster.drain(other, node) {
                    return;
                }
                self.see_off(node);
            }
            Fault::LeaveUnheard => {
                let (node, other) = (self.leader(), self.other_than(node));
                self.cluster.leave(node);
                // While it hands over: nothing may reach it any more, or not everybody hear of it.
                if self.rng.random() {
                    self.cluster.wait_for_hand_over(Duration::from_secs(2));
                } else {
                    self.pause(200);
                }
                match self.rng.random_range(0..3) {
                    0 => self.cluster.cut(node, other),
                    1 => self.cluster.cut(other, node),
                    _ => self.deafen(node),
                }
                self.see_off(node);
            }
            _ => {
                self.cluster.crash(node);
                self.pause(6000);
                self.cluster.restart(node);
            }
        }
        self.happened(fault);
    }

    /// A fault that takes no replica away.
    fn disturb(&mut self, fault: Fault) {
        let node = self.anyone();
        match fault {
            Fault::Join | Fault::JoinWhileSplit
                if self.cluster.nodes_count() >= NODES_COUNT_MAX =>
            {
                return;
            }
            Fault::Join => {
                self.cluster.join();
            }
            Fault::JoinWhileSplit => {
                self.split();
                self.cluster.join();
                self.lasts(4000);
            }
            Fault::Pause => {
                self.cluster.pause(node);
                self.pause(4000);
                self.cluster.resume(node);
            }
            Fault::PauseAt => self.pause_at(),
            Fault::PauseAfterAck => self.pause_after_ack(),
            Fault::CutAfterAck => self.cut_after_ack(),
            Fault::PauseTwo => self.pause_two(node),
            Fault::ClockJump => {
                let (by, liar) = (self.rng.random_range(1..7200), self.plan.liar);
                self.cluster.note(format!("the clock of n{liar} jumps by {by} s"));
                self.cluster.clock(liar).jump(Duration::from_secs(by), self.rng.random());
            }
            Fault::Starve => {
                let every = Duration::from_millis(self.rng.random_range(20..250));
                self.cluster.starve(node, every);
                self.lasts_perhaps(5000);
            }
            _ => self.disturb_links(fault, node),
        }
        self.happened(fault);
    }

    /// A fault of the network.
    fn disturb_links(&mut self, fault: Fault, node: usize) {
        let other = self.other_than(node);
        match fault {
            Fault::Isolate => {
                self.cluster.isolate(node);
                self.lasts(6000);
            }
            Fault::Split => {
                self.split();
                // Sometimes for so long that those on the other side are taken for dead.
                let ms_max = if self.rng.random_range(0..4) == 0 { 18_000 } else { 4000 };
                self.lasts(ms_max);
            }
            Fault::Bridge => {
                self.cluster.split(&[node], &[other]);
                self.lasts(6000);
            }
            Fault::OneWay => {
                self.cluster.cut(node, other);
                self.lasts_perhaps(6000);
            }
            Fault::Hold => {
                self.cluster.hold(node);
                self.lasts(3000);
            }
            Fault::SlowDown => {
                let latency = Duration::from_millis(self.rng.random_range(20..400));
                self.cluster.slow_down(node, latency);
                self.lasts_perhaps(4000);
            }
            Fault::Lose => {
                let share = self.rng.random_range(0.0..0.05);
                self.cluster.lose(share);
                self.lasts(4000);
            }
            Fault::Shuffle => {
                let (twice, late) = (self.rng.random_range(0..300), self.rng.random_range(0..300));
                self.cluster.shuffle_datagrams(node, twice, late);
                self.lasts_perhaps(4000);
            }
            _ => unreachable!("all others are done elsewhere"),
        }
    }

    /// Two processes stop and go on one after the other.
    fn pause_two(&mut self, node: usize) {
        let other = self.other_than(node);
        self.cluster.pause(node);
        self.pause(1500);
        self.cluster.pause(other);
        self.pause(1500);
        self.cluster.resume(node);
        self.pause(1500);
        self.cluster.resume(other);
    }

    fn happened(&mut self, fault: Fault) {
        self.cluster.count(&format!("{fault:?}"));
    }

    /// A process stops where it looks at something, for as long as it takes until that is old.
    fn pause_at(&mut self) {
        let node = self.leader();
        let point = *FREQUENT.choose(&mut self.rng).expect("there are some");
        self.cluster.pause_at(node, point);
        self.pause(5000);
        self.cluster.resume(node);
    }

    /// Whoever acknowledges something is stopped at once, before it can tell its followers; what the client
    /// was sent still arrives.
    fn pause_after_ack(&mut self) {
        for _ in 0..3 {
            let Some(node) = self.cluster.wait_for_ack(Duration::from_secs(2)) else { continue };
            self.cluster.pause(node);
            self.pause(3000);
            self.cluster.resume(node);
            self.pause(1500);
        }
    }

    fn cut_after_ack(&mut self) {
        let latency = Duration::from_millis(self.rng.random_range(10..80));
        for _ in 0..2 {
            for node in 1..=self.cluster.nodes_count() {
                self.cluster.slow_down(node, latency);
            }
            self.pause(1000);
            if let Some(node) = self.cluster.wait_for_ack(Duration::from_secs(2)) {
                self.cluster.isolate(node);
            }
            self.lasts(3000);
        }
    }

    /// Two machines end at once while nobody asks for anything, and all that was acknowledged is
    /// everywhere: whoever is left has it, and the cluster finds back from that.
    fn kill_a_majority(&mut self) {
        self.cluster.heal();
        self.whole_since = self.cluster.elapsed();
        self.shared.mood.set(Mood::Resting);
        let busy = std::rc::Rc::clone(&self.shared.busy);
        self.cluster.until("nothing is under way", |_| busy.get() == 0);
        self.cluster.settle();
        self.cluster.converge();
        let one = self.anyone();
        let other = self.other_than(one);
        self.cluster.kill(one);
        self.cluster.kill(other);
        self.pause(1500);
        self.cluster.restart(one);
        self.pause(500);
        self.cluster.restart(other);
        self.shared.mood.set(Mood::Asking);
        self.cluster.until("it has found back", |cluster| {
            let ended = (1..=cluster.nodes_count()).find(|&node| has_ended(&cluster.life(node)));
            if let Some(node) = ended {
                cluster.restart(node);
            }
            cluster.is_settled()
        });
        self.write_all("founded anew");
    }

    /// Each waits until the one before is back, as an operator would; so all must reach each other.
    fn restart_all(&mut self) {
        self.cluster.heal();
        let mut order: Vec<_> = (1..=self.cluster.nodes_count()).collect();
        order.shuffle(&mut self.rng);
        for node in order {
            self.leave(node);
            self.cluster.restart(node);
            self.cluster.settle();
        }
    }

    fn leave(&mut self, node: usize) {
        self.cluster.leave(node);
        self.see_off(node);
    }

    /// Waits until a node has left. After a while the links are mended: where some never reach others nobody
    /// promises that it can.
    fn see_off(&mut self, node: usize) {
        let links_mended = self.cluster.elapsed() + duration(&mut self.rng, 4000);
        let mut mended = false;
        self.cluster.until("it has left", |cluster| {
            if !mended && cluster.elapsed() >= links_mended {
                mended = true;
                cluster.heal();
            }
            has_ended(&cluster.life(node))
        });
        self.cluster.heal();
    }

    /// The core of a replica dies. It is replaced while other things happen.
    fn kill_a_core(&mut self) {
        let key = *KEYS.choose(&mut self.rng).expect("there are some");
        let holders: Vec<_> =
            self.cluster.voters_of(key).into_iter().map(|(node, _)| node).collect();
        let victim = *holders.choose(&mut self.rng).expect("it is settled");
        self.cluster.kill_core(victim, key);
        self.pause(9000);
    }

    /// Nothing gets to a node, but what it says is heard.
    fn deafen(&mut self, node: usize) {
        for other in (1..=self.cluster.nodes_count()).filter(|&other| other != node) {
            self.cluster.cut(other, node);
        }
    }

    fn split(&mut self) {
        let mut nodes: Vec<_> = (1..=self.cluster.nodes_count()).collect();
        nodes.shuffle(&mut self.rng);
        let rest = nodes.split_off(self.rng.random_range(1..nodes.len()));
        self.cluster.split(&nodes, &rest);
    }

    /// Processes that the cluster has ended are started again, as a supervisor would.
    fn raise_the_dead(&mut self) {
        for node in 1..=self.cluster.nodes_count() {
            if has_ended(&self.cluster.life(node)) {
                self.pause(1000);
                self.cluster.restart(node);
            }
        }
    }

    /// Whoever leads one of the keys, as any says; somebody if none is known.
    fn leader(&mut self) -> usize {
        let key = *KEYS.choose(&mut self.rng).expect("there are some");
        let leaders = self.cluster.leaders_of(key);
        leaders.first().map_or_else(|| self.anyone(), |&(node, _)| node)
    }

    fn anyone(&mut self) -> usize {
        self.rng.random_range(1..=self.cluster.nodes_count())
    }

    fn other_than(&mut self, node: usize) -> usize {
        let count = self.cluster.nodes_count();
        1 + (node + self.rng.random_range(0..count - 1)) % count
    }

    fn pause(&mut self, ms_max: u64) {
        let time = duration(&mut self.rng, ms_max);
        self.cluster.wait(time);
    }

    /// Links are as they are for a while, and then mended.
    fn lasts(&mut self, ms_max: u64) {
        self.pause(ms_max);
        self.cluster.heal();
    }

    /// The same, but sometimes they stay so while the next fault happens.
    fn lasts_perhaps(&mut self, ms_max: u64) {
        self.pause(ms_max);
        if self.rng.random() {
            self.cluster.heal();
        }
    }
}

fn has_ended(life: &Life) -> bool {
    match life {
        Life::None | Life::Entering | Life::Member => false,
        Life::Refused(_) | Life::Dismissed | Life::Left => true,
    }
}
