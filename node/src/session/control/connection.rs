//! Commands about the connection itself.

use scatterhoard_command::{CommandError, Credentials, Hello, SessionCommand};
use scatterhoard_resp::{Encoder, Protocol};

use super::super::Next;
use super::super::stage::Door;
use super::client::takes_copies;
use super::{Control, Mute};
use crate::core::Core;
use crate::stats::ErrorCode;

/// The version of Redis whose commands and replies these are.
pub(crate) const REDIS_VERSION: &str = "7.2.4";

/// The one user.
const USER: &[u8] = b"default";

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NotLetIn {
    WrongPassword,
    /// A password alone was given, and none is needed: somebody's configuration is wrong.
    NoneNeeded,
}

impl Control {
    pub(super) fn connection(&mut self, command: SessionCommand<'_>, out: &mut Vec<u8>) -> Next {
        let mut reply = Encoder::new(out, self.protocol);
        match command {
            SessionCommand::Ping { message }
                if self.subscribed && self.protocol == Protocol::Resp2 =>
            {
                reply.array(2);
                reply.bulk(b"pong");
                reply.bulk(message.unwrap_or_default());
            }
            SessionCommand::Ping { message: None } => reply.simple("PONG"),
            SessionCommand::Ping { message: Some(message) } | SessionCommand::Echo { message } => {
                reply.bulk(message);
            }
            SessionCommand::Hello(hello) => self.hello(&hello, out),
            SessionCommand::Auth(credentials) => match self.authenticate(&credentials) {
                Ok(()) => reply.ok(),
                Err(why) => self.put_not_let_in(&mut reply, why),
            },
            SessionCommand::Select { database: 0 }
            | SessionCommand::ReadOnly
            | SessionCommand::ReadWrite
            | SessionCommand::Asking => reply.ok(),
            SessionCommand::Select { .. } => match self.door {
                Door::Cluster => self.refuse(&mut reply, &CommandError::SelectInCluster),
                Door::AnyKey | Door::Peer => {
                    self.refuse(&mut reply, &CommandError::DatabaseOutOfRange);
                }
            },
            SessionCommand::Quit => {
                reply.ok();
                return Next::Close;
            }
            SessionCommand::Reset => self.reset(out),
            // What was acknowledged is on a majority already, so there is nothing to wait for; and
            // waiting would not make it more than is certain.
            SessionCommand::Wait { .. } => reply.integer(replicas_surely(&self.core, self.door)),
            SessionCommand::Probe => self.probe(out),
            SessionCommand::Subscribe { channels } => self.subscribe(&channels, &mut reply),
            SessionCommand::Unsubscribe { channels } => self.unsubscribe(&channels, &mut reply),
            SessionCommand::Client(command) => return self.about_clients(command, out),
        }
        Next::Go
    }

    fn hello(&mut self, hello: &Hello<'_>, out: &mut Vec<u8>) {
        if let Some(credentials) = &hello.credentials
            && let Err(why) = self.authenticate(credentials)
        {
            return self.put_not_let_in(&mut Encoder::new(out, self.protocol), why);
        }
        if let Some(flaw) = &hello.flaw {
            return self.refuse(&mut Encoder::new(out, self.protocol), flaw);
        }
        if !self.is_trusted() {
            self.core.stats.erred(ErrorCode::NoAuth);
            return Encoder::new(out, self.protocol).error(
                "NOAUTH",
                "HELLO must be called with the client already authenticated, otherwise the HELLO \
                 AUTH <user> <pass> option can be used to authenticate the client and select the \
                 RESP protocol version at the same time",
            );
        }
        if let Some(name) = hello.name {
            self.set_name(name);
        }
        if let Some(version) = hello.version {
            self.speak(version);
        }
        self.put_greeting(&mut Encoder::new(out, self.protocol));
    }

    fn put_greeting(&self, reply: &mut Encoder<'_>) {
        let (mode, proto) = match self.door {
            Door::Cluster => ("cluster", self.protocol),
            Door::AnyKey | Door::Peer => ("standalone", self.protocol),
        };
        let zone = &self.core.config.zone;
        reply.map(if zone.is_empty() { 7 } else { 8 });
        for (name, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
        reply.bulk(b"proto");
        reply.integer(match proto {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        });
        reply.bulk(b"id");
        reply.integer(i64::try_from(self.client.id).unwrap_or(i64::MAX));
        for (name, value) in [("mode", mode), ("role", "master")] {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
        reply.bulk(b"modules");
        reply.array(0);
        if !zone.is_empty() {
            reply.bulk(b"availability_zone");
            reply.bulk(zone.as_bytes());
        }
    }

    fn authenticate(&mut self, credentials: &Credentials<'_>) -> Result<(), NotLetIn> {
        let settings = &self.core.settings;
        match credentials.user {
            None if !settings.has_password() => return Err(NotLetIn::NoneNeeded),
            Some(user) if user != USER => return Err(NotLetIn::WrongPassword),
            None | Some(_) => {}
        }
        if !settings.is_password(credentials.password) {
            return Err(NotLetIn::WrongPassword);
        }
        self.authenticated = true;
        Ok(())
    }

    fn put_not_let_in(&self, reply: &mut Encoder<'_>, why: NotLetIn) {
        match why {
            NotLetIn::WrongPassword => {
                self.core.stats.erred(ErrorCode::WrongPass);
                reply.error("WRONGPASS", "invalid username-password pair or user is disabled.");
            }
            NotLetIn::NoneNeeded => {
                self.core.stats.erred(ErrorCode::Err);
                reply.error(
                    "ERR",
                    "AUTH <password> called without any password configured for the default user. \
                     Are you sure your configuration is correct?",
                );
            }
        }
    }

    /// As when it was new; but if this very answer is to be skipped, it is.
    fn reset(&mut self, out: &mut Vec<u8>) {
        if self.mute != Mute::This {
            self.mute = Mute::None;
        }
        self.authenticated = !self.core.settings.has_password();
        self.client.change(|details| details.name.clear());
        self.client.set_no_evict(false);
        self.track_nothing();
        self.near = takes_copies(&self.core, self.door);
        self.set_subscribed(false);
        self.speak(Protocol::Resp2);
        Encoder::new(out, self.protocol).simple("RESET");
    }

    fn speak(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.client.speaks(protocol);
    }
}

/// How many other replicas surely have every write that was acknowledged at this door: what is left of a
/// majority of each partition's voters, the leader counted out. With three replicas that is 1.
fn replicas_surely(core: &Core, door: Door) -> i64 {
    let hosted = core.hosting.now();
    let by_group =
        |partition: &crate::partition::Partition| partition.group.members().voters.len() / 2;
    let least = match door {
        Door::Cluster | Door::Peer => hosted.led().iter().map(|it| by_group(it)).min(),
        Door::AnyKey => core.tables.newest().and_then(|table| {
            let surely = table.partitions.iter().map(|(&id, partition)| {
                let placed = partition.placement.replicas.len() / 2;
                hosted.of_partition(id).map_or(placed, |hosted| by_group(hosted).min(placed))
            });
            surely.min()
        }),
    };
    i64::try_from(least.unwrap_or(0)).unwrap_or(0)
}
