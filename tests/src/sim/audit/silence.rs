//! Silence makes nobody throw data away: a replica is dropped only if its group goes on without it.
//!
//! The design's section 4: on proof of a committed membership without its id, or of a newer generation that
//! was founded; never on a table, a timeout or a missing heartbeat. What is committed is known here from
//! whoever has applied it first.

use std::collections::{BTreeSet, HashMap};

use scatterhoard_replication::probe::{Event, Founded, Payload};
use scatterhoard_ring::ReplicaId;

use super::{Invariant, Whose, name};

/// The committed membership of each group; of a generation that was founded there is one.
#[derive(Default)]
pub(super) struct Silence {
    members: HashMap<Founded, (u64, BTreeSet<ReplicaId>)>,
}

impl Invariant for Silence {
    fn saw(&mut self, _whose: Whose, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Applied {
                of, entry, payload: Payload::Membership { voters, learners }, ..
            } => {
                let known = self.members.entry(*of).or_default();
                if known.0 < entry.index || known.1.is_empty() {
                    *known = (entry.index, voters.iter().chain(learners).copied().collect());
                }
                Ok(())
            }
            Event::Dropped { of, replica } => {
                let newer = |it: &Founded| it.group == of.group && it.generation > of.generation;
                let newer = self.members.keys().any(newer);
                let named = self.members.get(of).is_none_or(|(_, ids)| ids.contains(replica));
                if named && !newer {
                    return Err(format!(
                        "{}: replica {replica} is dropped, and no committed membership is \
                         without it",
                        name(*of)
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
