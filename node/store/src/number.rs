//! How values are read and written as numbers, as Redis does it.

use crate::OpError;

/// A 64-bit integer in its only spelling: no sign `+`, no leading zeros, no spaces. Redis,
/// `string2ll`.
pub(crate) fn parse_integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [] => false,
        [b'0'] => text.len() == 1,
        [b'0', ..] => false,
        [_, ..] => digits.iter().all(u8::is_ascii_digit),
    };
    if !canonical || text.len() > 20 {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The sum of a value and an increment, in Redis's human-friendly spelling: at most 17 digits behind
/// the point, no exponent, no zeros at the end.
///
/// Redis adds in the 80 bits of a C `long double`, which other machines do not have. Here numbers below
/// 10^20 are added as decimals, exactly to 17 digits behind the point (so 0.1 + 0.2 = 0.3, as Redis has
/// it, and 10^15 + 0.1 has none of the noise that Redis shows), and larger ones as `f64`.
///
/// # Errors
/// The value is not a number, or the sum is none.
pub(crate) fn add_float(value: &[u8], delta: f64) -> Result<String, OpError> {
    let text = std::str::from_utf8(value).map_err(|_| OpError::NotAFloat)?;
    let number: f64 = text.parse().map_err(|_| OpError::NotAFloat)?;
    if number.is_nan() {
        return Err(OpError::NotAFloat);
    }
    let sum = number + delta;
    if !sum.is_finite() {
        return Err(OpError::NanOrInfinity);
    }
    if number.abs() < EXACT_BELOW && delta.abs() < EXACT_BELOW {
        let exact = parse_decimal(text).zip(parse_decimal(&delta.to_string()));
        if let Some((number, delta)) = exact {
            return Ok(format_decimal(number + delta));
        }
    }
    Ok(if sum == 0.0 { "0".to_owned() } else { sum.to_string() })
}

/// Twice this times 10^17 is below 2^127.
const EXACT_BELOW: f64 = 1e20;
const FRACTION_DIGITS: i32 = 17;
const ONE: i128 = 10_i128.pow(FRACTION_DIGITS as u32);

/// The number in units of 10^-17, rounded half away from zero; `None` if it is not so spelled or too
/// large. What `f64` understands by names (`inf`) is not.
fn parse_decimal(text: &str) -> Option<i128> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], unsigned[at + 1..].parse::<i32>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // The power of ten of the next digit, in units of 10^-17.
    let whole_digits = i32::try_from(whole.len()).ok()?;
    let mut power = exponent.checked_add(FRACTION_DIGITS)?.checked_add(whole_digits - 1)?;
    let mut sum: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        let digit = i128::from(digit.checked_sub(b'0').filter(|&digit| digit < 10)?);
        if power >= 0 && digit > 0 {
            let weight = 10_i128.checked_pow(u32::try_from(power).ok()?)?;
            sum = sum.checked_add(digit.checked_mul(weight)?)?;
        } else if power == -1 && digit >= 5 {
            sum += 1;
        }
        power = power.checked_sub(1)?;
    }
    Some(if negative { -sum } else { sum })
}

fn format_decimal(sum: i128) -> String {
    let sign = if sum < 0 { "-" } else { "" };
    let (whole, fraction) = (sum.unsigned_abs() / ONE as u128, sum.unsigned_abs() % ONE as u128);
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    let digits = format!("{fraction:017}");
    format!("{sign}{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_has_one_spelling() {
        for (text, number) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            ("", None),
            ("-", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
        ] {
            assert_eq!(parse_integer(text.as_bytes()), number, "{text:?}");
        }
    }

    #[test]
    fn sums_are_spelled_as_redis_spells_them() {
        // What redis-server 7.0.15 answers.
        for (value, delta, sum) in [
            ("10.50", 0.1, "10.6"),
            ("5.0e3", 200.0, "5200"),
            ("0.1", 0.2, "0.3"),
            ("1", -1.0, "0"),
            ("3", 0.0, "3"),
            ("-1.5", 0.25, "-1.25"),
            ("+3", 1.5, "4.5"),
            (".5", 1.0, "1.5"),
            ("5.", 1.0, "6"),
            ("1e-17", 0.0, "0.00000000000000001"),
            ("1e-30", 0.0, "0"),
            ("00e2147483630", 1.0, "1"),
            ("100000000000000000000", 1e20, "200000000000000000000"),
        ] {
            assert_eq!(add_float(value.as_bytes(), delta).as_deref(), Ok(sum), "{value} + {delta}");
        }
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        for text in ["", "abc", " 1", "1 ", "1e", "nan", "0x", "1.2.3"] {
            assert_eq!(add_float(text.as_bytes(), 1.0), Err(OpError::NotAFloat), "{text:?}");
        }
        assert_eq!(add_float(b"inf", 1.0), Err(OpError::NanOrInfinity));
        assert_eq!(add_float(b"1.7e308", 1.7e308), Err(OpError::NanOrInfinity));
        assert_eq!(add_float(b"1", f64::INFINITY), Err(OpError::NanOrInfinity));
        assert_eq!(add_float(b"1", f64::NAN), Err(OpError::NanOrInfinity));
    }
}
