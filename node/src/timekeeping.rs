//! Measures what the other members' wall clocks show, so that ours can be set right.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::join_all;
use scatterhoard_cluster::{Lane, Target};
use scatterhoard_ring::{NodeId, Table};
use scatterhoard_store::UnixMillis;
use tokio::time::Instant;
use tracing::warn;

use crate::clock::Shown;
use crate::core::Core;
use crate::kind::Kind;

/// How often. Clocks that run within 10 % of each other drift less than the skew that is allowed.
const MEASURE_EVERY: Duration = Duration::from_secs(2);

/// How often as long as the time is not known: replicas wait for that.
const MEASURE_AT_FIRST: Duration = Duration::from_millis(50);

/// An answer that takes longer says too little about when it was given.
const ANSWER_PATIENCE: Duration = Duration::from_millis(100);

/// As long as the time is not known, half of this is better than a clock that may be off by anything.
const ANSWER_PATIENCE_AT_FIRST: Duration = Duration::from_secs(1);

/// After so long somebody should know why this node opens no partition.
const SAY_AFTER: Duration = Duration::from_secs(10);

/// Version of the answer. Later ones may only add to it.
const MESSAGES: u8 = 2;

/// The version that had nothing but the node's own clock.
const MESSAGES_OWN: u8 = 1;

/// What we know of the time, for a member that asks.
pub(crate) fn answer(core: &Core) -> Bytes {
    let shown = core.wall.shown(Instant::now());
    let mut out = BytesMut::with_capacity(18);
    out.put_u8(MESSAGES);
    out.put_u64(shown.own.millis());
    out.put_u8(shown.agreed.is_some().into());
    out.put_u64(shown.agreed.map_or(0, UnixMillis::millis));
    out.freeze()
}

/// Sets the time of a cluster that is about to be founded: by these who are to join it, if there are enough for a
/// wrong clock to be outvoted; else by our own.
pub(crate) async fn found(core: &Core, others: &BTreeSet<SocketAddr>) {
    let targets = others.iter().map(|&addr| Target { node: NodeId::new(0), addr });
    let shown = ask_all(core, targets, ANSWER_PATIENCE_AT_FIRST).await;
    let now = Instant::now();
    // As if there were always more who could be asked.
    if core.wall.measured(now, &shown, usize::MAX).is_none() {
        core.wall.found(now);
    }
}

/// Measures until shutdown.
pub(crate) async fn serve(core: Arc<Core>) {
    let (begun, mut warned, mut said) = (Instant::now(), false, false);
    loop {
        if let Some(table) = core.tables.newest() {
            if let Some(median_ms) = measure(&core, &table).await {
                let allowed_ms = u64::from(table.settings.clock_skew_ms_max);
                let off = median_ms.unsigned_abs() > allowed_ms;
                if off && !warned {
                    warn!(median_ms, "this node's wall clock is wrong; the members' time is used");
                }
                warned = off;
            } else if !said && begun.elapsed() > SAY_AFTER {
                said = true;
                warn!("nobody can tell this node what time it is, so it opens no partition");
            }
        }
        let pause = if core.wall.is_known() { MEASURE_EVERY } else { MEASURE_AT_FIRST };
        tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What another has told, and when that was on our monotonic clock.
struct Told {
    at: Instant,
    shown: Shown,
}

impl Told {
    /// What it would tell at `now`, if its clocks have neither jumped nor drifted since.
    fn at(&self, now: Instant) -> Shown {
        let since = now.saturating_duration_since(self.at).as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        let Shown { own, agreed } = self.shown;
        Shown { own: own.plus(since), agreed: agreed.map(|agreed| agreed.plus(since)) }
    }
}

/// Asks all members. Answers with how far the agreed time is ahead of our clock, in milliseconds, if it is known.
async fn measure(core: &Core, table: &Table) -> Option<i64> {
    let others = table.members.values().filter(|member| member.node != core.node);
    let targets: Vec<_> =
        others.map(|member| Target { node: member.node, addr: member.endpoints.peer }).collect();
    for patience in [ANSWER_PATIENCE, ANSWER_PATIENCE_AT_FIRST] {
        let shown = ask_all(core, targets.iter().copied(), patience).await;
        let measured = core.wall.measured(Instant::now(), &shown, table.members.len());
        if measured.is_some() {
            return measured;
        }
    }
    None
}

/// What they show now, those who answer in time.
async fn ask_all(
    core: &Core,
    targets: impl Iterator<Item = Target>,
    patience: Duration,
) -> Vec<Shown> {
    let told = join_all(targets.map(|to| ask(core, to, patience))).await;
    let now = Instant::now();
    told.into_iter().flatten().map(|told| told.at(now)).collect()
}

/// An answer, which counts for the middle of the asking.
async fn ask(core: &Core, to: Target, patience: Duration) -> Option<Told> {
    let asked_at = Instant::now();
    let by = asked_at + patience;
    let call = core.peers.call(to, Lane::Control, Kind::Clock.number(), Bytes::new(), by);
    let mut answer = call.await.ok()?;
    // One that came in time, but was found only after this process had stood still, says as little as a late one.
    if Instant::now() > by {
        return None;
    }
    let version = answer.try_get_u8().ok()?;
    let own = UnixMillis::new(answer.try_get_u64().ok()?);
    let agreed = match version {
        ..MESSAGES_OWN => return None,
        MESSAGES_OWN => None,
        MESSAGES.. => {
            let knows = answer.try_get_u8().ok()? == 1;
            let agreed = UnixMillis::new(answer.try_get_u64().ok()?);
            knows.then_some(agreed)
        }
    };
    Some(Told { at: asked_at + asked_at.elapsed() / 2, shown: Shown { own, agreed } })
}
