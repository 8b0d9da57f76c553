//! What there is, with or without loading it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::error::{LoadError, Reason};
use super::flight::{Answer, Loader, Rider};
use super::levels::Copy;
use super::many::{Batch, BatchLoader, fly_together};
use super::options::Load;
use super::{Cache, Cached, Key};
use crate::{Clock, Error};

/// A caller who waits for a flight.
pub(super) struct Waiting<V> {
    answer: oneshot::Receiver<Answer<V>>,
    stale_from: Instant,
    stale: Arc<OnceLock<Copy<V>>>,
}

impl<K: Key, V: Send + Sync + 'static> Cache<K, V> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.levels().name
    }

    /// The value of a key: the near level's copy, or what the cluster level has. `None` if there is none, and if the
    /// source is known not to have one. A value past its soft deadline is given as it is.
    ///
    /// # Errors
    /// See [`Error`]; only the cluster level has any.
    pub async fn get(&self, key: &K) -> Result<Option<Cached<V>>, Error> {
        if let Some(copy) = self.near_copy(key) {
            return Ok(Cached::of(copy));
        }
        if self.levels().cluster.is_none() {
            self.levels().missed();
            return Ok(None);
        }
        self.get_skipping_near(key).await
    }

    /// The same of several keys, in their order, each with its own outcome: one request to each node that leads some
    /// of those that are not in the near level.
    ///
    /// ```
    /// # use scatterhoard_client::cache::Cache;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = Cache::<u64, u64>::builder("square").near_bytes(1 << 20).build()?;
    /// cache.set(&3, 9).await?;
    /// let squares = cache.get_many(&[3, 4]).await;
    /// assert_eq!(squares[0].as_ref().unwrap().as_deref(), Some(&9));
    /// assert_eq!(squares[1], Ok(None));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_many(&self, keys: &[K]) -> Vec<Result<Option<Cached<V>>, Error>> {
        let mut found: Vec<_> =
            keys.iter().map(|key| self.near_copy(key).map(|copy| Ok(Some(copy)))).collect();
        let missing = keys.iter().zip(&found).filter(|(_, found)| found.is_none());
        let missing: Vec<_> = missing.map(|(key, _)| key.clone()).collect();
        if self.levels().cluster.is_none() {
            missing.iter().for_each(|_| self.levels().missed());
        } else if !missing.is_empty() {
            let looks = self.levels().peek_many(&missing).await;
            let gaps = found.iter_mut().filter(|found| found.is_none());
            for (gap, look) in gaps.zip(looks) {
                *gap = Some(look);
            }
        }
        let outcomes = found.into_iter().map(|found| found.unwrap_or(Ok(None)));
        outcomes.map(|found| Ok(found?.and_then(Cached::of))).collect()
    }

    /// What the cluster level has, whatever the near level says: never older than the last write that was
    /// acknowledged. Without a cluster level, as [`Self::get`].
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn get_skipping_near(&self, key: &K) -> Result<Option<Cached<V>>, Error> {
        if self.levels().cluster.is_none() {
            return Ok(self.near_copy(key).and_then(Cached::of));
        }
        let mut looks = self.levels().peek_many(std::slice::from_ref(key)).await;
        let copy = looks.pop().expect("there is one answer for one key")?;
        Ok(copy.and_then(Cached::of))
    }

    /// Whether a key has a value. That the source is known not to have it counts as none.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn exists(&self, key: &K) -> Result<bool, Error> {
        Ok(self.get(key).await?.is_some())
    }

    /// The value of a key, loaded if there is none. `None`: the source has nothing, which is remembered too.
    ///
    /// Of all who ask for a key at the same time, in this process and, with a cluster level, in all of them, one
    /// loads. A loader that fails, panics or takes too long is an error for those who waited, and nothing is
    /// stored; the next call loads again. A caller that is dropped cancels nobody else; the load goes on without
    /// him, unless it has not begun and nobody else waits for it.
    ///
    /// A value past its soft deadline is given at once, or after the soft timeout, while it is loaded anew; also if
    /// that fails; never past its hard deadline.
    ///
    /// ```
    /// # use scatterhoard_client::cache::{Cache, Load};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cache = Cache::<u64, String>::builder("user").near_bytes(1 << 20).build()?;
    /// async fn from_database(id: u64) -> Result<Option<String>, std::io::Error> {
    ///     Ok((id == 7).then(|| "Ada".to_owned()))
    /// }
    ///
    /// let user = cache.get_or_load(&7, Load::new(), || from_database(7)).await?;
    /// assert_eq!(user.as_deref().map(String::as_str), Some("Ada"));
    /// let nobody = cache.get_or_load(&8, Load::new(), || from_database(8)).await?;
    /// assert_eq!(nobody, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`LoadError`]. Not being able to ask the cluster level is none: the source is asked instead.
    pub async fn get_or_load<F, Fut, E>(
        &self,
        key: &K,
        load: Load,
        loader: F,
    ) -> Result<Option<Cached<V>>, LoadError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Option<V>, E>> + Send + 'static,
        E: Into<Reason>,
    {
        let stale = match self.near_copy(key) {
            Some(copy) if self.is_fresh(&copy) => return Ok(Cached::of(copy)),
            other => other,
        };
        let loader: Loader<V> =
            Box::new(move || loader().map(|end| end.map_err(Into::into)).boxed());
        self.load(key, Arc::new(load), loader, stale).await
    }

    /// The values of several keys, in the order of the ids, each with its own outcome. The loader gets exactly those
    /// that are missing and that nobody else loads, all at once, and brings a map: ids that are not in it the
    /// source does not have, and each that is has a value, or an error of its own.
    ///
    /// It is called again only for ids that somebody else was about to load and did not bring.
    ///
    /// ```
    /// # use std::collections::HashMap;
    /// # use scatterhoard_client::cache::{Cache, Load};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cache = Cache::<u64, u64>::builder("square").near_bytes(1 << 20).build()?;
    /// let squares = cache
    ///     .get_or_load_many(&[1, 2, 3], Load::new(), |ids| async move {
    ///         let squares = ids.into_iter().map(|id| match id {
    ///             3 => (id, Err("no squares of 3 today")),
    ///             _ => (id, Ok(id * id)),
    ///         });
    ///         Ok::<HashMap<_, _>, &str>(squares.collect())
    ///     })
    ///     .await;
    /// assert_eq!(squares[1].as_ref().unwrap().as_deref(), Some(&4));
    /// assert!(squares[2].is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_or_load_many<F, Fut, E>(
        &self,
        ids: &[K],
        load: Load,
        loader: F,
    ) -> Vec<Result<Option<Cached<V>>, LoadError>>
    where
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<HashMap<K, Result<V, E>>, E>> + Send + 'static,
        E: Into<Reason>,
    {
        let loader: BatchLoader<K, V> = Arc::new(move |ids| {
            let loaded = loader(ids);
            let loaded = loaded.map(|end| end.map(own_errors).map_err(Into::into));
            loaded.boxed()
        });
        self.load_many(ids, Arc::new(load), loader).await
    }

    pub(super) fn near_copy(&self, key: &K) -> Option<Copy<V>> {
        self.refreshes.touch(key);
        let levels = self.levels();
        let copy = levels.near_copy(key);
        match (&levels.near, &copy) {
            (Some(_), Some(_)) => levels.stats.hit_near(),
            (Some(_), None) => levels.stats.miss_near(),
            (None, _) => {}
        }
        copy
    }

    fn is_fresh(&self, copy: &Copy<V>) -> bool {
        Clock::new().now() < copy.soft
    }

    /// Loads what is missing or, if there is a stale copy, past its soft deadline.
    pub(super) async fn load(
        &self,
        key: &K,
        load: Arc<Load>,
        loader: Loader<V>,
        stale: Option<Copy<V>>,
    ) -> Result<Option<Cached<V>>, LoadError> {
        let soft = load.timeout_soft.unwrap_or(self.levels().settings.timeout_soft);
        if let Some(copy) = &stale {
            if self.levels().pauses.holds(key, Clock::new().now()) {
                return Ok(Cached::of(copy.clone()));
            }
            if soft.is_zero() {
                let (rider, _) = rider(None, Some(loader), &load, soft, None);
                self.flights.join(key, rider);
                return Ok(Cached::of(copy.clone()));
            }
        }
        let waiting = self.ride(key, loader, &load, stale);
        Ok(Cached::of(waiting.answer().await?))
    }

    /// Boards the flight of a key, for a value that is not stale if one can be had.
    pub(super) fn ride_for_fresh(
        &self,
        key: &K,
        loader: Loader<V>,
        load: &Arc<Load>,
    ) -> Waiting<V> {
        // Longer than anything a flight waits for.
        let settings = &self.levels().settings;
        let soft = (settings.lease() + settings.timeout_hard) * 2;
        self.board(key, loader, load, (soft, None), false)
    }

    fn ride(
        &self,
        key: &K,
        loader: Loader<V>,
        load: &Arc<Load>,
        stale: Option<Copy<V>>,
    ) -> Waiting<V> {
        let soft = load.timeout_soft.unwrap_or(self.levels().settings.timeout_soft);
        self.board(key, loader, load, (soft, stale), true)
    }

    fn board(
        &self,
        key: &K,
        loader: Loader<V>,
        load: &Arc<Load>,
        (soft, stale): (Duration, Option<Copy<V>>),
        reads: bool,
    ) -> Waiting<V> {
        let (sender, answer) = oneshot::channel();
        let (mut rider, stale) = rider(Some(sender), Some(loader), load, soft, stale);
        rider.counts &= reads;
        let stale_from = rider.stale_from;
        self.flights.join(key, rider);
        Waiting { answer, stale_from, stale }
    }

    async fn load_many(
        &self,
        ids: &[K],
        load: Arc<Load>,
        loader: BatchLoader<K, V>,
    ) -> Vec<Result<Option<Cached<V>>, LoadError>> {
        let soft = load.timeout_soft.unwrap_or(self.levels().settings.timeout_soft);
        let now = Clock::new().now();
        let (mut found, mut waiting) = (HashMap::new(), HashMap::new());
        let mut pilots = Vec::new();
        for id in ids {
            if found.contains_key(id) || waiting.contains_key(id) {
                continue;
            }
            let stale = self.near_copy(id);
            let paused = stale.is_some() && self.levels().pauses.holds(id, now);
            if let Some(copy) = stale.as_ref().filter(|copy| now < copy.soft || paused) {
                found.insert(id.clone(), copy.clone());
                continue;
            }
            let (sender, answer) = oneshot::channel();
            let at_once = stale.clone().filter(|_| soft.is_zero());
            let sender = at_once.is_none().then_some(sender);
            let (rider, stale) = rider(sender, Some(alone(&loader, id)), &load, soft, stale);
            let stale_from = rider.stale_from;
            pilots.extend(self.flights.board(id, rider));
            match at_once {
                Some(copy) => drop(found.insert(id.clone(), copy)),
                None => drop(waiting.insert(id.clone(), Waiting { answer, stale_from, stale })),
            }
        }
        if !pilots.is_empty() {
            tokio::spawn(fly_together(Arc::clone(&self.flights), pilots, loader, load));
        }
        let answers = waiting
            .into_iter()
            .map(|(id, waiting)| async move { (id, waiting.answer().await.map(Cached::of)) });
        let mut answers: HashMap<_, _> = join_all(answers).await.into_iter().collect();
        answers.extend(found.into_iter().map(|(id, copy)| (id, Ok(Cached::of(copy)))));
        ids.iter().map(|id| answers[id].clone()).collect()
    }
}

