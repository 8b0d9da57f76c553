//! When all nodes say that the cluster is ready, the council has as many voters as it should have. One that
//! was left with one voter of three loses its quorum with that one node, and nobody was warned.
//!
//! Also tells what may be lost at a moment: what was acknowledged is kept while a majority of its replicas
//! lives (the design's section 1), whatever else is going on in the group.

use std::collections::{BTreeMap, HashMap};

use scatterhoard_replication::probe::{Event, Founded, Payload};
use scatterhoard_ring::{GroupId, ReplicaId, councillors_wanted};

use super::Whose;

/// The membership of each group, as its newest generation has committed, and where replicas are.
#[derive(Default)]
pub(super) struct Memberships {
    newest: BTreeMap<GroupId, Membership>,
    homes: HashMap<(GroupId, ReplicaId), Whose>,
}

struct Membership {
    of: Founded,
    index: u64,
    /// Of both halves during a change.
    voters: Vec<ReplicaId>,
}

impl Memberships {
    pub(super) fn saw(&mut self, whose: Whose, event: &Event<'_>) {
        match event {
            Event::Opened { of, replica } => {
                self.homes.insert((of.group, *replica), whose);
            }
            // It votes no more, and what it has is not counted on.
            Event::Died { of, replica } => {
                self.homes.remove(&(of.group, *replica));
            }
            Event::Applied { of, entry, payload: Payload::Membership { voters, .. }, .. } => {
                let known = self.newest.get(&of.group);
                if known.is_none_or(|known| (known.of, known.index) < (*of, entry.index)) {
                    let membership =
                        Membership { of: *of, index: entry.index, voters: voters.clone() };
                    self.newest.insert(of.group, membership);
                }
            }
            _ => {}
        }
    }

    pub(super) fn check_readiness(&self, members_count: usize) -> Result<(), String> {
        let wanted = councillors_wanted(members_count);
        match self.newest.get(&GroupId::Council).map(|council| council.voters.len()) {
            Some(count) if count < wanted => {
                Err(format!("all are ready, and yet the council has {count} voters of {wanted}"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether any one process may be lost: every group has at least three voters, and each of them lives.
    pub(super) fn can_spare_one(&self, is_live: impl Fn(Whose) -> bool) -> bool {
        self.newest.iter().all(|(group, membership)| {
            let lives = |voter: &ReplicaId| {
                self.homes.get(&(*group, *voter)).is_some_and(|whose| is_live(*whose))
            };
            membership.voters.len() >= 3 && membership.voters.iter().all(lives)
        })
    }
}
