//! Which faults happen, in which order and how, from a seed. Pure: equal seeds give equal plans.
//!
//! When each happens is not in the plan, because that depends on the cluster: some wait until it is whole.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::fault::{Course, Deed, Fault, Kind, Place, Sky};
use crate::net::link::Weather;

/// How heavy the lightest and the heaviest kind are in one campaign. What a campaign does most differs from
/// seed to seed, so that also rare combinations come to be (Groce et al., "Swarm Testing", 2012).
const WEIGHTS: std::ops::RangeInclusive<u32> = 1..=8;

const FAIR: Weather = Weather {
    cut: false,
    lost_percent: 0,
    late_ms_min: 0,
    late_ms_max: 0,
    shuffled_percent: 0,
    bytes_per_s: None,
};
const CUT: Weather = Weather { cut: true, ..FAIR };

/// To whom, what it is for people, and how it is done.
type Drawn = (Vec<usize>, String, Vec<Deed>);

/// What happens in one course, without end.
#[derive(Debug)]
pub struct Plan {
    /// What is still to happen once, before chance has its way.
    deck: Vec<Kind>,
    weights: Vec<(Kind, u32)>,
    nodes_count: usize,
    rng: StdRng,
}

impl Plan {
    /// What happens to `nodes_count` nodes in one course, of these kinds. First each kind once, in any order;
    /// after that what chance gives.
    #[must_use]
    pub fn new(seed: u64, course: Course, kinds: &[Kind], nodes_count: usize) -> Self {
        let salt = match course {
            Course::Nodes => 1,
            Course::Around => 2,
        };
        let mut rng = StdRng::seed_from_u64(seed ^ (salt << 56));
        // In an order of ours: a seed gives the same plan however the kinds were listed.
        let mut kinds: Vec<Kind> =
            kinds.iter().copied().filter(|kind| kind.course() == course).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let weights = kinds.iter().map(|&kind| (kind, rng.random_range(WEIGHTS))).collect();
        kinds.shuffle(&mut rng);
        Self { deck: kinds, weights, nodes_count, rng }
    }

    /// How long nothing happens before the next fault.
    pub fn gap_ms(&mut self) -> u64 {
        self.rng.random_range(200..2000)
    }

    /// The next fault; `None` if there are no kinds for this course.
    pub fn next_fault(&mut self) -> Option<Fault> {
        let kind = match self.deck.pop() {
            Some(kind) => kind,
            None => self.weighted()?,
        };
        Some(self.draw(kind))
    }

    fn weighted(&mut self) -> Option<Kind> {
        let sum: u32 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut left = if sum > 0 { self.rng.random_range(0..sum) } else { return None };
        for &(kind, weight) in &self.weights {
            if left < weight {
                return Some(kind);
            }
            left -= weight;
        }
        None
    }

    fn draw(&mut self, kind: Kind) -> Fault {
        let node = self.rng.random_range(1..=self.nodes_count);
        let (nodes, detail, script) = match kind {
            Kind::Kill => self.kill(node),
            Kind::Crash => self.crash(node),
            Kind::Pause => self.pause(node),
            Kind::Memory => self.memory(node),
            Kind::Descriptors => self.descriptors(node),
            Kind::Leave => self.leave(node),
            Kind::RestartAll => self.restart_all(),
            Kind::Join => self.join(),
            Kind::Clock => self.clock(node),
            Kind::Cut => self.cut(node),
            Kind::Island => self.island(),
            Kind::OneWay => self.one_way(node),
            Kind::Loss => self.loss(node),
            Kind::Delay => self.delay(node),
            Kind::Reorder => self.reorder(node),
            Kind::Bandwidth => self.bandwidth(node),
        };
        Fault { kind, nodes, detail, script }
    }

    fn kill(&mut self, node: usize) -> Drawn {
        let down_ms = self.down_ms();
        let script =
            vec![Deed::AwaitWhole, Deed::Kill(node), Deed::Wait(down_ms), Deed::Start(node)];
        (vec![node], format!("n{node} killed, down for {}", seconds(down_ms)), script)
    }

