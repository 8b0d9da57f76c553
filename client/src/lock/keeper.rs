//! Keeps a lock that was taken: renews it, and gives it back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Unlocked;
use super::state::{Member, State};
use crate::Error;
use crate::register::{Register, Swap, Version};

/// The key of one lock.
#[derive(Clone)]
pub(super) struct Spot {
    pub(super) register: Arc<dyn Register>,
    pub(super) key: Bytes,
}

/// The share of the lease after which whoever has the lock lets go of it, counted from when the last renewal was sent:
/// 7/8. Others wait for the whole, from when they saw it. A clock that runs 10 % faster than another one sees
/// 7/8 × 1.1 of it at most.
pub(super) fn good_for(lease: Duration) -> Duration {
    lease / 8 * 7
}

/// What the guard and the keeper both know.
pub(super) struct Held {
    pub(super) spot: Spot,
    /// Until when it is ours for certain.
    until: Mutex<Instant>,
    /// Ended when it may not be ours any more.
    pub(super) lost: CancellationToken,
}

/// The owner of all writes of a lock that is ours.
pub(super) struct Keeper {
    held: Arc<Held>,
    id: u64,
    lease: Duration,
    state: State,
    value: Bytes,
    sent: Instant,
    /// Of the last sign of life that was tried. None is tried twice: what is found must tell when it was sent.
    beat: u32,
}

/// What became of a renewal.
enum Renewed {
    Kept,
    Lost,
}

impl Spot {
    pub(super) async fn read(&self) -> Result<(State, Option<Bytes>), Error> {
        let value = self.register.read(&self.key).await?;
        let state = value.as_ref().map(State::decode).transpose()?;
        Ok((state.unwrap_or_default(), value))
    }

    pub(super) async fn swap(
        &self,
        expected: Option<&Bytes>,
        state: &State,
    ) -> Result<Option<Version>, Error> {
        let (expected, new) = (expected.map(|value| &**value), state.encode());
        let swap = Swap { expected, new: &new, lives: Some(state.lives()) };
        self.register.swap(&self.key, swap).await
    }

    pub(super) async fn sleep(&self, time: Duration) {
        self.register.sleep_until(self.register.now() + time).await;
    }

    /// Between half of this time and one and a half: so that those who met once do not meet again.
    pub(super) async fn sleep_about(&self, time: Duration) {
        let share = u32::try_from(self.register.random() % 1024).unwrap_or(0);
        self.sleep(time / 2 + time * share / 1024).await;
    }

    /// Takes somebody out of the state, as the one who holds it or as one in line. `None`: they were not there.
    ///
    /// # Errors
    /// The last one, if there was no success in `patience`.
    pub(super) async fn leave(&self, id: u64, patience: Duration) -> Result<Option<()>, Error> {
        let by = self.register.now() + patience;
        loop {
            let failed = match self.read().await {
                Ok((state, value)) => {
                    let rest = state.without(id);
                    if rest == state {
                        return Ok(None);
                    }
                    match self.swap(value.as_ref(), &rest).await {
                        Ok(Some(_)) => return Ok(Some(())),
                        Ok(None) => None,
                        Err(error) => Some(error),
                    }
                }
                Err(error) => Some(error),
            };
            if self.register.now() >= by {
                let busy = || Error::NotDone("others were faster, each time".to_owned());
                return Err(failed.unwrap_or_else(busy));
            }
            self.sleep_about(AGAIN).await;
        }
    }
}

/// Pause before something is tried again that others were faster with, or that failed.
pub(super) const AGAIN: Duration = Duration::from_millis(10);

impl Held {
    pub(super) fn new(spot: Spot, sent: Instant, lease: Duration) -> Self {
        let until = Mutex::new(sent + good_for(lease));
        Self { spot, until, lost: CancellationToken::new() }
    }

    pub(super) fn until(&self) -> Instant {
        *self.until.lock()
    }

    pub(super) fn is_held(&self) -> bool {
        !self.lost.is_cancelled() && self.spot.register.now() < self.until()
    }
}

impl Keeper {
    /// Of a lock that was taken by this write.
    pub(super) fn new(held: Arc<Held>, id: u64, state: State, sent: Instant) -> Self {
        let lease = state.holder.map_or(Duration::ZERO, Member::lease);
        let beat = state.holder.map_or(0, |holder| holder.beat);
        Self { held, id, lease, value: state.encode(), state, sent, beat }
    }

    /// Keeps it until it is lost, or no longer wanted.
    pub(super) async fn keep(mut self, unlock: CancellationToken) -> Unlocked {
        let register = Arc::clone(&self.held.spot.register);
        let held = Arc::clone(&self.held);
        let mut again = self.sent + self.lease / 3;
        loop {
            let until = held.until();
            let renewed = tokio::select! {
                biased;
                () = unlock.cancelled() => return self.unlock().await,
                () = register.sleep_until(until) => Ok(Renewed::Lost),
                renewed = async {
                    register.sleep_until(again).await;
                    self.renew().await
                } => renewed,
            };
            match renewed {
                Ok(Renewed::Kept) => {
                    *held.until.lock() = self.sent + good_for(self.lease);
                    again = self.sent + self.lease / 3;
                }
                Ok(Renewed::Lost) => {
                    held.lost.cancel();
                    // If only the answers were missing, it need not be waited for.
                    let _others_wait_it_out = held.spot.leave(self.id, self.lease).await;
                    return Unlocked::WasLost;
                }
                Err(error) => {
                    debug!(%error, "a lock was not renewed");
                    again = register.now() + (self.lease / 20).min(AGAIN * 10);
                }
            }
        }
    }

    /// One sign of life, however often others are faster.
    async fn renew(&mut self) -> Result<Renewed, Error> {
        let spot = self.held.spot.clone();
        loop {
            let Some(mut holder) = self.state.holder else { return Ok(Renewed::Lost) };
            self.beat = self.beat.wrapping_add(1);
            holder.beat = self.beat;
            let new = State { holder: Some(holder), queue: self.state.queue.clone() };
            let sent = spot.register.now();
            let failed = match spot.swap(Some(&self.value), &new).await {
                Ok(Some(_)) => {
                    (self.value, self.state, self.sent) = (new.encode(), new, sent);
                    return Ok(Renewed::Kept);
                }
                Ok(None) => None,
                Err(error @ Error::InDoubt(_)) => Some(error),
                Err(error) => return Err(error),
            };
            let (state, value) = spot.read().await?;
            let (Some(value), true) = (value, state.holder.is_some_and(|it| it.id == self.id))
            else {
                return Ok(Renewed::Lost);
            };
            // The sign of life is there, whatever others have done to the rest since.
            let was_done = state.holder == new.holder;
            (self.state, self.value) = (state, value);
            if was_done {
                self.sent = sent;
                return Ok(Renewed::Kept);
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
    }

    async fn unlock(self) -> Unlocked {
        let was_held = self.held.is_held();
        self.held.lost.cancel();
        match self.held.spot.leave(self.id, self.lease).await {
            Ok(Some(())) if was_held => Unlocked::Released,
            Ok(_) => Unlocked::WasLost,
            Err(error) => Unlocked::InDoubt(error),
        }
    }
}
