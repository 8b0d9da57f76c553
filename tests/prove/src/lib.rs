//! Chaos on clusters of real processes: faults, what clients saw meanwhile, a verdict and a report.
#![expect(
    clippy::disallowed_methods,
    reason = "real processes live in real time, and have threads"
)]

pub mod arena;
pub mod args;
pub mod campaign;
pub mod client;
mod course;
pub mod fault;
pub mod finish;
pub mod http;
mod machine;
pub mod net;
pub mod order;
pub mod plan;
pub mod ports;
pub mod report;
pub mod resp;
pub mod run;
pub mod target;
pub mod throughput;
pub mod verdict;
pub mod watch;
pub mod workload;
