//! Ids that are unique in the whole cluster and in order of time, made without asking anyone.
//!
//! [`Ids`] leases a number, one of 1024, and then makes 63-bit [`Id`]s by itself: 4096 in each millisecond, some ten
//! nanoseconds each.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use scatterhoard_client::Cluster;
//! use scatterhoard_client::ids::{Ids, IdsConfig};
//!
//! let cluster = Cluster::connect(["127.0.0.1:7001"]).await?;
//! let config = IdsConfig::new("orders");
//! let epoch = config.epoch;
//! let ids = Ids::lease(cluster, config).await?;
//! let id = ids.next().await?;
//! println!("{id} was made at {} ms", epoch.parse(id).unix_millis);
//! ids.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! **Why ids are unique.** What is leased is not a number for a time, but a *range of ids*: those of a number with
//! times in `[from, until)`. The key of the number holds the holder and `until`, and is changed by compare-and-set
//! only. Whoever takes the number begins at that `until` or later, and waits until its clock is there; whoever renews
//! it raises `until` first and issues those ids then. So the ranges of two holders never meet. No clock is needed for
//! that, whatever they do: a holder that was paused for an hour, or whose clock is wrong, still issues nothing beyond
//! what it was given; if somebody else has the number by then, its renewal fails and that was all. Keys do not expire,
//! since they carry the mark that the successor must not begin before: 1024 of them, of 17 bytes.
//!
//! Clocks decide only when a number counts as left: when `until` is past for who wants it. A holder renews at a third
//! of its lease, and stops issuing when 7/8 of it are over since the last renewal was *sent*, by its monotonic clock.
//!
//! **If keys get lost**, by `FLUSHALL`, by eviction (`allkeys-*` policies), or because a majority of their replicas
//! was, nothing is known of the number. So a number without a key is not used for a lease and a second, unless it was
//! [chosen otherwise](FirstUse): by then whoever had it has noticed that its renewal fails, or is
//! beyond its range. That holds if all have the same lease and wall clocks within a second of each other. Generators
//! that run take another number then, in the same way, and issue nothing meanwhile. Numbers that were used before are
//! taken first, and at once; a service that starts again does not wait.
//!
//! Redis and Valkey will do as well; there, a failover that loses an acknowledged write can give a range twice.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::register::{ClusterRegister, Register};
use crate::{Cluster, Error};

mod layout;
mod lease;
mod sequence;
#[cfg(test)]
mod tests;

pub use layout::{Epoch, Id, Number, Parts};

use layout::Millis;
use lease::{Held, Leaser, Renewed};
use sequence::{Next, Sequence};

/// The shortest lease, and the longest.
const LEASES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(24 * 3600)];

/// How numbers are leased. Every field may be set; [`IdsConfig::new`] has what suits most.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IdsConfig {
    /// What the ids are for. Generators of the same name share 1024 numbers, and their ids are unique among each
    /// other. The keys are `ids:NAME:NUMBER`.
    pub name: String,
    /// When the time of ids begins. The same for all of a name.
    pub epoch: Epoch,
    /// Which number to try first; `None`: any.
    pub preferred: Option<Number>,
    /// How long ids may be issued without the cluster: at least a second, at most a day. The same for all of a name.
    /// 10 s.
    pub lease: Duration,
    /// When a number may be used of which nothing is known.
    pub first_use: FirstUse,
}

impl IdsConfig {
    /// Settings for ids of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            epoch: Epoch::DEFAULT,
            preferred: None,
            lease: Duration::from_secs(10),
            first_use: FirstUse::Waits,
        }
    }
}

/// When a number may be used of which nothing is known: it was never used, or its key was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirstUse {
    /// When a lease is over, and a second, by which wall clocks may differ: then nobody else has it.
    #[default]
    Waits,
    /// At once: the keys were certainly never lost.
    AtOnce,
}

