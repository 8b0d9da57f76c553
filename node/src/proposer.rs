//! Gathers the writes that wait for a partition into one entry at a time, and hands out the answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt};
use scatterhoard_replication::probe::{self, Event, Founded, Point};
use scatterhoard_replication::{Answer, ProposeError};
use scatterhoard_store::{Policy, Reply, Step, UnixMillis, Write, encode_header, encode_step};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::core::Core;
use crate::partition::{Partition, Unit, WriteError};
use crate::tracking::UnderWay;

/// Entries of one partition that may be under way. While one is, what arrives waits and makes the next
/// one larger: a round costs the same CPU however many writes it carries.
const ENTRIES_COUNT_MAX: usize = 1;

/// Units gathered at once.
const UNITS_COUNT_MAX: usize = 256;

/// Turns of the event loop that an entry waits for more writes where several come at a time: those whose
/// bytes have arrived by now. A turn that finds nothing costs one look at the sockets, a round that is
/// saved about a hundred times that.
const TURNS_COUNT: usize = 2;

/// An entry is closed once it has this many bytes, so that one large batch cannot hold up heartbeats.
const ENTRY_BYTES_MAX: usize = 256 * 1024;

/// Bytes evicted beyond what is needed, so that not every write has to evict.
const EVICT_BYTES_MIN: u64 = 64 * 1024;

/// How long writers of a congested partition wait before its log is looked at again.
const CONGESTION_PAUSE: Duration = Duration::from_millis(5);

