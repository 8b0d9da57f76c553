//! Programs that use a cluster, each in a process of its own, and speak with a test by lines.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::ASK_AGAIN;

/// How long a line is waited for: only a program that says nothing any more fails.
const PATIENCE: Duration = Duration::from_secs(90);

/// Lines that nobody has taken yet; with more of them the program waits.
const LINES_COUNT_MAX: usize = 4096;

/// A program that runs. It ends with this, and with the test, however that ends.
#[derive(Debug)]
pub struct Program {
    name: String,
    process: Child,
    orders: ChildStdin,
    lines: Receiver<String>,
    pid_file: PathBuf,
}

impl Program {
    /// Starts one, whose home is a directory of its own in `dir`, where a keeper looks.
    pub(super) fn start(dir: &Path, name: &str, command: &mut Command) -> Self {
        let home = dir.join(name);
        fs::create_dir_all(&home).expect("the temporary directory is writable");
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let pid_file = home.join("pid");
        fs::write(&pid_file, process.id().to_string()).expect("the pid can be written");
        let orders = process.stdin.take().expect("it is piped");
        let out = BufReader::new(process.stdout.take().expect("it is piped"));
        let (sender, lines) = sync_channel(LINES_COUNT_MAX);
        // Ends with the program, or when nobody listens.
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|it| sender.send(it)));
        Self { name: name.to_owned(), process, orders, lines, pid_file }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Tells it something.
    ///
    /// # Panics
    /// If it has ended.
    #[track_caller]
    pub fn say(&mut self, line: &str) {
        let said = writeln!(self.orders, "{line}").and_then(|()| self.orders.flush());
        said.unwrap_or_else(|error| panic!("{} does not listen: {error}", self.name));
    }

    /// The next line that it says.
    ///
    /// # Panics
    /// If it has ended, or says nothing for long.
    #[track_caller]
    pub fn hear(&self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(error) => panic!("{} says nothing: {error}", self.name),
        }
    }

    /// The next line, if it has said one already; `None` also if it has ended.
    #[must_use]
    pub fn heard(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// Ends it at once, as `kill -9` does, and returns once it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Before the id can be another's.
        let _gone = fs::remove_file(&self.pid_file);
        // Both fail only if it has ended already.
        let _ended = self.process.kill();
        let _ended = self.process.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

/// The first of several programs that says something, and what.
///
/// # Panics
/// If all are silent for long.
#[track_caller]
pub fn hear_first(programs: &[Program]) -> (usize, String) {
    let begun = Instant::now();
    loop {
        for (at, program) in programs.iter().enumerate() {
            if let Some(line) = program.heard() {
                return (at, line);
            }
        }
        assert!(begun.elapsed() < PATIENCE, "nobody says anything");
        thread::sleep(ASK_AGAIN);
    }
}
