//! Locks: one at a time in the whole cluster, first come, first served.
//!
//! ```no_run
//! # async fn pay(fence: u64) -> Result<(), std::io::Error> { Ok(()) }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use scatterhoard_client::Cluster;
//! use scatterhoard_client::lock::Locks;
//!
//! let locks = Locks::new(Cluster::connect(["127.0.0.1:7001"]).await?);
//! let guard = locks.lock("invoice:17", Duration::from_secs(10)).await?;
//! // Dropped half-way if the lock is lost. The fence lets what is guarded refuse whoever comes too late.
//! guard.run(pay(guard.fence().0)).await??;
//! guard.unlock().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! **One at a time.** At no moment do two processes have the lock, each by what its [`Guard::is_held`] says, as long as
//! their monotonic clocks run within 10 % of each other and do not stand still. A process cannot look at its clock
//! between any two of its instructions; for what must not happen twice, whatever happens, there is the fence.
//!
//! **Fences grow.** [`Guard::fence`] is greater than that of every earlier holder, whatever clocks do and whatever
//! gets lost. What the lock guards should remember the greatest that it has seen, and refuse smaller ones.
//!
//! **First come, first served**, across processes, for 64 in line; more wait outside, in no order. Who died in line is
//! passed over after 6 s.
//!
//! **Nobody waits for ever** for somebody who died: the lock goes on once nothing was heard of its holder for its
//! lease. A holder that lives keeps it for as long as it likes.
//!
//! # Why it holds
//!
//! One key holds all there is to know: the holder, and who waits in which order. It is changed by compare-and-set only,
//! so it has one history, and each change was decided with what it changed in view. Every member has a random id, and
//! a counter of signs of life that only itself raises.
//!
//! *The lease.* The holder counts it from when it *sent* its last sign of life, and lets go after 7/8 of it. Somebody
//! else takes the lock from it only by a compare-and-set against a state that shows that same sign of life, and that it
//! has *seen* for the whole lease. It was sent before it was seen, so the holder let go before, by any two clocks as
//! above; and if the holder gave another sign in the meantime, the compare-and-set fails. The key itself expires a
//! second after the longest lease, counted by the cluster from an even later moment; so one that nobody waits for is
//! free again without anybody watching. No wall clock is asked.
//!
//! *The fence* is the version of a write by which the holder made itself one, or confirmed that it is: the cluster
//! counts the writes of a key through all failovers, and every earlier holder's writes came before.
//!
//! *Doubt.* If no answer came, the key tells: whoever finds its own id as the holder confirms with one more write, and
//! counts from that. A write that is still on its way can do no harm: it applies only to the very state that it was
//! decided on, and at worst makes somebody the holder who is gone, for one lease.
//!
//! *If the key is lost* (`FLUSHALL`, eviction by an `allkeys-*` or `volatile-*` policy, the loss of a majority of its
//! replicas), the holder finds out with its next renewal, a third of the lease later at most; until then there may be
//! two. Fences grow then too, and that is what they are for.
//!
//! # What it costs
//!
//! Taking a free lock: a read and a write; keeping it: a write each third of the lease; unlocking: a read and a write.
//! Who waits asks by and by: the first in line every 5 to 50 ms, the others every 20 to 250 ms, each a read at the
//! leader, and gives a sign of life every 2 s. So a lock goes on about 30 ms after it was let go of, and sooner the
//! shorter it was held. Followed by one who died, it takes the lease, and those 50 ms.
//!
//! Redis and Valkey will do as well; there, a failover that loses an acknowledged write can lose a lock, and fences
//! grow as long as no server's clock goes back.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::register::{ClusterRegister, Register, Version};
use crate::{Cluster, Error};

mod keeper;
#[cfg(test)]
mod model;
mod state;
mod turn;

use keeper::{AGAIN, Held, Keeper, Spot, good_for};
use state::State;
use turn::{Seen, Turn, WAITER_LEASE, Wish};

/// The shortest lease: several round trips.
pub const LEASE_MIN: Duration = Duration::from_millis(100);

/// The longest lease: whoever dies holds up the others for so long.
pub const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);

/// How often the first in line looks, and the others. They begin with the shorter time, and get slower.
const LOOKS_OF_THE_FIRST: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(50)];
const LOOKS_OF_OTHERS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(250)];

