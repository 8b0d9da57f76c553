//! The process: what a partition's log adds up to, the Redis protocol, sessions and commands, routing,
//! and membership. [`Node::start`] runs one; everything it does goes through the network, the clock and
//! the chance that it is given, so that a simulation can run many.

// The layout of a session's future, nested as deep as its calls, needs more than the default 128.
#![recursion_limit = "256"]

mod caretaker;
mod chance;
mod clients;
mod clock;
mod cluster_view;
mod config;
mod core;
mod council;
mod doors;
mod forward;
mod hosting;
mod http;
mod info;
mod kind;
mod machine;
mod membership;
mod metrics;
mod near;
mod node;
mod partition;
mod pilot;
mod proposer;
mod recovery;
mod reseat;
mod route;
mod service;
mod session;
mod settings;
mod span;
mod stats;
mod status;
mod timekeeping;
mod tracking;
mod upkeep;

pub use clock::{SystemClock, WallClock};
pub use config::{AnyKeyReads, Config};
pub use node::{Addresses, Environment, Node, StartError};
