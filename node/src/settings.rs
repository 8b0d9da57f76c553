//! What may be changed while a node runs: `CONFIG SET`. Made from the configuration, gone with the
//! process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;
use scatterhoard_store::Policy;

use crate::config::Config;

/// Batches that take longer than this are slow. Redis, `slowlog-log-slower-than`.
const SLOW_USEC: i64 = 10_000;

/// Slow ones that are kept. Redis, `slowlog-max-len`.
const SLOW_COUNT_MAX: u64 = 128;

/// More would only cost memory.
const SLOW_COUNT_LIMIT: u64 = 100_000;

/// What may be changed while a node runs.
pub(crate) struct Settings {
    maxmemory: AtomicU64,
    /// Place in [`Policy::ALL`].
    policy: AtomicU8,
    slow_usec: AtomicI64,
    slow_count_max: AtomicU64,
    spike_ms: AtomicU64,
    password: Mutex<Option<Arc<[u8]>>>,
    /// Whether there is one, without a lock.
    has_password: AtomicBool,
}

/// A new value for a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    /// Bytes; 0: no limit.
    MaxMemory(u64),
    Policy(Policy),
    ClientsMax(usize),
    /// Below zero: nothing is slow.
    SlowUsec(i64),
    SlowCountMax(u64),
    /// 0: delays are not watched.
    SpikeMs(u64),
    /// 0: no limit.
    TrackedKeysMax(u64),
    /// Empty: none.
    Password(Vec<u8>),
}

/// Why a value is not one for a setting, in the words of Redis 7.0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadValue {
    #[error("argument must be a memory value")]
    Memory,
    #[error("argument couldn't be parsed into an integer")]
    NotAnInteger,
    #[error("argument must be between {least} and {most} inclusive")]
    OutOfRange { least: i64, most: i64 },
    #[error(
        "argument(s) must be one of the following: volatile-lru, volatile-lfu, volatile-random, \
         volatile-ttl, allkeys-lru, allkeys-lfu, allkeys-random, noeviction"
    )]
    Policy,
}

impl Settings {
    /// As the configuration has them.
    pub(crate) fn new(config: &Config) -> Self {
        let settings = Self {
            maxmemory: AtomicU64::new(config.maxmemory),
            policy: AtomicU8::new(0),
            slow_usec: AtomicI64::new(SLOW_USEC),
            slow_count_max: AtomicU64::new(SLOW_COUNT_MAX),
            spike_ms: AtomicU64::new(0),
            password: Mutex::default(),
            has_password: AtomicBool::new(false),
        };
        settings.set_policy(config.maxmemory_policy);
        settings.set_password(config.requirepass.as_deref().unwrap_or_default().as_bytes());
        settings
    }

    /// Bytes for keys and values, replicas included. 0: no limit.
    pub(crate) fn maxmemory(&self) -> u64 {
        self.maxmemory.load(Ordering::Relaxed)
    }

    pub(crate) fn set_maxmemory(&self, bytes: u64) {
        self.maxmemory.store(bytes, Ordering::Relaxed);
    }

    /// What to evict when memory is used up.
    pub(crate) fn policy(&self) -> Policy {
        Policy::ALL[usize::from(self.policy.load(Ordering::Relaxed))]
    }

    pub(crate) fn set_policy(&self, policy: Policy) {
        let place = Policy::ALL.iter().position(|&it| it == policy);
        let place = place.and_then(|place| u8::try_from(place).ok());
        self.policy.store(place.expect("ALL has every policy"), Ordering::Relaxed);
    }

    /// Whether writes that need memory are refused when there is none left, since nothing may go.
    pub(crate) fn refuses_when_full(&self) -> bool {
        self.policy() == Policy::NoEviction
    }

    /// Microseconds from which on a batch is slow; below zero: none is.
    pub(crate) fn slow_usec(&self) -> i64 {
        self.slow_usec.load(Ordering::Relaxed)
    }

    pub(crate) fn set_slow_usec(&self, usec: i64) {
        self.slow_usec.store(usec, Ordering::Relaxed);
    }

    /// Slow ones that are kept.
    pub(crate) fn slow_count_max(&self) -> u64 {
        self.slow_count_max.load(Ordering::Relaxed)
    }

    pub(crate) fn set_slow_count_max(&self, count: u64) {
        self.slow_count_max.store(count, Ordering::Relaxed);
    }

