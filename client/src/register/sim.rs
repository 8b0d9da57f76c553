//! Registers, processes and a network in simulated time: tokio's clock, paused. What runs on it is what ships.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{Register, Swap, Version};
use crate::Error;

/// What all processes share.
pub(crate) struct Store {
    born: Instant,
    keys: Mutex<Keys>,
}

impl Default for Store {
    fn default() -> Self {
        Self { born: Instant::now(), keys: Mutex::default() }
    }
}

#[derive(Default)]
struct Keys {
    values: BTreeMap<Vec<u8>, (Bytes, Option<Instant>)>,
    versions: u64,
}

/// What goes wrong, each in a thousand requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Refused without effect.
    pub(crate) refused: u32,
    /// The request is lost.
    pub(crate) request_lost: u32,
    /// It is done, and the reply is lost.
    pub(crate) reply_lost: u32,
    /// It is done long after it was given up.
    pub(crate) late: u32,
    /// How long a way takes at most.
    pub(crate) way_ms_max: u64,
}

/// A process as the store sees it: with a clock and a network of its own.
pub(crate) struct Process {
    store: Arc<Store>,
    faults: Mutex<Faults>,
    chance: Mutex<StdRng>,
    born: Instant,
    /// How fast its clock runs, in thousandths.
    rate: u32,
    awake: watch::Sender<bool>,
}

/// How long a request is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long something may be on its way and still come.
const LATE: Duration = Duration::from_secs(8);

impl Store {
    pub(crate) fn read(&self, key: &[u8]) -> Option<Bytes> {
        let mut keys = self.keys.lock();
        keys.sweep(key);
        keys.values.get(key).map(|(value, _)| value.clone())
    }

    pub(crate) fn lose_everything(&self) {
        self.keys.lock().values.clear();
    }

    fn swap(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Bytes,
        lives: Option<Duration>,
    ) -> Option<Version> {
        let mut keys = self.keys.lock();
        keys.sweep(key);
        if keys.values.get(key).map(|(value, _)| &**value) != expected {
            return None;
        }
        keys.versions += 1;
        keys.values.insert(key.to_vec(), (new, lives.map(|lives| Instant::now() + lives)));
        Some(Version(keys.versions))
    }
}

impl Keys {
    fn sweep(&mut self, key: &[u8]) {
        if self.values.get(key).is_some_and(|(_, end)| end.is_some_and(|end| end <= Instant::now()))
        {
            self.values.remove(key);
        }
    }
}

impl Process {
    pub(crate) fn new(store: &Arc<Store>, faults: Faults, rate: u32, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            store: Arc::clone(store),
            faults: Mutex::new(faults),
            chance: Mutex::new(StdRng::seed_from_u64(seed)),
            born: Instant::now(),
            rate,
            awake: watch::Sender::new(true),
        })
    }

    /// How long the store has been there, by this process' clock, which was right when it was born.
    pub(crate) fn age(&self) -> Duration {
        self.born - self.store.born + (self.now() - self.born)
    }

    /// Nothing that it asked for comes to it, and it does nothing, until it is resumed.
    pub(crate) fn pause(&self) {
        self.awake.send_replace(false);
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        *self.faults.lock() = faults;
    }

    pub(crate) fn resume(&self) {
        self.awake.send_replace(true);
    }

    /// Waits until it can do something. For ever if it was paused and is forgotten: that is a crash.
    pub(crate) async fn awake(&self) {
        let mut awake = self.awake.subscribe();
        if awake.wait_for(|&awake| awake).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn roll(&self, below: u64) -> u64 {
        self.chance.lock().random_range(0..below.max(1))
    }

    async fn way(&self) {
        let way_ms_max = self.faults.lock().way_ms_max;
        let way = self.roll(way_ms_max * 1000 + 1);
        sleep(Duration::from_micros(way)).await;
    }

    /// One request; `effect` is what it does to the store.
    async fn request<T: Send + 'static>(
        &self,
        effect: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let Faults { refused, request_lost, reply_lost, late, .. } = *self.faults.lock();
        self.awake().await;
        self.way().await;
        let mut roll = u32::try_from(self.roll(1000)).expect("below 1000");
        let mut happens = |share: u32| match roll.checked_sub(share) {
            Some(rest) => {
                roll = rest;
                false
            }
            None => true,
        };
        let outcome = if happens(refused) {
            Err(Error::NotDone("refused".into()))
        } else if happens(request_lost) {
            sleep(PATIENCE).await;
            Err(Error::InDoubt("lost".into()))
        } else if happens(late) {
            let (store, wait) = (Arc::clone(&self.store), self.roll(LATE.as_millis() as u64));
            tokio::spawn(async move {
                sleep(Duration::from_millis(wait)).await;
                effect(&store);
            });
            sleep(PATIENCE).await;
            Err(Error::InDoubt("late".into()))
        } else {
            let done = effect(&self.store);
            if happens(reply_lost) {
                sleep(PATIENCE).await;
                Err(Error::InDoubt("no reply".into()))
            } else {
                Ok(done)
            }
        };
        self.way().await;
        self.awake().await;
        outcome
    }
}

impl Register for Process {
    fn read<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>, Error>> {
        let key = key.to_vec();
        let outcome = self.request(move |store| store.read(&key));
        outcome.map(|read| read.map_err(|error| Error::NotDone(error.to_string()))).boxed()
    }

    fn swap<'a>(
        &'a self,
        key: &'a [u8],
        swap: Swap<'a>,
    ) -> BoxFuture<'a, Result<Option<Version>, Error>> {
        let (key, new) = (key.to_vec(), Bytes::copy_from_slice(swap.new));
        let (expected, lives) = (swap.expected.map(<[u8]>::to_vec), swap.lives);
        self.request(move |store| store.swap(&key, expected.as_deref(), new, lives)).boxed()
    }

    fn now(&self) -> Instant {
        self.born + self.born.elapsed() * self.rate / 1000
    }

    fn sleep_until(&self, until: Instant) -> BoxFuture<'_, ()> {
        let wait = until.saturating_duration_since(self.born) * 1000 / self.rate;
        // A microsecond more than nothing, so that rounding never wakes it before its time.
        let until = self.born + wait + Duration::from_micros(1);
        async move {
            tokio::time::sleep_until(until).await;
            self.awake().await;
        }
        .boxed()
    }

    fn random(&self) -> u64 {
        self.chance.lock().random()
    }
}