/// Why there is no id. Nothing was issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// Not at this moment: 4096 were made in this millisecond, or the clock went back by 10 ms or less.
    /// [`Ids::next`] waits for it.
    #[error("no id for another {0:?}")]
    Wait(Duration),
    /// The clock went back by more than 10 ms. It has to come forward again, or another process has to take over.
    #[error("the clock is {by:?} behind the last id")]
    ClockBack {
        /// By how much.
        by: Duration,
    },
    /// The lease of the number could not be renewed in time, or the clock has jumped beyond it. Another lease is
    /// tried for, so it is worth asking again.
    #[error("no number is held")]
    NoNumber,
    /// There are 1024 generators already.
    #[error("all numbers are taken")]
    AllTaken,
    /// The clock is before the epoch, or more than 69 years after it.
    #[error("the time cannot be said in ids of this epoch")]
    NotInEpoch,
    /// The cluster could not be asked.
    #[error(transparent)]
    Store(#[from] Error),
}

/// A wall clock.
pub trait Wall: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    fn unix_millis(&self) -> u64;
}

/// The operating system's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemWall;

impl Wall for SystemWall {
    #[inline]
    #[expect(clippy::disallowed_methods, reason = "this is the seam that hides the wall clock")]
    fn unix_millis(&self) -> u64 {
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        // In 64 bits: `as_millis` divides 128, which takes a third of the time of an id.
        since.as_secs() * 1000 + u64::from(since.subsec_millis())
    }
}

/// Makes ids. To be shared by all threads of a process, behind an [`Arc`] if need be.
///
/// Gives its number back in the background when it is dropped; [`Ids::close`] waits for that.
pub struct Ids<W: Wall = SystemWall> {
    shared: Arc<Shared<W>>,
    ended: CancellationToken,
    keeper: Option<JoinHandle<()>>,
}

struct Shared<W> {
    sequence: Sequence,
    leaser: Leaser<W>,
}

impl Ids {
    /// Leases a number from the cluster.
    ///
    /// # Errors
    /// See [`IdError`]: there is none, or the cluster cannot be asked, or this machine's clock is far from right.
    pub async fn lease(cluster: Cluster, config: IdsConfig) -> Result<Self, IdError> {
        Self::lease_from(Arc::new(ClusterRegister::new(cluster)), SystemWall, config).await
    }
}

impl<W: Wall> Ids<W> {
    /// The same, from anywhere, and by any clock.
    ///
    /// # Errors
    /// As [`Ids::lease`].
    pub async fn lease_from(
        register: Arc<dyn Register>,
        wall: W,
        mut config: IdsConfig,
    ) -> Result<Self, IdError> {
        config.lease = config.lease.clamp(LEASES[0], LEASES[1]);
        let leaser = Leaser { register, wall, config };
        let (held, range) = leaser.take(Millis::default()).await?;
        let sequence = Sequence::stopped();
        sequence.begin(range);
        let shared = Arc::new(Shared { sequence, leaser });
        let ended = CancellationToken::new();
        let keeper = tokio::spawn(keep(Arc::clone(&shared), held, ended.clone()));
        Ok(Self { shared, ended, keeper: Some(keeper) })
    }

    /// The next id: greater than all that this generator made before. Waits for the next millisecond if need be.
    ///
    /// # Errors
    /// See [`IdError`].
    #[inline]
    pub async fn next(&self) -> Result<Id, IdError> {
        match self.try_next() {
            Err(IdError::Wait(time)) => self.next_after(time).await,
            result => result,
        }
    }

    /// The next id, without waiting.
    ///
    /// # Errors
    /// See [`IdError`].
    #[inline]
    pub fn try_next(&self) -> Result<Id, IdError> {
        let now = self.now();
        match self.shared.sequence.next(now) {
            Next::Id(id) => Ok(id),
            Next::Over => Err(IdError::NoNumber),
            // Perhaps it was only another thread that looked at the clock later, and was faster.
            Next::Later(_) | Next::Back(_) => self.try_again(),
        }
    }

    /// Gives the number back, for the next generator to take at once.
    pub async fn close(mut self) {
        self.ended.cancel();
        if let Some(keeper) = self.keeper.take() {
            let _ended = keeper.await;
        }
    }

