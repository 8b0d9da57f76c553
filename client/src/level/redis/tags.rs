//! Tags in a Redis server.
//!
//! There is one clock, and a key for each tag with the time at which it was last invalidated. An entry with tags
//! carries the time at which its load began: when its lease was given, or when it was about to be set. It is stale
//! if a tag of it has a later time, or none: if a tag's key is evicted, that costs loads.
//!
//! *Why a late loader brings nothing back.* It read the source after it had its lease's time. If its tag was
//! invalidated later than that, the tag's time is later; so the fill is refused, or what it stored is stale. A tag
//! without a time is new, as a rule, and is given that of the load. It may also have been invalidated since and then
//! evicted; to refuse all fills with new tags for that was rejected, since it would load twice what has tags of its
//! own.
//!
//! **Copies.** Who keeps a copy of an entry with tags has read the keys of its tags over the same connection, so the
//! server tells of their next change. Which entries they are is in [`Tagged`], noted before the tags are read.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::names;
use super::scripts::{Call, RAISE_IT, TICK_IT};
use super::{Server, Token};
use crate::level::watch::Watch;
use crate::{Command, Effect, Error, Value};

/// Pairs of a tag and an entry that are remembered: some 10 MB. Beyond, all copies end, and it begins anew.
const PAIRS_COUNT_MAX: usize = 1 << 16;

/// Leases whose time is remembered before those that are over are looked for.
const LEASES_COUNT_MIN: usize = 1024;

/// Which entries have which tags, of those that were looked at here.
#[derive(Default)]
pub(super) struct Tagged {
    pairs: Mutex<Pairs>,
}

#[derive(Default)]
struct Pairs {
    by_tag: HashMap<Bytes, HashSet<Bytes>>,
    count: usize,
}

impl Tagged {
    /// An entry has these tags. Before they are read.
    pub(super) fn note(&self, watch: &Watch, key: &Bytes, tags: &[Bytes]) {
        let mut pairs = self.pairs.lock();
        if pairs.count + tags.len() > PAIRS_COUNT_MAX {
            pairs.end(watch);
        }
        for tag in tags {
            if pairs.by_tag.entry(tag.clone()).or_default().insert(key.clone()) {
                pairs.count += 1;
            }
        }
    }

    /// A tag was invalidated: its entries changed.
    pub(super) fn changed(&self, watch: &Watch, tag: &Bytes) {
        let mut pairs = self.pairs.lock();
        let Some(keys) = pairs.by_tag.remove(tag) else { return };
        pairs.count -= keys.len();
        // Under the lock: an entry that is noted from now on is told of by the next change.
        for key in keys {
            watch.key_changed(key);
        }
    }

    /// Everything may have changed.
    pub(super) fn everything_changed(&self, watch: &Watch) {
        self.pairs.lock().end(watch);
    }
}

impl Pairs {
    /// Ends all copies, and what is known of them. In this order: an entry is noted after its load has begun, so the
    /// load of what is forgotten has begun before, and ends.
    fn end(&mut self, watch: &Watch) {
        watch.everything_changed();
        *self = Self::default();
    }
}

/// At which time of the tags' clock leases were given.
pub(super) struct Leases {
    times: Mutex<Times>,
}

struct Times {
    by_token: HashMap<Token, (u64, Instant)>,
    count_max: usize,
}

impl Leases {
    pub(super) fn new() -> Self {
        let times = Times { by_token: HashMap::new(), count_max: LEASES_COUNT_MIN };
        Self { times: Mutex::new(times) }
    }

    pub(super) fn given(&self, token: Token, time: u64, lasts: Duration) {
        let now = Instant::now();
        let mut times = self.times.lock();
        if times.by_token.len() >= times.count_max {
            times.by_token.retain(|_, (_, until)| *until > now);
            times.count_max = (times.by_token.len() * 2).max(LEASES_COUNT_MIN);
        }
        times.by_token.insert(token, (time, now + lasts));
    }

    pub(super) fn taken(&self, token: Token) -> Option<u64> {
        self.times.lock().by_token.remove(&token).map(|(time, _)| time)
    }
}

impl Server {
    /// What time it is by the tags' clock.
    pub(super) async fn time(&self, by: Instant) -> Result<u64, Error> {
        let answer = self.ask(Command::read("GET").key(names::CLOCK), by).await?;
        match answer.value.into_bytes()? {
            Some(time) => number(&time),
            None => self.tick(by).await,
        }
    }

    /// Winds the tags' clock.
    async fn tick(&self, by: Instant) -> Result<u64, Error> {
        let call = Call {
            script: &TICK_IT,
            effect: Effect::Reads,
            keys: vec![Bytes::from_static(names::CLOCK)],
            arguments: Vec::new(),
        };
        match self.run(call, by).await?.value.into_bytes()? {
            Some(time) => number(&time),
            None => Err(Error::BadReply("a clock without a time".to_owned())),
        }
    }

    /// Makes sure that each tag has a time, by default this one, and answers with the latest that one has.
    pub(super) async fn claim(&self, tags: &[Bytes], time: u64, by: Instant) -> Result<u64, Error> {
        // Asked twice it does the same, so it may be.
        let claim = |tag: &Bytes| {
            let command = Command::read("SET").key(names::tag(tag)).arg(time.to_string());
            command.arg("NX").arg("GET")
        };
        let commands: Vec<_> = tags.iter().map(claim).collect();
        let mut latest = time;
        for answer in self.cluster.answers(commands, by).await {
            if let Some(of_tag) = answer?.value.into_bytes()? {
                latest = latest.max(number(&of_tag)?);
            }
        }
        Ok(latest)
    }

    /// The time that an entry with these tags is to carry which is about to be set.
    pub(super) async fn stamp(&self, tags: &[Bytes], by: Instant) -> Result<u64, Error> {
        if tags.is_empty() {
            return Ok(0);
        }
        loop {
            let time = self.time(by).await?;
            if self.claim(tags, time, by).await? == time {
                return Ok(time);
            }
            // Somebody invalidated one in between.
            if Instant::now() >= by {
                return Err(Error::NotDone("its tags are invalidated all the time".to_owned()));
            }
        }
    }

    /// Whether one of these tags makes an entry stale that carries this time, by what their keys have.
    pub(super) fn is_stale(stamp: u64, times: &[Value]) -> bool {
        times.iter().any(|time| match time {
            Value::Bytes(digits) => number(digits).map_or(true, |time| time > stamp),
            _ => true,
        })
    }

    /// Makes entries stale that carry one of these tags.
    pub(super) async fn raise(&self, tags: &[Bytes], by: Instant) -> Result<(), Error> {
        let time = Bytes::from(self.tick(by).await?.to_string());
        let call = |tag: &Bytes| Call {
            script: &RAISE_IT,
            // Asked twice it does the same, so it may be.
            effect: Effect::Reads,
            keys: vec![names::tag(tag)],
            arguments: vec![time.clone()],
        };
        let answers = self.run_all(tags.iter().map(call).collect(), by).await;
        answers.into_iter().try_for_each(|answer| answer.map(drop))
    }
}

fn number(digits: &[u8]) -> Result<u64, Error> {
    let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| Error::BadReply("a tag's time that is no number".to_owned()))
}
