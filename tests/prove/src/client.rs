//! A cluster client that tells exactly what it knows of each command: that it was answered, that it
//! certainly was not done, or that its outcome is in doubt. Real clients do not tell the last two apart.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use scatterhoard_ring::Slot;

use crate::resp::{Connection, Value};

/// How long a reply is waited for by default. Longer than a node lets a command wait.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// How long a node may take to accept a connection. On one machine that is the kernel's work, even if
/// the node is paused.
const CONNECT_PATIENCE: Duration = Duration::from_millis(500);

/// How long [`Client::insist`] goes on, and its pause between two attempts.
const INSISTENCE: Duration = Duration::from_secs(30);
const INSIST_PAUSE: Duration = Duration::from_millis(10);

/// Redirections followed for one command. Each is to where the answering node saw the leader last, so a
/// healthy cluster needs one.
const REDIRECTS_MAX: usize = 8;

/// First words of errors after which a command certainly was not done and will not be.
const NOT_DONE: [&str; 7] =
    ["CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "OOM", "LOADING", "MASTERDOWN", "READONLY"];

/// How a node says that it cannot serve one more client: before it has read anything.
const TOO_MANY_CLIENTS: &str = "ERR max number of clients reached";

/// What a client knows of a command that it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// This is the reply.
    Answered(Value),
    /// It was not done and will not be. Why, in the cluster's words or ours.
    Refused(String),
    /// It may have been done, may be done later, or not. Why, in the cluster's words or ours.
    Unknown(String),
}

/// Follows redirections, remembers who led what, and goes to another node when one is lost.
#[derive(Debug)]
pub struct Client {
    seeds: Vec<SocketAddr>,
    seed: usize,
    patience: Duration,
    open: BTreeMap<SocketAddr, Connection>,
    leaders: BTreeMap<Slot, SocketAddr>,
}

impl Client {
    /// A client that knows these addresses, all of cluster ports or all of any-key ports. It begins with
    /// the first and goes to the next when one is lost.
    #[must_use]
    pub fn new(seeds: Vec<SocketAddr>) -> Self {
        assert!(!seeds.is_empty(), "a client knows an address");
        let (open, leaders) = (BTreeMap::new(), BTreeMap::new());
        Self { seeds, seed: 0, patience: PATIENCE, open, leaders }
    }

    /// The same client, begun with another of its addresses.
    #[must_use]
    pub fn beginning_with(mut self, seed: usize) -> Self {
        self.seed = seed % self.seeds.len();
        self
    }

    /// The same client, waiting so long for each reply.
    #[must_use]
    pub fn patient_for(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Waits so long for each reply from connections that are opened from now on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Asks for a command whose first key is its second word.
    pub fn ask(&mut self, words: &[&[u8]]) -> Attempt {
        let slot = Slot::of(words.get(1).copied().unwrap_or_default());
        let mut unreached = 0;
        let mut redirects = 0;
        loop {
            let addr = self.leaders.get(&slot).copied().unwrap_or(self.seeds[self.seed]);
            let Some(connection) = self.connection(addr) else {
                self.forget(addr);
                unreached += 1;
                if unreached > self.seeds.len() {
                    return Attempt::Refused("no node can be reached".to_owned());
                }
                continue;
            };
            let reply = match connection.call(words) {
                Ok(reply) => reply,
                Err(error) => {
                    self.forget(addr);
                    return Attempt::Unknown(error.to_string());
                }
            };
            let Value::Error(text) = reply else { return Attempt::Answered(reply) };
            match moved(&text) {
                // That would be no answer to what was asked.
                Some((moved, leader)) if moved != slot || leader == addr => {
                    return Attempt::Answered(Value::Error(format!("{text} (from {addr})")));
                }
                Some((_, leader)) if redirects < REDIRECTS_MAX => {
                    self.leaders.insert(slot, leader);
                    redirects += 1;
                }
                _ => return self.ended(addr, text),
            }
        }
    }

    /// Asks again and again until there is an answer. For commands that may be done twice.
    ///
    /// # Panics
    /// If there is none within half a minute.
    pub fn insist(&mut self, words: &[&[u8]]) -> Value {
        let begun = Instant::now();
        loop {
            let attempt = self.ask(words);
            if let Attempt::Answered(value) = attempt {
                return value;
            }
            let command = words.join(&b' ').escape_ascii().to_string();
            assert!(begun.elapsed() < INSISTENCE, "{command} was not answered: {attempt:?}");
            thread::sleep(INSIST_PAUSE);
        }
    }

    fn ended(&mut self, addr: SocketAddr, text: String) -> Attempt {
        let first = text.split(' ').next().unwrap_or_default();
        if first == "MOVED" || NOT_DONE.contains(&first) || text == TOO_MANY_CLIENTS {
            // Another may know better.
            self.leaders.retain(|_, leader| *leader != addr);
            self.seed = (self.seed + 1) % self.seeds.len();
            Attempt::Refused(text)
        } else if first == "INDOUBT" {
            Attempt::Unknown(text)
        } else {
            Attempt::Answered(Value::Error(text))
        }
    }

    fn connection(&mut self, addr: SocketAddr) -> Option<&mut Connection> {
        if !self.open.contains_key(&addr) {
            let connection = Connection::open_within(addr, CONNECT_PATIENCE, self.patience).ok()?;
            self.open.insert(addr, connection);
        }
        self.open.get_mut(&addr)
    }

    /// Forgets a connection that was lost, and what led there.
    fn forget(&mut self, addr: SocketAddr) {
        self.open.remove(&addr);
        self.leaders.retain(|_, leader| *leader != addr);
        if self.seeds[self.seed] == addr {
            self.seed = (self.seed + 1) % self.seeds.len();
        }
    }
}

/// A key in the given slot that begins with `prefix`.
#[must_use]
pub fn key_in(slot: Slot, prefix: &str) -> String {
    (0_u64..)
        .map(|number| format!("{prefix}{number}"))
        .find(|key| Slot::of(key.as_bytes()) == slot)
        .expect("every slot has keys")
}

fn moved(text: &str) -> Option<(Slot, SocketAddr)> {
    let mut words = text.strip_prefix("MOVED ")?.split(' ');
    let slot = Slot::new(words.next()?.parse().ok()?)?;
    Some((slot, words.next()?.parse().ok()?))
}
