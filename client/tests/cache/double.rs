//! A cluster level that is made up: one store, and for each process a network of its own with its delays and faults.
//!
//! Leases are as the nodes have them: one live token for a key; it ends with its time, with any write or removal of
//! the key, and for what carries a tag with an invalidation of that tag. Near copies are under the real rules: each
//! process has a feed, invalidations travel in order and take their time, and probes are answered behind them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use scatterhoard_client::level::{
    Ask, Change, ClusterLevel, Content, Entry, Found, Lease, Look, Mark, Moment, Stored, Token,
    When,
};
use scatterhoard_client::{Clock, Error};
use scatterhoard_near::{Cells, Feed, Follower, KeyHash, Position, Probe, Stamp};
use scatterhoard_ring::{Slot, SlotRange};
use tokio::sync::{Notify, broadcast, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How old a near copy may be.
pub(crate) const BOUND: Duration = Duration::from_millis(200);

const PROBES_EVERY: Duration = Duration::from_millis(20);

/// Chance for tests: one sequence, the same for each seed.
pub(crate) struct Dice(AtomicU64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5CA7)))
    }

    fn number(&self) -> u64 {
        let mut number = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^ (number >> 31)
    }

    pub(crate) fn below(&self, end: u64) -> u64 {
        self.number() % end.max(1)
    }

    /// Up to so long, in steps of 0.1 ms.
    pub(crate) fn time(&self, most: Duration) -> Duration {
        Duration::from_micros(self.below(most.as_micros() as u64 / 100 + 1) * 100)
    }

    /// True so many times of 100.
    pub(crate) fn percent(&self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// What all processes share.
pub(crate) struct Store {
    state: Mutex<State>,
    /// Told whenever a lease ends.
    lease_ended: Notify,
    processes: Mutex<Vec<mpsc::UnboundedSender<(Instant, News)>>>,
    pub(crate) looks_count: AtomicUsize,
    pub(crate) requests_count: AtomicUsize,
    dice: Arc<Dice>,
}

#[derive(Default)]
struct State {
    slots: BTreeMap<Vec<u8>, Place>,
    /// When each tag was invalidated last.
    tags: HashMap<Bytes, u64>,
    steps: u64,
    tokens: u64,
}

#[derive(Default)]
struct Place {
    has: Option<Has>,
    lease: Option<(Token, Instant, u64)>,
}

#[derive(Clone)]
struct Has {
    content: Content,
    soft: Option<Instant>,
    hard: Option<Instant>,
    tags: Vec<Bytes>,
    step: u64,
}

#[derive(Clone)]
enum News {
    Changed(Bytes),
    Answered(Probe),
    Lost,
}

/// One process's connection to the store.
pub(crate) struct Link {
    store: Arc<Store>,
    follower: Arc<Mutex<Follower>>,
    feed: Arc<Feed>,
    news: mpsc::UnboundedSender<(Instant, News)>,
    changes: broadcast::Sender<Change>,
    pub(crate) faults: Faults,
}

/// What goes wrong between one process and the store.
pub(crate) struct Faults {
    /// Nothing gets through: each request fails.
    pub(crate) down: AtomicBool,
    /// Nothing gets through, and nobody says so.
    pub(crate) hangs: AtomicBool,
    /// Requests that are lost before or after they were done, of 100.
    pub(crate) lost_percent: AtomicU64,
    /// The next so many fills are done, and their replies lost.
    pub(crate) fill_replies_lost: AtomicUsize,
    /// The answers of the next so many looks come this much later.
    pub(crate) looks_late: Mutex<(usize, Duration)>,
    /// No news come through for now.
    pub(crate) deaf: AtomicBool,
    /// The stream is broken: what is in it is lost, up to where that is noticed.
    broken: AtomicBool,
    /// How long each way takes at most, in microseconds.
    pub(crate) delay_max_us: AtomicU64,
}

impl Store {
    pub(crate) fn new(dice: &Arc<Dice>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            lease_ended: Notify::new(),
            processes: Mutex::default(),
            looks_count: AtomicUsize::new(0),
            requests_count: AtomicUsize::new(0),
            dice: Arc::clone(dice),
        })
    }

    /// A process that reaches it.
    pub(crate) fn link(self: &Arc<Self>) -> Arc<Link> {
        let slots = SlotRange::new(0, 1).expect("one slot, which stands for all");
        let feed = Arc::new(Feed::new(slots, Arc::new(Cells::new(8))));
        let follower = Arc::new(Mutex::new(Follower::new(Arc::clone(&feed), BOUND)));
        let (news, heard) = mpsc::unbounded_channel();
        self.processes.lock().push(news.clone());
        let changes = broadcast::Sender::new(64);
        let faults = Faults {
            down: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            lost_percent: AtomicU64::new(0),
            fill_replies_lost: AtomicUsize::new(0),
            looks_late: Mutex::default(),
            deaf: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            delay_max_us: AtomicU64::new(0),
        };
        let link =
            Arc::new(Link { store: Arc::clone(self), follower, feed, news, changes, faults });
        tokio::spawn(hear(Arc::clone(&link), heard));
        tokio::spawn(probe(Arc::downgrade(&link)));
        link
    }

    /// A change: told to all, before it is acknowledged.
    fn tell(&self, key: &[u8]) {
        for process in self.processes.lock().iter() {
            let _ = process.send((Instant::now(), News::Changed(Bytes::copy_from_slice(key))));
        }
    }

    fn change(&self, state: &mut State, key: &[u8], has: Option<Has>) {
        let place = state.slots.entry(key.to_vec()).or_default();
        place.has = has;
        place.lease = None;
        self.lease_ended.notify_waiters();
        self.tell(key);
    }
}

