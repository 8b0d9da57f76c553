//! What loaders do to a slot: leases, fills, and values with a soft deadline and tags.

use crate::block::Shape;
use crate::extra::ExtraBuf;
use crate::side::Lease;
use crate::write::{Outcome, Put, Spot, Writer};
use crate::{Content, OpError, Reply, SetAnswer, Terms, Token, UnixMillis, Wants, When};

impl Writer<'_> {
    pub(crate) fn set_with(
        &mut self,
        key: &[u8],
        (content, terms): (Content<'_>, &Terms<'_>),
        when: When<'_>,
        answer: SetAnswer,
    ) -> Outcome {
        let spot = self.spot(key);
        let may = self.allows(spot, when)?;
        let reply = self.set_reply(spot, may, answer)?;
        if may {
            self.put_content(spot, content, terms)?;
        }
        Ok(reply)
    }

    /// Answers with what is there, or gives the lease. Looks again although the caller has: between its
    /// read and this step others may have filled, or have taken the lease.
    pub(crate) fn give_lease(
        &mut self,
        key: &[u8],
        token: Token,
        millis: u64,
        wants: Wants,
    ) -> Outcome {
        let (stamp, spot) = (self.stamp, self.spot(key));
        let lookup = self.table.lookup(spot.held, key, stamp);
        if let Some(answer) = lookup.answer(wants) {
            return Ok(answer.into_owned());
        }
        let answer = lookup.granted(wants, token, millis).into_owned();
        let lease = Lease { token, until: stamp.plus(millis), given: self.index };
        let is_given = self.table.change_side(|side| {
            // First, so that how much room there is follows from the log, not from when who has swept.
            side.forget_ended(stamp);
            let has_room = side.has_room_for(key);
            if has_room {
                side.put_lease(key, lease);
            }
            has_room
        });
        if is_given { Ok(answer) } else { Err(OpError::TooManyLoads) }
    }

    pub(crate) fn fill(
        &mut self,
        key: &[u8],
        token: Token,
        content: Content<'_>,
        terms: &Terms<'_>,
    ) -> Outcome {
        if !self.holds(key, token) {
            return Ok(Reply::Int(0));
        }
        let is_outdated =
            |lease: &Lease| self.table.side().is_some_and(|side| side.outdates(lease, &terms.tags));
        if self.table.lease(key, self.stamp).is_some_and(is_outdated) {
            self.table.void(key);
            return Ok(Reply::Int(0));
        }
        let spot = self.spot(key);
        self.put_content(spot, content, terms)?;
        Ok(Reply::Int(1))
    }

    pub(crate) fn release(&mut self, key: &[u8], token: Token) -> Reply<'static> {
        let held = self.holds(key, token);
        if held {
            self.table.void(key);
        }
        Reply::Int(i64::from(held))
    }

    fn holds(&self, key: &[u8], token: Token) -> bool {
        self.table.lease(key, self.stamp).is_some_and(|lease| lease.token == token)
    }

    fn put_content(
        &mut self,
        spot: Spot<'_>,
        content: Content<'_>,
        terms: &Terms<'_>,
    ) -> Result<(), OpError> {
        let deadline = self.deadline_after(spot, terms.expiry)?;
        let soft: Option<UnixMillis> = terms.soft_millis.map(|millis| self.stamp.plus(millis));
        let extra = ExtraBuf::new(soft, self.index, &terms.tags);
        let (value, shape) = match content {
            Content::Value(value) => (value, Shape::Whole),
            Content::Negative => (&b""[..], Shape::Negative),
        };
        self.put(spot, Put { value, deadline, shape, extra: extra.as_extra() });
        Ok(())
    }
}
