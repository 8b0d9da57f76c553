//! Learns for one feed: turns answered questions into proof, and changes of leadership into resets.

use std::sync::Arc;
use std::time::Duration;

use crate::{Feed, Moment, Position, Stamp};

/// Drives one [`Feed`], by what a stream of invalidations and answered probes tell. Owned by whoever reads that
/// stream.
///
/// The stream's owner tells of each invalidation to [`Follower::feed`], then that the stream has
/// [reached](Self::reached) the position up to which it is complete. Where probes are answered in the stream
/// itself, after all that was told before, the answer is followed by `reached` with its own position. A stream
/// that broke, or may have lost something, is a [reset](Self::reset) before the next one is listened to, and
/// before a load can be registered with it.
#[derive(Debug)]
pub struct Follower {
    feed: Arc<Feed>,
    bound: Duration,
    resets: u64,
    stamp: Option<Stamp>,
    reached: Position,
    waiting: Waiting,
}

/// A question about how far the leader is, as the reader remembers it until it is answered. Must be made
/// before the question is sent.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    sent: Moment,
    resets: u64,
}

/// Answers that the stream has not caught up with. The one that comes first and the newest are enough: with
/// the newest alone, a stream that is always a little late would never prove anything.
#[derive(Clone, Copy, Debug)]
enum Waiting {
    Nothing,
    One(Answer),
    Two { first: Answer, newest: Answer },
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    sent: Moment,
    position: Position,
}

impl Follower {
    /// Begins to follow, which is a reset. `bound`: how old a served copy may be.
    #[must_use]
    pub fn new(feed: Arc<Feed>, bound: Duration) -> Self {
        feed.reset();
        let (resets, reached) = (0, Position::default());
        Self { feed, bound, resets, stamp: None, reached, waiting: Waiting::Nothing }
    }

    /// The feed that it drives.
    #[must_use]
    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// Under whom the copies were loaded that may be served now; `None` before the first answer, and after a
    /// reset until the next.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        self.stamp
    }

    /// How often all copies were given up.
    #[must_use]
    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// A probe that is about to be sent.
    #[must_use]
    pub fn probe_sent(&self, now: Moment) -> Probe {
        Probe { sent: now, resets: self.resets }
    }

    /// Whether an answer to this probe would still be taken: there was no reset since it was sent.
    #[must_use]
    pub fn expects(&self, probe: Probe) -> bool {
        probe.resets == self.resets
    }

    /// A leader that held its lease after the probe came to it was at this position.
    ///
    /// Another stamp than the one before is a reset, and so is the first. An answer to a probe from before
    /// the last reset changes nothing: it may be about another stream.
    pub fn probe_answered(&mut self, probe: Probe, stamp: Stamp, position: Position) {
        if !self.expects(probe) {
            return;
        }
        self.under(stamp);
        self.waiting.push(Answer { sent: probe.sent, position });
        self.prove();
    }

    /// Everything up to this position has been told to the feed.
    ///
    /// Another stamp than the one before is a reset.
    pub fn reached(&mut self, stamp: Stamp, position: Position) {
        self.under(stamp);
        self.reached = self.reached.max(position);
        self.prove();
    }

    /// Something may have been lost: what was loaded before is not served again.
    pub fn reset(&mut self) {
        self.feed.reset();
        self.resets += 1;
        self.stamp = None;
        self.reached = Position::default();
        self.waiting = Waiting::Nothing;
    }

    fn under(&mut self, stamp: Stamp) {
        if self.stamp != Some(stamp) {
            self.reset();
            self.stamp = Some(stamp);
        }
    }

    fn prove(&mut self) {
        while let Some(answer) = self.waiting.pop(self.reached) {
            self.feed.prove(answer.sent.after(self.bound));
        }
    }
}

impl Waiting {
    fn push(&mut self, answer: Answer) {
        *self = match *self {
            Self::Nothing => Self::One(answer),
            Self::One(first) | Self::Two { first, .. } => Self::Two { first, newest: answer },
        };
    }

    /// An answer that the stream has caught up with.
    fn pop(&mut self, reached: Position) -> Option<Answer> {
        let (answer, rest) = match *self {
            Self::Nothing => return None,
            Self::One(answer) => (answer, Self::Nothing),
            Self::Two { first, newest } if newest.position <= reached => (newest, Self::One(first)),
            Self::Two { first, newest } => (first, Self::One(newest)),
        };
        if answer.position > reached {
            return None;
        }
        *self = rest;
        Some(answer)
    }
}
