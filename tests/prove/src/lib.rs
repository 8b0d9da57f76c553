//! Chaos on clusters of real processes: faults, what clients saw meanwhile, a verdict and a report.

pub mod campaign;
