//! Sizes and times as people write them: `64mb`, `1gb`, `200ms`, `30s`. Knows nothing of flags or files.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes. Written like in a Redis configuration: `1k` is 1000, `1kb` is 1024, and so on for
/// `m`, `mb`, `g`, `gb`, `t`, `tb`, in either case; a bare number is bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bytes(pub(crate) u64);

/// A length of time: a whole number and `ms`, `s`, `m`, `h` or `d`. A bare number is refused, because
/// half of its readers would take it for seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub(crate) Duration);

/// Why a text is no size or time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum MeasureError {
    #[error("a size is a whole number and a unit, such as 512kb, 64mb or 1gb")]
    Size,
    #[error("a time is a whole number and a unit, such as 200ms, 30s or 5m")]
    Time,
    #[error("too large")]
    TooLarge,
}

impl FromStr for Bytes {
    type Err = MeasureError;

    fn from_str(text: &str) -> Result<Self, MeasureError> {
        let (number, unit) = split(text).ok_or(MeasureError::Size)?;
        let bytes_per_unit: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" => 1000,
            "kb" => 1 << 10,
            "m" => 1_000_000,
            "mb" => 1 << 20,
            "g" => 1_000_000_000,
            "gb" => 1 << 30,
            "t" => 1_000_000_000_000,
            "tb" => 1 << 40,
            _ => return Err(MeasureError::Size),
        };
        let number: u64 = number.parse().map_err(|_| MeasureError::TooLarge)?;
        number.checked_mul(bytes_per_unit).map(Self).ok_or(MeasureError::TooLarge)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("tb", 40), ("gb", 30), ("mb", 20), ("kb", 10)];
        let whole = |&(_, shift): &(&str, u32)| self.0 != 0 && self.0.trailing_zeros() >= shift;
        match units.iter().find(|unit| whole(unit)) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Span {
    type Err = MeasureError;

    fn from_str(text: &str) -> Result<Self, MeasureError> {
        let (number, unit) = split(text).ok_or(MeasureError::Time)?;
        let ms_per_unit: u64 = match unit.to_ascii_lowercase().as_str() {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(MeasureError::Time),
        };
        let number: u64 = number.parse().map_err(|_| MeasureError::TooLarge)?;
        let ms = number.checked_mul(ms_per_unit).ok_or(MeasureError::TooLarge)?;
        if ms > MS_MAX {
            return Err(MeasureError::TooLarge);
        }
        Ok(Self(Duration::from_millis(ms)))
    }
}

/// Ten years: any time that is told to a node can be added to any clock.
const MS_MAX: u64 = 3650 * 86_400_000;

/// The digits that a text begins with, and the rest. None if it begins with no digit.
fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    (!number.is_empty()).then(|| (number, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_like_redis_reads_them() {
        let check = |text: &str, bytes| assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        check("0", 0);
        check("1024", 1024);
        check("7b", 7);
        check("1k", 1000);
        check("1kb", 1024);
        check("64mb", 64 << 20);
        check("64MB", 64 << 20);
        check("3m", 3_000_000);
        check("1gb", 1 << 30);
        check("2g", 2_000_000_000);
        check("1tb", 1 << 40);
        check(" 5 gb ", 5 << 30);
    }

    #[test]
    fn what_is_no_size_is_refused() {
        let check =
            |text: &str, error| assert_eq!(text.parse::<Bytes>().unwrap_err(), error, "{text}");
        for text in ["", "mb", "-1", "1.5gb", "1pb", "1 g b", "0x10", "30s"] {
            check(text, MeasureError::Size);
        }
        check("99999999999999999999", MeasureError::TooLarge);
        check("99999999999tb", MeasureError::TooLarge);
    }

    #[test]
    fn times_are_read_with_their_unit() {
        let check = |text: &str, ms| {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(ms))), "{text}");
        };
        check("200ms", 200);
        check("0s", 0);
        check("30s", 30_000);
        check("30 S", 30_000);
        check("5m", 300_000);
        check("2h", 7_200_000);
        check("1d", 86_400_000);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let check =
            |text: &str, error| assert_eq!(text.parse::<Span>().unwrap_err(), error, "{text}");
        for text in ["", "30", "s", "-1s", "1.5s", "1w", "64mb"] {
            check(text, MeasureError::Time);
        }
        check("99999999999999999999s", MeasureError::TooLarge);
        check("4000d", MeasureError::TooLarge);
    }

    #[test]
    fn a_size_is_written_in_its_largest_whole_unit() {
        let check = |bytes, text| assert_eq!(Bytes(bytes).to_string(), text);
        check(0, "0");
        check(1000, "1000");
        check(1536, "1536");
        check(64 << 20, "64mb");
        check(1 << 30, "1gb");
    }
}