impl<V: Send + Sync + 'static> Waiting<V> {
    /// What the flight brings; the stale value if it takes too long, or fails.
    pub(super) async fn answer(mut self) -> Answer<V> {
        let answer = match timeout_at(self.stale_from, &mut self.answer).await {
            Ok(answer) => answer,
            Err(_) => match self.stale() {
                Some(copy) => return Ok(copy),
                None => (&mut self.answer).await,
            },
        };
        let died =
            |_| Err(LoadError::Panicked("a codec, a level, or the runtime has ended".into()));
        answer.unwrap_or_else(died).or_else(|error| {
            let stale = self.stale().ok_or_else(|| error.clone())?;
            tracing::debug!(%error, "a stale value was served");
            Ok(stale)
        })
    }

    /// The stale value, if it is not past its hard deadline.
    fn stale(&self) -> Option<Copy<V>> {
        let copy = self.stale.get()?;
        (Clock::new().now() < copy.valid.expires()).then(|| copy.clone())
    }
}

fn rider<V>(
    answer: Option<oneshot::Sender<Answer<V>>>,
    loader: Option<Loader<V>>,
    load: &Arc<Load>,
    soft: Duration,
    stale: Option<Copy<V>>,
) -> (Rider<V>, Arc<OnceLock<Copy<V>>>) {
    let came = Instant::now();
    // A stale copy was a hit of the near level.
    let counts = answer.is_some() && stale.is_none();
    let fallback = Arc::new(stale.map_or_else(OnceLock::new, OnceLock::from));
    let load = Arc::clone(load);
    let stale = Arc::clone(&fallback);
    (Rider { answer, loader, load, counts, came, stale_from: came + soft, stale }, fallback)
}

/// The loader of several for one of them.
fn alone<K: Key, V: Send + Sync + 'static>(loader: &BatchLoader<K, V>, id: &K) -> Loader<V> {
    let (loader, id) = (Arc::clone(loader), id.clone());
    Box::new(move || -> BoxFuture<'static, _> {
        async move { loader(vec![id.clone()]).await?.remove(&id).transpose() }.boxed()
    })
}

fn own_errors<K: Eq + Hash, V, E: Into<Reason>>(batch: HashMap<K, Result<V, E>>) -> Batch<K, V> {
    batch.into_iter().map(|(key, end)| (key, end.map_err(Into::into))).collect()
}
