//! Calls that wait for a reply. Pure but for the channel that the reply goes through.

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::CallError;

/// What a call ends with.
pub(crate) type Answer = Result<Bytes, CallError>;

/// Calls that wait for a reply, each under a request id that is not used again while it could be confused.
///
/// A request id is the place in a list and how often that place was used before: no hashing, and calls
/// end in the order of places, the same in each run.
#[derive(Default)]
pub(crate) struct Pending {
    places: Vec<Place>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Place {
    uses: u32,
    waiter: Option<Waiter>,
}

struct Waiter {
    answer: oneshot::Sender<Answer>,
    sent: bool,
}

impl Pending {
    /// How many calls wait.
    pub(crate) fn count(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Enters a call; answers with its request id.
    pub(crate) fn enter(&mut self, answer: oneshot::Sender<Answer>) -> u64 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            u32::try_from(self.places.len() - 1).expect("calls under way are bounded")
        });
        let slot = &mut self.places[place as usize];
        slot.uses = slot.uses.wrapping_add(1);
        slot.waiter = Some(Waiter { answer, sent: false });
        u64::from(slot.uses) << 32 | u64::from(place)
    }

    /// Takes note that a call leaves this process; `false` if nobody waits for it any more.
    pub(crate) fn mark_sent(&mut self, request: u64) -> bool {
        match self.place(request) {
            Some(Place { waiter: Some(waiter), .. }) => {
                waiter.sent = true;
                true
            }
            _ => false,
        }
    }

    /// Ends a call. Whoever waited for it may have left.
    pub(crate) fn answer(&mut self, request: u64, answer: Answer) {
        if let Some(waiter) = self.remove(request) {
            let _ = waiter.answer.send(answer);
        }
    }

    /// Forgets a call; whether it had been sent, or `None` if it has ended.
    pub(crate) fn forget(&mut self, request: u64) -> Option<bool> {
        self.remove(request).map(|waiter| waiter.sent)
    }

    /// Ends all calls: those not sent with `unsent`, the others as lost.
    pub(crate) fn fail(&mut self, unsent: &CallError) {
        for (number, place) in (0..).zip(&mut self.places) {
            if let Some(waiter) = place.waiter.take() {
                let error = if waiter.sent { CallError::Lost } else { unsent.clone() };
                let _ = waiter.answer.send(Err(error));
                self.free.push(number);
            }
        }
    }

    fn remove(&mut self, request: u64) -> Option<Waiter> {
        let waiter = self.place(request)?.waiter.take()?;
        self.free.push(request as u32);
        Some(waiter)
    }

    /// The place of a request that was not followed by another there.
    fn place(&mut self, request: u64) -> Option<&mut Place> {
        let place = self.places.get_mut(request as u32 as usize)?;
        (place.uses == (request >> 32) as u32).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reaches_its_own_call_only() {
        let mut pending = Pending::default();
        let (answer, mut first) = oneshot::channel();
        let early = pending.enter(answer);
        assert!(pending.mark_sent(early));
        assert_eq!(pending.forget(early), Some(true));
        let (answer, mut second) = oneshot::channel();
        let late = pending.enter(answer);
        assert_eq!(late as u32, early as u32, "the place is used again");
        pending.answer(early, Ok(Bytes::from_static(b"too late")));
        assert!(first.try_recv().is_err() && second.try_recv().is_err());
        assert!(!pending.mark_sent(early));
        pending.answer(late, Ok(Bytes::from_static(b"yes")));
        assert_eq!(second.try_recv(), Ok(Ok(Bytes::from_static(b"yes"))));
        assert_eq!(pending.forget(late), None);
        pending.answer(u64::MAX, Ok(Bytes::new()));
        assert_eq!(pending.count(), 0);
    }

    #[test]
    fn when_all_fail_each_learns_whether_it_had_left() {
        let mut pending = Pending::default();
        let mut answers: Vec<_> = (0..3)
            .map(|_| {
                let (answer, answered) = oneshot::channel();
                (pending.enter(answer), answered)
            })
            .collect();
        assert!(pending.mark_sent(answers[1].0));
        pending.fail(&CallError::Unsent("down".to_owned()));
        let unsent = Err(CallError::Unsent("down".to_owned()));
        assert_eq!(answers[0].1.try_recv(), Ok(unsent.clone()));
        assert_eq!(answers[1].1.try_recv(), Ok(Err(CallError::Lost)));
        assert_eq!(answers[2].1.try_recv(), Ok(unsent));
        assert_eq!(pending.count(), 0);
    }
}
