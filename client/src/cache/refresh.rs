//! Keys that are loaded anew before anybody has to wait for them.
//!
//! A key is registered by who reads it ([`Cache::get_or_load_refreshed`]) and stays so as long as it is read. Each
//! process that has registered it looks at it once in a period; the value's soft deadline is the period, and the
//! cluster level gives the right to load it anew to one of them. So the source is asked once in a period, however
//! many processes there are, and whichever of them die.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::{LoadError, Reason};
use super::flight::{Flights, Loader};
use super::levels::Copy;
use super::options::{Load, Ttl};
use super::{Cache, Cached, Key};
use crate::Clock;
use crate::level::Moment;

/// How much longer than a period a key is refreshed that nobody reads, unless it is set.
const IDLE_SPARE: Duration = Duration::from_secs(1);

/// Looks in a period while another process refreshes.
const LOOKS_COUNT: u32 = 4;

/// The shortest pause between two looks at one key.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// How often a key is loaded anew, and for how long.
///
/// ```
/// use std::time::Duration;
/// use scatterhoard_client::cache::Refresh;
///
/// let refresh = Refresh::every(Duration::from_secs(30)).idle(Duration::from_secs(300));
/// # let _ = refresh;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    every: Duration,
    idle: Duration,
}

impl Refresh {
    /// Once in this time, which is brought to 1 ms at least, in the whole cluster. It ends when the key has not been
    /// read in this process for so long and 1 s.
    #[must_use]
    pub fn every(period: Duration) -> Self {
        let every = period.max(PAUSE_MIN);
        Self { every, idle: every + IDLE_SPARE }
    }

    /// It ends when the key has not been read in this process for so long.
    #[must_use]
    pub fn idle(self, idle: Duration) -> Self {
        Self { idle, ..self }
    }
}

/// What loads a registered key, again and again.
type Again<V> = Arc<dyn Fn() -> Loader<V> + Send + Sync>;

/// The registered keys of one cache, and when each was read last.
pub(crate) struct Refreshes<K> {
    registered: RwLock<HashMap<K, Registration>>,
    /// Registrations ever.
    numbers: AtomicU64,
    /// How many there are, to pass by the lock while there are none.
    count: AtomicUsize,
    /// How many are loaded at once.
    permits: Arc<Semaphore>,
    pub(crate) ended: CancellationToken,
    _ends_with_the_cache: DropGuard,
}

/// That a key is registered. A beat goes on as long as its own is there: one that ended while it slept may have been
/// followed by another, with a loader and a beat of its own.
struct Registration {
    number: u64,
    read: AtomicU64,
}

impl<K: Key> Refreshes<K> {
    pub(crate) fn new(refreshes_max: usize) -> Arc<Self> {
        let ended = CancellationToken::new();
        Arc::new(Self {
            registered: RwLock::default(),
            numbers: AtomicU64::new(0),
            count: AtomicUsize::new(0),
            permits: Arc::new(Semaphore::new(refreshes_max)),
            _ends_with_the_cache: ended.clone().drop_guard(),
            ended,
        })
    }

    /// A key was read.
    pub(crate) fn touch(&self, key: &K) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        if let Some(registration) = self.registered.read().get(key) {
            registration.read.store(Clock::new().now().nanos(), Ordering::Relaxed);
        }
    }

    /// The number of its registration if it was not registered before. If it was, it was read.
    fn register(&self, key: &K) -> Option<u64> {
        let mut registered = self.registered.write();
        let now = Clock::new().now().nanos();
        if let Some(registration) = registered.get(key) {
            registration.read.store(now, Ordering::Relaxed);
            return None;
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        registered.insert(key.clone(), Registration { number, read: AtomicU64::new(now) });
        self.count.store(registered.len(), Ordering::Relaxed);
        Some(number)
    }

    /// Ends a registration if the key was not read for so long, or was ended by somebody else.
    fn is_over(&self, key: &K, number: u64, idle: Duration) -> bool {
        let mut registered = self.registered.write();
        let Some(registration) = registered.get(key).filter(|its| its.number == number) else {
            return true;
        };
        let last = Moment::from_nanos(registration.read.load(Ordering::Relaxed));
        let over = Clock::new().now() >= last.after(idle);
        if over {
            registered.remove(key);
            self.count.store(registered.len(), Ordering::Relaxed);
        }
        over
    }

    fn end(&self, key: &K) {
        let mut registered = self.registered.write();
        registered.remove(key);
        self.count.store(registered.len(), Ordering::Relaxed);
    }
}

