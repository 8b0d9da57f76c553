//! Decides who serves a slot. Knows nothing of sockets or values.

use std::sync::Arc;

use scatterhoard_ring::{Endpoints, Generation, NodeId};

use crate::partition::Partition;

/// Who serves a slot.
#[derive(Clone)]
pub(crate) enum Route {
    /// This node leads it.
    Serve(Arc<Partition>),
    /// Another node does, or did a moment ago.
    Elsewhere { node: NodeId, endpoints: Endpoints },
    /// Nobody is known to.
    Unknown,
}

/// Who leads a partition, as somebody said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) generation: Generation,
    pub(crate) term: u64,
    /// Nobody, as far as is known: there is an election.
    pub(crate) node: Option<NodeId>,
}

impl Hint {
    fn age(&self) -> (Generation, u64) {
        (self.generation, self.term)
    }
}

/// The leader that follows from our own replica's word, if we have a replica, and from gossip.
///
/// Gossip may be older than what we know: it counts only if it is newer, or if we know that term but
/// not its leader. Otherwise two nodes could send a client to each other for ever.
pub(crate) fn route(own: Option<Hint>, told: impl Iterator<Item = Hint>) -> Option<NodeId> {
    let newest = told.filter(|hint| hint.node.is_some()).max_by_key(Hint::age);
    match (own, newest) {
        (None, told) => told?.node,
        (Some(own), None) => own.node,
        (Some(own), Some(told)) if told.age() > own.age() => told.node,
        (Some(own), Some(told)) if own.node.is_none() && told.age() == own.age() => told.node,
        (Some(own), Some(_)) => own.node,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(generation: u32, term: u64, node: u64) -> Hint {
        let node = (node != 0).then(|| NodeId::new(node));
        Hint { generation: Generation::new(generation), term, node }
    }

    #[track_caller]
    fn check(own: Option<Hint>, told: &[Hint], leader: u64) {
        let expected = (leader != 0).then(|| NodeId::new(leader));
        assert_eq!(route(own, told.iter().copied()), expected);
    }

    #[test]
    fn the_newest_word_counts_and_our_own_on_a_tie() {
        check(None, &[], 0);
        check(None, &[hint(1, 4, 2), hint(1, 5, 3)], 3);
        check(Some(hint(1, 5, 1)), &[hint(1, 4, 2)], 1);
        check(Some(hint(1, 5, 1)), &[hint(1, 5, 2)], 1);
        check(Some(hint(1, 5, 1)), &[hint(1, 6, 2)], 2);
        check(Some(hint(1, 9, 1)), &[hint(2, 1, 2)], 2);
    }

    #[test]
    fn a_hint_that_points_back_is_not_followed() {
        // We voted in term 6 and do not know its leader; gossip still says that term 5 was ours.
        check(Some(hint(1, 6, 0)), &[hint(1, 5, 1)], 0);
        check(Some(hint(1, 6, 0)), &[hint(1, 6, 3)], 3);
    }
}
