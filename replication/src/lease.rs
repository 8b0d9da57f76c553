//! The lease word: whether this replica may answer reads by itself, in one atomic.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Microseconds since the word was made; 48 bits last nine years.
const DEADLINE_BITS: u32 = 48;
const DEADLINE_MASK: u64 = (1 << DEADLINE_BITS) - 1;

/// The term (its low 16 bits) and the deadline of a lease, read and written as one.
///
/// A reader takes a [`Lease`] before it reads the state, and asks [`LeaseWord::holds`] after: a
/// process may be paused in between for longer than the lease lasts.
#[derive(Debug)]
pub(crate) struct LeaseWord {
    origin: Instant,
    word: AtomicU64,
}

/// A lease as it was at one moment. It proves nothing until
/// [`crate::Group::lease_holds`] says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease(u64);

impl Lease {
    /// Whether it was granted in this term, or in one that is a multiple of 65,536 away.
    #[must_use]
    pub fn is_of(self, term: u64) -> bool {
        self.0 >> DEADLINE_BITS == term & (u64::MAX >> DEADLINE_BITS)
    }
}

impl LeaseWord {
    /// No lease.
    pub(crate) fn new(now: Instant) -> Self {
        Self { origin: now, word: AtomicU64::new(0) }
    }

    /// Grants or renews the lease for a term until a deadline.
    pub(crate) fn grant(&self, term: u64, deadline: Instant) {
        self.store(term, self.micros(deadline));
    }

    /// Grants a lease that only [`Self::revoke`] ends: for a sole voter, whom nobody can depose.
    pub(crate) fn grant_for_good(&self, term: u64) {
        self.store(term, DEADLINE_MASK);
    }

    /// Ends the lease at once.
    pub(crate) fn revoke(&self) {
        self.word.store(0, Ordering::SeqCst);
    }

    /// The lease as it is now; `None` if there is none or it has run out at `now`.
    pub(crate) fn take(&self, now: Instant) -> Option<Lease> {
        let lease = Lease(self.word.load(Ordering::SeqCst));
        (lease.0 & DEADLINE_MASK > self.micros(now)).then_some(lease)
    }

    /// Whether the lease taken before still stands at `now`: same term, deadline still ahead. It may
    /// have been renewed meanwhile.
    pub(crate) fn holds(&self, lease: Lease, now: Instant) -> bool {
        let word = self.word.load(Ordering::SeqCst);
        word >> DEADLINE_BITS == lease.0 >> DEADLINE_BITS && word & DEADLINE_MASK > self.micros(now)
    }

    fn store(&self, term: u64, micros: u64) {
        self.word.store(term << DEADLINE_BITS | micros.min(DEADLINE_MASK), Ordering::SeqCst);
    }

    fn micros(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.origin);
        u64::try_from(since.as_micros()).unwrap_or(DEADLINE_MASK - 1)
    }
}

/// How long after the sending of the last heartbeat that a quorum acknowledged a leader may read by
/// itself. Its followers wait `election_ms_max` before they vote for another; a tenth each for
/// either clock being off by 10 % (DESIGN: clocks of different machines run within 10 %).
pub(crate) fn lease_length(election_ms_max: u32) -> Duration {
    Duration::from_millis(u64::from(election_ms_max)) * 8 / 10
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn start() -> (LeaseWord, Instant) {
        let now = tokio_instant();
        (LeaseWord::new(now), now)
    }

    #[expect(clippy::disallowed_methods, reason = "any instant does as an origin")]
    fn tokio_instant() -> Instant {
        Instant::from_std(std::time::Instant::now())
    }

    #[test]
    fn a_lease_ends_at_its_deadline() {
        let (word, t0) = start();
        word.grant(7, t0 + 300 * MS);
        let lease = word.take(t0 + 299 * MS).expect("granted");
        assert!(word.holds(lease, t0 + 299 * MS));
        assert!(!word.holds(lease, t0 + 300 * MS));
        assert_eq!(word.take(t0 + 300 * MS), None);
    }

    #[test]
    fn a_read_across_a_change_of_term_does_not_count() {
        let (word, t0) = start();
        word.grant(7, t0 + 300 * MS);
        let lease = word.take(t0).expect("granted");
        word.grant(8, t0 + 900 * MS);
        assert!(!word.holds(lease, t0 + MS));
    }

    #[test]
    fn a_renewal_during_a_read_keeps_it_valid() {
        let (word, t0) = start();
        word.grant(7, t0 + 10 * MS);
        let lease = word.take(t0).expect("granted");
        word.grant(7, t0 + 300 * MS);
        assert!(word.holds(lease, t0 + 20 * MS));
    }

    #[test]
    fn revoking_ends_even_a_lease_for_good() {
        let (word, t0) = start();
        word.grant_for_good(1);
        let lease = word.take(t0 + 1_000_000_000 * MS).expect("granted");
        word.revoke();
        assert!(!word.holds(lease, t0));
    }
}
