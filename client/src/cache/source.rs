//! A cache in front of a source that it knows how to read and to write.
//!
//! **The order of a write** is: the source first, then the caches. If the source fails, nothing has happened to the
//! caches, which have the old value as the source has. If it is written, the key is removed from the caches, which
//! makes void every load that began before; only then is the write acknowledged. A load whose token was given after
//! the removal starts when the source was written already. So no order of loads, writes and removals, in however
//! many processes, leaves an old value behind.
//!
//! **Why a write does not put its own value into the cache.** Two writers may reach the source in one order and the
//! cache in the other, and then it would have the older value until it expires; comparing with what was there before
//! does not help, for it may have come back. [`AfterStore::Load`] therefore brings the value in as any miss does: it
//! is read from the source under a token, by this process or by another that is faster.
//!
//! **Cancellation.** A write runs as a task of its own. If its caller is dropped it goes on: a source that was written
//! is followed by the removal, whoever waits for it.

use std::sync::Arc;

use futures_util::FutureExt as _;

use super::error::{LoadError, Reason, SourceError};
use super::options::Load;
use super::{Cache, Cached, Key};
use crate::Error;

/// What a cache stands in front of: a database, a service.
///
/// Reads and writes of one key have to be linearizable, or what is cached is as old as what was read.
pub trait DataSource<K, V>: Send + Sync + 'static {
    /// What it fails with.
    type Error: Into<Reason> + Send + 'static;

    /// What it has for a key.
    ///
    /// # Errors
    /// Its own.
    fn load(&self, key: &K) -> impl Future<Output = Result<Option<V>, Self::Error>> + Send;

    /// Gives a key a value.
    ///
    /// # Errors
    /// Its own; see [`Self::in_doubt`].
    fn store(&self, key: &K, value: &V) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Removes a key.
    ///
    /// # Errors
    /// As [`Self::store`].
    fn remove(&self, key: &K) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Whether the write that failed so may have been done: a lost connection, a timeout. Then its caches are emptied
    /// of the key, to be on the safe side. `false`.
    fn in_doubt(error: &Self::Error) -> bool {
        let _ = error;
        false
    }
}

/// What becomes of the cache after the source was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterStore {
    /// The key is removed; who reads it next loads it. Cache-aside.
    #[default]
    Remove,
    /// The key is removed, and loaded at once, before the write is acknowledged. Write-through.
    Load,
}

/// A [`Cache`] and its [`DataSource`].
///
/// A write goes to the source first; then the key is removed from the caches, which makes void every load that began
/// before; then it is acknowledged. If its caller is dropped it goes on. See the [module](super) for what follows.
///
/// ```
/// use std::collections::HashMap;
/// use std::convert::Infallible;
/// use parking_lot::Mutex;
/// use scatterhoard_client::cache::{AfterStore, Cache, DataSource};
///
/// #[derive(Default)]
/// struct Table(Mutex<HashMap<u64, String>>);
///
/// impl DataSource<u64, String> for Table {
///     type Error = Infallible;
///
///     async fn load(&self, id: &u64) -> Result<Option<String>, Infallible> {
///         Ok(self.0.lock().get(id).cloned())
///     }
///
///     async fn store(&self, id: &u64, name: &String) -> Result<(), Infallible> {
///         self.0.lock().insert(*id, name.clone());
///         Ok(())
///     }
///
///     async fn remove(&self, id: &u64) -> Result<(), Infallible> {
///         self.0.lock().remove(id);
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let users = Cache::builder("user").near_bytes(1 << 20).build()?.over(Table::default());
/// users.store(&7, "Ada".to_owned(), AfterStore::Remove).await?;
/// assert_eq!(users.load(&7).await?.as_deref().map(String::as_str), Some("Ada"));
/// users.remove(&7).await?;
/// assert_eq!(users.load(&7).await?, None);
/// # Ok(())
/// # }
/// ```
pub struct Sourced<K: Key, V: Send + Sync + 'static, S> {
    cache: Cache<K, V>,
    source: Arc<S>,
}

impl<K: Key, V: Send + Sync + 'static> Cache<K, V> {
    /// This cache in front of a source.
    #[must_use]
    pub fn over<S: DataSource<K, V>>(&self, source: S) -> Sourced<K, V, S> {
        Sourced { cache: self.clone(), source: Arc::new(source) }
    }
}

impl<K: Key, V: Send + Sync + 'static, S: DataSource<K, V>> Sourced<K, V, S> {
    /// The cache.
    #[must_use]
    pub fn cache(&self) -> &Cache<K, V> {
        &self.cache
    }

    /// The source.
    #[must_use]
    pub fn source(&self) -> &S {
        &self.source
    }

    /// The value of a key, from the cache or the source.
    ///
    /// # Errors
    /// As [`Cache::get_or_load`].
    pub async fn load(&self, key: &K) -> Result<Option<Cached<V>>, LoadError> {
        self.load_with(key, Load::new()).await
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`Cache::get_or_load`].
    pub async fn load_with(&self, key: &K, load: Load) -> Result<Option<Cached<V>>, LoadError> {
        let (source, its_key) = (Arc::clone(&self.source), key.clone());
        self.cache.get_or_load(key, load, move || async move { source.load(&its_key).await }).await
    }

    /// Writes a value to the source, and lets the caches know.
    ///
    /// # Errors
    /// See [`SourceError`]. That the value could not be loaded after it was stored is none: it is stored.
    pub async fn store(
        &self,
        key: &K,
        value: V,
        after: AfterStore,
    ) -> Result<(), SourceError<S::Error>> {
        let (source, its_key) = (Arc::clone(&self.source), key.clone());
        let write = async move { source.store(&its_key, &value).await };
        self.write(key, write, after).await
    }

    /// Removes a key from the source, and from the caches.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub async fn remove(&self, key: &K) -> Result<(), SourceError<S::Error>> {
        let (source, its_key) = (Arc::clone(&self.source), key.clone());
        let write = async move { source.remove(&its_key).await };
        self.write(key, write, AfterStore::Remove).await
    }

    async fn write(
        &self,
        key: &K,
        write: impl Future<Output = Result<(), S::Error>> + Send + 'static,
        after: AfterStore,
    ) -> Result<(), SourceError<S::Error>> {
        let (this, key) = (self.clone(), key.clone());
        let task = tokio::spawn(async move {
            let written = std::panic::AssertUnwindSafe(write).catch_unwind().await;
            this.written(&key, written, after).await
        });
        // A panic of a level's, or the end of the runtime, after the source was written.
        let died = |_| Err(SourceError::StillCached(Error::InDoubt("the task died".to_owned())));
        task.await.unwrap_or_else(died)
    }

    async fn written(
        &self,
        key: &K,
        written: std::thread::Result<Result<(), S::Error>>,
        after: AfterStore,
    ) -> Result<(), SourceError<S::Error>> {
        let failure = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) if !S::in_doubt(&error) => return Err(SourceError::Source(error)),
            Ok(Err(error)) => Some(SourceError::Source(error)),
            Err(_panic) => Some(SourceError::Panicked),
        };
        let removed = self.cache.remove(key).await;
        if let Some(failure) = failure {
            return Err(failure);
        }
        let _was_there = removed.map_err(SourceError::StillCached)?;
        match after {
            AfterStore::Remove => {}
            AfterStore::Load => {
                if let Err(error) = self.load(key).await {
                    tracing::debug!(%error, "what was stored could not be loaded");
                }
            }
        }
        Ok(())
    }
}

impl<K: Key, V: Send + Sync + 'static, S> Clone for Sourced<K, V, S> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), source: Arc::clone(&self.source) }
    }
}
