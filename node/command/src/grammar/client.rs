//! `CLIENT …`

use super::{Options, Parsed, Request, is, meaning, session::timeout_ms};
use crate::{
    ClientAttribute, ClientCommand, ClientFilter, ClientKind, ClientMatch, Command, CommandError,
    HelpTopic, PauseScope, ReplyMode, ServerCommand, SessionCommand, Tracking,
    error::{ECHO_CHARS_MAX, printable},
    number,
};

const fn client(command: ClientCommand<'_>) -> Parsed<'_> {
    Ok(Command::Session(SessionCommand::Client(command)))
}

/// A name that can stand in a line of `CLIENT LIST`: printable ASCII without spaces. Empty is none.
pub(super) fn valid_name(name: &[u8]) -> Result<&[u8], CommandError> {
    if name.iter().all(u8::is_ascii_graphic) { Ok(name) } else { Err(CommandError::ClientName) }
}

pub(crate) fn id(_: Request<'_>) -> Parsed<'_> {
    client(ClientCommand::Id)
}

pub(crate) fn info(_: Request<'_>) -> Parsed<'_> {
    client(ClientCommand::Info)
}

pub(crate) fn list(request: Request<'_>) -> Parsed<'_> {
    let mut options = request.options_from(2);
    let filter = match options.next() {
        None => ClientFilter::All,
        Some(word) if is(word, "TYPE") && request.len() == 4 => {
            ClientFilter::Kind(kind(options.value()?)?)
        }
        Some(word) if is(word, "ID") && options.left() > 0 => {
            let ids = options.map(|id| number::integer(id).ok_or(CommandError::ClientId));
            // No connection has a negative id, so those name none.
            let ids = ids.filter_map(|id| id.map(|id| u64::try_from(id).ok()).transpose());
            ClientFilter::Ids(ids.collect::<Result<_, _>>()?)
        }
        Some(_) => return Err(CommandError::Syntax),
    };
    client(ClientCommand::List(filter))
}

const KINDS: [(&str, ClientKind); 5] = [
    ("normal", ClientKind::Normal),
    ("slave", ClientKind::Replica),
    ("replica", ClientKind::Replica),
    ("pubsub", ClientKind::PubSub),
    ("master", ClientKind::Master),
];

fn kind(word: &[u8]) -> Result<ClientKind, CommandError> {
    meaning(word, &KINDS).ok_or_else(|| CommandError::ClientKind(printable(word, ECHO_CHARS_MAX)))
}

pub(crate) fn kill(request: Request<'_>) -> Parsed<'_> {
    if request.len() == 3 {
        return client(ClientCommand::KillAddress { address: request.word(2) });
    }
    let (mut filters, mut skip_me) = (Vec::new(), true);
    let mut options = request.options_from(2);
    while let Some(word) = options.next() {
        match kill_filter(word, &mut options)? {
            KillWord::Filter(filter) => filters.push(filter),
            KillWord::SkipMe(skip) => skip_me = skip,
        }
    }
    client(ClientCommand::Kill { filters, skip_me })
}

enum KillWord<'a> {
    Filter(ClientMatch<'a>),
    SkipMe(bool),
}

fn kill_filter<'a>(word: &[u8], options: &mut Options<'a>) -> Result<KillWord<'a>, CommandError> {
    let value = options.value()?;
    let filter = if is(word, "ID") {
        let id = number::integer(value).and_then(|id| u64::try_from(id).ok());
        ClientMatch::Id(id.filter(|&id| id > 0).ok_or(CommandError::ClientIdNotPositive)?)
    } else if is(word, "TYPE") {
        ClientMatch::Kind(kind(value)?)
    } else if is(word, "ADDR") {
        ClientMatch::Address(value)
    } else if is(word, "LADDR") {
        ClientMatch::LocalAddress(value)
    } else if is(word, "USER") {
        ClientMatch::User(value)
    } else if is(word, "SKIPME") {
        let skip = meaning(value, &[("yes", true), ("no", false)]);
        return Ok(KillWord::SkipMe(skip.ok_or(CommandError::Syntax)?));
    } else {
        return Err(CommandError::Syntax);
    };
    Ok(KillWord::Filter(filter))
}

pub(crate) fn setname(request: Request<'_>) -> Parsed<'_> {
    client(ClientCommand::SetName { name: valid_name(request.word(2))? })
}

pub(crate) fn getname(_: Request<'_>) -> Parsed<'_> {
    client(ClientCommand::GetName)
}

pub(crate) fn setinfo(request: Request<'_>) -> Parsed<'_> {
    let (word, value) = (request.word(2), request.word(3));
    let attributes = [
        ("lib-name", (ClientAttribute::LibraryName, "lib-name")),
        ("lib-ver", (ClientAttribute::LibraryVersion, "lib-ver")),
    ];
    let (attribute, name) = meaning(word, &attributes)
        .ok_or_else(|| CommandError::ClientAttribute(printable(word, ECHO_CHARS_MAX)))?;
    let value = valid_name(value).map_err(|_| CommandError::ClientAttributeValue(name))?;
    client(ClientCommand::SetInfo { attribute, value })
}

pub(crate) fn near(request: Request<'_>) -> Parsed<'_> {
    client(ClientCommand::Near { on: on_or_off(request.word(2))? })
}

pub(crate) fn no_evict(request: Request<'_>) -> Parsed<'_> {
    client(ClientCommand::NoEvict { on: on_or_off(request.word(2))? })
}

pub(crate) fn no_touch(request: Request<'_>) -> Parsed<'_> {
    client(ClientCommand::NoTouch { on: on_or_off(request.word(2))? })
}

fn on_or_off(word: &[u8]) -> Result<bool, CommandError> {
    meaning(word, &[("on", true), ("off", false)]).ok_or(CommandError::Syntax)
}

pub(crate) fn reply(request: Request<'_>) -> Parsed<'_> {
    let modes = [("on", ReplyMode::On), ("off", ReplyMode::Off), ("skip", ReplyMode::Skip)];
    let mode = meaning(request.word(2), &modes).ok_or(CommandError::Syntax)?;
    client(ClientCommand::Reply(mode))
}

pub(crate) fn pause(request: Request<'_>) -> Parsed<'_> {
    if request.len() > 4 {
        let name = printable(request.word(1), ECHO_CHARS_MAX);
        return Err(CommandError::SubcommandArity { name, topic: HelpTopic::Client });
    }
    let scopes = [("ALL", PauseScope::All), ("WRITE", PauseScope::Writes)];
    let scope = match request.options_from(3).next() {
        None => PauseScope::All,
        Some(word) => meaning(word, &scopes).ok_or(CommandError::PauseScope)?,
    };
    client(ClientCommand::Pause { timeout_ms: timeout_ms(request.word(2))?, scope })
}

pub(crate) fn unpause(_: Request<'_>) -> Parsed<'_> {
    client(ClientCommand::Unpause)
}

pub(crate) fn tracking(request: Request<'_>) -> Parsed<'_> {
    let mut tracking = Tracking::default();
    let mut options = request.options_from(3);
    while let Some(word) = options.next() {
        if is(word, "REDIRECT") && options.left() > 0 {
            if tracking.redirect.is_some() {
                return Err(CommandError::TrackingRedirectTwice);
            }
            let id = number::integer(options.value()?);
            tracking.redirect = Some(id.ok_or(CommandError::NotAnInteger)?);
        } else if is(word, "PREFIX") && options.left() > 0 {
            tracking.prefixes.push(options.value()?);
        } else {
            let flag = meaning(word, &TRACKING_FLAGS).ok_or(CommandError::Syntax)?;
            *flag(&mut tracking) = true;
        }
    }
    match on_or_off(request.word(2))? {
        true => client(ClientCommand::TrackingOn(tracking)),
        false => client(ClientCommand::TrackingOff),
    }
}

/// Where an option without a value is noted.
type TrackingFlag = for<'t, 'a> fn(&'t mut Tracking<'a>) -> &'t mut bool;

const TRACKING_FLAGS: [(&str, TrackingFlag); 4] = [
    ("BCAST", |tracking| &mut tracking.broadcast),
    ("OPTIN", |tracking| &mut tracking.opt_in),
    ("OPTOUT", |tracking| &mut tracking.opt_out),
    ("NOLOOP", |tracking| &mut tracking.no_loop),
];

pub(crate) fn caching(request: Request<'_>) -> Parsed<'_> {
    let yes = meaning(request.word(2), &[("yes", true), ("no", false)]);
    client(ClientCommand::Caching { yes })
}

pub(crate) fn trackinginfo(_: Request<'_>) -> Parsed<'_> {
    client(ClientCommand::TrackingInfo)
}

pub(crate) fn getredir(_: Request<'_>) -> Parsed<'_> {
    client(ClientCommand::GetRedirect)
}

pub(crate) fn help(_: Request<'_>) -> Parsed<'_> {
    Ok(Command::Server(ServerCommand::Help(HelpTopic::Client)))
}
