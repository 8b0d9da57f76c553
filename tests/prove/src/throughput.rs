//! What clients got done in equal steps of time, and when partitions took no writes. Pure.

use scatterhoard_check::history::{Operation, Outcome};
use scatterhoard_ring::{Slot, SlotRange};

use crate::campaign::{Outage, Step};

const NS_PER_MS: u64 = 1_000_000;

/// How long a partition takes no write until that is called an outage, in milliseconds. A probe in flight
/// when its node ends may take as long by itself.
pub const OUTAGE_MS_MIN: u64 = 500;

/// What was done in each step, up to `ended_ms`. Operations in doubt count where they began.
#[must_use]
pub fn steps(history: &[Operation], step_ms: u64, ended_ms: u64) -> Vec<Step> {
    let count = usize::try_from(ended_ms.div_ceil(step_ms)).unwrap_or(0);
    let mut steps = vec![Step::default(); count];
    let mut latencies: Vec<Vec<u64>> = vec![Vec::new(); count];
    for operation in history {
        let at = operation.completed().unwrap_or(operation.invoked);
        let place = usize::try_from(at / NS_PER_MS / step_ms).unwrap_or(usize::MAX);
        let Some(step) = steps.get_mut(place) else { continue };
        match operation.outcome {
            Outcome::Done { .. } => {
                step.done += 1;
                latencies[place].push(at.saturating_sub(operation.invoked) / 1000);
            }
            Outcome::Refused { .. } => step.refused += 1,
            Outcome::Unknown => step.in_doubt += 1,
        }
    }
    for (step, latencies) in steps.iter_mut().zip(&mut latencies) {
        latencies.sort_unstable();
        let at = |share: usize| latencies.get(latencies.len() * share / 100).copied();
        (step.median_us, step.p99_us) = (at(50).unwrap_or(0), at(99).unwrap_or(0));
    }
    steps
}

/// When partitions took no writes up to `ended_ms`, in the order of their beginning.
///
/// That takes writes to each partition all the time: a partition that nobody writes to has an outage.
#[must_use]
pub fn outages(
    history: &[Operation],
    partitions: &[(u16, SlotRange)],
    ended_ms: u64,
) -> Vec<Outage> {
    let mut written: Vec<Vec<u64>> = vec![Vec::new(); partitions.len()];
    for operation in history.iter().filter(|operation| !operation.action.is_read()) {
        let Outcome::Done { at, .. } = operation.outcome else { continue };
        for key in operation.action.keys() {
            let slot = Slot::of(key);
            let place = partitions.iter().position(|(_, slots)| slots.contains(slot));
            if let Some(place) = place {
                written[place].push(at / NS_PER_MS);
            }
        }
    }
    let mut outages: Vec<Outage> = partitions
        .iter()
        .zip(&mut written)
        .flat_map(|(&(partition, _), written)| {
            written.retain(|&at| at < ended_ms);
            written.sort_unstable();
            written.push(ended_ms);
            let befores = std::iter::once(0).chain(written.iter().copied());
            let gaps: Vec<_> = befores.zip(written.iter().copied()).collect();
            gaps.into_iter()
                .filter(|(from, until)| until - from >= OUTAGE_MS_MIN)
                .map(move |(from, until)| Outage { partition, from, until })
        })
        .collect();
    outages.sort_by_key(|outage| (outage.from, outage.partition));
    outages
}

#[cfg(test)]
mod tests {
    use scatterhoard_check::history::{Action, Answer};

    use super::*;

    fn done(action: Action, invoked_ms: u64, at_ms: u64) -> Operation {
        let outcome = Outcome::Done { answer: Answer::Done, at: at_ms * NS_PER_MS };
        Operation { client: 0, action, invoked: invoked_ms * NS_PER_MS, outcome }
    }

    fn halves() -> [(u16, SlotRange); 2] {
        let middle = Slot::COUNT / 2;
        let half = |lo, hi| SlotRange::new(lo, hi).unwrap();
        [(0, half(0, middle)), (1, half(middle, Slot::COUNT))]
    }

    #[test]
    fn steps_count_what_was_done_and_how_long_it_took() {
        let refused = Outcome::Refused { at: 1300 * NS_PER_MS };
        let history = [
            done(Action::set("a", "1"), 100, 101),
            done(Action::get("a"), 200, 203),
            Operation { outcome: refused, ..done(Action::get("a"), 1200, 0) },
            Operation { outcome: Outcome::Unknown, ..done(Action::set("a", "2"), 600, 0) },
        ];
        let steps = steps(&history, 500, 1400);
        let quick = Step { done: 2, median_us: 3000, p99_us: 3000, ..Step::default() };
        let doubt = Step { in_doubt: 1, ..Step::default() };
        let refused = Step { refused: 1, ..Step::default() };
        assert_eq!(steps, [quick, doubt, refused]);
    }

    #[test]
    fn an_outage_lasts_from_one_write_to_the_next_of_its_partition() {
        // Slots by the Redis Cluster specification: `foo` has 12182, `bar` 5061.
        let (high, low) = ("foo", "bar");
        let mut history: Vec<Operation> =
            (0..30).map(|i| done(Action::set(low, "v"), i * 100, i * 100)).collect();
        history.extend([300, 1700, 2100, 2600, 2900].map(|at| done(Action::set(high, "v"), 0, at)));
        // A read is no write.
        history.push(done(Action::get(high), 900, 901));
        let found = outages(&history, &halves(), 3000);
        let outage = |from, until| Outage { partition: 1, from, until };
        assert_eq!(found, [outage(300, 1700), outage(2100, 2600)]);
    }

    #[test]
    fn a_partition_that_never_comes_back_has_an_outage_until_the_end() {
        let history =
            [done(Action::set("foo", "v"), 0, 100), done(Action::set("bar", "v"), 0, 2800)];
        let found = outages(&history, &halves(), 3000);
        let outage = |partition, from, until| Outage { partition, from, until };
        assert_eq!(found, [outage(0, 0, 2800), outage(1, 100, 3000)]);
    }
}
