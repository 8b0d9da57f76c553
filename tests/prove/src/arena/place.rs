//! One node's place: its machine, the process that lives there now, and its log.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::net::machine::Machine;
use crate::target::Site;

/// Why a node ended that was not killed by us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Dismissed,
    /// It had been given no more memory.
    Starved,
    /// By itself, and it says why it may.
    Rightly,
    /// By itself. How, and the last that it said.
    Wrongly(String),
}

pub(super) struct Place {
    pub(super) site: Site,
    /// Where it runs, if it has a machine of its own.
    pub(super) machine: Option<Machine>,
    faketime: Option<PathBuf>,
    process: Option<Child>,
    /// Whether a node has ever lived there.
    has_run: bool,
    dismissed: bool,
    starved: bool,
    /// The soft limit on open files that it had before it was fenced in.
    files_max: Option<u64>,
    /// By how many seconds its wall clock is wrong.
    clock_wrong_by_s: i64,
    /// How long the log was when this life began.
    log_begins: u64,
}

impl Place {
    pub(super) fn new(site: Site, faketime: Option<PathBuf>) -> Self {
        Self {
            site,
            machine: None,
            faketime,
            process: None,
            has_run: false,
            dismissed: false,
            starved: false,
            files_max: None,
            clock_wrong_by_s: 0,
            log_begins: 0,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub(super) const fn has_run(&self) -> bool {
        self.has_run
    }

    pub(super) fn launch(&mut self, words: &[OsString]) -> anyhow::Result<()> {
        ensure!(self.process.is_none(), "{} runs already", self.site.name);
        let log = File::options().create(true).append(true).open(self.log_file())?;
        self.log_begins = log.metadata()?.len();
        let mut command = match &self.machine {
            Some(machine) => machine.within("setpriv"),
            None => Command::new("setpriv"),
        };
        // The kernel ends it with us. Its group is its own, so that Ctrl-C is not for it.
        command.args(["--pdeathsig", "KILL", "--", "env"]).process_group(0);
        if let Some(library) = &self.faketime {
            self.write_clock()?;
            let mut preload = OsString::from("LD_PRELOAD=");
            preload.push(library);
            let mut file = OsString::from("FAKETIME_TIMESTAMP_FILE=");
            file.push(self.clock_file());
            command.args([preload, file]);
            // A second after the file has changed the clock has jumped.
            command.args(["FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_CACHE_DURATION=1"]);
        }
        // What is set for a node of the user's is not meant for these.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HOARD_") {
                command.env_remove(name);
            }
        }
        let child = command
            .args(words)
            .current_dir(&self.site.home)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.site.name))?;
        self.process = Some(child);
        self.has_run = true;
        (self.dismissed, self.starved, self.files_max) = (false, false, None);
        Ok(())
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Both fail only if it has ended already.
            let _ended = process.kill();
            let _ended = process.wait();
        }
    }

    pub(super) fn dismiss(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        self.dismissed = true;
        Ok(())
    }

    pub(super) fn hold(&self, still: bool) -> anyhow::Result<()> {
        self.signal(if still { Signal::STOP } else { Signal::CONT })
    }

    /// The clock stays wrong through restarts.
    pub(super) fn set_clock(&mut self, wrong_by_s: i64) -> anyhow::Result<()> {
        self.clock_wrong_by_s = wrong_by_s;
        self.write_clock()
    }

    fn write_clock(&self) -> anyhow::Result<()> {
        // As a whole: it may be read at any time.
        let draft = self.site.home.join("clock.new");
        fs::write(&draft, format!("{:+}\n", self.clock_wrong_by_s))?;
        fs::rename(draft, self.clock_file())?;
        Ok(())
    }

    pub(super) fn starve(&mut self) -> anyhow::Result<()> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
        let size = size.and_then(|size| size.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        let size = size.context("the kernel does not say how large a process is")? * 1024;
        self.limit("as", &size.to_string())?;
        self.starved = true;
        Ok(())
    }

    pub(super) fn feed(&mut self) -> anyhow::Result<()> {
        if self.is_running() && self.starved {
            self.limit("as", "unlimited")?;
            self.starved = false;
        }
        Ok(())
    }

    pub(super) fn fence(&mut self) -> anyhow::Result<()> {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.pid()?))?;
        let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        let files = files.and_then(|files| files.split_whitespace().next()?.parse().ok());
        self.files_max = Some(files.context("the kernel does not tell a process's limits")?);
        // Fewer than it has: what is open stays open, and no more is opened.
        self.limit("nofile", "3")
    }

    pub(super) fn unfence(&mut self) -> anyhow::Result<()> {
        match self.files_max.take() {
            Some(files_max) if self.is_running() => self.limit("nofile", &files_max.to_string()),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn ended(&mut self, may_end: impl Fn(&str) -> bool) -> Option<Ended> {
        let status = self.process.as_mut()?.try_wait().ok()??;
        self.process = None;
        let log = self.log();
        let life = usize::try_from(self.log_begins).ok().and_then(|begin| log.get(begin..));
        Some(match life.unwrap_or(&log) {
            _ if self.dismissed && status.success() => Ended::Dismissed,
            _ if self.starved => Ended::Starved,
            life if may_end(life) => Ended::Rightly,
            life => {
                let last = life.lines().last().unwrap_or("nothing");
                Ended::Wrongly(format!("{status}; it said last: {last}"))
            }
        })
    }

    pub(super) fn log(&self) -> String {
        let bytes = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sets a soft limit; the hard one stays, so that the soft one can be raised again.
    fn limit(&self, resource: &str, value: &str) -> anyhow::Result<()> {
        let done = Command::new("prlimit")
            .args([format!("--pid={}", self.pid()?), format!("--{resource}={value}:")])
            .output()
            .context("prlimit (Debian: util-linux)")?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "prlimit: {}", said.trim());
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid()?)?).context("a process has an id")?;
        kill_process(pid, signal).with_context(|| format!("telling {}", self.site.name))
    }

    fn pid(&self) -> anyhow::Result<u32> {
        let process = self.process.as_ref();
        Ok(process.with_context(|| format!("{} does not run", self.site.name))?.id())
    }

    fn log_file(&self) -> PathBuf {
        self.site.home.join("log")
    }

    fn clock_file(&self) -> PathBuf {
        self.site.home.join("clock")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::ports::Ports;

    #[test]
    fn a_place_has_seen_a_node_from_its_first_start_on() {
        let home = std::env::temp_dir().join(format!("place-{}", std::process::id()));
        fs::create_dir_all(&home).unwrap();
        let ports = Ports::on(Ipv4Addr::LOCALHOST.into());
        let site = Site { number: 4, name: "n4".to_owned(), ports, home: home.clone() };
        let mut place = Place::new(site, None);
        assert!(!place.has_run());
        place.launch(&["true".into()]).unwrap();
        place.kill();
        assert!(place.has_run() && !place.is_running());
        fs::remove_dir_all(home).unwrap();
    }
}
