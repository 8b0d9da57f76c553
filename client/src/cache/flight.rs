//! One load at a time for each key of a process, whoever asks for it.
//!
//! A key that somebody waits for has a *flight*: a task that makes round after round until nobody waits any more. A
//! round asks the levels what there is, which at a cluster level also decides who of all processes loads, and gives
//! what it finds, or loads, to its *riders*.
//!
//! **Who may get what.** The promise is that nobody gets a value that is older than a write which was acknowledged
//! before he asked. So a round's answer is given to those only who asked before what it rests on began:
//! - what was *found* goes to those who had come before it was asked for;
//! - what was *loaded* goes to those who had come before the loader was started: it read the source afterwards;
//! - and, if the fill was accepted, to those who had come before the fill was sent: the token was live, so no write
//!   of the key came between the beginning of the load and the fill, and what the loader had read was still true.
//!
//! All others are riders of the next round. So no one waits for more than the round under way and his own, and a
//! loader whose token a write has made void cannot bring back the old value for anybody who came after the write;
//! who came before may have it, as if he had been a little faster. The same rule makes loads without any token safe,
//! when the cluster level cannot be asked: they are for those who were there, and are kept nowhere.
//!
//! **Who cancels.** Rounds are made by a task of their own: a caller that is dropped cancels nobody else. If nobody
//! is left when a load would begin, it does not, and its lease is given back. One that has begun goes on to its end
//! or its timeout, and what it brings is kept: the work is done, and the next caller will want it.
//!
//! **Nothing hangs.** A look, a load and a wait each have a deadline, and who has waited for too long loads for
//! himself: as long as a lease lasts where nobody gives him one, and longer than two where others had them and died,
//! so that after each death one loads, and not all who have waited for it. If a task dies, because a codec panics or a
//! near level does, its riders are told.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::Key;
use super::breaker::Breaker;
use super::error::{LoadError, Reason};
use super::event::Kind;
use super::levels::{Copy, Levels, Right, Seen};
use super::options::Load;
use super::pauses::Why;
use crate::Clock;

/// How long a stale value is served without another try to load it, where another process is loading it, or where
/// loading it has failed.
const STALE_PAUSE: Duration = Duration::from_secs(1);

/// Pause before a level is asked again that answered that there is nothing to wait for.
const AGAIN: Duration = Duration::from_millis(5);

const SHARDS: usize = 64;

/// What a caller brings to load with.
pub(crate) type Loader<V> =
    Box<dyn FnOnce() -> BoxFuture<'static, Result<Option<V>, Reason>> + Send>;

pub(crate) type Answer<V> = Result<Copy<V>, LoadError>;

/// Who waits for a key.
pub(crate) struct Rider<V> {
    /// `None` if nobody waits, and it shall be loaded all the same.
    pub(crate) answer: Option<oneshot::Sender<Answer<V>>>,
    /// Until it is used.
    pub(crate) loader: Option<Loader<V>>,
    pub(crate) load: Arc<Load>,
    /// Whether it is a read that has not been counted yet.
    pub(crate) counts: bool,
    pub(crate) came: Instant,
    /// From when on a stale value will do.
    pub(crate) stale_from: Instant,
    /// A stale value to fall back on, shared with who waits.
    pub(crate) stale: Arc<OnceLock<Copy<V>>>,
}

/// For each key with a flight, those who came since its round began.
type Boarding<K, V> = Mutex<HashMap<K, Vec<Rider<V>>>>;

/// The flights of one cache.
pub(crate) struct Flights<K: Key, V> {
    pub(crate) levels: Levels<K, V>,
    boarding: Box<[Boarding<K, V>]>,
    hashes: RandomState,
    /// Loads while the cluster level cannot be asked: how many at once, and whether the source answers.
    pub(crate) spare_loads: Semaphore,
    pub(crate) source_breaker: Breaker,
}

/// What a loader was asked for.
pub(crate) struct Loaded<V> {
    pub(crate) outcome: Result<Option<V>, LoadError>,
    pub(crate) load: Arc<Load>,
    pub(crate) kind: Kind,
}

/// A flight that ends, whatever happens: if its task dies, its riders are dropped, which tells them.
pub(crate) struct Pilot<K: Key, V: Send + Sync + 'static> {
    flights: Arc<Flights<K, V>>,
    key: K,
    landed: bool,
}

impl<V> Rider<V> {
    pub(crate) fn waits(&self) -> bool {
        self.answer.as_ref().is_none_or(|answer| !answer.is_closed())
    }

