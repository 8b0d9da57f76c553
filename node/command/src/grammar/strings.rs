//! `GET`, `SET` and what else works on strings.

use scatterhoard_store::{Expiry, Read, SetAnswer, When, Write};

use super::{Pair, Parsed, Request, expiry::Unit, is};
use crate::{Command, CommandError, number};

pub(crate) fn get(request: Request<'_>) -> Parsed<'_> {
    Ok(Command::Read(Read::Get { key: request.word(1) }))
}

pub(crate) fn set(request: Request<'_>) -> Parsed<'_> {
    let (mut when, mut keep) = (When::Always, false);
    let mut answer = SetAnswer::Done;
    let mut deadline = None;
    let mut options = request.options_from(3);
    while let Some(word) = options.next() {
        if is(word, "NX") && matches!(when, When::Always | When::Absent) {
            when = When::Absent;
        } else if is(word, "XX") && matches!(when, When::Always | When::Present) {
            when = When::Present;
        } else if is(word, "IFEQ") && when == When::Always {
            when = When::Equal(options.value()?);
        } else if is(word, "GET") {
            answer = SetAnswer::Before;
        } else if is(word, "KEEPTTL") && deadline.is_none() {
            keep = true;
        } else {
            let unit = Unit::of_option(word).filter(|_| !keep).ok_or(CommandError::Syntax)?;
            replace_deadline(&mut deadline, unit, options.value()?)?;
        }
    }
    let expiry = match deadline {
        Some((unit, word)) => request.expiry(unit, word)?,
        None if keep => Expiry::Keep,
        None => Expiry::Clear,
    };
    let (key, value) = (request.word(1), request.word(2));
    Ok(Command::Write(Write::Set { key, value, expiry, when, answer }))
}

/// Redis lets an option be given twice, and the last one counts, but not two different ones.
fn replace_deadline<'a>(
    deadline: &mut Option<(Unit, &'a [u8])>,
    unit: Unit,
    word: &'a [u8],
) -> Result<(), CommandError> {
    match deadline {
        Some((other, _)) if *other != unit => Err(CommandError::Syntax),
        Some(_) | None => {
            *deadline = Some((unit, word));
            Ok(())
        }
    }
}

pub(crate) fn getset(request: Request<'_>) -> Parsed<'_> {
    plain_set(request, 2, Expiry::Clear, When::Always, SetAnswer::Before)
}

pub(crate) fn setnx(request: Request<'_>) -> Parsed<'_> {
    plain_set(request, 2, Expiry::Clear, When::Absent, SetAnswer::Count)
}

pub(crate) fn setex(request: Request<'_>) -> Parsed<'_> {
    let expiry = request.expiry(Unit::Seconds, request.word(2))?;
    plain_set(request, 3, expiry, When::Always, SetAnswer::Done)
}

pub(crate) fn psetex(request: Request<'_>) -> Parsed<'_> {
    let expiry = request.expiry(Unit::Millis, request.word(2))?;
    plain_set(request, 3, expiry, When::Always, SetAnswer::Done)
}

fn plain_set<'a>(
    request: Request<'a>,
    value_at: usize,
    expiry: Expiry,
    when: When<'static>,
    answer: SetAnswer,
) -> Parsed<'a> {
    let (key, value) = (request.word(1), request.word(value_at));
    Ok(Command::Write(Write::Set { key, value, expiry, when, answer }))
}

/// Options are checked whether or not the key exists; Redis reads the number only if it does.
pub(crate) fn getex(request: Request<'_>) -> Parsed<'_> {
    let key = request.word(1);
    let mut persist = false;
    let mut deadline = None;
    let mut options = request.options_from(2);
    while let Some(word) = options.next() {
        if is(word, "PERSIST") && deadline.is_none() {
            persist = true;
        } else {
            let unit = Unit::of_option(word).filter(|_| !persist).ok_or(CommandError::Syntax)?;
            replace_deadline(&mut deadline, unit, options.value()?)?;
        }
    }
    Ok(match deadline {
        Some((unit, word)) => {
            Command::Write(Write::GetExpire { key, expiry: request.expiry(unit, word)? })
        }
        None if persist => Command::Write(Write::GetExpire { key, expiry: Expiry::Clear }),
        None => Command::Read(Read::Get { key }),
    })
}

pub(crate) fn getdel(request: Request<'_>) -> Parsed<'_> {
    Ok(Command::Write(Write::GetDelete { key: request.word(1) }))
}

pub(crate) fn mget(request: Request<'_>) -> Parsed<'_> {
    Ok(Command::Read(Read::GetMany { keys: request.words_from(1) }))
}

pub(crate) fn mset(request: Request<'_>) -> Parsed<'_> {
    Ok(Command::Write(Write::SetMany { pairs: key_value_pairs(request)? }))
}

pub(crate) fn msetnx(request: Request<'_>) -> Parsed<'_> {
    Ok(Command::Write(Write::SetManyIfAbsent { pairs: key_value_pairs(request)? }))
}

fn key_value_pairs(request: Request<'_>) -> Result<Vec<Pair<'_>>, CommandError> {
    if request.len().is_multiple_of(2) {
        return Err(CommandError::WrongArity(request.spec.name));
    }
    Ok(request.pairs_from(1))
}

pub(crate) fn incr(request: Request<'_>) -> Parsed<'_> {
    Ok(Command::Write(Write::Add { key: request.word(1), delta: 1 }))
}

pub(crate) fn decr(request: Request<'_>) -> Parsed<'_> {
    Ok(Command::Write(Write::Add { key: request.word(1), delta: -1 }))
}

pub(crate) fn incrby(request: Request<'_>) -> Parsed<'_> {
    Ok(Command::Write(Write::Add { key: request.word(1), delta: request.integer(2)? }))
}

pub(crate) fn decrby(request: Request<'_>) -> Parsed<'_> {
    let delta = request.integer(2)?.checked_neg().ok_or(CommandError::DecrementOverflow)?;
    Ok(Command::Write(Write::Add { key: request.word(1), delta }))
}

pub(crate) fn incrbyfloat(request: Request<'_>) -> Parsed<'_> {
    let delta = number::float(request.word(2)).ok_or(CommandError::NotAFloat)?;
    Ok(Command::Write(Write::AddFloat { key: request.word(1), delta }))
}

pub(crate) fn append(request: Request<'_>) -> Parsed<'_> {
    Ok(Command::Write(Write::Append { key: request.word(1), value: request.word(2) }))
}

pub(crate) fn strlen(request: Request<'_>) -> Parsed<'_> {
    Ok(Command::Read(Read::Length { key: request.word(1) }))
}

pub(crate) fn getrange(request: Request<'_>) -> Parsed<'_> {
    let (first, last) = (request.integer(2)?, request.integer(3)?);
    Ok(Command::Read(Read::GetRange { key: request.word(1), first, last }))
}

/// With nothing to set it creates nothing and answers the length, so it is a read.
pub(crate) fn setrange(request: Request<'_>) -> Parsed<'_> {
    let (key, value) = (request.word(1), request.word(3));
    let offset = request.integer(2)?;
    if offset < 0 {
        return Err(CommandError::OffsetOutOfRange);
    }
    if value.is_empty() {
        return Ok(Command::Read(Read::Length { key }));
    }
    let offset = u32::try_from(offset).map_err(|_| CommandError::TooLong)?;
    Ok(Command::Write(Write::SetRange { key, offset, value }))
}
