//! The kinds of faults there are, and their names.

use std::fmt;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A node is killed with `kill -9` and started again.
    Kill,
    /// A machine crashes: its network is gone before its processes are, and its kernel forgets everything.
    Crash,
    /// A node stands still for longer than any lease, and goes on.
    Pause,
    /// A node is cut off from all others.
    Cut,
    /// The nodes are split into groups that do not reach each other.
    Island,
    /// Packets go from one node to another in one direction only.
    OneWay,
    /// A share of the packets is lost.
    Loss,
    /// Packets arrive late.
    Delay,
    /// Packets overtake each other, and some arrive twice.
    Reorder,
    /// Links are slow and their queues short.
    Bandwidth,
    /// A node's wall clock jumps.
    Clock,
    /// A node gets no more memory from the system.
    Memory,
    /// A node can open no more files and sockets.
    Descriptors,
    /// A node is asked to leave, goes, and is started again.
    Leave,
    /// All nodes are restarted, one after the other.
    RestartAll,
    /// One more node joins for a while.
    Join,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Kill,
        Self::Crash,
        Self::Pause,
        Self::Cut,
        Self::Island,
        Self::OneWay,
        Self::Loss,
        Self::Delay,
        Self::Reorder,
        Self::Bandwidth,
        Self::Clock,
        Self::Memory,
        Self::Descriptors,
        Self::Leave,
        Self::RestartAll,
        Self::Join,
    ];

    /// What `--faults` calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Crash => "crash",
            Self::Pause => "pause",
            Self::Cut => "cut",
            Self::Island => "island",
            Self::OneWay => "one-way",
            Self::Loss => "loss",
            Self::Delay => "delay",
            Self::Reorder => "reorder",
            Self::Bandwidth => "bandwidth",
            Self::Clock => "clock",
            Self::Memory => "memory",
            Self::Descriptors => "descriptors",
            Self::Leave => "leave",
            Self::RestartAll => "restart-all",
            Self::Join => "join",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
