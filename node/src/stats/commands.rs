//! How often each command was called, and how long it took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use scatterhoard_command::{CommandSpec, commands};

/// Buckets of the histogram of a command: up to 1 µs, 2 µs, 4 µs … The last one holds all above 2 s.
pub(crate) const BUCKETS_COUNT: usize = 23;

/// The most microseconds that a call in this bucket took.
pub(crate) const fn bucket_usec_max(bucket: usize) -> u64 {
    1 << bucket
}

/// What was counted of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandCount {
    pub(crate) name: &'static str,
    pub(crate) calls: u64,
    pub(crate) usec: u64,
    /// How many calls are in each bucket.
    pub(crate) buckets: [u64; BUCKETS_COUNT],
}

pub(super) struct Commands {
    tallies: Box<[Tally]>,
    /// From the address of a command's entry in the table to its number. Open addressing; a power of
    /// two, at most half full.
    places: Box<[Place]>,
}

#[derive(Clone, Copy)]
struct Place {
    /// 0: vacant.
    address: usize,
    number: u16,
}

struct Tally {
    name: &'static str,
    calls: AtomicU64,
    usec: AtomicU64,
    buckets: [AtomicU64; BUCKETS_COUNT],
}

impl Commands {
    pub(super) fn new() -> Self {
        let all = commands().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands));
        let all: Vec<&'static CommandSpec> = all.collect();
        let vacant = Place { address: 0, number: 0 };
        let mut places = vec![vacant; (2 * all.len()).next_power_of_two()].into_boxed_slice();
        for (number, spec) in all.iter().enumerate() {
            let mut at = hash(address(spec), places.len());
            while places[at].address != 0 {
                at = (at + 1) % places.len();
            }
            let number = u16::try_from(number).expect("there are some hundred commands");
            places[at] = Place { address: address(spec), number };
        }
        let tally = |spec: &&'static CommandSpec| Tally {
            name: spec.name,
            calls: AtomicU64::new(0),
            usec: AtomicU64::new(0),
            buckets: Default::default(),
        };
        Self { tallies: all.iter().map(tally).collect(), places }
    }

    pub(super) fn number(&self, spec: &'static CommandSpec) -> u16 {
        let mut at = hash(address(spec), self.places.len());
        loop {
            let place = self.places[at];
            if place.address == address(spec) {
                return place.number;
            }
            assert!(place.address != 0, "every entry of the table of commands has a number");
            at = (at + 1) % self.places.len();
        }
    }

    pub(super) fn name_of(&self, number: u16) -> &'static str {
        self.tallies[usize::from(number)].name
    }

    pub(super) fn called(&self, number: u16, count: u64, each: Duration) {
        let tally = &self.tallies[usize::from(number)];
        let each = u64::try_from(each.as_micros()).unwrap_or(u64::MAX);
        tally.calls.fetch_add(count, Ordering::Relaxed);
        tally.usec.fetch_add(each.saturating_mul(count), Ordering::Relaxed);
        tally.buckets[bucket(each)].fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn calls(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.calls.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn called_ones(&self) -> Vec<CommandCount> {
        let count = |tally: &Tally| CommandCount {
            name: tally.name,
            calls: tally.calls.load(Ordering::Relaxed),
            usec: tally.usec.load(Ordering::Relaxed),
            buckets: std::array::from_fn(|at| tally.buckets[at].load(Ordering::Relaxed)),
        };
        self.tallies.iter().map(count).filter(|count| count.calls > 0).collect()
    }

    pub(super) fn reset(&self) {
        for tally in &self.tallies {
            let all = [&tally.calls, &tally.usec].into_iter().chain(&tally.buckets);
            all.for_each(|counter| counter.store(0, Ordering::Relaxed));
        }
    }
}

fn address(spec: &'static CommandSpec) -> usize {
    std::ptr::from_ref(spec).addr()
}

/// `[0, places_count)`, a power of two. Fibonacci hashing: the top bits of a product with an odd number
/// near 2^64/φ.
fn hash(address: usize, places_count: usize) -> usize {
    let product = (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (product >> (u64::BITS - places_count.ilog2())) as usize
}

fn bucket(usec: u64) -> usize {
    let usec = usec.clamp(1, bucket_usec_max(BUCKETS_COUNT - 1));
    usec.next_power_of_two().ilog2() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_subcommand_is_counted_under_its_name() {
        let counted = Commands::new();
        for spec in commands().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands)) {
            let number = counted.number(spec);
            assert_eq!(counted.name_of(number), spec.name);
            counted.called(number, 2, Duration::from_micros(3));
        }
        let counts = counted.called_ones();
        assert!(counts.iter().all(|count| (count.calls, count.usec) == (2, 6)));
        assert_eq!(counted.calls(), 2 * counts.len() as u64);
        counted.reset();
        assert_eq!(counted.called_ones(), []);
    }

    #[test]
    fn buckets_double() {
        for (usec, expected) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1024, 10)] {
            assert_eq!(bucket(usec), expected, "{usec}");
            assert!(usec <= bucket_usec_max(bucket(usec)));
        }
        assert_eq!(bucket(u64::MAX), BUCKETS_COUNT - 1);
    }
}
