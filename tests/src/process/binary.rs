//! Where the binary `hoard` is, built if need be.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The binary: what the variable `HOARD` names, or else the one beside the running test, which is built
/// first, so that no test runs against yesterday's.
///
/// # Panics
/// If it cannot be built.
pub fn hoard() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match env::var_os("HOARD") {
        Some(path) => PathBuf::from(path),
        None => built(),
    })
}

fn built() -> PathBuf {
    let running = env::current_exe().expect("a running program has a path");
    let profile_dir = running
        .ancestors()
        .skip(1)
        .find(|dir| !dir.ends_with("deps"))
        .expect("a program lies in a directory");
    let target_dir = profile_dir.parent().expect("a profile's directory lies in the target's");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--quiet", "--package", "scatterhoard", "--bin", "hoard"])
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    if profile_dir.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "`hoard` could not be built; HOARD=PATH names one that is");
    profile_dir.join("hoard")
}
