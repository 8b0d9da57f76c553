//! Which partitions have a replica on this node, by slot.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use scatterhoard_ring::{PartitionId, Slot};

use crate::partition::Partition;

/// The partitions that have a replica here. Replaced whole when one comes or goes, so that a session
/// can keep one version for a pipeline.
#[derive(Clone)]
pub(crate) struct Hosted {
    partitions: BTreeMap<PartitionId, Arc<Partition>>,
    by_slot: Arc<[Option<Arc<Partition>>]>,
}

/// Holds the current version.
pub(crate) struct Hosting(RwLock<Arc<Hosted>>);

impl Hosted {
    fn of(partitions: BTreeMap<PartitionId, Arc<Partition>>) -> Self {
        let mut by_slot = vec![None; usize::from(Slot::COUNT)];
        for partition in partitions.values() {
            for slot in partition.slots.iter() {
                by_slot[usize::from(slot.number())] = Some(Arc::clone(partition));
            }
        }
        Self { partitions, by_slot: by_slot.into() }
    }

    /// The partition that a slot belongs to, if there is a replica of it here.
    pub(crate) fn at(&self, slot: Slot) -> Option<&Arc<Partition>> {
        self.by_slot[usize::from(slot.number())].as_ref()
    }

    /// The replica of this partition here.
    pub(crate) fn of_partition(&self, id: PartitionId) -> Option<&Arc<Partition>> {
        self.partitions.get(&id)
    }

    /// All of them, by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.partitions.values()
    }

    /// Those that this node leads, in the order of their slots.
    pub(crate) fn led(&self) -> Vec<Arc<Partition>> {
        let mut led: Vec<_> = self.iter().filter(|it| it.leads()).cloned().collect();
        led.sort_by_key(|partition| partition.slots);
        led
    }
}

impl Default for Hosting {
    fn default() -> Self {
        Self(RwLock::new(Arc::new(Hosted::of(BTreeMap::new()))))
    }
}

impl Hosting {
    /// The partitions as they are now.
    pub(crate) fn now(&self) -> Arc<Hosted> {
        Arc::clone(&self.0.read())
    }

    /// Replaces the version by what `chosen` answers, if that is another. Several who call this at a time
    /// do so one after the other, so that what was chosen last stays.
    pub(crate) fn refresh(&self, chosen: impl FnOnce() -> BTreeMap<PartitionId, Arc<Partition>>) {
        let mut held = self.0.write();
        let partitions = chosen();
        let same = held.partitions.len() == partitions.len()
            && held
                .partitions
                .iter()
                .zip(&partitions)
                .all(|((before, was), (now, is))| before == now && Arc::ptr_eq(was, is));
        if !same {
            *held = Arc::new(Hosted::of(partitions));
        }
    }
}
