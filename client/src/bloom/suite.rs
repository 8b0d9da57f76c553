//! What every [`FilterLevel`] has to do that gives marks, as tests that anyone can run against their own (feature
//! `suite`).
//!
//! Stories use items of their own, so they can run one after the other on the same filter. None asserts that something
//! is fast; what has to come to pass is waited for, and [`PATIENCE`] is given up after.
//!
//! # Panics
//! All of it panics if the level does not do as it should; that is how tests fail.
#![expect(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "these are tests, and panic if they fail"
)]

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::{FilterLevel, Guard};

/// How long is waited for what has to come to pass.
pub const PATIENCE: Duration = Duration::from_secs(20);

const ROUNDS_COUNT: u32 = 30;

/// Two guards by one filter: sealed, and made for a thousand items and so few errors, say one in a million, that none
/// has to be expected.
#[derive(Debug)]
pub struct Pair<O, T> {
    /// Its answers are judged.
    pub ours: Guard<O>,
    /// Stands for all other processes.
    pub theirs: Guard<T>,
    /// How old an answer may be that ours repeats.
    pub bound: Duration,
}

/// Tells all stories.
pub async fn all<O: FilterLevel, T: FilterLevel>(pair: &Pair<O, T>) {
    what_is_absent_is_known_until_somebody_adds(pair).await;
    what_somebody_added_is_not_denied_beyond_the_bound(pair).await;
    a_question_that_was_overtaken_is_not_kept(pair).await;
    what_we_added_is_denied_by_none_of_our_guards(pair).await;
}

/// Then it is asked for anew, and known again.
pub async fn what_is_absent_is_known_until_somebody_adds<O: FilterLevel, T: FilterLevel>(
    Pair { ours, theirs, bound }: &Pair<O, T>,
) {
    for round in 0..3 {
        known_absent(ours, "nobody").await;
        theirs.add(format!("somebody{round}")).await.unwrap();
        sleep_until(Instant::now() + *bound).await;
        assert!(!ours.is_known_absent(b"nobody"), "{round}: it is older than the bound");
    }
}

/// It was known to be absent.
pub async fn what_somebody_added_is_not_denied_beyond_the_bound<O: FilterLevel, T: FilterLevel>(
    Pair { ours, theirs, bound }: &Pair<O, T>,
) {
    for round in 0..ROUNDS_COUNT {
        let item = format!("late{round}");
        known_absent(ours, &item).await;
        theirs.add(&item).await.unwrap();
        sleep_until(Instant::now() + *bound).await;
        assert_eq!(ours.may_exist(&item).await, Ok(true), "{item}");
    }
}

/// Asks and adds at the same time.
pub async fn a_question_that_was_overtaken_is_not_kept<O: FilterLevel, T: FilterLevel>(
    Pair { ours, theirs, bound }: &Pair<O, T>,
) {
    for round in 0..ROUNDS_COUNT {
        let item = format!("race{round}");
        let (asked, added) = tokio::join!(ours.may_exist(&item), theirs.add(&item));
        assert!(asked.is_ok() && added.is_ok(), "{round}: {asked:?} {added:?}");
        sleep_until(Instant::now() + *bound).await;
        assert_eq!(ours.may_exist(&item).await, Ok(true), "{item}");
    }
}

/// Not even at once, and by none that has the same level.
pub async fn what_we_added_is_denied_by_none_of_our_guards<O: FilterLevel, T>(
    Pair { ours, .. }: &Pair<O, T>,
) {
    let other = Guard::keeping(Arc::clone(&ours.level), &ours.filter, 100);
    for round in 0..ROUNDS_COUNT {
        let item = format!("own{round}");
        known_absent(ours, &item).await;
        known_absent(&other, &item).await;
        ours.add(&item).await.unwrap();
        for guard in [ours, &other] {
            assert_eq!(guard.may_exist(&item).await, Ok(true), "{item}");
        }
    }
}

/// Asks for an item that is absent until that is known without asking.
pub async fn known_absent<L: FilterLevel>(guard: &Guard<L>, item: &str) {
    let begun = Instant::now();
    while !guard.is_known_absent(item.as_bytes()) {
        assert!(begun.elapsed() < PATIENCE, "what the filter says of {item} is not kept");
        assert_eq!(guard.may_exist(item).await, Ok(false), "{item}");
        sleep(Duration::from_millis(1)).await;
    }
}
