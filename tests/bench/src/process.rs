//! Processes: started so that they cannot outlive us, and what the kernel says they use.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

/// The kernel's unit for times in `/proc/PID/stat`. Linux fixes it for user space on every platform we
/// build for (`getconf CLK_TCK`).
const TICKS_PER_SECOND: u64 = 100;

/// Which CPU a process is bound to, if to any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// It runs where the kernel puts it.
    Anywhere,
    /// It runs on this CPU only.
    Cpu(usize),
}

/// A command that starts `words` bound as asked, and that the kernel ends when we end, however we end.
#[must_use]
pub fn command(words: &[String], pin: Pin) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    if let Pin::Cpu(cpu) = pin {
        command.args(["taskset", "-c", &cpu.to_string()]);
    }
    command.args(words).stdin(Stdio::null());
    command
}

/// A server that we started. Ends with its owner.
#[derive(Debug)]
pub struct Server(Child);

impl Server {
    /// Starts a server that writes what it has to say to `log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(words: &[String], pin: Pin, log: &Path) -> anyhow::Result<Self> {
        let log = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let child = command(words, pin)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", words.join(" ")))?;
        Ok(Self(child))
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid(self.0.id())
    }

    /// # Errors
    /// If it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let ended = self.0.try_wait()?;
        ensure!(ended.is_none(), "it ended by itself: {}", ended.expect("just tested"));
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pid(u32);

impl Pid {
    /// Reads the number of a process from a file.
    ///
    /// # Errors
    /// If there is none in it.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text =
            fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        Ok(Self(text.trim().parse()?))
    }

    /// User and system time since the process began, all threads.
    ///
    /// # Errors
    /// If it does not run.
    pub fn cpu(self) -> anyhow::Result<Duration> {
        cpu_of(&format!("/proc/{}/stat", self.0))
    }

    /// Memory that it holds now.
    ///
    /// # Errors
    /// If it does not run.
    pub fn rss_bytes(self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.0);
        let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmRSS")?;
        Ok(kib.trim().parse::<u64>()? * 1024)
    }
}

/// User and system time of this process.
///
/// # Errors
/// If there is no `/proc`.
pub fn own_cpu() -> anyhow::Result<Duration> {
    cpu_of("/proc/self/stat")
}

fn cpu_of(path: &str) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("no times in {path}"))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// `proc(5)`: utime and stime are fields 14 and 15; the second, the name, may contain anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut times = after_name.split_ascii_whitespace().skip(11);
    let mut ticks = || times.next()?.parse::<u64>().ok();
    Some(ticks()? + ticks()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (a"), None);
    }

    #[test]
    fn we_have_memory_and_time() {
        let me = Pid(std::process::id());
        assert!(me.rss_bytes().unwrap() > 100_000);
        assert!(me.cpu().is_ok() && own_cpu().is_ok());
    }
}
