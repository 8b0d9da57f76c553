//! How a generator gets its number, and keeps it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::layout::{Millis, Number, TIME_COUNT};
use super::sequence::Range;
use super::{FirstUse, IdError, IdsConfig, Wall};
use crate::register::{Register, Swap};
use crate::{Error, Value};

/// Numbers that are looked at together: 1024 of them take a few round trips, and no queue is filled.
const LOOKS_COUNT: usize = 64;

/// How far in the future a number that was given back may begin and still be taken: clocks differ a little.
const AHEAD_MAX: Duration = Duration::from_secs(1);

/// By how much wall clocks may differ, where it matters at all: for numbers whose key was lost.
const CLOCKS_DIFFER_MAX: Duration = Duration::from_secs(1);

/// Nobody holds the number.
const NOBODY: u64 = 0;

/// What the key of a number holds: who may issue ids with times before which one. It never expires.
///
/// As bytes: the format (1), the holder as u64, the time as u64 in ms since 1970, both little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    holder: u64,
    until_unix_millis: u64,
}

impl Claim {
    const FORMAT: u8 = 1;
    const BYTES: usize = 17;

    fn encode(self) -> Bytes {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.push(Self::FORMAT);
        bytes.extend(self.holder.to_le_bytes());
        bytes.extend(self.until_unix_millis.to_le_bytes());
        bytes.into()
    }

    fn decode(bytes: &Bytes) -> Result<Self, Error> {
        let fields = match bytes.split_first() {
            Some((&Self::FORMAT, fields)) => fields.as_chunks::<8>(),
            Some(_) | None => (&[][..], &[][..]),
        };
        match fields {
            ([holder, until], []) => Ok(Self {
                holder: u64::from_le_bytes(*holder),
                until_unix_millis: u64::from_le_bytes(*until),
            }),
            _ => Err(Value::Bytes(bytes.clone()).unexpected("who has a number")),
        }
    }
}

/// A number that is held.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) number: Number,
    pub(super) until: Millis,
    /// When the write was sent that made it so.
    pub(super) sent: Instant,
    holder: u64,
    value: Bytes,
}

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewed {
    Kept,
    Lost,
}

pub(super) struct Leaser<W> {
    pub(super) register: Arc<dyn Register>,
    pub(super) wall: W,
    pub(super) config: IdsConfig,
}

impl<W: Wall> Leaser<W> {
    /// Takes a number that is free, and waits until its range has begun.
    pub(super) async fn take(&self, floor: Millis) -> Result<(Held, Range), IdError> {
        let first = self.config.preferred.unwrap_or_else(|| self.any_number());
        let mut unknown = Vec::new();
        let numbers: Vec<_> = first.all_from().collect();
        for numbers in numbers.chunks(LOOKS_COUNT) {
            let keys: Vec<_> = numbers.iter().map(|&number| self.key(number)).collect();
            let looks = join_all(keys.iter().map(|key| self.register.read(key))).await;
            for (&number, look) in numbers.iter().zip(looks) {
                let Some(value) = look? else {
                    unknown.push(number);
                    continue;
                };
                let Some(begins) = self.begins(Claim::decode(&value)?)? else { continue };
                if let Some(held) = self.claim(number, Some(&value), begins.max(floor)).await? {
                    self.wait_until(begins).await;
                    return Ok(of_range(held, begins.max(floor)));
                }
            }
        }
        for number in unknown {
            let begins = self.now()?.after(self.unknown_wait());
            if let Some(mut held) = self.claim(number, None, begins.max(floor)).await? {
                self.wait_until(begins).await;
                return match self.renew(&mut held).await? {
                    Renewed::Kept => Ok(of_range(held, begins.max(floor))),
                    Renewed::Lost => Err(IdError::NoNumber),
                };
            }
        }
        Err(IdError::AllTaken)
    }

    /// Lets the range of a held number go on. An error changes nothing, or is found out the next time.
    pub(super) async fn renew(&self, held: &mut Held) -> Result<Renewed, IdError> {
        let until = self.until(self.now()?).max(held.until);
        let new = self.encode(held.holder, until);
        let key = self.key(held.number);
        let sent = self.register.now();
        let swap = Swap { expected: Some(&held.value), new: &new, lives: None };
        let failed = match self.register.swap(&key, swap).await {
            Ok(Some(_)) => {
                (held.value, held.until, held.sent) = (new, until, sent);
                return Ok(Renewed::Kept);
            }
            Ok(None) => None,
            Err(error @ Error::InDoubt(_)) => Some(error),
            Err(error) => return Err(error.into()),
        };
        // What is there now tells: nobody else writes in this holder's name.
        let Some(value) = self.register.read(&key).await? else { return Ok(Renewed::Lost) };
        let claim = Claim::decode(&value)?;
        if claim.holder != held.holder {
            return Ok(Renewed::Lost);
        }
        held.until = self.config.epoch.since(claim.until_unix_millis);
        held.value = value;
        if held.value == new {
            held.sent = sent;
            return Ok(Renewed::Kept);
        }
        Err(failed.unwrap_or_else(|| Error::NotDone("an earlier renewal came later".into())).into())
    }

