//! Three nodes on this machine, as `scripts/cluster` starts them.
//!
//! `HOARD_BIN` names the binary, `HOARD_PORT` the port of the first (17301; the script's help says which others it
//! takes).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

const COUNT: u16 = 3;
const PORT: u16 = 17_301;

/// Who has no binary is told so.
pub(crate) const MISSING: &str = "HOARD_BIN names no binary: build one with `cargo build --release -p scatterhoard`, \
                                  and set HOARD_BIN=target/release/hoard (from this directory: an absolute path)";

/// Nodes that end with their owner.
pub(crate) struct Nodes {
    script: PathBuf,
    dir: PathBuf,
    port: u16,
}

impl Nodes {
    /// Starts them; `None` if `HOARD_BIN` is not set.
    ///
    /// # Panics
    /// They do not start, and the script has said why.
    pub(crate) fn start() -> Option<Self> {
        let hoard = env::var_os("HOARD_BIN")?;
        let port = env::var("HOARD_PORT").ok().map_or(PORT, |it| it.parse().expect("a port"));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/cluster");
        let dir = env::temp_dir().join(format!("hoard-benches.{}", std::process::id()));
        // Made before the call, so that what came up only in part is ended too.
        let nodes = Self { script, dir, port };
        let mut up = nodes.run(&["up", &COUNT.to_string(), "--port", &port.to_string()]);
        let status = up.env("HOARD_BIN", hoard).status().expect("the script can be run");
        assert!(status.success(), "the nodes did not start");
        // Whoever is killed does not end them.
        eprintln!(
            "nodes run; if they outlive this: scripts/cluster down --dir {}",
            nodes.dir.display()
        );
        Some(nodes)
    }

    /// Where they take clients of clusters.
    pub(crate) fn addresses(&self) -> Vec<String> {
        (0..COUNT).map(|node| format!("127.0.0.1:{}", self.port + node)).collect()
    }

    fn run(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.script);
        command.args(words).arg("--dir").arg(&self.dir);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        let down = self.run(&["down"]).status();
        if !down.is_ok_and(|status| status.success()) {
            eprintln!("could not end the nodes in {}", self.dir.display());
        }
        // Only what they logged is left in it.
        let _ = fs::remove_dir_all(&self.dir);
    }
}
