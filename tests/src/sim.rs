//! Whole clusters in simulated time: the nodes that ship, on turmoil's network, on one thread.
//!
//! [`Cluster`] is for stories: it is told what happens, and steps the simulation until it has. [`walk`] is
//! for random schedules of faults, whose histories are judged afterwards. Equal seeds give equal runs, as
//! long as all chance comes from the seed: turmoil seeds tokio's and its own, [`chance`] the system's.
//!
//! The processes of a cluster have runtimes of their own (`process.rs`), which can be stopped whole while their
//! clocks run on, at any time or at a named point, and whose clocks can run too fast or too slowly. They
//! meet the network through their machines (`kernel.rs`). Whatever a story or a walk is about, invariants are
//! checked at every event (`audit.rs`).
//!
//! What a simulation does not show: TCP that sends again what was lost, and several threads.

mod application;
mod audit;
pub mod chance;
mod client;
mod clock;
mod cluster;
mod kernel;
mod links;
mod net;
mod node;
mod observe;
mod process;
mod rogue;
mod talk;
mod trace;
pub mod walk;

pub use application::{App, World};
pub use audit::Counts;
pub use client::{Client, Port, Told};
pub use clock::SimClock;
pub use cluster::{Cluster, Founding, Running};
pub use net::TurmoilNet;
pub use node::Life;
pub use talk::Talk;
pub use trace::Trace;
