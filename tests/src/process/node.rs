//! One place in a cluster: its ports, its flags, its log, and the process that lives there now.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::Ports;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) ports: Ports,
    home: PathBuf,
    pub(super) flags: Vec<String>,
    /// Hard limit on its open files; none: that of this process.
    pub(super) files_max: Option<u32>,
    process: Option<Child>,
}

impl Node {
    pub(super) fn new(home: PathBuf, ports: Ports, flags: Vec<String>) -> Self {
        Self { ports, home, flags, files_max: None, process: None }
    }

    pub(super) fn start(&mut self, hoard: &Path) {
        assert!(self.process.is_none(), "the node runs already");
        let log = File::options().create(true).append(true).open(self.home.join("log"));
        let log = log.expect("the log can be written");
        let mut command = match self.files_max {
            None => Command::new(hoard),
            Some(count) => {
                // The shell has it built in; the standard library sets no limits.
                let mut shell = Command::new("sh");
                shell.args(["-c", "ulimit -n \"$1\" && shift && exec \"$@\"", "sh"]);
                shell.arg(count.to_string()).arg(hoard);
                shell
            }
        };
        let child = command
            .arg("node")
            .args(self.ports.flags())
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor is left"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", hoard.display()));
        fs::write(self.pid_file(), child.id().to_string()).expect("the pid can be written");
        self.process = Some(child);
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    pub(super) fn kill(&mut self) {
        assert!(self.process.is_some(), "the node runs");
        self.end();
    }

    /// Ends the process, if there is one, and returns once it is gone.
    pub(super) fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Before the id can be another's.
            let _gone = fs::remove_file(self.pid_file());
            // Both fail only if it has ended already.
            let _ended = process.kill();
            let _ended = process.wait();
        }
    }

    pub(super) fn signal(&mut self, name: &str) {
        let pid = self.pid().expect("the node runs");
        // The shell has `kill` built in; the standard library sends no signals but one.
        let sent = Command::new("sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()])
            .status()
            .expect("there is a shell");
        assert!(sent.success(), "SIG{name} could not be sent");
    }

    /// How the process ended, if it just did. After that it is as if it had been killed.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut()?.try_wait().expect("a child can be waited for")?;
        self.end();
        Some(status)
    }

    pub(super) fn log(&self) -> String {
        let bytes = fs::read(self.home.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn pid_file(&self) -> PathBuf {
        self.home.join("pid")
    }
}
