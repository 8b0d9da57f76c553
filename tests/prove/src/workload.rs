//! Clients that ask for random things of a few keys while faults happen, and note what came of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::client::{Attempt, Client};
use crate::finish::Finish;
use crate::order;
use crate::resp::Value;
use scatterhoard_check::history::{Action, Answer, Pending, Recorder, When};
use scatterhoard_ring::{Slot, SlotRange};

/// Keys of each kind. Few, so that clients meet on them.
const REGISTERS_COUNT: u32 = 12;
const COUNTERS_COUNT: u32 = 5;
const TEXTS_COUNT: u32 = 2;
const PAIRS_COUNT: u32 = 2;
const LEASES_COUNT: u32 = 4;
const ORDERS_COUNT: u32 = 4;

/// One turn of a client in so many is a pipeline, and so many commands are in one.
const PIPELINE_AFTER: u32 = 12;
const PIPELINED_COUNT: Range<u32> = 2..5;

/// How long a probe waits for its reply before it asks another node, as an application might; and at most,
/// where replies take their time: then it waits twice as long as the last one took, and as the last wait
/// that was in vain.
const PROBE_PATIENCE: Duration = Duration::from_millis(300);
const PROBE_PATIENCE_MAX: Duration = Duration::from_millis(1500);

/// Pause between two probes of a partition.
const PROBE_PAUSE: Duration = Duration::from_millis(40);

/// After how many operations a client opens its connections anew, on the average.
const RECONNECT_AFTER: u32 = 300;

/// Who reads everything at the end.
const READER: u32 = u32::MAX;

/// Replies out of place that are kept: more say no more.
const ODDITIES_MAX: usize = 10;

/// Times to live, in milliseconds.
const TTL_MS: Range<u64> = 50..1500;

/// What clients ask for.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Pause of a client between two operations, at most. Without it a history of half a minute is too long
    /// to judge.
    pub pause_ms_max: u64,
    /// After how long clients turn to other keys, so that no key's history becomes too long to judge.
    pub chapter: Option<Duration>,
    /// Whether keys with a time to live are among them.
    pub leases: bool,
    /// Whether clients send several commands at once now and then.
    pub pipelines: bool,
}

impl Default for Mix {
    fn default() -> Self {
        Self { pause_ms_max: 12, chapter: None, leases: false, pipelines: false }
    }
}

/// What several clients share while they make one history.
#[derive(Debug)]
pub struct Workload {
    recorder: Recorder,
    begun: Instant,
    seed: u64,
    mix: Mix,
    over: AtomicBool,
    done: AtomicU64,
    pipelined: AtomicU64,
    odd: Mutex<Vec<String>>,
    pulse: Option<Pulse>,
}

