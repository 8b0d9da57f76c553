//! The reader's side of the poll between nodes: one partition of one leader.

use std::sync::Arc;
use std::time::Duration;

use crate::{Bulletin, Feed, Follower, KeyHash, Moment, News, StreamId};

/// Asks one leader for news of one partition, and takes the answers in their order.
///
/// A call that failed, in whatever way, is [`Inbox::lost`]: its answer may have been on the way. So is the
/// choice of another leader to ask.
#[derive(Debug)]
pub struct Inbox {
    follower: Follower,
    stream: Option<StreamId>,
    taken: u64,
}

/// What is asked: everything after the bulletins that were taken. The reader keeps it beside the call.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    probe: crate::Probe,
    /// The stream to go on with; `None`: a new one is wanted. For the leader.
    pub stream: Option<StreamId>,
    /// How many bulletins of that stream were taken. For the leader.
    pub taken: u64,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was the next one, and copies may be served for longer.
    News,
    /// It begins a stream: what was loaded before is not served again.
    Begun,
    /// It was taken before. Nothing changed.
    Repeated,
    /// It answers a question from before the last reset. Nothing changed.
    Late,
    /// A bulletin before it is missing. What was loaded before is not served again.
    Gap,
    /// It is of a stream that was not asked for. What was loaded before is not served again.
    Foreign,
}

impl Inbox {
    /// Begins to follow a partition, which is a reset. `bound`: how old a served copy may be.
    #[must_use]
    pub fn new(feed: Arc<Feed>, bound: Duration) -> Self {
        Self { follower: Follower::new(feed, bound), stream: None, taken: 0 }
    }

    /// What it has learnt.
    #[must_use]
    pub fn follower(&self) -> &Follower {
        &self.follower
    }

    /// The next question, at the moment when it is about to be sent.
    #[must_use]
    pub fn ask(&self, now: Moment) -> Question {
        let Self { stream, taken, .. } = *self;
        Question { probe: self.follower.probe_sent(now), stream, taken }
    }

    /// Takes the answer to a question.
    pub fn take(&mut self, question: Question, bulletin: &Bulletin<KeyHash>) -> Taken {
        if !self.follower.expects(question.probe) {
            return Taken::Late;
        }
        let taken = match self.stream {
            None if bulletin.number == 1 => Taken::Begun,
            Some(stream) if stream != bulletin.stream => Taken::Foreign,
            Some(_) if bulletin.number <= self.taken => Taken::Repeated,
            Some(_) if bulletin.number == self.taken + 1 => Taken::News,
            None | Some(_) => Taken::Gap,
        };
        match taken {
            Taken::News | Taken::Begun => self.learn(question, bulletin),
            Taken::Repeated | Taken::Late => {}
            Taken::Gap | Taken::Foreign => self.lost(),
        }
        taken
    }

    /// A call failed or was refused, or another leader is asked from now on: what was loaded before is not
    /// served again, and a new stream is wanted.
    pub fn lost(&mut self) {
        self.follower.reset();
        (self.stream, self.taken) = (None, 0);
    }

    fn learn(&mut self, question: Question, bulletin: &Bulletin<KeyHash>) {
        let feed = self.follower.feed();
        match &bulletin.news {
            News::Changed { keys, slots } => {
                keys.iter().for_each(|&key| feed.invalidated(key));
                slots.iter().for_each(|&slot| feed.slot_invalidated(slot));
            }
            News::Everything => feed.reset(),
        }
        (self.stream, self.taken) = (Some(bulletin.stream), bulletin.number);
        // The first stamp after a reset is a reset again, so loads that began before the stream did, and may
        // not be registered with it, end here.
        self.follower.probe_answered(question.probe, bulletin.stamp, bulletin.position);
        self.follower.reached(bulletin.stamp, bulletin.position);
    }
}
