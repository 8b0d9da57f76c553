//! Stories of a partition's store, told through its public face.

mod commands;
mod entries;
mod eviction;
mod filters;
mod load_model;
mod loads;
mod partition;
mod properties;
mod scans;
mod snapshots;
mod time;
