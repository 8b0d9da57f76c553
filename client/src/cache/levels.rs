//! The levels of one cache as one thing that is read and filled, whichever of them there are.
//!
//! Where there is a cluster level, it decides what is true, and the near level has copies under its marks. Where
//! there is none, the near level has the only copy, and [`Underway`] stands for what a cluster's tokens do: a
//! change of a key in this process makes void what was being loaded for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::time::timeout;

use super::Key;
use super::breaker::Breaker;
use super::chance::Chance;
use super::event::{Events, Kind};
use super::key::Prefix;
use super::late::{self, LateLooks};
use super::options::Life;
use super::pauses::Pauses;
use super::settings::{Settings, Times};
use super::tagged::Tagged;
use super::underway::{Ticket, Underway};
use crate::codec::Format;
use crate::level::near::{Valid, moment_after};
use crate::level::{
    Ask, ClusterLevel, Content, Entry, Found, Held, Kept, Lease, Look, Moment, NearLevel, Stored,
    Token,
};
use crate::stats::Stats;
use crate::{Clock, Error};

/// What a caller gets, and what a near level keeps.
pub(crate) type Copy<V> = Held<V>;

/// About how many bytes a copy takes besides its key and its value.
const COPY_BYTES: usize = 64;

/// How long a write may take before it is in doubt, and a look that nobody waits for any more. Longer than levels take
/// that keep their own deadlines.
pub(super) const LEVEL_TIMEOUT: Duration = Duration::from_secs(15);

/// How many bytes a copy of a value takes.
pub(crate) type Weigh<K, V> = Arc<dyn Fn(&K, &V) -> u32 + Send + Sync>;

pub(crate) struct Levels<K: Key, V> {
    pub(crate) name: String,
    pub(crate) stats: Arc<Stats>,
    pub(crate) near: Option<Arc<dyn NearLevel<K, V>>>,
    pub(crate) cluster: Option<Shared<V>>,
    pub(crate) underway: Arc<Underway<K>>,
    pub(crate) pauses: Pauses<K>,
    /// What carries tags where there is no cluster level to know.
    pub(crate) tagged: Tagged<K>,
    pub(crate) prefix: Prefix,
    pub(crate) weigh: Option<Weigh<K, V>>,
    pub(crate) settings: Settings,
    pub(crate) chance: Chance,
    /// Keeps calls from waiting for a cluster level that does not answer.
    pub(crate) breaker: Breaker,
    /// What became too late, and may have been given leases.
    pub(crate) late: LateLooks,
    pub(crate) events: Events<K>,
}

/// A cluster level, and how values are stored there.
pub(crate) struct Shared<V> {
    pub(crate) level: Arc<dyn ClusterLevel>,
    pub(crate) format: Format<V>,
}

/// What there is for a key, to whoever would load it.
pub(crate) enum Seen<K: Key, V> {
    /// It, or that the source does not have it.
    Fresh(Copy<V>),
    /// The same, past its soft deadline.
    Stale { copy: Copy<V>, right: Option<Right<K>> },
    /// Nothing: load.
    Load(Right<K>),
    /// Nothing, and another process loads.
    Wait { at_most: Duration },
    /// Nothing, for this moment.
    Absent,
    /// Something that is no value of this cache.
    Unreadable,
}

/// The right to store what is loaded.
pub(crate) enum Right<K: Key> {
    Token(Token),
    /// Without a cluster level: as long as the key is not changed here, nor its tags.
    Here {
        ticket: Ticket<K>,
        invalidations: u64,
    },
}

/// What was loaded, and whether nothing that it could be older than came before it was stored.
pub(crate) struct Filled<V> {
    pub(crate) copy: Copy<V>,
    pub(crate) vouched: bool,
}

