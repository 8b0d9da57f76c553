//! What is to be known of this machine.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

const SECONDS_PER_DAY: u64 = 86_400;

/// Cores, memory, kernel, and whether nodes have networks of their own; for people.
pub(crate) fn describe(networks: bool) -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = fs::read_to_string("/proc/meminfo").ok();
    let memory_kib: Option<u64> = memory.as_deref().and_then(|text| {
        text.lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut words = vec![format!("{cores} cores")];
    words.extend(memory_kib.map(|kib| format!("{} GiB", kib.div_ceil(1 << 20))));
    words.push(match kernel.trim() {
        "" => std::env::consts::OS.to_owned(),
        kernel => format!("Linux {kernel}"),
    });
    words.push(
        if networks { "each node in a network of its own" } else { "all nodes on loopback" }
            .to_owned(),
    );
    words.join(", ")
}

/// libfaketime, where Linux distributions put it. The one for programs with threads.
pub(crate) fn faketime() -> Option<PathBuf> {
    const NAME: &str = "faketime/libfaketimeMT.so.1";
    let roots = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from);
    let nested = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|it| it.path());
    roots.into_iter().chain(nested).map(|root| root.join(NAME)).find(|path| path.exists())
}

/// The time of day in UTC, in RFC 3339.
pub(crate) fn now() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    rfc3339(since.as_secs())
}

/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn rfc3339(unix_s: u64) -> String {
    let (days, second) = (unix_s / SECONDS_PER_DAY + 719_468, unix_s % SECONDS_PER_DAY);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        // `date --utc --date=@… --iso-8601=seconds`
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_273_871), "2026-11-21T15:11:11Z");
    }
}
