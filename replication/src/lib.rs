//! One log, R copies: Raft groups over shared peer connections, their logs, snapshots and leases, and
//! the council. Generic over the machine that a log adds up to. Only this crate names openraft.

mod arrivals;
mod council;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod group;
mod groups;
mod keeper;
mod kind;
mod lease;
mod log;
mod machine;
mod network;
pub mod probe;
mod raft;
mod steward;
mod tables;
mod timers;
mod wire;

pub use council::{Council, Decision};
pub use group::{Group, GroupSpec, Leader, Leadership, Members, ProposeError, ReadError};
pub use groups::Groups;
pub use lease::Lease;
pub use machine::{Corrupt, Machine, Staging};
pub use network::AddressOf;
pub use raft::Answer;
pub use steward::Roll;
pub use tables::Tables;
pub use timers::Timers;