impl<K: Key, V: Send + Sync + 'static> Levels<K, V> {
    /// The copy of a key that may be served, fresh or stale.
    pub(crate) fn near_copy(&self, key: &K) -> Option<Copy<V>> {
        let near = self.near.as_ref()?;
        let copy = near.look(key)?;
        // The moment comes after the copy: one that was found before an invalidation is judged after it.
        let now = Clock::new().now();
        if self.may_serve(&copy.valid, now) {
            return Some(copy);
        }
        if self.is_dead(&copy.valid, now) {
            near.remove_this(key, copy.copy());
            if copy.valid.expires() <= now {
                self.events.tell(Kind::Expire, || key.clone());
            }
        }
        None
    }

    fn may_serve(&self, valid: &Valid, now: Moment) -> bool {
        match valid {
            Valid::Until(moment) => now < *moment,
            Valid::Marked(mark) => {
                self.cluster.as_ref().is_some_and(|shared| shared.level.may_serve(mark, now))
            }
        }
    }

    fn is_dead(&self, valid: &Valid, now: Moment) -> bool {
        match valid {
            Valid::Until(moment) => now >= *moment,
            Valid::Marked(mark) => {
                self.cluster.as_ref().is_none_or(|shared| shared.level.is_dead(mark, now))
            }
        }
    }

    /// What there is for a key, with the right to load it if there is nothing.
    ///
    /// # Errors
    /// The cluster level could not be asked.
    pub(crate) async fn look(&self, key: &K) -> Result<Seen<K, V>, Error> {
        let Some(shared) = &self.cluster else {
            return Ok(self.look_here(key));
        };
        let (ticket, sent) = (self.underway.begin(key), Clock::new().now());
        let (name, ask) = (self.prefix.name(key), self.lease());
        let (level, its_name) = (Arc::clone(&shared.level), name.clone());
        let look = async move { level.look(&its_name, ask).await }.boxed();
        let given = move |look| late::token(&look).map(|token| (name, token)).into_iter().collect();
        let limit = self.settings.look_timeout;
        let look = self.asked(sent, self.late.in_time(&shared.level, limit, look, given)).await?;
        Ok(self.seen(shared, &ticket, look, sent))
    }

    /// The same of several keys, in their order.
    pub(crate) async fn look_many(&self, keys: &[K]) -> Vec<Result<Seen<K, V>, Error>> {
        let Some(shared) = &self.cluster else {
            return keys.iter().map(|key| Ok(self.look_here(key))).collect();
        };
        let looks = self.looks(shared, keys, self.lease()).await;
        let seen = looks
            .into_iter()
            .map(|(ticket, look, sent)| look.map(|look| self.seen(shared, &ticket, look, sent)));
        seen.collect()
    }

    /// What keys have, and nothing else, in their order. Copies are kept.
    pub(crate) async fn peek_many(&self, keys: &[K]) -> Vec<Result<Option<Copy<V>>, Error>> {
        let Some(shared) = &self.cluster else {
            return keys.iter().map(|key| Ok(self.near_copy(key))).collect();
        };
        let looks = self.looks(shared, keys, Ask::Peek).await;
        let copies = looks.into_iter().map(|(ticket, look, sent)| {
            Ok(match self.seen(shared, &ticket, look?, sent) {
                Seen::Fresh(copy) | Seen::Stale { copy, .. } => {
                    self.stats.hit_cluster();
                    Some(copy)
                }
                Seen::Load(_) | Seen::Wait { .. } | Seen::Absent | Seen::Unreadable => {
                    self.missed();
                    None
                }
            })
        });
        copies.collect()
    }

    /// Counts reads that were answered by a flight's look.
    pub(crate) fn found(&self, count: usize) {
        for _ in 0..count {
            match &self.cluster {
                Some(_) => self.stats.hit_cluster(),
                None => self.stats.hit_near(),
            }
        }
    }

    /// Counts a read that no level could answer.
    pub(crate) fn missed(&self) {
        if self.cluster.is_some() {
            self.stats.miss_cluster();
        }
        self.stats.miss();
    }

    /// What a key has in the cluster level, with its bytes; `None` if there is no value.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn peek_stored(
        &self,
        shared: &Shared<V>,
        key: &K,
    ) -> Result<Option<Stored>, Error> {
        let name = self.prefix.name(key);
        let look = self.in_time(shared.level.look(&name, Ask::Peek));
        let look = self.asked(Clock::new().now(), look).await?;
        Ok(match look.found {
            Found::Value(stored) => Some(stored),
            Found::Absent | Found::Negative { .. } | Found::Load(_) | Found::Wait { .. } => None,
        })
    }

    async fn looks(
        &self,
        shared: &Shared<V>,
        keys: &[K],
        ask: Ask,
    ) -> Vec<(Ticket<K>, Result<Look, Error>, Moment)> {
        let tickets: Vec<_> = keys.iter().map(|key| self.underway.begin(key)).collect();
        let names: Arc<[_]> = keys.iter().map(|key| self.prefix.name(key)).collect();
        let sent = Clock::new().now();
        let (level, its_names) = (Arc::clone(&shared.level), Arc::clone(&names));
        let asked = async move {
            let looks = level.look_many(&its_names, ask).await;
            // All of them failed, or it works.
            let first = looks.iter().find_map(|look| look.as_ref().err()).cloned();
            match first.filter(|_| looks.iter().all(Result::is_err)) {
                Some(error) => Err(error),
                None => Ok(looks),
            }
        };
        let looks = match ask {
            Ask::Peek => self.asked(sent, self.in_time(asked)).await,
            Ask::Lease { .. } => {
                let given = move |looks: Vec<Result<Look, Error>>| {
                    let named = names.iter().zip(looks);
                    let tokens = named.map(|(name, look)| {
                        look.ok().and_then(|look| Some((name.clone(), late::token(&look)?)))
                    });
                    tokens.flatten().collect()
                };
                let limit = self.settings.look_timeout;
                let asked = self.late.in_time(&shared.level, limit, asked.boxed(), given);
                self.asked(sent, asked).await
            }
        };
        let looks = match looks {
            Ok(looks) => looks,
            Err(error) => vec![Err(error); keys.len()],
        };
        tickets.into_iter().zip(looks).map(|(ticket, look)| (ticket, look, sent)).collect()
    }

    /// Asks the cluster level, unless it has not answered lately. The question has its deadline.
    async fn asked<T>(
        &self,
        now: Moment,
        question: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        if !self.breaker.lets_through(now) {
            return Err(Error::NotDone("it has not answered several times in a row".to_owned()));
        }
        let answer = question.await;
        match &answer {
            Err(Error::NotDone(_) | Error::InDoubt(_)) => self.breaker.failed(Clock::new().now()),
            // Who refuses has answered.
            Ok(_) | Err(Error::Refused { .. } | Error::BadReply(_)) => self.breaker.succeeded(),
        }
        answer
    }

    async fn in_time<T>(
        &self,
        question: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let limit = self.settings.look_timeout;
        let answer = timeout(limit, question).await;
        answer.unwrap_or_else(|_| Err(Error::InDoubt(format!("no answer in {limit:?}"))))
    }

    /// What came of a write. The level has its own deadline; this one is for what does not keep it.
    pub(crate) async fn written<T>(
        &self,
        write: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let answer = timeout(LEVEL_TIMEOUT, write).await;
        answer.unwrap_or_else(|_| Err(Error::InDoubt(format!("no answer in {LEVEL_TIMEOUT:?}"))))
    }

    fn lease(&self) -> Ask {
        Ask::Lease { lasts: self.settings.lease(), stale: true }
    }

    fn look_here(&self, key: &K) -> Seen<K, V> {
        let invalidations = self.tagged.invalidations();
        let right = Right::Here { ticket: self.underway.begin(key), invalidations };
        match self.near_copy(key) {
            Some(copy) if Clock::new().now() < copy.soft => Seen::Fresh(copy),
            Some(copy) => Seen::Stale { copy, right: Some(right) },
            None => Seen::Load(right),
        }
    }

    /// What was found; keeps a copy if one may be kept.
    fn seen(&self, shared: &Shared<V>, ticket: &Ticket<K>, look: Look, sent: Moment) -> Seen<K, V> {
        let mark = look.mark;
        let valid = |lives_for| match mark {
            Some(mark) => Valid::Marked(mark),
            None => Valid::Until(moment_after(sent, lives_for)),
        };
        let (copy, refresh) = match look.found {
            Found::Value(Stored { bytes, fresh_for, lives_for, refresh }) => {
                let Ok(value) = shared.format.decode(&bytes) else {
                    tracing::debug!("what is stored is no value of this cache");
                    return Seen::Unreadable;
                };
                let weight = self.weight(ticket.key(), Some(&value), bytes.len());
                let soft = moment_after(sent, fresh_for);
                (Kept { value: Some(value), weight, soft, valid: valid(lives_for) }, refresh)
            }
            Found::Negative { lives_for } => {
                let weight = self.weight(ticket.key(), None, 0);
                (Kept { value: None, weight, soft: Moment::NEVER, valid: valid(lives_for) }, None)
            }
            Found::Load(Lease { token, .. }) => return Seen::Load(Right::Token(token)),
            Found::Wait { at_most } => return Seen::Wait { at_most },
            Found::Absent => return Seen::Absent,
        };
        let (copy, stale) = (Copy::from(Arc::new(copy)), refresh.is_some());
        if let (Some(near), true) = (&self.near, mark.is_some()) {
            ticket.if_unchanged(|| near.keep(ticket.key().clone(), Arc::clone(copy.copy())));
        }
        let right = refresh.map(|Lease { token, .. }| Right::Token(token));
        if stale || copy.soft <= sent { Seen::Stale { copy, right } } else { Seen::Fresh(copy) }
    }

    /// Stores what was loaded, if the right to do so still holds. Without one it is given to whoever waits, and kept
    /// nowhere: nothing says that it is not older than what somebody has written meanwhile.
    pub(crate) async fn fill(
        &self,
        key: &K,
        right: Option<Right<K>>,
        value: Option<V>,
        life: &Life,
    ) -> Filled<V> {
        let times = self.times(value.as_ref(), life);
        let encoded = match (&self.cluster, &value) {
            (Some(shared), Some(value)) => shared.format.encode(value).map(Content::Value),
            (Some(_), None) | (None, _) => Ok(Content::Negative),
        };
        let copy = self.copy(key, value, times);
        let vouched = match (right, &self.cluster, encoded) {
            (Some(Right::Here { ticket, invalidations }), _, _) => {
                self.keep_here(&ticket, invalidations, &copy, life)
            }
            (Some(Right::Token(token)), Some(shared), Ok(content)) => {
                let entry = entry(content, times, life);
                let name = self.prefix.name(key);
                // In doubt, it may be there, and will be looked at.
                let filled = self.in_time(shared.level.fill(&name, token, &entry)).await;
                let filled = filled.unwrap_or(false);
                if !filled {
                    // A token that does not fill may hold up others still: a tag of the value was invalidated, or
                    // the request was lost.
                    self.release(key, Right::Token(token)).await;
                }
                filled
            }
            (Some(right), _, Err(error)) => {
                tracing::warn!(%error, "a loaded value could not be stored");
                self.release(key, right).await;
                false
            }
            (Some(Right::Token(_)), None, Ok(_)) | (None, _, _) => false,
        };
        Filled { copy, vouched }
    }

    fn keep_here(
        &self,
        ticket: &Ticket<K>,
        invalidations: u64,
        copy: &Copy<V>,
        life: &Life,
    ) -> bool {
        let Some(near) = &self.near else { return false };
        let mut kept = false;
        ticket.if_unchanged(|| {
            let alive = |key: &K| near.look(key).is_some();
            let keep = || near.keep(ticket.key().clone(), Arc::clone(copy.copy()));
            kept = self.tagged.put(ticket.key(), &life.tags, Some(invalidations), alive, keep);
        });
        kept
    }

    /// Gives the right to load back.
    pub(crate) async fn release(&self, key: &K, right: Right<K>) {
        let (Right::Token(token), Some(shared)) = (right, &self.cluster) else { return };
        let name = self.prefix.name(key);
        if let Err(error) = self.in_time(shared.level.release(&name, token)).await {
            // It ends by itself.
            tracing::debug!(%error, "a lease could not be given back");
        }
    }

    /// Removes what a key has in the cluster level, and its copy here.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn remove(&self, key: &K) -> Result<bool, Error> {
        let Some(shared) = &self.cluster else {
            let there = self.near_copy(key);
            self.forget(key);
            return Ok(there.is_some_and(|copy| copy.value.is_some()));
        };
        let name = self.prefix.name(key);
        let removed = self.written(shared.level.remove(&name)).await;
        self.forget(key);
        removed
    }

    /// Waits until nobody else loads a key, or so long.
    pub(crate) async fn wait(&self, key: &K, at_most: Duration) -> Result<(), Error> {
        let Some(shared) = &self.cluster else { return Ok(()) };
        let name = self.prefix.name(key);
        // The level has its own deadline; this one is for what does not keep it.
        let limit = at_most + self.settings.look_timeout;
        let waited = timeout(limit, shared.level.wait(&name, at_most)).await;
        waited.unwrap_or_else(|_| Err(Error::NotDone(format!("no answer in {limit:?}"))))
    }

    /// Drops the copy of a key, and the right to keep what was read of it before.
    pub(crate) fn forget(&self, key: &K) {
        self.underway.change(key, || {
            if let Some(near) = &self.near {
                near.remove(key);
            }
            true
        });
    }

    pub(crate) fn copy(&self, key: &K, value: Option<V>, times: Times) -> Copy<V> {
        let now = Clock::new().now();
        let weight = self.weight(key, value.as_ref(), size_of::<V>());
        let (soft, hard) = (moment_after(now, times.soft), moment_after(now, times.hard));
        Copy::from(Arc::new(Kept { value, weight, soft, valid: Valid::Until(hard) }))
    }

    pub(crate) fn times(&self, value: Option<&V>, life: &Life) -> Times {
        match value {
            Some(_) => self.settings.times(life, &self.chance),
            None => self.settings.not_found(life, &self.chance),
        }
    }

    fn weight(&self, key: &K, value: Option<&V>, value_bytes: usize) -> u32 {
        if let (Some(weigh), Some(value)) = (&self.weigh, value) {
            return weigh(key, value);
        }
        u32::try_from(value_bytes + size_of::<K>() + COPY_BYTES).unwrap_or(u32::MAX)
    }
}

/// What to store for a value with these times.
pub(crate) fn entry(content: Content, times: Times, life: &Life) -> Entry {
    let tags: Vec<Bytes> = life.tags.clone();
    Entry { content, soft: times.soft, hard: times.hard, tags }
}