/// Locks in a cluster. Cheap to clone.
#[derive(Clone)]
pub struct Locks {
    register: Arc<dyn Register>,
}

/// A lock that is held. Renews itself in the background, and is given back when it is dropped.
#[must_use = "it is unlocked as soon as it is dropped"]
pub struct Guard {
    fence: Version,
    held: Arc<Held>,
    unlock: CancellationToken,
    keeper: Option<JoinHandle<Unlocked>>,
}

/// What became of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unlocked {
    /// It was ours until now, and is free for the next.
    Released,
    /// It was lost before.
    WasLost,
    /// It was ours until now; whether it is free already, nobody said. It is when the lease ends.
    InDoubt(Error),
}

/// The lock was lost while it was needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lock was lost")]
pub struct Lost;

impl Locks {
    /// Locks in this cluster. The key of a lock is the one that it is asked for by; it should have nothing else.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self::over(Arc::new(ClusterRegister::new(cluster)))
    }

    /// Locks that are kept somewhere else.
    #[must_use]
    pub fn over(register: Arc<dyn Register>) -> Self {
        Self { register }
    }

    /// Waits for a lock, in line with all others who want it.
    ///
    /// `lease`: how long others wait if this process dies, and how long the cluster may be away until the lock is
    /// lost; it is brought between [`LEASE_MIN`] and [`LEASE_MAX`]. Some 10 s suit most; below 5 s a failover may cost
    /// it.
    ///
    /// Whoever drops the future leaves the line, in the background. So `tokio::time::timeout` bounds the wait.
    ///
    /// # Errors
    /// The cluster did not answer for 6 s, or the key has something that is no lock. The lock is not held; after
    /// [`Error::InDoubt`] nobody else may be able to have it for one lease.
    pub async fn lock(&self, key: impl AsRef<[u8]>, lease: Duration) -> Result<Guard, Error> {
        let mut attempt = self.attempt(key.as_ref(), lease, true);
        loop {
            if let Some(guard) = attempt.step().await? {
                return Ok(guard);
            }
            attempt.pause().await;
        }
    }

    /// Takes a lock if it is free and nobody waits for it.
    ///
    /// # Errors
    /// As [`Self::lock`].
    pub async fn try_lock(
        &self,
        key: impl AsRef<[u8]>,
        lease: Duration,
    ) -> Result<Option<Guard>, Error> {
        let mut attempt = self.attempt(key.as_ref(), lease, false);
        loop {
            if let Some(guard) = attempt.step().await? {
                return Ok(Some(guard));
            }
            match attempt.pace {
                Pace::AsFirst | Pace::AsOther => return Ok(None),
                Pace::Again => attempt.pause().await,
            }
        }
    }

    fn attempt(&self, key: &[u8], lease: Duration, waits: bool) -> Attempt {
        let register = Arc::clone(&self.register);
        let lease = lease.clamp(LEASE_MIN, LEASE_MAX);
        let lease_ms = u32::try_from(lease.as_millis()).unwrap_or(u32::MAX);
        Attempt {
            wish: Wish { id: register.random(), lease_ms, waits },
            lease,
            answered: register.now(),
            spot: Spot { register, key: Bytes::copy_from_slice(key) },
            seen: Seen::default(),
            pace: Pace::Again,
            looks_count: 0,
            may_be_there: false,
            runtime: Handle::current(),
        }
    }
}

impl std::fmt::Debug for Locks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Locks").finish_non_exhaustive()
    }
}

/// How soon to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// As soon as others are out of the way.
    Again,
    AsFirst,
    AsOther,
}

/// One wish for a lock, until it is granted or given up.
struct Attempt {
    spot: Spot,
    wish: Wish,
    lease: Duration,
    seen: Seen,
    pace: Pace,
    /// Looks at this pace.
    looks_count: u32,
    /// When something was heard last.
    answered: tokio::time::Instant,
    /// The key may know of us.
    may_be_there: bool,
    runtime: Handle,
}