    fn crash(&mut self, node: usize) -> Drawn {
        let down_ms = self.down_ms();
        let script = vec![
            Deed::AwaitWhole,
            Deed::Unplug(node),
            Deed::Kill(node),
            Deed::Wait(down_ms),
            Deed::Reboot(node),
            Deed::Start(node),
        ];
        (vec![node], format!("n{node}'s machine crashed, down for {}", seconds(down_ms)), script)
    }

    fn pause(&mut self, node: usize) -> Drawn {
        let ms = self.while_ms();
        let script = vec![Deed::Stop(node), Deed::Wait(ms), Deed::Continue(node)];
        (vec![node], format!("n{node} stands still for {}", seconds(ms)), script)
    }

    fn memory(&mut self, node: usize) -> Drawn {
        let ms = self.while_ms();
        let script = vec![
            Deed::AwaitWhole,
            Deed::Starve(node),
            Deed::Wait(ms),
            Deed::Feed(node),
            Deed::Start(node),
        ];
        (vec![node], format!("n{node} gets no more memory for {}", seconds(ms)), script)
    }

    fn descriptors(&mut self, node: usize) -> Drawn {
        let ms = self.while_ms();
        let script = vec![Deed::Fence(node), Deed::Wait(ms), Deed::Unfence(node)];
        (vec![node], format!("n{node} can open no file or socket for {}", seconds(ms)), script)
    }

    fn leave(&mut self, node: usize) -> Drawn {
        let away_ms = self.down_ms();
        let script = vec![
            Deed::AwaitWhole,
            Deed::Dismiss(node),
            Deed::AwaitGone(node),
            Deed::Wait(away_ms),
            Deed::Start(node),
        ];
        (vec![node], format!("n{node} leaves, away for {}", seconds(away_ms)), script)
    }

    fn restart_all(&mut self) -> Drawn {
        let mut order: Vec<usize> = (1..=self.nodes_count).collect();
        order.shuffle(&mut self.rng);
        let restart = |&node: &usize| {
            [Deed::AwaitWhole, Deed::Dismiss(node), Deed::AwaitGone(node), Deed::Start(node)]
        };
        let script = order.iter().flat_map(restart).collect();
        (order, "all nodes leave and come back, one after the other".to_owned(), script)
    }

    fn join(&mut self) -> Drawn {
        let (spare, ms) = (self.nodes_count + 1, self.while_ms());
        let script = vec![
            Deed::AwaitWhole,
            Deed::Start(spare),
            Deed::AwaitWhole,
            Deed::Wait(ms),
            Deed::AwaitWhole,
            Deed::Dismiss(spare),
            Deed::AwaitGone(spare),
        ];
        (vec![spare], format!("n{spare} joins, and leaves {} later", seconds(ms)), script)
    }

    fn clock(&mut self, node: usize) -> Drawn {
        let ms = self.rng.random_range(2500..6000);
        let minutes = self.rng.random_range(1..=20);
        let jump_s = if self.rng.random_bool(0.5) { 60 * minutes } else { -60 * minutes };
        let script = vec![Deed::Clock(node, jump_s), Deed::Wait(ms), Deed::Clock(node, 0)];
        (vec![node], format!("the clock of n{node} jumps by {jump_s} s, and back"), script)
    }

    fn cut(&mut self, node: usize) -> Drawn {
        let clients = self.rng.random_bool(0.5);
        let detail = format!("n{node} is cut off from all nodes{}", with(clients));
        self.weather(CUT, Place::Around(node), clients, vec![node], detail)
    }

