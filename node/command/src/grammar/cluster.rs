//! `CLUSTER …`

use scatterhoard_ring::Slot;

use super::{Parsed, Request, meaning};
use crate::{
    ClusterCommand, Command, CommandError, FailoverMode, HelpTopic, ServerCommand,
    error::{ECHO_CHARS_MAX, printable},
    number,
};

const fn cluster(command: ClusterCommand<'_>) -> Parsed<'_> {
    Ok(Command::Server(ServerCommand::Cluster(command)))
}

pub(crate) fn slots(_: Request<'_>) -> Parsed<'_> {
    cluster(ClusterCommand::Slots)
}

pub(crate) fn shards(_: Request<'_>) -> Parsed<'_> {
    cluster(ClusterCommand::Shards)
}

pub(crate) fn nodes(_: Request<'_>) -> Parsed<'_> {
    cluster(ClusterCommand::Nodes)
}

pub(crate) fn info(_: Request<'_>) -> Parsed<'_> {
    cluster(ClusterCommand::Info)
}

pub(crate) fn myid(_: Request<'_>) -> Parsed<'_> {
    cluster(ClusterCommand::MyId)
}

pub(crate) fn myshardid(_: Request<'_>) -> Parsed<'_> {
    cluster(ClusterCommand::MyShardId)
}

pub(crate) fn links(_: Request<'_>) -> Parsed<'_> {
    cluster(ClusterCommand::Links)
}

pub(crate) fn keyslot(request: Request<'_>) -> Parsed<'_> {
    cluster(ClusterCommand::KeySlot { key: request.word(2) })
}

pub(crate) fn countkeysinslot(request: Request<'_>) -> Parsed<'_> {
    let slot = slot(request.integer(2)?).ok_or(CommandError::BadSlot)?;
    cluster(ClusterCommand::CountKeysInSlot { slot })
}

pub(crate) fn getkeysinslot(request: Request<'_>) -> Parsed<'_> {
    let (number, count) = (request.integer(2)?, request.integer(3)?);
    let (slot, count) =
        slot(number).zip(u64::try_from(count).ok()).ok_or(CommandError::BadSlotOrCount)?;
    cluster(ClusterCommand::GetKeysInSlot { slot, count })
}

fn slot(number: i64) -> Option<Slot> {
    Slot::new(u16::try_from(number).ok()?)
}

pub(crate) fn replicas(request: Request<'_>) -> Parsed<'_> {
    cluster(ClusterCommand::Replicas { node: request.word(2) })
}

pub(crate) fn forget(request: Request<'_>) -> Parsed<'_> {
    cluster(ClusterCommand::Forget { node: request.word(2) })
}

/// Unlike in Redis, where the peer port follows from the other, any port from 1 on will do.
pub(crate) fn meet(request: Request<'_>) -> Parsed<'_> {
    let (host, port_word) = (request.word(2), request.word(3));
    let port = number::integer(port_word)
        .ok_or_else(|| CommandError::BadPort(printable(port_word, ECHO_CHARS_MAX)))?;
    let peer_port = match request.options_from(4).next() {
        None => None,
        Some(word) => Some(
            number::integer(word)
                .ok_or_else(|| CommandError::BadPeerPort(printable(word, ECHO_CHARS_MAX)))?,
        ),
    };
    let bad = || {
        let host = printable(host, ECHO_CHARS_MAX);
        CommandError::BadAddress(format!("{host}:{port}"))
    };
    if request.len() > 5 {
        let name = printable(request.word(1), ECHO_CHARS_MAX);
        return Err(CommandError::SubcommandArity { name, topic: HelpTopic::Cluster });
    }
    let peer_port = peer_port.map(|number| tcp_port(number).ok_or_else(bad)).transpose()?;
    let port = tcp_port(port).filter(|_| !host.is_empty()).ok_or_else(bad)?;
    cluster(ClusterCommand::Meet { host, port, peer_port })
}

fn tcp_port(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|&port| port > 0)
}

pub(crate) fn failover(request: Request<'_>) -> Parsed<'_> {
    if request.len() > 3 {
        let name = printable(request.word(1), ECHO_CHARS_MAX);
        return Err(CommandError::SubcommandArity { name, topic: HelpTopic::Cluster });
    }
    let modes = [("FORCE", FailoverMode::Force), ("TAKEOVER", FailoverMode::Takeover)];
    let mode = match request.options_from(2).next() {
        None => FailoverMode::Agreed,
        Some(word) => meaning(word, &modes).ok_or(CommandError::Syntax)?,
    };
    cluster(ClusterCommand::Failover(mode))
}

pub(crate) fn help(_: Request<'_>) -> Parsed<'_> {
    Ok(Command::Server(ServerCommand::Help(HelpTopic::Cluster)))
}
