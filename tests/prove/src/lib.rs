//! Chaos on clusters of real processes: faults, what clients saw meanwhile, a verdict and a report.
#![expect(
    clippy::disallowed_methods,
    reason = "real processes live in real time, and have threads"
)]

pub mod campaign;
pub mod client;
pub mod fault;
pub mod finish;
pub mod http;
pub mod ports;
pub mod report;
pub mod resp;
pub mod target;
pub mod workload;
