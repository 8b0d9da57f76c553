//! What somebody who wants a lock does next. Pure: what was read and the time are arguments.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::state::{Member, QUEUE_COUNT_MAX, State};

/// How long a sign of life of somebody in line is good. Longer than a failover takes (3 s), so that it costs nobody
/// their place.
pub(super) const WAITER_LEASE: Duration = Duration::from_secs(6);

/// How often they give one. With 64 in line these are 32 small writes a second.
const WAITER_BEATS: Duration = Duration::from_secs(2);

/// When which sign of life was first seen. It was given before that, so whoever waits for a lease counted from here has
/// waited for longer than who gave it.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<u64, (u32, Instant)>);

/// Who wants the lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) id: u64,
    /// The lease of the lock, once it is there.
    pub(super) lease_ms: u32,
    /// Whether to stand in line.
    pub(super) waits: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Make it so: then the lock is ours.
    Take(State),
    /// Make it so: then there is a place in line, or a new sign of life.
    Stand(State),
    /// Look again soon: it is our turn next.
    Next,
    /// Look again: others come first.
    Wait,
}

impl Seen {
    /// This is there, as an answer said that came at this moment.
    pub(super) fn look(&mut self, state: &State, now: Instant) {
        let before = std::mem::take(&mut self.0);
        self.0 = state
            .members()
            .map(|Member { id, beat, .. }| match before.get(&id) {
                Some(&(same, since)) if same == beat => (id, (beat, since)),
                Some(_) | None => (id, (beat, now)),
            })
            .collect();
    }

    /// Whether nothing was heard of somebody for as long as their lease.
    fn is_over(&self, member: Member, now: Instant) -> bool {
        let seen = self.0.get(&member.id).filter(|(beat, _)| *beat == member.beat);
        seen.is_some_and(|(_, since)| *since + member.lease() <= now)
    }

    /// Whether it is time for another sign of life of one's own.
    fn is_due(&self, member: Member, now: Instant) -> bool {
        let seen = self.0.get(&member.id);
        seen.is_some_and(|(_, since)| *since + WAITER_BEATS <= now)
    }
}

/// What to do, if this is what there is.
pub(super) fn turn(state: &State, wish: Wish, seen: &Seen, now: Instant) -> Turn {
    let Wish { id, lease_ms, waits } = wish;
    let is_there = |member: &Member| member.id == id || !seen.is_over(*member, now);
    let holder = state.holder.filter(is_there);
    let others: Vec<_> = state.queue.iter().copied().filter(is_there).collect();
    let own = state.members().find(|member| member.id == id);
    let beat = own.map_or(0, |own| own.beat.wrapping_add(1));
    let is_first = others.first().is_none_or(|first| first.id == id);
    if holder.is_some_and(|holder| holder.id == id) || holder.is_none() && is_first {
        // Also if it is ours already, by a write whose answer was lost: this one says which version.
        let queue = others.into_iter().filter(|member| member.id != id).collect();
        return Turn::Take(State { holder: Some(Member { id, beat, lease_ms }), queue });
    }
    let mut queue = others;
    let waiter_ms = u32::try_from(WAITER_LEASE.as_millis()).unwrap_or(u32::MAX);
    let me = Member { id, beat, lease_ms: waiter_ms };
    match queue.iter().position(|member| member.id == id) {
        Some(place) if seen.is_due(queue[place], now) => queue[place] = me,
        Some(_) if is_first => return Turn::Next,
        Some(_) => return Turn::Wait,
        None if waits && queue.len() < QUEUE_COUNT_MAX => queue.push(me),
        None => return Turn::Wait,
    }
    // Whoever died goes with the write that is needed anyway; a dead holder goes when it is followed.
    Turn::Stand(State { holder: state.holder, queue })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE_MS: u32 = 1000;

    fn member(id: u64) -> Member {
        Member { id, beat: 0, lease_ms: LEASE_MS }
    }

    fn state(holder: Option<u64>, queue: &[u64]) -> State {
        State { holder: holder.map(member), queue: queue.iter().copied().map(member).collect() }
    }

    fn wish(id: u64) -> Wish {
        Wish { id, lease_ms: LEASE_MS, waits: true }
    }

    /// What `id` does, having seen the state for so long.
    fn after(state: &State, id: u64, time_ms: u64) -> Turn {
        let (mut seen, began) = (Seen::default(), Instant::now());
        seen.look(state, began);
        let now = began + Duration::from_millis(time_ms);
        seen.look(state, now);
        turn(state, wish(id), &seen, now)
    }

    fn taker(turn: &Turn) -> Option<u64> {
        match turn {
            Turn::Take(state) => state.holder.map(|holder| holder.id),
            Turn::Stand(_) | Turn::Next | Turn::Wait => None,
        }
    }

    #[test]
    fn a_free_lock_is_taken_and_one_that_is_not_is_stood_in_line_for() {
        assert_eq!(taker(&after(&state(None, &[]), 1, 0)), Some(1));
        let Turn::Stand(stands) = after(&state(Some(1), &[2]), 3, 0) else { panic!("it stands") };
        let ids: Vec<_> = stands.members().map(|member| member.id).collect();
        assert_eq!(ids, [1, 2, 3]);
        let outside = Wish { waits: false, ..wish(3) };
        let now = Instant::now();
        assert_eq!(turn(&state(Some(1), &[]), outside, &Seen::default(), now), Turn::Wait);
    }

    #[test]
    fn nobody_overtakes_who_lives() {
        assert_eq!(after(&state(None, &[2, 3]), 3, 999), Turn::Wait);
        assert_eq!(taker(&after(&state(None, &[2, 3]), 2, 999)), Some(2));
        assert!(matches!(after(&state(None, &[2, 3]), 4, 999), Turn::Stand(_)));
        assert_eq!(after(&state(Some(1), &[2, 3]), 2, 999), Turn::Next);
    }

    #[test]
    fn who_was_not_heard_of_for_its_lease_is_passed_over() {
        let Turn::Take(taken) = after(&state(Some(1), &[2, 3, 4]), 3, 1000) else {
            panic!("both before it are dead");
        };
        // 4 as well: it should have beaten by now.
        assert_eq!((taken.holder.map(|it| it.id), taken.queue), (Some(3), vec![]));
    }

    #[test]
    fn what_is_ours_already_is_confirmed() {
        let Turn::Take(taken) = after(&state(Some(1), &[2]), 1, 5000) else { panic!("it is ours") };
        assert_eq!(taken.holder, Some(Member { beat: 1, ..member(1) }));
    }

    #[test]
    fn a_full_line_is_not_made_longer() {
        let ids: Vec<_> = (2..2 + QUEUE_COUNT_MAX as u64).collect();
        assert_eq!(after(&state(Some(1), &ids), 1000, 0), Turn::Wait);
    }
}
