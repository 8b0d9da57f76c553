//! Commands for keys that another node leads: redirected, answered from copies, or gathered by node.

use std::ops::Range;

use scatterhoard_command::{Command, keys_of_write};
use scatterhoard_resp::{Args, Encoder, Protocol};
use scatterhoard_ring::{NodeId, PartitionId, Slot};

use super::{Door, Effect, Kind, Planned, Remote, Stage};
use crate::route::Route;
use crate::session::refusal::{Refusal, put_refusal};

impl Stage {
    pub(super) fn add_elsewhere(
        &mut self,
        args: Args<'_>,
        slot: Slot,
        command: &Command<'_>,
        request: Range<usize>,
    ) -> Planned {
        let Some(partition) = self.core.tables.newest().map(|table| table.partition_of(slot))
        else {
            self.push(request, Kind::Slow);
            return Planned::Done;
        };
        if self.stuck.contains(&partition) {
            self.push(request, Kind::Slow);
            return Planned::Done;
        }
        if self.units.iter().any(|unit| unit.partition.id == partition)
            || self.leases.iter().any(|(read, _)| read.id == partition)
        {
            // We led it a moment ago. A read may have to be served again, before what follows it.
            return Planned::AfterThis;
        }
        if let Command::Read(read) = command
            && self.asker.near
            && !self.written.contains(&partition)
            && let Some(planned) = self.add_near(partition, slot, read, request.clone())
        {
            return planned;
        }
        match (self.core.route(slot), self.door) {
            (Route::Elsewhere { endpoints, .. }, Door::Cluster) => {
                let moved = Refusal::Moved { slot, to: endpoints.listen };
                self.put_ready(request, |out| put_refusal(out, &moved));
            }
            (Route::Elsewhere { node, .. }, Door::AnyKey) => {
                if !goes_to(&mut self.away, partition, node) {
                    return Planned::AfterThis;
                }
                self.add_remote((partition, node), args, command, request);
            }
            // Leadership came to us a moment ago, or nobody is known to have it.
            (Route::Serve(_) | Route::Unknown | Route::Elsewhere { .. }, _) => {
                self.leave(partition, request);
            }
        }
        Planned::Done
    }

    fn add_remote(
        &mut self,
        (partition, node): (PartitionId, NodeId),
        args: Args<'_>,
        command: &Command<'_>,
        request: Range<usize>,
    ) {
        let effect = match command {
            Command::Read(_) => Effect::Reads,
            Command::Write(_)
            | Command::Load(_)
            | Command::Span(_)
            | Command::Session(_)
            | Command::Server(_) => Effect::Writes,
        };
        if effect == Effect::Writes && self.asker.near && !self.written.contains(&partition) {
            self.send_sought(partition, node);
            self.written.push(partition);
        }
        if let Command::Write(write) = command
            && self.core.near.is_allowed()
        {
            self.endings.push(self.core.near.end(partition, keys_of_write(write)));
        }
        let (unit, at) = self.send_to(node, args, effect);
        self.push(request, Kind::Remote { unit, at, effect });
    }

    /// Adds a request to what goes to a node. Answers where its answer will be.
    pub(super) fn send_to(
        &mut self,
        node: NodeId,
        args: Args<'_>,
        effect: Effect,
    ) -> (usize, usize) {
        let unit = match self.remotes.iter().position(|remote| remote.node == node) {
            Some(unit) => unit,
            None => {
                let requests = Vec::new();
                self.remotes.push(Remote { node, requests, count: 0, count_to_write: 0 });
                self.remotes.len() - 1
            }
        };
        let into = &mut self.remotes[unit];
        let before = into.requests.len();
        Encoder::new(&mut into.requests, Protocol::Resp2).request(args);
        let at = into.count;
        into.count += 1;
        if effect == Effect::Writes {
            into.count_to_write = into.count;
        }
        self.writes_bytes += into.requests.len() - before;
        (unit, at)
    }
}

/// Notes that a command for a partition goes to a node. Not if an earlier one went to another: it could
/// arrive there first.
pub(super) fn goes_to(
    away: &mut Vec<(PartitionId, NodeId)>,
    partition: PartitionId,
    node: NodeId,
) -> bool {
    match away.iter().find(|&&(gone, _)| gone == partition) {
        Some(&(_, before)) => before == node,
        None => {
            away.push((partition, node));
            true
        }
    }
}
