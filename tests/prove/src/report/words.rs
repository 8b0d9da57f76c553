//! Numbers and times as people write them.

/// `184,233`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 fault`, `2 faults`.
pub(super) fn counted(number: u64, one: &str, more: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { more })
}

/// How long: `420 ms`, `1.9 s`, `2 min 5 s`, `1 h 2 min`.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms.saturating_add(500) / 1000;
    match ms {
        0..1000 => format!("{ms} ms"),
        // Rounded to a tenth, and then below 60.0.
        1000..59_950 => format!("{}.{} s", (ms + 50) / 1000, (ms + 50) % 1000 / 100),
        _ if seconds < 3600 => match (seconds / 60, seconds % 60) {
            (minutes, 0) => format!("{minutes} min"),
            (minutes, rest) => format!("{minutes} min {rest} s"),
        },
        _ => match (seconds / 3600, seconds % 3600 / 60) {
            (hours, 0) => format!("{} h", count(hours)),
            (hours, minutes) => format!("{} h {minutes} min", count(hours)),
        },
    }
}

/// When, on the axis: `0:05`, `59:30`, `1:02:00`; with tenths where `ms` is not whole seconds.
pub(super) fn moment(ms: u64) -> String {
    let (seconds, tenths) = (ms / 1000, ms % 1000 / 100);
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = match hours {
        0 => format!("{minutes}:{rest:02}"),
        _ => format!("{hours}:{minutes:02}:{rest:02}"),
    };
    if tenths > 0 {
        text.push_str(&format!(".{tenths}"));
    }
    text
}

/// A time to an answer: `240 µs`, `1.4 ms`, `12 ms`, `2 s`.
pub(super) fn latency(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..10_000 => match (us / 1000, us % 1000 / 100) {
            (ms, 0) => format!("{ms} ms"),
            (ms, tenths) => format!("{ms}.{tenths} ms"),
        },
        10_000..1_000_000 => format!("{} ms", us / 1000),
        _ => match (us / 1_000_000, us % 1_000_000 / 100_000) {
            (seconds, 0) => format!("{} s", count(seconds)),
            (seconds, tenths) => format!("{}.{tenths} s", count(seconds)),
        },
    }
}

/// `text`, or its beginning where it is longer than there is room for.
pub(super) fn shortened(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (184_233, "184,233"),
            (12_345_678, "12,345,678"),
        ] {
            assert_eq!(count(number), text);
        }
        assert_eq!(counted(1, "fault", "faults"), "1 fault");
    }

    #[test]
    fn times_are_as_precise_as_they_need_be() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1949, "1.9 s"),
            (1950, "2.0 s"),
            (59_949, "59.9 s"),
            (59_950, "1 min"),
            (125_000, "2 min 5 s"),
            (3_599_600, "1 h"),
            (3_720_000, "1 h 2 min"),
        ] {
            assert_eq!(duration(ms), text, "{ms}");
        }
        for (ms, text) in [(0, "0:00"), (65_000, "1:05"), (3_720_500, "1:02:00.5")] {
            assert_eq!(moment(ms), text, "{ms}");
        }
        for (us, text) in [
            (240, "240 µs"),
            (1000, "1 ms"),
            (1490, "1.4 ms"),
            (12_900, "12 ms"),
            (2_000_000, "2 s"),
        ] {
            assert_eq!(latency(us), text, "{us}");
        }
        assert_eq!(duration(u64::MAX), "5,124,095,576,030 h 25 min");
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        assert_eq!(shortened("partition-long", 6), "parti…");
        assert_eq!(shortened("n1", 6), "n1");
    }
}
