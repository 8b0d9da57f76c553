//! Looks that nobody waits for any more, and the leases that they bring.
//!
//! A look that asks for a lease may have been given one by the time somebody is tired of waiting: dropped then, it
//! would leave a lease whose token nobody knows, and the next callers of that key would wait for as long as it lasts.
//! So it goes on, as a task of its own, up to the level's own deadline, and gives back what it brings. On the ordinary
//! way that costs one allocation: the task begins only when it is too late.
//!
//! Only flights ask for leases, and each of them is a task that nobody aborts: a caller that is dropped drops no look.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::levels::LEVEL_TIMEOUT;
use crate::Error;
use crate::level::{ClusterLevel, Found, Lease, Look, Token};

/// Looks that go on at once. The breaker opens after some failures in a row, so there are as many as were under way
/// then; but a level may be slow at every other look only. What is more than that is dropped, and its leases end by
/// themselves.
const LATE_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct LateLooks {
    permits: Arc<Semaphore>,
}

/// A lease that was given for a key.
pub(crate) type Given = (Bytes, Token);

impl LateLooks {
    pub(crate) fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(LATE_MAX)) }
    }

    /// The answer of a look, if it takes no longer than this. If it does, the leases in it are given back when it
    /// comes.
    ///
    /// # Errors
    /// Those of the look; [`Error::InDoubt`] if it takes longer.
    pub(crate) async fn in_time<T: Send + 'static>(
        &self,
        level: &Arc<dyn ClusterLevel>,
        limit: Duration,
        mut look: BoxFuture<'static, Result<T, Error>>,
        given: impl FnOnce(T) -> Vec<Given> + Send + 'static,
    ) -> Result<T, Error> {
        if let Ok(answer) = timeout(limit, &mut look).await {
            return answer;
        }
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            let level = Arc::clone(level);
            tokio::spawn(async move {
                let _permit = permit;
                if let Ok(Ok(answer)) = timeout(LEVEL_TIMEOUT, look).await {
                    give_back(&*level, given(answer)).await;
                }
            });
        }
        Err(Error::InDoubt(format!("no answer in {limit:?}")))
    }
}

async fn give_back(level: &dyn ClusterLevel, leases: Vec<Given>) {
    let releases = leases.iter().map(|(name, token)| level.release(name, *token));
    let Ok(released) = timeout(LEVEL_TIMEOUT, join_all(releases)).await else { return };
    for error in released.iter().filter_map(|released| released.as_ref().err()) {
        // It ends by itself.
        tracing::debug!(%error, "a lease that came too late could not be given back");
    }
}

/// The token of the lease that a look was given.
pub(crate) fn token(look: &Look) -> Option<Token> {
    match &look.found {
        Found::Load(Lease { token, .. }) => Some(*token),
        Found::Value(stored) => stored.refresh.map(|Lease { token, .. }| token),
        Found::Absent | Found::Negative { .. } | Found::Wait { .. } => None,
    }
}
