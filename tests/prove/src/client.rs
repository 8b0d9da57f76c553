//! A cluster client that tells exactly what it knows of each command: that it was answered, that it
//! certainly was not done, or that its outcome is in doubt. Real clients do not tell the last two apart.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use scatterhoard_ring::Slot;

use crate::resp::{Connection, Value, encoded};

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
    tracks: bool,
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
        Self { seeds, seed: 0, patience: PATIENCE, tracks: false, open, leaders }
    }

    /// The same client, begun with another of its addresses.
    #[must_use]
    pub fn beginning_with(mut self, seed: usize) -> Self {
        self.seed = seed % self.seeds.len();
        self
    }

    /// The same client, which has everything tracked that it reads.
    #[must_use]
    pub fn tracking(mut self) -> Self {
        self.tracks = true;
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
                Some((moved, leader)) if moved != slot || leader == addr => {
                    return astray(addr, &text);
                }
                Some((_, leader)) if redirects < REDIRECTS_MAX => {
                    self.leaders.insert(slot, leader);
                    redirects += 1;
                }
                _ => return self.ended(addr, text),
            }
        }
    }

    /// Asks for several commands at once, each with its first key as its second word: all that go to one
    /// node in one write on one connection, in their order. Tells of each what came of it.
    ///
    /// What was redirected is asked again, as long as that keeps the order of what is asked of one slot: if
    /// only some of a slot's commands were redirected, these are refused.
    pub fn ask_together(&mut self, commands: &[Vec<&[u8]>]) -> Vec<Attempt> {
        let slot = |command: usize| Slot::of(commands[command].get(1).copied().unwrap_or_default());
        let mut attempts: Vec<Option<Attempt>> = vec![None; commands.len()];
        for _ in 0..=REDIRECTS_MAX {
            let mut batches: BTreeMap<SocketAddr, Vec<usize>> = BTreeMap::new();
            for command in (0..commands.len()).filter(|&it| attempts[it].is_none()) {
                let leader = self.leaders.get(&slot(command)).copied();
                batches.entry(leader.unwrap_or(self.seeds[self.seed])).or_default().push(command);
            }
            if batches.is_empty() {
                break;
            }
            for (addr, batch) in batches {
                let words: Vec<_> = batch.iter().map(|&it| commands[it].as_slice()).collect();
                let Some(replies) = self.exchange(addr, &words) else { continue };
                let slots: Vec<Slot> = batch.iter().map(|&it| slot(it)).collect();
                let again = again(addr, &slots, &replies);
                for (at, reply) in replies.into_iter().enumerate() {
                    match again.get(&slots[at]) {
                        Some(&leader) => {
                            self.leaders.insert(slots[at], leader);
                        }
                        None => attempts[batch[at]] = Some(self.attempted(addr, slots[at], reply)),
                    }
                }
            }
        }
        let unreached = || Attempt::Refused("no node that leads could be reached".to_owned());
        attempts.into_iter().map(|it| it.unwrap_or_else(unreached)).collect()
    }

    /// The replies to several commands on one connection; `None` if nothing was sent. After the first that
    /// did not come none did.
    fn exchange(
        &mut self,
        addr: SocketAddr,
        commands: &[&[&[u8]]],
    ) -> Option<Vec<Result<Value, String>>> {
        let Some(connection) = self.connection(addr) else {
            self.forget(addr);
            return None;
        };
        let bytes: Vec<u8> = commands.iter().flat_map(|words| encoded(words)).collect();
        let mut lost = connection.send_raw(&bytes).err().map(|error| error.to_string());
        let mut replies = Vec::with_capacity(commands.len());
        for _ in commands {
            replies.push(match &lost {
                Some(lost) => Err(lost.clone()),
                None => connection.receive().map_err(|error| {
                    lost = Some(error.to_string());
                    error.to_string()
                }),
            });
        }
        if lost.is_some() {
            self.forget(addr);
        }
        Some(replies)
    }

    /// What came of a command that is not asked again.
    fn attempted(&mut self, addr: SocketAddr, slot: Slot, reply: Result<Value, String>) -> Attempt {
        match reply {
            Err(lost) => Attempt::Unknown(lost),
            Ok(Value::Error(text)) => match moved(&text) {
                Some((of, leader)) if of != slot || leader == addr => astray(addr, &text),
                Some(_) | None => self.ended(addr, text),
            },
            Ok(value) => Attempt::Answered(value),
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
            let mut connection =
                Connection::open_within(addr, CONNECT_PATIENCE, self.patience).ok()?;
            if self.tracks {
                connection.track().ok()?;
            }
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

/// A redirection that is no answer to what was asked.
fn astray(addr: SocketAddr, text: &str) -> Attempt {
    Attempt::Answered(Value::Error(format!("{text} (from {addr})")))
}

/// The slots of which all commands were redirected elsewhere than to where they were asked, and where to.
fn again(
    addr: SocketAddr,
    slots: &[Slot],
    replies: &[Result<Value, String>],
) -> BTreeMap<Slot, SocketAddr> {
    let leader = |slot: Slot, reply: &Result<Value, String>| match reply {
        Ok(Value::Error(text)) => {
            moved(text).filter(|&(of, leader)| of == slot && leader != addr).map(|(_, to)| to)
        }
        Ok(_) | Err(_) => None,
    };
    let mut all: BTreeMap<Slot, Option<SocketAddr>> = BTreeMap::new();
    for (&slot, reply) in slots.iter().zip(replies) {
        let to = leader(slot, reply);
        all.entry(slot).and_modify(|known| *known = known.and(to)).or_insert(to);
    }
    all.into_iter().filter_map(|(slot, to)| Some((slot, to?))).collect()
}

fn moved(text: &str) -> Option<(Slot, SocketAddr)> {
    let mut words = text.strip_prefix("MOVED ")?.split(' ');
    let slot = Slot::new(words.next()?.parse().ok()?)?;
    Some((slot, words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// A node that takes one connection: reads so many commands, says this, and goes.
    fn node(asked: usize, says: impl Fn(SocketAddr) -> String + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = Vec::new();
            let mut bytes = [0; 1024];
            while heard.iter().filter(|&&byte| byte == b'*').count() < asked
                || !heard.ends_with(b"\r\n")
            {
                let count = stream.read(&mut bytes).unwrap();
                heard.extend_from_slice(&bytes[..count]);
            }
            stream.write_all(says(addr).as_bytes()).unwrap();
        });
        addr
    }

    const LOG: [&[u8]; 3] = [b"APPEND", b"log", b"x"];

    #[test]
    fn replies_of_a_pipeline_are_told_one_by_one_and_what_is_lost_is_in_doubt() {
        let addr = node(3, |_| ":1\r\n-TRYAGAIN soon\r\n".to_owned());
        let attempts = Client::new(vec![addr]).ask_together(&[LOG, LOG, LOG].map(Vec::from));
        assert_eq!(attempts[0], Attempt::Answered(Value::Integer(1)));
        assert_eq!(attempts[1], Attempt::Refused("TRYAGAIN soon".to_owned()));
        assert!(matches!(attempts[2], Attempt::Unknown(_)), "{attempts:?}");
    }

    #[test]
    fn a_pipeline_that_is_redirected_as_a_whole_is_asked_again() {
        let leader = node(2, |_| ":1\r\n:2\r\n".to_owned());
        let moved = format!("-MOVED {} {leader}\r\n", Slot::of(b"log"));
        let other = node(2, move |_| moved.repeat(2));
        let attempts = Client::new(vec![other]).ask_together(&[LOG, LOG].map(Vec::from));
        assert_eq!(attempts, [1, 2].map(|it| Attempt::Answered(Value::Integer(it))));
    }

    #[test]
    fn what_was_redirected_before_others_were_done_is_not_asked_again_after_them() {
        let moved = format!("MOVED {} 127.0.0.1:1", Slot::of(b"log"));
        let says = format!("-{moved}\r\n:1\r\n");
        let addr = node(2, move |_| says.clone());
        let attempts = Client::new(vec![addr]).ask_together(&[LOG, LOG].map(Vec::from));
        assert_eq!(attempts, [Attempt::Refused(moved), Attempt::Answered(Value::Integer(1))]);
    }
}
