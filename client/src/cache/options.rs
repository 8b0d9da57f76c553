//! What one call may ask for.

use std::time::Duration;

use bytes::Bytes;

/// How one [`crate::Cache::get_or_load`] loads and stores. What is not set is as the cache has it.
///
/// ```
/// use std::time::Duration;
/// use scatterhoard_client::cache::Load;
///
/// let load = Load::new().ttl(Duration::from_secs(60)).tags(["catalogue"]);
/// # let _ = load;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Load {
    pub(crate) life: Life,
    pub(crate) timeout_soft: Option<Duration>,
    pub(crate) timeout_hard: Option<Duration>,
}

/// How one [`crate::Cache::set_with`] stores. What is not set is as the cache has it.
///
/// ```
/// use std::time::Duration;
/// use scatterhoard_client::cache::Put;
///
/// let put = Put::new().if_absent().ttl(Duration::from_millis(250));
/// # let _ = put;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Put {
    pub(crate) life: Life,
    pub(crate) only: Only,
}

/// How long something lives, and what it can be invalidated by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    pub(crate) ttl: Option<Ttl>,
    pub(crate) soft_ttl: Option<Duration>,
    pub(crate) tags: Vec<Bytes>,
    /// Exactly that long until its soft deadline: what is refreshed at a beat is not jittered.
    pub(crate) beat: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ttl {
    Lasts(Duration),
    Forever,
}

/// Whether a value must be there, or must not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Only {
    #[default]
    Always,
    Absent,
    Present,
}

macro_rules! life_setters {
    () => {
        /// How long it lives, less the cache's jitter.
        #[must_use]
        pub fn ttl(mut self, ttl: Duration) -> Self {
            self.life.ttl = Some(Ttl::Lasts(ttl));
            self
        }

        /// It lives until it is removed.
        #[must_use]
        pub fn forever(mut self) -> Self {
            self.life.ttl = Some(Ttl::Forever);
            self
        }

        /// From when on it should be loaded anew; meanwhile it is served as it is.
        #[must_use]
        pub fn soft_ttl(mut self, soft_ttl: Duration) -> Self {
            self.life.soft_ttl = Some(soft_ttl);
            self
        }

        /// What it can be invalidated by, see [`crate::Cache::invalidate_tag`].
        #[must_use]
        pub fn tags(mut self, tags: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
            self.life.tags = tags.into_iter().map(Into::into).collect();
            self
        }
    };
}

impl Load {
    /// As the cache has it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    life_setters!();

    /// How long to wait for a fresh value where there is a stale one.
    #[must_use]
    pub fn timeout_soft(mut self, timeout: Duration) -> Self {
        self.timeout_soft = Some(timeout);
        self
    }

    /// After how long the load is aborted. No longer than the cache's, for which leases are long enough.
    #[must_use]
    pub fn timeout_hard(mut self, timeout: Duration) -> Self {
        self.timeout_hard = Some(timeout);
        self
    }
}

impl Put {
    /// As the cache has it, in any case.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    life_setters!();

    /// Only if there is no value (NX). What the source does not have counts as none.
    #[must_use]
    pub fn if_absent(mut self) -> Self {
        self.only = Only::Absent;
        self
    }

    /// Only if there is a value (XX).
    #[must_use]
    pub fn if_present(mut self) -> Self {
        self.only = Only::Present;
        self
    }
}
