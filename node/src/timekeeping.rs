//! Measures what the other members' wall clocks show, so that ours can be set right.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::join_all;
use scatterhoard_cluster::{Lane, Target};
use scatterhoard_ring::{Member, Table};
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

/// Version of the answer.
const MESSAGES: u8 = 2;

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

/// Measures until shutdown.
pub(crate) async fn serve(core: Arc<Core>) {
    let mut warned = false;
    loop {
        if let Some(table) = core.tables.newest() {
            let told = measure(&core, &table).await;
            let now = Instant::now();
            let shown: Vec<_> = told.iter().map(|told| told.at(now)).collect();
            if let Some(median_ms) = core.wall.measured(now, &shown, table.members.len()) {
                let allowed_ms = u64::from(table.settings.clock_skew_ms_max);
                let off = median_ms.unsigned_abs() > allowed_ms;
                if off && !warned {
                    warn!(median_ms, "this node's wall clock is wrong; the members' time is used");
                }
                warned = off;
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

async fn measure(core: &Core, table: &Table) -> Vec<Told> {
    let others = table.members.values().filter(|member| member.node != core.node);
    join_all(others.map(|member| ask(core, member))).await.into_iter().flatten().collect()
}

/// A member's answer, which counts for the middle of the asking.
async fn ask(core: &Core, member: &Member) -> Option<Told> {
    let to = Target { node: member.node, addr: member.endpoints.peer };
    let asked_at = Instant::now();
    let known = core.wall.is_known();
    let by = asked_at + if known { ANSWER_PATIENCE } else { ANSWER_PATIENCE_AT_FIRST };
    let call = core.peers.call(to, Lane::Control, Kind::Clock.number(), Bytes::new(), by);
    let mut answer = call.await.ok()?;
    if answer.try_get_u8().ok()? != MESSAGES {
        return None;
    }
    let own = UnixMillis::new(answer.try_get_u64().ok()?);
    let knows = answer.try_get_u8().ok()? == 1;
    let agreed = UnixMillis::new(answer.try_get_u64().ok()?);
    let shown = Shown { own, agreed: knows.then_some(agreed) };
    Some(Told { at: asked_at + asked_at.elapsed() / 2, shown })
}
