//! Whether copies are in use: probes are sent only then.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::watch::Watch;
use crate::Cluster;
use crate::topology::Address;

/// How long after the last use of a copy probes are still sent, at least half of it.
const FADES_AFTER: Duration = Duration::from_secs(1);

/// How long a connection may owe an answer to a probe until it is given up: as many bounds, and at least so long.
const SILENT_BOUNDS: u32 = 10;
const SILENT_MIN: Duration = Duration::from_secs(2);

/// By when a probe that is sent now has to be answered.
pub(super) fn answered_by(watch: &Watch) -> Instant {
    Instant::now() + (watch.bound() * SILENT_BOUNDS).max(SILENT_MIN)
}

/// Set by whoever uses a copy, and looked at by who sends probes.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    used: AtomicBool,
    wakes: Notify,
}

impl Pulse {
    /// A copy is used. On the path of every hit: mostly one load.
    pub(super) fn beat(&self) {
        if !self.used.load(Ordering::Relaxed) && !self.used.swap(true, Ordering::Relaxed) {
            self.wakes.notify_one();
        }
    }

    /// Until a copy is used.
    async fn beats(&self) {
        self.wakes.notified().await;
    }

    /// Whether no copy was used since this was asked before.
    fn has_faded(&self) -> bool {
        !self.used.swap(false, Ordering::Relaxed)
    }
}

/// Sends probes to every node while copies are in use, `pace` apart and never two at once to one node, until
/// `ended`.
///
/// `probe` sends one and takes its answer in.
pub(super) async fn probe_while_used<P: Future<Output = ()>>(
    pulse: &Pulse,
    cluster: &Cluster,
    pace: Duration,
    ended: CancellationToken,
    probe: impl Fn(Address) -> P,
) {
    loop {
        tokio::select! {
            biased;
            () = ended.cancelled() => return,
            () = pulse.beats() => {}
        }
        let mut under_way = FuturesUnordered::new();
        let mut probed = BTreeSet::new();
        let mut fades = Instant::now() + FADES_AFTER;
        loop {
            for node in cluster.nodes() {
                if probed.insert(node.clone()) {
                    let again = Instant::now() + pace;
                    let answered = probe(node.clone());
                    under_way.push(async move {
                        answered.await;
                        sleep_until(again).await;
                        node
                    });
                }
            }
            tokio::select! {
                biased;
                () = ended.cancelled() => return,
                () = sleep_until(fades) => {
                    if pulse.has_faded() {
                        break;
                    }
                    fades += FADES_AFTER;
                }
                Some(node) = under_way.next() => {
                    probed.remove(&node);
                }
            }
        }
    }
}