type Answers = Vec<(usize, oneshot::Sender<Result<Vec<Reply<'static>>, WriteError>>)>;

/// Serves a partition's queue until its group ends.
pub(crate) async fn serve(
    core: Arc<Core>,
    partition: Arc<Partition>,
    mut queue: mpsc::Receiver<Unit>,
) {
    let mut under_way = FuturesOrdered::<BoxFuture<'static, ()>>::new();
    let mut waiting = Vec::with_capacity(UNITS_COUNT_MAX);
    // Once for the whole loop: waiting for it anew in each round would register and forget each time.
    let group = Arc::clone(&partition.group);
    let mut closed = std::pin::pin!(group.closed());
    let mut units_count_before = 0;
    loop {
        tokio::select! {
            biased;
            () = &mut closed => break,
            Some(()) = under_way.next() => continue,
            count = queue.recv_many(&mut waiting, UNITS_COUNT_MAX),
                if under_way.len() < ENTRIES_COUNT_MAX => if count == 0 { break },
        }
        if units_count_before.max(waiting.len()) > 1 {
            gather_turns(&mut queue, &mut waiting).await;
        }
        units_count_before = waiting.len();
        while partition.group.is_congested() && partition.leads() {
            tokio::time::sleep(CONGESTION_PAUSE).await;
        }
        // Refused before submission: the one error after which nothing can have happened.
        if !partition.leads() {
            refuse(waiting.drain(..));
            continue;
        }
        let mut units = waiting.drain(..).peekable();
        while units.peek().is_some() {
            // A victim is chosen by what the store holds now: with an entry under way, the key may have
            // become another.
            let may_evict = under_way.is_empty();
            let (entry, answers, skipped) = gather(&core, &partition, may_evict, &mut units);
            probe::at(Point::BeforePropose).await;
            match partition.group.propose(entry).await {
                Ok(outcome) => {
                    let of = partition.group.spec().founded();
                    let answered = async move {
                        let outcome = outcome.await;
                        probe::at(Point::BeforeAnswer).await;
                        answer(of, outcome, answers, skipped);
                    };
                    under_way.push_back(answered.boxed());
                }
                Err(error) => {
                    answer(partition.group.spec().founded(), Err(error), answers, skipped)
                }
            }
        }
    }
    queue.close();
    while let Some(unit) = queue.recv().await {
        refuse(std::iter::once(unit));
    }
    while under_way.next().await.is_some() {}
}

/// Lets the sessions that are ready by now put their units beside those that wait. Not for a lone writer,
/// who would gain nothing and wait longer.
async fn gather_turns(queue: &mut mpsc::Receiver<Unit>, waiting: &mut Vec<Unit>) {
    for _ in 0..TURNS_COUNT {
        tokio::task::yield_now().await;
        while waiting.len() < UNITS_COUNT_MAX
            && let Ok(unit) = queue.try_recv()
        {
            waiting.push(unit);
        }
    }
}

/// Proposes an entry that only carries the time, so that replicas may forget what has expired.
pub(crate) async fn propose_time(partition: &Partition) {
    let mut bytes = Vec::with_capacity(16);
    encode_header(&mut bytes, partition.time(Instant::now()));
    if let Ok(outcome) = partition.group.propose(Bytes::from(bytes)).await {
        let _whatever = outcome.await;
    }
}

/// One entry out of as many units as fit; evictions that make room for them come first. Answers with
/// how many steps nobody waits for.
fn gather(
    core: &Core,
    partition: &Partition,
    may_evict: bool,
    units: &mut std::iter::Peekable<impl Iterator<Item = Unit>>,
) -> (Bytes, Answers, usize) {
    let mut bytes = Vec::with_capacity(1024);
    let now = partition.time(Instant::now());
    encode_header(&mut bytes, now);
    let skipped = if may_evict { evict(core, partition, &mut bytes, now) } else { 0 };
    let (mut answers, mut writers) = (Vec::new(), Vec::new());
    let mut first = true;
    while let Some(unit) =
        units.next_if(|unit| first || bytes.len() + unit.steps.len() <= ENTRY_BYTES_MAX)
    {
        first = false;
        bytes.extend_from_slice(&unit.steps);
        answers.push((unit.steps_count, unit.answer));
        writers.push((unit.steps_count, unit.writer));
    }
    let entry = Bytes::from(bytes);
    if writers.iter().any(|(_, writer)| writer.is_some()) {
        let under_way = UnderWay { entry: entry.clone(), skipped, units: writers };
        core.tracking.announce(partition.replica(), under_way);
    }
    (entry, answers, skipped)
}

fn evict(core: &Core, partition: &Partition, bytes: &mut Vec<u8>, now: UnixMillis) -> usize {
    let over = partition.bytes_over();
    let policy = *partition.budget.policy.lock();
    if over == 0 || policy == Policy::NoEviction {
        return 0;
    }
    let wanted = over + EVICT_BYTES_MIN;
    let victims = partition.store.lock().victims(policy, wanted, &mut || core.chance.roll(), now);
    if !victims.is_empty() {
        probe::saw(|| Event::Evicted { of: partition.group.spec().founded() });
    }
    for victim in &victims {
        let write = Write::Evict { keys: vec![&victim.key] };
        encode_step(bytes, &Step { slot: victim.slot, write });
    }
    core.stats.evicted(victims.len() as u64);
    victims.len()
}

fn answer(of: Founded, outcome: Result<Answer, ProposeError>, answers: Answers, skipped: usize) {
    match &outcome {
        Ok(_) => probe::saw(|| Event::Acknowledged { of }),
        Err(ProposeError::InDoubt) => probe::saw(|| Event::InDoubt { of }),
        Err(ProposeError::NotLeader) => {}
    }
    let replies = match outcome {
        Ok(answer) => answer.take::<Vec<Reply<'static>>>().ok_or(WriteError::InDoubt),
        Err(ProposeError::NotLeader) => Err(WriteError::NotDone),
        Err(ProposeError::InDoubt) => Err(WriteError::InDoubt),
    };
    let mut replies = replies.map(|replies| replies.into_iter().skip(skipped));
    for (count, answer) in answers {
        let own = match &mut replies {
            Ok(replies) => {
                let own: Vec<_> = replies.take(count).collect();
                assert!(own.len() == count, "every step has one answer");
                Ok(own)
            }
            Err(error) => Err(*error),
        };
        // A session that is gone does not need its answer.
        let _gone = answer.send(own);
    }
}

fn refuse(units: impl Iterator<Item = Unit>) {
    for unit in units {
        let _gone = unit.answer.send(Err(WriteError::NotDone));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit() -> Unit {
        Unit { steps: Vec::new(), steps_count: 0, writer: None, answer: oneshot::channel().0 }
    }

    #[tokio::test]
    async fn a_write_that_comes_a_turn_later_goes_with_those_that_wait() {
        let (units, mut queue) = mpsc::channel(2);
        let late = tokio::spawn(async move {
            tokio::task::yield_now().await;
            units.try_send(unit()).expect("there is room");
        });
        let mut waiting = vec![unit(), unit()];
        gather_turns(&mut queue, &mut waiting).await;
        assert_eq!(waiting.len(), 3);
        late.await.expect("it ends");
    }
}
