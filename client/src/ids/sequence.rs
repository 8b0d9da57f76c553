//! The sequence of ids, as one atomic word. Knows nothing of clocks or of who gave it its range: both are arguments.
//!
//! **Why ids are unique and increasing.** The word is the last id. Each id is the outcome of one successful
//! compare-and-set of it to something greater, so no two are the same, and who got an id before asking for another
//! sees it grow. None has a time at or beyond `until`: a thread reads the word, then `until`, then swaps the word; were
//! the range withdrawn in between, the word was swapped for [`STOPPED`] first, and the thread's swap fails. The word
//! never has a value twice with another range: it continues where it was, or begins at a greater time.

use std::cmp::Ordering;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use super::layout::{Id, Millis, NUMBER_SHIFT, Number, SEQUENCE_MAX, TIME_SHIFT};

/// The range was withdrawn. No id: ids leave the highest bit clear.
const STOPPED: u64 = u64::MAX;

/// How far a clock may go back and be waited for.
pub(super) const BACK_MAX: Millis = Millis(10);

#[derive(Debug)]
pub(super) struct Sequence {
    last: AtomicU64,
    until: AtomicU64,
}

/// What becomes of a wish for an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Id(Id),
    /// When the clock has come to this time.
    Later(Millis),
    /// The clock is so much behind the last id.
    Back(Millis),
    /// There is no range, or the clock is beyond it.
    Over,
}

/// Ids of one number with times in `[from, until)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub number: Number,
    pub from: Millis,
    pub until: Millis,
}

impl Sequence {
    /// Issues nothing yet.
    pub(super) fn stopped() -> Self {
        Self { last: AtomicU64::new(STOPPED), until: AtomicU64::new(0) }
    }

    /// The next id, at this time by the clock.
    pub(super) fn next(&self, now: Millis) -> Next {
        let mut last = self.last.load(Acquire);
        loop {
            if last == STOPPED {
                return Next::Over;
            }
            let until = self.until.load(Acquire);
            let time = last >> TIME_SHIFT;
            let next = match now.0.cmp(&time) {
                // Before anything is shifted: a clock may say anything.
                Ordering::Greater if now.0 >= until => return Next::Over,
                Ordering::Greater => {
                    (now.0 << TIME_SHIFT) | (last & (Number::MASK << NUMBER_SHIFT))
                }
                Ordering::Equal if last & SEQUENCE_MAX < SEQUENCE_MAX && time < until => last + 1,
                Ordering::Equal => return Next::Later(Millis(time + 1)),
                Ordering::Less if time - now.0 <= BACK_MAX.0 => return Next::Later(Millis(time)),
                Ordering::Less => return Next::Back(Millis(time - now.0)),
            };
            match self.last.compare_exchange_weak(last, next, AcqRel, Acquire) {
                Ok(_) => return Next::Id(Id::new(next)),
                Err(other) => last = other,
            }
        }
    }

    /// Issues ids of this range from now on. It must have been stopped, and the range must begin after all that was
    /// issued.
    pub(super) fn begin(&self, range: Range) {
        let before = Id::last_before(range.from, range.number);
        self.until.store(range.until.0, Release);
        let was = self.last.swap(before.bits(), AcqRel);
        assert_eq!(was, STOPPED, "a range begins after the one before was withdrawn");
    }

    /// The range goes on until then. Must not shrink it.
    pub(super) fn extend(&self, until: Millis) {
        let was = self.until.fetch_max(until.0, AcqRel);
        assert!(was <= until.0, "a range only grows");
    }

    /// Issues nothing more. The last id, if there was a range; its sequence may be a made-up one before the first.
    pub(super) fn stop(&self) -> Option<Id> {
        let last = self.last.swap(STOPPED, AcqRel);
        (last != STOPPED).then(|| Id::new(last))
    }

    /// Goes on where it was stopped, with the range it had.
    pub(super) fn resume(&self, last: Id) {
        let was = self.last.swap(last.bits(), AcqRel);
        assert_eq!(was, STOPPED, "it was stopped");
    }
}