    /// Gives a number back: nobody was given an id of it with this time or a later one.
    pub(super) async fn give_back(&self, held: &Held, unused_from: Millis) {
        let new = self.encode(NOBODY, unused_from);
        let key = self.key(held.number);
        let swap = Swap { expected: Some(&held.value), new: &new, lives: None };
        if let Ok(Some(_)) = self.register.swap(&key, swap).await {
            return;
        }
        // A renewal under way may have come first. Without an answer the number is free when its range is over.
        if let Ok(Some(value)) = self.register.read(&key).await
            && Claim::decode(&value).is_ok_and(|claim| claim.holder == held.holder)
        {
            let swap = Swap { expected: Some(&value), new: &new, lives: None };
            let _free_later = self.register.swap(&key, swap).await;
        }
    }

    /// The time by the wall clock, since the epoch.
    fn now(&self) -> Result<Millis, IdError> {
        let (unix, epoch) = (self.wall.unix_millis(), self.config.epoch);
        let now = epoch.since(unix);
        if epoch.unix(Millis(0)) > unix || now.0 >= TIME_COUNT {
            return Err(IdError::NotInEpoch);
        }
        Ok(now)
    }

    /// From when on somebody else may issue ids of a number; `None`: not yet.
    fn begins(&self, claim: Claim) -> Result<Option<Millis>, IdError> {
        let now = self.now()?;
        let until = self.config.epoch.since(claim.until_unix_millis);
        let soon = if claim.holder == NOBODY { now.after(AHEAD_MAX) } else { now };
        Ok((until <= soon).then_some(until.max(now)))
    }

    /// Takes a number with a range that begins then; `None` if somebody else was faster.
    async fn claim(
        &self,
        number: Number,
        expected: Option<&Bytes>,
        begins: Millis,
    ) -> Result<Option<Held>, IdError> {
        // Another for each attempt: one that comes late can then not be taken for a later one.
        let holder = self.register.random() | 1;
        let until = self.until(begins);
        let new = self.encode(holder, until);
        let key = self.key(number);
        let sent = self.register.now();
        let swap = Swap { expected: expected.map(|value| &**value), new: &new, lives: None };
        let is_ours = match self.register.swap(&key, swap).await {
            Ok(swapped) => swapped.is_some(),
            Err(Error::InDoubt(_)) => self.register.read(&key).await?.as_ref() == Some(&new),
            Err(error) => return Err(error.into()),
        };
        Ok(is_ours.then_some(Held { number, until, sent, holder, value: new }))
    }

    /// How long nothing is issued of a number of which nothing is known.
    fn unknown_wait(&self) -> Duration {
        match self.config.first_use {
            FirstUse::Waits => self.config.lease + CLOCKS_DIFFER_MAX,
            FirstUse::AtOnce => Duration::ZERO,
        }
    }

    async fn wait_until(&self, begins: Millis) {
        loop {
            let now = self.config.epoch.since(self.wall.unix_millis());
            if now >= begins {
                return;
            }
            self.register.sleep_until(self.register.now() + begins.since(now)).await;
        }
    }

    fn until(&self, from: Millis) -> Millis {
        from.after(self.config.lease).min(Millis(TIME_COUNT))
    }

    fn encode(&self, holder: u64, until: Millis) -> Bytes {
        Claim { holder, until_unix_millis: self.config.epoch.unix(until) }.encode()
    }

    fn key(&self, number: Number) -> Vec<u8> {
        format!("ids:{}:{}", self.config.name, number.get()).into_bytes()
    }

    fn any_number(&self) -> Number {
        let number = self.register.random() & Number::MASK;
        u16::try_from(number).ok().and_then(Number::new).expect("it was masked")
    }
}

fn of_range(held: Held, from: Millis) -> (Held, Range) {
    let range = Range { number: held.number, from, until: held.until };
    (held, range)
}
