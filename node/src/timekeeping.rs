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

use crate::core::Core;
use crate::kind::Kind;

/// How often. Clocks that run within 10 % of each other drift less than the skew that is allowed.
const MEASURE_EVERY: Duration = Duration::from_secs(2);

/// An answer that takes longer says too little about when it was given.
const ANSWER_PATIENCE: Duration = Duration::from_millis(100);

/// Version of the answer.
const MESSAGES: u8 = 1;

/// Our own clock, for a member that asks.
pub(crate) fn answer(core: &Core) -> Bytes {
    let mut out = BytesMut::with_capacity(9);
    out.put_u8(MESSAGES);
    out.put_u64(core.wall.own().millis());
    out.freeze()
}

/// Measures until shutdown.
pub(crate) async fn serve(core: Arc<Core>) {
    let mut warned = false;
    loop {
        if let Some(table) = core.tables.newest() {
            let shown = measure(&core, &table).await;
            let now = Instant::now();
            let clocks: Vec<_> = shown.iter().map(|clock| clock.at(now)).collect();
            let median_ms = core.wall.measured(now, &clocks);
            let allowed_ms = u64::from(table.settings.clock_skew_ms_max);
            let off = median_ms.unsigned_abs() > allowed_ms;
            if off && !warned {
                warn!(median_ms, "this node's wall clock is wrong; the members' median is used");
            }
            warned = off;
        }
        tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            () = tokio::time::sleep(MEASURE_EVERY) => {}
        }
    }
}

/// What another's clock showed, and when on our monotonic clock.
struct Shown {
    at: Instant,
    time: UnixMillis,
}

impl Shown {
    /// What it shows at `now`, if it has neither jumped nor drifted since.
    fn at(&self, now: Instant) -> UnixMillis {
        let since = now.saturating_duration_since(self.at).as_millis();
        self.time.plus(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

async fn measure(core: &Core, table: &Table) -> Vec<Shown> {
    let others = table.members.values().filter(|member| member.node != core.node);
    join_all(others.map(|member| ask(core, member))).await.into_iter().flatten().collect()
}

/// A member's answer, which counts for the middle of the asking.
async fn ask(core: &Core, member: &Member) -> Option<Shown> {
    let to = Target { node: member.node, addr: member.endpoints.peer };
    let asked_at = Instant::now();
    let by = asked_at + ANSWER_PATIENCE;
    let call = core.peers.call(to, Lane::Control, Kind::Clock.number(), Bytes::new(), by);
    let mut answer = call.await.ok()?;
    let (MESSAGES, theirs) = (answer.try_get_u8().ok()?, answer.try_get_u64().ok()?) else {
        return None;
    };
    Some(Shown { at: asked_at + asked_at.elapsed() / 2, time: UnixMillis::new(theirs) })
}
