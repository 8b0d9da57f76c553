//! Whole clusters: simulated, in process, and as real processes; histories and checkers.

pub mod history;
pub mod linear;
pub mod process;
pub mod sim;
