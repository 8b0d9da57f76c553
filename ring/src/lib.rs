//! Pure placement: key to slot to partition to replicas, the table, and the plan from one table to the
//! next. Knows nothing of I/O, clocks or chance.

mod change;
mod check;
#[cfg(test)]
mod fixture;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod id;
mod loss;
mod placement;
mod plan;
mod slot;
mod table;
mod wire;

pub use change::{Change, Refusal};
pub use check::{Broken, LABEL_BYTES_MAX, MEMBERS_MAX};
pub use id::{ClusterId, Epoch, Generation, GroupId, NodeId, PartitionId, ReplicaId};
pub use loss::{Configuration, Evidence, Position, Testimony, Verdict, verdict};
pub use plan::{Report, Reports, councillors_wanted, known_to_all, plan};
pub use slot::{Slot, SlotRange};
pub use table::{
    Absent, Endpoints, Member, PARTITIONS_MAX, Partition, Placement, REPLICAS_MAX, Replica,
    Settings, Standing, Table,
};
pub use wire::{DecodeError, ENCODED_BYTES_MAX, decode_testimonies, encode_testimonies};
