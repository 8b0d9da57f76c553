//! Looks at keys of a Redis server, and leases.
//!
//! A hit costs a `GET` and a `PTTL`, sent together. What is told of a change in between comes before the second answer,
//! so a copy is not kept with the time of another value. Tags cost a `GET` each, and another round; a lease costs a
//! script and a look at the tags' clock.

use std::time::Duration;

use bytes::Bytes;
use scatterhoard_ring::Slot;
use tokio::time::Instant;

use super::frame::{Frame, GONE, Left, decode};
use super::scripts::{Call, LEASE_IT};
use super::{Server, Token, names};
use crate::level::watch::{Begun, Watch};
use crate::level::{Ask, Content, Found, LEASE_MAX, Lease, Look, Mark, Stored};
use crate::listen::LineId;
use crate::{Clock, Command, Effect, Error, Value};

/// Looks that find another value each time they ask for the lease of the one before.
const ROUNDS_COUNT_MAX: usize = 16;

/// What was seen under a key.
struct Seen {
    frame: Frame,
    pttl: i64,
    /// The load that may be kept, and the connection that it was answered over.
    load: Option<(Begun, LineId)>,
}

/// What came of one round.
enum Round {
    Done(Look),
    /// Something is there by now that was not, or the other way round.
    Again,
}

/// What is known of a key before anybody is asked for a lease.
enum Sight {
    Settled(Look),
    /// Nothing, or something stale: what was seen, and what there is if the lease is another's.
    Wanted {
        seen: Bytes,
        stale: Option<(Stored, Option<Mark>)>,
    },
}

