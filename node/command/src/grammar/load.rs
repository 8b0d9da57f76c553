//! `HOARD.…`: values that are loaded once for all who ask.

use scatterhoard_store::{
    Content, Expiry, Read, SetAnswer, TAGS_COUNT_MAX, Terms, Token, Wants, When, Write,
};

use super::{Options, Parsed, Request, expiry::Unit, is};
use crate::{Command, CommandError, Invalidate, Load, SessionCommand, Span, number};

pub(crate) fn get(request: Request<'_>) -> Parsed<'_> {
    let key = request.word(1);
    let mut options = request.options_from(2);
    let Some(word) = options.next() else {
        return Ok(Command::Read(Read::Lookup { key, wants: Wants::Look }));
    };
    if !is(word, "LEASE") {
        return Err(CommandError::Syntax);
    }
    let lease_ms = number::integer(options.value()?).ok_or(CommandError::NotAnInteger)?;
    let lease_ms = u64::try_from(lease_ms).ok().filter(|ms| (1..=Load::LEASE_MS_MAX).contains(ms));
    let lease_ms = lease_ms.ok_or(CommandError::LeaseOutOfRange)?;
    let wants = match (options.next(), options.left()) {
        (None, _) => Wants::Lease,
        (Some(word), 0) if is(word, "STALE") => Wants::LeaseOrStale,
        (Some(_), _) => return Err(CommandError::Syntax),
    };
    Ok(Command::Load(Load::Get { key, lease_ms, wants }))
}

pub(crate) fn wait(request: Request<'_>) -> Parsed<'_> {
    let timeout_ms = number::integer(request.word(2)).ok_or(CommandError::TimeoutNotAnInteger)?;
    let timeout_ms = u64::try_from(timeout_ms).map_err(|_| CommandError::TimeoutNegative)?;
    let key = request.word(1);
    Ok(match timeout_ms {
        0 => Command::Read(Read::Lookup { key, wants: Wants::Wait }),
        timeout_ms => Command::Load(Load::Wait { key, timeout_ms }),
    })
}

pub(crate) fn set(request: Request<'_>) -> Parsed<'_> {
    let Given { content, terms, when, answer } = request.given(2, Conditions::Allowed)?;
    Ok(Command::Write(Write::SetWith { key: request.word(1), content, terms, when, answer }))
}

pub(crate) fn fill(request: Request<'_>) -> Parsed<'_> {
    let token = token(request.word(2))?;
    let Given { content, terms, .. } = request.given(3, Conditions::Refused)?;
    Ok(Command::Write(Write::Fill { key: request.word(1), token, content, terms }))
}

pub(crate) fn release(request: Request<'_>) -> Parsed<'_> {
    let token = token(request.word(2))?;
    Ok(Command::Write(Write::Release { key: request.word(1), token }))
}

pub(crate) fn invalidate(request: Request<'_>) -> Parsed<'_> {
    let what = if is(request.word(1), "TAG") {
        Invalidate::Tags { tags: request.words_from(2) }
    } else if is(request.word(1), "PREFIX") && request.len() == 3 {
        Invalidate::Prefix { prefix: request.word(2) }
    } else {
        return Err(CommandError::Syntax);
    };
    Ok(Command::Span(Span::Invalidate(what)))
}

#[expect(clippy::unnecessary_wraps, reason = "one grammar among many")]
pub(crate) fn probe(_: Request<'_>) -> Parsed<'_> {
    Ok(Command::Session(SessionCommand::Probe))
}

/// A token as it was given out: in plain decimal.
fn token(word: &[u8]) -> Result<Token, CommandError> {
    let digits = str::from_utf8(word).ok().filter(|text| !text.starts_with('+'));
    digits.and_then(|text| text.parse().ok()).map(Token).ok_or(CommandError::BadToken)
}

/// Whether a command takes `NX`, `XX`, `IFEQ` and `VERSION`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Conditions {
    Allowed,
    Refused,
}

/// A value, and what goes with it.
struct Given<'a> {
    content: Content<'a>,
    terms: Terms<'a>,
    when: When<'a>,
    answer: SetAnswer,
}

impl<'a> Request<'a> {
    /// The value at this place, and the options behind it.
    ///
    /// `NEGATIVE` is an option, behind an empty value, and not a word in the place of the value: any word
    /// can be a value.
    fn given(self, value_at: usize, conditions: Conditions) -> Result<Given<'a>, CommandError> {
        let value = self.word(value_at);
        let (mut when, mut negative) = (When::Always, false);
        let (may, mut answer) = (conditions == Conditions::Allowed, SetAnswer::Done);
        let mut terms = Terms { expiry: Expiry::Clear, soft_millis: None, tags: Vec::new() };
        let mut options = self.options_from(value_at + 1);
        while let Some(word) = options.next() {
            if is(word, "NX") && may && when == When::Always {
                when = When::Absent;
            } else if is(word, "XX") && may && when == When::Always {
                when = When::Present;
            } else if is(word, "IFEQ") && may && when == When::Always {
                when = When::Equal(options.value()?);
            } else if is(word, "VERSION") && may {
                answer = SetAnswer::Version;
            } else if is(word, "NEGATIVE") && value.is_empty() {
                negative = true;
            } else if is(word, "PX") {
                terms.expiry = self.expiry(Unit::Millis, options.value()?)?;
            } else if is(word, "SOFT") {
                let Expiry::After(millis) = self.expiry(Unit::Millis, options.value()?)? else {
                    return Err(CommandError::Syntax);
                };
                terms.soft_millis = Some(millis);
            } else if is(word, "TAGS") && terms.tags.is_empty() {
                terms.tags = options.tags()?;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        if negative && terms.soft_millis.is_some() {
            return Err(CommandError::Syntax);
        }
        let content = if negative { Content::Negative } else { Content::Value(value) };
        Ok(Given { content, terms, when, answer })
    }
}

impl<'a> Options<'a> {
    /// A count, and so many tags.
    fn tags(&mut self) -> Result<Vec<&'a [u8]>, CommandError> {
        let count = number::integer(self.value()?).ok_or(CommandError::NotAnInteger)?;
        let count = usize::try_from(count).ok().filter(|it| (1..=TAGS_COUNT_MAX).contains(it));
        let count = count.ok_or(CommandError::TagsCount)?;
        if count > self.left() {
            return Err(CommandError::Syntax);
        }
        Ok(self.by_ref().take(count).collect())
    }
}
