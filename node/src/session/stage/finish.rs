//! The second half of a stage: what it holds is sent on its way, waited for, and answered in order.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use scatterhoard_command::encode_reply;
use scatterhoard_replication::Lease;
use scatterhoard_replication::probe::{self, Event, Point};
use scatterhoard_resp::{Encoder, Protocol};
use scatterhoard_store::Reply;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Door, Effect, Kind, Outcome, PARTS_KEPT_COUNT_MAX, Remote, Stage, Unit};
use crate::forward::{self, Forwarded};
use crate::partition::{Partition, WriteError};
use crate::session::refusal::{Refusal, put_refusal};
use crate::session::size::reply_bytes;
use crate::session::{IDLE_BYTES_MAX, slow};
use crate::tracking::Asker;

impl Stage {
    /// Does what the stage holds and appends the replies to `out`, in the order of the requests.
    /// `buffer` is where the requests lie. Answers with what became of each, for peers.
    pub(crate) async fn finish(
        &mut self,
        buffer: &[u8],
        out: &mut Vec<u8>,
        mut each: impl FnMut(Outcome, usize),
    ) {
        if !self.leases.is_empty() {
            probe::at(Point::AfterRead).await;
        }
        let held = self.held();
        if !self.waits() && held.iter().all(|&held| held) {
            // The common pipeline of reads: nothing to wait for, nothing to put in order.
            let mut start = 0;
            for part in &self.parts {
                self.count_reply(&self.ready[start..part.ready_end]);
                each(Outcome::Done, part.ready_end - start);
                start = part.ready_end;
            }
            if out.is_empty() {
                std::mem::swap(out, &mut self.ready);
            } else {
                out.extend_from_slice(&self.ready);
            }
            self.clear();
            return;
        }
        self.finish_slowly(buffer, &held, out, &mut each).await;
        self.clear();
    }

    /// Whether it is known already that something has to be waited for.
    pub(crate) fn waits(&self) -> bool {
        let slow = !self.stuck.is_empty() || self.parts.iter().any(|part| part.kind.is_slow());
        slow || !self.units.is_empty() || !self.remotes.is_empty() || !self.sought.is_empty()
    }

    /// `held` tells which leases still held after the reads.
    pub(super) async fn finish_slowly(
        &mut self,
        buffer: &[u8],
        held: &[bool],
        out: &mut Vec<u8>,
        each: &mut impl FnMut(Outcome, usize),
    ) {
        let write_by = self.now + self.core.config.write_timeout;
        // Submitted before anything is awaited: the order of sessions' calls is the order in the log.
        let submitted = self.submit(held);
        let to_write: Vec<_> = self.remotes.iter().map(|remote| remote.count_to_write).collect();
        let sent = self.send(write_by);
        let mut timer = self.timer.take().unwrap_or_else(|| Box::pin(sleep_until(write_by)));
        let mut sought = std::mem::take(&mut self.sought);
        let (mut written, forwarded, loaded_bytes) = tokio::join!(
            answers(submitted, write_by, timer.as_mut()),
            join_all(sent),
            Self::load_sought(&self.core, &mut sought),
        );
        self.timer = Some(timer);

        let patience = slow::Patience::new(&self.core, self.door, self.protocol);
        // Whoever chooses which reads are tracked may get a few more: that costs them no more than a push.
        let patience = patience.of(Asker { reader: self.reader, ..self.asker });
        let answered = written.iter().flatten().flatten().map(reply_bytes).sum::<usize>();
        let forwarded_bytes = forwarded.iter().map(Forwarded::bytes).sum::<usize>();
        patience.holds(self.ready.len() + answered + forwarded_bytes + loaded_bytes);
        let mut ready_start = 0;
        for part in std::mem::take(&mut self.parts) {
            let before = out.len();
            let ready = ready_start..part.ready_end;
            ready_start = part.ready_end;
            let outcome = match part.kind {
                Kind::Ready => self.take_ready(ready, out),
                Kind::Read { lease } if held[lease] => self.take_ready(ready, out),
                Kind::Near { sought: place } => {
                    self.put_sought(sought[place].as_ref(), self.protocol, out)
                }
                Kind::Read { .. } | Kind::Slow => Outcome::NotDone,
                Kind::Write { unit, at } => put_written(&mut written[unit], at, self.protocol, out),
                Kind::Remote { unit, at, effect } => match put_forwarded(&forwarded[unit], at, out)
                {
                    Outcome::InDoubt => if_lost(effect, at, to_write[unit], self.protocol, out),
                    outcome @ (Outcome::Done | Outcome::NotDone) => outcome,
                },
            };
            let outcome = match outcome {
                Outcome::NotDone => patience.serve(&buffer[part.request], out).await,
                Outcome::InDoubt if self.door != Door::Peer => {
                    put_refusal(&mut Encoder::new(out, self.protocol), &Refusal::InDoubt);
                    Outcome::InDoubt
                }
                Outcome::Done | Outcome::InDoubt => outcome,
            };
            self.count_reply(&out[before..]);
            each(outcome, out.len() - before);
        }
    }

    /// Errors are counted where their client is: what a peer is answered, it counts when it passes it on.
    fn count_reply(&self, reply: &[u8]) {
        match self.door {
            Door::Cluster | Door::AnyKey => self.core.stats.replied(reply),
            Door::Peer => {}
        }
    }

