//! When all nodes say that the cluster is ready, the council has as many voters as it should have.
//!
//! One that was left with one voter of three loses its quorum with that one node, and nobody was warned.

use scatterhoard_replication::probe::{Event, Founded, Payload};
use scatterhoard_ring::{GroupId, councillors_wanted};

/// How many voters the council has, as its newest generation has committed.
#[derive(Default)]
pub(super) struct Council {
    newest: Option<(Founded, u64, usize)>,
}

impl Council {
    pub(super) fn saw(&mut self, event: &Event<'_>) {
        let Event::Applied { of, entry, payload: Payload::Membership { voters, .. }, .. } = event
        else {
            return;
        };
        let newer = |(known, index, _): (Founded, u64, usize)| (known, index) < (*of, entry.index);
        if of.group == GroupId::Council && self.newest.is_none_or(newer) {
            self.newest = Some((*of, entry.index, voters.len()));
        }
    }

    pub(super) fn check(&self, members_count: usize) -> Result<(), String> {
        let (count, wanted) = (self.newest.map(|it| it.2), councillors_wanted(members_count));
        match count {
            Some(count) if count < wanted => {
                Err(format!("all are ready, and yet the council has {count} voters of {wanted}"))
            }
            Some(_) | None => Ok(()),
        }
    }
}