impl Server {
    pub(super) async fn look_at(&self, keys: &[Bytes], ask: Ask) -> Vec<Result<Look, Error>> {
        let by = self.cluster.deadline();
        let mut outcomes: Vec<Option<Result<Look, Error>>> = keys.iter().map(|_| None).collect();
        let mut open: Vec<usize> = (0..keys.len()).collect();
        for _ in 0..ROUNDS_COUNT_MAX {
            let asked: Vec<_> = open.iter().map(|&position| keys[position].clone()).collect();
            let rounds = self.round(&asked, ask, by).await;
            let mut again = Vec::new();
            for (position, round) in open.into_iter().zip(rounds) {
                match round {
                    Ok(Round::Done(look)) => outcomes[position] = Some(Ok(look)),
                    Ok(Round::Again) => again.push(position),
                    Err(error) => outcomes[position] = Some(Err(error)),
                }
            }
            open = again;
            if open.is_empty() || Instant::now() >= by {
                break;
            }
        }
        let unsettled = || Err(Error::NotDone("the key changes all the time".to_owned()));
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unsettled)).collect()
    }

    async fn round(&self, keys: &[Bytes], ask: Ask, by: Instant) -> Vec<Result<Round, Error>> {
        let seen = self.see(keys, by).await;
        let stale = self.stale_by_tags(keys, &seen, by).await;
        let mut rounds = Vec::new();
        let mut wanted = Vec::new();
        for (position, (seen, stale)) in seen.into_iter().zip(stale).enumerate() {
            let sight = seen.and_then(|seen| stale.map(|stale| self.sight(seen, stale, ask)));
            rounds.push(match sight {
                Ok(Sight::Settled(look)) => Ok(Round::Done(look)),
                Ok(Sight::Wanted { seen, stale }) => {
                    wanted.push((position, seen, stale));
                    Ok(Round::Again)
                }
                Err(error) => Err(error),
            });
        }
        let Ask::Lease { lasts, .. } = ask else { return rounds };
        if wanted.is_empty() {
            return rounds;
        }
        let asked = wanted.iter().map(|(position, seen, _)| (&keys[*position], seen));
        let given = self.lease(asked, lasts, by).await;
        for ((position, _, stale), given) in wanted.into_iter().zip(given) {
            rounds[position] = given.map(|given| given.round(stale));
        }
        rounds
    }

    /// What is there now.
    async fn see(&self, keys: &[Bytes], by: Instant) -> Vec<Result<Option<Seen>, Error>> {
        let now = Clock::new().now();
        let begin = |key: &Bytes| {
            let server = self.cluster.leader(Slot::of(key))?;
            self.watch.begin_at(&server, key, now)
        };
        let begun: Vec<_> = keys.iter().map(begin).collect();
        let both = |key: &Bytes| ["GET", "PTTL"].map(|name| Command::read(name).key(key));
        let commands: Vec<_> = keys.iter().flat_map(both).collect();
        let mut answers = self.cluster.answers(commands, by).await.into_iter();
        let mut seen = Vec::with_capacity(keys.len());
        for begun in begun {
            let value = answers.next().expect("each command has an answer");
            let left = answers.next().expect("each command has an answer");
            seen.push(value.and_then(|value| {
                let left = left?;
                let load = begun.filter(|_| left.line == value.line);
                let pttl = left.value.into_integer()?;
                let Some(blob) = value.value.into_bytes()? else { return Ok(None) };
                let load = load.map(|begun| (begun, value.line));
                Ok(Some(Seen { frame: decode(blob), pttl, load }))
            }));
        }
        seen
    }

    /// Which of them are stale by a tag. Of those whose tags are followed elsewhere no copy is kept.
    async fn stale_by_tags(
        &self,
        keys: &[Bytes],
        seen: &[Result<Option<Seen>, Error>],
        by: Instant,
    ) -> Vec<Result<Freshness, Error>> {
        let mut commands = Vec::new();
        let now = Clock::new().now();
        let mut begun = Vec::new();
        for (key, seen) in keys.iter().zip(seen) {
            let Ok(Some(seen)) = seen else { continue };
            self.tagged.note(&self.watch, key, &seen.frame.tags);
            for tag in seen.frame.tags.iter().map(|tag| names::tag(tag)) {
                let server = self.cluster.leader(Slot::of(&tag));
                begun.push(server.and_then(|server| self.watch.begin_at(&server, &tag, now)));
                commands.push(Command::read("GET").key(tag));
            }
        }
        let mut answers = if commands.is_empty() {
            Vec::new().into_iter()
        } else {
            self.cluster.answers(commands, by).await.into_iter()
        };
        let mut begun = begun.into_iter();
        let judge = |seen: &Result<Option<Seen>, Error>| {
            let Ok(Some(seen)) = seen else { return Ok(Freshness::LIVE) };
            let count = seen.frame.tags.len();
            let answers: Vec<_> = answers.by_ref().take(count).collect();
            let begun: Vec<_> = begun.by_ref().take(count).collect();
            let mut times = Vec::with_capacity(count);
            let mut followed = true;
            for (answer, begun) in answers.into_iter().zip(begun) {
                let answer = answer?;
                followed &= match (&begun, &seen.load) {
                    (Some(begun), Some((load, line))) => {
                        Watch::together(begun, load) && answer.line == *line
                    }
                    _ => false,
                };
                times.push(answer.value);
            }
            let stale = Self::is_stale(seen.frame.stamp, &times);
            Ok(Freshness { stale, followed })
        };
        seen.iter().map(judge).collect()
    }

    /// What follows from what was seen.
    fn sight(&self, seen: Option<Seen>, freshness: Freshness, ask: Ask) -> Sight {
        let nothing = |seen: Bytes| match ask {
            Ask::Peek => Sight::Settled(Look { found: Found::Absent, mark: None }),
            Ask::Lease { .. } => Sight::Wanted { seen, stale: None },
        };
        let Some(Seen { frame, pttl, load }) = seen else {
            return nothing(Bytes::from_static(b"-"));
        };
        if freshness.stale {
            return nothing(frame.header);
        }
        let Left { lives_for, fresh_for } = frame.left(pttl);
        // After the tags were read: what changed in the meantime ends the load.
        let load = load.filter(|_| freshness.followed);
        let mark = load.and_then(|(begun, line)| self.watch.keep(&begun, line, lives_for));
        let bytes = match frame.content {
            Content::Negative => {
                return Sight::Settled(Look { found: Found::Negative { lives_for }, mark });
            }
            Content::Value(bytes) => bytes,
        };
        let stored = Stored { bytes, fresh_for, lives_for, refresh: None };
        match ask {
            Ask::Lease { stale, .. } if fresh_for == Some(Duration::ZERO) && pttl != GONE => {
                let stale = stale.then_some((stored, mark));
                Sight::Wanted { seen: frame.header, stale }
            }
            Ask::Lease { .. } | Ask::Peek => {
                Sight::Settled(Look { found: Found::Value(stored), mark })
            }
        }
    }

    /// Asks for leases of keys under which this was seen.
    async fn lease<'a>(
        &self,
        wanted: impl Iterator<Item = (&'a Bytes, &'a Bytes)>,
        lasts: Duration,
        by: Instant,
    ) -> Vec<Result<Given, Error>> {
        let lasts = lasts.min(LEASE_MAX);
        let millis = lasts.as_millis().max(1);
        let mut tokens = Vec::new();
        let calls = wanted.map(|(key, seen)| {
            let token = self.unique();
            tokens.push(Token(token));
            Call {
                script: &LEASE_IT,
                // The token is ours: asked twice it is given once.
                effect: Effect::Reads,
                keys: vec![key.clone(), names::lease(key)],
                arguments: vec![
                    digits(Token(token)),
                    Bytes::from(millis.to_string()),
                    seen.clone(),
                ],
            }
        });
        let calls: Vec<_> = calls.collect();
        let answers = self.run_all(calls, by).await;
        let given = answers.into_iter().zip(&tokens).map(|(answer, &token)| {
            let value = answer?.value;
            Given::of(&value, Lease { token, lasts }).ok_or_else(|| value.unexpected("a lease"))
        });
        let given: Vec<_> = given.collect();
        let leases = given.iter().filter_map(|given| match given {
            Ok(Given::Lease(lease)) => Some(*lease),
            _ => None,
        });
        let leases: Vec<_> = leases.collect();
        // After the leases: the sources are read later than that. Without a time, entries with tags are not filled.
        if !leases.is_empty()
            && let Ok(time) = self.time(by).await
        {
            for lease in leases {
                self.leases.given(lease.token, time, lease.lasts);
            }
        }
        given
    }
}

