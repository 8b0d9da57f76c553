//! No partition is served by two generations: once one has answered a client, those before it never do.
//!
//! The fence of the design (section 4, "lost quorum"): a new generation is founded only where the old one
//! can acknowledge nothing any more, neither a write nor a read by lease.

use std::collections::HashMap;

use scatterhoard_replication::probe::{Event, Founded};
use scatterhoard_ring::{Generation, GroupId};

use super::{Invariant, Whose, name};

/// The newest generation of each group that has answered anybody.
#[derive(Default)]
pub(super) struct Generations {
    newest: HashMap<GroupId, (Generation, Whose)>,
}

impl Invariant for Generations {
    fn saw(&mut self, whose: Whose, event: &Event<'_>) -> Result<(), String> {
        let (Event::Acknowledged { of } | Event::Answered { of, .. }) = event else {
            return Ok(());
        };
        let Founded { group, generation } = *of;
        match self.newest.get(&group) {
            Some(&(newest, by)) if newest > generation => {
                Err(format!("{} answers a client after {by} did of {newest}", name(*of)))
            }
            _ => {
                self.newest.insert(group, (generation, whose));
                Ok(())
            }
        }
    }
}
