//! Writes to the levels. Whatever comes of one, this process's own copy is ended: if it was not done, a look brings
//! it back; if it is in doubt, nobody can tell any more.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::error::WriteError;
use super::event::Kind;
use super::levels::{Copy, Shared, entry};
use super::options::{Life, Only, Put};
use super::{Cache, Cached, Key};
use crate::Error;
use crate::level::{Content, When};

/// How often a read-modify-write is tried.
const TRIES_COUNT_MAX: u32 = 32;

impl<K: Key, V: Send + Sync + 'static> Cache<K, V> {
    /// Gives a key a value, for as long as the cache says.
    ///
    /// # Errors
    /// See [`WriteError`]: whether nothing happened, or it is in doubt.
    pub async fn set(&self, key: &K, value: V) -> Result<(), WriteError> {
        let _always = self.set_with(key, value, Put::new()).await?;
        Ok(())
    }

    /// The same under a condition, for a time, with tags. Answers with whether the condition held.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use scatterhoard_client::cache::{Cache, Put};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cache = Cache::<u64, u64>::builder("n").near_bytes(1 << 20).build()?;
    /// let first = Put::new().if_absent().ttl(Duration::from_millis(500)).tags(["numbers"]);
    /// assert!(cache.set_with(&1, 10, first.clone()).await?);
    /// assert!(!cache.set_with(&1, 11, first).await?);
    /// cache.invalidate_tag("numbers").await?;
    /// assert!(!cache.exists(&1).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::set`].
    pub async fn set_with(&self, key: &K, value: V, put: Put) -> Result<bool, WriteError> {
        let done = match &self.levels().cluster {
            None => self.write_here(key, &put.life, |there| {
                let is_there = there.is_some_and(|copy| copy.value.is_some());
                put.only.holds(is_there).then_some(value)
            }),
            Some(shared) => {
                let when = match put.only {
                    Only::Always => When::Always,
                    Only::Absent => When::Absent,
                    Only::Present => When::Present,
                };
                self.write_shared(shared, key, &value, &when, &put.life).await?
            }
        };
        if done {
            self.levels().events.tell(Kind::Set, || key.clone());
        }
        Ok(done)
    }

    /// Gives several keys a value each; outcomes are in their order. One request to each node.
    pub async fn set_many(&self, pairs: Vec<(K, V)>) -> Vec<Result<(), WriteError>> {
        let life = Life::default();
        let Some(shared) = &self.levels().cluster else {
            let set = pairs.into_iter().map(|(key, value)| {
                self.write_here(&key, &life, |_| Some(value));
                self.levels().events.tell(Kind::SetByMany, || key);
                Ok(())
            });
            return set.collect();
        };
        let (mut outcomes, mut entries) = (Vec::with_capacity(pairs.len()), Vec::new());
        for (key, value) in &pairs {
            let encoded = shared.format.encode(value);
            outcomes.push(encoded.map_err(WriteError::Codec).map(|bytes| {
                let times = self.levels().times(Some(value), &life);
                let name = self.levels().prefix.name(key);
                entries.push((name, entry(Content::Value(bytes), times, &life)));
            }));
        }
        let all = shared.level.set_many(&entries).map(Ok);
        let set = self.levels().written(all).await;
        let mut set = set.unwrap_or_else(|error| vec![Err(error); entries.len()]).into_iter();
        for ((key, _), outcome) in pairs.iter().zip(&mut outcomes) {
            if outcome.is_err() {
                continue;
            }
            self.levels().forget(key);
            let missing = || Err(Error::BadReply("fewer outcomes than keys".to_owned()));
            *outcome = set.next().unwrap_or_else(missing).map_err(WriteError::Cluster);
            if outcome.is_ok() {
                self.levels().events.tell(Kind::SetByMany, || key.clone());
            }
        }
        outcomes
    }

    /// Removes a key everywhere, and makes void what is being loaded for it, here and elsewhere. Answers with whether
    /// it had a value.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn remove(&self, key: &K) -> Result<bool, Error> {
        let removed = self.levels().remove(key).await;
        if removed.is_ok() {
            self.levels().events.tell(Kind::Delete, || key.clone());
        }
        removed
    }

    /// Drops this process's copy of a key. Without a cluster level, that is to remove it.
    pub fn remove_from_near(&self, key: &K) {
        self.levels().forget(key);
    }

    /// Makes everything stale, and thus absent, that carries this tag: one step in each part of the cluster, however
    /// many keys there are. Without a cluster level, it is a look at every key that has tags.
    ///
    /// # Errors
    /// See [`Error`]: some may have become stale; ask again.
    pub async fn invalidate_tag(&self, tag: impl Into<Bytes>) -> Result<(), Error> {
        let tags = [tag.into()];
        if let Some(shared) = &self.levels().cluster {
            let done = self.levels().written(shared.level.invalidate_tags(&tags)).await;
            // Which copies carry the tag is known to the cluster level only, and it is about to tell. Until it has,
            // this process would not see its own invalidation.
            self.levels().underway.change_all();
            if let Some(near) = &self.levels().near {
                near.clear();
            }
            return done;
        }
        for key in self.levels().tagged.invalidate(&tags) {
            self.levels().forget(&key);
            self.levels().events.tell(Kind::Delete, || key);
        }
        Ok(())
    }

    /// Gives a key a new value if it has the expected one. Answers with whether it had.
    ///
    /// Values are compared as such, and the store compares the bytes that were read: it does not matter how equal
    /// values were encoded.
    ///
    /// ```
    /// # use scatterhoard_client::cache::Cache;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cache = Cache::<u64, u64>::builder("n").near_bytes(1 << 20).build()?;
    /// cache.set(&1, 10).await?;
    /// assert!(cache.compare_and_set(&1, &10, 11).await?);
    /// assert!(!cache.compare_and_set(&1, &10, 12).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::set`]; and [`WriteError::Contended`] if others kept writing the expected value in other bytes.
    pub async fn compare_and_set(&self, key: &K, expected: &V, new: V) -> Result<bool, WriteError>
    where
        V: PartialEq,
    {
        let life = Life::default();
        let done = match &self.levels().cluster {
            None => self.write_here(key, &life, |there| {
                let equal = there.and_then(|copy| copy.value.as_ref()) == Some(expected);
                equal.then_some(new)
            }),
            Some(shared) => self.compare_and_set_shared(shared, key, expected, &new).await?,
        };
        if done {
            self.levels().events.tell(Kind::Set, || key.clone());
        }
        Ok(done)
    }

    async fn compare_and_set_shared(
        &self,
        shared: &Shared<V>,
        key: &K,
        expected: &V,
        new: &V,
    ) -> Result<bool, WriteError>
    where
        V: PartialEq,
    {
        for _ in 0..TRIES_COUNT_MAX {
            let Some(stored) = self.levels().peek_stored(shared, key).await? else {
                return Ok(false);
            };
            if !shared.format.decode(&stored.bytes).is_ok_and(|value| value == *expected) {
                return Ok(false);
            }
            let when = When::Equal(stored.bytes);
            if self.write_shared(shared, key, new, &when, &Life::default()).await? {
                return Ok(true);
            }
        }
        Err(WriteError::Contended(TRIES_COUNT_MAX))
    }

    /// Gives a key what the function makes of its value, as if nobody else wrote it meanwhile: if somebody does, the
    /// function is called again with what is there then. `None` leaves it as it is, and is what comes back then.
    ///
    /// ```
    /// # use scatterhoard_client::cache::Cache;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cache = Cache::<u64, u64>::builder("n").near_bytes(1 << 20).build()?;
    /// for _ in 0..3 {
    ///     cache.update(&1, |count| Some(count.copied().unwrap_or(0) + 1)).await?;
    /// }
    /// assert_eq!(cache.get(&1).await?.as_deref(), Some(&3));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::set`]; and [`WriteError::Contended`] after 32 tries. If it is in doubt, it may have been done.
    pub async fn update(
        &self,
        key: &K,
        mut change: impl FnMut(Option<&V>) -> Option<V>,
    ) -> Result<Option<Cached<V>>, WriteError> {
        let life = Life::default();
        for _ in 0..TRIES_COUNT_MAX {
            let (there, when) = match &self.levels().cluster {
                None => (self.levels().near_copy(key), When::Always),
                Some(shared) => self.there(shared, key).await?,
            };
            let Some(new) = change(there.as_ref().and_then(|copy| copy.value.as_ref())) else {
                return Ok(None);
            };
            let times = self.levels().times(Some(&new), &life);
            let copy = self.levels().copy(key, Some(new), times);
            let done = match &self.levels().cluster {
                None => self.replace_here(key, there.as_ref(), &copy),
                Some(shared) => {
                    let new = copy.value.as_ref().expect("it was made of one");
                    self.write_shared(shared, key, new, &when, &life).await?
                }
            };
            if done {
                self.levels().events.tell(Kind::Set, || key.clone());
                return Ok(Cached::of(copy));
            }
        }
        Err(WriteError::Contended(TRIES_COUNT_MAX))
    }

    /// What the cluster level has, and the condition that it still has it.
    async fn there(
        &self,
        shared: &Shared<V>,
        key: &K,
    ) -> Result<(Option<Copy<V>>, When), WriteError> {
        let Some(stored) = self.levels().peek_stored(shared, key).await? else {
            return Ok((None, When::Absent));
        };
        let value = shared.format.decode(&stored.bytes)?;
        let times = self.levels().times(Some(&value), &Life::default());
        Ok((Some(self.levels().copy(key, Some(value), times)), When::Equal(stored.bytes)))
    }

    async fn write_shared(
        &self,
        shared: &Shared<V>,
        key: &K,
        value: &V,
        when: &When,
        life: &Life,
    ) -> Result<bool, WriteError> {
        let content = Content::Value(shared.format.encode(value)?);
        let entry = entry(content, self.levels().times(Some(value), life), life);
        let name = self.levels().prefix.name(key);
        let set = self.levels().written(shared.level.set(&name, &entry, when)).await;
        self.levels().forget(key);
        Ok(set?)
    }

    /// Without a cluster level: keeps what is made of what is there, under the lock.
    fn write_here(
        &self,
        key: &K,
        life: &Life,
        make: impl FnOnce(Option<&Copy<V>>) -> Option<V>,
    ) -> bool {
        let levels = self.levels();
        levels.underway.change(key, || {
            let there = levels.near_copy(key);
            let Some(value) = make(there.as_ref()) else { return false };
            let times = levels.times(Some(&value), life);
            self.keep_written(key, &levels.copy(key, Some(value), times), life);
            true
        })
    }

    /// Without a cluster level: keeps a copy if the one that is there is still this one.
    fn replace_here(&self, key: &K, expected: Option<&Copy<V>>, copy: &Copy<V>) -> bool {
        let levels = self.levels();
        levels.underway.change(key, || {
            let there = levels.near_copy(key);
            let same = match (&there, expected) {
                (Some(there), Some(expected)) => Arc::ptr_eq(there.copy(), expected.copy()),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if same {
                self.keep_written(key, copy, &Life::default());
            }
            same
        })
    }

    fn keep_written(&self, key: &K, copy: &Copy<V>, life: &Life) {
        let levels = self.levels();
        let Some(near) = &levels.near else { return };
        let alive = |other: &K| near.look(other).is_some();
        let keep = || near.keep(key.clone(), Arc::clone(copy.copy()));
        levels.tagged.put(key, &life.tags, None, alive, keep);
    }

    /// Removes several keys, as [`Self::remove`] does each; outcomes are in their order.
    pub async fn remove_many(&self, keys: &[K]) -> Vec<Result<bool, Error>> {
        join_all(keys.iter().map(|key| self.remove(key))).await
    }
}

impl Only {
    fn holds(self, is_there: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Absent => !is_there,
            Self::Present => is_there,
        }
    }
}
