//! Who founds the council anew: one at most.
//!
//! Several may come to the verdict that it is up to them. Each asks everyone who answers for a promise to
//! side with nobody else, and founds only if all gave it and its own promise is still its own. Of two who
//! know of each other each needs the other's promise, and whoever has begun to found gives none.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::join_all;
use parking_lot::Mutex;
use scatterhoard_cluster::{Lane, Target};
use scatterhoard_replication::Council;
use scatterhoard_ring::{Epoch, Generation, NodeId};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::survey::Survey;
use super::{MESSAGES, next};
use crate::caretaker;
use crate::core::Core;
use crate::council;
use crate::kind::Kind;
use crate::membership::{put_epoch, take_epoch};

/// How long a promise may take to come.
const PATIENCE: Duration = Duration::from_secs(2);

/// A bid to found one generation. Of two for the same one the higher wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Ballot {
    generation: Generation,
    round: u64,
    node: NodeId,
}

/// What this node has promised.
#[derive(Default)]
pub(crate) struct Promised(Mutex<Promise>);

#[derive(Default)]
struct Promise {
    highest: Ballot,
    /// The ballot is our own, and its generation is being founded.
    founding: bool,
}

impl Promised {
    /// Our own next bid for a generation. `None`: it is being founded here already.
    fn bid(&self, generation: Generation, node: NodeId) -> Option<Ballot> {
        let mut promise = self.0.lock();
        let highest = promise.highest;
        if promise.founding && highest.generation >= generation {
            return None;
        }
        let round = if highest.generation == generation { highest.round + 1 } else { 1 };
        let ballot = Ballot { generation, round, node };
        *promise = Promise { highest: ballot.max(highest), founding: false };
        (promise.highest == ballot).then_some(ballot)
    }

    /// Whether we side with this bid, and from now on with no lower one.
    fn promise(&self, ballot: Ballot) -> bool {
        let mut promise = self.0.lock();
        let busy = promise.founding && promise.highest.generation >= ballot.generation;
        if busy || ballot < promise.highest {
            return false;
        }
        *promise = Promise { highest: ballot, founding: false };
        true
    }

    /// Who may have founded this generation, or a later one, with the promise of this node.
    pub(super) fn given(&self, generation: Generation) -> Option<NodeId> {
        let highest = self.0.lock().highest;
        (highest.generation >= generation).then_some(highest.node)
    }

    /// Nothing was founded under this ballot.
    fn give_up(&self, ballot: Ballot) {
        let mut promise = self.0.lock();
        promise.founding &= promise.highest != ballot;
    }

    /// Begins to found, if nobody has outbid us. From now on we side with nobody else.
    fn begin(&self, ballot: Ballot) -> bool {
        let mut promise = self.0.lock();
        promise.founding = promise.highest == ballot;
        promise.founding
    }
}

/// Asks everyone who answered for their promise, and founds the council if all give it.
pub(super) async fn stand(core: &Arc<Core>, survey: &Survey) {
    let table = &survey.table;
    let Some(generation) = next(Some(table.epoch.generation)) else { return };
    let Some(ballot) = core.recovery.promised.bid(generation, core.node) else { return };
    let mut body = BytesMut::new();
    body.put_u8(MESSAGES);
    body.put_u32(ballot.generation.number());
    body.put_u64(ballot.round);
    body.put_u64(ballot.node.number());
    put_epoch(&mut body, table.epoch);
    let body = body.freeze();
    let by = Instant::now() + PATIENCE;
    let ask = |node: NodeId| {
        let member = table.members.get(&node).map(|it| it.endpoints.peer);
        let addr = member.or_else(|| table.absent.get(&node).map(|it| it.peer));
        let call = addr.map(|addr| {
            let to = Target { node, addr };
            core.peers.call(to, Lane::Control, Kind::Promise.number(), body.clone(), by)
        });
        async move { call?.await.ok().filter(|answer| answer.first() == Some(&1)) }
    };
    let others = survey.evidence.answers.keys().copied().filter(|&node| node != core.node);
    let promises = join_all(others.map(ask)).await;
    if promises.iter().any(Option::is_none) {
        return info!("not everyone promised to let this node found the council anew");
    }
    if !core.recovery.promised.begin(ballot) {
        return info!("another node is to found the council anew");
    }
    if !found(core).await {
        core.recovery.promised.give_up(ballot);
    }
}

