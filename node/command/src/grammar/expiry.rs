//! `EX`, `EXPIRE` and their relatives: deadlines, relative and absolute.

use scatterhoard_store::{Expiry, UnixMillis, WhenExpire, Write};

use super::{Parsed, Request, is, meaning};
use crate::{
    Command, CommandError,
    error::{ECHO_CHARS_MAX, printable},
    number,
};

/// How a deadline is given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// From now on: `EX`.
    Seconds,
    /// From now on: `PX`.
    Millis,
    /// Since the epoch: `EXAT`.
    UnixSeconds,
    /// Since the epoch: `PXAT`.
    UnixMillis,
}

impl Unit {
    /// The unit that goes with an option of `SET` or `GETEX`.
    pub(super) fn of_option(word: &[u8]) -> Option<Self> {
        let units = [
            ("EX", Self::Seconds),
            ("PX", Self::Millis),
            ("EXAT", Self::UnixSeconds),
            ("PXAT", Self::UnixMillis),
        ];
        meaning(word, &units)
    }

    const fn is_relative(self) -> bool {
        match self {
            Self::Seconds | Self::Millis => true,
            Self::UnixSeconds | Self::UnixMillis => false,
        }
    }

    /// The same in milliseconds, if that fits.
    fn in_millis(self, number: i64) -> Option<i64> {
        match self {
            Self::Seconds | Self::UnixSeconds => number.checked_mul(1_000),
            Self::Millis | Self::UnixMillis => Some(number),
        }
    }
}

impl Request<'_> {
    /// A deadline that a value is set with: after the epoch, and after now if it is relative.
    pub(super) fn expiry(self, unit: Unit, word: &[u8]) -> Result<Expiry, CommandError> {
        let number = number::integer(word).ok_or(CommandError::NotAnInteger)?;
        if number <= 0 {
            return Err(CommandError::BadExpire(self.spec.name));
        }
        self.expiry_of(unit, number)
    }

    /// A deadline of any sign. One that is not after now, if relative, or not after the epoch, becomes
    /// the epoch itself.
    fn expiry_of(self, unit: Unit, number: i64) -> Result<Expiry, CommandError> {
        let bad = || CommandError::BadExpire(self.spec.name);
        let millis = unit.in_millis(number).ok_or_else(bad)?;
        let Some(millis) = u64::try_from(millis).ok().filter(|&millis| millis > 0) else {
            return Ok(Expiry::At(UnixMillis::new(0)));
        };
        if !unit.is_relative() {
            return Ok(Expiry::At(UnixMillis::new(millis)));
        }
        if millis > UnixMillis::MAX.millis() - self.now.millis() {
            return Err(bad());
        }
        Ok(Expiry::After(millis))
    }
}

pub(crate) fn expire(request: Request<'_>) -> Parsed<'_> {
    set_deadline(request, Unit::Seconds)
}

pub(crate) fn pexpire(request: Request<'_>) -> Parsed<'_> {
    set_deadline(request, Unit::Millis)
}

pub(crate) fn expireat(request: Request<'_>) -> Parsed<'_> {
    set_deadline(request, Unit::UnixSeconds)
}

pub(crate) fn pexpireat(request: Request<'_>) -> Parsed<'_> {
    set_deadline(request, Unit::UnixMillis)
}

fn set_deadline(request: Request<'_>, unit: Unit) -> Parsed<'_> {
    let when = condition(request)?;
    let expiry = request.expiry_of(unit, request.integer(2)?)?;
    Ok(Command::Write(Write::Expire { key: request.word(1), expiry, when }))
}

fn condition(request: Request<'_>) -> Result<WhenExpire, CommandError> {
    let [mut nx, mut xx, mut gt, mut lt] = [false; 4];
    for word in request.options_from(3) {
        let given = if is(word, "NX") {
            &mut nx
        } else if is(word, "XX") {
            &mut xx
        } else if is(word, "GT") {
            &mut gt
        } else if is(word, "LT") {
            &mut lt
        } else {
            return Err(CommandError::ExpireOption(printable(word, ECHO_CHARS_MAX)));
        };
        *given = true;
    }
    match (nx, xx, gt, lt) {
        (true, false, false, false) => Ok(WhenExpire::Absent),
        (true, _, _, _) => Err(CommandError::ExpireNxWithOthers),
        (false, _, true, true) => Err(CommandError::ExpireGtWithLt),
        // No deadline counts as later than any, so `GT` never sets one where there is none.
        (false, _, true, false) => Ok(WhenExpire::Later),
        (false, true, false, true) => Ok(WhenExpire::PresentEarlier),
        (false, false, false, true) => Ok(WhenExpire::Earlier),
        (false, true, false, false) => Ok(WhenExpire::Present),
        (false, false, false, false) => Ok(WhenExpire::Always),
    }
}
