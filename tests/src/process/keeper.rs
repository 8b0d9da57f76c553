//! Ends the processes of a cluster if the test that started them is itself killed, and drops nothing.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A shell that waits for us to end, however we end: then the system closes the pipe that it reads from.
/// Only what has a pid file is ended, so ending a cluster properly leaves it nothing to do.
#[derive(Debug)]
pub(super) struct Keeper(Child);

const SCRIPT: &str = r#"read -r _; for pid in "$0"/*/pid; do kill -9 "$(cat "$pid")"; done"#;

impl Keeper {
    /// Watches over the processes whose ids are in `dir/*/pid`.
    pub(super) fn watch(dir: &Path) -> Self {
        let shell = Command::new("sh")
            .args(["-c", SCRIPT])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(shell.expect("there is a shell"))
    }

    /// Ends the watch. By now there are no processes left.
    pub(super) fn dismiss(&mut self) {
        drop(self.0.stdin.take());
        let _whatever = self.0.wait();
    }
}