    /// In a box, so that the future of who need not wait stays small.
    #[cold]
    fn next_after(&self, mut time: Duration) -> BoxFuture<'_, Result<Id, IdError>> {
        async move {
            let register = &self.shared.leaser.register;
            loop {
                register.sleep_until(register.now() + time).await;
                match self.try_next() {
                    Err(IdError::Wait(more)) => time = more,
                    result => return result,
                }
            }
        }
        .boxed()
    }

    #[cold]
    fn try_again(&self) -> Result<Id, IdError> {
        let now = self.now();
        match self.shared.sequence.next(now) {
            Next::Id(id) => Ok(id),
            Next::Over => Err(IdError::NoNumber),
            Next::Later(time) => Err(IdError::Wait(time.since(now))),
            Next::Back(by) => Err(IdError::ClockBack { by: by.since(Millis::default()) }),
        }
    }

    #[inline]
    fn now(&self) -> Millis {
        let leaser = &self.shared.leaser;
        leaser.config.epoch.since(leaser.wall.unix_millis())
    }
}

impl<W: Wall> Drop for Ids<W> {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl<W: Wall> std::fmt::Debug for Ids<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ids").field("config", &self.shared.leaser.config).finish_non_exhaustive()
    }
}

/// Keeps a number, or the next one, until it is no longer wanted.
async fn keep<W: Wall>(shared: Arc<Shared<W>>, mut held: Held, ended: CancellationToken) {
    loop {
        let mut paused = None;
        tokio::select! {
            biased;
            () = ended.cancelled() => {
                let last = shared.sequence.stop().or(paused);
                if let Some(last) = last {
                    shared.leaser.give_back(&held, Millis(last.time().0 + 1)).await;
                }
                return;
            }
            () = keep_while_held(&shared, &mut held, &mut paused) => {}
        }
        let last = shared.sequence.stop().or(paused);
        let floor = last.map_or(held.until, |last| Millis(last.time().0 + 1));
        warn!(number = held.number.get(), "the number of an id generator was lost");
        tokio::select! {
            biased;
            () = ended.cancelled() => return,
            taken = take_again(&shared, floor) => held = taken,
        }
        info!(number = held.number.get(), "an id generator has another number");
    }
}

/// Renews until the number is somebody else's. What was issued last is in `paused` while nothing may be issued.
async fn keep_while_held<W: Wall>(shared: &Shared<W>, held: &mut Held, paused: &mut Option<Id>) {
    let Shared { sequence, leaser } = shared;
    let (register, lease) = (&leaser.register, leaser.config.lease);
    let mut again = held.sent + lease / 3;
    loop {
        register.sleep_until(again).await;
        let stop_at = held.sent + lease / 8 * 7;
        let renewed = {
            let renewal = leaser.renew(held);
            tokio::pin!(renewal);
            tokio::select! {
                biased;
                () = register.sleep_until(stop_at), if paused.is_none() => {
                    *paused = sequence.stop();
                    renewal.await
                }
                renewed = &mut renewal => renewed,
            }
        };
        match renewed {
            Ok(Renewed::Kept) => {
                sequence.extend(held.until);
                if let Some(last) = paused.take() {
                    sequence.resume(last);
                }
                again = held.sent + lease / 3;
            }
            Ok(Renewed::Lost) => return,
            Err(error) => {
                warn!(%error, "the number of an id generator was not renewed");
                again = register.now() + lease / 30;
            }
        }
    }
}

async fn take_again<W: Wall>(shared: &Shared<W>, floor: Millis) -> Held {
    let Shared { sequence, leaser } = shared;
    loop {
        match leaser.take(floor).await {
            Ok((held, range)) => {
                sequence.begin(range);
                return held;
            }
            Err(error) => warn!(%error, "an id generator has no number"),
        }
        let register = &leaser.register;
        register.sleep_until(register.now() + leaser.config.lease / 10).await;
    }
}
