//! Keeps a warning that strangers can cause at will from filling the log.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Least time between two warnings of one sort.
const EVERY: Duration = Duration::from_secs(5);

/// Lets one warning of a sort through at a time.
#[derive(Debug, Default)]
pub struct Muffle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: Option<Instant>,
    held_back: u64,
}

impl Muffle {
    /// Whether to warn now; if so, how many warnings were held back since the last one.
    #[must_use]
    pub fn admits(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.0.lock();
        if state.next.is_some_and(|next| now < next) {
            state.held_back += 1;
            return None;
        }
        state.next = Some(now + EVERY);
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_warning_at_a_time_and_the_count_of_the_others() {
        let muffle = Muffle::default();
        assert_eq!(muffle.admits(), Some(0));
        assert_eq!((muffle.admits(), muffle.admits()), (None, None));
        tokio::time::advance(EVERY).await;
        assert_eq!(muffle.admits(), Some(2));
    }
}
