//! Integers in decimal, as strict as Redis reads them in headers.

/// `0`, or an optional `-` and digits that do not start with 0, within `i64`. Redis, `string2ll`: no
/// `+`, no blanks, no leading zeros, no `-0`.
pub(crate) fn parse(digits: &[u8]) -> Option<i64> {
    let (negative, magnitude) = match digits {
        [b'0'] => return Some(0),
        [b'-', magnitude @ ..] => (true, magnitude),
        magnitude => (false, magnitude),
    };
    if !matches!(magnitude, [b'1'..=b'9', ..]) {
        return None;
    }
    // Summed up below zero, where there is one number more.
    let negated = magnitude.iter().try_fold(0_i64, |sum, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum.checked_mul(10)?.checked_sub(i64::from(digit))
    })?;
    if negative { Some(negated) } else { negated.checked_neg() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_strict_as_redis() {
        for good in [0, 1, -1, 10, -10, 1_048_576, i64::MAX, i64::MIN] {
            assert_eq!(parse(good.to_string().as_bytes()), Some(good));
        }
        let bad = ["", "-", "+1", " 1", "1 ", "01", "00", "-0", "-01", "1a", "0x1", "1.0", "--1"];
        let far = ["9223372036854775808", "-9223372036854775809", "99999999999999999999999999"];
        for text in bad.into_iter().chain(far) {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
