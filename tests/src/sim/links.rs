//! Which hosts reach which, kept here because turmoil cannot be asked and a machine that is off hides what
//! was cut before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use turmoil::Sim;

/// From where to where.
type Way = (IpAddr, IpAddr);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// Nothing is lost and nothing arrives.
    Held,
    Cut,
    /// Nothing gets from the first to the second.
    CutForth,
    CutBack,
}

/// The links between hosts.
#[derive(Debug, Default)]
pub(super) struct Links {
    hosts: Vec<IpAddr>,
    off: BTreeSet<IpAddr>,
    cut: BTreeSet<Way>,
    held: BTreeSet<Way>,
    applied: BTreeMap<Way, State>,
}

impl Links {
    pub(super) fn add_host(&mut self, host: IpAddr) {
        self.hosts.push(host);
    }

    /// A machine without power.
    pub(super) fn switch_off(&mut self, sim: &Sim<'_>, host: IpAddr) {
        self.off.insert(host);
        self.apply(sim);
    }

    pub(super) fn switch_on(&mut self, sim: &Sim<'_>, host: IpAddr) {
        self.off.remove(&host);
        self.apply(sim);
    }

    /// What is sent is lost, on this way only.
    pub(super) fn cut(&mut self, sim: &Sim<'_>, ways: impl IntoIterator<Item = Way>) {
        self.cut.extend(ways);
        self.apply(sim);
    }

    /// What is sent waits, both ways.
    pub(super) fn hold(&mut self, sim: &Sim<'_>, pairs: impl IntoIterator<Item = Way>) {
        self.held.extend(pairs.into_iter().map(|(a, b)| (a.min(b), a.max(b))));
        self.apply(sim);
    }

    /// Everything is open again; what waited is delivered.
    pub(super) fn heal(&mut self, sim: &Sim<'_>) {
        self.cut.clear();
        self.held.clear();
        self.apply(sim);
    }

    fn state(&self, a: IpAddr, b: IpAddr) -> State {
        let off = self.off.contains(&a) || self.off.contains(&b);
        match (off || self.cut.contains(&(a, b)), off || self.cut.contains(&(b, a))) {
            (true, true) => State::Cut,
            (true, false) => State::CutForth,
            (false, true) => State::CutBack,
            (false, false) if self.held.contains(&(a, b)) => State::Held,
            (false, false) => State::Open,
        }
    }

    fn apply(&mut self, sim: &Sim<'_>) {
        let hosts = self.hosts.clone();
        for (&a, &b) in hosts.iter().flat_map(|a| hosts.iter().map(move |b| (a, b))) {
            if a >= b {
                continue;
            }
            let state = self.state(a, b);
            if self.applied.insert((a, b), state).unwrap_or_default() == state {
                continue;
            }
            // Also makes the link whole; what was held before a cut is lost with the cut.
            if state != State::Cut {
                sim.release(a, b);
            }
            match state {
                State::Open => {}
                State::Held => sim.hold(a, b),
                State::Cut => sim.partition(a, b),
                State::CutForth => sim.partition_oneway(a, b),
                State::CutBack => sim.partition_oneway(b, a),
            }
        }
    }
}
