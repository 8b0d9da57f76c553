//! Numbers as Redis reads them: stricter than Rust's, so that every number has one spelling.

use crate::CommandError;

/// An `i64` in plain decimal: no plus sign, no leading zeros, no spaces, no `-0`.
pub(crate) fn integer(word: &[u8]) -> Option<i64> {
    let digits = word.strip_prefix(b"-").unwrap_or(word);
    let negative = digits.len() < word.len();
    match digits {
        [b'0'] => return (!negative).then_some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    // Counted downwards, since the least i64 has no positive counterpart.
    let minus = digits.iter().try_fold(0i64, |sum, &byte| {
        let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_sub(digit)
    })?;
    if negative { Some(minus) } else { minus.checked_neg() }
}

/// An `i32`, with the two texts that Redis has for what is none.
pub(crate) fn int32(word: &[u8]) -> Result<i32, CommandError> {
    let number = integer(word).ok_or(CommandError::NotAnInteger)?;
    i32::try_from(number).map_err(|_| CommandError::NotAnInt32)
}

/// A decimal fraction, exponents and infinities included. Redis also reads hexadecimal ones, and what
/// is larger than an `f64`; here the latter are infinite.
pub(crate) fn float(word: &[u8]) -> Option<f64> {
    let number: f64 = str::from_utf8(word).ok()?.parse().ok()?;
    (!number.is_nan()).then_some(number)
}

/// A cursor as `strtoul` reads it: Redis accepts signs and leading zeros here, and nothing for 0.
pub(crate) fn cursor(word: &[u8]) -> Option<u64> {
    let (digits, negative) = match word {
        [b'-', digits @ ..] => (digits, true),
        [b'+', digits @ ..] => (digits, false),
        digits => (digits, false),
    };
    if digits.is_empty() && !word.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0u64, |sum, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })?;
    Some(if negative { number.wrapping_neg() } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_has_one_spelling() {
        for number in [0, 1, -1, 10, i64::MAX, i64::MIN] {
            assert_eq!(integer(number.to_string().as_bytes()), Some(number));
        }
        let strange =
            ["", "-", "+1", "01", "-0", "-01", " 1", "1 ", "1.0", "0x1", "9223372036854775808"];
        for word in strange {
            assert_eq!(integer(word.as_bytes()), None, "{word:?}");
        }
    }

    #[test]
    fn cursors_are_read_as_strtoul_does() {
        let check = |word: &str, number| assert_eq!(cursor(word.as_bytes()), number, "{word:?}");
        check("", Some(0));
        check("+007", Some(7));
        check("-1", Some(u64::MAX));
        check("18446744073709551615", Some(u64::MAX));
        for word in ["18446744073709551616", " 0", "0x1", "+", "-", "1a"] {
            check(word, None);
        }
    }
}