impl Attempt {
    /// Looks, and does what is to be done next.
    async fn step(&mut self) -> Result<Option<Guard>, Error> {
        match self.look_and_act().await {
            Ok(guard) => {
                self.answered = self.spot.register.now();
                Ok(guard)
            }
            Err(error @ (Error::NotDone(_) | Error::InDoubt(_))) => {
                if self.spot.register.now() >= self.answered + WAITER_LEASE {
                    return Err(error);
                }
                self.go_on(Pace::Again);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn look_and_act(&mut self) -> Result<Option<Guard>, Error> {
        let (state, value) = self.spot.read().await?;
        let now = self.spot.register.now();
        self.seen.look(&state, now);
        match turn::turn(&state, self.wish, &self.seen, now) {
            Turn::Take(new) => {
                let sent = self.spot.register.now();
                self.may_be_there = true;
                let taken = self.spot.swap(value.as_ref(), &new).await?;
                if let Some(fence) = taken
                    && self.spot.register.now() < sent + good_for(self.lease)
                {
                    return Ok(Some(self.guard(fence, new, sent)));
                }
                self.go_on(Pace::Again);
            }
            Turn::Stand(new) => {
                self.may_be_there = true;
                let stands = self.spot.swap(value.as_ref(), &new).await?.is_some();
                self.go_on(if stands { Pace::AsOther } else { Pace::Again });
            }
            Turn::Next => self.go_on(Pace::AsFirst),
            Turn::Wait => self.go_on(Pace::AsOther),
        }
        Ok(None)
    }

    fn go_on(&mut self, pace: Pace) {
        self.looks_count = if pace == self.pace { self.looks_count + 1 } else { 0 };
        self.pace = pace;
    }

    async fn pause(&self) {
        let [shortest, longest] = match self.pace {
            Pace::Again => [AGAIN, AGAIN * 5],
            Pace::AsFirst => LOOKS_OF_THE_FIRST,
            Pace::AsOther => LOOKS_OF_OTHERS,
        };
        let time = shortest * 2_u32.pow(self.looks_count.min(8) / 2);
        self.spot.sleep_about(time.min(longest)).await;
    }

    fn guard(&mut self, fence: Version, state: State, sent: tokio::time::Instant) -> Guard {
        self.may_be_there = false;
        let held = Arc::new(Held::new(self.spot.clone(), sent, self.lease));
        let unlock = CancellationToken::new();
        let keeper = Keeper::new(Arc::clone(&held), self.wish.id, state, sent);
        let keeper = self.runtime.spawn(keeper.keep(unlock.clone()));
        Guard { fence, held, unlock, keeper: Some(keeper) }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.may_be_there {
            let (spot, id) = (self.spot.clone(), self.wish.id);
            self.runtime.spawn(async move {
                let _others_wait_it_out = spot.leave(id, WAITER_LEASE).await;
            });
        }
    }
}

impl Guard {
    /// Greater than that of everyone who had this lock before.
    #[must_use]
    pub fn fence(&self) -> Version {
        self.fence
    }

    /// Whether the lock is held at this moment, by this process' clock.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held.is_held()
    }

    /// Ends when the lock is lost, before anybody else can have it; also when it is unlocked.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.held.lost.child_token()
    }

    /// Does something for as long as the lock is held: looks at the clock each time before it goes on, and drops it
    /// half-way once the lock is lost.
    ///
    /// # Errors
    /// The lock was lost before it was done.
    pub async fn run<F: Future>(&self, work: F) -> Result<F::Output, Lost> {
        let (mut lost, mut work) = (pin!(self.held.lost.cancelled()), pin!(work));
        poll_fn(|cx| {
            if lost.as_mut().poll(cx).is_ready() || !self.is_held() {
                return Poll::Ready(Err(Lost));
            }
            work.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    /// Gives the lock back, and waits until that is done; at most for its lease and one request.
    pub async fn unlock(mut self) -> Unlocked {
        self.unlock.cancel();
        match self.keeper.take() {
            Some(keeper) => keeper.await.unwrap_or_else(|_| {
                Unlocked::InDoubt(Error::InDoubt("the runtime is shutting down".to_owned()))
            }),
            None => Unlocked::WasLost,
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.unlock.cancel();
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard")
            .field("fence", &self.fence)
            .field("is_held", &self.is_held())
            .finish_non_exhaustive()
    }
}