    /// Submits the writes, but for those to partitions where something before them is still to be
    /// served: they follow it, one by one.
    fn submit(
        &mut self,
        held: &[bool],
    ) -> Vec<impl Future<Output = Result<Vec<Reply<'static>>, WriteError>> + Send + use<>> {
        let mut behind = self.stuck.clone();
        let lost = self.leases.iter().zip(held).filter(|&(_, &held)| !held);
        behind.extend(lost.map(|((partition, _), _)| partition.id));
        let submit = |Unit { partition, steps, steps_count, writer }: Unit| {
            let may = !behind.contains(&partition.id);
            let written = may.then(|| partition.submit(steps, steps_count, writer));
            async move {
                match written {
                    Some(written) => written.await,
                    None => Err(WriteError::NotDone),
                }
            }
        };
        self.units.drain(..).map(submit).collect()
    }

    /// Sends what other nodes lead on its way.
    fn send(&mut self, by: Instant) -> Vec<impl Future<Output = Forwarded> + Send + use<>> {
        let (core, protocol) = (&self.core, self.protocol);
        let send = |Remote { node, requests, count, .. }: Remote| {
            forward::send(core, node, protocol, count, Bytes::from(requests), by)
        };
        self.remotes.drain(..).map(send).collect()
    }

    fn take_ready(&self, range: Range<usize>, out: &mut Vec<u8>) -> Outcome {
        out.extend_from_slice(&self.ready[range]);
        Outcome::Done
    }

    /// Which leases still hold, by a clock that is read now, after the reads.
    fn held(&self) -> Vec<bool> {
        if self.leases.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        let holds = |(partition, lease): &(Arc<Partition>, Lease)| {
            let holds = partition.group.lease_holds(*lease, now);
            let of = partition.group.spec().founded();
            probe::saw(|| match holds {
                true => Event::Answered { of, by_lease: true },
                false => Event::LeaseLost { of },
            });
            if !holds {
                self.core.stats.lost_lease();
            }
            holds
        };
        self.leases.iter().map(holds).collect()
    }

    fn clear(&mut self) {
        self.ready.clear();
        if self.ready.capacity() > IDLE_BYTES_MAX {
            self.ready = Vec::new();
        }
        self.parts.clear();
        self.parts.shrink_to(PARTS_KEPT_COUNT_MAX);
        self.reader = None;
        self.leases.clear();
        self.units.clear();
        self.remotes.clear();
        self.stuck.clear();
        self.away.clear();
        self.written.clear();
        self.sought.clear();
        self.sought_count = 0;
        for ending in self.endings.drain(..) {
            self.core.near.ended(&ending);
        }
        self.writes_bytes = 0;
    }
}

fn put_written(
    written: &mut Result<Vec<Reply<'static>>, WriteError>,
    at: usize,
    protocol: Protocol,
    out: &mut Vec<u8>,
) -> Outcome {
    match written {
        Ok(replies) => {
            encode_reply(&mut Encoder::new(out, protocol), &replies[at]);
            Outcome::Done
        }
        Err(WriteError::NotDone) => Outcome::NotDone,
        Err(WriteError::InDoubt) => Outcome::InDoubt,
    }
}

fn put_forwarded(forwarded: &Forwarded, at: usize, out: &mut Vec<u8>) -> Outcome {
    match forwarded {
        Forwarded::Answered(answers) => match answers.get(at) {
            Some((Outcome::Done, reply)) => {
                out.extend_from_slice(reply);
                Outcome::Done
            }
            Some((Outcome::NotDone, _)) => Outcome::NotDone,
            Some((Outcome::InDoubt, _)) | None => Outcome::InDoubt,
        },
        Forwarded::NotSent => Outcome::NotDone,
        Forwarded::InDoubt => Outcome::InDoubt,
    }
}

/// What became of a command whose answer was lost on the way. `at` is its place among those that went
/// there, the last write of which is before `count_to_write`.
pub(super) fn if_lost(
    effect: Effect,
    at: usize,
    count_to_write: usize,
    protocol: Protocol,
    out: &mut Vec<u8>,
) -> Outcome {
    match effect {
        Effect::Writes => Outcome::InDoubt,
        Effect::Reads if at < count_to_write => {
            // Asked again, it could see the write that followed it.
            put_refusal(&mut Encoder::new(out, protocol), &Refusal::ClusterDown);
            Outcome::Done
        }
        Effect::Reads => Outcome::NotDone,
    }
}

/// Waits for all units until then; those that have no answer by then are in doubt.
///
/// The timer is the connection's and stays set when all are answered: to put it off for the next pipeline
/// costs far less than to enter one and to remove it.
async fn answers(
    submitted: Vec<impl Future<Output = Result<Vec<Reply<'static>>, WriteError>>>,
    by: Instant,
    mut timer: Pin<&mut Sleep>,
) -> Vec<Result<Vec<Reply<'static>>, WriteError>> {
    let mut written: Vec<_> = submitted.iter().map(|_| Err(WriteError::InDoubt)).collect();
    timer.as_mut().reset(by);
    let all = async {
        for (written, unit) in written.iter_mut().zip(submitted) {
            *written = unit.await;
        }
    };
    tokio::select! {
        biased;
        () = all => {}
        () = timer => {}
    }
    written
}
