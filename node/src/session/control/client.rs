//! `CLIENT …`: commands about this connection and others.

use std::sync::Arc;
use std::time::Duration;

use scatterhoard_command::{
    ClientAttribute, ClientCommand, ClientFilter, ClientKind, ClientMatch, CommandError, ReplyMode,
};
use scatterhoard_resp::Encoder;
use tokio::time::Instant;

use super::super::Next;
use super::super::stage::Door;
use super::{Control, Mute};
use crate::clients::Client;
use crate::config::AnyKeyReads;
use crate::core::Core;

/// The one user.
const USER: &[u8] = b"default";

/// A longer pause is as good as none: nobody waits for its end.
const PAUSE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

const NO_TOUCH: &str = "CLIENT NO-TOUCH is not supported: every read counts as a use of its key";

const NEAR_ELSEWHERE: &str = "CLIENT NEAR is for the any-key port: on this one every read is \
    served by the leader of its key";

const NO_COPIES: &str = "CLIENT NEAR ON is not possible: this node keeps no copies of other nodes' keys \
    (--near-cache-bytes 0)";

/// Whether a client takes copies of what other nodes lead, as long as it has not said so itself.
pub(super) fn takes_copies(core: &Core, door: Door) -> bool {
    let takes = match core.config.any_key_reads {
        AnyKeyReads::Near => true,
        AnyKeyReads::Leader => false,
    };
    takes && door == Door::AnyKey && core.near.is_allowed()
}

impl Control {
    pub(super) fn about_clients(&mut self, command: ClientCommand<'_>, out: &mut Vec<u8>) -> Next {
        let mut reply = Encoder::new(out, self.protocol);
        match command {
            ClientCommand::Id => reply.integer(i64::try_from(self.client.id).unwrap_or(i64::MAX)),
            ClientCommand::Info => {
                let lines = self.lines(&[Arc::clone(&self.client)]);
                reply.verbatim(&lines);
            }
            ClientCommand::List(filter) => {
                let lines = self.lines(&self.listed(&filter));
                reply.verbatim(&lines);
            }
            ClientCommand::KillAddress { address } => {
                return self.kill_address(address, &mut reply);
            }
            ClientCommand::Kill { filters, skip_me } => {
                return self.kill(&filters, skip_me, &mut reply);
            }
            ClientCommand::SetName { name } => {
                self.set_name(name);
                reply.ok();
            }
            ClientCommand::GetName => match self.client.details().name {
                name if name.is_empty() => reply.null(),
                name => reply.bulk(name.as_bytes()),
            },
            ClientCommand::SetInfo { attribute, value } => {
                self.set_info(attribute, value);
                reply.ok();
            }
            // Memory pressure closes no connection here, so there is nothing to be spared from.
            ClientCommand::NoEvict { on } => {
                self.client.set_no_evict(on);
                reply.ok();
            }
            ClientCommand::NoTouch { on: false } => reply.ok(),
            ClientCommand::NoTouch { on: true } => {
                self.refuse(&mut reply, &CommandError::NotHere(NO_TOUCH));
            }
            ClientCommand::Reply(mode) => self.set_mute(mode, &mut reply),
            ClientCommand::Pause { timeout_ms, scope } => {
                let length = Duration::from_millis(timeout_ms).min(PAUSE_MAX);
                self.core.clients.pause(scope, Instant::now() + length);
                reply.ok();
            }
            ClientCommand::Unpause => {
                self.core.clients.unpause();
                reply.ok();
            }
            ClientCommand::TrackingOn(asked) => self.track(&asked, &mut reply),
            ClientCommand::TrackingOff => {
                self.track_nothing();
                reply.ok();
            }
            ClientCommand::Caching { yes } => self.note_caching(yes, &mut reply),
            ClientCommand::TrackingInfo => self.put_tracking(&mut reply),
            ClientCommand::Near { on } => self.set_near(on, &mut reply),
            ClientCommand::GetRedirect => {
                reply.integer(self.tracker.as_ref().map_or(-1, |it| it.redirected_to()));
            }
        }
        Next::Go
    }

    fn set_near(&mut self, on: bool, reply: &mut Encoder<'_>) {
        let refusal = match (self.door, on) {
            (Door::AnyKey, true) if !self.core.near.is_allowed() => Some(NO_COPIES),
            (Door::AnyKey, _) => None,
            (Door::Cluster | Door::Peer, _) => Some(NEAR_ELSEWHERE),
        };
        match refusal {
            Some(why) => self.refuse(reply, &CommandError::NotHere(why)),
            None => {
                self.near = on;
                reply.ok();
            }
        }
    }

