//! Telling threads that it is over.

use std::sync::atomic::{AtomicBool, Ordering};

/// Tells threads that it is over when it is dropped, so that they end even if the test fails.
#[derive(Debug)]
pub struct Finish<'a>(&'a AtomicBool);

impl<'a> Finish<'a> {
    /// Sets `over` when it is dropped.
    #[must_use]
    pub const fn of(over: &'a AtomicBool) -> Self {
        Self(over)
    }
}

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
