//! What clients asked of a cluster and were told, and whether that can have been.
//!
//! Pure: knows nothing of clusters, simulated or real, and reads no clock.

pub mod history;
pub mod linear;
pub mod near;
