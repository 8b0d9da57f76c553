//! Where a simulation looks in, and where it can stop a process: between a look and what follows from it.
//!
//! Compiles to nothing without the feature `simulated`, which only the tests switch on. With it, whatever a
//! simulation has set on its thread is told of every [`Event`], and decides at every [`Point`] whether the
//! process goes on.

use std::any::Any;
use std::sync::Arc;

use scatterhoard_ring::{Generation, GroupId, ReplicaId, Table};

/// A place between a look at something and what follows from it. A process can be stopped there for longer
/// than what it saw holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// Keys were read under a lease; whether it still holds is asked next.
    AfterRead,
    /// A quorum has confirmed that this replica leads; what is asked for is read next.
    AfterReadIndex,
    /// This replica leads; what clients wrote is proposed next.
    BeforePropose,
    /// An entry is committed and applied; clients are told next.
    BeforeAnswer,
    /// It is settled that a partition is to be founded anew; that is done next.
    BeforeFounding,
    /// It is proven that a replica is not needed; it is dropped next.
    BeforeDrop,
    /// The council's leader has decided on a change; it proposes it next.
    BeforeDecree,
}

/// Which founding of which group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Founded {
    /// The group.
    pub group: GroupId,
    /// Which founding of it.
    pub generation: Generation,
}

/// Where an entry stands in a log, and who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// The term of the leader that appended it.
    pub term: u64,
    /// That leader.
    pub leader: ReplicaId,
    /// Its index.
    pub index: u64,
}

/// Something that happened in a process.
#[derive(Clone)]
pub enum Event<'a> {
    /// A replica was opened: empty, or with what it is founded from.
    Opened {
        /// Its group.
        of: Founded,
        /// The replica.
        replica: ReplicaId,
    },
    /// What the log of a replica adds up to is kept here, until the replica is closed.
    Holds {
        /// Its group.
        of: Founded,
        /// The replica.
        replica: ReplicaId,
        /// The state: whoever looks in knows what it is.
        state: &'a Arc<dyn Any + Send + Sync>,
    },
    /// A replica leads, and has applied the first entry of its own.
    Leads {
        /// Its group.
        of: Founded,
        /// The replica.
        replica: ReplicaId,
        /// In this term.
        term: u64,
    },
    /// A replica applied an entry, in the order of its log.
    Applied {
        /// Its group.
        of: Founded,
        /// The replica.
        replica: ReplicaId,
        /// The entry.
        entry: Entry,
        /// What the entry says.
        payload: Payload<'a>,
    },
    /// A replica replaced its state by that of another, up to an entry.
    Installed {
        /// Its group.
        of: Founded,
        /// The replica.
        replica: ReplicaId,
        /// The last entry in it.
        entry: Entry,
    },
    /// A replica's log has become too long, and its beginning is about to be forgotten.
    Purged {
        /// The group.
        of: Founded,
    },
    /// A client's write was answered as done.
    Acknowledged {
        /// The group.
        of: Founded,
    },
    /// A leader hands over: it asks another replica to take its place next.
    HandsOver {
        /// The group.
        of: Founded,
    },
    /// Reads were answered out of the leader's state, as its lease or a quorum allows.
    Answered {
        /// The group.
        of: Founded,
        /// Whether by a lease; else a quorum has confirmed it.
        by_lease: bool,
    },
    /// A lease that was taken before a read did not hold after it.
    LeaseLost {
        /// The group.
        of: Founded,
    },
    /// A leader chose keys to be evicted.
    Evicted {
        /// The group.
        of: Founded,
    },
    /// A write was answered as in doubt.
    InDoubt {
        /// The group.
        of: Founded,
    },
    /// The council has decided, as one of its replicas has applied it.
    Decided {
        /// The table.
        table: &'a Table,
    },
    /// A table was adopted.
    Table {
        /// The table.
        table: &'a Table,
    },
    /// A partition, or the council, was founded.
    Founding {
        /// Which founding.
        of: Founded,
    },
    /// A replica's core ended though nobody had closed it.
    Died {
        /// Its group.
        of: Founded,
        /// The replica.
        replica: ReplicaId,
    },
    /// A replica and what it held was dropped by a process that goes on.
    Dropped {
        /// Its group.
        of: Founded,
        /// The replica.
        replica: ReplicaId,
    },
}

/// What an entry of a log says.
#[derive(Clone, Debug)]
pub enum Payload<'a> {
    /// Nothing: a leader's first entry.
    Blank,
    /// For the machine.
    Normal(&'a [u8]),
    /// Who votes from here on; of both halves during a change, and who else is sent the log.
    Membership {
        /// Voters.
        voters: Vec<ReplicaId>,
        /// Learners.
        learners: Vec<ReplicaId>,
    },
}

#[cfg(feature = "simulated")]
mod hooked {
    use std::cell::RefCell;
    use std::future::Future;
    use std::pin::Pin;
    use std::rc::Rc;

    use super::{Event, Point};

    /// A simulation that looks in.
    pub trait Probe {
        /// Something happened.
        fn saw(&self, event: &Event<'_>);

        /// A process has come to a point; it goes on when the answer is done, or at once without one.
        fn stop(&self, at: Point) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>>;
    }

    thread_local! {
        static PROBE: RefCell<Option<Rc<dyn Probe>>> = const { RefCell::new(None) };
    }

    /// From here on everything that runs on this thread is looked into.
    pub fn set(probe: Rc<dyn Probe>) {
        PROBE.set(Some(probe));
    }

    pub(super) fn probe() -> Option<Rc<dyn Probe>> {
        PROBE.with_borrow(Clone::clone)
    }
}

#[cfg(feature = "simulated")]
pub use hooked::{Probe, set};

/// Tells of an event, which is only made up if somebody looks in.
#[inline]
pub fn saw<'a>(event: impl FnOnce() -> Event<'a>) {
    #[cfg(feature = "simulated")]
    if let Some(probe) = hooked::probe() {
        probe.saw(&event());
    }
    #[cfg(not(feature = "simulated"))]
    drop(event);
}

/// Goes on at once, unless a simulation stops the process here.
#[inline]
pub async fn at(point: Point) {
    #[cfg(feature = "simulated")]
    if let Some(stop) = hooked::probe().and_then(|probe| probe.stop(point)) {
        stop.await;
    }
    #[cfg(not(feature = "simulated"))]
    let _goes_on = point;
}