    /// Splits the nodes: in two, all from each other, or only two from each other, which others still reach.
    fn island(&mut self) -> Drawn {
        let mut nodes: Vec<usize> = (1..=self.nodes_count).collect();
        nodes.shuffle(&mut self.rng);
        let said = |nodes: &[usize]| {
            nodes.iter().map(|node| format!("n{node}")).collect::<Vec<_>>().join(" ")
        };
        let (place, nodes, detail) = match self.rng.random_range(0..3) {
            0 if nodes.len() > 2 => {
                let detail = format!("n{} and n{} do not reach each other", nodes[0], nodes[1]);
                (Place::BetweenTwo(nodes[0], nodes[1]), nodes[..2].to_vec(), detail)
            }
            1 => {
                let groups = nodes.iter().map(|&node| vec![node]).collect();
                (Place::Between(groups), Vec::new(), "no node reaches another".to_owned())
            }
            _ => {
                let size = self.rng.random_range(1..nodes.len().max(2));
                let (one, other) = nodes.split_at(size);
                let detail = format!("{} | {} do not reach each other", said(one), said(other));
                (Place::Between(vec![one.to_vec(), other.to_vec()]), one.to_vec(), detail)
            }
        };
        self.weather(CUT, place, false, nodes, detail)
    }

    fn one_way(&mut self, node: usize) -> Drawn {
        let step = self.rng.random_range(1..self.nodes_count.max(2));
        let other = (node - 1 + step) % self.nodes_count + 1;
        let clients = self.rng.random_bool(0.5);
        let from = if clients { " or clients" } else { "" };
        let detail = format!("nothing gets from n{node}{from} to n{other}");
        self.weather(CUT, Place::OnTheWay(node, other), clients, vec![node, other], detail)
    }

    fn loss(&mut self, node: usize) -> Drawn {
        let lost_percent = self.rng.random_range(2..=40);
        let weather = Weather { lost_percent, ..FAIR };
        self.bad_weather(weather, node, &format!("{lost_percent} % of packets lost"))
    }

    fn delay(&mut self, node: usize) -> Drawn {
        let late_ms_min = self.rng.random_range(1..=100);
        let late_ms_max = late_ms_min + self.rng.random_range(0..=200);
        let weather = Weather { late_ms_min, late_ms_max, ..FAIR };
        self.bad_weather(weather, node, &format!("packets {late_ms_min} to {late_ms_max} ms late"))
    }

    fn reorder(&mut self, node: usize) -> Drawn {
        let shuffled_percent = self.rng.random_range(5..=30);
        let weather = Weather { shuffled_percent, ..FAIR };
        let what = format!("{shuffled_percent} % of packets overtaken, as many come twice,");
        self.bad_weather(weather, node, &what)
    }

    fn bandwidth(&mut self, node: usize) -> Drawn {
        let kib = self.rng.random_range(16..=256);
        let weather = Weather { bytes_per_s: Some(kib * 1024), ..FAIR };
        self.bad_weather(weather, node, &format!("{kib} KiB/s"))
    }

    /// Half of the weather is everywhere, half of it around one node; half of it touches clients.
    fn bad_weather(&mut self, weather: Weather, node: usize, what: &str) -> Drawn {
        let (everywhere, clients) = (self.rng.random_bool(0.5), self.rng.random_bool(0.5));
        let (place, nodes, there) = if everywhere {
            (Place::Everywhere, Vec::new(), "between all nodes".to_owned())
        } else {
            (Place::Around(node), vec![node], format!("around n{node}"))
        };
        self.weather(weather, place, clients, nodes, format!("{what} {there}{}", with(clients)))
    }

    fn weather(
        &mut self,
        weather: Weather,
        place: Place,
        clients: bool,
        nodes: Vec<usize>,
        detail: String,
    ) -> Drawn {
        let sky = Sky { weather, place, clients };
        (nodes, detail, vec![Deed::Weather(sky), Deed::Wait(self.while_ms()), Deed::Clear])
    }

    /// For how long something is so: up to a while longer than nodes are waited for.
    fn while_ms(&mut self) -> u64 {
        self.rng.random_range(1500..7000)
    }

    /// For how long a node is away: some are back before anybody has missed them.
    fn down_ms(&mut self) -> u64 {
        match self.rng.random_range(0..3) {
            0 => self.rng.random_range(0..300),
            _ => self.rng.random_range(500..6000),
        }
    }
}