/// Founds the council's next generation with this node as its only voter, from the newest table. Says
/// whether it could.
async fn found(core: &Arc<Core>) -> bool {
    if let Some(old) = core.replicas.council() {
        // What its log holds may have been acknowledged; its end brings the table it adds up to.
        caretaker::wind_up(core, &old).await;
    }
    let Some(table) = core.tables.newest() else { return false };
    let anew = match table.refound(core.node, 0) {
        Ok(anew) => Arc::new(anew),
        Err(broken) => {
            warn!(%broken, "the council cannot be founded anew");
            return false;
        }
    };
    let (generation, epoch) = (anew.epoch.generation, anew.epoch);
    error!(
        %generation, from = %table.epoch,
        "the council lost its quorum for good and is founded anew; what only others knew is gone"
    );
    let Some(mine) = anew.council.ids().next() else { return false };
    let machine = Council::founded(Arc::clone(&anew), core.tables.clone());
    let group = caretaker::open_council(core, &anew, generation, mine, machine).await;
    // Only now: whoever sees the table opens the replicas in it that are not open yet.
    core.tables.adopt(Arc::clone(&anew));
    group.found(epoch).await;
    core.recovery.refounded();
    council::spread(core, &anew);
    true
}

/// Answers whether this node sides with a bid.
pub(crate) fn answer(core: &Core, mut body: Bytes) -> Bytes {
    let granted = take(&mut body).is_some_and(|(ballot, epoch)| {
        let newest = core.tables.newest().map(|table| table.epoch).unwrap_or_default();
        let next = newest.generation < ballot.generation;
        newest <= epoch && next && !council::leads(core) && core.recovery.promised.promise(ballot)
    });
    Bytes::copy_from_slice(&[u8::from(granted)])
}

fn take(body: &mut Bytes) -> Option<(Ballot, Epoch)> {
    if body.try_get_u8().ok()? != MESSAGES {
        return None;
    }
    let generation = Generation::new(body.try_get_u32().ok()?);
    let round = body.try_get_u64().ok()?;
    let node = NodeId::new(body.try_get_u64().ok()?);
    Some((Ballot { generation, round, node }, take_epoch(body)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const G2: Generation = Generation::new(2);
    const G3: Generation = Generation::new(3);

    fn node(number: u64) -> NodeId {
        NodeId::new(number)
    }

    #[test]
    fn of_two_who_stand_one_founds_at_most() {
        let (a, b) = (Promised::default(), Promised::default());
        let (bid_a, bid_b) = (a.bid(G2, node(1)).unwrap(), b.bid(G2, node(2)).unwrap());
        assert!(!b.promise(bid_a), "its own is higher");
        assert!(a.promise(bid_b));
        assert!(!a.begin(bid_a), "it sides with the other now");
        assert!(b.begin(bid_b));
        assert!(!b.promise(Ballot { round: 9, ..bid_a }), "it has begun");
        assert_eq!(b.bid(G2, node(2)), None);
    }

    #[test]
    fn who_was_outbid_bids_higher_the_next_time() {
        let (a, b) = (Promised::default(), Promised::default());
        let first = b.bid(G2, node(2)).unwrap();
        assert!(a.promise(first));
        let second = a.bid(G2, node(1)).unwrap();
        assert!(b.promise(second) && a.begin(second));
        assert!(!b.begin(first));
    }

    #[test]
    fn a_generation_later_everyone_is_free_again() {
        let a = Promised::default();
        let bid = a.bid(G2, node(1)).unwrap();
        assert!(a.begin(bid));
        assert!(a.promise(Ballot { generation: G3, round: 1, node: node(2) }));
        assert!(!a.promise(bid), "and the one before is over");
    }
}