impl State {
    fn step(&mut self) -> u64 {
        self.steps += 1;
        self.steps
    }

    /// What there is by now.
    fn has(&self, key: &[u8], now: Instant) -> Option<Has> {
        let has = self.slots.get(key)?.has.clone()?;
        let over = has.hard.is_some_and(|hard| hard <= now);
        let stale =
            has.tags.iter().any(|tag| self.tags.get(tag).is_some_and(|step| *step > has.step));
        (!over && !stale).then_some(has)
    }

    fn lease(&self, key: &[u8], now: Instant) -> Option<(Token, Duration, u64)> {
        let (token, until, step) = self.slots.get(key)?.lease?;
        (now < until).then(|| (token, until - now, step))
    }

    fn give_lease(&mut self, key: &[u8], now: Instant, lasts: Duration) -> Lease {
        self.tokens += 1;
        let (token, step) = (Token(self.tokens), self.step());
        self.slots.entry(key.to_vec()).or_default().lease = Some((token, now + lasts, step));
        Lease { token, lasts }
    }

    fn look(&mut self, key: &[u8], ask: Ask, now: Instant) -> Found {
        let left = |end: Option<Instant>| end.map(|end| end.saturating_duration_since(now));
        let has = self.has(key, now);
        if let Some(Has { content: Content::Negative, hard, .. }) = has {
            return Found::Negative { lives_for: left(hard) };
        }
        let value = has.and_then(|has| match has.content.clone() {
            Content::Value(bytes) => Some((bytes, has)),
            Content::Negative => None,
        });
        let leased = self.lease(key, now);
        match (value, ask) {
            (Some((bytes, has)), ask) => {
                let overdue = has.soft.is_some_and(|soft| soft <= now);
                let refresh = match ask {
                    Ask::Lease { lasts, .. } if overdue && leased.is_none() => {
                        Some(self.give_lease(key, now, lasts))
                    }
                    Ask::Lease { .. } | Ask::Peek => None,
                };
                Found::Value(Stored {
                    bytes,
                    fresh_for: left(has.soft).or(left(has.hard)),
                    lives_for: left(has.hard),
                    refresh,
                })
            }
            (None, Ask::Peek) => Found::Absent,
            (None, Ask::Lease { lasts, .. }) => match leased {
                Some((_, at_most, _)) => Found::Wait { at_most },
                None => Found::Load(self.give_lease(key, now, lasts)),
            },
        }
    }
}

impl Link {
    /// One request: its way, what it does, and the way back.
    async fn request<T>(&self, write: bool, act: impl FnOnce(&mut State) -> T) -> Result<T, Error> {
        self.store.requests_count.fetch_add(1, Ordering::Relaxed);
        let most = Duration::from_micros(self.faults.delay_max_us.load(Ordering::Relaxed));
        let delay = || sleep(self.store.dice.time(most));
        if self.faults.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.faults.down.load(Ordering::Relaxed) {
            return Err(Error::NotDone("no connection".to_owned()));
        }
        let lost = || self.store.dice.percent(self.faults.lost_percent.load(Ordering::Relaxed));
        let in_doubt = || match write {
            true => Error::InDoubt("the connection was lost".to_owned()),
            false => Error::NotDone("the connection was lost".to_owned()),
        };
        delay().await;
        if lost() {
            return Err(in_doubt());
        }
        let done = act(&mut self.store.state.lock());
        delay().await;
        if lost() || self.faults.down.load(Ordering::Relaxed) {
            return Err(in_doubt());
        }
        Ok(done)
    }