impl Workload {
    /// A workload without operations yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            recorder: Recorder::new(),
            begun: Instant::now(),
            seed,
            mix: Mix::default(),
            over: AtomicBool::new(false),
            done: AtomicU64::new(0),
            pipelined: AtomicU64::new(0),
            odd: Mutex::default(),
            pulse: None,
        }
    }

    /// The same workload, of something else.
    #[must_use]
    pub fn of(mut self, mix: Mix) -> Self {
        self.mix = mix;
        self
    }

    /// The same workload, which notes when partitions took writes last.
    #[must_use]
    pub fn with_pulse(mut self, pulse: Pulse) -> Self {
        self.pulse = Some(pulse);
        self
    }

    /// What was recorded, in nanoseconds since the workload was made.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// When the workload was made.
    #[must_use]
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// How many operations were answered so far.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// How many operations were asked for in pipelines so far.
    #[must_use]
    pub fn pipelined(&self) -> u64 {
        self.pipelined.load(Ordering::Relaxed)
    }

    /// When partitions took writes last, if that is noted.
    #[must_use]
    pub fn pulse(&self) -> Option<&Pulse> {
        self.pulse.as_ref()
    }

    /// Replies that their commands do not have. The operations stay in doubt.
    #[must_use]
    pub fn oddities(&self) -> Vec<String> {
        self.odd.lock().clone()
    }

    /// Lets all clients come to an end, after the operation that they are at, once what is returned is
    /// dropped. So they do even if the test fails.
    #[must_use]
    pub fn finish_on_drop(&self) -> Finish<'_> {
        Finish::of(&self.over)
    }

    /// Is one client until the end: asks for what its number and the seed say. If it has what it reads tracked, it keeps
    /// no copies: what it is told must get in the way of nothing.
    pub fn be(&self, number: u32, seeds: Vec<SocketAddr>, tracks: bool) {
        let mut rng = StdRng::seed_from_u64(self.seed ^ (u64::from(number) << 32));
        let connect = |seed| {
            let client = Client::new(seeds.clone()).beginning_with(seed);
            if tracks { client.tracking() } else { client }
        };
        let mut client = connect(number as usize);
        let mut count = 0;
        while !self.over.load(Ordering::Relaxed) {
            if self.mix.pipelines && rng.random_range(0..PIPELINE_AFTER) == 0 {
                let actions = self.draw_pipeline(&mut rng, number, count);
                count += u32::try_from(actions.len()).expect("a pipeline is short");
                self.perform_together(number, &mut client, actions);
            } else {
                let action = self.draw(&mut rng, number, count);
                count += 1;
                self.perform(number, &mut client, action);
            }
            if rng.random_range(0..RECONNECT_AFTER) == 0 {
                client = connect(rng.random_range(0..seeds.len()));
            }
            thread::sleep(Duration::from_millis(rng.random_range(0..self.mix.pause_ms_max)));
        }
    }

    /// Writes to one slot again and again until the end, and so tells when it took writes.
    pub fn probe(&self, number: u32, slot: Slot, seeds: Vec<SocketAddr>) {
        let tag = (0_u64..)
            .map(|tag| tag.to_string())
            .find(|tag| Slot::of(tag.as_bytes()) == slot)
            .expect("every slot has keys");
        let mut client =
            Client::new(seeds).beginning_with(number as usize).patient_for(PROBE_PATIENCE);
        let mut count = 0;
        while !self.over.load(Ordering::Relaxed) {
            let key = format!("{{{tag}}}:probe{}", self.chapter());
            let asked = Instant::now();
            self.perform(number, &mut client, Action::set(key, format!("{number}.{count}")));
            let patience = (2 * asked.elapsed()).clamp(PROBE_PATIENCE, PROBE_PATIENCE_MAX);
            client.set_patience(patience);
            count += 1;
            thread::sleep(PROBE_PAUSE);
        }
    }

    /// Reads every key that the clients wrote, with several clients of which each has some. Until it is
    /// answered, each is asked for up to ten times. Says which were not.
    #[must_use]
    pub fn read_all(&self, seeds: &[SocketAddr]) -> Vec<String> {
        const READERS_COUNT: usize = 4;
        let history = self.recorder.history();
        let keys: BTreeSet<_> =
            history.iter().flat_map(|operation| operation.action.keys()).collect();
        let keys: Vec<_> = keys.into_iter().collect();
        let share = keys.len().div_ceil(READERS_COUNT).max(1);
        let read = |keys: &[&Bytes]| {
            let mut client = Client::new(seeds.to_vec());
            let unread = keys.iter().filter(|&&key| {
                let get = || Action::get(key.clone());
                !(0..10).any(|_| self.perform(READER, &mut client, get()))
            });
            unread.map(|key| key.escape_ascii().to_string()).collect::<Vec<_>>()
        };
        thread::scope(|scope| {
            let readers: Vec<_> =
                keys.chunks(share).map(|keys| scope.spawn(move || read(keys))).collect();
            readers.into_iter().flat_map(|it| it.join().expect("it comes back")).collect()
        })
    }

    /// Whether it was answered.
    fn perform(&self, number: u32, client: &mut Client, action: Action) -> bool {
        let words = words(&action);
        let words: Vec<&[u8]> = words.iter().map(AsRef::as_ref).collect();
        let pending = self.recorder.begin(number, action.clone(), self.now());
        let attempt = client.ask(&words);
        self.settle(&action, pending, attempt)
    }

    /// All of them at once. When a connection is lost what was not answered is in doubt.
    fn perform_together(&self, number: u32, client: &mut Client, actions: Vec<Action>) {
        let words: Vec<Vec<Bytes>> = actions.iter().map(words).collect();
        let words: Vec<Vec<&[u8]>> =
            words.iter().map(|words| words.iter().map(AsRef::as_ref).collect()).collect();
        let begun = self.now();
        let begin = |action: &Action| self.recorder.begin(number, action.clone(), begun);
        let pending: Vec<Pending> = actions.iter().map(begin).collect();
        self.pipelined.fetch_add(actions.len() as u64, Ordering::Relaxed);
        let attempts = client.ask_together(&words);
        for ((action, pending), attempt) in actions.iter().zip(pending).zip(attempts) {
            self.settle(action, pending, attempt);
        }
    }

    /// Notes what came of an operation. Whether it was answered.
    fn settle(&self, action: &Action, pending: Pending, attempt: Attempt) -> bool {
        match attempt {
            Attempt::Answered(value) => match answer(action, value) {
                Ok(answer) => {
                    let now = self.now();
                    pending.done(answer, now);
                    self.done.fetch_add(1, Ordering::Relaxed);
                    if let Some(pulse) = self.pulse.as_ref().filter(|_| !action.is_read()) {
                        action.keys().first().inspect(|key| pulse.beat(key, now));
                    }
                    true
                }
                Err(value) => {
                    pending.unknown();
                    let mut odd = self.odd.lock();
                    if odd.len() < ODDITIES_MAX {
                        odd.push(format!("{action:?} was answered {value:?}"));
                    }
                    false
                }
            },
            Attempt::Refused(_) => {
                pending.refused(self.now());
                false
            }
            Attempt::Unknown(_) => {
                pending.unknown();
                false
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).expect("five hundred years are enough")
    }

    /// What keys of this time end with.
    fn chapter(&self) -> String {
        self.mix.chapter.map_or_else(String::new, |chapter| {
            format!(".{}", self.begun.elapsed().as_nanos() / chapter.as_nanos().max(1))
        })
    }

    /// The next operation. Every value that is set is set once only, which makes the judgement sharp.
    fn draw(&self, rng: &mut StdRng, number: u32, count: u32) -> Action {
        let value = format!("{number}.{count}");
        let chapter = self.chapter();
        let register = format!("register:{}{chapter}", rng.random_range(0..REGISTERS_COUNT));
        let counter = format!("counter:{}{chapter}", rng.random_range(0..COUNTERS_COUNT));
        let text = format!("text:{}{chapter}", rng.random_range(0..TEXTS_COUNT));
        let pair = rng.random_range(0..PAIRS_COUNT);
        let pair = |side| format!("{{pair:{pair}{chapter}}}:{side}");
        let (left, right) = (pair("left"), pair("right"));
        if self.mix.leases && rng.random_range(0..10) == 0 {
            return lease(rng, &chapter, value);
        }
        match rng.random_range(0..100) {
            0..20 => Action::get(register),
            20..32 => Action::set(register, value),
            32..38 => Action::set_if_absent(register, value),
            38..44 => Action::set_if_present(register, value),
            44..50 => Action::swap(register, value),
            50..55 => Action::delete(register),
            55..58 => Action::get_delete(register),
            58..70 => Action::incr(counter, rng.random_range(1..10)),
            70..76 => Action::get(counter),
            76..78 => Action::delete(counter),
            78..80 => Action::append(text, format!("{value};")),
            80..83 => Action::get(text),
            83..87 => Action::set_many([(left, value.clone()), (right, value)]),
            87..91 => Action::get_many([left, right]),
            _ => Action::set(format!("once:{value}"), value),
        }
    }

    /// The next pipeline: anything, or words that have to come in their order and a look at them.
    fn draw_pipeline(&self, rng: &mut StdRng, number: u32, count: u32) -> Vec<Action> {
        let length = rng.random_range(PIPELINED_COUNT);
        if rng.random() {
            return (0..length).map(|place| self.draw(rng, number, count + place)).collect();
        }
        let key = rng.random_range(0..ORDERS_COUNT);
        let key = format!("{}{key}{}", order::PREFIX, self.chapter());
        let append = |place| Action::append(key.clone(), order::word(number, count, place));
        (0..length).map(append).chain([Action::get(key.clone())]).collect()
    }
}

