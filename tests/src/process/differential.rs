//! The same commands to a real `redis-server` and to a node, and what each answers, byte for byte.
//!
//! What may differ is in one table, `docs/redis-differences.md`: [`Differences`] reads it, and has a rule for
//! each of its rows. A difference that no rule allows is a failure, and so is a row that nothing needs.

mod differences;
mod server;
mod talk;

use std::net::SocketAddr;

pub use differences::{Differences, Row};
pub use server::RedisServer;
pub use talk::{Request, Script};

use super::Cluster;
use super::resp::Connection;
use differences::{Exchange, Then};

/// Both servers.
#[derive(Debug)]
pub struct Pair {
    redis: RedisServer,
    node: Cluster,
    differences: Differences,
}

/// A reply that should have been the same.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// They answered differently, and no row of the table allows it.
    #[error(
        "{request}\n    redis: {redis}\n    hoard: {hoard}\n    no row of docs/redis-differences.md allows this"
    )]
    Reply {
        /// The command.
        request: String,
        /// What Redis answered.
        redis: String,
        /// What the node answered.
        hoard: String,
    },
    /// One answered more often than the other, or closed the connection earlier.
    #[error("after equal answers redis goes on with {redis}\n    and hoard with {hoard}")]
    Length {
        /// What Redis answered from there on.
        redis: String,
        /// What the node answered from there on.
        hoard: String,
    },
    /// One could not be talked to.
    #[error("{server}: {error}")]
    Lost {
        /// Which one.
        server: &'static str,
        /// Why.
        error: std::io::Error,
    },
}

impl Pair {
    /// Starts both, empty, with the same limits: a value may have 1 MiB.
    ///
    /// # Panics
    /// If one does not start.
    #[must_use]
    pub fn start() -> Self {
        Self {
            redis: RedisServer::start(),
            node: Cluster::with(1, &["--max-value", "1mb"]),
            differences: Differences::read(),
        }
    }

    /// The table of differences.
    #[must_use]
    pub fn differences(&self) -> &Differences {
        &self.differences
    }

    /// Gives the script to both, each empty and on a new connection, and compares the answers. Says which
    /// rows of the table were needed.
    ///
    /// # Errors
    /// The first difference that is not intended.
    pub fn compare(&self, script: &Script) -> Result<Vec<&'static str>, Mismatch> {
        let redis = self.answers("redis", self.redis.addr(), script)?;
        let hoard = self.answers("hoard", self.node.any_keys()[0], script)?;
        let (answered, parts) = script.answered();
        let mut needed = Vec::new();
        for (number, (redis, hoard)) in redis.iter().zip(&hoard).enumerate() {
            if parts && number == answered.len() {
                return Ok(needed);
            }
            if redis.bytes == hoard.bytes {
                continue;
            }
            // Where the mapping is lost, as after a protocol error, no row allows anything.
            let nothing = Request::default();
            let request = answered.get(number).copied().unwrap_or(&nothing);
            let exchange = Exchange { words: &request.words, redis, hoard };
            match self.differences.allow(&exchange) {
                Some((name, then)) => {
                    needed.push(name);
                    match then {
                        Then::GoesOn => {}
                        Then::Parts => return Ok(needed),
                    }
                }
                None => {
                    return Err(Mismatch::Reply {
                        request: request.to_string(),
                        redis: redis.to_string(),
                        hoard: hoard.to_string(),
                    });
                }
            }
        }
        let rest = |answers: &[talk::Answer]| {
            let shown = answers.iter().skip(redis.len().min(hoard.len())).take(3);
            shown.map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        if redis.len() != hoard.len() {
            return Err(Mismatch::Length { redis: rest(&redis), hoard: rest(&hoard) });
        }
        Ok(needed)
    }

    fn answers(
        &self,
        server: &'static str,
        addr: SocketAddr,
        script: &Script,
    ) -> Result<Vec<talk::Answer>, Mismatch> {
        let answers = empty(addr).and_then(|()| talk::talk(addr, script));
        answers.map_err(|error| Mismatch::Lost { server, error })
    }
}

fn empty(addr: SocketAddr) -> std::io::Result<()> {
    Connection::open(addr, talk::PATIENCE)?.call(&[b"FLUSHALL"]).map(drop)
}