    async fn look_at(&self, key: &[u8], ask: Ask) -> Result<Look, Error> {
        self.store.looks_count.fetch_add(1, Ordering::Relaxed);
        let slot = Slot::new(0).expect("there is one");
        let ticket = self.feed.begin(slot, KeyHash::of(key, 0), Clock::new().now());
        let found = self.request(false, |state| state.look(key, ask, Instant::now())).await?;
        let late = {
            let mut late = self.faults.looks_late.lock();
            let left = late.0.checked_sub(1);
            left.map(|left| std::mem::replace(&mut late.0, left)).map(|_| late.1)
        };
        sleep(late.unwrap_or_default()).await;
        let lives_for = match &found {
            Found::Value(stored) => stored.lives_for,
            Found::Negative { lives_for } => *lives_for,
            Found::Absent | Found::Load(_) | Found::Wait { .. } => None,
        };
        let mark = self.feed.keep(ticket.expect("all slots are there"), lives_for);
        Ok(Look { found, mark })
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.faults.down.store(down, Ordering::Relaxed);
    }

    pub(crate) fn set_delay(&self, most: Duration) {
        self.faults.delay_max_us.store(most.as_micros() as u64, Ordering::Relaxed);
    }

    /// The stream of news breaks: what was on its way is lost, and that is noticed.
    pub(crate) fn cut(&self) {
        self.faults.broken.store(true, Ordering::Relaxed);
        let _ = self.news.send((Instant::now(), News::Lost));
    }
}

/// Takes in the news, in order, some time after they were sent.
async fn hear(link: Arc<Link>, mut heard: mpsc::UnboundedReceiver<(Instant, News)>) {
    let stamp = Stamp::default();
    while let Some((sent, news)) = heard.recv().await {
        let most = Duration::from_micros(link.faults.delay_max_us.load(Ordering::Relaxed));
        sleep_until(sent + link.store.dice.time(most)).await;
        while link.faults.deaf.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(1)).await;
        }
        let broken = link.faults.broken.load(Ordering::Relaxed);
        match news {
            News::Changed(_) | News::Answered(_) if broken => {}
            News::Changed(key) => {
                link.feed.invalidated(KeyHash::of(&key, 0));
                let _ = link.changes.send(Change::Key(key));
            }
            News::Answered(probe) => {
                let mut follower = link.follower.lock();
                follower.probe_answered(probe, stamp, Position::new(0));
                follower.reached(stamp, Position::new(0));
            }
            News::Lost => {
                link.faults.broken.store(false, Ordering::Relaxed);
                link.follower.lock().reset();
                let _ = link.changes.send(Change::Everything);
            }
        }
    }
}

/// Asks again and again how far the news are.
async fn probe(link: std::sync::Weak<Link>) {
    while let Some(link) = link.upgrade() {
        let asked = link.follower.lock().probe_sent(Clock::new().now());
        let most = Duration::from_micros(link.faults.delay_max_us.load(Ordering::Relaxed));
        sleep(link.store.dice.time(most)).await;
        let reached = !link.faults.down.load(Ordering::Relaxed);
        if reached && !link.faults.hangs.load(Ordering::Relaxed) {
            let _ = link.news.send((Instant::now(), News::Answered(asked)));
        }
        drop(link);
        sleep(PROBES_EVERY).await;
    }
}

fn has(entry: &Entry, step: u64, now: Instant) -> Has {
    Has {
        content: entry.content.clone(),
        soft: entry.soft.map(|soft| now + soft),
        hard: entry.hard.map(|hard| now + hard),
        tags: entry.tags.clone(),
        step,
    }
}

impl ClusterLevel for Link {
    fn look<'a>(&'a self, key: &'a [u8], ask: Ask) -> BoxFuture<'a, Result<Look, Error>> {
        self.look_at(key, ask).boxed()
    }

