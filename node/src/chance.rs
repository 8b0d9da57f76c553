//! The one place where chance comes from, so that a simulation can repeat it.

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scatterhoard_ring::{ClusterId, NodeId};

/// Seeded randomness for what needs no secrecy: ids, seeds, samples.
pub(crate) struct Chance(Mutex<StdRng>);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    pub(crate) fn roll(&self) -> u64 {
        self.0.lock().random()
    }

    /// An id for this life of this process. Never zero, which stands for "not known".
    pub(crate) fn node_id(&self) -> NodeId {
        NodeId::new(self.roll().max(1))
    }

    pub(crate) fn cluster_id(&self) -> ClusterId {
        let high = u128::from(self.roll()) << 64;
        ClusterId::new((high | u128::from(self.roll())).max(1))
    }
}
