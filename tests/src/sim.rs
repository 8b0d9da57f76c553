//! Whole clusters in simulated time: the nodes that ship, on turmoil's network, on one thread.
//!
//! [`Cluster`] is for stories: it is told what happens, and steps the simulation until it has. [`walk`] is
//! for random schedules of faults, whose histories are judged afterwards. Equal seeds give equal runs, as
//! long as all chance comes from the seed: turmoil seeds tokio's and its own, [`chance`] the system's.
//!
//! What a simulation does not show: a process that is stopped while its clock runs on, monotonic clocks
//! that drift, and TCP that sends again what was lost.

pub mod chance;
mod client;
mod clock;
mod cluster;
mod links;
mod net;
mod node;
mod observe;
mod rogue;
mod trace;
pub mod walk;

pub use client::{Client, Port, Told};
pub use clock::SimClock;
pub use cluster::{Cluster, Founding};
pub use net::TurmoilNet;
pub use node::Life;
pub use trace::Trace;
