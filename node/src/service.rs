//! What peers ask of this node.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use scatterhoard_cluster::{Caller, ReplyTo, Service};
use scatterhoard_replication::Groups;
use scatterhoard_ring::NodeId;

use crate::core::Core;
use crate::kind::Kind;
use crate::recovery::{ballot, survey};
use crate::{
    council, forward, membership, near, pilot, recovery, reseat, span, timekeeping, upkeep,
};

/// Hands messages from peers to whom they are for.
pub(crate) struct Desk(pub(crate) Arc<Core>);

impl Service for Desk {
    fn handle(&self, caller: Caller, kind: u8, body: Bytes, reply: ReplyTo) {
        if Groups::takes(kind) {
            return self.0.groups.handle(caller, kind, body, reply);
        }
        let Some(kind) = Kind::of(kind) else { return reply.refuse("no such message") };
        let core = Arc::clone(&self.0);
        match kind {
            Kind::Probe => reply.send(membership::answer_probe(&core)),
            Kind::Join => {
                core.tasks.clone().spawn(async move {
                    let admission = membership::admit(&core, &body).await;
                    reply.send(membership::put_admission(&admission));
                });
            }
            Kind::Leave => {
                core.tasks.clone().spawn(leave(core, body, reply));
            }
            Kind::Table => match upkeep::take_table(&core, &body) {
                true => reply.send(Bytes::new()),
                false => reply.refuse("a table that cannot be read"),
            },
            Kind::Pull => match core.tables.newest() {
                Some(table) => reply.send(Bytes::from(table.encode())),
                None => reply.refuse("no table yet"),
            },
            Kind::Report => pilot::take_reports(&core, body),
            Kind::Forward => {
                core.tasks.clone().spawn(forward::serve(core, body, reply));
            }
            Kind::Clock => {
                reply.send(timekeeping::answer(&core));
            }
            Kind::Span => {
                core.tasks.clone().spawn(span::serve(core, body, reply));
            }
            Kind::Survey => reply.send(survey::answer(&core)),
            Kind::Promise => reply.send(ballot::answer(&core, body)),
            Kind::Stand => core.recovery.stand_asked.notify_one(),
            Kind::Ended => match recovery::take_ended(&core, body) {
                true => reply.send(Bytes::new()),
                false => reply.refuse("who has ended?"),
            },
            Kind::Load => {
                core.tasks.clone().spawn(near::serve_load(core, caller.node, body, reply));
            }
            Kind::News => {
                core.tasks.clone().spawn(near::serve_news(core, caller.node, body, reply));
            }
            Kind::Reseat => {
                core.tasks.clone().spawn(reseat::serve(core, caller.node, body, reply));
            }
        }
    }

    fn closed(&self, connection: u64) {
        self.0.groups.closed(connection);
    }
}

async fn leave(core: Arc<Core>, mut body: Bytes, reply: ReplyTo) {
    let (Ok(council::MESSAGES), Ok(node)) = (body.try_get_u8(), body.try_get_u64()) else {
        return reply.refuse("whose leaving?");
    };
    if !council::leads(&core) {
        return reply.refuse("not the council's leader");
    }
    match council::leaves(&core, NodeId::new(node)).await {
        Ok(()) => reply.send(Bytes::new()),
        Err(reason) => reply.refuse(&reason),
    }
}
