//! A read under a lease is one of the leader: while a lease holds nobody else acknowledges a write.
//!
//! Gray and Cheriton, "Leases: An Efficient Fault-Tolerant Mechanism for Distributed File Cache Consistency",
//! 1989; Ongaro's thesis, 6.4.1. Looked at when a read is answered: whether any later leader of the group
//! has acknowledged a write by then. Holds also for clocks that run ten percent apart and for processes
//! that stand still between the read and the look at the lease.

use std::collections::HashMap;

use scatterhoard_replication::probe::{Event, Founded};

use super::{Invariant, LeaderId, Whose, name};

/// Who leads as what, and the latest leader of each group that has acknowledged a write.
#[derive(Default)]
pub(super) struct Leases {
    leads: HashMap<(Founded, Whose), LeaderId>,
    acknowledged: HashMap<Founded, (LeaderId, Whose)>,
}

impl Invariant for Leases {
    fn saw(&mut self, whose: Whose, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Leads { of, replica, term } => {
                let leader = LeaderId { term: *term, replica: *replica };
                self.leads.insert((*of, whose), leader);
                Ok(())
            }
            Event::Acknowledged { of } => {
                let Some(&leader) = self.leads.get(&(*of, whose)) else {
                    return Err(format!("{}: a write acknowledged by who never led", name(*of)));
                };
                let latest = self.acknowledged.entry(*of).or_insert((leader, whose));
                *latest = (*latest).max((leader, whose));
                Ok(())
            }
            Event::Answered { of, by_lease: true } => {
                let reader = self.leads.get(&(*of, whose));
                match (reader, self.acknowledged.get(of)) {
                    (None, _) => Err(format!("{}: a read by who never led", name(*of))),
                    (Some(reader), Some((writer, by))) if writer > reader => Err(format!(
                        "{}: {reader:?} answers a read by lease after {writer:?} on {by} has \
                         acknowledged a write",
                        name(*of)
                    )),
                    (Some(_), _) => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