impl<K: Key, V: Send + Sync + 'static> Cache<K, V> {
    /// As [`Self::get_or_load`], and from now on the key is loaded anew once in a period, as long as it is read. If
    /// it is registered already, that goes on with the loader and the period of then.
    ///
    /// A failure to load it anew is a line in the log; the next try is in the next period. Values live for at least
    /// two periods, unless the call or the cache says for how long: then it should be longer than one.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use scatterhoard_client::cache::{Cache, Load, Refresh};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cache = Cache::<u64, f64>::builder("rate").near_bytes(1 << 20).build()?;
    /// let often = Refresh::every(Duration::from_secs(5));
    /// let rate = cache
    ///     .get_or_load_refreshed(&840, often, Load::new(), || async { Ok::<_, String>(Some(1.08)) })
    ///     .await?;
    /// assert_eq!(rate.as_deref(), Some(&1.08));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get_or_load`].
    pub async fn get_or_load_refreshed<F, Fut, E>(
        &self,
        key: &K,
        refresh: Refresh,
        mut load: Load,
        loader: F,
    ) -> Result<Option<Cached<V>>, LoadError>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<V>, E>> + Send + 'static,
        E: Into<Reason>,
    {
        let Refresh { every, idle } = refresh;
        load.life.beat = Some(every);
        let short = |ttl: &Duration| *ttl < every * 2;
        if load.life.ttl.is_none() && self.levels().settings.ttl.as_ref().is_some_and(short) {
            load.life.ttl = Some(Ttl::Lasts(every * 2));
        }
        let (load, loader) = (Arc::new(load), Arc::new(loader));
        let again: Again<V> = Arc::new(move || {
            let loader = Arc::clone(&loader);
            Box::new(move || async move { loader().await.map_err(Into::into) }.boxed())
        });
        let found = self.near_copy(key);
        if let Some(registration) = self.refreshes.register(key) {
            let beat = Beat {
                registration,
                flights: Arc::downgrade(&self.flights),
                refreshes: Arc::downgrade(&self.refreshes),
                key: key.clone(),
                every,
                idle,
                load: Arc::clone(&load),
                again: Arc::clone(&again),
            };
            tokio::spawn(
                beat.go_on(self.refreshes.ended.clone(), Arc::clone(&self.refreshes.permits)),
            );
        }
        match found {
            Some(copy) if Clock::new().now() < copy.soft => Ok(Cached::of(copy)),
            stale => self.load(key, load, again(), stale).await,
        }
    }

    /// Ends the refreshing of a key by this process. Others may go on. What is being loaded anew is still stored. If
    /// it is registered again, that is with the loader and the period of then.
    pub fn stop_refreshing(&self, key: &K) {
        self.refreshes.end(key);
    }
}

/// One registered key.
struct Beat<K: Key, V: Send + Sync + 'static> {
    registration: u64,
    flights: Weak<Flights<K, V>>,
    refreshes: Weak<Refreshes<K>>,
    key: K,
    every: Duration,
    idle: Duration,
    load: Arc<Load>,
    again: Again<V>,
}

impl<K: Key, V: Send + Sync + 'static> Beat<K, V> {
    async fn go_on(self, ended: CancellationToken, permits: Arc<Semaphore>) {
        loop {
            let step = async {
                let pause = {
                    let _permit = permits.acquire().await;
                    self.look().await
                };
                sleep(pause?).await;
                Some(())
            };
            tokio::select! {
                biased;
                () = ended.cancelled() => return,
                went_on = step => if went_on.is_none() {
                    return;
                }
            }
        }
    }

    /// Looks, and loads if it is time to. How long to wait until the next; `None` if it is over.
    async fn look(&self) -> Option<Duration> {
        let (flights, refreshes) = (self.flights.upgrade()?, self.refreshes.upgrade()?);
        if refreshes.is_over(&self.key, self.registration, self.idle) {
            return None;
        }
        let cache = Cache { flights, refreshes };
        let waiting = cache.ride_for_fresh(&self.key, (self.again)(), &self.load);
        match waiting.answer().await {
            Ok(copy) => Some(self.pause(&copy)),
            Err(error) => {
                tracing::warn!(cache = cache.name(), %error, "a refresh failed");
                Some(self.every)
            }
        }
    }

    /// Until the value is due; if it is overdue, another process is loading it.
    fn pause(&self, copy: &Copy<V>) -> Duration {
        let now = Clock::new().now();
        let due = copy.soft.min(copy.valid.expires());
        let left = Duration::from_nanos(due.nanos().saturating_sub(now.nanos()));
        if left.is_zero() {
            return (self.every / LOOKS_COUNT).max(PAUSE_MIN);
        }
        left.clamp(PAUSE_MIN, self.every)
    }
}

impl<K: fmt::Debug> fmt::Debug for Refreshes<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refreshes").field("count", &self.count).finish_non_exhaustive()
    }
}