/// Whether an entry is stale by a tag, and whether a copy of it would be told of.
#[derive(Clone, Copy)]
struct Freshness {
    stale: bool,
    followed: bool,
}

impl Freshness {
    const LIVE: Self = Self { stale: false, followed: true };
}

/// What came of asking for a lease.
enum Given {
    Lease(Lease),
    Wait(Duration),
    Again,
}

impl Given {
    fn of(answer: &Value, lease: Lease) -> Option<Self> {
        let Value::Array(parts) = answer else { return None };
        let [Value::Bytes(word), Value::Integer(millis)] = &parts[..] else { return None };
        match &**word {
            b"load" => Some(Self::Lease(lease)),
            b"wait" => Some(Self::Wait(Duration::from_millis(u64::try_from(*millis).unwrap_or(0)))),
            b"again" => Some(Self::Again),
            _ => None,
        }
    }

    /// `stale` will do for whoever cannot load.
    fn round(self, stale: Option<(Stored, Option<Mark>)>) -> Round {
        let (found, mark) = match (self, stale) {
            (Self::Again, _) => return Round::Again,
            (Self::Lease(lease), None) => (Found::Load(lease), None),
            (Self::Wait(at_most), None) => (Found::Wait { at_most }, None),
            (Self::Lease(lease), Some((stored, mark))) => {
                (Found::Value(Stored { refresh: Some(lease), ..stored }), mark)
            }
            (Self::Wait(_), Some((stored, mark))) => (Found::Value(stored), mark),
        };
        Round::Done(Look { found, mark })
    }
}

/// A token as it lies in the server.
pub(super) fn digits(token: Token) -> Bytes {
    format!("{:016x}", token.0).into()
}