/// The next operation on a key that expires.
fn lease(rng: &mut StdRng, chapter: &str, value: String) -> Action {
    const NS_PER_MS: u64 = 1_000_000;
    let key = format!("lease:{}{chapter}", rng.random_range(0..LEASES_COUNT));
    match rng.random_range(0..10) {
        0..5 => Action::get(key),
        5..8 => Action::set_for(key, value, rng.random_range(TTL_MS) * NS_PER_MS),
        8 => Action::set(key, value),
        _ => Action::delete(key),
    }
}

/// When each partition took a write last, for those who watch.
#[derive(Debug)]
pub struct Pulse {
    partitions: Vec<(SlotRange, AtomicU64)>,
    longest_silence_ns: AtomicU64,
}

impl Pulse {
    /// Of partitions with these slots.
    #[must_use]
    pub fn of(partitions: impl IntoIterator<Item = SlotRange>) -> Self {
        let partitions = partitions.into_iter().map(|slots| (slots, AtomicU64::new(0))).collect();
        Self { partitions, longest_silence_ns: AtomicU64::new(0) }
    }

    /// For how long any partition has gone without a write at most, until now.
    #[must_use]
    pub fn longest_silence_ns(&self, now_ns: u64) -> u64 {
        let silences = self.partitions.iter().map(|(_, last)| {
            let last = last.load(Ordering::Relaxed);
            if last > 0 { now_ns.saturating_sub(last) } else { 0 }
        });
        let before = self.longest_silence_ns.load(Ordering::Relaxed);
        silences.max().unwrap_or(0).max(before)
    }