    fn look_many<'a>(
        &'a self,
        keys: &'a [Bytes],
        ask: Ask,
    ) -> BoxFuture<'a, Vec<Result<Look, Error>>> {
        join_all(keys.iter().map(move |key| self.look_at(key, ask))).boxed()
    }

    fn wait<'a>(&'a self, key: &'a [u8], at_most: Duration) -> BoxFuture<'a, Result<(), Error>> {
        let wait = async move {
            self.request(false, |_| ()).await?;
            let ended = async {
                loop {
                    let ended = self.store.lease_ended.notified();
                    let lease = self.store.state.lock().lease(key, Instant::now());
                    let Some((_, left, _)) = lease else { return };
                    let _either = timeout(left, ended).await;
                }
            };
            let _either = timeout(at_most, ended).await;
            self.request(false, |_| ()).await
        };
        wait.boxed()
    }

    fn fill<'a>(
        &'a self,
        key: &'a [u8],
        token: Token,
        entry: &'a Entry,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        let fill = async move {
            let filled = self.request(true, |state| {
                let now = Instant::now();
                let Some((live, _, since)) = state.lease(key, now) else { return false };
                let stale = |tag| state.tags.get(tag).is_some_and(|step| *step > since);
                if live != token || entry.tags.iter().any(stale) {
                    return false;
                }
                let has = has(entry, state.step(), now);
                self.store.change(state, key, Some(has));
                true
            });
            let filled = filled.await?;
            let lost = &self.faults.fill_replies_lost;
            if lost.load(Ordering::Relaxed) > 0 {
                lost.fetch_sub(1, Ordering::Relaxed);
                return Err(Error::InDoubt("the reply was lost".to_owned()));
            }
            Ok(filled)
        };
        fill.boxed()
    }

    fn release<'a>(&'a self, key: &'a [u8], token: Token) -> BoxFuture<'a, Result<bool, Error>> {
        let release = self.request(true, move |state| {
            let live = state.lease(key, Instant::now()).is_some_and(|(live, ..)| live == token);
            if let (true, Some(place)) = (live, state.slots.get_mut(key)) {
                place.lease = None;
                self.store.lease_ended.notify_waiters();
            }
            live
        });
        release.boxed()
    }

    fn set<'a>(
        &'a self,
        key: &'a [u8],
        entry: &'a Entry,
        when: &'a When,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        let set = self.request(true, move |state| {
            let now = Instant::now();
            let bytes = state.has(key, now).and_then(|has| match has.content {
                Content::Value(bytes) => Some(bytes),
                Content::Negative => None,
            });
            let holds = match when {
                When::Always => true,
                When::Absent => bytes.is_none(),
                When::Present => bytes.is_some(),
                When::Equal(expected) => bytes.as_ref() == Some(expected),
            };
            if holds {
                let has = has(entry, state.step(), now);
                self.store.change(state, key, Some(has));
            }
            holds
        });
        set.boxed()
    }

    fn set_many<'a>(
        &'a self,
        entries: &'a [(Bytes, Entry)],
    ) -> BoxFuture<'a, Vec<Result<(), Error>>> {
        let set = |(key, entry): &'a (Bytes, Entry)| {
            self.set(key, entry, &When::Always).map(|set| set.map(drop))
        };
        join_all(entries.iter().map(set)).boxed()
    }

    fn remove<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<bool, Error>> {
        let remove = self.request(true, move |state| {
            let there = state.has(key, Instant::now());
            self.store.change(state, key, None);
            there.is_some_and(|has| has.content != Content::Negative)
        });
        remove.boxed()
    }

    fn invalidate_tags<'a>(&'a self, tags: &'a [Bytes]) -> BoxFuture<'a, Result<(), Error>> {
        let invalidate = self.request(true, move |state| {
            let step = state.step();
            state.tags.extend(tags.iter().map(|tag| (tag.clone(), step)));
            let carries = |has: &Has| has.tags.iter().any(|tag| tags.contains(tag));
            for (key, place) in &state.slots {
                if place.has.as_ref().is_some_and(carries) {
                    self.store.tell(key);
                }
            }
        });
        invalidate.boxed()
    }

    fn may_serve(&self, mark: &Mark, now: Moment) -> bool {
        self.feed.may_serve(mark, now)
    }

    fn is_dead(&self, mark: &Mark, now: Moment) -> bool {
        self.feed.is_dead(mark, now)
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }
}
