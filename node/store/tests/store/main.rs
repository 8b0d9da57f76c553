//! Stories of a partition's store, told through its public face.

mod commands;
mod entries;
mod eviction;
mod partition;
mod properties;
mod scans;
mod snapshots;
mod time;