    /// Whether every partition has taken a write since then.
    #[must_use]
    pub fn all_since(&self, since_ns: u64) -> bool {
        self.partitions.iter().all(|(_, last)| last.load(Ordering::Relaxed) > since_ns)
    }

    fn beat(&self, key: &[u8], now_ns: u64) {
        let slot = Slot::of(key);
        if let Some((_, last)) = self.partitions.iter().find(|(slots, _)| slots.contains(slot)) {
            let before = last.fetch_max(now_ns, Ordering::Relaxed);
            if before > 0 {
                let silence = now_ns.saturating_sub(before);
                self.longest_silence_ns.fetch_max(silence, Ordering::Relaxed);
            }
        }
    }
}

fn words(action: &Action) -> Vec<Bytes> {
    let word = |text: &'static str| Bytes::from_static(text.as_bytes());
    match action {
        Action::Get { key } => vec![word("GET"), key.clone()],
        Action::GetMany { keys } => {
            [word("MGET")].into_iter().chain(keys.iter().cloned()).collect()
        }
        Action::Set { key, value, when, ttl } => {
            let mut words = vec![word("SET"), key.clone(), value.clone()];
            match when {
                When::Always => {}
                When::Absent => words.push(word("NX")),
                When::Present => words.push(word("XX")),
                When::Equal(expected) => words.extend([word("IFEQ"), expected.clone()]),
            }
            if let Some(ttl) = ttl {
                words.extend([word("PX"), (ttl / 1_000_000).to_string().into()]);
            }
            words
        }
        Action::SetMany { pairs } => {
            let pairs = pairs.iter().flat_map(|(key, value)| [key.clone(), value.clone()]);
            [word("MSET")].into_iter().chain(pairs).collect()
        }
        Action::Swap { key, value } => vec![word("GETSET"), key.clone(), value.clone()],
        Action::Incr { key, by } => vec![word("INCRBY"), key.clone(), by.to_string().into()],
        Action::Append { key, value } => vec![word("APPEND"), key.clone(), value.clone()],
        Action::Delete { key } => vec![word("DEL"), key.clone()],
        Action::GetDelete { key } => vec![word("GETDEL"), key.clone()],
    }
}

/// What a reply says about an action; the reply, if the command does not have it.
fn answer(action: &Action, value: Value) -> Result<Answer, Value> {
    Ok(match (action, value) {
        (
            Action::Get { .. } | Action::Swap { .. } | Action::GetDelete { .. },
            Value::Bulk(value),
        ) => Answer::Value(value),
        (Action::GetMany { .. }, Value::Array(Some(values))) => {
            let bulk = |value| match value {
                Value::Bulk(value) => Ok(value),
                other => Err(other),
            };
            Answer::Values(values.into_iter().map(bulk).collect::<Result<_, _>>()?)
        }
        (Action::Set { when: When::Always, .. } | Action::SetMany { .. }, Value::Simple(ok))
            if ok == "OK" =>
        {
            Answer::Done
        }
        (Action::Set { .. }, Value::Simple(ok)) if ok == "OK" => Answer::Bool(true),
        (
            Action::Set { when: When::Absent | When::Present | When::Equal(_), .. },
            Value::Bulk(None),
        ) => Answer::Bool(false),
        (Action::Incr { .. } | Action::Append { .. }, Value::Integer(number)) => {
            Answer::Number(number)
        }
        (Action::Delete { .. }, Value::Integer(count @ (0 | 1))) => Answer::Bool(count == 1),
        (_, value) => return Err(value),
    })
}
