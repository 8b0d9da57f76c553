//! Keeps a log in memory within bounds: marks a snapshot, then purges what lies before it.

use std::sync::Arc;
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use scatterhoard_ring::ReplicaId;

use crate::group::Group;
use crate::probe::{self, Event};
use crate::raft::Raft;

/// How often a log is measured.
const LOOK: Duration = Duration::from_millis(250);

/// A purge leaves this part of what a log may have, so that a follower that was away for a moment needs no
/// snapshot.
const PART_LEFT: usize = 2;

/// A log that no follower needs is purged above this, whole.
const LOG_BYTES_ALONE: usize = 128 << 10;

/// A log above this makes writers wait, so that followers and snapshots that are alive can catch up.
pub(crate) const LOG_BYTES_CONGESTED: usize = 32 << 20;

/// A log above this is purged even if a follower, or a snapshot under way, still needs it: they then
/// begin with a new snapshot. Reached only if what is needed does not move at all.
const LOG_BYTES_MAX: usize = 64 << 20;

/// A follower that has not acknowledged anything for this long needs nothing for now.
const FOLLOWER_PATIENCE: Duration = Duration::from_secs(2);

/// Purges as needed until the replica ends.
pub(crate) async fn keep(group: Arc<Group>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = group.ended().cancelled() => return,
            _ = ticks.tick() => {}
        }
        let (bytes, bytes_max) = (group.log().size().bytes, group.spec().log_bytes_max);
        if group.is_alone() && bytes > LOG_BYTES_ALONE.min(bytes_max) {
            purge_all(group.raft()).await;
        } else if bytes > bytes_max {
            purge(&group).await;
        }
    }
}

async fn purge(group: &Group) {
    let Some(wanted) = group.log().excess_over(group.spec().log_bytes_max / PART_LEFT) else {
        return;
    };
    let needed = needed_from(group.raft());
    let forced = group.log().excess_over(LOG_BYTES_MAX).unwrap_or(0);
    let upto = wanted.min(needed).max(forced);
    if upto >= group.log().size().first {
        probe::saw(|| Event::Purged { of: group.spec().founded() });
        mark_and_purge(group.raft(), upto).await;
    }
}

/// The last index that every follower has that is alive, and every snapshot under way begins after.
fn needed_from(raft: &Raft) -> u64 {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let Some(followers) = &metrics.replication else { return u64::MAX };
    let heard = metrics.heartbeat.as_ref();
    let alive = |id: &ReplicaId| {
        let at = heard.and_then(|heard| heard.get(id).copied().flatten());
        at.is_some_and(|at| at.elapsed() < FOLLOWER_PATIENCE)
    };
    let matched = followers.iter().filter(|(id, _)| alive(id));
    matched.map(|(_, matched)| matched.map_or(0, |log_id| log_id.index)).min().unwrap_or(u64::MAX)
}

/// Purges the whole log up to what is applied.
pub(crate) async fn purge_all(raft: &Raft) {
    let applied = raft.metrics().borrow_watched().last_applied;
    if let Some(applied) = applied {
        mark_and_purge(raft, applied.index).await;
    }
}

/// A replica that has ended needs no purging, so failures do not matter here.
async fn mark_and_purge(raft: &Raft, upto: u64) {
    if raft.trigger().snapshot().await.is_err() {
        return;
    }
    let marked = raft
        .wait(Some(Duration::from_secs(5)))
        .metrics(|metrics| metrics.snapshot.is_some_and(|mark| mark.index >= upto), "marked")
        .await;
    if marked.is_ok() {
        let _ended = raft.trigger().purge_log(upto).await;
    }
}
