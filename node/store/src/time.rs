//! The only time that enters a log.

use std::fmt;

/// Milliseconds since the Unix epoch, as a partition's leader counts them. Stamps on entries and the
/// deadlines of keys are in it. It does not convert to a monotonic instant.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(u64);

impl UnixMillis {
    /// The latest time that Redis clients can express: an `i64` of milliseconds.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// This many milliseconds after the Unix epoch; later times than [`Self::MAX`] become it.
    #[must_use]
    pub const fn new(millis: u64) -> Self {
        if millis > Self::MAX.0 { Self::MAX } else { Self(millis) }
    }

    /// Milliseconds since the Unix epoch: `[0, 2^63)`.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// This time and so many milliseconds more, at most [`Self::MAX`].
    #[must_use]
    pub const fn plus(self, millis: u64) -> Self {
        Self::new(self.0.saturating_add(millis))
    }
}

impl fmt::Debug for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}
