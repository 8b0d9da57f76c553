//! Those who wait until somebody else has loaded a key.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::Error;

/// How long one of them sleeps before it looks by itself; doubled each time. It is told, as a rule.
const LOOK_MIN: Duration = Duration::from_millis(10);
const LOOK_MAX: Duration = Duration::from_millis(250);

/// Nobody waits longer: no lease lasts so long.
const WAIT_MAX: Duration = Duration::from_secs(60 * 60);

/// Places to wait at. Keys that share one are woken together.
const PLACES_COUNT: usize = 256;

/// Where they wait.
pub(super) struct Waiters(Box<[Notify]>);

impl Waiters {
    pub(super) fn new() -> Self {
        Self((0..PLACES_COUNT).map(|_| Notify::new()).collect())
    }

    /// Wakes those who wait for this key, and perhaps others.
    pub(super) fn wake(&self, key: &[u8]) {
        self.place(key).notify_waiters();
    }

    pub(super) fn wake_all(&self) {
        self.0.iter().for_each(Notify::notify_waiters);
    }

    /// Waits at most for so long, until `look` says that nobody loads. It is given a moment by which to answer, and
    /// answers with how long the load may still take, or nothing if there is none.
    pub(super) async fn wait<L>(
        &self,
        key: &[u8],
        at_most: Duration,
        look: impl Fn(Instant) -> L,
    ) -> Result<(), Error>
    where
        L: Future<Output = Result<Option<Duration>, Error>>,
    {
        let until = Instant::now() + at_most.min(WAIT_MAX);
        let mut pause = LOOK_MIN;
        loop {
            let told = self.place(key).notified();
            tokio::pin!(told);
            // Before it looks: that is what makes the server tell.
            told.as_mut().enable();
            let left = match look(until).await {
                Ok(Some(left)) => left,
                Ok(None) => return Ok(()),
                Err(_) if Instant::now() >= until => return Ok(()),
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            tokio::select! {
                biased;
                () = sleep_until(until) => return Ok(()),
                () = told => {}
                () = sleep_until(now + pause.min(left)) => pause = (pause * 2).min(LOOK_MAX),
            }
        }
    }

    fn place(&self, key: &[u8]) -> &Notify {
        let bits = scatterhoard_near::KeyHash::of(key, 0).bits();
        let place = usize::try_from(bits % PLACES_COUNT as u64).expect("it is one of the places");
        &self.0[place]
    }
}
