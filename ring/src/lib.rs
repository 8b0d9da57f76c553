//! Pure placement: key to slot to partition to replicas, the table, and the plan from one table to the
//! next. Knows nothing of I/O, clocks or chance.

mod id;
mod slot;

pub use id::{ClusterId, Epoch, Generation, GroupId, NodeId, PartitionId, ReplicaId};
pub use slot::{Slot, SlotRange};
