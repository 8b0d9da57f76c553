//! A machine, as far as its network goes: a namespace with one device, kept by a process that sleeps.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{switch, tun};

/// How long a process may take to get into its namespace.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Says that we are in a network of our own already.
const ISOLATED: &str = "SCATTERHOARD_PROVE_ISOLATED";

/// The network namespace of one machine. Gone with all that its kernel remembers when this is dropped and
/// no process is left in it.
#[derive(Debug)]
pub struct Machine {
    keeper: Child,
}

impl Machine {
    /// A machine at the address of an end, and the file where its packets go in and out.
    ///
    /// # Errors
    /// It is not allowed, or a tool is missing.
    pub fn boot(end: usize) -> io::Result<(Self, File)> {
        let machine = Self { keeper: keeper()? };
        let device = tun::open(&name(end))?;
        let pid = machine.keeper.id().to_string();
        run(Command::new("ip").args(["link", "set", &name(end), "netns", &pid]))?;
        run(machine.within("sh").args(["-c", &up(end)]))?;
        Ok((machine, device))
    }

    /// A command that runs a program on this machine.
    pub fn within(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.keeper.id())).args(["--", program]);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ended = self.keeper.kill();
        let _ended = self.keeper.wait();
    }
}

/// Puts this process itself into a network of its own, in which it is the clients, and begins it again
/// with the same arguments; or says why that cannot be. Once that was done, makes the clients' device.
///
/// As root in a new network namespace, and otherwise as root of a user namespace, where systems allow
/// that.
///
/// # Errors
/// Why there can be no networks.
pub fn isolate() -> Result<File, String> {
    if !is_isolated() {
        return Err(begin_again());
    }
    clients().map_err(|error| error.to_string())
}

/// Whether [`isolate`] has begun this process again.
pub fn is_isolated() -> bool {
    std::env::var_os(ISOLATED).is_some()
}

fn clients() -> io::Result<File> {
    let device = tun::open(&name(0))?;
    run(Command::new("sh").args(["-c", &up(0)]))?;
    Ok(device)
}

/// Does not return if it succeeds.
fn begin_again() -> String {
    if !cfg!(target_os = "linux") {
        return "networks of their own for nodes are there on Linux only".to_owned();
    }
    let ways: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];
    // Tried with what is needed first, because there is no way back.
    let trial = "ip link set lo up && ip tuntap add dev hoard mode tun";
    let mut why = String::new();
    for way in ways {
        match run(Command::new("unshare").args(way).args(["--", "sh", "-c", trial])) {
            Ok(()) => {
                let Ok(this) = std::env::current_exe() else {
                    return "this program does not know where it is".to_owned();
                };
                let error = Command::new("unshare")
                    .args(way)
                    .arg("--")
                    .arg(this)
                    .args(std::env::args_os().skip(1))
                    .env(ISOLATED, "1")
                    .exec();
                return error.to_string();
            }
            Err(error) => why = error.to_string(),
        }
    }
    format!("nodes cannot have networks of their own here: {why}")
}

/// A process that does nothing in a network namespace of its own, and ends with us.
fn keeper() -> io::Result<Child> {
    let ours = fs::read_link("/proc/self/ns/net")?;
    let keeper = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "unshare", "--net", "--", "sleep", "infinity"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let begun = Instant::now();
    while fs::read_link(format!("/proc/{}/ns/net", keeper.id()))? == ours {
        if begun.elapsed() > START_PATIENCE {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no namespace was made"));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(keeper)
}

/// What the device of an end is called: where it is made there are the clients' too.
fn name(end: usize) -> String {
    format!("hoard{end}")
}

/// What brings the device of an end up, for a shell.
fn up(end: usize) -> String {
    let (name, address) = (name(end), switch::address(end));
    format!(
        "ip link set lo up && ip address add {address}/24 dev {name} && \
         ip link set {name} up mtu 1500 txqueuelen 1000"
    )
}

fn run(command: &mut Command) -> io::Result<()> {
    let Output { status, stderr, .. } = command.stdin(Stdio::null()).output()?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&stderr);
    let program = command.get_program().display();
    Err(io::Error::other(format!("{program}: {}", said.trim().lines().last().unwrap_or("failed"))))
}
