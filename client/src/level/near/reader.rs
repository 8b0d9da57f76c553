//! Finds copies that may be served.

use std::fmt;
use std::sync::Arc;

use super::{Cached, Held, Holds, Kept, NearLevel, Valid};
use crate::Clock;
use crate::level::{ClusterLevel, Moment};

/// Reads a near level under the rules of freshness: what it shows may be served.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use scatterhoard_client::Clock;
/// use scatterhoard_client::level::near::{Kept, Moka, Near, Sight, Valid};
///
/// let near = Near::new(Arc::new(Moka::with_bytes_max(1 << 20)));
/// let now = Clock::new().now();
/// near.keep(7, Kept {
///     value: Some("seven"),
///     weight: 100,
///     soft: now.after(Duration::from_secs(30)),
///     valid: Valid::Until(now.after(Duration::from_secs(60))),
/// });
///
/// let Sight::Fresh(value) = near.look(&7) else { panic!("it is kept for a minute") };
/// assert_eq!(*value, "seven");
/// assert!(matches!(near.look(&8), Sight::Nothing));
/// ```
pub struct Near<K, V> {
    level: Arc<dyn NearLevel<K, V>>,
    cluster: Option<Arc<dyn ClusterLevel>>,
    clock: Clock,
}

/// What a near level has for a key, that may be served.
#[derive(Debug)]
pub enum Sight<V> {
    /// A value.
    Fresh(Cached<V>),
    /// A value that should be loaded anew: it is past its soft deadline.
    Stale(Cached<V>),
    /// The source said that there is nothing.
    Negative,
    /// Nothing that may be served.
    Nothing,
}

/// What may be done with a copy at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It may be served.
    Fresh,
    /// It may be served, and should be loaded anew.
    Stale,
    /// It may not be served now, and may be once it is proven that it did not change.
    Unproven,
    /// It will never be served again.
    Dead,
}

impl<K, V> Near<K, V>
where
    K: 'static,
    V: 'static,
{
    /// Of copies that nobody else writes: each is served as long as its time lasts.
    pub fn new(level: Arc<dyn NearLevel<K, V>>) -> Self {
        Self { level, cluster: None, clock: Clock::new() }
    }

    /// Of copies of what a cluster level has: each is served as long as that one lets it.
    pub fn of(level: Arc<dyn NearLevel<K, V>>, cluster: Arc<dyn ClusterLevel>) -> Self {
        Self { level, cluster: Some(cluster), clock: Clock::new() }
    }

    /// What may be served for a key. Allocates nothing; throws a dead copy away.
    pub fn look(&self, key: &K) -> Sight<V> {
        let Some(copy) = self.level.look(key) else { return Sight::Nothing };
        // The moment comes after the copy: one that was found before an invalidation is judged after it.
        match self.judge(&copy, self.clock.now()) {
            Judgement::Fresh => Cached::of(copy).map_or(Sight::Negative, Sight::Fresh),
            Judgement::Stale => Cached::of(copy).map_or(Sight::Negative, Sight::Stale),
            Judgement::Unproven => Sight::Nothing,
            Judgement::Dead => {
                self.throw_away(key, &copy);
                Sight::Nothing
            }
        }
    }

    /// What may be done with a copy at this moment, which must not be before it was found.
    pub fn judge(&self, copy: &Kept<V>, now: Moment) -> Judgement {
        let may_serve = match &copy.valid {
            Valid::Until(moment) => now < *moment,
            Valid::Marked(mark) => match &self.cluster {
                Some(cluster) if cluster.may_serve(mark, now) => true,
                Some(cluster) if !cluster.is_dead(mark, now) => return Judgement::Unproven,
                Some(_) | None => false,
            },
        };
        match may_serve {
            true if now < copy.soft => Judgement::Fresh,
            true => Judgement::Stale,
            false => Judgement::Dead,
        }
    }

    /// Keeps a copy, in place of the one before, and hands it out.
    pub fn keep(&self, key: K, copy: Kept<V>) -> Held<V> {
        let copy = Arc::new(copy);
        self.level.keep(key, Arc::clone(&copy));
        Held::from(copy)
    }

    /// Drops the copy of a key.
    pub fn remove(&self, key: &K) {
        self.level.remove(key);
    }

    /// Drops all copies.
    pub fn clear(&self) {
        self.level.clear();
    }

    /// How much is held.
    pub fn holds(&self) -> Holds {
        self.level.holds()
    }

    #[cold]
    fn throw_away(&self, key: &K, copy: &Held<V>) {
        self.level.remove_this(key, copy.copy());
    }
}

impl<K, V> Clone for Near<K, V> {
    fn clone(&self) -> Self {
        Self { level: Arc::clone(&self.level), cluster: self.cluster.clone(), clock: self.clock }
    }
}

impl<K, V> fmt::Debug for Near<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Near").finish_non_exhaustive()
    }
}