    pub(super) fn set_name(&self, name: &[u8]) {
        let name = String::from_utf8_lossy(name).into_owned();
        self.client.change(|details| details.name = name);
    }

    fn set_info(&self, attribute: ClientAttribute, value: &[u8]) {
        let value = String::from_utf8_lossy(value).into_owned();
        self.client.change(|details| match attribute {
            ClientAttribute::LibraryName => details.library = value,
            ClientAttribute::LibraryVersion => details.library_version = value,
        });
    }

    fn set_mute(&mut self, mode: ReplyMode, reply: &mut Encoder<'_>) {
        match (mode, self.mute) {
            (ReplyMode::On, _) => {
                self.mute = Mute::None;
                reply.ok();
            }
            (ReplyMode::Off, _) | (ReplyMode::Skip, Mute::All) => self.mute = Mute::All,
            (ReplyMode::Skip, Mute::None | Mute::Next | Mute::This) => self.mute = Mute::Next,
        }
    }

    fn listed(&self, filter: &ClientFilter) -> Vec<Arc<Client>> {
        match filter {
            ClientFilter::All => self.core.clients.all(),
            ClientFilter::Kind(kind) => {
                let mut clients = self.core.clients.all();
                clients.retain(|client| is_of_kind(client, *kind));
                clients
            }
            ClientFilter::Ids(ids) => {
                ids.iter().filter_map(|&id| self.core.clients.with_id(id)).collect()
            }
        }
    }

    fn lines(&self, clients: &[Arc<Client>]) -> String {
        let now = Instant::now();
        let line = |client: &Arc<Client>| client.line(&self.core.stats, now) + "\n";
        clients.iter().map(line).collect()
    }

    fn kill_address(&self, address: &[u8], reply: &mut Encoder<'_>) -> Next {
        let filter = [ClientMatch::Address(address)];
        let found = self.core.clients.all().into_iter().find(|it| is_meant(it, &filter));
        let Some(found) = found else {
            self.refuse(reply, &CommandError::NoSuchClient);
            return Next::Go;
        };
        reply.ok();
        self.end(&found)
    }

    fn kill(&self, filters: &[ClientMatch<'_>], skip_me: bool, reply: &mut Encoder<'_>) -> Next {
        let unknown = filters.iter().find_map(|filter| match filter {
            ClientMatch::User(user) if *user != USER => Some(CommandError::no_such_user(user)),
            ClientMatch::User(_)
            | ClientMatch::Id(_)
            | ClientMatch::Address(_)
            | ClientMatch::LocalAddress(_)
            | ClientMatch::Kind(_) => None,
        });
        if let Some(error) = unknown {
            self.refuse(reply, &error);
            return Next::Go;
        }
        let mut meant = self.core.clients.all();
        meant.retain(|client| {
            is_meant(client, filters) && !(skip_me && client.id == self.client.id)
        });
        reply.integer(meant.len() as i64);
        let ends = meant.iter().map(|client| self.end(client)).filter(|&next| next == Next::Close);
        if ends.count() > 0 { Next::Close } else { Next::Go }
    }

    /// Ends another session at once; its own once it has answered.
    fn end(&self, client: &Arc<Client>) -> Next {
        if client.id == self.client.id {
            return Next::Close;
        }
        client.killed.cancel();
        Next::Go
    }
}

fn is_meant(client: &Client, filters: &[ClientMatch<'_>]) -> bool {
    filters.iter().all(|filter| match filter {
        ClientMatch::Id(id) => client.id == *id,
        ClientMatch::Address(addr) => client.addr.to_string().as_bytes() == *addr,
        ClientMatch::LocalAddress(addr) => client.local.to_string().as_bytes() == *addr,
        ClientMatch::Kind(kind) => is_of_kind(client, *kind),
        ClientMatch::User(user) => *user == USER,
    })
}

fn is_of_kind(client: &Client, kind: ClientKind) -> bool {
    match kind {
        ClientKind::Normal => !client.is_subscribed(),
        ClientKind::PubSub => client.is_subscribed(),
        ClientKind::Master | ClientKind::Replica => false,
    }
}
