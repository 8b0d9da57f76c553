//! Whole clusters: simulated, and as real processes.

pub mod process;
pub mod sim;