    fn loader(&mut self) -> Option<(Loader<V>, Arc<Load>)> {
        Some((self.loader.take()?, Arc::clone(&self.load)))
    }

    pub(crate) fn take(self, answer: Answer<V>) {
        if let Some(sender) = self.answer {
            // Who is gone needs no answer.
            let _ = sender.send(answer);
        }
    }
}

pub(crate) fn answer_all<V>(riders: Vec<Rider<V>>, answer: &Answer<V>) {
    for rider in riders {
        rider.take(answer.clone());
    }
}

impl<K: Key, V: Send + Sync + 'static> Flights<K, V> {
    pub(crate) fn new(levels: Levels<K, V>) -> Arc<Self> {
        let boarding = (0..SHARDS).map(|_| Mutex::default()).collect();
        let spare_loads = Semaphore::new(levels.settings.degraded_loads_max);
        let source_breaker = Breaker::new(levels.settings.breaker);
        Arc::new(Self { levels, boarding, hashes: RandomState::new(), spare_loads, source_breaker })
    }

    /// Adds a rider, to the flight of the key or a new one, which begins at once.
    pub(crate) fn join(self: &Arc<Self>, key: &K, rider: Rider<V>) {
        if let Some(pilot) = self.board(key, rider) {
            tokio::spawn(pilot.fly());
        }
    }

    /// Adds a rider. If there was no flight, there is one now, and whoever gets its pilot has to let it fly.
    pub(crate) fn board(self: &Arc<Self>, key: &K, rider: Rider<V>) -> Option<Pilot<K, V>> {
        let mut shard = self.shard(key).lock();
        if let Some(boarding) = shard.get_mut(key) {
            boarding.push(rider);
            return None;
        }
        shard.insert(key.clone(), vec![rider]);
        Some(Pilot { flights: Arc::clone(self), key: key.clone(), landed: false })
    }

    fn shard(&self, key: &K) -> &Boarding<K, V> {
        let hash = self.hashes.hash_one(key);
        &self.boarding[usize::try_from(hash % SHARDS as u64).expect("less than SHARDS")]
    }
}

