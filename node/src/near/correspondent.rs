//! Asks leaders for news, as long as copies of what they lead are looked up.
//!
//! There is one task for each node that leads such partitions, and it always has one call under way. What is
//! proven by an answer counts from when the call was sent. A call that fails, a partition that is refused, a
//! leader that is another: then what was loaded before is not served again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use scatterhoard_cluster::{Lane, Target};
use scatterhoard_near::{Cells, Feed, Inbox, Moment, Question, Taken};
use scatterhoard_ring::{GroupId, NodeId, PartitionId, Slot, Table};
use tokio::time::Instant;

use super::message::{self, About, Inquiry};
use super::{Near, Shelf};
use crate::core::Core;
use crate::kind::Kind;

/// How long a leader may hold an answer without news. A quarter of the bound if that is shorter: so that the
/// next answer comes before what the last one proved has run out.
const HOLD: Duration = Duration::from_millis(50);

/// How long an answer may take beyond that. What comes later than the bound proves nothing, but tells of
/// changes, so that not everything has to be loaded again.
const ANSWER_PATIENCE: Duration = Duration::from_millis(500);

/// Pause before somebody who did not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// For so long news of a partition are asked for after the last look at a copy.
const IDLE: Duration = Duration::from_secs(5);

/// A look is noted no more often than this, so that those who look do not all write to one place.
const LOOK_NOTED: Duration = Duration::from_millis(500);

/// Bytes of copies for each counter of changes: a few counters for each copy, so that few share one.
const BYTES_PER_CELL: u64 = 128;

/// A partition of which there are copies.
pub(crate) struct Followed {
    id: PartitionId,
    pub(super) feed: Arc<Feed>,
    /// In nanoseconds, as a moment.
    looked_up: AtomicU64,
}

/// Of which partitions there are copies, and who is asked for news of which.
pub(super) struct Roster {
    cells: Arc<Cells>,
    followed: RwLock<BTreeMap<PartitionId, Arc<Followed>>>,
    beats: Mutex<Beats>,
}

/// Who is asked about what. Each partition is in the hands of one task at most.
#[derive(Default)]
struct Beats {
    of: BTreeMap<PartitionId, NodeId>,
    running: BTreeSet<NodeId>,
}

/// What a task asks next.
struct Assignment {
    partitions: Vec<Arc<Followed>>,
    /// Others that have to be asked from now on, by tasks that do not run yet.
    others: Vec<NodeId>,
}

impl Followed {
    /// Somebody has looked for a key of it.
    pub(super) fn looked_up(&self, now: Moment) {
        let before = Moment::from_nanos(self.looked_up.load(Ordering::Relaxed));
        if now >= before.after(LOOK_NOTED) {
            self.looked_up.store(now.nanos(), Ordering::Relaxed);
        }
    }

    fn is_idle(&self, now: Moment) -> bool {
        now >= Moment::from_nanos(self.looked_up.load(Ordering::Relaxed)).after(IDLE)
    }
}

impl Roster {
    pub(super) fn new(bytes_max: u64) -> Self {
        let bits = (bytes_max / BYTES_PER_CELL).max(1).ilog2();
        let cells = Arc::new(Cells::new(bits));
        Self { cells, followed: RwLock::default(), beats: Mutex::default() }
    }

