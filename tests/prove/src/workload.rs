//! Clients that ask for random things of a few keys while faults happen, and note what came of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::client::{Attempt, Client};
use crate::finish::Finish;
use crate::resp::Value;
use scatterhoard_check::history::{Action, Answer, Recorder, When};

/// Pause of a client between two operations. Without it a history of half a minute is too long to judge.
const PAUSE_MS_MAX: u64 = 12;

/// Keys of each kind. Few, so that clients meet on them.
const REGISTERS_COUNT: u32 = 12;
const COUNTERS_COUNT: u32 = 5;
const TEXTS_COUNT: u32 = 2;
const PAIRS_COUNT: u32 = 2;

/// What several clients share while they make one history.
#[derive(Debug)]
pub struct Workload {
    recorder: Recorder,
    begun: Instant,
    seed: u64,
    over: AtomicBool,
}

impl Workload {
    /// A workload without operations yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            recorder: Recorder::new(),
            begun: Instant::now(),
            seed,
            over: AtomicBool::new(false),
        }
    }

    /// What was recorded, in nanoseconds since the workload was made.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Lets all clients come to an end, after the operation that they are at, once what is returned is
    /// dropped. So they do even if the test fails.
    #[must_use]
    pub fn finish_on_drop(&self) -> Finish<'_> {
        Finish::of(&self.over)
    }

    /// Is one client until the end: asks for what its number and the seed say.
    pub fn be(&self, number: u32, seeds: Vec<SocketAddr>) {
        let mut rng = StdRng::seed_from_u64(self.seed ^ (u64::from(number) << 32));
        let mut client = Client::new(seeds).beginning_with(number as usize);
        let mut count = 0;
        while !self.over.load(Ordering::Relaxed) {
            let action = self.draw(&mut rng, number, count);
            count += 1;
            self.perform(number, &mut client, action);
            thread::sleep(Duration::from_millis(rng.random_range(0..PAUSE_MS_MAX)));
        }
    }

    /// Reads every key that the clients wrote. Until it is answered, each is asked for up to ten times.
    ///
    /// # Panics
    /// If one is not answered.
    pub fn read_all(&self, seeds: Vec<SocketAddr>) {
        let mut client = Client::new(seeds);
        let history = self.recorder.history();
        let keys: BTreeSet<_> =
            history.iter().flat_map(|operation| operation.action.keys()).collect();
        for key in keys {
            let answered =
                (0..10).any(|_| self.perform(u32::MAX, &mut client, Action::get(key.clone())));
            assert!(answered, "{} cannot be read", key.escape_ascii());
        }
    }

    /// Whether it was answered.
    fn perform(&self, number: u32, client: &mut Client, action: Action) -> bool {
        let words = words(&action);
        let words: Vec<&[u8]> = words.iter().map(AsRef::as_ref).collect();
        let pending = self.recorder.begin(number, action.clone(), self.now());
        match client.ask(&words) {
            Attempt::Answered(value) => {
                pending.done(answer(&action, value), self.now());
                true
            }
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

    /// The next operation. Every value that is set is set once only, which makes the judgement sharp.
    fn draw(&self, rng: &mut StdRng, number: u32, count: u32) -> Action {
        let value = format!("{number}.{count}");
        let register = format!("register:{}", rng.random_range(0..REGISTERS_COUNT));
        let counter = format!("counter:{}", rng.random_range(0..COUNTERS_COUNT));
        let text = format!("text:{}", rng.random_range(0..TEXTS_COUNT));
        let pair = rng.random_range(0..PAIRS_COUNT);
        let (left, right) = (format!("{{pair:{pair}}}:left"), format!("{{pair:{pair}}}:right"));
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
}

fn words(action: &Action) -> Vec<Bytes> {
    let word = |text: &'static str| Bytes::from_static(text.as_bytes());
    match action {
        Action::Get { key } => vec![word("GET"), key.clone()],
        Action::GetMany { keys } => {
            [word("MGET")].into_iter().chain(keys.iter().cloned()).collect()
        }
        Action::Set { key, value, when, ttl } => {
            assert!(ttl.is_none(), "this workload sets no deadlines");
            let mut words = vec![word("SET"), key.clone(), value.clone()];
            match when {
                When::Always => {}
                When::Absent => words.push(word("NX")),
                When::Present => words.push(word("XX")),
                When::Equal(expected) => words.extend([word("IFEQ"), expected.clone()]),
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

/// What a reply says about an action. Panics at a reply that the command does not have.
fn answer(action: &Action, value: Value) -> Answer {
    match (action, value) {
        (
            Action::Get { .. } | Action::Swap { .. } | Action::GetDelete { .. },
            Value::Bulk(value),
        ) => Answer::Value(value),
        (Action::GetMany { .. }, Value::Array(Some(values))) => {
            Answer::Values(values.into_iter().map(|value| bulk(action, value)).collect())
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
        (action, value) => panic!("{action:?} was answered {value:?}"),
    }
}

fn bulk(action: &Action, value: Value) -> Option<Bytes> {
    match value {
        Value::Bulk(value) => value,
        other => panic!("{action:?} was answered with {other:?} among others"),
    }
}
