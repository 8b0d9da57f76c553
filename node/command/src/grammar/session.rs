//! Commands about the connection they come on.

use scatterhoard_resp::Protocol;

use super::{Options, Parsed, Request, client::valid_name, is};
use crate::{
    Command, CommandError, Credentials, Hello, SessionCommand,
    error::{ECHO_CHARS_MAX, printable},
    number,
};

const fn session(command: SessionCommand<'_>) -> Parsed<'_> {
    Ok(Command::Session(command))
}

pub(crate) fn ping(request: Request<'_>) -> Parsed<'_> {
    match request.len() {
        1 => session(SessionCommand::Ping { message: None }),
        2 => session(SessionCommand::Ping { message: Some(request.word(1)) }),
        _ => Err(CommandError::WrongArity(request.spec.name)),
    }
}

pub(crate) fn echo(request: Request<'_>) -> Parsed<'_> {
    session(SessionCommand::Echo { message: request.word(1) })
}

pub(crate) fn hello(request: Request<'_>) -> Parsed<'_> {
    let mut hello = Hello::default();
    let mut options = request.options_from(1);
    if let Some(word) = options.next() {
        hello.version = Some(protocol(word)?);
    }
    while let Some(word) = options.next() {
        if let Err(error) = hello_option(&mut hello, word, &mut options) {
            if hello.credentials.is_none() {
                return Err(error);
            }
            hello.flaw = Some(error);
            break;
        }
    }
    session(SessionCommand::Hello(hello))
}

fn protocol(word: &[u8]) -> Result<Protocol, CommandError> {
    match number::integer(word) {
        None => Err(CommandError::ProtocolNotAnInteger),
        Some(2) => Ok(Protocol::Resp2),
        Some(3) => Ok(Protocol::Resp3),
        Some(_) => Err(CommandError::ProtocolUnsupported),
    }
}

fn hello_option<'a>(
    hello: &mut Hello<'a>,
    word: &'a [u8],
    options: &mut Options<'a>,
) -> Result<(), CommandError> {
    let bad = || CommandError::HelloOption(printable(word, ECHO_CHARS_MAX));
    if is(word, "AUTH") {
        let (user, password) = options.next().zip(options.next()).ok_or_else(bad)?;
        hello.credentials = Some(Credentials { user: Some(user), password });
    } else if is(word, "SETNAME") {
        let name = options.next().ok_or_else(bad)?;
        hello.name = Some(valid_name(name)?);
    } else {
        return Err(bad());
    }
    Ok(())
}

pub(crate) fn auth(request: Request<'_>) -> Parsed<'_> {
    match request.len() {
        2 => session(SessionCommand::Auth(Credentials { user: None, password: request.word(1) })),
        3 => {
            let (user, password) = (Some(request.word(1)), request.word(2));
            session(SessionCommand::Auth(Credentials { user, password }))
        }
        _ => Err(CommandError::Syntax),
    }
}

pub(crate) fn select(request: Request<'_>) -> Parsed<'_> {
    session(SessionCommand::Select { database: number::int32(request.word(1))? })
}

pub(crate) fn quit(_: Request<'_>) -> Parsed<'_> {
    session(SessionCommand::Quit)
}

pub(crate) fn reset(_: Request<'_>) -> Parsed<'_> {
    session(SessionCommand::Reset)
}

pub(crate) fn subscribe(request: Request<'_>) -> Parsed<'_> {
    session(SessionCommand::Subscribe { channels: request.words_from(1) })
}

pub(crate) fn unsubscribe(request: Request<'_>) -> Parsed<'_> {
    session(SessionCommand::Unsubscribe { channels: request.words_from(1) })
}

pub(crate) fn readonly(_: Request<'_>) -> Parsed<'_> {
    session(SessionCommand::ReadOnly)
}

pub(crate) fn readwrite(_: Request<'_>) -> Parsed<'_> {
    session(SessionCommand::ReadWrite)
}

pub(crate) fn asking(_: Request<'_>) -> Parsed<'_> {
    session(SessionCommand::Asking)
}

pub(crate) fn wait(request: Request<'_>) -> Parsed<'_> {
    let replicas = request.integer(1)?;
    session(SessionCommand::Wait { replicas, timeout_ms: timeout_ms(request.word(2))? })
}

/// `[0, 2^63)`.
pub(super) fn timeout_ms(word: &[u8]) -> Result<u64, CommandError> {
    let number = number::integer(word).ok_or(CommandError::TimeoutNotAnInteger)?;
    u64::try_from(number).map_err(|_| CommandError::TimeoutNegative)
}