impl<K: Key, V: Send + Sync + 'static> Pilot<K, V> {
    pub(crate) fn key(&self) -> &K {
        &self.key
    }

    /// Makes rounds until nobody waits any more.
    pub(crate) async fn fly(mut self) {
        while let Some(riders) = self.next_riders() {
            match self.flights.levels.look(&self.key).await {
                Ok(seen) => self.settle(riders, seen).await,
                Err(error) => {
                    tracing::debug!(%error, "the cluster level could not be asked");
                    self.spare(riders).await;
                }
            }
        }
    }

    /// The rest of a flight whose first look somebody else has made.
    pub(crate) async fn fly_on(self, riders: Vec<Rider<V>>, seen: Seen<K, V>) {
        self.settle(riders, seen).await;
        self.fly().await;
    }

    /// All that have come, and wait; `None` ends the flight.
    fn next_riders(&mut self) -> Option<Vec<Rider<V>>> {
        let mut shard = self.flights.shard(&self.key).lock();
        let mut riders = std::mem::take(shard.get_mut(&self.key)?);
        riders.retain(Rider::waits);
        if riders.is_empty() {
            shard.remove(&self.key);
            self.landed = true;
            return None;
        }
        Some(riders)
    }

    /// Those who have come since the round began.
    pub(crate) fn board(&self) -> Vec<Rider<V>> {
        let mut shard = self.flights.shard(&self.key).lock();
        shard.get_mut(&self.key).map(std::mem::take).unwrap_or_default()
    }

    /// Those are riders of the next round, too.
    pub(crate) fn again(&self, riders: Vec<Rider<V>>) {
        let mut shard = self.flights.shard(&self.key).lock();
        shard.entry(self.key.clone()).or_default().extend(riders);
    }

    async fn settle(&self, riders: Vec<Rider<V>>, seen: Seen<K, V>) {
        if matches!(seen, Seen::Fresh(_) | Seen::Stale { .. }) {
            let count = riders.iter().filter(|rider| rider.counts).count();
            self.flights.levels.found(count);
        }
        match seen {
            Seen::Fresh(copy) => answer_all(riders, &Ok(copy)),
            Seen::Stale { copy, right } => self.settle_stale(riders, copy, right).await,
            Seen::Load(right) => {
                self.load(riders, Some(right)).await;
            }
            Seen::Wait { at_most } => self.wait(riders, at_most).await,
            Seen::Absent => {
                sleep(AGAIN).await;
                self.tire(riders, self.flights.levels.settings.lease()).await;
            }
            Seen::Unreadable => {
                // Nobody would ever be asked to load it; without it, somebody is. What is removed by mistake, since
                // somebody wrote it just now, costs a load.
                if let Err(error) = self.flights.levels.remove(&self.key).await {
                    tracing::debug!(%error, "what could not be decoded could not be removed");
                    sleep(AGAIN).await;
                }
                self.tire(riders, self.flights.levels.settings.lease()).await;
            }
        }
    }

    /// Another process loads.
    async fn wait(&self, riders: Vec<Rider<V>>, at_most: Duration) {
        let levels = &self.flights.levels;
        let since = Instant::now();
        let waited = levels.wait(&self.key, at_most.min(levels.settings.lease())).await;
        if waited.is_err() || since.elapsed() < AGAIN {
            sleep(AGAIN).await;
        }
        // Not after one lease: they may have come before it was given, and its end is when one of them gets the next.
        self.tire(riders, levels.settings.lease() * 5 / 2).await;
    }

    /// To the next round, unless one of them has waited for so long: then it is loaded without a lease.
    async fn tire(&self, riders: Vec<Rider<V>>, patience: Duration) {
        if riders.iter().any(|rider| rider.came.elapsed() > patience) {
            self.load(riders, None).await;
        } else {
            self.again(riders);
        }
    }

    /// The stale value is for those whom it will do by now; for the others if the load takes too long, or fails.
    async fn settle_stale(
        &self,
        mut riders: Vec<Rider<V>>,
        copy: Copy<V>,
        right: Option<Right<K>>,
    ) {
        let (levels, now) = (&self.flights.levels, Clock::new().now());
        let Some(right) = right else {
            levels.pauses.set(&self.key, now, now.after(STALE_PAUSE), Why::LoadingElsewhere);
            return answer_all(riders, &Ok(copy));
        };
        let until = now.after(levels.settings.lease());
        let loader = riders.iter_mut().find_map(Rider::loader);
        let Some((loader, load)) = loader.filter(|_| levels.pauses.begin(&self.key, now, until))
        else {
            levels.release(&self.key, right).await;
            return answer_all(riders, &Ok(copy));
        };
        let served = riders.extract_if(.., |rider| rider.stale_from <= Instant::now());
        answer_all(served.collect(), &Ok(copy.clone()));
        for rider in &riders {
            // There is one from before: as good.
            let _ = rider.stale.set(copy.clone());
        }
        let (flights, key) = (Arc::clone(&self.flights), self.key.clone());
        tokio::spawn(flights.refresh(key, right, riders, loader, load));
    }

    /// Loads, for riders and those who come until it begins. Without a right, nothing is stored. Answers with whether
    /// the source failed; `None` if it was not asked.
    pub(crate) async fn load(
        &self,
        mut riders: Vec<Rider<V>>,
        right: Option<Right<K>>,
    ) -> Option<Result<(), ()>> {
        riders.extend(self.board());
        riders.retain(Rider::waits);
        let Some((loader, load)) = riders.iter_mut().find_map(Rider::loader) else {
            if let Some(right) = right {
                self.flights.levels.release(&self.key, right).await;
            }
            self.again(riders);
            return None;
        };
        let outcome = self.flights.run(loader, &load).await;
        let told = outcome.as_ref().map(drop).map_err(drop);
        self.finish(riders, right, Loaded { outcome, load, kind: Kind::SetByLoad }).await;
        Some(told)
    }

    /// Stores what was loaded, and gives it to those who may have it.
    pub(crate) async fn finish(
        &self,
        riders: Vec<Rider<V>>,
        right: Option<Right<K>>,
        loaded: Loaded<V>,
    ) {
        let levels = &self.flights.levels;
        riders.iter().filter(|rider| rider.counts).for_each(|_| levels.missed());
        let late = self.board();
        match loaded.outcome {
            Ok(value) => {
                let filled = levels.fill(&self.key, right, value, &loaded.load.life).await;
                answer_all(riders, &Ok(filled.copy.clone()));
                if filled.vouched {
                    levels.events.tell(loaded.kind, || self.key.clone());
                    late.iter().filter(|rider| rider.counts).for_each(|_| levels.missed());
                    answer_all(late, &Ok(filled.copy));
                } else {
                    self.again(late);
                }
            }
            Err(error) => {
                if let Some(right) = right {
                    levels.release(&self.key, right).await;
                }
                let error = Err(error);
                answer_all(riders, &error);
                answer_all(late, &error);
            }
        }
    }

    /// The cluster level cannot be asked: loads without it, as far as the source can bear it.
    async fn spare(&self, riders: Vec<Rider<V>>) {
        let flights = &self.flights;
        let answer = match flights.permit().await {
            Ok(_permit) => {
                let told = self.load(riders, None).await;
                return flights.judge(told);
            }
            Err(error) => Err(error),
        };
        answer_all(riders, &answer);
    }
}

