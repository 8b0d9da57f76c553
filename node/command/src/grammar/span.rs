//! Commands on the whole key space.

use super::{Parsed, Request, is, meaning};
use crate::{Command, CommandError, Flush, Glob, Scan, ScanKind, Span, number};

pub(crate) fn dbsize(_: Request<'_>) -> Parsed<'_> {
    Ok(Command::Span(Span::Count))
}

pub(crate) fn keys(request: Request<'_>) -> Parsed<'_> {
    Ok(Command::Span(Span::Keys { pattern: Glob::new(request.word(1)) }))
}

pub(crate) fn randomkey(_: Request<'_>) -> Parsed<'_> {
    Ok(Command::Span(Span::RandomKey))
}

/// Redis, as of 7.0, looks at ten keys if the client does not say how many.
const SCAN_COUNT_DEFAULT: u64 = 10;

pub(crate) fn scan(request: Request<'_>) -> Parsed<'_> {
    let cursor = number::cursor(request.word(1)).ok_or(CommandError::BadCursor)?;
    let (mut pattern, mut count, mut kind) = (None, SCAN_COUNT_DEFAULT, ScanKind::Any);
    let mut options = request.options_from(2);
    while let Some(word) = options.next() {
        let value = options.value()?;
        if is(word, "COUNT") {
            let number = number::integer(value).ok_or(CommandError::NotAnInteger)?;
            let positive = u64::try_from(number).ok().filter(|&number| number > 0);
            count = positive.ok_or(CommandError::Syntax)?;
        } else if is(word, "MATCH") {
            pattern = Some(Glob::new(value));
        } else if is(word, "TYPE") {
            kind = if is(value, "string") { ScanKind::String } else { ScanKind::Absent };
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok(Command::Span(Span::Scan(Scan { cursor, pattern, count, kind })))
}

pub(crate) fn flush(request: Request<'_>) -> Parsed<'_> {
    let modes = [("SYNC", Flush::Sync), ("ASYNC", Flush::Async)];
    let mode = match request.len() {
        1 => Flush::Unstated,
        2 => meaning(request.word(1), &modes).ok_or(CommandError::Syntax)?,
        _ => return Err(CommandError::Syntax),
    };
    Ok(Command::Span(Span::Flush(mode)))
}
