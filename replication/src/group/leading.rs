//! What a replica makes of what openraft says of itself: who leads, and for how long it may answer reads
//! alone.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::{Instant as _, ServerState};
use tokio::time::Instant;
use tracing::info;

use super::{Group, Leader, Leadership};
use crate::lease::lease_length;
use crate::probe::{self, Event};
use crate::raft::{self, LogId};

/// How often a leader looks whether its quorum has acknowledged something newer. A lease lasts 360 ms
/// at default settings and an acknowledgement is at most 120 ms old.
const LEASE_LOOK: Duration = Duration::from_millis(40);

/// How often it is looked whether openraft has said all of a change.
const LAG_LOOK: Duration = Duration::from_millis(1);

/// How often a new leader looks whether it has applied its own first entry.
const READY_LOOK: Duration = Duration::from_millis(5);

impl Group {
    /// No lease is granted any more in this term: whoever is elected next need not wait for it.
    pub(crate) fn give_up_lease(&self, term: u64) {
        self.lease_given_up.fetch_max(term, Ordering::SeqCst);
        self.lease.revoke();
    }

    /// A sole voter's lease has no deadline, so it must end before another can be voted for: from here
    /// on leases come from acknowledgements only, until the change is known to be through. If it is not
    /// known, for the rest of the term.
    pub(crate) fn expect_company(&self) -> Company<'_> {
        let term = self.raft.metrics().borrow_watched().current_term;
        let before = self.sole_lease_given_up.fetch_max(term, Ordering::SeqCst);
        self.lease.revoke();
        Company { group: self, term, before }
    }

    /// Keeps the lease word and the leadership as openraft's metrics say. Runs until the replica ends.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut changes = self.raft.server_metrics();
        loop {
            let look = self.look(Instant::now());
            let lags = self.lags(&changes.borrow_watched());
            tokio::select! {
                biased;
                () = self.ended.cancelled() => break,
                changed = changes.changed() => if changed.is_err() {
                    self.died();
                    break;
                },
                () = look => {}
                () = tokio::time::sleep(LAG_LOOK), if lags => {}
            }
        }
        self.lease.revoke();
        self.machine.end_to_lead();
        self.leadership.send_replace(Leadership::default());
        self.ended.cancel();
    }

    /// Whether openraft has told of a change that the metrics do not show yet: they are sent last, so with
    /// several threads the news can be seen before them.
    fn lags(&self, told: &RaftServerMetrics<raft::Types>) -> bool {
        let shown = self.raft.metrics();
        let shown = shown.borrow_watched();
        told.vote != shown.vote
            || told.state != shown.state
            || told.current_leader != shown.current_leader
            || told.membership_config != shown.membership_config
    }

    /// The core has ended, and nobody had told it to.
    fn died(&self) {
        let metrics = self.raft.metrics();
        let cause = match &metrics.borrow_watched().running_state {
            Ok(()) => "it ended without a word".to_owned(),
            Err(fatal) => fatal.to_string(),
        };
        let (of, replica) = (self.spec.founded(), self.spec.replica);
        probe::saw(|| Event::Died { of, replica });
        // Only here, and the task that comes here ends.
        let _the_first = self.failure.set(cause);
    }

    /// Looks once; answers with when to look again.
    fn look(&self, now: Instant) -> impl Future<Output = ()> + use<> {
        let seen = self.seen();
        self.voters_count.store(seen.voters_count, Ordering::Relaxed);
        let leads = seen.leadership.leader.is_some_and(|it| it.replica == self.spec.replica);
        self.leadership.send_if_modified(|before| {
            let changed = *before != seen.leadership;
            if changed && seen.leadership.ready {
                let (replica, term) = (self.spec.replica, seen.leadership.term);
                self.machine.begin_to_lead(term);
                probe::saw(|| Event::Leads { of: self.spec.founded(), replica, term });
            }
            if before.ready && !seen.leadership.ready {
                self.machine.end_to_lead();
            }
            if changed && (seen.leadership.ready != before.ready) {
                let event = if seen.leadership.ready { "gained" } else { "lost" };
                info!(group = %self.spec.group, term = seen.leadership.term, "leadership {event}");
            }
            *before = seen.leadership;
            changed
        });
        self.renew_lease(&seen);
        let again = match (leads, seen.leadership.ready) {
            (true, false) => Some(READY_LOOK),
            (true, true) => Some(LEASE_LOOK),
            (false, _) => None,
        };
        async move {
            match again {
                Some(pause) => tokio::time::sleep_until(now + pause).await,
                None => std::future::pending().await,
            }
        }
    }

    fn renew_lease(&self, seen: &Seen) {
        let term = seen.leadership.term;
        let allowed = || {
            let sole = matches!(seen.lease, LeaseSeen::ForGood);
            self.lease_given_up.load(Ordering::SeqCst) < term
                && !(sole && self.sole_lease_given_up.load(Ordering::SeqCst) >= term)
        };
        if !seen.leadership.ready || !allowed() {
            return self.lease.revoke();
        }
        match seen.lease {
            LeaseSeen::ForGood => self.lease.grant_for_good(term),
            LeaseSeen::Acknowledged(at) => {
                let length = lease_length(self.spec.timers.election_ms_max);
                self.lease.grant(term, at + length);
            }
            LeaseSeen::None => self.lease.revoke(),
        }
        // Given up while it was being granted: the grant must not outlive that.
        if !allowed() {
            self.lease.revoke();
        }
    }

    fn seen(&self) -> Seen {
        let now = Instant::now();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let leader = metrics.current_leader.and_then(|replica| {
            Some(Leader { replica, node: membership.get_node(&replica)?.node })
        });
        // An applied entry that carries this leader's own vote was proposed by it in this term.
        let applied_own =
            metrics.last_applied.is_some_and(|applied| applied.leader_id == metrics.vote.leader_id);
        let ready = metrics.state == ServerState::Leader
            && leader.is_some_and(|leader| leader.replica == self.spec.replica)
            && applied_own;
        let alone = membership.get_joint_config().len() == 1
            && membership.voter_ids().eq([self.spec.replica]);
        let lease = match metrics.last_quorum_acked {
            _ if alone => LeaseSeen::ForGood,
            // openraft's instant does not convert. The clock is read before the age, so that the
            // result is early rather than late.
            Some(at) => {
                now.checked_sub(at.elapsed()).map_or(LeaseSeen::None, LeaseSeen::Acknowledged)
            }
            None => LeaseSeen::None,
        };
        let halves = membership.get_joint_config().iter().map(BTreeSet::len);
        let voters_count = halves.min().unwrap_or(0);
        let leadership = Leadership { term: metrics.current_term, leader, ready };
        Seen { leadership, lease, voters_count }
    }
}

/// A membership change under way, as far as the lease of a sole voter is concerned.
pub(crate) struct Company<'a> {
    group: &'a Group,
    term: u64,
    before: u64,
}

impl Company<'_> {
    /// The change was committed at `log_id`. Waits until what the lease is judged by has seen it.
    pub(crate) async fn came(self, log_id: LogId) {
        let seen = |metrics: &openraft::RaftMetrics<raft::Types>| {
            *metrics.membership_config.log_id() >= Some(log_id)
        };
        let patience = Some(Duration::from_secs(1));
        if self.before < self.term
            && self.group.raft.wait(patience).metrics(seen, "membership seen").await.is_ok()
        {
            let given_up = &self.group.sole_lease_given_up;
            let _changed_by_another = given_up.compare_exchange(
                self.term,
                self.before,
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
        }
    }
}

struct Seen {
    leadership: Leadership,
    lease: LeaseSeen,
    voters_count: usize,
}

enum LeaseSeen {
    /// This replica is the only voter: nobody can depose it.
    ForGood,
    /// When the last heartbeat was sent that a quorum acknowledged.
    Acknowledged(Instant),
    None,
}
