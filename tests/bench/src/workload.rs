//! What is asked for: commands, keys and values, and when to stop. Knows nothing of sockets.
//!
//! Invariant: the same workload and seed give the same requests.

use std::time::Duration;

/// Bytes in every key: `key:` and twelve digits.
pub const KEY_BYTES: usize = 16;

/// How many different keys there can be at most: what twelve digits can say.
pub const KEYS_MAX: u64 = 1_000_000_000_000;

/// What each request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Command {
    /// `GET key`.
    Get,
    /// `SET key value`.
    Set,
    /// `SET key value` and `WAIT 1 0`, sent as one unit; done when both are answered.
    SetWait1,
}

/// In which order keys come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// Uniformly at random.
    Random,
    /// One after the other, each once before any comes again.
    Sequential,
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After so many requests.
    Requests(u64),
    /// No batch starts after so long.
    Elapsed(Duration),
}

/// The requests of one run.
#[derive(Clone, Debug)]
pub struct Workload {
    /// What each request does.
    pub command: Command,
    /// Different keys: `[1, KEYS_MAX]`.
    pub keys: u64,
    /// In which order they come.
    pub order: Order,
    /// Length of each value.
    pub value_bytes: usize,
    /// Where random keys and the bytes of values start.
    pub seed: u64,
}

/// One run: how much of a workload, and how much of it at once.
#[derive(Clone, Debug)]
pub struct Load {
    /// What is asked for.
    pub workload: Workload,
    /// Clients that run side by side, at least 1.
    pub connections: usize,
    /// Requests a client sends at once; the next ones follow when all are answered. At least 1.
    pub pipeline: usize,
    /// When the run ends.
    pub until: Until,
}

/// Which of the workload's keys: `[0, keys)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyNumber(u64);

impl KeyNumber {
    /// The key itself.
    #[must_use]
    pub fn bytes(self) -> [u8; KEY_BYTES] {
        let mut key = *b"key:000000000000";
        let mut rest = self.0;
        for digit in key[4..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        key
    }
}

/// Gives out key numbers in the workload's order.
#[derive(Debug)]
pub struct Keys {
    keys: u64,
    order: Order,
    state: u64,
}

impl Keys {
    /// From the first key of the workload.
    ///
    /// # Panics
    /// If the workload has no keys or more than [`KEYS_MAX`].
    #[must_use]
    pub fn of(workload: &Workload) -> Self {
        assert!((1..=KEYS_MAX).contains(&workload.keys), "a key number has twelve digits");
        let state = match workload.order {
            Order::Random => workload.seed,
            Order::Sequential => 0,
        };
        Self { keys: workload.keys, order: workload.order, state }
    }

    /// The next key.
    pub fn draw(&mut self) -> KeyNumber {
        match self.order {
            Order::Sequential => {
                let number = self.state;
                self.state = (number + 1) % self.keys;
                KeyNumber(number)
            }
            Order::Random => {
                let random = split_mix(&mut self.state);
                KeyNumber(((u128::from(random) * u128::from(self.keys)) >> 64) as u64)
            }
        }
    }
}

/// The value that every write of this workload carries: printable, the same for one seed.
#[must_use]
pub fn value(workload: &Workload) -> Vec<u8> {
    let mut state = workload.seed;
    (0..workload.value_bytes).map(|_| b'a' + (split_mix(&mut state) % 26) as u8).collect()
}

/// A request as it goes over the wire, encoded once; only the key changes.
#[derive(Debug)]
pub struct Request {
    template: Vec<u8>,
    key_at: usize,
}

impl Request {
    /// Encodes the workload's command for the Redis protocol.
    #[must_use]
    pub fn of(workload: &Workload) -> Self {
        let (head, tail) = match workload.command {
            Command::Get => ("*2\r\n$3\r\nGET\r\n$16\r\n", Vec::new()),
            Command::Set => ("*3\r\n$3\r\nSET\r\n$16\r\n", set_tail(workload, b"")),
            Command::SetWait1 => {
                let wait = b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$1\r\n0\r\n";
                ("*3\r\n$3\r\nSET\r\n$16\r\n", set_tail(workload, wait))
            }
        };
        let mut template = head.as_bytes().to_vec();
        let key_at = template.len();
        template.extend_from_slice(&[b'0'; KEY_BYTES]);
        template.extend_from_slice(b"\r\n");
        template.extend_from_slice(&tail);
        Self { template, key_at }
    }

    /// Appends the request for this key.
    pub fn encode(&self, key: &[u8; KEY_BYTES], out: &mut Vec<u8>) {
        let at = out.len() + self.key_at;
        out.extend_from_slice(&self.template);
        out[at..at + KEY_BYTES].copy_from_slice(key);
    }
}

fn set_tail(workload: &Workload, after: &[u8]) -> Vec<u8> {
    let mut tail = format!("${}\r\n", workload.value_bytes).into_bytes();
    tail.extend_from_slice(&value(workload));
    tail.extend_from_slice(b"\r\n");
    tail.extend_from_slice(after);
    tail
}

/// SplitMix64 (Steele, Lea, Flood 2014): one multiplication chain per key, where a full generator would
/// cost as much as the request.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn workload(command: Command, order: Order) -> Workload {
        Workload { command, keys: 1000, order, value_bytes: 3, seed: 7 }
    }

    #[test]
    fn a_set_goes_over_the_wire_with_its_key_in_place() {
        let workload = workload(Command::Set, Order::Sequential);
        let mut out = b"before".to_vec();
        Request::of(&workload).encode(&KeyNumber(42).bytes(), &mut out);
        let value = String::from_utf8(value(&workload)).unwrap();
        let expected =
            format!("before*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000042\r\n$3\r\n{value}\r\n");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_write_that_waits_is_one_unit() {
        let mut out = Vec::new();
        let request = Request::of(&workload(Command::SetWait1, Order::Sequential));
        request.encode(&KeyNumber(0).bytes(), &mut out);
        assert!(out.ends_with(b"\r\n*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$1\r\n0\r\n"));
    }

    #[test]
    fn sequential_keys_are_each_drawn_once() {
        let mut keys = Keys::of(&workload(Command::Set, Order::Sequential));
        let drawn: HashSet<_> = (0..1000).map(|_| keys.draw().bytes()).collect();
        assert_eq!(drawn.len(), 1000);
        assert_eq!(keys.draw(), KeyNumber(0));
    }

    #[test]
    fn random_keys_repeat_with_the_seed_and_reach_nearly_all() {
        let workload = workload(Command::Set, Order::Random);
        let draw = || {
            let mut keys = Keys::of(&workload);
            (0..5000).map(|_| keys.draw().0).collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
        assert!(draw().iter().all(|number| *number < 1000));
        assert!(draw().into_iter().collect::<HashSet<_>>().len() > 980);
    }
}
