//! A replica id is used once: no replica of a group is ever opened under an id that another had.
//!
//! openraft, FAQ on node ids: a replica that comes back under its old id with an empty log breaks its promise
//! to keep what it acknowledged, and its vote. Ids are the council's to allot, over all groups.

use std::collections::HashMap;

use scatterhoard_replication::probe::Event;
use scatterhoard_ring::{GroupId, ReplicaId};

use super::{Invariant, Whose};

/// Which replicas there have been.
#[derive(Default)]
pub(super) struct ReplicaIds {
    seen: HashMap<(GroupId, ReplicaId), Whose>,
}

impl Invariant for ReplicaIds {
    fn saw(&mut self, whose: Whose, event: &Event<'_>) -> Result<(), String> {
        let Event::Opened { of, replica } = event else { return Ok(()) };
        match self.seen.insert((of.group, *replica), whose) {
            Some(before) => {
                Err(format!("{}: replica {replica} was opened before, on {before}", of.group))
            }
            None => Ok(()),
        }
    }
}
