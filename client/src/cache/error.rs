//! Why there is nothing to give to whoever asked for a value.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use crate::codec::CodecError;

/// What a loader may fail with: whatever it is.
pub type Reason = Box<dyn StdError + Send + Sync>;

/// Why a value could not be loaded, and no older one could be served in its place. Nothing is stored of it: the
/// next call loads again. All callers who waited for the same load get the same.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The loader said so.
    #[error("the source failed: {0}")]
    Source(#[source] Arc<dyn StdError + Send + Sync>),
    /// The loader panicked, or something else that the load needed: a codec, a near level.
    #[error("the load panicked: {0}")]
    Panicked(Arc<str>),
    /// The loader took longer than it may; it was aborted.
    #[error("the load was aborted after {0:?}")]
    TimedOut(Duration),
    /// Not tried: the cluster level cannot be asked, and the source is spared. It has failed several times in a row,
    /// or as many loads as may run at once have not ended in time.
    #[error("the source is spared: {0}")]
    Spared(&'static str),
}

impl LoadError {
    pub(crate) fn source(reason: impl Into<Reason>) -> Self {
        Self::Source(reason.into().into())
    }
}

/// Why something was not written, or perhaps not.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The cluster level's own word: whether it was done, was not, or is in doubt.
    #[error(transparent)]
    Cluster(#[from] Error),
    /// There are no bytes for the value. Nothing happened.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Others changed the key between each look and the write that followed. Nothing happened.
    #[error("others changed it {0} times")]
    Contended(u32),
}

/// What became of a write to a source and its caches.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError<E> {
    /// The source refused or failed. Caches are as they were; unless [`super::DataSource::in_doubt`] says that it
    /// may have been written: then nothing of the key is cached any more.
    #[error("the source failed: {0}")]
    Source(#[source] E),
    /// The source panicked; it may have been written. Nothing of the key is cached any more.
    #[error("the source panicked")]
    Panicked,
    /// It is written, but caches could not be told: they may have the old value until it expires, or until
    /// [`super::Cache::remove`] is called with success.
    #[error("written, but still cached: {0}")]
    StillCached(#[source] Error),
}

/// Why there is no cache with these settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Neither a near level nor a cluster level.
    #[error("a cache needs a near level or a cluster level")]
    NoLevel,
    /// The prefix contains the separator, so that keys of another cache might get the same names.
    #[error("the prefix {0:?} contains the separator")]
    Prefix(String),
    /// Some time is zero that may not be, or a lease shorter than the load that it is for.
    #[error("{0}")]
    Setting(&'static str),
}
