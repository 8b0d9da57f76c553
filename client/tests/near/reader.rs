//! What a reader shows may be served at that moment; what may not, and never will, is thrown away.

use std::sync::Arc;
use std::time::Duration;

use scatterhoard_client::Clock;
use scatterhoard_client::level::Moment;
use scatterhoard_client::level::near::{
    Fronted, Judgement, Kept, Moka, Near, NearLevel, Quick, Sight, Valid,
};
use tokio::time::advance;

use crate::judge::Judge;

const BOUND: Duration = Duration::from_millis(200);
const MILLISECOND: Duration = Duration::from_millis(1);

fn levels() -> [Arc<dyn NearLevel<String, u32>>; 3] {
    let fronted = Fronted::new(Quick::with_bytes_max(1 << 20), 1 << 14);
    [
        Arc::new(Moka::with_bytes_max(1 << 20)),
        Arc::new(Quick::with_bytes_max(1 << 20)),
        Arc::new(fronted),
    ]
}

fn copy(value: Option<u32>, valid: Valid) -> Kept<u32> {
    Kept { value, weight: 100, soft: Moment::NEVER, valid }
}

fn after(time: Duration) -> Moment {
    Clock::new().now().after(time)
}

/// What is seen, as often as it takes a level to find it hot.
fn seen(near: &Near<String, u32>) -> String {
    let mut seen: Vec<_> = (0..10)
        .map(|_| match near.look(&"key".to_owned()) {
            Sight::Fresh(value) => format!("fresh {value}"),
            Sight::Stale(value) => format!("stale {value}"),
            Sight::Negative => "negative".to_owned(),
            Sight::Nothing => "nothing".to_owned(),
        })
        .collect();
    seen.dedup();
    assert_eq!(seen.len(), 1, "nothing happened in between: {seen:?}");
    seen.remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_served_as_long_as_it_is_proven_to_be_fresh() {
    for level in levels() {
        let judge = Judge::bound(BOUND);
        let near = Near::of(level, judge.clone());
        near.keep("key".to_owned(), copy(Some(1), Valid::Marked(judge.mark("key", None))));
        assert_eq!(seen(&near), "nothing", "nothing is proven yet");
        judge.prove();
        assert_eq!(seen(&near), "fresh 1");
        advance(BOUND - MILLISECOND).await;
        assert_eq!(seen(&near), "fresh 1");
        advance(MILLISECOND).await;
        assert_eq!(seen(&near), "nothing", "the proof is as old as the bound");
        judge.prove();
        assert_eq!(seen(&near), "fresh 1", "it was not thrown away");

        judge.invalidate("key");
        assert_eq!(seen(&near), "nothing", "it changed");
        assert_eq!(near.holds().count, 0, "it was thrown away");
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_becomes_stale_and_then_expires() {
    for level in levels() {
        let judge = Judge::bound(BOUND);
        let near = Near::of(level, judge.clone());
        let (soft, hard) = (Duration::from_secs(1), Duration::from_secs(2));
        let valid = Valid::Marked(judge.mark("key", Some(hard)));
        near.keep("key".to_owned(), Kept { soft: after(soft), ..copy(Some(1), valid) });
        judge.prove();
        assert_eq!(seen(&near), "fresh 1");
        advance(soft).await;
        judge.prove();
        assert_eq!(seen(&near), "stale 1");
        advance(hard - soft).await;
        judge.prove();
        assert_eq!(seen(&near), "nothing");
        assert_eq!(near.holds().count, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_cluster_a_copy_is_served_until_its_time_ends() {
    for level in levels() {
        let near = Near::new(level);
        let hour = Duration::from_secs(3600);
        near.keep("key".to_owned(), copy(None, Valid::Until(after(hour))));
        assert_eq!(seen(&near), "negative");
        near.keep("key".to_owned(), copy(Some(2), Valid::Until(after(hour))));
        assert_eq!(seen(&near), "fresh 2");
        advance(hour).await;
        assert_eq!(seen(&near), "nothing");
        near.keep("key".to_owned(), copy(Some(3), Valid::Until(after(hour))));
        near.remove(&"key".to_owned());
        assert_eq!(seen(&near), "nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn a_mark_is_worth_nothing_without_who_gave_it() {
    let [level, ..] = levels();
    let judge = Judge::bound(BOUND);
    judge.prove();
    let marked = copy(Some(1), Valid::Marked(judge.mark("key", None)));
    let now = Clock::new().now();
    assert_eq!(Near::of(Arc::clone(&level), judge).judge(&marked, now), Judgement::Fresh);
    assert_eq!(Near::new(level).judge(&marked, now), Judgement::Dead);
}
