//! Commands on keys, whatever their values are.

use scatterhoard_store::{DeadlineForm, Read, Write};

use super::{Parsed, Request, is};
use crate::{Command, CommandError, HelpTopic, ServerCommand, number};

pub(crate) fn del(request: Request<'_>) -> Parsed<'_> {
    Ok(Command::Write(Write::Delete { keys: request.words_from(1) }))
}

pub(crate) fn exists(request: Request<'_>) -> Parsed<'_> {
    Ok(Command::Read(Read::Exists { keys: request.words_from(1) }))
}

pub(crate) fn touch(request: Request<'_>) -> Parsed<'_> {
    Ok(Command::Read(Read::Touch { keys: request.words_from(1) }))
}

pub(crate) fn type_of(request: Request<'_>) -> Parsed<'_> {
    Ok(Command::Read(Read::Type { key: request.word(1) }))
}

pub(crate) fn ttl(request: Request<'_>) -> Parsed<'_> {
    deadline(request, DeadlineForm::SecondsLeft)
}

pub(crate) fn pttl(request: Request<'_>) -> Parsed<'_> {
    deadline(request, DeadlineForm::MillisLeft)
}

pub(crate) fn expiretime(request: Request<'_>) -> Parsed<'_> {
    deadline(request, DeadlineForm::AtSecond)
}

pub(crate) fn pexpiretime(request: Request<'_>) -> Parsed<'_> {
    deadline(request, DeadlineForm::AtMilli)
}

fn deadline(request: Request<'_>, form: DeadlineForm) -> Parsed<'_> {
    Ok(Command::Read(Read::Deadline { key: request.word(1), form }))
}

pub(crate) fn persist(request: Request<'_>) -> Parsed<'_> {
    Ok(Command::Write(Write::Persist { key: request.word(1) }))
}

pub(crate) fn rename(request: Request<'_>) -> Parsed<'_> {
    let (from, to) = (request.word(1), request.word(2));
    Ok(Command::Write(Write::Rename { from, to, only_if_absent: false }))
}

pub(crate) fn renamenx(request: Request<'_>) -> Parsed<'_> {
    let (from, to) = (request.word(1), request.word(2));
    Ok(Command::Write(Write::Rename { from, to, only_if_absent: true }))
}

pub(crate) fn copy(request: Request<'_>) -> Parsed<'_> {
    let (from, to) = (request.word(1), request.word(2));
    let mut replace = false;
    let mut options = request.options_from(3);
    while let Some(word) = options.next() {
        if is(word, "REPLACE") {
            replace = true;
        } else if is(word, "DB") {
            if number::int32(options.value()?)? != 0 {
                return Err(CommandError::DatabaseOutOfRange);
            }
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if from == to {
        return Err(CommandError::SameObject);
    }
    Ok(Command::Write(Write::Copy { from, to, replace }))
}

pub(crate) fn object_encoding(request: Request<'_>) -> Parsed<'_> {
    Ok(Command::Read(Read::Encoding { key: request.word(2) }))
}

pub(crate) fn object_freq(request: Request<'_>) -> Parsed<'_> {
    Ok(Command::Read(Read::Frequency { key: request.word(2) }))
}

pub(crate) fn object_idletime(request: Request<'_>) -> Parsed<'_> {
    Ok(Command::Read(Read::IdleTime { key: request.word(2) }))
}

pub(crate) fn object_refcount(request: Request<'_>) -> Parsed<'_> {
    Ok(Command::Read(Read::RefCount { key: request.word(2) }))
}

pub(crate) fn object_help(_: Request<'_>) -> Parsed<'_> {
    Ok(Command::Server(ServerCommand::Help(HelpTopic::Object)))
}

/// `SAMPLES` says how much of a nested value to look at. Strings are not nested, so it is only checked.
pub(crate) fn memory_usage(request: Request<'_>) -> Parsed<'_> {
    let mut options = request.options_from(3);
    while let Some(word) = options.next() {
        if !is(word, "SAMPLES") {
            return Err(CommandError::Syntax);
        }
        let samples = number::integer(options.value()?).ok_or(CommandError::NotAnInteger)?;
        if samples < 0 {
            return Err(CommandError::Syntax);
        }
    }
    Ok(Command::Read(Read::MemoryUsage { key: request.word(2) }))
}