    pub(super) fn followed(&self, id: PartitionId) -> Option<Arc<Followed>> {
        self.followed.read().get(&id).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Followed>> {
        self.followed.read().values().cloned().collect()
    }

    /// The partition with this id, which is followed from now on if it was not.
    fn entry(&self, table: &Table, id: PartitionId) -> Option<Arc<Followed>> {
        if let Some(followed) = self.followed(id) {
            return Some(followed);
        }
        let slots = table.partitions.get(&id)?.slots;
        let followed = || {
            let feed = Arc::new(Feed::new(slots, Arc::clone(&self.cells)));
            Arc::new(Followed { id, feed, looked_up: AtomicU64::new(0) })
        };
        Some(Arc::clone(self.followed.write().entry(id).or_insert_with(followed)))
    }

    /// Gives a partition to the task of this node, unless another has it. Answers whether that task has to
    /// be begun.
    fn give(&self, id: PartitionId, node: NodeId) -> bool {
        let mut beats = self.beats.lock();
        let is_new = !beats.of.contains_key(&id);
        if is_new {
            beats.of.insert(id, node);
        }
        is_new && beats.running.insert(node)
    }

    /// What the task of this node asks about next; `None`: nothing, and it ends.
    fn assign(&self, core: &Core, node: NodeId, now: Moment) -> Option<Assignment> {
        let table = core.tables.newest()?;
        let mut beats = self.beats.lock();
        let ids = beats.of.iter().filter(|&(_, &of)| of == node).map(|(&id, _)| id);
        let ids: Vec<_> = ids.collect();
        let mut assignment = Assignment { partitions: Vec::new(), others: Vec::new() };
        for id in ids {
            let followed = self.followed(id).filter(|followed| !followed.is_idle(now));
            let leader = core.leader_of(&table, GroupId::Partition(id));
            match (followed, leader) {
                (None, _) => drop(beats.of.remove(&id)),
                // Nobody keeps copies of what they lead themselves.
                (Some(_), Some(leader)) if leader == core.node => drop(beats.of.remove(&id)),
                (Some(_), Some(leader)) if leader != node => {
                    beats.of.insert(id, leader);
                    if beats.running.insert(leader) {
                        assignment.others.push(leader);
                    }
                }
                // Where no leader is known, who led last may still.
                (Some(followed), _) => assignment.partitions.push(followed),
            }
        }
        if assignment.partitions.is_empty() {
            beats.running.remove(&node);
        }
        Some(assignment)
    }

    /// The task of this node ends.
    fn quit(&self, node: NodeId) {
        let mut beats = self.beats.lock();
        beats.running.remove(&node);
        beats.of.retain(|_, of| *of != node);
    }
}

/// Has news of a slot's partition asked for, by whoever does so already, or of this node.
pub(super) fn follow(
    core: &Arc<Core>,
    shelf: &Arc<Shelf>,
    table: &Table,
    (slot, node): (Slot, NodeId),
    now: Moment,
) -> Option<Arc<Followed>> {
    let id = table.partition_of(slot);
    let followed = shelf.roster.entry(table, id)?;
    followed.looked_up(now);
    if shelf.roster.give(id, node) {
        begin(core, shelf, node);
    }
    Some(followed)
}

fn begin(core: &Arc<Core>, shelf: &Arc<Shelf>, node: NodeId) {
    let correspondent = Correspondent {
        core: Arc::clone(core),
        shelf: Arc::clone(shelf),
        node,
        inboxes: BTreeMap::new(),
    };
    core.tasks.spawn(correspondent.run());
}

/// Asks one node.
struct Correspondent {
    core: Arc<Core>,
    shelf: Arc<Shelf>,
    node: NodeId,
    inboxes: BTreeMap<PartitionId, Inbox>,
}

impl Correspondent {
    async fn run(mut self) {
        let shutdown = self.core.shutdown.clone();
        while self.prepare() {
            let went_well = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                went_well = self.ask() => went_well,
            };
            if !went_well {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => break,
                    () = tokio::time::sleep(ASK_AGAIN) => {}
                }
            }
        }
    }

    /// Sees to it that there is an inbox for each partition that is to be asked about. Answers whether there
    /// is one.
    fn prepare(&mut self) -> bool {
        let now = self.near().moment(Instant::now());
        let Some(Assignment { partitions, others }) =
            self.shelf.roster.assign(&self.core, self.node, now)
        else {
            self.shelf.roster.quit(self.node);
            return false;
        };
        others.into_iter().for_each(|other| begin(&self.core, &self.shelf, other));
        self.inboxes.retain(|id, _| partitions.iter().any(|followed| followed.id == *id));
        let bound = self.near().bound;
        for followed in &partitions {
            let fresh = || Inbox::new(Arc::clone(&followed.feed), bound);
            self.inboxes.entry(followed.id).or_insert_with(fresh);
        }
        !partitions.is_empty()
    }

    /// Asks once, and takes the answer. Answers whether all went well.
    async fn ask(&mut self) -> bool {
        let hold = HOLD.min(self.near().bound / 4);
        let now = Instant::now();
        let moment = self.near().moment(now);
        let asked: Vec<_> =
            self.inboxes.iter().map(|(&id, inbox)| (id, inbox.ask(moment))).collect();
        match self.call(&asked, hold, now + hold + ANSWER_PATIENCE).await {
            Some(answer) => self.take(&asked, answer),
            None => {
                asked.iter().for_each(|&(id, _)| self.lost(id));
                false
            }
        }
    }

    async fn call(
        &self,
        asked: &[(PartitionId, Question)],
        hold: Duration,
        by: Instant,
    ) -> Option<Bytes> {
        let table = self.core.tables.newest()?;
        let addr = table.members.get(&self.node)?.endpoints.peer;
        let about = |&(partition, Question { stream, taken, .. }): &(PartitionId, Question)| {
            About { partition, stream, taken }
        };
        let hold_ms = u16::try_from(hold.as_millis()).expect("it is short");
        let inquiry = Inquiry { hold_ms, partitions: asked.iter().map(about).collect() };
        let body = message::encode_inquiry(&inquiry);
        let to = Target { node: self.node, addr };
        let call = self.core.peers.call(to, Lane::Control, Kind::News.number(), body, by);
        // However it failed: the answer may have been on its way.
        call.await.ok()
    }

    fn take(&mut self, asked: &[(PartitionId, Question)], answer: Bytes) -> bool {
        let told: BTreeMap<_, _> =
            message::decode_told(answer).unwrap_or_default().into_iter().collect();
        let mut went_well = true;
        for &(id, question) in asked {
            let Some(Some(bulletin)) = told.get(&id) else {
                self.lost(id);
                went_well = false;
                continue;
            };
            let Some(inbox) = self.inboxes.get_mut(&id) else { continue };
            match inbox.take(question, bulletin) {
                Taken::News | Taken::Begun => {}
                Taken::Repeated | Taken::Late => went_well = false,
                Taken::Gap | Taken::Foreign => {
                    self.near().counts.resets.fetch_add(1, Ordering::Relaxed);
                    went_well = false;
                }
            }
        }
        went_well
    }

    fn lost(&mut self, id: PartitionId) {
        let Some(inbox) = self.inboxes.get_mut(&id) else { return };
        if inbox.follower().stamp().is_some() {
            self.core.near.counts.resets.fetch_add(1, Ordering::Relaxed);
        }
        inbox.lost();
    }

    fn near(&self) -> &Near {
        &self.core.near
    }
}