    /// Milliseconds from which on a delay is noted; 0: none is.
    pub(crate) fn spike_ms(&self) -> u64 {
        self.spike_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn set_spike_ms(&self, ms: u64) {
        self.spike_ms.store(ms, Ordering::Relaxed);
    }

    /// Whether clients have to authenticate.
    pub(crate) fn has_password(&self) -> bool {
        self.has_password.load(Ordering::Relaxed)
    }

    /// Whether this is the password. Any is, if there is none.
    pub(crate) fn is_password(&self, given: &[u8]) -> bool {
        let password = self.password.lock().clone();
        password.is_none_or(|password| is_same(&password, given))
    }

    /// Changes the password. Empty: none is needed.
    pub(crate) fn set_password(&self, password: &[u8]) {
        let mut held = self.password.lock();
        *held = (!password.is_empty()).then(|| password.into());
        self.has_password.store(held.is_some(), Ordering::Relaxed);
    }
}

impl Setting {
    /// The setting of this name, which is in lower case, and its new value. `None`: it cannot be changed,
    /// or there is none.
    pub(crate) fn parse(name: &str, value: &[u8]) -> Option<Result<Self, BadValue>> {
        Some(match name {
            "maxmemory" => bytes(value).map(Self::MaxMemory),
            "maxmemory-policy" => {
                let policy = str::from_utf8(value).ok().and_then(|name| name.parse().ok());
                policy.map(Self::Policy).ok_or(BadValue::Policy)
            }
            "maxclients" => number(value, 1, i64::from(u32::MAX))
                .map(|count| Self::ClientsMax(usize::try_from(count).unwrap_or(usize::MAX))),
            "slowlog-log-slower-than" => number(value, -1, i64::MAX).map(Self::SlowUsec),
            "slowlog-max-len" => number(value, 0, SLOW_COUNT_LIMIT as i64)
                .map(|count| Self::SlowCountMax(count.unsigned_abs())),
            "latency-monitor-threshold" => {
                number(value, 0, i64::MAX).map(|ms| Self::SpikeMs(ms.unsigned_abs()))
            }
            "tracking-table-max-keys" => {
                number(value, 0, i64::MAX).map(|count| Self::TrackedKeysMax(count.unsigned_abs()))
            }
            "requirepass" => Ok(Self::Password(value.to_vec())),
            _ => return None,
        })
    }
}

fn number(value: &[u8], least: i64, most: i64) -> Result<i64, BadValue> {
    let number = str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok());
    let number = number.ok_or(BadValue::NotAnInteger)?;
    let is_in = (least..=most).contains(&number);
    if is_in { Ok(number) } else { Err(BadValue::OutOfRange { least, most }) }
}

/// Bytes, with a unit or without. Redis, `memtoull`: `k` is 1000, `kb` is 1024.
fn bytes(value: &[u8]) -> Result<u64, BadValue> {
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, unit) = value.split_at(digits);
    let factor: u64 = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return Err(BadValue::Memory),
    };
    let number = str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u64>().ok());
    number.and_then(|number| number.checked_mul(factor)).ok_or(BadValue::Memory)
}

/// Compares without telling by its time where two passwords differ.
fn is_same(password: &[u8], given: &[u8]) -> bool {
    let differs = password.iter().zip(given).fold(0, |differs, (a, b)| differs | (a ^ b));
    password.len() == given.len() && std::hint::black_box(differs) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, value: &str, expected: Result<Setting, BadValue>) {
        assert_eq!(Setting::parse(name, value.as_bytes()), Some(expected), "{name} {value}");
    }

    #[test]
    fn values_are_read_as_in_redis() {
        check("maxmemory", "100", Ok(Setting::MaxMemory(100)));
        check("maxmemory", "2kb", Ok(Setting::MaxMemory(2048)));
        check("maxmemory", "3G", Ok(Setting::MaxMemory(3_000_000_000)));
        for bad in ["", "abc", "-1", "1tb", "99999999999999999999", "99999999999gb"] {
            check("maxmemory", bad, Err(BadValue::Memory));
        }
        check("maxmemory-policy", "AllKeys-LRU", Ok(Setting::Policy(Policy::AllKeysLru)));
        check("maxmemory-policy", "x", Err(BadValue::Policy));
        check("slowlog-log-slower-than", "-1", Ok(Setting::SlowUsec(-1)));
        check("slowlog-max-len", "x", Err(BadValue::NotAnInteger));
        let range = BadValue::OutOfRange { least: 1, most: 4_294_967_295 };
        assert_eq!(range.to_string(), "argument must be between 1 and 4294967295 inclusive");
        check("maxclients", "0", Err(range));
        assert_eq!(Setting::parse("port", b"1"), None);
    }

    #[test]
    fn every_policy_can_be_set() {
        let settings = Settings::new(&Config::default());
        for policy in Policy::ALL {
            settings.set_policy(policy);
            assert_eq!(settings.policy(), policy);
            assert_eq!(settings.refuses_when_full(), policy == Policy::NoEviction);
        }
    }

    #[test]
    fn without_a_password_any_is_right() {
        let settings = Settings::new(&Config::default());
        assert!(!settings.has_password() && settings.is_password(b"x"));
        settings.set_password(b"secret");
        assert!(settings.has_password() && settings.is_password(b"secret"));
        for wrong in ["", "secre", "secret1", "Secret"] {
            assert!(!settings.is_password(wrong.as_bytes()), "{wrong}");
        }
        settings.set_password(b"");
        assert!(!settings.has_password());
    }
}