fn with(clients: bool) -> &'static str {
    if clients { ", clients as well" } else { "" }
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn faults(seed: u64, kinds: &[Kind], count: usize) -> Vec<Fault> {
        [Course::Nodes, Course::Around]
            .into_iter()
            .flat_map(|course| {
                let mut plan = Plan::new(seed, course, kinds, 3);
                (0..count).filter_map(move |_| plan.next_fault())
            })
            .collect()
    }

    #[test]
    fn equal_seeds_give_equal_plans_and_others_do_not() {
        let mut backwards = Kind::ALL;
        backwards.reverse();
        assert_eq!(faults(7, &Kind::ALL, 50), faults(7, &backwards, 50));
        assert_ne!(faults(7, &Kind::ALL, 50), faults(8, &Kind::ALL, 50));
    }

    #[test]
    fn every_kind_comes_before_any_comes_twice() {
        for seed in 0..20 {
            let kinds: BTreeSet<Kind> =
                faults(seed, &Kind::ALL, Kind::ALL.len() / 2).iter().map(|it| it.kind).collect();
            assert_eq!(kinds.len(), Kind::ALL.len(), "seed {seed}");
        }
    }

    #[test]
    fn only_the_kinds_asked_for_come() {
        let drawn = faults(1, &[Kind::Kill], 10);
        assert_eq!(drawn.len(), 10);
        assert!(drawn.iter().all(|fault| fault.kind == Kind::Kill));
    }

    #[test]
    fn no_memory_is_lost_before_the_cluster_is_whole() {
        for fault in (0..50).flat_map(|seed| faults(seed, &Kind::ALL, 30)) {
            let mut whole = false;
            for deed in &fault.script {
                match deed {
                    Deed::AwaitWhole => whole = true,
                    Deed::Kill(_) | Deed::Dismiss(_) | Deed::Starve(_) => {
                        assert!(std::mem::take(&mut whole), "{fault:?}");
                    }
                    Deed::Wait(_)
                    | Deed::Start(_)
                    | Deed::Stop(_)
                    | Deed::Continue(_)
                    | Deed::AwaitGone(_)
                    | Deed::Unplug(_)
                    | Deed::Reboot(_)
                    | Deed::Weather(_)
                    | Deed::Clear
                    | Deed::Clock(..)
                    | Deed::Feed(_)
                    | Deed::Fence(_)
                    | Deed::Unfence(_) => {}
                }
            }
        }
    }

    #[test]
    fn every_fault_is_mended_at_its_end() {
        for fault in (0..50).flat_map(|seed| faults(seed, &Kind::ALL, 30)) {
            let last = fault.script.last().unwrap();
            let mended = matches!(
                last,
                Deed::Start(_)
                    | Deed::Continue(_)
                    | Deed::AwaitGone(4)
                    | Deed::Clear
                    | Deed::Clock(_, 0)
                    | Deed::Unfence(_)
            );
            assert!(mended, "{fault:?}");
        }
    }

    #[test]
    fn the_weather_is_bad_where_it_should_be() {
        let cut = Weather { cut: true, ..Weather::default() };
        let cuts = |place, clients| {
            let sky = Sky { weather: cut, place, clients };
            let ends = (0..=3).flat_map(|source| (0..=3).map(move |target| (source, target)));
            ends.filter(|&(source, target)| sky.between(source, target).cut).collect::<Vec<_>>()
        };
        assert_eq!(cuts(Place::Around(2), false), [(1, 2), (2, 1), (2, 3), (3, 2)]);
        let with_clients = [(0, 2), (1, 2), (2, 0), (2, 1), (2, 3), (3, 2)];
        assert_eq!(cuts(Place::Around(2), true), with_clients);
        assert_eq!(cuts(Place::OnTheWay(1, 3), false), [(1, 3)]);
        assert_eq!(cuts(Place::BetweenTwo(1, 3), true), [(1, 3), (3, 1)]);
        let groups = vec![vec![1, 3], vec![2]];
        assert_eq!(cuts(Place::Between(groups), true), [(1, 2), (2, 1), (2, 3), (3, 2)]);
        assert_eq!(cuts(Place::Everywhere, true).len(), 12);
    }
}
