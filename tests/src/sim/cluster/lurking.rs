//! Pauses that lie in wait: whichever process comes to a point is held there for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scatterhoard_replication::probe::Point;

use super::Cluster;
use crate::sim::process::{self, Process};

/// For how long a process is held, in milliseconds: less than a lease, or several.
const HELD_SHORTLY_MS: std::ops::Range<u64> = 20..300;
const HELD_MS: std::ops::Range<u64> = 300..3000;

/// How long it then goes on undisturbed.
const SPARED_MS: std::ops::Range<u64> = 500..6000;

/// A point at which processes are held.
pub(super) struct Lurking {
    point: Point,
    rng: StdRng,
    /// When something changes for a machine: it is let go if it is held, or no longer spared.
    turns: BTreeMap<usize, Duration>,
}

impl Cluster {
    /// From now on any process that comes to this point is held there for a while, until
    /// [`Self::stop_lurking`].
    pub fn lurk_at(&mut self, point: Point, seed: u64) {
        self.note(format!("whoever comes to {point:?} is held there"));
        let rng = StdRng::seed_from_u64(seed);
        self.lurking = Some(Lurking { point, rng, turns: BTreeMap::new() });
    }

    /// Lets all go on that were held so.
    pub fn stop_lurking(&mut self) {
        if self.lurking.take().is_some() {
            self.note("nobody is held at a point any more".to_owned());
            for machine in &self.machines {
                machine.with_process(Process::release);
            }
        }
    }

    pub(super) fn lurk(&mut self) {
        let (now, Some(lurking)) = (self.sim.elapsed(), &mut self.lurking) else { return };
        for (at, machine) in self.machines.iter().enumerate() {
            let node = at + 1;
            let Some(sprung) = machine.with_process(|_| process::has_sprung(node)) else {
                lurking.turns.remove(&node);
                continue;
            };
            let turn = lurking.turns.get(&node).copied();
            match (sprung, turn) {
                // Armed, and nobody has come.
                (Some(false), _) => {
                    lurking.turns.remove(&node);
                }
                (Some(true), None) => {
                    let shortly = lurking.rng.random();
                    let range = if shortly { HELD_SHORTLY_MS } else { HELD_MS };
                    let held = Duration::from_millis(lurking.rng.random_range(range));
                    lurking.turns.insert(node, now + held);
                }
                (Some(true), Some(turn)) if now >= turn => {
                    machine.with_process(Process::release);
                    let spared = Duration::from_millis(lurking.rng.random_range(SPARED_MS));
                    lurking.turns.insert(node, now + spared);
                }
                (None, None) => process::arm(node, lurking.point),
                (None, Some(turn)) if now >= turn => {
                    process::arm(node, lurking.point);
                    lurking.turns.remove(&node);
                }
                (Some(true) | None, Some(_)) => {}
            }
        }
    }
}