impl<K: Key, V: Send + Sync + 'static> Drop for Pilot<K, V> {
    fn drop(&mut self) {
        if !self.landed {
            self.flights.shard(&self.key).lock().remove(&self.key);
        }
    }
}

impl<K: Key, V: Send + Sync + 'static> Flights<K, V> {
    /// Runs what loads, no longer than it may take.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        loader: impl FnOnce() -> BoxFuture<'static, Result<T, Reason>> + Send + 'static,
        load: &Load,
    ) -> Result<T, LoadError> {
        let most = self.levels.settings.timeout_hard;
        self.levels.stats.loaded();
        let outcome =
            run(loader, load.timeout_hard.map_or(most, |timeout| timeout.min(most))).await;
        if outcome.is_err() {
            self.levels.stats.load_failed();
        }
        outcome
    }

    /// Loads a stale value anew, while it is served.
    async fn refresh(
        self: Arc<Self>,
        key: K,
        right: Right<K>,
        riders: Vec<Rider<V>>,
        loader: Loader<V>,
        load: Arc<Load>,
    ) {
        let levels = &self.levels;
        let answer = match self.run(loader, &load).await {
            Ok(value) => {
                let filled = levels.fill(&key, Some(right), value, &load.life).await;
                levels.pauses.end(&key);
                if filled.vouched {
                    levels.events.tell(Kind::SetByRefresh, || key.clone());
                }
                Ok(filled.copy)
            }
            Err(error) => {
                tracing::debug!(%error, "a stale value could not be loaded anew");
                levels.release(&key, right).await;
                let now = Clock::new().now();
                levels.pauses.set(&key, now, now.after(STALE_PAUSE), Why::Failed);
                Err(error)
            }
        };
        answer_all(riders, &answer);
    }

    /// Leave to ask the source while the cluster level cannot be asked.
    ///
    /// # Errors
    /// [`LoadError::Spared`].
    pub(crate) async fn permit(&self) -> Result<tokio::sync::SemaphorePermit<'_>, LoadError> {
        let limit = self.levels.settings.timeout_hard;
        let Ok(permit) = timeout(limit, self.spare_loads.acquire()).await else {
            return Err(LoadError::Spared("as many loads as may run at once did not end in time"));
        };
        if !self.source_breaker.lets_through(Clock::new().now()) {
            return Err(LoadError::Spared("it has failed several times in a row"));
        }
        Ok(permit.expect("the semaphore is never closed"))
    }

    /// What became of a load with a permit.
    pub(crate) fn judge(&self, told: Option<Result<(), ()>>) {
        match told {
            Some(Ok(())) => self.source_breaker.succeeded(),
            Some(Err(())) => self.source_breaker.failed(Clock::new().now()),
            None => {}
        }
    }
}

/// Runs what loads as a task of its own: it may panic, or block its thread.
async fn run<T: Send + 'static>(
    loader: impl FnOnce() -> BoxFuture<'static, Result<T, Reason>> + Send + 'static,
    timeout_hard: Duration,
) -> Result<T, LoadError> {
    let task = AbortOnDropHandle::new(tokio::spawn(async move { loader().await }));
    match timeout(timeout_hard, task).await {
        Ok(Ok(outcome)) => outcome.map_err(LoadError::source),
        Ok(Err(died)) => Err(LoadError::Panicked(last_words(died))),
        Err(_) => Err(LoadError::TimedOut(timeout_hard)),
    }
}

fn last_words(died: tokio::task::JoinError) -> Arc<str> {
    let Ok(panic) = died.try_into_panic() else { return "the runtime has ended".into() };
    let said = panic.downcast_ref::<&str>().copied();
    let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    said.unwrap_or("without words").into()
}
