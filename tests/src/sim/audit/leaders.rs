//! There is at most one leader of a kind: Election Safety (Raft, figure 3), in the form of openraft's leader
//! ids.
//!
//! There a leader is a term and a replica, and in one term several may lead, one after the other in the
//! order of their ids. So what must never be is that two processes lead as the same replica in the same
//! term. That entries follow each other in the order of their leaders is looked at where they are applied.

use std::collections::HashMap;

use scatterhoard_replication::probe::{Event, Founded};

use super::{Invariant, LeaderId, Whose, name};

/// Who has led what.
#[derive(Default)]
pub(super) struct Leaders {
    seen: HashMap<(Founded, LeaderId), Whose>,
}

impl Invariant for Leaders {
    fn saw(&mut self, whose: Whose, event: &Event<'_>) -> Result<(), String> {
        let Event::Leads { of, replica, term } = event else { return Ok(()) };
        let leader = LeaderId { term: *term, replica: *replica };
        match self.seen.insert((*of, leader), whose) {
            Some(other) if other != whose => {
                Err(format!("{}: {leader:?} has led on {other} before", name(*of)))
            }
            _ => Ok(()),
        }
    }
}
