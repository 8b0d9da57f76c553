//! What puts load on caches and compares them.
//!
//! Two programs share this crate: `hoard-load`, one load generator for every contestant, and
//! `hoard-bench`, which starts the contestants, lets them take turns under it and writes the report.
//! Nothing here is part of a node.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a load generator outside the cluster: real sockets, real time"
)]

pub mod contest;
pub mod contestant;
pub mod control;
pub mod etcd;
pub mod outcome;
pub mod process;
pub mod reply;
pub mod report;
pub mod resp;
pub mod topology;
pub mod workload;
