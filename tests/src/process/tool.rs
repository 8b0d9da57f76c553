//! Programs that are not ours, run as a person would: `redis-cli`, `redis-benchmark`, `hoard` itself.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// How long a program may run, in seconds.
const PATIENCE_S: u32 = 60;

/// `timeout`'s exit status when time was up, if the program then went, or had to be killed.
const TIMED_OUT: [i32; 2] = [124, 137];

/// What a program left behind.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// What it wrote to its standard output.
    pub out: String,
    /// What it wrote to its standard error.
    pub err: String,
}

impl Finished {
    /// Its output, if it ended well.
    ///
    /// # Panics
    /// If it did not.
    #[must_use]
    #[track_caller]
    pub fn well(self) -> String {
        assert_eq!(self.status, Some(0), "{}{}", self.out, self.err);
        self.out
    }
}

/// Runs a program to its end. Its standard input is empty.
///
/// # Panics
/// If it is not installed (Debian: `redis-tools`), or does not end within a minute.
#[track_caller]
pub fn run<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = S>,
) -> Finished {
    let program = program.as_ref();
    let output = Command::new("timeout")
        .args(["--kill-after=1", &PATIENCE_S.to_string()])
        .arg(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("coreutils are installed");
    let program = program.display();
    let finished = Finished {
        status: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    assert_ne!(finished.status, Some(127), "{program} is not installed");
    let in_time = finished.status.is_none_or(|status| !TIMED_OUT.contains(&status));
    assert!(in_time, "{program} did not end: {finished:?}");
    finished
}
