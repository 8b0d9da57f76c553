//! Looks into every process of a simulation: checks at each event what must hold of a whole cluster, and
//! counts what happened.
//!
//! Each invariant has a file of its own, which names its source. Together with the histories that clients
//! record, which [`scatterhoard_check::linear`] judges, they are what a simulation can find wrong.

mod committed;
mod counts;
mod epochs;
mod generations;
mod leaders;
mod lease;
mod memberships;
mod replica_ids;
mod replicas;
mod silence;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use scatterhoard_replication::probe::{self, Event, Founded, Point, Probe};
use scatterhoard_ring::ReplicaId;

use super::clock::elapsed;
use super::process;
pub use counts::Counts;

/// Which process an event is of. A machine has one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Whose {
    /// The machine, by its number.
    pub(super) machine: usize,
    /// Which of its processes, from 1.
    pub(super) life: u64,
}

/// Which leader: in one term there may be several, one after the other, in the order of their ids.
/// openraft, `leader_id_adv`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct LeaderId {
    term: u64,
    replica: ReplicaId,
}

/// Something that must always hold.
trait Invariant {
    /// Takes an event into account.
    ///
    /// # Errors
    /// With this event it does not hold any more, for this reason.
    fn saw(&mut self, whose: Whose, event: &Event<'_>) -> Result<(), String>;
}

/// What is known of a simulation from within.
#[derive(Clone)]
pub(super) struct Audit(Rc<RefCell<State>>);

struct State {
    invariants: Vec<Box<dyn Invariant>>,
    lives: BTreeMap<usize, u64>,
    counts: Counts,
    /// Who has acknowledged something last, and who was last to hand something over.
    acknowledged_by: Option<usize>,
    handed_over_by: Option<usize>,
    memberships: memberships::Memberships,
    replicas: replicas::Replicas,
    broken: Vec<String>,
}

impl Audit {
    /// Looks into what runs on this thread, from now on.
    pub(super) fn begin() -> Self {
        let state = State {
            invariants: vec![
                Box::new(committed::Committed::default()),
                Box::new(epochs::Epochs::default()),
                Box::new(generations::Generations::default()),
                Box::new(leaders::Leaders::default()),
                Box::new(lease::Leases::default()),
                Box::new(replica_ids::ReplicaIds::default()),
                Box::new(silence::Silence::default()),
            ],
            lives: BTreeMap::new(),
            counts: Counts::default(),
            acknowledged_by: None,
            handed_over_by: None,
            memberships: memberships::Memberships::default(),
            replicas: replicas::Replicas::default(),
            broken: Vec::new(),
        };
        let audit = Self(Rc::new(RefCell::new(state)));
        probe::set(Rc::new(audit.clone()));
        audit
    }

    /// A machine has a new process.
    pub(super) fn begins(&self, machine: usize) {
        *self.0.borrow_mut().lives.entry(machine).or_default() += 1;
    }

    /// Makes sure that nothing has been found wrong so far.
    ///
    /// # Panics
    /// If something has.
    #[track_caller]
    pub(super) fn assert_unbroken(&self) {
        let broken = std::mem::take(&mut self.0.borrow_mut().broken);
        assert!(broken.is_empty(), "an invariant is broken: {}", broken.join("; "));
    }

    /// Makes sure that all replicas of each partition hold the same, and count right what it takes. For
    /// when everything has come to rest.
    ///
    /// # Errors
    /// What differs.
    pub(super) fn compare_replicas(&self, is_live: impl Fn(Whose) -> bool) -> Result<(), String> {
        self.0.borrow().replicas.compare(is_live)
    }

    /// Makes sure that the council is what it should be, when all of so many members say that they are ready.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn check_readiness(&self, members_count: usize) -> Result<(), String> {
        self.0.borrow().memberships.check_readiness(members_count)
    }

    /// Whether nothing that was acknowledged may be lost with any one process.
    pub(super) fn can_spare_one(&self, is_live: impl Fn(Whose) -> bool) -> bool {
        self.0.borrow().memberships.can_spare_one(is_live)
    }

    /// Whose process has acknowledged something since [`Self::forget_moments`].
    pub(super) fn acknowledged_by(&self) -> Option<usize> {
        self.0.borrow().acknowledged_by
    }

    /// Who has begun to hand something over since [`Self::forget_moments`].
    pub(super) fn handed_over_by(&self) -> Option<usize> {
        self.0.borrow().handed_over_by
    }

    pub(super) fn forget_moments(&self) {
        let mut state = self.0.borrow_mut();
        state.acknowledged_by = None;
        state.handed_over_by = None;
    }

    /// What has happened so far.
    pub(super) fn counts(&self) -> Counts {
        self.0.borrow().counts.clone()
    }

    /// Counts something that no process can tell of itself.
    pub(super) fn count(&self, what: &str) {
        self.0.borrow_mut().counts.add(what);
    }
}

impl Probe for Audit {
    fn saw(&self, event: &Event<'_>) {
        // What the simulation does itself is none of the cluster's business.
        let Some(machine) = process::running() else { return };
        let mut state = self.0.borrow_mut();
        match event {
            Event::Acknowledged { .. } => state.acknowledged_by = Some(machine),
            Event::HandsOver { .. } => state.handed_over_by = Some(machine),
            _ => {}
        }
        let State { invariants, lives, counts, memberships, replicas, broken, .. } = &mut *state;
        let whose = Whose { machine, life: lives.get(&machine).copied().unwrap_or(0) };
        counts.saw(event);
        memberships.saw(whose, event);
        replicas.saw(whose, event);
        for invariant in invariants {
            if let Err(reason) = invariant.saw(whose, event) {
                broken.push(format!("at {:.3} on {whose}: {reason}", elapsed().as_secs_f64()));
            }
        }
    }

    fn stop(&self, at: Point) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let stopped = process::stop(at)?;
        self.count(&format!("held at {at:?}"));
        Some(stopped)
    }
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "n{} (life {})", self.machine, self.life)
    }
}

/// How events name a group and its founding, for people.
fn name(of: Founded) -> String {
    format!("{} generation {}", of.group, of.generation)
}
